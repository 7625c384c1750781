//! What a durable write costs, how soon a restarted server answers, and what its disk takes under endless rewriting. A
//! real agent in a process of its own, over HTTP and DNS, as its users meet it.
//!
//! ```text
//! cargo bench --bench disk                     all three
//! cargo bench --bench disk -- writes|restart|rewriting
//! ```

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock, and waits")]

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const WRITERS: usize = 64;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 9, 8, 7);
const START_LIMIT: Duration = Duration::from_secs(60);

fn main() -> Outcome<()> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => [writes, restart, rewriting].iter().try_for_each(|part| part()),
        ["writes"] => writes(),
        ["restart"] => restart(),
        ["rewriting"] => rewriting(),
        _ => Err("disk [writes | restart | rewriting]".into()),
    }
}

/// Registrations that each change something, by 64 connections that each wait for their answer.
fn writes() -> Outcome<()> {
    const WRITES: usize = 100_000;
    let folder = Folder::new()?;
    println!("durable writes: {WRITES} registrations over HTTP, {WRITERS} connections");
    println!(
        "  {:<44}{:>10.0} a second",
        "floor: 4 kB and fdatasync, one after the other",
        syncs(&folder.0)?
    );
    for (told, dev) in [("in memory (-dev)", true), ("on disk", false)] {
        let agent = Agent::start(&folder.0.join(told), dev)?;
        let (cpu, start) = (agent.cpu_secs()?, Instant::now());
        register(WRITES, |at| (format!("node-{}", at % 2_000), at))?;
        let (elapsed, cpu) = (start.elapsed().as_secs_f64(), agent.cpu_secs()? - cpu);
        println!(
            "  {:<44}{:>10.0} a second, {:.1} us CPU each",
            told,
            WRITES as f64 / elapsed,
            cpu * 1e6 / WRITES as f64
        );
    }
    Ok(())
}

/// From the start of the process to the first right answer by UDP, after a kill -9.
fn restart() -> Outcome<()> {
    const INSTANCES: usize = 32_000;
    let folder = Folder::new()?;
    let agent = Agent::start(&folder.0, false)?;
    register(INSTANCES, |at| (format!("node-{}", at % 200), at))?;
    let last = format!("service-{}", (INSTANCES - 1) % 1_000);
    println!("restart of {INSTANCES} instances, {} bytes on disk", bytes_of(&folder.0));
    drop(agent);
    for round in 0..3 {
        let start = Instant::now();
        let agent = Agent::spawn(&folder.0, false)?;
        while !answers(&last) {
            if start.elapsed() > START_LIMIT {
                return Err("no right answer came".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        let answered = start.elapsed().as_secs_f64();
        agent.wait_until_up()?;
        let up = start.elapsed().as_secs_f64();
        println!("  round {round}: first right answer after {answered:.3} s, takes writes after {up:.3} s");
        drop(agent);
    }
    Ok(())
}

/// The same few instances again and again.
fn rewriting() -> Outcome<()> {
    const WRITES: usize = 400_000;
    let folder = Folder::new()?;
    let agent = Agent::start(&folder.0, false)?;
    println!("endless rewriting: 1,000 instances, {WRITES} registrations");
    let mut most = 0;
    for part in 1..=8 {
        register(WRITES / 8, |at| (format!("node-{}", at % 1_000), part * WRITES + at))?;
        most = most.max(bytes_of(&folder.0));
        println!(
            "  after {:>7}: {:>6} kB on disk, {:>6} kB resident",
            part * WRITES / 8,
            bytes_of(&folder.0) >> 10,
            agent.resident_kb()?
        );
    }
    println!("  at most {} kB on disk", most >> 10);
    Ok(())
}

/// `count` registrations of one service on one node each, all different from the one before on that node.
fn register(count: usize, named: impl Fn(usize) -> (String, usize) + Sync) -> Outcome<()> {
    let (next, named) = (&AtomicUsize::new(0), &named);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(move || -> Result<(), String> {
                    let stream = TcpStream::connect((ADDRESS, 8500)).map_err(|error| error.to_string())?;
                    stream.set_nodelay(true).map_err(|error| error.to_string())?;
                    let mut lines = BufReader::new(stream.try_clone().map_err(|error| error.to_string())?);
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= count {
                            return Ok(());
                        }
                        let (node, number) = named(at);
                        put(&stream, &mut lines, &node, at, number)?;
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().map_err(|_| "a writer failed")??;
        }
        Ok(())
    })
}

fn put(
    mut stream: &TcpStream,
    lines: &mut BufReader<TcpStream>,
    node: &str,
    at: usize,
    number: usize,
) -> Result<(), String> {
    let service = format!("service-{}", at % 1_000);
    let body = format!(
        r#"{{"Node":"{node}","Address":"10.0.0.1","Service":{{"ID":"{service}-{}","Service":"{service}","Tags":["v1"],"Port":{}}}}}"#,
        at % 32_000,
        number % 60_000 + 1
    );
    let length = body.len();
    let request =
        format!("PUT /v1/catalog/register HTTP/1.1\r\nHost: bench\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let (mut line, mut status, mut length) = (String::new(), String::new(), 0);
    loop {
        line.clear();
        lines.read_line(&mut line).map_err(|error| error.to_string())?;
        let lower = line.trim_end().to_ascii_lowercase();
        if let Some(bytes) = lower.strip_prefix("content-length: ") {
            length = bytes.parse().map_err(|_| format!("an odd length: {line}"))?;
        }
        if lower.starts_with("http/1.1 ") {
            status.clone_from(&lower);
        }
        if lower.is_empty() {
            break;
        }
    }
    let mut answer = vec![0; length];
    lines.read_exact(&mut answer).map_err(|error| error.to_string())?;
    if status.starts_with("http/1.1 200") {
        Ok(())
    } else {
        Err(format!("{status}: {}", String::from_utf8_lossy(&answer)))
    }
}

/// Whether the service is answered with an address.
fn answers(service: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind((ADDRESS, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        socket.connect((ADDRESS, 8600))?;
        let name = format!("{service}.service.consul");
        let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(labels.chain([0, 0, 1, 0, 1]));
        socket.send(&packet)?;
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply)?;
        Ok(length > 12 && reply[3] & 0xf == 0 && reply[7] > 0)
    };
    ask().unwrap_or(false)
}

struct Agent(Child);

impl Agent {
    fn start(folder: &Path, dev: bool) -> Outcome<Agent> {
        let agent = Agent::spawn(folder, dev)?;
        agent.wait_until_up()?;
        Ok(agent)
    }

    fn spawn(folder: &Path, dev: bool) -> Outcome<Agent> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lictor"));
        command.args(["agent", &format!("-bind={ADDRESS}"), &format!("-client={ADDRESS}"), "-node=bench"]);
        command.args(["-hcl", "limits { http_max_conns_per_client = 1000 }", "-log-level=WARN"]);
        let data_dir = format!("-data-dir={}", folder.display());
        let kept = ["-server", "-bootstrap-expect=1", &data_dir];
        command.args(if dev { &["-dev", "-log-level=WARN"][..] } else { &kept });
        Ok(Agent(command.stdout(Stdio::null()).spawn()?))
    }

    fn wait_until_up(&self) -> Outcome<()> {
        let (start, http) = (Instant::now(), SocketAddr::from((ADDRESS, 8500)));
        while TcpStream::connect(http).is_err() {
            if start.elapsed() > START_LIMIT {
                return Err("the agent did not start".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        // It is bound early, and accepts when it is ready.
        let mut stream = TcpStream::connect(http)?;
        stream.write_all(b"GET /v1/status/leader HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        if text.contains(" 200 ") { Ok(()) } else { Err(text.into()) }
    }

    fn resident_kb(&self) -> Outcome<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Of all threads, user and system.
    fn cpu_secs(&self) -> Outcome<f64> {
        let mut nanos = 0.0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanos += stat.split(' ').next().ok_or("an empty schedstat")?.parse::<f64>()?;
        }
        Ok(nanos / 1e9)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Outcome<Folder> {
        let path = env::temp_dir().join(format!("lictor-bench-{}", std::process::id()));
        let _of_a_former_run = fs::remove_dir_all(&path);
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

/// How many a second this disk does.
fn syncs(folder: &Path) -> Outcome<f64> {
    const COUNT: u64 = 1_000;
    let file = fs::File::create(folder.join("floor"))?;
    let start = Instant::now();
    for at in 0..COUNT {
        file.write_all_at(&[1; 4096], at * 4096)?;
        file.sync_data()?;
    }
    Ok(COUNT as f64 / start.elapsed().as_secs_f64())
}

fn bytes_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
