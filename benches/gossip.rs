//! What a member costs while nothing happens: bytes on the wire and CPU, among 100 and among 1,000, on real sockets of
//! loopback addresses, encrypted. Beside it, in the same run, the floor: tasks that send and answer as many bare packets
//! over sockets like these, and know nothing. And what an envelope costs.
//!
//! ```text
//! cargo bench --bench gossip [MEMBERS...]
//! ```

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock and waits for calm")]

use std::{
    error::Error,
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use lictor::gossip::{
    Encryption, Key, Keyring, Kind, Members, Past, Pool, PoolSettings, Seal, SealSettings, Settings, Status,
    Timing,
};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use tokio::{net::UdpSocket, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error>>;

const MEMBERS: [usize; 2] = [100, 1_000];
/// How long is measured, and how long a pool may take until it is calm.
const MEASURED: Duration = Duration::from_secs(20);
const CALM_WITHIN: Duration = Duration::from_secs(300);
/// Heads of IP and UDP; and of TCP, for each stream: nine packets, as it is begun, used and ended.
const UDP_HEADS: u64 = 28;
const STREAM_HEADS: u64 = 9 * 40;
/// As an idle member sends them, on average.
const BARE_BYTES: usize = 70;

fn main() -> Outcome<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard)?;
    let named: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let sizes = if named.is_empty() { MEMBERS.to_vec() } else { named };
    envelopes();
    println!(
        "{:<10}{:>10}{:>10}{:>10}{:>10}{:>12}{:>10}{:>10}",
        "members", "join s", "packets/s", "UDP B/s", "TCP B/s", "CPU µs/s", "bare µs/s", "ratio"
    );
    for size in sizes {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(idle(size))?;
    }
    Ok(())
}

async fn idle(size: usize) -> Outcome<()> {
    let (stop, began) = (CancellationToken::new(), Instant::now());
    let mut tasks = Vec::new();
    let mut pools: Vec<Pool> = Vec::new();
    for at in 0..size {
        let (pool, task) = Pool::start(settings(at), stop.clone())?;
        pools.push(pool);
        tasks.push(task);
    }
    let seed = pools[0].local();
    let mut joining = JoinSet::new();
    for pool in &pools[1..] {
        let pool = pool.clone();
        // Where all of them at once are too much for this machine, some are let in later.
        joining.spawn(async move {
            let mut outcome = pool.join(vec![seed]).await.remove(0).1;
            while outcome.is_err() && began.elapsed() < CALM_WITHIN {
                outcome = pool.join(vec![seed]).await.remove(0).1;
            }
            outcome
        });
    }
    while let Some(joined) = joining.join_next().await {
        joined??;
    }
    for pool in &pools {
        let all = |members: &Members| {
            members.values().filter(|member| member.status == Status::Alive).count() == size
        };
        tokio::time::timeout(CALM_WITHIN, pool.members().wait_for(all)).await??;
    }
    let joined = began.elapsed();
    // Until nothing but pings is sent any more.
    let mut before = Sent::of(&pools);
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = Sent::of(&pools);
        let (packets, bytes) = (now.packets - before.packets, now.bytes - before.bytes);
        before = now;
        if bytes < packets * 100 {
            break;
        }
        if began.elapsed() > CALM_WITHIN {
            return Err("the pool does not come to rest".into());
        }
    }
    let (before, busy, start) = (Sent::of(&pools), cpu()?, Instant::now());
    tokio::time::sleep(MEASURED).await;
    let (after, busy, took) = (Sent::of(&pools), cpu()? - busy, start.elapsed().as_secs_f64());
    let each = |count: u64| count as f64 / size as f64 / took;
    let packets = after.packets - before.packets;
    stop.cancel();
    for task in tasks {
        task.await?;
    }
    let bare = bare(size, each(packets)).await?;
    let own = busy.as_secs_f64() * 1e6 / size as f64 / took;
    println!(
        "{size:<10}{:>10.1}{:>10.2}{:>10.0}{:>10.0}{own:>12.0}{bare:>10.0}{:>10.1}",
        joined.as_secs_f64(),
        each(packets),
        each(after.bytes - before.bytes + packets * UDP_HEADS),
        each(after.stream_bytes - before.stream_bytes + (after.streams - before.streams) * STREAM_HEADS),
        own / bare,
    );
    Ok(())
}

/// So many tasks, each with a socket, send half as many packets a second as a member does to chance neighbours, who send
/// them back: µs of CPU a task and second.
async fn bare(size: usize, packets_per_sec: f64) -> Outcome<f64> {
    let mut sockets = Vec::new();
    for at in 0..size {
        sockets.push(UdpSocket::bind(SocketAddr::from((address(at), 0))).await?);
    }
    let places: Vec<SocketAddr> = sockets.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?;
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let every = Duration::from_secs_f64(2.0 / packets_per_sec);
    for (at, socket) in sockets.into_iter().enumerate() {
        let (places, stop) = (places.clone(), stop.clone());
        tasks.spawn(async move {
            let mut rng = fastrand::Rng::with_seed(at as u64);
            let first = tokio::time::Instant::now() + every.mul_f64(rng.f64());
            let mut beat = tokio::time::interval_at(first, every);
            let mut buffer = [0; 2048];
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = beat.tick() => {
                        let _lost = socket.try_send_to(&[1; BARE_BYTES], places[rng.usize(..places.len())]);
                    }
                    Ok((length, from)) = socket.recv_from(&mut buffer) => {
                        if buffer[0] == 1 {
                            let _lost = socket.try_send_to(&[0; BARE_BYTES][..length.min(BARE_BYTES)], from);
                        }
                    }
                }
            }
        });
    }
    let (busy, start) = (cpu()?, Instant::now());
    tokio::time::sleep(MEASURED).await;
    let (busy, took) = (cpu()? - busy, start.elapsed().as_secs_f64());
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(busy.as_secs_f64() * 1e6 / size as f64 / took)
}

/// One packet sealed and opened, by a known sender and by one whose key must be derived first; and copied, for comparison.
fn envelopes() {
    const ROUNDS: usize = 200;
    const PACKETS: usize = 1_000;
    let settings = SealSettings {
        packets: "lan dc1".into(),
        streams: "lan".into(),
        verify_incoming: true,
        verify_outgoing: true,
    };
    let keyring = || Keyring::new(Some(Key::of(vec![7; 32]).expect("32 bytes")));
    println!("{:<10}{:>10}{:>10}{:>14}{:>10}   ns", "bytes", "seal", "open", "open, anew", "copy");
    for length in [70, 1_352] {
        let plain = vec![1; length];
        let (mut sender, mut receiver) =
            (Seal::new(&settings, 1, keyring()), Seal::new(&settings, 2, keyring()));
        let mut packets: Vec<Vec<u8>> = (0..PACKETS).map(|_| Vec::with_capacity(1_400)).collect();
        let mut took = [Duration::ZERO; 4];
        for round in 0..ROUNDS {
            let mut time = |at: usize, work: &mut dyn FnMut()| {
                let start = Instant::now();
                work();
                took[at] += start.elapsed();
            };
            time(0, &mut || {
                for out in &mut packets {
                    out.clear();
                    sender.seal_packet(&plain, out);
                }
            });
            time(1, &mut || {
                for bytes in &mut packets {
                    black_box(receiver.open_packet(bytes)).expect("it is whole");
                }
            });
            for (at, out) in packets.iter_mut().enumerate() {
                out.clear();
                Seal::new(&settings, (3 + round * PACKETS + at) as u64, keyring()).seal_packet(&plain, out);
            }
            time(2, &mut || {
                for bytes in &mut packets {
                    black_box(receiver.open_packet(bytes)).expect("it is whole");
                }
            });
            time(3, &mut || {
                for out in &mut packets {
                    out.clear();
                    out.extend_from_slice(black_box(&plain));
                }
            });
        }
        let [seal, open, anew, copy] = took.map(|took| took.as_nanos() as f64 / (ROUNDS * PACKETS) as f64);
        println!("{length:<10}{seal:>10.0}{open:>10.0}{anew:>14.0}{copy:>10.0}");
    }
}

fn settings(at: usize) -> PoolSettings {
    let bind = SocketAddr::from((address(at), 0));
    PoolSettings {
        node: Settings {
            name: format!("member-{at}").as_str().into(),
            id: Uuid::new_v4(),
            datacenter: "dc1".into(),
            advertise: bind,
            tags: [("role".into(), "node".into()), ("build".into(), "1.16.4:".into())].into(),
            timing: Timing::lan(),
            generation: 0,
            past: Past::default(),
            members_max: 10_000,
            event_bytes_max: 512,
            coordinates: true,
        },
        kind: Kind::Lan,
        bind,
        encryption: Encryption { key: Key::of(vec![7; 32]).ok(), ..Encryption::default() },
        history: None,
        rejoin_after_leave: false,
        allowed: Vec::new(),
    }
}

fn address(at: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 85, 0, 1).to_bits() + at as u32)
}

/// Of this process, so far.
fn cpu() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = |time: nix::sys::time::TimeVal| (time.tv_sec() * 1_000_000 + time.tv_usec()) as u64;
    Ok(Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())))
}

#[derive(Clone, Copy, Default)]
struct Sent {
    packets: u64,
    bytes: u64,
    streams: u64,
    stream_bytes: u64,
}

impl Sent {
    fn of(pools: &[Pool]) -> Sent {
        pools.iter().fold(Sent::default(), |sum, pool| {
            let traffic = pool.traffic();
            Sent {
                packets: sum.packets + traffic.packets_out.get(),
                bytes: sum.bytes + traffic.packet_bytes_out.get(),
                streams: sum.streams + traffic.streams_out.get(),
                stream_bytes: sum.stream_bytes + traffic.stream_bytes_out.get(),
            }
        })
    }
}
