//! The log as consensus sees it: its newest entries in memory, all of them on disk where there is one. In `-dev` there is
//! none, and memory holds everything. Knows which entry is where; not what it means.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, PoisonError},
};

use openraft::{
    AnyError, Entry, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader, StorageError,
    StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use serde::Serialize;
use tokio::sync::watch;

use super::{
    Types,
    disk::{Disk, Found},
    stored,
};
use crate::count::Spread;

/// A handle; clones share the log.
#[derive(Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    rows: Mutex<Rows>,
    disk: Option<Disk>,
}

#[derive(Default)]
struct Rows {
    /// The newest entries: all that are not safe yet, and as many more as fit; without a disk, all.
    tail: BTreeMap<u64, Entry<Types>>,
    tail_bytes: usize,
    /// Bytes of every entry of the log, from the first on.
    sizes: VecDeque<usize>,
    bytes: usize,
    vote: Option<Vote<u64>>,
    committed: Option<LogId<u64>>,
    purged: Option<LogId<u64>>,
    last: Option<LogId<u64>>,
}

/// Entries that are safe are kept in memory up to this much.
const TAIL_BYTES_MAX: usize = 1 << 20;

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
    drop(rmp_serde::encode::write_named(&mut count, value));
    count.0
}

type Stored<T> = Result<T, StorageError<u64>>;

impl Log {
    /// The log of an open disk.
    pub fn on(disk: Disk, found: Found) -> Self {
        let Found { vote, committed, purged, last, sizes } = found;
        // An own vote that was won is won no more: whoever led before a restart stands for election again.
        let vote = vote.map(|vote| Vote { committed: false, ..vote });
        let bytes = sizes.iter().sum();
        let rows = Rows { sizes: sizes.into(), bytes, vote, committed, purged, last, ..Rows::default() };
        Log(Arc::new(Shared { rows: Mutex::new(rows), disk: Some(disk) }))
    }

    /// What its entries hold, as written out.
    pub fn bytes(&self) -> usize {
        self.rows(|rows| rows.bytes)
    }

    pub fn last(&self) -> Option<LogId<u64>> {
        self.rows(|rows| rows.last)
    }

    /// Up to which entry it was cut.
    pub fn purged(&self) -> Option<LogId<u64>> {
        self.rows(|rows| rows.purged)
    }

    /// Lets the disk finish, and gives its file back. Waits for the disk.
    pub fn close(&self) {
        if let Some(disk) = &self.0.disk {
            disk.close();
        }
    }

    /// Why nothing can be written any more, once that is so.
    pub fn failure(&self) -> Option<watch::Receiver<Option<String>>> {
        self.0.disk.as_ref().map(Disk::failure)
    }

    /// What the disk took for each transaction, in nanoseconds; `None` where there is no disk.
    pub fn syncs(&self) -> Option<Arc<Spread>> {
        self.0.disk.as_ref().map(Disk::syncs)
    }

    fn rows<T>(&self, read: impl FnOnce(&mut Rows) -> T) -> T {
        read(&mut self.0.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Entries that are in memory no more; the disk has them all.
    async fn read(&self, from: u64, upto: u64) -> Stored<Vec<Entry<Types>>> {
        let log = self.clone();
        let read = move || -> Result<Vec<Entry<Types>>, String> {
            let Some(disk) = &log.0.disk else { return Err("there is no disk".into()) };
            let rows = disk.read(from..=upto)?;
            let entries = rows.iter().map(|(index, bytes)| {
                stored::entry(*index, bytes).map_err(|fault| format!("entry {index}: {fault}"))
            });
            entries.collect()
        };
        let read = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(error.to_string()));
        read.map_err(|text| StorageIOError::read_logs(AnyError::error(text)).into())
    }
}

impl Rows {
    fn put(&mut self, entry: Entry<Types>, bytes: usize) {
        self.last = Some(entry.log_id);
        self.bytes += bytes;
        self.tail_bytes += bytes;
        self.sizes.push_back(bytes);
        self.tail.insert(entry.log_id.index, entry);
    }

    /// The index of the first entry there is.
    fn first(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1 - self.sizes.len() as u64)
    }

    fn size(&self, index: u64) -> usize {
        self.sizes.get((index - self.first()) as usize).copied().unwrap_or(0)
    }

    /// Forgets entries in memory beyond what is kept, from the oldest on, as far as they are safe.
    fn shorten(&mut self, safe: u64) {
        while self.tail_bytes > TAIL_BYTES_MAX
            && let Some((index, _)) = self.tail.first_key_value().filter(|(index, _)| **index < safe)
        {
            self.tail_bytes -= self.size(*index);
            self.tail.pop_first();
        }
    }

    /// Cuts off everything from `from` on; `last` is what stands before it.
    fn truncate(&mut self, from: u64, last: Option<LogId<u64>>) {
        let first = self.first();
        let gone: usize = self.tail.split_off(&from).keys().map(|index| self.size(*index)).sum();
        self.tail_bytes -= gone;
        let kept = from.saturating_sub(first) as usize;
        self.bytes -= self.sizes.drain(kept.min(self.sizes.len())..).sum::<usize>();
        self.last = last.or(self.purged);
    }

    /// Forgets everything up to `upto`.
    fn purge(&mut self, upto: LogId<u64>) {
        let first = self.first();
        let kept = self.tail.split_off(&(upto.index + 1));
        let gone = std::mem::replace(&mut self.tail, kept);
        self.tail_bytes -= gone.keys().map(|index| self.size(*index)).sum::<usize>();
        let count = (upto.index + 1).saturating_sub(first) as usize;
        self.bytes -= self.sizes.drain(..count.min(self.sizes.len())).sum::<usize>();
        self.purged = Some(upto);
        self.last = self.last.max(Some(upto));
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<Types>>> {
        let (tail, missing) = self.rows(|rows| {
            let from = match range.start_bound() {
                Bound::Included(from) => *from,
                Bound::Excluded(from) => from + 1,
                Bound::Unbounded => 0,
            };
            let tail: Vec<Entry<Types>> =
                rows.tail.range(range.clone()).map(|(_, entry)| entry.clone()).collect();
            let in_memory =
                rows.tail.first_key_value().map_or(rows.last.map_or(0, |last| last.index + 1), |row| *row.0);
            let end = match range.end_bound() {
                Bound::Included(upto) => upto + 1,
                Bound::Excluded(end) => *end,
                Bound::Unbounded => u64::MAX,
            };
            (tail, from.max(rows.first())..end.min(in_memory))
        });
        if missing.is_empty() {
            return Ok(tail);
        }
        let mut entries = self.read(missing.start, missing.end - 1).await?;
        entries.extend(tail);
        Ok(entries)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        Ok(self.rows(|rows| LogState { last_purged_log_id: rows.purged, last_log_id: rows.last }))
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Stored<()> {
        if let Some(disk) = &self.0.disk {
            disk.save_vote(vote).await.map_err(|text| StorageIOError::write_vote(AnyError::error(text)))?;
        }
        self.rows(|rows| rows.vote = Some(*vote));
        Ok(())
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        Ok(self.rows(|rows| rows.vote))
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Stored<()> {
        if let Some(disk) = &self.0.disk {
            disk.save_committed(committed);
        }
        self.rows(|rows| rows.committed = committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Stored<Option<LogId<u64>>> {
        Ok(self.rows(|rows| rows.committed))
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let Some(disk) = &self.0.disk else {
            self.rows(|rows| {
                for entry in entries {
                    let bytes = match &entry.payload {
                        EntryPayload::Normal(commands) => bytes_of(commands),
                        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
                    };
                    rows.put(entry, bytes);
                }
            });
            flushed.log_io_completed(Ok(()));
            return Ok(());
        };
        let refused = |text: String| StorageIOError::write_logs(AnyError::error(text));
        let mut written = Vec::new();
        for entry in entries {
            let bytes = stored::entry_bytes(&entry).map_err(|fault| refused(fault.to_string()))?;
            let (index, length) = (entry.log_id.index, bytes.len());
            self.rows(|rows| rows.put(entry, length));
            written.push((index, bytes));
        }
        disk.append(written, flushed).map_err(refused)?;
        self.rows(|rows| rows.shorten(disk.safe()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Stored<()> {
        let last = match from.index.checked_sub(1) {
            None => None,
            Some(index) => self.try_get_log_entries(index..=index).await?.pop().map(|entry| entry.log_id),
        };
        // What is cut off is not shown from here on, and stands on disk a little longer.
        self.rows(|rows| rows.truncate(from.index, last));
        if let Some(disk) = &self.0.disk {
            let cut = disk.truncate(from.index).await;
            cut.map_err(|text| StorageIOError::write_logs(AnyError::error(text)))?;
        }
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Stored<()> {
        self.rows(|rows| rows.purge(upto));
        if let Some(disk) = &self.0.disk {
            let cut = disk.purge(upto).await;
            cut.map_err(|text| StorageIOError::write_logs(AnyError::error(text)))?;
        }
        Ok(())
    }
}
