//! A suspicion, and how long it lasts: long while one member alone holds it, shorter with every other that says the same. Only who
//! accuses holds one; hearing of one starts none.

use std::time::{Duration, Instant};

use super::{identity::Id, settings::Timing};

pub(crate) struct Suspicion {
    pub id: Id,
    pub incarnation: u16,
    /// foca's: of its timers, those of another one mean nothing.
    pub token: u8,
    pub since: Instant,
    /// Its host refused a connection from here.
    pub refused: bool,
    /// Another one has called it failed: it heard enough others for that.
    pub told: bool,
    /// By how much its end was put off since this process was stopped itself.
    pub put_off: Duration,
}

/// Who else suspects a member.
#[derive(Debug)]
pub(crate) struct Votes {
    pub generation: u64,
    pub incarnation: u16,
    from: Vec<(u64, bool)>,
    /// How many were passed on.
    pub passed: u8,
    pub at: Instant,
}

/// Others that must agree until a suspicion lasts no longer than it must.
const ENOUGH: usize = 2;
/// Further votes tell nothing new.
const VOTES_MAX: usize = 8;

impl Votes {
    pub fn new(generation: u64, incarnation: u16, at: Instant) -> Votes {
        Votes { generation, incarnation, from: Vec::new(), passed: 0, at }
    }

    /// Whether it says something new.
    pub fn add(&mut self, from: u64, refused: bool) -> bool {
        if let Some((_, known)) = self.from.iter_mut().find(|(voter, _)| *voter == from) {
            return !std::mem::replace(known, refused || *known) && refused;
        }
        let new = self.from.len() < VOTES_MAX;
        if new {
            self.from.push((from, refused));
        }
        new
    }
}

impl Suspicion {
    /// When it ends in a failure; `votes` are those of others for the same incarnation.
    pub fn ends(&self, votes: Option<&Votes>, timing: &Timing, members: usize) -> Instant {
        let votes =
            votes.filter(|it| it.generation == self.id.generation && it.incarnation == self.incarnation);
        let others = votes.map_or(&[][..], |votes| &votes.from);
        let least = timing.suspicion(members);
        // There is nobody to ask.
        let wanted = if members < ENOUGH + 2 { 0 } else { ENOUGH };
        let most = least * timing.suspicion_max_mult;
        let mut lasts = if wanted == 0 {
            least
        } else {
            let agreed = if self.told { wanted } else { others.len().min(wanted) };
            let agreed = (agreed + 1) as f64;
            let share = agreed.ln() / ((wanted + 1) as f64).ln();
            most.saturating_sub((most.saturating_sub(least)).mul_f64(share)).max(least)
        };
        if self.told {
            // It has lasted elsewhere. Here it lasts as long as it takes to be refuted.
            lasts = lasts.min(least / 2);
        }
        if self.refused && others.iter().filter(|(_, refused)| *refused).count() >= wanted {
            lasts = lasts.min(timing.floor(members));
        }
        self.since + lasts + self.put_off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspicion_lasts_the_shorter_the_more_hold_it() {
        #[expect(clippy::disallowed_methods, reason = "any time will do")]
        let now = Instant::now();
        let timing = Timing { refused_floor: Some(Duration::from_secs(5)), ..Timing::lan() };
        let id = Id::new(1, ([10, 0, 0, 1], 8301).into(), 7);
        let lasts = |refused: bool, votes: &[(u64, bool)], members: usize| {
            let suspicion = Suspicion {
                id,
                incarnation: 3,
                token: 0,
                since: now,
                refused,
                told: false,
                put_off: Duration::ZERO,
            };
            let mut all = Votes::new(7, 3, now);
            for (from, refused) in votes {
                all.add(*from, *refused);
            }
            (suspicion.ends(Some(&all), &timing, members) - now).as_secs_f64()
        };
        let near =
            |value: f64, expected: f64| assert!((value - expected).abs() < 0.1, "{value}, not {expected}");
        near(lasts(false, &[], 1000), 72.0);
        near(lasts(false, &[(1, false)], 1000), 34.1);
        near(lasts(false, &[(1, false), (1, false)], 1000), 34.1);
        near(lasts(false, &[(1, false), (2, false)], 1000), 12.0);
        near(lasts(false, &[(1, false), (2, false), (3, false)], 1000), 12.0);
        // By the word of several its host refuses connections.
        near(lasts(true, &[(1, true), (2, true)], 1000), 5.0);
        near(lasts(true, &[(1, true), (2, false)], 1000), 12.0);
        near(lasts(false, &[(1, true), (2, true)], 1000), 12.0);
        near(lasts(true, &[(1, true), (2, true)], 10), 4.0);
        // Nobody else could say so.
        near(lasts(false, &[], 3), 4.0);

        // Another one has called it failed.
        let told = Suspicion {
            id,
            incarnation: 3,
            token: 0,
            since: now,
            refused: false,
            told: true,
            put_off: Duration::ZERO,
        };
        near((told.ends(None, &timing, 1000) - now).as_secs_f64(), 6.0);
        let old = Votes::new(7, 2, now);
        let suspicion = Suspicion {
            id,
            incarnation: 3,
            token: 0,
            since: now,
            refused: false,
            told: false,
            put_off: Duration::ZERO,
        };
        near((suspicion.ends(Some(&old), &timing, 1000) - now).as_secs_f64(), 72.0);
    }

    #[test]
    fn votes_are_counted_once_and_to_a_bound() {
        #[expect(clippy::disallowed_methods, reason = "any time will do")]
        let mut votes = Votes::new(1, 0, Instant::now());
        assert!(votes.add(1, false) && !votes.add(1, false));
        assert!(votes.add(1, true) && !votes.add(1, true) && !votes.add(1, false), "that it refuses is news");
        assert_eq!((2..100).filter(|from| votes.add(*from, false)).count(), VOTES_MAX - 1);
    }
}
