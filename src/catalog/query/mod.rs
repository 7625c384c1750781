//! Prepared queries: questions for a service that are asked by name (`cluster.md` §1.9). The records and the table; what
//! a template makes of a name stands in `template`, what a query finds in `execute`.

mod execute;
mod template;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Catalog, Key, Map, Refusal, Table, Topic, fold_key, record::Text, write::Write};

pub use execute::{Executed, Source};
pub use template::{InvalidTemplate, NoQuery};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Query {
    pub id: Uuid,
    /// By which it is asked for, in any case; of a template, how such names begin. May be empty.
    pub name: Text,
    /// With which it ends.
    pub session: Option<Uuid>,
    /// In whose right it is asked; empty for that of whoever asks.
    pub token: Text,
    pub template: Template,
    pub service: ServiceQuery,
    /// As it was given; empty where nothing was.
    pub ttl: Text,
    /// The same in seconds, a fraction cut off.
    pub ttl_secs: Option<u32>,
    pub created: u64,
    pub modified: u64,
}

/// How a query's fields come from the name that is asked for. Without a kind it is no template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Template {
    pub kind: Text,
    pub regexp: Text,
    pub remove_empty_tags: bool,
}

/// Which instances are wanted. Lists and maps that nobody gave are `None`, and show as `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceQuery {
    pub service: Text,
    pub failover: Failover,
    /// Without those that have a warning, too.
    pub only_passing: bool,
    /// Checks that are not looked at.
    pub ignore_checks: Option<Arc<[Text]>>,
    /// A node, `_agent`, or `_ip`: the nearest to it come first.
    pub near: Text,
    /// All of them; none of those behind a `!`.
    pub tags: Option<Arc<[Text]>>,
    pub node_meta: Option<Map<Text>>,
    pub service_meta: Option<Map<Text>>,
    /// Only instances that take part in the mesh.
    pub connect: bool,
    /// Only instances that come from this peer.
    pub peer: Text,
}

/// Whom else to ask where there is no instance here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failover {
    /// So many datacenters, the nearest first.
    pub nearest: u64,
    /// Then these, in order.
    pub datacenters: Option<Arc<[Text]>>,
    /// These instead, in order.
    pub targets: Option<Arc<[FailoverTarget]>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailoverTarget {
    pub peer: Text,
    pub datacenter: Text,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueryWrite {
    /// With an id that nobody has.
    Create(Box<Query>),
    /// The one with this id.
    Update(Box<Query>),
    Delete(Uuid),
}

#[derive(Clone, Default)]
pub(super) struct Queries {
    rows: imbl::OrdMap<Uuid, Arc<Query>>,
    /// By name, lower-cased; templates, too. Of those without a name only a template stands here.
    by_name: imbl::OrdMap<Key, Uuid>,
    by_session: imbl::OrdSet<(Uuid, Uuid)>,
}

/// The only kind of template there is.
pub(super) const PREFIX: &str = "name_prefix_match";

impl Query {
    pub fn is_template(&self) -> bool {
        !self.template.kind.is_empty()
    }

    /// Where it is found by name.
    fn key(&self) -> Option<Key> {
        (!self.name.is_empty() || self.is_template()).then(|| fold_key(&self.name))
    }
}

impl Catalog {
    pub fn query(&self, id: Uuid) -> Option<&Arc<Query>> {
        self.queries.rows.get(&id)
    }

    /// By id.
    pub fn queries(&self) -> impl Iterator<Item = &Arc<Query>> {
        self.queries.rows.values()
    }

    fn query_by_name(&self, name: &str) -> Option<&Arc<Query>> {
        self.query(*self.queries.by_name.get(name)?)
    }
}

impl Queries {
    pub fn insert(&mut self, query: Arc<Query>) {
        if let Some(key) = query.key() {
            self.by_name.insert(key, query.id);
        }
        if let Some(session) = query.session {
            self.by_session.insert((session, query.id));
        }
        self.rows.insert(query.id, query);
    }

    fn remove(&mut self, id: Uuid) -> Option<Arc<Query>> {
        let query = self.rows.remove(&id)?;
        if let Some(key) = query.key() {
            self.by_name.remove(&key);
        }
        if let Some(session) = query.session {
            self.by_session.remove(&(session, id));
        }
        Some(query)
    }

    /// # Panics
    /// Where a promise is broken.
    pub fn assert_consistent(&self, has_session: impl Fn(Uuid) -> bool) {
        let named = self.rows.values().filter(|query| query.key().is_some()).count();
        assert_eq!(self.by_name.len(), named, "every name is of one query");
        for query in self.rows.values() {
            let found = query.key().and_then(|key| self.by_name.get(&key));
            assert!(query.key().is_none() || found == Some(&query.id), "{} is found by name", query.id);
            if let Some(session) = query.session {
                assert!(has_session(session), "{} outlived its session", query.id);
                assert!(self.by_session.contains(&(session, query.id)));
            }
        }
        let bound = self.rows.values().filter(|query| query.session.is_some()).count();
        assert_eq!(self.by_session.len(), bound);
    }
}

impl Write<'_> {
    pub fn query(&mut self, write: QueryWrite) -> Result<(), Refusal> {
        match write {
            QueryWrite::Create(query) => self.put_query(*query),
            QueryWrite::Update(query) if self.catalog.query(query.id).is_none() => {
                Err(Refusal::NoQuery(query.id))
            }
            QueryWrite::Update(query) => self.put_query(*query),
            QueryWrite::Delete(id) => {
                self.catalog.queries.remove(id).ok_or(Refusal::NoQuery(id))?;
                self.touch(Table::Queries, [Topic::Queries, Topic::Query(id)]);
                Ok(())
            }
        }
    }

    /// Every write raises the index, also of one that says the same.
    fn put_query(&mut self, mut query: Query) -> Result<(), Refusal> {
        let catalog = &self.catalog;
        let holder = query.key().and_then(|key| catalog.query_by_name(&key));
        if holder.is_some_and(|holder| holder.id != query.id) {
            return Err(match query.name.is_empty() {
                true => Refusal::SecondCatchAll,
                false => Refusal::QueryNameTaken(query.name),
            });
        }
        if query.name.parse().is_ok_and(|id: Uuid| catalog.query(id).is_some()) {
            return Err(Refusal::QueryNameIsId(query.name));
        }
        if let Some(session) = query.session.filter(|session| catalog.session(*session).is_none()) {
            return Err(Refusal::NoSession(session.to_string().into()));
        }
        query.created = catalog.query(query.id).map_or(self.index, |former| former.created);
        query.modified = self.index;
        let id = query.id;
        self.catalog.queries.remove(id);
        self.catalog.queries.insert(Arc::new(query));
        self.touch(Table::Queries, [Topic::Queries, Topic::Query(id)]);
        Ok(())
    }

    /// Those that end with a session.
    pub fn forget_queries_of(&mut self, session: Uuid) {
        let bound = &self.catalog.queries.by_session;
        let bound = bound.range((session, Uuid::nil())..).take_while(|(of, _)| *of == session);
        let ids: Vec<Uuid> = bound.map(|(_, id)| *id).collect();
        for id in ids {
            self.catalog.queries.remove(id);
            self.touch(Table::Queries, [Topic::Queries, Topic::Query(id)]);
        }
    }
}

#[cfg(test)]
mod tests;
