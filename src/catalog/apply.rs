//! Commands, and what they do to a catalog. Every server applies the same commands in the same order and ends with
//! the same catalog, so nothing here reads a clock, rolls a die, or walks a map whose order may differ.

use serde::{Deserialize, Serialize};

use super::{
    Catalog, Key,
    record::{Check, Node, Service, Text},
};

/// One change to the catalog, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    Register(Box<Register>),
    Deregister { node: Text, target: Target },
}

/// Writes a node, then a service on it, then checks: all of it or nothing (`cluster.md` §1.4).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Register {
    pub node: Node,
    /// Leave a node that exists as it is; create one that does not.
    pub skip_node_update: bool,
    pub service: Option<Service>,
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The node with everything on it.
    Node,
    /// A service, by id, with its checks.
    Service(Text),
    Check(Text),
}

/// What a command came to, told to whoever proposed it.
pub type Reply = Result<Applied, Refusal>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The catalog's index afterwards.
    pub index: u64,
    /// Whether anything changed.
    pub changed: bool,
}

/// Why a command was not applied: nothing was changed. The texts are Consul's, since clients match on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Invalid(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    Nodes,
    Services,
    Checks,
}

/// A set of tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables(u8);

/// What someone may wait on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Any node record.
    Nodes,
    /// Any service record.
    Services,
    /// Any check.
    Checks,
    /// A node's record or services.
    Node(Key),
    /// A node's checks, its services' included.
    NodeChecks(Key),
    /// A service's instances, their checks or nodes.
    Service(Key),
    /// Some service lost its last instance.
    ServiceGone,
    /// Some node was removed.
    NodeGone,
    /// Some check entered, left, or changed within this status.
    State(Text),
}

/// What a command did. Empty where it changed nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The catalog's index afterwards.
    pub index: u64,
    pub tables: Tables,
    pub topics: Vec<Topic>,
}

impl Table {
    pub(super) const COUNT: usize = 3;
}

impl Catalog {
    /// Applies one committed command. A refusal is an outcome like any other, and leaves everything as it was.
    pub fn apply(&mut self, command: Command) -> (Reply, Changes) {
        let _ = command;
        todo!()
    }
}
