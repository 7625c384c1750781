//! A catalog taken apart into rows, and put together again: what a snapshot is made of. The rows are plain values; how
//! they are written out, and where, is not known here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Autopilot, Blob, Catalog, Entry, Group, HashMap, Home, Instance, Key, LockDelay, NodeCoordinate, Query,
    Session, Table, fold, fold_key,
    record::{Check, Node, Service, Text},
    resident::Resident,
    restore::Staging,
    share::alike,
};

/// A piece of a catalog. They come in this order: the indexes, the services' names, the nodes with all that is on
/// them, then whatever stands beside these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Row {
    Indexes(Indexes),
    /// A service by the spelling of its first registration, and the index of its newest change.
    Group {
        name: Text,
        index: u64,
    },
    Node(NodeRow),
    Session(Arc<Session>),
    Entry(Arc<Entry>),
    Tombstone {
        key: Blob,
        index: u64,
    },
    LockDelay {
        key: Blob,
        delay: LockDelay,
    },
    /// More services of the node that came last: one with very many is told in pieces.
    MoreServices(Vec<ServiceRow>),
    Coordinate(Arc<NodeCoordinate>),
    Query(Arc<Query>),
    Autopilot(Arc<Autopilot>),
    /// A piece of a catalog that is to take this one's place. The first of them, without rows, begins it.
    Staged {
        id: Uuid,
        rows: Arc<[Row]>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Indexes {
    pub index: u64,
    pub nodes: u64,
    pub services: u64,
    pub checks: u64,
    pub service_gone: u64,
    pub node_gone: u64,
    pub kv: u64,
    pub tombstones: u64,
    pub sessions: u64,
    pub coordinates: u64,
    pub queries: u64,
    pub autopilot: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRow {
    pub node: Arc<Node>,
    pub index: u64,
    /// Of the node itself.
    pub checks: Vec<Arc<Check>>,
    pub services: Vec<ServiceRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceRow {
    pub service: Arc<Service>,
    pub checks: Vec<Arc<Check>>,
}

/// Rows that cannot be of one catalog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("no row of indexes comes first")]
    NoIndexes,
    #[error("the service {0:?} has instances and no row of its own")]
    NoGroup(Text),
    #[error("the service {0:?} has two rows of its own")]
    SecondGroup(Text),
    #[error("the index {0} is beyond any that a catalog comes to")]
    FarIndex(u64),
    #[error("the service {0:?} has a row and no instance")]
    NoInstance(Text),
    #[error("the node {0:?}, or a service on it, comes twice or out of order")]
    Order(Text),
    #[error("the key {0:?} is held by a session that is not there")]
    NoHolder(Blob),
    #[error("a session is on the node {0:?}, which is not there")]
    NoNodeUnder(Text),
    #[error("services come before any node")]
    NoNode,
    #[error("the node {0:?} has a coordinate and is not there")]
    NoNodeOf(Text),
    #[error("the query {0} is bound to a session that is not there")]
    NoSessionOf(Uuid),
}

/// What comes after is counted from there, and must not run out.
const INDEX_MAX: u64 = 1 << 62;
/// Services that a row tells of.
const SERVICES_MAX: usize = 64;

impl Catalog {
    /// Takes the catalog apart. Nothing is copied but the rows themselves.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let indexes = Row::Indexes(Indexes {
            index: self.index,
            nodes: self.table_index(Table::Nodes),
            services: self.table_index(Table::Services),
            checks: self.table_index(Table::Checks),
            service_gone: self.service_gone,
            node_gone: self.node_gone,
            kv: self.table_index(Table::Kv),
            tombstones: self.table_index(Table::Tombstones),
            sessions: self.table_index(Table::Sessions),
            coordinates: self.table_index(Table::Coordinates),
            queries: self.table_index(Table::Queries),
            autopilot: self.table_index(Table::Autopilot),
        });
        let groups = self.services().map(|group| Row::Group { name: group.name.clone(), index: group.index });
        let nodes = self.nodes().flat_map(|home| home.rows());
        let sessions = self.sessions().cloned().map(Row::Session);
        let entries = self.entries().cloned().map(Row::Entry);
        let tombstones = self.tombstones().map(|(key, index)| Row::Tombstone { key: key.clone(), index });
        let delays = self.lock_delays().map(|(key, delay)| Row::LockDelay { key: key.clone(), delay });
        let coordinates = self.coordinates().cloned().map(Row::Coordinate);
        let queries = self.queries().cloned().map(Row::Query);
        let autopilot = self.autopilot.iter().cloned().map(Row::Autopilot);
        let staged = self.staging.iter().flat_map(|staging| staging.rows());
        let beside = sessions
            .chain(entries)
            .chain(tombstones)
            .chain(delays)
            .chain(coordinates)
            .chain(queries)
            .chain(autopilot);
        [indexes].into_iter().chain(groups).chain(nodes).chain(beside).chain(staged)
    }

    /// Puts a catalog together from what [`Catalog::rows`] gave.
    ///
    /// # Errors
    /// The first fault of the rows, or of the source they come from.
    pub fn from_rows<E: From<Mismatch>>(
        rows: impl IntoIterator<Item = Result<Row, E>>,
    ) -> Result<Catalog, E> {
        let mut building = Building::default();
        for row in rows {
            building.add(row?)?;
        }
        Ok(building.finish()?)
    }
}

impl Home {
    fn rows(&self) -> impl Iterator<Item = Row> {
        let mut services = self.instances().map(|instance| ServiceRow {
            service: instance.service.clone(),
            checks: instance.checks.to_vec(),
        });
        let first = NodeRow {
            node: self.node.clone(),
            index: self.index,
            checks: self.checks.to_vec(),
            services: services.by_ref().take(SERVICES_MAX).collect(),
        };
        let more = std::iter::from_fn(move || {
            let more: Vec<ServiceRow> = services.by_ref().take(SERVICES_MAX).collect();
            (!more.is_empty()).then_some(Row::MoreServices(more))
        });
        [Row::Node(first)].into_iter().chain(more)
    }
}

impl Staging {
    fn rows(&self) -> impl Iterator<Item = Row> {
        let piece = |rows: Arc<[Row]>| Row::Staged { id: self.id, rows };
        [Arc::from([])].into_iter().chain(self.pieces.iter().cloned()).map(piece)
    }
}

/// A catalog on its way; nodes come in order, so that each service's instances do.
#[derive(Default)]
struct Building {
    catalog: Catalog,
    has_indexes: bool,
    groups: HashMap<Key, Gathered>,
    /// The row before: the likeliest to say the same things.
    last_node: Option<Arc<Node>>,
    last_check: Option<Arc<Check>>,
}

/// A service whose instances are being found.
#[derive(Clone)]
struct Gathered {
    name: Text,
    index: u64,
    instances: Vec<Arc<Instance>>,
}

impl Building {
    fn add(&mut self, row: Row) -> Result<(), Mismatch> {
        match row {
            Row::Indexes(Indexes { index, .. }) if index > INDEX_MAX => {
                return Err(Mismatch::FarIndex(index));
            }
            Row::Indexes(indexes) => self.add_indexes(&indexes),
            _ if !self.has_indexes => return Err(Mismatch::NoIndexes),
            Row::Group { name, index } => {
                let gathered = Gathered { name: name.clone(), index, instances: Vec::new() };
                if self.groups.insert(fold_key(&name), gathered).is_some() {
                    return Err(Mismatch::SecondGroup(name));
                }
            }
            Row::Node(row) => self.add_node(row)?,
            Row::Session(session) => self.add_session(session)?,
            Row::Entry(entry) => self.add_entry(entry)?,
            Row::Tombstone { key, index } => self.catalog.kv.restore_tombstone(key, index),
            Row::LockDelay { key, delay } => self.catalog.kv.restore_delay(key, delay),
            Row::MoreServices(services) => self.add_services(services)?,
            Row::Coordinate(coordinate) => self.add_coordinate(coordinate)?,
            Row::Query(query) => self.add_query(query)?,
            Row::Autopilot(autopilot) => self.catalog.autopilot = Some(autopilot),
            Row::Staged { id, rows } => self.add_staged(id, rows),
        }
        Ok(())
    }

    fn add_session(&mut self, session: Arc<Session>) -> Result<(), Mismatch> {
        if self.catalog.node(&fold(&session.node)).is_none() {
            return Err(Mismatch::NoNodeUnder(session.node.clone()));
        }
        self.catalog.sessions.insert(session);
        Ok(())
    }

    fn add_entry(&mut self, entry: Arc<Entry>) -> Result<(), Mismatch> {
        if entry.session.is_some_and(|session| self.catalog.session(session).is_none()) {
            return Err(Mismatch::NoHolder(entry.key.clone()));
        }
        self.catalog.kv.restore(entry);
        Ok(())
    }

    fn add_indexes(&mut self, indexes: &Indexes) {
        self.has_indexes = true;
        let tables = [
            (Table::Nodes, indexes.nodes),
            (Table::Services, indexes.services),
            (Table::Checks, indexes.checks),
            (Table::Kv, indexes.kv),
            (Table::Tombstones, indexes.tombstones),
            (Table::Sessions, indexes.sessions),
            (Table::Coordinates, indexes.coordinates),
            (Table::Queries, indexes.queries),
            (Table::Autopilot, indexes.autopilot),
        ];
        for (table, index) in tables {
            self.catalog.tables[table as usize] = index;
        }
        (self.catalog.index, self.catalog.service_gone, self.catalog.node_gone) =
            (indexes.index, indexes.service_gone, indexes.node_gone);
    }

    fn add_coordinate(&mut self, coordinate: Arc<NodeCoordinate>) -> Result<(), Mismatch> {
        let node = fold_key(&coordinate.node);
        if self.catalog.node(&node).is_none() {
            return Err(Mismatch::NoNodeOf(coordinate.node.clone()));
        }
        self.catalog.coordinates.insert((node, coordinate.segment.clone()), coordinate);
        Ok(())
    }

    fn add_query(&mut self, query: Arc<Query>) -> Result<(), Mismatch> {
        if query.session.is_some_and(|session| self.catalog.session(session).is_none()) {
            return Err(Mismatch::NoSessionOf(query.id));
        }
        self.catalog.queries.insert(query);
        Ok(())
    }

    fn add_staged(&mut self, id: Uuid, rows: Arc<[Row]>) {
        let staging =
            self.catalog.staging.get_or_insert_with(|| Arc::new(Staging { id, pieces: Vec::new() }));
        if !rows.is_empty() {
            Arc::make_mut(staging).pieces.push(rows);
        }
    }

    fn add_node(&mut self, row: NodeRow) -> Result<(), Mismatch> {
        let NodeRow { node, index, checks, services } = row;
        let mut node = Arc::unwrap_or_clone(node);
        let models: Vec<&Node> = self.last_node.iter().map(|node| &**node).collect();
        self.catalog.words.node(&mut node, &models);
        let (key, node) = (fold_key(&node.name), Arc::new(node));
        if self.catalog.node_names.get_max().is_some_and(|last| *last >= key) {
            return Err(Mismatch::Order(node.name.clone()));
        }
        self.last_node = Some(node.clone());
        let checks: Arc<[Arc<Check>]> =
            checks.into_iter().map(|check| self.shared_check(check, &node, None)).collect();
        let mut home = Home { node, checks, instances: Default::default(), index };
        self.add_instances(&mut home, services)?;
        if let Some(id) = home.node.id {
            self.catalog.ids.insert(id, key.clone());
        }
        self.catalog.residents.extend(Resident::node(&home.node));
        self.catalog.node_names.insert(key.clone());
        self.catalog.nodes.insert(key, Arc::new(home));
        Ok(())
    }

    fn add_services(&mut self, services: Vec<ServiceRow>) -> Result<(), Mismatch> {
        let last = self.last_node.as_ref().and_then(|node| self.catalog.node(&fold(&node.name)));
        let mut home = last.map(|home| Home::clone(home)).ok_or(Mismatch::NoNode)?;
        self.add_instances(&mut home, services)?;
        self.catalog.nodes.insert(fold_key(&home.node.name), Arc::new(home));
        Ok(())
    }

    fn add_instances(&mut self, home: &mut Home, services: Vec<ServiceRow>) -> Result<(), Mismatch> {
        for ServiceRow { service, checks } in services {
            let instance = self.instance(home, service, checks)?;
            let key = fold_key(&instance.service.id);
            if home.instances.get_max().is_some_and(|(last, _)| *last >= key) {
                return Err(Mismatch::Order(home.node.name.clone()));
            }
            self.catalog.residents.extend(Resident::service(&instance));
            home.instances.insert(key, instance);
        }
        Ok(())
    }

    fn instance(
        &mut self,
        home: &Home,
        service: Arc<Service>,
        checks: Vec<Arc<Check>>,
    ) -> Result<Arc<Instance>, Mismatch> {
        let mut service = Arc::unwrap_or_clone(service);
        let Some(gathered) = self.groups.get(&fold_key(&service.name)) else {
            return Err(Mismatch::NoGroup(service.name.clone()));
        };
        let models: Vec<&Service> = gathered.instances.last().iter().map(|last| &*last.service).collect();
        self.catalog.words.service(&mut service, &home.node, &models);
        alike(&mut service.name, [&gathered.name]);
        let (key, service) = (fold_key(&gathered.name), Arc::new(service));
        let checks =
            checks.into_iter().map(|check| self.shared_check(check, &home.node, Some(&service))).collect();
        let instance = Arc::new(Instance::new(home.node.clone(), home.checks.clone(), service, checks));
        if let Some(gathered) = self.groups.get_mut(&key) {
            gathered.instances.push(instance.clone());
        }
        Ok(instance)
    }

    /// What a check repeats of its node and service is theirs.
    fn shared_check(&mut self, check: Arc<Check>, node: &Node, service: Option<&Arc<Service>>) -> Arc<Check> {
        let mut check = Arc::unwrap_or_clone(check);
        let models: Vec<&Check> = self.last_check.iter().map(|check| &**check).collect();
        self.catalog.words.check(&mut check, &models);
        alike(&mut check.node, [&node.name]);
        if let Some(service) = service {
            alike(&mut check.service_id, [&service.id]);
            alike(&mut check.service_name, [&service.name]);
            alike(&mut check.service_tags, [&service.tags]);
        }
        let check = Arc::new(check);
        self.last_check = Some(check.clone());
        check
    }

    fn finish(mut self) -> Result<Catalog, Mismatch> {
        if !self.has_indexes {
            return Err(Mismatch::NoIndexes);
        }
        for (key, Gathered { name, index, instances }) in self.groups {
            let group = Group::of(key.clone(), name.clone(), index, instances);
            if group.is_empty() {
                return Err(Mismatch::NoInstance(name));
            }
            self.catalog.service_names.insert(key.clone());
            self.catalog.services.insert(key, Arc::new(group));
        }
        Ok(self.catalog)
    }
}
