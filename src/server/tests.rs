//! What a leader writes of itself, and when it writes nothing.

mod members;

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::{reconcile::reconcile_own, *};
use crate::{
    catalog::{
        Catalog, Check, Command, Health, Map, Node, Register, Restore, SERF_HEALTH, Service, Session,
        SessionWrite, Status, Table, Target, Topic, Woken,
    },
    gossip::{self, Members},
    raft,
};

#[test]
fn a_new_server_is_registered_once() {
    let catalog = settled();
    let home = catalog.node("oak").unwrap();
    let node = home.node();
    assert_eq!((&*node.address, &*node.datacenter, node.id), ("10.0.0.1", "north", member().id));
    assert_eq!(node.meta.as_ref().unwrap(), &Map::from_iter([("consul-version", "1.16.4".into())]));
    assert_eq!(node.tagged_addresses, None);
    let consul = home.instance("consul").unwrap();
    assert_eq!(
        (&*consul.service.name, consul.service.port, consul.health),
        ("consul", 8300, Health::Passing)
    );
    let meta = consul.service.meta.as_ref().unwrap();
    assert_eq!(meta.len(), 7);
    assert_eq!(meta.get("serf_protocol_max").map(|max| &**max), Some("5"));
    let check = &home.checks()[0];
    assert_eq!(
        (&*check.id, &*check.name, &*check.output, &*check.service_id),
        ("serfHealth", "Serf Health Status", "Agent alive and reachable", "")
    );
    assert_eq!(reconcile_own(&catalog, &member()), None, "a quiet server proposes nothing");
}

/// Whatever is done to its rows, one command puts them right, and no more than one.
#[test]
fn what_others_did_to_its_rows_is_repaired() {
    let oak = || Node { name: "oak".into(), ..Node::default() };
    let register = |register: Register| Command::Register(Box::new(register));
    let deregister = |target| Command::Deregister { node: "oak".into(), target };
    let critical = Check { id: "serfHealth".into(), status: Status::Critical, ..Check::default() };
    let tagged = Service { name: "consul".into(), tags: Arc::new(["mine".into()]), ..Service::default() };
    let (skip_node_update, node) = (true, oak());
    let damages = [
        deregister(Target::Node),
        deregister(Target::Service("consul".into())),
        deregister(Target::Check("serfHealth".into())),
        register(Register {
            node: node.clone(),
            skip_node_update,
            checks: vec![critical],
            ..Register::default()
        }),
        register(Register { node, skip_node_update, service: Some(tagged), ..Register::default() }),
        register(Register { node: Node { address: "10.0.0.9".into(), ..oak() }, ..Register::default() }),
    ];
    for damage in damages {
        let mut catalog = settled();
        assert!(catalog.apply(damage.clone()).0.unwrap().changed);
        let repair = reconcile_own(&catalog, &member()).unwrap_or_else(|| panic!("{damage:?} went unseen"));
        assert!(catalog.apply(repair).0.unwrap().changed);
        assert_eq!(reconcile_own(&catalog, &member()), None, "after {damage:?}");
        assert_eq!(catalog.service("consul").unwrap().instances().next().unwrap().health, Health::Passing);
    }
}

#[test]
fn what_the_agent_says_of_its_node_is_kept() {
    let mut catalog = settled();
    let node = Node {
        name: "Oak".into(),
        id: member().id,
        address: "10.0.0.1".into(),
        datacenter: "north".into(),
        tagged_addresses: Some(Map::from_iter([("lan", "10.0.0.1".into())])),
        meta: Some(Map::from_iter([("rack", "r7".into())])),
        ..Node::default()
    };
    let told = Register { node, ..Register::default() };
    catalog.apply(Command::Register(Box::new(told))).0.unwrap();
    assert_eq!(reconcile_own(&catalog, &member()), None);
    let moved = Member { address: [10, 0, 0, 2].into(), ..member() };
    catalog.apply(reconcile_own(&catalog, &moved).unwrap()).0.unwrap();
    let node = catalog.node("oak").unwrap().node();
    assert_eq!(&*node.address, "10.0.0.2");
    assert_eq!(node.meta.as_ref().unwrap().get("rack").map(|rack| &**rack), Some("r7"));
    assert!(node.tagged_addresses.is_some());
}

#[tokio::test]
async fn the_leader_keeps_its_rows() {
    let shutdown = CancellationToken::new();
    let settings = raft::Settings::in_memory(([127, 0, 0, 1], 8300), 1 << 20);
    let (raft, agreement) = Raft::open(settings, shutdown.clone()).await.unwrap();
    raft.lead().await.unwrap();
    let (ready, is_ready) = oneshot::channel();
    let (_members, known) = watch::channel(Members::new());
    let every = Duration::from_millis(1);
    let duties = tokio::spawn(membership().keep(raft.clone(), known, every, ready, shutdown.clone()));
    is_ready.await.unwrap();
    let index = raft.catalog().index();

    raft.propose(Command::Deregister { node: "oak".into(), target: Target::Node }).await.unwrap().unwrap();
    let repaired = async {
        loop {
            let changed = raft.subscribe(vec![Topic::Service("consul".into())]);
            if raft.catalog().service("consul").is_some() {
                break;
            }
            changed.await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), repaired).await.expect("the rows come back");
    assert_eq!(raft.catalog().index(), index + 2, "one command removed them, one brought them back");
    shutdown.cancel();
    duties.await.unwrap();
    agreement.await.unwrap();
}

fn member() -> Member {
    Member {
        name: "oak".into(),
        id: Some(uuid::Uuid::from_u128(7)),
        address: [10, 0, 0, 1].into(),
        datacenter: "north".into(),
        port: Some(8300),
        version: "1.16.4".into(),
        status: gossip::Status::Alive,
    }
}

fn membership() -> Membership {
    let suspicion = Suspicion { multiplier: 4, probe_interval: Duration::from_secs(1) };
    Membership::new(member(), MassFailure::default(), suspicion)
}

/// A catalog with nothing but this server in it.
fn settled() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.apply(reconcile_own(&catalog, &member()).expect("it is new")).0.unwrap();
    catalog.assert_consistent();
    catalog
}

/// A catalog of many rows, put in place of another: it is as it was saved, and this server's own rows are in it again.
#[tokio::test]
async fn what_is_restored_is_all_there_is() {
    let mut archive = Catalog::default();
    for at in 0..2_000 {
        let service = Service { name: "web".into(), port: 80, ..Service::default() };
        let node = Node { name: format!("n{at}").into(), address: "x".repeat(500).into(), ..Node::default() };
        let register = Register { node, service: Some(service), ..Register::default() };
        archive.apply(Command::Register(Box::new(register))).0.unwrap();
    }
    let shutdown = CancellationToken::new();
    let settings = raft::Settings::in_memory(([127, 0, 0, 1], 8300), 1 << 20);
    let (raft, agreement) = Raft::open(settings, shutdown.clone()).await.unwrap();
    raft.lead().await.unwrap();
    let (ready, is_ready) = oneshot::channel();
    let (_members, known) = watch::channel(Members::new());
    let duties = tokio::spawn(membership().run(raft.clone(), known, ready, shutdown.clone()));
    is_ready.await.unwrap();
    raft.propose(Command::Restore(Restore::Begin { id: uuid::Uuid::nil() })).await.unwrap().unwrap();
    assert!(raft.catalog().restoring().is_some());
    give_up(&raft).await;
    assert!(raft.catalog().restoring().is_none());

    let returned = async {
        loop {
            let changed = raft.subscribe(vec![Topic::Service("consul".into())]);
            if raft.catalog().node_count() == 2_001 {
                break;
            }
            changed.await;
        }
    };
    let waiting = raft.subscribe(vec![Topic::Node("nobody".into())]);
    let (restored, returned) =
        tokio::join!(restore(&raft, &archive), tokio::time::timeout(Duration::from_secs(30), returned));
    restored.unwrap();
    returned.expect("what a server says of itself comes back");
    assert_eq!(waiting.await, Woken::ByReplacement, "whoever waits is told");
    let catalog = raft.catalog();
    catalog.assert_consistent();
    assert!(catalog.restoring().is_none() && catalog.service("consul").is_some());
    assert_eq!(catalog.service("web").unwrap().instances().count(), 2_000);
    shutdown.cancel();
    duties.await.unwrap();
    agreement.await.unwrap();
}

/// As after an archive of a server of the same name was restored here.
#[test]
fn a_name_is_taken_from_a_server_that_is_no_more() {
    let mut catalog = settled();
    let web = Service { name: "web".into(), ..Service::default() };
    let node = Node { name: "oak".into(), ..Node::default() };
    let register = Register { node, skip_node_update: true, service: Some(web), ..Register::default() };
    catalog.apply(Command::Register(Box::new(register))).0.unwrap();
    for (number, status) in [(8, Status::Passing), (9, Status::Warning)] {
        let check = Check { id: SERF_HEALTH.into(), status, ..Check::default() };
        let node = Node { name: "oak".into(), ..Node::default() };
        let register = Register { node, skip_node_update: true, checks: vec![check], ..Register::default() };
        catalog.apply(Command::Register(Box::new(register))).0.unwrap();
        let heir = Member { id: Some(uuid::Uuid::from_u128(number)), ..member() };
        for _ in 0..2 {
            catalog.apply(reconcile_own(&catalog, &heir).expect("something is to be written")).0.unwrap();
        }
        assert_eq!(reconcile_own(&catalog, &heir), None);
        let home = catalog.node("oak").unwrap();
        assert_eq!((home.node().id, home.instance("web").unwrap().health), (heir.id, Health::Passing));
    }
}

/// The one that began last goes through: whoever is told so does not end it.
#[tokio::test]
async fn of_two_restores_at_once_the_later_one_counts() {
    let (first, second) = (settled(), with_session(1, 0));
    let shutdown = CancellationToken::new();
    let settings = raft::Settings::in_memory(([127, 0, 0, 1], 8300), 1 << 20);
    let (raft, agreement) = Raft::open(settings, shutdown.clone()).await.unwrap();
    raft.lead().await.unwrap();
    let (earlier, later) = tokio::join!(restore(&raft, &first), restore(&raft, &second));
    assert_eq!(earlier.unwrap_err(), "another restore has begun, or this one was given up");
    later.unwrap();
    assert!(raft.catalog().restoring().is_none());
    assert_eq!(raft.catalog().sessions().count(), 1);
    shutdown.cancel();
    agreement.await.unwrap();
}

/// A node and a session on it.
fn with_session(id: u128, ttl_nanos: u64) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.apply(registered("ash")).0.unwrap();
    catalog.apply(session(id, ttl_nanos)).0.unwrap();
    catalog
}

fn registered(node: &str) -> Command {
    let node = Node { name: node.into(), ..Node::default() };
    Command::Register(Box::new(Register { node, ..Register::default() }))
}

fn session(id: u128, ttl_nanos: u64) -> Command {
    let id = uuid::Uuid::from_u128(id);
    let session = Session { id, node: "ash".into(), ttl_nanos, ..Session::default() };
    Command::Session(SessionWrite::Create(session.into()))
}

/// Its indexes may be those of the one before: what is in it is looked at all the same.
#[tokio::test]
async fn what_a_restored_catalog_holds_has_its_time_too() {
    let archive = with_session(2, 1_000_000);
    let shutdown = CancellationToken::new();
    let settings = raft::Settings::in_memory(([127, 0, 0, 1], 8300), 1 << 20);
    let (raft, agreement) = Raft::open(settings, shutdown.clone()).await.unwrap();
    raft.lead().await.unwrap();
    for command in [registered("ash"), session(1, 0)] {
        raft.propose(command).await.unwrap().unwrap();
    }
    assert_eq!(raft.catalog().table_index(Table::Sessions), archive.table_index(Table::Sessions));
    let endings = Endings::default();
    endings.timers().follow(&raft.catalog(), now());
    let (ending, own, stop) = (endings.clone(), raft.clone(), shutdown.clone());
    let duties = tokio::spawn(async move { ending.run(own, stop).await });
    tokio::task::yield_now().await;
    restore(&raft, &archive).await.unwrap();
    let ended = async {
        loop {
            let changed = raft.subscribe(vec![Topic::Sessions]);
            if raft.catalog().sessions().count() == 0 {
                break;
            }
            changed.await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("nobody renews it");
    shutdown.cancel();
    duties.await.unwrap();
    agreement.await.unwrap();
}
