//! Those who follow this process' log, each at a level of his own. A follower who is too slow loses lines, and is told
//! how many; nobody who has something to say ever waits for one. While nobody follows, what only a follower would want
//! to know costs nothing.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::mpsc;
use tracing::{Event, Level, Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    Layer,
    layer::{Context, Filter},
};

use super::line::{Line, is_wanted};

/// Hands lines to followers. Cloned, it is the same one. It is both a layer of the log and the filter of that layer.
#[derive(Clone, Default)]
pub struct Monitor(Arc<Shared>);

#[derive(Default)]
struct Shared {
    followers: Mutex<Vec<Follower>>,
    /// The lowest level that anybody follows at, as a place in `LEVELS`.
    lowest: AtomicUsize,
    next: AtomicU64,
}

struct Follower {
    id: u64,
    level: LevelFilter,
    json: bool,
    lines: mpsc::Sender<String>,
    /// Since the last that there was room for.
    lost: u64,
}

/// Lines as they are said. Dropped, it follows no more.
pub struct Following {
    id: u64,
    lines: mpsc::Receiver<String>,
    monitor: Monitor,
}

/// So many follow at a time, and no more.
const FOLLOWERS_MAX: usize = 32;
/// Lines that wait for a follower.
const LINES_MAX: usize = 512;

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

impl Monitor {
    /// Lines of this level and above from now on; `None` where too many follow.
    pub fn follow(&self, level: Level, json: bool) -> Option<Following> {
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut followers = self.followers();
            if followers.len() >= FOLLOWERS_MAX {
                return None;
            }
            let level = LevelFilter::from_level(level);
            followers.push(Follower { id, level, json, lines: sender, lost: 0 });
            self.set_lowest(&followers);
        }
        tracing::callsite::rebuild_interest_cache();
        Some(Following { id, lines, monitor: self.clone() })
    }

    fn leave(&self, id: u64) {
        {
            let mut followers = self.followers();
            followers.retain(|follower| follower.id != id);
            self.set_lowest(&followers);
        }
        tracing::callsite::rebuild_interest_cache();
    }

    fn set_lowest(&self, followers: &[Follower]) {
        let level = followers.iter().map(|follower| follower.level).max().unwrap_or(LevelFilter::OFF);
        let lowest = LEVELS.iter().position(|known| *known == level).unwrap_or_default();
        self.0.lowest.store(lowest, Ordering::Relaxed);
    }

    fn lowest(&self) -> LevelFilter {
        LEVELS[self.0.lowest.load(Ordering::Relaxed)]
    }

    /// Nothing that holds it can leave it half changed.
    fn followers(&self) -> MutexGuard<'_, Vec<Follower>> {
        self.0.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    fn tell(&mut self, line: &Line) {
        if self.lost > 0 {
            let lost = Line::warning(format!("{} lines are missing here: they came too fast", self.lost));
            if self.send(&lost) {
                self.lost = 0;
            }
        }
        if !self.send(line) {
            self.lost += 1;
        }
    }

    fn send(&self, line: &Line) -> bool {
        // The end of a follower is no loss: he is on his way out of the list.
        self.lines.try_reserve().is_ok_and(|room| {
            room.send(if self.json { line.json() } else { line.text() } + "\n");
            true
        })
    }
}

impl Following {
    /// The next line with its end.
    pub async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.monitor.leave(self.id);
    }
}

impl<S: Subscriber> Layer<S> for Monitor {
    fn on_event(&self, event: &Event, _: Context<S>) {
        let mut line = None;
        for follower in self.followers().iter_mut().filter(|it| is_wanted(it.level, event.metadata())) {
            follower.tell(line.get_or_insert_with(|| Line::of(event)));
        }
    }
}

impl<S> Filter<S> for Monitor {
    fn enabled(&self, metadata: &Metadata, _: &Context<S>) -> bool {
        is_wanted(self.lowest(), metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_wanted(self.lowest(), metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.lowest())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;

    fn said(following: &mut Following) -> Vec<String> {
        let lines = std::iter::from_fn(|| following.lines.try_recv().ok());
        lines.map(|line| line.split_once(' ').unwrap().1.trim_end().to_string()).collect()
    }

    #[test]
    fn each_follows_at_a_level_of_his_own() {
        let monitor = Monitor::default();
        let log = Registry::default().with(monitor.clone().with_filter(monitor.clone()));
        tracing::subscriber::with_default(log, || {
            tracing::error!("nobody hears this");
            let mut wary = monitor.follow(Level::WARN, false).unwrap();
            let mut curious = monitor.follow(Level::DEBUG, false).unwrap();
            tracing::debug!(n = 7, "small");
            tracing::debug!(target: "redb", "not ours");
            tracing::warn!(target: "redb", "not ours");
            assert_eq!(said(&mut wary), ["[WARN]  redb: not ours"]);
            assert_eq!(said(&mut curious), ["[DEBUG] agent: small: n=7", "[WARN]  redb: not ours"]);
            drop(curious);
            assert_eq!(monitor.lowest(), LevelFilter::WARN, "nobody asks for less any more");
            drop(wary);
            assert_eq!((monitor.lowest(), monitor.followers().len()), (LevelFilter::OFF, 0));
        });
    }

    #[test]
    fn who_is_too_slow_is_told_what_he_lost() {
        let monitor = Monitor::default();
        let log = Registry::default().with(monitor.clone().with_filter(monitor.clone()));
        tracing::subscriber::with_default(log, || {
            let mut slow = monitor.follow(Level::INFO, false).unwrap();
            (0..LINES_MAX + 3).for_each(|n| tracing::info!("{n}"));
            assert_eq!(said(&mut slow).len(), LINES_MAX);
            tracing::info!("again");
            let lines = said(&mut slow);
            assert_eq!(
                lines,
                ["[WARN]  agent: 3 lines are missing here: they came too fast", "[INFO]  agent: again"]
            );
        });
    }

    #[test]
    fn so_many_follow_and_no_more() {
        let monitor = Monitor::default();
        let all: Vec<_> = (0..FOLLOWERS_MAX).map(|_| monitor.follow(Level::INFO, true).unwrap()).collect();
        assert!(monitor.follow(Level::INFO, true).is_none());
        drop(all);
        assert!(monitor.follow(Level::INFO, true).is_some());
    }
}
