//! The command line against a real agent: what is typed, what comes out of which stream, and the exit code, since scripts
//! look for all three. The cases are data under `tests/cli/`; `LICTOR_EXPECT=write` rewrites what is expected, for the
//! diff to be read. Here is what a script cannot say: commands that wait, and are ended.

#[path = "cli/script.rs"]
mod script;
mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixListener,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::Agent;

const BINARY: &str = env!("CARGO_BIN_EXE_lictor");

macro_rules! scripts {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            script::run(concat!(stringify!($name), ".txt"));
        }
    )*};
}

scripts! { catalog conventions kv maintenance operator services snapshot waiting }

#[test]
fn keyring() {
    let agent = script::start(&["-encrypt=AQEBAQEBAQEBAQEBAQEBAQ=="]);
    script::run_by("keyring.txt", &agent);
    let of_pool = |wan: bool| {
        serde_json::json!({
            "WAN": wan, "Datacenter": "dc1", "Segment": "",
            "Keys": {"AgICAgICAgICAgICAgICAgICAgICAgIC": 1}, "PrimaryKeys": {"AgICAgICAgICAgICAgICAgICAgICAgIC": 1},
            "NumNodes": 1,
        })
    };
    assert_eq!(agent.get("/v1/operator/keyring"), serde_json::json!([of_pool(true), of_pool(false)]));
    assert_eq!(agent.get("/v1/operator/keyring?local-only"), serde_json::json!([of_pool(false)]));
}

#[test]
fn keygen_prints_a_key() {
    let key = || {
        let output = Command::new(BINARY).arg("keygen").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let (one, other) = (key(), key());
    assert_eq!(base64::Engine::decode(&base64::prelude::BASE64_STANDARD, one.trim_end()).unwrap().len(), 32);
    assert_ne!(one, other);
}

/// A command of ours that finds the agent.
pub fn lictor(agent: &Agent, words: &[String]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(words).env("CONSUL_HTTP_ADDR", agent.http().to_string()).env_remove("CONSUL_HTTP_TOKEN");
    command
}

/// A command that goes on until it is ended, and what it has said so far.
struct Running {
    child: std::process::Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: [thread::JoinHandle<()>; 2],
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (Arc::default(), Arc::default());
        let readers = [
            support::follow(child.stdout.take().unwrap(), Arc::clone(&out)),
            support::follow(child.stderr.take().unwrap(), Arc::clone(&err)),
        ];
        Running { child, out, err, readers }
    }

    fn of(agent: &Agent, words: &[&str]) -> Running {
        Running::start(lictor(agent, &words.iter().map(|word| word.to_string()).collect::<Vec<_>>()))
    }

    fn said(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    fn complained(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    fn wait_for(&self, text: &str) {
        let state = || format!("{}\n{}", self.said(), self.complained());
        support::wait_for(&format!("{text:?}"), || state().contains(text).then_some(()), state);
    }

    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
    }

    /// Exit code and both streams, at its end.
    fn ended(mut self) -> (Option<i32>, String, String) {
        let code = self.code();
        (code, self.said(), self.complained())
    }

    fn code(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let status = support::wait_for("the command to end", || child.try_wait().unwrap(), String::new);
        let all_read = || self.readers.iter().all(thread::JoinHandle::is_finished).then_some(());
        support::wait_for("the end of its streams", all_read, String::new);
        status.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Who comes next, while there is time.
fn accepted(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let (stream, _) = support::wait_for("a question", || listener.accept().ok(), String::new);
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    stream
}

fn register(agent: &Agent, name: &str) {
    let (status, answer) =
        agent.request("PUT", "/v1/agent/service/register", &format!(r#"{{"Name":"{name}"}}"#));
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn a_watch_tells_of_each_change_until_it_is_interrupted() {
    let agent = Agent::start(&["-dev"]);
    let words = ["watch", "-type=services", "cat; test $CONSUL_INDEX -gt 0 && echo told"];
    let mut watch = Running::of(&agent, &words);
    watch.wait_for("{\"consul\":[]}\ntold");
    register(&agent, "web");
    watch.wait_for("{\"consul\":[],\"web\":[]}\ntold");
    // What it is given is not the same again, though the index has moved.
    register(&agent, "api");
    watch.wait_for("\"web\":[]}\ntold\n{\"api\":[],\"consul\":[],\"web\":[]}\ntold");
    watch.interrupt();
    assert_eq!((watch.code(), watch.complained()), (Some(0), String::new()));
    assert_eq!(watch.said().matches("told").count(), 3, "{}", watch.said());
}

#[test]
fn an_interrupt_ends_the_program_of_a_watch_too() {
    let agent = Agent::start(&["-dev"]);
    let mut watch = Running::of(&agent, &["watch", "-type=nodes", "echo started $$; sleep 1000"]);
    watch.wait_for("started");
    let program = watch.said().trim().trim_start_matches("started ").parse().unwrap();
    watch.interrupt();
    assert_eq!(watch.code(), Some(0));
    assert!(kill(Pid::from_raw(program), None).is_err(), "the program still runs");
}

/// What the client owes to an index: one that fell is begun anew, none is below 1; and errors are borne.
#[test]
fn a_watch_bears_errors_and_indexes_that_fall() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let answers = [
        ("200 OK", "1", "{}"),
        ("200 OK", "7", r#"["a"]"#),
        ("500 Internal Server Error", "1", "No cluster leader"),
        ("200 OK", "5", r#"["b"]"#),
        ("200 OK", "0", r#"["c"]"#),
        ("200 OK", "3", r#"["d"]"#),
    ];
    let asked = thread::spawn(move || {
        let each = answers.map(|(status, index, body)| {
            let mut stream = accepted(&listener);
            let mut head = String::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(line)) = lines.next().filter(|line| line.as_ref().is_ok_and(|line| !line.is_empty())) {
                head.push_str(&format!("{line}\n"));
            }
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nX-Consul-Index: {index}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                .unwrap();
            for shown in ["x-consul-token: secret\n", "authorization: Basic YTpi\n"] {
                assert!(head.contains(shown), "{head}");
            }
            head.lines().next().unwrap_or_default().to_string()
        });
        // Whoever asks once more waits until the test is over; whether it comes to that before the interrupt is not ours to say.
        (each, listener)
    });
    let mut command = Command::new(BINARY);
    command.args(["watch", "-type=nodes", "cat; echo $CONSUL_INDEX"]);
    command.env("CONSUL_HTTP_ADDR", address.to_string());
    command.env("CONSUL_HTTP_TOKEN", "secret").env("CONSUL_HTTP_AUTH", "a:b");
    let mut watch = Running::start(command);
    watch.wait_for("[\"d\"]\n3");
    watch.interrupt();
    assert_eq!(watch.code(), Some(0));
    assert_eq!(watch.said(), "[\"a\"]\n7\n[\"b\"]\n5\n[\"c\"]\n1\n[\"d\"]\n3\n");
    assert_eq!(
        watch.complained(),
        "[ERR] watch: Unexpected response code: 500 (No cluster leader); asked again in 5s\n"
    );
    let (asked, _held) = asked.join().unwrap();
    let line = |query: &str| format!("GET /v1/catalog/nodes{query} HTTP/1.1");
    let expected = [
        "GET /v1/agent/self HTTP/1.1".into(),
        line(""),
        line("?index=7&wait=300000ms"),
        line("?index=7&wait=300000ms"),
        line(""),
        line("?index=1&wait=300000ms"),
    ];
    assert_eq!(asked, expected);
}

/// An agent that knows others is not needed to tell of them.
#[test]
fn members_are_picked_by_their_status_as_json_too() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let told = thread::spawn(move || {
        let mut stream = accepted(&listener);
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        let member = |name, status| {
            format!(r#"{{"Name":"{name}","Addr":"10.0.0.1","Port":1,"Tags":{{}},"Status":{status}}}"#)
        };
        let body = format!("[{},{}]", member("a", 1), member("b", 4));
        let length = body.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
            .unwrap();
    });
    let mut command = Command::new(BINARY);
    command.args(["members", "-status=failed", "-format=json"]).env("CONSUL_HTTP_ADDR", address.to_string());
    let (code, said, complained) = Running::start(command).ended();
    told.join().unwrap();
    let members: Vec<serde_json::Value> = serde_json::from_str(&said).expect(&complained);
    let names: Vec<_> = members.iter().map(|member| member["Name"].as_str()).collect();
    assert_eq!((code, names), (Some(0), vec![Some("b")]));
}

#[test]
fn the_log_is_followed_until_an_interrupt_or_the_end_of_the_agent() {
    let agent = Agent::start(&["-dev"]);
    // Whether it listens yet nobody tells, so that something is told until it has heard.
    let hears = |monitor: &Running, text: &str| {
        let heard = || {
            assert_eq!(agent.request("PUT", "/v1/agent/reload", "").0, 200);
            monitor.said().contains(text).then_some(())
        };
        support::wait_for(text, heard, || format!("{}\n{}", monitor.said(), monitor.complained()));
    };
    let mut monitor = Running::of(&agent, &["monitor"]);
    hears(&monitor, "[INFO]  agent: configuration reloaded\n");
    monitor.interrupt();
    assert_eq!((monitor.code(), monitor.complained()), (Some(0), String::new()));
    let mut monitor = Running::of(&agent, &["monitor", "-log-level=debug", "-log-json"]);
    hears(&monitor, "\"@message\":\"configuration reloaded\"");
    drop(agent);
    assert_eq!(monitor.code(), Some(1));
    assert_ne!(monitor.complained(), "");
}

#[test]
fn leave_ends_the_agent() {
    let mut agent = Agent::start(&["-dev"]);
    let output = lictor(&agent, &["leave".to_string()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Graceful leave complete\n");
    assert_eq!((output.status.code(), agent.exit_code()), (Some(0), Some(0)));
}

#[test]
fn one_holds_a_lock_and_the_other_waits() {
    let agent = Agent::start(&["-dev"]);
    let mut first = Running::of(&agent, &["lock", "p", "echo first; sleep 1000"]);
    first.wait_for("first");
    let held = agent.get("/v1/kv/p/.lock");
    assert_eq!(held[0]["Flags"].as_u64(), Some(3_304_740_253_564_472_344));
    let mut second = Running::of(&agent, &["lock", "-verbose", "p", "echo second"]);
    second.wait_for("Attempting lock acquisition");
    let waited = Running::of(&agent, &["lock", "-timeout=100ms", "p", "echo never"]).ended();
    assert_eq!(
        waited,
        (Some(1), String::new(), "Shutdown triggered or timeout during lock acquisition\n".into())
    );
    assert!(!second.said().contains("second"));
    first.interrupt();
    assert_eq!(first.code(), Some(0));
    second.wait_for("second");
    assert_eq!(second.code(), Some(0));
    assert!(
        second.said().ends_with("Child terminated, releasing lock\nCleanup succeeded\n"),
        "{}",
        second.said()
    );
    assert_eq!(agent.get("/v1/kv/?keys"), serde_json::json!([]));
    assert_eq!(agent.get("/v1/session/list"), serde_json::json!([]));
}

/// A program that does not end when it is asked to is made to; and what is left is nobody's.
#[test]
fn a_lock_that_is_lost_ends_the_program() {
    let agent = Agent::start(&["-dev"]);
    for n in ["-n=1", "-n=2"] {
        let stubborn = "trap 'echo asked' TERM; echo started $$; while true; do sleep 0.1; done";
        let mut lock = Running::of(&agent, &["lock", n, "p", stubborn]);
        lock.wait_for("started");
        let program = lock.said().trim().trim_start_matches("started ").parse().unwrap();
        let sessions = agent.get("/v1/session/list");
        let session = sessions[0]["ID"].as_str().unwrap();
        assert_eq!(agent.request("PUT", &format!("/v1/session/destroy/{session}"), "").0, 200);
        lock.wait_for("Lock lost, killing child");
        lock.wait_for("asked");
        assert_eq!(lock.code(), Some(0));
        assert!(kill(Pid::from_raw(program), None).is_err(), "the program still runs");
        assert_eq!(agent.get("/v1/kv/?keys"), serde_json::json!([]), "{n}");
    }
}

/// Who cannot tell any more whether the lock is held must not go on as if it were.
#[test]
fn a_lock_ends_with_the_agent() {
    let agent = Agent::start(&["-dev"]);
    let mut lock = Running::of(&agent, &["lock", "-monitor-retry=0", "p", "echo started; sleep 1000"]);
    lock.wait_for("started");
    drop(agent);
    assert_eq!(lock.code(), Some(0));
    assert!(lock.complained().starts_with("Lock lost, killing child\n"), "{}", lock.complained());
}

/// What it holds ends by itself, so nobody waits until an agent that hangs takes it back.
#[test]
fn an_agent_that_hangs_does_not_hold_up_the_end_of_a_lock() {
    let agent = Agent::start(&["-dev"]);
    let mut lock = Running::of(&agent, &["lock", "p", "echo started; sleep 1000"]);
    lock.wait_for("started");
    agent.signal("STOP");
    lock.interrupt();
    lock.wait_for("Error running handler: it was made to end");
    lock.interrupt();
    assert_eq!(lock.code(), Some(0));
    let complained = lock.complained();
    assert!(complained.contains("the agent does not answer; the lock ends with its session"), "{complained}");
}

#[test]
fn as_many_hold_a_lock_as_may() {
    let agent = Agent::start(&["-dev"]);
    let hold = || Running::of(&agent, &["lock", "-n=2", "p", "echo held; sleep 1000"]);
    let (mut first, mut second) = (hold(), hold());
    first.wait_for("held");
    second.wait_for("held");
    let mut third = hold();
    let contends = || (agent.get("/v1/session/list").as_array().unwrap().len() == 3).then_some(());
    support::wait_for("the third to contend", contends, String::new);
    assert_eq!(third.said(), "");
    first.interrupt();
    assert_eq!(first.code(), Some(0));
    third.wait_for("held");
    second.interrupt();
    third.interrupt();
    assert_eq!((second.code(), third.code()), (Some(0), Some(0)));
    assert_eq!(agent.get("/v1/kv/?keys"), serde_json::json!([]));
}

#[test]
fn shells_are_told_every_command() {
    let script = |shell: &str| {
        let output = Command::new(BINARY).args(["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{shell}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = script(shell);
        for word in ["catalog", "datacenters", "list-peers", "config-dir", "node-meta"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let complete = |words: &str| {
        let ask = format!(
            "{}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _lictor; echo \"${{COMPREPLY[*]}}\"",
            script("bash")
        );
        let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    };
    assert_eq!(complete("lictor cat"), "catalog");
    assert_eq!(complete("lictor catalog ''"), "datacenters nodes services");
    assert_eq!(complete("lictor catalog nodes -det"), "-detailed");
    assert_eq!(complete("lictor operator raft l"), "list-peers");
    assert_eq!(complete("lictor kv get -stale -sep"), "-separator");
    assert_eq!(complete("lictor kv get a"), "");
}

#[test]
fn an_agent_is_reached_by_a_socket_of_the_file_system() {
    let folder = support::fresh_folder();
    let path = folder.join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = thread::spawn(move || {
        listener.set_nonblocking(true).unwrap();
        let mut stream = support::wait_for("a question", || listener.accept().ok(), String::new).0;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        let mut head = [0; 1024];
        let length = stream.read(&mut head).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n[\"dc9\"]")
            .unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    let address = format!("-http-addr=unix://{}", path.display());
    let output = Command::new(BINARY).args(["catalog", "datacenters", &address]).output().unwrap();
    fs::remove_dir_all(folder).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "dc9\n");
    assert!(asked.join().unwrap().starts_with("GET /v1/catalog/datacenters HTTP/1.1\r\n"));
}
