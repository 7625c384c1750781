//! Whether what clients saw of one key could have been seen of a single copy of it that does one thing at a time: a search
//! for such an order (Wing and Gong, with what was tried before remembered). Knows nothing of agents.

use std::collections::HashSet;

/// What a client did to the key, and what it was told. Every value is written once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deed {
    /// `None` where there was no such key.
    Read(Option<u64>),
    Write(u64),
    /// From the value that was read before to another; whether it came about.
    Swap {
        from: Option<u64>,
        to: u64,
        done: bool,
    },
    Delete,
}

/// A deed between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub from: u64,
    pub until: u64,
    /// Whether its client was told what came of it. If not, it may have been done between the two, or not at all.
    pub told: bool,
    pub deed: Deed,
}

/// The deeds of one key, in any order.
pub fn is_linearizable(history: &[Event]) -> bool {
    // A deed that nobody was told of and nobody saw is mostly none: it is looked at only where the rest does not fit alone.
    let seen: HashSet<u64> = history.iter().filter_map(|event| seen(event.deed)).collect();
    let is_seen =
        |event: &Event| event.told || written(event.deed).is_some_and(|value| seen.contains(&value));
    let (likely, unlikely): (Vec<Event>, Vec<Event>) = history.iter().partition(|event| is_seen(event));
    fits(&likely) || (!unlikely.is_empty() && fits(history))
}

fn seen(deed: Deed) -> Option<u64> {
    match deed {
        Deed::Read(value) => value,
        Deed::Swap { from, done: true, .. } => from,
        _ => None,
    }
}

fn written(deed: Deed) -> Option<u64> {
    match deed {
        Deed::Write(value) | Deed::Swap { to: value, .. } => Some(value),
        Deed::Read(_) | Deed::Delete => None,
    }
}

/// What the key is after a deed, if it may be done now.
fn after(value: Option<u64>, deed: Deed, told: bool) -> Option<Option<u64>> {
    match deed {
        Deed::Read(read) => (read == value).then_some(value),
        Deed::Write(written) => Some(Some(written)),
        Deed::Delete => Some(None),
        // Nobody was told: then it came about exactly where it could.
        Deed::Swap { from, to, .. } if !told => Some(if from == value { Some(to) } else { value }),
        Deed::Swap { from, to, done: true } => (from == value).then_some(Some(to)),
        Deed::Swap { from, done: false, .. } => (from != value).then_some(value),
    }
}

fn fits(history: &[Event]) -> bool {
    let mut events = history.to_vec();
    events.sort_by_key(|event| event.from);
    let mut tried = HashSet::new();
    let mut ways = vec![(Done::default(), None)];
    while let Some((done, value)) = ways.pop() {
        let left = || (done.all_before..events.len()).filter(|at| !done.has(*at));
        let Some(first_end) = left().filter(|at| events[*at].told).map(|at| events[at].until).min() else {
            return true;
        };
        let newest = done.last().map_or(0, |at| events[at].from);
        // Nothing that began after the first end may come before it; what nobody was told of was done in its time or never.
        for at in left().take_while(|at| events[*at].from < first_end) {
            let event = events[at];
            if !event.told && event.until < newest {
                continue;
            }
            let Some(next) = after(value, event.deed, event.told) else { continue };
            let way = (done.with(at), next);
            if tried.insert(way.clone()) {
                ways.push(way);
            }
        }
    }
    false
}

/// Which events are in the order already: all before one, and some after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Done {
    all_before: usize,
    beyond: Vec<usize>,
}

impl Done {
    fn has(&self, at: usize) -> bool {
        at < self.all_before || self.beyond.binary_search(&at).is_ok()
    }

    fn last(&self) -> Option<usize> {
        self.beyond.last().copied().or(self.all_before.checked_sub(1))
    }

    fn with(&self, at: usize) -> Done {
        let mut done = self.clone();
        let place = done.beyond.partition_point(|other| *other < at);
        done.beyond.insert(place, at);
        let run =
            done.beyond.iter().zip(done.all_before..).take_while(|(other, next)| *other == next).count();
        done.beyond.drain(..run);
        done.all_before += run;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each as `from until deed`; until 0 is never, and below 0 nobody was told, after that time it is too late.
    fn holds(history: &[(u64, i64, Deed)]) -> bool {
        let event = |(from, until, deed): &(u64, i64, Deed)| Event {
            from: *from,
            until: if *until == 0 { u64::MAX } else { until.unsigned_abs() },
            told: *until > 0,
            deed: *deed,
        };
        is_linearizable(&history.iter().map(event).collect::<Vec<_>>())
    }

    const fn swap(from: u64, to: u64, done: bool) -> Deed {
        Deed::Swap { from: Some(from), to, done }
    }

    #[test]
    fn what_one_copy_could_have_said_is_accepted() {
        use Deed::*;
        assert!(holds(&[]));
        assert!(holds(&[(1, 2, Write(1)), (3, 4, Read(Some(1))), (5, 6, Delete), (7, 8, Read(None))]));
        assert!(holds(&[(1, 9, Write(1)), (2, 3, Read(None)), (4, 5, Read(Some(1)))]), "while it is written");
        assert!(
            holds(&[(1, 0, Write(1)), (5, 6, Read(None)), (7, 8, Read(Some(1)))]),
            "done late, and unheard"
        );
        assert!(holds(&[(1, 2, Write(1)), (3, 4, swap(1, 2, true)), (3, 5, swap(1, 3, false))]));
        assert!(holds(&[(1, 2, Write(1)), (3, 0, Delete), (4, 5, swap(1, 2, false))]), "only it explains");
        assert!(holds(&[(1, 2, Write(1)), (3, -9, Delete), (7, 8, Read(None))]), "done in time");
    }

    #[test]
    fn what_it_could_not_have_said_is_not() {
        use Deed::*;
        assert!(!holds(&[(1, 2, Write(1)), (3, 4, Read(None))]), "a read of before");
        assert!(!holds(&[(1, 2, Write(1)), (3, 4, Write(2)), (5, 6, Read(Some(1)))]));
        assert!(!holds(&[(1, 9, Write(1)), (2, 3, Read(Some(1))), (4, 5, Read(None))]), "back in time");
        assert!(
            !holds(&[(1, 2, Write(1)), (3, 4, swap(1, 2, true)), (3, 5, swap(1, 3, true))]),
            "a lost update"
        );
        assert!(!holds(&[(1, 2, Write(1)), (3, 4, swap(1, 2, false))]), "nothing explains");
        assert!(!holds(&[(5, 0, Write(1)), (1, 2, Read(Some(1)))]), "read before it was written");
        let late = [(1, 2, Write(1)), (3, -5, Delete), (7, 8, Read(Some(1))), (9, 10, Read(None))];
        assert!(!holds(&late), "done when it could be no more");
    }
}
