//! Runs an agent's checks: a task for each, all owned here, spread over their intervals. Results go out through one
//! bounded channel; what they mean to anyone is not known here.
//!
//! A result may lie in the channel while its check is removed, defined anew, or heard of otherwise. So each carries the
//! turn in which it was seen, and whoever takes it up asks whether that turn still is the check's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Alias, Counters, Definition, Kind, Verdict,
    alias::{self, Aliases, Followed},
    probe::{self, Tools},
};
use crate::catalog::{Key, Status, Subscribe, Text, fold};

/// A check says something: its status, which may be the one it had, and its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub id: Text,
    pub status: Status,
    pub output: String,
    turn: u64,
}

/// How checks are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of output kept; a check may want less.
    pub output_bytes_max: usize,
    /// Keep none of it.
    pub discard_output: bool,
}

/// Every check that runs.
pub struct Runner {
    running: HashMap<Key, Running>,
    /// The newest.
    turn: u64,
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Running {
    definition: Definition,
    task: AbortHandle,
    /// Cancelled, a look ends what it started.
    gone: CancellationToken,
    turn: u64,
    /// For a TTL check.
    heard: Option<watch::Sender<Heard>>,
}

/// What the program of a TTL check last said.
struct Heard {
    output: String,
    turn: u64,
}

struct Shared {
    told: mpsc::Sender<Told>,
    tools: Tools,
    /// This agent's node.
    node: Text,
    /// Where aliases find what they follow.
    catalog: Arc<dyn Subscribe>,
    aliases: Mutex<Aliases>,
    /// Ticks are counted from here.
    start: Instant,
    /// So many look at the same time; the others wait their turn.
    connections: Semaphore,
    programs: Semaphore,
    settings: Settings,
    counters: Arc<Counters>,
}

const PROGRAMS_MAX: usize = 128;
/// Looks begin at ticks, so that a thousand checks at 1 s wake this process 20 times a second, and not a thousand times.
const TICK: Duration = Duration::from_millis(50);
/// What an alias follows is looked at this often, whether or not a change to it was heard of.
const REFRESH: Duration = Duration::from_secs(60);
/// What is defined together with its alias may be this long on its way to the catalog.
const TARGET_COMES: Duration = Duration::from_secs(1);

impl Runner {
    /// `node` is this agent's, `catalog` where aliases find what they follow.
    pub fn new(
        settings: Settings,
        told: mpsc::Sender<Told>,
        node: Text,
        catalog: Arc<dyn Subscribe>,
    ) -> Self {
        let shared = Arc::new(Shared {
            told,
            tools: Tools::here(),
            node,
            catalog,
            aliases: Mutex::default(),
            start: Instant::now(),
            connections: Semaphore::new(connections_max()),
            programs: Semaphore::new(PROGRAMS_MAX),
            settings,
            counters: Arc::default(),
        });
        Runner { running: HashMap::new(), turn: 0, tasks: JoinSet::new(), shared }
    }

    /// Runs this check. If it runs already, with the same definition, it goes on undisturbed; only the time of a TTL
    /// check begins anew. A changed one starts over.
    pub fn put(&mut self, definition: &Definition) {
        let id: Key = fold(&definition.id).into();
        if self.running.get(&id).is_some_and(|running| running.definition == *definition) {
            self.hear(&id, None);
            return;
        }
        self.remove(&id);
        let running = self.start(definition.clone());
        self.running.insert(id, running);
    }

    /// Stops a check, if it is run here.
    pub fn remove(&mut self, id: &str) {
        if let Some(gone) = self.running.remove(&*fold(id)) {
            gone.gone.cancel();
            // Who started a process sees it to its end.
            if !gone.definition.kind.starts_process() {
                gone.task.abort();
            }
            self.shared.aliases().remove(&*fold(id));
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// A TTL check's program spoke: its time begins anew, and what was told of its silence counts no more.
    pub fn heard(&mut self, id: &str, output: &str) {
        self.hear(id, Some(output));
    }

    /// Whether nothing came between this result and now.
    pub fn is_current(&self, told: &Told) -> bool {
        self.running.get(&*fold(&told.id)).is_some_and(|running| running.turn == told.turn)
    }

    /// Output as this agent keeps it: cut to its limit, which `cut` is given, or nothing.
    pub fn kept(&self, cut: impl FnOnce(usize) -> String) -> String {
        let Settings { output_bytes_max, discard_output } = self.shared.settings;
        if discard_output { String::new() } else { cut(output_bytes_max) }
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// Ends every check; what this gives returns when none runs any more. A program that still runs is left alone.
    pub fn stop(&mut self) -> impl Future<Output = ()> + Send + use<> {
        self.running.drain().for_each(|(_, running)| running.task.abort());
        let mut tasks = std::mem::take(&mut self.tasks);
        // Those that are gone already still see to the end of what they started.
        async move { while tasks.join_next().await.is_some() {} }
    }

    fn hear(&mut self, id: &str, output: Option<&str>) {
        let Some(running) = self.running.get_mut(&*fold(id)) else { return };
        let Some(heard) = &running.heard else { return };
        self.turn += 1;
        running.turn = self.turn;
        heard.send_modify(|heard| {
            heard.turn = running.turn;
            heard.output = output.map_or_else(|| std::mem::take(&mut heard.output), str::to_string);
        });
    }

    fn start(&mut self, definition: Definition) -> Running {
        self.turn += 1;
        let (shared, turn) = (self.shared.clone(), self.turn);
        let (mut heard, id, gone) = (None, definition.id.clone(), CancellationToken::new());
        let task = match &definition.kind {
            Kind::Ttl(ttl) => {
                let (sender, hears) = watch::channel(Heard { output: String::new(), turn });
                heard = Some(sender);
                self.tasks.spawn(listen(id, *ttl, hears, shared))
            }
            Kind::Alias(alias) => {
                shared.aliases().insert(fold(&id).into(), alias.clone());
                self.tasks.spawn(follow(id, alias.clone(), turn, shared))
            }
            _ => self.tasks.spawn(look_again_and_again(definition.clone(), turn, shared, gone.clone())),
        };
        Running { definition, task, gone, turn, heard }
    }
}

impl Shared {
    /// Tells of a check; `false` where nobody listens any more.
    async fn tell(&self, id: &Text, status: Status, output: String, turn: u64) -> bool {
        let output = if self.settings.discard_output { String::new() } else { output };
        self.told.send(Told { id: id.clone(), status, output, turn }).await.is_ok()
    }

    fn aliases(&self) -> MutexGuard<'_, Aliases> {
        self.aliases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn_of(&self, kind: &Kind) -> &Semaphore {
        if kind.starts_process() { &self.programs } else { &self.connections }
    }
}

/// Half of the descriptors that this process may have: targets that do not answer leave the other half to those who ask
/// us.
fn connections_max() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(limit / 2).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}

async fn look_again_and_again(
    definition: Definition,
    turn: u64,
    shared: Arc<Shared>,
    gone: CancellationToken,
) {
    let own_max = definition.output_bytes_max.unwrap_or(usize::MAX);
    let output_bytes_max = own_max.min(shared.settings.output_bytes_max);
    let mut verdict = Verdict::new(definition.thresholds);
    // Checks that were defined together do not look together.
    let mut next = Instant::now() + definition.interval.mul_f64(fastrand::f64());
    loop {
        let its_turn = async {
            sleep_until(on_tick(shared.start, next)).await;
            shared.turn_of(&definition.kind).acquire().await
        };
        let one_of_many = tokio::select! {
            () = gone.cancelled() => return,
            turn = its_turn => turn,
        };
        let start = Instant::now();
        let looked = probe::look(&definition, &shared.tools, output_bytes_max, &gone).await;
        drop(one_of_many);
        let Some(seen) = looked.filter(|_| !gone.is_cancelled()) else { return };
        shared.counters.looked(&definition.kind, &seen.status, start.elapsed());
        if let Some(status) = verdict.record(seen.status) {
            let is_heard = tokio::select! {
                () = gone.cancelled() => return,
                is_heard = shared.tell(&definition.id, status, seen.output, turn) => is_heard,
            };
            if !is_heard {
                return;
            }
        }
        next = following(next, definition.interval, Instant::now());
    }
}

/// The next moment of a check's own beat that is still to come. What it missed is skipped, so that checks that were held
/// up together do not look together from then on.
fn following(due: Instant, interval: Duration, now: Instant) -> Instant {
    let late = now.saturating_duration_since(due);
    let to_come = interval.as_nanos() - late.as_nanos() % interval.as_nanos().max(1);
    due + late + Duration::from_nanos_u128(to_come)
}

/// The first tick that is not before this.
fn on_tick(start: Instant, due: Instant) -> Instant {
    let ticks = due.saturating_duration_since(start).as_nanos().div_ceil(TICK.as_nanos());
    start + Duration::from_nanos_u128(ticks * TICK.as_nanos())
}

/// Tells what an alias' targets say, each time that changes.
async fn follow(id: Text, alias: Alias, turn: u64, shared: Arc<Shared>) {
    let key = Key::from(fold(&id));
    let followed = || {
        let aliases = shared.aliases();
        alias::follow(&shared.catalog.catalog(), &shared.node, &aliases, &key, &alias)
    };
    let (mut topics, mut last) = (followed().topics, None);
    let mut is_new = true;
    loop {
        // Registered first, read then: what changes in between is not missed.
        let changed = shared.catalog.subscribe(topics.clone());
        let Followed { seen, is_missing, topics: needed } = followed();
        if needed != topics {
            topics = needed;
            continue;
        }
        if std::mem::take(&mut is_new) && is_missing {
            let _came_or_not = timeout(TARGET_COMES, changed).await;
            continue;
        }
        if last.as_ref() != Some(&seen) {
            if !shared.tell(&id, seen.status.clone(), seen.output.clone(), turn).await {
                return;
            }
            last = Some(seen);
        }
        let _changed_or_not = timeout(REFRESH, changed).await;
    }
}

/// A program that is silent for too long is critical until it speaks again.
async fn listen(id: Text, ttl: Duration, mut heard: watch::Receiver<Heard>, shared: Arc<Shared>) {
    let mut deadline = Some(Instant::now() + ttl);
    loop {
        let silent = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            spoke = heard.changed() => match spoke {
                Ok(()) => deadline = Some(Instant::now() + ttl),
                Err(_) => return,
            },
            () = silent => {
                deadline = None;
                let (output, turn) = {
                    let last = heard.borrow();
                    if last.has_changed() {
                        continue;
                    }
                    (expired(&last.output), last.turn)
                };
                tracing::warn!(check = &*id, "Check missed TTL, is now critical");
                shared.counters.count(&Kind::Ttl(ttl), &Status::Critical);
                if !shared.tell(&id, Status::Critical, output, turn).await {
                    return;
                }
            }
        }
    }
}

fn expired(last_output: &str) -> String {
    match last_output {
        "" => "TTL expired".into(),
        last => format!("TTL expired (last output before timeout follows): {last}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        catalog::{Catalog, Subscription, Topic},
        check::{CheckSpec, Span},
    };

    /// An empty catalog.
    pub struct Nothing;

    impl Subscribe for Nothing {
        fn catalog(&self) -> Arc<Catalog> {
            Arc::default()
        }

        fn subscribe(&self, _: Vec<Topic>) -> Subscription {
            Box::pin(std::future::pending())
        }
    }

    const SETTINGS: Settings = Settings { output_bytes_max: 4096, discard_output: false };

    fn runner(settings: Settings, told: mpsc::Sender<Told>) -> Runner {
        Runner::new(settings, told, "own".into(), Arc::new(Nothing))
    }

    fn secs(secs: i64) -> Option<Span> {
        Some(Span { nanos: secs * 1_000_000_000, text: format!("{secs}s") })
    }

    fn ttl(secs_: i64) -> Definition {
        CheckSpec { id: Some("c".into()), ttl: secs(secs_), ..CheckSpec::default() }.build().unwrap()
    }

    /// Looks without a socket: it has no port to connect to.
    fn portless(id: usize) -> Definition {
        let id = Some(format!("c{id}"));
        CheckSpec { id, tcp: Some("nowhere".into()), interval: secs(10), ..CheckSpec::default() }
            .build()
            .unwrap()
    }

    /// What is told next, and how many seconds after `start`.
    async fn next(tells: &mut mpsc::Receiver<Told>, start: Instant) -> (u64, String) {
        let told = tells.recv().await.unwrap();
        assert_eq!(told.status, Status::Critical);
        (start.elapsed().as_secs(), told.output)
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_falls_silent_is_critical() {
        let (told, mut tells) = mpsc::channel(8);
        let (mut runner, start) = (runner(SETTINGS, told), Instant::now());
        runner.put(&ttl(30));
        assert_eq!(next(&mut tells, start).await, (30, "TTL expired".into()));
        runner.heard("C", "all well");
        sleep_until(start + Duration::from_secs(50)).await;
        runner.heard("c", "still well");
        let output = "TTL expired (last output before timeout follows): still well";
        assert_eq!(next(&mut tells, start).await, (80, output.into()));
        runner.put(&ttl(30));
        sleep_until(start + Duration::from_secs(100)).await;
        runner.put(&ttl(30));
        assert_eq!(
            next(&mut tells, start).await,
            (130, output.into()),
            "registered anew, its time began anew"
        );
        runner.put(&ttl(40));
        assert_eq!(next(&mut tells, start).await, (170, "TTL expired".into()), "another check");
        runner.remove("c");
        runner.stop().await;
        drop(runner);
        assert_eq!(tells.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_something_overtook_is_not_current() {
        let (told, mut tells) = mpsc::channel(8);
        let mut runner = runner(SETTINGS, told);
        runner.put(&ttl(30));
        let expired = tells.recv().await.unwrap();
        assert!(runner.is_current(&expired));
        runner.heard("c", "");
        assert!(!runner.is_current(&expired), "its program spoke since");
        let expired = tells.recv().await.unwrap();
        runner.put(&ttl(31));
        assert!(!runner.is_current(&expired), "it was defined anew");
        let expired = tells.recv().await.unwrap();
        runner.remove("c");
        assert!(!runner.is_current(&expired), "it was removed");
        runner.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_checks_spread_over_their_interval_and_leave_no_task() {
        fastrand::seed(7);
        let (told, mut tells) = mpsc::channel(8);
        let (mut runner, start) = (runner(SETTINGS, told), Instant::now());
        (0..1000).for_each(|id| runner.put(&portless(id)));
        (0..1000).for_each(|id| runner.put(&portless(id)));
        let (mut looks, mut a_second) = (HashMap::new(), [0; 20]);
        // The last look of a check may fall on the last tick.
        while start.elapsed() <= Duration::from_secs(20) {
            let told = tells.recv().await.unwrap();
            assert_eq!(told.output, "dial tcp: address nowhere: missing port in address");
            a_second[(start.elapsed().as_secs() as usize).min(19)] += 1;
            *looks.entry(told.id).or_insert(0) += 1;
        }
        assert!(looks.len() == 1000 && looks.values().all(|looks| (2..=3).contains(looks)), "every 10 s");
        assert!(a_second.iter().all(|looks| (60..140).contains(looks)), "{a_second:?}");
        (0..1000).for_each(|id| runner.remove(&format!("c{id}")));
        while runner.tasks.join_next().await.is_some() {}
        assert!(runner.running.is_empty());
    }

    #[test]
    fn a_beat_is_kept_and_what_was_missed_is_skipped() {
        let (due, ms) = (Instant::now(), Duration::from_millis);
        let table = [(0, 1000), (1, 1000), (999, 1000), (1000, 2000), (1001, 2000), (12_345, 13_000)];
        for (now, next) in table {
            assert_eq!(following(due, ms(1000), due + ms(now)), due + ms(next), "at {now} ms");
        }
        for (at, tick) in [(0, 0), (1, 50), (50, 50), (51, 100)] {
            assert_eq!(on_tick(due, due + ms(at)), due + ms(tick), "at {at} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn output_may_be_discarded() {
        let (told, mut tells) = mpsc::channel(8);
        let start = Instant::now();
        let mut runner = runner(Settings { discard_output: true, ..SETTINGS }, told);
        runner.put(&ttl(30));
        assert_eq!(next(&mut tells, start).await, (30, String::new()));
        assert_eq!(runner.kept(|max| "x".repeat(max)), "");
        runner.stop().await;
    }
}
