//! Pools on real sockets, all in this process, each at an address of its own: they find each other in one go, notice who
//! is gone and nobody else, and change their keys while they talk. What a member costs is printed.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use lictor::gossip::{
    Encryption, Ended, Key, Keyring, Kind, Operation, Past, Pool, PoolSettings, Refused, Seal, SealSettings,
    Settings, Status, Timing, Traffic,
};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

struct Member {
    name: String,
    pool: Pool,
    stop: CancellationToken,
    task: JoinHandle<Ended>,
}

impl Member {
    fn start(settings: PoolSettings) -> Member {
        let stop = CancellationToken::new();
        let name = settings.node.name.to_string();
        let (pool, task) = Pool::start(settings, stop.clone()).unwrap();
        Member { name, pool, stop, task }
    }

    fn address(&self) -> SocketAddr {
        self.pool.local()
    }

    async fn stop(self) -> Ended {
        self.stop.cancel();
        ended(self.task).await
    }

    async fn join(&self, other: SocketAddr) -> Result<usize, String> {
        self.pool.join(vec![other]).await.remove(0).1
    }

    fn count(&self, status: Status) -> usize {
        self.pool.members().borrow().values().filter(|member| member.status == status).count()
    }

    /// Waits until it sees so many.
    async fn sees(&self, count: usize, status: Status) {
        let mut members = self.pool.members();
        let seen = members
            .wait_for(|members| members.values().filter(|member| member.status == status).count() == count);
        let late = timeout(DEADLINE, seen).await.is_err();
        assert!(!late, "{} sees {} {status}, not {count}", self.name, self.count(status));
    }
}

const DEADLINE: Duration = Duration::from_secs(90);

async fn ended(task: JoinHandle<Ended>) -> Ended {
    timeout(DEADLINE, task).await.expect("the pool ends").expect("it does not panic")
}

fn settings(name: &str, ip: IpAddr) -> PoolSettings {
    let bind = SocketAddr::new(ip, 0);
    PoolSettings {
        node: Settings {
            name: name.into(),
            id: Uuid::new_v4(),
            datacenter: "dc1".into(),
            advertise: bind,
            tags: [("role".into(), "node".into()), ("build".into(), "1.16.4".into())].into(),
            timing: Timing::lan(),
            generation: 0,
            past: Past::default(),
            members_max: 10_000,
            event_bytes_max: 512,
            coordinates: true,
        },
        kind: Kind::Lan,
        bind,
        encryption: Encryption::default(),
        history: None,
        rejoin_after_leave: false,
        allowed: Vec::new(),
    }
}

/// Another one each time; chance gives the port.
fn address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    Ipv4Addr::from_bits(u32::from_be_bytes([127, 83, 0, 0]) + NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

fn key(byte: u8) -> Key {
    Key::of(vec![byte; 32]).unwrap()
}

/// What a condition comes to, or the test fails.
async fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let met = async {
        loop {
            match condition() {
                Some(met) => return met,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(DEADLINE, met).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("lictor-sockets-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// Of this process, so far.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = |time: nix::sys::time::TimeVal| {
        Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()) as u64)
    };
    time(usage.user_time()) + time(usage.system_time())
}

#[derive(Clone, Copy, Default)]
struct Sent {
    packets: u64,
    bytes: u64,
    stream_bytes: u64,
}

fn sent(members: &[Member]) -> Sent {
    members.iter().fold(Sent::default(), |sum, member| {
        let traffic: &Traffic = member.pool.traffic();
        Sent {
            packets: sum.packets + traffic.packets_out.get(),
            bytes: sum.bytes + traffic.packet_bytes_out.get(),
            stream_bytes: sum.stream_bytes + traffic.stream_bytes_out.get(),
        }
    })
}

/// Heads of IP and UDP are no bytes that a socket sees.
const HEADS: u64 = 28;
const MEMBERS: usize = 200;

/// At another of its addresses it finds itself, and that is nobody.
#[tokio::test]
async fn who_asks_itself_has_joined_nobody() {
    let (first, second) = (address(), address());
    let mut own = settings("elm", first);
    own.bind = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let elm = Member::start(own);
    let port = elm.address().port();
    let outcome = elm.join(SocketAddr::new(second, port)).await;
    assert_eq!(outcome, Err("it is the agent itself that answers there".into()));
    let oak = Member::start(settings("oak", address()));
    assert_eq!(oak.join(SocketAddr::new(second, port)).await, Ok(2), "another one is let in there");
    elm.stop().await;
    oak.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "how long it took is printed; nothing depends on it")]
async fn two_hundred_find_each_other_and_notice_who_is_gone() {
    let mut members: Vec<Member> = (0..MEMBERS)
        .map(|at| {
            let encryption = Encryption { key: Some(key(1)), ..Encryption::default() };
            Member::start(PoolSettings { encryption, ..settings(&format!("member-{at}"), address()) })
        })
        .collect();
    let (began, busy) = (Instant::now(), cpu());
    let seed = members[0].address();
    let joins: Vec<_> = members[1..]
        .iter()
        .map(|member| {
            let pool = member.pool.clone();
            tokio::spawn(async move { pool.join(vec![seed]).await.remove(0).1 })
        })
        .collect();
    for join in joins {
        join.await.unwrap().unwrap();
    }
    for member in &members {
        member.sees(MEMBERS, Status::Alive).await;
    }
    let joined = sent(&members);
    println!(
        "{MEMBERS} members joined in {:.2?}: {} bytes and {:.2?} of CPU a member",
        began.elapsed(),
        (joined.bytes + joined.packets * HEADS + joined.stream_bytes) / MEMBERS as u64,
        (cpu() - busy) / MEMBERS as u32
    );

    // Quiet, for as long as each needs for so many packets.
    let mut settled = sent(&members);
    loop {
        let now = idle(&members, settled, 4).await;
        let (packets, bytes) = (now.packets - settled.packets, now.bytes - settled.bytes);
        settled = now;
        // Pings and their answers alone, and no news beside them.
        if bytes < packets * 100 {
            break;
        }
    }
    let (began, busy) = (Instant::now(), cpu());
    let quiet = idle(&members, settled, 20).await;
    let each = |bytes: u64| bytes as f64 / MEMBERS as f64 / began.elapsed().as_secs_f64();
    println!(
        "idle: {:.2} packets/s, {:.0} B/s by UDP and {:.0} B/s by TCP a member, {:.0} µs/s of CPU",
        each(quiet.packets - settled.packets),
        each(quiet.bytes - settled.bytes + (quiet.packets - settled.packets) * HEADS),
        each(quiet.stream_bytes - settled.stream_bytes),
        (cpu() - busy).as_secs_f64() * 1e6 / MEMBERS as f64 / began.elapsed().as_secs_f64(),
    );

    let lost: Vec<Member> = members.drain(MEMBERS / 10 * 9..).collect();
    let wrong = Arc::new(AtomicU32::new(0));
    let judges: Vec<_> = members.iter().map(|member| judge(&member.pool, &lost, &wrong)).collect();
    let began = Instant::now();
    for member in lost {
        assert_eq!(member.stop().await, Ended::Stopped);
    }
    for member in &members {
        member.sees(MEMBERS / 10, Status::Failed).await;
        member.sees(MEMBERS / 10 * 9, Status::Alive).await;
    }
    println!("a tenth is lost, and all know it after {:.2?}", began.elapsed());
    judges.iter().for_each(JoinHandle::abort);
    assert_eq!(wrong.load(Ordering::Relaxed), 0, "healthy members were called failed");
    let refused: u64 = members.iter().map(|member| member.pool.traffic().refused()).sum();
    assert_eq!(refused, 0, "packets of members are taken by members");
    for member in members {
        member.stop().await;
    }
}

/// Waits until the members have sent so many packets more, each.
async fn idle(members: &[Member], before: Sent, packets: u64) -> Sent {
    let enough = before.packets + packets * members.len() as u64;
    wait_for("packets of an idle pool", || {
        let now = sent(members);
        (now.packets >= enough).then_some(now)
    })
    .await
}

/// Counts members that this pool calls failed and that are not lost.
fn judge(pool: &Pool, lost: &[Member], wrong: &Arc<AtomicU32>) -> JoinHandle<()> {
    let (mut members, wrong) = (pool.members(), Arc::clone(wrong));
    let lost: Vec<String> = lost.iter().map(|member| member.name.clone()).collect();
    tokio::spawn(async move {
        while members.changed().await.is_ok() {
            let now = members.borrow_and_update().clone();
            let failed = now.values().filter(|member| member.status == Status::Failed);
            let healthy = failed.filter(|member| !lost.iter().any(|name| **name == *member.name)).count();
            wrong.fetch_add(healthy as u32, Ordering::Relaxed);
        }
    })
}

#[tokio::test]
async fn keys_change_while_members_talk() {
    let folder = Folder::new("keys");
    let start = |at: usize, bind: SocketAddr| {
        let keyring = Some(folder.0.join(format!("{at}/local.keyring")));
        let encryption = Encryption { key: Some(key(1)), keyring, ..Encryption::default() };
        let mut settings = settings(&format!("member-{at}"), bind.ip());
        (settings.bind, settings.node.advertise) = (bind, bind);
        Member::start(PoolSettings { encryption, ..settings })
    };
    let mut members: Vec<Member> = (0..5).map(|at| start(at, (address(), 0).into())).collect();
    for member in &members[1..] {
        member.join(members[0].address()).await.unwrap();
    }
    for member in &members {
        member.sees(5, Status::Alive).await;
    }
    let counts = |byte: u8, count: usize| (key(byte).base64(), count);
    let all = |operation: Operation| members[0].pool.keyring(operation, false);
    let report = all(Operation::List).await.unwrap();
    assert_eq!((report.fault(), report.members), (None, 5));
    assert_eq!((report.keys, report.primary), ([counts(1, 5)].into(), [counts(1, 5)].into()));

    let report = all(Operation::Use(key(2))).await.unwrap();
    assert_eq!(report.fault().as_deref(), Some("5/5 nodes reported failure"));
    assert_eq!(report.refused["member-3"], "Requested key is not in the keyring");
    assert_eq!(all(Operation::Install(key(2))).await.unwrap().fault(), None);
    // Before any member answers, its file has it.
    for at in 0..5 {
        let kept = std::fs::read_to_string(folder.0.join(format!("{at}/local.keyring"))).unwrap();
        let kept: Vec<String> = serde_json::from_str(&kept).unwrap();
        assert_eq!(kept, [key(1).base64(), key(2).base64()]);
    }
    assert_eq!(all(Operation::Use(key(2))).await.unwrap().fault(), None);
    let refused = all(Operation::Remove(key(2))).await.unwrap();
    assert_eq!(refused.refused.len(), 5);
    assert_eq!(refused.refused["member-0"], "Removing the primary key is not allowed");
    assert_eq!(all(Operation::Remove(key(1))).await.unwrap().fault(), None);
    let report = all(Operation::List).await.unwrap();
    assert_eq!((report.keys, report.primary), ([counts(2, 5)].into(), [counts(2, 5)].into()));
    let local = members[1].pool.keyring(Operation::List, true).await.unwrap();
    assert_eq!((local.members, local.keys), (1, [counts(2, 1)].into()));

    // Whoever has the old key alone is not let in, and nobody minds him.
    let stranger = settings("stranger", address());
    let encryption = Encryption { key: Some(key(1)), ..Encryption::default() };
    let stranger = Member::start(PoolSettings { encryption, ..stranger });
    assert!(stranger.join(members[0].address()).await.is_err());
    assert!(members[0].pool.traffic().refused() > 0);
    stranger.stop().await;

    // The file wins over the key of the configuration.
    let returns = members.pop().unwrap();
    let home = returns.address();
    assert_eq!(returns.stop().await, Ended::Stopped);
    let returned = start(4, home);
    returned.join(members[0].address()).await.unwrap();
    for member in &members {
        member.sees(5, Status::Alive).await;
    }
    for member in members.into_iter().chain([returned]) {
        assert_eq!(member.count(Status::Failed), 0, "{}", member.name);
        member.stop().await;
    }
}

/// One member after the other is started again, as operators do it, and at no step do members lose each other.
#[tokio::test]
async fn encryption_is_turned_on_without_an_outage() {
    let steps = [(true, false, false), (true, false, true), (true, true, true)];
    let addresses: Vec<IpAddr> = (0..4).map(|_| address()).collect();
    let start = |at: usize, port: u16, (keyed, incoming, outgoing): (bool, bool, bool)| {
        let bind = SocketAddr::new(addresses[at], port);
        let encryption = Encryption {
            key: keyed.then(|| key(1)),
            keyring: None,
            verify_incoming: incoming,
            verify_outgoing: outgoing,
        };
        let mut settings = settings(&format!("member-{at}"), bind.ip());
        settings.node.advertise = bind;
        Member::start(PoolSettings { bind, encryption, ..settings })
    };
    let mut members: Vec<Member> = (0..4).map(|at| start(at, 0, (false, true, true))).collect();
    for member in &members[1..] {
        member.join(members[0].address()).await.unwrap();
    }
    for step in steps {
        for at in 0..4 {
            let port = members[at].address().port();
            let before = members.remove(at);
            before.pool.leave().await;
            assert_eq!(ended(before.task).await, Ended::Left);
            members.insert(at, start(at, port, step));
            let seed = members[(at + 1) % 4].address();
            members[at].join(seed).await.unwrap();
            for member in &members {
                member.sees(4, Status::Alive).await;
            }
        }
    }
    for member in &members {
        assert!(member.pool.is_encrypted());
        assert_eq!(
            (member.count(Status::Failed), member.pool.traffic().refused()),
            (0, 0),
            "{}",
            member.name
        );
    }
    let late = Member::start(settings("late", address()));
    assert!(late.join(members[0].address()).await.is_err(), "in the open nobody is let in any more");
    for member in members.into_iter().chain([late]) {
        member.stop().await;
    }
}

/// Rubbish is counted, and changes nothing.
#[tokio::test]
async fn rubbish_changes_nothing() {
    let encryption = Encryption { key: Some(key(1)), ..Encryption::default() };
    let start = |name: &str| {
        Member::start(PoolSettings { encryption: encryption.clone(), ..settings(name, address()) })
    };
    let members = [start("one"), start("two")];
    members[1].join(members[0].address()).await.unwrap();
    members[0].sees(2, Status::Alive).await;
    let before = members[0].pool.members().borrow().clone();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut sent = 0;
    for seed in 0..500 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let length = if seed % 10 == 0 { rng.usize(1401..9000) } else { rng.usize(..1400) };
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
        if let Some(version) = bytes.first_mut().filter(|_| seed % 2 == 0) {
            *version = 1;
        }
        socket.send_to(&bytes, members[0].address()).await.unwrap();
        sent += 1;
        if seed % 25 == 0 {
            let mut stream = tokio::net::TcpStream::connect(members[0].address()).await.unwrap();
            let mut frame = vec![0x80, 0, 0, 40];
            frame.extend((0..40).map(|_| rng.u8(..)));
            tokio::io::AsyncWriteExt::write_all(&mut stream, &frame).await.unwrap();
            sent += 1;
        }
    }
    // In the right envelope, too; and heard once more.
    let labels = SealSettings {
        packets: "lan dc1".into(),
        streams: "lan stream".into(),
        verify_incoming: true,
        verify_outgoing: true,
    };
    let mut seal = Seal::new(&labels, 7, Keyring::new(Some(key(1))));
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let plain: Vec<u8> = (0..rng.usize(1..1352)).map(|_| rng.u8(..)).collect();
        let mut bytes = Vec::new();
        seal.seal_packet(&plain, &mut bytes);
        for _ in 0..2 {
            socket.send_to(&bytes, members[0].address()).await.unwrap();
        }
        sent += 1;
    }
    let traffic = Arc::clone(members[0].pool.traffic());
    wait_for("all of it to be counted", || (traffic.refused() >= sent).then_some(())).await;
    assert_eq!(traffic.refused[Refused::Replayed.place()].get(), 100);
    let now = members[0].pool.members().borrow().clone();
    assert!(before == now, "{now:?}");
    for member in members {
        member.stop().await;
    }
}

/// Whoever begins streams and says nothing takes part of the seats only, and those until a deadline.
#[tokio::test]
async fn silent_streams_keep_nobody_out() {
    let mut slow = settings("one", address());
    slow.node.timing.stream_timeout = Duration::from_secs(3600);
    let one = Member::start(slow);
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(tokio::net::TcpStream::connect(one.address()).await.unwrap());
    }
    let traffic = Arc::clone(one.pool.traffic());
    wait_for("the others to be closed", || (traffic.streams_shed.get() >= 136).then_some(())).await;
    let two = Member::start(settings("two", address()));
    two.join(one.address()).await.unwrap();
    one.sees(2, Status::Alive).await;
    drop(silent);
    two.stop().await;
    one.stop().await;

    let mut quick = settings("three", address());
    quick.node.timing.stream_timeout = Duration::from_millis(50);
    let three = Member::start(quick);
    let _silent = tokio::net::TcpStream::connect(three.address()).await.unwrap();
    let traffic = Arc::clone(three.pool.traffic());
    wait_for("the deadline of a silent stream", || (traffic.streams_broken.get() == 1).then_some(())).await;
    three.stop().await;
}

#[tokio::test]
async fn whoever_is_not_allowed_is_not_heard() {
    let allowed = vec!["127.83.0.0/16".parse().unwrap()];
    let closed = Member::start(PoolSettings { allowed, ..settings("closed", address()) });
    let stranger = Member::start(settings("stranger", "127.84.0.1".parse().unwrap()));
    let friend = Member::start(settings("friend", address()));
    assert!(stranger.join(closed.address()).await.is_err());
    friend.join(closed.address()).await.unwrap();
    closed.sees(2, Status::Alive).await;
    assert!(closed.pool.traffic().foreign.get() > 0);
    for member in [closed, stranger, friend] {
        member.stop().await;
    }
}

#[tokio::test]
async fn members_talk_by_ipv6_and_at_every_address() {
    let v6: IpAddr = "::1".parse().unwrap();
    if std::net::UdpSocket::bind((v6, 0)).is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let one = Member::start(settings("one", v6));
    let two = Member::start(settings("two", v6));
    let mut wide = settings("wide", "::".parse().unwrap());
    wide.node.advertise = "127.0.0.1:0".parse().unwrap();
    let wide = Member::start(wide);
    let four = Member::start(settings("four", address()));
    two.join(one.address()).await.unwrap();
    one.sees(2, Status::Alive).await;
    let port = wide.address().port();
    four.join(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    wide.sees(2, Status::Alive).await;
    four.sees(2, Status::Alive).await;
    assert_eq!(one.count(Status::Failed) + wide.count(Status::Failed), 0);
    for member in [one, two, wide, four] {
        member.stop().await;
    }
}

/// Two agents of one machine that have one address: the second one says so, and the first one does not notice.
#[tokio::test]
async fn an_address_is_had_once() {
    let first = Member::start(settings("first", address()));
    let mut second = settings("second", first.address().ip());
    second.bind = first.address();
    let refused = Pool::start(second, CancellationToken::new()).err().unwrap().to_string();
    assert!(refused.starts_with(&format!("gossip cannot listen at {}: ", first.address())), "{refused}");
    first.stop().await;
}

/// What a pool kept brings it back, without being told where the others are.
#[tokio::test]
async fn whoever_starts_again_finds_the_others_by_its_own_file() {
    let folder = Folder::new("history");
    let file = folder.0.join("serf/local.snapshot");
    let home = address();
    let start = || Member::start(PoolSettings { history: Some(file.clone()), ..settings("returns", home) });
    let other = Member::start(settings("other", address()));
    let first = start();
    first.join(other.address()).await.unwrap();
    first.sees(2, Status::Alive).await;
    first.stop().await;
    let again = start();
    again.sees(2, Status::Alive).await;
    other.sees(2, Status::Alive).await;
    again.pool.leave().await;
    assert_eq!(ended(again.task).await, Ended::Left);
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("\"left\""), "{kept}");
    other.stop().await;
}
