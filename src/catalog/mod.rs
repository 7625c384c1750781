//! The catalog: what exists. An immutable value, and the commands that turn it into the next one. Knows nothing of DNS
//! messages, Raft terms, sockets, files or clocks; what needs two of these at once belongs to the agent.
//!
//! ```text
//! Catalog ── nodes ──> Home { node, its checks, its instances by id }
//!    ├───── services ─> Group { chunks of instances, in order of (node, service id) }
//!    ├──── residents ─> nodes and services, by the addresses they have of their own
//!    ├─────────── kv ─> entries by key, what is left of deleted ones, keys that nobody may lock for a while
//!    ├───── sessions ─> who may hold locks, vouched for by a node and its checks
//!    ├── coordinates ─> where nodes are, told by the round trips between them
//!    └────── queries ─> questions for a service that are asked by name
//! Instance = a service on a node, joined with that node and every check that speaks for it
//! ```
//!
//! Cloning a catalog is cheap: its maps share structure. What a change touched is copied, nothing else.

mod apply;
mod autopilot;
mod blob;
mod coordinate;
mod group;
mod kv;
mod map;
mod meta;
mod network;
mod query;
mod record;
mod resident;
mod restore;
mod rows;
mod session;
mod share;
mod subscribe;
mod txn;
mod write;

use std::{borrow::Cow, sync::Arc};

use uuid::Uuid;

pub use apply::{
    Answer, Applied, Changes, Command, Refusal, Register, Reply, SERF_HEALTH, Table, Tables, Target, Topic,
};
pub use autopilot::{Autopilot, SetAutopilot};
pub use blob::Blob;
pub use coordinate::{Coordinate, NodeCoordinate};
pub use group::{Chunk, Group, Instance};
pub use kv::{Entry, KvVerb, KvWrite, LockDelay};
pub use map::Map;
pub use meta::{InvalidMeta, check_meta};
pub use network::{Network, NoNetwork};
pub use query::{
    Executed, Failover, FailoverTarget, InvalidTemplate, NoQuery, Query, QueryWrite, ServiceQuery, Source,
    Template,
};
pub use record::{Check, Health, Locality, Node, Service, ServiceAddress, Status, Text, Weights};
pub use restore::Restore;
pub use rows::{Indexes, Mismatch, NodeRow, Row, ServiceRow};
pub use session::{Behavior, Session, SessionCheck, SessionWrite};
pub use subscribe::{Subscribe, Subscription, Woken};
pub use txn::{Found, KvOp, Op, OpFault, RowVerb};

use resident::Resident;

/// A name as it is looked up: lower-cased.
pub type Key = Arc<str>;

type HashMap<K, V> = imbl::GenericHashMap<K, V, ahash::RandomState, imbl::shared_ptr::DefaultSharedPtr>;

/// Everything that a datacenter's servers agree on.
#[derive(Clone, Default)]
pub struct Catalog {
    nodes: HashMap<Key, Arc<Home>>,
    services: HashMap<Key, Arc<Group>>,
    node_names: imbl::OrdSet<Key>,
    service_names: imbl::OrdSet<Key>,
    ids: imbl::OrdMap<Uuid, Key>,
    residents: imbl::OrdSet<Resident>,
    kv: kv::Kv,
    sessions: session::Sessions,
    coordinates: coordinate::Coordinates,
    queries: query::Queries,
    /// What an operator set of it; the defaults stand where nothing was.
    autopilot: Option<Arc<Autopilot>>,
    /// What arrived of a catalog that is to take this one's place.
    staging: Option<Arc<restore::Staging>>,
    /// Raised by one for each command that changed something.
    index: u64,
    tables: [u64; Table::ALL.len()],
    service_gone: u64,
    node_gone: u64,
    words: share::Words,
}

/// One node, with all that is on it.
#[derive(Clone)]
pub struct Home {
    node: Arc<Node>,
    /// Of the node itself, by id.
    checks: Arc<[Arc<Check>]>,
    instances: imbl::OrdMap<Key, Arc<Instance>>,
    index: u64,
}

impl Catalog {
    /// Of the newest change; 0 in an empty catalog.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Of the newest change to a table.
    pub fn table_index(&self, table: Table) -> u64 {
        self.tables[table as usize]
    }

    /// When any service last lost its last instance; 0 if none ever did.
    pub fn service_gone(&self) -> u64 {
        self.service_gone
    }

    /// When any node was last removed; 0 if none ever was.
    pub fn node_gone(&self) -> u64 {
        self.node_gone
    }

    /// `name` is lower-cased (see [`fold`]).
    pub fn node(&self, name: &str) -> Option<&Arc<Home>> {
        self.nodes.get(name)
    }

    /// `name` is lower-cased (see [`fold`]).
    pub fn service(&self, name: &str) -> Option<&Arc<Group>> {
        self.services.get(name)
    }

    pub fn node_by_id(&self, id: Uuid) -> Option<&Arc<Home>> {
        self.nodes.get(self.ids.get(&id)?)
    }

    /// The node whose id starts with these hexadecimal digits, where exactly one does.
    pub fn node_by_id_prefix(&self, prefix: &str) -> Option<&Arc<Home>> {
        let (low, high) = id_range(prefix)?;
        let mut found = self.ids.range(low..=high);
        match (found.next(), found.next()) {
            (Some((_, name)), None) => self.nodes.get(name),
            _ => None,
        }
    }

    /// By name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Home>> {
        self.node_names.iter().filter_map(|name| self.nodes.get(name))
    }

    /// By name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.service_names.iter().filter_map(|name| self.services.get(name))
    }

    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    pub fn service_count(&self) -> usize {
        self.services.len()
    }
}

impl Home {
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The checks of the node itself, by id.
    pub fn checks(&self) -> &Arc<[Arc<Check>]> {
        &self.checks
    }

    /// By service id.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.values()
    }

    /// `id` is lower-cased (see [`fold`]).
    pub fn instance(&self, id: &str) -> Option<&Arc<Instance>> {
        self.instances.get(id)
    }

    /// Of the newest change to the node's record or its services (not its checks).
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Every check on the node, the node's own first.
    pub fn all_checks(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.checks.iter().chain(self.instances().flat_map(|instance| instance.checks.iter()))
    }
}

/// A name as it is looked up.
pub fn fold(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// As [`fold`], to be kept. A name that is lower-cased already is shared.
pub(crate) fn fold_key(name: &Text) -> Key {
    match fold(name) {
        Cow::Borrowed(_) => name.clone(),
        Cow::Owned(folded) => folded.into(),
    }
}

/// The ids that start with these digits; `None` where they are no hexadecimal digits or too many.
fn id_range(prefix: &str) -> Option<(Uuid, Uuid)> {
    if prefix.is_empty() || prefix.len() > 32 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let bits = u128::from_str_radix(prefix, 16).ok()?;
    let free = 128 - 4 * prefix.len() as u32;
    let low = bits.checked_shl(free).unwrap_or(bits);
    let high = low | 1u128.checked_shl(free).map_or(u128::MAX, |bit| bit.wrapping_sub(1));
    Some((Uuid::from_u128(low), Uuid::from_u128(if free == 0 { low } else { high })))
}

impl Catalog {
    /// What holds after every `apply`: rows are found under their own names, and every joined instance says what the
    /// rows say. Tests call it after each step.
    ///
    /// # Panics
    /// Where a promise is broken.
    pub fn assert_consistent(&self) {
        assert!(self.nodes.len() == self.node_names.len(), "every node is listed once");
        assert!(self.services.len() == self.service_names.len(), "every service is listed once");
        let (mut instances, mut residents) = (0, 0);
        let mut lives = |resident: Option<Resident>| {
            residents += usize::from(resident.is_some());
            resident.is_none_or(|own| self.residents.get_prev(&own).is_some_and(|found| found.is_same(&own)))
        };
        for home in self.nodes() {
            let name = &home.node.name;
            assert!(
                self.node(&fold(name)).is_some_and(|found| Arc::ptr_eq(found, home)),
                "{name} is found by name"
            );
            assert!(
                home.node
                    .id
                    .is_none_or(|id| self.node_by_id(id).is_some_and(|found| Arc::ptr_eq(found, home)))
            );
            assert!(lives(Resident::node(&home.node)), "{name} is found by its address");
            for instance in home.instances() {
                instances += 1;
                let id = &instance.service.id;
                assert!(Arc::ptr_eq(&instance.node, &home.node), "{id} on {name} joins another node row");
                assert!(
                    Arc::ptr_eq(&instance.node_checks, &home.checks),
                    "{id} on {name} joins other node checks"
                );
                assert!(instance.checks.iter().all(|check| check.service_id.eq_ignore_ascii_case(id)));
                assert!(home.instance(&fold(id)).is_some(), "{id} on {name} is found by id");
                assert!(lives(Resident::service(instance)), "{id} on {name} is found by its address");
            }
        }
        assert_eq!(self.residents.len(), residents, "nobody is found at an address who is not there");
        assert!(
            self.ids.iter().all(|(id, name)| self.node(name).is_some_and(|home| home.node.id == Some(*id)))
        );
        for group in self.services() {
            assert!(group.instances().next().is_some(), "{} outlived its last instance", group.name());
            let place = |instance: &Instance| (fold_key(&instance.node.name), fold_key(&instance.service.id));
            let places: Vec<_> = group.instances().map(|instance| place(instance)).collect();
            assert!(places.is_sorted_by(|a, b| a < b), "{} is in order", group.name());
            for instance in group.instances() {
                instances -= 1;
                assert!(*fold_key(&instance.service.name) == **group.key());
                let home = self.node(&fold(&instance.node.name)).expect("the node of an instance exists");
                let own = home.instance(&fold(&instance.service.id)).expect("an instance stands on its node");
                assert!(Arc::ptr_eq(own, instance), "group and node hold one and the same instance");
            }
        }
        assert_eq!(instances, 0, "every instance stands in a group");
        self.kv.assert_consistent(|session| self.session(session).is_some());
        self.sessions.assert_consistent(
            |node, check| {
                let vouches = |home: &Arc<Home>| {
                    let mut checks = home.all_checks();
                    checks.any(|own| *fold(&own.id) == **check && own.status != Status::Critical)
                };
                self.node(node).is_some_and(vouches)
            },
            |node| self.node(node).is_some(),
        );
        self.queries.assert_consistent(|session| self.session(session).is_some());
        assert!(
            self.coordinates().all(|of| self.node(&fold(&of.node)).is_some()),
            "no coordinate outlives its node"
        );
    }
}

#[cfg(test)]
mod tests;
