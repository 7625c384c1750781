//! The guard against a mass failure: where many members vanish at once, it is more likely that this server does not hear
//! them than that they are gone. What was known of their health stands until no more have vanished for a longer time, or an
//! operator says that it is so. Pure: who vanished and the time go in, who is doubted comes out.
//!
//! ```text
//!   alive ─vanishes─> gone ─too many with it─> doubted ─confirm_after without another, or by an operator's word─> gone
//!     ^────returns─────┴──────────returns─────────┘
//! ```
//!
//! One that vanishes within a suspicion period of another belongs to the same burst, however long the burst lasts: an
//! observer that is cut off from thousands suspects only one of them a second. Therefore the time counts from the last one;
//! but not for ever, for some may be gone while others come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::catalog::Key;

/// When so many are too many. Any 0 turns the guard off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MassFailure {
    /// Of the members that were alive, in hundredths: more than these are too many …
    pub percent: u32,
    /// … if they are at least so many.
    pub members_min: usize,
    /// Once nobody else vanished for so long they are believed to be gone, however many they are.
    pub confirm_after: Duration,
}

/// Times `confirm_after` after the first doubt, the others are believed to be gone though still more vanish.
const DOUBTED_MAX: u32 = 6;

impl Default for MassFailure {
    fn default() -> Self {
        MassFailure { percent: 30, members_min: 10, confirm_after: Duration::from_secs(300) }
    }
}

impl MassFailure {
    fn is_off(&self) -> bool {
        self.percent == 0 || self.members_min == 0 || self.confirm_after.is_zero()
    }

    /// Whether it is too many that `gone` vanished where `alive` are left.
    fn is_too_many(&self, gone: usize, alive: usize) -> bool {
        gone >= self.members_min && gone * 100 > (gone + alive) * self.percent as usize
    }
}

/// Who vanished of late, and whether that is believed.
#[derive(Debug)]
pub struct Guard {
    settings: MassFailure,
    /// Who vanished in the burst that is going on.
    burst: BTreeSet<Key>,
    /// When the last of it did.
    last: Option<Instant>,
    /// When the first of it was doubted.
    since: Option<Instant>,
    /// Until when each is doubted, if nobody else vanishes.
    doubted: BTreeMap<Key, Instant>,
}

impl Guard {
    pub fn new(settings: MassFailure) -> Guard {
        Guard { settings, burst: BTreeSet::new(), last: None, since: None, doubted: BTreeMap::new() }
    }

    /// A member that was alive has not answered for as long as suspicions last, which is at most `suspicion`.
    pub fn vanished(&mut self, key: &Key, now: Instant, suspicion: Duration) {
        if self.settings.is_off() {
            return;
        }
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > suspicion) {
            self.burst.clear();
            self.since = None;
        }
        self.last = Some(now);
        self.burst.insert(key.clone());
    }

    /// It is alive, or is known to be gone for good: there is nothing to doubt.
    pub fn settled(&mut self, key: &str) {
        self.burst.remove(key);
        self.doubted.remove(key);
    }

    /// Whose case has changed by now: those who are doubted from here on, and those who are not any more. `alive` members
    /// are left.
    pub fn judge(&mut self, alive: usize, now: Instant) -> Judged {
        let mut judged = Judged::default();
        if self.settings.is_too_many(self.burst.len(), alive) {
            let since = *self.since.get_or_insert(now);
            let until = self.until(since, now);
            for key in self.burst.iter().filter(|_| until > now) {
                if !self.doubted.contains_key(key) {
                    self.doubted.insert(key.clone(), until);
                    judged.doubted.push(key.clone());
                }
            }
        }
        if let Some(since) = self.since {
            let until = self.until(since, now);
            let of_burst = |(key, _): &(&Key, &mut Instant)| self.burst.contains(*key);
            self.doubted.iter_mut().filter(of_burst).for_each(|(_, own)| *own = until);
        }
        let over = self.doubted.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key.clone());
        judged.confirmed = self.confirm(over.collect());
        judged
    }

    /// When those of the burst are believed to be gone, who were doubted `since` then.
    fn until(&self, since: Instant, now: Instant) -> Instant {
        let after = self.settings.confirm_after;
        (self.last.unwrap_or(now) + after).min(since + after.saturating_mul(DOUBTED_MAX))
    }

    /// Nobody vanished of late, and nobody is doubted.
    pub fn is_idle(&self) -> bool {
        self.burst.is_empty() && self.doubted.is_empty()
    }

    pub fn doubts(&self, key: &str) -> bool {
        self.doubted.contains_key(key)
    }

    /// In order of their names.
    pub fn doubted(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.doubted.keys()
    }

    /// These are gone, however many they are. Gives those who were doubted.
    pub fn confirm(&mut self, keys: Vec<Key>) -> Vec<Key> {
        keys.into_iter()
            .filter(|key| {
                self.burst.remove(key);
                self.doubted.remove(key).is_some()
            })
            .collect()
    }

    /// When somebody will have been away for long enough.
    pub fn due(&self) -> Option<Instant> {
        self.doubted.values().min().copied()
    }
}

/// Whose case has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judged {
    pub doubted: Vec<Key>,
    pub confirmed: Vec<Key>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUSPICION: Duration = Duration::from_secs(24);
    const NOBODY: [Key; 0] = [];

    fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn guard(percent: u32, members_min: usize, confirm_secs: u64) -> Guard {
        Guard::new(MassFailure { percent, members_min, confirm_after: secs(confirm_secs) })
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some time to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn key(number: usize) -> Key {
        format!("n{number:04}").into()
    }

    /// Of `all` members, `gone` vanish one after the other in so many seconds: how many are doubted at the end?
    #[test]
    fn too_many_at_once_are_doubted() {
        let table = [
            // all, gone, seconds between, doubted
            (30, 9, 0, 0),   // less than ten
            (30, 10, 0, 10), // a third
            (40, 12, 0, 0),  // 30 % and no more
            (40, 13, 0, 13),
            (1000, 300, 0, 0),
            (1000, 301, 0, 301),
            (12, 12, 0, 12),     // everyone
            (30, 12, 24, 12),    // each within a suspicion period of the one before
            (30, 12, 25, 0),     // each alone
            (1000, 400, 1, 400), // as a lone observer sees it: one a second
        ];
        for (all, gone, between, doubted) in table {
            let (mut guard, mut now) = (Guard::new(MassFailure::default()), start());
            for number in 0..gone {
                guard.vanished(&key(number), now, SUSPICION);
                assert_eq!(guard.judge(all - number - 1, now).confirmed, NOBODY, "{gone} of {all}");
                now += secs(between);
            }
            assert_eq!(guard.doubted().len(), doubted, "{gone} of {all}, {between} s between");
        }
    }

    #[test]
    fn nothing_is_doubted_where_it_is_off() {
        for (percent, least, confirm) in [(0, 10, 300), (30, 0, 300), (30, 10, 0)] {
            let (mut guard, now) = (guard(percent, least, confirm), start());
            for number in 0..100 {
                guard.vanished(&key(number), now, SUSPICION);
                assert_eq!(guard.judge(99 - number, now), Judged::default());
            }
        }
    }

    #[test]
    fn they_are_confirmed_in_their_time_or_by_a_word() {
        let (mut guard, start) = (guard(30, 10, 300), start());
        for number in 0..10 {
            guard.vanished(&key(number), start + secs(number as u64), SUSPICION);
        }
        let judged = guard.judge(5, start + secs(9));
        assert_eq!(judged.doubted.len(), 10, "those before the tenth, too");
        assert_eq!(guard.due(), Some(start + secs(309)));
        guard.vanished(&key(10), start + secs(19), SUSPICION);
        assert_eq!(guard.judge(4, start + secs(19)).doubted, [key(10)]);
        assert_eq!(guard.due(), Some(start + secs(319)), "after the last one");
        assert_eq!(guard.judge(4, start + secs(318)), Judged::default());
        guard.settled(&key(3));
        assert_eq!(guard.confirm(vec![key(3), key(4), key(77)]), [key(4)]);
        assert_eq!(guard.judge(5, start + secs(318)), Judged::default(), "nor are they doubted again");
        assert_eq!(guard.judge(5, start + secs(319)).confirmed.len(), 9);
        assert_eq!((guard.doubted().len(), guard.due()), (0, None));
        guard.vanished(&key(1), start + secs(410), SUSPICION);
        assert_eq!(guard.judge(14, start + secs(410)), Judged::default(), "one alone is believed at once");
    }

    /// Where there is no end of it, there is one of doubting it: those who are gone are not answered for hours.
    #[test]
    fn nobody_is_doubted_for_ever() {
        let (mut guard, start) = (guard(30, 10, 60), start());
        let mut confirmed = 0;
        for number in 0..1000 {
            let now = start + secs(number);
            guard.vanished(&key(number as usize), now, SUSPICION);
            let judged = guard.judge(5, now);
            assert!(number <= 9 + 360 || judged.doubted.is_empty(), "it is believed from now on");
            confirmed += judged.confirmed.len();
            let expected = if number < 9 + 360 { 0 } else { 9 + 360 };
            assert_eq!(confirmed, expected, "after {number} s");
        }
        let later = start + secs(2000);
        (0..10).for_each(|number| guard.vanished(&key(number), later, SUSPICION));
        assert_eq!(guard.judge(5, later).doubted.len(), 10, "another burst is another case");
    }

    #[test]
    fn who_returns_does_not_count() {
        let (mut guard, now) = (guard(30, 10, 300), start());
        for number in 0..50 {
            guard.vanished(&key(number), now, SUSPICION);
            guard.settled(&key(number));
            assert_eq!(guard.judge(20, now), Judged::default());
        }
    }

    /// Whatever happens: only who is gone is doubted, never for longer than is set, and whoever asks is told of each
    /// change once.
    #[test]
    fn a_walk_of_many_steps() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut guard, mut now) = (guard(30, 10, 60), start());
            let all = random.usize(1..80);
            let (mut gone, mut last) = (BTreeSet::new(), now);
            let mut told: BTreeMap<Key, Instant> = BTreeMap::new();
            for step in 0..400 {
                let member = key(random.usize(..all));
                match random.u8(..10) {
                    0..6 if !gone.contains(&member) => {
                        guard.vanished(&member, now, SUSPICION);
                        gone.insert(member);
                        last = now;
                    }
                    6..8 => {
                        guard.settled(&member);
                        gone.remove(&member);
                        told.remove(&member);
                    }
                    8 => {
                        for key in guard.confirm(vec![member]) {
                            assert!(told.remove(&key).is_some(), "seed {seed}, step {step}");
                        }
                    }
                    _ => now += secs(random.u64(..30)),
                }
                let judged = guard.judge(all - gone.len(), now);
                for key in judged.doubted {
                    assert!(told.insert(key, now).is_none(), "seed {seed}, step {step}: told twice");
                }
                for key in judged.confirmed {
                    assert!(told.remove(&key).is_some(), "seed {seed}, step {step}: was not doubted");
                }
                assert!(guard.doubted().eq(told.keys()), "seed {seed}, step {step}");
                for (key, since) in &told {
                    assert!(gone.contains(key), "seed {seed}, step {step}: {key} is not gone");
                    let is_long = last + secs(60) <= now || *since + secs(360) <= now;
                    assert!(!is_long, "seed {seed}, step {step}: {key} for too long");
                }
            }
        }
    }
}
