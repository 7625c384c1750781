//! What a server does as leader: members become rows of the catalog. So far the only member is this server itself.
//! Knows agreement and the catalog; not how members are found, nor what else an agent registers on its node.

mod reconcile;

use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::raft::Raft;

pub use reconcile::{Member, reconcile};

/// A row that somebody removed or changed from outside comes back within this time (`cluster.md` §4.2).
const RECONCILE_EVERY: Duration = Duration::from_secs(60);
/// After a write that did not come through.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Keeps this server's own rows in the catalog until `shutdown`, and writes only where the catalog says otherwise.
/// `ready` is told once they are there: what the agent says of its node should come later, and so stand.
pub async fn run(raft: Raft, member: Member, ready: oneshot::Sender<()>, shutdown: CancellationToken) {
    keep(raft, member, RECONCILE_EVERY, ready, shutdown).await;
}

async fn keep(
    raft: Raft,
    member: Member,
    every: Duration,
    ready: oneshot::Sender<()>,
    shutdown: CancellationToken,
) {
    let mut ready = Some(ready);
    loop {
        let pause = if settle(&raft, &member).await {
            // Nobody may be waiting any more.
            let _ = ready.take().map(|ready| ready.send(()));
            every
        } else {
            RETRY_AFTER.min(every)
        };
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// Writes what must be written; says whether the rows are now as they should be.
async fn settle(raft: &Raft, member: &Member) -> bool {
    let Some(command) = reconcile(&raft.catalog(), member) else { return true };
    match raft.propose(command).await {
        Ok(Ok(_)) => return true,
        Ok(Err(refusal)) => tracing::error!(node = &*member.name, %refusal, "cannot register this server"),
        Err(error) => tracing::warn!(node = &*member.name, %error, "cannot register this server yet"),
    }
    false
}

#[cfg(test)]
mod tests;
