//! What an agent says of itself: figures of each ten seconds as Consul prints them, running totals for Prometheus,
//! packets for statsd; and its log, for whoever follows it. Knows figures by their names; not where they come from, nor
//! who may read them.
//!
//! ```text
//! figures ─close, every 10 s─> Interval ─> JSON, streams, statsd
//!    └────────────────────────────────────> Prometheus' text, at any time
//! ```

mod figure;
mod filter;
mod interval;
mod line;
mod monitor;
mod process;
mod prometheus;
mod statsd;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use tokio::sync::watch;

pub use figure::{Figure, Value};
pub use filter::{Filter, NoSign};
pub use interval::Interval;
pub use line::Line;
pub use monitor::{Following, Monitor};
pub use process::of_process;
pub use statsd::send as send_statsd;

use figure::Names;
use interval::Totals;

/// What an operator sets of figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Stands before every name, in place of `consul`.
    pub prefix: Option<String>,
    /// Gauges carry the name of the node.
    pub with_node: bool,
    pub filter: Filter,
    pub prometheus: bool,
    /// `host:port` of a statsd.
    pub statsd: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { prefix: None, with_node: true, filter: Filter::default(), prometheus: false, statsd: None }
    }
}

/// How long an interval is.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// By so much a clock may go wrong within one.
const EARLY_MILLIS_MAX: i64 = 100;

/// Figures on their way to whoever reads them.
pub struct Telemetry {
    names: Names,
    prometheus: bool,
    filter: ArcSwap<Filter>,
    /// Of the interval that is under way.
    begun: Mutex<Begun>,
    newest: watch::Sender<Option<Arc<Interval>>>,
}

struct Begun {
    at: DateTime<Utc>,
    totals: Totals,
}

impl Telemetry {
    pub fn new(settings: &Settings, node: &str) -> Self {
        let node = settings.with_node.then(|| node.to_string());
        Telemetry {
            names: Names { prefix: settings.prefix.clone(), node },
            prometheus: settings.prometheus,
            filter: ArcSwap::from_pointee(settings.filter.clone()),
            begun: Mutex::new(Begun { at: Utc::now(), totals: Totals::default() }),
            newest: watch::channel(None).0,
        }
    }

    pub fn set_filter(&self, filter: Filter) {
        self.filter.store(Arc::new(filter));
    }

    /// Until the interval that is under way is over: intervals of all agents begin at the same seconds.
    pub fn rest_of_interval(&self) -> Duration {
        rest_at(Utc::now().timestamp_millis())
    }

    /// Ends the interval that is under way, with these figures.
    pub fn close(&self, figures: Vec<Figure>) {
        let interval = {
            let mut begun = self.begun();
            let (interval, totals) = self.since(&begun, figures);
            *begun = Begun { at: Utc::now(), totals };
            interval
        };
        self.newest.send_replace(Some(Arc::new(interval)));
    }

    /// The newest interval that is over.
    pub fn newest(&self) -> Option<Arc<Interval>> {
        self.newest.borrow().clone()
    }

    /// What the interval under way comes to so far.
    pub fn so_far(&self, figures: Vec<Figure>) -> Interval {
        self.since(&self.begun(), figures).0
    }

    /// Intervals as they end. Who is too slow for one gets the next.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Interval>>> {
        self.newest.subscribe()
    }

    /// Totals in the form that Prometheus reads.
    pub fn prometheus_text(&self, figures: &[Figure]) -> String {
        prometheus::text(&self.names, &self.filter.load(), figures)
    }

    pub fn speaks_prometheus(&self) -> bool {
        self.prometheus
    }

    fn since(&self, begun: &Begun, figures: Vec<Figure>) -> (Interval, Totals) {
        let length = TimeDelta::from_std(INTERVAL).unwrap_or_default();
        // Rounded, since a task comes a little late, or by a clock that was set a little early.
        let first = begun.totals.is_empty();
        let start = if first { begun.at.duration_trunc(length) } else { begun.at.duration_round(length) };
        let stamp = start.unwrap_or(begun.at).format("%Y-%m-%d %H:%M:%S +0000 UTC").to_string();
        interval::since(&begun.totals, figures, &self.names, &self.filter.load(), stamp)
    }

    /// Nothing that holds it can leave it half changed.
    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until the end of the interval that this millisecond is in. Whoever comes a little before it, by a clock that is being
/// set, has waited for it already, and is not to end another interval at once.
fn rest_at(millis: i64) -> Duration {
    let length = INTERVAL.as_millis() as i64;
    let rest = length - millis.rem_euclid(length);
    let rest = if rest <= EARLY_MILLIS_MAX { rest + length } else { rest };
    Duration::from_millis(u64::try_from(rest).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_ends_once_even_by_a_clock_that_is_set() {
        let rests = [0, 1, 9_000, 9_995, 10_002, -5].map(|millis| rest_at(millis).as_millis());
        assert_eq!(rests, [10_000, 9_999, 1_000, 10_005, 9_998, 10_005]);
    }
}
