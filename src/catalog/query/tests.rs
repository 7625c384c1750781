//! Queries as rows, by name, and what they find.

use super::*;
use crate::catalog::{
    Check, Command, Coordinate, Node, NodeCoordinate, Refusal, Register, Service, Session, SessionWrite,
};

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn query(number: u128, name: &str, service: &str) -> Query {
    let service = ServiceQuery { service: service.into(), ..ServiceQuery::default() };
    Query { id: id(number), name: name.into(), service, ..Query::default() }
}

fn template(number: u128, name: &str, service: &str, regexp: &str) -> Query {
    let template = Template { kind: PREFIX.into(), regexp: regexp.into(), remove_empty_tags: true };
    Query { template, ..query(number, name, service) }
}

fn texts(texts: &[&str]) -> Option<Arc<[Text]>> {
    Some(texts.iter().map(|text| Text::from(*text)).collect())
}

fn pairs(pairs: &[(&str, &str)]) -> Option<Map<Text>> {
    Some(pairs.iter().map(|(key, value)| (*key, Text::from(*value))).collect())
}

fn put(catalog: &mut Catalog, write: QueryWrite) -> Result<u64, Refusal> {
    let (reply, _) = catalog.apply(Command::Query(write));
    catalog.assert_consistent();
    reply.map(|applied| applied.index)
}

fn create(catalog: &mut Catalog, query: Query) -> Result<u64, Refusal> {
    put(catalog, QueryWrite::Create(query.into()))
}

fn register(catalog: &mut Catalog, node: Node, service: Service, checks: &[(&str, &str)]) {
    let check = |(id, status): &(&str, &str)| Check {
        id: (*id).into(),
        service_id: service.name.clone(),
        status: (*status).into(),
        ..Check::default()
    };
    let checks = checks.iter().map(check).collect();
    let register = Register { node, service: Some(service.clone()), checks, ..Register::default() };
    catalog.apply(Command::Register(register.into())).0.unwrap();
}

fn node(name: &str, address: &str) -> Node {
    Node { name: name.into(), address: address.into(), ..Node::default() }
}

fn service(tags: &[&str]) -> Service {
    Service {
        name: "web".into(),
        tags: tags.iter().map(|tag| Text::from(*tag)).collect(),
        ..Service::default()
    }
}

#[test]
fn names_are_of_one_query_each() {
    let mut catalog = Catalog::default();
    assert_eq!(create(&mut catalog, query(1, "Geo", "web")), Ok(1));
    let taken = |name: &str| Err(Refusal::QueryNameTaken(name.into()));
    assert_eq!(create(&mut catalog, query(2, "gEO", "web")), taken("gEO"));
    assert_eq!(create(&mut catalog, template(2, "GEO", "web", "")), taken("GEO"));
    assert_eq!(create(&mut catalog, template(2, "", "web", "")), Ok(2));
    assert_eq!(create(&mut catalog, template(3, "", "web", "")), Err(Refusal::SecondCatchAll));
    let as_id = id(1).to_string();
    assert_eq!(
        create(&mut catalog, query(3, &as_id, "web")),
        Err(Refusal::QueryNameIsId(as_id.as_str().into()))
    );
    let update = |query| QueryWrite::Update(Box::new(query));
    assert_eq!(put(&mut catalog, update(query(9, "x", "web"))), Err(Refusal::NoQuery(id(9))));
    assert_eq!(put(&mut catalog, update(query(2, "geo", "web"))), taken("geo"));
    // Every write raises the index, and a name that was left is free.
    assert_eq!(put(&mut catalog, update(query(1, "Geo", "web"))), Ok(3));
    assert_eq!(put(&mut catalog, update(query(1, "other", "web"))), Ok(4));
    assert_eq!(create(&mut catalog, query(3, "geo", "web")), Ok(5));
    let row = catalog.query(id(1)).unwrap();
    assert_eq!((row.created, row.modified, catalog.table_index(Table::Queries)), (1, 4, 5));
    assert_eq!(put(&mut catalog, QueryWrite::Delete(id(1))), Ok(6));
    assert_eq!(put(&mut catalog, QueryWrite::Delete(id(1))), Err(Refusal::NoQuery(id(1))));
    assert_eq!(catalog.queries().count(), 2);
}

#[test]
fn a_query_ends_with_its_session() {
    let mut catalog = Catalog::default();
    let of = |session| Query { session: Some(id(session)), ..query(1, "", "web") };
    assert_eq!(create(&mut catalog, of(7)), Err(Refusal::NoSession(id(7).to_string().into())));
    register(&mut catalog, node("ash", ""), service(&[]), &[]);
    let session = Session { id: id(7), node: "ash".into(), ..Session::default() };
    catalog.apply(Command::Session(SessionWrite::Create(session.into()))).0.unwrap();
    create(&mut catalog, of(7)).unwrap();
    create(&mut catalog, query(2, "stays", "web")).unwrap();
    let (_, changes) = catalog.apply(Command::Session(SessionWrite::Destroy(id(7))));
    assert!(changes.topics.contains(&Topic::Query(id(1))) && changes.tables.contains(Table::Queries));
    catalog.assert_consistent();
    assert_eq!(catalog.queries().map(|query| query.id).collect::<Vec<_>>(), [id(2)]);
}

/// `name -> service`, or why not.
fn found(catalog: &Catalog, asked: &str) -> String {
    match catalog.find_query(asked) {
        Ok(query) => query.service.service.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_whole_name_counts_before_the_longest_beginning() {
    let mut catalog = Catalog::default();
    let all = [
        query(1, "Geo-Web", "one"),
        template(2, "geo-", "two ${name.suffix}", ""),
        template(3, "GEO-db-", "three ${name.full} ${name.prefix} ${ name.suffix }", ""),
        template(4, "m-", "${match(1)}/${match(2)}/${match(0)}/${match(9)}", "^m-(.*?)(-x)?$"),
    ];
    for query in all {
        create(&mut catalog, query).unwrap();
    }
    let table = [
        ("geo-WEB", "one"),
        ("Geo-Webs", "two Webs"),
        ("geo-db-Main", "three geo-db-Main GEO-db- Main"),
        ("geo-", "two "),
        ("m-a", "a//m-a/"),
        ("m-a-x", "a/-x/m-a-x/"),
        ("other", "Query not found"),
        ("ge", "Query not found"),
        ("00000000-0000-0000-0000-000000000001", "one"),
        (
            "00000000-0000-0000-0000-000000000002",
            "prepared query templates can only be resolved up by name, not by ID",
        ),
        ("00000000-0000-0000-0000-00000000000f", "Query not found"),
    ];
    for (asked, expected) in table {
        assert_eq!(found(&catalog, asked), expected, "{asked}");
    }
    create(&mut catalog, template(5, "", "all ${name.suffix}", "")).unwrap();
    assert_eq!(found(&catalog, "Other"), "all Other");
    assert_eq!(found(&catalog, "geo-web"), "one");
}

#[test]
fn every_text_of_a_template_is_filled() {
    let mut given = template(1, "t-", "${match(1)}", "^t-([a-z]+)$");
    given.service.tags = texts(&["${match(1)}", "$${name.full}", "x${match(2)}y", "${match(2)}"]);
    given.service.near = "${name.suffix}".into();
    given.service.node_meta = pairs(&[("${name.full}", "${name.full}")]);
    given.service.failover.datacenters = texts(&["dc-${name.suffix}"]);
    let target = FailoverTarget { peer: "p${match(1)}".into(), ..FailoverTarget::default() };
    given.service.failover.targets = Some([target].into());
    assert_eq!(given.check_template(), Ok(()));
    let mut catalog = Catalog::default();
    create(&mut catalog, given.clone()).unwrap();
    let query = catalog.find_query("t-web").unwrap();
    let ServiceQuery { service, tags, near, node_meta, failover, .. } = &query.service;
    assert_eq!((&**service, &**near, tags), ("web", "web", &texts(&["web", "${name.full}", "xy"])));
    assert_eq!(node_meta, &pairs(&[("${name.full}", "t-web")]));
    assert_eq!(failover.datacenters, texts(&["dc-web"]));
    assert_eq!(&*failover.targets.as_ref().unwrap()[0].peer, "pweb");
    // What the regular expression does not match is empty, and the template is chosen all the same.
    assert_eq!(found(&catalog, "t-9"), "");

    given.template.remove_empty_tags = false;
    put(&mut catalog, QueryWrite::Update(given.into())).unwrap();
    assert_eq!(catalog.find_query("t-web").unwrap().service.tags.as_ref().unwrap().len(), 4);
}

#[test]
fn templates_that_cannot_be_used_are_named() {
    let fault = |query: &Query| query.check_template().unwrap_err().to_string();
    let other = Template { kind: "foo".into(), ..Template::default() };
    assert_eq!(fault(&Query { template: other, ..query(1, "a", "b") }), "Bad Template.Type 'foo'");
    assert!(fault(&template(1, "a", "b", "(")).starts_with("Bad Regexp: "));
    assert_eq!(
        fault(&template(1, "a", "b", r"(\w{900}){900}")),
        "Bad Regexp: it takes more than 1048576 bytes, compiled"
    );
    assert_eq!(
        fault(&template(1, "a", "x${name.first}", "")),
        "Bad format 'x${name.first}' in Service.Service: found \"name.first\"; expected name.full, name.prefix, name.suffix, agent.segment or match(N)"
    );
    assert!(fault(&template(1, "a", "x${name.full", "")).ends_with("expected a closing brace"));
    assert_eq!(query(1, "a", "${").check_template(), Ok(()), "it is no template");
}

/// `node node`, in the order found.
fn nodes(catalog: &Catalog, query: &Query, source: &Source, seed: u64) -> String {
    let executed = catalog.execute(query, source, &mut fastrand::Rng::with_seed(seed));
    let names: Vec<&str> = executed.instances.iter().map(|instance| &*instance.node.name).collect();
    names.join(" ")
}

fn sorted(catalog: &Catalog, query: &Query) -> String {
    let text = nodes(catalog, query, &Source::default(), 1);
    let mut names: Vec<&str> = text.split(' ').collect();
    names.sort();
    names.join(" ")
}

fn fleet() -> Catalog {
    let mut catalog = Catalog::default();
    let meta = |name: &str, pairs_of: &[(&str, &str)]| Node { meta: pairs(pairs_of), ..node(name, "") };
    register(&mut catalog, meta("a", &[("rack", "r1"), ("x", "y")]), service(&["Blue", "v1"]), &[]);
    let web = Service { meta: pairs(&[("team", "shop")]), ..service(&["blue"]) };
    register(&mut catalog, meta("b", &[("rack", "r2")]), web, &[("w", "warning"), ("c", "passing")]);
    register(&mut catalog, node("c", "10.0.0.3"), service(&["green"]), &[("c", "critical")]);
    register(&mut catalog, node("d", "10.0.0.4"), service(&[]), &[("odd", "odd")]);
    catalog
}

#[test]
fn only_what_is_wanted_is_found() {
    let catalog = fleet();
    let with = |change: &dyn Fn(&mut ServiceQuery)| {
        let mut query = query(1, "q", "WEB");
        change(&mut query.service);
        sorted(&catalog, &query)
    };
    assert_eq!(with(&|_| {}), "a b d", "what fails is never found");
    assert_eq!(with(&|wanted| wanted.only_passing = true), "a");
    assert_eq!(with(&|wanted| wanted.ignore_checks = texts(&["c"])), "a b c d");
    assert_eq!(with(&|wanted| (wanted.ignore_checks, wanted.only_passing) = (texts(&["w"]), true)), "a b");
    assert_eq!(with(&|wanted| wanted.tags = texts(&["BLUE"])), "a b");
    assert_eq!(with(&|wanted| wanted.tags = texts(&["blue", "!V1"])), "b");
    assert_eq!(with(&|wanted| wanted.tags = texts(&["!blue"])), "d");
    assert_eq!(with(&|wanted| wanted.node_meta = pairs(&[("rack", "r1")])), "a");
    assert_eq!(with(&|wanted| wanted.service_meta = pairs(&[("team", "shop")])), "b");
    assert_eq!(with(&|wanted| wanted.connect = true), "");
    assert_eq!(with(&|wanted| wanted.peer = "p".into()), "");
    assert_eq!(with(&|wanted| wanted.service = "nothing".into()), "");
    let executed = |tag: &str| {
        let mut query = query(1, "q", "web");
        query.service.tags = texts(&[tag]);
        catalog.execute(&query, &Source::default(), &mut fastrand::Rng::with_seed(1)).has_others
    };
    assert!(executed("green") && !executed("nobody's"), "one fails, and there is none");
}

#[test]
fn the_order_is_a_draw_or_by_distance() {
    let mut catalog = fleet();
    let any = query(1, "q", "web");
    let first: std::collections::BTreeSet<String> =
        (0..50).map(|seed| nodes(&catalog, &any, &Source::default(), seed)[..1].to_string()).collect();
    assert_eq!(first.into_iter().collect::<String>(), "abd", "each comes first at times");

    let at = |name: &str, x: f64| {
        let mut coordinate = Coordinate::origin();
        Arc::make_mut(&mut coordinate.vec)[0] = x;
        NodeCoordinate { node: name.into(), segment: "".into(), coordinate }
    };
    let told = vec![at("a", 5.0), at("b", 1.0), at("c", 4.0), at("d", 2.0)];
    catalog.apply(Command::Coordinates(told)).0.unwrap();
    let near = |query: &Query, source: Source| {
        let all: Vec<String> = (0..5).map(|seed| nodes(&catalog, query, &source, seed)).collect();
        assert!(all.iter().all(|one| *one == all[0]), "no draw is in it: {all:?}");
        all[0].clone()
    };
    let mut own = query(1, "q", "web");
    own.service.near = "C".into();
    assert_eq!(near(&own, Source::default()), "a d b", "the one itself fails");
    assert_eq!(
        near(&own, Source { near: "b", ..Source::default() }),
        "b d a",
        "whoever asks has the last word"
    );
    let asked = Source { agent: "d", ip: Some([10, 0, 0, 3].into()), near: "_agent" };
    assert_eq!(near(&own, asked), "d b a");
    assert_eq!(near(&own, Source { near: "_ip", ..asked }), "a d b");
    own.service.near = "_ip".into();
    assert_eq!(near(&own, Source { near: "", ip: Some([10, 0, 0, 4].into()), ..asked }), "d b a");
    let executed = catalog.execute(&own, &Source::default(), &mut fastrand::Rng::with_seed(1));
    assert!(!executed.is_by_distance, "nobody lives where the question comes from");
}

/// Without a coordinate, too; but only as far to the front as it stood near it.
#[test]
fn the_node_that_is_named_comes_first() {
    let mut catalog = Catalog::default();
    (0..10).for_each(|at| register(&mut catalog, node(&format!("n{at}"), ""), service(&[]), &[]));
    let named = Source { near: "N7", ..Source::default() };
    let first =
        |catalog: &Catalog, seed| nodes(catalog, &query(1, "q", "web"), &named, seed).starts_with("n7 ");
    assert!((0..20).all(|seed| first(&catalog, seed)));
    (10..200).for_each(|at| register(&mut catalog, node(&format!("n{at}"), ""), service(&[]), &[]));
    assert!(!(0..20).all(|seed| first(&catalog, seed)));
}
