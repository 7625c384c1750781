//! Everyone that is known, with what they say of themselves; summed up, so that two who know the same see it at a glance. Knows
//! nothing of probes, packets or time beyond the ages it is told.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use rand::{Rng, RngExt};

use super::{
    identity::{Id, mix},
    member::{Member, Members, Status, Tags},
    wire::{
        item::Record,
        stream::{Row, State},
    },
};
use crate::catalog::{Key, Text, fold};

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub id: Id,
    pub state: State,
    /// When it entered the state, in milliseconds of the pool's life; below 0 where that was before.
    pub since: i64,
    pub record: Option<Arc<Said>>,
}

/// A [`Record`], as it is kept.
#[derive(Debug)]
pub(crate) struct Said {
    pub version: u64,
    pub name: Text,
    pub key: Key,
    pub tags: Arc<Tags>,
}

pub(crate) const BUCKETS: usize = 256;

#[derive(Clone)]
pub(crate) struct Roster {
    entries: BTreeMap<u64, Entry>,
    sums: [u64; BUCKETS],
    here: usize,
    failed: usize,
    members: Members,
    /// Whose a node id is; of those that left nobody's.
    owners: BTreeMap<Text, u64>,
    changed: bool,
}

impl Default for Roster {
    fn default() -> Roster {
        Roster {
            entries: BTreeMap::new(),
            sums: [0; BUCKETS],
            here: 0,
            failed: 0,
            members: Members::new(),
            owners: BTreeMap::new(),
            changed: false,
        }
    }
}

impl Roster {
    pub fn members(&self) -> &Members {
        &self.members
    }

    pub fn get(&self, key: u64) -> Option<&Entry> {
        self.entries.get(&key)
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Alive or leaving, this node too.
    pub fn here(&self) -> usize {
        self.here
    }

    /// What a pool of this size is: those that may return count.
    pub fn size(&self) -> usize {
        self.here + self.failed
    }

    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Whether [`Roster::members`] differs from when this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub fn put(&mut self, entry: Entry) {
        let old = self.entries.insert(entry.id.key, entry.clone());
        if let Some(old) = &old {
            self.uncount(old);
        }
        self.here += usize::from(entry.state.is_here());
        self.failed += usize::from(entry.state == State::Failed);
        self.sums[bucket(entry.id.key)] ^= entry.sum();
        if let Some(id) = entry.node_id()
            && (entry.state.is_here() || (entry.state == State::Failed && !self.owners.contains_key(&*id)))
        {
            self.owners.insert(id, entry.id.key);
        }
        self.publish(old.as_ref(), Some(&entry));
    }

    pub fn remove(&mut self, key: u64) {
        if let Some(old) = self.entries.remove(&key) {
            self.uncount(&old);
            self.publish(Some(&old), None);
        }
    }

    fn uncount(&mut self, old: &Entry) {
        self.here -= usize::from(old.state.is_here());
        self.failed -= usize::from(old.state == State::Failed);
        self.sums[bucket(old.id.key)] ^= old.sum();
        if let Some(id) = old.node_id()
            && self.owners.get(&id) == Some(&old.id.key)
        {
            self.owners.remove(&id);
        }
    }

    fn publish(&mut self, old: Option<&Entry>, new: Option<&Entry>) {
        let shown = |entry: Option<&Entry>| entry.and_then(Entry::member);
        match (shown(old), shown(new)) {
            (old, Some((key, member))) if old.as_ref().is_none_or(|(_, old)| *old != member) => {
                self.members.insert(key, Arc::new(member));
                self.changed = true;
            }
            (Some((key, _)), None) => {
                self.members.remove(&key);
                self.changed = true;
            }
            _ => {}
        }
    }

    /// Why one may not be a member of this pool; `None` where it may. Those that left are asked nothing.
    pub fn objection(&self, me: &Id, datacenter: &str, id: &Id, record: &Record) -> Option<String> {
        let name = &record.name;
        let theirs = record.tags.get("dc").map_or("", |dc| dc);
        if theirs != datacenter {
            return Some(format!("Member '{name}' part of wrong datacenter '{theirs}'"));
        }
        let node_id = record.tags.get("id")?;
        let owner = *self.owners.get(&**node_id)?;
        if owner == id.key {
            return None;
        }
        let whose = match self.get(owner).and_then(|entry| entry.record.as_ref()) {
            _ if owner == me.key => "this agent's ID".into(),
            Some(said) => format!("member '{}'", said.name),
            None => return None,
        };
        Some(format!("Member '{name}' has conflicting node ID '{node_id}' with {whose}"))
    }

    /// Who has the node id of this one, if it began its life after it.
    pub fn elder(&self, datacenter: &str, id: &Id, record: &Record) -> Option<u64> {
        let is_ours = record.tags.get("dc").is_some_and(|dc| **dc == *datacenter);
        let owner = record.tags.get("id").and_then(|node_id| self.owners.get(&**node_id))?;
        let said = self.get(*owner)?.record.as_ref()?;
        // The first generation of a life begins its versions.
        let elder = (record.version >> 16, id.key) < (said.version >> 16, *owner);
        (is_ours && elder).then_some(*owner)
    }

    /// Of all that is known; equal where two know the same.
    pub fn root(&self) -> u64 {
        self.sums.iter().enumerate().fold(0, |root, (at, sum)| root ^ mix(*sum ^ mix(at as u64)))
    }

    pub fn sums(&self) -> Vec<u8> {
        self.sums.iter().flat_map(|sum| (*sum as u32).to_le_bytes()).collect()
    }

    /// The buckets in which one who sent these sums knows other things; all where it sent none.
    pub fn differing(&self, sums: &[u8]) -> Vec<u8> {
        let theirs = |at: usize| sums.get(at * 4..at * 4 + 4);
        let differs = |at: &usize| theirs(*at) != Some(&(self.sums[*at] as u32).to_le_bytes()[..]);
        (0..BUCKETS).filter(differs).map(|at| at as u8).collect()
    }

    pub fn bucket(&self, at: u8) -> impl Iterator<Item = &Entry> {
        let from = u64::from(at) << 56;
        self.entries.range(from..=from | (u64::MAX >> 8)).map(|(_, entry)| entry)
    }

    /// One of those that the filter lets pass, by chance; `None` where a few tries found none.
    pub fn any(&self, random: &mut impl Rng, filter: impl Fn(&Entry) -> bool) -> Option<&Entry> {
        for _ in 0..8 {
            // Keys lie unevenly: a few steps further, so that who stands after a gap is not asked more than others.
            let from: u64 = random.random();
            let steps = random.random_range(0..16);
            let around = self.entries.range(from..).chain(self.entries.range(..from));
            if let Some((_, entry)) = around.filter(|(_, entry)| filter(entry)).nth(steps % self.len().max(1))
            {
                return Some(entry);
            }
        }
        None
    }

    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.get(super::identity::key(name))
    }
}

/// Keys are hashes: their first byte is as good as any.
pub(crate) fn bucket(key: u64) -> usize {
    (key >> 56) as usize
}

impl Entry {
    fn sum(&self) -> u64 {
        let version = self.record.as_ref().map_or(0, |said| said.version);
        mix(self.id.key ^ mix(self.id.generation ^ mix(version ^ mix(self.state as u64))))
    }

    fn node_id(&self) -> Option<Text> {
        self.record.as_ref()?.tags.get("id").cloned()
    }

    fn member(&self) -> Option<(Key, Member)> {
        let said = self.record.as_ref()?;
        let status = match self.state {
            State::Alive => Status::Alive,
            State::Leaving => Status::Leaving,
            State::Failed => Status::Failed,
            State::Left => Status::Left,
            State::Pruned => return None,
        };
        let Id { address, generation, .. } = self.id;
        let (name, tags) = (said.name.clone(), said.tags.clone());
        Some((said.key.clone(), Member { name, address, status, tags, generation }))
    }

    pub fn row(&self, now: i64) -> Row {
        let age_secs = u32::try_from((now - self.since) / 1000).unwrap_or(u32::MAX);
        let record = self.record.as_deref().map(Said::record);
        Row { id: self.id, state: self.state, age_secs, record }
    }

    pub fn address(&self) -> SocketAddr {
        self.id.address
    }
}

impl Said {
    pub fn new(record: Record) -> Arc<Said> {
        let Record { version, name, tags } = record;
        let key = fold(&name).as_ref().into();
        Arc::new(Said { version, name, key, tags: Arc::new(tags) })
    }

    pub fn record(&self) -> Record {
        Record { version: self.version, name: self.name.clone(), tags: (*self.tags).clone() }
    }
}
