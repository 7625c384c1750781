//! What an agent that is no server knows of nodes: of its own, what it last told or was told; of others, what servers say of
//! them, for as long as somebody here follows them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
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
    writing: Mutex<Odd>,
    changed: watch::Sender<u64>,
}

/// Of nodes whose rows are not here what they are with servers, since a catalog makes its own of them: the digest of what is
/// here, and of what came.
type Odd = BTreeMap<Key, (Bytes, Bytes)>;

/// A server is asked anew after so long, though nothing changed.
const FOLLOWED_FOR: Duration = Duration::from_secs(60);
/// Before a server is asked again that did not answer, or answered in vain.
const PAUSE: Duration = Duration::from_secs(5);

impl Mirror {
    pub fn new(rpc: rpc::Client, own: &Text) -> Self {
        let (catalog, writing, changed) = (ArcSwap::default(), Mutex::default(), watch::channel(0).0);
        Mirror(Arc::new(Shared { rpc, own: fold(own).into(), catalog, writing, changed }))
    }

    /// Takes up a command of this agent's own, written or on its way.
    pub fn apply(&self, command: Command) {
        self.write(|catalog, _| {
            // What servers refuse is refused here, too.
            let _reply = catalog.apply(command);
        });
    }

    /// Asks what there is of a node. Nothing comes over the wire where that is what is known. `true` where something came in
    /// vain: it is what is known all the same.
    pub async fn refresh(&self, node: &Text, wait: Duration) -> Result<bool, CallError> {
        let key: Key = fold(node).into();
        let rows = self.0.rpc.node(node, &self.known(&key), wait).await?;
        Ok(rows.is_some_and(|rows| !self.replace(&key, rows)))
    }

    /// The digest of what servers said of a node, or would say if what was told here arrived.
    fn known(&self, key: &Key) -> Bytes {
        let odd = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let here = Rows::digest(self.catalog().node(key).map(|home| &**home));
        match odd.get(key) {
            Some((made, came)) if *made == here => came.clone(),
            _ => here,
        }
    }

    /// Has these rows of a node, and no others. Whether that is a change.
    fn replace(&self, key: &Key, rows: Rows) -> bool {
        self.write(|catalog, odd| {
            let came = rows.own_digest();
            replace(catalog, key, rows);
            let made = Rows::digest(catalog.node(key).map(|home| &**home));
            match made == came {
                true => odd.remove(key),
                false => odd.insert(key.clone(), (made, came)),
            };
        })
    }

    fn write(&self, change: impl FnOnce(&mut Catalog, &mut Odd)) -> bool {
        let mut odd = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut catalog = Catalog::clone(&self.catalog());
        let before = catalog.index();
        change(&mut catalog, &mut odd);
        let is_change = catalog.index() != before;
        if is_change {
            self.0.catalog.store(Arc::new(catalog));
            self.0.changed.send_modify(|count| *count += 1);
        }
        is_change
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
                    match mirror.refresh(&node, FOLLOWED_FOR).await {
                        Ok(false) => return,
                        // It answered at once, and would again.
                        Ok(true) => {}
                        Err(error) => tracing::debug!(node = &*node, %error, "cannot follow a node"),
                    }
                    tokio::time::sleep(PAUSE).await;
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

    /// A check keeps the tags that its service had; told together, it would get those of now.
    #[tokio::test]
    async fn rows_that_are_made_otherwise_here_are_fetched_once() {
        let mut there = Catalog::default();
        let tagged = |tag: &str, checks: &[&str]| {
            let node = Node { name: "Oak".into(), address: "10.0.0.1".into(), ..Node::default() };
            let tags = [Text::from(tag)].into();
            let service = Some(Service { id: "web".into(), name: "web".into(), tags, ..Service::default() });
            let check = |id: &&str| Check { id: (*id).into(), service_id: "web".into(), ..Check::default() };
            let checks = checks.iter().map(check).collect();
            Command::Register(Box::new(Register { node, skip_node_update: false, service, checks }))
        };
        there.apply(tagged("a", &["c1"])).0.unwrap();
        there.apply(tagged("b", &[])).0.unwrap();
        let stop = tokio_util::sync::CancellationToken::new();
        let settings = rpc::Settings {
            from: std::net::Ipv4Addr::LOCALHOST.into(),
            hold: Duration::from_secs(1),
            patience: Duration::from_secs(1),
        };
        let mirror = Mirror::new(rpc::Client::new(settings, stop), &"elm".into());
        let key = Key::from("oak");
        let rows = |there: &Catalog| Rows::of(there.node("oak").map(|home| &**home));
        assert_eq!(rows(&there).own_digest(), digest(&there));
        assert!(mirror.replace(&key, rows(&there)));
        assert_ne!(digest(&mirror.catalog()), digest(&there), "or this test shows nothing");
        assert_eq!(mirror.known(&key), digest(&there));
        assert!(!mirror.replace(&key, rows(&there)), "nor is the same again any news");
        mirror.apply(tagged("c", &[]));
        assert_ne!(mirror.known(&key), digest(&there), "what was told since counts");
        there.apply(tagged("b", &["c1"])).0.unwrap();
        mirror.replace(&key, rows(&there));
        assert_eq!((mirror.known(&key), digest(&mirror.catalog())), (digest(&there), digest(&there)));
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
