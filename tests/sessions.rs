//! Sessions and locks of a real agent: their time runs out, they outlive the process, and their delays end.

mod support;

use std::fs;

use serde_json::Value;
use support::{Agent, fresh_folder, wait_for};

const SHORT: &[(&str, &str)] = &[("session.hcl", "session_ttl_min = \"10ms\"")];

fn create(agent: &Agent, body: &str) -> String {
    let (status, answer) = agent.request("PUT", "/v1/session/create", body);
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str::<Value>(&answer).unwrap()["ID"].as_str().unwrap().to_string()
}

fn acquires(agent: &Agent, session: &str) -> bool {
    let (status, answer) = agent.request("PUT", &format!("/v1/kv/lock?acquire={session}"), "mine");
    assert_eq!(status, 200, "{answer}");
    answer.trim_end() == "true"
}

fn holder(agent: &Agent) -> Option<String> {
    Some(agent.get("/v1/kv/lock")[0]["Session"].as_str()?.to_string())
}

fn wait_until(what: &str, agent: &Agent, holds: impl Fn() -> bool) {
    wait_for(what, || holds().then_some(()), || agent.log());
}

#[test]
fn a_session_that_nobody_renews_lets_go() {
    let agent = Agent::start_with(&["-dev"], SHORT);
    let kept = create(&agent, r#"{"TTL":"1h"}"#);
    let lost = create(&agent, r#"{"TTL":"300ms","LockDelay":"400ms"}"#);
    assert!(acquires(&agent, &lost) && !acquires(&agent, &kept));
    // While it is renewed it lives: as long as several times its time.
    for _ in 0..6 {
        let blocked = format!("/v1/session/info/{lost}?index={}&wait=150ms", u64::MAX);
        assert_ne!(agent.get(&blocked), serde_json::json!([]), "it is renewed");
        assert_eq!(agent.request("PUT", &format!("/v1/session/renew/{lost}"), "").0, 200);
    }
    wait_until("the session to end", &agent, || {
        agent.get(&format!("/v1/session/info/{lost}")) == serde_json::json!([])
    });
    assert_eq!(holder(&agent), None);
    assert!(!acquires(&agent, &kept), "its delay has begun");
    assert_eq!(agent.request("PUT", &format!("/v1/session/renew/{lost}"), "").0, 404);
    wait_until("the delay to end", &agent, || acquires(&agent, &kept));
    assert_eq!(holder(&agent), Some(kept));
}

#[test]
fn locks_outlive_the_process() {
    let data = fresh_folder();
    let flag = format!("-data-dir={}", data.display());
    let start = || Agent::start_with(&["-server", "-bootstrap-expect=1", &flag], SHORT);
    let agent = start();
    let (holding, other) = (create(&agent, r#"{"LockDelay":"1h"}"#), create(&agent, ""));
    let passing = create(&agent, r#"{"TTL":"200ms"}"#);
    assert!(acquires(&agent, &holding));
    let before = agent.get("/v1/kv/lock");
    agent.signal("KILL");
    drop(agent);
    let agent = start();
    assert_eq!(agent.get("/v1/kv/lock"), before, "index and holder are the same");
    assert!(acquires(&agent, &holding) && !acquires(&agent, &other));
    wait_until("a session's time to begin anew and end", &agent, || {
        agent.get(&format!("/v1/session/info/{passing}")) == serde_json::json!([])
    });
    assert_eq!(agent.request("PUT", &format!("/v1/session/destroy/{holding}"), "").1, "true");
    agent.signal("KILL");
    drop(agent);
    let agent = start();
    assert_eq!(holder(&agent), None);
    assert!(!acquires(&agent, &other), "a lock delay is not lost with the process");
    drop(agent);
    fs::remove_dir_all(data).unwrap();
}

/// A node that is gone takes its sessions along; the agent's own comes back, and they do not.
#[test]
fn a_session_goes_with_its_node() {
    let agent = Agent::start(&["-dev"]);
    let register = r#"{"Node":"oak","Address":"10.0.0.1"}"#;
    assert_eq!(agent.request("PUT", "/v1/catalog/register", register).0, 200);
    let session = create(&agent, r#"{"Node":"oak","NodeChecks":[],"LockDelay":"0s","Behavior":"delete"}"#);
    assert!(acquires(&agent, &session));
    assert_eq!(agent.request("PUT", "/v1/catalog/deregister", r#"{"Node":"oak"}"#).0, 200);
    assert_eq!(agent.request("GET", "/v1/kv/lock", "").0, 404, "its keys are deleted, as it wanted");
    let own = create(&agent, "");
    assert!(acquires(&agent, &own), "and there is no delay");
}
