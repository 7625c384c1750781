//! What a server does as leader: members become rows of the catalog (so far the only member is this server itself), and what
//! has had its time ends. Knows agreement and the catalog; not how members are found, nor what else an agent registers on its
//! node.

mod coordinates;
mod reconcile;
mod restore;
mod timers;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    catalog::{Subscribe, Subscription, Topic},
    raft::{ProposeError, Raft},
};
use timers::Timers;

pub use coordinates::CoordinateUpdates;
pub use reconcile::{Member, reconcile};
pub use restore::{give_up, restore};

/// A row that somebody removed or changed from outside comes back within this time (`cluster.md` §4.2).
const RECONCILE_EVERY: Duration = Duration::from_secs(60);
/// After a write that did not come through.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Whether this server leads is looked at as often.
const IDLE: Duration = Duration::from_secs(10);

/// The catalog is looked at no more often than this for what begins and ends.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// Commands on their way at once.
const ENDING_MAX: usize = 64;

/// Ends what has had its time, while this server leads. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Endings(Arc<Mutex<Timers>>);

impl Endings {
    /// A session's client gave a word: its time begins anew.
    pub fn renew(&self, session: Uuid) {
        self.timers().renew(session, now());
    }

    /// Until `shutdown`.
    pub async fn run(&self, raft: Raft, shutdown: CancellationToken) {
        let mut replaced = raft.subscribe(vec![Topic::Everything]);
        while shutdown.run_until_cancelled(self.step(&raft, &mut replaced)).await.is_some() {}
    }

    async fn step(&self, raft: &Raft, replaced: &mut Subscription) {
        let changed = raft.subscribe(vec![Topic::Sessions, Topic::LockDelays, Topic::Tombstones]);
        let next = {
            let mut timers = self.timers();
            match raft.is_leader() {
                true => timers.follow(&raft.catalog(), now()),
                false => timers.clear(),
            }
            timers.next()
        };
        let soon = now() + FOLLOW_EVERY;
        let wake = next.unwrap_or(soon + IDLE).clamp(soon, soon + IDLE);
        tokio::select! {
            biased;
            // By its indexes it may look like the one before: all begin again, as under a new leader.
            _ = &mut *replaced => {
                *replaced = raft.subscribe(vec![Topic::Everything]);
                return self.timers().clear();
            }
            _ = changed => tokio::time::sleep_until(soon.into()).await,
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        let due = self.timers().due(now());
        let mut ending = JoinSet::new();
        for command in due {
            if ending.len() == ENDING_MAX {
                ending.join_next().await;
            }
            let raft = raft.clone();
            ending.spawn(async move {
                // What does not come through is due again later.
                if let Err(error) = raft.propose(command).await {
                    tracing::warn!(%error, "cannot end what has had its time, and will try again");
                }
            });
        }
        ending.join_all().await;
    }

    fn timers(&self) -> MutexGuard<'_, Timers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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

#[expect(clippy::disallowed_methods, reason = "the leader's loops are the rim where the clock is read")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
