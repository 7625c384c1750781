//! What floods cost those who ask for names of ours. A server in a process of its own is asked for a service of three
//! instances, by one client that keeps 32 questions in flight; beside it comes a flood, and before that the same flood
//! alone, so that its own price is known. All in one run, since only the ratios hold on a shared machine.
//!
//! ```text
//! cargo bench --bench overload                 every flood, half a minute in all
//! overload serve RECURSOR                      the server: prints its address, then its tasks for each line it reads
//! ```

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock and keeps a pace")]

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use lictor::{
    catalog::{self, Catalog, Node, Register, Service},
    dns::{Published, Recursion, Roads, Server, Settings},
};
use tokio_util::sync::CancellationToken;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Clone, Copy, PartialEq)]
enum Flood {
    None,
    /// Names of ours that do not exist, each another one.
    Unknown,
    /// Names of others, each another one; the recursor is silent.
    Recursion,
    /// Packets that end in the midst of their question.
    Malformed,
    /// Connections that send a byte at a time and never a whole question.
    SlowTcp,
}

const FLOODS: [(Flood, &str); 5] = [
    (Flood::None, "none"),
    (Flood::Unknown, "unknown names"),
    (Flood::Recursion, "recursion, silent"),
    (Flood::Malformed, "malformed"),
    (Flood::SlowTcp, "slow TCP"),
];

const PHASE: Duration = Duration::from_secs(2);
/// Packets of a flood in a second, as far as the machine gets.
const FLOOD_PER_SEC: u32 = 20_000;
const IN_FLIGHT: usize = 32;
/// Connections of the slow flood; from several addresses, or one client's share would be all they get.
const SLOW: usize = 600;
const LOCAL: &str = "web.service.consul";

fn main() -> Outcome<()> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => measure(),
        ["serve", recursor] => serve(recursor.parse()?),
        _ => Err("overload [serve RECURSOR]".into()),
    }
}

fn measure() -> Outcome<()> {
    // Bound and never read: whoever asks there hears nothing.
    let silent = UdpSocket::bind("127.0.0.1:0")?;
    let mut served = Served::start(silent.local_addr()?)?;
    let base = phase(&mut served, Flood::None, true)?;
    let price = base.cpu_micros / base.local as f64;
    println!(
        "{:<19}{:>10}{:>10}{:>12}{:>12}{:>9}{:>9}{:>8}{:>7}",
        "flood", "flood/s", "local/s", "us/flood", "us/local", "ratio", "RSS MiB", "fds", "tasks"
    );
    for (flood, name) in FLOODS {
        let alone = if flood == Flood::None { Phase::default() } else { phase(&mut served, flood, false)? };
        let of_flood = alone.cpu_micros / alone.flood.max(1) as f64;
        let both = phase(&mut served, flood, true)?;
        let of_local = (both.cpu_micros - of_flood * both.flood as f64) / both.local.max(1) as f64;
        println!(
            "{name:<19}{:>10.0}{:>10.0}{of_flood:>12.2}{of_local:>12.2}{:>9.2}{:>9.1}{:>8}{:>7}",
            both.flood as f64 / PHASE.as_secs_f64(),
            both.local as f64 / PHASE.as_secs_f64(),
            of_local / price,
            both.rss_mib,
            both.descriptors,
            both.tasks,
        );
    }
    Ok(())
}

#[derive(Default)]
struct Phase {
    flood: usize,
    local: usize,
    cpu_micros: f64,
    rss_mib: f64,
    descriptors: usize,
    tasks: usize,
}

fn phase(served: &mut Served, flood: Flood, with_local: bool) -> Outcome<Phase> {
    let (stop, flooded, answered) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let to = served.addr;
    let before = served.cpu_micros()?;
    thread::scope(|scope| {
        let flooding = scope.spawn(|| send(flood, to, &stop, &flooded));
        let asking = with_local.then(|| scope.spawn(|| ask(to, &stop, &answered)));
        thread::sleep(PHASE);
        let cpu_micros = served.cpu_micros()? - before;
        let found = Phase {
            flood: flooded.load(Ordering::Relaxed),
            local: answered.load(Ordering::Relaxed),
            cpu_micros,
            rss_mib: served.rss_mib()?,
            descriptors: fs::read_dir(format!("/proc/{}/fd", served.child.id()))?.count(),
            tasks: served.tasks()?,
        };
        stop.store(true, Ordering::Relaxed);
        flooding.join().expect("the flood returns")?;
        asking.map_or(Ok(()), |asking| asking.join().expect("the client returns"))?;
        Ok::<_, Box<dyn Error>>(found)
    })
}

/// Asks for a name of ours, `IN_FLIGHT` times at once; what is lost is asked again.
fn ask(to: SocketAddr, stop: &AtomicBool, answered: &AtomicUsize) -> std::io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let packet = question(LOCAL);
    let mut reply = [0; 512];
    let mut in_flight = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in in_flight..IN_FLIGHT {
            socket.send(&packet)?;
        }
        in_flight = IN_FLIGHT;
        match socket.recv(&mut reply) {
            Ok(_) => {
                in_flight -= 1;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => in_flight = 0,
        }
    }
    Ok(())
}

fn send(flood: Flood, to: SocketAddr, stop: &AtomicBool, flooded: &AtomicUsize) -> std::io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut slow: Vec<TcpStream> = Vec::new();
    let (start, mut sent) = (Instant::now(), 0u32);
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(1));
        let due = (start.elapsed().as_secs_f64() * f64::from(FLOOD_PER_SEC)) as u32;
        while sent < due && !stop.load(Ordering::Relaxed) {
            sent += 1;
            let done = match flood {
                Flood::None => break,
                Flood::Unknown => socket.send_to(&question(&format!("n{sent}.service.consul")), to).is_ok(),
                Flood::Recursion => {
                    let name = format!("n{sent}-{}.example.com", start.elapsed().as_nanos());
                    socket.send_to(&question(&name), to).is_ok()
                }
                Flood::Malformed => socket.send_to(&question(LOCAL)[..20], to).is_ok(),
                Flood::SlowTcp => drip(&mut slow, sent as usize % SLOW, to),
            };
            flooded.fetch_add(usize::from(done), Ordering::Relaxed);
        }
    }
    Ok(())
}

/// One byte more on a connection, or a new one in its place.
fn drip(slow: &mut Vec<TcpStream>, at: usize, to: SocketAddr) -> bool {
    let connect = || {
        let domain = socket2::Domain::IPV4;
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).ok()?;
        socket.bind(&SocketAddr::from(([127, 0, 9, (at % 8) as u8 + 1], 0)).into()).ok()?;
        socket.connect(&to.into()).ok()?;
        Some(TcpStream::from(socket))
    };
    match slow.get_mut(at) {
        Some(stream) => match stream.write_all(&[0]) {
            Ok(()) => return true,
            Err(_) => {
                if let Some(fresh) = connect() {
                    *stream = fresh;
                }
            }
        },
        None => slow.extend(connect()),
    }
    false
}

fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

/// The server's process, killed when dropped.
struct Served {
    child: Child,
    addr: SocketAddr,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Served {
    fn start(recursor: SocketAddr) -> Outcome<Served> {
        let mut child = Command::new(env::current_exe()?)
            .args(["serve", &recursor.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asks = child.stdin.take().ok_or("no stdin")?;
        let mut says = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        says.read_line(&mut line)?;
        Ok(Served { child, addr: line.trim().parse()?, asks, says })
    }

    /// Of all its threads.
    fn cpu_micros(&self) -> Outcome<f64> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(nanos as f64 / 1e3)
    }

    fn rss_mib(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
        Ok(kib / 1024.0)
    }

    fn tasks(&mut self) -> Outcome<usize> {
        self.asks.write_all(b"\n")?;
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn serve(recursor: SocketAddr) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let recursion = Recursion { recursors: vec![recursor], ..Recursion::default() };
    let settings = Settings { recursion, ..Settings::default() };
    let server = Server::bind(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 0))], &Roads::of(&settings))?;
    println!("{}", server.addrs()[0]);
    let published = Published {
        catalog: Arc::new(ArcSwapOption::from_pointee(catalog())),
        settings: Arc::new(ArcSwap::from_pointee(settings)),
        zones: Arc::default(),
        fresh: Arc::new(true.into()),
        counters: Arc::default(),
    };
    let metrics = runtime.metrics();
    runtime.spawn(server.run(published, CancellationToken::new()));
    let (mut stdin, mut byte) = (std::io::stdin().lock(), [0]);
    while stdin.read(&mut byte)? > 0 {
        println!("{}", metrics.num_alive_tasks());
    }
    Ok(())
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for number in 1..=3 {
        let node = Node {
            name: format!("n{number}").as_str().into(),
            address: format!("10.1.0.{number}").as_str().into(),
            ..Node::default()
        };
        let service = Service { id: "web".into(), name: "web".into(), port: 80, ..Service::default() };
        let register = Register { node, service: Some(service), ..Register::default() };
        let registered = catalog.apply(catalog::Command::Register(Box::new(register))).0;
        registered.expect("a registration of ours");
    }
    catalog
}
