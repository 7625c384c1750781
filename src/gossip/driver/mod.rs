//! One task that carries between a pool's sockets and its machine: the only place of gossip that waits, reads the clock
//! and touches a file. Whatever wakes it, all packets that came are given to the machine before time is: an answer that
//! lies in the socket must not be missed because this process was slow.
//!
//! ```text
//! UDP ──> open ──> machine.packet ─┐                        ┌─> seal ──> UDP
//! TCP ──> open ──> machine.request ├─> machine ── effects ──┼─> seal ──> TCP, its answer ──> machine.answered
//! requests, timer ─────────────────┘                        └─> members, events, files
//! ```

mod complaints;
mod exchange;
mod joining;
mod keeping;
mod keys;
mod requests;
mod socket;
mod stream;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, broadcast, mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use self::{
    complaints::{Complaints, Inside},
    joining::Joining,
    keys::Keys,
    socket::Sockets,
    stream::StreamError,
};
pub use self::{keys::keyring_of, socket::BindError};
use super::{
    history::History,
    keyring::Keyring,
    machine::{AskError, AskId, Effect, Happening, Machine},
    member::Members,
    pool::{EVENTS_MAX, Ended, Request, Settings, Shared, StartError},
    seal::{self, Seal},
    settings::Keep,
};
use crate::catalog::{Network, Text};

/// What foca's packets and ours may be on the wire, envelope and all: nothing on its way cuts them.
const PACKET_BYTES_MAX: usize = 1400;
/// Packets given to the machine before it is told the time, at most: a flood must not stop the clock.
const DRAINED_MAX: usize = 4096;
/// Streams that others begin, and those that we do, at one time; and those of one host, which must not take all.
const SERVED_MAX: usize = 128;
const SERVED_OF_HOST_MAX: usize = 64;
const ASKED_MAX: usize = 256;
/// Chunks of streams in memory, before anybody knows what they say.
const ROOM_IN: usize = 1 << 10;
const ROOM_OUT: usize = 1 << 11;
/// Accepting fails where this process has no descriptors left; there is no use in trying at once.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Owns everything of a pool.
pub struct Driver {
    machine: Machine,
    name: Text,
    sockets: Sockets,
    seal: Arc<Mutex<Seal>>,
    allowed: Vec<Network>,
    stream_timeout: Duration,
    requests: mpsc::Receiver<Request>,
    /// What others' streams ask, and where the answer goes.
    incoming: mpsc::Receiver<Incoming>,
    hand_in: mpsc::Sender<Incoming>,
    tasks: JoinSet<Done>,
    served: Arc<Semaphore>,
    served_of: HashMap<IpAddr, usize>,
    room_in: Arc<Semaphore>,
    room_out: Arc<Semaphore>,
    asked: usize,
    joining: Joining,
    keys: Keys,
    /// Away while it writes.
    history: Option<History>,
    keeps_anything: bool,
    keeps: Vec<Keep>,
    keep_at: Option<Instant>,
    complaints: Complaints,
    accept_at: Option<Instant>,
    members: watch::Sender<Members>,
    encrypted: watch::Sender<bool>,
    ended: watch::Sender<Option<Ended>>,
    shared: Arc<Shared>,
    end: Option<Ended>,
    stop: CancellationToken,
    packet: Vec<u8>,
}

/// A request on a stream.
struct Incoming {
    from: SocketAddr,
    plain: Vec<u8>,
    answer: oneshot::Sender<Option<Vec<u8>>>,
}

/// What a task of ours came to.
enum Done {
    Served(SocketAddr, Result<(), StreamError>),
    Asked(AskId, Result<Vec<u8>, AskError>, Option<seal::Refused>, SocketAddr),
    Kept(History, Result<(), String>),
    KeyringWritten(Result<(), String>),
}

/// What there is to do.
enum Woken {
    Stop,
    Packets,
    Done(Done),
    Request(Request),
    Incoming(Incoming),
    Stream(io::Result<(tokio::net::TcpStream, SocketAddr)>),
    Time,
}

impl Driver {
    /// Listens. Nothing is said or heard before [`Driver::run`].
    ///
    /// # Errors
    /// Where its address cannot be had, or it says more of itself than fits.
    pub(super) fn new(
        mut settings: Settings,
        keyring: Keyring,
        requests: mpsc::Receiver<Request>,
        stop: CancellationToken,
    ) -> Result<(Driver, Arc<Shared>), StartError> {
        let sockets = Sockets::bind(settings.bind)?;
        let node = &mut settings.node;
        if node.advertise.port() == 0 {
            node.advertise.set_port(sockets.local.port());
        }
        let history =
            settings.history.as_deref().map(|path| History::open(path, settings.rejoin_after_leave));
        if let Some(history) = &history {
            node.past = history.past().clone();
        }
        // A clock that was set back must not bring a former life back.
        node.generation = unix_millis().max(node.generation).max(node.past.generation + 1);
        let (packets, streams) = settings.kind.labels(&node.datacenter);
        let verify_incoming = settings.encryption.verify_incoming;
        let verify_outgoing = settings.encryption.verify_outgoing;
        let (encrypted, is_encrypted) = watch::channel(!keyring.is_empty());
        let sealed = seal::Settings { packets, streams, verify_incoming, verify_outgoing };
        let (name, stream_timeout) = (node.name.clone(), node.timing.stream_timeout);
        let machine = Machine::new(settings.node, fastrand::u64(..), now())?;
        let (hand_in, incoming) = mpsc::channel(SERVED_MAX);
        let (members, seen) = watch::channel(machine.members().clone());
        let (ended, over) = watch::channel(None);
        let shared = Arc::new(Shared {
            events: broadcast::channel(EVENTS_MAX).0,
            members: seen,
            ended: over,
            coordinate: Mutex::new(machine.coordinate()),
            encrypted: is_encrypted,
            counters: Arc::clone(machine.counters()),
            traffic: Arc::default(),
            local: sockets.local,
        });
        let driver = Driver {
            machine,
            name,
            sockets,
            seal: Arc::new(Mutex::new(Seal::new(&sealed, fastrand::u64(..), keyring))),
            allowed: settings.allowed,
            stream_timeout,
            requests,
            incoming,
            hand_in,
            tasks: JoinSet::new(),
            served: Arc::new(Semaphore::new(SERVED_MAX)),
            served_of: HashMap::new(),
            room_in: Arc::new(Semaphore::new(ROOM_IN)),
            room_out: Arc::new(Semaphore::new(ROOM_OUT)),
            asked: 0,
            joining: Joining::default(),
            keys: Keys::new(settings.encryption.keyring),
            keeps_anything: history.is_some(),
            history,
            keeps: Vec::new(),
            keep_at: None,
            complaints: Complaints::default(),
            accept_at: None,
            members,
            encrypted,
            ended,
            shared: Arc::clone(&shared),
            end: None,
            stop,
            packet: Vec::with_capacity(PACKET_BYTES_MAX),
        };
        Ok((driver, shared))
    }

    /// Until it is stopped, has left, or must end.
    pub async fn run(mut self) -> Ended {
        self.perform();
        while self.end.is_none() {
            let woken = self.woken().await;
            self.drain();
            match woken {
                Woken::Stop => self.end = Some(Ended::Stopped),
                Woken::Packets | Woken::Time => {}
                Woken::Done(done) => self.done(done),
                Woken::Request(request) => self.request(request),
                Woken::Incoming(Incoming { from, plain, answer }) => {
                    // Whoever hung up meanwhile is still heard.
                    let _hung_up = answer.send(self.machine.request(from, &plain, now()));
                    self.heed(from);
                }
                Woken::Stream(accepted) => self.accept(accepted),
            }
            self.perform();
            self.tick();
            self.publish();
        }
        self.finish().await
    }

    async fn woken(&mut self) -> Woken {
        let due = self.due().unwrap_or_else(|| now() + Duration::from_secs(3600));
        // Whoever comes meanwhile waits in the system's queue, which has an end, and has a deadline of his own.
        let accepts = self.accept_at.is_none() && self.served.available_permits() > 0;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Woken::Stop,
            Some(done) = self.tasks.join_next() => match done {
                Ok(done) => Woken::Done(done),
                // Nobody but the runtime cancels them, at its own end.
                Err(error) if error.is_cancelled() => Woken::Stop,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            Some(incoming) = self.incoming.recv() => Woken::Incoming(incoming),
            Some(request) = self.requests.recv() => Woken::Request(request),
            accepted = self.sockets.tcp.accept(), if accepts => Woken::Stream(accepted),
            // Packets are drained whatever wakes it: a flood of them must not keep all else waiting.
            _ready = self.sockets.udp.readable() => Woken::Packets,
            () = sleep_until(due.into()) => Woken::Time,
        }
    }

    fn due(&self) -> Option<Instant> {
        let ours = [self.keep_at.filter(|_| self.history.is_some()), self.accept_at, self.complaints.due()];
        ours.into_iter().chain([self.machine.due()]).flatten().min()
    }

    /// Everything that lies in the socket.
    fn drain(&mut self) {
        // One byte more than any packet has: what fills it is too long.
        let mut buffer = [0; PACKET_BYTES_MAX + 1];
        for _ in 0..DRAINED_MAX {
            let (length, from) = match self.sockets.udp.try_recv_from(&mut buffer) {
                Ok(received) => received,
                // An error of a packet that we sent is told here, too; it is of no use, since packets may be lost.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            let traffic = &self.shared.traffic;
            traffic.packets_in.add_alone(1);
            traffic.packet_bytes_in.add_alone(length as u64);
            let from = socket::canonical(from);
            if !self.may_speak(from) {
                continue;
            }
            let opened = match length {
                ..=PACKET_BYTES_MAX => lock(&self.seal).open_packet(&mut buffer[..length]),
                _ => Err(seal::Refused::Size),
            };
            match opened {
                Ok(plain) => {
                    self.machine.packet(from, plain, now());
                    self.heed(from);
                }
                Err(refused) => self.complain(refused, from),
            }
            self.perform();
        }
    }

    fn may_speak(&mut self, from: SocketAddr) -> bool {
        let may = self.allowed.is_empty() || self.allowed.iter().any(|network| network.contains(from.ip()));
        if !may {
            self.shared.traffic.foreign.add(1);
            self.complaints.note_foreign(from, now());
        }
        may
    }

    fn complain(&mut self, refused: seal::Refused, from: SocketAddr) {
        self.shared.traffic.refused[refused.place()].add(1);
        self.complaints.note(refused, from, now());
    }

    /// What the machine did not take of what this one sent is told of, too.
    fn heed(&mut self, from: SocketAddr) {
        let counters = self.machine.counters();
        let inside = Inside {
            malformed: counters.malformed.get(),
            future: counters.future.get(),
            strangers: counters.strangers.get(),
            refused: counters.refused.get(),
        };
        self.complaints.note_inside(inside, from, now());
    }

    fn tick(&mut self) {
        let now = now();
        self.complaints.say(now);
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
        }
        if self.machine.due().is_some_and(|due| due <= now) {
            self.machine.tick(now);
            self.perform();
        }
        self.keep(now);
    }

    /// Does what the machine wants done.
    fn perform(&mut self) {
        let effects: Vec<Effect> = self.machine.effects().collect();
        for effect in effects {
            match effect {
                Effect::Send { to, bytes } => self.send(to, &bytes),
                Effect::Ask { id, to, bytes, deadline } => self.ask(id, to, bytes, deadline),
                Effect::Tell(happening) => self.tell(happening),
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Served(from, outcome) => self.served(from, outcome),
            Done::Asked(id, outcome, refused, to) => {
                self.asked -= 1;
                if let Some(refused) = refused {
                    self.complain(refused, to);
                }
                self.machine.answered(id, outcome, now());
            }
            Done::Kept(history, outcome) => self.kept(history, outcome),
            Done::KeyringWritten(outcome) => {
                let keyring = self.keyring();
                let steps = self.keys.written(outcome, &keyring, &self.name);
                self.walk(steps);
            }
        }
    }

    /// Where this member is now, for whoever asks.
    fn publish(&self) {
        let now = self.machine.coordinate();
        let mut told = self.shared.coordinate.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&told.vec, &now.vec) {
            *told = now;
        }
    }

    fn tell(&mut self, happening: Happening) {
        match happening {
            Happening::Changed => drop(self.members.send_replace(self.machine.members().clone())),
            // Nobody may be listening.
            Happening::Event(event) => drop(self.shared.events.send(event)),
            Happening::Query(query) if *query.name == *keys::QUERY => {
                let keyring = self.keyring();
                let steps = self.keys.asked(query, &keyring, &self.name);
                self.walk(steps);
            }
            // Of a newer version, perhaps; whoever asks hears nothing from us.
            Happening::Query(_) => {}
            Happening::Answer { id, from, payload } => self.keys.answered(id, &from, &payload),
            Happening::QueryOver { id } => self.keys.over(id),
            Happening::Joined { id, outcome } => self.joining.joined(id, outcome),
            Happening::Left => self.end = Some(Ended::Left),
            Happening::Conflict(why) => self.end = Some(Ended::Conflict(why)),
            Happening::Keep(keep) => self.remember(keep),
        }
    }

    fn keyring(&self) -> Keyring {
        lock(&self.seal).keyring().clone()
    }
}

fn lock(seal: &Mutex<Seal>) -> MutexGuard<'_, Seal> {
    seal.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the loop at the rim: here time is read, and given to all the rest"
)]
fn now() -> Instant {
    Instant::now()
}

/// Of a generation, which must be larger than those of former lives, nothing else.
#[expect(
    clippy::disallowed_methods,
    reason = "the machine takes it for a number that rises from start to start"
)]
fn unix_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
