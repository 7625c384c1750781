//! What outlives the process below the data directory: what was registered over the API, the last word of each TTL
//! check's program, the id of this node. The forms are described in `docs/formats.md`.
//!
//! One thread owns the files. A change is tried on a copy of what is registered, written, and only then made: whoever
//! registered is answered when it would survive, and where it cannot be written nothing has changed.
//!
//! ```text
//! HTTP, reload ─Change─> queue ─> tried on a copy ─> files ─> made ─> answered
//! a TTL check's word ──made──> queue ─> journal ─> answered
//! ```

mod disk;
mod folder;
#[cfg(test)]
mod fuzz;
mod node_id;
mod record;
mod states;
#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::oneshot, task::JoinHandle};

use super::{Change, Local, Shared, now};
use crate::{catalog::Key, check::Kind, http::Failure};
use folder::{Failed, Folder};
use states::{State, States};

pub use node_id::node_id;

/// Everything that is kept; owned by one thread.
pub struct Store {
    folder: Folder,
    states: States,
    /// When the journal is to be on disk.
    sync_due: Option<Instant>,
    /// Whether the last word could not be written: it is said once.
    ails: bool,
}

/// Hands work to the thread that owns the files.
pub struct Keeper {
    jobs: SyncSender<Job>,
}

enum Job {
    Change(Box<Change>, Reply),
    /// The program of this check spoke.
    Word(Key, oneshot::Sender<()>),
    Stop,
}

type Reply = oneshot::Sender<Result<(), Failure>>;

/// Jobs that wait; beyond that whoever asks is told at once.
const JOBS_MAX: usize = 1024;
/// Of jobs that are written together.
const BATCH_MAX: usize = 256;
/// Whoever asked waits so long for the disk.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// A word is on disk after so long.
const SYNC_EVERY: Duration = Duration::from_secs(1);

impl Keeper {
    /// Makes a change, once it is written.
    pub async fn change(&self, change: Change) -> Result<(), Failure> {
        let done = self.ask(|reply| Job::Change(change.into(), reply))?;
        match tokio::time::timeout(WAIT_MAX, done).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Failure::Other("this agent is stopping".into())),
            Err(_) => {
                let text =
                    format!("not written after {WAIT_MAX:?}: the disk is slow, and this may be done yet");
                Err(Failure::Other(text))
            }
        }
    }

    /// As [`Keeper::change`], for who does not wait.
    pub fn change_later(&self, change: Change) {
        if let Err(failure) = self.ask(|reply| Job::Change(change.into(), reply)) {
            tracing::warn!(%failure, "a change is not made");
        }
    }

    /// Returns when a check's word is kept, or cannot be: it counts in any case.
    pub async fn word(&self, id: Key) {
        if let Ok(done) = self.ask(|reply| Job::Word(id, reply)) {
            let _kept_or_not = tokio::time::timeout(WAIT_MAX, done).await;
        }
    }

    fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<oneshot::Receiver<T>, Failure> {
        let (reply, done) = oneshot::channel();
        self.jobs.try_send(job(reply)).map_err(|error| match error {
            TrySendError::Full(_) => Failure::Other("more changes wait for the disk than may wait".into()),
            TrySendError::Disconnected(_) => Failure::Other("this agent is stopping".into()),
        })?;
        Ok(done)
    }

    /// Everything asked so far is done before the thread ends.
    pub fn stop(&self) {
        // Where the queue is full it is worked off; where nobody listens it has ended.
        let _ended = self.jobs.send(Job::Stop);
    }
}

/// What a `Keeper` hands its work to, before there is an agent to do it for.
pub struct Queue(Receiver<Job>);

pub fn keeper() -> (Keeper, Queue) {
    let (jobs, queue) = sync_channel(JOBS_MAX);
    (Keeper { jobs }, Queue(queue))
}

impl Shared {
    /// Writes what is to be kept from now on. Checks whose last word still counts run on from it.
    pub(super) fn keep(self: &Arc<Self>, mut store: Store, queue: Queue) -> JoinHandle<()> {
        let mut state = self.state();
        store.states.iter().for_each(|(id, said)| state.runner.heard(id, &said.output));
        drop(state);
        let shared = self.clone();
        tokio::task::spawn_blocking(move || while store.next(&queue.0, &shared) {})
    }

    /// Returns when everything asked so far is written.
    pub(super) async fn stop_keeping(self: &Arc<Self>, thread: Option<JoinHandle<()>>) {
        let Some(thread) = thread else { return };
        let shared = self.clone();
        let stopped = tokio::task::spawn_blocking(move || {
            shared.keeper.as_ref().inspect(|keeper| keeper.stop());
        });
        let ended = async { tokio::join!(stopped, thread) };
        if tokio::time::timeout(WAIT_MAX, ended).await.is_err() {
            tracing::warn!("what is to be kept was not written in time");
        }
    }
}

impl Store {
    /// Reads what is kept, and takes it up into `local`, which holds what files define. Nothing that is wrong with a
    /// file stops that.
    ///
    /// # Errors
    /// Where the directory cannot be made or listed.
    pub fn open(data_dir: &Path, local: &mut Local) -> Result<Store, String> {
        let (folder, kept) = Folder::open(data_dir)?;
        let states = States::open(data_dir)?;
        local.restore(kept);
        let mut store = Store { folder, states, sync_due: None, ails: false };
        let unkept = local.take_unkept();
        let wanted = wanted(local, &unkept);
        if let Err(Failed { text, .. }) = store.folder.write(wanted) {
            tracing::warn!(error = text, "what is kept cannot be brought up to date");
        }
        let wall = wall_secs();
        let counts = |id: &Key, state: &State| local.keeps_state(id) && state.expires > wall;
        if let Err(error) = store.states.retain(counts) {
            tracing::warn!(error, "the words of TTL checks cannot be written");
        }
        for (id, State { status, output, .. }) in store.states.iter() {
            local.restore_state(id, status.clone(), output.clone());
        }
        Ok(store)
    }

    /// Waits for jobs and does them. `false` at the end.
    fn next(&mut self, queue: &Receiver<Job>, shared: &Shared) -> bool {
        let first = match self.sync_due {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => queue.recv_timeout(due.saturating_duration_since(now())),
        };
        let (mut changes, mut words, mut goes_on) = (Vec::new(), Vec::new(), true);
        match first {
            Err(RecvTimeoutError::Disconnected) => goes_on = false,
            Err(RecvTimeoutError::Timeout) => {}
            Ok(first) => {
                for job in std::iter::once(first).chain(queue.try_iter()).take(BATCH_MAX) {
                    match job {
                        Job::Change(change, reply) => changes.push((*change, reply)),
                        Job::Word(id, reply) => words.push((id, reply)),
                        Job::Stop => {
                            goes_on = false;
                            break;
                        }
                    }
                }
            }
        }
        if !changes.is_empty() {
            self.change(changes, shared);
        }
        if !words.is_empty() {
            self.words(words, shared);
        }
        if !goes_on || self.sync_due.is_some_and(|due| due <= now()) {
            self.sync();
        }
        goes_on
    }

    /// All of them with one write, where that goes well; else each by itself.
    fn change(&mut self, mut changes: Vec<(Change, Reply)>, shared: &Shared) {
        let before = shared.state().local.clone();
        let mut tried = before.clone();
        let outcomes: Vec<_> = changes.iter().map(|(change, _)| tried.apply(change.clone())).collect();
        let unkept = tried.take_unkept();
        if let Err(failed) = self.folder.write(wanted(&tried, &unkept)) {
            self.put_back(&before, &failed, &unkept);
            if changes.len() > 1 {
                changes.into_iter().for_each(|change| self.change(vec![change], shared));
                return;
            }
            tracing::error!(error = failed.text, "a change is not made: it cannot be written");
            let text = format!("nothing was changed: it cannot be written: {}", failed.text);
            changes.drain(..).for_each(|(_, reply)| drop(reply.send(Err(Failure::Other(text.clone())))));
            return;
        }
        let gone = tried.take_rerun().into_iter().filter(|id| self.states.has(id) && !tried.keeps_state(id));
        let gone: Vec<_> = gone.map(|id| (id, None)).collect();
        if !gone.is_empty() {
            self.append(gone);
        }
        for ((change, reply), outcome) in changes.into_iter().zip(outcomes) {
            let made = outcome.and_then(|()| shared.make(change));
            // Who asked may be gone; it is done all the same.
            let _gone = reply.send(made.map_err(Failure::from));
        }
    }

    /// Where a write failed between two files, the disk is given the former state again.
    fn put_back(&mut self, before: &Local, failed: &Failed, unkept: &super::local::Ids) {
        if failed.half.is_empty() {
            return;
        }
        let former = wanted(before, unkept).into_iter().filter(|(place, _)| failed.half.contains(place));
        if let Err(again) = self.folder.write(former.collect()) {
            tracing::error!(
                error = again.text,
                places = ?again.half,
                "a change that was refused may stand there after a restart"
            );
        }
    }

    /// Writes what these checks say now.
    fn words(&mut self, words: Vec<(Key, oneshot::Sender<()>)>, shared: &Shared) {
        let wall = wall_secs();
        let (ids, replies): (Vec<Key>, Vec<_>) = words.into_iter().unzip();
        let states = {
            let state = shared.state();
            let ids: std::collections::BTreeSet<Key> = ids.into_iter().collect();
            let now = |id: Key| state_of(&state.local, &id, wall).map(|state| (id, Some(state)));
            ids.into_iter().filter_map(now).collect::<Vec<_>>()
        };
        if !states.is_empty() {
            self.append(states);
        }
        for reply in replies {
            let _gone = reply.send(());
        }
    }

    fn append(&mut self, words: Vec<(Key, Option<State>)>) {
        let written = self.states.append(words);
        self.note(written);
        if self.states.is_unsynced() && self.sync_due.is_none() {
            self.sync_due = Some(now() + SYNC_EVERY);
        }
    }

    fn sync(&mut self) {
        self.sync_due = None;
        let synced = self.states.sync();
        self.note(synced);
    }

    fn note(&mut self, outcome: Result<(), String>) {
        match &outcome {
            Err(error) if !self.ails => {
                tracing::error!(error, "the words of TTL checks count, but cannot be written");
            }
            Ok(()) if self.ails => tracing::info!("the words of TTL checks are written again"),
            _ => {}
        }
        self.ails = outcome.is_err();
    }
}

/// What is to stand at the places of these.
fn wanted(local: &Local, ids: &super::local::Ids) -> Vec<(String, Option<super::local::Kept>)> {
    let services = ids.services.iter().map(|id| (record::service_place(id), local.kept_service(id)));
    let checks = ids.checks.iter().map(|id| (record::check_place(id), local.kept_check(id)));
    services.chain(checks).collect()
}

/// What a check says now, as it is to be kept.
fn state_of(local: &Local, id: &str, wall: u64) -> Option<State> {
    let ttl = match local.definition(id)?.kind {
        Kind::Ttl(ttl) if local.keeps_state(id) => ttl,
        _ => return None,
    };
    let check = local.check(id)?;
    // A part of a second counts in favour of the program.
    let ttl = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    let (status, output) = (check.status.clone(), check.output.clone());
    Some(State { status, output, expires: wall.saturating_add(ttl) })
}

#[expect(
    clippy::disallowed_methods,
    reason = "until when a word counts must be told to another process, perhaps after a reboot; no other clock can"
)]
fn wall_secs() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
