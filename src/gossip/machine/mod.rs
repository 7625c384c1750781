//! The machine of one pool: it takes packets, requests, replies and the time, and tells what to send, what to ask and what
//! happened. It opens no socket, reads no clock, and draws all its chances from one seed.

mod asks;
mod events;
mod health;
mod house;
mod life;
mod rebirth;
mod receive;
mod send;
mod sync;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    num::NonZero,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use foca::{Foca, NoCustomBroadcast, OwnedNotification, Timer};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use self::{
    asks::Ask,
    health::{Helped, Probe},
    life::{Life, Stage},
    timers::{Due, Timers},
};
use super::{
    coordinates::Coordinates,
    counters::Counters,
    identity::{Id, key},
    member::{Members, Tags},
    news::News,
    ring::Ring,
    roster::{Entry, Roster, Said},
    settings::{Keep, Settings},
    suspicion::{Suspicion, Votes},
    wire::{
        item::{Item, NAME_BYTES_MAX, Record, TAG_BYTES_MAX},
        stream::State,
        swim::Swim,
    },
};
use crate::catalog::Text;

pub struct Machine {
    settings: Settings,
    foca: Foca<Id, Swim, SmallRng, NoCustomBroadcast>,
    /// What foca did last, in the order in which it did it; empty between two inputs.
    out: Out,
    roster: Roster,
    news: News,
    timers: Timers,
    random: SmallRng,
    effects: VecDeque<Effect>,
    counters: Arc<Counters>,
    started: Instant,
    /// When this life began, by its first generation: of two with one name the elder stays.
    born: u64,
    life: Life,
    /// How many members foca's numbers are set for.
    sized_for: usize,

    probe: Option<Probe>,
    /// Whose host refused a connection in the probe that just ended.
    refused: Option<Id>,
    helped: Vec<Helped>,
    /// How much this node doubts its own hearing, 0 to 7: so many intervals more lie between its probes.
    doubt: u32,
    /// foca's last: of its timers, those of another one mean nothing.
    token: u8,
    incarnation: u16,
    suspicions: BTreeMap<u64, Suspicion>,
    votes: BTreeMap<u64, Votes>,
    pushed: Option<Instant>,
    push_waits: bool,

    asks: BTreeMap<AskId, Ask>,
    ask: u64,
    sync_every: Duration,
    /// Joins that were let in during this second.
    joins: (i64, u32),
    /// Members that another one calls dead; to be asked themselves.
    doubted: VecDeque<(Id, Instant)>,
    called: BTreeMap<u64, i64>,

    coordinates: Coordinates,
    heard: Ring,
    clock_kept: u64,
    queries: BTreeMap<u64, u64>,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Send {
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// One request over a stream; its outcome is given to [`Machine::answered`], always, and within the deadline.
    Ask {
        id: AskId,
        to: SocketAddr,
        bytes: Vec<u8>,
        deadline: Duration,
    },
    Tell(Happening),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// Why a request had no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskError {
    /// The host is there, and nobody listens.
    Refused,
    TimedOut,
    Failed(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// [`Machine::members`] is another value.
    Changed,
    Event(UserEvent),
    /// Someone asks everyone: see [`Machine::respond`].
    Query(Query),
    /// One answer to a query of ours, and that no further ones are awaited.
    Answer {
        id: u64,
        from: Text,
        payload: Vec<u8>,
    },
    QueryOver {
        id: u64,
    },
    /// How many members the pool now has.
    Joined {
        id: u64,
        outcome: Result<usize, String>,
    },
    /// This node has left: nothing more is awaited.
    Left,
    /// An elder member has this one's name; it takes no part any more.
    Conflict(String),
    Keep(Keep),
}

#[derive(Clone, Debug, PartialEq)]
pub struct UserEvent {
    pub name: Text,
    pub payload: Bytes,
    /// Counted, not measured: later than all that its sender had heard of.
    pub time: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub name: Text,
    pub payload: Bytes,
    id: u64,
    origin: Id,
}

/// It would not fit into a packet, or is more than agents agreed to spread.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    #[error("user event exceeds configured limit of {0} bytes before encoding")]
    Event(usize),
    #[error("Encoded length of tags exceeds limit of {TAG_BYTES_MAX} bytes")]
    Tags,
    #[error("node name exceeds limit of {NAME_BYTES_MAX} bytes")]
    Name,
    #[error("{0} queries are under way already")]
    Queries(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no member is named '{0}'")]
pub struct Unknown(pub String);

/// foca's part of a packet at most: room is left for what stands before it, and for foca's idea of the identity it is for.
const SWIM_MAX: usize = 1300;

impl Machine {
    pub fn new(mut settings: Settings, seed: u64, now: Instant) -> Result<Machine, TooLarge> {
        let (id, datacenter) = (settings.id.to_string(), settings.datacenter.clone());
        settings.tags.insert("id".into(), id.into());
        settings.tags.insert("dc".into(), datacenter);
        fits(&settings.name, &settings.tags)?;
        let me = Id::new(key(&settings.name), settings.advertise, settings.generation);
        let mut random = SmallRng::seed_from_u64(seed);
        settings.timing.reconcile();
        let config = config(&settings, 1);
        let foca = Foca::new(me, config, SmallRng::from_rng(&mut random), Swim);
        let record =
            Record { version: me.generation << 16, name: settings.name.clone(), tags: settings.tags.clone() };
        let mut roster = Roster::default();
        roster.put(Entry { id: me, state: State::Alive, since: 0, record: Some(Said::new(record)) });
        let clock = settings.past.clock;
        let mut machine = Machine {
            foca,
            out: Out::default(),
            roster,
            news: News::default(),
            timers: Timers::default(),
            effects: VecDeque::new(),
            counters: Arc::default(),
            started: now,
            born: me.generation,
            life: Life::new(&settings, now),
            sized_for: 1,
            probe: None,
            refused: None,
            helped: Vec::new(),
            doubt: 0,
            token: 0,
            incarnation: 0,
            suspicions: BTreeMap::new(),
            votes: BTreeMap::new(),
            pushed: None,
            push_waits: false,
            asks: BTreeMap::new(),
            ask: 0,
            sync_every: settings.timing.sync_interval,
            joins: (0, 0),
            doubted: VecDeque::new(),
            called: BTreeMap::new(),
            coordinates: Coordinates::new(random.random()),
            heard: Ring::new(clock),
            clock_kept: clock,
            queries: BTreeMap::new(),
            random,
            settings,
        };
        machine.tell(Happening::Keep(Keep::Generation(me.generation)));
        machine.begin(now);
        machine.finish();
        Ok(machine)
    }

    pub fn members(&self) -> &Members {
        self.roster.members()
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// When [`Machine::tick`] has something to do.
    pub fn due(&self) -> Option<Instant> {
        self.timers.due()
    }

    /// Whatever is due. All packets that arrived are to be given first: what they say may be what a timer waits for.
    pub fn tick(&mut self, now: Instant) {
        if self.life.stage == Stage::Stopped {
            self.timers = Timers::default();
        }
        self.mind_pause(now);
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Foca(timer) => self.foca_timer(timer, now),
                Due::PingAgain(number) => self.ping_again(number),
                Due::Nack(number) => self.nack(number),
                Due::Suspicion(key) => self.suspicion_ends(key, now),
                Due::Push => self.push(now),
                Due::Root => self.compare(now),
                Due::Reconnect => self.reconnect(now),
                Due::Rejoin => self.rejoin(now),
                Due::Seek => self.seek(now),
                Due::House => self.keep_house(now),
                Due::Leave(step) => self.leave_step(step, now),
                Due::Query(id) => self.query_over(id),
                Due::Record(key) => self.ask_record(key, now),
            }
        }
        self.finish();
    }

    /// Drained after each input.
    pub fn effects(&mut self) -> impl Iterator<Item = Effect> {
        self.effects.drain(..)
    }

    /// What this node says of itself from now on.
    pub fn set_tags(&mut self, mut tags: Tags, now: Instant) -> Result<(), TooLarge> {
        tags.insert("id".into(), self.settings.id.to_string().into());
        tags.insert("dc".into(), self.settings.datacenter.clone());
        fits(&self.settings.name, &tags)?;
        if tags != self.settings.tags {
            self.settings.tags = tags;
            self.say_anew(0);
            self.push_soon(now);
        }
        self.finish();
        Ok(())
    }

    /// A new version of what this node says of itself, newer than `known` too.
    fn say_anew(&mut self, known: u64) {
        let me = *self.foca.identity();
        let Some(mut entry) = self.roster.get(me.key).cloned() else { return };
        let version = entry.record.as_ref().map_or(0, |said| said.version).max(known).saturating_add(1);
        let record = Record { version, name: self.settings.name.clone(), tags: self.settings.tags.clone() };
        entry.record = Some(Said::new(record.clone()));
        self.roster.put(entry);
        self.spread(&Item::Record { id: me, record });
    }

    fn me(&self) -> Id {
        *self.foca.identity()
    }

    /// Milliseconds of the machine's life.
    fn age(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(i64::MAX)
    }

    fn tell(&mut self, happening: Happening) {
        self.effects.push_back(Effect::Tell(happening));
    }

    /// What every input ends with.
    fn finish(&mut self) {
        if self.roster.take_changed() {
            self.tell(Happening::Changed);
        }
        let size = self.roster.size();
        if size.abs_diff(self.sized_for) * 5 > self.sized_for {
            self.sized_for = size;
            // It differs in numbers only: foca refuses nothing of it.
            let _same_kind = self.foca.set_config(config(&self.settings, size));
        }
    }

    /// Lets foca do something, and then does what it wants.
    fn swim(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Foca<Id, Swim, SmallRng, NoCustomBroadcast>, &mut Out) -> Result<(), foca::Error>,
    ) {
        let before = (self.foca.updates_backlog(), self.me());
        let mut out = std::mem::take(&mut self.out);
        if act(&mut self.foca, &mut out).is_err() {
            self.counters.malformed.add(1);
        }
        let me = self.me();
        if me != before.1 {
            self.renewed(before.1, me, now);
        }
        for note in out.notes.drain(..) {
            match note {
                OwnedNotification::MemberUp(id) => self.up(id, now),
                OwnedNotification::MemberDown(id) => self.down(&id, now),
                OwnedNotification::Rename(_, id) => self.renamed(id, now),
                OwnedNotification::Active => self.life.active = true,
                OwnedNotification::Idle | OwnedNotification::Defunct => self.life.active = false,
                OwnedNotification::Rejoin(_) => {}
            }
        }
        for (timer, after) in out.timers.drain(..) {
            self.foca_asks(timer, after, now);
        }
        for (to, bytes) in out.sends.drain(..) {
            self.send_swim(to, &bytes, now);
        }
        self.out = out;
        if self.foca.updates_backlog() > before.0 {
            self.push_soon(now);
        }
    }
}

/// What foca wants of the world, kept until it returns.
#[derive(Default)]
struct Out {
    notes: Vec<OwnedNotification<Id>>,
    timers: Vec<(Timer<Id>, Duration)>,
    sends: Vec<(Id, Vec<u8>)>,
}

impl foca::Runtime<Id> for &mut Out {
    fn notify(&mut self, note: foca::Notification<'_, Id>) {
        self.notes.push(note.to_owned());
    }

    fn send_to(&mut self, to: Id, bytes: &[u8]) {
        self.sends.push((to, bytes.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Id>, after: Duration) {
        self.timers.push((timer, after));
    }
}

/// foca's settings for a pool of this size. Never its own: they leave its periodic announcements and its forgetting on.
fn config(settings: &Settings, members: usize) -> foca::Config {
    let timing = &settings.timing;
    let at_least_one = |number: usize| NonZero::new(number).unwrap_or(NonZero::<usize>::MIN);
    foca::Config {
        probe_period: timing.probe_interval,
        probe_rtt: timing.probe_timeout,
        num_indirect_probes: at_least_one(timing.indirect_probes),
        max_transmissions: NonZero::new(timing.transmissions(members)).unwrap_or(NonZero::<u8>::MIN),
        // Its timers are held by `suspicions`.
        suspect_to_down_after: timing.suspicion(members),
        remove_down_after: None,
        max_packet_size: at_least_one(SWIM_MAX),
        notify_down_members: true,
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(foca::PeriodicParams {
            frequency: timing.gossip_interval,
            num_members: at_least_one(timing.gossip_nodes),
        }),
    }
}

fn fits(name: &Text, tags: &Tags) -> Result<(), TooLarge> {
    let bytes: usize = tags.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if name.len() > NAME_BYTES_MAX {
        return Err(TooLarge::Name);
    }
    if bytes > TAG_BYTES_MAX { Err(TooLarge::Tags) } else { Ok(()) }
}
