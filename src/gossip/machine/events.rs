//! News that users spread, and questions to everyone.

use std::time::Instant;

use bytes::Bytes;

use super::{Due, Happening, Keep, Machine, Query, TooLarge, UserEvent, asks::Asked};
use crate::{
    catalog::Text,
    gossip::{
        identity::{Id, mix},
        ring::{Heard, hash},
        wire::{
            item::{ITEM_BYTES_MAX, Item},
            stream::{self, Request},
        },
    },
};

const QUERIES_MAX: usize = 64;
/// A clock is kept this far ahead of itself, so that it need not be written for each event.
const CLOCK_AHEAD: u64 = 64;

impl Machine {
    /// Spreads an event, and tells it here too; its time.
    pub fn fire(&mut self, name: Text, payload: Vec<u8>, now: Instant) -> Result<u64, TooLarge> {
        self.event_fits(&name, &payload)?;
        let time = self.heard.next();
        self.told_event(time, &name, &payload);
        self.spread(&Item::Event { time, name, payload });
        self.push_soon(now);
        self.finish();
        Ok(time)
    }

    /// Asks everyone, this node too; `id` is what the answers are told with.
    pub fn query(&mut self, id: u64, name: Text, payload: Vec<u8>, now: Instant) -> Result<(), TooLarge> {
        self.event_fits(&name, &payload)?;
        if self.queries.len() >= QUERIES_MAX {
            return Err(TooLarge::Queries(QUERIES_MAX));
        }
        let me = self.me();
        let time = self.heard.next();
        let number = mix(me.key ^ mix(time ^ mix(me.generation)));
        self.queries.insert(number, id);
        self.timers.at(now + self.settings.timing.query_timeout(self.roster.size()), Due::Query(number));
        self.told_query(time, number, me, &name, &payload);
        self.spread(&Item::Query { time, id: number, origin: me, name, payload });
        self.push_soon(now);
        self.finish();
        Ok(())
    }

    /// This node's answer to a query.
    pub fn respond(&mut self, query: &Query, payload: Vec<u8>, now: Instant) {
        let from = self.settings.name.clone();
        if query.origin == self.me() {
            self.answer(query.id, from, payload);
        } else {
            let request = Request::Answer { query: query.id, from, payload };
            let deadline = self.settings.timing.query_timeout(self.roster.size());
            self.ask(query.origin.address, Asked::Answer, stream::encode(&request), deadline, now);
        }
        self.finish();
    }

    pub(super) fn answer(&mut self, query: u64, from: Text, payload: Vec<u8>) {
        if let Some(id) = self.queries.get(&query) {
            let id = *id;
            self.tell(Happening::Answer { id, from, payload });
        }
    }

    pub(super) fn query_over(&mut self, number: u64) {
        if let Some(id) = self.queries.remove(&number) {
            self.tell(Happening::QueryOver { id });
        }
    }

    pub(super) fn told_event(&mut self, time: u64, name: &Text, payload: &[u8]) -> bool {
        let new = self.hears(time, hash(name, payload));
        if new {
            let payload = Bytes::copy_from_slice(payload);
            self.tell(Happening::Event(UserEvent { name: name.clone(), payload, time }));
            self.keep_clock();
        }
        new
    }

    pub(super) fn told_query(&mut self, time: u64, id: u64, origin: Id, name: &Text, payload: &[u8]) -> bool {
        let new = self.hears(time, id);
        if new {
            let payload = Bytes::copy_from_slice(payload);
            self.tell(Happening::Query(Query { name: name.clone(), payload, id, origin }));
            self.keep_clock();
        }
        new
    }

    /// Whether an event is heard for the first time.
    fn hears(&mut self, time: u64, hash: u64) -> bool {
        let heard = self.heard.hear(time, hash);
        self.counters.refused.add((heard == Heard::TooMany).into());
        heard == Heard::New
    }

    /// Another member's clock.
    pub(super) fn witness(&mut self, clock: u64) {
        self.heard.witness(clock);
        self.keep_clock();
    }

    fn keep_clock(&mut self) {
        if self.heard.clock() > self.clock_kept {
            self.clock_kept = self.heard.clock() + CLOCK_AHEAD;
            self.tell(Happening::Keep(Keep::Clock(self.clock_kept)));
        }
    }

    fn event_fits(&self, name: &Text, payload: &[u8]) -> Result<(), TooLarge> {
        let bytes = name.len() + payload.len();
        // What cannot go into a packet would wait in vain: no setting allows it.
        let max = self.settings.event_bytes_max.min(ITEM_BYTES_MAX - 64);
        if bytes > max { Err(TooLarge::Event(max)) } else { Ok(()) }
    }
}
