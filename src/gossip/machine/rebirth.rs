//! Returning from the dead under an identity that wins over the former one, and two of one name.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Due, Happening, Machine, life::Stage};
use crate::gossip::{
    identity::Id,
    settings::Keep,
    wire::{
        packet::{Body, Packet},
        stream::{Row, State},
    },
};

const BEFORE_MAX: usize = 8;

impl Machine {
    /// What others say of this node.
    pub(super) fn told_of_self(&mut self, row: &Row, now: Instant) {
        let me = self.me();
        if row.id.address != me.address {
            self.namesake(row.id, now);
        } else if row.id.generation > me.generation || (row.id == me && !row.state.is_here()) {
            self.renew(row.id.generation, now);
        }
        let own = self.roster.get(me.key).and_then(|it| it.record.as_ref()).map_or(0, |said| said.version);
        if let Some(record) = &row.record
            && row.id.address == me.address
            && record.version > own
        {
            // Of a former life whose clock was ahead of this one's.
            self.say_anew(record.version);
            self.push_soon(now);
        }
    }

    /// Takes an identity later than this generation, at once and not step by step.
    pub(super) fn renew(&mut self, generation: u64, now: Instant) {
        let me = self.me();
        if self.life.stage != Stage::Here || generation < me.generation {
            return;
        }
        let next = Id::new(me.key, me.address, generation.saturating_add(1));
        if next != me {
            self.swim(now, |foca, out| foca.change_identity(next, out));
        }
    }

    /// foca has changed its identity.
    pub(super) fn renewed(&mut self, old: Id, me: Id, now: Instant) {
        self.life.before.push_back(old.short());
        if self.life.before.len() > BEFORE_MAX {
            self.life.before.pop_front();
        }
        self.counters.renewed.add(1);
        self.incarnation = 0;
        self.life.active = false;
        self.probe = None;
        if let Some(mut entry) = self.roster.get(me.key).cloned() {
            entry.id = me;
            entry.state = State::Alive;
            self.roster.put(entry);
        }
        self.tell(Happening::Keep(Keep::Generation(me.generation)));
        self.timers.at(now + self.settings.timing.gossip_interval, Due::Seek);
    }

    /// foca tells three of its new identity, once: if those packets are lost, nobody answers it any more.
    pub(super) fn seek(&mut self, now: Instant) {
        if !self.life.active && self.life.stage == Stage::Here && self.foca.num_members() > 0 {
            self.swim(now, |foca, out| foca.gossip(out));
            self.timers.at(now + self.settings.timing.gossip_interval, Due::Seek);
        }
    }

    pub(super) fn told_down(&mut self, from: Id, of: u64, generation: u64, now: Instant) {
        let me = self.me();
        if of == me.key && generation >= me.generation && self.life.stage == Stage::Here {
            self.renew(generation, now);
            // Who called is told first: it tells the others.
            self.swim(now, |foca, out| foca.announce(from, out));
        }
    }

    /// Another one has our name: who began later gives way.
    pub(super) fn namesake(&mut self, other: Id, now: Instant) {
        let me = self.me();
        if other.address == me.address {
            if other.generation > me.generation {
                self.renew(other.generation, now);
            }
            return;
        }
        self.counters.conflicts.add(1);
        self.dispute(&other, now);
    }

    fn dispute(&mut self, other: &Id, now: Instant) {
        let last = self.life.disputed;
        if last.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_millis(200)) {
            self.life.disputed = Some(now);
            let packet = Packet::anyone(Body::Conflict { other: self.me(), born: Some(self.born) });
            self.send(other, &packet);
        }
    }

    pub(super) fn told_conflict(&mut self, other: Id, born: Option<u64>, now: Instant) {
        let me = self.me();
        if other.key != me.key || other.address == me.address || self.life.stage != Stage::Here {
            return;
        }
        match born {
            None => self.dispute(&other, now),
            Some(born) if (born, other.address) < (self.born, me.address) => {
                self.life.stage = Stage::Stopped;
                self.dispute(&other, now);
                let text = conflict(&self.settings.name, me.address, other.address);
                self.tell(Happening::Conflict(text));
            }
            Some(_) => {
                self.dispute(&other, now);
                self.renew(other.generation.max(me.generation), now);
            }
        }
    }
}

pub(super) fn conflict(name: &str, mine: SocketAddr, theirs: SocketAddr) -> String {
    format!("Conflicting address for {name}. Mine: {mine} Theirs: {theirs} Old state: 0")
}
