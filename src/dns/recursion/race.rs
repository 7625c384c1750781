//! Whom one question is put to, and when. The first recursor is asked; the next one as soon as that fails, or has been
//! silent for a while: so one that is lost costs a moment and no timeout, and one that is slow is not given up. The first
//! good answer wins. Time is an argument.
//!
//! ```text
//! ask 1 ──silent──> ask 2 ──fails──> ask 3 ...    none left ──silent──> once more those that are silent ──> lost
//! ```

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

pub struct Race {
    runners: Vec<Runner>,
    in_flight: usize,
    was_heard: bool,
    /// Before that nobody else is asked, unless somebody fails.
    next_at: Instant,
    hedge_after: Duration,
}

struct Runner {
    addr: SocketAddr,
    asked: u8,
    failed: bool,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Ask(SocketAddr),
    /// For an answer, and until then if there is anybody left to ask.
    Wait(Option<Instant>),
    /// Nobody is left. Whether anybody was heard from at all.
    Lost {
        was_heard: bool,
    },
}

/// So many are asked at once.
const IN_FLIGHT_MAX: usize = 3;
/// One that is silent is asked so often: a packet may be lost.
const ASKED_MAX: u8 = 2;

impl Race {
    pub fn new(order: Vec<SocketAddr>, hedge_after: Duration, now: Instant) -> Self {
        let runner = |addr| Runner { addr, asked: 0, failed: false };
        let runners = order.into_iter().map(runner).collect();
        Race { runners, in_flight: 0, was_heard: false, next_at: now, hedge_after }
    }

    pub fn step(&mut self, now: Instant) -> Step {
        let (in_flight, next_at, was_heard) = (self.in_flight, self.next_at, self.was_heard);
        match self.next().filter(|_| in_flight < IN_FLIGHT_MAX) {
            Some(runner) if next_at <= now => {
                runner.asked += 1;
                let addr = runner.addr;
                self.in_flight += 1;
                self.next_at = now + self.hedge_after;
                Step::Ask(addr)
            }
            Some(_) => Step::Wait(Some(next_at)),
            None if in_flight == 0 => Step::Lost { was_heard },
            None => Step::Wait(None),
        }
    }

    /// One that was asked is of no help. `heard` where it said so itself.
    pub fn failed(&mut self, addr: SocketAddr, heard: bool, now: Instant) {
        self.in_flight -= 1;
        self.was_heard |= heard;
        self.next_at = now;
        if let Some(runner) = self.runners.iter_mut().find(|runner| runner.addr == addr) {
            runner.failed = true;
        }
    }

    /// Those who were asked before the winner, and are silent still.
    pub fn beaten(&self, winner: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        let before = self.runners.iter().take_while(move |runner| runner.addr != winner);
        before.filter(|runner| runner.asked > 0 && !runner.failed).map(|runner| runner.addr)
    }

    /// Those who were not asked yet, then those who are silent.
    fn next(&mut self) -> Option<&mut Runner> {
        let fewest = self.runners.iter().filter(|runner| !runner.failed).map(|runner| runner.asked).min()?;
        let mut left = self.runners.iter_mut().filter(|runner| !runner.failed && runner.asked == fewest);
        left.next().filter(|_| fewest < ASKED_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEDGE: Duration = Duration::from_millis(250);

    fn addr(last: u8) -> SocketAddr {
        ([127, 0, 0, last], 53).into()
    }

    fn race(count: u8) -> (Race, Instant) {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let start = Instant::now();
        (Race::new((1..=count).map(addr).collect(), HEDGE, start), start)
    }

    #[test]
    fn the_next_is_asked_at_once_where_one_fails() {
        let (mut race, now) = race(2);
        assert_eq!(race.step(now), Step::Ask(addr(1)));
        assert_eq!(race.step(now), Step::Wait(Some(now + HEDGE)));
        race.failed(addr(1), true, now);
        assert_eq!(race.step(now), Step::Ask(addr(2)));
        race.failed(addr(2), false, now);
        assert_eq!(race.step(now), Step::Lost { was_heard: true });
    }

    #[test]
    fn silence_has_the_next_asked_and_then_the_silent_again_but_no_more_than_three_at_once() {
        let (mut race, start) = race(2);
        let mut asked = Vec::new();
        for tick in 0..10 {
            if let Step::Ask(addr) = race.step(start + HEDGE * tick) {
                asked.push((tick, addr));
            }
        }
        assert_eq!(asked, [(0, addr(1)), (1, addr(2)), (2, addr(1))]);
        let later = start + HEDGE * 20;
        race.failed(addr(1), false, later);
        assert_eq!(race.step(later), Step::Ask(addr(2)), "who failed is not asked again");
        race.failed(addr(1), false, later);
        race.failed(addr(2), false, later);
        assert_eq!(race.step(later), Step::Wait(None));
        race.failed(addr(2), false, later);
        assert_eq!(race.step(later), Step::Lost { was_heard: false });
    }

    #[test]
    fn who_was_asked_first_and_is_silent_is_beaten() {
        let (mut race, start) = race(3);
        for tick in 0..2 {
            race.step(start + HEDGE * tick);
        }
        assert_eq!(race.beaten(addr(2)).collect::<Vec<_>>(), [addr(1)]);
        assert_eq!(race.beaten(addr(1)).count(), 0);
    }
}
