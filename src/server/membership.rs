//! Members become rows of the catalog, while this server leads: the loop that waits, writes and tells. What is to be written
//! is the [`Roll`]'s to say.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    MassFailure, Member, Suspicion, now,
    roll::{News, Roll},
};
use crate::{
    catalog::{Key, Subscribe, Topic, fold},
    gossip::Members,
    raft::{ProposeError, Raft},
};

/// A row that somebody removed or changed from outside comes back within this time (`cluster.md` §4.2).
const EVERYTHING_EVERY: Duration = Duration::from_secs(60);
/// After a write that did not come through.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Commands on their way at once: one entry of the log carries them.
const BATCH: usize = 128;

/// The duty to keep the catalog true to the members. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Membership(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: Key,
    roll: Mutex<Roll>,
    /// An operator gave a word.
    told: Notify,
}

/// Whether the rows are as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Yes,
    NotYet,
    /// Nothing can be written for now; what is known is served all the same.
    NoSpace,
}

impl Membership {
    pub fn new(own: Member, guard: MassFailure, suspicion: Suspicion) -> Membership {
        let (name, roll) = (fold(&own.name).into(), Roll::new(own, guard, suspicion));
        Membership(Arc::new(Inner { own: name, roll: Mutex::new(roll), told: Notify::new() }))
    }

    /// An operator's word that members are gone of whom it is not believed: this one, or all. How many they were.
    pub fn confirm(&self, name: Option<&str>) -> usize {
        let confirmed = self.roll().confirm(name);
        self.0.told.notify_one();
        confirmed
    }

    /// Who does not answer and is not believed to be gone, by lower-cased name.
    pub fn unconfirmed(&self) -> Vec<Key> {
        self.roll().doubted().cloned().collect()
    }

    /// Keeps the rows until `shutdown`, and writes only where the catalog says otherwise. `ready` is told once those of this
    /// server are there: what the agent says of its node should come later, and so stand.
    pub async fn run(
        self,
        raft: Raft,
        members: watch::Receiver<Members>,
        ready: oneshot::Sender<()>,
        shutdown: CancellationToken,
    ) {
        self.keep(raft, members, EVERYTHING_EVERY, ready, shutdown).await;
    }

    pub(super) async fn keep(
        self,
        raft: Raft,
        mut members: watch::Receiver<Members>,
        every: Duration,
        ready: oneshot::Sender<()>,
        shutdown: CancellationToken,
    ) {
        let mut ready = Some(ready);
        let mut replaced = raft.subscribe(vec![Topic::Everything]);
        // One that left may have a node again.
        let mut nodes = raft.subscribe(vec![Topic::Nodes]);
        let mut everything_at = now();
        loop {
            let mut wake = now() + RETRY_AFTER.min(every);
            if raft.is_leader() {
                if everything_at <= now() {
                    self.roll().everything(&raft.catalog(), now());
                    everything_at = now() + every;
                }
                self.follow(&raft, &mut members);
                let settled = self.settle(&raft).await;
                if settled != Settled::NotYet {
                    // Nobody may be waiting any more.
                    let _ = ready.take().map(|ready| ready.send(()));
                }
                if settled == Settled::Yes {
                    wake = self.roll().due().map_or(everything_at, |due| due.min(everything_at));
                }
            } else {
                // Whoever led in between may have written anything.
                everything_at = now();
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep_until(wake.into()) => {}
                () = changed(&mut members) => {}
                () = self.0.told.notified() => {}
                _ = &mut nodes => nodes = raft.subscribe(vec![Topic::Nodes]),
                // This server's rows may not be in it.
                _ = &mut replaced => {
                    replaced = raft.subscribe(vec![Topic::Everything]);
                    everything_at = now();
                }
            }
        }
    }

    fn follow(&self, raft: &Raft, members: &mut watch::Receiver<Members>) {
        let news = {
            let mut roll = self.roll();
            roll.follow(&members.borrow_and_update(), &raft.catalog(), now());
            roll.judge(now())
        };
        for news in news {
            match news {
                News::Doubted { members, first } => tracing::warn!(
                    members,
                    first = &*first,
                    "many members vanished at once: their health stays as it was until each is confirmed to be gone"
                ),
                News::Confirmed { members, first } => tracing::warn!(
                    members,
                    first = &*first,
                    "members that vanished with many others are confirmed to be gone"
                ),
                News::OtherServer(name) => tracing::warn!(
                    member = &*name,
                    "another server is a member: it is in the catalog and has no voice, since servers do not agree with each other yet"
                ),
            }
        }
    }

    /// Writes what must be written, batch after batch.
    async fn settle(&self, raft: &Raft) -> Settled {
        let mut settled = Settled::Yes;
        while settled == Settled::Yes {
            let batch = self.roll().next(&raft.catalog(), now(), BATCH);
            if batch.is_empty() {
                break;
            }
            let mut writes = JoinSet::new();
            for (key, command) in batch {
                let raft = raft.clone();
                writes.spawn(async move { (key, raft.propose(command).await) });
            }
            for (key, written) in writes.join_all().await {
                match written {
                    Ok(Ok(_)) => tracing::debug!(member = &*key, "the catalog was told of a member"),
                    Ok(Err(refusal)) => {
                        tracing::error!(member = &*key, %refusal, "the catalog refuses what is true of a member");
                        if key == self.0.own {
                            settled = Settled::NotYet;
                            self.roll().unwritten(key);
                        } else {
                            self.roll().refused(&key);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(member = &*key, %error, "cannot write what is true of a member yet");
                        settled =
                            if error == ProposeError::DiskFull { Settled::NoSpace } else { Settled::NotYet };
                        self.roll().unwritten(key);
                    }
                }
            }
        }
        settled
    }

    fn roll(&self) -> MutexGuard<'_, Roll> {
        self.0.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where nobody tells of members any more, they stay as they are.
async fn changed(members: &mut watch::Receiver<Members>) {
    if members.changed().await.is_err() {
        std::future::pending().await
    }
}
