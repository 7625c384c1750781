//! Static zones: names that stand in master files, answered beside the catalog. Knows files, zones and how a zone is
//! asked; not the catalog.
//!
//! ```text
//! file ─lex─> entries ─master, rdata─> records ─zone─> Zone        files: which are there, and which have changed
//!                                      question ─zone─> what stands at a name ─answer─> reply
//! ```

mod answer;
mod builtin;
mod files;
#[cfg(test)]
mod fuzz;
mod lex;
mod master;
mod rdata;
mod svcb;
mod text;
mod zone;

use std::{fmt, sync::Arc};

use ahash::AHashMap;

use super::name::Name;
use lex::At;

pub use answer::{Answered, Budget, put};
pub use files::{Told, ZoneFiles};
pub use zone::{Found, Set, Zone};

/// Every zone that is served from a file, as one value: published whole.
#[derive(Clone, Debug, Default)]
pub struct StaticZones {
    zones: AHashMap<Box<[u8]>, Served>,
    labels_max: usize,
}

/// `None` where the zone's file is wrong, and never was right: what stands in it nobody can tell.
pub type Served = Option<Arc<Zone>>;

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub file: Arc<str>,
    pub at: At,
    pub text: String,
}

/// A file's name, as faults tell it, and what stands in it.
pub struct Opened {
    pub file: Arc<str>,
    pub text: Vec<u8>,
}

impl StaticZones {
    /// The zones of an operator; with `builtin`, those that every resolver has to have as well (RFC 6303, RFC 6761),
    /// unless an operator's is there or above.
    pub fn new(own: impl IntoIterator<Item = (Box<[u8]>, Served)>, builtin: bool) -> Self {
        let mut all = StaticZones::default();
        own.into_iter().for_each(|(name, served)| all.add(name, served));
        if builtin {
            let free = builtin::zones().iter().filter(|zone| all.find(&Name::new(&zone.name), 0).is_none());
            let free: Vec<Arc<Zone>> = free.cloned().collect();
            free.into_iter().for_each(|zone| all.add(zone.name.clone(), Some(zone)));
        }
        all
    }

    fn add(&mut self, name: Box<[u8]>, served: Served) {
        self.labels_max = self.labels_max.max(zone::labels(&name).count());
        self.zones.insert(name, served);
    }

    /// The zone that a name lies in: the longest. A DS stands above its zone (RFC 4035 §3.1.4.1).
    pub fn find(&self, name: &Name, qtype: u16) -> Option<&Served> {
        let first = name.count().saturating_sub(self.labels_max);
        let mut found =
            (first..=name.count()).filter_map(|label| Some((label, self.zones.get(name.from(label))?)));
        let (label, longest) = found.next()?;
        match (label, qtype) {
            (0, zone::DS) => Some(found.next().map_or(longest, |(_, above)| above)),
            _ => Some(longest),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.line {
            0 => write!(f, "{}: {}", self.file, self.text),
            line => write!(f, "{}:{line}:{}: {}", self.file, self.at.column, self.text),
        }
    }
}
