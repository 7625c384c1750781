//! The log on disk: one redb file, written by one thread that turns all jobs that wait into one transaction, syncs it,
//! and only then says so. Nothing is tried again after a failed sync: the writer ends, and says why. Knows bytes and
//! their places; not what an entry means.
//!
//! ```text
//! append, vote, truncate, purge ─jobs─> writer thread ─one transaction, one sync─> redb ─> each job is answered
//! ```
//!
//! redb opens a file whose newest transaction is damaged as it was one transaction before. So each transaction carries a
//! number, and the last number that was safe is noted beside the file: what is older than its note is refused.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::RangeInclusive,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Instant,
};

use openraft::{LogId, Vote, storage::LogFlushed};
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use tokio::sync::{oneshot, watch};

use super::{Types, stored};
use crate::count::Spread;

/// A log file and its writer.
pub struct Disk {
    path: PathBuf,
    /// Until it is closed.
    open: Mutex<Option<Open>>,
    /// Entries below this index are safe.
    safe: Arc<AtomicU64>,
    /// What is known to be committed: goes along with the next transaction.
    committed: Arc<Mutex<Option<LogId<u64>>>>,
    failure: watch::Receiver<Option<String>>,
    syncs: Arc<Spread>,
}

struct Open {
    database: Arc<Database>,
    jobs: SyncSender<Job>,
    thread: thread::JoinHandle<()>,
}

/// What the file held when it was opened.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    pub vote: Option<Vote<u64>>,
    pub committed: Option<LogId<u64>>,
    pub purged: Option<LogId<u64>>,
    pub last: Option<LogId<u64>>,
    /// Bytes of each entry, in order, up to the last.
    pub sizes: Vec<usize>,
}

/// Why a log cannot be used. Nothing of it is served.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Redb(PathBuf, Box<redb::Error>),
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, io::Error),
    #[error("{path} is damaged: {fault}; restore the data directory from a backup", path = .0.display(), fault = .1)]
    Damaged(PathBuf, String),
}

/// One thing to write, and who is told when it is safe.
pub struct Job {
    work: Work,
    done: Done,
}

enum Work {
    Append(Vec<(u64, Vec<u8>)>),
    Vote(Vec<u8>),
    /// This entry and all after it.
    Truncate(u64),
    /// This entry and all before it; its log id, to be kept.
    Purge(u64, Vec<u8>),
}

enum Done {
    Flushed(LogFlushed<Types>),
    Told(oneshot::Sender<Result<(), String>>),
}

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
/// Of the newest transaction.
const NUMBER: &str = "number";

/// The log is read from its start once, and then its tail is in memory.
const CACHE_BYTES: usize = 8 << 20;
/// Consensus awaits each job before it gives the next; a vote may come beside it.
const JOBS_MAX: usize = 8;

impl Disk {
    /// Opens the log of `folder`, or makes it.
    pub fn open(folder: &Path) -> Result<(Disk, Found), DiskError> {
        let path = folder.join("log.redb");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let backend =
            redb::backends::FileBackend::new(file.map_err(|error| DiskError::Io(path.clone(), error))?);
        Self::open_on(backend.map_err(|error| redb_error(&path, error))?, path, folder)
    }

    /// Opens a log on any storage. `path` is what messages call it; the note is a file of `folder`.
    ///
    /// # Errors
    /// Where it is not a whole log of ours.
    pub fn open_on(
        backend: impl StorageBackend,
        path: PathBuf,
        folder: &Path,
    ) -> Result<(Disk, Found), DiskError> {
        let mut builder = Builder::new();
        let database = builder
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend);
        let database = Arc::new(database.map_err(|error| redb_error(&path, error))?);
        let (found, number) = find(&database, &path)?;
        let (note, noted) = Note::open(folder)?;
        if noted > number {
            let fault = format!("transaction {noted} was safe, and the newest there is {number}");
            return Err(DiskError::Damaged(path, fault));
        }
        let (jobs, waiting) = sync_channel(JOBS_MAX);
        let (failed, failure) = watch::channel(None);
        let safe = Arc::new(AtomicU64::new(found.last.map_or(0, |last| last.index + 1)));
        let committed = Arc::default();
        let syncs = Arc::default();
        let writer = Writer {
            database: database.clone(),
            waiting,
            safe: safe.clone(),
            committed: Arc::clone(&committed),
            number,
            note,
            failed,
            syncs: Arc::clone(&syncs),
        };
        let thread = thread::Builder::new().name("raft-log".into()).spawn(move || writer.run());
        let thread = thread.map_err(|error| DiskError::Io(path.clone(), error))?;
        let open = Mutex::new(Some(Open { database, jobs, thread }));
        Ok((Disk { path, open, safe, committed, failure, syncs }, found))
    }

    /// Entries below this index are safe.
    pub fn safe(&self) -> u64 {
        self.safe.load(Ordering::Acquire)
    }

    /// Why the writer ended, once it has.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// What each transaction took, in nanoseconds.
    pub fn syncs(&self) -> Arc<Spread> {
        self.syncs.clone()
    }

    /// `done` is told when the entries, in the form of [`stored`], are safe.
    pub fn append(&self, entries: Vec<(u64, Vec<u8>)>, done: LogFlushed<Types>) -> Result<(), String> {
        self.give(Job { work: Work::Append(entries), done: Done::Flushed(done) })
    }

    pub async fn save_vote(&self, vote: &Vote<u64>) -> Result<(), String> {
        self.write(Work::Vote(stored::vote_bytes(vote).map_err(|fault| fault.to_string())?)).await
    }

    pub async fn truncate(&self, from: u64) -> Result<(), String> {
        self.write(Work::Truncate(from)).await
    }

    pub async fn purge(&self, upto: LogId<u64>) -> Result<(), String> {
        let bytes = stored::log_id_bytes(upto).map_err(|fault| fault.to_string())?;
        self.write(Work::Purge(upto.index, bytes)).await
    }

    pub fn save_committed(&self, committed: Option<LogId<u64>>) {
        *lock(&self.committed) = committed;
    }

    /// Entries as they are stored. Waits for the disk: not for a thread that others need.
    pub fn read(&self, range: RangeInclusive<u64>) -> Result<Vec<(u64, Vec<u8>)>, String> {
        let database = lock(&self.open).as_ref().map(|open| open.database.clone()).ok_or(CLOSED)?;
        read(&database, range).map_err(|error| redb_error(&self.path, error).to_string())
    }

    /// Lets the writer finish what it was given, waits for it, and gives the file back.
    pub fn close(&self) {
        let open = lock(&self.open).take();
        if let Some(Open { database, jobs, thread }) = open {
            drop((jobs, database));
            // A panic was printed, and has been told of as a failure.
            let _ended = thread.join();
        }
    }

    async fn write(&self, work: Work) -> Result<(), String> {
        let (done, told) = oneshot::channel();
        self.give(Job { work, done: Done::Told(done) })?;
        told.await.unwrap_or_else(|_| Err(self.why()))
    }

    fn give(&self, job: Job) -> Result<(), String> {
        let open = lock(&self.open);
        let given = open.as_ref().ok_or(CLOSED)?.jobs.try_send(job);
        given.map_err(|_| self.why())
    }

    fn why(&self) -> String {
        self.failure.borrow().clone().unwrap_or_else(|| "more waits to be written than may wait".into())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

const CLOSED: &str = "the log is closed";

/// Nothing that holds one of these locks can leave it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(database: &Database, range: RangeInclusive<u64>) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
    let table = database.begin_read()?.open_table(LOG)?;
    let rows = table.range(range)?;
    let rows = rows.map(|row| row.map(|(index, bytes)| (index.value(), bytes.value().to_vec())));
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Everything that the file says, and the number of its newest transaction; every entry is tested.
fn find(database: &Database, path: &Path) -> Result<(Found, u64), DiskError> {
    let damaged = |fault: String| DiskError::Damaged(path.into(), fault);
    let tables = || -> Result<_, redb::Error> {
        let write = database.begin_write()?;
        drop((write.open_table(LOG)?, write.open_table(META)?));
        write.commit()?;
        let read = database.begin_read()?;
        Ok((read.open_table(LOG)?, read.open_table(META)?))
    };
    let (log, meta) = tables().map_err(|error| redb_error(path, error))?;
    let text = |key: &str| meta.get(key).map_err(|error| redb_error(path, error));
    let log_id = |key: &str| -> Result<Option<LogId<u64>>, DiskError> {
        let bytes = text(key)?;
        let read = bytes.map(|bytes| stored::log_id(bytes.value())).transpose();
        read.map_err(|fault| damaged(format!("{key}: {fault}")))
    };
    let vote = text(VOTE)?.map(|bytes| stored::vote(bytes.value())).transpose();
    let vote = vote.map_err(|fault| damaged(format!("{VOTE}: {fault}")))?;
    let number = match text(NUMBER)? {
        None => 0,
        Some(bytes) => {
            let bytes = bytes.value().try_into().map_err(|_| damaged(format!("{NUMBER}: not 8 bytes")))?;
            u64::from_le_bytes(bytes)
        }
    };
    let (committed, purged) = (log_id(COMMITTED)?, log_id(PURGED)?);
    let mut found = Found { vote, committed, purged, last: purged, sizes: Vec::new() };
    let mut next = purged.map(|purged| purged.index + 1);
    let mut last = None;
    for row in log.iter().map_err(|error| redb_error(path, error))? {
        let (index, bytes) = row.map_err(|error| redb_error(path, error))?;
        let index = index.value();
        if next.is_some_and(|next| next != index) {
            return Err(damaged(format!("entry {} is missing", next.unwrap_or_default())));
        }
        stored::checked(index, bytes.value()).map_err(|fault| damaged(format!("entry {index}: {fault}")))?;
        found.sizes.push(bytes.value().len());
        next = Some(index + 1);
        last = Some((index, bytes));
    }
    if let Some((index, bytes)) = last {
        let entry = stored::entry(index, bytes.value());
        found.last = Some(entry.map_err(|fault| damaged(format!("entry {index}: {fault}")))?.log_id);
    }
    Ok((found, number))
}

fn redb_error(path: &Path, error: impl Into<redb::Error>) -> DiskError {
    match error.into() {
        redb::Error::Corrupted(fault) => DiskError::Damaged(path.into(), fault),
        other => DiskError::Redb(path.into(), Box::new(other)),
    }
}

/// The thread that writes.
struct Writer {
    database: Arc<Database>,
    waiting: Receiver<Job>,
    safe: Arc<AtomicU64>,
    committed: Arc<Mutex<Option<LogId<u64>>>>,
    number: u64,
    note: Note,
    failed: watch::Sender<Option<String>>,
    syncs: Arc<Spread>,
}

impl Writer {
    /// Runs until nobody can give it anything more, or until it failed.
    fn run(mut self) {
        while let Ok(first) = self.waiting.recv() {
            let jobs: Vec<Job> = [first].into_iter().chain(self.waiting.try_iter()).collect();
            let written = self.write(&jobs).map_err(|error| format!("the log cannot be written: {error}"));
            if let Err(text) = &written {
                self.failed.send_replace(Some(text.clone()));
            }
            for job in jobs {
                job.done.tell(&written);
            }
            if written.is_err() {
                return;
            }
        }
        if self.committed().is_some()
            && let Err(error) = self.write(&[])
        {
            tracing::warn!(%error, "what is committed was not noted; the next start finds it out");
        }
    }

    /// One transaction, synced; what is noted afterwards was safe.
    fn write(&mut self, jobs: &[Job]) -> Result<(), String> {
        let number = self.number + 1;
        #[expect(
            clippy::disallowed_methods,
            reason = "the disk is the rim; how long it took decides nothing"
        )]
        let start = Instant::now();
        let safe = self.commit(jobs, number).map_err(|error| error.to_string())?;
        self.syncs.record_time(start.elapsed());
        self.number = number;
        if let Some(safe) = safe {
            self.safe.store(safe, Ordering::Release);
        }
        self.note.write(number).map_err(|error| error.to_string())
    }

    /// Gives the index below which entries are safe now, if the jobs say anything of it.
    fn commit(&self, jobs: &[Job], number: u64) -> Result<Option<u64>, redb::Error> {
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        let mut safe = None;
        {
            let (mut log, mut meta) = (write.open_table(LOG)?, write.open_table(META)?);
            for Job { work, .. } in jobs {
                match work {
                    Work::Append(entries) => {
                        for (index, bytes) in entries {
                            log.insert(*index, bytes.as_slice())?;
                            safe = Some(index + 1);
                        }
                    }
                    Work::Vote(bytes) => drop(meta.insert(VOTE, bytes.as_slice())?),
                    Work::Truncate(from) => {
                        log.retain_in(*from.., |_, _| false)?;
                        safe = Some(*from);
                    }
                    Work::Purge(upto, log_id) => {
                        log.retain_in(..=*upto, |_, _| false)?;
                        meta.insert(PURGED, log_id.as_slice())?;
                    }
                }
            }
            if let Some(Ok(bytes)) = self.committed().map(stored::log_id_bytes) {
                meta.insert(COMMITTED, bytes.as_slice())?;
            }
            meta.insert(NUMBER, number.to_le_bytes().as_slice())?;
        }
        write.commit()?;
        Ok(safe)
    }

    fn committed(&self) -> Option<LogId<u64>> {
        lock(&self.committed).take()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if thread::panicking() {
            self.failed.send_replace(Some("the log's writer has failed".into()));
        }
    }
}

impl Done {
    fn tell(self, written: &Result<(), String>) {
        match self {
            Done::Flushed(flushed) => {
                flushed.log_io_completed(written.clone().map_err(io::Error::other));
            }
            // Who no longer waits was stopped.
            Done::Told(told) => drop(told.send(written.clone())),
        }
    }
}

/// The number of the last transaction that was safe, in a file that is never synced: it may be older than the truth,
/// never newer. It tells of what a crash of this process cannot have lost.
struct Note(File);

impl Note {
    fn open(folder: &Path) -> Result<(Note, u64), DiskError> {
        let path = folder.join("log.note");
        let open = || -> io::Result<(File, u64)> {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let mut bytes = [0; 12];
            let whole = file.read_exact_at(&mut bytes, 0).is_ok();
            let [number @ .., _, _, _, _] = bytes;
            let is_right = bytes[8..] == crc32fast::hash(&number).to_le_bytes();
            // A power cut may have left anything: then nothing is known.
            Ok((file, if whole && is_right { u64::from_le_bytes(number) } else { 0 }))
        };
        let (file, number) = open().map_err(|error| DiskError::Io(path.clone(), error))?;
        Ok((Note(file), number))
    }

    fn write(&self, number: u64) -> io::Result<()> {
        let number = number.to_le_bytes();
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&crc32fast::hash(&number).to_le_bytes());
        self.0.write_all_at(&bytes, 0)
    }
}
