//! What tests do to a machine that nobody else may.

use std::time::Instant;

use foca::Member;

use super::{Happening, Machine};
use crate::gossip::{
    Keep,
    roster::{Entry, Roster},
};

impl Machine {
    /// What it knows of itself.
    pub(in crate::gossip) fn own(&self) -> Entry {
        self.roster.get(self.me().key).expect("a machine knows itself").clone()
    }

    /// Knows all these from now on, itself among them.
    pub(in crate::gossip) fn know(&mut self, everyone: Roster, now: Instant) {
        let me = self.me();
        let others: Vec<_> = everyone.entries().map(|it| it.id).filter(|id| *id != me).collect();
        for entry in everyone.entries().filter(|it| it.id != me) {
            let name = entry.record.as_ref().expect("everyone has one").name.clone();
            self.tell(Happening::Keep(Keep::Here { name, address: entry.id.address }));
        }
        self.roster = everyone;
        self.swim(now, |foca, out| foca.apply_many(others.into_iter().map(Member::alive), false, out));
        self.finish();
    }

    pub(in crate::gossip) fn renew_for_test(&mut self, generation: u64, now: Instant) {
        self.renew(generation, now);
        self.finish();
    }

    pub(in crate::gossip) fn doubt(&self) -> u32 {
        self.doubt
    }

    pub(in crate::gossip) fn root(&self) -> u64 {
        self.roster.root()
    }

    pub(in crate::gossip) fn backlog(&self) -> usize {
        self.foca.updates_backlog()
    }
}

impl FromIterator<Entry> for Roster {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Roster {
        let mut roster = Roster::default();
        entries.into_iter().for_each(|entry| roster.put(entry));
        roster
    }
}
