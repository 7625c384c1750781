//! The state machine around the catalog: applies what is committed, publishes the new catalog once for each batch of
//! entries, then wakes those who wait. It decides nothing: what a command does stands in `catalog`.

use std::sync::Arc;

use ahash::AHashSet;
use openraft::{
    AnyError, BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot,
    SnapshotMeta, StorageError, StorageIOError, StoredMembership, storage::RaftStateMachine,
};

use super::{
    Published, Types, Waiters,
    snapshot::{SnapshotError, Snapshots},
};
use crate::{
    catalog::{Catalog, Reply, Topic},
    count::Counter,
};

pub struct Machine {
    catalog: Catalog,
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    publisher: Publisher,
    /// How many snapshots were taken, and are safe.
    written: Arc<Counter>,
    /// Where snapshots are kept; in memory, where there is no such place.
    snapshots: Option<Snapshots>,
    /// The newest, where it is in memory: always without a disk; with one, until it was asked for once.
    taken: Option<Taken>,
}

/// A catalog at a point of the log. Taking one costs nothing: it shares all it holds with the catalog it was taken of.
#[derive(Clone)]
pub struct Taken {
    meta: SnapshotMeta<u64, BasicNode>,
    catalog: Catalog,
    snapshots: Option<Snapshots>,
    written: Arc<Counter>,
}

type Stored<T> = Result<T, StorageError<u64>>;

impl Machine {
    pub fn new(published: Published, waiters: Arc<Waiters>) -> Self {
        Machine {
            catalog: Catalog::default(),
            applied: None,
            membership: StoredMembership::default(),
            publisher: Publisher { published, waiters, retired: Vec::new() },
            written: Arc::default(),
            snapshots: None,
            taken: None,
        }
    }

    /// Goes on from the newest snapshot, and publishes what it says.
    ///
    /// # Errors
    /// Where it is damaged: then nothing of it is served.
    pub fn recover(&mut self, snapshots: Snapshots) -> Result<(), SnapshotError> {
        if let Some((meta, catalog)) = snapshots.newest()? {
            self.replace(&meta, catalog);
            let (catalog, written) = (self.catalog.clone(), self.written.clone());
            self.taken = Some(Taken { meta, catalog, snapshots: None, written });
        }
        self.snapshots = Some(snapshots);
        Ok(())
    }

    /// How many snapshots were taken so far.
    pub fn written(&self) -> &Arc<Counter> {
        &self.written
    }

    /// The last entry that the catalog holds.
    pub fn applied(&self) -> Option<LogId<u64>> {
        self.applied
    }

    fn replace(&mut self, meta: &SnapshotMeta<u64, BasicNode>, catalog: Catalog) {
        self.catalog = catalog;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publisher.publish(self.catalog.clone(), &AHashSet::new());
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Taken;

    async fn applied_state(&mut self) -> Stored<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<Vec<Reply>>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut replies, mut topics) = (Vec::new(), AHashSet::new());
        for entry in entries {
            self.applied = Some(entry.log_id);
            replies.push(match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Vec::new()
                }
                EntryPayload::Normal(commands) => commands
                    .into_iter()
                    .map(|command| {
                        let (reply, changes) = self.catalog.apply(command);
                        topics.extend(changes.topics);
                        reply
                    })
                    .collect(),
            });
        }
        if !topics.is_empty() {
            self.publisher.publish(self.catalog.clone(), &topics);
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Taken {
        let id = self.applied.map_or_else(String::new, |applied| applied.to_string());
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: id,
        };
        let (catalog, snapshots) = (self.catalog.clone(), self.snapshots.clone());
        let taken = Taken { meta, catalog, snapshots, written: self.written.clone() };
        self.taken = self.snapshots.is_none().then(|| taken.clone());
        taken
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Catalog>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        catalog: Box<Catalog>,
    ) -> Stored<()> {
        let (snapshots, written) = (self.snapshots.clone(), self.written.clone());
        let taken = Taken { meta: meta.clone(), catalog: *catalog, snapshots, written };
        let kept = taken.keep().await;
        kept.map_err(|text| StorageIOError::write_snapshot(Some(meta.signature()), AnyError::error(text)))?;
        self.replace(meta, taken.catalog.clone());
        self.taken = self.snapshots.is_none().then_some(taken);
        self.publisher.waiters.wake_all();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        let Some(snapshots) = self.snapshots.clone() else {
            return Ok(self.taken.clone().map(Taken::into_snapshot));
        };
        if let Some(taken) = self.taken.take() {
            return Ok(Some(taken.into_snapshot()));
        }
        let read = tokio::task::spawn_blocking(move || snapshots.newest().map_err(|error| error.to_string()));
        let newest = read.await.unwrap_or_else(|error| Err(error.to_string()));
        let newest = newest.map_err(|text| StorageIOError::read_snapshot(None, AnyError::error(text)))?;
        Ok(newest.map(|(meta, catalog)| Snapshot { meta, snapshot: Box::new(catalog) }))
    }
}

impl RaftSnapshotBuilder<Types> for Taken {
    /// An error would end consensus, which can go on: the log holds all that a snapshot would. One of nothing says as
    /// much: it is older than any, so that it is forgotten, and the log is not cut.
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        if let Err(error) = self.keep().await {
            tracing::error!(error, "the log is not cut, and grows until a snapshot can be written");
            return Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: Box::default() });
        }
        self.written.add(1);
        Ok(self.clone().into_snapshot())
    }
}

impl Taken {
    /// Writes it to where snapshots are kept, if there is such a place.
    async fn keep(&self) -> Result<(), String> {
        let Some(snapshots) = self.snapshots.clone() else { return Ok(()) };
        let (meta, catalog) = (self.meta.clone(), self.catalog.clone());
        let write = move || {
            snapshots.write(&meta, &catalog).map_err(|error| format!("cannot write a snapshot: {error}"))
        };
        tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn into_snapshot(self) -> Snapshot<Types> {
        Snapshot { meta: self.meta, snapshot: Box::new(self.catalog) }
    }
}

/// Hands new catalogs to readers, and takes the old ones apart itself when the last reader has let go, so that no
/// reader ever pays for it.
struct Publisher {
    published: Published,
    waiters: Arc<Waiters>,
    retired: Vec<Arc<Catalog>>,
}

impl Publisher {
    fn publish(&mut self, catalog: Catalog, topics: &AHashSet<Topic>) {
        self.retired.extend(self.published.swap(Some(Arc::new(catalog))));
        self.retired.retain(|old| Arc::strong_count(old) > 1);
        match topics.contains(&Topic::Everything) {
            true => self.waiters.wake_all(),
            false => drop(self.waiters.wake(topics)),
        }
    }
}
