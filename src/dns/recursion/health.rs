//! Who of the recursors is asked first: those that answer, in the order that was set, and those that fail behind them.
//! One that fails is tried again by a question of its own beside somebody's, later and later, so that nobody waits for
//! it. Time and randomness are arguments.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::settings::Strategy;

pub struct Health {
    recursors: Vec<Recursor>,
}

struct Recursor {
    addr: SocketAddr,
    /// Since it last answered.
    failures: u32,
    try_again: Option<Instant>,
}

/// Whom one question goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// One after the other, as long as none answers.
    pub order: Vec<SocketAddr>,
    /// To be tried beside the others.
    pub probe: Option<SocketAddr>,
}

/// What an operator wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Failing,
    Answering,
}

/// A recursor that fails so often in a row is behind the others.
const FAILURES_MAX: u32 = 3;
/// From the turn of a recursor to its first probe; twice as long after each failure, but no longer than `RETRY_MAX`.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

impl Health {
    pub fn new(addrs: &[SocketAddr]) -> Self {
        let recursor = |addr: &SocketAddr| Recursor { addr: *addr, failures: 0, try_again: None };
        Health { recursors: addrs.iter().map(recursor).collect() }
    }

    /// Whom to ask now.
    pub fn turn(&mut self, strategy: Strategy, random: &mut fastrand::Rng, now: Instant) -> Turn {
        let mut order: Vec<&mut Recursor> = self.recursors.iter_mut().collect();
        if strategy == Strategy::Random {
            random.shuffle(&mut order);
        }
        order.sort_by_key(|recursor| recursor.is_failing());
        let addrs = order.iter().map(|recursor| recursor.addr).collect();
        let first_answers = order.first().is_some_and(|recursor| !recursor.is_failing());
        let due = order.into_iter().find(|it| it.try_again.is_some_and(|at| at <= now) && first_answers);
        let probe = due.map(|recursor| {
            recursor.put_off(now);
            recursor.addr
        });
        Turn { order: addrs, probe }
    }

    pub fn answered(&mut self, addr: SocketAddr) -> Option<Change> {
        let recursor = self.recursors.iter_mut().find(|recursor| recursor.addr == addr)?;
        let was_failing = recursor.is_failing();
        (recursor.failures, recursor.try_again) = (0, None);
        was_failing.then_some(Change::Answering)
    }

    pub fn failed(&mut self, addr: SocketAddr, now: Instant) -> Option<Change> {
        let recursor = self.recursors.iter_mut().find(|recursor| recursor.addr == addr)?;
        let was_failing = recursor.is_failing();
        recursor.failures = recursor.failures.saturating_add(1);
        if recursor.is_failing() {
            recursor.put_off(now);
        }
        (recursor.is_failing() && !was_failing).then_some(Change::Failing)
    }
}

impl Recursor {
    fn is_failing(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    fn put_off(&mut self, now: Instant) {
        let doubled = self.failures.saturating_sub(FAILURES_MAX).min(16);
        self.try_again = Some(now + (RETRY * 2u32.pow(doubled)).min(RETRY_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u8) -> SocketAddr {
        ([127, 0, 0, last], 53).into()
    }

    #[test]
    fn one_that_fails_is_last_and_is_probed_until_it_answers() {
        let (mut health, mut random) = (Health::new(&[addr(1), addr(2)]), fastrand::Rng::with_seed(1));
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let start = Instant::now();
        let mut turn = |health: &mut Health, at| health.turn(Strategy::Sequential, &mut random, at);
        let both = |probe| Turn { order: vec![addr(1), addr(2)], probe };
        assert_eq!(turn(&mut health, start), both(None));
        assert_eq!(health.failed(addr(1), start), None);
        assert_eq!(health.failed(addr(1), start), None);
        assert_eq!(turn(&mut health, start), both(None), "twice may be chance");
        assert_eq!(health.failed(addr(1), start), Some(Change::Failing));
        let turned = |probe| Turn { order: vec![addr(2), addr(1)], probe };
        assert_eq!(turn(&mut health, start), turned(None));
        let due = start + RETRY;
        assert_eq!(turn(&mut health, due), turned(Some(addr(1))));
        assert_eq!(turn(&mut health, due), turned(None), "one probe at a time");
        assert_eq!(health.failed(addr(1), due), None);
        assert_eq!(turn(&mut health, due + RETRY), turned(None), "later and later");
        assert_eq!(turn(&mut health, due + RETRY * 2), turned(Some(addr(1))));
        assert_eq!(health.answered(addr(1)), Some(Change::Answering));
        assert_eq!(turn(&mut health, due), both(None));
    }

    #[test]
    fn where_all_fail_all_are_asked_in_order() {
        let (mut health, mut random) = (Health::new(&[addr(1), addr(2)]), fastrand::Rng::with_seed(1));
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let start = Instant::now();
        for last in [1, 1, 1, 2, 2, 2] {
            health.failed(addr(last), start);
        }
        let turn = health.turn(Strategy::Sequential, &mut random, start + RETRY_MAX);
        assert_eq!(turn, Turn { order: vec![addr(1), addr(2)], probe: None });
    }

    #[test]
    fn random_shares_the_load() {
        let (mut health, mut random) = (Health::new(&[addr(1), addr(2)]), fastrand::Rng::with_seed(1));
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let now = Instant::now();
        let firsts: Vec<_> =
            (0..200).map(|_| health.turn(Strategy::Random, &mut random, now).order[0]).collect();
        let of_first = firsts.iter().filter(|first| **first == addr(1)).count();
        assert!((50..150).contains(&of_first), "{of_first}");
    }
}
