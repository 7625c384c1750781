//! What of the HTTP API only a whole agent can show: what it says of itself, events that it hears, leaving.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use serde_json::{Value, json};
use support::{Agent, DEADLINE};

/// An answer with its head.
fn raw(agent: &Agent, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(agent.http()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn index(answer: &str) -> u64 {
    let line = answer
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("x-consul-index: ").map(str::to_string));
    line.expect("an index").parse().unwrap()
}

/// `config-cli.md` §5.1: the sections and keys that `info` prints.
#[test]
fn an_agent_tells_its_figures() {
    let files = [(
        "web.hcl",
        r#"service { name = "web", check { ttl = "10s" } }
        check { id = "disk", name = "disk", args = ["true"], interval = "60s" }"#,
    )];
    let agent = Agent::start_with(&["-dev", "-enable-local-script-checks"], &files);
    let about = agent.get("/v1/agent/self");
    let stats = &about["Stats"];
    let keys = |section: &str| -> Vec<&str> {
        stats[section].as_object().expect(section).keys().map(String::as_str).collect()
    };
    let pool = [
        "coordinate_resets",
        "encrypted",
        "event_queue",
        "event_time",
        "failed",
        "health_score",
        "intent_queue",
        "left",
        "member_time",
        "members",
        "query_queue",
        "query_time",
    ];
    let sections: [(&str, &[&str]); 8] = [
        ("agent", &["check_monitors", "check_ttls", "checks", "services"]),
        ("build", &["prerelease", "revision", "version", "version_metadata"]),
        ("consul", &["acl", "bootstrap", "known_datacenters", "leader", "leader_addr", "server"]),
        (
            "raft",
            &[
                "applied_index",
                "commit_index",
                "fsm_pending",
                "last_contact",
                "last_log_index",
                "last_log_term",
                "last_snapshot_index",
                "last_snapshot_term",
                "latest_configuration",
                "latest_configuration_index",
                "num_peers",
                "protocol_version",
                "protocol_version_max",
                "protocol_version_min",
                "snapshot_version_max",
                "snapshot_version_min",
                "state",
                "term",
            ],
        ),
        ("runtime", &["arch", "cpu_count", "goroutines", "max_procs", "os", "version"]),
        ("serf_lan", &pool),
        ("serf_wan", &pool),
        ("serf_wan", &[]),
    ];
    for (section, wanted) in sections {
        let found = keys(section);
        assert!(wanted.iter().all(|key| found.contains(key)), "{section}: {found:?}");
    }
    let all = stats.as_object().unwrap().values().flat_map(|section| section.as_object().unwrap().values());
    assert!(all.clone().count() > 40 && all.clone().all(Value::is_string), "{stats}");
    assert_eq!(
        stats["agent"],
        json!({"check_monitors": "1", "check_ttls": "1", "checks": "2", "services": "1"})
    );
    assert_eq!((&stats["raft"]["state"], &stats["consul"]["leader"]), (&json!("Leader"), &json!("true")));
    let applied: u64 = stats["raft"]["applied_index"].as_str().unwrap().parse().unwrap();
    assert!(applied > 0, "{stats}");

    let members = agent.get("/v1/agent/members");
    assert_eq!(members, json!([about["Member"]]));
    assert_eq!((&members[0]["Port"], &members[0]["Tags"]["wan_join_port"]), (&json!(8301), &json!("8302")));
    let wan = agent.get("/v1/agent/members?wan=1&filter=Tags.role==consul");
    assert_eq!((&wan[0]["Name"], &wan[0]["Port"]), (&json!("test-1.dc1"), &json!(8302)));
}

#[cfg(target_os = "linux")]
#[test]
fn an_agent_tells_of_its_machine() {
    let host = Agent::start(&["-dev"]).get("/v1/agent/host");
    let above_nothing = |value: &Value| value.as_f64().is_some_and(|number| number > 0.0);
    for (section, key) in [("Memory", "total"), ("Host", "procs"), ("Host", "bootTime"), ("Disk", "total")] {
        assert!(above_nothing(&host[section][key]), "{section} {key}: {host}");
    }
    assert!(!host["CPU"].as_array().unwrap().is_empty() && above_nothing(&host["CollectionTime"]), "{host}");
    assert_eq!((&host["Host"]["os"], &host["Errors"]), (&json!("linux"), &Value::Null), "{host}");
}

#[test]
fn without_a_port_for_other_datacenters_nobody_is_a_member_there() {
    let agent = Agent::start(&["-dev", "-serf-wan-port=-1"]);
    assert_eq!(agent.get("/v1/agent/members?wan=1"), json!([]));
    assert!(agent.get("/v1/agent/self")["Stats"]["serf_wan"].is_null());
    let (status, text) = agent.request("GET", "/v1/operator/keyring", "");
    assert!(status == 500 && text.starts_with("2 errors occurred:"), "{text}");
}

/// `http-api.md` §9.5, §10.12.
#[test]
fn events_are_heard_by_the_services_they_are_for() {
    let files = [("orders.hcl", r#"service { name = "orders", tags = ["v2"] }"#)];
    let agent = Agent::start_with(&["-dev"], &files);
    let fire = |path: &str, body: &str| -> Value {
        let (status, text) = agent.request("PUT", &format!("/v1/event/fire/{path}"), body);
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let fired = fire("deploy?service=orders", "v2");
    let id = fired["ID"].as_str().unwrap();
    let mut wanted = json!({"ID": id, "Name": "deploy", "Payload": "djI=", "NodeFilter": "", "ServiceFilter": "orders",
        "TagFilter": "", "Version": 1, "LTime": 0});
    assert_eq!(fired, wanted);
    fire("other?service=^mail$", "");
    fire("other?node=elm", "");
    wanted["LTime"] = json!(2);
    assert_eq!(agent.get("/v1/event/list"), json!([wanted]), "what is not for us is not heard");
    let rollback = fire("rollback?node=test&service=ord&tag=^v", "");
    assert_eq!((&rollback["Payload"], &rollback["TagFilter"]), (&Value::Null, &json!("^v")));
    assert_eq!(agent.get("/v1/event/list?name=rollback")[0]["LTime"], 5, "time passes with every event");
    assert_eq!(agent.get("/v1/event/list")[1]["Name"], "rollback", "oldest first");

    let refusals = [
        ("x?tag=a", "Cannot provide tag filter without service filter"),
        ("x?node=(", "Invalid node filter: error parsing regexp: unclosed group"),
    ];
    for (path, text) in refusals {
        assert_eq!(agent.request("PUT", &format!("/v1/event/fire/{path}"), ""), (500, text.into()));
    }
    let large =
        "error broadcasting event: encoded user event exceeds configured limit of 512 bytes after encoding";
    assert_eq!(agent.request("PUT", "/v1/event/fire/abcd", &"x".repeat(420)), (500, large.into()));
    let larger = "error broadcasting event: user event exceeds configured limit of 512 bytes before encoding";
    assert_eq!(agent.request("PUT", "/v1/event/fire/abcd", &"x".repeat(500)), (500, larger.into()));

    // The index is the newest event's, and one that has it waits for another.
    let newest = index(&raw(&agent, "GET", "/v1/event/list?name=deploy"));
    let uuid = u128::from_str_radix(&id.replace('-', ""), 16).unwrap();
    assert_eq!(newest, ((uuid >> 64) ^ uuid) as u64);
    let same = raw(&agent, "GET", &format!("/v1/event/list?name=deploy&index={newest}&wait=10ms"));
    assert_eq!(index(&same), newest, "a wait has an end");
    let path = format!("/v1/event/list?name=deploy&index={newest}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| raw(&agent, "GET", &path));
        fire("rollback", "");
        fire("deploy", "");
        assert_ne!(index(&waiting.join().unwrap()), newest);
    });
}

/// `http-api.md` §8.1, `config-cli.md` §2.6.
#[test]
fn an_agent_that_is_asked_to_leave_answers_and_ends() {
    let mut agent = Agent::start(&["-dev"]);
    let answer = raw(&agent, "PUT", "/v1/agent/leave");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(agent.exit_code(), Some(0), "{}", agent.log());
    agent.wait_for_log("Gracefully shutting down agent...");
    agent.wait_for_log("Exit code: code=0");
}
