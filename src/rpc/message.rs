//! The messages, as they are spoken and as they go over the wire.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_stream::Stream;

use super::rows::{Placed, Rows};
use crate::catalog::{Check, Command, Node, NodeCoordinate, Reply, Subscribe, Text};

/// Of a body, in one message.
const PIECE_BYTES: usize = 64 << 10;

/// Something that a server will have done.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A body on its way; an error breaks it off.
pub type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A server, as others ask it. What it holds of a node is answered from its catalog.
pub trait Serve: Subscribe {
    /// Puts a command to the log, and gives what applying it came to.
    fn propose(self: Arc<Self>, command: Command) -> Pending<Result<Reply, Failure>>;

    /// Answers a request of the HTTP API.
    fn http(self: Arc<Self>, asked: HttpAsked, body: Pieces) -> Pending<Result<(HttpTold, Pieces), Failure>>;

    /// Answers a question for a name.
    fn dns(self: Arc<Self>, asked: DnsAsked) -> Result<DnsTold, Failure>;

    /// Takes in where a node says that it is.
    fn coordinate(&self, coordinate: NodeCoordinate);
}

/// Why a server did not do what it was asked. `Display` is Consul's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was done; another server may, or this one soon.
    #[error("No cluster leader")]
    NoLeader,
    /// In words for whoever asked.
    #[error("{0}")]
    Other(String),
}

/// A body that a request goes out with.
pub enum Body {
    /// It can be sent again.
    Whole(Bytes),
    Coming(Pieces),
}

/// A request of the HTTP API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpAsked {
    pub method: String,
    /// Path and query, as they were asked.
    pub uri: String,
    pub headers: Vec<(String, String)>,
    /// The node of the agent that was asked.
    pub node: Text,
    /// Who asked it.
    pub source: Option<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpTold {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Of the body, where it is known.
    pub length: Option<u64>,
    /// There was nobody to decide: another server may know better.
    pub no_leader: bool,
}

/// A question for a name, with what the agent that was asked would answer it by. Settings and what is left to do are in a form
/// of the DNS room's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsAsked {
    pub packet: Bytes,
    pub tcp: bool,
    /// Who asked.
    pub from: Option<IpAddr>,
    pub settings: Bytes,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsTold {
    /// Empty where something is left to do.
    pub reply: Bytes,
    pub left: Bytes,
    /// Others may know more of the name than is said.
    pub unsure: bool,
}

/// A part of a body; the first one says what it is the body of.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, bound(deserialize = "H: Deserialize<'de> + Default"))]
pub(super) struct Part<H> {
    pub head: Option<H>,
    pub body: Bytes,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Proposed {
    pub command: Option<Command>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Decided {
    pub reply: Option<Reply>,
}

/// What is there of a node, unless it is what is known already.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NodeAsked {
    pub node: Text,
    /// Of the rows known: [`Rows::digest`].
    pub known: Bytes,
    /// Wait so long for others.
    pub wait_millis: u64,
}

/// Some of it; all parts together are the rows.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct NodeTold {
    /// It is what is known already.
    pub same: bool,
    pub node: Option<Node>,
    pub checks: Vec<Check>,
    pub services: Vec<Placed>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Located {
    pub coordinate: Option<NodeCoordinate>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Nothing {}

/// A body in pieces that each go in one message, in whatever pieces it comes.
pub(super) struct Cut {
    pieces: Pieces,
    /// Of the piece that came last.
    left: Bytes,
}

impl Cut {
    pub fn new(pieces: Pieces) -> Cut {
        Cut { pieces, left: Bytes::new() }
    }
}

impl Stream for Cut {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while self.left.is_empty() {
            match ready!(self.pieces.as_mut().poll_next(cx)) {
                Some(Ok(piece)) => self.left = piece,
                end => return Poll::Ready(end),
            }
        }
        let bytes = self.left.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(self.left.split_to(bytes))))
    }
}

impl NodeTold {
    pub fn add_to(self, rows: &mut Rows) {
        rows.node = self.node.or(rows.node.take());
        rows.checks.extend(self.checks);
        for placed in self.services {
            match rows.services.last_mut() {
                Some(last) if last.service.id == placed.service.id => last.checks.extend(placed.checks),
                _ => rows.services.push(placed),
            }
        }
    }
}
