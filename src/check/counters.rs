//! What this room counts of the checks it runs.

use std::time::Duration;

use super::Kind;
use crate::{
    catalog::Status,
    count::{Counter, Spread},
};

/// By the kind of check.
#[derive(Default)]
pub struct Counters {
    kinds: [OfKind; Kind::WORDS.len()],
}

#[derive(Default)]
struct OfKind {
    seen: [Counter; SEEN.len()],
    spent: Spread,
}

/// What a look can come to.
const SEEN: [Status; 3] = [Status::Passing, Status::Warning, Status::Critical];

impl Counters {
    /// A look at its end.
    pub fn looked(&self, kind: &Kind, status: &Status, spent: Duration) {
        self.count(kind, status);
        if let Some(of_kind) = self.of(kind) {
            of_kind.spent.record_time(spent);
        }
    }

    /// What a check came to without a look.
    pub fn count(&self, kind: &Kind, status: &Status) {
        let seen = SEEN.iter().position(|seen| seen == status);
        if let (Some(of_kind), Some(at)) = (self.of(kind), seen) {
            of_kind.seen[at].add(1);
        }
    }

    /// Of each kind: what was seen, and how often.
    pub fn seen(&self) -> impl Iterator<Item = (&'static str, &'static Status, u64)> {
        Kind::WORDS.into_iter().zip(&self.kinds).flat_map(|(word, kind)| {
            SEEN.iter().zip(&kind.seen).map(move |(status, counter)| (word, status, counter.get()))
        })
    }

    /// How long looks took, in nanoseconds, by kind.
    pub fn spent(&self) -> impl Iterator<Item = (&'static str, &Spread)> {
        Kind::WORDS.into_iter().zip(&self.kinds).map(|(word, kind)| (word, &kind.spent))
    }

    fn of(&self, kind: &Kind) -> Option<&OfKind> {
        let word = kind.word();
        Some(&self.kinds[Kind::WORDS.iter().position(|known| *known == word)?])
    }
}
