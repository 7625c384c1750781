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

    /// A message that was just received. One that may not be kept is none the less the end of a failure, and of what was
    /// said before.
    pub fn put(&mut self, key: Key, message: Arc<Message>, now: Instant, bytes_max: usize) {
        if message.ttl_secs > 0 {
            self.insert(key, Entry { message: Some((message, now)), failed: None }, bytes_max);
        } else {
            self.take(&key);
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

    fn bytes(&self) -> usize {
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

#[cfg(test)]
mod tests {
    use super::{
        super::message::{Heard, Question},
        *,
    };

    const BYTES_MAX: usize = 64 * 1024;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        Instant::now()
    }

    fn key(number: u32) -> Key {
        format!("name-{number}").into_bytes().into()
    }

    /// An address with this TTL.
    fn message(ttl_secs: u32) -> Arc<Message> {
        let mut packet = vec![0, 7, 0x84, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
        packet.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        packet.extend_from_slice(&ttl_secs.to_be_bytes());
        packet.extend_from_slice(&[0, 4, 192, 0, 2, 1]);
        let name = Box::from(&b"\x01a\0"[..]);
        let question = Question { name, qtype: 1, qclass: 1, dnssec_ok: false, cd: false };
        let Heard::Good(message) = question.hear(7, &packet) else { panic!("a good message") };
        Arc::new(message)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_message_is_told_as_long_as_it_holds() {
        let (mut cache, start) = (Cache::default(), start());
        cache.put(key(1), message(10), start, BYTES_MAX);
        assert_eq!(cache.get(&key(1), start + secs(9)), Some(Known::Message(message(10), Age::Secs(9))));
        assert_eq!(cache.get(&key(1), start + secs(10)), None);
        assert_eq!(cache.get(&key(2), start), None);
        cache.put(key(2), message(0), start, BYTES_MAX);
        assert_eq!(cache.get(&key(2), start), None, "TTL 0 is for whoever asked");
    }

    #[test]
    fn what_was_said_before_the_last_word_is_forgotten() {
        let (mut cache, start) = (Cache::default(), start());
        cache.put(key(1), message(10), start, BYTES_MAX);
        cache.put(key(1), message(0), start + secs(11), BYTES_MAX);
        let none = Known::Failed(Failure::Silence);
        assert_eq!(cache.fail(key(1), Failure::Silence, start + secs(12), BYTES_MAX), none);
    }

    #[test]
    fn a_message_that_nobody_renews_is_told_for_a_day() {
        let (mut cache, start) = (Cache::default(), start());
        cache.put(key(1), message(10), start, BYTES_MAX);
        let stale = Known::Message(message(10), Age::Stale);
        let failed = start + secs(11);
        assert_eq!(cache.fail(key(1), Failure::Silence, failed, BYTES_MAX), stale);
        assert_eq!(cache.get(&key(1), failed + PAUSE_WITH_STALE / 2), Some(stale));
        assert_eq!(cache.get(&key(1), failed + PAUSE_WITH_STALE), None, "time to ask again");
        let last = start + secs(10) + STALE_MAX;
        let none = Known::Failed(Failure::Silence);
        assert_eq!(cache.fail(key(1), Failure::Silence, last, BYTES_MAX), none);
    }

    #[test]
    fn a_failure_is_remembered_for_a_moment_and_ended_by_an_answer() {
        let (mut cache, start) = (Cache::default(), start());
        let failed = Known::Failed(Failure::Refused);
        assert_eq!(cache.fail(key(1), Failure::Refused, start, BYTES_MAX), failed);
        assert_eq!(cache.get(&key(1), start + PAUSE / 2), Some(failed.clone()));
        assert_eq!(cache.get(&key(1), start + PAUSE), None);
        cache.put(key(1), message(10), start, BYTES_MAX);
        assert_eq!(cache.get(&key(1), start), Some(Known::Message(message(10), Age::Secs(0))));
    }

    #[test]
    fn its_bytes_have_an_end_and_what_is_asked_for_stays() {
        let (mut cache, start) = (Cache::default(), start());
        for number in 0..10_000 {
            cache.put(key(number), message(300), start, BYTES_MAX);
            assert!(cache.bytes() <= BYTES_MAX, "{} after {number}", cache.bytes());
            assert!(cache.get(&key(0), start).is_some(), "asked for all the time, gone after {number}");
        }
        assert!(cache.get(&key(9_999), start).is_some() && cache.get(&key(1), start).is_none());
        assert!(cache.bytes() > BYTES_MAX / 4);
        let entries = cache.young.entries.iter().chain(&cache.old.entries);
        assert_eq!(cache.bytes(), entries.map(|(key, entry)| entry.bytes(key)).sum::<usize>());
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let (mut cache, start) = (Cache::default(), start());
        cache.put(key(1), message(10), start, 0);
        assert_eq!((cache.get(&key(1), start), cache.bytes()), (None, 0));
    }
}
