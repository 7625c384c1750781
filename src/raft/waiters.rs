//! Who waits for what. Waiters stand outside the catalog: a change costs one look-up for each topic it touched,
//! however many wait, and wakes only those who named one of them. A wake is no promise: read again and compare.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{
    catalog::{Blob, Topic, Woken},
    count::Counter,
};

#[derive(Default)]
pub struct Waiters {
    shards: [Mutex<Shard>; SHARDS],
    hasher: ahash::RandomState,
    next: AtomicU64,
    /// How many wait for prefixes of keys, by the prefixes' length: a change of a key is looked up once for each length.
    prefixes: Mutex<BTreeMap<usize, usize>>,
    /// How often the whole catalog was replaced.
    replaced: AtomicU64,
    gone: Counter,
    woken: Counter,
}

/// A registration for some topics. Register first, then read the catalog, then wait: a change in between is not
/// missed. Dropping it frees what it held.
pub struct Wait {
    waiters: Arc<Waiters>,
    topics: Vec<Topic>,
    /// By which it finds itself among those who wait for the same, however many. A change takes it out.
    id: u64,
    notify: Arc<Notify>,
    replaced: u64,
}

type Shard = HashMap<Topic, HashMap<u64, Arc<Notify>, ahash::RandomState>, ahash::RandomState>;

const SHARDS: usize = 16;

impl Waiters {
    pub fn register(self: &Arc<Self>, topics: Vec<Topic>) -> Wait {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let notify = Arc::new(Notify::new());
        let replaced = self.replaced.load(Ordering::Acquire);
        for topic in &topics {
            self.shard(topic).entry(topic.clone()).or_default().insert(id, notify.clone());
            if let Topic::KvTree(prefix) = topic {
                *lock(&self.prefixes).entry(prefix.len()).or_default() += 1;
            }
        }
        Wait { waiters: self.clone(), topics, id, notify, replaced }
    }

    /// Wakes everyone who waits for one of these, and counts them.
    pub(super) fn wake<'a>(&self, topics: impl IntoIterator<Item = &'a Topic>) -> usize {
        let mut woken = 0;
        for topic in topics {
            woken += self.wake_one(topic);
            if let Topic::Kv(key) = topic {
                let lengths: Vec<usize> =
                    lock(&self.prefixes).keys().copied().take_while(|length| *length <= key.len()).collect();
                let trees = lengths.into_iter().map(|length| Topic::KvTree(Blob::from(&key[..length])));
                woken += trees.map(|tree| self.wake_one(&tree)).sum::<usize>();
            }
        }
        self.woken.add(woken as u64);
        woken
    }

    fn wake_one(&self, topic: &Topic) -> usize {
        // Taken out, so that whoever wakes at once does not wait for the shard while the others are woken.
        let waiting = self.shard(topic).remove(topic).unwrap_or_default();
        waiting.values().for_each(|notify| notify.notify_one());
        waiting.len()
    }

    /// Registrations that wait now.
    pub fn waiting(&self) -> u64 {
        let gone = self.gone.get();
        self.next.load(Ordering::Relaxed).saturating_sub(gone)
    }

    /// How often one was woken, once for each of its topics that changed.
    pub fn woken(&self) -> u64 {
        self.woken.get()
    }

    /// Wakes everyone: the whole catalog was replaced.
    pub(super) fn wake_all(&self) {
        self.replaced.fetch_add(1, Ordering::AcqRel);
        for shard in &self.shards {
            let shard = lock(shard);
            self.woken.add(shard.values().map(HashMap::len).sum::<usize>() as u64);
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
    /// Returns after a change to one of the topics since this was registered.
    pub async fn changed(self) -> Woken {
        self.notify.notified().await;
        match self.waiters.replaced.load(Ordering::Acquire) == self.replaced {
            true => Woken::ByChange,
            false => Woken::ByReplacement,
        }
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
            if let Topic::KvTree(prefix) = topic {
                let mut prefixes = lock(&self.waiters.prefixes);
                if let Some(count) = prefixes.get_mut(&prefix.len()) {
                    *count -= 1;
                    if *count == 0 {
                        prefixes.remove(&prefix.len());
                    }
                }
            }
        }
        self.waiters.gone.add(1);
    }
}

/// Nothing that holds one of these can leave it half changed.
fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert_eq!(
            waiters.wake(&[Topic::Nodes, Topic::Service("other".into())]),
            0,
            "a change to another wakes none"
        );
        assert_eq!(waiters.topics(), 3);
        let web_three = waiters.register(vec![Topic::Service("web".into())]);
        drop(web_three);
        assert_eq!(
            waiters.wake(&[Topic::Service("web".into())]),
            2,
            "who waits for the same goes on waiting"
        );
        assert_eq!(waiters.wake(&[Topic::Service("web".into())]), 0, "and is woken once");
        assert_eq!(waiters.topics(), 2, "the other topic of one of them");
        assert_eq!((web.changed().await, web_too.changed().await), (Woken::ByChange, Woken::ByChange));
        assert_eq!(waiters.topics(), 1, "what he held alone is free at once");
        waiters.wake_all();
        assert_eq!((waiters.waiting(), waiters.woken()), (1, 3));
        assert_eq!(db.changed().await, Woken::ByReplacement);
        assert_eq!((waiters.topics(), waiters.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn a_key_wakes_those_who_wait_for_how_it_begins() {
        let waiters = Arc::new(Waiters::default());
        let wait = |topic| waiters.register(vec![topic]);
        let tree = |prefix: &str| wait(Topic::KvTree(prefix.into()));
        let (root, own, other, key) = (tree(""), tree("a/"), tree("b/"), wait(Topic::Kv("a/x".into())));
        assert_eq!(waiters.wake(&[Topic::Kv("a/x".into())]), 3);
        let root_again = tree("");
        let shorter = waiters.wake(&[Topic::Kv("b".into())]);
        assert_eq!(shorter, 1, "than what is waited for: the root alone");
        drop(own);
        let (root_anew, key_anew) = (tree(""), wait(Topic::Kv("a/x".into())));
        assert_eq!(waiters.wake(&[Topic::Kv("a/x".into())]), 2);
        drop((root, root_again, other, key, root_anew, key_anew));
        assert!(waiters.topics() == 0 && lock(&waiters.prefixes).is_empty());
    }
}
