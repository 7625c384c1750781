//! Recursion over real sockets: who is asked, how often, and what is bounded. What is answered is data
//! (`tests/dns/recursion.txt`, `outside.txt`); what is configured, too (`tests/config/recursion.txt`).

mod support;
#[path = "support/upstream.rs"]
mod upstream;

use std::{
    collections::HashSet,
    fs,
    net::SocketAddr,
    num::NonZeroUsize,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use lictor::{
    catalog::{self, Catalog, Node, Register, Service},
    dns::{
        Answered, Counters, Form, Published, Recursion, Road, Roads, SeatsMax, Server, Settings, TcpLimits,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use upstream::{Script, Upstream};

/// What should happen soon has failed to happen.
const SOON: Duration = Duration::from_secs(20);
/// A limit that must not strike.
const FAR: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(200);

const ADDRESS: &str = "record example.com. 300 A 203.0.113.9";

struct Running {
    addr: SocketAddr,
    settings: Arc<ArcSwap<Settings>>,
    counters: Arc<Counters>,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    fn start(recursion: Recursion) -> Running {
        Running::start_with("127.0.0.1:0", recursion, true, TcpLimits::default())
    }

    fn start_with(bound: &str, recursion: Recursion, udp_batch: bool, tcp: TcpLimits) -> Running {
        let settings = Settings { recursion, ..Settings::default() };
        let roads = Roads { udp_batch, udp_threads: NonZeroUsize::new(2).unwrap(), tcp };
        let server = Server::bind(&[bound.parse().unwrap()], &roads).unwrap();
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let published = Published { settings: settings.clone(), ..published() };
        let (addr, shutdown) = (server.addrs()[0], CancellationToken::new());
        let counters = published.counters.clone();
        let task = tokio::spawn(server.run(published, shutdown.clone()));
        Running { addr, settings, counters, shutdown, task }
    }

    fn set(&self, recursion: Recursion) {
        self.settings.store(Arc::new(Settings { recursion, ..Settings::default() }));
    }

    async fn ask(&self, name: &str) -> Message {
        ask(self.addr, &question(name, RecordType::A)).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(SOON, self.task).await.expect("stops").unwrap().unwrap();
    }
}

fn published() -> Published {
    let node = Node { name: "ash".into(), address: "10.1.0.11".into(), ..Node::default() };
    let service = Service { id: "web".into(), name: "web".into(), port: 80, ..Service::default() };
    let far =
        Service { id: "far".into(), name: "far".into(), address: "example.com".into(), ..Service::default() };
    let mut catalog = Catalog::default();
    for service in [service, far] {
        let register = Register { node: node.clone(), service: Some(service), ..Register::default() };
        catalog.apply(catalog::Command::Register(Box::new(register))).0.unwrap();
    }
    Published {
        catalog: Arc::new(ArcSwapOption::from_pointee(catalog)),
        settings: Arc::new(ArcSwap::default()),
        zones: Arc::default(),
        fresh: Arc::new(true.into()),
        counters: Arc::default(),
    }
}

fn recursion(recursors: &[&Upstream], timeout: Duration) -> Recursion {
    let recursors = recursors.iter().map(|recursor| recursor.addr).collect();
    Recursion { recursors, timeout, ..Recursion::default() }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.edns = Some(edns);
    message
}

async fn ask(to: SocketAddr, question: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(to).await.unwrap();
    socket.send(&question.to_vec().unwrap()).await.unwrap();
    let reply = received(&socket).await;
    assert_eq!(reply.metadata.id, question.metadata.id);
    reply
}

async fn received(socket: &UdpSocket) -> Message {
    let mut packet = vec![0; 65_535];
    let length = timeout(SOON, socket.recv(&mut packet)).await.expect("a reply").unwrap();
    Message::from_vec(&packet[..length]).unwrap()
}

fn framed(message: &Message) -> Vec<u8> {
    let packet = message.to_vec().unwrap();
    [&(packet.len() as u16).to_be_bytes(), &packet[..]].concat()
}

async fn next_reply(stream: &mut TcpStream) -> std::io::Result<Message> {
    let read = async {
        let mut reply = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut reply).await?;
        Ok(Message::from_vec(&reply).unwrap())
    };
    timeout(SOON, read).await.expect("a reply or an end")
}

/// Of the reply's extended error.
fn ede(message: &Message) -> Option<u16> {
    let options = message.edns.as_ref()?.options();
    let (_, option) = options.as_ref().iter().find(|(code, _)| u16::from(*code) == 15)?;
    let bytes = Vec::<u8>::try_from(option).ok()?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Waits for a condition that only others can bring about.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

#[tokio::test]
async fn each_question_has_an_id_and_a_port_of_its_own() {
    let one = Upstream::start(Script::of(&["fill 1"])).await;
    let running = Running::start(recursion(&[&one], FAR));
    for number in 0..20 {
        let mut asked = question(&format!("n{number}.example.com."), RecordType::A);
        asked.metadata.id = 7;
        asked.metadata.checking_disabled = number % 2 == 0;
        asked.edns.as_mut().unwrap().set_dnssec_ok(number % 3 == 0);
        ask(running.addr, &asked).await;
    }
    let asked = one.asked();
    assert_eq!(asked.len(), 20);
    let ids: HashSet<u16> = asked.iter().map(|asked| asked.message.metadata.id).collect();
    let ports: HashSet<u16> = asked.iter().map(|asked| asked.from.port()).collect();
    assert!(ids.len() > 15 && ports.len() > 10, "{ids:?} {ports:?}");
    for (number, asked) in asked.iter().enumerate() {
        let (head, edns) = (&asked.message.metadata, asked.message.edns.as_ref().unwrap());
        assert!(head.recursion_desired && head.authentic_data);
        assert_eq!(head.checking_disabled, number % 2 == 0);
        assert_eq!((edns.flags().dnssec_ok, edns.max_payload()), (number % 3 == 0, 1232));
    }
    running.stop().await;
}

/// On the road by which they came, whoever gave the answer, and however late.
#[tokio::test]
async fn answers_from_elsewhere_are_counted() {
    let one = Upstream::start(Script::of(&[ADDRESS])).await;
    let running = Running::start_with("127.0.0.1:0", recursion(&[&one], FAR), false, TcpLimits::default());
    for _ in 0..3 {
        running.ask("example.com.").await;
    }
    running.ask("nothing.example.").await;
    running.ask("far.service.consul.").await;
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.write_all(&framed(&question("example.com.", RecordType::A))).await.unwrap();
    next_reply(&mut stream).await.unwrap();
    let counters = running.counters.clone();
    running.stop().await;
    let row = |form, kind, code, road, count| Answered { form, kind, code, road, count };
    assert_eq!(
        counters.answered(),
        [
            row(Form::Service, "A", "NOERROR", Road::UdpPlain, 1),
            row(Form::Recursion, "A", "NOERROR", Road::UdpPlain, 4),
            row(Form::Recursion, "A", "NOERROR", Road::Tcp, 1),
        ]
    );
    let (hits, misses) = (counters.cache_hits.get(), counters.cache_misses.get());
    assert_eq!((hits, misses, counters.waiting()), (4, 2, 0), "the chased host is known by then");
}

#[tokio::test]
async fn answers_are_kept_and_counted_down() {
    let one = Upstream::start(Script::of(&[ADDRESS, "aa", "record short.example. 1 A 203.0.113.9"])).await;
    let running = Running::start(recursion(&[&one], FAR));
    let first = running.ask("example.com.").await;
    assert!(first.metadata.authoritative && first.answers[0].ttl == 300);
    until("the TTL to count down", async || running.ask("example.com.").await.answers[0].ttl < 300).await;
    let again = running.ask("EXAMPLE.com.").await;
    assert!(!again.metadata.authoritative, "a kept answer is nobody's word");
    assert_eq!(again.answers[0].name.to_string(), "EXAMPLE.com.");
    assert_eq!(one.asked().len(), 1);
    let mut other = question("example.com.", RecordType::A);
    other.edns.as_mut().unwrap().set_dnssec_ok(true);
    ask(running.addr, &other).await;
    assert_eq!(one.asked().len(), 2, "DO asks for more");
    let asked = async || {
        running.ask("short.example.").await;
        one.asked().len() >= 4
    };
    until("an answer that holds no longer to be asked for again", asked).await;
    running.stop().await;
}

/// Of the two families one was asked for before, and its alias has aged: it is the same alias.
#[tokio::test]
async fn an_alias_on_the_way_to_both_families_is_told_once() {
    let script = ["record example.com. 300 CNAME a.example.com.", "record a.example.com. 300 A 203.0.113.9"];
    let one = Upstream::start(Script::of(&script)).await;
    let running = Running::start(recursion(&[&one], FAR));
    until("the TTL to count down", async || running.ask("example.com.").await.answers[0].ttl < 300).await;
    let reply = ask(running.addr, &question("far.service.consul.", RecordType::ANY)).await;
    let told: Vec<String> = reply.answers.iter().map(|record| record.to_string()).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    running.stop().await;
}

#[tokio::test]
async fn what_a_recursor_said_is_told_while_none_answers() {
    let one = Upstream::start(Script::of(&["record example.com. 1 A 203.0.113.9"])).await;
    let running = Running::start(recursion(&[&one], SHORT));
    running.ask("example.com.").await;
    one.turn(Script::of(&["silent"]));
    until("a stale answer", async || ede(&running.ask("example.com.").await) == Some(3)).await;
    let stale = running.ask("example.com.").await;
    assert_eq!((stale.answers.len(), stale.answers[0].ttl), (1, 30));
    assert_eq!(ede(&running.ask("other.example.com.").await), Some(23));
    running.stop().await;
}

#[tokio::test]
async fn who_ask_the_same_share_one_question() {
    let one = Upstream::start(Script::of(&["silent"])).await;
    let running = Running::start(recursion(&[&one], FAR));
    let mut clients = JoinSet::new();
    let to = running.addr;
    for _ in 0..30 {
        clients.spawn(async move { ask(to, &question("example.com.", RecordType::A)).await });
    }
    until("the question", async || !one.asked().is_empty()).await;
    // The silent one is asked once more after an eighth of the timeout, which is far; so another recursor must answer.
    let two = Upstream::start(Script::of(&[ADDRESS])).await;
    running.set(recursion(&[&two], FAR));
    assert_eq!(running.ask("example.com.").await.answers.len(), 1, "other recursors, another flight");
    assert_eq!((one.asked().len(), two.asked().len()), (1, 1));
    clients.shutdown().await;
    running.stop().await;
}

#[tokio::test]
async fn one_that_is_silent_costs_no_timeout_and_is_asked_last_until_it_answers() {
    let one = Upstream::start(Script::of(&["silent"])).await;
    let two = Upstream::start(Script::of(&["fill 1"])).await;
    // An eighth of this is waited for the silent one.
    let running = Running::start(recursion(&[&one, &two], Duration::from_secs(8)));
    for number in 0..3 {
        let reply = running.ask(&format!("n{number}.example.com.")).await;
        assert_eq!(reply.answers.len(), 1);
    }
    assert_eq!((one.asked().len(), two.asked().len()), (3, 3), "both were asked, one after the other");
    let after = one.asked().len();
    running.ask("later.example.com.").await;
    assert_eq!(one.asked().len(), after, "it failed three times");
    one.turn(Script::of(&["fill 1"]));
    let mut number = 0;
    let is_back = async || {
        number += 1;
        let before = two.asked().len();
        running.ask(&format!("m{number}.example.com.")).await;
        two.asked().len() == before
    };
    until("the first recursor to be the first again", is_back).await;
    running.stop().await;
}

#[tokio::test]
async fn our_own_question_that_comes_back_is_a_loop() {
    let one = Upstream::start(Script::default()).await;
    let running = Running::start(recursion(&[&one], SHORT));
    one.turn(Script::of(&[&format!("back-whole {}", running.addr)]));
    let reply = running.ask("example.com.").await;
    assert_eq!((reply.metadata.response_code, ede(&reply)), (ResponseCode::ServFail, Some(22)));
    assert!(one.asked().len() <= 2, "{}", one.asked().len());
    running.stop().await;
}

#[tokio::test]
async fn a_loop_that_cannot_be_seen_is_no_storm() {
    let one = Upstream::start(Script::default()).await;
    let running = Running::start(recursion(&[&one], SHORT));
    one.turn(Script::of(&[&format!("back {}", running.addr)]));
    for _ in 0..5 {
        let reply = running.ask("example.com.").await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }
    // Twice for the one flight that there was, and perhaps once more after its failure was forgotten.
    assert!(one.asked().len() <= 4, "{}", one.asked().len());
    running.stop().await;
}

/// Whoever finds no room is told so at once, on every road; names of ours are answered all the same.
#[tokio::test]
async fn errands_are_counted_over_all_and_for_each_client() {
    for (all, per_client) in [(4, 100), (100, 4)] {
        for batch in [true, false] {
            let one = Upstream::start(Script::of(&["silent"])).await;
            let in_flight_max = SeatsMax { all, per_client };
            let recursion = Recursion { in_flight_max, ..recursion(&[&one], FAR) };
            let running = Running::start_with("127.0.0.1:0", recursion, batch, TcpLimits::default());
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.connect(running.addr).await.unwrap();
            for number in 0..50 {
                let question = question(&format!("n{number}.example.com."), RecordType::A);
                socket.send(&question.to_vec().unwrap()).await.unwrap();
            }
            for _ in 0..46 {
                let reply = received(&socket).await;
                assert_eq!((reply.metadata.response_code, ede(&reply)), (ResponseCode::ServFail, Some(0)));
            }
            until("four questions", async || one.asked().len() >= 4).await;
            assert_eq!(running.ask("web.service.consul.").await.answers.len(), 1);
            let mut stream = TcpStream::connect(running.addr).await.unwrap();
            stream.write_all(&framed(&question("tcp.example.com.", RecordType::A))).await.unwrap();
            assert_eq!(ede(&next_reply(&mut stream).await.unwrap()), Some(0));
            assert_eq!(one.asked().len(), 4);
            let counters = running.counters.clone();
            assert_eq!((counters.shed.get(), counters.waiting(), counters.cache_misses.get()), (47, 4, 4));
            running.stop().await; // though four still wait
            assert_eq!(counters.waiting(), 0);
            let refused = |answered: &&Answered| answered.code == "SERVFAIL";
            let refused =
                counters.answered().iter().filter(refused).map(|answered| answered.count).sum::<u64>();
            assert_eq!(refused, 47);
        }
    }
}

/// A reply that is there does not wait for one that is not (RFC 7766 §6.2.1.1), and a client that says no more still
/// gets all of them.
#[tokio::test]
async fn a_connection_does_not_wait_for_a_recursor() {
    let one = Upstream::start(Script::of(&["silent"])).await;
    let running = Running::start(recursion(&[&one], Duration::from_secs(8)));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let (far, near) =
        (question("example.com.", RecordType::A), question("web.service.consul.", RecordType::A));
    stream.write_all(&[framed(&far), framed(&near)].concat()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(next_reply(&mut stream).await.unwrap().metadata.id, near.metadata.id);
    until("the question", async || !one.asked().is_empty()).await;
    one.turn(Script::of(&[ADDRESS])); // it is asked again after a second
    let reply = next_reply(&mut stream).await.unwrap();
    assert_eq!((reply.metadata.id, reply.answers.len()), (far.metadata.id, 1));
    assert!(next_reply(&mut stream).await.is_err(), "and then it is closed");
    running.stop().await;
}

#[tokio::test]
async fn a_connection_has_so_many_errands_and_reads_no_more() {
    let one = Upstream::start(Script::of(&["silent"])).await;
    let limits = TcpLimits { errands_max: 3, ..TcpLimits::default() };
    let running = Running::start_with("127.0.0.1:0", recursion(&[&one], SHORT), true, limits);
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    for number in 0..9 {
        let question = question(&format!("n{number}.example.com."), RecordType::A);
        stream.write_all(&framed(&question)).await.unwrap();
    }
    let mut most = 0;
    for replies in 0..9 {
        let asked: HashSet<String> =
            one.asked().iter().map(|asked| asked.message.queries[0].name().to_string()).collect();
        most = most.max(asked.len().saturating_sub(replies));
        assert_eq!(ede(&next_reply(&mut stream).await.unwrap()), Some(23));
    }
    assert!(most <= 3, "{most} at once");
    running.stop().await;
}

/// The client's socket takes packets only from the address it asked.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_late_reply_leaves_from_the_address_asked() {
    let one = Upstream::start(Script::of(&["fill 1"])).await;
    for batch in [true, false] {
        let recursion = recursion(&[&one], FAR);
        let running = Running::start_with("0.0.0.0:0", recursion, batch, TcpLimits::default());
        let to = SocketAddr::from(([127, 0, 0, 2], running.addr.port()));
        assert_eq!(ask(to, &question("example.com.", RecordType::A)).await.answers.len(), 1);
        running.stop().await;
    }
}

/// Consul's flag and key, and a reload that turns recursion on and off.
#[test]
fn an_agent_asks_whom_it_is_told_to() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let one = runtime.block_on(Upstream::start(Script::of(&[ADDRESS])));
    let agent = support::Agent::start_with(&["-dev"], &[("z.hcl", "")]);
    let code = || support::ask(agent.dns(), "example.com.", RecordType::A).metadata.response_code;
    assert_eq!(code(), ResponseCode::Refused);
    let config = |text: &str| {
        fs::write(agent.folder.join("z.hcl"), text).unwrap();
        agent.signal("HUP");
    };
    config(&format!("recursors = [\"{}\"]", one.addr));
    support::wait_for("recursion", || (code() == ResponseCode::NoError).then_some(()), || agent.log());
    assert_eq!(agent.answers("example.com.", RecordType::A), ["A 203.0.113.9"]);
    config(&format!("recursors = [\"{}\", \"{}\"]", one.addr, agent.dns()));
    agent.wait_for_log("this agent is asked itself");
    assert_eq!(code(), ResponseCode::NoError, "with a fault nothing changes");
    config("");
    support::wait_for("no recursion", || (code() == ResponseCode::Refused).then_some(()), || agent.log());
    drop(agent);
    let flag = format!("-recursor={}", one.addr);
    let agent = support::Agent::start(&["-dev", &flag]);
    assert_eq!(agent.answers("example.com.", RecordType::A), ["A 203.0.113.9"]);
    for (program, arguments) in [("dig", ["+tries=1", "+time=15"]), ("kdig", ["+retry=0", "+timeout=15"])] {
        if Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            println!("skipped: {program} is not installed");
            continue;
        }
        for transport in ["+notcp", "+tcp"] {
            let mut dig = Command::new(program);
            dig.args([&format!("@{}", agent.address), "-p", "8600", transport]);
            let output =
                dig.args(arguments).args(["+dnssec", "+noall", "+answer", "example.com"]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("203.0.113.9"), "{program} {transport}: {text}");
        }
    }
}

/// An errand keeps its question; one that nobody would ask is not kept.
#[tokio::test]
async fn a_question_that_is_too_long_is_not_passed_on() {
    let one = Upstream::start(Script::of(&["fill 1"])).await;
    let running = Running::start(recursion(&[&one], FAR));
    let mut packet = question("example.com.", RecordType::A).to_vec().unwrap();
    let end = packet.len();
    packet[end - 2..].copy_from_slice(&5_004u16.to_be_bytes());
    packet.extend_from_slice(&[0, 12]); // padding (RFC 7830)
    packet.extend_from_slice(&5_000u16.to_be_bytes());
    packet.resize(packet.len() + 5_000, 0);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&packet, running.addr).await.unwrap();
    assert_eq!(ede(&received(&socket).await), Some(0));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream.write_all(&[&(packet.len() as u16).to_be_bytes(), &packet[..]].concat()).await.unwrap();
    assert_eq!(ede(&next_reply(&mut stream).await.unwrap()), Some(0));
    assert!(one.asked().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn classes_are_not_mixed() {
    let one = Upstream::start(Script::of(&["fill 1"])).await;
    let running = Running::start(recursion(&[&one], FAR));
    running.ask("example.com.").await;
    let mut chaos = question("example.com.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    ask(running.addr, &chaos).await;
    assert_eq!(one.asked().len(), 2);
    running.stop().await;
}
