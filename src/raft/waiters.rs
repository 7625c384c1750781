//! Who waits for what. Waiters stand outside the catalog: a change costs one look-up for each topic it touched,
//! however many wait, and wakes only those who named one of them. A wake is no promise: read again and compare.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use crate::catalog::Topic;

#[derive(Default)]
pub struct Waiters {
    shards: [Mutex<Shard>; SHARDS],
    hasher: ahash::RandomState,
    next: AtomicU64,
}

/// A registration for some topics. Register first, then read the catalog, then wait: a change in between is not
/// missed. Dropping it frees what it held.
pub struct Wait {
    waiters: Arc<Waiters>,
    topics: Vec<Topic>,
    /// By which it finds itself among those who wait for the same, however many.
    id: u64,
    notify: Arc<Notify>,
}

type Shard = HashMap<Topic, HashMap<u64, Arc<Notify>, ahash::RandomState>, ahash::RandomState>;

const SHARDS: usize = 16;

impl Waiters {
    pub fn register(self: &Arc<Self>, topics: Vec<Topic>) -> Wait {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let notify = Arc::new(Notify::new());
        for topic in &topics {
            self.shard(topic).entry(topic.clone()).or_default().insert(id, notify.clone());
        }
        Wait { waiters: self.clone(), topics, id, notify }
    }

    /// Wakes everyone who waits for one of these, and counts them.
    pub(super) fn wake<'a>(&self, topics: impl IntoIterator<Item = &'a Topic>) -> usize {
        let mut woken = 0;
        for topic in topics {
            let shard = self.shard(topic);
            let waiting = shard.get(topic);
            woken += waiting.map_or(0, HashMap::len);
            waiting.into_iter().flat_map(HashMap::values).for_each(|notify| notify.notify_one());
        }
        woken
    }

    /// Wakes everyone: the whole catalog was replaced.
    pub(super) fn wake_all(&self) {
        for shard in &self.shards {
            let shard = lock(shard);
            shard.values().flat_map(HashMap::values).for_each(|notify| notify.notify_one());
        }
    }

    /// Topics that somebody waits for.
    #[cfg(test)]
    pub(super) fn topics(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, topic: &Topic) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.hasher.hash_one(topic) as usize % SHARDS])
    }
}

impl Wait {
    /// Returns after a change to one of the topics since this was registered, or since the last return.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        for topic in &self.topics {
            let mut shard = self.waiters.shard(topic);
            if let Some(waiting) = shard.get_mut(topic) {
                waiting.remove(&self.id);
                if waiting.is_empty() {
                    shard.remove(topic);
                }
            }
        }
    }
}

/// Nothing that holds a shard can leave it half changed.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_those_who_wait_for_it_are_woken() {
        let waiters = Arc::new(Waiters::default());
        let web = waiters.register(vec![Topic::Service("web".into()), Topic::ServiceGone]);
        let web_too = waiters.register(vec![Topic::Service("web".into())]);
        let db = waiters.register(vec![Topic::Service("db".into())]);
        assert_eq!(waiters.wake(&[Topic::Service("web".into())]), 2);
        web.changed().await;
        web_too.changed().await;
        assert_eq!(
            waiters.wake(&[Topic::Nodes, Topic::Service("other".into())]),
            0,
            "a change to another wakes none"
        );
        assert_eq!(waiters.topics(), 3);
        drop(web);
        assert_eq!(waiters.topics(), 2, "what it held alone is free at once");
        assert_eq!(
            waiters.wake(&[Topic::Service("web".into())]),
            1,
            "who waited for the same goes on waiting"
        );
        waiters.wake_all();
        db.changed().await;
        drop((web_too, db));
        assert_eq!(waiters.topics(), 0);
    }
}
