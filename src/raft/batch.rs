//! One task turns all commands that wait into one log entry, with one entry under way at a time: while it is written
//! the next batch gathers. Measured against an entry per command, that is six times the writes.

use std::{sync::Arc, time::Duration};

use openraft::error::{ClientWriteError, RaftError};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Counters, Types, log, snapshot::Snapshots, space::Space};
use crate::catalog::{Command, Reply};

/// Why a command is not known to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nobody leads, or another server does. Nothing was written: try again.
    #[error("No cluster leader")]
    NoLeader,
    /// Too many commands wait already. Nothing was written: try again later.
    #[error("rate limit exceeded for operation that can only be performed by the leader, try again later")]
    Overloaded,
    /// Too little is free on the disk. Nothing was written: try again when there is more.
    #[error("the disk of the data directory is almost full: nothing is written until there is space again")]
    DiskFull,
    /// The outcome is not known; the write may still happen: repeat only what is idempotent.
    #[error("leadership lost while committing log")]
    Unknown,
    /// The disk takes its time; the write may still happen: repeat only what is idempotent.
    #[error("not written after {WAIT_MAX:?}: the disk is slow, and this may be done yet")]
    Late,
    /// This server is stopping. Nothing was written.
    #[error("No cluster leader")]
    Stopped,
}

impl ProposeError {
    pub const ALL: [ProposeError; 6] = [
        ProposeError::NoLeader,
        ProposeError::Overloaded,
        ProposeError::DiskFull,
        ProposeError::Unknown,
        ProposeError::Late,
        ProposeError::Stopped,
    ];

    /// For figures.
    pub fn word(self) -> &'static str {
        match self {
            ProposeError::NoLeader => "no_leader",
            ProposeError::Overloaded => "overloaded",
            ProposeError::DiskFull => "disk_full",
            ProposeError::Unknown => "unknown",
            ProposeError::Late => "late",
            ProposeError::Stopped => "stopped",
        }
    }
}

pub struct Proposal {
    command: Command,
    bytes: usize,
    reply: oneshot::Sender<Result<Reply, ProposeError>>,
}

/// What the log may hold before it is cut behind a snapshot, and what must be free for it to grow.
pub struct Bounds {
    pub log: log::Log,
    pub bytes_max: usize,
    /// `None` where nothing is kept on a disk.
    pub kept: Option<(Snapshots, Space)>,
    pub counters: Arc<Counters>,
}

/// Commands in one log entry; what follows waits for the next.
const BATCH_MAX: usize = 512;
/// A log entry that holds this much takes no more commands: other servers are sent whole entries.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Whoever proposed waits so long for the disk.
const WAIT_MAX: Duration = Duration::from_secs(10);

pub async fn propose(
    proposals: &mpsc::Sender<Proposal>,
    command: Command,
    counters: &Counters,
) -> Result<Reply, ProposeError> {
    let answer = put(proposals, command).await;
    if let Err(error) = answer {
        counters.refused(error).add(1);
    }
    answer
}

async fn put(proposals: &mpsc::Sender<Proposal>, command: Command) -> Result<Reply, ProposeError> {
    let (reply, answered) = oneshot::channel();
    let bytes = log::bytes_of(&command);
    proposals.try_send(Proposal { command, bytes, reply }).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
        mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped,
    })?;
    match tokio::time::timeout(WAIT_MAX, answered).await {
        Ok(answer) => answer.unwrap_or(Err(ProposeError::Unknown)),
        Err(_) => Err(ProposeError::Late),
    }
}

/// Runs until `shutdown`; then nothing more is taken, those that wait are told, and openraft is stopped.
pub async fn run(
    raft: openraft::Raft<Types>,
    bounds: Bounds,
    mut waiting: mpsc::Receiver<Proposal>,
    shutdown: CancellationToken,
) {
    let mut is_short = false;
    // What the log held when a snapshot was last begun, if it was not cut since.
    let mut begun_at = 0;
    while let Some(Some(batch)) = shutdown.run_until_cancelled(gather(&mut waiting)).await {
        if shutdown.is_cancelled() {
            batch.into_iter().for_each(|proposal| answer(proposal.reply, Err(ProposeError::Stopped)));
            break;
        }
        let was_short = std::mem::replace(&mut is_short, bounds.is_short());
        if is_short != was_short {
            bounds.tell_of_space(is_short);
        }
        if is_short {
            batch.into_iter().for_each(|proposal| answer(proposal.reply, Err(ProposeError::DiskFull)));
            continue;
        }
        write(&raft, batch, &bounds.counters).await;
        let log_bytes = bounds.log.bytes();
        if log_bytes < begun_at {
            begun_at = 0;
        }
        if bounds.is_snapshot_due(log_bytes, begun_at) {
            begun_at = log_bytes;
            if let Err(error) = raft.trigger().snapshot().await {
                tracing::error!(%error, "the log is not cut: consensus has ended");
            }
        }
    }
    waiting.close();
    while let Some(proposal) = waiting.recv().await {
        answer(proposal.reply, Err(ProposeError::Stopped));
    }
    if let Err(error) = raft.shutdown().await {
        tracing::error!(%error, "consensus ended badly");
    }
    let log = bounds.log;
    if let Err(error) = tokio::task::spawn_blocking(move || log.close()).await {
        tracing::error!(%error, "the log was not closed");
    }
}

impl Bounds {
    fn is_short(&self) -> bool {
        self.kept.as_ref().is_some_and(|(_, space)| space.is_short_of(0))
    }

    /// A snapshot costs all there is, so the more there is, the more is written between two of them. One that the disk
    /// has no room for is not begun; one that came to nothing is begun again when as much again was written.
    fn is_snapshot_due(&self, log_bytes: usize, begun_at: usize) -> bool {
        log_bytes > begun_at.saturating_add(self.bytes_max)
            && self.kept.as_ref().is_none_or(|(snapshots, space)| {
                let last = snapshots.bytes();
                log_bytes as u64 > last && !space.is_short_of(last + log_bytes as u64)
            })
    }

    fn tell_of_space(&self, is_short: bool) {
        let Some((_, space)) = &self.kept else { return };
        if is_short {
            tracing::error!("{space}: writes are refused until there is more");
        } else {
            tracing::info!("there is space again: writes are taken");
        }
    }
}

/// All that waits, up to the bounds of one entry; `None` where nobody can propose any more. Dropped while it waits,
/// it has taken nothing.
async fn gather(waiting: &mut mpsc::Receiver<Proposal>) -> Option<Vec<Proposal>> {
    let first = waiting.recv().await?;
    let mut bytes = first.bytes;
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX
        && bytes < BATCH_BYTES_MAX
        && let Ok(next) = waiting.try_recv()
    {
        bytes += next.bytes;
        batch.push(next);
    }
    Some(batch)
}

async fn write(raft: &openraft::Raft<Types>, batch: Vec<Proposal>, counters: &Counters) {
    let start = Instant::now();
    let (commands, callers): (Vec<_>, Vec<_>) = batch.into_iter().map(|it| (it.command, it.reply)).unzip();
    match raft.client_write(commands).await {
        Ok(written) => {
            counters.commit.record_time(start.elapsed());
            counters.entry_commands.record(callers.len() as u64);
            for (caller, reply) in callers.into_iter().zip(written.data) {
                answer(caller, Ok(reply));
            }
        }
        Err(error) => {
            let error = match error {
                RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => ProposeError::NoLeader,
                _ => ProposeError::Unknown,
            };
            for caller in callers {
                answer(caller, Err(error));
            }
        }
    }
}

/// A caller that no longer waits is no error: the command was applied all the same.
fn answer(caller: oneshot::Sender<Result<Reply, ProposeError>>, reply: Result<Reply, ProposeError>) {
    drop(caller.send(reply));
}
