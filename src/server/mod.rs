//! What a server does as leader: members become rows of the catalog. So far the only member is this server itself.
//! Knows agreement and the catalog; not how members are found, nor what else an agent registers on its node.

mod coordinates;
mod reconcile;
mod restore;

use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    catalog::{Subscribe, Topic},
    raft::{ProposeError, Raft},
};

pub use coordinates::CoordinateUpdates;
pub use reconcile::{Member, reconcile};
pub use restore::{give_up, restore};

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
    let mut replaced = raft.subscribe(vec![Topic::Everything]);
    loop {
        let settled = settle(&raft, &member).await;
        if settled != Settled::NotYet {
            // Nobody may be waiting any more.
            let _ = ready.take().map(|ready| ready.send(()));
        }
        let pause = if settled == Settled::Yes { every } else { RETRY_AFTER.min(every) };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            // They may not be in it.
            _ = &mut replaced => replaced = raft.subscribe(vec![Topic::Everything]),
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

/// Writes what must be written, one step after the other.
async fn settle(raft: &Raft, member: &Member) -> Settled {
    for _ in 0..STEPS_MAX {
        let Some(command) = reconcile(&raft.catalog(), member) else { return Settled::Yes };
        match raft.propose(command).await {
            Ok(Ok(_)) => continue,
            Err(ProposeError::DiskFull) => return Settled::NoSpace,
            Ok(Err(refusal)) => {
                tracing::error!(node = &*member.name, %refusal, "cannot register this server")
            }
            Err(error) => tracing::warn!(node = &*member.name, %error, "cannot register this server yet"),
        }
        return Settled::NotYet;
    }
    Settled::Yes
}

/// One to free the name, one to take it.
const STEPS_MAX: usize = 2;

#[cfg(test)]
mod tests;
