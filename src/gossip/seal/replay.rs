//! What was heard already. A packet that somebody recorded and sends again would kick healthy members, so each is taken
//! once: senders count, and of each sender's start the last counts are remembered. A count older than all of these is
//! refused, too: packets overtake each other, but not that many.

use std::collections::HashMap;

use ahash::RandomState;

/// By sender's start (see [`super::Origin`]) and space of counting.
#[derive(Default)]
pub struct Heard {
    windows: HashMap<(u64, u8), Window, RandomState>,
    /// Of the last one taken; says which windows are the oldest.
    taken: u64,
}

#[derive(Clone, Copy)]
struct Window {
    /// In order.
    counts: [u64; DEPTH],
    length: usize,
    used: u64,
}

/// So many packets of one sender may be overtaken by a later one of his.
const DEPTH: usize = 16;
/// Only whoever has a key comes in here: that is, members, once for each time they start. Beyond the bound, the half that
/// was silent for the longest time is forgotten.
const SENDERS_MAX: usize = 1 << 15;

impl Heard {
    pub fn is_new(&self, start: u64, space: u8, count: u64) -> bool {
        self.windows.get(&(start, space)).is_none_or(|window| window.is_new(count))
    }

    /// For what was opened: nobody else's counts matter.
    pub fn take(&mut self, start: u64, space: u8, count: u64) {
        if self.windows.len() >= SENDERS_MAX && !self.windows.contains_key(&(start, space)) {
            let mut used: Vec<u64> = self.windows.values().map(|window| window.used).collect();
            let (_, middle, _) = used.select_nth_unstable(SENDERS_MAX / 2);
            let middle = *middle;
            self.windows.retain(|_, window| window.used >= middle);
        }
        self.taken += 1;
        let empty = Window { counts: [0; DEPTH], length: 0, used: 0 };
        let window = self.windows.entry((start, space)).or_insert(empty);
        window.used = self.taken;
        window.take(count);
    }
}

impl Window {
    fn is_new(&self, count: u64) -> bool {
        let counts = &self.counts[..self.length];
        counts.binary_search(&count).is_err() && (self.length < DEPTH || count > counts[0])
    }

    fn take(&mut self, count: u64) {
        let at = self.counts[..self.length].partition_point(|known| *known < count);
        if self.length < DEPTH {
            self.counts.copy_within(at..self.length, at + 1);
            self.counts[at] = count;
            self.length += 1;
        } else if at > 0 {
            self.counts.copy_within(1..at, 0);
            self.counts[at - 1] = count;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Against the plainest judge: a set of all that was ever taken.
    #[test]
    fn nothing_is_taken_twice_and_little_is_lost() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut heard, mut all, mut lost) = (Heard::default(), HashSet::new(), 0);
            for at in 0..2_000_u64 {
                // Every third is late by up to eight, every fourth is a replay of anything so far.
                let count = if rng.u8(..4) == 0 {
                    rng.u64(..=at * 10) / 10 * 10
                } else {
                    at.saturating_sub(rng.u64(..8)) * 10
                };
                let new = heard.is_new(1, 0, count);
                assert!(!new || !all.contains(&count), "seed {seed}: {count} is taken twice");
                if new {
                    heard.take(1, 0, count);
                    all.insert(count);
                } else if !all.contains(&count) {
                    lost += 1;
                }
            }
            assert!(lost < 600 && all.len() > 1_000, "seed {seed}: {lost} lost, {} taken", all.len());
        }
    }

    #[test]
    fn late_packets_are_taken_unless_too_late() {
        let mut heard = Heard::default();
        for count in (0..32).filter(|count| *count != 20) {
            heard.take(7, 0, count);
        }
        assert!(heard.is_new(7, 0, 20), "overtaken by eleven");
        assert!(!heard.is_new(7, 0, 3) && !heard.is_new(7, 0, 31));
        assert!(heard.is_new(7, 1, 31) && heard.is_new(8, 0, 31), "another space, another start");
        heard.take(7, 0, 20);
        assert!(!heard.is_new(7, 0, 20));
    }

    #[test]
    fn senders_are_remembered_to_a_bound() {
        let mut heard = Heard::default();
        for start in 0..SENDERS_MAX as u64 + 1 {
            heard.take(start, 0, 1);
        }
        assert!(heard.windows.len() <= SENDERS_MAX / 2 + 2);
        assert!(!heard.is_new(SENDERS_MAX as u64, 0, 1) && !heard.is_new(SENDERS_MAX as u64 - 10, 0, 1));
        assert!(heard.is_new(0, 0, 1), "the one that was silent for the longest time");
    }
}
