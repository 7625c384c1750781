//! Which events were heard already. Times are counted, not measured: each event is later than all that its sender had heard of.

use std::collections::VecDeque;

use super::identity::mix;
use crate::catalog::Text;

/// Times back from the newest that are remembered; what is older is too old to be heard.
const TIMES: u64 = 512;
/// Events of one time.
const EVENTS_MAX: usize = 32;
/// No sender is further ahead than this: what says so is no event.
const AHEAD_MAX: u64 = 1 << 32;

#[derive(Debug, Default)]
pub(crate) struct Ring {
    clock: u64,
    heard: VecDeque<(u64, Vec<u64>)>,
}

impl Ring {
    pub fn new(clock: u64) -> Ring {
        Ring { clock, heard: VecDeque::new() }
    }

    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The time of an event of our own.
    pub fn next(&mut self) -> u64 {
        self.clock + 1
    }

    /// Another's clock.
    pub fn witness(&mut self, time: u64) {
        if time < self.clock.saturating_add(AHEAD_MAX) {
            self.clock = self.clock.max(time);
        }
    }

    /// Whether it is heard for the first time.
    pub fn hear(&mut self, time: u64, hash: u64) -> bool {
        if time.saturating_add(TIMES) < self.clock || time >= self.clock.saturating_add(AHEAD_MAX) {
            return false;
        }
        self.witness(time);
        let at = match self.heard.binary_search_by_key(&time, |(time, _)| *time) {
            Ok(at) => at,
            Err(at) => {
                self.heard.insert(at, (time, Vec::new()));
                at
            }
        };
        let hashes = &mut self.heard[at].1;
        let new = !hashes.contains(&hash) && hashes.len() < EVENTS_MAX;
        if new {
            hashes.push(hash);
        }
        while self.heard.front().is_some_and(|(time, _)| time.saturating_add(TIMES) < self.clock) {
            self.heard.pop_front();
        }
        new
    }
}

/// Of what makes an event one: its name and payload.
pub(crate) fn hash(name: &Text, payload: &[u8]) -> u64 {
    let bytes = name.bytes().chain([0]).chain(payload.iter().copied());
    bytes.fold(0, |hash, byte| mix(hash ^ u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_heard_once() {
        let mut ring = Ring::new(0);
        assert!(ring.hear(5, 1) && ring.hear(5, 2) && ring.hear(3, 1));
        assert!(!ring.hear(5, 1) && !ring.hear(3, 1));
        assert_eq!((ring.clock(), ring.next()), (5, 6));
        assert!(ring.hear(5 + TIMES, 1) && ring.hear(6, 1));
        assert!(ring.hear(5 + TIMES + 1, 1) && !ring.hear(5, 9), "too old to know");
        assert!(!ring.hear(u64::MAX, 1) && ring.clock() < 1000, "nobody's clock is there");
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut ring = Ring::new(0);
        assert_eq!((0..100_000).filter(|n| ring.hear(n / 100, *n)).count(), 1000 * EVENTS_MAX);
        assert!(ring.heard.len() <= TIMES as usize + 1);
        assert!(ring.heard.iter().all(|(_, hashes)| hashes.len() <= EVENTS_MAX));
    }
}
