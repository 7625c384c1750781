//! The roll of members, called against the catalog: the newest that gossip says of each, and whose rows may not be as they
//! should. A state by name and a set of names, so that no word is lost and none is worked off twice (`cluster.md` §11). Pure:
//! members, a catalog and the time go in, commands come out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use imbl::ordmap::DiffItem;

use super::{
    Member,
    guard::{Guard, Judged, MassFailure},
    reconcile::{Belief, is_well, reap, reconcile, reconcile_own, serf_health, unknown},
};
use crate::{
    catalog::{Catalog, Command, Home, Key, Text, fold},
    gossip::{self, Members},
};

/// How the pool suspects, as far as it tells what "at once" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    pub multiplier: u32,
    pub probe_interval: Duration,
}

#[derive(Debug)]
pub struct Roll {
    own: Member,
    own_key: Key,
    members: Members,
    /// Whose rows are to be looked at, and how often they were written since they were right.
    dirty: BTreeMap<Key, u8>,
    /// Who does not answer, and whether the catalog took it for well until then.
    vanished: BTreeMap<Key, bool>,
    /// Nodes of agents that gossip does not know, since when.
    strangers: BTreeMap<Key, Instant>,
    /// Who left.
    left: BTreeSet<Key>,
    /// Whose node is there again though they left, and when that is looked at.
    returned: BTreeMap<Key, Instant>,
    /// Other servers that were told of.
    servers: BTreeSet<Key>,
    /// Not told yet.
    news: Vec<News>,
    guard: Guard,
    suspicion: Suspicion,
}

/// What is worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// So many vanished at once that they are not believed to be gone; the first of them.
    Doubted {
        members: usize,
        first: Key,
    },
    /// So many of them are, now.
    Confirmed {
        members: usize,
        first: Key,
    },
    OtherServer(Text),
}

/// A node of an agent that is unknown for so long is not well, and after so long is no node. Other members may need a minute
/// to find a server that lost what it knew of them.
const NOT_WELL_AFTER: Duration = Duration::from_secs(60);
const NO_NODE_AFTER: Duration = Duration::from_secs(180);
/// What one that left had on its way may arrive after it was removed. But it may also be back, and servers be told that later
/// than what it has.
const RETURNED_FOR: Duration = Duration::from_secs(5);
/// One to free a name, one to take off what it was, one to write what it is.
const STEPS_MAX: u8 = 3;

impl Suspicion {
    /// As long as it takes among so many members, at most, from one that is found silent to the next: a probe by an observer
    /// that trusts itself least, and a suspicion that nobody shares. However short these are set, a machine that is busy
    /// needs some time.
    pub fn longest(&self, members: usize) -> Duration {
        const LONGEST: u32 = 6;
        const SLOWEST: u32 = 8;
        const LEAST: Duration = Duration::from_secs(10);
        let scale = (members.max(1) as f64).log10().max(1.0);
        let suspicion = self.probe_interval.saturating_mul(self.multiplier.saturating_mul(LONGEST));
        suspicion.mul_f64(scale).saturating_add(self.probe_interval.saturating_mul(SLOWEST)).max(LEAST)
    }
}

impl Roll {
    /// Of this server, who always counts as alive.
    pub fn new(own: Member, guard: MassFailure, suspicion: Suspicion) -> Roll {
        let own_key: Key = fold(&own.name).into();
        Roll {
            own,
            dirty: BTreeMap::from([(own_key.clone(), 0)]),
            own_key,
            members: Members::new(),
            vanished: BTreeMap::new(),
            strangers: BTreeMap::new(),
            left: BTreeSet::new(),
            returned: BTreeMap::new(),
            servers: BTreeSet::new(),
            news: Vec::new(),
            guard: Guard::new(guard),
            suspicion,
        }
    }

    /// Takes up what gossip says by now.
    pub fn follow(&mut self, members: &Members, catalog: &Catalog, now: Instant) {
        let before = std::mem::replace(&mut self.members, members.clone());
        for item in before.diff(members) {
            match item {
                DiffItem::Add(key, _) | DiffItem::Update { new: (key, _), .. } => {
                    self.heard(key, catalog, now)
                }
                DiffItem::Remove(key, _) => {
                    self.settled(key);
                    self.left.remove(key);
                    self.dirty.insert(key.clone(), 0);
                }
            }
        }
        let is_back = |key: &&Key| catalog.node(key).is_some();
        let back: BTreeSet<Key> = self.left.iter().filter(is_back).cloned().collect();
        self.returned.retain(|key, _| back.contains(key));
        for key in back {
            self.returned.entry(key).or_insert(now + RETURNED_FOR);
        }
    }

    fn heard(&mut self, key: &Key, catalog: &Catalog, now: Instant) {
        self.strangers.remove(key);
        self.dirty.insert(key.clone(), 0);
        let status = self.members.get(key).map(|member| member.status);
        if status == Some(gossip::Status::Left) && *key != self.own_key {
            self.left.insert(key.clone());
        } else {
            self.left.remove(key);
        }
        match status {
            _ if *key == self.own_key => {}
            Some(gossip::Status::Failed) => self.gone(key, catalog, now),
            // Not alive, yet not known to be gone.
            Some(gossip::Status::Leaving) => {}
            Some(gossip::Status::Alive) => {
                self.settled(key);
                self.meet(key);
            }
            _ => self.settled(key),
        }
    }

    fn meet(&mut self, key: &Key) {
        let Some(member) = self.members.get(key).map(|member| Member::from(&**member)) else { return };
        if member.port.is_some() && self.servers.insert(key.clone()) {
            self.news.push(News::OtherServer(member.name));
        }
    }

    fn gone(&mut self, key: &Key, catalog: &Catalog, now: Instant) {
        if !self.vanished.contains_key(key) {
            let was_well = catalog.node(key).is_some_and(|home| is_well(home));
            self.vanished.insert(key.clone(), was_well);
            if was_well {
                self.guard.vanished(key, now, self.suspicion.longest(self.members.len()));
            }
        }
    }

    fn settled(&mut self, key: &Key) {
        self.vanished.remove(key);
        self.guard.settled(key);
    }

    /// Everyone is looked at, and so is every node that an agent stood behind.
    pub fn everything(&mut self, catalog: &Catalog, now: Instant) {
        self.dirty.insert(self.own_key.clone(), 0);
        let members = self.members.keys().cloned().collect::<Vec<_>>();
        self.dirty.extend(members.into_iter().map(|key| (key, 0)));
        let is_strange = |home: &Home, own: &Key, members: &Members| {
            let key = fold(&home.node().name);
            let known = *key == **own || members.contains_key(&*key);
            (!known && serf_health(home).is_some()).then(|| Key::from(key))
        };
        let strange = catalog.nodes().filter_map(|home| is_strange(home, &self.own_key, &self.members));
        let strange: BTreeSet<Key> = strange.collect();
        let known: Vec<Key> = self.strangers.keys().filter(|key| !strange.contains(*key)).cloned().collect();
        for key in known {
            self.strangers.remove(&key);
            self.settled(&key);
        }
        for key in strange {
            let since = *self.strangers.entry(key.clone()).or_insert(now);
            if now.saturating_duration_since(since) >= NOT_WELL_AFTER {
                self.gone(&key, catalog, now);
                self.dirty.insert(key, 0);
            }
        }
    }

    /// Looks at who vanished with whom. Gives what is new since the last time.
    pub fn judge(&mut self, now: Instant) -> Vec<News> {
        let mut news = std::mem::take(&mut self.news);
        for (key, _) in self.returned.extract_if(.., |_, at| *at <= now) {
            self.dirty.insert(key, 0);
        }
        if self.guard.is_idle() {
            return news;
        }
        let alive = self.members.values().filter(|member| member.status == gossip::Status::Alive).count();
        let Judged { doubted, confirmed } = self.guard.judge(alive, now);
        news.extend(
            doubted.first().map(|first| News::Doubted { members: doubted.len(), first: first.clone() }),
        );
        let first = confirmed.first().cloned();
        news.extend(first.map(|first| News::Confirmed { members: confirmed.len(), first }));
        self.dirty.extend(doubted.into_iter().chain(confirmed).map(|key| (key, 0)));
        news
    }

    /// An operator's word that those who are doubted are gone: one of them, or all. How many they were.
    pub fn confirm(&mut self, name: Option<&str>) -> usize {
        let keys = match name {
            Some(name) => vec![Key::from(fold(name))],
            None => self.guard.doubted().cloned().collect(),
        };
        let confirmed = self.guard.confirm(keys);
        let count = confirmed.len();
        self.dirty.extend(confirmed.into_iter().map(|key| (key, 0)));
        count
    }

    pub fn doubted(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.guard.doubted()
    }

    /// When something is to be judged anew, if nothing happens before.
    pub fn due(&self) -> Option<Instant> {
        self.guard.due().into_iter().chain(self.returned.values().copied()).min()
    }

    /// What is to be written next: of each name at most one command, and of no more names than that. Nothing, once all rows
    /// are right.
    pub fn next(&mut self, catalog: &Catalog, now: Instant, most: usize) -> Vec<(Key, Command)> {
        let mut commands = Vec::new();
        let mut right = Vec::new();
        for (key, steps) in &self.dirty {
            if commands.len() == most {
                break;
            }
            match self.wanted(catalog, key, now).filter(|_| *steps < STEPS_MAX) {
                Some(command) => commands.push((key.clone(), command)),
                None => right.push(key.clone()),
            }
        }
        for key in right {
            self.dirty.remove(&key);
        }
        for (key, _) in &commands {
            self.dirty.entry(key.clone()).and_modify(|steps| *steps += 1);
        }
        commands
    }

    /// It was not written, and is to be written all the same.
    pub fn unwritten(&mut self, key: Key) {
        self.dirty.insert(key, 0);
    }

    /// It was refused, and is tried again when everyone is looked at.
    pub fn refused(&mut self, key: &str) {
        self.dirty.remove(key);
    }

    fn wanted(&self, catalog: &Catalog, key: &Key, now: Instant) -> Option<Command> {
        if *key == self.own_key {
            return reconcile_own(catalog, &self.own);
        }
        let belief = match self.guard.doubts(key) {
            true => Belief::Doubted { was_well: self.vanished.get(key).copied().unwrap_or(false) },
            false => Belief::Gone,
        };
        if let Some(member) = self.members.get(key) {
            let member = Member::from(&**member);
            let is_ours = member.datacenter == self.own.datacenter;
            return if is_ours { reconcile(catalog, &member, belief) } else { None };
        }
        let home = catalog.node(key)?;
        let unknown_for = self.strangers.get(key).map(|since| now.saturating_duration_since(*since));
        match unknown_for {
            // The pool has forgotten it.
            None => reap(home),
            Some(time) if time >= NO_NODE_AFTER && belief == Belief::Gone => reap(home),
            Some(_) => unknown(home, belief),
        }
    }
}
