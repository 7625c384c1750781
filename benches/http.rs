//! What an answer of `/v1/health/service` costs an agent, beside a route that sends the same bytes through the same hyper
//! loop and knows nothing: 64 connections that ask again as soon as they were answered. Each server is a process of its
//! own; only its CPU counts.
//!
//! ```text
//! cargo bench --bench http        3, 200 and 10,000 instances
//! http serve FILE                 the static route: prints where it listens
//! ```

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod support;

use std::{convert::Infallible, env, fs, net::SocketAddr, path::Path, thread, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, header::CONTENT_TYPE, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use support::{Client, Outcome, Served};
use tokio::net::TcpListener;

const CONNECTIONS: usize = 64;
/// Instances of each service, and how often a connection asks for it.
const SERVICES: [(&str, usize, usize); 3] = [("small", 3, 1_000), ("middle", 200, 100), ("large", 10_000, 4)];

fn main() -> Outcome<()> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => measure(),
        ["serve", file] => serve(Path::new(file)),
        _ => Err("http [serve FILE]".into()),
    }
}

fn measure() -> Outcome<()> {
    let agent = Served::agent("limits { http_max_conns_per_client = 0 }")?;
    println!("{:<10}{:>10}{:>14}{:>14}{:>8}", "instances", "bytes", "us/answer", "us/static", "ratio");
    for (service, instances, times) in SERVICES {
        agent.register(service, instances, 0)?;
        let path = format!("/v1/health/service/{service}?passing");
        let bytes = Client::connect(agent.http)?.get(&path)?;
        let file = env::temp_dir().join(format!("lictor-bench-{}.json", std::process::id()));
        fs::write(&file, &bytes)?;
        let plain = Served::own(&["serve", &file.display().to_string()])?;
        fs::remove_file(&file)?;
        // The first round of each warms it up.
        let (mut of_agent, mut of_plain) = (f64::MAX, f64::MAX);
        for round in 0..4 {
            let found = (ask(&agent, &path, times)?, ask(&plain, &path, times)?);
            if round > 0 {
                (of_agent, of_plain) = (of_agent.min(found.0), of_plain.min(found.1));
            }
        }
        println!(
            "{instances:<10}{:>10}{of_agent:>14.1}{of_plain:>14.1}{:>8.2}",
            bytes.len(),
            of_agent / of_plain
        );
    }
    Ok(())
}

/// Microseconds of the server's CPU for an answer.
fn ask(served: &Served, path: &str, times: usize) -> Outcome<f64> {
    let before = served.cpu_micros()?;
    let http: SocketAddr = served.http;
    thread::scope(|scope| {
        let client = || -> std::io::Result<()> {
            let mut client = Client::connect(http)?;
            (0..times).try_for_each(|_| client.get(path).map(drop))
        };
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|client| client.join().expect("a client returns"))
    })?;
    Ok((served.cpu_micros()? - before) / (CONNECTIONS * times) as f64)
}

fn serve(file: &Path) -> Outcome<()> {
    let bytes = Bytes::from(fs::read(file)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let bytes = bytes.clone();
            let answer = service_fn(move |_| {
                let response = Response::builder().header(CONTENT_TYPE, "application/json");
                let response = response.body(Full::new(bytes.clone())).expect("a plain answer");
                async move { Ok::<_, Infallible>(response) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(120))
                .max_buf_size(16 * 1024)
                .title_case_headers(true);
            tokio::spawn(http.serve_connection(TokioIo::new(stream), answer));
        }
    })
}
