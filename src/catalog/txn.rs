//! Transactions: operations one after the other on one catalog, all of them or none (`cluster.md` §1.8). What only reads
//! needs no log: it runs on a catalog that is thrown away.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Blob, Catalog, Changes, Check, Entry, Home, Instance, Key, KvVerb, KvWrite, Node, Refusal, Service, Text,
    fold, fold_key, write::Write,
};

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    Kv(KvOp),
    Node {
        verb: RowVerb,
        node: Box<Node>,
    },
    Service {
        verb: RowVerb,
        node: Text,
        service: Box<Service>,
    },
    /// On the node that the check names.
    Check {
        verb: RowVerb,
        check: Box<Check>,
    },
}

/// An operation on keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvOp {
    /// As it was asked for; see [`KvOp::is_read`].
    pub verb: Text,
    pub key: Blob,
    pub value: Blob,
    pub flags: u64,
    pub index: u64,
    /// As it was asked for, an id or not.
    pub session: Text,
}

/// What is done with a node, a service or a check; the record's `modified` is the index that `cas` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowVerb {
    Get,
    Set,
    Cas,
    Delete,
    DeleteCas,
    /// None of them.
    Unknown(Text),
}

/// What an operation yields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Found {
    /// Without its value where it was written.
    Entry(Arc<Entry>),
    Node(Arc<Node>),
    Service(Arc<Service>),
    Check(Arc<Check>),
}

/// An operation that failed, by its place, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpFault {
    pub at: usize,
    pub what: String,
}

type Faulty<T> = Result<T, String>;

impl KvOp {
    /// Whether it changes nothing; a verb that is none does not.
    pub fn is_read(&self) -> bool {
        !matches!(&*self.verb, "set" | "cas" | "lock" | "unlock" | "delete" | "delete-cas" | "delete-tree")
    }
}

impl Op {
    /// Whether a transaction of such operations needs no log. Nodes, services and checks go through it in any case.
    pub fn is_read(&self) -> bool {
        matches!(self, Op::Kv(op) if op.is_read())
    }
}

impl From<&str> for RowVerb {
    fn from(word: &str) -> Self {
        match word {
            "get" => RowVerb::Get,
            "set" => RowVerb::Set,
            "cas" => RowVerb::Cas,
            "delete" => RowVerb::Delete,
            "delete-cas" => RowVerb::DeleteCas,
            other => RowVerb::Unknown(other.into()),
        }
    }
}

impl Catalog {
    /// Runs operations and keeps nothing of what they write.
    ///
    /// # Errors
    /// Every operation that failed.
    pub fn look(&self, ops: Vec<Op>) -> Result<Vec<Found>, Vec<OpFault>> {
        self.clone().run(ops).0
    }

    /// All of it or nothing: it is done on a copy, which takes this one's place if nothing failed.
    pub(super) fn transact(&mut self, ops: Vec<Op>) -> (Result<Vec<Found>, Refusal>, Changes) {
        let mut next = self.clone();
        next.words = std::mem::take(&mut self.words);
        match next.run(ops) {
            (Ok(found), changes) => {
                *self = next;
                (Ok(found), changes)
            }
            (Err(faults), _) => {
                self.words = next.words;
                (Err(Refusal::Txn(faults)), Changes { index: self.index, ..Changes::default() })
            }
        }
    }

    fn run(&mut self, ops: Vec<Op>) -> (Result<Vec<Found>, Vec<OpFault>>, Changes) {
        let (mut found, mut faults) = (Vec::new(), Vec::new());
        let mut write = Write::new(self);
        for (at, op) in ops.into_iter().enumerate() {
            let done = match op {
                Op::Kv(op) => write.kv_op(op, &mut found),
                Op::Node { verb, node } => write.node_op(verb, *node, &mut found),
                Op::Service { verb, node, service } => write.service_op(verb, &node, *service, &mut found),
                Op::Check { verb, check } => write.check_op(verb, *check, &mut found),
            };
            faults.extend(done.err().map(|what| OpFault { at, what }));
        }
        let changes = write.finish();
        (if faults.is_empty() { Ok(found) } else { Err(faults) }, changes)
    }
}

impl Write<'_> {
    fn kv_op(&mut self, op: KvOp, found: &mut Vec<Found>) -> Faulty<()> {
        let KvOp { verb, key, value, flags, index, session } = op;
        if key.is_empty() && !matches!(&*verb, "get-tree" | "delete-tree") {
            return Err("Must provide key".into());
        }
        let entry = self.catalog.entry(&key).cloned();
        let write = match &*verb {
            "set" => KvVerb::Set,
            "cas" => KvVerb::Cas(index),
            "delete" => KvVerb::Delete,
            "delete-cas" => KvVerb::DeleteCas(index),
            "delete-tree" => KvVerb::DeleteTree,
            "lock" | "unlock" if session.is_empty() => return Err("missing session".into()),
            // A session that is none holds nothing.
            "unlock" => KvVerb::Unlock(session.parse().unwrap_or_default()),
            "lock" => {
                let id: Option<Uuid> = session.parse().ok();
                let known = id.filter(|id| self.catalog.session(*id).is_some());
                KvVerb::Lock(known.ok_or_else(|| format!("invalid session \"{session}\""))?)
            }
            _ => return self.kv_look(&verb, &key, entry, index, &session, found),
        };
        let refused = match write {
            KvVerb::Set | KvVerb::Cas(_) => format!("failed to set key \"{key}\", index is stale"),
            KvVerb::Lock(_) if self.catalog.lock_delay(&key).is_some() => {
                format!("failed to lock key \"{key}\" due to lock delay")
            }
            KvVerb::Lock(_) => format!("failed to lock key \"{key}\", lock is already held"),
            KvVerb::Unlock(_) => {
                format!("failed to unlock key \"{key}\", lock isn't held, or is held by another session")
            }
            _ => format!("failed to delete key \"{key}\", index is stale"),
        };
        let write = KvWrite { verb: write, key: key.clone(), value, flags };
        if !self.kv(write).map_err(|refusal| refusal.to_string())? {
            return Err(refused);
        }
        if let Some(entry) = self.catalog.entry(&key).filter(|_| !verb.starts_with("delete")) {
            found.push(Found::Entry(Arc::new(Entry { value: Blob::default(), ..Entry::clone(entry) })));
        }
        Ok(())
    }

    fn kv_look(
        &self,
        verb: &str,
        key: &Blob,
        entry: Option<Arc<Entry>>,
        index: u64,
        session: &str,
        found: &mut Vec<Found>,
    ) -> Faulty<()> {
        let missing = || format!("key \"{key}\" doesn't exist");
        match (verb, entry) {
            ("get", entry) => found.push(Found::Entry(entry.ok_or_else(missing)?)),
            ("get-or-empty", entry) => {
                let empty = || Arc::new(Entry { key: key.clone(), ..Entry::default() });
                found.push(Found::Entry(entry.unwrap_or_else(empty)));
            }
            ("get-tree", _) => found.extend(self.catalog.entries_under(key).cloned().map(Found::Entry)),
            ("check-not-exists", None) => {}
            ("check-not-exists", Some(_)) => return Err(format!("key \"{key}\" exists")),
            ("check-session", None) => return Err(format!("failed to check session, {}", missing())),
            ("check-session", Some(entry)) => {
                let holder = entry.session.map(|session| session.to_string()).unwrap_or_default();
                if !holder.eq_ignore_ascii_case(session) {
                    return Err(format!(
                        "failed session check for key \"{key}\", current session \"{holder}\" != \"{session}\""
                    ));
                }
            }
            ("check-index", None) => return Err(format!("failed to check index, {}", missing())),
            ("check-index", Some(entry)) if entry.modified != index => {
                return Err(format!(
                    "failed index check for key \"{key}\", current modify index {} != {index}",
                    entry.modified
                ));
            }
            ("check-index", Some(_)) => {}
            (verb, _) => return Err(format!("unknown KV verb \"{verb}\"")),
        }
        Ok(())
    }

    fn node_op(&mut self, verb: RowVerb, node: Node, found: &mut Vec<Found>) -> Faulty<()> {
        let name = node.name.clone();
        let here = match node.id.filter(|_| name.is_empty()) {
            Some(id) => self.catalog.node_by_id(id).cloned(),
            None => self.catalog.node(&fold(&name)).cloned(),
        };
        let stored = here.as_ref().map(|home| home.node().modified);
        match verb {
            RowVerb::Unknown(verb) => return Err(format!("unknown Node verb \"{verb}\"")),
            RowVerb::Get => {
                let here = here.ok_or_else(|| format!("node \"{name}\" doesn't exist"))?;
                found.push(Found::Node(here.node().clone()));
            }
            RowVerb::Cas if !is_current(stored, node.modified) => {
                return Err(format!("failed to set node \"{name}\", index is stale"));
            }
            RowVerb::Set | RowVerb::Cas => {
                self.register_node(node, false).map_err(|refusal| refusal.to_string())?;
                found.extend(self.catalog.node(&fold(&name)).map(|home| Found::Node(home.node().clone())));
            }
            RowVerb::DeleteCas if stored.is_some_and(|stored| stored != node.modified) => {
                return Err(format!("failed to delete node \"{name}\", index is stale"));
            }
            RowVerb::Delete | RowVerb::DeleteCas => {
                if let Some(here) = here {
                    self.remove_node(&fold_key(&here.node().name));
                }
            }
        }
        Ok(())
    }

    fn service_op(
        &mut self,
        verb: RowVerb,
        node: &Text,
        mut service: Service,
        found: &mut Vec<Found>,
    ) -> Faulty<()> {
        service.id = service.id_or_name().clone();
        let (id, key) = (service.id.clone(), fold_key(node));
        let here = self.instance(&key, &id);
        let stored = here.as_ref().map(|here| here.service.modified);
        let writes = !matches!(verb, RowVerb::Get | RowVerb::Unknown(_));
        if writes && service.name.is_empty() {
            return Err(Refusal::NoServiceName.to_string());
        }
        match verb {
            RowVerb::Unknown(verb) => return Err(format!("unknown Service verb \"{verb}\"")),
            RowVerb::Get => {
                let missing = || format!("service \"{id}\" on node \"{node}\" doesn't exist");
                found.push(Found::Service(here.ok_or_else(missing)?.service.clone()));
            }
            RowVerb::Cas if !is_current(stored, service.modified) => {
                return Err(format!("failed to set service \"{id}\" on node \"{node}\", index is stale"));
            }
            RowVerb::Set | RowVerb::Cas => {
                let on = self.home_of(&key)?.node().clone();
                self.catalog.plan_service(&on, &service).map_err(|refusal| refusal.to_string())?;
                self.put_service(&key, service);
                found.extend(self.instance(&key, &id).map(|here| Found::Service(here.service.clone())));
            }
            RowVerb::DeleteCas if stored.is_some_and(|stored| stored != service.modified) => {
                return Err(format!("failed to delete service \"{id}\" on node \"{node}\", index is stale"));
            }
            RowVerb::Delete | RowVerb::DeleteCas => self.remove_service(&key, &id),
        }
        Ok(())
    }

    fn check_op(&mut self, verb: RowVerb, check: Check, found: &mut Vec<Found>) -> Faulty<()> {
        let (id, node, key) = (check.id.clone(), check.node.clone(), fold_key(&check.node));
        let here = self.check_of(&key, &id);
        let stored = here.as_ref().map(|here| here.modified);
        match verb {
            RowVerb::Unknown(verb) => return Err(format!("unknown Check verb \"{verb}\"")),
            RowVerb::Get => {
                let missing = || format!("check \"{id}\" on node \"{node}\" doesn't exist");
                found.push(Found::Check(here.ok_or_else(missing)?));
            }
            RowVerb::Cas if !is_current(stored, check.modified) => {
                return Err(format!("failed to set check \"{id}\" on node \"{node}\", index is stale"));
            }
            RowVerb::Set | RowVerb::Cas => {
                let on = self.home_of(&key)?;
                if !check.service_id.is_empty() && on.instance(&fold(&check.service_id)).is_none() {
                    return Err("Missing service registration".into());
                }
                if id.is_empty() {
                    return Err(Refusal::NoCheckId(node).to_string());
                }
                self.put_check(&key, check);
                found.extend(self.check_of(&key, &id).map(Found::Check));
            }
            RowVerb::DeleteCas if stored.is_some_and(|stored| stored != check.modified) => {
                return Err(format!("failed to delete check \"{id}\" on node \"{node}\", index is stale"));
            }
            RowVerb::Delete | RowVerb::DeleteCas => self.remove_check(&key, &id),
        }
        Ok(())
    }

    fn home_of(&self, node: &Key) -> Faulty<Arc<Home>> {
        self.catalog.node(node).cloned().ok_or_else(|| Refusal::NoSuchNode.to_string())
    }

    fn instance(&self, node: &Key, id: &str) -> Option<Arc<Instance>> {
        self.catalog.node(node)?.instance(&fold(id)).cloned()
    }

    fn check_of(&self, node: &Key, id: &str) -> Option<Arc<Check>> {
        self.catalog.node(node)?.all_checks().find(|check| check.id.eq_ignore_ascii_case(id)).cloned()
    }
}

/// Whether a row is as the client last saw it; 0 is not there.
fn is_current(stored: Option<u64>, asked: u64) -> bool {
    stored.unwrap_or(0) == asked
}
