//! Agents among each other: real processes on loopback addresses of their own. Who comes, fails, returns and leaves, and what
//! becomes of it in the catalog and in DNS.

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use support::{Agent, fresh_address, spawn, type_words, wait_for};

const ELM_ID: &str = "00000000-0000-0000-0000-0000000000e1";
/// As in dev mode.
const QUICK: &str =
    r#"-hcl=gossip_lan { probe_interval = "100ms" probe_timeout = "50ms" gossip_interval = "50ms" }"#;

/// Alone at first, and quick to notice what happens: all intervals are those of dev mode.
fn start(name: &str, arguments: &[&str]) -> Agent {
    start_at(fresh_address(), name, arguments)
}

fn start_at(address: Ipv4Addr, name: &str, arguments: &[&str]) -> Agent {
    let agent = spawn(address, name, arguments);
    agent.wait_for_log("agent running!");
    agent
}

fn join(agent: &Agent, to: &Agent) -> (u16, String) {
    agent.request("PUT", &format!("/v1/agent/join/{}", to.address), "")
}

/// `oak` and `elm`, who know each other.
fn pair() -> (Agent, Agent) {
    let oak = start("oak", &[]);
    let elm = start("elm", &[&format!("-node-id={ELM_ID}"), &format!("-retry-join={}", oak.address)]);
    for agent in [&oak, &elm] {
        wait_for_members(agent, "elm alive, oak alive");
    }
    (oak, elm)
}

/// `elm alive, oak failed`
fn members(agent: &Agent) -> String {
    let members = agent.get("/v1/agent/members");
    let word = |status: &Value| match status.as_u64() {
        Some(1) => "alive",
        Some(2) => "leaving",
        Some(3) => "left",
        Some(4) => "failed",
        _ => "?",
    };
    let members = members.as_array().unwrap().iter();
    let told = members.map(|one| format!("{} {}", one["Name"].as_str().unwrap(), word(&one["Status"])));
    told.collect::<Vec<_>>().join(", ")
}

fn wait_for_members(agent: &Agent, expected: &str) {
    wait_for(
        &format!("members to be {expected:?}"),
        || (members(agent) == expected).then_some(()),
        || format!("{:?}\n{}", members(agent), agent.log()),
    );
}

/// Status and output of a node's health; nothing where there is none.
fn health(agent: &Agent, node: &str) -> Value {
    let checks = agent.get(&format!("/v1/health/node/{node}"));
    let checks = checks.as_array().unwrap();
    let check = checks.iter().find(|check| check["CheckID"] == "serfHealth");
    check.map_or(Value::Null, |check| json!([check["Status"], check["Output"]]))
}

fn wait_for_health(agent: &Agent, node: &str, expected: &Value) {
    wait_for(
        &format!("{node} to be {expected}"),
        || (health(agent, node) == *expected).then_some(()),
        || format!("{}\n{}", health(agent, node), agent.log()),
    );
}

fn well() -> Value {
    json!(["passing", "Agent alive and reachable"])
}

fn gone() -> Value {
    json!(["critical", "Agent not live or unreachable"])
}

#[test]
fn who_is_killed_fails_and_who_returns_is_back() {
    let (oak, elm) = pair();
    wait_for_health(&oak, "elm", &well());
    let node = &oak.get("/v1/catalog/node/elm")["Node"];
    assert_eq!((&node["ID"], &node["Address"]), (&json!(ELM_ID), &json!(elm.address.to_string())));
    let web = r#"{"Node":"elm","SkipNodeUpdate":true,"Service":{"Service":"web","Port":80}}"#;
    assert_eq!(oak.request("PUT", "/v1/catalog/register", web).0, 200);
    let found = format!("A {}", elm.address);
    oak.wait_for_answers("web.service.consul.", RecordType::A, &[&found]);

    let address = elm.address;
    elm.signal("KILL");
    wait_for_members(&oak, "elm failed, oak alive");
    wait_for_health(&oak, "elm", &gone());
    oak.wait_for_answers("web.service.consul.", RecordType::A, &[]);
    let (listed, _, code) = type_words(&oak, &["members", "-status=failed"]);
    assert!(
        code == 0 && listed.lines().count() == 2 && listed.contains("elm") && listed.contains("failed"),
        "{listed}"
    );
    drop(elm);

    let again = [&*format!("-node-id={ELM_ID}"), &*format!("-retry-join={}", oak.address)];
    let elm = start_at(address, "elm", &again);
    wait_for_members(&oak, "elm alive, oak alive");
    wait_for_health(&oak, "elm", &well());
    oak.wait_for_answers("web.service.consul.", RecordType::A, &[&found]);
    wait_for_members(&elm, "elm alive, oak alive");
}

/// A machine that was set up anew has another id: it takes its name at once.
#[test]
fn a_quick_restart_with_another_id_takes_its_name() {
    let (oak, elm) = pair();
    wait_for_health(&oak, "elm", &well());
    let address = elm.address;
    elm.signal("KILL");
    drop(elm);
    let other = "00000000-0000-0000-0000-0000000000e2";
    let _elm =
        start_at(address, "elm", &[&format!("-node-id={other}"), &format!("-retry-join={}", oak.address)]);
    wait_for(
        "the node to have another id",
        || (oak.get("/v1/catalog/node/elm")["Node"]["ID"] == other).then_some(()),
        || format!("{}\n{}", oak.get("/v1/catalog/node/elm"), oak.log()),
    );
    wait_for_health(&oak, "elm", &well());
}

#[test]
fn who_leaves_is_no_node_any_more() {
    let (oak, mut elm) = pair();
    wait_for_health(&oak, "elm", &well());
    let (said, _, code) = type_words(&elm, &["leave"]);
    assert_eq!((&*said, code), ("Graceful leave complete\n", 0), "{}", elm.log());
    assert_eq!(elm.exit_code(), Some(0));
    for text in ["Gracefully shutting down agent...", "Graceful exit completed", "Exit code: code=0"] {
        elm.wait_for_log(text);
    }
    wait_for_members(&oak, "elm left, oak alive");
    wait_for_health(&oak, "elm", &Value::Null);
    assert_eq!(oak.get("/v1/catalog/node/elm"), Value::Null);
}

#[test]
fn a_failed_member_is_made_to_leave_and_forgotten() {
    let (oak, elm) = pair();
    wait_for_health(&oak, "elm", &well());
    elm.signal("KILL");
    wait_for_members(&oak, "elm failed, oak alive");
    assert_eq!(type_words(&oak, &["force-leave", "elm"]), (String::new(), String::new(), 0));
    wait_for_members(&oak, "elm left, oak alive");
    wait_for_health(&oak, "elm", &Value::Null);
    assert_eq!(type_words(&oak, &["force-leave", "elm"]).2, 0, "it has left already");
    assert_eq!(type_words(&oak, &["force-leave", "-prune", "elm"]).2, 0);
    wait_for_members(&oak, "oak alive");
    let (_, said, code) = type_words(&oak, &["force-leave", "elm"]);
    let text = "Error force leaving: Unexpected response code: 500 (agent: No node found with name 'elm')\n";
    assert_eq!((&*said, code), (text, 1));
}

/// Whoever is alive says so.
#[test]
fn one_that_is_alive_is_not_made_to_leave() {
    let (oak, elm) = pair();
    wait_for_health(&oak, "elm", &well());
    assert_eq!(oak.request("PUT", "/v1/agent/force-leave/elm", "").0, 200);
    wait_for_members(&oak, "elm alive, oak alive");
    wait_for_members(&elm, "elm alive, oak alive");
    wait_for_health(&oak, "elm", &well());
}

/// `config-cli.md` §2.6: a server goes without a word unless it is told otherwise.
#[test]
fn signals_end_an_agent_with_a_leave_or_without() {
    let (oak, mut elm) = pair();
    elm.signal("INT");
    assert_eq!(elm.exit_code(), Some(1));
    elm.wait_for_log("Graceful shutdown disabled. Exiting");
    wait_for_members(&oak, "elm failed, oak alive");
    drop(elm);

    for (signal, key) in [("INT", "skip_leave_on_interrupt = false"), ("TERM", "leave_on_terminate = true")] {
        let id = format!("-node-id={ELM_ID}");
        let mut elm = start("elm", &[&id, &format!("-retry-join={}", oak.address), &format!("-hcl={key}")]);
        wait_for_members(&oak, "elm alive, oak alive");
        elm.signal(signal);
        assert_eq!(elm.exit_code(), Some(0), "{}", elm.log());
        wait_for_members(&oak, "elm left, oak alive");
    }
}

#[test]
fn whom_nobody_lets_in_is_told_why() {
    let oak = start("oak", &[]);
    let nobody = fresh_address();
    let (status, text) = oak.request("PUT", &format!("/v1/agent/join/{nobody}"), "");
    let dialled = format!("dial tcp {nobody}:8301: connect: connection refused");
    assert_eq!(
        (status, &*text),
        (500, &*format!("1 error occurred:\n\t* Failed to join {nobody}:8301: {dialled}\n\n"))
    );
    let (said, error, code) = type_words(&oak, &["join", &nobody.to_string()]);
    assert_eq!((&*said, code), ("", 1));
    assert!(
        error.starts_with(&format!("Error joining address '{nobody}': Unexpected response code: 500 (")),
        "{error}"
    );
    assert!(error.ends_with("Failed to join any nodes.\n"), "{error}");

    let south = start("pine", &["-datacenter=south"]);
    let (status, text) = join(&south, &oak);
    let refused = "part of wrong datacenter";
    assert!(status == 500 && text.contains("Failed to join ") && text.contains(refused), "{status} {text}");
    let twin = start("ash", &[&format!("-node-id={ELM_ID}")]);
    let elm = start("elm", &[&format!("-node-id={ELM_ID}")]);
    assert_eq!(join(&elm, &oak).0, 200);
    wait_for_members(&oak, "elm alive, oak alive");
    let (status, text) = join(&twin, &oak);
    let refused = format!("has conflicting node ID '{ELM_ID}' with ");
    assert!(status == 500 && text.contains(&refused), "{status} {text}");
    assert_eq!(members(&oak), "elm alive, oak alive");

    let (said, _, code) = type_words(&elm, &["join", &oak.address.to_string()]);
    assert_eq!((&*said, code), ("Successfully joined cluster by contacting 1 nodes.\n", 0));
}

#[test]
fn a_name_is_not_taken_from_one_that_is_alive() {
    let (oak, elm) = pair();
    wait_for_health(&oak, "elm", &well());
    let other = start("elm", &[]);
    let (status, text) = join(&other, &oak);
    assert!(status == 500 && text.contains("elm"), "{status} {text}");
    assert_eq!(members(&other), "elm alive", "it is alone");
    let node = oak.get("/v1/catalog/node/elm");
    assert_eq!(node["Node"]["Address"], elm.address.to_string());
    assert_eq!(other.get("/v1/agent/self")["Config"]["NodeName"], "elm", "it answers all the same");
}

#[test]
fn who_finds_nobody_gives_up_where_it_should() {
    let nobody = fresh_address();
    let arguments = [&*format!("-retry-join={nobody}"), "-retry-interval=20ms", "-retry-max=2"];
    let mut agent = spawn(fresh_address(), "oak", &arguments);
    assert_eq!(agent.exit_code(), Some(1), "{}", agent.log());
    agent.wait_for_log("Exit code: code=1");
    let log = agent.log();
    let failed = |line: &&str| line.contains("Join cluster failed, will retry: cluster=LAN ");
    let tries: Vec<&str> = log.lines().filter(failed).collect();
    assert!(tries.len() == 2 && tries.iter().all(|line| line.ends_with(" retry_interval=20ms")), "{log}");
    assert!(
        log.contains("Retry join failed: error=\"agent: max join LAN retry exhausted, exiting\""),
        "{log}"
    );
}

/// What it knew of the others is in a file of its own.
#[test]
fn a_restarted_agent_finds_the_others_again() {
    let oak = start("oak", &[]);
    let folder = support::fresh_folder();
    let run = |more: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lictor"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let data = format!("-data-dir={}", folder.display());
        let all = ["-server", "-bootstrap", "-node=elm", &data, QUICK, more];
        let agent = Agent::launch(command, fresh_address(), &all, &[]);
        agent.wait_for_log("agent running!");
        agent
    };
    let elm = run(&format!("-retry-join={}", oak.address));
    wait_for_members(&oak, "elm alive, oak alive");
    wait_for_members(&elm, "elm alive, oak alive");
    let kept = folder.join("serf/local.snapshot");
    let read = || std::fs::read_to_string(&kept).unwrap_or_default();
    wait_for("the other to be kept", || read().contains("\"oak\"").then_some(()), read);
    elm.signal("KILL");
    drop(elm);
    wait_for_members(&oak, "elm failed, oak alive");
    let elm = run("-log-level=DEBUG");
    wait_for_members(&elm, "elm alive, oak alive");
    wait_for_members(&oak, "elm alive, oak alive");

    // Who left by its own will stays away, until it is told otherwise.
    assert_eq!(elm.request("PUT", "/v1/agent/leave", "").0, 200);
    wait_for_members(&oak, "elm left, oak alive");
    drop(elm);
    let elm = run("-rejoin");
    wait_for_members(&elm, "elm alive, oak alive");
    wait_for_members(&oak, "elm alive, oak alive");
    drop(elm);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn events_reach_those_whom_they_are_for() {
    let (oak, elm) = pair();
    let (said, _, code) = type_words(&oak, &["event", "-name=deploy", "-node=^elm$", "v2"]);
    assert!(code == 0 && said.starts_with("Event ID: "), "{said}");
    let id = said.trim_start_matches("Event ID: ").trim().to_string();
    let heard = |agent: &Agent| agent.get("/v1/event/list?name=deploy");
    wait_for(
        "the event to be heard",
        || (heard(&elm)[0]["ID"] == id).then_some(()),
        || format!("{}\n{}", heard(&elm), elm.log()),
    );
    let event = &heard(&elm)[0];
    assert_eq!((&event["Payload"], &event["NodeFilter"]), (&json!("djI="), &json!("^elm$")));
    assert!(event["LTime"].as_u64().unwrap() > 0);
    assert_eq!(heard(&oak), json!([]));
    assert_eq!(elm.request("PUT", "/v1/event/fire/all", "").0, 200);
    let all = |agent: &Agent| agent.get("/v1/event/list?name=all").as_array().unwrap().len();
    for agent in [&oak, &elm] {
        wait_for("both to hear it", || (all(agent) == 1).then_some(()), || agent.log());
    }
}

#[test]
fn distances_are_measured() {
    let (oak, elm) = pair();
    let told = |agent: &Agent| agent.get("/v1/coordinate/nodes").as_array().unwrap().len();
    wait_for("its coordinate to be told", || (told(&oak) > 0).then_some(()), || oak.log());
    let own = oak.get("/v1/agent/self")["Coord"].clone();
    assert_ne!(own["Vec"], json!([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
    let (said, error, code) = type_words(&oak, &["rtt", "oak", "oak"]);
    assert!(
        code == 0
            && said.starts_with("Estimated oak <-> oak rtt: ")
            && said.ends_with(" ms (using LAN coordinates)\n"),
        "{said}{error}"
    );
    assert_eq!(type_words(&elm, &["rtt", "nobody"]).2, 1);
}

/// Most of a datacenter vanishes at once: whoever is left is more likely cut off than alone.
#[test]
fn the_health_of_many_that_vanish_at_once_stays_until_it_is_confirmed() {
    let oak = start("oak", &[]);
    let join = format!("-retry-join={}", oak.address);
    let others: Vec<Agent> =
        (0..11).map(|number| spawn(fresh_address(), &format!("n{number:02}"), &[&join])).collect();
    let with_health = |agent: &Agent, output: &str| {
        let checks = agent.get("/v1/health/state/any");
        let checks = checks.as_array().unwrap().iter();
        checks.filter(|check| check["Output"].as_str().unwrap().starts_with(output)).count()
    };
    let wait_for_count = |count: usize, output: &str| {
        wait_for(
            &format!("{count} to be {output:?}"),
            || (with_health(&oak, output) == count).then_some(()),
            || format!("{}\n{}", oak.get("/v1/health/state/any"), oak.log()),
        );
    };
    wait_for_count(12, "Agent alive");
    others.iter().for_each(|agent| agent.signal("KILL"));
    wait_for_count(11, "Unconfirmed: ");
    assert_eq!(oak.get("/v1/health/state/critical"), json!([]));
    oak.wait_for_log("many members vanished at once");
    let (listed, _, _) = type_words(&oak, &["operator", "confirm-failed", "-list"]);
    assert_eq!(listed.lines().count(), 11, "{listed}");

    let confirm = |words: &[&str]| type_words(&oak, &[&["operator", "confirm-failed"], words].concat()).0;
    assert_eq!(confirm(&["n03", "nobody"]), "Confirmed failed members: 1\n");
    wait_for_health(&oak, "n03", &gone());
    assert_eq!(oak.request("PUT", "/v1/agent/force-leave/n04", "").0, 200);
    wait_for_health(&oak, "n04", &Value::Null);
    assert_eq!(confirm(&[]), "Confirmed failed members: 9\n");
    wait_for_count(10, "Agent not live");
    assert_eq!(confirm(&["-list"]), "");
}

/// Another port on one address, and names to look up.
#[test]
fn members_speak_ipv6_too() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let port = 20_000 + (std::process::id() % 10_000) as u16 * 4;
    let at = |port: u16| SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    let run = |name: &str, port: u16, more: &str| {
        let (serf, server) = (format!("-serf-lan-port={port}"), format!("-server-port={}", port + 2));
        start(name, &["-bind=::1", &serf, &server, more])
    };
    let oak = run("oak", port, "-log-level=DEBUG");
    let elm = run("elm", port + 1, &format!("-retry-join={}", at(port)));
    for agent in [&oak, &elm] {
        wait_for_members(agent, "elm alive, oak alive");
    }
    wait_for_health(&oak, "elm", &well());
    assert_eq!(oak.get("/v1/catalog/node/elm")["Node"]["Address"], "::1");
    let (listed, _, _) = type_words(&oak, &["members"]);
    assert!(listed.contains(&at(port + 1).to_string()), "{listed}");
}

#[test]
fn who_is_not_of_the_allowed_networks_is_not_let_in() {
    let oak = start("oak", &["-serf-lan-allowed-cidrs=10.0.0.0/8"]);
    let elm = start("elm", &[]);
    let (status, text) = join(&elm, &oak);
    assert_eq!(status, 500, "{text}");
    assert_eq!(members(&oak), "oak alive");
}

#[test]
fn members_are_told_of_in_figures() {
    let (oak, elm) = pair();
    let stats = |agent: &Agent, key: &str| agent.get("/v1/agent/self")["Stats"]["serf_lan"][key].clone();
    assert_eq!((stats(&oak, "members"), stats(&oak, "failed")), (json!("2"), json!("0")));
    elm.signal("KILL");
    wait_for_members(&oak, "elm failed, oak alive");
    assert_eq!((stats(&oak, "members"), stats(&oak, "failed")), (json!("2"), json!("1")));
    let metrics = oak.get("/v1/agent/metrics");
    let names: Vec<&str> = ["Gauges", "Counters", "Samples"]
        .iter()
        .flat_map(|kind| metrics[kind].as_array().unwrap())
        .map(|figure| figure["Name"].as_str().unwrap())
        .collect();
    for name in [
        "consul.memberlist.udp.sent",
        "consul.memberlist.msg.suspect",
        "consul.serf.member.failed",
        "oak.members.unconfirmed",
    ] {
        assert!(names.iter().any(|found| found.ends_with(name)), "{name} is not among {names:?}");
    }
}

/// An agent that is no server, and what it keeps, which is gone with its test.
struct Client(Agent, PathBuf);

impl Client {
    fn start(name: &str, arguments: &[&str]) -> Client {
        let folder = support::fresh_folder();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lictor"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (name, data) = (format!("-node={name}"), format!("-data-dir={}", folder.display()));
        let all: Vec<&str> = [&*name, &*data, QUICK].into_iter().chain(arguments.iter().copied()).collect();
        let client = Client(Agent::launch(command, fresh_address(), &all, &[]), folder);
        client.wait_for_log("agent running!");
        client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.1);
    }
}

impl std::ops::Deref for Client {
    type Target = Agent;

    fn deref(&self) -> &Agent {
        &self.0
    }
}

impl std::ops::DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Agent {
        &mut self.0
    }
}

/// A client is a node with what it registers itself; when it leaves by a signal, it and all of it are gone.
#[test]
fn a_client_comes_and_goes_with_its_services() {
    let oak = start("oak", &[]);
    let join = format!("-retry-join={}", oak.address);
    let web = r#"-hcl=service { name = "web" port = 80 }"#;
    let mut elm = Client::start("elm", &[&join, web]);
    let found = format!("A {}", elm.address);
    oak.wait_for_answers("web.service.consul.", RecordType::A, &[&found]);
    wait_for_health(&oak, "elm", &well());
    let node = || oak.get("/v1/catalog/node/elm")["Node"].clone();
    let told = || (node()["TaggedAddresses"]["lan"] == elm.address.to_string()).then_some(());
    wait_for("its own word of its node", told, || node().to_string());
    assert_eq!(node()["Meta"], json!({"consul-network-segment": "", "consul-version": "1.16.4"}));
    assert_eq!(elm.get("/v1/agent/members?wan=1"), Value::Null);
    assert_eq!(oak.request("PUT", "/v1/event/fire/deploy", "").0, 200);
    let heard = || (elm.get("/v1/event/list")[0]["Name"] == "deploy").then_some(());
    wait_for("the event", heard, || elm.log());

    let lines = |words: &[&str]| {
        let (said, error, code) = type_words(&oak, &[&["members"], words].concat());
        assert_eq!((&*error, code), ("", 0));
        let mut lines: Vec<String> = said.lines().map(String::from).collect();
        lines.remove(0);
        lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let row = |name: &str, agent: &Agent, rest: &str| format!("{name} {}:8301 {rest}", agent.address);
    let (server, client) = (
        row("oak", &oak, "alive server 1.16.4 2 dc1 default <all>"),
        row("elm", &elm, "alive client 1.16.4 2 dc1 default <default>"),
    );
    assert_eq!(lines(&[]), [server.clone(), client.clone()], "servers first");
    assert_eq!(lines(&["-filter", "Tags.role == node"]), std::slice::from_ref(&client));
    let id = elm.get("/v1/agent/self")["Config"]["NodeID"].as_str().unwrap().to_string();
    let tags = format!("alive build=1.16.4:,dc=dc1,id={id},role=node,segment=,vsn=2,vsn_max=3,vsn_min=2");
    assert_eq!(lines(&["-detailed"])[1], row("elm", &elm, &tags));

    elm.signal("TERM");
    assert_eq!(elm.exit_code(), Some(0), "{}", elm.log());
    wait_for_members(&oak, "elm left, oak alive");
    wait_for_health(&oak, "elm", &Value::Null);
    assert_eq!(oak.get("/v1/catalog/service/web"), json!([]));
    assert_eq!(oak.answers("web.service.consul.", RecordType::A), Vec::<String>::new());
    assert_eq!(lines(&["-status=^left$"]).len(), 1);
}

/// Maintenance of a client's node takes its services out of every answer.
#[test]
fn a_client_s_node_in_maintenance_is_not_answered() {
    let oak = start("oak", &[]);
    let web = r#"-hcl=service { name = "web" port = 80 }"#;
    let elm = Client::start("elm", &[&format!("-retry-join={}", oak.address), web]);
    let found = format!("A {}", elm.address);
    oak.wait_for_answers("web.service.consul.", RecordType::A, &[&found]);
    assert_eq!(type_words(&elm, &["maint", "-enable", "-reason=moving"]).2, 0);
    oak.wait_for_answers("web.service.consul.", RecordType::A, &[]);
    assert_eq!(type_words(&elm, &["maint", "-disable"]).2, 0);
    oak.wait_for_answers("web.service.consul.", RecordType::A, &[&found]);
}

/// The example's script, on addresses of this test's own; it is stopped, whatever comes.
struct Cluster {
    folder: PathBuf,
    net: String,
    data: PathBuf,
}

impl Cluster {
    fn run(&self, words: &[&str]) -> (String, bool) {
        let mut command = Command::new(self.folder.join("cluster"));
        command.args(words).env("LICTOR", env!("CARGO_BIN_EXE_lictor"));
        command.env("LICTOR_NET", &self.net).env("LICTOR_DATA", &self.data);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&said).into_owned(), output.status.success())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run(&["stop"]);
        let _best_effort = std::fs::remove_dir_all(&self.data);
    }
}

/// What its README tells to type is typed, in its order.
#[test]
fn the_example_does_as_it_says() {
    let folder = support::examples().join("one-server-two-clients");
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let [_, _, third, fourth] = fresh_address().octets();
    let net = format!("127.{}.{third}", 216 + fourth % 39);
    let cluster = Cluster { folder, net: net.clone(), data: support::fresh_folder() };
    let (mut now, mut steps) = (vec!["2", "3"], 0);
    for line in readme.lines() {
        if let Some(words) = line.strip_prefix("./cluster ") {
            let words: Vec<&str> = words.split(' ').collect();
            let (said, is_well) = cluster.run(&words);
            assert!(is_well, "{line}: {said}\n{}", logs(&cluster.data));
            match *words {
                ["kill" | "leave", "elm"] => now = vec!["2"],
                ["return", "elm"] => now = vec!["2", "3"],
                ["members"] => assert_eq!(said.lines().count(), 4, "{said}"),
                ["stop"] => assert!(!cluster.data.exists(), "nothing is left"),
                _ => {}
            }
            steps += 1;
        } else if let Some(words) = line.strip_prefix("dig @127.0.1.") {
            let (host, rest) = words.split_once(' ').unwrap();
            let name = rest.strip_prefix("-p 8600 +short ").expect("what dig is told");
            let at: SocketAddr = format!("{net}.{host}:8600").parse().unwrap();
            let expected: Vec<String> = now.iter().map(|host| format!("{net}.{host}")).collect();
            let asked = || {
                let message = support::ask(at, name, RecordType::A);
                let mut found: Vec<String> = message.answers.iter().map(|one| one.data.to_string()).collect();
                found.sort();
                found
            };
            let shown = || format!("{:?}\n{}", asked(), logs(&cluster.data));
            wait_for(line, || (asked() == expected).then_some(()), shown);
            steps += 1;
        }
    }
    assert_eq!(steps, 11, "all of it");
}

fn logs(folder: &Path) -> String {
    let read = |node| std::fs::read_to_string(folder.join(format!("{node}.log"))).unwrap_or_default();
    ["oak", "ash", "elm"].map(read).join("\n")
}
