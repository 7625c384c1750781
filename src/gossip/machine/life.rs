//! Coming and going: joining, leaving, saying of another that it left, and what is entered of members that do.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use foca::Timer;
use rand::RngExt;

use super::{AskError, Due, Happening, Machine, Unknown, asks::Asked, house::HOUSE, rebirth::conflict};
use crate::{
    catalog::Coordinate,
    gossip::{
        identity::{Id, key},
        roster::{Entry, Said},
        settings::{Keep, Settings},
        wire::{
            item::{Item, Record},
            packet::{Body, Packet},
            stream::{Reply, Row, State},
        },
    },
};

pub(super) struct Life {
    pub stage: Stage,
    /// Whether foca has anyone to talk to.
    pub active: bool,
    /// When all that is known is next told by one number.
    pub compares: Instant,
    /// Where to ask to be let in again: those of the former life, and whoever let us in in this one.
    pub ways: Vec<SocketAddr>,
    /// How many there were in the former life.
    pub former: usize,
    /// Who this node was before it was renewed, the last few times.
    pub before: VecDeque<u32>,
    /// What may yet be announced in this second of life.
    announced: (i64, u32),
    /// When the other one of this name was last told so.
    pub disputed: Option<Instant>,
    leave_until: Option<Instant>,
    /// Who is to be gone for good as soon as it does not answer, by an operator's word.
    pub sent_away: BTreeMap<u64, SentAway>,
    /// Before this nothing more is said of who is not let in, in milliseconds of this life.
    pub complains: i64,
    /// When those that are gone for long are next forgotten, in milliseconds of this life.
    pub reaps: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Here,
    Leaving,
    Left,
    /// Another one has this name.
    Stopped,
}

/// An operator's word about a member that was there when it was given.
pub(super) struct SentAway {
    generation: u64,
    prune: bool,
    /// In milliseconds of this life.
    pub at: i64,
}

/// Said to whoever asks itself, at another of its addresses: it has found nobody.
const ITSELF: &str = "it is the agent itself that answers there";
const SENT_AWAY_MAX: usize = 256;
const WAYS_MAX: usize = 64;
const ANNOUNCED_MAX: u32 = 20;

impl Life {
    pub fn new(settings: &Settings, now: Instant) -> Life {
        Life {
            stage: Stage::Here,
            active: false,
            compares: now,
            ways: settings.past.peers.values().copied().filter(|it| *it != settings.advertise).collect(),
            former: settings.past.peers.len(),
            before: VecDeque::new(),
            announced: (0, 0),
            disputed: None,
            leave_until: None,
            sent_away: BTreeMap::new(),
            complains: 0,
            reaps: 0,
        }
    }

    /// Whether one more announcement is no flood.
    pub fn may_announce(&mut self, age: i64) -> bool {
        if self.announced.0 != age / 1000 {
            self.announced = (age / 1000, 0);
        }
        self.announced.1 += 1;
        self.announced.1 <= ANNOUNCED_MAX
    }
}

impl Machine {
    pub(super) fn begin(&mut self, now: Instant) {
        let timing = &self.settings.timing;
        let spread = |every: Duration, random: f64| now + every.mul_f64(random);
        let (sync, reconnect) = (timing.sync_interval, timing.reconnect_interval);
        let root = spread(sync, self.random.random());
        self.life.compares = root;
        self.timers.at(root, Due::Root);
        let at = spread(reconnect, self.random.random());
        self.timers.at(at, Due::Reconnect);
        self.timers.at(now + HOUSE, Due::House);
        self.timers.at(now, Due::Rejoin);
    }

    /// Asks a member to let this node in; [`Happening::Joined`] tells how it went.
    pub fn join(&mut self, id: u64, address: SocketAddr, now: Instant) {
        if !self.ask_sync(address, Asked::Join { tell: Some(id) }, now) {
            self.tell(Happening::Joined { id, outcome: Err("too many requests are under way".into()) });
        }
        self.finish();
    }

    pub(super) fn joined(
        &mut self,
        tell: Option<u64>,
        to: SocketAddr,
        reply: Result<Reply, AskError>,
        now: Instant,
    ) {
        let outcome = match reply {
            Ok(Reply::Rows { clock, whole, buckets, rows }) => {
                self.let_in(to, clock, whole, &buckets, rows, now)
            }
            Ok(Reply::Refused(text)) => Err(text),
            Ok(_) => Err("the reply is to another question".into()),
            Err(AskError::Refused) => Err(format!("dial tcp {to}: connect: connection refused")),
            Err(AskError::TimedOut) => Err(format!("dial tcp {to}: i/o timeout")),
            Err(AskError::Failed(text)) => Err(text),
        };
        if let Some(id) = tell {
            self.tell(Happening::Joined { id, outcome });
        }
    }

    fn let_in(
        &mut self,
        to: SocketAddr,
        clock: u64,
        whole: bool,
        buckets: &[u8],
        rows: Vec<Row>,
        now: Instant,
    ) -> Result<usize, String> {
        // What they are is judged before any of it is believed.
        let refusal = |row: &Row| {
            let record = row.record.as_ref()?;
            if row.id.key == self.me().key { None } else { self.objection(&row.id, record, row.state) }
        };
        if let Some(text) = rows.iter().find_map(refusal) {
            return Err(text);
        }
        if to != self.settings.advertise && !self.life.ways.contains(&to) && self.life.ways.len() < WAYS_MAX {
            self.life.ways.push(to);
        }
        self.synced(to, clock, whole, buckets, rows, now);
        Ok(self.roster.here())
    }

    /// Why a row's member may not be here.
    pub(super) fn objection(&self, id: &Id, record: &Record, state: State) -> Option<String> {
        let asked = state < State::Left;
        asked.then(|| self.roster.objection(&self.me(), &self.settings.datacenter, id, record)).flatten()
    }

    /// Whether what others say of a member is not taken in: who has another's node id. Two of one id may have been let in at one
    /// moment, by members that did not know of each other's: all must choose the same then, and the younger one gives way.
    pub(super) fn objects(&mut self, id: &Id, record: &Record, state: State) -> bool {
        if !state.is_here() {
            return false;
        }
        let Some(text) = self.objection(id, record, state) else { return false };
        let elder = self.roster.elder(&self.settings.datacenter, id, record);
        if elder.is_some_and(|owner| owner == self.me().key) && self.life.stage == Stage::Here {
            self.life.stage = Stage::Stopped;
            self.tell(Happening::Conflict(text));
        }
        elder.is_none()
    }

    /// Why one that asks is not let in.
    pub(super) fn refusal(&mut self, row: &Row, now: Instant) -> Option<String> {
        let me = self.me();
        let Some(record) = row.record.as_ref().filter(|it| it.fits() && key(&it.name) == row.id.key) else {
            return Some("what the member says of itself is malformed".into());
        };
        if row.id == me {
            return Some(ITSELF.into());
        }
        if row.id.key == me.key && row.id.address == me.address {
            return None;
        }
        if let Some(text) = self.objection(&row.id, record, row.state) {
            return Some(text);
        }
        let known = self.roster.get(row.id.key);
        if known.is_none() && self.is_full() {
            return Some(format!("the pool has its limit of {} members", self.settings.members_max));
        }
        let old = known.filter(|it| it.state == State::Alive && it.id.address != row.id.address)?.id;
        if old != me {
            // It may have moved, and the old one be gone: that is found out sooner than by chance.
            let (bytes, deadline) = (self.own_ping(&old), self.settings.timing.probe_interval);
            self.ask(old.address, Asked::Doubt { of: old, told: false }, bytes, deadline, now);
        }
        self.counters.conflicts.add(1);
        Some(conflict(&record.name, old.address, row.id.address))
    }

    /// Tells everyone that this node goes, and goes when they know; [`Happening::Left`] tells when it may end.
    pub fn leave(&mut self, now: Instant) {
        if self.life.stage != Stage::Here {
            return;
        }
        self.life.stage = Stage::Leaving;
        self.tell(Happening::Keep(Keep::Left));
        let Id { key, generation, .. } = self.me();
        self.told_leave(key, generation, now);
        self.spread(&Item::Leave { key, generation });
        self.life.leave_until = Some(now + self.settings.timing.leave_timeout);
        self.push_soon(now);
        self.timers.at(now, Due::Leave(0));
        self.finish();
    }

    pub(super) fn leave_step(&mut self, step: u8, now: Instant) {
        let soon = now + Duration::from_millis(50);
        match step {
            // What is still to be told is told.
            0 if self.foca.num_members() > 0
                && self.life.leave_until.is_some_and(|until| now < until)
                && !(self.news.is_empty() && self.foca.updates_backlog() == 0) =>
            {
                self.timers.at(soon, Due::Leave(0));
            }
            0 => {
                let alone = self.foca.num_members() == 0;
                self.life.stage = Stage::Left;
                self.swim(now, |foca, out| foca.leave_cluster(out));
                let me = self.me();
                if let Some(mut entry) = self.roster.get(me.key).cloned() {
                    entry.state = State::Left;
                    entry.since = self.age(now);
                    self.roster.put(entry);
                }
                self.timers.at(if alone { now } else { soon }, Due::Leave(if alone { 5 } else { 1 }));
            }
            // foca tells three, once.
            1..=4 => {
                self.swim(now, |foca, out| foca.gossip(out));
                let delay = self.settings.timing.leave_propagate_delay;
                let next = if step == 4 { now + delay } else { soon };
                self.timers.at(next, Due::Leave(step + 1));
            }
            _ => self.tell(Happening::Left),
        }
    }

    /// Says of another that it left: a failed one is not awaited any more. `prune`: and is to be forgotten. One that is there
    /// stays, and shows that it does by a new generation: should it not answer, it is gone without having failed.
    pub fn force_leave(&mut self, name: &str, prune: bool, now: Instant) -> Result<(), Unknown> {
        let shown = self.roster.find(name).filter(|entry| entry.state != State::Pruned);
        let Some(Id { key, generation, .. }) = shown.map(|entry| entry.id) else {
            return Err(Unknown(name.into()));
        };
        self.told_force(key, generation, prune, now);
        self.spread(&Item::Force { key, generation, prune });
        self.push_soon(now);
        self.finish();
        Ok(())
    }

    pub(super) fn told_leave(&mut self, key: u64, generation: u64, now: Instant) -> bool {
        let Some(mut entry) = self.roster.get(key).filter(|it| it.id.generation == generation).cloned()
        else {
            return false;
        };
        if key == self.me().key && self.life.stage == Stage::Here {
            // It is not so: whoever said it takes us for gone.
            self.renew(generation, now);
            return false;
        }
        entry.state = match entry.state {
            State::Alive => State::Leaving,
            State::Failed => State::Left,
            _ => return false,
        };
        self.enter(entry, now);
        true
    }

    pub(super) fn told_force(&mut self, key: u64, generation: u64, prune: bool, now: Instant) -> bool {
        let me = self.me();
        if key == me.key {
            if generation >= me.generation && self.life.stage == Stage::Here {
                self.renew(generation, now);
            }
            return false;
        }
        let Some(entry) = self.roster.get(key).filter(|it| it.id.generation == generation).cloned() else {
            return false;
        };
        if entry.state.is_here() {
            // It may say itself whether it is there; if it does not, it is not awaited.
            let asked = SentAway { generation, prune, at: self.age(now) };
            let known = self.life.sent_away.get(&key);
            let is_news = known.is_none_or(|it| it.generation != generation || (prune && !it.prune));
            let has_room = known.is_some() || self.life.sent_away.len() < SENT_AWAY_MAX;
            if is_news && has_room {
                self.life.sent_away.insert(key, asked);
            }
            return is_news && has_room;
        }
        let state = if prune { State::Pruned } else { State::Left };
        if entry.state >= state {
            return false;
        }
        self.enter(Entry { state, since: self.age(now), ..entry }, now);
        true
    }

    /// foca has a member that it had not, or takes one for alive again.
    pub(super) fn up(&mut self, id: Id, now: Instant) {
        let known = self.roster.get(id.key);
        if known.is_some_and(|it| it.id == id && it.state.is_here()) {
            return;
        }
        let record = known.and_then(|it| it.record.clone());
        if record.is_none() {
            self.timers.at(now + self.settings.timing.gossip_interval * 3, Due::Record(id.key));
        }
        let since = self.age(now);
        self.enter(Entry { id, state: State::Alive, since, record }, now);
    }

    /// A later life of a member takes the place of one before; if that one was alive, nobody sees more than that.
    pub(super) fn renamed(&mut self, id: Id, now: Instant) {
        let Some(mut entry) = self.roster.get(id.key).cloned() else { return };
        let old = entry.id;
        let was_here = entry.state.is_here();
        entry.id = id;
        if was_here {
            entry.state = State::Alive;
        }
        self.enter(entry, now);
        self.suspicions.remove(&id.key);
        self.votes.remove(&id.key);
        if was_here && old.address != id.address {
            // It has moved, or there are two: they find out between themselves.
            self.counters.conflicts.add(1);
            for (to, other) in [(old, id), (id, old)] {
                self.send(&to, &Packet::anyone(Body::Conflict { other, born: None }));
            }
        }
    }

    pub(super) fn down(&mut self, id: &Id, now: Instant) {
        let Some(entry) = self.roster.get(id.key).filter(|it| it.id == *id).cloned() else { return };
        let sent_away = self.life.sent_away.remove(&id.key).filter(|it| it.generation == id.generation);
        let state = match (entry.state, sent_away) {
            (State::Alive | State::Leaving, Some(SentAway { prune: true, .. })) => State::Pruned,
            (State::Alive, None) => State::Failed,
            (State::Alive | State::Leaving, _) => State::Left,
            _ => return,
        };
        self.enter(Entry { state, since: self.age(now), ..entry }, now);
    }

    /// Every change of what is known of another member goes through here.
    pub(super) fn enter(&mut self, entry: Entry, now: Instant) {
        let (id, here) = (entry.id, entry.state.is_here());
        let was = self.roster.get(id.key).map(|it| (it.state.is_here(), it.record.is_some(), it.id.address));
        let name = entry.record.as_ref().map(|said| said.name.clone());
        if entry.state == State::Pruned {
            self.swim(now, |foca, out| foca.handle_timer(Timer::RemoveDown(id), out));
        }
        self.roster.put(entry);
        if let Some(name) = name
            && was != Some((here, true, id.address))
        {
            self.tell(Happening::Keep(match here {
                true => Keep::Here { name, address: id.address },
                false => Keep::Gone { name },
            }));
        }
    }

    pub(super) fn told_record(&mut self, id: &Id, record: &Record, now: Instant) -> bool {
        let me = self.me();
        if id.key == me.key {
            let row = Row { id: *id, state: State::Alive, age_secs: 0, record: Some(record.clone()) };
            self.told_of_self(&row, now);
            return false;
        }
        let Some(entry) = self.roster.get(id.key).cloned() else { return false };
        let known = entry.record.as_ref().map_or(0, |said| said.version);
        if record.version <= known || key(&record.name) != id.key || entry.state == State::Pruned {
            return false;
        }
        if self.objects(id, record, entry.state) {
            self.counters.strangers.add(1);
            return false;
        }
        self.enter(Entry { record: Some(Said::new(record.clone())), ..entry }, now);
        true
    }

    pub(super) fn own_coordinate(&self) -> Option<Coordinate> {
        self.settings.coordinates.then(|| self.coordinate())
    }

    /// This node's own place among the others.
    pub fn coordinate(&self) -> Coordinate {
        self.coordinates.coordinate().clone()
    }

    pub(super) fn heard_from(&mut self, of: Id, coordinate: &Coordinate, took: Duration) {
        if self.settings.coordinates && self.coordinates.heard(of.key, coordinate, took).is_err() {
            self.counters.malformed.add(1);
        }
    }
}
