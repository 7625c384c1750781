//! The log of an agent, followed over HTTP while it is written.

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use support::{Agent, DEADLINE, wait_for};

/// Somebody who follows; the head of the answer is read already.
struct Follower(BufReader<TcpStream>);

impl Follower {
    fn start(agent: &Agent, path: &str) -> Follower {
        let mut stream = TcpStream::connect(agent.http()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut follower = Follower(BufReader::new(stream));
        let mut head = follower.line();
        assert!(head.contains(" 200 "), "{head}");
        while head != "\r\n" {
            head = follower.line();
        }
        follower
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// Each part is a line of the log, between the marks of its length.
    fn read_until(&mut self, wanted: &str) -> String {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "it ended before {wanted:?}");
            if line.contains(wanted) {
                return line;
            }
        }
    }
}

/// Turns a TTL check, which an agent says at debug.
fn turn(agent: &Agent, to: &str) {
    let (status, text) = agent.request("PUT", &format!("/v1/agent/check/{to}/c"), "");
    assert_eq!(status, 200, "{text}");
}

fn start() -> Agent {
    let check = r#"check { id = "c" name = "c" ttl = "1h" }"#;
    Agent::start_with(&["-dev", "-log-level=info"], &[("c.hcl", check)])
}

/// How many connections to its HTTP port the agent holds.
fn connections(agent: &Agent) -> usize {
    let folder = format!("/proc/{}/fd", agent.id());
    let targets =
        std::fs::read_dir(folder).unwrap().flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn a_follower_hears_more_than_the_log_says() {
    let agent = start();
    let mut curious = Follower::start(&agent, "/v1/agent/monitor?loglevel=debug");
    let mut json = Follower::start(&agent, "/v1/agent/monitor?loglevel=DEBUG&logjson");
    let mut wary = Follower::start(&agent, "/v1/agent/monitor?loglevel=warn");
    turn(&agent, "pass");
    let line = curious.read_until("Check status updated");
    assert!(line.ends_with("Z [DEBUG] agent: Check status updated: check=c status=passing\n"), "{line}");
    let line = json.read_until("Check status updated");
    let line: serde_json::Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(
        (&line["@level"], &line["check"], &line["status"]),
        (&"debug".into(), &"c".into(), &"passing".into())
    );
    assert!(!agent.log().contains("[DEBUG]"), "{}", agent.log());
    // A key that cannot change is warned of.
    std::fs::write(agent.folder.join("d.hcl"), "log_json = true").unwrap();
    assert_eq!(agent.request("PUT", "/v1/agent/reload", "").0, 200);
    let first = loop {
        let line = wary.line();
        if line.contains('[') {
            break line;
        }
    };
    assert!(first.contains("[WARN]  agent: this key has changed"), "nothing below a warning: {first}");
}

#[test]
#[cfg(target_os = "linux")]
fn followers_leave_and_an_agent_that_stops_ends_them() {
    let mut agent = start();
    let before = connections(&agent);
    let followers: Vec<Follower> = (0..32).map(|_| Follower::start(&agent, "/v1/agent/monitor")).collect();
    let (status, text) = agent.request("GET", "/v1/agent/monitor", "");
    assert_eq!((status, &*text), (429, "Too many follow the log of this agent already, try again later"));
    drop(followers);
    let left = || connections(&agent) == before;
    wait_for("the connections to end", || left().then_some(()), || connections(&agent).to_string());
    let mut last = Follower::start(&agent, "/v1/agent/monitor");
    let mut figures = Follower::start(&agent, "/v1/agent/metrics/stream");
    agent.signal("TERM");
    let mut rest = String::new();
    last.0.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("agent: Caught: signal=terminated") && rest.ends_with("0\r\n\r\n"), "{rest}");
    figures.0.read_to_string(&mut rest).unwrap();
    assert_eq!(agent.exit_code(), Some(1));
}

#[test]
fn figures_come_as_their_interval_ends() {
    let agent = start();
    let mut figures = Follower::start(&agent, "/v1/agent/metrics/stream");
    let mut stamps = Vec::new();
    for _ in 0..2 {
        let line = figures.read_until("Timestamp");
        let interval: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(interval["Gauges"].as_array().is_some_and(|gauges| !gauges.is_empty()), "{line}");
        stamps.push(interval["Timestamp"].as_str().unwrap().to_string());
    }
    assert!(stamps[0] < stamps[1], "{stamps:?}");
}
