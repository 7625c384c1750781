//! Archives: what is whole is read, and nothing else is.

use std::{fs, io::Write, path::Path};

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::catalog::{
    Autopilot, Coordinate, Indexes, KvVerb, KvWrite, NodeCoordinate, Query, QueryWrite, Row, ServiceQuery,
    Session, SessionWrite, SetAutopilot, Template,
};

const BYTES_MAX: u64 = 1 << 20;

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for command in [register("ash", 80), register("birch", 81), noted("birch", 3)] {
        catalog.apply(command).0.unwrap();
    }
    catalog
}

fn head() -> ArchiveHead {
    ArchiveHead { id: "2-17-1700000000000".into(), term: 2, index: 17 }
}

fn archive() -> Vec<u8> {
    let mut bytes = Vec::new();
    write_archive(&mut bytes, &head(), &catalog()).unwrap();
    bytes
}

fn rows(catalog: &Catalog) -> Vec<Row> {
    catalog.rows().collect()
}

fn fault(bytes: &[u8]) -> String {
    read_archive(bytes, BYTES_MAX).map(|(head, _)| head).unwrap_err().to_string()
}

fn zipped(plain: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(plain).unwrap();
    out.finish().unwrap()
}

#[test]
fn an_archive_is_read_as_it_was_written() {
    let (own, read) = read_archive(&archive()[..], BYTES_MAX).unwrap();
    assert_eq!(own, head());
    read.assert_consistent();
    assert_eq!(rows(&read), rows(&catalog()));
}

#[test]
fn no_flipped_bit_and_no_missing_byte_goes_unseen() {
    let (archive, mut unseen) = (archive(), 0);
    for bit in 0..8 * archive.len() {
        let mut damaged = archive.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // Some bits of gzip's mean nothing.
        if let Ok((own, read)) = read_archive(&damaged[..], BYTES_MAX) {
            assert!(own == head() && rows(&read) == rows(&catalog()), "bit {bit}");
            unseen += 1;
        }
    }
    assert!(unseen < 100, "{unseen} bits are without meaning");
    for length in 0..archive.len() {
        let ending = if length == 0 { ": EOF" } else { "unexpected EOF" };
        let fault = fault(&archive[..length]);
        assert!(fault.starts_with("failed to decompress snapshot: ") && fault.ends_with(ending), "{fault}");
    }
}

#[test]
fn what_is_anothers_or_newer_or_too_much_is_refused_by_name() {
    assert_eq!(fault(b"no gzip"), "failed to decompress snapshot: unexpected EOF");
    assert_eq!(fault(b"no gzip, and longer"), "failed to decompress snapshot: gzip: invalid gzip header");
    let foreign = fault(&zipped(&[b'x'; 1024]));
    assert_eq!(foreign, "failed to read snapshot: it does not begin as a snapshot of lictor's does");
    let newer = fault(&zipped(b"lictsnap\x09\0\0\0"));
    assert_eq!(newer, "failed to read snapshot: it is of version 9, and this lictor reads up to 2");
    let longer = fault(&[&archive()[..], b"x"].concat());
    assert_eq!(longer, "failed to read snapshot: something stands behind its end");
    let large = read_archive(&archive()[..], 100).map(drop).unwrap_err().to_string();
    assert_eq!(large, "failed to decompress snapshot: it holds more than 100 bytes");
    // A few bytes that become very many.
    let bomb = zipped(&[&b"lictsnap\x02\0\0\0\xff\xff\xff\xff"[..], &vec![0; 8 << 20]].concat());
    assert!(bomb.len() < 100_000 && fault(&bomb).ends_with("it holds more than 1048576 bytes"));
}

#[test]
fn an_archive_tells_what_it_holds() {
    let summary = inspect_archive(&archive()[..]).unwrap();
    assert_eq!((summary.head, summary.version, summary.catalog_index), (head(), 2, 3));
    let counts: Vec<String> = summary
        .tables
        .iter()
        .filter(|table| table.rows > 0)
        .map(|table| {
            assert!(table.bytes > 0);
            format!("{} {}", table.name, table.rows)
        })
        .collect();
    assert_eq!(counts, ["Nodes 2", "Services 2", "Checks 1", "Indexes 2"]);
    assert!(summary.bytes > summary.tables.iter().map(|table| table.bytes).sum::<u64>());
    assert!(inspect_archive(&archive()[..100]).is_err());
}

/// One of each row there is.
fn one_of_each() -> Catalog {
    let mut catalog = catalog();
    let service =
        |at: usize| Service { id: format!("s{at:02}").into(), name: "many".into(), ..Service::default() };
    let many = (0..70).map(|at| {
        Command::Register(Box::new(Register { service: Some(service(at)), ..registration("cedar") }))
    });
    let id = uuid::Uuid::from_u128;
    let session = Session { id: id(1), node: "ash".into(), ttl: "10s".into(), ..Session::default() };
    let kv = |verb, key: &str| Command::Kv(KvWrite { verb, key: key.into(), value: "v".into(), flags: 7 });
    let place = NodeCoordinate { node: "ash".into(), segment: "".into(), coordinate: Coordinate::origin() };
    let wanted =
        ServiceQuery { service: "${name.suffix}".into(), near: "_agent".into(), ..ServiceQuery::default() };
    let template = Template { kind: "name_prefix_match".into(), ..Template::default() };
    let query = Query {
        id: id(2),
        name: "q-".into(),
        session: Some(id(1)),
        template,
        service: wanted,
        ..Query::default()
    };
    let autopilot = Autopilot { min_quorum: 3, ..Autopilot::default() };
    let beside = [
        Command::Session(SessionWrite::Create(session.into())),
        kv(KvVerb::Set, "gone"),
        kv(KvVerb::Lock(id(1)), "held"),
        kv(KvVerb::Delete, "gone"),
        Command::Coordinates(vec![place]),
        Command::Query(QueryWrite::Create(query.into())),
        Command::Autopilot(SetAutopilot { autopilot, cas: None }),
    ];
    for command in many.chain(beside) {
        catalog.apply(command).0.unwrap();
    }
    catalog
}

/// What was kept today is read for ever. This writes it where nothing is kept.
#[test]
fn an_archive_of_a_released_version_is_read() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/v2/archive");
    if !kept.exists() {
        let mut bytes = Vec::new();
        write_archive(&mut bytes, &head(), &one_of_each()).unwrap();
        fs::write(&kept, bytes).unwrap();
        panic!("tests/formats/v2/archive was missing and is written now: look at it, and keep it");
    }
    let (own, read) = read_archive(fs::File::open(&kept).unwrap(), BYTES_MAX).unwrap();
    read.assert_consistent();
    assert_eq!((own, rows(&read)), (head(), rows(&one_of_each())));
    let summary = inspect_archive(fs::File::open(&kept).unwrap()).unwrap();
    let counts: Vec<String> =
        summary.tables.iter().map(|table| format!("{} {}", table.name, table.rows)).collect();
    assert_eq!(
        counts.join(", "),
        "Nodes 3, Services 72, Checks 1, KVS 1, Tombstones 1, Sessions 1, LockDelays 0, Coordinates 1, PreparedQueries 1, Autopilot 1, Indexes 3"
    );
}

/// A row may hold rows, and so on: what goes deeper than any catalog does is refused before there is no stack left.
#[test]
fn rows_in_rows_in_rows_are_refused() {
    let staged = |rows: Vec<Row>| Row::Staged { id: uuid::Uuid::nil(), rows: rows.into() };
    let check = Check { id: "c".into(), service_id: "s00".into(), ..Check::default() };
    let (mut deep, checks) = (one_of_each(), vec![check]);
    let register = Register { checks, ..registration("cedar") };
    deep.apply(Command::Register(Box::new(register))).0.unwrap();
    let (_, read) = read_archive(&with_row(&staged(rows(&deep)))[..], BYTES_MAX).unwrap();
    assert_eq!(rows(&read), rows(&Catalog::default()), "what a restore has brought so far is no deeper");
    let mut endless = Row::Indexes(Indexes::default());
    for _ in 0..300 {
        endless = staged(vec![endless]);
    }
    assert_eq!(fault(&with_row(&endless)), "failed to read snapshot: depth limit exceeded");
}

/// An archive of nothing but this.
fn with_row(row: &Row) -> Vec<u8> {
    let mut plain = Vec::new();
    snapshot::write(&mut plain, &openraft::SnapshotMeta::default(), &Catalog::default()).unwrap();
    plain.truncate(plain.len() - 8);
    let frame = rmp_serde::to_vec_named(row).unwrap();
    for (number, frame) in [(2, &frame[..]), (3, &[])] {
        plain.extend((frame.len() as u32).to_le_bytes());
        plain.extend(snapshot::checksum(number, frame).to_le_bytes());
        plain.extend(frame);
    }
    zipped(&plain)
}
