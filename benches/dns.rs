//! What a DNS answer costs. `benches/dns.sh` runs this beside other servers and prints the table; alone it shows what
//! the answers cost without sockets:
//!
//! ```text
//! cargo bench --bench dns -- --micro           microseconds of each answer, in process
//! dns data DIR                                 the questions, and the same records as a zone
//! dns serve PORT none|elsewhere|inside         all cases, one DNS thread, with registrations going on
//! dns floor PORT                               ready answers, one port to a case: the price of the system calls
//! ```

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock and keeps a pace")]

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use lictor::{
    catalog::{Catalog, Command, Node, Register, Service},
    dns::{Asker, Published, Responder, Roads, Server, Settings, StaticZones, Transport, View},
};
use tokio_util::sync::CancellationToken;

/// What is asked, and what it is called in the table.
struct Case {
    name: &'static str,
    asked: Asked,
    kind: u16,
    /// The size that the client offers by EDNS.
    edns: Option<u16>,
    /// Whether a server of static zones gives the same answer: it has no limit but the packet's size.
    in_zones: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Asked {
    /// A thousand services of three instances, in turn.
    Small,
    /// One of 73: as many A records as 1232 bytes hold.
    Fitting,
    /// One of 10,000.
    Big,
}

const A: u16 = 1;
const SRV: u16 = 33;

const CASES: [Case; 8] = [
    Case { name: "3-A", asked: Asked::Small, kind: A, edns: None, in_zones: true },
    Case { name: "3-SRV", asked: Asked::Small, kind: SRV, edns: None, in_zones: true },
    Case { name: "10000-A", asked: Asked::Big, kind: A, edns: None, in_zones: false },
    Case { name: "10000-SRV", asked: Asked::Big, kind: SRV, edns: None, in_zones: false },
    Case { name: "73-A-1232", asked: Asked::Fitting, kind: A, edns: Some(1232), in_zones: true },
    Case { name: "10000-A-1232", asked: Asked::Big, kind: A, edns: Some(1232), in_zones: false },
    Case { name: "73-SRV-1232", asked: Asked::Fitting, kind: SRV, edns: Some(1232), in_zones: false },
    Case { name: "10000-SRV-1232", asked: Asked::Big, kind: SRV, edns: Some(1232), in_zones: false },
];

const NODES: usize = 10_000;
const SMALL_SERVICES: usize = 1_000;
const CHURN_PER_SEC: u32 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["--micro"] => micro(),
        ["data", dir] => data(Path::new(dir))?,
        ["serve", port, churn] => serve(port.parse()?, churn)?,
        ["floor", port] => floor(port.parse()?)?,
        _ => return Err("dns [--micro | data DIR | serve PORT none|elsewhere|inside | floor PORT]".into()),
    }
    Ok(())
}

fn micro() {
    const CALLS: usize = 200_000;
    let (catalog, settings) = (catalog(), Settings::default());
    let mut responder = Responder::new(7);
    println!("{:<16}{:>12}{:>12}", "", "us/answer", "bytes");
    for case in &CASES {
        let questions = case.questions();
        let mut answer = |calls: usize| {
            let (mut reply, zones) = (Vec::new(), StaticZones::default());
            for question in questions.iter().cycle().take(calls) {
                reply.clear();
                let view = View { catalog: Some(&catalog), settings: &settings, zones: &zones, fresh: true };
                responder.respond(&view, &ASKER, question, &mut reply);
            }
            reply.len()
        };
        answer(CALLS / 10);
        let start = Instant::now();
        let bytes = answer(CALLS);
        let micros = start.elapsed().as_secs_f64() * 1e6 / CALLS as f64;
        println!("{:<16}{micros:>12.3}{bytes:>12}", case.name);
    }
}

/// `CASE.queries` in dnsperf's binary form, `consul.zone`, and `cases`: names, and which of them zones can answer.
fn data(dir: &Path) -> io::Result<()> {
    let mut cases = String::new();
    for case in &CASES {
        let framed = |question: &Vec<u8>| [&(question.len() as u16).to_be_bytes(), &question[..]].concat();
        let questions: Vec<u8> = case.questions().iter().flat_map(framed).collect();
        fs::write(dir.join(format!("{}.queries", case.name)), questions)?;
        let _ = writeln!(cases, "{} {}", case.name, if case.in_zones { "zones" } else { "-" });
    }
    fs::write(dir.join("cases"), cases)?;
    fs::write(dir.join("consul.zone"), zone())
}

/// Answers all cases on one DNS thread until killed.
fn serve(port: u16, churn: &str) -> Result<(), Box<dyn Error>> {
    let mut catalog = catalog();
    let published = Published {
        catalog: Arc::new(ArcSwapOption::from_pointee(catalog.clone())),
        settings: Arc::default(),
        zones: Arc::default(),
        fresh: Arc::new(true.into()),
        counters: Arc::default(),
    };
    let roads = Roads { udp_threads: NonZeroUsize::MIN, ..Roads::of(&Settings::default()) };
    let server = Server::bind(&[SocketAddr::from((Ipv4Addr::LOCALHOST, port))], &roads)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let service = match churn {
        "none" => None,
        "elsewhere" => Some("elsewhere".to_string()),
        "inside" => Some(Asked::Big.service(0)),
        _ => return Err("churn is none, elsewhere or inside".into()),
    };
    let current = published.catalog.clone();
    thread::scope(|scope| {
        if let Some(service) = service {
            scope.spawn(move || {
                let start = Instant::now();
                for turn in 1.. {
                    let _ = catalog.apply(instance(&service, turn * 7 % NODES, 1024 + turn % 50_000));
                    current.store(Some(Arc::new(catalog.clone())));
                    let next = start + Duration::from_secs(1) / CHURN_PER_SEC * turn as u32;
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
        runtime.block_on(server.run(published, CancellationToken::new()))
    })?;
    Ok(())
}

/// The same road with nothing to think about: each case's reply is made once, and given the id and the name asked.
#[cfg(target_os = "linux")]
fn floor(port: u16) -> io::Result<()> {
    let catalog = catalog();
    thread::scope(|scope| {
        for (at, case) in CASES.iter().enumerate() {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port + at as u16))?.into();
            let question = &case.questions()[0];
            let named = 12..12 + encoded(&case.asked.name(0)).len();
            let mut ready = Vec::new();
            let view = View {
                catalog: Some(&catalog),
                settings: &Settings::default(),
                zones: &StaticZones::default(),
                fresh: true,
            };
            Responder::new(7).respond(&view, &ASKER, question, &mut ready);
            thread::Builder::new().name(format!("dns-{at}")).spawn_scoped(scope, move || {
                let running = std::sync::atomic::AtomicBool::new(false);
                lictor::dns::udp_batch::exchange(
                    &socket,
                    None,
                    &running,
                    &mut (),
                    || (),
                    |(), (), _, packet, reply| {
                        reply.extend_from_slice(&ready);
                        reply[..2].copy_from_slice(&packet[..2]);
                        reply[named.clone()].copy_from_slice(&packet[named.clone()]);
                    },
                    |(), ()| (),
                );
            })?;
        }
        Ok(())
    })
}

#[cfg(not(target_os = "linux"))]
fn floor(_: u16) -> io::Result<()> {
    Err(io::Error::other("packets go by the batch on Linux only"))
}

const ASKER: Asker = Asker { transport: Transport::Udp, from: std::net::IpAddr::V4(Ipv4Addr::LOCALHOST) };

impl Case {
    fn questions(&self) -> Vec<Vec<u8>> {
        let names = if self.asked == Asked::Small { SMALL_SERVICES } else { 1 };
        (0..names).map(|at| question(&self.asked.name(at), self.kind, self.edns)).collect()
    }
}

impl Asked {
    fn service(self, at: usize) -> String {
        match self {
            Asked::Small => format!("small-{at:03}"),
            Asked::Fitting => "fitting".into(),
            Asked::Big => "big".into(),
        }
    }

    fn name(self, at: usize) -> String {
        format!("{}.service.consul", self.service(at))
    }
}

/// Of each service, and the nodes on which it has an instance.
fn services() -> impl Iterator<Item = (String, Vec<usize>)> {
    let small = (0..SMALL_SERVICES)
        .map(|at| (Asked::Small.service(at), (0..3).map(|n| (at * 3 + n) % NODES).collect()));
    let fitting = (Asked::Fitting.service(0), (0..73).collect());
    let big = (Asked::Big.service(0), (0..NODES).collect());
    let elsewhere = ("elsewhere".to_string(), (0..NODES).collect());
    small.chain([fitting, big, elsewhere])
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for (service, nodes) in services() {
        for node in nodes {
            catalog.apply(instance(&service, node, 8_000)).0.expect("a plain registration");
        }
    }
    catalog
}

fn instance(service: &str, node: usize, port: usize) -> Command {
    let node =
        Node { name: node_name(node).into(), address: address(node).to_string().into(), ..Node::default() };
    let service =
        Service { id: service.into(), name: service.into(), port: port as u16, ..Service::default() };
    Command::Register(Box::new(Register { node, service: Some(service), ..Register::default() }))
}

fn node_name(node: usize) -> String {
    format!("node-{node:05}")
}

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + node as u32)
}

fn zone() -> String {
    let mut zone = String::from(
        "$ORIGIN consul.\n$TTL 0\n@ SOA ns hostmaster 1 3600 600 86400 5\n@ NS ns\nns A 127.0.0.1\n",
    );
    for node in 0..NODES {
        let _ = writeln!(zone, "{}.node.dc1 A {}", node_name(node), address(node));
    }
    for (service, nodes) in services().filter(|(_, nodes)| nodes.len() < NODES) {
        for node in nodes {
            let _ = writeln!(zone, "{service}.service A {}", address(node));
            let _ = writeln!(zone, "{service}.service SRV 1 1 8000 {}.node.dc1", node_name(node));
        }
    }
    zone
}

fn question(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, edns.is_some().into()];
    packet.extend(encoded(name));
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    if let Some(bytes) = edns {
        packet.extend([0, 0, 41]);
        packet.extend(bytes.to_be_bytes());
        packet.extend([0; 6]);
    }
    packet
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([0]).collect()
}
