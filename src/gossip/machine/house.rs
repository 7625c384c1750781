//! What is done from time to time: looking after those that failed, asking to be let in again, and forgetting.

use std::time::{Duration, Instant};

use foca::Timer;
use rand::{RngExt, seq::IteratorRandom};

use super::{Due, Machine, asks::Asked, life::Stage};
use crate::gossip::{
    roster::{Entry, Said},
    wire::stream::{Row, State},
};

/// An operator's word is remembered as long as serf remembers an intent.
const SENT_AWAY_MILLIS: i64 = 300_000;
const REAP_MILLIS: i64 = 15_000;
/// Who was there in a former life and does not return in this time finds us by itself, if it does at all.
const FORMER_MILLIS: i64 = 300_000;
const REJOIN: Duration = Duration::from_secs(5);
pub(super) const HOUSE: Duration = Duration::from_secs(1);
/// How many of the former life are asked at a time.
const ASKED: usize = 3;
/// What is this close to being forgotten is not learnt.
const NEARLY: Duration = Duration::from_secs(60);

impl Machine {
    /// Whether one of the failed has come back is asked now and then, the oftener the more of them there are.
    pub(super) fn reconnect(&mut self, now: Instant) {
        self.timers.at(now + self.settings.timing.reconnect_interval, Due::Reconnect);
        let (failed, here) = (self.roster.failed(), self.roster.here().max(1));
        if failed == 0 || self.life.stage != Stage::Here {
            return;
        }
        if self.random.random_range(0.0..1.0) < failed as f64 / here as f64 {
            let any = self.roster.entries().filter(|it| it.state == State::Failed).choose(&mut self.random);
            if let Some(address) = any.map(Entry::address) {
                self.ask_sync(address, Asked::Sync, now);
            }
        }
    }

    /// Who is alone, or among far fewer than in the former life, asks to be let in wherever that may help.
    pub(super) fn rejoin(&mut self, now: Instant) {
        // At first the others may be starting, too.
        let young = self.age(now) < 10_000;
        self.timers.at(now + if young { REJOIN / 5 } else { REJOIN }, Due::Rejoin);
        let may_return = self.age(now) < FORMER_MILLIS && self.roster.here() * 2 < self.life.former;
        let few = self.foca.num_members() == 0 || may_return;
        if few && self.life.stage == Stage::Here {
            let ways = self.life.ways.iter().copied().sample(&mut self.random, ASKED);
            for address in ways {
                self.ask_sync(address, Asked::Join { tell: None }, now);
            }
        }
    }

    /// Once a second.
    pub(super) fn keep_house(&mut self, now: Instant) {
        self.timers.at(now + HOUSE, Due::House);
        self.forget_asked(now);
        self.ask_doubted(now);
        self.reap(now);
        let at = self.age(now);
        self.life.sent_away.retain(|_, it| at - it.at < SENT_AWAY_MILLIS);
        let longest = self.settings.timing.suspicion(self.roster.size())
            * (self.settings.timing.suspicion_max_mult + 1);
        let suspicions = &self.suspicions;
        self.votes
            .retain(|key, it| suspicions.contains_key(key) || now.saturating_duration_since(it.at) < longest);
    }

    fn reap(&mut self, now: Instant) {
        let at = self.age(now);
        if at < self.life.reaps {
            return;
        }
        self.life.reaps = at + REAP_MILLIS;
        let old = |entry: &&Entry| {
            !entry.state.is_here() && at - entry.since >= self.remembered(entry.state, entry)
        };
        let old: Vec<Entry> = self.roster.entries().filter(old).cloned().collect();
        for entry in old {
            let id = entry.id;
            if entry.state == State::Left && at - entry.since < self.remembered(State::Pruned, &entry) {
                // Not shown any more, and not forgotten: a member that was cut off may still take it for failed.
                self.enter(Entry { state: State::Pruned, ..entry }, now);
                continue;
            }
            self.roster.remove(id.key);
            self.coordinates.forget(id.key);
            self.swim(now, |foca, out| foca.handle_timer(Timer::RemoveDown(id), out));
        }
    }

    /// How long one that is gone is remembered, in milliseconds.
    fn remembered(&self, state: State, entry: &Entry) -> i64 {
        let own =
            entry.record.as_ref().and_then(|said| said.tags.get("rc_tm")).and_then(|text| seconds(text));
        let timing = &self.settings.timing;
        let usual = if state == State::Left { timing.tombstone_timeout } else { timing.reconnect_timeout };
        millis(own.map_or(usual, Duration::from_secs))
    }

    /// Whether what a row says of one who is gone is about to be forgotten.
    pub(super) fn is_old(&self, row: &Row) -> bool {
        let record = row.record.clone().map(Said::new);
        let entry = Entry { id: row.id, state: row.state, since: 0, record };
        i64::from(row.age_secs) * 1000 + millis(NEARLY) >= self.remembered(row.state, &entry)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// `72h0m0s`, as agents write a time into a tag.
fn seconds(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes()[digits] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    (total > 0).then_some(total)
}
