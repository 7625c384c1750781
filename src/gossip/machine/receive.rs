//! Packets on their way in. What is not for us, not whole or about ourselves is dealt with here: foca sees only what it can judge.

use std::{net::SocketAddr, time::Instant};

use foca::{Member, Message};

use super::{Machine, life::Stage};
use crate::gossip::{
    identity::Id,
    wire::{
        Malformed,
        item::Item,
        packet::{Body, Packet, swim_bytes},
        stream::State,
    },
};

impl Machine {
    pub fn packet(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) {
        // Who is reached where is said by identities: a packet may take any road.
        let _road = from;
        self.take(bytes, now);
        self.finish();
    }

    /// Whether it was for us and whole.
    pub(super) fn take(&mut self, bytes: &[u8], now: Instant) -> bool {
        if self.life.stage == Stage::Stopped {
            return false;
        }
        let me = self.me();
        let packet = match Packet::decode(bytes, &me) {
            Ok(packet) => packet,
            Err(fault) => {
                self.count(&fault);
                return false;
            }
        };
        let src = packet.from();
        // Whoever has not heard yet that we were renewed is not left without an answer: foca would be silent until by chance it
        // hears, and where many are renewed at one time nobody would reach anybody.
        let before = self.life.before.contains(&packet.to);
        if !before && !packet.is_for(&me) {
            self.misaddressed(&packet, src, now);
            return false;
        }
        if src.key == me.key && !matches!(packet.body, Body::Conflict { .. }) {
            self.namesake(src, now);
            return false;
        }
        if self.roster.get(src.key).is_none()
            && self.is_full()
            && !matches!(packet.body, Body::Conflict { .. })
        {
            self.counters.refused.add(1);
            return false;
        }
        if self.is_forgotten(src) {
            // foca has forgotten it, and would take it for new.
            self.call(src, now);
            return true;
        }
        let Packet { coordinate, suspect, news, body, .. } = packet;
        if let Some(incarnation) = suspect.filter(|_| !before) {
            self.told_suspect(incarnation, now);
        }
        match body {
            Body::Swim { header, updates } => {
                let ack = match header.message {
                    Message::Ack(number) => Some((header.src, number)),
                    Message::ForwardedAck { origin, probe_number } => Some((origin, probe_number)),
                    _ => None,
                };
                match &header.message {
                    Message::PingReq { target, probe_number } => self.help(src, *target, *probe_number, now),
                    Message::IndirectAck { target, probe_number } => self.helped(src, *target, *probe_number),
                    _ => {}
                }
                if let Some((of, number)) = ack {
                    self.acked(of, number, coordinate.as_ref(), now);
                }
                let updates = self.believable(updates, now);
                let whole = swim_bytes(&header, &updates);
                self.swim(now, |foca, out| foca.handle_data(&whole, out));
                self.hear(news, now);
            }
            Body::News { .. } => self.hear(news, now),
            Body::Nack { number, .. } => self.nacked(number),
            Body::Down { from, key, generation } => self.told_down(from, key, generation, now),
            Body::Root { from, root } => self.told_root(from, root, now),
            Body::Conflict { other, born } => self.told_conflict(other, born, now),
        }
        true
    }

    pub(super) fn count(&self, fault: &Malformed) {
        match fault {
            Malformed::Form => self.counters.malformed.add(1),
            Malformed::Future => self.counters.future.add(1),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.roster.len() >= self.settings.members_max
    }

    /// It may be for who we were before a restart: whoever does not know it yet is told, or would ask in vain for as long as
    /// nothing else tells it.
    fn misaddressed(&mut self, packet: &Packet, src: Id, now: Instant) {
        self.counters.misaddressed.add(1);
        let known = self.roster.get(src.key).is_some_and(|entry| entry.id == src && entry.state.is_here());
        let asks = matches!(&packet.body, Body::Swim { header, .. }
            if matches!(header.message, Message::Ping(_) | Message::IndirectPing { .. }));
        if known && asks && self.life.may_announce(self.age(now)) && self.life.stage == Stage::Here {
            self.swim(now, |foca, out| foca.announce(src, out));
        }
    }

    /// Updates without those that foca would misjudge: about ourselves at another address or in another life, and about more
    /// members than are kept.
    fn believable(&mut self, updates: Vec<Member<Id>>, now: Instant) -> Vec<Member<Id>> {
        let me = self.me();
        let mut room = self.settings.members_max.saturating_sub(self.roster.len());
        let mut kept = Vec::with_capacity(updates.len());
        for update in updates {
            let id = *update.id();
            if id.key == me.key && id != me {
                self.namesake(id, now);
            } else if id == me && self.life.stage != Stage::Here {
                // It leaves: there is nothing to refute.
            } else if id.key != me.key && self.roster.get(id.key).is_none() {
                if update.state() == foca::State::Down {
                    // Of whom nothing is known: foca would keep that in silence, and refuse for ever who is still to be told
                    // of as alive.
                    continue;
                }
                if room == 0 {
                    self.counters.refused.add(1);
                    continue;
                }
                room -= 1;
                kept.push(update);
            } else if self.is_forgotten(id) {
                // Forgotten, and that it was forgotten is not: foca no longer knows, and would take it in anew.
            } else {
                kept.push(update);
            }
        }
        kept
    }

    /// This life, or a later one, of a member whom this pool has forgotten on purpose.
    fn is_forgotten(&self, id: Id) -> bool {
        let known = self.roster.get(id.key);
        known.is_some_and(|entry| entry.state == State::Pruned && entry.id.generation >= id.generation)
    }

    fn hear(&mut self, news: Vec<Vec<u8>>, now: Instant) {
        for bytes in news {
            match Item::decode(&bytes) {
                Ok(item) => self.hear_item(item, now),
                Err(fault) => self.count(&fault),
            }
        }
    }

    fn hear_item(&mut self, item: Item, now: Instant) {
        let fresh = match &item {
            Item::Record { id, record } => self.told_record(id, record, now),
            Item::Vote(vote) => self.told_vote(vote, now),
            Item::Leave { key, generation } => self.told_leave(*key, *generation, now),
            Item::Force { key, generation, prune } => self.told_force(*key, *generation, *prune, now),
            Item::Event { time, name, payload } => self.told_event(*time, name, payload),
            Item::Query { time, id, origin, name, payload } => {
                self.told_query(*time, *id, *origin, name, payload)
            }
        };
        if fresh {
            self.spread(&item);
            self.push_soon(now);
        }
    }
}
