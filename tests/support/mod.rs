//! A real agent in a process of its own, on a loopback address of its own, stopped and cleaned away with its test.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};

/// Whatever a test waits for comes sooner, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

pub struct Agent {
    child: Child,
    pub address: Ipv4Addr,
    log: Arc<Mutex<String>>,
    /// Where its log goes, when it is not piped here.
    log_file: Option<PathBuf>,
    pub folder: PathBuf,
}

/// A loopback address that no other test uses at this time, so that every agent has its usual ports.
pub fn fresh_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let pid = std::process::id();
    let [low, high] = NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    Ipv4Addr::new(127, 16 + (pid >> 8) as u8 % 200, pid as u8, 2 + (low ^ high) % 250)
}

/// A folder of the test's own, gone afterwards.
pub fn fresh_folder() -> PathBuf {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let name = format!("lictor-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

impl Agent {
    /// Starts `lictor agent` with these arguments and waits until it says that it runs.
    pub fn start(arguments: &[&str]) -> Agent {
        Agent::start_with(arguments, &[])
    }

    /// As `start`, with files of a config directory.
    pub fn start_with(arguments: &[&str], files: &[(&str, &str)]) -> Agent {
        let agent = Agent::spawn(arguments, files);
        agent.wait_for_log("agent running!");
        agent
    }

    pub fn spawn(arguments: &[&str], files: &[(&str, &str)]) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lictor"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Agent::launch(command, fresh_address(), arguments, files)
    }

    /// Starts an agent by a command that takes its arguments; what is piped of its output is its log.
    pub fn launch(
        mut command: Command,
        address: Ipv4Addr,
        arguments: &[&str],
        files: &[(&str, &str)],
    ) -> Agent {
        let folder = fresh_folder();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        let mut child = command
            .args(["agent", &format!("-client={address}"), &format!("-bind={address}"), "-node=test-1"])
            .arg(format!("-config-dir={}", folder.display()))
            .args(arguments)
            .spawn()
            .expect("the binary under test starts");
        let log = Arc::new(Mutex::new(String::new()));
        if let Some(out) = child.stdout.take() {
            follow(out, log.clone());
        }
        if let Some(err) = child.stderr.take() {
            follow(err, log.clone());
        }
        Agent { child, address, log, log_file: None, folder }
    }

    pub fn read_log_from(&mut self, file: PathBuf) {
        self.log_file = Some(file);
    }

    pub fn log(&self) -> String {
        match &self.log_file {
            Some(file) => fs::read_to_string(file).unwrap_or_default(),
            None => self.log.lock().unwrap().clone(),
        }
    }

    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), || self.log().contains(text).then_some(()), || self.log());
    }

    /// Waits for the process to end, and gives its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        let log = self.log.clone();
        let ended = || self.child.try_wait().unwrap();
        wait_for("the agent to end", ended, || log.lock().unwrap().clone()).code()
    }

    /// Whether it runs, or has ended; `None` while neither is known.
    pub fn started(&mut self) -> Option<bool> {
        if self.log().contains("agent running!") {
            return Some(true);
        }
        self.child.try_wait().unwrap().map(|_| false)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    pub fn dns(&self) -> SocketAddr {
        (self.address, 8600).into()
    }

    pub fn http(&self) -> SocketAddr {
        (self.address, 8500).into()
    }

    /// The answers to a question, as sorted lines without owner and TTL: `SRV 1 1 80 a.node.dc1.consul.`
    pub fn answers(&self, name: &str, kind: RecordType) -> Vec<String> {
        let message = ask(self.dns(), name, kind);
        let mut lines: Vec<String> = message
            .answers
            .iter()
            .map(|record| format!("{} {}", record.record_type(), record.data))
            .collect();
        lines.sort();
        lines
    }

    /// Asks until the answers are these.
    pub fn wait_for_answers(&self, name: &str, kind: RecordType, expected: &[&str]) {
        let asked = || Some(self.answers(name, kind)).filter(|answers| answers == expected);
        wait_for(
            &format!("{name} {kind} to be {expected:?}"),
            || asked().map(drop),
            || format!("{:?}\n{}", self.answers(name, kind), self.log()),
        );
    }

    /// Status and body of an HTTP request.
    pub fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        request(self.http(), method, path, body)
    }

    /// As `request`, of what is no text: asked so that the answer ends with its connection.
    pub fn request_bytes(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.http()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        let end = reply.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer comes") + 4;
        let body = reply.split_off(end);
        let head = String::from_utf8_lossy(&reply);
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), body)
    }

    pub fn get(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.request("GET", path, "");
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("GET {path}: {error}: {body}"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
        let _best_effort = fs::remove_dir_all(&self.folder);
    }
}

pub fn ask_tcp(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let packet = query(name, kind).to_vec().unwrap();
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(&[&(packet.len() as u16).to_be_bytes()[..], &packet].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).unwrap();
    Message::from_vec(&reply).unwrap()
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

pub fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    ask_udp(server, query(name, kind))
}

/// As most resolvers do.
pub fn ask_with_edns(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let mut query = query(name, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    query.set_edns(edns);
    ask_udp(server, query)
}

fn ask_udp(server: SocketAddr, query: Message) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(server).unwrap();
    socket.send(&query.to_vec().unwrap()).unwrap();
    let mut packet = vec![0; 65535];
    let length = socket.recv(&mut packet).unwrap();
    Message::from_vec(&packet[..length]).unwrap()
}

pub fn request(server: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    try_request(server, method, path, body).unwrap()
}

/// As `request`, of a server that may die meanwhile: status 0 where no answer came.
pub fn try_request(server: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let length = body.len();
    // Whoever is refused at its beginning is not read to its end.
    let sent = write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    if reply.is_empty() {
        sent?;
    }
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunk(body) } else { body.to_string() }))
}

/// Waits for a condition; where it does not come, fails with what `state` tells.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>, state: impl Fn() -> String) -> T {
    for _ in 0..DEADLINE.as_millis() / PAUSE.as_millis() {
        if let Some(value) = condition() {
            return value;
        }
        thread::park_timeout(PAUSE);
    }
    panic!("waited in vain for {what}; now: {}", state());
}

/// An agent of this name with `-dev`, which need not have started yet.
pub fn spawn(address: Ipv4Addr, name: &str, arguments: &[&str]) -> Agent {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lictor"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = format!("-node={name}");
    let arguments: Vec<&str> = ["-dev", &name].into_iter().chain(arguments.iter().copied()).collect();
    Agent::launch(command, address, &arguments, &[])
}

/// What a command says to an agent, and its exit code.
pub fn type_words(agent: &Agent, words: &[&str]) -> (String, String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lictor"));
    command.args(words).env("CONSUL_HTTP_ADDR", agent.http().to_string()).env_remove("CONSUL_HTTP_TOKEN");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = ended(child, DEADLINE);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

/// How a program ends, and what it said; one that has not ended within `limit` is killed, and is a fault.
pub fn ended(mut child: Child, limit: Duration) -> Output {
    let said: [Arc<Mutex<Vec<u8>>>; 2] = Default::default();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as _),
        child.stderr.take().map(|stream| Box::new(stream) as _),
    ];
    let read = |stream: Option<Box<dyn Read + Send>>, said: &Arc<Mutex<Vec<u8>>>| {
        let said = said.clone();
        thread::spawn(move || {
            let (Some(mut stream), mut piece) = (stream, [0; 4096]) else { return };
            while let Some(length) = stream.read(&mut piece).ok().filter(|length| *length > 0) {
                said.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        })
    };
    let [out, err] = streams;
    let readers = [read(out, &said[0]), read(err, &said[1])];
    let mut pauses = limit.as_millis() / PAUSE.as_millis();
    let status = loop {
        // Its end is that of its streams, too: what it started and left behind may hold them.
        let all_read = readers.iter().all(thread::JoinHandle::is_finished);
        match child.try_wait().unwrap() {
            Some(status) if all_read => break status,
            _ if pauses == 0 => {
                child.kill().unwrap();
                child.wait().unwrap();
                let [out, err] =
                    said.map(|bytes| String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned());
                panic!("waited in vain for its end; it said: {out}{err}");
            }
            _ => thread::park_timeout(PAUSE),
        }
        pauses -= 1;
    };
    let [stdout, stderr] = said.map(|bytes| bytes.lock().unwrap().clone());
    Output { status, stdout, stderr }
}

pub fn examples() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"))
}

fn unchunk(body: &str) -> String {
    let mut whole = String::new();
    let mut rest = body;
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap_or(0);
        if length == 0 {
            break;
        }
        whole.push_str(&after[..length]);
        rest = &after[length + 2..];
    }
    whole
}

/// Keeps what is read, line by line. Who waits for the thread has all of it.
pub fn follow(out: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    })
}
