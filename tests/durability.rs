//! Servers that keep their state: real processes on real files, killed, filled up, and damaged.

#![cfg(unix)]

mod support;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use hickory_proto::rr::RecordType;
use support::{Agent, fresh_address, fresh_folder, request};

/// A data directory of the test's own, gone afterwards.
struct Data(PathBuf);

impl Data {
    fn new() -> Self {
        Data(fresh_folder())
    }

    /// A server that keeps its state here, when it runs.
    fn start(&self, more: &[&str]) -> Agent {
        let agent = self.spawn(more);
        agent.wait_for_log("agent running!");
        agent
    }

    fn spawn(&self, more: &[&str]) -> Agent {
        Agent::spawn(&[&self.arguments()[..], more].concat(), &[])
    }

    fn arguments(&self) -> [&str; 3] {
        ["-server", "-bootstrap-expect=1", self.flag()]
    }

    fn flag(&self) -> &str {
        Box::leak(format!("-data-dir={}", self.0.display()).into_boxed_str())
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

fn body(node: &str, port: u16) -> String {
    let check =
        format!(r#"{{"Name":"c","CheckID":"c","ServiceID":"web","Status":"passing","Output":"{port}"}}"#);
    format!(
        r#"{{"Node":"{node}","Address":"10.0.0.1","Service":{{"Service":"web","Port":{port}}},"Check":{check}}}"#
    )
}

fn register(agent: &Agent, node: &str, port: u16) -> (u16, String) {
    agent.request("PUT", "/v1/catalog/register", &body(node, port))
}

#[test]
fn what_was_registered_is_answered_after_a_restart() {
    let data = Data::new();
    let mut agent = data.start(&[]);
    assert_eq!(register(&agent, "ash", 80).0, 200);
    let id = agent.get("/v1/agent/self")["Config"]["NodeID"].clone();
    agent.signal("TERM");
    assert_eq!(agent.exit_code(), Some(1), "a server that does not leave");
    drop(agent);
    let agent = data.start(&[]);
    assert_eq!(agent.answers("web.service.consul.", RecordType::SRV), ["SRV 1 1 80 ash.node.dc1.consul."]);
    assert_eq!(agent.get("/v1/agent/self")["Config"]["NodeID"], id);
    assert_eq!(register(&agent, "ash", 81).0, 200);
    drop(agent);
    // Bootstrapped once is enough.
    let agent = Agent::start(&["-server", data.flag()]);
    assert_eq!(agent.answers("web.service.consul.", RecordType::SRV), ["SRV 1 1 81 ash.node.dc1.consul."]);
}

/// Killed in the middle of writes, round after round: what was acknowledged is there, nothing of it in part.
#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    const WRITERS: u16 = 8;
    let (data, mut random) = (Data::new(), fastrand::Rng::with_seed(3));
    let told: Vec<Mutex<u16>> = (0..WRITERS).map(|_| Mutex::new(0)).collect();
    for _ in 0..8 {
        let agent = data.start(&[]);
        for (writer, told) in told.iter().enumerate() {
            // Each writer counts up; a later one may be there that nobody was told of.
            let (told, path) = (*told.lock().unwrap(), format!("/v1/catalog/node/node-{writer}"));
            let port = agent.get(&path)["Services"]["web"]["Port"].as_u64().unwrap_or(0);
            assert!(port >= u64::from(told), "writer {writer}: {port}, told {told}");
        }
        for entry in agent.get("/v1/health/service/web").as_array().unwrap() {
            let (port, output) = (&entry["Service"]["Port"], &entry["Checks"][0]["Output"]);
            assert_eq!(output.as_str().unwrap(), port.to_string(), "in part: {entry}");
        }
        let (http, stopping) = (agent.http(), AtomicBool::new(false));
        thread::scope(|scope| {
            for (writer, told) in told.iter().enumerate() {
                let stopping = &stopping;
                scope.spawn(move || {
                    while !stopping.load(Ordering::Relaxed) {
                        let next = *told.lock().unwrap() + 1;
                        let body = body(&format!("node-{writer}"), next);
                        let sent =
                            std::panic::catch_unwind(|| request(http, "PUT", "/v1/catalog/register", &body));
                        match sent {
                            Ok((200, _)) => *told.lock().unwrap() = next,
                            _ => return,
                        }
                    }
                });
            }
            let enough = random.u16(20..150);
            let sum = || told.iter().map(|told| *told.lock().unwrap()).sum::<u16>();
            let before = sum();
            support::wait_for("writes", || (sum() >= before + enough).then_some(()), || agent.log());
            drop(agent); // kill -9
            stopping.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn a_disk_without_space_refuses_writes_and_answers_names() {
    let data = Data::new();
    let agent = data.start(&[]);
    assert_eq!(register(&agent, "ash", 80).0, 200);
    drop(agent);
    let agent = data.start(&["-hcl", "lictor { free_bytes_min = 9000000000000000000 }"]);
    let srv = ["SRV 1 1 80 ash.node.dc1.consul."];
    assert_eq!(agent.answers("web.service.consul.", RecordType::SRV), srv);
    let (status, text) = register(&agent, "ash", 81);
    assert_eq!(
        (status, &*text),
        (500, "the disk of the data directory is almost full: nothing is written until there is space again")
    );
    agent.wait_for_log("writes are refused until there is more");
    assert_eq!(agent.answers("web.service.consul.", RecordType::SRV), srv);
    let refused = &agent.get("/v1/agent/self")["Stats"]["raft"]["refused_for_space"];
    assert!(refused.as_str().is_some_and(|count| count.parse::<u64>().unwrap() >= 1), "{refused}");
    drop(agent);
    let agent = data.start(&[]);
    assert_eq!(register(&agent, "ash", 81).0, 200);
}

/// The system stops the log's file from growing: a write fails, the agent says so and ends, and nothing is lost.
#[test]
fn a_write_that_fails_ends_the_agent() {
    let data = Data::new();
    let mut command = Command::new("/bin/sh");
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_lictor")]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut agent = Agent::launch(command, fresh_address(), &data.arguments(), &[]);
    agent.wait_for_log("agent running!");
    let note = "x".repeat(4_000);
    let mut acknowledged = 0u16;
    loop {
        let body = format!(
            r#"{{"Node":"n{acknowledged}","Address":"10.0.0.1","Check":{{"Name":"c","Output":"{note}"}}}}"#
        );
        let http = agent.http();
        let sent = std::panic::catch_unwind(|| request(http, "PUT", "/v1/catalog/register", &body));
        match sent {
            Ok((200, _)) => acknowledged += 1,
            _ => break,
        }
    }
    agent.wait_for_log("the log cannot be written: ");
    assert_eq!(agent.exit_code(), Some(1));
    drop(agent);
    assert!(acknowledged > 10);
    let agent = data.start(&[]);
    let nodes = agent.get("/v1/catalog/nodes");
    let names: Vec<&str> =
        nodes.as_array().unwrap().iter().filter_map(|node| node["Node"].as_str()).collect();
    assert!(
        (0..acknowledged).all(|number| names.contains(&&*format!("n{number}"))),
        "{acknowledged}: {names:?}"
    );
}

/// The disk is gone in the middle of a snapshot, and whoever writes it never comes back: here from a pipe without a reader.
#[test]
fn an_agent_stops_though_its_disk_hangs() {
    let data = Data::new();
    let mut agent = data.start(&[]);
    let snapshots = data.0.join("raft/snapshots");
    let pipes = (0..500).map(|index| snapshots.join(format!("{index:020}-1.tmp")));
    assert!(Command::new("mkfifo").args(pipes).status().unwrap().success());
    let note = "x".repeat(400_000);
    for node in 0..45 {
        let body =
            format!(r#"{{"Node":"n{node}","Address":"10.0.0.1","Check":{{"Name":"c","Output":"{note}"}}}}"#);
        assert_eq!(agent.request("PUT", "/v1/catalog/register", &body).0, 200);
    }
    agent.signal("TERM");
    assert_eq!(agent.exit_code(), Some(1));
}

#[test]
fn a_damaged_log_is_named_and_not_served() {
    let data = Data::new();
    let agent = data.start(&[]);
    assert_eq!(register(&agent, "ash", 80).0, 200);
    drop(agent);
    let path = data.0.join("raft/log.redb");
    let mut bytes = fs::read(&path).unwrap();
    let name = b"10.0.0.1";
    let at =
        bytes.windows(name.len()).position(|window| window == name).expect("the address stands in the log");
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut agent = data.spawn(&[]);
    assert_eq!(agent.exit_code(), Some(1));
    agent.wait_for_log(&format!("{} is damaged: ", path.display()));
}

#[test]
fn a_directory_that_is_not_to_be_had_is_named() {
    let data = Data::new();
    let refused = |more: &[&str], text: &str| {
        let mut agent = Agent::spawn(more, &[]);
        assert_eq!(agent.exit_code(), Some(1));
        agent.wait_for_log(text);
    };
    refused(&["-server", data.flag()], "no datacenter is kept here yet");
    let _holds = data.start(&[]);
    refused(&data.arguments(), "is in use by another agent");
    let consuls = Data::new();
    fs::create_dir(consuls.0.join("raft")).unwrap();
    refused(&consuls.arguments(), "looks like Consul's: it holds ");
}
