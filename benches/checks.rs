//! What a thousand checks at 1 s cost, beside a bare client that does the same to the same targets in one loop: a blocking
//! socket, the h2 crate, a process. CPU time of this process per look, as far as the agent's own state; targets run in a
//! process of their own. The last row runs kinds together, and says how evenly their looks are spread.
//!
//! ```text
//! cargo bench --bench checks                 all kinds, about 40 s
//! cargo bench --bench checks -- http grpc    some of them
//! ```

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    env,
    error::Error,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{HeaderMap, Request, Response};
use lictor::{
    agent::{Local, Source},
    catalog::{Catalog, Status, Subscribe, Subscription, Topic},
    check::{CheckSpec, Runner, Settings, Span, Told},
};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout_at,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Where the targets of a kind listen.
struct Serving {
    process: Child,
    http: Vec<SocketAddr>,
    h2: Vec<SocketAddr>,
    udp: Vec<SocketAddr>,
}

/// What a row runs.
struct Row {
    name: &'static str,
    checks: usize,
    spec: fn(&Serving, usize) -> CheckSpec,
    bare: Option<fn(&Serving, usize) -> Outcome<()>>,
}

const ROWS: [Row; 8] = [
    Row { name: "tcp", checks: 1000, spec: tcp, bare: Some(bare_tcp) },
    Row { name: "http", checks: 1000, spec: http, bare: Some(bare_http) },
    Row { name: "udp", checks: 1000, spec: udp, bare: Some(bare_udp) },
    Row { name: "h2ping", checks: 1000, spec: h2ping, bare: Some(|to, at| bare_h2(to, at, false)) },
    Row { name: "grpc", checks: 1000, spec: grpc, bare: Some(|to, at| bare_h2(to, at, true)) },
    Row { name: "script", checks: 200, spec: script, bare: Some(bare_script) },
    Row { name: "ttl", checks: 1000, spec: ttl, bare: None },
    Row {
        name: "mixed",
        checks: 1000,
        spec: |to, at| [tcp, http, grpc, ttl][at % 4](to, at),
        bare: Some(|to, at| match at % 4 {
            0 => bare_tcp(to, at),
            1 => bare_http(to, at),
            2 => bare_h2(to, at, true),
            _ => Ok(()),
        }),
    },
];

const PORTS: usize = 32;
const WARM: Duration = Duration::from_millis(1200);
const SECONDS: usize = 4;
const TOLD_MAX: usize = 1024;
const OUTPUT_BYTES_MAX: usize = 4096;

fn main() -> Outcome<()> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if args == ["serve"] {
        return runtime.block_on(serve());
    }
    let serving = Serving::start()?;
    println!("us of CPU per look{:>12}{:>12}{:>12}    looks in each 100 ms", "check", "bare", "ratio");
    for row in ROWS.iter().filter(|row| args.is_empty() || args.iter().any(|name| name == row.name)) {
        let (looks, each, buckets) = runtime.block_on(run(row, &serving))?;
        let spread =
            format!("{} to {}", buckets.iter().min().unwrap_or(&0), buckets.iter().max().unwrap_or(&0));
        print!("{:<18}{each:>12.1}", row.name);
        match row.bare {
            Some(bare) => {
                let start = cpu_micros()?;
                (0..looks).try_for_each(|at| bare(&serving, at))?;
                let bare = (cpu_micros()? - start) / looks as f64;
                println!("{bare:>12.1}{:>12.2}    {spread}", each / bare);
            }
            None => println!("{:>12}{:>12}    {spread}", "-", "-"),
        }
    }
    Ok(())
}

/// How many looks there were, what each cost, and how many fell in each tenth of a second.
async fn run(row: &Row, serving: &Serving) -> Outcome<(usize, f64, Vec<usize>)> {
    let (told, mut tells) = mpsc::channel(TOLD_MAX);
    let settings = Settings { output_bytes_max: OUTPUT_BYTES_MAX, discard_output: false };
    let mut runner = Runner::new(settings, told, "own".into(), Arc::new(Nothing));
    let mut local = Local::default();
    let mut programs = Vec::new();
    for at in 0..row.checks {
        let id = Some(format!("c{at}"));
        let definition = CheckSpec { id: id.clone(), ..(row.spec)(serving, at) }.build()?;
        if definition.kind.word() == "ttl" {
            programs.extend(id);
        }
        runner.put(&definition);
        local.register_check(definition, Source::File)?;
    }
    let take_up = |local: &mut Local, runner: &Runner, told: Told| {
        assert!(told.status == Status::Passing, "{}: {}", told.id, told.output);
        if runner.is_current(&told) {
            local
                .update_check(&told.id, told.status, &told.output, Instant::now(), Duration::ZERO)
                .expect("it is here");
        }
    };
    let mut speak = tokio::time::interval(Duration::from_secs(1) / (programs.len().max(1) as u32));
    let (start, mut buckets, mut cpu, mut spoken) = (Instant::now(), vec![0; SECONDS * 10], 0.0, 0);
    loop {
        let now = start.elapsed();
        if cpu == 0.0 && now >= WARM {
            (cpu, spoken) = (cpu_micros()?, 0);
            buckets.fill(0);
        }
        if now >= WARM + Duration::from_secs(SECONDS as u64) {
            break;
        }
        let end = (start + WARM + Duration::from_secs(SECONDS as u64)).into();
        tokio::select! {
            told = timeout_at(end, tells.recv()) => {
                let Ok(Some(told)) = told else { continue };
                take_up(&mut local, &runner, told);
            }
            _ = speak.tick(), if !programs.is_empty() => {
                let id = &programs[spoken % programs.len()];
                runner.heard(id, "fine");
                local.update_check(id, Status::Passing, "fine", Instant::now(), Duration::ZERO)?;
                spoken += 1;
            }
        }
        let tenth = start.elapsed().saturating_sub(WARM).as_millis() as usize / 100;
        buckets[tenth.min(SECONDS * 10 - 1)] += 1;
    }
    let spent = cpu_micros()? - cpu;
    runner.stop().await;
    let looks = buckets.iter().sum();
    Ok((looks, spent / looks as f64, buckets))
}

fn every_second(spec: CheckSpec) -> CheckSpec {
    CheckSpec { interval: Some(Span { nanos: 1_000_000_000, text: "1s".into() }), ..spec }
}

fn tcp(to: &Serving, at: usize) -> CheckSpec {
    every_second(CheckSpec { tcp: Some(to.http(at).to_string()), ..CheckSpec::default() })
}

fn http(to: &Serving, at: usize) -> CheckSpec {
    every_second(CheckSpec { http: Some(format!("http://{}/health", to.http(at))), ..CheckSpec::default() })
}

fn udp(to: &Serving, at: usize) -> CheckSpec {
    every_second(CheckSpec { udp: Some(to.udp[at % PORTS].to_string()), ..CheckSpec::default() })
}

fn h2ping(to: &Serving, at: usize) -> CheckSpec {
    let h2ping = Some(to.h2[at % PORTS].to_string());
    every_second(CheckSpec { h2ping, h2ping_use_tls: Some(false), ..CheckSpec::default() })
}

fn grpc(to: &Serving, at: usize) -> CheckSpec {
    every_second(CheckSpec { grpc: Some(to.h2[at % PORTS].to_string()), ..CheckSpec::default() })
}

fn script(_: &Serving, _: usize) -> CheckSpec {
    every_second(CheckSpec { args: Some(vec!["/bin/true".into()]), ..CheckSpec::default() })
}

fn ttl(_: &Serving, _: usize) -> CheckSpec {
    CheckSpec { ttl: Some(Span { nanos: 10_000_000_000, text: "10s".into() }), ..CheckSpec::default() }
}

fn bare_tcp(to: &Serving, at: usize) -> Outcome<()> {
    TcpStream::connect(to.http(at))?;
    Ok(())
}

/// The same request on a blocking socket.
fn bare_http(to: &Serving, at: usize) -> Outcome<()> {
    let address = to.http(at);
    let mut stream = TcpStream::connect(address)?;
    let request = format!(
        "GET /health HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Consul Health Check\r\nAccept: text/plain, text/*, */*\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    answer.starts_with(b"HTTP/1.1 200").then_some(()).ok_or("not 200".into())
}

fn bare_udp(to: &Serving, at: usize) -> Outcome<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to.udp[at % PORTS])?;
    socket.send(&[])?;
    socket.recv(&mut [0; 1])?;
    Ok(())
}

fn bare_script(_: &Serving, _: usize) -> Outcome<()> {
    let ended = Command::new("/bin/true").stdin(Stdio::null()).output()?;
    ended.status.success().then_some(()).ok_or("not true".into())
}

/// The same crate, with nothing around it.
fn bare_h2(to: &Serving, at: usize, grpc: bool) -> Outcome<()> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    let address = to.h2[at % PORTS];
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (sender, mut connection) = h2::client::handshake(stream).await?;
            let mut pings = connection.ping_pong().ok_or("no pings")?;
            let ask = async {
                if !grpc {
                    return pings.ping(h2::Ping::opaque()).await.map(drop);
                }
                let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
                    .header("content-type", "application/grpc")
                    .header("te", "trailers")
                    .body(())
                    .expect("a request");
                let (answer, mut upload) = sender.ready().await?.send_request(request, false)?;
                upload.send_data(Bytes::from_static(&[0; 5]), true)?;
                let mut body = answer.await?.into_body();
                while body.data().await.transpose()?.is_some() {}
                body.trailers().await.map(drop)
            };
            tokio::select! {
                biased;
                answered = ask => Ok(answered?),
                _ = connection => Err("it ended".into()),
            }
        })
    })
}

/// Every target, until whoever started this closes its end.
async fn serve() -> Outcome<()> {
    let mut lines = [String::new(), String::new(), String::new()];
    for _ in 0..PORTS {
        let http = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let h2 = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
        let addrs = [http.local_addr()?, h2.local_addr()?, udp.local_addr()?];
        lines.iter_mut().zip(addrs).for_each(|(line, addr)| *line += &format!("{addr} "));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = http.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
                        let _gone = stream.write_all(answer).await;
                    }
                });
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = h2.accept().await {
                tokio::spawn(answer_h2(stream));
            }
        });
        tokio::spawn(async move {
            while let Ok((_, from)) = udp.recv_from(&mut [0; 1]).await {
                let _gone = udp.send_to(&[], from).await;
            }
        });
    }
    println!("{}", lines.join("\n"));
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0; 1])).await??;
    std::process::exit(0)
}

async fn answer_h2(stream: tokio::net::TcpStream) {
    // Small writes that wait for each other would be measured otherwise.
    let _late = stream.set_nodelay(true);
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let Ok(mut body) = respond.send_response(Response::new(()), false) else { return };
        let _gone = body.send_data(Bytes::from_static(b"\0\0\0\0\x02\x08\x01"), false);
        let ok = [("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))];
        let _gone = body.send_trailers(HeaderMap::from_iter(ok));
    }
}

impl Serving {
    fn start() -> Outcome<Serving> {
        let mut process = Command::new(env::current_exe()?)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().ok_or("no output")?).lines();
        let mut addrs = || -> Outcome<Vec<SocketAddr>> {
            let line = lines.next().ok_or("the targets did not start")??;
            Ok(line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
        };
        let (http, h2, udp) = (addrs()?, addrs()?, addrs()?);
        Ok(Serving { process, http, h2, udp })
    }

    fn http(&self, at: usize) -> SocketAddr {
        self.http[at % PORTS]
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _reaped = self.process.wait();
    }
}

/// Nothing to follow: there are no aliases here.
struct Nothing;

impl Subscribe for Nothing {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::default()
    }

    fn subscribe(&self, _: Vec<Topic>) -> Subscription {
        Box::pin(std::future::pending())
    }
}

fn cpu_micros() -> Outcome<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
    Ok(micros(usage.user_time()) + micros(usage.system_time()))
}
