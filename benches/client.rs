//! What a question costs that an agent hands on to a server, beside the same question asked of the server itself: by DNS, and
//! by HTTP, with the CPU of both agents. Each agent is a process of its own; eight askers, each with one question at a time.
//!
//! ```text
//! cargo bench --bench client
//! ```

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use support::{Client, Outcome, Served};

const ASKERS: usize = 8;
const QUESTIONS: usize = 2_000;
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 77, 1, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 77, 1, 2);
/// `small.service.consul. A`
const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05small\x07service\x06consul\x00\x00\x01\x00\x01";

fn main() -> Outcome<()> {
    let server = Served::agent_at(SERVER, &["-server", "-bootstrap"])?;
    let client = Served::agent_at(CLIENT, &[&format!("-retry-join={SERVER}")])?;
    server.register("small", 3, 0)?;
    while !by_dns(CLIENT).is_ok_and(|reply| reply[7] == 3) {
        thread::sleep(Duration::from_millis(20));
    }
    println!("{:<16}{:>14}{:>14}{:>14}", "us/question", "asked: server", "asked: client", "(its server)");
    for (what, ask) in
        [("DNS, A of 3", by_dns as fn(Ipv4Addr) -> Outcome<Vec<u8>>), ("HTTP, health", by_http)]
    {
        let mut least = [f64::MAX; 3];
        // The first round of each warms it up.
        for round in 0..4 {
            let [direct, _] = cost(&server, &client, SERVER, ask)?;
            let [theirs, own] = cost(&server, &client, CLIENT, ask)?;
            if round > 0 {
                for (least, found) in least.iter_mut().zip([direct, own, theirs]) {
                    *least = least.min(found);
                }
            }
        }
        println!("{what:<16}{:>14.1}{:>14.1}{:>14.1}", least[0], least[1], least[2]);
    }
    Ok(())
}

/// Microseconds of CPU for a question: the server's, and the client's.
fn cost(
    server: &Served,
    client: &Served,
    at: Ipv4Addr,
    ask: fn(Ipv4Addr) -> Outcome<Vec<u8>>,
) -> Outcome<[f64; 2]> {
    let before = [server.cpu_micros()?, client.cpu_micros()?];
    thread::scope(|scope| {
        let asker = || (0..QUESTIONS / ASKERS).all(|_| ask(at).is_ok());
        let askers: Vec<_> = (0..ASKERS).map(|_| scope.spawn(asker)).collect();
        assert!(askers.into_iter().all(|asker| asker.join().expect("an asker returns")), "all are answered");
    });
    let spent = |after: f64, before: f64| (after - before) / QUESTIONS as f64;
    Ok([spent(server.cpu_micros()?, before[0]), spent(client.cpu_micros()?, before[1])])
}

thread_local! {
    static SOCKET: UdpSocket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    static HTTP: std::cell::RefCell<Option<(Ipv4Addr, Client)>> = const { std::cell::RefCell::new(None) };
}

fn by_dns(at: Ipv4Addr) -> Outcome<Vec<u8>> {
    SOCKET.with(|socket| {
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send_to(QUESTION, SocketAddr::from((at, 8600)))?;
        let mut reply = [0; 512];
        let length = socket.recv(&mut reply)?;
        Ok(reply[..length].to_vec())
    })
}

fn by_http(at: Ipv4Addr) -> Outcome<Vec<u8>> {
    HTTP.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(to, _)| *to != at) {
            *kept = Some((at, Client::connect((at, 8500).into())?));
        }
        let (_, client) = kept.as_mut().ok_or("no connection")?;
        Ok(client.get("/v1/health/service/small?passing")?)
    })
}
