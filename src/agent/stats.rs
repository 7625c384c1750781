//! Figures of this agent under the names that `info` prints (`config-cli.md` §5.1). What a datacenter of one server cannot
//! have is 0; nothing is made up.

use super::{COMPATIBLE_VERSION, Shared, backing::Backing};
use crate::{
    catalog::Text,
    check::Kind,
    gossip,
    http::Agent,
    raft::{ProposeError, Raft},
};

/// Figures by section.
type Figures = Vec<(Text, Vec<(Text, Text)>)>;

impl Shared {
    pub(super) fn stats(&self) -> Figures {
        let mut figures = vec![
            section("agent", self.registered_figures()),
            section(
                "build",
                [
                    ("prerelease", String::new()),
                    ("revision", String::new()),
                    ("version", COMPATIBLE_VERSION.into()),
                    ("version_metadata", String::new()),
                    ("lictor", env!("CARGO_PKG_VERSION").into()),
                ],
            ),
        ];
        match &self.backing {
            Backing::Server(server) => {
                figures.push(section("consul", self.server_figures(&server.raft)));
                figures.push(section("raft", self.raft_figures(&server.raft)));
            }
            Backing::Client(client) => figures.push(section(
                "consul",
                [
                    ("acl", "disabled".into()),
                    ("known_servers", client.rpc.servers().to_string()),
                    ("server", "false".into()),
                ],
            )),
        }
        figures.push(section("runtime", runtime_figures()));
        figures.push(section("serf_lan", self.pool_figures()));
        figures.extend(
            self.identity
                .serf_wan_port
                .filter(|_| self.backing.server().is_some())
                .map(|_| section("serf_wan", self.wan_figures())),
        );
        figures
    }

    fn registered_figures(&self) -> [(&'static str, String); 4] {
        let state = self.state();
        let (services, checks) = (state.local.services().count(), state.local.checks());
        let ids: Vec<_> = checks.map(|(id, _)| id.clone()).collect();
        let of_kind = |is: fn(&Kind) -> bool| {
            ids.iter().filter(|id| state.local.definition(id).is_some_and(|own| is(&own.kind))).count()
        };
        [
            ("check_monitors", of_kind(|kind| matches!(kind, Kind::Script { .. })).to_string()),
            ("check_ttls", of_kind(|kind| matches!(kind, Kind::Ttl(_))).to_string()),
            ("checks", ids.len().to_string()),
            ("services", services.to_string()),
        ]
    }

    fn server_figures(&self, raft: &Raft) -> [(&'static str, String); 6] {
        let leader = self.leader();
        [
            ("acl", "disabled".into()),
            ("bootstrap", "true".into()),
            ("known_datacenters", "1".into()),
            ("leader", raft.is_leader().to_string()),
            ("leader_addr", leader.map(|leader| leader.to_string()).unwrap_or_default()),
            ("server", "true".into()),
        ]
    }

    fn raft_figures(&self, raft: &Raft) -> Vec<(&'static str, String)> {
        let stats = raft.stats();
        let refused = raft.counters().refused(ProposeError::DiskFull).get();
        let voter = format!("{{Suffrage:Voter ID:{} Address:", self.identity.node_id);
        let voters = raft.peers().iter().map(|peer| format!("{voter}{peer}}}")).collect::<Vec<_>>();
        vec![
            ("applied_index", stats.applied_index.to_string()),
            // A lone voter applies what it has agreed on at once.
            ("commit_index", stats.applied_index.to_string()),
            ("fsm_pending", "0".into()),
            ("last_contact", "0".into()),
            ("last_log_index", stats.last.0.to_string()),
            ("last_log_term", stats.last.1.to_string()),
            ("last_snapshot_index", stats.snapshot.0.to_string()),
            ("last_snapshot_term", stats.snapshot.1.to_string()),
            ("latest_configuration", format!("[{}]", voters.join(" "))),
            ("latest_configuration_index", "0".into()),
            ("log_bytes", stats.log_bytes.to_string()),
            ("num_peers", (voters.len().saturating_sub(1)).to_string()),
            ("protocol_version", "3".into()),
            ("protocol_version_max", "3".into()),
            ("protocol_version_min", "3".into()),
            ("refused_for_space", refused.to_string()),
            ("snapshot_version_max", "1".into()),
            ("snapshot_version_min", "1".into()),
            ("state", if raft.is_leader() { "Leader" } else { "Follower" }.into()),
            ("term", stats.term.to_string()),
        ]
    }

    fn pool_figures(&self) -> [(&'static str, String); 12] {
        let (time, standings) = (self.events.borrow().time(), self.standings());
        let of = |status| standings.get(&status).copied().unwrap_or_default().to_string();
        [
            ("coordinate_resets", "0".into()),
            ("encrypted", self.pool.is_encrypted().to_string()),
            ("event_queue", "0".into()),
            ("event_time", time.to_string()),
            ("failed", of(gossip::Status::Failed)),
            ("health_score", "0".into()),
            ("intent_queue", "0".into()),
            ("left", of(gossip::Status::Left)),
            ("member_time", "1".into()),
            ("members", standings.values().sum::<usize>().to_string()),
            ("query_queue", "0".into()),
            ("query_time", "1".into()),
        ]
    }

    /// Of the pool of all datacenters: nobody else is known there yet.
    fn wan_figures(&self) -> [(&'static str, String); 12] {
        self.pool_figures().map(|(key, value)| match key {
            "failed" | "left" => (key, "0".into()),
            "members" => (key, "1".into()),
            _ => (key, value),
        })
    }
}

/// In Go's words for machines, since programs compare them; tasks stand where Go counts goroutines.
fn runtime_figures() -> [(&'static str, String); 6] {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let runtime = tokio::runtime::Handle::try_current().map(|handle| handle.metrics());
    let (tasks, threads) =
        runtime.map_or((0, 0), |runtime| (runtime.num_alive_tasks(), runtime.num_workers()));
    [
        ("arch", arch.into()),
        ("cpu_count", std::thread::available_parallelism().map_or(1, usize::from).to_string()),
        ("goroutines", tasks.to_string()),
        ("max_procs", threads.to_string()),
        ("os", std::env::consts::OS.into()),
        ("version", concat!("rust", env!("CARGO_PKG_RUST_VERSION")).into()),
    ]
}

fn section(
    name: &str,
    figures: impl IntoIterator<Item = (&'static str, String)>,
) -> (Text, Vec<(Text, Text)>) {
    (name.into(), figures.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}
