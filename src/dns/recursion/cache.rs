//! What recursors said, kept for as long as it holds, and longer for the day when none of them answers (RFC 8767); and
//! which questions they just failed at, so that those are not asked again at once (RFC 9520). Bounded in bytes. Time is
//! an argument.
//!
//! Two generations stand for an order of use: what is asked for moves to the young one, and when that has half of the
//! bytes it becomes the old one, and the former old one goes.

use std::{
    collections::HashMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::message::{Age, Key, Message};

#[derive(Default)]
pub struct Cache {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    entries: HashMap<Key, Entry, ahash::RandomState>,
    bytes: usize,
}

#[derive(Default)]
struct Entry {
    message: Option<(Arc<Message>, Instant)>,
    /// Until then there is no use in asking.
    failed: Option<(Instant, Failure)>,
}

/// Why nobody could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No recursor was heard from.
    Silence,
    /// Those who were are of no help.
    Refused,
}

/// What is known of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    Message(Arc<Message>, Age),
    Failed(Failure),
}

/// Of an answer that nobody could renew (RFC 8767 §5).
const STALE_MAX: Duration = Duration::from_secs(86_400);
/// Nobody is asked again so soon after a failure: with an old answer at hand there is no hurry (RFC 8767 §5), without
/// one there is (RFC 9520 §3.2).
const PAUSE_WITH_STALE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(1);
/// What an entry takes beside its key and its message: the row of the table, counts and lengths.
const ENTRY_BYTES: usize = 160;

impl Cache {
    /// What may be told without asking anybody.
    pub fn get(&mut self, key: &[u8], now: Instant) -> Option<Known> {
        let found = self.find(key)?;
        if let Some((message, since)) = &found.message {
            let age = secs(*since, now);
            if age < message.ttl_secs {
                return Some(Known::Message(message.clone(), Age::Secs(age)));
            }
        }
        let (_, failure) = found.failed.filter(|(until, _)| now < *until)?;
        Some(found.stale(now).unwrap_or(Known::Failed(failure)))
    }

    /// A message that was just received. One that may not be kept is none the less the end of a failure.
    pub fn put(&mut self, key: Key, message: Arc<Message>, now: Instant, bytes_max: usize) {
        let entry = if message.ttl_secs > 0 {
            Entry { message: Some((message, now)), failed: None }
        } else {
            let mut entry = self.take(&key).unwrap_or_default();
            entry.failed = None;
            entry
        };
        if entry.message.is_some() {
            self.insert(key, entry, bytes_max);
        }
    }

    /// Nobody could answer: what to say instead, now and for a while.
    pub fn fail(&mut self, key: Key, failure: Failure, now: Instant, bytes_max: usize) -> Known {
        let mut entry = self.take(&key).unwrap_or_default();
        let stale = entry.stale(now);
        let pause = if stale.is_some() { PAUSE_WITH_STALE } else { PAUSE };
        entry.failed = Some((now + pause, failure));
        self.insert(key, entry, bytes_max);
        stale.unwrap_or(Known::Failed(failure))
    }

    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }

    /// An entry of the old generation moves to the young one. That may make it larger than its half, until the next
    /// insertion.
    fn find(&mut self, key: &[u8]) -> Option<&Entry> {
        if let Some((key, entry)) = self.old.remove(key) {
            self.young.insert(key, entry);
        }
        self.young.entries.get(key)
    }

    fn take(&mut self, key: &[u8]) -> Option<Entry> {
        let (young, old) = (self.young.remove(key), self.old.remove(key));
        young.or(old).map(|(_, entry)| entry)
    }

    fn insert(&mut self, key: Key, entry: Entry, bytes_max: usize) {
        self.take(&key);
        let bytes = entry.bytes(&key);
        if bytes > bytes_max / 2 {
            return;
        }
        if self.young.bytes + bytes > bytes_max / 2 {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
        // What was found moved up, and made the generation larger than it should be.
        if self.bytes() > bytes_max {
            self.old = Generation::default();
        }
    }
}

impl Generation {
    fn insert(&mut self, key: Key, entry: Entry) {
        self.bytes += entry.bytes(&key);
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &[u8]) -> Option<(Key, Entry)> {
        let (key, entry) = self.entries.remove_entry(key)?;
        self.bytes -= entry.bytes(&key);
        Some((key, entry))
    }
}

impl Entry {
    fn bytes(&self, key: &[u8]) -> usize {
        ENTRY_BYTES + key.len() + self.message.as_ref().map_or(0, |(message, _)| message.bytes())
    }

    fn stale(&self, now: Instant) -> Option<Known> {
        let (message, since) = self.message.as_ref()?;
        let held = Duration::from_secs(message.ttl_secs.into());
        (now < *since + held + STALE_MAX).then(|| Known::Message(message.clone(), Age::Stale))
    }
}

fn secs(since: Instant, now: Instant) -> u32 {
    u32::try_from(now.saturating_duration_since(since).as_secs()).unwrap_or(u32::MAX)
}
