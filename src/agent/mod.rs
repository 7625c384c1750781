//! An agent: what is started, in which order it stops, and the words carried between the rooms. Everything that waits
//! for two rooms at once stands here.
//!
//! ```text
//! files, HTTP ─> Local <─told─ checks          Local + catalog ─sync─> commands ─> raft ─> catalog ─> DNS, HTTP
//! ```
//!
//! An agent that is no server has no `raft`: its commands and what it is asked go to a server by `rpc`.

mod activation;
mod api;
mod archive;
mod backing;
mod change;
mod data_dir;
mod events;
mod figures;
mod forward;
mod host;
mod join;
mod keep;
mod keyring;
mod local;
mod members;
mod mirror;
mod pool;
mod pool_figures;
pub mod port;
mod serve;
mod shared;
mod stats;
mod sync;
mod syncing;
mod zones;

use std::{
    mem::take,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    catalog::Text,
    check::{self, Definition, Runner, ServiceDefinition},
    dns, gossip, http, raft, rpc, server,
    telemetry::{self, Telemetry, send_statsd},
};
use backing::{Backing, Stoppable};
use events::Events;
use keep::Store;
use shared::{Shared, State, Timing};

pub use crate::raft::{ArchiveError, ArchiveHead, ArchiveSummary, ArchiveTable, inspect_archive};
pub use crate::rpc::Limits as CallLimits;
pub use activation::Activation;
pub use check::use_ring;
pub use data_dir::DataDir;
pub use join::{Joining, NoPlace, Place};
pub use keep::node_id;
pub use local::{Change, Local, Source, Unknown};
pub use pool::PoolSettings;

/// The version of Consul whose files, DNS and HTTP API we follow; programs compare it.
pub const COMPATIBLE_VERSION: &str = "1.16.4";

/// What an agent is, for as long as it runs.
#[derive(Clone, Debug)]
pub struct Identity {
    pub node_name: Text,
    pub node_id: Uuid,
    pub datacenter: Text,
    pub server: bool,
    /// Whether it may begin a datacenter of its own.
    pub bootstrap: bool,
    /// Where other agents reach this one.
    pub advertise: IpAddr,
    pub advertise_wan: IpAddr,
    pub server_port: u16,
    pub serf_lan_port: u16,
    /// `None` where other datacenters are not spoken with.
    pub serf_wan_port: Option<u16>,
}

impl Identity {
    /// As the catalog knows a server.
    fn as_server(&self) -> server::Member {
        server::Member {
            name: self.node_name.clone(),
            id: Some(self.node_id),
            address: self.advertise,
            port: Some(self.server_port),
            datacenter: self.datacenter.clone(),
            version: COMPATIBLE_VERSION.into(),
            status: gossip::Status::Alive,
        }
    }
}

/// What a reload may change.
#[derive(Clone, Debug)]
pub struct Reloadable {
    pub dns: dns::Settings,
    pub http: http::Settings,
    pub rpc_limits: rpc::Limits,
    /// Pairs of the node, without those that every agent has.
    pub node_meta: Vec<(String, String)>,
    pub services: Vec<ServiceDefinition>,
    pub checks: Vec<Definition>,
    /// Changes of output alone are told after half of this, and up to as much again.
    pub check_update_interval: Duration,
    /// Whether checks that were registered over HTTP may run programs.
    pub remote_scripts: bool,
    /// Which figures are told.
    pub figures: telemetry::Filter,
}

/// Everything that an agent is started with.
pub struct Settings {
    pub identity: Identity,
    pub reloadable: Reloadable,
    pub checks: check::Settings,
    pub dns_addrs: Vec<SocketAddr>,
    pub http_addrs: Vec<SocketAddr>,
    pub http_sockets: Vec<http::UnixSocket>,
    pub activation: Activation,
    pub keeping: Keeping,
    /// When a server does not believe that members are gone.
    pub mass_failure: server::MassFailure,
    pub calls: Calls,
    pub pool: PoolSettings,
    /// What members say to each other is sealed with.
    pub encryption: gossip::Encryption,
    /// But for the filter, which is reloadable.
    pub telemetry: telemetry::Settings,
    /// Hands out what this process logs.
    pub monitor: telemetry::Monitor,
}

/// How agents ask servers.
#[derive(Clone, Debug)]
pub struct Calls {
    /// Where this agent is reached, or whence it calls; any of its addresses where that is unspecified.
    pub bind: IpAddr,
    /// For so long it is worth trying again where nobody leads.
    pub hold: Duration,
    /// For a call that waits for nothing.
    pub patience: Duration,
}

impl Default for Calls {
    fn default() -> Self {
        Calls {
            bind: Ipv4Addr::UNSPECIFIED.into(),
            hold: Duration::from_secs(7),
            patience: Duration::from_secs(60),
        }
    }
}

/// What an agent keeps, and where.
#[derive(Debug)]
pub struct Keeping {
    /// `None` keeps nothing.
    pub data_dir: Option<DataDir>,
    /// Keep the datacenter's state there, too; in memory otherwise.
    pub state: bool,
    /// Whether this server may begin a datacenter where none is kept yet.
    pub may_begin: bool,
    /// Nothing is written while fewer bytes are free on the disk of the data directory.
    pub free_bytes_min: u64,
}

/// Reads the configuration again: given by whoever knows where it stands.
pub type Reread = Box<dyn Fn() -> Result<Reloadable, String> + Send + Sync>;

/// A running agent.
pub struct Agent {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    /// The thread that writes what is to be kept.
    kept: Option<tokio::task::JoinHandle<()>>,
    backing: Stoppable,
    services: CancellationToken,
    /// Given back when everything has ended.
    _data_dir: Option<DataDir>,
}

/// Results of checks that wait to be taken up.
const TOLD_MAX: usize = 1024;
/// Each part is given so long to stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Of the log, before it is cut behind a snapshot; on disk, and in memory.
const LOG_BYTES_MAX: [usize; 2] = [16 << 20, 1 << 20];

impl Agent {
    /// Binds, starts everything, and returns once this server leads and its own rows are there. Names are answered before
    /// that, from what was kept, and said to be stale.
    ///
    /// # Errors
    /// What cannot be bound or started. Nothing is left running.
    pub async fn start(settings: Settings, reread: Reread) -> Result<Agent, String> {
        let Settings {
            identity,
            mut reloadable,
            checks,
            dns_addrs,
            http_addrs,
            http_sockets,
            activation,
            keeping,
            mass_failure,
            calls,
            pool: pool_settings,
            encryption,
            telemetry,
            monitor,
        } = settings;
        let data_dir = keeping.data_dir;
        let (dns_addrs, http_addrs) = (activation.dns_addrs(&dns_addrs), activation.http_addrs(&http_addrs));
        let listeners = dns::Listeners::of(&dns_addrs).map_err(|dns::Twice(addr)| {
            format!("DNS address {addr} is configured and handed over, as two")
        })?;
        for (addr, wide) in &listeners.covered {
            tracing::warn!("DNS address {addr} is within {wide}, which is served alone");
        }
        let roads = dns::Roads::of(&reloadable.dns);
        let dns_server =
            dns::Server::bind_beside(&listeners.addrs, activation.dns, &roads).map_err(|error| {
                format!("{error}{}", port::explain(&error.source, error.protocol, error.addr))
            })?;
        let http_server = http::Server::bind_beside(&http_addrs, activation.http)
            .map_err(|error| format!("{error}{}", port::explain(&error.source, "TCP", error.addr)))?;
        let http_server = http_server.beside_unix(&http_sockets).map_err(|error| error.to_string())?;
        let services = CancellationToken::new();
        // Nothing is left running where something else cannot be started.
        let unfinished = services.clone().drop_guard();
        let folder = data_dir.as_ref().map(DataDir::path).filter(|_| keeping.state);
        let coordinates = reloadable.http.coordinates;
        let wan_keys = keyring::of_wan(&identity, &encryption)?;
        let (pool, pool_task) =
            pool::start(&identity, &pool_settings, coordinates, encryption, folder, services.clone())?;
        let rpc_address = (calls.bind, identity.server_port).into();
        let rpc_server = identity
            .server
            .then(|| rpc::Server::bind(rpc_address))
            .transpose()
            .map_err(|error| format!("{error}{}", port::explain(&error.source, "TCP", error.address)))?;
        let (backing, stoppable) = if identity.server {
            let folder =
                data_dir.as_ref().filter(|_| keeping.state).map(|data_dir| data_dir.path().join("raft"));
            let settings = raft::Settings {
                address: (identity.advertise, identity.server_port).into(),
                log_bytes_max: LOG_BYTES_MAX[usize::from(folder.is_none())],
                folder,
                may_begin: keeping.may_begin,
                free_bytes_min: keeping.free_bytes_min,
            };
            let suspicion = server::Suspicion {
                multiplier: pool_settings.timing.suspicion_mult,
                probe_interval: pool_settings.timing.probe_interval,
            };
            let membership = server::Membership::new(identity.as_server(), mass_failure, suspicion);
            Backing::server_of(settings, membership).await?
        } else {
            let settings = rpc::Settings { from: calls.bind, hold: calls.hold, patience: calls.patience };
            Backing::client_of(settings, &identity.node_name)
        };
        let (told, tells) = mpsc::channel(TOLD_MAX);
        let mut local = Local::default();
        local.reload(take(&mut reloadable.services), take(&mut reloadable.checks));
        let data = data_dir.as_ref().map(DataDir::path);
        let store = data.map(|path| Store::open(path, &mut local)).transpose()?;
        let (keeper, queue) = keep::keeper();
        let runner = Runner::new(checks, told, identity.node_name.clone(), backing.followed());
        let figures = Telemetry::new(&telemetry, &identity.node_name);
        let (of_checks, of_http) = (runner.counters().clone(), http_server.counters().clone());
        let of_asked = rpc_server.as_ref().map(|server| server.counters().clone());
        let figures = figures::Figures::new(figures, of_checks, of_http, of_asked, monitor);
        let shared = Arc::new(Shared {
            state: Mutex::new(State { local, runner }),
            keeper: store.is_some().then_some(keeper),
            changed: watch::channel(0).0,
            told: watch::channel(0).0,
            registered: watch::channel(0).0,
            events: watch::channel(Events::default()).0,
            leaving: CancellationToken::new(),
            going: CancellationToken::new(),
            alone: CancellationToken::new(),
            pool,
            seen: pool::Seen::default(),
            wan_keys,
            dns: Arc::new(ArcSwap::from_pointee(reloadable.dns.clone())),
            dns_addrs: dns_server.addrs().to_vec(),
            zones: Arc::default(),
            http: Arc::new(ArcSwap::from_pointee(reloadable.http.clone())),
            rpc_limits: Arc::new(ArcSwap::from_pointee(reloadable.rpc_limits.clone())),
            node_meta: ArcSwap::default(),
            timing: ArcSwap::from_pointee(Timing::of(&reloadable)),
            figures,
            identity,
            backing,
            server_came: watch::channel(0).0,
            reread,
        });
        shared.zones.read(&shared.dns);
        let mut tasks = JoinSet::new();
        let (catalog, fresh) = match shared.backing.server() {
            Some(server) => (server.raft.published().clone(), server.raft.fresh().clone()),
            None => Default::default(),
        };
        let published = dns::Published {
            catalog,
            settings: shared.dns.clone(),
            zones: shared.zones.published.clone(),
            fresh,
            counters: shared.figures.dns.clone(),
        };
        let dns_server = match shared.backing.client() {
            Some(client) => dns_server.asking(Arc::new(forward::DnsForward { rpc: client.rpc.clone() })),
            None => dns_server,
        };
        let (dns_desk, stop) = (dns::Desk::new(published.clone()), services.clone());
        tasks.spawn(async move {
            if let Err(error) = dns_server.run(published, stop).await {
                tracing::error!(%error, "DNS ended");
            }
        });
        shared.back(&mut tasks, &services).await?;
        shared.apply(reloadable);
        shared.follow(&mut shared.state());
        let kept = store.map(|store| shared.keep(store, queue));
        tasks.spawn(syncing::listen(shared.clone(), tells, services.clone()));
        tasks.spawn(syncing::keep_in_sync(shared.clone(), services.clone()));
        tasks.spawn(pool::take_part(shared.clone(), pool_settings, pool_task, services.clone()));
        tasks.spawn(zones::watch(shared.clone(), services.clone()));
        tasks.spawn(figures::keep(shared.clone(), services.clone()));
        if let Some(address) = telemetry.statsd {
            let intervals = shared.figures.telemetry.follow();
            tasks.spawn(send_statsd(address, intervals, services.clone()));
        }
        if let Some(rpc_server) = rpc_server {
            let desk = http_server.desk(shared.clone(), shared.http.clone(), services.clone());
            let served = Arc::new(serve::Served::new(shared.clone(), desk, dns_desk));
            let (limits, stop) = (shared.rpc_limits.clone(), services.clone());
            tasks.spawn(async move {
                if let Err(error) = rpc_server.run(served, limits, stop).await {
                    tracing::error!(%error, "other agents are not answered any more");
                }
            });
        }
        let (api, settings, stop) = (shared.clone(), shared.http.clone(), services.clone());
        tasks.spawn(async move {
            if let Err(error) = http_server.run(api, settings, stop).await {
                tracing::error!(%error, "HTTP ended");
            }
        });
        unfinished.disarm();
        Ok(Agent { shared, tasks, kept, backing: stoppable, services, _data_dir: data_dir })
    }

    /// Reads the configuration again. With any fault nothing changes.
    ///
    /// # Errors
    /// Every fault, a line each.
    pub async fn reload(&self) -> Result<(), String> {
        self.shared.reload().await
    }

    /// Cancelled when somebody asks over HTTP that this agent leaves.
    pub fn leaving(&self) -> CancellationToken {
        self.shared.leaving.clone()
    }

    /// Tells the other agents that this one goes, and returns when they know; or `false`, and they will see for themselves.
    pub async fn leave(&self) -> bool {
        self.shared.leave_pool().await
    }

    /// Ends when a part ended that should not have.
    pub async fn failed(&mut self) {
        let kept = async {
            match &mut self.kept {
                Some(kept) => kept.await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = self.tasks.join_next() => ended,
            ended = kept => {
                self.kept = None;
                Some(ended)
            }
            () = self.shared.alone.cancelled() => return,
            reason = self.shared.backing.failed() => {
                tracing::error!(reason, "agreement has failed: this agent ends, and goes on from what is safe at its next start");
                return;
            }
        };
        match ended {
            Some(Err(error)) => tracing::error!(%error, "a part of the agent failed"),
            Some(Ok(())) => tracing::error!("a part of the agent ended"),
            None => tracing::error!("no part of the agent is left"),
        }
    }

    /// Stops everything in order: what takes questions and results first, then the checks, what is to be kept of them,
    /// and agreement.
    pub async fn stop(mut self) {
        self.services.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_LIMIT, all).await.is_err() {
            tracing::warn!("some parts of the agent did not stop in time");
        }
        let archives = self.shared.backing.server().map(|server| &server.archiving.tasks);
        archives.inspect(|tasks| {
            tasks.close();
        });
        let stopped = self.shared.state().runner.stop();
        stopped.await;
        self.shared.stop_keeping(self.kept).await;
        if tokio::time::timeout(STOP_LIMIT, self.backing.stop()).await.is_err() {
            tracing::warn!("agreement, or calls to servers, did not stop in time");
        }
        let archived = async {
            if let Some(tasks) = archives {
                tasks.wait().await;
            }
        };
        if tokio::time::timeout(STOP_LIMIT, archived).await.is_err() {
            tracing::warn!("a snapshot was still written or read");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the agent's loops are the rim where the clock is read")]
fn now() -> Instant {
    Instant::now()
}
