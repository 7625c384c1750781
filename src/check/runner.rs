//! Runs an agent's checks: a task for each, all owned here, spread over their intervals. Results go out through one
//! bounded channel; what they mean to anyone is not known here.
//!
//! A result may lie in the channel while its check is removed, defined anew, or heard of otherwise. So each carries the
//! turn in which it was seen, and whoever takes it up asks whether that turn still is the check's.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{Definition, Kind, Verdict, probe};
use crate::catalog::{Key, Status, Text, fold};

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
    clients: probe::Clients,
    /// So many look at the same time; the others wait their turn.
    looks: Semaphore,
    settings: Settings,
}

const LOOKS_MAX: usize = 128;

impl Runner {
    pub fn new(settings: Settings, told: mpsc::Sender<Told>) -> Self {
        let looks = Semaphore::new(LOOKS_MAX);
        let shared = Arc::new(Shared { told, clients: probe::Clients::default(), looks, settings });
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
            gone.task.abort();
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

    /// Ends every check, and returns when none runs any more.
    pub async fn stop(&mut self) {
        self.running.clear();
        self.tasks.shutdown().await;
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
        let (heard, task) = match definition.kind {
            Kind::Ttl(ttl) => {
                let (heard, hears) = watch::channel(Heard { output: String::new(), turn });
                (Some(heard), self.tasks.spawn(listen(definition.id.clone(), ttl, hears, shared)))
            }
            _ => (None, self.tasks.spawn(look_again_and_again(definition.clone(), turn, shared))),
        };
        Running { definition, task, turn, heard }
    }
}

impl Shared {
    /// Tells of a check; `false` where nobody listens any more.
    async fn tell(&self, id: &Text, status: Status, output: String, turn: u64) -> bool {
        let output = if self.settings.discard_output { String::new() } else { output };
        self.told.send(Told { id: id.clone(), status, output, turn }).await.is_ok()
    }
}

async fn look_again_and_again(definition: Definition, turn: u64, shared: Arc<Shared>) {
    let own_max = definition.output_bytes_max.unwrap_or(usize::MAX);
    let output_bytes_max = own_max.min(shared.settings.output_bytes_max);
    let mut verdict = Verdict::new(definition.thresholds);
    // Checks that were defined together do not look together.
    let mut next = Instant::now() + definition.interval.mul_f64(fastrand::f64());
    loop {
        sleep_until(next).await;
        let looked = {
            let Ok(_one_of_many) = shared.looks.acquire().await else { return };
            probe::look(&definition, &shared.clients, output_bytes_max).await
        };
        let Some(seen) = looked else { return };
        next = Instant::now() + definition.interval;
        if let Some(status) = verdict.record(seen.status)
            && !shared.tell(&definition.id, status, seen.output, turn).await
        {
            return;
        }
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
