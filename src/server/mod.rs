//! What a server does as leader: members become rows of the catalog. So far the only member is this server itself.

mod reconcile;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::raft::Raft;

pub use reconcile::{Member, reconcile};

/// A row that somebody removed or changed from outside comes back within this time (`cluster.md` §4.2).
const RECONCILE_EVERY: Duration = Duration::from_secs(60);

/// Keeps this server's own rows in the catalog until `shutdown`. `ready` is told once they are there.
pub async fn run(raft: Raft, member: Member, ready: tokio::sync::oneshot::Sender<()>, shutdown: CancellationToken) {
    let mut ready = Some(ready);
    let mut tick = tokio::time::interval(RECONCILE_EVERY);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        let Some(command) = reconcile(&raft.catalog(), &member) else { continue };
        match raft.propose(command).await {
            Ok(Ok(_)) => drop(ready.take().map(|ready| ready.send(()))),
            Ok(Err(refusal)) => tracing::error!(node = &*member.name, %refusal, "cannot register this server"),
            Err(error) => tracing::warn!(node = &*member.name, %error, "cannot register this server yet"),
        }
    }
}
