//! Bulk knowledge, over streams: a newcomer is told everything at once, and members that know different things find out by one
//! number, and exchange what differs.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use foca::Member;
use rand::seq::IteratorRandom;

use super::{Machine, asks::Asked, life::Stage};
use crate::gossip::{
    identity::Id,
    roster::{Entry, Said},
    wire::{
        item::Item,
        packet::{Body, Packet},
        stream::{self, Reply, Request, Row, State},
    },
};

/// Comparisons that are under way at one time.
const SYNCS_MAX: usize = 8;
/// Joins in a second from which on each is told of some members only: the rest is found out by comparing.
const JOINS_FAST: u32 = 20;
const SOME: usize = 256;
/// What a comparison brings is told on, unless it is so much that all the others must be finding out, too.
const FEW: usize = 64;
/// In one request: what takes those in bounds them.
const ROWS_MAX: usize = 4096;
const CALLS_MAX: usize = 4096;
const DOUBTED_MAX: usize = 64;
const DOUBT_AFTER: Duration = Duration::from_secs(1);
const BETWEEN_MIN: Duration = Duration::from_secs(1);

impl Machine {
    pub(super) fn rows(&mut self, asker: &Row, join: bool, sums: &[u8], now: Instant) -> Reply {
        let at = self.age(now);
        let clock = self.heard.clock();
        let second = at / 1000;
        if self.joins.0 != second {
            self.joins = (second, 0);
        }
        self.joins.1 += u32::from(join);
        if join && self.joins.1 > JOINS_FAST && self.roster.len() > SOME {
            let mine = self.me().key;
            let entries = self.roster.entries().filter(|entry| entry.id.key != mine);
            let some = entries.sample(&mut self.random, SOME);
            let me = self.roster.get(mine);
            let rows = some.into_iter().chain(me).map(|entry| entry.row(at)).collect();
            return Reply::Rows { clock, whole: false, buckets: Vec::new(), rows };
        }
        let buckets = self.roster.differing(sums);
        let rows = buckets.iter().flat_map(|at| self.roster.bucket(*at));
        let mut rows: Vec<Row> = rows.filter(|it| it.id.key != asker.id.key).map(|it| it.row(at)).collect();
        let me = self.me().key;
        if !rows.iter().any(|row| row.id.key == me) {
            rows.extend(self.roster.get(me).map(|entry| entry.row(at)));
        }
        if let Some(known) =
            self.roster.get(asker.id.key).filter(|it| it.id.generation >= asker.id.generation)
        {
            // What is said of the asker itself, where it is wrong about that.
            rows.push(known.row(at));
        }
        Reply::Rows { clock, whole: true, buckets, rows }
    }

    /// What another one knows came; it gets what it does not know.
    pub(super) fn synced(
        &mut self,
        from: SocketAddr,
        clock: u64,
        whole: bool,
        buckets: &[u8],
        rows: Vec<Row>,
        now: Instant,
    ) {
        self.witness(clock);
        let at = self.age(now);
        let push = if whole { self.unknown_to(buckets, &rows, at) } else { Vec::new() };
        self.bulk(rows, now);
        for rows in push.chunks(ROWS_MAX) {
            let request = Request::Push { clock: self.heard.clock(), rows: rows.to_vec() };
            let deadline = self.settings.timing.stream_timeout;
            self.ask(from, Asked::Push, stream::encode(&request), deadline, now);
        }
    }

    /// In these buckets, what these rows do not say.
    fn unknown_to(&self, buckets: &[u8], rows: &[Row], at: i64) -> Vec<Row> {
        let theirs: std::collections::BTreeMap<u64, &Row> =
            rows.iter().map(|row| (row.id.key, row)).collect();
        let version = |row: &Row| row.record.as_ref().map_or(0, |record| record.version);
        let known = |row: &Row| {
            theirs.get(&row.id.key).is_some_and(|it| {
                it.id.generation > row.id.generation
                    || (it.id == row.id && it.state == row.state && version(it) >= version(row))
            })
        };
        let mine = buckets.iter().flat_map(|bucket| self.roster.bucket(*bucket)).map(|entry| entry.row(at));
        mine.filter(|row| row.id.key != self.me().key && !known(row)).collect()
    }

    /// Rows of a comparison. How often there is news says how soon the next one is worth it.
    pub(super) fn bulk(&mut self, rows: Vec<Row>, now: Instant) {
        self.counters.syncs.add(1);
        let size = self.roster.len();
        let new = self.take_rows(rows, false, now);
        self.counters.synced.add(new as u64);
        let longest = self.settings.timing.sync_interval;
        self.sync_every = match new {
            0 => self.sync_every * 2,
            _ if new * 50 > size => BETWEEN_MIN,
            _ => self.sync_every / 2,
        }
        .clamp(BETWEEN_MIN.min(longest), longest);
        if new * 50 > size {
            self.compare_soon(now);
        }
    }

    /// Takes in what is news; how much was. `heard`: it is the sender's own word, and is told on in any case.
    pub(super) fn take_rows(&mut self, rows: Vec<Row>, heard: bool, now: Instant) -> usize {
        let at = self.age(now);
        let mut updates = Vec::new();
        let mut taken = Vec::new();
        for row in rows {
            if row.id.key == self.me().key {
                self.told_of_self(&row, now);
            } else if let Some(update) = self.judge(&row, now) {
                updates.extend(update);
                taken.push(row);
            }
        }
        let new = taken.len();
        let tell = heard || new < FEW;
        if !updates.is_empty() {
            self.swim(now, |foca, out| foca.apply_many(updates.into_iter(), tell, out));
        }
        for row in taken {
            self.settle(row, tell, at, now);
        }
        new
    }

    /// Whether a row is news, and what of it foca is to know; what is wrong here or there is seen to.
    fn judge(&mut self, row: &Row, now: Instant) -> Option<Option<Member<Id>>> {
        let said = row.record.as_ref().map_or(0, |record| record.version);
        let foca = match row.state {
            State::Alive | State::Leaving => Member::alive(row.id),
            _ => Member::down(row.id),
        };
        if let Some(record) = &row.record
            && (!record.fits() || self.objects(&row.id, record, row.state))
        {
            self.counters.strangers.add(1);
            return None;
        }
        let Some(known) = self.roster.get(row.id.key) else {
            // What was forgotten here is about to be forgotten there.
            let forgotten = !row.state.is_here() && self.is_old(row);
            if forgotten || self.is_full() {
                return None;
            }
            return Some((row.state != State::Pruned).then_some(foca));
        };
        let newer = said > known.record.as_ref().map_or(0, |said| said.version);
        if row.id.generation != known.id.generation || row.id.address != known.id.address {
            let wins = foca::Identity::win_addr_conflict(&row.id, &known.id);
            return if wins { Some(Some(foca)) } else { None };
        }
        let (here, there) = (known.state, row.state);
        match (here, there) {
            (State::Failed, State::Alive | State::Leaving) => {
                // It is there, and shall say so itself.
                self.call(row.id, now);
                newer.then_some(None)
            }
            (State::Alive | State::Leaving, State::Failed) => {
                // Believed, this would spread from one half of a broken network into the other.
                self.doubt_soon(row.id, now);
                newer.then_some(None)
            }
            _ if there > here => Some((!there.is_here() && here.is_here()).then_some(foca)),
            _ => newer.then_some(None),
        }
    }

    /// What foca was told of is entered, with what foca does not know of it.
    fn settle(&mut self, row: Row, tell: bool, at: i64, now: Instant) {
        let Row { id, state, age_secs, record } = row;
        let known = self.roster.get(id.key).cloned();
        // foca may know better by now.
        if known.as_ref().is_some_and(|it| it.id.generation > id.generation) {
            return;
        }
        let same = known.as_ref().filter(|it| it.id == id);
        let stays =
            same.is_some_and(|it| it.state >= state || (state == State::Failed && it.state.is_here()));
        let since = at - i64::from(age_secs) * 1000;
        let mut entry = match (&known, stays) {
            (Some(known), true) => known.clone(),
            (known, _) => {
                Entry { id, state, since, record: known.as_ref().and_then(|known| known.record.clone()) }
            }
        };
        let version = entry.record.as_ref().map_or(0, |said| said.version);
        let record = record.filter(|record| record.version > version);
        if let Some(record) = record {
            if tell {
                self.spread(&Item::Record { id, record: record.clone() });
                self.push_soon(now);
            }
            entry.record = Some(Said::new(record));
        }
        if tell && known.is_none_or(|known| known.state != entry.state) {
            let (key, generation) = (id.key, id.generation);
            match entry.state {
                State::Leaving | State::Left => self.spread(&Item::Leave { key, generation }),
                State::Pruned => self.spread(&Item::Force { key, generation, prune: true }),
                State::Alive | State::Failed => {}
            }
        }
        self.enter(entry, now);
    }

    /// Tells a member by chance all that we know, in one number.
    pub(super) fn compare(&mut self, now: Instant) {
        if now < self.life.compares {
            // It was to be sooner, and has been.
            return;
        }
        let me = self.me();
        let peer = self.roster.any(&mut self.random, |it| it.state == State::Alive && it.id.key != me.key);
        if let Some(peer) = peer.map(|entry| entry.id).filter(|_| self.life.stage == Stage::Here) {
            let packet = Packet::to(&peer, Body::Root { from: me, root: self.roster.root() });
            self.send(&peer, &packet);
        }
        // Grown again until news comes.
        let every = self.sync_every;
        self.sync_every = (every * 2).min(self.settings.timing.sync_interval);
        self.life.compares = now + every;
        self.timers.at(now + every, super::Due::Root);
    }

    fn compare_soon(&mut self, now: Instant) {
        let soon = now + BETWEEN_MIN;
        if self.life.compares > soon + BETWEEN_MIN {
            self.life.compares = soon;
            self.timers.at(soon, super::Due::Root);
        }
    }

    pub(super) fn told_root(&mut self, from: Id, root: u64, now: Instant) {
        let known = self.roster.get(from.key).is_some_and(|entry| entry.id == from);
        if root != self.roster.root() && known && self.may_sync() {
            self.ask_sync(from.address, Asked::Sync, now);
        }
    }

    fn may_sync(&self) -> bool {
        self.asks.values().filter(|ask| ask.what == Asked::Sync).count() < SYNCS_MAX
    }

    /// A member is seen by others of this node only with what it says of itself: it is asked, where nobody told it in time.
    pub(super) fn ask_record(&mut self, key: u64, now: Instant) {
        let Some(entry) = self.roster.get(key).filter(|it| it.record.is_none() && it.state.is_here()) else {
            return;
        };
        let address = entry.id.address;
        if self.may_sync() && self.life.stage == Stage::Here {
            self.ask_sync(address, Asked::Sync, now);
        }
        self.timers.at(now + self.settings.timing.sync_interval, super::Due::Record(key));
    }

    /// Tells one that is down here that it is, so that it comes back as another.
    pub(super) fn call(&mut self, id: Id, now: Instant) {
        let Some(known) = self.roster.get(id.key) else { return };
        let generation = known.id.generation;
        let at = self.age(now);
        if self.called.get(&id.key).is_some_and(|last| at - last < 1000) || self.called.len() >= CALLS_MAX {
            return;
        }
        self.called.insert(id.key, at);
        let packet = Packet::anyone(Body::Down { from: self.me(), key: id.key, generation });
        self.send(&id, &packet);
    }

    fn doubt_soon(&mut self, id: Id, now: Instant) {
        if self.doubted.len() < DOUBTED_MAX && !self.doubted.iter().any(|(known, _)| *known == id) {
            self.doubted.push_back((id, now + DOUBT_AFTER));
        }
    }

    pub(super) fn ask_doubted(&mut self, now: Instant) {
        while self.doubted.front().is_some_and(|(_, at)| *at <= now) {
            let Some((id, _)) = self.doubted.pop_front() else { return };
            if self.roster.get(id.key).is_some_and(|entry| entry.id == id && entry.state.is_here()) {
                let (bytes, deadline) = (self.own_ping(&id), self.settings.timing.probe_interval);
                self.ask(id.address, Asked::Doubt { of: id, told: true }, bytes, deadline, now);
            }
        }
    }
}
