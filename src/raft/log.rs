//! The log in memory: what `-dev` writes. It is kept short by purging behind snapshots.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::RangeBounds,
    sync::{Arc, Mutex, PoisonError},
};

use openraft::{
    Entry, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader, StorageError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use serde::Serialize;

use super::Types;

/// A handle; clones share the log.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    entries: BTreeMap<u64, Row>,
    bytes: usize,
    vote: Option<Vote<u64>>,
    purged: Option<LogId<u64>>,
}

struct Row {
    entry: Entry<Types>,
    bytes: usize,
}

/// How much a command is, written out. In memory it is of that order, its texts shared with the catalog.
pub fn bytes_of<T: Serialize>(value: &T) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail; what cannot be written out would count as far as it went.
    drop(serde_json::to_writer(&mut count, value));
    count.0
}

type Stored<T> = Result<T, StorageError<u64>>;

impl Log {
    /// What its entries hold, as written out.
    pub fn bytes(&self) -> usize {
        self.rows(|rows| rows.bytes)
    }

    #[cfg(test)]
    pub fn appended(&self) -> u64 {
        self.rows(|rows| rows.last().map_or(0, |last| last.index))
    }

    fn rows<T>(&self, read: impl FnOnce(&mut Rows) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rows {
    fn last(&self) -> Option<LogId<u64>> {
        self.entries.values().next_back().map(|row| row.entry.log_id).or(self.purged)
    }

    fn put(&mut self, entry: Entry<Types>) {
        let bytes = match &entry.payload {
            EntryPayload::Normal(commands) => bytes_of(commands),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        };
        self.bytes += bytes;
        self.entries.insert(entry.log_id.index, Row { entry, bytes });
    }

    fn forget(&mut self, gone: BTreeMap<u64, Row>) {
        self.bytes -= gone.values().map(|row| row.bytes).sum::<usize>();
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<Types>>> {
        Ok(self.rows(|rows| rows.entries.range(range).map(|(_, row)| row.entry.clone()).collect()))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        Ok(self.rows(|rows| LogState { last_purged_log_id: rows.purged, last_log_id: rows.last() }))
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
        self.rows(|rows| entries.into_iter().for_each(|entry| rows.put(entry)));
        flushed.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Stored<()> {
        self.rows(|rows| {
            let gone = rows.entries.split_off(&from.index);
            rows.forget(gone);
        });
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Stored<()> {
        self.rows(|rows| {
            rows.purged = Some(upto);
            let kept = rows.entries.split_off(&(upto.index + 1));
            let gone = std::mem::replace(&mut rows.entries, kept);
            rows.forget(gone);
        });
        Ok(())
    }
}
