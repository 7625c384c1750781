//! Every road to the answers: that each gives the same ones, what each bears, and that all of them stop.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use lictor::{
    catalog::{self, Catalog, Node, Register, Service},
    dns::{Asker, Handed, Published, Responder, Roads, Server, Settings, TcpLimits, Transport, View},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// What should happen soon has failed to happen.
const SOON: Duration = Duration::from_secs(20);

/// A limit that a test waits out.
const SHORT: Duration = Duration::from_millis(50);

const LOOPBACK: &str = "127.0.0.1:0";

/// Where no other test takes a port that was just given back.
const APART: &str = if cfg!(target_os = "linux") { "127.0.0.3:0" } else { LOOPBACK };

#[tokio::test]
async fn every_road_gives_the_same_answers() {
    for (bound, asked, batch) in [
        (LOOPBACK, "127.0.0.1", true),
        (LOOPBACK, "127.0.0.1", false),
        ("0.0.0.0:0", "127.0.0.1", true),
        ("0.0.0.0:0", "127.0.0.1", false),
    ] {
        let running = Running::start(bound, Roads { udp_batch: batch, ..roads() });
        let to = SocketAddr::new(asked.parse().unwrap(), running.addr.port());
        for (name, kind) in QUESTIONS {
            let packet = question(7, name, *kind);
            for transport in [Transport::Udp, Transport::Tcp] {
                let reply = match transport {
                    Transport::Udp => ask_udp(to, &packet).await,
                    Transport::Tcp => ask_tcp(to, &packet).await,
                };
                assert_eq!(
                    reply,
                    expected(&packet, transport),
                    "{name} by {transport:?} at {bound}, batch {batch}"
                );
            }
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn ipv6_is_served_where_there_is_any() {
    for batch in [true, false] {
        for bound in ["[::1]:0", "[::]:0"] {
            let Ok(server) = Server::bind(&[bound.parse().unwrap()], &Roads { udp_batch: batch, ..roads() })
            else {
                println!("skipped: no IPv6 here");
                return;
            };
            let running = Running::run(server);
            let packet = question(7, "web.service.consul", A);
            let mut asked = vec![IpAddr::V6(Ipv6Addr::LOCALHOST)];
            // `::` alone takes IPv4 too.
            asked.extend((bound == "[::]:0").then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
            for ip in asked {
                let to = SocketAddr::new(ip, running.addr.port());
                assert_eq!(ask_udp(to, &packet).await, expected(&packet, Transport::Udp), "{ip} at {bound}");
                assert_eq!(ask_tcp(to, &packet).await, expected(&packet, Transport::Tcp), "{ip} at {bound}");
            }
            running.stop().await;
        }
    }
}

#[test]
fn both_wildcards_can_be_had_side_by_side() {
    if std::net::UdpSocket::bind("[::]:0").is_err() {
        println!("skipped: no IPv6 here");
        return;
    }
    // Between finding a free port and taking it twice another test may be quicker.
    let both = (0..20).any(|_| {
        let port = Server::bind(&["0.0.0.0:0".parse().unwrap()], &roads()).unwrap().addrs()[0].port();
        let wildcards = [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
        Server::bind(&wildcards, &roads()).is_ok_and(|server| server.addrs() == wildcards)
    });
    assert!(both);
}

/// Each on its own port, a wildcard among them, and each with its own roads.
#[tokio::test]
async fn several_listeners_answer_side_by_side() {
    let mut asked: Vec<SocketAddr> =
        ["127.0.0.1:0", "127.0.0.1:0", "0.0.0.0:0"].map(|a| a.parse().unwrap()).to_vec();
    if std::net::UdpSocket::bind("[::1]:0").is_ok() {
        asked.push("[::1]:0".parse().unwrap());
    }
    let server = Server::bind(&asked, &roads()).unwrap();
    let addrs = server.addrs().to_vec();
    assert_eq!(addrs.len(), asked.len());
    let running = Running::run(server);
    let packet = question(7, "web.service.consul", A);
    for addr in addrs {
        let to = if addr.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, addr.port()).into() } else { addr };
        assert_eq!(ask_udp(to, &packet).await, expected(&packet, Transport::Udp), "{addr}");
        assert_eq!(ask_tcp(to, &packet).await, expected(&packet, Transport::Tcp), "{addr}");
    }
    running.stop().await;
}

/// Sockets that were bound for us, TCP or UDP or both: used in place of our own, and as good as before when we have
/// stopped, since whoever bound them gives them to the next one.
#[tokio::test]
async fn sockets_handed_over_serve_and_outlive_us() {
    for (bound, batch) in [(APART, true), (APART, false), ("0.0.0.0:0", true), ("[::]:0", true)] {
        let Ok(tcp) = std::net::TcpListener::bind(bound) else {
            println!("skipped: no IPv6 here");
            continue;
        };
        let addr = tcp.local_addr().unwrap();
        let Ok(udp) = std::net::UdpSocket::bind(addr) else {
            continue; // another test has it
        };
        let to = if addr.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, addr.port()).into() } else { addr };
        for _ in 0..2 {
            let handed = Handed { udp: vec![udp.try_clone().unwrap()], tcp: vec![tcp.try_clone().unwrap()] };
            let roads = Roads { udp_batch: batch, ..roads() };
            let running = Running::run(Server::bind_beside(&[addr], handed, &roads).unwrap());
            for id in 0..50 {
                let packet = question(id, "web.service.consul", A);
                assert_eq!(ask_udp(to, &packet).await, expected(&packet, Transport::Udp), "{bound} {batch}");
            }
            let packet = question(7, "web.service.consul", A);
            assert_eq!(ask_tcp(to, &packet).await, expected(&packet, Transport::Tcp), "{bound} {batch}");
            running.stop().await;
            udp.set_nonblocking(false).unwrap();
            udp.set_read_timeout(Some(SHORT)).unwrap();
            let nothing = udp.recv(&mut [0]).expect_err("a socket that was shut down has an end");
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        }
        let alone = Handed { udp: vec![udp], tcp: Vec::new() };
        drop(tcp);
        let running = Running::run(Server::bind_beside(&[addr], alone, &roads()).unwrap());
        let packet = question(7, "web.service.consul", A);
        assert_eq!(ask_udp(to, &packet).await, expected(&packet, Transport::Udp), "{bound}");
        assert_eq!(ask_tcp(to, &packet).await, expected(&packet, Transport::Tcp), "{bound}");
        running.stop().await;
    }
}

/// The client's socket takes packets only from the address it asked.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_wildcard_replies_from_the_address_asked() {
    for batch in [true, false] {
        let running = Running::start("0.0.0.0:0", Roads { udp_batch: batch, ..roads() });
        let packet = question(9, "web.service.consul", A);
        let to = SocketAddr::from(([127, 0, 0, 2], running.addr.port()));
        assert_eq!(ask_udp(to, &packet).await, expected(&packet, Transport::Udp));
        running.stop().await;
    }
}

#[tokio::test]
async fn dig_is_answered_on_every_road() {
    if Command::new("dig").arg("-v").stderr(Stdio::null()).status().is_err() {
        println!("skipped: dig is not installed");
        return;
    }
    for batch in [true, false] {
        let running = Running::start(LOOPBACK, Roads { udp_batch: batch, ..roads() });
        for transport in ["+notcp", "+tcp"] {
            let port = running.addr.port().to_string();
            let mut dig = tokio::process::Command::new("dig");
            dig.args(["@127.0.0.1", "-p", &port, transport, "+tries=1", "+time=15", "example.com", "A"]);
            let output = timeout(SOON, dig.output()).await.unwrap().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("status: REFUSED"), "{transport}: {text}");
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn garbage_stops_no_road() {
    for batch in [true, false] {
        let running = Running::start(LOOPBACK, Roads { udp_batch: batch, ..roads() });
        let mut random = fastrand::Rng::with_seed(3);
        let udp = UdpSocket::bind(LOOPBACK).await.unwrap();
        let mut tcp = TcpStream::connect(running.addr).await.unwrap();
        for length in (0..300).chain([4_096, 60_000]) {
            let noise: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            udp.send_to(&noise, running.addr).await.unwrap();
            if tcp.write_all(&framed(&noise)).await.is_err() {
                tcp = TcpStream::connect(running.addr).await.unwrap(); // it had its replies
            }
        }
        let packet = question(1, "web.service.consul", A);
        assert_eq!(ask_udp(running.addr, &packet).await, expected(&packet, Transport::Udp));
        assert_eq!(ask_tcp(running.addr, &packet).await, expected(&packet, Transport::Tcp));
        running.stop().await;
    }
}

/// A packet of any length that UDP carries is read whole (`dns.md` §2).
#[tokio::test]
async fn trailing_bytes_are_read_and_ignored() {
    for batch in [true, false] {
        let running = Running::start(LOOPBACK, Roads { udp_batch: batch, ..roads() });
        let mut packet = question(1, "web.service.consul", A);
        packet.resize(65_507, 0);
        assert_eq!(ask_udp(running.addr, &packet).await, expected(&packet, Transport::Udp));
        running.stop().await;
    }
}

#[tokio::test]
async fn many_clients_at_once_get_their_own_replies() {
    for batch in [true, false] {
        let running = Running::start(LOOPBACK, Roads { udp_batch: batch, ..roads() });
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..40u16 {
            let to = running.addr;
            clients.spawn(async move {
                let socket = connected(to).await;
                for id in client * 100..client * 100 + 100 {
                    let packet = question(id, &format!("c{client}.service.consul"), A);
                    socket.send(&packet).await.unwrap();
                    assert_eq!(received(&socket).await, expected(&packet, Transport::Udp));
                }
            });
        }
        clients.join_all().await;
        running.stop().await;
    }
}

/// 128 replies in the order of the questions, then an orderly end: nothing that was sent is lost to a reset.
#[tokio::test]
async fn a_connection_has_128_replies() {
    let running = Running::start(LOOPBACK, roads());
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let packets: Vec<_> = (0..300).map(|id| question(id, "web.service.consul", A)).collect();
    let all: Vec<u8> = packets.iter().flat_map(|packet| framed(packet)).collect();
    stream.write_all(&all).await.unwrap();
    for packet in &packets[..128] {
        assert_eq!(next_reply(&mut stream).await.unwrap(), expected(packet, Transport::Tcp));
    }
    assert_eq!(next_reply(&mut stream).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    running.stop().await;
}

#[tokio::test]
async fn a_message_without_reply_closes_nothing() {
    let running = Running::start(LOOPBACK, roads());
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let mut response = question(1, "web.service.consul", A);
    response[2] |= 0x80;
    let packet = question(2, "web.service.consul", A);
    for message in [&b""[..], b"short", &response, &packet] {
        stream.write_all(&framed(message)).await.unwrap();
    }
    assert_eq!(next_reply(&mut stream).await.unwrap(), expected(&packet, Transport::Tcp));
    running.stop().await;
}

#[tokio::test]
async fn a_message_may_come_in_pieces() {
    let running = Running::start(LOOPBACK, roads());
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut packet = question(1, "web.service.consul", A);
    packet.resize(40_000, 0);
    let bytes = framed(&packet);
    for piece in [&bytes[..1], &bytes[1..2], &bytes[2..9], &bytes[9..]] {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(next_reply(&mut stream).await.unwrap(), expected(&packet, Transport::Tcp));
    running.stop().await;
}

/// Clients that hold a connection without using it: one that says nothing, one that stops in the middle of its first
/// question, one that had a reply and sends only what gets none. A limit that should not strike is far away.
#[tokio::test]
async fn a_slow_client_is_cut_at_its_deadline() {
    let packet = question(1, "web.service.consul", A);
    let half = framed(&packet)[..9].to_vec();
    let asked = [framed(&packet), framed(b"short")].concat();
    let first = TcpLimits { first_query_wait: SHORT, next_query_wait: SOON, ..TcpLimits::default() };
    let next = TcpLimits { first_query_wait: SOON, next_query_wait: SHORT, ..TcpLimits::default() };
    for (limits, sent, replies) in [(first.clone(), vec![], 0), (first, half, 0), (next, asked, 1)] {
        let running = Running::start(LOOPBACK, Roads { tcp: limits, ..roads() });
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        for _ in 0..replies {
            next_reply(&mut stream).await.unwrap();
        }
        assert_eq!(next_reply(&mut stream).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_takes_no_replies_is_cut() {
    let limits = TcpLimits { send_wait: SHORT, replies_max: u32::MAX, ..TcpLimits::default() };
    let running = Running::start(LOOPBACK, Roads { tcp: limits, ..roads() });
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let many = framed(&question(1, "web.service.consul", A)).repeat(1_000);
    let cut = timeout(SOON, async {
        loop {
            if let Err(error) = stream.write_all(&many).await {
                return error.kind();
            }
        }
    });
    assert!(matches!(cut.await.unwrap(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
    running.stop().await;
}

#[tokio::test]
async fn seats_are_counted_by_client_and_over_all() {
    for (connections_max, connections_per_client_max) in [(2, 9), (9, 2)] {
        let limits = TcpLimits { connections_max, connections_per_client_max, ..TcpLimits::default() };
        let running = Running::start(LOOPBACK, Roads { tcp: limits, ..roads() });
        let packet = framed(&question(1, "web.service.consul", A));
        let mut seated = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(running.addr).await.unwrap();
            stream.write_all(&packet).await.unwrap();
            next_reply(&mut stream).await.unwrap();
            seated.push(stream);
        }
        assert!(try_tcp(running.addr, &packet).await.is_none(), "the third is refused");
        seated.pop();
        let again = async { while try_tcp(running.addr, &packet).await.is_none() {} };
        timeout(SOON, again).await.expect("a seat given back is free");
        running.stop().await;
    }
}

#[tokio::test]
async fn two_servers_on_one_port_are_a_clear_error() {
    let first = Server::bind(&[APART.parse().unwrap()], &roads()).unwrap();
    let taken = first.addrs()[0];
    let error = Server::bind(&[taken], &roads()).err().unwrap().to_string();
    for word in [&format!("TCP {taken}"), "in use", "`ports.dns`", "-dns-port", "`lictor.dns.listen`"] {
        assert!(error.contains(word), "{word} in: {error}");
    }
    drop(first);
    let other = std::net::UdpSocket::bind(taken).unwrap();
    let error = Server::bind(&[taken], &roads()).err().unwrap().to_string();
    assert!(error.contains(&format!("UDP {taken}")), "{error}");
    drop(other);
    Server::bind(&[taken], &roads()).expect("the failed bind left nothing behind");
}

/// The port can be had by a socket that shares with nobody: so each thread has ended and let go of its own.
#[tokio::test]
async fn to_stop_ends_every_thread_and_connection() {
    let running = Running::start(APART, roads());
    let addr = running.addr;
    let mut idle = TcpStream::connect(addr).await.unwrap();
    running.stop().await;
    assert!(next_reply(&mut idle).await.is_err());
    std::net::UdpSocket::bind(addr).unwrap();
}

const A: u16 = 1;
const QUESTIONS: &[(&str, u16)] =
    &[("web.service.consul", A), ("nosuch.service.consul", A), ("example.com", A)];

fn roads() -> Roads {
    Roads { udp_threads: NonZeroUsize::new(2).unwrap(), ..Roads::of(&Settings::default()) }
}

/// One instance of one service.
fn published() -> Published {
    let node = Node { name: "ash".into(), address: "10.1.0.11".into(), ..Node::default() };
    let service = Service { id: "web".into(), name: "web".into(), port: 80, ..Service::default() };
    let mut catalog = Catalog::default();
    let register = Register { node, service: Some(service), ..Register::default() };
    catalog.apply(catalog::Command::Register(Box::new(register))).0.unwrap();
    Published {
        catalog: Arc::new(ArcSwapOption::from_pointee(catalog)),
        settings: Arc::default(),
        zones: Arc::default(),
        fresh: Arc::new(true.into()),
        counters: Arc::default(),
    }
}

/// What is answered to a loopback client, by whatever road.
fn expected(packet: &[u8], transport: Transport) -> Vec<u8> {
    let asker = Asker { transport, from: Ipv4Addr::LOCALHOST.into() };
    let mut reply = Vec::new();
    let published = published();
    let catalog = published.catalog.load();
    let (settings, zones) = (published.settings.load(), published.zones.load());
    let view = View { catalog: catalog.as_deref(), settings: &settings, zones: &zones, fresh: true };
    Responder::new(7).respond(&view, &asker, packet, &mut reply);
    assert!(!reply.is_empty());
    reply
}

struct Running {
    addr: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    fn start(bound: &str, roads: Roads) -> Running {
        Running::run(Server::bind(&[bound.parse().unwrap()], &roads).unwrap())
    }

    fn run(server: Server) -> Running {
        let (addr, shutdown) = (server.addrs()[0], CancellationToken::new());
        Running { addr, task: tokio::spawn(server.run(published(), shutdown.clone())), shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(SOON, self.task).await.expect("stops").unwrap().unwrap();
    }
}

fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut packet = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

async fn connected(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(if to.is_ipv4() { LOOPBACK } else { "[::1]:0" }).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

async fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut reply = vec![0; 65_535];
    let length = timeout(SOON, socket.recv(&mut reply)).await.expect("a reply").unwrap();
    reply.truncate(length);
    reply
}

/// What finds no room in a socket is lost, as on any network: it is asked again.
async fn ask_udp(to: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let socket = connected(to).await;
    for _ in 0..9 {
        socket.send(packet).await.unwrap();
        let mut reply = vec![0; 65_535];
        if let Ok(length) = timeout(Duration::from_secs(1), socket.recv(&mut reply)).await {
            reply.truncate(length.unwrap());
            return reply;
        }
    }
    socket.send(packet).await.unwrap();
    received(&socket).await
}

async fn ask_tcp(to: SocketAddr, packet: &[u8]) -> Vec<u8> {
    try_tcp(to, &framed(packet)).await.expect("a reply")
}

async fn try_tcp(to: SocketAddr, framed: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await.ok()?;
    stream.write_all(framed).await.ok()?;
    next_reply(&mut stream).await.ok()
}

async fn next_reply(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let read = async {
        let mut reply = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut reply).await?;
        Ok(reply)
    };
    timeout(SOON, read).await.expect("a reply or an end")
}
