//! Floods against a real agent: what they may take of it has an end, and names of ours are answered all the while.
//! What they cost is a bench (`cargo bench --bench overload`).

#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    io::{ErrorKind, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::{Command, Stdio},
    time::Duration,
};

use hickory_proto::rr::RecordType;
use support::{Agent, wait_for};

const WEB: &str = "services { name = \"web\" port = 80 address = \"10.9.9.9\" }";

/// Beside what a flood may take: a reply under way, a file being read.
const SLACK: usize = 16;

fn agent(arguments: &[&str]) -> Agent {
    let arguments = [&["-dev"], arguments].concat();
    let agent = Agent::start_with(&arguments, &[("web.hcl", WEB)]);
    agent.wait_for_answers("web.service.consul.", RecordType::A, &["A 10.9.9.9"]);
    agent
}

fn descriptors(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.id())).unwrap().count()
}

fn rss_kib(agent: &Agent) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
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

/// A client at an address of its own.
fn client(last: u8, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 7, last], 0))).unwrap();
    socket.connect(to).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Replies that are there already.
fn drain(socket: &UdpSocket) -> Vec<u8> {
    let mut codes = Vec::new();
    let mut reply = [0; 512];
    while let Ok(length) = socket.recv(&mut reply) {
        codes.push(reply[..length][3] & 0xf);
    }
    codes
}

#[test]
fn a_flood_of_recursion_takes_its_share_and_gives_it_back() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let agent = agent(&[&format!("-recursor={}", silent.local_addr().unwrap())]);
    let (before, rss_before) = (descriptors(&agent), rss_kib(&agent));
    let clients: Vec<UdpSocket> = (1..=4).map(|last| client(last, agent.dns())).collect();
    let (mut number, mut refused, mut most) = (0, 0, 0);
    let flood = || {
        for client in &clients {
            for _ in 0..16 {
                number += 1;
                drop(client.send(&question(&format!("n{number}.example.com")))); // what finds no room is lost
            }
        }
        refused += clients.iter().flat_map(drain).filter(|code| *code == 2).count();
        most = most.max(descriptors(&agent));
        (refused > 1_000).then_some(())
    };
    wait_for("a thousand refusals", flood, || agent.log());
    assert_eq!(agent.answers("web.service.consul.", RecordType::A), ["A 10.9.9.9"]);
    assert!(most > before + 100, "{most}: it was no flood");
    assert!(most <= before + 768 + SLACK, "{most} descriptors, {before} before");
    assert!(rss_kib(&agent) < rss_before + 64 * 1024, "{} KiB, {rss_before} before", rss_kib(&agent));
    let is_over = || (descriptors(&agent) <= before + SLACK).then_some(());
    wait_for("the descriptors to be given back", is_over, || format!("{} left", descriptors(&agent)));
}

#[test]
fn slow_connections_have_so_many_seats_and_lose_them() {
    let agent = agent(&[]);
    let before = descriptors(&agent);
    let mut slow: Vec<TcpStream> = (0..640).map(|at| connect(10 + (at % 8) as u8, agent.dns())).collect();
    let mut most = 0;
    let all_are_cut = || {
        most = most.max(descriptors(&agent));
        // A byte at a time, and never a whole question: that it says something prolongs nothing.
        slow.retain_mut(|stream| match stream.write_all(&[0]) {
            Ok(()) => true,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
                    "{error}"
                );
                false
            }
        });
        assert_eq!(agent.answers("web.service.consul.", RecordType::A), ["A 10.9.9.9"]);
        slow.is_empty().then_some(())
    };
    wait_for("all of them to be cut", all_are_cut, || agent.log());
    assert!(most > before + 100, "{most}: it was no flood");
    assert!(most <= before + 512 + SLACK, "{most} descriptors, {before} before");
    let is_over = || (descriptors(&agent) <= before + SLACK).then_some(());
    wait_for("the descriptors to be given back", is_over, || format!("{} left", descriptors(&agent)));
}

fn connect(last: u8, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 7, last], 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.into()
}

#[test]
fn unknown_names_and_malformed_packets_leave_nothing_behind() {
    let agent = agent(&[]);
    let client = client(20, agent.dns());
    let (mut number, mut codes) = (0, [0usize; 16]);
    let mut flood = |replies: usize| {
        let some = || {
            for _ in 0..16 {
                number += 1;
                drop(client.send(&question(&format!("n{number}.service.consul")))); // what finds no room is lost
                drop(client.send(&question(&format!("n{number}.example.com")))); // what finds no room is lost
                drop(client.send(&question("web.service.consul")[..20])); // what finds no room is lost
            }
            drain(&client).into_iter().for_each(|code| codes[usize::from(code)] += 1);
            (codes.iter().sum::<usize>() > replies).then_some(())
        };
        wait_for("replies", some, || agent.log());
    };
    flood(2_000);
    let (descriptors_before, rss_before) = (descriptors(&agent), rss_kib(&agent));
    flood(20_000);
    assert!(codes[1] > 0 && codes[3] > 0 && codes[5] > 0, "{codes:?}");
    assert!(descriptors(&agent) <= descriptors_before + SLACK);
    assert!(rss_kib(&agent) < rss_before + 8 * 1024, "{} KiB, {rss_before} before", rss_kib(&agent));
    assert_eq!(agent.answers("web.service.consul.", RecordType::A), ["A 10.9.9.9"]);
}

/// The soft limit is made for programs that know no more than 1,024; floods may take more than that together.
#[test]
fn an_agent_takes_the_descriptors_that_it_may_have() {
    let mut shell = Command::new("sh");
    let script = "ulimit -Sn 300; exec \"$0\" \"$@\"";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_lictor")]);
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    let agent = Agent::launch(shell, support::fresh_address(), &["-dev"], &[]);
    agent.wait_for_log("agent running!");
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let hard: u64 = words[4].parse().unwrap_or(u64::MAX);
    assert_eq!(words[3], hard.min(65_536).to_string(), "{line}");
}
