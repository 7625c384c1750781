//! Which events were heard already. Times are counted, not measured: each event is later than all that its sender had heard of.

use std::collections::VecDeque;

use super::identity::mix;
use crate::catalog::Text;

/// Times back from the newest that are remembered; what is older is too old to be heard.
const TIMES: u64 = 512;
/// Events of all these times together.
const EVENTS_MAX: usize = 1 << 14;
/// No sender is further ahead than this: what says so is no event.
const AHEAD_MAX: u64 = 1 << 32;

#[derive(Debug, Default)]
pub(crate) struct Ring {
    clock: u64,
    heard: VecDeque<(u64, Vec<u64>)>,
    /// Events in it.
    count: usize,
}

/// What an event is to who hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    New,
    /// Or too old to know.
    Known,
    /// There are more than can be told apart: it is not heard.
    TooMany,
}

impl Ring {
    pub fn new(clock: u64) -> Ring {
        Ring { clock, heard: VecDeque::new(), count: 0 }
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

    pub fn hear(&mut self, time: u64, hash: u64) -> Heard {
        if time.saturating_add(TIMES) < self.clock || time >= self.clock.saturating_add(AHEAD_MAX) {
            return Heard::Known;
        }
        self.witness(time);
        while let Some((_, old)) =
            self.heard.pop_front_if(|(time, _)| time.saturating_add(TIMES) < self.clock)
        {
            self.count -= old.len();
        }
        let at = match self.heard.binary_search_by_key(&time, |(time, _)| *time) {
            Ok(at) => at,
            Err(at) => {
                self.heard.insert(at, (time, Vec::new()));
                at
            }
        };
        let hashes = &mut self.heard[at].1;
        if hashes.contains(&hash) {
            return Heard::Known;
        }
        if self.count >= EVENTS_MAX {
            return Heard::TooMany;
        }
        hashes.push(hash);
        self.count += 1;
        Heard::New
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

    fn new(ring: &mut Ring, time: u64, hash: u64) -> bool {
        ring.hear(time, hash) == Heard::New
    }

    #[test]
    fn an_event_is_heard_once() {
        let mut ring = Ring::new(0);
        assert!(new(&mut ring, 5, 1) && new(&mut ring, 5, 2) && new(&mut ring, 3, 1));
        assert_eq!((ring.hear(5, 1), ring.hear(3, 1)), (Heard::Known, Heard::Known));
        assert_eq!((ring.clock(), ring.next()), (5, 6));
        assert!(new(&mut ring, 5 + TIMES, 1) && new(&mut ring, 6, 1));
        assert!(new(&mut ring, 5 + TIMES + 1, 1) && !new(&mut ring, 5, 9), "too old to know");
        assert!(!new(&mut ring, u64::MAX, 1) && ring.clock() < 1000, "nobody's clock is there");
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut ring = Ring::new(0);
        let heard: Vec<Heard> = (0..EVENTS_MAX as u64 + 100).map(|n| ring.hear(7, n)).collect();
        assert_eq!(heard.iter().filter(|heard| **heard == Heard::New).count(), EVENTS_MAX);
        assert_eq!(heard.last(), Some(&Heard::TooMany));
        assert_eq!(ring.hear(8, 0), Heard::TooMany, "of any time");
        assert_eq!(ring.hear(7 + TIMES + 1, 0), Heard::New, "the former ones are too old by now");
        assert_eq!(ring.count, 1);
        assert_eq!((0..100_000).filter(|n| new(&mut ring, 1_000 + n / 10, *n)).count(), 100_000);
        assert!(ring.heard.len() <= TIMES as usize + 1 && ring.count <= (TIMES as usize + 1) * 10);
    }
}
