//! What is counted of the HTTP API: answers, and what was refused by a limit.

use std::{collections::HashMap, time::Duration};

use hyper::{Method, StatusCode};

use super::v1;
use crate::count::{Counter, Spread};

#[derive(Debug)]
pub struct Counters {
    /// By method, then by the status' first digit.
    answers: [[Counter; CLASSES.len()]; METHODS.len()],
    refused: [Counter; Refused::ALL.len()],
    /// What handlers took, in nanoseconds: by the path of their route, then by method.
    spent: HashMap<&'static str, [Spread; METHODS.len()]>,
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

impl Default for Counters {
    fn default() -> Self {
        let routes = v1::routes();
        Counters {
            answers: Default::default(),
            refused: Default::default(),
            spent: routes.map(|route| (route.path, Default::default())).collect(),
        }
    }
}

impl Counters {
    pub fn answered(&self, method: &Method, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        self.answers[method_at(method)][class.min(CLASSES.len() - 1)].add(1);
    }

    /// A request that reached its handler, waits included.
    pub fn took(&self, path: &'static str, method: &Method, time: Duration) {
        if let Some(methods) = self.spent.get(path) {
            methods[method_at(method)].record_time(time);
        }
    }

    /// Every path of a route and method, with what its requests took, in nanoseconds.
    pub fn spent(&self) -> impl Iterator<Item = (&'static str, &'static str, &Spread)> {
        self.spent.iter().flat_map(|(path, methods)| {
            METHODS.into_iter().zip(methods).map(|(method, it)| (*path, method, it))
        })
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

fn method_at(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}
