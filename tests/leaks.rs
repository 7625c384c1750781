//! Checks come and go, in the middle of a look too, and leave nothing behind: no descriptor, process or task. What a
//! process holds is counted, so this one has a process of its own, with a `systemctl` and a Docker of the test's.

#![cfg(target_os = "linux")]

mod support;

use std::{
    collections::HashMap, env, fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path,
    process::Command, sync::Arc, time::Duration,
};

use bytes::Bytes;
use hyper::{HeaderMap, Response};
use lictor::{
    catalog::{Catalog, Subscribe, Subscription, Text, Topic},
    check::{CheckSpec, Definition, Runner, Settings, Span, Told},
};
use support::{DEADLINE, fresh_folder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream},
    runtime::Handle,
    sync::mpsc,
    time::timeout,
};

/// Says to the process that it starts that it is that one, and names its folder.
const FOLDER: &str = "LICTOR_TEST_LEAKS";
/// Of each kind and outcome.
const OF_EACH: usize = 20;

#[test]
fn nothing_is_left_of_checks_that_are_gone() {
    if let Ok(folder) = env::var(FOLDER) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(come_and_go(Path::new(&folder)));
    }
    let folder = fresh_folder();
    let systemctl = folder.join("systemctl");
    fs::write(
        &systemctl,
        "#!/bin/sh\necho LoadState=loaded; echo ActiveState=active; echo SubState=running\n",
    )
    .unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", "nothing_is_left_of_checks_that_are_gone", "--nocapture"])
        .env(FOLDER, &folder)
        .env("DOCKER_HOST", format!("unix://{}", folder.join("docker.sock").display()))
        .env("PATH", format!("{}:{}", folder.display(), env::var("PATH").unwrap_or_default()))
        .status()
        .unwrap();
    let _best_effort = fs::remove_dir_all(&folder);
    assert!(status.success(), "see above");
}

async fn come_and_go(folder: &Path) {
    let targets = Servers::start(folder).await;
    let word = format!("31536000.{}{:09}", std::process::id(), fastrand::u32(..1_000_000_000));
    // What is made once and kept, for signals and the like, is there after the first.
    rounds(&targets.definitions(&word, 1)).await;
    let before = until_calm(None).await;
    let definitions = targets.definitions(&word, OF_EACH);
    assert!(definitions.len() > 300);
    rounds(&definitions).await;
    until_calm(Some(before)).await;
    // What scripts started is gone with them, if not at once.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let gone = async {
        while processes(|_, arguments| arguments.contains(&word)) > 0 {
            ticks.tick().await;
        }
    };
    timeout(DEADLINE, gone).await.expect("no script's child outlives it");
}

/// Runs these until each was looked at a few times; half of them go meanwhile, and come back.
async fn rounds(definitions: &[Definition]) {
    let (told, mut tells) = mpsc::channel(8);
    let settings = Settings { output_bytes_max: 100, discard_output: false };
    let mut runner = Runner::new(settings, told, "own".into(), Arc::new(Nothing));
    definitions.iter().for_each(|definition| runner.put(definition));
    let mut looks: HashMap<Text, usize> = HashMap::new();
    let mut half_is_gone = false;
    let least = |looks: &HashMap<Text, usize>| {
        // The others say nothing that they said before.
        let looked_at = definitions.iter().filter(|check| !["alias", "ttl"].contains(&check.kind.word()));
        looked_at.map(|definition| looks.get(&definition.id).copied().unwrap_or(0)).min()
    };
    while least(&looks) < Some(4) || !half_is_gone {
        let Told { id, status, output, .. } =
            timeout(DEADLINE, tells.recv()).await.expect("checks say something").unwrap();
        assert!(status.as_str().starts_with(&id[..1]), "{id}: {output}");
        *looks.entry(id).or_default() += 1;
        if !half_is_gone && least(&looks) >= Some(2) {
            half_is_gone = true;
            let half = || definitions.iter().step_by(2);
            half().for_each(|definition| runner.remove(&definition.id));
            half().for_each(|definition| runner.put(definition));
        }
    }
    // In the middle of whatever they do. What still runs when a runner stops is left alone; what is removed is not.
    definitions.iter().for_each(|definition| runner.remove(&definition.id));
    runner.stop().await;
}

/// What this process holds: descriptors, children, tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    children: usize,
    tasks: usize,
}

impl Held {
    fn now() -> Held {
        let own = std::process::id();
        Held {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            children: processes(|parent, _| parent == own),
            tasks: Handle::current().metrics().num_alive_tasks(),
        }
    }
}

/// Waits until no child is left, and what is held no longer changes, or is no more than this.
async fn until_calm(expected: Option<Held>) -> Held {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut last = Held::now();
    let calm = async {
        loop {
            ticks.tick().await;
            let now = Held::now();
            let is_calm = match expected {
                Some(before) => now.descriptors <= before.descriptors && now.tasks <= before.tasks,
                None => now == last,
            };
            if is_calm && now.children == 0 {
                return now;
            }
            last = now;
        }
    };
    let calm = timeout(DEADLINE, calm).await;
    calm.unwrap_or_else(|_| panic!("held before: {expected:?}; after: {:?}", Held::now()))
}

/// Processes by parent and arguments, the dead that nobody took leave of among them.
fn processes(is_meant: impl Fn(u32, &str) -> bool) -> usize {
    let folders = fs::read_dir("/proc").unwrap().flatten().map(|folder| folder.path());
    let meant = folders.filter(|folder| {
        let Ok(stat) = fs::read_to_string(folder.join("stat")) else { return false };
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        let arguments = fs::read(folder.join("cmdline")).unwrap_or_default();
        parent.is_some_and(|parent| is_meant(parent, &String::from_utf8_lossy(&arguments)))
    });
    meant.count()
}

/// Targets of all kinds.
struct Servers {
    http: SocketAddr,
    h2: SocketAddr,
    silent: SocketAddr,
    closed: SocketAddr,
    udp: SocketAddr,
    silent_udp: SocketAddr,
    deaf_udp: SocketAddr,
    _held: (socket2::Socket, UdpSocket, UdpSocket),
}

impl Servers {
    async fn start(folder: &Path) -> Servers {
        let here = "127.0.0.1:0";
        let (http, h2) = (TcpListener::bind(here).await.unwrap(), TcpListener::bind(here).await.unwrap());
        let (silent, udp) = (TcpListener::bind(here).await.unwrap(), UdpSocket::bind(here).await.unwrap());
        let (silent_udp, deaf_udp) =
            (UdpSocket::bind(here).await.unwrap(), UdpSocket::bind(here).await.unwrap());
        // It hears its peer alone; others are refused.
        deaf_udp.connect(silent_udp.local_addr().unwrap()).await.unwrap();
        let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        closed.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let servers = Servers {
            http: http.local_addr().unwrap(),
            h2: h2.local_addr().unwrap(),
            silent: silent.local_addr().unwrap(),
            closed: closed.local_addr().unwrap().as_socket().unwrap(),
            udp: udp.local_addr().unwrap(),
            silent_udp: silent_udp.local_addr().unwrap(),
            deaf_udp: deaf_udp.local_addr().unwrap(),
            _held: (closed, silent_udp, deaf_udp),
        };
        let docker = UnixListener::bind(folder.join("docker.sock")).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = docker.accept().await {
                tokio::spawn(be_docker(stream));
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = http.accept().await {
                tokio::spawn(be_http(stream));
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = h2.accept().await {
                tokio::spawn(be_h2(stream));
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = silent.accept().await {
                tokio::spawn(async move { stream.read_to_end(&mut vec![]).await });
            }
        });
        tokio::spawn(async move {
            while let Ok((_, from)) = udp.recv_from(&mut [0; 1]).await {
                let _gone = udp.send_to(&[], from).await;
            }
        });
        servers
    }

    /// The first letter of an id is the status that is expected.
    fn definitions(&self, word: &str, of_each: usize) -> Vec<Definition> {
        let Servers { http, h2, silent, closed, udp, silent_udp, deaf_udp, .. } = self;
        let target = |address: &SocketAddr| Some(address.to_string());
        let url = |address: &SocketAddr| Some(format!("http://{address}/"));
        let program = |program: &str| Some(["/bin/sh", "-c", program].map(String::from).to_vec());
        let container = || Some("web".to_string());
        let none = CheckSpec::default;
        let hangs = || CheckSpec { timeout: span(200), ..CheckSpec::default() };
        let specs = [
            ("p", CheckSpec { http: url(http), ..none() }),
            ("c", CheckSpec { http: url(silent), ..hangs() }),
            ("c", CheckSpec { http: url(closed), ..none() }),
            ("p", CheckSpec { tcp: target(http), ..none() }),
            ("c", CheckSpec { tcp: target(silent), tcp_use_tls: Some(true), ..hangs() }),
            ("p", CheckSpec { udp: target(udp), ..none() }),
            ("p", CheckSpec { udp: target(silent_udp), ..hangs() }),
            ("c", CheckSpec { udp: target(deaf_udp), ..none() }),
            ("p", CheckSpec { grpc: target(h2), ..none() }),
            ("c", CheckSpec { grpc: target(silent), ..hangs() }),
            ("p", CheckSpec { h2ping: target(h2), h2ping_use_tls: Some(false), ..none() }),
            ("c", CheckSpec { h2ping: target(silent), ..hangs() }),
            ("p", CheckSpec { docker_container_id: container(), args: program("up"), ..none() }),
            ("c", CheckSpec { docker_container_id: container(), args: program("hang"), ..hangs() }),
            ("p", CheckSpec { args: program("exit 0"), ..none() }),
            ("c", CheckSpec { args: program(&format!("sleep {word} & wait")), ..hangs() }),
            ("p", CheckSpec { os_service: Some("web".into()), ..none() }),
            ("c", CheckSpec { alias_service: Some("x".into()), ..none() }),
            ("c", CheckSpec { ttl: span(3_600_000), ..none() }),
        ];
        let each = specs.into_iter().enumerate().flat_map(|(kind, (status, spec))| {
            (0..of_each).map(move |at| (format!("{status}-{kind}-{at}"), spec.clone()))
        });
        let built = each.map(|(id, spec)| CheckSpec {
            id: Some(id),
            interval: span(1000).filter(|_| spec.ttl.is_none()),
            timeout: spec.timeout.or(span(20_000)),
            ..spec
        });
        built.map(|spec| spec.build().unwrap()).collect()
    }
}

fn span(millis: i64) -> Option<Span> {
    Some(Span { nanos: millis * 1_000_000, text: format!("{millis}ms") })
}

async fn be_http(mut stream: TcpStream) {
    if stream.read(&mut [0; 1024]).await.is_ok_and(|length| length > 0) {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine").await;
    }
}

async fn be_h2(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let Ok(mut body) = respond.send_response(Response::new(()), false) else { return };
        let _gone = body.send_data(Bytes::from_static(b"\0\0\0\0\x02\x08\x01"), false);
        let ok = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
        let _gone = body.send_trailers(HeaderMap::from_iter(ok));
    }
}

async fn be_docker(mut stream: UnixStream) {
    let mut bytes = [0; 1024];
    let length = stream.read(&mut bytes).await.unwrap_or(0);
    let request = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let json = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let answer = match request.split(' ').nth(1) {
        Some("/containers/web/exec") if request.contains("hang") => json(r#"{"Id":"hang"}"#),
        Some("/containers/web/exec") => json(r#"{"Id":"e"}"#),
        Some("/exec/e/start") => "HTTP/1.1 200 OK\r\n\r\n\x01\0\0\0\0\0\0\x04fine".into(),
        Some("/exec/e/json") => json(r#"{"Running":false,"ExitCode":0}"#),
        _ => {
            let _gone = stream.read_to_end(&mut vec![]).await;
            return;
        }
    };
    let _gone = stream.write_all(answer.as_bytes()).await;
}

/// A catalog without anyone to follow.
struct Nothing;

impl Subscribe for Nothing {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::default()
    }

    fn subscribe(&self, _: Vec<Topic>) -> Subscription {
        Box::pin(std::future::pending())
    }
}
