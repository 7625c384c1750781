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
            let agreed = (others.len().min(wanted) + 1) as f64;
            let share = agreed.ln() / ((wanted + 1) as f64).ln();
            most.saturating_sub((most.saturating_sub(least)).mul_f64(share)).max(least)
        };
        if self.refused && others.iter().filter(|(_, refused)| *refused).count() >= wanted {
            lasts = lasts.min(timing.floor(members));
        }
        self.since + lasts + self.put_off
    }
}
