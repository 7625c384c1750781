//! What is counted of the HTTP API: answers, and what was refused by a limit.

use hyper::{Method, StatusCode};

use crate::count::Counter;

#[derive(Debug, Default)]
pub struct Counters {
    /// By method, then by the status' first digit.
    answers: [[Counter; CLASSES.len()]; METHODS.len()],
    refused: [Counter; Refused::ALL.len()],
}

/// Methods that are told apart; all others are the last.
pub const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "other"];
/// Classes of status codes; there are no answers of the first, which hyper sends by itself.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// By which limit something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Connections,
    ConnectionsOfClient,
    BodyBytes,
    BodiesAtOnce,
    BodyWait,
    ReadRate,
    WriteRate,
}

impl Refused {
    pub const ALL: [Refused; 7] = [
        Refused::Connections,
        Refused::ConnectionsOfClient,
        Refused::BodyBytes,
        Refused::BodiesAtOnce,
        Refused::BodyWait,
        Refused::ReadRate,
        Refused::WriteRate,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Refused::Connections => "connections",
            Refused::ConnectionsOfClient => "connections_of_client",
            Refused::BodyBytes => "body_bytes",
            Refused::BodiesAtOnce => "bodies_at_once",
            Refused::BodyWait => "body_wait",
            Refused::ReadRate => "read_rate",
            Refused::WriteRate => "write_rate",
        }
    }
}

impl Counters {
    pub fn answered(&self, method: &Method, status: StatusCode) {
        let known = METHODS.iter().position(|known| *known == method.as_str());
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        self.answers[known.unwrap_or(METHODS.len() - 1)][class.min(CLASSES.len() - 1)].add(1);
    }

    pub fn refused(&self, by: Refused) {
        self.refused[by as usize].add(1);
    }

    /// Every pair of method and class, with its count.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let of = |(method, counts): (&'static str, &[Counter; CLASSES.len()])| {
            let counts: Vec<u64> = counts.iter().map(Counter::get).collect();
            CLASSES.into_iter().zip(counts).map(move |(class, count)| (method, class, count))
        };
        METHODS.into_iter().zip(&self.answers).flat_map(of)
    }

    pub fn refusals(&self, by: Refused) -> u64 {
        self.refused[by as usize].get()
    }
}
