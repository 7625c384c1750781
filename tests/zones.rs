//! Static zones: that others read our files as we do and answer alike, what is said of files that are wrong, and that a
//! running agent follows its files.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use lictor::{
    catalog::Catalog,
    dns::{Asker, Responder, Settings, StaticZones, Transport, View, ZoneFiles},
};
use support::{Agent, DEADLINE, ask, fresh_folder, wait_for};

const ZONE: &str = "corp.example.";

/// Names of `tests/zones/corp.example.zone`, and names that are not there.
const NAMES: &[&str] = &[
    "@",
    "ns1",
    "NS1",
    "mail",
    "many",
    "MaNy.Corp",
    "nothing",
    "x.nothing",
    "x.ns1",
    "below",
    "down.below",
    "deep.down.below",
    "x.down.below",
    "wild",
    "*.wild",
    "q.wild",
    "a.b.wild",
    "www.wild",
    "x.www.wild",
    "deep.wild",
    "q.deep.wild",
    "alias.wild",
    "q.alias.wild",
    "odd",
    "*.odd",
    "q.odd",
    "x.*.odd",
    "y.*.odd",
    "x.q.odd",
    "alias",
    "a1",
    "a2",
    "a3",
    "dead",
    "circle1",
    "circle2",
    "self",
    "out",
    "intowild",
    "intocut",
    "intodname",
    "toapex",
    "lab",
    "ns1.lab",
    "ns2.lab",
    "host.lab",
    "a.b.lab",
    "other",
    "x.other",
    "self-served",
    "x.self-served",
    "old",
    "many.old",
    "a1.old",
    "lab.old",
    "nothing.old",
    "a.b.old",
    "away",
    "x.away",
    "to-long",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbb.abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz.to-long",
    "srv",
    "sub\\.dot.x_",
    "sub.dot.x_",
    "x_",
    "svc",
    "svc1",
    "svc2",
    "tlsa",
    "key",
    "enum",
    "uri",
    "loc",
    "generic",
    "host",
    "dnskey",
    "sub",
    "relative.sub",
    "after.sub",
    "people",
    "ada.people",
    "ada.mail.people",
    "mail.people",
];

const TYPES: &[u16] =
    &[1, 2, 5, 6, 12, 13, 15, 16, 17, 18, 28, 33, 35, 39, 43, 44, 48, 52, 64, 65, 255, 256, 257, 65280];

#[test]
fn bind_answers_alike() {
    let Some(bind) = Bind::start() else { return };
    let zones = served(Path::new("tests/zones"));
    let mut faults = Vec::new();
    for name in NAMES {
        // ANY of a name with keys: BIND leaves out what belongs to signatures where nothing is signed.
        for kind in TYPES.iter().filter(|kind| *name != "dnskey" || **kind != 255) {
            let name = if *name == "@" { ZONE.to_string() } else { format!("{name}.{ZONE}") };
            let packet = question(&name, *kind);
            let (ours, theirs) = (ours(&zones, &packet), ask_tcp(bind.addr, &packet));
            let (ours, theirs) = (told(&ours), told(&theirs));
            if ours != theirs {
                faults.push(format!(
                    "{name} {}\n  ours   {ours:?}\n  theirs {theirs:?}",
                    RecordType::from(*kind)
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{} of {}\n{}", faults.len(), NAMES.len() * TYPES.len(), faults.join("\n"));
}

/// What both must agree in: the code, whether it is authoritative, the records of the answer, those of the authority,
/// and of a referral the addresses within the zone that it leads to. Where an alias leads in a circle BIND says
/// SERVFAIL, and we that there is no more to it.
fn told(message: &Message) -> (ResponseCode, bool, BTreeSet<String>, BTreeSet<String>) {
    let lines = |records: &[Record]| records.iter().map(line).collect::<BTreeSet<String>>();
    let refers = message.authorities.iter().find(|record| record.record_type() == RecordType::NS);
    let mut rest = lines(&message.authorities);
    if let Some(refers) = refers {
        let within = message.additionals.iter().filter(|record| refers.name.zone_of(&record.name));
        rest.extend(within.map(line));
    }
    let head = &message.metadata;
    let circle = head.response_code == ResponseCode::ServFail && !message.answers.is_empty();
    let code = if circle { ResponseCode::NoError } else { head.response_code };
    (code, head.authoritative, lines(&message.answers), rest)
}

/// Names in lower case: BIND answers in the spelling of the file, we in that of the question.
fn line(record: &Record) -> String {
    let data = match &record.data {
        RData::Unknown { rdata, .. } => format!("{:02x?}", rdata.anything),
        data => data.to_string().to_lowercase(),
    };
    let name = record.name.to_string().to_lowercase();
    format!("{name} {} {} {data}", record.ttl, record.record_type())
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::from(kind)));
    message.to_vec().unwrap()
}

fn served(directory: &Path) -> StaticZones {
    let mut files = ZoneFiles::default();
    for told in files.read(&[directory.into()], &["consul."], true) {
        assert!(!told.is_fault(), "{told}");
    }
    files.zones(true)
}

fn ours(zones: &StaticZones, packet: &[u8]) -> Message {
    let (catalog, settings) = (Catalog::default(), Settings::default());
    let view = View { catalog: Some(&catalog), settings: &settings, zones, fresh: true };
    let asker = Asker { transport: Transport::Tcp, from: Ipv4Addr::LOCALHOST.into() };
    let mut reply = Vec::new();
    Responder::new(1).respond(&view, &asker, packet, &mut reply);
    Message::from_vec(&reply).unwrap_or_else(|error| panic!("{error}: {reply:02x?}"))
}

fn ask_tcp(server: SocketAddr, packet: &[u8]) -> Message {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&[&(packet.len() as u16).to_be_bytes(), packet].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).unwrap();
    Message::from_vec(&reply).unwrap()
}

/// BIND, serving the zone of `tests/zones`.
struct Bind {
    process: Child,
    addr: SocketAddr,
    folder: PathBuf,
}

impl Bind {
    /// `None`, and a word about it, where it is not installed.
    fn start() -> Option<Bind> {
        if Command::new("named").arg("-v").stdout(Stdio::null()).status().is_err() {
            println!("skipped: named (bind9) is not installed");
            return None;
        }
        // It serves addresses of interfaces only, so this one, at a port that is free.
        let addr = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap();
        let (ip, port) = (addr.ip(), addr.port());
        let folder = fresh_folder();
        let zones = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zones");
        for file in ["corp.example.zone", "people.inc"] {
            fs::copy(zones.join(file), folder.join(file)).unwrap();
        }
        let at = folder.display();
        let conf = format!(
            "options {{ directory \"{at}\"; pid-file none; session-keyfile none; listen-on port {port} {{ {ip}; }};
             listen-on-v6 {{ none; }}; recursion no; notify no; dnssec-validation no; minimal-responses yes; zero-no-soa-ttl no; }};
             controls {{ }};
             zone \"corp.example\" {{ type primary; file \"corp.example.zone\"; check-names ignore; }};"
        );
        fs::write(folder.join("named.conf"), conf).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut named = Command::new("named");
        named.args(["-g", "-n", "1", "-c"]).arg(folder.join("named.conf")).stdout(Stdio::null()).stderr(log);
        let bind = Bind { process: named.spawn().unwrap(), addr, folder };
        let log = || fs::read_to_string(bind.folder.join("log")).unwrap_or_default();
        wait_for("named to listen", || TcpStream::connect(bind.addr).ok(), log);
        Some(bind)
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
        let _best_effort = fs::remove_dir_all(&self.folder);
    }
}

/// What is said of files: the cases are data, `LICTOR_EXPECT=write` rewrites what is expected, for the diff to be read. A
/// case is `== what it shows`, files after `-- NAME`, and after `-- expect` what comes of reading `$`, their directory.
#[test]
fn files_and_their_faults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zones/files.txt");
    let script = fs::read_to_string(&path).unwrap();
    let (head, cases) = script.split_once("\n== ").unwrap();
    let mut written = head.to_string();
    for case in cases.split("\n== ") {
        let (given, _) = case.split_once("-- expect\n").unwrap_or_else(|| panic!("no -- expect in {case}"));
        written.push_str(&format!("\n== {given}-- expect\n{}", outcome(given)));
    }
    if std::env::var("LICTOR_EXPECT").is_ok_and(|mode| mode == "write") {
        fs::write(&path, written).unwrap();
        return;
    }
    for (line, (expected, found)) in script.lines().zip(written.lines()).enumerate() {
        assert_eq!(expected, found, "files.txt:{} (expected, found)", line + 1);
    }
    assert_eq!(script.trim_end(), written.trim_end());
}

fn outcome(case: &str) -> String {
    let folder = Folder(fresh_folder());
    for part in case.split("\n-- ").skip(1).filter(|part| !part.is_empty()) {
        let (name, text) = part.split_once('\n').unwrap_or((part, ""));
        let path = folder.0.join("zones").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = format!("{}/", folder.0.join("zones").display());
    let told = ZoneFiles::default().read(&[folder.0.join("zones")], &["consul.", "corp.test."], true);
    let shown = |told: String| told.replace(&root, "").replace(root.trim_end_matches('/'), "$");
    told.iter().map(|told| format!("{}\n", shown(told.to_string()))).collect()
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

/// Each file of ours is one that others can read, under the names that it is served by. That the empty zones have a name
/// server without an address is what RFC 6303 §3 wants, and the only thing that BIND says of them.
#[test]
fn our_files_are_valid_to_bind() {
    let v6 = format!("1.{}ip6.arpa", "0.".repeat(31));
    for (zone, file) in [
        ("corp.example", "example"),
        ("localhost", "localhost"),
        ("127.in-addr.arpa", "loopback-v4"),
        (&v6, "loopback-v6"),
        ("10.in-addr.arpa", "empty"),
        ("d.f.ip6.arpa", "empty"),
    ] {
        let checked = Command::new("named-checkzone").args([zone, &format!("zones/{file}.zone")]).output();
        let Ok(checked) = checked else {
            println!("skipped: named-checkzone (bind9-utils) is not installed");
            return;
        };
        let text = String::from_utf8_lossy(&checked.stdout).into_owned();
        let meant = format!("zone {zone}/IN: NS '{zone}' has no address records (A or AAAA)");
        let is_empty = text.lines().all(|line| line == meant || line.ends_with("not loaded due to errors."));
        assert!(checked.status.success() || is_empty, "{file}: {text}");
    }
}

const SOA: &str = "$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\n";

/// By itself, as files come, change, break, are mended and go; and at once when told to.
#[test]
fn an_agent_follows_its_files() {
    let folder = Folder(fresh_folder());
    let file = |name: &str| folder.0.join(name);
    let www = |address: &str| format!("{SOA}www A {address}\n$INCLUDE more.inc\n");
    fs::write(file("more.inc"), "more A 192.0.2.100\n").unwrap();
    fs::write(file("a.example.zone"), www("192.0.2.1")).unwrap();
    fs::write(file("b.example.zone"), "@ 60 SOA\n").unwrap();
    let zones = format!("lictor {{ dns {{ zones = [\"{}\"] }} }}", folder.0.display());
    let agent = Agent::start(&["-dev", "-hcl", &zones]);
    let shown = |name: &str| file(name).display().to_string();
    agent.wait_for_log(&format!("{}:1:9: SOA ends here; expected a name", shown("b.example.zone")));
    let code = |name: &str| ask(agent.dns(), name, RecordType::A).metadata.response_code;
    assert_eq!(code("www.b.example."), ResponseCode::ServFail, "it is there, and nobody knows what it says");
    assert_eq!(agent.answers("www.a.example.", RecordType::A), ["A 192.0.2.1"]);

    fs::write(file("a.example.zone"), www("192.0.2.2")).unwrap();
    agent.wait_for_answers("www.a.example.", RecordType::A, &["A 192.0.2.2"]);
    fs::write(file("more.inc"), "more A 192.0.2.101\n").unwrap();
    agent.wait_for_answers("more.a.example.", RecordType::A, &["A 192.0.2.101"]);

    fs::write(file("a.example.zone"), www("192.0.2.300")).unwrap();
    agent.wait_for_log(&format!("{}:4:7: found \"192.0.2.300\"", shown("a.example.zone")));
    agent.wait_for_log("the zone a.example. stays as it was read before");
    assert_eq!(agent.answers("www.a.example.", RecordType::A), ["A 192.0.2.2"]);
    fs::write(file("a.example.zone"), www("192.0.2.3")).unwrap();
    agent.signal("HUP");
    agent.wait_for_answers("www.a.example.", RecordType::A, &["A 192.0.2.3"]);

    fs::write(file("c.example.zone"), format!("{SOA}www A 192.0.2.4\n")).unwrap();
    fs::remove_file(file("a.example.zone")).unwrap();
    fs::remove_file(file("b.example.zone")).unwrap();
    agent.wait_for_answers("www.c.example.", RecordType::A, &["A 192.0.2.4"]);
    agent.wait_for_log("is gone, and the zone a.example. with it");
    let gone = || (code("www.a.example.") == ResponseCode::Refused).then_some(());
    wait_for("both zones to be gone", gone, || agent.log());
    // Read at the start, at two changes and when told to; what has not changed is not looked into again.
    let count = |text: String| agent.log().matches(&text).count();
    assert_eq!(count(format!("{}: serving the zone", shown("a.example.zone"))), 4, "{}", agent.log());
    assert_eq!(count(format!("{}: has faults", shown("b.example.zone"))), 2, "{}", agent.log());
    assert_eq!(code("www.b.example."), ResponseCode::Refused);
}

/// Where two files change at once, each says what it says now: neither stands in the way of the other as it was.
#[test]
fn zones_may_change_places() {
    let folder = Folder(fresh_folder());
    let file = |name: &str| folder.0.join(name);
    let write = |name: &str, zone: &str| {
        fs::write(file("new"), format!("$ORIGIN {zone}.example.\n{SOA}www A 192.0.2.1\n")).unwrap();
        fs::rename(file("new"), file(name)).unwrap();
    };
    let (mut files, paths) = (ZoneFiles::default(), [folder.0.clone()]);
    let mut read = || -> Vec<String> {
        let told = files.read(&paths, &["consul."], false);
        told.iter().map(|told| told.to_string().replace(&format!("{}/", folder.0.display()), "")).collect()
    };
    let serving =
        |file: &str, zone: &str| format!("{file}: serving the zone {zone}.example., serial 1, 3 records");
    write("1.zone", "a");
    write("2.zone", "b");
    assert_eq!(read(), [serving("1.zone", "a"), serving("2.zone", "b")]);
    write("1.zone", "b");
    write("2.zone", "a");
    assert_eq!(read(), [serving("1.zone", "b"), serving("2.zone", "a")]);
    write("1.zone", "a");
    write("2.zone", "c");
    assert_eq!(read(), [serving("1.zone", "a"), serving("2.zone", "c")]);
    // What a file has kept is nobody else's.
    fs::write(file("1.zone"), "x B 1\n").unwrap();
    write("2.zone", "a");
    assert!(read().iter().any(|told| told.contains("the zone a.example. stands in")));
    assert_eq!(read(), Vec::<String>::new());
}

#[test]
fn zones_come_and_go_with_a_reload() {
    let folder = Folder(fresh_folder());
    fs::write(folder.0.join("a.example.zone"), format!("{SOA}www A 192.0.2.1\n")).unwrap();
    let agent = Agent::start(&["-dev"]);
    let config = |zones: &str| {
        let text = format!("lictor {{ dns {{ zones = [{zones}] }} }}");
        fs::write(agent.folder.join("zones.hcl"), text).unwrap();
        agent.signal("HUP");
    };
    config(&format!("{:?}", folder.0.join("a.example.zone")));
    agent.wait_for_answers("www.a.example.", RecordType::A, &["A 192.0.2.1"]);
    fs::write(folder.0.join("a.example.zone"), format!("{SOA}www A 192.0.2.2\n")).unwrap();
    agent.wait_for_answers("www.a.example.", RecordType::A, &["A 192.0.2.2"]);
    config("\"/nonexistent/zones\"");
    agent.wait_for_log("no such file or directory; expected a directory of master files");
    assert_eq!(agent.answers("www.a.example.", RecordType::A), ["A 192.0.2.2"], "nothing changes");
    config("");
    agent.wait_for_answers("www.a.example.", RecordType::A, &[]);
}

/// An agent starts without the zones that have faults; `lictor validate` is for whoever wants to know before.
#[test]
fn validate_reads_zone_files_too() {
    let folder = Folder(fresh_folder());
    fs::write(folder.0.join("a.example.zone"), SOA).unwrap();
    let file = folder.0.join("agent.hcl");
    let config = format!(
        "data_dir = \"/tmp\"\nbind_addr = \"127.0.0.1\"\nlictor {{ dns {{ zones = [{:?}] }} }}",
        folder.0
    );
    fs::write(&file, config).unwrap();
    let validate = || {
        let out = Command::new(env!("CARGO_BIN_EXE_lictor")).arg("validate").arg(&file).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    assert_eq!(validate(), (Some(0), "Configuration is valid!\n".into()));
    fs::write(folder.0.join("a.example.zone"), format!("{SOA}x B 1\n")).unwrap();
    let (code, text) = validate();
    assert!(code == Some(1) && text.contains("a.example.zone:4:3: found \"B\"; expected a type"), "{text}");
}
