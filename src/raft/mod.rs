//! Agreement: commands go in, and the same catalog comes out on every server. This room alone knows openraft; it does
//! not know what a command means, nor who asks for the catalog. One voter, its log in memory.
//!
//! ```text
//! propose ─> batch ─one entry for all that wait─> openraft ─> log ─> machine ─publishes─> Arc<Catalog> ─> waiters
//! ```

mod batch;
mod log;
mod machine;
mod network;
mod waiters;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use openraft::{BasicNode, Config, SnapshotPolicy};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Command, Reply};

pub use batch::ProposeError;
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
    /// The log is cut behind a snapshot when its entries hold more than this, as written out.
    pub log_bytes_max: usize,
}

/// A handle to this server's part in agreement.
#[derive(Clone)]
pub struct Raft {
    proposals: mpsc::Sender<batch::Proposal>,
    published: Published,
    waiters: Arc<Waiters>,
    consensus: openraft::Raft<Types>,
    log: log::Log,
    address: SocketAddr,
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
/// A lone voter has only itself to ask; what takes longer is a fault.
const ELECTED_WITHIN: Duration = Duration::from_secs(10);

impl Raft {
    /// Starts as the only voter, which elects itself at once. The task ends when `shutdown` is cancelled: it takes no
    /// more proposals, answers those that wait, and stops openraft.
    ///
    /// # Errors
    /// What openraft says of its settings or its storage.
    pub async fn start(
        settings: Settings,
        shutdown: CancellationToken,
    ) -> Result<(Raft, JoinHandle<()>), String> {
        let (published, waiters) = (Published::default(), Arc::new(Waiters::default()));
        let machine = machine::Machine::new(published.clone(), waiters.clone());
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
        let log = log::Log::default();
        let consensus = openraft::Raft::new(VOTER, config, network::Nobody, log.clone(), machine)
            .await
            .map_err(|error| error.to_string())?;
        let voters = BTreeMap::from([(VOTER, BasicNode::new(settings.address))]);
        consensus.initialize(voters).await.map_err(|error| error.to_string())?;
        let metrics = consensus.wait(Some(ELECTED_WITHIN));
        metrics.current_leader(VOTER, "a lone voter leads").await.map_err(|error| error.to_string())?;
        let (proposals, waiting) = mpsc::channel(PROPOSALS_MAX);
        let log_bounds = batch::LogBounds { log: log.clone(), bytes_max: settings.log_bytes_max };
        let task = tokio::spawn(batch::run(consensus.clone(), log_bounds, waiting, shutdown));
        Ok((Raft { proposals, published, waiters, consensus, log, address: settings.address }, task))
    }

    /// Puts a command to the log, and gives what applying it came to.
    ///
    /// # Errors
    /// Where it is not known to have been applied; see [`ProposeError`].
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        batch::propose(&self.proposals, command).await
    }

    /// The newest applied catalog.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// The newest applied catalog; an empty one before the first apply.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.published.load_full().unwrap_or_default()
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

    /// What the log holds now, as written out.
    pub fn log_bytes(&self) -> usize {
        self.log.bytes()
    }
}

#[cfg(test)]
mod tests;
