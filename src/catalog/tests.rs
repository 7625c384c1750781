//! The index rules row by row (`cluster.md` §1.2, §1.4, §1.5), and a naive model that every catalog must agree with.

mod model;
mod restore;
mod state;

use super::*;

fn catalog(commands: impl IntoIterator<Item = Command>) -> Catalog {
    let mut catalog = Catalog::default();
    for command in commands {
        catalog.apply(command).0.expect("a fixture is accepted");
        catalog.assert_consistent();
    }
    catalog
}

fn node(name: &str) -> Node {
    Node { name: name.into(), address: "10.0.0.1".into(), datacenter: "dc1".into(), ..Node::default() }
}

fn service(id: &str, name: &str) -> Service {
    Service { id: id.into(), name: name.into(), ..Service::default() }
}

fn check(id: &str, service_id: &str, status: &str) -> Check {
    Check { id: id.into(), service_id: service_id.into(), status: status.into(), ..Check::default() }
}

fn register(node: Node, service: Option<Service>, checks: Vec<Check>) -> Command {
    Command::Register(Box::new(Register { node, skip_node_update: false, service, checks }))
}

fn deregister(node: &str, target: Target) -> Command {
    Command::Deregister { node: node.into(), target }
}

fn with_id(name: &str, id: u128) -> Node {
    Node { id: Some(Uuid::from_u128(id)), ..node(name) }
}

/// Two nodes; `web` on both, `db` on ash; a check of each level on ash.
fn fixture() -> Catalog {
    catalog([
        register(node("ash"), Some(service("web", "web")), vec![check("c-web", "web", "passing")]),
        register(node("ash"), Some(service("db", "db")), vec![check("c-node", "", "passing")]),
        register(node("birch"), Some(service("web", "web")), vec![]),
    ])
}

/// Every index by name, for one look at what rose.
fn indexes(catalog: &Catalog) -> Vec<(String, u64)> {
    let mut all = vec![
        ("nodes".into(), catalog.table_index(Table::Nodes)),
        ("services".into(), catalog.table_index(Table::Services)),
        ("checks".into(), catalog.table_index(Table::Checks)),
        ("service gone".into(), catalog.service_gone()),
        ("node gone".into(), catalog.node_gone()),
    ];
    all.extend(catalog.nodes().map(|home| (format!("node {}", home.node().name), home.index())));
    all.extend(catalog.services().map(|group| (format!("service {}", group.name()), group.index())));
    all
}

/// Which indexes a command raised, in the order of `indexes`; those that went with their row are not named.
fn raised(catalog: &mut Catalog, command: Command) -> String {
    let before = indexes(catalog);
    let (reply, changes) = catalog.apply(command);
    reply.expect("accepted");
    catalog.assert_consistent();
    let rose = indexes(catalog).into_iter().filter(|entry| !before.contains(entry));
    let rose: Vec<_> =
        rose.inspect(|(_, index)| assert_eq!(*index, catalog.index())).map(|(name, _)| name).collect();
    assert_eq!(changes.topics.is_empty(), rose.is_empty(), "a command that changes nothing wakes nobody");
    rose.join(", ")
}

#[test]
fn each_change_raises_its_indexes_and_no_others() {
    let moved = Node { address: "10.0.0.9".into(), ..node("ash") };
    let retagged = Service { port: 81, ..service("web", "web") };
    let skip = |checks| {
        Command::Register(Box::new(Register {
            node: node("ash"),
            skip_node_update: true,
            service: None,
            checks,
        }))
    };
    let rows: Vec<(&str, Command, &str)> = vec![
        ("node inserted", register(node("cedar"), None, vec![]), "nodes, node cedar"),
        ("node changed", register(moved, None, vec![]), "nodes, node ash, service db, service web"),
        (
            "service inserted",
            register(node("birch"), Some(service("db", "db")), vec![]),
            "nodes, services, node birch, service db",
        ),
        (
            "service changed",
            register(node("birch"), Some(retagged), vec![]),
            "nodes, services, node birch, service web",
        ),
        ("service check inserted", skip(vec![check("new", "web", "passing")]), "checks, service web"),
        ("service check changed", skip(vec![check("c-web", "web", "critical")]), "checks, service web"),
        ("node check inserted", skip(vec![check("new", "", "passing")]), "checks, service db, service web"),
        ("node check changed", skip(vec![check("c-node", "", "warning")]), "checks, service db, service web"),
        ("service check deleted", deregister("ash", Target::Check("C-WEB".into())), "checks, service web"),
        (
            "node check deleted",
            deregister("ash", Target::Check("c-node".into())),
            "services, checks, service db, service web",
        ),
        (
            "service deleted, others remain",
            deregister("ASH", Target::Service("WEB".into())),
            "nodes, services, checks, node ash, service web",
        ),
        (
            "last instance deleted",
            deregister("ash", Target::Service("db".into())),
            "nodes, services, checks, service gone, node ash",
        ),
        (
            "node deleted",
            deregister("ash", Target::Node),
            "nodes, services, checks, service gone, node gone, service web",
        ),
        ("bare node deleted", deregister("bare", Target::Node), "nodes, node gone"),
        (
            "same id, other name: the old name loses its instance",
            register(node("ash"), Some(service("db", "sql")), vec![]),
            "nodes, services, service gone, node ash, service sql",
        ),
        ("identical node", register(node("ash"), None, vec![]), ""),
        ("identical service", register(node("ash"), Some(service("web", "web")), vec![]), ""),
        ("identical check", skip(vec![check("c-web", "web", "passing")]), ""),
        ("absent node", deregister("nope", Target::Node), ""),
        ("absent service", deregister("ash", Target::Service("nope".into())), ""),
        ("absent check", deregister("ash", Target::Check("nope".into())), ""),
    ];
    for (row, command, expected) in rows {
        let mut catalog = fixture();
        catalog.apply(register(node("bare"), None, vec![])).0.unwrap();
        assert_eq!(raised(&mut catalog, command), expected, "{row}");
    }
}

#[test]
fn topics_name_what_a_waiter_would_read() {
    let mut catalog = fixture();
    let wakes = |catalog: &mut Catalog, command| {
        let mut topics: Vec<_> =
            catalog.apply(command).1.topics.iter().map(|topic| format!("{topic:?}")).collect();
        topics.sort();
        topics.dedup();
        topics.join(" ")
    };
    let tagged = Service { port: 1, ..service("web", "web") };
    assert_eq!(
        wakes(&mut catalog, register(node("ash"), Some(tagged), vec![])),
        r#"Node("ash") Service("web") Services"#,
        "a service row raises the index of the nodes table and wakes nobody there"
    );
    let critical = Command::Register(Box::new(Register {
        node: node("ash"),
        skip_node_update: true,
        service: None,
        checks: vec![check("c-web", "web", "critical")],
    }));
    assert_eq!(
        wakes(&mut catalog, critical),
        r#"Checks NodeChecks("ash") Service("web") State(Critical) State(Passing)"#
    );
    assert_eq!(
        wakes(&mut catalog, deregister("ash", Target::Service("db".into()))),
        r#"Node("ash") Service("db") ServiceGone Services"#
    );
}

#[test]
fn a_node_is_known_by_its_id_and_renamed() {
    let mut catalog = catalog([
        register(with_id("ash", 1), Some(service("web", "web")), vec![]),
        register(with_id("ash", 1), None, vec![check(SERF_HEALTH, "", "passing")]),
    ]);
    let created = catalog.node("ash").unwrap().node().created;
    catalog.apply(register(with_id("Fir", 1), None, vec![])).0.unwrap();
    catalog.assert_consistent();
    assert!(catalog.node("ash").is_none() && catalog.service("web").is_none(), "renamed with full cascade");
    assert_eq!(catalog.node("fir").unwrap().node().created, created);
    catalog.apply(register(with_id("FIR", 1), None, vec![])).0.unwrap();
    assert_eq!(&*catalog.node("fir").unwrap().node().name, "Fir", "letter case alone is no rename");
}

#[test]
fn a_living_node_keeps_its_name() {
    let alive = |status: &str| {
        let mut catalog = fixture();
        let checks = vec![check(SERF_HEALTH, "", status)];
        catalog.apply(register(with_id("ash", 1), None, checks)).0.unwrap();
        catalog.apply(register(with_id("oak", 3), None, vec![])).0.unwrap();
        catalog
    };
    let refused = |catalog: &mut Catalog, node: Node| {
        let before = indexes(catalog);
        let (reply, changes) = catalog.apply(register(node, Some(service("new", "new")), vec![]));
        assert!(changes.topics.is_empty() && before == indexes(catalog), "a refusal changes nothing");
        reply.expect_err("refused").to_string()
    };
    for status in ["passing", "warning"] {
        assert_eq!(
            refused(&mut alive(status), with_id("ash", 2)),
            "failed inserting node: Error while renaming Node ID: \"00000000-0000-0000-0000-000000000002\": Node name \
             ash is reserved by node 00000000-0000-0000-0000-000000000001 with name ash (10.0.0.1)"
        );
        assert_eq!(
            refused(&mut alive(status), with_id("ash", 3)),
            "failed inserting node: Error while renaming Node ID: \"00000000-0000-0000-0000-000000000003\" (10.0.0.1): \
             Node name ash is reserved by node 00000000-0000-0000-0000-000000000001 with name ash (10.0.0.1)"
        );
    }
    let mut catalog = alive("critical");
    catalog.apply(register(with_id("ash", 2), None, vec![])).0.expect("taken over");
    catalog.assert_consistent();
    assert!(catalog.node_by_id(Uuid::from_u128(1)).is_none());
    assert!(catalog.node("ash").unwrap().instance("web").is_some(), "what is on the name stays");
}

#[test]
fn a_registration_replaces_the_node_row_unless_told_not_to() {
    let mut catalog = catalog([register(
        Node { meta: Some([("rack", "r7".into())].into_iter().collect()), ..with_id("ash", 1) },
        None,
        vec![],
    )]);
    let skip = |name: &str| {
        Command::Register(Box::new(Register {
            node: Node { name: name.into(), ..Node::default() },
            skip_node_update: true,
            service: Some(service("web", "web")),
            checks: vec![],
        }))
    };
    catalog.apply(skip("ash")).0.unwrap();
    assert!(catalog.node("ash").unwrap().node().meta.is_some());
    catalog.apply(skip("new")).0.unwrap();
    assert_eq!(&*catalog.node("new").unwrap().node().address, "", "an absent node is created all the same");
    catalog.apply(register(node("ash"), None, vec![])).0.unwrap();
    let ash = catalog.node("ash").unwrap().node();
    assert!(ash.meta.is_none() && ash.id.is_none(), "id and meta absent from the request are erased");
    catalog.assert_consistent();
}

#[test]
fn refusals_speak_in_consuls_words() {
    let meta = Service { meta: Some([("a b", "1".into())].into_iter().collect()), ..service("S", "s") };
    let cases = [
        (register(node(""), None, vec![]), "Must provide node"),
        (
            register(node("n"), Some(service("s", "")), vec![]),
            "Must provide service name (Service.Service) when service ID is provided",
        ),
        (
            register(node("n"), None, vec![check("c", "S", "passing")]),
            "Unknown service ID 'S' for check ID 'c'",
        ),
        (
            register(node("N"), None, vec![Check { node: "O".into(), ..check("c", "", "passing") }]),
            "Node 'O' for check 'c' doesn't match register request node 'N'",
        ),
        (
            register(node("N"), Some(meta), vec![]),
            "failed inserting service: Invalid Service Meta for node N and serviceID S: Couldn't load metadata pair \
             ('a b', '1'): Key contains invalid characters",
        ),
        (
            register(node("n"), None, vec![check("", "", "passing")]),
            "failed inserting check on node \"n\": failed health check lookup: index error: object is missing a value \
             for this index",
        ),
    ];
    for (command, text) in cases {
        assert_eq!(Catalog::default().apply(command).0.unwrap_err().to_string(), text);
    }
}

#[test]
fn a_check_copies_its_service_and_may_move_to_another() {
    let mut catalog = fixture();
    let tagged = Service { tags: ["blue".into()].into(), ..service("web", "web") };
    catalog.apply(register(node("ash"), Some(tagged), vec![])).0.unwrap();
    let found = |catalog: &Catalog| {
        let home = catalog.node("ash").unwrap();
        let check = home.all_checks().filter(|check| &*check.id == "c-web").cloned().collect::<Vec<_>>();
        assert_eq!(check.len(), 1);
        check[0].clone()
    };
    assert!(found(&catalog).service_tags.is_empty(), "the copy is as old as the check");
    catalog.apply(register(node("ash"), None, vec![check("c-web", "WEB", "warning")])).0.unwrap();
    assert_eq!(found(&catalog).service_tags.len(), 1);
    assert_eq!(catalog.service("web").unwrap().instances().next().unwrap().health, Health::Warning);
    catalog.apply(register(node("ash"), None, vec![check("c-web", "db", "critical")])).0.unwrap();
    catalog.assert_consistent();
    assert_eq!(&*found(&catalog).service_name, "db");
    assert_eq!(catalog.service("web").unwrap().instances().next().unwrap().health, Health::Passing);
    catalog.apply(register(node("ash"), Some(service("db", "sql")), vec![])).0.unwrap();
    catalog.assert_consistent();
    assert_eq!(&*found(&catalog).service_name, "sql", "checks follow a service that changes its name");
}

#[test]
fn nodes_are_found_by_the_start_of_their_id() {
    let id = 0x5e1f_0c2a_0000_4000_8000_0000_0000_0015u128;
    let mut catalog = catalog([register(with_id("elm", id), None, vec![])]);
    let found = |catalog: &Catalog, prefix: &str| catalog.node_by_id_prefix(prefix).is_some();
    assert!(
        found(&catalog, "5e") && found(&catalog, "5E1f0c2a0000400080000000000000") && !found(&catalog, "5f")
    );
    assert!(
        found(&catalog, "5e1f0c2a000040008000000000000015")
            && !found(&catalog, "5e1f0c2a000040008000000000000016")
    );
    assert!(!found(&catalog, "") && !found(&catalog, "5g") && !found(&catalog, &"5".repeat(33)));
    catalog.apply(register(with_id("oak", id + 1), None, vec![])).0.unwrap();
    assert!(!found(&catalog, "5e"), "two nodes");
}

/// What equals its neighbour or its former self is held once.
#[test]
fn equal_values_are_shared() {
    let web = |id: &str| Service {
        tags: ["blue".into(), "v2".into()].into(),
        meta: Some([("team", "shop".into())].into_iter().collect()),
        ..service(id, "web")
    };
    let catalog = catalog([
        register(node("ash"), Some(web("web-1")), vec![check("up", "web-1", "passing")]),
        register(node("birch"), Some(web("web-2")), vec![check("up", "web-2", "passing")]),
    ]);
    let instances: Vec<_> = catalog.service("web").unwrap().instances().collect();
    let [a, b] = [&instances[0].service, &instances[1].service];
    assert!(Arc::ptr_eq(&a.tags, &b.tags) && Arc::ptr_eq(&a.name, &b.name));
    assert!(a.meta.as_ref().unwrap().shares(b.meta.as_ref().unwrap()));
    let [a, b] = [&instances[0].checks[0], &instances[1].checks[0]];
    assert!(Arc::ptr_eq(&a.id, &b.id) && Arc::ptr_eq(&a.service_name, &instances[0].service.name));
    assert!(Arc::ptr_eq(&b.service_tags, &instances[1].service.tags));
}

#[test]
fn an_address_said_again_is_shared() {
    let tagged = |address: &str| Some([("lan", address.into())].into_iter().collect());
    let at = |id: &str, address: &str, tags: &[&str]| Service {
        address: address.into(),
        tags: tags.iter().map(|tag| Text::from(*tag)).collect(),
        tagged_addresses: Some(
            [("lan", ServiceAddress { address: address.into(), port: 1 })].into_iter().collect(),
        ),
        ..service(id, "web")
    };
    let catalog = catalog([
        register(
            Node { tagged_addresses: tagged("10.0.0.1"), ..node("ash") },
            Some(at("a", "10.0.0.1", &["x", "y"])),
            vec![],
        ),
        register(node("ash"), Some(at("b", "10.0.0.2", &["y"])), vec![]),
    ]);
    let instances: Vec<_> = catalog.service("web").unwrap().instances().collect();
    let [a, b] = [&instances[0].service, &instances[1].service];
    let lan = |service: &Service| {
        service.tagged_addresses.as_ref().unwrap().iter().next().map(|(k, v)| (k.clone(), v.clone())).unwrap()
    };
    assert!(Arc::ptr_eq(&a.address, &lan(a).1.address) && Arc::ptr_eq(&lan(a).0, &lan(b).0));
    assert!(Arc::ptr_eq(&b.tags[0], &a.tags[1]), "a tag that only some share");
}

/// Also where something else holds what was registered, as the log does.
#[test]
fn words_are_shared_by_services_that_have_nothing_else_in_common() {
    let tagged = |name: &str, tags: [&str; 2]| {
        let tags = tags.map(Text::from).into();
        let meta = Some([("team", Text::from("shop"))].into_iter().collect());
        register(node("ash"), Some(Service { tags, meta, ..service(name, name) }), vec![])
    };
    let shares = || {
        let catalog = catalog([tagged("web", ["blue", "v2"]), tagged("db", ["v2", "main"])]);
        let [web, db] = ["web", "db"]
            .map(|name| catalog.service(name).unwrap().instances().next().unwrap().service.clone());
        let team = |service: &Service| service.meta.as_ref().unwrap().get("team").cloned().unwrap();
        Arc::ptr_eq(&web.tags[1], &db.tags[0]) && Arc::ptr_eq(&team(&web), &team(&db))
    };
    // Words lose their places to each other by chance; hardly three times.
    assert!((0..3).any(|_| shares()));
}

#[test]
fn rows_that_are_of_no_catalog_are_told() {
    let whole: Vec<Row> =
        catalog([register(node("ash"), Some(service("web", "web")), vec![])]).rows().collect();
    let put = |rows: Vec<Row>| Catalog::from_rows(rows.into_iter().map(Ok::<_, Mismatch>)).map(drop);
    let [indexes, group, home] = &whole[..] else { panic!("{whole:?}") };
    let (indexes, group, home) = (|| indexes.clone(), || group.clone(), || home.clone());
    assert_eq!(put(vec![group(), home()]), Err(Mismatch::NoIndexes));
    assert_eq!(put(vec![]), Err(Mismatch::NoIndexes));
    assert_eq!(put(vec![indexes(), home()]), Err(Mismatch::NoGroup("web".into())));
    assert_eq!(put(vec![indexes(), group()]), Err(Mismatch::NoInstance("web".into())));
    assert_eq!(put(vec![indexes(), group(), home(), home()]), Err(Mismatch::Order("ash".into())));
    assert_eq!(put(vec![indexes(), group(), home()]), Ok(()));
}

/// A fleet that was put together again takes no more memory than the one that grew: equal texts are shared.
#[test]
fn what_was_shared_is_shared_again() {
    let fleet = |number: usize| {
        let tagged = Service { tags: ["blue".into()].into(), ..service("web", "web") };
        let check = Check { output: "fine".into(), ..check("c", "web", "passing") };
        register(node(&format!("n{number:03}")), Some(tagged), vec![check])
    };
    let grown = catalog((0..900).map(fleet));
    let again = Catalog::from_rows(grown.rows().map(|row| {
        // As if it had been read from somewhere.
        let text = serde_json::to_string(&row).expect("a row is plain");
        Ok::<Row, Mismatch>(serde_json::from_str(&text).expect("it was written by us"))
    }))
    .unwrap();
    again.assert_consistent();
    let group = again.service("web").unwrap();
    assert!(group.chunks().iter().all(|chunk| chunk.instances().len() <= 512));
    let instances: Vec<_> = group.instances().collect();
    for pair in instances.windows(2) {
        let [one, other] = [&pair[0], &pair[1]];
        assert!(Arc::ptr_eq(&one.service.tags, &other.service.tags));
        assert!(Arc::ptr_eq(&one.service.name, &other.service.name));
        assert!(Arc::ptr_eq(&one.checks[0].output, &other.checks[0].output));
        assert!(Arc::ptr_eq(&one.checks[0].node, &one.node.name));
        assert!(Arc::ptr_eq(&one.checks[0].service_tags, &one.service.tags));
    }
}
