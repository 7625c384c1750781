//! What an agent that is no server knows of nodes: of its own, what it last told or was told; of others, what servers say of
//! them, for as long as somebody here follows them.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    catalog::{
        Catalog, Command, Home, Key, Register, Subscribe, Subscription, Target, Text, Topic, Woken, fold,
    },
    rpc::{self, CallError, Rows},
};

/// Cloned, it is the same one.
#[derive(Clone)]
pub struct Mirror(Arc<Shared>);

struct Shared {
    rpc: rpc::Client,
    own: Key,
    catalog: ArcSwap<Catalog>,
    /// Held while a catalog is made from the one before.
    writing: Mutex<()>,
    changed: watch::Sender<u64>,
}

/// A server is asked anew after so long, though nothing changed.
const FOLLOWED_FOR: Duration = Duration::from_secs(60);
/// Before a server is asked again that did not answer.
const PAUSE: Duration = Duration::from_secs(5);

impl Mirror {
    pub fn new(rpc: rpc::Client, own: &Text) -> Self {
        let (catalog, writing, changed) = (ArcSwap::default(), Mutex::default(), watch::channel(0).0);
        Mirror(Arc::new(Shared { rpc, own: fold(own).into(), catalog, writing, changed }))
    }

    /// Takes up a command of this agent's own, written or on its way.
    pub fn apply(&self, command: Command) {
        self.write(|catalog| {
            // What servers refuse is refused here, too.
            let _reply = catalog.apply(command);
        });
    }

    /// Asks what there is of a node. Nothing comes over the wire where that is what is known.
    pub async fn refresh(&self, node: &Text, wait: Duration) -> Result<(), CallError> {
        let key: Key = fold(node).into();
        let known = Rows::digest(self.catalog().node(&key).map(|home| &**home));
        if let Some(rows) = self.0.rpc.node(node, &known, wait).await? {
            self.write(|catalog| replace(catalog, &key, rows));
        }
        Ok(())
    }

    fn write(&self, change: impl FnOnce(&mut Catalog)) {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut catalog = Catalog::clone(&self.catalog());
        let before = catalog.index();
        change(&mut catalog);
        if catalog.index() != before {
            self.0.catalog.store(Arc::new(catalog));
            self.0.changed.send_modify(|count| *count += 1);
        }
    }
}

impl Subscribe for Mirror {
    fn catalog(&self) -> Arc<Catalog> {
        self.0.catalog.load_full()
    }

    /// Follows what is told here of this agent's own node, and asks servers for others.
    fn subscribe(&self, topics: Vec<Topic>) -> Subscription {
        let mut changed = self.0.changed.subscribe();
        let nodes = topics.into_iter().filter_map(|topic| match topic {
            Topic::Node(node) | Topic::NodeChecks(node) => Some(node),
            _ => None,
        });
        let (own, others): (BTreeSet<Key>, BTreeSet<Key>) = nodes.partition(|node| *node == self.0.own);
        let mirror = self.clone();
        Box::pin(async move {
            let mut asking = JoinSet::new();
            for node in others {
                let mirror = mirror.clone();
                asking.spawn(async move {
                    if let Err(error) = mirror.refresh(&node, FOLLOWED_FOR).await {
                        tracing::debug!(node = &*node, %error, "cannot follow a node");
                        tokio::time::sleep(PAUSE).await;
                    }
                });
            }
            tokio::select! {
                _ = changed.changed(), if !own.is_empty() => {}
                Some(_) = asking.join_next() => {}
                else => std::future::pending().await,
            }
            Woken::ByChange
        })
    }
}

/// Has the catalog hold these rows of a node, and no others.
fn replace(catalog: &mut Catalog, key: &Key, rows: Rows) {
    let deregister = |target| Command::Deregister { node: key.clone(), target };
    let Some(node) = rows.node.clone() else {
        let _gone_already = catalog.apply(deregister(Target::Node));
        return;
    };
    let former = catalog.node(key).cloned();
    let gone = former.iter().flat_map(|home| gone(home, &rows));
    let mut commands: Vec<Command> = gone.map(deregister).collect();
    let register = |skip_node_update, service, checks| {
        Command::Register(Box::new(Register { node: node.clone(), skip_node_update, service, checks }))
    };
    commands.push(register(false, None, rows.checks));
    let placed = rows.services.into_iter();
    commands.extend(placed.map(|placed| register(true, Some(placed.service), placed.checks)));
    for command in commands {
        // Servers hold it, so it holds.
        let _reply = catalog.apply(command);
    }
}

/// What is held and not among the rows.
fn gone(home: &Home, rows: &Rows) -> Vec<Target> {
    let services: HashSet<&str> = rows.services.iter().map(|placed| &*placed.service.id).collect();
    let of_services = rows.services.iter().flat_map(|placed| &placed.checks);
    let checks: HashSet<&str> = rows.checks.iter().chain(of_services).map(|check| &*check.id).collect();
    let held = home.instances().map(|instance| &instance.service.id);
    let gone_services = held.filter(|id| !services.contains(&***id)).cloned().map(Target::Service);
    let held = home.all_checks().filter(|check| !checks.contains(&*check.id));
    let stays = |id: &str| id.is_empty() || services.contains(id);
    let gone_checks =
        held.filter(|check| stays(&check.service_id)).map(|check| Target::Check(check.id.clone()));
    gone_services.chain(gone_checks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Check, Node, Service, Status};

    fn register(catalog: &mut Catalog, service: &str, checks: &[&str]) {
        let check = |id: &&str| Check {
            id: (*id).into(),
            service_id: service.into(),
            status: Status::Passing,
            ..Check::default()
        };
        let node = Node { name: "Oak".into(), address: "10.0.0.1".into(), ..Node::default() };
        let own = Service { id: service.into(), name: service.into(), ..Service::default() };
        let service = (!service.is_empty()).then_some(own);
        let checks = checks.iter().map(check).collect();
        let register = Register { node, skip_node_update: false, service, checks };
        catalog.apply(Command::Register(Box::new(register))).0.unwrap();
    }

    fn digest(catalog: &Catalog) -> bytes::Bytes {
        Rows::digest(catalog.node("oak").map(|home| &**home))
    }

    /// Whatever a mirror held before, it then holds what the server does, and their digests say so.
    #[test]
    fn rows_take_the_place_of_what_was_known() {
        let mut there = Catalog::default();
        register(&mut there, "", &["disk", "serfHealth"]);
        register(&mut there, "web", &["c1"]);
        register(&mut there, "db", &[]);
        let mut here = Catalog::default();
        register(&mut here, "", &["old"]);
        register(&mut here, "web", &["c1", "c2"]);
        register(&mut here, "gone", &["c3"]);
        assert_ne!(digest(&here), digest(&there));
        let rows = Rows::of(there.node("oak").map(|home| &**home));
        replace(&mut here, &"oak".into(), rows.clone());
        assert_eq!(digest(&here), digest(&there), "their indexes differ, and do not matter");
        here.assert_consistent();
        let index = here.index();
        replace(&mut here, &"oak".into(), rows);
        assert_eq!(here.index(), index, "the same again changes nothing");
        replace(&mut here, &"oak".into(), Rows::default());
        assert!(here.node("oak").is_none());
        assert_eq!(digest(&here), digest(&Catalog::default()));
    }
}
