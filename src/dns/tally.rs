//! What was asked, and what became of it. Each road has a table of its own, with a cell for each form of question, type
//! and code, so that an answer costs one addition, to a number that no other thread writes; whoever reads adds them up.
//! Time is measured by the batch, twice read from the clock, and shared among its questions.

use std::{
    array,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use super::wire::{Rcode, kind};
use crate::count::{Counter, Measured, Spread, nanos};

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Service,
    /// A prepared query.
    Query,
    Node,
    Address,
    /// The zone itself, and its servers.
    Zone,
    /// Within our zones, and none of the above.
    Other,
    /// Who lives at an address.
    Reverse,
    StaticZone,
    /// Passed on to a recursor.
    Recursion,
    /// Not ours, and not asked of others.
    Outside,
    /// No question that can be read.
    Invalid,
}

/// How a question came, and its answer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    UdpBatch,
    UdpPlain,
    Tcp,
}

impl Form {
    pub const ALL: [Form; 11] = [
        Form::Service,
        Form::Query,
        Form::Node,
        Form::Address,
        Form::Zone,
        Form::Other,
        Form::Reverse,
        Form::StaticZone,
        Form::Recursion,
        Form::Outside,
        Form::Invalid,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Form::Service => "service",
            Form::Query => "query",
            Form::Node => "node",
            Form::Address => "addr",
            Form::Zone => "zone",
            Form::Other => "other",
            Form::Reverse => "ptr",
            Form::StaticZone => "static",
            Form::Recursion => "recursion",
            Form::Outside => "outside",
            Form::Invalid => "invalid",
        }
    }

    /// Whether the name lies in the catalog's zones.
    pub fn is_of_domain(self) -> bool {
        matches!(self, Form::Service | Form::Query | Form::Node | Form::Address | Form::Zone | Form::Other)
    }
}

impl Road {
    pub const ALL: [Road; 3] = [Road::UdpBatch, Road::UdpPlain, Road::Tcp];

    pub fn word(self) -> &'static str {
        match self {
            Road::UdpBatch => "udp_batch",
            Road::UdpPlain => "udp_plain",
            Road::Tcp => "tcp",
        }
    }
}

/// Types with a cell of their own; the last is all others.
const TYPES: [&str; 14] =
    ["A", "NS", "CNAME", "SOA", "PTR", "MX", "TXT", "AAAA", "SRV", "DS", "SVCB", "HTTPS", "ANY", "other"];

fn type_at(qtype: u16) -> usize {
    match qtype {
        kind::A => 0,
        kind::NS => 1,
        kind::CNAME => 2,
        kind::SOA => 3,
        kind::PTR => 4,
        kind::MX => 5,
        kind::TXT => 6,
        kind::AAAA => 7,
        kind::SRV => 8,
        kind::DS => 9,
        64 => 10,
        65 => 11,
        kind::ANY => 12,
        _ => 13,
    }
}

/// The first by their number.
const CODES: [&str; 9] =
    ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "BADVERS", "other"];

/// Of a whole reply. The code that needs EDNS is told of nothing else that we do not understand.
fn code_at(form: Form, reply: &[u8]) -> usize {
    match reply.get(3).map_or(0, |flags| usize::from(flags & 0xf)) {
        0 if form == Form::Invalid => 7,
        code if code <= Rcode::YxDomain as usize => code,
        _ => 8,
    }
}

const CELLS: usize = Form::ALL.len() * TYPES.len() * CODES.len();

/// The table of one road.
pub struct Tally {
    road: Road,
    cells: Box<[Counter; CELLS]>,
    /// Packets that get no answer.
    silent: Counter,
    /// Nanoseconds, by form.
    spent: [Spread; Form::ALL.len()],
}

impl Tally {
    pub fn new(road: Road) -> Self {
        Tally {
            road,
            cells: Box::new(array::from_fn(|_| Counter::default())),
            silent: Counter::default(),
            spent: Default::default(),
        }
    }

    pub fn road(&self) -> Road {
        self.road
    }

    #[inline]
    pub fn cell(&self, form: Form, qtype: u16, reply: &[u8]) -> &Counter {
        let at = (form as usize * TYPES.len() + type_at(qtype)) * CODES.len() + code_at(form, reply);
        &self.cells[at]
    }

    pub fn silent(&self) -> &Counter {
        &self.silent
    }

    /// So many questions of each form were answered in this time.
    pub fn took(&self, counts: &[u32; Form::ALL.len()], nanos: u64) {
        let all: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        for (spread, count) in self.spent.iter().zip(counts).filter(|(_, count)| **count > 0) {
            let count = u64::from(*count);
            let part = u128::from(nanos) * u128::from(count) / u128::from(all);
            spread.record_many(count, u64::try_from(part).unwrap_or(u64::MAX));
        }
    }
}

/// How long a batch takes.
pub struct Watch(Instant);

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "only roads, which are the rim, look at their watch")]
    pub fn start() -> Self {
        Watch(Instant::now())
    }

    pub fn nanos(&self) -> u64 {
        nanos(self.0.elapsed())
    }
}

/// What the roads of an agent have counted, and what was asked elsewhere.
#[derive(Default)]
pub struct Counters {
    tallies: Mutex<Vec<Arc<Tally>>>,
    /// Answered from what recursors said before.
    pub cache_hits: Counter,
    pub cache_misses: Counter,
    /// Refused since too many wait for something from elsewhere.
    pub shed: Counter,
    pub(super) errands_begun: Counter,
    pub(super) errands_ended: Counter,
    /// TCP connections for which there was no room.
    pub turned_away: Counter,
}

/// Questions of one kind, by one road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    pub form: Form,
    pub kind: &'static str,
    pub code: &'static str,
    pub road: Road,
    pub count: u64,
}

impl Counters {
    /// A table for one more road.
    pub(super) fn tally(&self, road: Road) -> Arc<Tally> {
        let tally = Arc::new(Tally::new(road));
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).push(tally.clone());
        tally
    }

    fn tallies(&self) -> Vec<Arc<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every kind of question that was ever answered.
    pub fn answered(&self) -> Vec<Answered> {
        let (tallies, mut answered) = (self.tallies(), Vec::new());
        for road in Road::ALL {
            let of_road: Vec<_> = tallies.iter().filter(|tally| tally.road == road).collect();
            for at in 0..CELLS {
                let count = of_road.iter().map(|tally| tally.cells[at].get()).sum();
                if count > 0 {
                    let (rest, code) = (at / CODES.len(), CODES[at % CODES.len()]);
                    let (form, kind) = (Form::ALL[rest / TYPES.len()], TYPES[rest % TYPES.len()]);
                    answered.push(Answered { form, kind, code, road, count });
                }
            }
        }
        answered
    }

    /// Packets that got no answer.
    pub fn silent(&self) -> u64 {
        self.tallies().iter().map(|tally| tally.silent.get()).sum()
    }

    /// Nanoseconds that questions of these forms took on their roads. `read` says how each is read.
    pub fn spent(&self, forms: fn(Form) -> bool, read: fn(&Spread) -> Measured) -> Measured {
        let tallies = self.tallies();
        let spreads = tallies.iter().flat_map(|tally| Form::ALL.iter().zip(&tally.spent));
        let wanted = spreads.filter(|(form, _)| forms(**form)).map(|(_, spread)| read(spread));
        wanted.fold(Measured::default(), Measured::and)
    }

    /// Questions that wait for something from elsewhere.
    pub fn waiting(&self) -> u64 {
        let ended = self.errands_ended.get();
        self.errands_begun.get().saturating_sub(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_added_up() {
        let counters = Counters::default();
        let (one, two, tcp) =
            (counters.tally(Road::UdpBatch), counters.tally(Road::UdpBatch), counters.tally(Road::Tcp));
        let no_such_name = [0, 0, 0, 0x83];
        one.cell(Form::Service, kind::SRV, &[0; 12]).add_alone(2);
        two.cell(Form::Service, kind::SRV, &[0; 12]).add(1);
        tcp.cell(Form::Other, 4711, &no_such_name).add(1);
        tcp.cell(Form::Invalid, 0, &[0; 12]).add(1);
        let row = |form, kind, code, road, count| Answered { form, kind, code, road, count };
        assert_eq!(
            counters.answered(),
            [
                row(Form::Service, "SRV", "NOERROR", Road::UdpBatch, 3),
                row(Form::Other, "other", "NXDOMAIN", Road::Tcp, 1),
                row(Form::Invalid, "other", "BADVERS", Road::Tcp, 1),
            ]
        );
    }

    #[test]
    fn every_form_and_type_has_its_place() {
        assert!(Form::ALL.iter().enumerate().all(|(at, form)| *form as usize == at));
        let types = [1, 2, 5, 6, 12, 15, 16, 28, 33, 43, 64, 65, 255, 99];
        assert!(types.iter().enumerate().all(|(at, qtype)| type_at(*qtype) == at));
    }

    #[test]
    fn a_batch_shares_its_time() {
        let counters = Counters::default();
        let mut counts = [0; Form::ALL.len()];
        (counts[Form::Service as usize], counts[Form::Reverse as usize]) = (3, 1);
        counters.tally(Road::UdpBatch).took(&counts, 1000);
        counters.tally(Road::UdpPlain).took(&counts, 2000);
        let of_domain = counters.spent(Form::is_of_domain, Spread::read);
        assert_eq!(
            (of_domain.count, of_domain.sum, of_domain.least, of_domain.most),
            (6, 2250.0, 250.0, 500.0)
        );
        assert_eq!(counters.spent(|form| form == Form::Reverse, Spread::take).sum, 750.0);
    }
}
