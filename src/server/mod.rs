//! What a server does as leader: members become rows of the catalog, and what has had its time ends. Knows agreement, the
//! catalog and members as a value; not how members are found, nor what else an agent registers on its node.

mod coordinates;
mod guard;
mod member;
mod membership;
mod reconcile;
mod restore;
mod roll;
mod timers;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    catalog::{Subscribe, Subscription, Topic},
    raft::Raft,
};
use timers::Timers;

pub use coordinates::CoordinateUpdates;
pub use guard::MassFailure;
pub use member::Member;
pub use membership::Membership;
pub use restore::{give_up, restore};
pub use roll::Suspicion;

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

#[expect(clippy::disallowed_methods, reason = "the leader's loops are the rim where the clock is read")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
