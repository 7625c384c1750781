//! A catalog that takes another's place, in pieces (`cluster.md` §1.1): nothing of it is seen before the last.

use super::*;
use crate::catalog::{Coordinate, NodeCoordinate, Restore, SetAutopilot};

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn rows_of(catalog: &Catalog) -> Vec<Row> {
    catalog.rows().collect()
}

fn from(rows: Vec<Row>) -> Result<Catalog, Mismatch> {
    Catalog::from_rows(rows.into_iter().map(Ok))
}

/// Two nodes, one with very many services; a coordinate, a key, a setting.
fn full() -> Catalog {
    let mut catalog = Catalog::default();
    let mut apply = |command| catalog.apply(command).0.unwrap();
    let node = |name: &str| Node { name: name.into(), ..Node::default() };
    for at in 0..700 {
        let service = Service { id: format!("s{at:03}").into(), name: "web".into(), ..Service::default() };
        let service = Some(service);
        apply(Command::Register(Box::new(Register { node: node("ash"), service, ..Register::default() })));
    }
    apply(Command::Register(Box::new(Register { node: node("birch"), ..Register::default() })));
    let coordinate = Coordinate { error: 0.5, ..Coordinate::origin() };
    let coordinate = NodeCoordinate { node: "birch".into(), segment: "x".into(), coordinate };
    apply(Command::Coordinates(vec![coordinate]));
    let session = Session { id: id(7), node: "birch".into(), ..Session::default() };
    apply(Command::Session(SessionWrite::Create(session.into())));
    for (number, session) in [(8, Some(id(7))), (9, None)] {
        let query = Query { id: id(number), name: format!("q{number}").into(), session, ..Query::default() };
        apply(Command::Query(QueryWrite::Create(query.into())));
    }
    let autopilot = Autopilot { min_quorum: 3, ..Autopilot::default() };
    apply(Command::Autopilot(SetAutopilot { autopilot, cas: None }));
    apply(Command::Kv(KvWrite { verb: KvVerb::Set, key: "k".into(), value: "v".into(), flags: 7 }));
    catalog
}

fn piece(number: u128, rows: &[Row]) -> Command {
    Command::Restore(Restore::Rows { id: id(number), rows: rows.into() })
}

#[test]
fn every_row_comes_back() {
    let full = full();
    let rows = rows_of(&full);
    let widest = rows.iter().map(|row| match row {
        Row::Node(row) => row.services.len(),
        Row::MoreServices(services) => services.len(),
        _ => 0,
    });
    assert_eq!(widest.max(), Some(64), "a row is not as long as a node is busy");
    let back = from(rows.clone()).unwrap();
    back.assert_consistent();
    assert_eq!(rows_of(&back), rows);
}

#[test]
fn a_restore_is_seen_when_all_of_it_is_there() {
    let archive = full();
    let rows = rows_of(&archive);
    let mut catalog = Catalog::default();
    let node = Node { name: "old".into(), ..Node::default() };
    for meta in 0..archive.index() + 5 {
        let meta = Some(Map::from_iter([("m", Text::from(meta.to_string()))]));
        let node = Node { meta, ..node.clone() };
        catalog.apply(Command::Register(Box::new(Register { node, ..Register::default() }))).0.unwrap();
    }
    let (before, index) = (rows_of(&catalog), catalog.index());
    let (_, changes) = catalog.apply(Command::Restore(Restore::Begin { id: id(1) }));
    assert_eq!((changes.topics, changes.index), (vec![Topic::Restoring], index));
    for rows in rows.chunks(3) {
        let (reply, changes) = catalog.apply(piece(1, rows));
        assert!(!reply.unwrap().changed && changes.topics.is_empty());
        assert_eq!(rows_of(&catalog.settled()), before, "nothing is seen of it");
        // What has arrived outlives a snapshot.
        catalog = from(rows_of(&catalog)).unwrap();
        assert!(catalog.restoring().is_some());
    }
    let end = Restore::End { id: id(1), rows: rows.len() as u64 };
    let (reply, changes) = catalog.apply(Command::Restore(end));
    assert!(reply.unwrap().changed);
    assert_eq!(changes.topics, [Topic::Everything]);
    catalog.assert_consistent();
    assert_eq!(catalog.index(), index + 1, "the counter does not fall, and rises");
    assert_eq!(catalog.table_index(Table::Kv), archive.table_index(Table::Kv), "indexes are the archive's");
    assert_eq!(rows_of(&catalog)[1..], rows[1..]);
    assert!(catalog.restoring().is_none());
}

#[test]
fn what_is_not_whole_changes_nothing() {
    let mut catalog = full();
    let before = rows_of(&catalog);
    let begin = |number| Command::Restore(Restore::Begin { id: id(number) });
    let end = |number, rows| Command::Restore(Restore::End { id: id(number), rows });
    let indexes = Row::Indexes(Indexes { index: 3, ..Indexes::default() });
    let refused = |catalog: &mut Catalog, command| {
        let (reply, changes) = catalog.apply(command);
        assert!(changes.topics.is_empty());
        reply.unwrap_err()
    };
    assert_eq!(refused(&mut catalog, piece(1, &before)), Refusal::OtherRestore, "none has begun");
    catalog.apply(begin(1)).0.unwrap();
    catalog.apply(piece(1, &[indexes])).0.unwrap();
    catalog.apply(begin(2)).0.unwrap();
    assert_eq!(refused(&mut catalog, piece(1, &before)), Refusal::OtherRestore);
    assert_eq!(refused(&mut catalog, end(1, 1)), Refusal::OtherRestore);
    assert_eq!(refused(&mut catalog, end(2, 1)), Refusal::RowsMissing { rows: 1, arrived: 0 });
    assert_eq!(refused(&mut catalog, end(2, 0)), Refusal::OtherRestore, "it is over");
    catalog.apply(begin(3)).0.unwrap();
    catalog.apply(piece(3, &before[1..2])).0.unwrap();
    assert!(matches!(refused(&mut catalog, end(3, 1)), Refusal::NoCatalog(_)));
    catalog.apply(begin(4)).0.unwrap();
    let (_, changes) = catalog.apply(Command::Restore(Restore::GiveUp));
    assert_eq!(changes.topics, [Topic::Restoring]);
    assert!(catalog.restoring().is_none());
    assert_eq!(rows_of(&catalog), before);
}

#[test]
fn rows_that_do_not_fit_each_other_are_refused() {
    let rows = rows_of(&full());
    let fault = |rows: Vec<Row>| from(rows).map(drop).unwrap_err().to_string();
    let without = |at: usize| {
        let mut rows = rows.clone();
        rows.remove(at);
        rows
    };
    let place = |is_it: fn(&Row) -> bool| rows.iter().position(is_it).unwrap();
    assert_eq!(fault(without(0)), "no row of indexes comes first");
    let first_node = place(|row| matches!(row, Row::Node(_)));
    assert_eq!(fault(without(first_node)), "services come before any node");
    let twice = [&rows[..=first_node + 1], &rows[first_node + 1..]].concat();
    assert_eq!(fault(twice), "the node \"ash\", or a service on it, comes twice or out of order");
    let group = place(|row| matches!(row, Row::Group { .. }));
    let again = [&rows[..=first_node], &rows[group..=group], &rows[first_node + 1..]].concat();
    assert_eq!(fault(again), "the service \"web\" has two rows of its own");
    let mut last = rows.clone();
    last[0] = Row::Indexes(Indexes { index: u64::MAX - 1, ..Indexes::default() });
    assert_eq!(fault(last), "the index 18446744073709551614 is beyond any that a catalog comes to");
    let session = place(|row| matches!(row, Row::Session(_)));
    let mut homeless = rows.clone();
    homeless[session] = Row::Session(Session { node: "elm".into(), ..Session::default() }.into());
    assert_eq!(fault(homeless), "a session is on the node \"elm\", which is not there");
    assert!(fault(without(session)).ends_with(" is bound to a session that is not there"));
    let birch = place(|row| matches!(row, Row::Node(row) if &*row.node.name == "birch"));
    assert_eq!(fault(without(birch)), "a session is on the node \"birch\", which is not there");
    let mut bare = without(birch);
    bare.retain(|row| !matches!(row, Row::Session(_)));
    assert_eq!(fault(bare), "the node \"birch\" has a coordinate and is not there");
}
