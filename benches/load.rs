//! What a registration costs, and what an instance takes in memory. Each fleet is loaded through agreement by 64
//! writers in a process of its own, since memory that was once taken is rarely given back; then A and SRV of every
//! service are asked, and every instance is written again with another port.
//!
//! ```text
//! cargo bench --bench load                 both fleets
//! cargo bench --bench load -- large|small  one of them
//! ```

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    env,
    error::Error,
    fs,
    net::{IpAddr, Ipv4Addr},
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use lictor::{
    catalog::{Check, Command, Map, Node, Register, Service, ServiceAddress, Status, Subscribe, Text},
    dns::{Asker, Responder, Settings, StaticZones, Transport, View},
    raft::{self, Raft},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What is registered. Every text is a copy of its own, as if it had come in a request.
#[derive(Clone, Copy)]
struct Fleet {
    name: &'static str,
    instances: usize,
    services: usize,
    nodes: usize,
    /// Three tags, two metas, two tagged addresses and a check, or one tag alone.
    rich: bool,
}

const FLEETS: [Fleet; 2] = [
    Fleet { name: "large", instances: 100_000, services: 10_000, nodes: 10_000, rich: true },
    Fleet { name: "small", instances: 32_000, services: 1_000, nodes: 200, rich: false },
];

const WRITERS: usize = 64;
const OUTPUT_BYTES: usize = 50;
/// As `-dev` has it.
const LOG_BYTES_MAX: usize = 1 << 20;
const A: u16 = 1;
const SRV: u16 = 33;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => FLEETS.iter().try_for_each(|fleet| {
            let status = process::Command::new(env::current_exe()?).arg(fleet.name).status()?;
            status.success().then_some(()).ok_or_else(|| format!("{}: {status}", fleet.name).into())
        }),
        [name] => {
            let fleet = FLEETS.into_iter().find(|fleet| fleet.name == name).ok_or("load [large | small]")?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(fleet.run())
        }
        _ => Err("load [large | small]".into()),
    }
}

impl Fleet {
    async fn run(self) -> Result<(), Box<dyn Error>> {
        let Fleet { name, instances, services, nodes, rich } = self;
        let detail = if rich { "3 tags, 2 metas, 2 tagged addresses, 1 check" } else { "1 tag, no check" };
        println!("{name}: {instances} instances, {services} services, {nodes} nodes; {detail}");
        let shutdown = CancellationToken::new();
        let settings = raft::Settings::in_memory((Ipv4Addr::LOCALHOST, 8300), LOG_BYTES_MAX);
        let (raft, task) = Raft::open(settings, shutdown.clone()).await?;
        raft.lead().await?;
        let before = resident_bytes()?;
        let told = |what: &str| -> Result<(), Box<dyn Error>> {
            let each = resident_bytes()?.saturating_sub(before) / instances;
            println!("  {what:<36}{each:>8} resident bytes an instance");
            Ok(())
        };
        self.write_all(&raft, 0).await?;
        told("loaded")?;
        self.ask_all(&raft)?;
        told("after A and SRV of every service")?;
        self.write_all(&raft, 1).await?;
        self.ask_all(&raft)?;
        told("every port changed, and asked again")?;
        raft.catalog().assert_consistent();
        shutdown.cancel();
        Ok(task.await?)
    }

    /// Every instance once, by 64 writers that each wait for their reply.
    async fn write_all(self, raft: &Raft, turn: u16) -> Result<(), Box<dyn Error>> {
        let next = Arc::new(AtomicUsize::new(0));
        let (start, cpu) = (Instant::now(), cpu_secs()?);
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let (raft, next) = (raft.clone(), next.clone());
            writers.spawn(async move {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= self.instances {
                        return;
                    }
                    raft.propose(self.registration(at, turn)).await.expect("a leader").expect("a plain one");
                }
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer?;
        }
        let micros = |secs: f64| secs * 1e6 / self.instances as f64;
        let what = if turn == 0 { "registered" } else { "registered again" };
        println!(
            "  {what:<36}{:>8.1} us CPU a write, {:.1} us elapsed",
            micros(cpu_secs()? - cpu),
            micros(start.elapsed().as_secs_f64())
        );
        Ok(())
    }

    fn ask_all(self, raft: &Raft) -> Result<(), Box<dyn Error>> {
        const ANSWERS_AT: usize = 6;
        let asker = Asker { transport: Transport::Tcp, from: Ipv4Addr::LOCALHOST.into() };
        let (catalog, settings, mut reply) = (raft.catalog(), Settings::default(), Vec::new());
        let zones = StaticZones::default();
        let mut responder = Responder::new(7);
        for service in 0..self.services {
            for kind in [A, SRV] {
                let question = question(&format!("{}.service.consul", service_name(service)), kind);
                let view = View { catalog: Some(&catalog), settings: &settings, zones: &zones, fresh: true };
                responder.respond(&view, &asker, &question, &mut reply);
                let answers = u16::from_be_bytes([reply[ANSWERS_AT], reply[ANSWERS_AT + 1]]);
                if usize::from(answers) != self.instances / self.services {
                    return Err(format!("{answers} answers for service {service}").into());
                }
            }
        }
        Ok(())
    }

    /// Each service stands on nodes that are spread over the fleet, each node has instances of several services, and
    /// both come in an order in which neighbours were rarely registered one after the other.
    fn registration(self, at: usize, turn: u16) -> Command {
        let at = at * 7_919 % self.instances;
        let (service, copy) = (at % self.services, at / self.services);
        let node = (service + copy * (self.nodes / (self.instances / self.services)).max(1)) % self.nodes;
        let address = address(node).to_string();
        let port = 1_024 + (at as u16 % 30_000) + turn;
        let id = format!("{}-{copy}", service_name(service));
        let register = Register {
            node: self.node(node, &address),
            skip_node_update: false,
            checks: if self.rich { vec![check(&id, service, &address, port)] } else { vec![] },
            service: Some(self.service(service, id, node, &address, port)),
        };
        Command::Register(Box::new(register))
    }

    fn node(self, node: usize, address: &str) -> Node {
        let plain = Node {
            id: Some(uuid::Uuid::from_u128(node as u128 + 1)),
            name: format!("node-{node:05}").into(),
            address: address.into(),
            datacenter: "dc1".into(),
            ..Node::default()
        };
        if !self.rich {
            return plain;
        }
        let tagged = ["lan", "wan"].map(|tag| (tag, Text::from(address)));
        let meta = [("consul-version", "1.16.4".into()), ("rack", Text::from(format!("r{}", node / 40)))];
        Node { tagged_addresses: Some(Map::from_iter(tagged)), meta: Some(Map::from_iter(meta)), ..plain }
    }

    fn service(self, service: usize, id: String, node: usize, address: &str, port: u16) -> Service {
        let version = Text::from(format!("v{}", service % 10));
        let name = service_name(service).into();
        if !self.rich {
            return Service { id: id.into(), name, port, tags: Arc::new([version]), ..Service::default() };
        }
        let tagged = |tag| (tag, ServiceAddress { address: address.into(), port });
        let meta = [
            ("team", Text::from(format!("team-{}", service % 200))),
            ("zone", Text::from(format!("zone-{}", node % 3))),
        ];
        Service {
            id: id.into(),
            name,
            port,
            tags: Arc::new([version, "http".into(), format!("zone-{}", node % 3).into()]),
            address: address.into(),
            tagged_addresses: Some(Map::from_iter(["lan_ipv4", "wan_ipv4"].map(tagged))),
            meta: Some(Map::from_iter(meta)),
            ..Service::default()
        }
    }
}

fn check(id: &str, service: usize, address: &str, port: u16) -> Check {
    let output = format!("HTTP GET http://{address}:{port}/health: 200 OK");
    Check {
        id: format!("service:{id}").into(),
        name: format!("Service '{}' check", service_name(service)).into(),
        status: Status::Passing,
        output: format!("{output:<OUTPUT_BYTES$.OUTPUT_BYTES$}").into(),
        service_id: id.into(),
        kind: "http".into(),
        interval: "10s".into(),
        ..Check::default()
    }
}

fn service_name(service: usize) -> String {
    format!("service-{service:05}")
}

fn address(node: usize) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + node as u32).into()
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend(labels.chain([0]));
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

fn resident_bytes() -> Result<usize, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}

/// Of all threads, user and system.
fn cpu_secs() -> Result<f64, Box<dyn Error>> {
    let mut nanos = 0.0;
    for thread in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += stat.split(' ').next().ok_or("an empty schedstat")?.parse::<f64>()?;
    }
    Ok(nanos / 1e9)
}
