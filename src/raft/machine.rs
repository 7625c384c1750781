//! The state machine around the catalog: applies what is committed, publishes the new catalog once for each batch of
//! entries, then wakes those who wait. It decides nothing: what a command does stands in `catalog`.

use std::sync::Arc;

use ahash::AHashSet;
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StoredMembership, storage::RaftStateMachine,
};

use super::{Published, Types, Waiters};
use crate::catalog::{Catalog, Reply, Topic};

pub struct Machine {
    catalog: Catalog,
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    publisher: Publisher,
    snapshot: Option<Taken>,
}

/// A catalog at a point of the log. Taking one costs nothing: it shares all it holds with the catalog it was taken of.
#[derive(Clone)]
pub struct Taken {
    meta: SnapshotMeta<u64, BasicNode>,
    catalog: Catalog,
}

type Stored<T> = Result<T, StorageError<u64>>;

impl Machine {
    pub fn new(published: Published, waiters: Arc<Waiters>) -> Self {
        Machine {
            catalog: Catalog::default(),
            applied: None,
            membership: StoredMembership::default(),
            publisher: Publisher { published, waiters, retired: Vec::new() },
            snapshot: None,
        }
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
        let taken = Taken { meta, catalog: self.catalog.clone() };
        self.snapshot = Some(taken.clone());
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
        self.catalog = *catalog;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(Taken { meta: meta.clone(), catalog: self.catalog.clone() });
        self.publisher.publish(self.catalog.clone(), &AHashSet::new());
        self.publisher.waiters.wake_all();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        Ok(self.snapshot.clone().map(Taken::into_snapshot))
    }
}

impl RaftSnapshotBuilder<Types> for Taken {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        Ok(self.clone().into_snapshot())
    }
}

impl Taken {
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
        self.waiters.wake(topics);
    }
}
