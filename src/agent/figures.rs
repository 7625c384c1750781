//! What this agent knows of itself, read from every room and given the names that people know: Consul's, where it has
//! the same, and `lictor.` names for the rest.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    COMPATIBLE_VERSION, Shared,
    backing::{Backing, Unwritten},
    now,
};
use crate::{
    catalog::{Catalog, Command, Reply, Status, Subscribe},
    check,
    count::{Counter, Measured, Spread},
    dns,
    http::{self, Live},
    raft::{ProposeError, Raft},
    rpc,
    telemetry::{Figure, Following, Interval, Monitor, Telemetry, of_process},
};

/// What is counted here, and where the rooms count.
pub struct Figures {
    pub telemetry: Telemetry,
    pub monitor: Monitor,
    pub dns: Arc<dns::Counters>,
    pub checks: Arc<check::Counters>,
    pub http: Arc<http::Counters>,
    /// What other agents ask of this one, where it is a server.
    pub asked: Option<Arc<rpc::Counters>>,
    pub written: Written,
    /// Commands by which the catalog was told of what is registered here; those that were not written.
    pub told: Counter,
    pub not_told: Counter,
    start: Instant,
    rows: Mutex<Rows>,
}

/// How long writes took, in nanoseconds, by what they write.
#[derive(Default)]
pub struct Written {
    register: Spread,
    deregister: Spread,
    kv: Spread,
    session: Spread,
    txn: Spread,
    query: Spread,
}

/// What the catalog holds. Counted anew when it has changed.
#[derive(Clone, Copy, Default)]
struct Rows {
    index: u64,
    nodes: usize,
    services: usize,
    instances: usize,
    keys: usize,
    /// Passing, warning, critical.
    checks: [usize; 3],
}

type Read = fn(&Spread) -> Measured;

impl Figures {
    pub fn new(
        telemetry: Telemetry,
        checks: Arc<check::Counters>,
        http: Arc<http::Counters>,
        asked: Option<Arc<rpc::Counters>>,
        monitor: Monitor,
    ) -> Self {
        Figures {
            telemetry,
            monitor,
            dns: Arc::default(),
            checks,
            http,
            asked,
            written: Written::default(),
            told: Counter::default(),
            not_told: Counter::default(),
            start: now(),
            rows: Mutex::default(),
        }
    }

    fn rows(&self, catalog: &Catalog) -> Rows {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.index != catalog.index() {
            *rows = Rows::of(catalog);
        }
        *rows
    }
}

impl Written {
    fn of(&self, command: &Command) -> Option<&Spread> {
        Some(match command {
            Command::Register(_) => &self.register,
            Command::Deregister { .. } => &self.deregister,
            Command::Kv(_) => &self.kv,
            Command::Session(_) => &self.session,
            Command::Txn(_) => &self.txn,
            Command::Query(_) => &self.query,
            _ => return None,
        })
    }

    fn figures(&self, read: Read) -> impl Iterator<Item = Figure> {
        let all = [
            ("consul.catalog.register", "Registrations written to the catalog, in ms.", &self.register),
            ("consul.catalog.deregister", "Deregistrations written to the catalog, in ms.", &self.deregister),
            ("consul.kvs.apply", "Writes of keys, in ms.", &self.kv),
            ("consul.session.apply", "Writes of sessions, in ms.", &self.session),
            ("consul.txn.apply", "Transactions, in ms.", &self.txn),
            ("consul.prepared-query.apply", "Writes of prepared queries, in ms.", &self.query),
        ];
        all.into_iter().map(move |(name, help, spread)| Figure::time(name, help, read(spread)))
    }
}

impl Rows {
    fn of(catalog: &Catalog) -> Self {
        let mut rows = Rows {
            index: catalog.index(),
            nodes: catalog.node_count(),
            services: catalog.service_count(),
            keys: catalog.entry_count(),
            ..Rows::default()
        };
        for home in catalog.nodes() {
            rows.instances += home.instances().count();
            for check in home.all_checks() {
                match check.status {
                    Status::Passing => rows.checks[0] += 1,
                    Status::Warning => rows.checks[1] += 1,
                    Status::Critical => rows.checks[2] += 1,
                    Status::Other(_) => {}
                }
            }
        }
        rows
    }

    fn figures(&self, datacenter: &str) -> Vec<Figure> {
        let gauge =
            |name, help, value: usize| Figure::gauge(name, help, value as f64).with("datacenter", datacenter);
        let mut figures = vec![
            gauge("consul.state.nodes", "Nodes in the catalog.", self.nodes),
            gauge("consul.state.services", "Names of services in the catalog.", self.services),
            gauge("consul.state.service_instances", "Instances of services in the catalog.", self.instances),
            gauge("consul.state.kv_entries", "Keys in the catalog.", self.keys),
        ];
        for (status, count) in ["passing", "warning", "critical"].into_iter().zip(self.checks) {
            let help = "Checks in the catalog, by their status.";
            figures.push(Figure::gauge("lictor.catalog.checks", help, count as f64).with("status", status));
        }
        figures.push(Figure::gauge(
            "lictor.catalog.index",
            "Changes to the catalog so far.",
            self.index as f64,
        ));
        figures
    }
}

impl Shared {
    /// Puts a command to the log.
    pub(super) async fn propose(&self, command: Command) -> Result<Reply, Unwritten> {
        let (spread, start) = (self.figures.written.of(&command), now());
        let reply = self.backing.propose(command).await;
        if let (true, Some(spread)) = (reply.is_ok(), spread) {
            spread.record_time(start.elapsed());
        }
        reply
    }

    /// Everything, at this time. Takes a moment where the catalog is large: not for a thread that others need.
    fn figures(&self, read: Read) -> Vec<Figure> {
        let mut figures = match &self.backing {
            Backing::Server(server) => {
                let mut figures = self.of_servers(&server.raft);
                figures.extend(of_raft(&server.raft, read));
                figures.extend(self.figures.rows(&server.raft.catalog()).figures(&self.identity.datacenter));
                figures
            }
            Backing::Client(client) => of_calls(client.rpc.counters()),
        };
        figures.extend(self.figures.asked.iter().flat_map(|counters| of_asked(counters)));
        figures.push(version());
        figures.extend(self.of_pool());
        figures.extend(self.figures.written.figures(read));
        figures.extend(self.of_dns(read));
        figures.extend(self.of_checks(read));
        figures.extend(self.of_http(read));
        figures.push(Figure::count(
            "lictor.agent.sync_writes",
            "Commands by which the catalog was told of what is registered here.",
            self.figures.told.get(),
        ));
        figures.push(Figure::count(
            "lictor.agent.sync_failures",
            "Commands of this kind that were refused or not written.",
            self.figures.not_told.get(),
        ));
        figures.extend(of_process(self.figures.start.elapsed()));
        figures
    }

    fn of_servers(&self, raft: &Raft) -> Vec<Figure> {
        let is_leader = f64::from(u8::from(raft.is_leader()));
        vec![
            Figure::gauge("consul.server.isLeader", "1 where this server leads.", is_leader),
            Figure::gauge("consul.autopilot.healthy", "1 where every server is well.", is_leader),
            Figure::gauge(
                "consul.autopilot.failure_tolerance",
                "Servers that may fail without an end to writes.",
                (raft.peers().len().saturating_sub(1) / 2) as f64,
            ),
        ]
    }

    fn of_dns(&self, read: Read) -> Vec<Figure> {
        let (counters, node) = (&self.figures.dns, &*self.identity.node_name);
        let mut figures = vec![
            Figure::time(
                "consul.dns.domain_query",
                "Questions for names of the catalog, and what they took on the road, in ms.",
                counters.spent(dns::Form::is_of_domain, read),
            )
            .with("node", node),
            Figure::time(
                "consul.dns.ptr_query",
                "Questions for who lives at an address, and what they took on the road, in ms.",
                counters.spent(|form| form == dns::Form::Reverse, read),
            )
            .with("node", node),
            Figure::count("lictor.dns.silent", "Packets that are no questions.", counters.silent()),
            Figure::count(
                "lictor.dns.turned_away",
                "TCP connections for which there was no room.",
                counters.turned_away.get(),
            ),
            Figure::count(
                "lictor.dns.recursion_hits",
                "Answered from what recursors said before.",
                counters.cache_hits.get(),
            ),
            Figure::count("lictor.dns.recursion_misses", "Asked of recursors.", counters.cache_misses.get()),
            Figure::gauge(
                "lictor.dns.recursion_waiting",
                "Questions that wait for something from elsewhere.",
                counters.waiting() as f64,
            ),
            Figure::count("lictor.dns.shed", "Questions refused since too many wait.", counters.shed.get()),
        ];
        for dns::Answered { form, kind, code, road, count } in counters.answered() {
            let figure = Figure::count("lictor.dns.queries", "Questions that were answered.", count);
            let figure = figure.with("form", form.word()).with("type", kind);
            figures.push(figure.with("rcode", code).with("road", road.word()));
        }
        figures
    }

    fn of_http(&self, read: Read) -> Vec<Figure> {
        let counters = &self.figures.http;
        let mut figures = Vec::new();
        for (method, status, count) in counters.answers().filter(|(.., count)| *count > 0) {
            let figure = Figure::count("lictor.http.answers", "Answers over HTTP.", count);
            figures.push(figure.with("method", method).with("status", status));
        }
        for (path, method, spread) in counters.spent() {
            let spent = read(spread);
            if spent.count > 0 {
                let help = "Requests by method and route, their waits included, in ms.";
                let figure = Figure::time("consul.api.http", help, spent).with("method", method);
                figures.push(figure.with("path", path.trim_start_matches('/').replace('/', "_")));
            }
        }
        for limit in http::Refused::ALL {
            let help =
                "What was refused over HTTP because of a limit, or would be if the mode were enforcing.";
            let figure = Figure::count("lictor.http.refused", help, counters.refusals(limit));
            figures.push(figure.with("limit", limit.word()));
        }
        figures
    }

    fn of_checks(&self, read: Read) -> Vec<Figure> {
        let counters = &self.figures.checks;
        let mut figures = Vec::new();
        for (kind, status, count) in counters.seen().filter(|(.., count)| *count > 0) {
            let help = "Looks of checks, by what they saw; and TTLs that ran out.";
            let figure = Figure::count("lictor.check.runs", help, count).with("kind", kind);
            figures.push(figure.with("status", status.to_string()));
        }
        for (kind, spread) in counters.spent() {
            let spent = read(spread);
            if spent.count > 0 {
                figures.push(
                    Figure::time("lictor.check.run", "What looks took, in ms.", spent).with("kind", kind),
                );
            }
        }
        figures
    }

    /// Of the last whole interval; before the first is over, of what there was so far.
    pub(super) async fn newest_interval(self: &Arc<Self>) -> Arc<Interval> {
        if let Some(newest) = self.figures.telemetry.newest() {
            return newest;
        }
        let figures = self.read_figures(Spread::read).await;
        Arc::new(self.figures.telemetry.so_far(figures))
    }

    pub(super) async fn read_figures(self: &Arc<Self>, read: Read) -> Vec<Figure> {
        let shared = self.clone();
        // Nothing in there panics; were it to, there would be no figures and no other harm.
        tokio::task::spawn_blocking(move || shared.figures(read)).await.unwrap_or_default()
    }
}

fn of_raft(raft: &Raft, read: Read) -> Vec<Figure> {
    let (stats, counters, waiters) = (raft.stats(), raft.counters(), raft.waiters());
    let commands = read(&counters.entry_commands);
    let mut figures = vec![
        Figure::count("consul.raft.apply", "Commands that were committed.", commands.sum as u64),
        Figure::time(
            "consul.raft.commitTime",
            "From giving an entry to the log to having it applied, in ms.",
            read(&counters.commit),
        ),
        Figure::gauge("consul.raft.peers", "Servers with a voice.", raft.peers().len() as f64),
        Figure::gauge("consul.raft.last_index", "The newest entry of the log.", stats.last.0 as f64),
        Figure::gauge("consul.raft.applied_index", "The newest that is applied.", stats.applied_index as f64),
        Figure::measured("lictor.raft.entry_commands", "Commands in each entry of the log.", commands),
        Figure::time(
            "lictor.raft.sync",
            "What the disk took for each transaction of the log, its sync included, in ms.",
            read(&counters.sync),
        ),
        Figure::gauge("lictor.raft.log_bytes", "What the log holds.", stats.log_bytes as f64),
        Figure::count("lictor.raft.snapshots", "Snapshots that were taken.", counters.snapshots.get()),
        Figure::gauge("lictor.watch.waiting", "Who waits for a change.", waiters.waiting() as f64),
        Figure::count("lictor.watch.woken", "How often someone was woken by one.", waiters.woken()),
    ];
    for error in ProposeError::ALL {
        let help = "Writes that were refused, or whose outcome is not known, by the reason.";
        let refused = counters.refused(error).get();
        figures.push(Figure::count("lictor.raft.refused", help, refused).with("reason", error.word()));
    }
    figures
}

fn of_calls(counters: &rpc::Counters) -> Vec<Figure> {
    vec![
        Figure::count("consul.client.rpc", "Calls to servers.", counters.calls.get()),
        Figure::count("consul.client.rpc.failed", "Calls that came to nothing.", counters.failed.get()),
    ]
}

fn of_asked(counters: &rpc::Counters) -> [Figure; 4] {
    [
        Figure::count(
            "consul.rpc.accept_conn",
            "Connections of other agents that were accepted.",
            counters.accepted.get(),
        ),
        Figure::count("consul.rpc.request", "What other agents asked.", counters.requests.get()),
        Figure::count(
            "consul.rpc.request_error",
            "What other agents asked and was not done.",
            counters.not_done.get(),
        ),
        Figure::count(
            "lictor.rpc.turned_away",
            "Connections of other agents for which there was no room.",
            counters.turned_away.get(),
        ),
    ]
}

fn version() -> Figure {
    let help = "The Consul that this agent keeps to, and its own version.";
    Figure::gauge("consul.version", help, 1.0)
        .with("version", COMPATIBLE_VERSION)
        .with("lictor", env!("CARGO_PKG_VERSION"))
}

/// Intervals as they end, a line of JSON each.
pub fn intervals(mut newest: watch::Receiver<Option<Arc<Interval>>>) -> Live {
    Live::new(async move {
        newest.changed().await.ok()?;
        let json = newest.borrow_and_update().as_ref().map(|interval| interval.to_json());
        let line = [json.unwrap_or_default(), b"\n".to_vec()].concat();
        Some((line.into(), intervals(newest)))
    })
}

/// Lines of the log as they are said.
pub fn lines(mut following: Following) -> Live {
    Live::new(async move {
        let line = following.next().await?;
        Some((line.into(), lines(following)))
    })
}

/// Ends an interval every ten seconds.
pub async fn keep(shared: Arc<Shared>, stop: CancellationToken) {
    let telemetry = &shared.figures.telemetry;
    while stop.run_until_cancelled(tokio::time::sleep(telemetry.rest_of_interval())).await.is_some() {
        let figures = shared.read_figures(Spread::take).await;
        telemetry.close(figures);
    }
}
