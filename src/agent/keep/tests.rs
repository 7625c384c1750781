//! What is kept, down to its bytes and to what becomes of half a write. Restarts of real agents: `tests/restart.rs`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    Store,
    folder::Folder,
    record::{self, Record, Refused},
    states::{self, State, States},
};
use crate::{
    agent::local::{Change, Kept, Local},
    catalog::{Key, Status, fold},
    check::{CheckSpec, ServiceSpec, Span},
};

/// A data directory, gone with its test.
struct Data(PathBuf);

impl Data {
    fn new(name: &str) -> Data {
        let path = std::env::temp_dir().join(format!("lictor-keep-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Data(path)
    }

    fn files(&self, part: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join(part)).into_iter().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn secs(secs: i64) -> Option<Span> {
    Some(Span { nanos: secs * 1_000_000_000, text: format!("{secs}s") })
}

fn ttl(id: &str) -> CheckSpec {
    CheckSpec { id: Some(id.into()), ttl: secs(30), ..CheckSpec::default() }
}

fn register(name: &str, port: i64, checks: &[&str]) -> Change {
    let checks = checks.iter().map(|id| ttl(id)).collect();
    let spec = ServiceSpec { name: Some(name.into()), port: Some(port), checks, ..ServiceSpec::default() };
    Change::RegisterService { definition: spec.build().unwrap(), replace_checks: false }
}

fn maintain(service: Option<&str>) -> Change {
    Change::Maintain { service: service.map(str::to_string), reason: "why \"so\"\n".into() }
}

/// One of each kind.
fn registered() -> Local {
    let mut local = Local::default();
    let disk = CheckSpec { tcp: Some("a:1".into()), interval: secs(5), ttl: None, ..ttl("Disk") };
    for change in [
        register("web", 80, &["c1", "c2"]),
        Change::RegisterCheck(disk.build().unwrap()),
        maintain(Some("web")),
        maintain(None),
    ] {
        local.apply(change).unwrap();
    }
    local
}

fn kept(local: &Local) -> Vec<Kept> {
    let services = local.services().filter_map(|(id, _)| local.kept_service(id));
    services.chain(local.checks().filter_map(|(id, _)| local.kept_check(id))).collect()
}

fn wanted(local: &mut Local) -> Vec<(String, Option<Kept>)> {
    let unkept = local.take_unkept();
    super::wanted(local, &unkept)
}

#[test]
fn what_is_kept_reads_back() {
    let all = kept(&registered());
    let shown: Vec<_> = all.iter().map(record::id).collect();
    assert_eq!(shown, ["web", "_node_maintenance", "Disk"]);
    for kept in all {
        assert_eq!(record::read(&Record::of(&kept).bytes(7)), Ok((7, kept)));
    }
}

#[test]
fn whatever_happens_to_a_byte_is_noticed() {
    for kept in kept(&registered()) {
        let bytes = Record::of(&kept).bytes(12);
        for length in 0..bytes.len() {
            assert!(record::read(&bytes[..length]).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(record::read(&changed).is_err(), "changed at {at}");
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let signed = |head: &str, json: &str| {
        let checksum = record::checksum(&[head.as_bytes(), json.as_bytes()]);
        record::read(format!("{head} {checksum}\n{json}").as_bytes()).unwrap_err()
    };
    assert_eq!(record::read(b""), Err(Refused::Foreign));
    assert_eq!(record::read(br#"{"Token":"","Service":{}}"#), Err(Refused::Foreign));
    assert_eq!(signed("lictor session 1 1", "{}"), Refused::Foreign);
    assert_eq!(signed("lictor service 0 1", "{}"), Refused::Foreign);
    assert_eq!(signed("lictor service 9 of another shape", "{}"), Refused::Newer(9));
    assert_eq!(record::read(b"lictor service 1 1 0000\n{}"), Err(Refused::Torn));
    for (kind, json, said) in [
        ("check", "{}", "missing field `check`"),
        ("check", r#"{"check":{"id":"c"}}"#, "TTL must be > 0 for TTL checks"),
        ("check", r#"{"check":{"id":"c","service_id":"s","ttl":{"nanos":9,"text":""}}}"#, "has a service"),
        ("maintenance", r#"{"reason":5}"#, "invalid type"),
        ("service", "{}", "ids of its service do not agree"),
        ("service", r#"{"id":"a","service":{"id":"b","name":"b"}}"#, "ids of its service do not agree"),
        ("service", r#"{"id":"a","checks":[{"id":"c","ttl":{"nanos":9,"text":""}}]}"#, "ids of its service"),
    ] {
        let Refused::Undecodable(text) = signed(&format!("lictor {kind} 1 1"), json) else {
            panic!("{json}")
        };
        assert!(text.contains(said), "{json}: {text}");
    }
}

/// Files of each released version are read for good. Where this fails, a form changed its meaning.
#[test]
fn files_of_version_1_are_read() {
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/v1");
    let local = registered();
    for (file, kept) in [
        ("service", local.kept_service(&"web".into())),
        ("check", local.kept_check(&"disk".into())),
        ("maintenance", local.kept_check(&"_node_maintenance".into())),
    ] {
        let path = formats.join(file);
        write_where_asked(&path, &Record::of(kept.as_ref().unwrap()).bytes(3));
        let read = record::read(&fs::read(&path).unwrap());
        assert_eq!(read, Ok((3, kept.unwrap())), "{file}");
    }
    let every_check = formats.join("service-every-check");
    write_where_asked(&every_check, &Record::of(&every_kind()).bytes(4));
    assert_eq!(record::read(&fs::read(&every_check).unwrap()), Ok((4, every_kind())));
    let journal = formats.join("states");
    write_where_asked(&journal, states::write(&some_states()).as_bytes());
    assert_eq!(states::read(&fs::read(&journal).unwrap()), (some_states(), None));
    let node_id = formats.join("node-id");
    write_where_asked(&node_id, b"7b1f0d3e-52c4-4a0c-9a53-6f1f4b0f9a11");
    let data = Data::new("node-id");
    fs::copy(node_id, data.0.join("node-id")).unwrap();
    let id = super::node_id(Some(&data.0), None).unwrap();
    assert_eq!(id.to_string(), "7b1f0d3e-52c4-4a0c-9a53-6f1f4b0f9a11");
}

/// With `LICTOR_WRITE_FORMATS` the files are made; only for a new version.
fn write_where_asked(path: &Path, bytes: &[u8]) {
    if std::env::var_os("LICTOR_WRITE_FORMATS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// No key is forgotten, whatever kind of check it belongs to.
#[test]
fn every_key_of_a_check_is_kept() {
    let (text, flag, number) = (|text: &str| Some(text.to_string()), Some(true), Some(3));
    let spec = CheckSpec {
        id: text("id"),
        name: text("name"),
        notes: text("notes"),
        status: text("status"),
        service_id: text("service_id"),
        token: text("token"),
        args: Some(vec!["args".into()]),
        shell: text("shell"),
        docker_container_id: text("docker_container_id"),
        http: text("http"),
        method: text("method"),
        header: Some(vec![("header".into(), vec!["value".into()])]),
        body: text("body"),
        disable_redirects: flag,
        tcp: text("tcp"),
        tcp_use_tls: flag,
        udp: text("udp"),
        grpc: text("grpc"),
        grpc_use_tls: flag,
        h2ping: text("h2ping"),
        h2ping_use_tls: flag,
        alias_node: text("alias_node"),
        alias_service: text("alias_service"),
        os_service: text("os_service"),
        ttl: secs(1),
        interval: secs(2),
        timeout: secs(3),
        tls_server_name: text("tls_server_name"),
        tls_skip_verify: flag,
        success_before_passing: number,
        failures_before_warning: number,
        failures_before_critical: number,
        deregister_critical_service_after: secs(4),
        output_max_size: number,
    };
    assert_eq!(record::parse(record::json(&spec).as_bytes()), Ok(spec));
}

/// A service with everything that it and its checks may say today.
fn every_kind() -> Kept {
    let text = |text: &str| Some(text.to_string());
    let http = CheckSpec {
        http: text("https://a/"),
        method: text("PUT"),
        header: Some(vec![("A".into(), vec!["b".into(), "c".into()])]),
        body: text("x"),
        disable_redirects: Some(true),
        interval: secs(10),
        timeout: secs(2),
        tls_server_name: text("a.example"),
        tls_skip_verify: Some(true),
        success_before_passing: Some(1),
        failures_before_warning: Some(2),
        failures_before_critical: Some(3),
        deregister_critical_service_after: secs(90),
        output_max_size: Some(100),
        name: text("up"),
        notes: text("n"),
        status: text("passing"),
        token: text("t"),
        ..CheckSpec::default()
    };
    let script = CheckSpec { args: Some(vec!["true".into()]), interval: secs(10), ..CheckSpec::default() };
    let tcp =
        CheckSpec { tcp: text("a:1"), tcp_use_tls: Some(true), interval: secs(10), ..CheckSpec::default() };
    let spec = ServiceSpec {
        id: text("All-1"),
        name: text("all"),
        tags: Some(vec!["a".into(), "b".into()]),
        address: text("10.0.0.7"),
        port: Some(80),
        tagged_addresses: Some(vec![("wan".into(), "h".into(), 1)]),
        meta: Some(vec![("k".into(), "v".into())]),
        weights: Some((Some(3), Some(2))),
        enable_tag_override: Some(true),
        token: text("t"),
        kind: text("odd"),
        checks: vec![http, script, tcp, ttl("own")],
        ..ServiceSpec::default()
    };
    let mut local = Local::default();
    let definition = spec.build().unwrap();
    local.apply(Change::RegisterService { definition, replace_checks: false }).unwrap();
    local.kept_service(&"all-1".into()).unwrap()
}

fn some_states() -> BTreeMap<Key, State> {
    let state = |status, output: &str, expires| State { status, output: output.into(), expires };
    [
        ("c1", state(Status::Passing, "", 1_800_000_000)),
        ("service:web", state(Status::Warning, "low \"oil\"\né", 1)),
    ]
    .map(|(id, state)| (Key::from(id), state))
    .into()
}

/// The process may die between two files: then a check stands in both, and the later writing counts.
#[test]
fn a_check_that_moved_is_where_it_went_last() {
    let data = Data::new("moved");
    let (mut folder, _) = Folder::open(&data.0).unwrap();
    let mut local = Local::default();
    local.apply(register("a", 1, &["c"])).unwrap();
    local.apply(register("b", 1, &[])).unwrap();
    folder.write(wanted(&mut local)).unwrap();
    let before = fs::read(data.0.join(record::service_place("a"))).unwrap();
    local.apply(register("b", 1, &["c"])).unwrap();
    folder.write(wanted(&mut local)).unwrap();
    fs::write(data.0.join(record::service_place("a")), before).unwrap();

    let mut again = Local::default();
    drop(Store::open(&data.0, &mut again).unwrap());
    assert_eq!(&*again.definition("c").unwrap().service_id, "b");
    assert_eq!(kept(&again), kept(&local));
    let mut third = Local::default();
    Store::open(&data.0, &mut third).unwrap();
    assert_eq!(kept(&third), kept(&local), "and that is written");
}

#[test]
fn what_is_the_same_is_not_written_again() {
    let data = Data::new("same");
    let (mut folder, _) = Folder::open(&data.0).unwrap();
    let mut local = registered();
    folder.write(wanted(&mut local)).unwrap();
    let bytes = |data: &Data| -> Vec<_> {
        let files = [data.files("services"), data.files("checks")].concat();
        files.iter().filter(|path| path.is_file()).map(|path| fs::read(path).unwrap()).collect()
    };
    let before = bytes(&data);
    assert_eq!(before.len(), 3);
    local.apply(register("web", 80, &["c1"])).unwrap();
    folder.write(wanted(&mut local)).unwrap();
    assert_eq!(bytes(&data), before);
    let mut again = Local::default();
    Store::open(&data.0, &mut again).unwrap();
    assert_eq!(bytes(&data), before, "nor by a restart");
    local.apply(register("web", 81, &["c1"])).unwrap();
    folder.write(wanted(&mut local)).unwrap();
    assert_ne!(bytes(&data), before);
}

/// Where the second of two files cannot take its place, the first has the new state already.
#[test]
fn half_a_write_is_put_back() {
    let data = Data::new("half");
    let (folder, _) = Folder::open(&data.0).unwrap();
    let states = States::open(&data.0).unwrap();
    let mut store = Store { folder, states, sync_due: None, ails: false };
    let mut local = Local::default();
    local.apply(register("a", 1, &["c"])).unwrap();
    store.folder.write(wanted(&mut local)).unwrap();
    let path = |id: &str| data.0.join(record::service_place(id));
    let before = record::read(&fs::read(path("a")).unwrap()).unwrap().1;

    // By the order of their names, so that one is done and the other is not.
    let others = ["b", "d", "e", "f", "g"].into_iter();
    let other = others.into_iter().find(|id| record::service_place(id) > record::service_place("a")).unwrap();
    fs::create_dir_all(path(other).join("x")).unwrap();
    let mut tried = local.clone();
    tried.apply(register(other, 1, &["c"])).unwrap();
    let unkept = tried.take_unkept();
    let failed = store.folder.write(super::wanted(&tried, &unkept)).unwrap_err();
    assert!(failed.text.starts_with(&path(other).display().to_string()), "{failed:?}");
    store.put_back(&local, &failed, &unkept);
    let after = record::read(&fs::read(path("a")).unwrap()).unwrap().1;
    assert_eq!(after, before);
    assert!(data.files("services").iter().all(|path| path.extension().is_none()), "nothing lies beside");
}

#[test]
fn a_word_counts_until_its_time_is_over() {
    let data = Data::new("words");
    let (mut folder, _) = Folder::open(&data.0).unwrap();
    let mut local = Local::default();
    local.apply(register("web", 80, &["late", "Good", "none"])).unwrap();
    folder.write(wanted(&mut local)).unwrap();
    let mut states = States::open(&data.0).unwrap();
    let word = |expires| Some(State { status: Status::Passing, output: "fine".into(), expires });
    let words =
        vec![("late".into(), word(1)), ("good".into(), word(u64::MAX)), ("stray".into(), word(u64::MAX))];
    states.append(words).unwrap();

    let mut again = Local::default();
    let store = Store::open(&data.0, &mut again).unwrap();
    let said = |id: &str| {
        let check = again.check(&fold(id)).unwrap();
        format!("{} {}", check.status, check.output)
    };
    assert_eq!(["late", "good", "none"].map(said), ["critical ", "passing fine", "critical "]);
    let left: Vec<_> = store.states.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(left, ["good"], "what counts no more is forgotten");
}

#[test]
fn the_journal_stays_small_and_reads_as_far_as_it_is_good() {
    let data = Data::new("journal");
    let mut states = States::open(&data.0).unwrap();
    let word = |number: u64| {
        let output = format!("{number} {}", "x".repeat(1000)).as_str().into();
        Some(State { status: Status::Passing, output, expires: number })
    };
    for number in 0..3000 {
        states.append(vec![("a".into(), word(number)), ("gone".into(), word(number))]).unwrap();
    }
    states.append(vec![("gone".into(), None)]).unwrap();
    assert!(states.is_unsynced());
    states.sync().unwrap();
    let bytes = fs::read(data.0.join(states::JOURNAL)).unwrap();
    assert!(bytes.len() < (1 << 20) + 4096, "{}", bytes.len());
    let (read, fault) = states::read(&bytes);
    assert_eq!((read.len(), read["a"].expires, fault), (1, 2999, None));
    for cut in 1..200 {
        let (read, fault) = states::read(&bytes[..bytes.len() - cut]);
        assert_eq!(fault.is_some(), bytes[bytes.len() - cut - 1] != b'\n', "{cut}");
        assert_eq!(read["a"].expires, 2999);
    }
    assert_eq!(states::read(b"lictor states 2\nwhatever").1, Some(Refused::Newer(2)));
    assert_eq!(states::read(b"{}").1, Some(Refused::Foreign));
}
