//! The key-value store: entries by key in the order of bytes, what is left of deleted ones, and the keys that nobody may
//! lock for a while. Pure, like all of the catalog; when a delay or a tombstone has had its time, its leader says.

use std::{ops::Bound, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Blob, Catalog, Refusal, Table, Topic, write::Write};

/// A key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    pub key: Blob,
    pub value: Blob,
    /// Of meaning to clients only.
    pub flags: u64,
    /// Who holds it.
    pub session: Option<Uuid>,
    /// How often it was locked.
    pub lock_index: u64,
    pub created: u64,
    pub modified: u64,
}

/// A write of one key, or of all under one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvWrite {
    pub verb: KvVerb,
    /// The prefix, for [`KvVerb::DeleteTree`].
    pub key: Blob,
    pub value: Blob,
    pub flags: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvVerb {
    #[default]
    Set,
    /// Where the key's index is this; 0 is where there is no such key.
    Cas(u64),
    Lock(Uuid),
    Unlock(Uuid),
    Delete,
    DeleteCas(u64),
    DeleteTree,
}

/// A key that may not be locked: its holder was invalidated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockDelay {
    /// The index of that invalidation.
    pub since: u64,
    /// How long, in nanoseconds.
    pub nanos: u64,
}

#[derive(Clone, Default)]
pub(super) struct Kv {
    entries: imbl::OrdMap<Blob, Arc<Entry>>,
    /// The keys that a session holds.
    held: imbl::OrdSet<(Uuid, Blob)>,
    /// Deleted keys, or deleted prefixes, by the index at which that was.
    tombstones: imbl::OrdMap<Blob, u64>,
    delays: imbl::OrdMap<Blob, LockDelay>,
}

/// A lock delay is never longer, whatever its session says.
pub const LOCK_DELAY_MAX_NANOS: u64 = 60_000_000_000;

impl Catalog {
    pub fn entry_count(&self) -> usize {
        self.kv.entries.len()
    }

    pub fn entry(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.kv.entries.get(key)
    }

    /// Every entry whose key begins with these bytes, in order.
    pub fn entries_under<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = &'a Arc<Entry>> {
        under(&self.kv.entries, prefix).map(|(_, entry)| entry)
    }

    /// What a read of a key reports: its own index, or that of the newest change where there is no such key.
    pub fn entry_index(&self, key: &[u8]) -> u64 {
        self.entry(key).map_or_else(|| self.kv_index(), |entry| entry.modified)
    }

    /// What a read of a prefix reports: the newest change under it, deletions included, or of all where there is nothing.
    pub fn entries_index(&self, prefix: &[u8]) -> u64 {
        let entries = self.entries_under(prefix).map(|entry| entry.modified);
        let deleted = under(&self.kv.tombstones, prefix).map(|(_, index)| *index);
        let newest = entries.chain(deleted).max().unwrap_or(0);
        if prefix.is_empty() || newest == 0 { self.kv_index() } else { newest }
    }

    fn kv_index(&self) -> u64 {
        self.table_index(Table::Kv).max(self.table_index(Table::Tombstones))
    }

    /// Keys that may not be locked.
    pub fn lock_delays(&self) -> impl Iterator<Item = (&Blob, LockDelay)> {
        self.kv.delays.iter().map(|(key, delay)| (key, *delay))
    }

    pub fn lock_delay(&self, key: &[u8]) -> Option<LockDelay> {
        self.kv.delays.get(key).copied()
    }

    /// Deleted keys and prefixes that are still remembered, by the index of their deletion.
    pub fn tombstones(&self) -> impl Iterator<Item = (&Blob, u64)> {
        self.kv.tombstones.iter().map(|(key, index)| (key, *index))
    }

    pub fn tombstone_count(&self) -> usize {
        self.kv.tombstones.len()
    }

    /// The keys that a session holds.
    pub fn held(&self, session: Uuid) -> impl Iterator<Item = &Blob> {
        let from = (session, Blob::default());
        self.kv.held.range(from..).take_while(move |(holder, _)| *holder == session).map(|(_, key)| key)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.kv.entries.values()
    }
}

fn under<'a, V: Clone>(
    map: &'a imbl::OrdMap<Blob, V>,
    prefix: &'a [u8],
) -> impl Iterator<Item = (&'a Blob, &'a V)> {
    map.range::<_, [u8]>((Bound::Included(prefix), Bound::Unbounded))
        .take_while(move |(key, _)| key.starts_with(prefix))
}

impl Kv {
    /// An entry as it was taken apart.
    pub fn restore(&mut self, entry: Arc<Entry>) {
        if let Some(session) = entry.session {
            self.held.insert((session, entry.key.clone()));
        }
        self.entries.insert(entry.key.clone(), entry);
    }

    pub fn restore_tombstone(&mut self, key: Blob, index: u64) {
        self.tombstones.insert(key, index);
    }

    pub fn restore_delay(&mut self, key: Blob, delay: LockDelay) {
        self.delays.insert(key, delay);
    }

    /// # Panics
    /// Where a promise is broken.
    pub fn assert_consistent(&self, is_session: impl Fn(Uuid) -> bool) {
        let held: imbl::OrdSet<(Uuid, Blob)> =
            self.entries.values().filter_map(|entry| Some((entry.session?, entry.key.clone()))).collect();
        assert_eq!(held, self.held, "every held key is known by its holder");
        assert!(held.iter().all(|(session, _)| is_session(*session)), "a holder is there");
        assert!(self.entries.iter().all(|(key, entry)| *key == entry.key));
    }
}

impl Write<'_> {
    /// Whether it was done: a condition that does not hold is no error.
    ///
    /// # Errors
    /// A lock for a session that is not there.
    pub fn kv(&mut self, write: KvWrite) -> Result<bool, Refusal> {
        let KvWrite { verb, key, value, flags } = write;
        if key.is_empty() && verb != KvVerb::DeleteTree {
            return Err(Refusal::NoKey);
        }
        let former = self.catalog.entry(&key).cloned();
        let modified = former.as_ref().map_or(0, |former| former.modified);
        let mut entry = Entry { key, value, flags, ..Entry::default() };
        if let Some(former) = &former {
            (entry.session, entry.lock_index) = (former.session, former.lock_index);
        }
        match verb {
            KvVerb::Set => {}
            KvVerb::Cas(index) if index == modified => {}
            KvVerb::Lock(session) => {
                if self.catalog.session(session).is_none() {
                    return Err(Refusal::NoSession(session.to_string().into()));
                }
                match entry.session {
                    Some(holder) if holder != session => return Ok(false),
                    Some(_) => {}
                    None if self.catalog.lock_delay(&entry.key).is_some() => return Ok(false),
                    None => {
                        (entry.session, entry.lock_index) =
                            (Some(session), entry.lock_index.saturating_add(1))
                    }
                }
            }
            KvVerb::Unlock(session) if entry.session == Some(session) => entry.session = None,
            KvVerb::Delete => {
                self.remove_entry(&entry.key);
                return Ok(true);
            }
            KvVerb::DeleteCas(index) if former.is_none() || index == modified => {
                self.remove_entry(&entry.key);
                return Ok(true);
            }
            KvVerb::DeleteTree => {
                self.remove_entries(&entry.key);
                return Ok(true);
            }
            KvVerb::Cas(_) | KvVerb::Unlock(_) | KvVerb::DeleteCas(_) => return Ok(false),
        }
        self.put_entry(entry, former.as_deref());
        Ok(true)
    }

    fn put_entry(&mut self, mut entry: Entry, former: Option<&Entry>) {
        let index = self.index();
        entry.created = index;
        if let Some(former) = former {
            (entry.created, entry.modified) = (former.created, former.modified);
            if entry == *former {
                return;
            }
            entry.value = if entry.value == former.value { former.value.clone() } else { entry.value };
            entry.key = former.key.clone();
        }
        entry.modified = index;
        let kv = &mut self.catalog.kv;
        if let Some(former) = former.and_then(|former| former.session).filter(|_| entry.session.is_none()) {
            kv.held.remove(&(former, entry.key.clone()));
        }
        if let Some(session) = entry.session {
            kv.held.insert((session, entry.key.clone()));
        }
        let key = entry.key.clone();
        kv.entries.insert(key.clone(), Arc::new(entry));
        self.touch(Table::Kv, [Topic::Kv(key)]);
    }

    fn remove_entry(&mut self, key: &Blob) {
        if self.take_entry(key) {
            let index = self.index();
            self.catalog.kv.tombstones.insert(key.clone(), index);
            self.touch(Table::Tombstones, [Topic::Tombstones]);
        }
    }

    /// One tombstone stands for all of them.
    fn remove_entries(&mut self, prefix: &Blob) {
        let keys: Vec<Blob> = self.catalog.entries_under(prefix).map(|entry| entry.key.clone()).collect();
        for key in &keys {
            self.take_entry(key);
        }
        if !keys.is_empty() {
            let index = self.index();
            if !prefix.is_empty() {
                self.catalog.kv.tombstones.insert(prefix.clone(), index);
            }
            self.touch(Table::Tombstones, [Topic::Tombstones]);
        }
    }

    fn take_entry(&mut self, key: &Blob) -> bool {
        let Some(entry) = self.catalog.kv.entries.remove(key) else { return false };
        if let Some(session) = entry.session {
            self.catalog.kv.held.remove(&(session, key.clone()));
        }
        self.touch(Table::Kv, [Topic::Kv(key.clone())]);
        true
    }

    /// What a session held is free, or gone, and nobody may lock it for as long as the session said.
    pub(super) fn let_go(&mut self, session: Uuid, delete: bool, delay_nanos: u64) {
        let keys: Vec<Blob> = self.catalog.held(session).cloned().collect();
        for key in keys {
            if delete {
                self.remove_entry(&key);
            } else if let Some(former) = self.catalog.entry(&key).cloned() {
                self.put_entry(Entry { session: None, ..Entry::clone(&former) }, Some(&former));
            }
            let nanos = delay_nanos.min(LOCK_DELAY_MAX_NANOS);
            if nanos > 0 {
                let delay = LockDelay { since: self.index(), nanos };
                self.catalog.kv.delays.insert(key, delay);
                self.tell(Topic::LockDelays);
            }
        }
    }

    /// Ends delays, each where it is still the one that began then.
    pub fn end_delays(&mut self, ended: Vec<(Blob, u64)>) {
        for (key, since) in ended {
            if self.catalog.lock_delay(&key).is_some_and(|delay| delay.since == since) {
                self.catalog.kv.delays.remove(&key);
                self.tell(Topic::LockDelays);
            }
        }
    }

    /// Forgets deletions up to an index.
    pub fn forget_tombstones(&mut self, upto: u64) {
        let tombstones = &self.catalog.kv.tombstones;
        let old: Vec<Blob> =
            tombstones.iter().filter(|(_, index)| **index <= upto).map(|(key, _)| key.clone()).collect();
        for key in &old {
            self.catalog.kv.tombstones.remove(key);
            self.tell(Topic::Tombstones);
        }
    }
}
