//! Who waits for what. Waiters stand outside the catalog: a change costs one look-up for each topic it touched,
//! however many wait, and wakes only those who named one of them. A wake is no promise: read again and compare.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Notify;

use crate::catalog::Topic;

#[derive(Default)]
pub struct Waiters {
    shards: [Mutex<HashMap<Topic, Vec<Weak<Notify>>, ahash::RandomState>>; SHARDS],
    hasher: ahash::RandomState,
}

/// A registration for some topics. Register first, then read the catalog, then wait: a change in between is not
/// missed. Dropping it frees what it held.
pub struct Wait {
    waiters: Arc<Waiters>,
    topics: Vec<Topic>,
    notify: Arc<Notify>,
}

const SHARDS: usize = 16;

impl Waiters {
    pub fn register(self: &Arc<Self>, topics: Vec<Topic>) -> Wait {
        let notify = Arc::new(Notify::new());
        for topic in &topics {
            self.shard(topic)
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(topic.clone())
                .or_default()
                .push(Arc::downgrade(&notify));
        }
        Wait { waiters: self.clone(), topics, notify }
    }

    /// Wakes everyone who waits for one of these, and counts them.
    pub(super) fn wake(&self, topics: &[Topic]) -> usize {
        let mut woken = 0;
        for topic in topics {
            let shard = self.shard(topic).lock().unwrap_or_else(PoisonError::into_inner);
            for notify in shard.get(topic).into_iter().flatten().filter_map(Weak::upgrade) {
                notify.notify_one();
                woken += 1;
            }
        }
        woken
    }

    /// Wakes everyone: the whole catalog was replaced.
    pub(super) fn wake_all(&self) {
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.values().flatten().filter_map(Weak::upgrade).for_each(|notify| notify.notify_one());
        }
    }

    /// Topics that somebody waits for.
    #[cfg(test)]
    fn topics(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    fn shard(&self, topic: &Topic) -> &Mutex<HashMap<Topic, Vec<Weak<Notify>>, ahash::RandomState>> {
        &self.shards[self.hasher.hash_one(topic) as usize % SHARDS]
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
            let mut shard = self.waiters.shard(topic).lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(waiting) = shard.get_mut(topic) {
                waiting.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(&self.notify)));
                if waiting.is_empty() {
                    shard.remove(topic);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_those_who_wait_for_it_are_woken() {
        let waiters = Arc::new(Waiters::default());
        let web = waiters.register(vec![Topic::Service("web".into()), Topic::ServiceGone]);
        let db = waiters.register(vec![Topic::Service("db".into())]);
        assert_eq!(waiters.wake(&[Topic::Service("web".into())]), 1);
        web.changed().await;
        assert_eq!(
            waiters.wake(&[Topic::Nodes, Topic::Service("other".into())]),
            0,
            "a change to another wakes none"
        );
        assert_eq!(waiters.topics(), 3);
        drop(web);
        assert_eq!(waiters.topics(), 1, "what it held is free at once");
        waiters.wake_all();
        db.changed().await;
    }
}
