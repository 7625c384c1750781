//! A client and servers of this room, over real connections.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::catalog::{
    Answer, Applied, Catalog, Check, Command, Node, NodeCoordinate, Register, Reply, Service, Status,
    Subscribe, Subscription, Target, Text, Topic, Woken,
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DEADLINE: Duration = Duration::from_secs(30);

/// A server over a catalog in memory.
struct Memory {
    catalog: watch::Sender<Arc<Catalog>>,
    /// What becomes of the next proposals; of all others, they are written.
    fails: Mutex<VecDeque<Failure>>,
    told: Mutex<Vec<String>>,
}

impl Memory {
    fn new() -> Arc<Memory> {
        let catalog = watch::channel(Arc::new(Catalog::default())).0;
        Arc::new(Memory { catalog, fails: Mutex::default(), told: Mutex::default() })
    }

    fn apply(&self, command: Command) -> Reply {
        let mut reply = None;
        self.catalog.send_modify(|catalog| reply = Some(Arc::make_mut(catalog).apply(command).0));
        reply.unwrap()
    }

    fn tell(&self, what: String) {
        self.told.lock().unwrap().push(what);
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl Subscribe for Memory {
    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.borrow().clone()
    }

    fn subscribe(&self, _: Vec<Topic>) -> Subscription {
        let mut changed = self.catalog.subscribe();
        Box::pin(async move {
            changed.changed().await.unwrap();
            Woken::ByChange
        })
    }
}

impl Serve for Memory {
    fn propose(self: Arc<Self>, command: Command) -> Pending<Result<Reply, Failure>> {
        let fails = self.fails.lock().unwrap().pop_front();
        self.tell(format!("propose {}", fails.is_none()));
        let reply = fails.map_or_else(|| Ok(self.apply(command)), Err);
        Box::pin(std::future::ready(reply))
    }

    /// Says what it was asked, and gives the body back.
    fn http(
        self: Arc<Self>,
        asked: HttpAsked,
        mut body: Pieces,
    ) -> Pending<Result<(HttpTold, Pieces), Failure>> {
        Box::pin(async move {
            self.tell(format!(
                "{} {} for {} on {}",
                asked.method,
                asked.uri,
                asked.source.unwrap(),
                asked.node
            ));
            if asked.uri == "/waits" {
                let guard = Dropped(self.clone());
                std::future::pending::<()>().await;
                drop(guard);
            }
            let headers = asked.headers;
            if asked.uri == "/large" {
                body = Box::pin(tokio_stream::once(Ok(vec![3; 10 << 20].into())));
            }
            if asked.uri == "/whole" {
                let (mut bytes, mut pieces) = (0, 0);
                while let Some(piece) = body.next().await {
                    bytes += piece.unwrap().len();
                    pieces += 1;
                }
                self.tell(format!("{bytes} bytes in more pieces than 3: {}", pieces > 3));
                body = Box::pin(tokio_stream::once(Ok(Bytes::from("done"))));
            }
            Ok((HttpTold { status: 202, headers, ..HttpTold::default() }, body))
        })
    }

    fn dns(self: Arc<Self>, asked: DnsAsked) -> Result<DnsTold, Failure> {
        Ok(DnsTold { reply: asked.packet, left: asked.settings, unsure: asked.tcp })
    }

    fn coordinate(&self, coordinate: NodeCoordinate) {
        self.tell(format!("coordinate of {}", coordinate.node));
    }
}

struct Dropped(Arc<Memory>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.tell("gone".into());
    }
}

struct Running {
    address: SocketAddr,
    counters: Arc<Counters>,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    fn start(memory: &Arc<Memory>, limits: Limits) -> Running {
        let server = Server::bind((HERE, 0).into()).unwrap();
        let (address, counters, stop) =
            (server.address(), server.counters().clone(), CancellationToken::new());
        let limits = Arc::new(ArcSwap::from_pointee(limits));
        let task = tokio::spawn(server.run(memory.clone(), limits, stop.clone()));
        Running { address, counters, stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
    }
}

fn client(servers: &[SocketAddr]) -> Client {
    let hold = Duration::from_millis(200);
    let settings = Settings { from: HERE, hold, patience: DEADLINE };
    let client = Client::new(settings, CancellationToken::new());
    let address = |address: &SocketAddr| Address { name: address.to_string().into(), address: *address };
    client.update(&servers.iter().map(address).collect::<Vec<_>>(), servers.len());
    client
}

fn register(service: &str, output: &str) -> Command {
    let node = Node { name: "Oak".into(), address: "10.0.0.1".into(), ..Node::default() };
    let own = Service { id: service.into(), name: service.into(), ..Service::default() };
    let check = Check {
        id: format!("of-{service}").as_str().into(),
        service_id: service.into(),
        output: output.into(),
        status: Status::Passing,
        ..Check::default()
    };
    let register = Register { node, service: Some(own), checks: vec![check], ..Register::default() };
    Command::Register(Box::new(register))
}

fn asked(method: &str, uri: &str) -> HttpAsked {
    HttpAsked {
        method: method.into(),
        uri: uri.into(),
        headers: vec![("accept".into(), "text/plain".into())],
        node: "elm".into(),
        source: Some(HERE),
    }
}

async fn gathered(mut pieces: Pieces) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    all
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let look = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, look).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

#[tokio::test]
async fn every_kind_of_call_is_answered() {
    let memory = Memory::new();
    let running = Running::start(&memory, Limits::default());
    let client = client(&[running.address]);
    let reply = client.propose(&register("web", "")).await.unwrap();
    assert_eq!(reply, Ok(Applied { index: 1, changed: true, answer: Answer::Done }));
    let refused = Command::Deregister { node: Text::default(), target: Target::Node };
    assert_eq!(client.propose(&refused).await.unwrap(), memory.apply(refused.clone()), "as the catalog says");
    let dns = DnsAsked { packet: "q".into(), tcp: true, from: Some(HERE), settings: "s".into() };
    let told = client.dns(&dns, DEADLINE).await.unwrap();
    assert_eq!(told, DnsTold { reply: "q".into(), left: "s".into(), unsure: true });
    let coordinate = NodeCoordinate { node: "oak".into(), ..NodeCoordinate::default() };
    client.coordinate(&coordinate).await.unwrap();
    assert_eq!(memory.told(), ["propose true", "propose true", "coordinate of oak"]);
    assert_eq!((running.counters.accepted.get(), running.counters.requests.get()), (1, 4), "one connection");
    running.stop().await;
}

#[tokio::test]
async fn of_a_node_nothing_comes_where_nothing_differs() {
    let memory = Memory::new();
    let running = Running::start(&memory, Limits::default());
    let (client, oak) = (client(&[running.address]), Text::from("oak"));
    let node = async |known: Bytes, wait| client.node(&oak, &known, wait).await;
    let digest = || Rows::digest(memory.catalog().node("oak").map(|home| &**home));
    assert_eq!(node(digest(), Duration::ZERO).await, Ok(None), "there is no such node, and none is known");
    // Who waits for one to come is not told that there is none, or he would ask again at once.
    let (waited, _) = tokio::join!(node(Bytes::new(), DEADLINE), async {
        until("it is asked", || running.counters.requests.get() == 2).await;
        memory.apply(register("web-0", ""))
    });
    assert_eq!(waited.unwrap().unwrap().services.len(), 1);
    // More than one message may hold.
    let output = "x".repeat(4096);
    (0..2_000).for_each(|n| drop(memory.apply(register(&format!("web-{n}"), &output))));
    let rows = node(Bytes::new(), Duration::ZERO).await.unwrap().unwrap();
    assert_eq!((rows.services.len(), rows.services[7].checks.len()), (2_000, 1));
    // Of whatever they are large; and where one service alone is, too.
    let tag = "x".repeat(200_000);
    for n in 0..40 {
        let (node, id) =
            (Node { name: "Ash".into(), address: "10.0.0.2".into(), ..Node::default() }, format!("big-{n}"));
        let own = Service {
            id: id.as_str().into(),
            name: "big".into(),
            tags: vec![tag.as_str().into()].into(),
            ..Service::default()
        };
        let check = |n| Check {
            id: format!("{id}-{n}").as_str().into(),
            service_id: id.as_str().into(),
            status: Status::Passing,
            notes: tag.as_str().into(),
            ..Check::default()
        };
        let checks = if n == 7 { (0..30).map(check).collect() } else { Vec::new() };
        let register = Register { node, service: Some(own), checks, ..Register::default() };
        memory.apply(Command::Register(Box::new(register))).unwrap();
    }
    let ash = client.node(&"ash".into(), &Bytes::new(), Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(ash, Rows::of(memory.catalog().node("ash").map(|home| &**home)));
    let most = ash.services.iter().map(|placed| placed.checks.len()).max();
    assert_eq!((ash.services.len(), most), (40, Some(30)));
    assert_eq!(node(digest(), Duration::ZERO).await, Ok(None));
    // Who waits is told of the next change.
    let (waited, changed) = tokio::join!(node(digest(), DEADLINE), async {
        until("it is asked", || running.counters.requests.get() == 6).await;
        memory.apply(register("db", ""))
    });
    assert!(changed.unwrap().changed);
    assert_eq!(waited.unwrap().unwrap().services.len(), 2_001);
    running.stop().await;
}

#[tokio::test]
async fn bodies_of_any_size_go_and_come() {
    let memory = Memory::new();
    let running = Running::start(&memory, Limits::default());
    let client = client(&[running.address]);
    let large = Bytes::from(vec![7; 20 << 20]);
    let (told, pieces) =
        client.http(asked("PUT", "/x?y"), Body::Whole(large.clone()), false, DEADLINE).await.unwrap();
    assert_eq!((told.status, told.headers), (202, asked("", "").headers));
    assert!(gathered(pieces).await == large, "it came back as it went");
    let parts: Vec<_> = (0..100).map(|_| Ok(Bytes::from(vec![1; 100_000]))).collect();
    let coming = Body::Coming(Box::pin(tokio_stream::iter(parts)));
    let (_, pieces) = client.http(asked("PUT", "/whole"), coming, false, DEADLINE).await.unwrap();
    assert_eq!(gathered(pieces).await, b"done");
    let (_, pieces) =
        client.http(asked("GET", "/large"), Body::Whole(Bytes::new()), true, DEADLINE).await.unwrap();
    assert_eq!(gathered(pieces).await.len(), 10 << 20, "in however few pieces it is there");
    let expected = [
        "PUT /x?y for 127.0.0.1 on elm",
        "PUT /whole for 127.0.0.1 on elm",
        "10000000 bytes in more pieces than 3: true",
        "GET /large for 127.0.0.1 on elm",
    ];
    assert_eq!(memory.told(), expected);
    running.stop().await;
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_worked_on() {
    let memory = Memory::new();
    let running = Running::start(&memory, Limits::default());
    let client = client(&[running.address]);
    let body = || Body::Whole(Bytes::new());
    let waiting = client.http(asked("GET", "/waits"), body(), true, Duration::from_millis(50)).await;
    assert_eq!(waiting.err().unwrap().to_string(), "rpc error making call: i/o deadline reached");
    until("it ends there, too", || memory.told.lock().unwrap().iter().any(|told| told == "gone")).await;
    memory.told();
    let asking = tokio::spawn(async move {
        let _never = client.http(asked("GET", "/waits"), body(), true, DEADLINE).await;
    });
    until("it is asked", || !memory.told.lock().unwrap().is_empty()).await;
    asking.abort();
    until("it ends there, too", || memory.told.lock().unwrap().iter().any(|told| told == "gone")).await;
    running.stop().await;
}

/// Nothing was sent to a server that refuses connections, so another one is asked at once; with none left its text is told.
#[tokio::test]
async fn a_server_that_is_not_there_costs_nothing_but_a_try() {
    let memory = Memory::new();
    let running = Running::start(&memory, Limits::default());
    let gone = TcpListener::bind((HERE, 0)).await.unwrap().local_addr().unwrap();
    let client = client(&[gone, running.address]);
    for _ in 0..20 {
        client.propose(&register("web", "")).await.unwrap().unwrap();
    }
    assert_eq!(memory.told().len(), 20);
    let address = running.address;
    running.stop().await;
    let error = client.propose(&register("web", "")).await.unwrap_err().to_string();
    let dial = |to| {
        format!(
            "rpc error getting client: failed to get conn: dial tcp 127.0.0.1:0->{to}: connect: connection refused"
        )
    };
    assert!([dial(gone), dial(address)].contains(&error), "{error}");
    client.update(&[], 0);
    let error = client.propose(&register("web", "")).await.unwrap_err();
    assert_eq!(error.to_string(), "No known Consul servers");
}

/// It takes connections, or not even those: whoever asks then asks another.
#[tokio::test]
async fn a_server_that_does_not_answer_is_left() {
    let memory = Memory::new();
    let running = Running::start(&memory, Limits::default());
    let silent = TcpListener::bind((HERE, 0)).await.unwrap();
    let dns = DnsAsked { packet: "q".into(), ..DnsAsked::default() };
    // Either may be the first.
    for _ in 0..8 {
        let client = client(&[silent.local_addr().unwrap(), running.address]);
        let (mut left, patience) = (0, Duration::from_millis(300));
        for _ in 0..4 {
            left += u32::from(client.dns(&dns, patience).await.is_err());
        }
        assert!(left <= 1, "{left} of 4 were not answered");
    }
    // Its queue is full, so that nothing of a connection is answered.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((HERE, 0).into()).unwrap();
    let black_hole = socket.listen(1).unwrap();
    let address = black_hole.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queued.push(stream);
    }
    for _ in 0..4 {
        let client = client(&[address, running.address]);
        assert!(client.dns(&dns, Duration::from_secs(2)).await.is_ok(), "a try has a share of the time");
    }
    running.stop().await;
}

#[tokio::test]
async fn where_nobody_leads_another_server_is_asked_and_then_it_is_told() {
    let (one, other) = (Memory::new(), Memory::new());
    let servers = [Running::start(&one, Limits::default()), Running::start(&other, Limits::default())];
    let client = client(&[servers[0].address, servers[1].address]);
    one.fails.lock().unwrap().push_back(Failure::NoLeader);
    other.fails.lock().unwrap().push_back(Failure::NoLeader);
    client.propose(&register("web", "")).await.unwrap().unwrap();
    let mut told = [one.told(), other.told()].concat();
    told.sort();
    assert_eq!(told, ["propose false", "propose false", "propose true"], "each once, then the first again");
    one.fails.lock().unwrap().extend(vec![Failure::NoLeader; 1000]);
    other.fails.lock().unwrap().extend(vec![Failure::NoLeader; 1000]);
    let error = client.propose(&register("web", "")).await.unwrap_err();
    assert_eq!(error.to_string(), "rpc error making call: No cluster leader");
    one.fails.lock().unwrap().clear();
    other.fails.lock().unwrap().clear();
    one.fails.lock().unwrap().push_back(Failure::Other("disk full".into()));
    other.fails.lock().unwrap().push_back(Failure::Other("disk full".into()));
    let error = client.propose(&register("web", "")).await.unwrap_err();
    assert_eq!(error.to_string(), "rpc error making call: disk full", "another would say the same");
    for server in servers {
        server.stop().await;
    }
}

/// A server that takes what is sent and dies: whether it wrote is not known. Reads are asked again, writes never.
#[tokio::test]
async fn a_write_that_may_have_been_done_is_not_sent_twice() {
    let memory = Memory::new();
    let running = Running::start(&memory, Limits::default());
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let dying = listener.local_addr().unwrap();
    let accepted = Arc::new(Mutex::new(0));
    let count = accepted.clone();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            *count.lock().unwrap() += 1;
            // An empty SETTINGS frame: as much of HTTP/2 as a client waits for before it sends.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let (mut read, mut all) = ([0; 1024], Vec::new());
            while !all.windows(7).any(|window| window == b"Propose") && all.len() < 64 {
                let length = stream.read(&mut read).await.unwrap();
                all.extend_from_slice(&read[..length]);
            }
        }
    });
    let only = client(&[dying]);
    let error = only.propose(&register("web", "")).await.unwrap_err();
    assert_eq!(error.to_string(), "rpc error making call: stream closed");
    assert_eq!(*accepted.lock().unwrap(), 1);
    let both = client(&[dying, running.address]);
    for _ in 0..4 {
        let dns = DnsAsked { packet: "q".into(), ..DnsAsked::default() };
        assert!(both.dns(&dns, DEADLINE).await.is_ok(), "a read goes to another");
    }
    task.abort();
    running.stop().await;
}

#[tokio::test]
async fn connections_are_limited_and_must_say_something() {
    let memory = Memory::new();
    let limits = Limits { connections_per_address_max: 2, handshake_wait: Duration::from_millis(100) };
    let running = Running::start(&memory, limits);
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let ended = timeout(DEADLINE, silent.read(&mut [0; 64])).await.unwrap();
    assert!(matches!(ended, Ok(_) | Err(_)), "it is closed, or its greeting is all that came");
    let ended = timeout(DEADLINE, async { while silent.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {} });
    ended.await.expect("who says nothing is put out");
    until("its seat is free", || running.counters.accepted.get() == 1).await;
    let (one, two, three) =
        (client(&[running.address]), client(&[running.address]), client(&[running.address]));
    let dns = DnsAsked { packet: "q".into(), ..DnsAsked::default() };
    let asked = async |client: &Client| client.dns(&dns, DEADLINE).await.is_ok();
    until("two have room", || running.counters.turned_away.get() == 0).await;
    assert!(asked(&one).await && asked(&two).await);
    assert!(!asked(&three).await);
    assert!(running.counters.turned_away.get() >= 1);
    running.stop().await;
}

/// Yesterday's agents, and tomorrow's.
#[test]
fn messages_grow_by_fields() {
    #[derive(serde::Serialize)]
    struct Tomorrow {
        packet: Bytes,
        tcp: bool,
        more: Vec<u64>,
    }
    let tomorrow = Tomorrow { packet: "q".into(), tcp: true, more: vec![1, 2] };
    let read: DnsAsked = rmp_serde::from_slice(&rmp_serde::to_vec_named(&tomorrow).unwrap()).unwrap();
    assert_eq!(read, DnsAsked { packet: "q".into(), tcp: true, ..DnsAsked::default() });
    let empty: HttpTold = rmp_serde::from_slice(&[0x80]).unwrap();
    assert_eq!(empty, HttpTold::default());
}
