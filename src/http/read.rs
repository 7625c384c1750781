//! Reads of the catalog: how fresh they are, the index that each reports, and waiting for it to rise (`http-api.md` §3).
//! Register first, then read: a change in between is not missed.

use std::{sync::Arc, time::Duration};

use hyper::StatusCode;
use uuid::Uuid;

use super::{
    agent::Pending,
    call::{Api, Call, Consistency, Options},
    encode::Json,
    list::{Form, List},
    reply::{Body, Fault, Outcome, Reply},
};
use crate::catalog::{Blob, Catalog, Home, Key, Status, Table, Topic, Woken, fold};

/// What a read is about: from this follow its index, and what it waits on (§3.2).
#[derive(Debug)]
pub enum Scope {
    Nodes,
    Services {
        /// Only those on nodes with some meta.
        by_node: bool,
    },
    Service {
        key: Key,
        /// With their checks.
        checks: bool,
    },
    /// As it was asked for: a name, an id, or the start of one.
    Node(String),
    NodeChecks(Key),
    ServiceChecks(Key),
    State(String),
    Coordinates,
    Coordinate(Key),
    Queries,
    Query(Uuid),
    /// What is never there.
    Absent,
    /// A key.
    Entry(Blob),
    /// All keys that begin so.
    Entries(Blob),
    Sessions,
    Session(Uuid),
    NodeSessions(Key),
}

impl Call {
    /// Waits as asked, then writes the answer from one catalog.
    ///
    /// # Errors
    /// A parameter that cannot be read, or nobody leads and the answer must not be stale.
    pub async fn read(&self, scope: Scope, write: impl FnOnce(&Catalog, &mut Json)) -> Outcome {
        let answer = |catalog: &Catalog| {
            let mut json = Json::default();
            write(catalog, &mut json);
            Body::Json(json.into_bytes())
        };
        self.read_as(scope, answer).await
    }

    /// As `read`: every instance of a service, or every passing one, from what is kept of them.
    pub fn read_list(&self, key: &str, form: Form, passing: bool) -> Pending<'static, Outcome> {
        let key: Key = key.into();
        let scope = Scope::Service { key: key.clone(), checks: form == Form::Health };
        let list = move |catalog: &Catalog| {
            Reply::new(StatusCode::OK, Body::List(List::of(catalog.service(&key), form, passing)))
        };
        match self.reading(scope) {
            Ok(reading) => Box::pin(reading.answered(list)),
            Err(fault) => Box::pin(std::future::ready(Err(fault))),
        }
    }

    /// As `read`, of what does not say how fresh it is: keys and sessions. The answer is any.
    pub async fn read_plain(&self, scope: Scope, answer: impl FnOnce(&Catalog) -> Reply) -> Outcome {
        Reading { shows_mode: false, ..self.reading(scope)? }.answered(answer).await
    }

    async fn read_as(&self, scope: Scope, answer: impl FnOnce(&Catalog) -> Body) -> Outcome {
        self.reading(scope)?.answered(|catalog| Reply::new(StatusCode::OK, answer(catalog))).await
    }

    fn reading(&self, scope: Scope) -> Result<Reading, Fault> {
        let options = self.options()?;
        let cached = scope.is_cached() && self.may_be_cached();
        self.may_answer(if cached { Consistency::Stale } else { options.consistency })?;
        let shows_mode = !matches!(scope, Scope::Coordinates | Scope::Coordinate(_));
        Ok(Reading { api: self.api.clone(), scope, options, cached, shows_mode })
    }

    /// # Errors
    /// Where nobody leads and the answer must not be stale.
    pub fn may_answer(&self, consistency: Consistency) -> Result<(), Fault> {
        let led = self.api.agent.leader().is_some();
        let heard = self.api.agent.catalog().index() > 0;
        match led || (consistency == Consistency::Stale && heard) {
            true => Ok(()),
            false => Err(Fault::failed("No cluster leader")),
        }
    }
}

/// A read whose parameters were read: all that is held of it while it waits, for thousands may.
struct Reading {
    api: Arc<Api>,
    scope: Scope,
    options: Options,
    cached: bool,
    /// Whether the answer says how fresh it was asked to be.
    shows_mode: bool,
}

impl Reading {
    async fn answered(self, answer: impl FnOnce(&Catalog) -> Reply) -> Outcome {
        let catalog = self.awaited().await;
        let led = self.api.agent.leader().is_some();
        let mut reply = answer(&catalog)
            .with_number("x-consul-index", self.scope.index(&catalog))
            .with_static("x-consul-knownleader", if led { "true" } else { "false" })
            .with_number("x-consul-lastcontact", 0)
            .with_static("x-consul-query-backend", "blocking-query");
        if self.shows_mode {
            reply = reply.with_static("x-consul-effective-consistency", self.options.consistency.as_str());
        }
        Ok(if self.cached { reply.remembered() } else { reply })
    }

    /// The catalog in which the scope's index is above the one asked for, or the newest one when the wait is over.
    async fn awaited(&self) -> Arc<Catalog> {
        let (agent, scope, options) = (&self.api.agent, &self.scope, &self.options);
        let mut catalog = agent.catalog();
        let is_above = |catalog: &Catalog| options.index == 0 || scope.index(catalog) > options.index;
        if is_above(&catalog) {
            return catalog;
        }
        let over = tokio::time::sleep(options.wait + jitter(options.wait));
        tokio::pin!(over);
        loop {
            let changed = agent.subscribe(scope.topics(&catalog));
            catalog = agent.catalog();
            if is_above(&catalog) {
                return catalog;
            }
            // Whoever holds an old catalog while he waits keeps all of it that has changed since.
            drop(catalog);
            let goes_on = tokio::select! {
                biased; // most that wake are woken by a change: then the others are not looked at
                woken = changed => woken == Woken::ByChange,
                () = &mut over => false,
                () = self.api.stop.cancelled() => false,
            };
            catalog = agent.catalog();
            if !goes_on || is_above(&catalog) {
                return catalog;
            }
        }
    }
}

/// Up to a sixteenth of the wait, so that those who asked together do not all come back together.
pub fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(fastrand::f64() / 16.0)
}

impl Scope {
    /// Never 0: to clients that means no index at all.
    pub fn index(&self, catalog: &Catalog) -> u64 {
        let newest = |tables: &[Table]| tables.iter().map(|table| catalog.table_index(*table)).max();
        let index = match self {
            Scope::Nodes => newest(&[Table::Nodes]),
            Scope::Services { by_node: false } => newest(&[Table::Services]),
            Scope::Services { by_node: true } => newest(&[Table::Services, Table::Nodes]),
            Scope::Service { key, checks } => match catalog.service(key) {
                Some(group) => Some(group.index()),
                None if catalog.service_gone() > 0 => Some(catalog.service_gone()),
                None if *checks => newest(&[Table::Nodes, Table::Services, Table::Checks]),
                None => newest(&[Table::Nodes, Table::Services]),
            },
            Scope::Node(asked) => {
                Some(find_node(catalog, asked).map_or(catalog.node_gone(), |home| home.index()))
            }
            Scope::Absent => None,
            Scope::NodeChecks(_) | Scope::ServiceChecks(_) | Scope::State(_) => newest(&[Table::Checks]),
            Scope::Coordinates | Scope::Coordinate(_) => newest(&[Table::Coordinates]),
            Scope::Queries | Scope::Query(_) => newest(&[Table::Queries]),
            Scope::Entry(key) => Some(catalog.entry_index(key)),
            Scope::Entries(prefix) => Some(catalog.entries_index(prefix)),
            Scope::Sessions | Scope::Session(_) | Scope::NodeSessions(_) => newest(&[Table::Sessions]),
        };
        index.unwrap_or(0).max(1)
    }

    /// Whether Consul keeps such answers in its agents' caches.
    fn is_cached(&self) -> bool {
        matches!(self, Scope::Services { .. } | Scope::Service { .. })
    }

    fn topics(&self, catalog: &Catalog) -> Vec<Topic> {
        match self {
            Scope::Nodes => vec![Topic::Nodes],
            Scope::Services { by_node: false } => vec![Topic::Services],
            Scope::Services { by_node: true } => vec![Topic::Services, Topic::Nodes],
            Scope::Service { key, .. } if catalog.service(key).is_some() => vec![Topic::Service(key.clone())],
            Scope::Service { key, .. } => vec![Topic::Service(key.clone()), Topic::ServiceGone],
            Scope::Node(asked) => match find_node(catalog, asked) {
                Some(home) => vec![Topic::Node(fold(&home.node().name).into())],
                // By an id it may come under any name.
                None => vec![Topic::Nodes, Topic::NodeGone],
            },
            Scope::Absent => vec![],
            Scope::NodeChecks(node) => vec![Topic::NodeChecks(node.clone())],
            Scope::ServiceChecks(key) => vec![Topic::Service(key.clone())],
            Scope::State(state) if state == ANY => vec![Topic::Checks],
            Scope::State(state) => vec![Topic::State(Status::from(state.as_str()))],
            Scope::Coordinates => vec![Topic::Coordinates],
            Scope::Coordinate(node) => vec![Topic::Coordinate(node.clone())],
            Scope::Queries => vec![Topic::Queries],
            Scope::Query(id) => vec![Topic::Query(*id)],
            Scope::Entry(key) => vec![Topic::Kv(key.clone())],
            Scope::Entries(prefix) => vec![Topic::KvTree(prefix.clone())],
            Scope::Sessions => vec![Topic::Sessions],
            Scope::Session(id) => vec![Topic::Session(*id)],
            Scope::NodeSessions(node) => vec![Topic::NodeSessions(node.clone())],
        }
    }
}

/// The state that every check is in.
pub const ANY: &str = "any";

/// By name, else by id, else by the start of an id that only one node has.
pub fn find_node<'a>(catalog: &'a Catalog, asked: &str) -> Option<&'a Arc<Home>> {
    let by_prefix = || {
        let digits = asked.replace('-', "");
        (digits.len() >= 2).then(|| catalog.node_by_id_prefix(&digits)).flatten()
    };
    catalog.node(&fold(asked)).or_else(by_prefix)
}
