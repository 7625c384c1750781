//! A pool in a box: machines, a network between them and a clock, all of it drawn from one seed. What a scenario does to a node or
//! to the network is done to it here; how long anything took is counted in simulated time.
//!
//! `LICTOR_GOSSIP_NODES` runs the scenarios with another number of members than the tests take by themselves.

mod fuzz;
mod idle;
mod leave;
mod life;
mod loss;
mod names;
mod network;
mod rumour;
mod spread;
mod torn;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use uuid::Uuid;

use super::{
    AskError, AskId, Effect, Happening, Machine, Members, Past, Settings, Timing, UserEvent, roster::Roster,
};

/// Headers of IP and UDP, and what seals a packet.
const AROUND_PACKET: u64 = 57;
/// Segments that open and close a connection.
const AROUND_STREAM: u64 = 9 * 52;

pub(crate) struct Sim {
    pub now: Instant,
    pub nodes: Vec<Node>,
    pub net: Net,
    random: SmallRng,
    events: BTreeMap<(Instant, u64), Event>,
    number: u64,
    by_address: BTreeMap<SocketAddr, usize>,
    /// Members that were called failed while nothing was wrong with them: who by, and whom.
    pub wronged: Vec<(usize, String)>,
    /// When each node's members first fulfilled what is waited for.
    watched: Option<Condition>,
    pub seen: Vec<Option<Instant>>,
    timing: Timing,
}

type Condition = Box<dyn Fn(&Members) -> bool>;

pub(crate) struct Net {
    pub latency: Duration,
    /// A part of the latency, up and down.
    pub jitter: f64,
    pub loss: f64,
    /// From whom to whom nothing passes.
    pub cut: Box<dyn Fn(usize, usize) -> bool>,
    /// From whom to whom no packets pass, while streams do.
    pub filtered: Box<dyn Fn(usize, usize) -> bool>,
}

pub(crate) struct Node {
    pub name: String,
    pub address: SocketAddr,
    /// None where the process is gone.
    pub machine: Option<Machine>,
    pub host_up: bool,
    /// Neither timers nor packets.
    stopped_until: Option<Instant>,
    /// Packets wait, timers run.
    stuck_until: Option<Instant>,
    inbox: Vec<Event>,
    outbox: Vec<Effect>,
    wakes: Option<Instant>,
    asks: BTreeSet<AskId>,
    members: Members,
    pub events: Vec<(Instant, UserEvent)>,
    pub tells: Vec<(Instant, Happening)>,
    pub past: Past,
    pub packets: u64,
    pub packet_bytes: u64,
    pub stream_bytes: u64,
    lives: u64,
}

#[derive(Debug)]
enum Event {
    Packet { to: usize, from: SocketAddr, bytes: Vec<u8> },
    Request { to: usize, from: usize, ask: AskId, bytes: Vec<u8> },
    Answered { to: usize, ask: AskId, outcome: Result<Vec<u8>, AskError> },
    Wake(usize),
    Free(usize),
}

impl Sim {
    pub fn new(seed: u64, timing: Timing) -> Sim {
        #[expect(
            clippy::disallowed_methods,
            reason = "simulated time begins somewhere; it is never looked at"
        )]
        let now = Instant::now() + Duration::from_secs(1 << 20);
        let wan = timing.probe_interval > Duration::from_secs(2);
        let (latency, jitter) =
            if wan { (Duration::from_millis(40), 0.2) } else { (Duration::from_micros(500), 0.5) };
        Sim {
            now,
            nodes: Vec::new(),
            net: Net {
                latency,
                jitter,
                loss: 0.0,
                cut: Box::new(|_, _| false),
                filtered: Box::new(|_, _| false),
            },
            random: SmallRng::seed_from_u64(seed),
            events: BTreeMap::new(),
            number: 0,
            by_address: BTreeMap::new(),
            wronged: Vec::new(),
            watched: None,
            seen: Vec::new(),
            timing,
        }
    }

    /// A pool of `count` that have known each other for a while.
    pub fn pool(count: usize, seed: u64, timing: Timing) -> Sim {
        let mut sim = Sim::new(seed, timing);
        for _ in 0..count {
            sim.add();
        }
        sim.acquaint();
        sim.run(Duration::from_secs(3));
        assert!((0..count).all(|at| sim.members(at).len() == count));
        sim
    }

    /// All that live know each other a second from now, and nobody had to tell them: not all at once, or their timers would go on
    /// at the same times for good.
    pub fn acquaint(&mut self) {
        let living = self.alive();
        let own = |at: &usize| self.nodes[*at].machine.as_ref().map(Machine::own);
        let everyone: Roster = living.iter().filter_map(own).collect();
        for at in living {
            self.with(at, |machine, now| machine.know(everyone.clone(), now));
            self.run(Duration::from_secs(1) / everyone.len() as u32);
        }
    }

    pub fn add(&mut self) -> usize {
        let at = self.nodes.len();
        let [_, _, high, low] = (at as u32).to_be_bytes();
        self.add_at(format!("node-{at}"), SocketAddr::from(([10, 0, high, low], 8301)))
    }

    pub fn add_at(&mut self, name: String, address: SocketAddr) -> usize {
        let at = self.nodes.len();
        self.by_address.insert(address, at);
        self.nodes.push(Node {
            name,
            address,
            machine: None,
            host_up: true,
            stopped_until: None,
            stuck_until: None,
            inbox: Vec::new(),
            outbox: Vec::new(),
            wakes: None,
            asks: BTreeSet::new(),
            members: Members::new(),
            events: Vec::new(),
            tells: Vec::new(),
            past: Past::default(),
            packets: 0,
            packet_bytes: 0,
            stream_bytes: 0,
            lives: 0,
        });
        self.seen.push(None);
        self.start(at);
        at
    }

    pub fn settings(&self, at: usize) -> Settings {
        let node = &self.nodes[at];
        Settings {
            name: node.name.as_str().into(),
            id: Uuid::from_u128(at as u128 + 1),
            datacenter: "dc1".into(),
            advertise: node.address,
            tags: [("role".into(), "node".into())].into(),
            timing: self.timing.clone(),
            generation: (1_700_000_000_000 + node.lives * 60_000).max(node.past.generation + 1),
            past: node.past.clone(),
            members_max: 20_000,
            coordinates: true,
            event_bytes_max: 512,
        }
    }

    /// A process begins its life, and knows what a former one kept.
    pub fn start(&mut self, at: usize) {
        self.start_with(at, self.settings(at));
    }

    pub fn start_with(&mut self, at: usize, settings: Settings) {
        let seed = self.random.random();
        let machine = Machine::new(settings, seed, self.now).expect("what a node says of itself fits");
        let node = &mut self.nodes[at];
        node.lives += 1;
        node.members = Members::new();
        node.machine = Some(machine);
        self.after(at);
    }

    /// The process dies; its host answers that nobody listens.
    pub fn kill(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.machine = None;
        node.asks.clear();
        node.inbox.clear();
        node.outbox.clear();
        self.seen[at] = None;
    }

    /// The host vanishes.
    pub fn lose(&mut self, at: usize) {
        self.kill(at);
        self.nodes[at].host_up = false;
    }

    pub fn join(&mut self, at: usize, seed: usize) {
        let address = self.nodes[seed].address;
        self.with(at, |machine, now| machine.join(at as u64, address, now));
    }

    /// Does something with a node's machine, and what comes of it.
    pub fn with<T>(&mut self, at: usize, act: impl FnOnce(&mut Machine, Instant) -> T) -> T {
        let now = self.now;
        let result = act(self.nodes[at].machine.as_mut().expect("the process lives"), now);
        self.after(at);
        result
    }

    /// Nothing is done until then, neither by timers nor by packets.
    pub fn stop(&mut self, at: usize, time: Duration) {
        self.nodes[at].stopped_until = Some(self.now + time);
        self.push(self.now + time, Event::Free(at));
    }

    /// Packets wait until then, timers run.
    pub fn stick(&mut self, at: usize, time: Duration) {
        self.nodes[at].stuck_until = Some(self.now + time);
        self.push(self.now + time, Event::Free(at));
    }

    pub fn members(&self, at: usize) -> &Members {
        self.nodes[at].machine.as_ref().expect("the process lives").members()
    }

    pub fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].machine.is_some()).collect()
    }

    /// From now on, [`Sim::seen`] says when each node's members first were so.
    pub fn watch(&mut self, condition: impl Fn(&Members) -> bool + 'static) {
        self.seen = self
            .nodes
            .iter()
            .map(|node| node.machine.as_ref().filter(|it| condition(it.members())).map(|_| self.now))
            .collect();
        self.watched = Some(Box::new(condition));
    }

    /// Until every living node has seen what is watched for, or so long; how many have.
    pub fn run_until_seen(&mut self, longest: Duration) -> usize {
        let end = self.now + longest;
        let living = self.alive();
        let mut wait = living.len();
        while wait > 0 && self.now < end {
            self.run(Duration::from_millis(20));
            wait = living.iter().filter(|at| self.seen[**at].is_none()).count();
        }
        living.len() - wait
    }

    /// How long the quickest, the median, the 99th of a hundred and the last took since `from`, of those that have seen it.
    pub fn took(&self, from: Instant) -> Took {
        Took::new(self.seen.iter().flatten().map(|at| at.saturating_duration_since(from)).collect())
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }
}

#[derive(Debug)]
pub(crate) struct Took {
    pub half: f64,
    pub p99: f64,
    pub max: f64,
}

impl Took {
    pub fn new(mut times: Vec<Duration>) -> Took {
        times.sort();
        let at = |part: f64| {
            let place = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
            times.get(place).map_or(f64::INFINITY, Duration::as_secs_f64)
        };
        Took { half: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// How many members a scenario has: what it asks for, or what the environment says.
pub(crate) fn nodes(usual: usize) -> usize {
    std::env::var("LICTOR_GOSSIP_NODES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
