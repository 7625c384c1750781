//! What a server does as leader: members become rows of the catalog. So far the only member is this server itself.
//! Knows agreement and the catalog; not how members are found, nor what else an agent registers on its node.

mod coordinates;
mod reconcile;

use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::Subscribe,
    raft::{ProposeError, Raft},
};

pub use coordinates::CoordinateUpdates;
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
        let settled = settle(&raft, &member).await;
        if settled != Settled::NotYet {
            // Nobody may be waiting any more.
            let _ = ready.take().map(|ready| ready.send(()));
        }
        let pause = if settled == Settled::Yes { every } else { RETRY_AFTER.min(every) };
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// Whether this server's rows are as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Yes,
    NotYet,
    /// Nothing can be written for now; what is known is served all the same.
    NoSpace,
}

/// Writes what must be written.
async fn settle(raft: &Raft, member: &Member) -> Settled {
    let Some(command) = reconcile(&raft.catalog(), member) else { return Settled::Yes };
    match raft.propose(command).await {
        Ok(Ok(_)) => return Settled::Yes,
        Err(ProposeError::DiskFull) => return Settled::NoSpace,
        Ok(Err(refusal)) => tracing::error!(node = &*member.name, %refusal, "cannot register this server"),
        Err(error) => tracing::warn!(node = &*member.name, %error, "cannot register this server yet"),
    }
    Settled::NotYet
}

#[cfg(test)]
mod tests;
