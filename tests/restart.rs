//! What an agent registered is there again after its process died (`config-cli.md` §4.4): real agents, killed and
//! started anew on the same data directory.

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use support::{Agent, fresh_folder, wait_for};

/// A data directory, gone with its test.
struct Data(PathBuf);

impl Data {
    fn new() -> Data {
        Data(fresh_folder())
    }

    fn start(&self, files: &[(&str, &str)]) -> Agent {
        Agent::start_with(&["-dev", &self.flag()], files)
    }

    fn flag(&self) -> String {
        format!("-data-dir={}", self.0.display())
    }

    /// Files below a part of it, as paths from there, sorted.
    fn files(&self, part: &str) -> Vec<String> {
        let mut found: Vec<String> = match fs::read_dir(self.0.join(part)) {
            Ok(entries) => entries
                .map(|entry| entry.unwrap())
                .filter(|entry| entry.file_type().unwrap().is_file())
                .map(|entry| entry.file_name().into_string().unwrap())
                .collect(),
            Err(_) => vec![],
        };
        found.sort();
        found
    }

    fn only(&self, part: &str) -> PathBuf {
        let files = self.files(part);
        assert_eq!(files.len(), 1, "{part}: {files:?}");
        self.0.join(part).join(&files[0])
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put(agent: &Agent, path: &str, body: &str) {
    let (status, text) = agent.request("PUT", path, body);
    assert_eq!(status, 200, "{path} {body}: {text}");
}

fn register(agent: &Agent, body: &str) {
    put(agent, "/v1/agent/service/register", body);
}

/// Status and output of each check, by id.
fn said(agent: &Agent) -> Vec<String> {
    let checks = agent.get("/v1/agent/checks");
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_string();
    let line = |(id, check): (&String, &Value)| {
        format!("{id} {} {}", text(check, "Status"), text(check, "Output")).trim_end().to_string()
    };
    checks.as_object().unwrap().iter().map(line).collect()
}

fn killed(agent: Agent) {
    agent.signal("KILL");
    drop(agent);
}

/// The catalog has the service, and no answer names it.
fn is_not_answered(agent: &Agent, service: &str) {
    let path = format!("/v1/catalog/service/{service}");
    let is_there = || (agent.get(&path) != json!([])).then_some(());
    wait_for("the catalog to be told", is_there, || agent.log());
    let name = format!("{service}.service.consul.");
    assert_eq!(agent.answers(&name, RecordType::A), [] as [&str; 0]);
}

const WEB: &str = r#"{"Name":"web","ID":"Web-1","Tags":["a","b"],"Address":"10.0.0.7","Port":80,"Meta":{"k":"v"},
    "SocketPath":"/s","TaggedAddresses":{"x":{"Address":"h","Port":1}},"Weights":{"Passing":3,"Warning":2},
    "EnableTagOverride":true,"Kind":"odd","Locality":{"Region":"r","Zone":"z"},"Token":"t","Checks":[
    {"TTL":"1h","Status":"passing","Notes":"n"},
    {"HTTP":"http://127.0.0.1:1/","Interval":"1h","Timeout":"2s","Header":{"A":["b","c"]},"Method":"PUT","Body":"x",
     "TLSSkipVerify":true,"FailuresBeforeCritical":3,"OutputMaxSize":9,"DeregisterCriticalServiceAfter":"2h"}]}"#;

#[test]
fn what_was_registered_comes_back_and_its_checks_are_critical() {
    let data = Data::new();
    let agent = data.start(&[]);
    register(&agent, WEB);
    put(&agent, "/v1/agent/check/register", r#"{"ID":"Disk","Name":"disk","TTL":"1h","Status":"passing"}"#);
    put(&agent, "/v1/agent/check/register", r#"{"ID":"more","Name":"m","TTL":"1h","ServiceID":"web-1"}"#);
    let services = agent.get("/v1/agent/services");
    let mut checks = agent.get("/v1/agent/checks");
    let file = data.only("services");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // printf web-1 | sha256sum
    assert!(file.ends_with("c4719afa76fa448b5eca99e6736885846501d17956f2fcb2de5c916d723f3a87"), "{file:?}");
    killed(agent);

    let agent = data.start(&[]);
    assert_eq!(agent.get("/v1/agent/services"), services);
    for check in checks.as_object_mut().unwrap().values_mut() {
        check["Status"] = json!("critical");
    }
    assert_eq!(agent.get("/v1/agent/checks"), checks);
    is_not_answered(&agent, "web");
    assert!(data.files("quarantine").is_empty() && !agent.log().contains("WARN"), "{}", agent.log());
}

#[test]
fn without_a_data_directory_nothing_is_kept() {
    let agent = Agent::start(&["-dev"]);
    register(&agent, r#"{"Name":"web"}"#);
    killed(agent);
    assert_eq!(Agent::start(&["-dev"]).get("/v1/agent/services"), json!({}));
}

const CHECKS: &str = r#"
service { name = "web"  check { id = "inside" ttl = "1h" } }
checks { id = "node" ttl = "1h" }
checks { id = "beside" service_id = "web" ttl = "1h" }
checks { id = "lucky" ttl = "1h" status = "passing" }
"#;

#[test]
fn the_last_word_of_a_ttl_check_comes_back_but_not_inside_a_files_service() {
    let data = Data::new();
    let agent = data.start(&[("a.hcl", CHECKS)]);
    register(
        &agent,
        r#"{"Name":"api","Checks":[{"CheckID":"own","TTL":"1h"},{"CheckID":"mute","TTL":"1h"}]}"#,
    );
    put(&agent, "/v1/agent/check/register", r#"{"Name":"disk","TTL":"1h"}"#);
    for id in ["inside", "node", "beside", "own", "disk"] {
        put(&agent, &format!("/v1/agent/check/pass/{id}?note=first"), "");
        put(&agent, &format!("/v1/agent/check/warn/{id}?note=low+%22oil%22%0A{id}"), "");
    }
    put(&agent, "/v1/agent/check/fail/lucky?note=out", "");
    killed(agent);
    let agent = data.start(&[("a.hcl", CHECKS)]);
    let expected = [
        "beside warning low \"oil\"\nbeside",
        "disk warning low \"oil\"\ndisk",
        "inside critical",
        "lucky critical out",
        "mute critical",
        "node warning low \"oil\"\nnode",
        "own warning low \"oil\"\nown",
    ];
    assert_eq!(said(&agent), expected);
    // What is said of its silence later names the word that came back: its time has begun.
    put(&agent, "/v1/agent/check/pass/own?note=new", "");
    drop(agent);
    assert!(said(&data.start(&[("a.hcl", CHECKS)])).contains(&"own passing new".to_string()));
}

#[test]
fn a_check_that_stays_silent_after_the_start_misses_its_time() {
    let data = Data::new();
    let agent = data.start(&[]);
    put(&agent, "/v1/agent/check/register", r#"{"Name":"c","TTL":"1s","Status":"passing"}"#);
    killed(agent);
    let agent = data.start(&[]);
    let expired = || said(&agent).contains(&"c critical TTL expired".to_string()).then_some(());
    wait_for("the TTL to expire", expired, || format!("{:?}", said(&agent)));
}

#[test]
fn files_win_and_what_hung_on_the_service_stays() {
    let data = Data::new();
    let agent = data.start(&[]);
    register(&agent, r#"{"Name":"web","Port":80,"Check":{"CheckID":"c1","TTL":"1h"}}"#);
    put(&agent, "/v1/agent/check/register", r#"{"Name":"node","TTL":"1h"}"#);
    killed(agent);

    let file = "service { name = \"web\" port = 81 }\nchecks { id = \"node\" name = \"files\" ttl = \"1h\" }";
    let agent = data.start(&[("a.hcl", file)]);
    assert_eq!(agent.get("/v1/agent/services")["web"]["Port"], 81);
    assert_eq!(agent.get("/v1/agent/checks")["node"]["Name"], "files");
    assert_eq!(said(&agent), ["c1 critical", "node critical"]);
    assert_eq!(data.files("checks"), [""; 0], "the file's check is not kept any more");
    let kept = fs::read_to_string(data.only("services")).unwrap();
    assert!(kept.contains("\"c1\"") && !kept.contains("\"port\""), "only the check is: {kept}");
    killed(agent);

    // When the file goes, service and check are gone.
    let agent = data.start(&[]);
    assert_eq!(agent.get("/v1/agent/services"), json!({}));
    assert_eq!(said(&agent), [""; 0]);
    assert_eq!(data.files("services"), [""; 0]);
}

#[test]
fn a_registration_over_a_files_service_lasts_until_the_files_are_read_again() {
    let file = [("a.hcl", "service { name = \"web\" port = 81 }")];
    let data = Data::new();
    let agent = data.start(&file);
    let port = |agent: &Agent| agent.get("/v1/agent/services")["web"]["Port"].clone();
    register(&agent, r#"{"Name":"web","Port":80}"#);
    assert_eq!(port(&agent), 80);
    assert!(fs::read_to_string(data.only("services")).unwrap().contains("80"));
    put(&agent, "/v1/agent/reload", "");
    assert_eq!(port(&agent), 81);
    assert_eq!(data.files("services"), [""; 0]);

    register(&agent, r#"{"Name":"web","Port":80}"#);
    killed(agent);
    let agent = data.start(&file);
    assert_eq!(port(&agent), 81);
    assert_eq!(data.files("services"), [""; 0]);
}

#[test]
fn what_cannot_be_used_is_set_aside_and_the_agent_starts() {
    let data = Data::new();
    let agent = data.start(&[]);
    for name in ["torn", "newer", "good"] {
        register(&agent, &format!(r#"{{"Name":"{name}"}}"#));
    }
    put(&agent, "/v1/agent/check/register", r#"{"Name":"c","TTL":"1h"}"#);
    put(&agent, "/v1/agent/check/pass/c?note=fine", "");
    killed(agent);
    let mut paths = std::collections::BTreeMap::new();
    for file in data.files("services") {
        let path = data.0.join("services").join(file);
        let text = fs::read_to_string(&path).unwrap();
        let name = ["torn", "newer", "good"].into_iter().find(|name| text.contains(name)).unwrap();
        paths.insert(name, (path, text));
    }
    let (torn, text) = &paths["torn"];
    fs::write(torn, &text[..text.len() - 9]).unwrap();
    let (newer, text) = &paths["newer"];
    fs::write(newer, text.replacen("service 1 ", "service 2 ", 1)).unwrap();
    fs::write(data.0.join("services/x.tmp"), "half").unwrap();
    fs::write(data.0.join("services/foreign"), r#"{"Token":"","Service":{"ID":"web"}}"#).unwrap();
    fs::copy(&paths["good"].0, data.0.join("checks/copied")).unwrap();
    let journal = data.0.join("checks/state/journal");
    fs::write(&journal, fs::read_to_string(&journal).unwrap() + "0123456789abcdef {\"check\":\"c\"}\n")
        .unwrap();

    let agent = data.start(&[]);
    let services = agent.get("/v1/agent/services");
    assert_eq!(services.as_object().unwrap().keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(said(&agent), ["c passing fine"], "what is good of the journal counts");
    let named = |path: &Path| path.display().to_string();
    for (path, reason) in [
        (named(torn), "its checksum is not that of its contents"),
        (named(newer), "it has version 2 of its form"),
        (named(&data.0.join("services/foreign")), "it is not lictor's"),
        (named(&data.0.join("checks/copied")), "its name is not that of its id"),
        (named(&journal), "its checksum is not that of its contents"),
    ] {
        let log = agent.log();
        let told =
            log.lines().any(|line| line.contains("WARN") && line.contains(&path) && line.contains(reason));
        assert!(told, "{path} {reason}: {log}");
    }
    agent.wait_for_log("Ignoring temporary service file");
    assert!(data.0.join("services/x.tmp").exists());
    let aside = data.files("quarantine");
    assert_eq!(aside.len(), 5, "{aside:?}");
    assert!(aside.contains(&"services-foreign".into()) && aside.contains(&"checks-state-journal".into()));
    killed(agent);

    // Once more the same name: nothing that was set aside is lost.
    fs::write(data.0.join("services/foreign"), "other").unwrap();
    let _agent = data.start(&[]);
    assert_eq!(fs::read_to_string(data.0.join("quarantine/services-foreign.1")).unwrap(), "other");
}

#[test]
fn what_is_deregistered_is_gone_at_once_with_the_words_of_its_checks() {
    let data = Data::new();
    let agent = data.start(&[]);
    let web = r#"{"Name":"web","Check":{"CheckID":"c","TTL":"1h"}}"#;
    register(&agent, web);
    put(&agent, "/v1/agent/check/register", r#"{"Name":"disk","TTL":"1h"}"#);
    for id in ["c", "disk"] {
        put(&agent, &format!("/v1/agent/check/pass/{id}"), "");
    }
    assert_eq!((data.files("services").len(), data.files("checks").len()), (1, 1));
    put(&agent, "/v1/agent/service/deregister/web", "");
    put(&agent, "/v1/agent/check/deregister/disk", "");
    assert_eq!((data.files("services").len(), data.files("checks").len()), (0, 0));
    register(&agent, web);
    killed(agent);
    assert_eq!(said(&data.start(&[])), ["c critical"], "the word was of another check");
}

#[test]
fn maintenance_lasts_with_its_reason() {
    let data = Data::new();
    let agent = data.start(&[("a.hcl", "service { name = \"db\" }")]);
    register(&agent, r#"{"Name":"web"}"#);
    put(&agent, "/v1/agent/service/maintenance/web?enable=true&reason=disk", "");
    put(&agent, "/v1/agent/service/maintenance/db?enable=true&reason=files", "");
    put(&agent, "/v1/agent/maintenance?enable=true&reason=move", "");
    let checks = agent.get("/v1/agent/checks");
    killed(agent);
    let agent = data.start(&[("a.hcl", "service { name = \"db\" }")]);
    assert_eq!(agent.get("/v1/agent/checks"), checks);
    for (path, left) in [
        ("/v1/agent/maintenance", 2),
        ("/v1/agent/service/maintenance/web", 1),
        ("/v1/agent/service/maintenance/db", 0),
    ] {
        put(&agent, &format!("{path}?enable=false"), "");
        assert_eq!(agent.get("/v1/agent/checks").as_object().unwrap().len(), left);
    }
    drop(agent);
    let agent = data.start(&[("a.hcl", "service { name = \"db\" }")]);
    assert_eq!(said(&agent), [""; 0]);
    agent.wait_for_answers("web.service.consul.", RecordType::A, &[&format!("A {}", agent.address)]);
}

#[test]
fn what_cannot_be_written_is_refused_and_changes_nothing() {
    let data = Data::new();
    let agent = data.start(&[]);
    register(&agent, r#"{"Name":"web","Port":80}"#);
    put(&agent, "/v1/agent/check/register", r#"{"Name":"c","TTL":"1h","Status":"passing"}"#);
    let (file, before) = (data.only("services"), fs::read(data.only("services")).unwrap());
    // Nothing can be written where a directory stands.
    let in_the_way = file.with_extension("tmp");
    fs::create_dir_all(in_the_way.join("x")).unwrap();
    let (status, text) = agent.request("PUT", "/v1/agent/service/register", r#"{"Name":"web","Port":81}"#);
    assert_eq!(status, 500);
    let named = format!("nothing was changed: it cannot be written: {}: ", in_the_way.display());
    assert!(text.starts_with(&named) && text.contains("os error"), "{text}");
    let (status, _) = agent.request("PUT", "/v1/agent/service/maintenance/web?enable=true", "");
    assert_eq!(status, 500);
    assert_eq!(agent.get("/v1/agent/services")["web"]["Port"], 80);
    assert_eq!(said(&agent), ["c passing"]);
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(agent.answers("web.service.consul.", RecordType::SRV), ["SRV 1 1 80 test-1.node.dc1.consul."]);
    register(&agent, r#"{"Name":"other"}"#);
    fs::remove_dir_all(in_the_way).unwrap();
    register(&agent, r#"{"Name":"web","Port":81}"#);
    assert_eq!(agent.get("/v1/agent/services")["web"]["Port"], 81);

    // A word counts though it cannot be written.
    let state = data.0.join("checks/state");
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "").unwrap();
    put(&agent, "/v1/agent/check/pass/c?note=fine", "");
    assert_eq!(said(&agent), ["c passing fine"]);
}

/// On a real file system of its own, of 256 kB.
#[test]
fn a_full_disk_refuses_what_comes_and_recovers() {
    if !Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success()) {
        println!("skipped: unshare -rm is not there, or not allowed");
        return;
    }
    let data = Data::new();
    let mut command = Command::new("unshare");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).args(["-rm", "sh", "-c"]);
    command.arg(r#"mount -t tmpfs -o size=256k none "$0" && exec "$@""#);
    command.arg(&data.0).arg(env!("CARGO_BIN_EXE_lictor"));
    let agent = Agent::launch(command, support::fresh_address(), &["-dev", &data.flag()], &[]);
    agent.wait_for_log("agent running!");
    let try_register = |name: &str, port: u16| {
        let body = format!(r#"{{"Name":"{name}","Port":{port}}}"#);
        agent.request("PUT", "/v1/agent/service/register", &body)
    };
    put(&agent, "/v1/agent/check/register", r#"{"Name":"c","TTL":"1h"}"#);
    let mut count = 0;
    let text = loop {
        match try_register(&format!("s{count}"), 80) {
            (200, _) => count += 1,
            (status, text) => break (status, text),
        }
        assert!(count < 200);
    };
    assert_eq!(text.0, 500);
    assert!(text.1.starts_with("nothing was changed: ") && text.1.contains("No space left"), "{}", text.1);
    assert_eq!(try_register("s0", 81).0, 500);
    let services = agent.get("/v1/agent/services");
    assert_eq!((services.as_object().unwrap().len(), &services["s0"]["Port"]), (count, &json!(80)));
    for word in 0..3 {
        put(&agent, &format!("/v1/agent/check/pass/c?note={word}{}", "x".repeat(3000)), "");
    }
    assert_eq!(said(&agent), [format!("c passing 2{}", "x".repeat(3000))], "a word counts on a full disk");
    agent.wait_for_log("the words of TTL checks count, but cannot be written");
    put(&agent, "/v1/agent/service/deregister/s1", "");
    put(&agent, "/v1/agent/service/deregister/s2", "");
    assert_eq!(try_register("s0", 81), (200, String::new()));
    put(&agent, "/v1/agent/check/pass/c?note=fine", "");
    agent.wait_for_log("the words of TTL checks are written again");
}

/// `config-cli.md` §2.1.
#[test]
fn a_nodes_id_is_drawn_once() {
    let data = Data::new();
    let path = data.0.join("node-id");
    let id = |agent: &Agent| agent.get("/v1/agent/self")["Config"]["NodeID"].as_str().unwrap().to_string();
    let agent = data.start(&[]);
    let drawn = id(&agent);
    assert_eq!(fs::read_to_string(&path).unwrap(), drawn);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    killed(agent);
    assert_eq!(id(&data.start(&[])), drawn);

    let given = "7b1f0d3e-52c4-4a0c-9a53-6f1f4b0f9a11";
    let agent = Agent::start(&["-dev", &data.flag(), &format!("-node-id={given}")]);
    assert_eq!(id(&agent), given);
    assert_eq!(fs::read_to_string(&path).unwrap(), drawn, "what is given is not written");
    drop(agent);

    for (text, what) in [("half", "wrong length"), (&given.replace('7', "z"), "improperly formatted")] {
        fs::write(&path, text).unwrap();
        let mut agent = Agent::spawn(&["-dev", &data.flag()], &[]);
        assert_eq!(agent.exit_code(), Some(1));
        agent.wait_for_log(&format!("NodeID in {} is invalid: uuid", path.display()));
        agent.wait_for_log(what);
    }
}

/// A program that somebody named over the API runs only while the operator allows that: not because it once did.
#[test]
fn a_kept_script_runs_only_while_scripts_may() {
    let data = Data::new();
    let may = |may: bool| format!("enable_script_checks = {may}");
    let agent = data.start(&[("a.hcl", &may(true))]);
    register(&agent, r#"{"Name":"web","Check":{"CheckID":"c","Args":["true"],"Interval":"1s"}}"#);
    let passes = |agent: &Agent| {
        let passing = || (said(agent) == ["c passing"]).then_some(());
        wait_for("the script to pass", passing, || format!("{:?}", said(agent)));
    };
    let refused = [
        "c critical Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true",
    ];
    passes(&agent);
    killed(agent);
    let agent = data.start(&[("a.hcl", &may(false))]);
    assert_eq!(said(&agent), refused);
    is_not_answered(&agent, "web");
    fs::write(agent.folder.join("a.hcl"), may(true)).unwrap();
    put(&agent, "/v1/agent/reload", "");
    passes(&agent);
    fs::write(agent.folder.join("a.hcl"), may(false)).unwrap();
    put(&agent, "/v1/agent/reload", "");
    assert_eq!(said(&agent), refused);
}

/// What the catalog holds beside registrations is there again, too.
#[test]
fn what_operators_and_nodes_said_comes_back() {
    let data = Data::new();
    let start = || Agent::start(&["-server", "-bootstrap-expect=1", &data.flag()]);
    let agent = start();
    put(&agent, "/v1/operator/autopilot/configuration", r#"{"MinQuorum":3}"#);
    put(&agent, "/v1/coordinate/update", r#"{"Node":"test-1","Coord":{"Vec":[0.5,0,0,0,0,0,0,0]}}"#);
    let (status, text) = agent.request("POST", "/v1/query", r#"{"Name":"geo","Service":{"Service":"web"}}"#);
    assert_eq!(status, 200, "{text}");
    let is_there = || (agent.get("/v1/coordinate/nodes") != json!([])).then_some(());
    wait_for("the coordinate to be written", is_there, || agent.log());
    let read = |agent: &Agent| {
        let paths = ["/v1/coordinate/nodes", "/v1/operator/autopilot/configuration", "/v1/query"];
        paths.map(|path| agent.get(path))
    };
    let before = read(&agent);
    killed(agent);
    assert_eq!(read(&start()), before);
}

/// All of it comes back from an archive, to another server, and stays there.
#[test]
fn an_archive_brings_the_state_to_another_server() {
    let (one, other) = (Data::new(), Data::new());
    let start = |data: &Data| Agent::start(&["-server", "-bootstrap-expect=1", &data.flag()]);
    let agent = start(&one);
    register(&agent, r#"{"Name":"left-behind"}"#);
    let body = r#"{"Node":"oak","Address":"10.0.0.1","Service":{"Service":"web","Port":80}}"#;
    put(&agent, "/v1/catalog/register", body);
    put(&agent, "/v1/operator/autopilot/configuration", r#"{"MinQuorum":3}"#);
    let (web, settings) =
        (agent.get("/v1/catalog/service/web"), agent.get("/v1/operator/autopilot/configuration"));
    let (status, archive) = agent.request_bytes("GET", "/v1/snapshot", b"");
    assert_eq!(status, 200);
    drop(agent);

    let agent = start(&other);
    register(&agent, r#"{"Name":"own"}"#);
    let mut damaged = archive.clone();
    damaged[archive.len() / 2] ^= 4;
    let before = agent.get("/v1/catalog/nodes");
    assert_eq!(agent.request_bytes("PUT", "/v1/snapshot", &damaged).0, 500);
    assert_eq!(agent.get("/v1/catalog/nodes"), before);
    let (status, text) = agent.request_bytes("PUT", "/v1/snapshot", &archive);
    assert_eq!((status, String::from_utf8_lossy(&text)), (200, "".into()));
    let is_restored = |agent: &Agent| {
        assert_eq!(agent.get("/v1/catalog/service/web"), web);
        assert_eq!(agent.get("/v1/operator/autopilot/configuration"), settings);
        assert_eq!(agent.answers("web.service.consul.", RecordType::A), ["A 10.0.0.1"]);
    };
    is_restored(&agent);
    // What an agent has itself stands in the catalog again soon.
    let is_there = || (agent.get("/v1/catalog/service/own") != json!([])).then_some(());
    wait_for("this agent's own service", is_there, || agent.log());
    killed(agent);
    is_restored(&start(&other));
}
