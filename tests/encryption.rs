//! Agents whose gossip is encrypted: real processes with keys of their own, in files and in the configuration.

mod support;

use std::{
    fs,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use support::{Agent, fresh_address, fresh_folder, spawn, wait_for};

const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQ==";
const OTHER: &str = "AgICAgICAgICAgICAgICAg==";

fn start(name: &str, arguments: &[&str]) -> Agent {
    let agent = spawn(fresh_address(), name, arguments);
    agent.wait_for_log("agent running!");
    agent
}

/// Names of those that are alive.
fn alive(agent: &Agent) -> Vec<String> {
    let members = agent.get("/v1/agent/members");
    let members = members.as_array().unwrap().iter().filter(|member| member["Status"] == 1);
    members.map(|member| member["Name"].as_str().unwrap().to_string()).collect()
}

fn wait_for_alive(agent: &Agent, expected: &[&str]) {
    let state = || format!("{:?}\n{}", alive(agent), agent.log());
    wait_for(&format!("{expected:?}"), || (alive(agent) == expected).then_some(()), state);
}

/// What `lictor keyring` says, and its exit code.
fn keyring(agent: &Agent, words: &[&str]) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lictor"));
    command.arg("keyring").args(words).env("CONSUL_HTTP_ADDR", agent.http().to_string());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = support::ended(child, support::DEADLINE);
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.code().unwrap())
}

fn lan(agent: &Agent) -> Value {
    agent.get("/v1/operator/keyring?local-only")[0].clone()
}

#[test]
fn the_key_is_changed_by_one_agent_for_all() {
    let oak = start("oak", &["-encrypt", ONE]);
    assert!(oak.log().contains("Gossip Encryption: true"), "{}", oak.log());
    let join = format!("-retry-join={}", oak.address);
    let elm = start("elm", &["-encrypt", ONE, &join]);
    for agent in [&oak, &elm] {
        wait_for_alive(agent, &["elm", "oak"]);
    }
    let (said, code) = keyring(&elm, &["-list"]);
    assert!(code == 0 && said.ends_with(&format!("dc1 (LAN):\n  {ONE} [2/2]\n")), "{said}");
    for step in [["-install", OTHER], ["-use", OTHER], ["-remove", ONE]] {
        assert_eq!(keyring(&elm, &step).1, 0, "{step:?}");
    }
    assert_eq!(lan(&oak)["PrimaryKeys"], json!({OTHER: 1}));
    let (said, _) = keyring(&oak, &["-list-primary"]);
    assert!(said.ends_with(&format!("dc1 (LAN):\n  {OTHER} [2/2]\n")), "{said}");
    for agent in [&oak, &elm] {
        wait_for_alive(agent, &["elm", "oak"]);
        assert!(!agent.log().contains("failed: it does not answer"), "{}", agent.log());
    }

    // The old key opens nothing any more; that is told, and not for each packet.
    let late = start("late", &["-encrypt", ONE]);
    let (status, refused) = late.request("PUT", &format!("/v1/agent/join/{}", oak.address), "");
    assert_eq!(status, 500, "{refused}");
    oak.wait_for_log("gossip that is not taken");
    late.request("PUT", &format!("/v1/agent/join/{}", oak.address), "");
    assert_eq!(oak.log().matches("gossip that is not taken").count(), 1, "{}", oak.log());
    assert_eq!(alive(&late), ["late"]);
    wait_for_alive(&oak, &["elm", "oak"]);
}

/// A keyring outlives its agent, and wins over the configuration.
#[test]
fn the_file_of_a_keyring_wins() {
    let folder = fresh_folder();
    let data = format!("-data-dir={}", folder.join("data").display());
    let words = |key: &'static str| {
        ["-disable-keyring-file=false".into(), "-encrypt".into(), key.into(), data.clone()]
    };
    let begin = |key| {
        let words: Vec<String> = words(key).to_vec();
        start("oak", &words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let oak = begin(ONE);
    for step in [["-install", OTHER], ["-use", OTHER]] {
        assert_eq!(keyring(&oak, &step).1, 0, "{step:?}");
    }
    let file = folder.join("data/serf/local.keyring");
    let kept = fs::read_to_string(&file).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), json!([OTHER, ONE]));
    drop(oak);

    const THIRD: &str = "AwMDAwMDAwMDAwMDAwMDAw==";
    let oak = begin(THIRD);
    assert_eq!(lan(&oak)["PrimaryKeys"], json!({OTHER: 1}));
    assert!(oak.log().contains("the key of the configuration is not used"), "{}", oak.log());
    assert!(!oak.log().contains(THIRD), "a key is in the log");
    drop(oak);

    fs::write(&file, "[\"a2V5\"]").unwrap();
    let words: Vec<String> = words(ONE).to_vec();
    let mut broken = spawn(fresh_address(), "oak", &words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(broken.exit_code(), Some(1));
    let expected = format!("Failed to configure keyring: {}: key 1 of 1: key size must be", file.display());
    assert!(broken.log().contains(&expected), "{}", broken.log());
    drop(broken);

    fs::remove_dir_all(folder.join("data/serf")).unwrap();
    let none = start("oak", &["-encrypt", ONE, &data]);
    assert_eq!(lan(&none)["PrimaryKeys"], json!({ONE: 1}));
    assert!(!file.exists(), "dev mode keeps no keyring");
    drop(none);
    fs::remove_dir_all(&folder).unwrap();
}
