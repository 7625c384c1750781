//! Runs an agent's checks: a task for each, all owned here, spread over their intervals. Results go out through one
//! bounded channel; what they mean to anyone is not known here.

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
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Running {
    definition: Definition,
    task: AbortHandle,
    /// For a TTL check: the output that it was last told.
    heard: Option<watch::Sender<String>>,
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
        Runner { running: HashMap::new(), tasks: JoinSet::new(), shared }
    }

    /// Runs these checks and no others. One whose definition is unchanged goes on undisturbed.
    pub fn set<'a>(&mut self, definitions: impl Iterator<Item = &'a Definition>) {
        let mut former = std::mem::take(&mut self.running);
        for definition in definitions {
            let id: Key = fold(&definition.id).into();
            let running = match former.remove(&id) {
                Some(same) if same.definition == *definition => same,
                changed => {
                    changed.into_iter().for_each(|changed| changed.task.abort());
                    self.start(definition.clone())
                }
            };
            self.running.insert(id, running);
        }
        former.into_values().for_each(|gone| gone.task.abort());
        while self.tasks.try_join_next().is_some() {}
    }

    /// A TTL check's program spoke: its time begins anew.
    pub fn heard(&self, id: &str, output: &str) {
        if let Some(heard) = self.running.get(&*fold(id)).and_then(|running| running.heard.as_ref()) {
            heard.send_replace(output.to_string());
        }
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

    fn start(&mut self, definition: Definition) -> Running {
        let shared = self.shared.clone();
        let (heard, task) = match definition.kind {
            Kind::Ttl(ttl) => {
                let (heard, hears) = watch::channel(String::new());
                (Some(heard), self.tasks.spawn(listen(definition.id.clone(), ttl, hears, shared)))
            }
            _ => (None, self.tasks.spawn(look_again_and_again(definition.clone(), shared))),
        };
        Running { definition, task, heard }
    }
}

async fn look_again_and_again(definition: Definition, shared: Arc<Shared>) {
    let own_max = definition.output_bytes_max.unwrap_or(usize::MAX);
    let output_bytes_max = own_max.min(shared.settings.output_bytes_max);
    let mut verdict = Verdict::new(definition.thresholds);
    // Checks that were defined together do not look together.
    let mut next = Instant::now() + definition.interval.mul_f64(fastrand::f64());
    loop {
        sleep_until(next).await;
        let Ok(_turn) = shared.looks.acquire().await else { return };
        let Some(seen) = probe::look(&definition, &shared.clients, output_bytes_max).await else { return };
        next = Instant::now() + definition.interval;
        if let Some(status) = verdict.record(seen.status) {
            let output = if shared.settings.discard_output { String::new() } else { seen.output };
            if shared.told.send(Told { id: definition.id.clone(), status, output }).await.is_err() {
                return;
            }
        }
    }
}

/// A program that is silent for too long is critical until it speaks again.
async fn listen(id: Text, ttl: Duration, mut heard: watch::Receiver<String>, shared: Arc<Shared>) {
    let mut deadline = Some(Instant::now() + ttl);
    loop {
        let spoke = match deadline {
            Some(deadline) => tokio::select! {
                spoke = heard.changed() => Some(spoke),
                () = sleep_until(deadline) => None,
            },
            None => Some(heard.changed().await),
        };
        match spoke {
            Some(Ok(())) => deadline = Some(Instant::now() + ttl),
            Some(Err(_)) => return,
            None => {
                deadline = None;
                let last = heard.borrow().clone();
                let output = match last.as_str() {
                    "" => "TTL expired".to_string(),
                    last => format!("TTL expired (last output before timeout follows): {last}"),
                };
                tracing::warn!(check = &*id, "Check missed TTL, is now critical");
                if shared.told.send(Told { id: id.clone(), status: Status::Critical, output }).await.is_err()
                {
                    return;
                }
            }
        }
    }
}
