//! What those who follow a service cost an agent: its memory while 10,000 wait, and its CPU for one change that all of
//! them wait for, until the last has his answer. The agent is a process of its own; only its CPU and memory count.
//!
//! ```text
//! cargo bench --bench watch
//! ```

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock and waits for calm")]

mod support;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{Client, Outcome, Served, registration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};

/// Service, its instances, who waits for it.
const CASES: [(&str, usize, usize); 2] = [("small", 3, 10_000), ("middle", 200, 1_000)];
const ROUNDS: u16 = 5;
/// Being connected at a time; more would not fit the listener's backlog.
const CONNECTING_MAX: usize = 256;

fn main() -> Outcome<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard)?;
    println!(
        "{:<10}{:>10}{:>10}{:>10}{:>12}{:>10}{:>10}{:>16}",
        "watchers", "instances", "bytes", "idle MB", "once told", "ms CPU", "us each", "us, of others'"
    );
    for (service, instances, watchers) in CASES {
        // A fresh one for each: memory that was once taken is rarely given back.
        let agent = Served::agent("limits { http_max_conns_per_client = 0 }")?;
        agent.register(service, instances, 0)?;
        agent.register("other", 1, 0)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(watch(&agent, service, instances, watchers))?;
    }
    Ok(())
}

async fn watch(agent: &Served, service: &str, instances: usize, watchers: usize) -> Outcome<()> {
    let before = agent.rss_mb()?;
    let mut streams = connect(agent.http, watchers).await?;
    let (mut cpu, mut idle, mut idle_again) = (f64::MAX, 0.0, 0.0);
    let (mut bytes, mut other) = (0, f64::MAX);
    for round in 1..=ROUNDS {
        let index = index(agent, service)?;
        for stream in &mut streams {
            let request = format!(
                "GET /v1/health/service/{service}?index={index}&wait=10m HTTP/1.1\r\nHost: bench\r\nUser-Agent: Go-http-client/1.1\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await?;
        }
        calm(agent).await?;
        idle_again = agent.rss_mb()?;
        if round == 1 {
            idle = idle_again;
        }
        let mut client = Client::connect(agent.http)?;
        let start = agent.cpu_micros()?;
        client.ask("PUT", "/v1/catalog/register", &registration("other", 0, round))?;
        calm(agent).await?;
        other = other.min(agent.cpu_micros()? - start);
        let start = agent.cpu_micros()?;
        client.ask("PUT", "/v1/catalog/register", &registration(service, 0, round))?;
        let mut readers = JoinSet::new();
        for mut stream in streams.drain(..) {
            readers
                .spawn(async move { (read(&mut stream).await.map_err(|error| error.to_string()), stream) });
        }
        while let Some(read) = readers.join_next().await {
            let (length, stream) = read?;
            bytes = length?;
            streams.push(stream);
        }
        calm(agent).await?;
        cpu = cpu.min(agent.cpu_micros()? - start);
    }
    println!(
        "{watchers:<10}{instances:>10}{bytes:>10}{idle:>10.1}{idle_again:>12.1}{:>10.1}{:>10.1}{other:>16.0}   ({before:.1} MB without them)",
        cpu / 1e3,
        cpu / watchers as f64
    );
    Ok(())
}

async fn connect(to: SocketAddr, count: usize) -> Outcome<Vec<TcpStream>> {
    let turns = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut connecting = JoinSet::new();
    for _ in 0..count {
        let turns = turns.clone();
        connecting.spawn(async move {
            let _turn = turns.acquire().await.expect("it stays open");
            TcpStream::connect(to).await
        });
    }
    let mut streams = Vec::with_capacity(count);
    while let Some(connected) = connecting.join_next().await {
        streams.push(connected??);
    }
    Ok(streams)
}

/// Waits until the agent does nothing: everyone waits, or has been answered.
async fn calm(agent: &Served) -> Outcome<()> {
    loop {
        let before = agent.cpu_micros()?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        if agent.cpu_micros()? - before < 1_000.0 {
            return Ok(());
        }
    }
}

fn index(agent: &Served, service: &str) -> Outcome<u64> {
    // The catalog's only writer is this bench: whatever is above is a change of ours.
    let body = Client::connect(agent.http)?.get(&format!("/v1/health/service/{service}"))?;
    let text = String::from_utf8(body)?;
    let indexes = text.split("\"ModifyIndex\":").skip(1);
    let digits = indexes.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    Ok(digits.filter_map(|digits| digits.parse().ok()).max().ok_or("no index")?)
}

/// One answer; gives the length of its body.
async fn read(stream: &mut TcpStream) -> Outcome<usize> {
    let mut bytes = Vec::with_capacity(4096);
    let (head, length) = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err("the connection ended".into());
        }
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            break (at + 4, length.ok_or("no length")?.trim().parse::<usize>()?);
        }
    };
    let mut had = bytes.len();
    let mut rest = vec![0; 64 * 1024];
    while had < head + length {
        had += stream.read(&mut rest).await?;
    }
    Ok(length)
}
