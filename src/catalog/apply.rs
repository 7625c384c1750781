//! Commands, and what they do to a catalog. Every server applies the same commands in the same order and ends with
//! the same catalog, so nothing here reads a clock, rolls a die, or walks a map whose order may differ.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Blob, Catalog, Found, Home, Key, KvWrite, NodeCoordinate, Op, OpFault, QueryWrite, SessionWrite,
    SetAutopilot, check_meta, fold, fold_key,
    record::{Check, Node, Service, Status, Text},
    restore::Restore,
    write::Write,
};

/// The check by which the members' gossip speaks for a node.
pub const SERF_HEALTH: &str = "serfHealth";

/// One change to the catalog, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    Register(Box<Register>),
    Deregister {
        node: Text,
        target: Target,
    },
    Kv(KvWrite),
    Session(SessionWrite),
    /// All of it or nothing.
    Txn(Vec<Op>),
    /// Lock delays that had their time, each with the index at which it began.
    EndLockDelays(Vec<(Blob, u64)>),
    /// Deletions of keys up to this index are no longer of interest.
    ForgetTombstones {
        upto: u64,
    },
    /// Where nodes say that they are; of nodes that are not known, nothing is kept.
    Coordinates(Vec<NodeCoordinate>),
    Query(QueryWrite),
    Autopilot(SetAutopilot),
    Restore(Restore),
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The catalog's index afterwards.
    pub index: u64,
    /// Whether anything changed.
    pub changed: bool,
    pub answer: Answer,
}

/// What a command says beside that it was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    Done,
    /// Its condition did not hold: an index is stale, a lock is held.
    NotDone,
    /// What a transaction's operations yielded.
    Found(Vec<Found>),
}

/// Why a command was not applied: nothing was changed. The texts are Consul's, since clients match on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("Must provide node")]
    NoNode,
    #[error("Must provide service name (Service.Service) when service ID is provided")]
    NoServiceName,
    #[error(
        "failed inserting check on node \"{0}\": failed health check lookup: index error: object is missing a value for this index"
    )]
    NoCheckId(Text),
    #[error("Node '{other}' for check '{check}' doesn't match register request node '{node}'")]
    OtherNode { node: Text, other: Text, check: Text },
    #[error("Unknown service ID '{service}' for check ID '{check}'")]
    UnknownService { service: Text, check: Text },
    #[error(
        "failed inserting service: Invalid Service Meta for node {node} and serviceID {service}: {fault}"
    )]
    Meta { node: Text, service: Text, fault: String },
    /// The name belongs to a living node with another id.
    #[error(
        "failed inserting node: Error while renaming Node ID: \"{id}\"{}: Node name {name} is reserved by node {owner} with name {owner_name} ({address})",
        .renamed.as_ref().map(|address| format!(" ({address})")).unwrap_or_default()
    )]
    Reserved { id: Uuid, renamed: Option<Text>, name: Text, owner: Uuid, owner_name: Text, address: Text },
    #[error("Missing key name")]
    NoKey,
    #[error("invalid session \"{0}\"")]
    NoSession(Text),
    #[error("Missing node registration")]
    NoSuchNode,
    #[error("Missing check '{0}' registration")]
    NoSuchCheck(Text),
    #[error("Check '{0}' is in critical state")]
    CriticalCheck(Text),
    /// Operations of a transaction, each by its place.
    #[error("{}", .0.iter().map(|fault| &*fault.what).collect::<Vec<_>>().join("; "))]
    Txn(Vec<OpFault>),
    #[error("Cannot modify non-existent prepared query: '{0}'")]
    NoQuery(Uuid),
    #[error("name '{0}' aliases an existing query name")]
    QueryNameTaken(Text),
    #[error("name '{0}' aliases an existing query ID")]
    QueryNameIsId(Text),
    #[error("a query template with an empty name already exists")]
    SecondCatchAll,
    #[error("another restore has begun, or this one was given up")]
    OtherRestore,
    #[error("{rows} rows were sent to be restored, and {arrived} have arrived")]
    RowsMissing { rows: u64, arrived: u64 },
    #[error("what was sent to be restored is no catalog: {0}")]
    NoCatalog(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    Nodes,
    Services,
    Checks,
    Kv,
    Tombstones,
    Sessions,
    Coordinates,
    Queries,
    Autopilot,
}

/// A set of tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables(u16);

/// What someone may wait on. A raised index is not a wake: a service registered on a node raises the index of the
/// nodes table, and wakes nobody who waits for nodes (`cluster.md` §1.3).
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
    /// Some check entered this status, left it, or changed within it.
    State(Status),
    /// A key of the key-value store.
    Kv(Blob),
    /// Any key that begins so. Changes name keys; who waits for this is found by them.
    KvTree(Blob),
    /// Some key was deleted, or such a deletion was forgotten.
    Tombstones,
    /// Some key may not be locked for a while, or may be again.
    LockDelays,
    /// Any session.
    Sessions,
    Session(Uuid),
    /// The sessions of a node.
    NodeSessions(Key),
    /// Any coordinate.
    Coordinates,
    /// A node's coordinates.
    Coordinate(Key),
    /// Any prepared query.
    Queries,
    Query(Uuid),
    Autopilot,
    /// The whole catalog was replaced, and whoever waits is to be woken.
    Everything,
    /// A restore began, or was given up.
    Restoring,
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
    pub(super) const ALL: [Table; 9] = [
        Table::Nodes,
        Table::Services,
        Table::Checks,
        Table::Kv,
        Table::Tombstones,
        Table::Sessions,
        Table::Coordinates,
        Table::Queries,
        Table::Autopilot,
    ];
}

impl Tables {
    pub fn contains(self, table: Table) -> bool {
        self.0 & (1 << table as u8) != 0
    }

    pub(super) fn insert(&mut self, table: Table) {
        self.0 |= 1 << table as u8;
    }
}

impl Catalog {
    /// Applies one committed command. A refusal is an outcome like any other, and leaves everything as it was.
    pub fn apply(&mut self, command: Command) -> (Reply, Changes) {
        match command {
            Command::Txn(ops) => {
                let (found, changes) = self.transact(ops);
                (found.map(|found| Applied::of(&changes, Answer::Found(found))), changes)
            }
            Command::Restore(restore) => {
                let (done, changes) = self.restore(restore);
                (done.map(|()| Applied::of(&changes, Answer::Done)), changes)
            }
            command => {
                let mut write = Write::new(self);
                let done = write.command(command);
                let changes = write.finish();
                (done.map(|answer| Applied::of(&changes, answer)), changes)
            }
        }
    }

    /// Everything that can refuse a registration, before anything is written.
    fn plan(&self, register: &Register) -> Result<NodePlan, Refusal> {
        let plan = self.plan_node(&register.node, register.skip_node_update)?;
        if let Some(service) = &register.service {
            self.plan_service(&register.node, service)?;
        }
        for check in &register.checks {
            self.plan_check(register, check)?;
        }
        Ok(plan)
    }

    /// What becomes of the node's row: names are unique, and so are ids (`cluster.md` §1.4).
    fn plan_node(&self, node: &Node, skip_node_update: bool) -> Result<NodePlan, Refusal> {
        if node.name.is_empty() {
            return Err(Refusal::NoNode);
        }
        let key = fold(&node.name);
        let here = self.node(&key);
        if skip_node_update && here.is_some() {
            return Ok(NodePlan::Keep);
        }
        let Some(id) = node.id else { return Ok(NodePlan::Write) };
        let owner = self.node_by_id(id);
        if owner.is_some_and(|owner| *fold(&owner.node().name) == *key) {
            return Ok(NodePlan::Write);
        }
        if let Some((here, reserved)) =
            here.and_then(|here| Some((here, here.node().id?))).filter(|(here, _)| alive(here))
        {
            return Err(Refusal::Reserved {
                id,
                renamed: owner.map(|owner| owner.node().address.clone()),
                name: node.name.clone(),
                owner: reserved,
                owner_name: here.node().name.clone(),
                address: here.node().address.clone(),
            });
        }
        Ok(match owner {
            Some(owner) => NodePlan::Rename { from: fold_key(&owner.node().name) },
            None => NodePlan::Write,
        })
    }

    pub(super) fn plan_service(&self, node: &Node, service: &Service) -> Result<(), Refusal> {
        if service.name.is_empty() {
            return Err(Refusal::NoServiceName);
        }
        let Some(meta) = &service.meta else { return Ok(()) };
        check_meta(meta.iter().map(|(key, value)| (&**key, &**value))).map_err(|fault| Refusal::Meta {
            node: node.name.clone(),
            service: service.id.clone(),
            fault: fault.to_string(),
        })
    }

    fn plan_check(&self, register: &Register, check: &Check) -> Result<(), Refusal> {
        let node = &register.node.name;
        if check.id.is_empty() {
            return Err(Refusal::NoCheckId(node.clone()));
        }
        if !check.node.is_empty() && !check.node.eq_ignore_ascii_case(node) {
            let (node, other, check) = (node.clone(), check.node.clone(), check.id.clone());
            return Err(Refusal::OtherNode { node, other, check });
        }
        let service_id = &check.service_id;
        let given = register
            .service
            .as_ref()
            .is_some_and(|service| service.id_or_name().eq_ignore_ascii_case(service_id));
        let stored = || self.node(&fold(node)).is_some_and(|home| home.instance(&fold(service_id)).is_some());
        if service_id.is_empty() || given || stored() {
            Ok(())
        } else {
            Err(Refusal::UnknownService { service: service_id.clone(), check: check.id.clone() })
        }
    }
}

/// What a registration does to the node's row.
enum NodePlan {
    Keep,
    Write,
    /// The id is known under another name: that node goes with everything on it.
    Rename {
        from: Key,
    },
}

impl Applied {
    fn of(changes: &Changes, answer: Answer) -> Applied {
        Applied { index: changes.index, changed: !changes.topics.is_empty(), answer }
    }
}

impl Write<'_> {
    /// A refusal comes before anything is written.
    fn command(&mut self, command: Command) -> Result<Answer, Refusal> {
        match command {
            Command::Register(register) => self.register(*register)?,
            Command::Deregister { node, target } => {
                let node = fold_key(&node);
                match target {
                    Target::Node => self.remove_node(&node),
                    Target::Service(id) => self.remove_service(&node, &id),
                    Target::Check(id) => self.remove_check(&node, &id),
                }
            }
            Command::Kv(write) => {
                return Ok(if self.kv(write)? { Answer::Done } else { Answer::NotDone });
            }
            Command::Session(SessionWrite::Create(session)) => self.create_session(*session)?,
            Command::Session(SessionWrite::Destroy(id)) => self.destroy_session(id),
            Command::EndLockDelays(ended) => self.end_delays(ended),
            Command::ForgetTombstones { upto } => self.forget_tombstones(upto),
            Command::Coordinates(batch) => batch.into_iter().for_each(|one| self.put_coordinate(one)),
            Command::Query(write) => self.query(write)?,
            Command::Autopilot(set) => {
                return Ok(if self.set_autopilot(set) { Answer::Done } else { Answer::NotDone });
            }
            Command::Txn(_) => unreachable!("a transaction is applied to a copy"),
            Command::Restore(_) => unreachable!("a restore is of the catalog as a whole"),
        }
        Ok(Answer::Done)
    }

    fn register(&mut self, register: Register) -> Result<(), Refusal> {
        let plan = self.catalog.plan(&register)?;
        let node = fold_key(&register.node.name);
        self.write_node(plan, register.node);
        if let Some(mut service) = register.service {
            service.id = service.id_or_name().clone();
            self.put_service(&node, service);
        }
        for check in register.checks {
            self.put_check(&node, check);
        }
        Ok(())
    }

    pub(super) fn register_node(&mut self, node: Node, skip_node_update: bool) -> Result<(), Refusal> {
        let plan = self.catalog.plan_node(&node, skip_node_update)?;
        self.write_node(plan, node);
        Ok(())
    }

    fn write_node(&mut self, plan: NodePlan, node: Node) {
        let key = fold_key(&node.name);
        match plan {
            NodePlan::Keep => {}
            NodePlan::Write => self.put_node(&key, node, None),
            NodePlan::Rename { from } => {
                let created = self.created(&from);
                self.remove_node(&from);
                self.put_node(&key, node, created);
            }
        }
    }
}

/// A node that gossip calls healthy keeps its name; a warning counts as healthy.
fn alive(home: &Arc<Home>) -> bool {
    home.all_checks()
        .any(|check| check.id.eq_ignore_ascii_case(SERF_HEALTH) && check.status != Status::Critical)
}
