//! What is to be done, and when: one heap for everything that waits in the machine.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use foca::Timer;

use crate::gossip::identity::Id;

#[derive(Debug)]
pub(super) enum Due {
    Foca(Timer<Id>),
    /// The same ping once more, if the probe of this number still waits.
    PingAgain(u8),
    /// To tell who asked for it that a probe came to nothing, by our own number of it.
    Nack(u64),
    Suspicion(u64),
    Push,
    Root,
    Reconnect,
    Rejoin,
    Seek,
    House,
    Leave(u8),
    Query(u64),
    /// To ask a member what it says of itself, if nobody told it.
    Record(u64),
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Waiting>>,
    number: u64,
}

#[derive(Debug)]
struct Waiting {
    at: Instant,
    /// Of two at one time: foca's indirect probes come before the probe that ends them.
    later: bool,
    number: u64,
    /// It was put off already.
    put_off: bool,
    due: Due,
}

impl Timers {
    pub fn at(&mut self, at: Instant, due: Due) {
        self.push(at, due, false);
    }

    fn push(&mut self, at: Instant, due: Due, put_off: bool) {
        self.number += 1;
        let later = !matches!(due, Due::Foca(Timer::SendIndirectProbe { .. }));
        self.heap.push(Reverse(Waiting { at, later, number: self.number, put_off, due }));
    }

    pub fn due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(first)| first.at)
    }

    pub fn pop(&mut self, now: Instant) -> Option<Due> {
        if self.due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(first)| first.due)
    }

    /// Puts off what is due, each only once, by what `by` says of it: a process that was stopped has not heard what came
    /// meanwhile, and must not take that for silence.
    pub fn put_off(&mut self, now: Instant, by: impl Fn(&Due) -> Option<Duration>) {
        let mut late = Vec::new();
        while self.due().is_some_and(|at| at <= now) {
            late.extend(self.heap.pop());
        }
        for Reverse(waiting) in late {
            match by(&waiting.due).filter(|_| !waiting.put_off) {
                Some(by) => self.push(now + by, waiting.due, true),
                None => self.heap.push(Reverse(waiting)),
            }
        }
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> Ordering {
        (self.at, self.later, self.number).cmp(&(other.at, other.later, other.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}
