//! The log in memory: what `-dev` writes. It is kept short by purging behind snapshots.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    ops::RangeBounds,
    sync::{Arc, Mutex, PoisonError},
};

use openraft::{
    Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};

use super::Types;

/// A handle; clones share the log.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    entries: BTreeMap<u64, Entry<Types>>,
    vote: Option<Vote<u64>>,
    purged: Option<LogId<u64>>,
}

type Stored<T> = Result<T, StorageError<u64>>;

impl Log {
    fn rows<T>(&self, read: impl FnOnce(&mut Rows) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<Types>>> {
        Ok(self.rows(|rows| rows.entries.range(range).map(|(_, entry)| entry.clone()).collect()))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        Ok(self.rows(|rows| {
            let last = rows.entries.values().next_back().map(|entry| entry.log_id).or(rows.purged);
            LogState { last_purged_log_id: rows.purged, last_log_id: last }
        }))
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Stored<()> {
        self.rows(|rows| rows.vote = Some(*vote));
        Ok(())
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        Ok(self.rows(|rows| rows.vote))
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.rows(|rows| rows.entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry))));
        flushed.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Stored<()> {
        self.rows(|rows| drop(rows.entries.split_off(&from.index)));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Stored<()> {
        self.rows(|rows| {
            rows.purged = Some(upto);
            rows.entries = rows.entries.split_off(&(upto.index + 1));
        });
        Ok(())
    }
}
