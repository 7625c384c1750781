//! A pool, as the rest of the house sees it: who is a member, what they tell each other, and what one may ask of it. All it
//! does happens in one task (see [`super::driver`]); what is asked of it waits for that task in a queue that has an end.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    counters::Counters,
    driver::{self, BindError},
    keyring::{Key, Operation, Report},
    machine::{TooLarge, Unknown, UserEvent},
    member::{Members, Tags},
    settings,
    traffic::Traffic,
};
use crate::catalog::{Coordinate, Network, Text};

/// Whoever holds one may ask; the pool goes on without any.
#[derive(Clone)]
pub struct Pool {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

/// What a pool is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its own part is told of its past, and of a port that chance gives.
    pub node: settings::Settings,
    pub kind: Kind,
    /// Where it listens, by UDP and TCP.
    pub bind: SocketAddr,
    pub encryption: Encryption,
    /// What it keeps of the members; nothing without a file.
    pub history: Option<PathBuf>,
    /// Whether a node that had left asks those it knew to let it in.
    pub rejoin_after_leave: bool,
    /// Who may speak with us; everybody where none are named.
    pub allowed: Vec<Network>,
}

/// What says of bytes which pool they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Lan,
    Wan,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// What the keyring begins with, where it has no file yet.
    pub key: Option<Key>,
    /// Where the keyring is kept; in memory alone without.
    pub keyring: Option<PathBuf>,
    pub verify_incoming: bool,
    pub verify_outgoing: bool,
}

impl Default for Encryption {
    fn default() -> Self {
        Encryption { key: None, keyring: None, verify_incoming: true, verify_outgoing: true }
    }
}

/// Why a pool cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Without the keys that the others use it would be alone, or in the open.
    #[error("Failed to configure keyring: {0}")]
    Keyring(String),
    /// Nobody could be told who this node is.
    #[error(transparent)]
    Node(#[from] TooLarge),
}

/// Why a pool ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop; the others will notice.
    Stopped,
    /// It left, and the others know.
    Left,
    /// Another one has its name.
    Conflict(String),
}

/// The pool is over, or has more to do than it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pool has ended")]
pub struct Over;

pub(super) enum Request {
    Join { addresses: Vec<SocketAddr>, reply: oneshot::Sender<Vec<Joined>> },
    Leave,
    ForceLeave { name: Text, prune: bool, reply: oneshot::Sender<Result<(), Unknown>> },
    Fire { name: Text, payload: Vec<u8>, reply: oneshot::Sender<Result<u64, TooLarge>> },
    SetTags { tags: Tags, reply: oneshot::Sender<Result<(), TooLarge>> },
    Keyring { operation: Operation, local_only: bool, reply: oneshot::Sender<Report> },
}

/// What came of asking one address.
pub type Joined = (SocketAddr, Result<usize, String>);

/// What is read without asking.
pub(super) struct Shared {
    pub events: broadcast::Sender<UserEvent>,
    pub members: watch::Receiver<Members>,
    pub ended: watch::Receiver<Option<Ended>>,
    pub coordinate: Mutex<Coordinate>,
    pub encrypted: watch::Receiver<bool>,
    pub counters: Arc<Counters>,
    pub traffic: Arc<Traffic>,
    pub local: SocketAddr,
}

const REQUESTS_MAX: usize = 256;
/// Whoever hears them later than this many hears that he lost some.
pub(super) const EVENTS_MAX: usize = 256;

impl Pool {
    /// Listens, and goes on in a task of its own until it is stopped or leaves.
    ///
    /// # Errors
    /// Where its address or its keys cannot be had.
    pub fn start(
        settings: Settings,
        stop: CancellationToken,
    ) -> Result<(Pool, JoinHandle<Ended>), StartError> {
        let keyring = driver::keyring_of(&settings.encryption).map_err(StartError::Keyring)?;
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let (driver, shared) = driver::Driver::new(settings, keyring, asked, stop)?;
        let task = tokio::spawn(driver.run());
        Ok((Pool { requests, shared }, task))
    }

    pub fn members(&self) -> watch::Receiver<Members> {
        self.shared.members.clone()
    }

    /// What members tell each other from now on.
    pub fn events(&self) -> broadcast::Receiver<UserEvent> {
        self.shared.events.subscribe()
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> watch::Receiver<Option<Ended>> {
        self.shared.ended.clone()
    }

    /// Where it listens.
    pub fn local(&self) -> SocketAddr {
        self.shared.local
    }

    pub fn coordinate(&self) -> Coordinate {
        self.shared.coordinate.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there are keys.
    pub fn is_encrypted(&self) -> bool {
        *self.shared.encrypted.borrow()
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.shared.traffic
    }

    /// Asks each of them to let us in; of each, how many members it told us of, or why not.
    pub async fn join(&self, addresses: Vec<SocketAddr>) -> Vec<Joined> {
        let asked = addresses.clone();
        let outcome = self.ask(|reply| Request::Join { addresses, reply }).await;
        outcome.unwrap_or_else(|over| asked.into_iter().map(|to| (to, Err(over.to_string()))).collect())
    }

    /// Ends when the others know, or will not.
    pub async fn leave(&self) {
        let mut ended = self.ended();
        if self.requests.send(Request::Leave).await.is_ok() {
            let _or_its_task_is_gone = ended.wait_for(Option::is_some).await;
        }
    }

    /// Lets a failed member have left; with `prune`, forgets it.
    ///
    /// # Errors
    /// Where nobody has that name.
    pub async fn force_leave(&self, name: &str, prune: bool) -> Result<Result<(), Unknown>, Over> {
        let name = name.into();
        self.ask(|reply| Request::ForceLeave { name, prune, reply }).await
    }

    /// Tells all members; its time by Lamport's clock.
    ///
    /// # Errors
    /// Where it is more than may be told.
    pub async fn fire(&self, name: Text, payload: Vec<u8>) -> Result<Result<u64, TooLarge>, Over> {
        self.ask(|reply| Request::Fire { name, payload, reply }).await
    }

    /// Says something else of this node from now on.
    ///
    /// # Errors
    /// Where it is more than may be said.
    pub async fn set_tags(&self, tags: Tags) -> Result<Result<(), TooLarge>, Over> {
        self.ask(|reply| Request::SetTags { tags, reply }).await
    }

    /// Does it on every member, or with `local_only` on this one, and says what they said.
    ///
    /// # Errors
    /// Where the pool is over.
    pub async fn keyring(&self, operation: Operation, local_only: bool) -> Result<Report, Over> {
        self.ask(|reply| Request::Keyring { operation, local_only, reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Over> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Over)?;
        answer.await.map_err(|_| Over)
    }
}

impl Kind {
    /// Streams are bound to the pool alone: whoever comes from another datacenter by mistake is told so.
    pub(super) fn labels(self, datacenter: &str) -> (String, String) {
        let pool = match self {
            Kind::Lan => "lan",
            Kind::Wan => return ("wan".into(), "wan stream".into()),
        };
        (format!("{pool} {datacenter}"), format!("{pool} stream"))
    }
}
