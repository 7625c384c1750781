//! Names that are not ours (`dns.md` §19): asked of the recursors that are set, whole messages passed on, kept for as
//! long as they hold. Knows nothing of our zones, nor of whoever asks.
//!
//! ```text
//! question ─> cache ─> flight (one for all who ask the same) ─> race ─> exchange ─> message ─> cache, all who wait
//!                                                                 └─> health
//! ```
//!
//! hickory-resolver's `NameServerPool` is not used: it makes errors of replies without records and passes on only parts
//! of them, ends at the first recursor's error code where ours goes to the next, and asks several at once where ours
//! asks the next one after a while. What is left is small, and has its time and its order as values.

mod cache;
mod exchange;
#[cfg(test)]
mod fuzz;
mod health;
mod message;
mod race;
mod settings;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    task::JoinSet,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use cache::Cache;
use exchange::Fault;
use health::{Change, Health};
use message::{Age, Key, Mark, Message};
use race::{Race, Step};

use super::tally::Counters;

pub use cache::{Failure, Known};
pub use message::Question;
pub use settings::{Recursion, Strategy};

/// Asks elsewhere. Cloned, it is the same one.
#[derive(Clone)]
pub struct Recursor {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
    mark: Mark,
    counters: Arc<Counters>,
    state: Mutex<State>,
    /// One for each recursor that is being asked.
    sockets: Arc<Semaphore>,
}

struct State {
    /// The recursors that everything below was learnt of.
    recursors: Vec<SocketAddr>,
    cache: Cache,
    health: Health,
    flights: HashMap<Key, watch::Receiver<Option<Known>>, ahash::RandomState>,
    random: fastrand::Rng,
}

/// Recursors that may be waited for at once, over all questions: a descriptor each.
const SOCKETS_MAX: usize = 768;
/// Of the time that one recursor has, the part after which the next one is asked.
const HEDGE_PART: u32 = 8;

impl Recursor {
    /// Its tasks are `tasks`', and end when `stop` is cancelled.
    pub fn new(
        runtime: Handle,
        tasks: TaskTracker,
        counters: Arc<Counters>,
        stop: CancellationToken,
    ) -> Self {
        let state = State {
            recursors: Vec::new(),
            cache: Cache::default(),
            health: Health::new(&[]),
            flights: HashMap::default(),
            random: fastrand::Rng::new(),
        };
        let mark = Mark::new(uuid::Uuid::new_v4().as_u64_pair().1);
        let (state, sockets) = (Mutex::new(state), Arc::new(Semaphore::new(SOCKETS_MAX)));
        Recursor { shared: Arc::new(Shared { runtime, tasks, stop, mark, counters, state, sockets }) }
    }

    /// Whether a packet is a question of ours that came back.
    pub fn is_own(&self, packet: &[u8]) -> bool {
        self.shared.mark.is_in(packet)
    }

    /// What is known without asking.
    pub fn known(&self, question: &Question, settings: &Recursion) -> Option<Known> {
        let known = self.shared.state_for(settings).cache.get(&question.key(), now());
        self.shared.counters.cache_hits.add(known.is_some().into());
        known
    }

    /// Asks, or waits with others who asked the same.
    pub async fn ask(&self, question: Question, settings: &Recursion) -> Known {
        let key = question.key();
        let mut flight = {
            let mut state = self.shared.state_for(settings);
            if let Some(known) = state.cache.get(&key, now()) {
                self.shared.counters.cache_hits.add(1);
                return known;
            }
            self.shared.counters.cache_misses.add(1);
            match state.flights.get(&key) {
                Some(flight) => flight.clone(),
                None => self.shared.take_off(&mut state, key, question, settings),
            }
        };
        let landed = flight.wait_for(Option::is_some).await;
        landed.ok().and_then(|known| known.clone()).unwrap_or(Known::Failed(Failure::Silence))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was learnt of other recursors does not count.
    fn state_for(&self, settings: &Recursion) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if state.recursors != settings.recursors {
            state.recursors = settings.recursors.clone();
            state.health = Health::new(&settings.recursors);
            state.cache = Cache::default();
            state.flights.clear();
        }
        state
    }

    fn take_off(
        self: &Arc<Self>,
        state: &mut State,
        key: Key,
        question: Question,
        settings: &Recursion,
    ) -> watch::Receiver<Option<Known>> {
        let (tell, flight) = watch::channel(None);
        state.flights.insert(key.clone(), flight.clone());
        let turn = state.health.turn(settings.strategy, &mut state.random, now());
        let (shared, settings, question) = (self.clone(), settings.clone(), Arc::new(question));
        if let Some(addr) = turn.probe {
            self.clone().probe(addr, question.clone(), settings.timeout);
        }
        let fly = async move {
            let race = Race::new(turn.order, settings.timeout / HEDGE_PART, now());
            let Some(outcome) = shared.stop.run_until_cancelled(shared.fly(race, &question, &settings)).await
            else {
                return;
            };
            let known = shared.land(key, outcome, &settings);
            tell.send_replace(Some(known));
        };
        self.tasks.spawn_on(fly, &self.runtime);
        flight
    }

    async fn fly(
        &self,
        mut race: Race,
        question: &Arc<Question>,
        settings: &Recursion,
    ) -> Result<Message, Failure> {
        let mut asked = JoinSet::new();
        let end = time::Instant::now() + settings.patience();
        loop {
            let next_at = match race.step(now()) {
                Step::Ask(addr) => {
                    let Ok(seat) = self.sockets.clone().try_acquire_owned() else {
                        race.failed(addr, false, now());
                        continue;
                    };
                    let (question, mark, wait) = (question.clone(), self.mark, settings.timeout);
                    asked.spawn(async move {
                        let _seat = seat;
                        (addr, exchange::ask(addr, &question, &mark, wait).await)
                    });
                    continue;
                }
                Step::Wait(until) => until.map_or(end, |until| end.min(until.into())),
                Step::Lost { was_heard: true } => return Err(Failure::Refused),
                Step::Lost { was_heard: false } => return Err(Failure::Silence),
            };
            tokio::select! {
                Some(ended) = asked.join_next() => {
                    let (addr, outcome) = ended.expect("an exchange returns, it does not panic");
                    match self.judge(addr, outcome) {
                        Ok(message) => {
                            race.beaten(addr).for_each(|addr| self.note_failure(addr));
                            return Ok(message);
                        }
                        Err(fault) => race.failed(addr, fault == Fault::Useless, now()),
                    }
                }
                () = time::sleep_until(next_at) => {
                    if time::Instant::now() >= end {
                        return Err(Failure::Silence);
                    }
                }
            }
        }
    }

    /// Nobody waits for this answer: it tells whether the recursor is back.
    fn probe(self: Arc<Self>, addr: SocketAddr, question: Arc<Question>, wait: Duration) {
        let Ok(seat) = self.sockets.clone().try_acquire_owned() else { return };
        let shared = self.clone();
        let probe = async move {
            let (_seat, ask) = (seat, exchange::ask(addr, &question, &shared.mark, wait));
            if let Some(outcome) = shared.stop.run_until_cancelled(ask).await {
                let _answer = shared.judge(addr, outcome);
            }
        };
        self.tasks.spawn_on(probe, &self.runtime);
    }

    fn judge(&self, addr: SocketAddr, outcome: Result<Message, Fault>) -> Result<Message, Fault> {
        match outcome {
            // Whoever says no to one question may know others; he is there.
            Ok(_) | Err(Fault::Useless) => {
                if self.state().health.answered(addr) == Some(Change::Answering) {
                    tracing::info!(recursor = %addr, "the recursor answers again");
                }
            }
            Err(Fault::Silent) => self.note_failure(addr),
        }
        outcome
    }

    fn note_failure(&self, addr: SocketAddr) {
        if self.state().health.failed(addr, now()) == Some(Change::Failing) {
            tracing::warn!(recursor = %addr, "the recursor does not answer: others are asked first");
        }
    }

    fn land(&self, key: Key, outcome: Result<Message, Failure>, settings: &Recursion) -> Known {
        let (mut state, bytes_max) = (self.state(), settings.cache_bytes_max);
        // The recursors may be others by now: then nothing of this is kept.
        let is_current = state.recursors == settings.recursors;
        if is_current {
            state.flights.remove(&key);
        }
        match outcome {
            Ok(message) => {
                let message = Arc::new(message);
                if is_current {
                    state.cache.put(key, message.clone(), now(), bytes_max);
                }
                Known::Message(message, Age::New)
            }
            Err(failure) if is_current => state.cache.fail(key, failure, now(), bytes_max),
            Err(failure) => Known::Failed(failure),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the rim of recursion: below, time is an argument")]
fn now() -> Instant {
    Instant::now()
}
