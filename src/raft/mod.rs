//! Agreement: commands go in, and the same catalog comes out on every server. This room alone knows openraft; it does
//! not know what a command means, nor who asks for the catalog. One voter; its log is on disk, or in memory for `-dev`.
//!
//! ```text
//! propose ─> batch ─one entry for all that wait─> openraft ─> log ─> machine ─publishes─> Arc<Catalog> ─> waiters
//!                                                              └─> disk     └─> snapshot
//! ```

mod archive;
mod batch;
mod counters;
mod disk;
mod log;
mod machine;
mod network;
mod snapshot;
mod space;
mod stored;
mod waiters;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use openraft::{BasicNode, Config, LogId, SnapshotPolicy};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Command, Reply, Subscribe, Subscription, Topic};

pub use archive::{
    ArchiveError, ArchiveHead, ArchiveSummary, ArchiveTable, inspect_archive, read_archive, write_archive,
};
pub use batch::ProposeError;
pub use counters::Counters;
pub use log::bytes_of;
pub use waiters::{Wait, Waiters};

openraft::declare_raft_types!(
    /// One log entry carries all commands that waited together.
    Types:
        D = Vec<Command>,
        R = Vec<Reply>,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = Catalog,
);

/// The newest applied catalog: `None` before the first apply. Readers take it without waiting.
pub type Published = Arc<ArcSwapOption<Catalog>>;

/// What an operator sets of agreement.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where this server answers other servers; its address in the configuration of voters.
    pub address: SocketAddr,
    /// The log is cut behind a snapshot when its entries hold more than this, as written out, and more than the last
    /// snapshot.
    pub log_bytes_max: usize,
    /// Where log and snapshots are kept; `None` keeps both in memory.
    pub folder: Option<PathBuf>,
    /// Whether this server may begin a datacenter where nothing is kept yet.
    pub may_begin: bool,
    /// Nothing is written while fewer bytes are free on the disk of `folder`.
    pub free_bytes_min: u64,
}

impl Settings {
    /// Of a server that keeps nothing.
    pub fn in_memory(address: impl Into<SocketAddr>, log_bytes_max: usize) -> Self {
        Settings { address: address.into(), log_bytes_max, folder: None, may_begin: true, free_bytes_min: 0 }
    }
}

/// A handle to this server's part in agreement.
#[derive(Clone)]
pub struct Raft {
    proposals: mpsc::Sender<batch::Proposal>,
    published: Published,
    waiters: Arc<Waiters>,
    consensus: openraft::Raft<Types>,
    log: log::Log,
    /// The end of the log when it was opened: what is published is not fresh before it was applied.
    tail: Option<LogId<u64>>,
    fresh: Arc<AtomicBool>,
    counters: Arc<Counters>,
    address: SocketAddr,
    may_begin: bool,
}

/// What is kept, once it is open.
struct Kept {
    log: log::Log,
    snapshots: snapshot::Snapshots,
    space: space::Space,
}

/// Figures of this server's part in agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// What the log holds now, as written out.
    pub log_bytes: usize,
    pub term: u64,
    /// Of the newest entry that was applied.
    pub applied_index: u64,
    /// Index and term of the newest entry in the log, and of the newest one in a snapshot.
    pub last: (u64, u64),
    pub snapshot: (u64, u64),
}

/// Where this server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub address: SocketAddr,
    pub leads: bool,
    /// Of the newest entry that was applied.
    pub last_term: u64,
    pub applied_index: u64,
    /// Of the newest entry in the log.
    pub last_index: u64,
}

/// The only voter's id; ids of several servers come with their membership.
const VOTER: u64 = 1;
/// Beyond this many waiting proposals the log is behind, and a proposer is told at once instead of queued without end.
const PROPOSALS_MAX: usize = 1024;
/// Entries kept behind a snapshot; a lone voter has nobody to send them to.
const LOG_ENTRIES_KEPT: u64 = 0;
/// Nobody listens to a lone voter's heartbeats, and openraft's clock ticks at 1.5 times this interval.
const HEARTBEAT: Duration = Duration::from_secs(60);
const ELECTION: Duration = Duration::from_secs(120);
/// A lone voter has only itself and its disk to ask; what takes longer is a fault.
const ELECTED_WITHIN: Duration = Duration::from_secs(60);

impl Raft {
    /// Opens what is kept, and publishes what is known so far: it may be answered as stale. Nobody leads yet. The task
    /// ends when `shutdown` is cancelled: it takes no more proposals, answers those that wait, and stops openraft.
    ///
    /// # Errors
    /// What openraft says of its settings, and whatever of log or snapshots is damaged or cannot be had, by name.
    pub async fn open(
        settings: Settings,
        shutdown: CancellationToken,
    ) -> Result<(Raft, JoinHandle<()>), String> {
        let kept = match settings.folder.clone() {
            None => None,
            Some(folder) => {
                let open = move || Kept::open(folder, settings.free_bytes_min);
                let opened = tokio::task::spawn_blocking(open).await;
                Some(opened.unwrap_or_else(|error| Err(error.to_string()))?)
            }
        };
        Self::open_on(settings, kept, shutdown).await
    }

    async fn open_on(
        settings: Settings,
        kept: Option<Kept>,
        shutdown: CancellationToken,
    ) -> Result<(Raft, JoinHandle<()>), String> {
        let Settings { address, log_bytes_max, may_begin, folder, .. } = settings;
        let (published, waiters) = (Published::default(), Arc::new(Waiters::default()));
        let mut machine = machine::Machine::new(published.clone(), waiters.clone());
        let snapshots = machine.written().clone();
        let (log, kept) = match kept {
            None => (log::Log::default(), None),
            Some(Kept { log, snapshots, space }) => {
                machine.recover(snapshots.clone()).map_err(|error| error.to_string())?;
                check_fit(machine.applied(), &log).map_err(|fault| {
                    let folder = folder.unwrap_or_default();
                    format!(
                        "{} is damaged: {fault}; restore the data directory from a backup",
                        folder.display()
                    )
                })?;
                (log, Some((snapshots, space)))
            }
        };
        let counters = Arc::new(Counters::new(log.syncs().unwrap_or_default(), snapshots));
        let config = Config {
            cluster_name: "lictor".into(),
            heartbeat_interval: HEARTBEAT.as_millis() as u64,
            election_timeout_min: ELECTION.as_millis() as u64,
            election_timeout_max: 2 * ELECTION.as_millis() as u64,
            enable_elect: false,
            enable_heartbeat: false,
            // By bytes instead (see `batch`), since an entry holds up to 512 commands.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: LOG_ENTRIES_KEPT,
            ..Config::default()
        };
        let config = Arc::new(config.validate().map_err(|error| error.to_string())?);
        let tail = log.last();
        let consensus = openraft::Raft::new(VOTER, config, network::Nobody, log.clone(), machine)
            .await
            .map_err(|error| error.to_string())?;
        let (proposals, waiting) = mpsc::channel(PROPOSALS_MAX);
        let bounds =
            batch::Bounds { log: log.clone(), bytes_max: log_bytes_max, kept, counters: counters.clone() };
        let task = tokio::spawn(batch::run(consensus.clone(), bounds, waiting, shutdown));
        let fresh = Arc::default();
        let raft =
            Raft { proposals, published, waiters, consensus, log, tail, fresh, counters, address, may_begin };
        Ok((raft, task))
    }

    /// Begins, or goes on, as the only voter, which elects itself at once; returns when it leads and all that the log
    /// held at its opening is applied.
    ///
    /// # Errors
    /// Where that does not come about.
    pub async fn lead(&self) -> Result<(), String> {
        let consensus = &self.consensus;
        if consensus.is_initialized().await.map_err(|error| error.to_string())? {
            consensus.trigger().elect().await.map_err(|error| error.to_string())?;
        } else if !self.may_begin {
            return Err("no datacenter is kept here yet, and this server may not begin one: bootstrap_expect = 1 lets it".into());
        } else {
            let voters = BTreeMap::from([(VOTER, BasicNode::new(self.address))]);
            consensus.initialize(voters).await.map_err(|error| error.to_string())?;
        }
        let metrics = consensus.wait(Some(ELECTED_WITHIN));
        let tail = self.tail;
        let is_caught_up = move |metrics: &openraft::RaftMetrics<u64, BasicNode>| {
            metrics.current_leader == Some(VOTER) && metrics.last_applied >= tail
        };
        let caught_up = metrics.metrics(is_caught_up, "a lone voter leads, and has applied its log").await;
        caught_up.map_err(|error| self.failure().unwrap_or_else(|| error.to_string()))?;
        self.fresh.store(true, Ordering::Release);
        Ok(())
    }

    /// Set once everything acknowledged before this server's start is published: until then what is published may be
    /// stale.
    pub fn fresh(&self) -> &Arc<AtomicBool> {
        &self.fresh
    }

    /// Ends when agreement has failed for good, and says why: the process should end, too.
    pub async fn failed(&self) -> String {
        let mut metrics = self.consensus.metrics();
        let ended = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
        let reason = match ended {
            Ok(metrics) => metrics.running_state.as_ref().err().map(|fatal| fatal.to_string()),
            Err(_) => None,
        };
        self.failure().or(reason).unwrap_or_else(|| "consensus ended".into())
    }

    /// Why the log's writer ended, if it has.
    fn failure(&self) -> Option<String> {
        self.log.failure().and_then(|failure| failure.borrow().clone())
    }

    /// Puts a command to the log, and gives what applying it came to.
    ///
    /// # Errors
    /// Where it is not known to have been applied; see [`ProposeError`].
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        batch::propose(&self.proposals, command, &self.counters).await
    }

    /// The newest applied catalog.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Those who wait for a change.
    pub fn waiters(&self) -> &Arc<Waiters> {
        &self.waiters
    }

    /// Who leads, if anyone does.
    pub fn leader(&self) -> Option<SocketAddr> {
        self.consensus.metrics().borrow().current_leader.map(|_| self.address)
    }

    /// Every server that has a voice.
    pub fn peers(&self) -> Vec<SocketAddr> {
        vec![self.address]
    }

    /// Whether this server leads.
    pub fn is_leader(&self) -> bool {
        self.consensus.metrics().borrow().current_leader == Some(VOTER)
    }

    pub fn status(&self) -> Status {
        let metrics = self.consensus.metrics().borrow().clone();
        let last = metrics.last_applied.unwrap_or_default();
        Status {
            address: self.address,
            leads: metrics.current_leader == Some(VOTER),
            last_term: last.leader_id.term,
            applied_index: last.index,
            last_index: metrics.last_log_index.unwrap_or(0).max(last.index),
        }
    }

    pub fn stats(&self) -> Stats {
        let metrics = self.consensus.metrics().borrow().clone();
        let place = |at: Option<LogId<u64>>| at.map_or((0, 0), |at| (at.index, at.leader_id.term));
        Stats {
            log_bytes: self.log.bytes(),
            term: metrics.current_term,
            applied_index: place(metrics.last_applied).0,
            last: place(self.log.last().max(metrics.last_applied)),
            snapshot: place(metrics.snapshot),
        }
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Subscribe for Raft {
    fn catalog(&self) -> Arc<Catalog> {
        self.published.load_full().unwrap_or_default()
    }

    fn subscribe(&self, topics: Vec<Topic>) -> Subscription {
        let wait = self.waiters.register(topics);
        Box::pin(async move { wait.changed().await })
    }
}

impl Kept {
    /// Waits for the disk.
    fn open(folder: PathBuf, free_bytes_min: u64) -> Result<Kept, String> {
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (disk, found) = disk::Disk::open(&folder).map_err(|error| error.to_string())?;
        let snapshots =
            snapshot::Snapshots::open(&folder.join("snapshots")).map_err(|error| error.to_string())?;
        // What was made just now is there after a power cut only if its names are.
        for made_in in [Some(&*folder), folder.parent()].into_iter().flatten() {
            let synced = fs::File::open(made_in).and_then(|folder| folder.sync_all());
            synced.map_err(|error| format!("{}: {error}", made_in.display()))?;
        }
        Ok(Kept {
            log: log::Log::on(disk, found),
            snapshots,
            space: space::Space::of(folder, free_bytes_min),
        })
    }
}

/// Snapshot and log are of one time: what is cut off the log was in a snapshot, and what is in a snapshot was safe in the
/// log. A lone voter is sent no snapshots.
fn check_fit(applied: Option<LogId<u64>>, log: &log::Log) -> Result<(), String> {
    let entry = |at: Option<LogId<u64>>| at.map_or("no entry".into(), |at| format!("entry {}", at.index));
    let (purged, last) = (log.purged(), log.last());
    if applied < purged {
        return Err(format!(
            "the log goes on from {}, and the snapshot goes to {}",
            entry(purged),
            entry(applied)
        ));
    }
    if last < applied {
        return Err(format!("the snapshot goes to {}, and the log goes to {}", entry(applied), entry(last)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
