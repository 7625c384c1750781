//! What an operator forbids or rations: looked at before a handler is reached. Time is handed in.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hyper::StatusCode;
use tokio::time::Instant;

use super::{
    counters::{Counters, Refused},
    reply::Fault,
    settings::{Mode, Rates, Settings},
};

/// The texts of `http-api.md` §1.3.
const BLOCKED: &str = "Endpoint is blocked by agent configuration";
const RESTRICTED: &str = "Access is restricted";
const RETRY_ELSEWHERE: &str = "rate limit exceeded, try again later or against a different server";
const RETRY_LATER: &str =
    "rate limit exceeded for operation that can only be performed by the leader, try again later";

/// What is answered here, and what tells how a server is, is not rationed: it is asked for when things go wrong.
const EXEMPT: [&str; 3] = ["/v1/agent/", "/v1/operator/", "/v1/status/"];

/// A bucket holds so many seconds' worth.
const BURST_SECS: f64 = 10.0;
/// Requests beyond a rate are told of in the log this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Whether a request may go on, by where it leads: to a route, and what followed its path.
pub fn may_ask(settings: &Settings, route: &str, rest: &str) -> Result<(), Fault> {
    let begins = |start: &String| match start.strip_prefix(route) {
        Some(more) => rest.starts_with(more),
        None => route.starts_with(&**start),
    };
    match settings.blocked.iter().any(begins) {
        true => Err(Fault::new(StatusCode::FORBIDDEN, BLOCKED)),
        false => Ok(()),
    }
}

/// Whether it may do more than read. Whoever comes by a unix socket was let through by the file's mode.
pub fn may_write(settings: &Settings, from: Option<IpAddr>) -> Result<(), Fault> {
    let Some(from) = from else { return Ok(()) };
    let networks = &settings.writers;
    match networks.is_empty() || networks.iter().any(|network| network.contains(from)) {
        true => Ok(()),
        false => Err(Fault::new(StatusCode::FORBIDDEN, RESTRICTED)),
    }
}

/// Requests in their turn: of all clients together, reads and writes each by themselves.
#[derive(Default)]
pub struct Ration {
    reads: Mutex<Bucket>,
    writes: Mutex<Bucket>,
}

#[derive(Default)]
struct Bucket {
    /// `None` before the first request: full, then.
    filled: Option<(f64, Instant)>,
    told: Option<Instant>,
}

impl Ration {
    /// # Errors
    /// Consul's: reads may go to another server, writes go to the leader anyway.
    pub fn take(
        &self,
        rates: &Rates,
        path: &str,
        is_read: bool,
        counters: &Counters,
        now: Instant,
    ) -> Result<(), Fault> {
        let (bucket, rate, kind) = match is_read {
            true => (&self.reads, rates.reads_per_sec, Refused::ReadRate),
            false => (&self.writes, rates.writes_per_sec, Refused::WriteRate),
        };
        let Some(rate) = rate.filter(|_| rates.mode != Mode::Disabled) else { return Ok(()) };
        if EXEMPT.iter().any(|start| path.starts_with(start)) {
            return Ok(());
        }
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if bucket.take(rate, now) {
            return Ok(());
        }
        counters.refused(kind);
        if bucket.may_tell(now) {
            tracing::warn!(
                path,
                rate,
                mode = rates.mode.word(),
                "requests come faster than limits.request_limits allows"
            );
        }
        match (rates.mode, is_read) {
            (Mode::Enforcing, true) => Err(Fault::new(StatusCode::TOO_MANY_REQUESTS, RETRY_ELSEWHERE)),
            (Mode::Enforcing, false) => Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, RETRY_LATER)),
            _ => Ok(()),
        }
    }
}

impl Bucket {
    fn take(&mut self, rate: f64, now: Instant) -> bool {
        let burst = rate * BURST_SECS;
        let (had, since) = self.filled.unwrap_or((burst, now));
        let come = now.saturating_duration_since(since).as_secs_f64() * rate;
        let left = (had + come).min(burst);
        let is_enough = left >= 1.0;
        self.filled = Some((if is_enough { left - 1.0 } else { left }, now));
        is_enough
    }

    fn may_tell(&mut self, now: Instant) -> bool {
        let is_due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_EVERY);
        if is_due {
            self.told = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(mode: Mode) -> Rates {
        Rates { mode, reads_per_sec: Some(2.0), writes_per_sec: Some(0.5) }
    }

    /// What comes of requests at these times, in milliseconds: `.` goes on, `x` does not.
    fn said(
        ration: &Ration,
        rates: &Rates,
        counters: &Counters,
        path: &str,
        is_read: bool,
        at: &[u64],
    ) -> String {
        let start = Instant::now();
        let asked =
            |ms: &u64| ration.take(rates, path, is_read, counters, start + Duration::from_millis(*ms));
        at.iter().map(|ms| if asked(ms).is_ok() { '.' } else { 'x' }).collect()
    }

    #[test]
    fn ten_seconds_worth_may_come_at_once_and_then_the_rate() {
        let (counters, path) = (Counters::default(), "/v1/kv/a");
        let reads = [[0; 21].as_slice(), &[500, 600, 1_000, 1_000, 60_000]].concat();
        let read = said(&Ration::default(), &rates(Mode::Enforcing), &counters, path, true, &reads);
        assert_eq!(read, "....................x.x.x.");
        assert_eq!(counters.refusals(Refused::ReadRate), 3);
        let write = said(&Ration::default(), &rates(Mode::Enforcing), &counters, path, false, &[0; 7]);
        assert_eq!(
            (write.as_str(), counters.refusals(Refused::WriteRate)),
            (".....xx", 2),
            "apart from reads"
        );
    }

    #[test]
    fn a_mode_that_permits_counts_alone() {
        let (counters, path) = (Counters::default(), "/v1/kv/a");
        let all = ".".repeat(30);
        let permissive = said(&Ration::default(), &rates(Mode::Permissive), &counters, path, true, &[0; 30]);
        assert_eq!((&permissive, counters.refusals(Refused::ReadRate)), (&all, 10));
        for (mode, path) in [(Mode::Disabled, path), (Mode::Enforcing, "/v1/status/leader")] {
            assert_eq!(said(&Ration::default(), &rates(mode), &counters, path, true, &[0; 30]), all);
        }
        let endless = Rates { mode: Mode::Enforcing, ..Rates::default() };
        assert_eq!(said(&Ration::default(), &endless, &counters, path, true, &[0; 30]), all);
        assert_eq!(counters.refusals(Refused::ReadRate), 10);
    }

    #[test]
    fn a_reload_counts_at_once() {
        let (ration, counters) = (Ration::default(), Counters::default());
        let slow = Rates { mode: Mode::Enforcing, reads_per_sec: Some(0.1), writes_per_sec: None };
        assert_eq!(said(&ration, &slow, &counters, "/v1/kv/a", true, &[0, 0]), ".x");
        let fast = Rates { reads_per_sec: Some(1_000.0), ..slow };
        assert_eq!(said(&ration, &fast, &counters, "/v1/kv/a", true, &[10]), ".");
    }
}
