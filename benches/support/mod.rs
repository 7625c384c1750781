//! A server in a process of its own, whose CPU and memory are read from outside; and the least of an HTTP client.

#![allow(dead_code, reason = "each bench uses its own part")]

use std::{
    env,
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// A server's process, killed when dropped.
pub struct Served {
    child: Child,
    pub http: SocketAddr,
    folder: PathBuf,
}

impl Served {
    /// An agent that keeps its state, at a port of its own.
    pub fn agent(config: &str) -> Outcome<Served> {
        let folder = env::temp_dir().join(format!("lictor-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = Command::new(env!("CARGO_BIN_EXE_lictor"))
            .args(["agent", "-server", "-bootstrap", "-bind=127.0.0.1", "-node=bench", "-log-level=err"])
            .args([format!("-data-dir={}", folder.display()), format!("-http-port={port}")])
            .args(["-dns-port=-1", &format!("-hcl={config}")])
            .stdout(Stdio::null())
            .spawn()?;
        let served = Served { child, http: (Ipv4Addr::LOCALHOST, port).into(), folder };
        let start = Instant::now();
        while Client::connect(served.http).and_then(|mut client| client.get("/v1/status/leader")).is_err() {
            if start.elapsed() > STARTS_WITHIN {
                return Err("the agent did not start".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(served)
    }

    /// An agent at the usual ports of an address.
    pub fn agent_at(address: Ipv4Addr, arguments: &[&str]) -> Outcome<Served> {
        let folder = env::temp_dir().join(format!("lictor-bench-{}-{address}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let child = Command::new(env!("CARGO_BIN_EXE_lictor"))
            .args(["agent", "-log-level=err", &format!("-bind={address}"), &format!("-client={address}")])
            .args([format!("-data-dir={}", folder.display()), format!("-node=bench-{address}")])
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()?;
        let served = Served { child, http: (address, 8500).into(), folder };
        let start = Instant::now();
        while Client::connect(served.http).and_then(|mut client| client.get("/v1/agent/self")).is_err() {
            if start.elapsed() > STARTS_WITHIN {
                return Err("the agent did not start".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(served)
    }

    /// This very program, with these arguments; it prints where it listens.
    pub fn own(arguments: &[&str]) -> Outcome<Served> {
        let mut child = Command::new(env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        Ok(Served { child, http: line.trim().parse()?, folder: PathBuf::new() })
    }

    /// Of all its threads, user and system.
    pub fn cpu_micros(&self) -> Outcome<f64> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(nanos as f64 / 1e3)
    }

    pub fn rss_mb(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// Registers instances of a service on nodes of their own, by several writers at once.
    pub fn register(&self, service: &str, instances: usize, turn: u16) -> Outcome<()> {
        const WRITERS: usize = 32;
        let http = self.http;
        thread::scope(|scope| {
            let write = |writer: usize| -> Result<(), String> {
                let mut client = Client::connect(http).map_err(|error| error.to_string())?;
                for at in (writer..instances).step_by(WRITERS) {
                    let body = registration(service, at, turn);
                    let told = client.ask("PUT", "/v1/catalog/register", &body);
                    let told = told.map_err(|error| error.to_string())?;
                    if told != b"true" {
                        return Err(String::from_utf8_lossy(&told).into_owned());
                    }
                }
                Ok(())
            };
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
            writers.into_iter().try_for_each(|writer| writer.join().expect("a writer returns"))?;
            Ok(())
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        let _never_was = fs::remove_dir_all(&self.folder);
    }
}

/// About a kilobyte when it is told with its check.
pub fn registration(service: &str, at: usize, turn: u16) -> String {
    let (address, port) = (Ipv4Addr::from(0x0a00_0001 + at as u32), 1_024 + turn);
    format!(
        r#"{{"Node":"node-{service}-{at:05}","Address":"{address}","NodeMeta":{{"rack":"r{}"}},
"Service":{{"Service":"{service}","ID":"{service}-{at}","Port":{port},"Tags":["v1","http"],"Meta":{{"team":"oak"}}}},
"Check":{{"CheckID":"service:{service}-{at}","Name":"Service '{service}' check","ServiceID":"{service}-{at}",
"Status":"passing","Output":"HTTP GET http://{address}:{port}/health: 200 OK"}}}}"#,
        at / 40
    )
}

/// One connection, that stays.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(to: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        Ok(Client(BufReader::with_capacity(256 * 1024, stream)))
    }

    pub fn get(&mut self, path: &str) -> std::io::Result<Vec<u8>> {
        self.ask("GET", path, "")
    }

    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<Vec<u8>> {
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((name, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                let _ = name;
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(body)
    }
}
