//! Sessions: who may hold locks, for as long as its node, its checks and its own word vouch for it (`cluster.md` §1.6).
//! A session's time is measured elsewhere; here it only ends.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Catalog, Key, Refusal, Status, Table, Text, Topic, fold, fold_key, write::Write};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    pub id: Uuid,
    pub name: Text,
    /// The name of a node.
    pub node: Text,
    /// In nanoseconds, as it was given: below 0 is none, and none lasts longer than a minute.
    pub lock_delay: i64,
    pub behavior: Behavior,
    /// As it was given; empty where there is none.
    pub ttl: Text,
    /// The same in nanoseconds; 0 where there is none.
    pub ttl_nanos: u64,
    /// Ids of checks on its node. `None` where it was said to have none, which shows as `null`.
    pub node_checks: Option<Arc<[Text]>>,
    pub service_checks: Option<Arc<[SessionCheck]>>,
    /// Checks named in the old way, beside the node's.
    pub checks: Option<Arc<[Text]>>,
    pub created: u64,
    pub modified: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionCheck {
    pub id: Text,
    pub namespace: Text,
}

/// What becomes of the keys that a session held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Behavior {
    #[default]
    Release,
    Delete,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionWrite {
    Create(Box<Session>),
    Destroy(Uuid),
}

#[derive(Clone, Default)]
pub(super) struct Sessions {
    rows: imbl::OrdMap<Uuid, Arc<Session>>,
    by_node: imbl::OrdSet<(Key, Uuid)>,
    /// By node and id of a check.
    by_check: imbl::OrdSet<(Key, Key, Uuid)>,
}

impl Default for Session {
    fn default() -> Self {
        Session {
            id: Uuid::nil(),
            name: Text::default(),
            node: Text::default(),
            lock_delay: 0,
            behavior: Behavior::default(),
            ttl: Text::default(),
            ttl_nanos: 0,
            node_checks: None,
            service_checks: None,
            checks: None,
            created: 0,
            modified: 0,
        }
    }
}

impl Session {
    /// The ids of all checks that must not be critical.
    pub fn all_checks(&self) -> impl Iterator<Item = &Text> {
        let of_services = self.service_checks.iter().flat_map(|checks| checks.iter().map(|check| &check.id));
        self.node_checks.iter().chain(&self.checks).flat_map(|ids| ids.iter()).chain(of_services)
    }

    fn links(&self) -> impl Iterator<Item = (Key, Key, Uuid)> {
        let node = fold_key(&self.node);
        self.all_checks().map(move |check| (node.clone(), fold_key(check), self.id))
    }
}

impl Behavior {
    pub fn as_str(self) -> &'static str {
        match self {
            Behavior::Release => "release",
            Behavior::Delete => "delete",
        }
    }
}

impl Catalog {
    pub fn session(&self, id: Uuid) -> Option<&Arc<Session>> {
        self.sessions.rows.get(&id)
    }

    /// By id.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.rows.values()
    }

    /// Those of a node, by id; `node` is lower-cased (see [`fold`]).
    pub fn node_sessions(&self, node: &str) -> impl Iterator<Item = &Arc<Session>> {
        let node = Key::from(node);
        let from = (node.clone(), Uuid::nil());
        let ids = self.sessions.by_node.range(from..).take_while(move |(other, _)| *other == node);
        ids.filter_map(|(_, id)| self.session(*id))
    }
}

impl Sessions {
    pub fn insert(&mut self, session: Arc<Session>) {
        self.by_node.insert((fold_key(&session.node), session.id));
        self.by_check.extend(session.links());
        self.rows.insert(session.id, session);
    }

    fn remove(&mut self, id: Uuid) -> Option<Arc<Session>> {
        let session = self.rows.remove(&id)?;
        self.by_node.remove(&(fold_key(&session.node), id));
        for link in session.links() {
            self.by_check.remove(&link);
        }
        Some(session)
    }

    fn of_check(&self, node: &Key, check: &str) -> Vec<Uuid> {
        let check = Key::from(&*fold(check));
        let from = (node.clone(), check.clone(), Uuid::nil());
        let ids = self.by_check.range(from..).take_while(|(on, id, _)| on == node && *id == check);
        ids.map(|(_, _, session)| *session).collect()
    }

    /// # Panics
    /// Where a promise is broken.
    pub fn assert_consistent(&self, has_check: impl Fn(&Key, &Key) -> bool, has_node: impl Fn(&Key) -> bool) {
        assert_eq!(self.by_node.len(), self.rows.len());
        assert!(self.by_node.iter().all(|(node, id)| has_node(node) && self.rows.contains_key(id)));
        assert!(
            self.by_check
                .iter()
                .all(|(node, check, id)| { has_check(node, check) && self.rows.contains_key(id) })
        );
        let links: imbl::OrdSet<_> = self.rows.values().flat_map(|session| session.links()).collect();
        assert_eq!(links, self.by_check, "every session is found by its checks");
    }
}

impl Write<'_> {
    /// # Errors
    /// Where its node or a check of it is not there, or the check is critical.
    pub fn create_session(&mut self, mut session: Session) -> Result<(), Refusal> {
        let Some(home) = self.catalog.node(&fold(&session.node)) else { return Err(Refusal::NoSuchNode) };
        for id in session.all_checks() {
            match home.all_checks().find(|check| check.id.eq_ignore_ascii_case(id)) {
                None => return Err(Refusal::NoSuchCheck(id.clone())),
                Some(check) if check.status == Status::Critical => {
                    return Err(Refusal::CriticalCheck(id.clone()));
                }
                Some(_) => {}
            }
        }
        if self.catalog.session(session.id).is_some() {
            return Ok(());
        }
        (session.created, session.modified) = (self.index(), self.index());
        self.touch_session(&session);
        self.catalog.sessions.insert(Arc::new(session));
        Ok(())
    }

    /// With all that it held; nothing where there is no such session.
    pub fn destroy_session(&mut self, id: Uuid) {
        let Some(session) = self.catalog.sessions.remove(id) else { return };
        let delay = u64::try_from(session.lock_delay).unwrap_or(0);
        self.let_go(id, session.behavior == Behavior::Delete, delay);
        self.forget_queries_of(id);
        self.touch_session(&session);
    }

    /// A check failed, or is gone: nobody whom it vouched for stays.
    pub(super) fn end_vouching(&mut self, node: &Key, check: &str) {
        for id in self.catalog.sessions.of_check(node, check) {
            self.destroy_session(id);
        }
    }

    pub(super) fn end_sessions_on(&mut self, node: &Key) {
        let ids: Vec<Uuid> = self.catalog.node_sessions(node).map(|session| session.id).collect();
        for id in ids {
            self.destroy_session(id);
        }
    }

    fn touch_session(&mut self, session: &Session) {
        let node = fold_key(&session.node);
        self.touch(Table::Sessions, [Topic::Sessions, Topic::Session(session.id), Topic::NodeSessions(node)]);
    }
}
