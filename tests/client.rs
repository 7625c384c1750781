//! An agent that is no server, beside one that is: real processes on loopback addresses of their own. What it is asked about
//! the datacenter a server answers; what it registers is kept, whoever is away.

mod support;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use serde_json::{Value, json};
use support::{
    Agent, ask, ask_tcp, ask_with_edns, fresh_address, fresh_folder, try_request, type_words, wait_for,
};

/// A folder that is gone with its test.
struct Data(PathBuf);

impl Drop for Data {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

impl Data {
    fn flag(&self) -> String {
        format!("-data-dir={}", self.0.display())
    }
}

fn start(name: &str, address: Ipv4Addr, arguments: &[&str], files: &[(&str, &str)]) -> Agent {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lictor"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = format!("-node={name}");
    let arguments: Vec<&str> = ["-dev", &name].into_iter().chain(arguments.iter().copied()).collect();
    let agent = Agent::launch(command, address, &arguments, files);
    agent.wait_for_log("agent running!");
    agent
}

fn server() -> Agent {
    start("oak", fresh_address(), &[], &[])
}

fn client_of(server: &Agent, name: &str, files: &[(&str, &str)]) -> Agent {
    let join = format!("-retry-join={}", server.address);
    let agent = start(name, fresh_address(), &["-server=false", "-bootstrap=false", &join], files);
    wait_for_server(&agent);
    agent
}

fn wait_for_server(agent: &Agent) {
    let known = || (agent.get("/v1/agent/self")["Stats"]["consul"]["known_servers"] == "1").then_some(());
    wait_for("a server to be known", known, || agent.log());
}

const WEB: (&str, &str) = ("web.hcl", "service {\n  name = \"web\"\n  port = 80\n  tags = [\"blue\"]\n}\n");

#[test]
fn what_a_client_registers_is_answered_everywhere() {
    let oak = server();
    let elm = client_of(&oak, "elm", &[WEB]);
    let expected = "SRV 1 1 80 elm.node.dc1.consul.";
    for agent in [&oak, &elm] {
        agent.wait_for_answers("web.service.consul", RecordType::SRV, &[expected]);
        agent.wait_for_answers("blue.web.service.consul", RecordType::A, &[&format!("A {}", elm.address)]);
    }
    let about = elm.get("/v1/agent/self");
    assert_eq!(
        (&about["Config"]["Server"], &about["Member"]["Tags"]["role"]),
        (&json!(false), &json!("node"))
    );
    let (status, _) = elm.request("PUT", "/v1/agent/service/register", "{\"Name\": \"db\", \"Port\": 5432}");
    assert_eq!(status, 200);
    let service = oak.get("/v1/health/service/db");
    assert_eq!((&service[0]["Node"]["Node"], &service[0]["Service"]["Port"]), (&json!("elm"), &json!(5432)));
    assert_eq!(elm.request("PUT", "/v1/agent/service/deregister/db", "").0, 200);
    assert_eq!(oak.get("/v1/health/service/db"), json!([]));
    // Removed by somebody else, it is not a client's to bring back before it looks; what it says then is told.
    let checks = "{\"Name\": \"up\", \"TTL\": \"1h\", \"ServiceID\": \"web\"}";
    assert_eq!(elm.request("PUT", "/v1/agent/check/register", checks).0, 200);
    elm.wait_for_answers("web.service.consul", RecordType::SRV, &[]);
    assert_eq!(elm.request("PUT", "/v1/agent/check/pass/up", "").0, 200);
    elm.wait_for_answers("web.service.consul", RecordType::SRV, &[expected]);
}

#[test]
fn requests_about_the_datacenter_go_to_a_server() {
    let oak = server();
    let elm = client_of(&oak, "elm", &[]);
    assert_eq!(elm.request("PUT", "/v1/kv/a/b", "value"), (200, "true\n".into()), "nested, in dev mode");
    assert_eq!(elm.request("GET", "/v1/kv/a/b?raw", ""), (200, "value".into()));
    assert_eq!(oak.request("GET", "/v1/kv/a/b?raw", ""), (200, "value".into()));
    assert_eq!(elm.request("GET", "/v1/kv/none", "").0, 404);
    // What is said of this agent is said of the one that was asked.
    wait_for(
        "elm to be registered",
        || (elm.get("/v1/catalog/node/elm") != Value::Null).then_some(()),
        || elm.log(),
    );
    let (status, session) =
        elm.request("PUT", "/v1/session/create", "{\"Name\": \"mine\", \"NodeChecks\": []}");
    assert_eq!(status, 200, "{session}");
    let session: Value = serde_json::from_str(&session).unwrap();
    let info = elm.get(&format!("/v1/session/info/{}", session["ID"].as_str().unwrap()));
    assert_eq!(info[0]["Node"], "elm");
    let query = "{\"Name\": \"near\", \"Service\": {\"Service\": \"consul\", \"Near\": \"_agent\"}}";
    assert_eq!(elm.request("POST", "/v1/query", query).0, 200);
    assert_eq!(elm.get("/v1/query/near/execute")["Nodes"][0]["Node"]["Node"], "oak");
    // Faults: those of the request as they are, those of servers with what a hop adds.
    assert_eq!(elm.request("GET", "/v1/kv/a?index=x", ""), (400, "Invalid index".into()));
    let unknown = (500, "rpc error making call: No path to datacenter".into());
    assert_eq!(elm.request("GET", "/v1/catalog/nodes?dc=dc9", ""), unknown);
    let large = "x".repeat(600 * 1024);
    let (status, text) = elm.request("PUT", "/v1/kv/large", &large);
    assert_eq!(status, 413, "{text}");
    assert!(text.contains("too large, max size: 524288 bytes"), "{text}");
    // A large list comes whole, and with its length.
    for n in 0..300 {
        let body = format!(
            "{{\"Node\": \"n{n}\", \"Address\": \"10.0.0.1\", \"Service\": {{\"Service\": \"many\"}}}}"
        );
        assert_eq!(elm.request("PUT", "/v1/catalog/register", &body).0, 200);
    }
    let (status, list) = elm.request("GET", "/v1/health/service/many", "");
    assert_eq!((status, &list), (200, &oak.request("GET", "/v1/health/service/many", "").1));
    assert!(list.len() > 100_000, "{}", list.len());
    // And one that no message would hold.
    for n in 0..10 {
        assert_eq!(elm.request("PUT", &format!("/v1/kv/large/{n}"), &large[..500_000]).0, 200);
    }
    let (status, list) = elm.request("GET", "/v1/kv/large/?recurse", "");
    assert!(status == 200 && list.len() > 6_000_000, "{status}: {} bytes", list.len());
    assert!(list == oak.request("GET", "/v1/kv/large/?recurse", "").1);
    // An archive, there and back again.
    let (status, archive) = elm.request_bytes("GET", "/v1/snapshot", b"");
    assert_eq!((status, &archive[..2]), (200, &[0x1f, 0x8b][..]));
    elm.request("DELETE", "/v1/kv/a/b", "");
    assert_eq!(elm.request_bytes("PUT", "/v1/snapshot", &archive).0, 200);
    assert_eq!(elm.request("GET", "/v1/kv/a/b?raw", ""), (200, "value".into()));
    let (status, _) = elm.request_bytes("PUT", "/v1/snapshot", &archive[..archive.len() / 2]);
    assert_eq!(status, 500, "half of one is none");
}

#[test]
fn a_read_that_waits_is_answered_by_a_change() {
    let oak = server();
    let elm = client_of(&oak, "elm", &[]);
    elm.request("PUT", "/v1/kv/x", "1");
    let index = elm.get("/v1/kv/x")[0]["ModifyIndex"].as_u64().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| elm.get(&format!("/v1/kv/x?index={index}&wait=60s")));
        let asked = || (oak.get("/v1/agent/metrics?format=now") != Value::Null).then_some(());
        wait_for("the server to be there", asked, String::new);
        oak.request("PUT", "/v1/kv/x", "2");
        let value = waiting.join().unwrap();
        assert!(value[0]["ModifyIndex"].as_u64().unwrap() > index);
    });
    let same = elm.get("/v1/kv/x")[0]["ModifyIndex"].as_u64().unwrap();
    let waited = elm.get(&format!("/v1/kv/x?index={same}&wait=10ms"));
    assert_eq!(waited[0]["ModifyIndex"].as_u64(), Some(same), "after its wait");
}

#[test]
fn who_waits_is_told_what_there_is_when_the_asked_agent_stops() {
    let oak = server();
    let mut elm = client_of(&oak, "elm", &[]);
    elm.request("PUT", "/v1/kv/x", "1");
    let index = elm.get("/v1/kv/x")[0]["ModifyIndex"].as_u64().unwrap();
    let mut waiting = TcpStream::connect(elm.http()).unwrap();
    waiting.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let head = "Host: test\r\nConnection: close\r\n\r\n";
    write!(waiting, "GET /v1/kv/x?raw&index={index}&wait=5m HTTP/1.1\r\n{head}").unwrap();
    // Who comes later is answered later.
    elm.get("/v1/agent/self");
    elm.signal("TERM");
    assert_eq!(elm.exit_code(), Some(0));
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n1"), "{answer}");
}

#[test]
fn names_are_answered_as_the_asked_agent_would() {
    let oak = server();
    let own = "dns_config {\n  service_ttl { \"*\" = \"7s\" }\n}\ndomain = \"elms.\"\n";
    let elm = client_of(&oak, "elm", &[WEB, ("own.hcl", own)]);
    oak.wait_for_answers("web.service.consul", RecordType::SRV, &["SRV 1 1 80 elm.node.dc1.consul."]);
    elm.wait_for_answers("web.service.elms", RecordType::SRV, &["SRV 1 1 80 elm.node.dc1.elms."]);
    for asked in [ask, ask_tcp, ask_with_edns] {
        let reply = asked(elm.dns(), "web.service.elms", RecordType::A);
        assert_eq!((reply.answers[0].ttl, reply.metadata.authoritative), (7, true), "its own TTL and zone");
    }
    let none = ask(elm.dns(), "none.service.elms", RecordType::A);
    assert_eq!((none.metadata.response_code, none.authorities.len()), (ResponseCode::NXDomain, 1));
    assert_eq!(
        ask(elm.dns(), "web.service.consul", RecordType::A).metadata.response_code,
        ResponseCode::Refused
    );
    let [a, b, c, d] = elm.address.octets();
    elm.wait_for_answers(
        &format!("{d}.{c}.{b}.{a}.in-addr.arpa"),
        RecordType::PTR,
        &["PTR elm.node.dc1.elms."],
    );
    let nobody = ask(elm.dns(), "1.2.0.192.in-addr.arpa", RecordType::PTR);
    assert_eq!(nobody.metadata.response_code, ResponseCode::NXDomain, "a zone that is built in");
    let apex = ask(elm.dns(), "elms", RecordType::NS);
    assert_eq!(apex.answers.len(), 1, "the servers");
}

#[test]
fn with_no_server_known_it_says_so_and_keeps_what_it_is_told() {
    let elm = start("elm", fresh_address(), &["-server=false", "-bootstrap=false"], &[WEB]);
    let unknown = (500, "No known Consul servers".to_string());
    for path in ["/v1/kv/x", "/v1/catalog/nodes", "/v1/health/service/web?stale", "/v1/status/leader"] {
        assert_eq!(elm.request("GET", path, ""), unknown, "{path}");
    }
    assert_eq!(elm.request("PUT", "/v1/kv/x", "1"), unknown);
    assert_eq!(elm.get("/v1/agent/services")["web"]["Port"], 80);
    assert_eq!(elm.request("PUT", "/v1/agent/service/register", "{\"Name\": \"db\"}").0, 200);
    let reply = ask(elm.dns(), "web.service.consul", RecordType::A);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(ask(elm.dns(), "localhost", RecordType::A).answers.len(), 1, "a static zone");
    // Once there is one, it hears of all that.
    let oak = server();
    assert_eq!(elm.request("PUT", &format!("/v1/agent/join/{}", oak.address), "").0, 200);
    for service in ["web", "db"] {
        let there = || (oak.get(&format!("/v1/catalog/service/{service}"))[0]["Node"] == "elm").then_some(());
        wait_for(&format!("{service} to be there"), there, || elm.log());
    }
}

/// A server that keeps its state.
struct Kept {
    data: Data,
    address: Ipv4Addr,
}

impl Kept {
    fn new() -> Kept {
        Kept { data: Data(fresh_folder()), address: fresh_address() }
    }

    fn start(&self) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lictor"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let arguments = ["-node=oak", "-server", "-bootstrap-expect=1", &self.data.flag()];
        let agent = Agent::launch(command, self.address, &arguments, &[]);
        agent.wait_for_log("agent running!");
        agent
    }
}

#[test]
fn registrations_are_kept_while_the_server_is_away() {
    let kept = Kept::new();
    let oak = kept.start();
    let elm = client_of(&oak, "elm", &[WEB]);
    elm.wait_for_answers("web.service.consul", RecordType::SRV, &["SRV 1 1 80 elm.node.dc1.consul."]);
    oak.signal("KILL");
    drop(oak);
    // Before and after it is known to be gone.
    assert_eq!(elm.request("PUT", "/v1/agent/service/register", "{\"Name\": \"db\"}").0, 200);
    let refused = "rpc error getting client: failed to get conn: dial tcp ";
    let told = || {
        let (status, text) = elm.request("GET", "/v1/kv/x", "");
        assert_eq!(status, 500);
        assert!(
            text == "No known Consul servers"
                || text.starts_with(refused)
                || text.starts_with("rpc error making call: "),
            "{text}"
        );
        (text == "No known Consul servers").then_some(())
    };
    wait_for("the server to be gone", told, || elm.log());
    assert_eq!(elm.request("PUT", "/v1/agent/service/register", "{\"Name\": \"cache\"}").0, 200);
    assert_eq!(elm.request("PUT", "/v1/agent/service/deregister/web", "").0, 200);
    let oak = kept.start();
    let there = || {
        let services = oak.get("/v1/catalog/node-services/elm")["Services"].clone();
        let mut names: Vec<String> =
            services.as_array()?.iter().map(|service| service["Service"].as_str().unwrap().into()).collect();
        names.sort();
        (names == ["cache", "db"]).then_some(())
    };
    wait_for("all that was registered", there, || {
        format!("{}\n{}", oak.get("/v1/catalog/node-services/elm"), elm.log())
    });
}

/// Every agent compares all that it has when a server came; where nothing differs, nothing is written.
#[test]
fn a_comparison_that_finds_nothing_writes_nothing() {
    let kept = Kept::new();
    let oak = kept.start();
    let elm = client_of(&oak, "elm", &[WEB]);
    elm.wait_for_answers("web.service.consul", RecordType::SRV, &["SRV 1 1 80 elm.node.dc1.consul."]);
    let compared = || elm.log().matches("compared with the catalog: nothing differs").count();
    let rows = elm.get("/v1/catalog/node/elm");
    let before = compared();
    oak.signal("KILL");
    drop(oak);
    // Its going is noticed first: else nobody sees it come.
    let gone = || (elm.request("GET", "/v1/kv/x", "").1 == "No known Consul servers").then_some(());
    wait_for("the server to be gone", gone, || elm.log());
    let _oak = kept.start();
    wait_for("a comparison", || (compared() > before).then_some(()), || elm.log());
    assert_eq!(elm.get("/v1/catalog/node/elm"), rows, "indexes and all");
}

#[test]
fn one_that_leaves_is_not_there_any_more() {
    let prometheus = ("figures.hcl", "telemetry { prometheus_retention_time = \"60s\" }");
    let oak = start("oak", fresh_address(), &[], &[prometheus]);
    let mut elm = client_of(&oak, "elm", &[WEB]);
    oak.wait_for_answers("web.service.consul", RecordType::SRV, &["SRV 1 1 80 elm.node.dc1.consul."]);
    let (_, figures) = oak.request("GET", "/v1/agent/metrics?format=prometheus", "");
    let mut asked = figures.lines().filter(|line| line.starts_with("consul_rpc_request"));
    assert!(asked.any(|line| !line.ends_with(" 0")), "{figures}");
    elm.signal("TERM");
    assert_eq!(elm.exit_code(), Some(0), "it leaves by itself");
    let gone = || (oak.get("/v1/catalog/node/elm") == Value::Null).then_some(());
    wait_for("elm to be gone", gone, || oak.log());
    oak.wait_for_answers("web.service.consul", RecordType::SRV, &[]);
}

/// What is registered while it goes is not told: it would be taken for there.
#[test]
fn one_that_has_left_tells_nothing_more() {
    let oak = server();
    let mut elm = client_of(&oak, "elm", &[WEB]);
    oak.wait_for_answers("web.service.consul", RecordType::SRV, &["SRV 1 1 80 elm.node.dc1.consul."]);
    elm.signal("TERM");
    let gone = || (oak.get("/v1/catalog/node/elm") == Value::Null).then_some(());
    wait_for("elm to be gone", gone, || oak.log());
    assert_eq!(elm.request("PUT", "/v1/agent/service/register", "{\"Name\": \"late\"}").0, 200);
    assert_eq!(oak.get("/v1/catalog/node/elm"), Value::Null);
    assert_eq!(elm.exit_code(), Some(0));
    assert_eq!(oak.get("/v1/catalog/node/elm"), Value::Null);
}

/// Nor does it wait for a server that does not answer.
#[test]
fn it_ends_in_time_where_its_server_hangs() {
    for leaves in ["true", "false"] {
        let oak = server();
        let file = format!("leave_on_terminate = {leaves}");
        let mut elm = client_of(&oak, "elm", &[WEB, ("leave.hcl", &file)]);
        oak.wait_for_answers("web.service.consul", RecordType::SRV, &["SRV 1 1 80 elm.node.dc1.consul."]);
        oak.signal("STOP");
        let api = elm.http();
        let told = thread::spawn(move || {
            try_request(api, "PUT", "/v1/agent/service/register", "{\"Name\": \"late\"}")
        });
        let here = || elm.get("/v1/agent/services").get("late").map(drop);
        wait_for("it to be registered here", here, || elm.log());
        elm.signal("TERM");
        assert_eq!(elm.exit_code(), Some(i32::from(leaves == "false")), "{}", elm.log());
        assert!(!elm.log().contains("did not stop in time"), "{}", elm.log());
        assert!(told.join().unwrap().is_ok(), "whoever waits is answered");
        oak.signal("CONT");
    }
}

/// Near is what is near to the agent that was asked.
#[test]
fn instances_are_sorted_by_their_distance_from_the_asked_agent() {
    let oak = server();
    let elm = client_of(&oak, "elm", &[]);
    let instance = "{\"Node\": \"NODE\", \"Address\": \"10.0.0.1\", \"Service\": {\"Service\": \"web\"}}";
    for node in ["ash", "fir"] {
        assert_eq!(oak.request("PUT", "/v1/catalog/register", &instance.replace("NODE", node)).0, 200);
    }
    let query = "{\"Name\": \"near\", \"Service\": {\"Service\": \"web\", \"Near\": \"_agent\"}}";
    assert_eq!(elm.request("POST", "/v1/query", query).0, 200);
    let told = || {
        let nodes = oak.get("/v1/coordinate/nodes");
        let names = nodes.as_array().unwrap().iter().map(|one| one["Node"].as_str().unwrap().to_string());
        ["elm", "oak"].iter().all(|name| names.clone().any(|told| told == *name)).then_some(nodes.clone())
    };
    wait_for("both to say where they are", told, || oak.get("/v1/coordinate/nodes").to_string());
    let (said, error, code) = type_words(&elm, &["rtt", "elm", "oak"]);
    let millis = said.strip_prefix("Estimated elm <-> oak rtt: ");
    let millis = millis.and_then(|rest| rest.strip_suffix(" ms (using LAN coordinates)\n"));
    let millis: f64 =
        millis.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{said}{error}"));
    assert!(code == 0 && millis > 0.0 && millis < 1000.0, "{said}");

    // One is far from all that was measured; then the client is where that one is.
    let place = |node: &str, at: f64| {
        let vec = [at, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let coord = json!({"Vec": vec, "Error": 0.1, "Adjustment": 0.0, "Height": 0.00001});
        let body = json!({"Node": node, "Segment": "", "Coord": coord}).to_string();
        assert_eq!(elm.request("PUT", "/v1/coordinate/update", &body).0, 200);
    };
    let sorted = |agent: &Agent| {
        let near = agent.get("/v1/health/service/web?near=_agent");
        let asked = agent.get("/v1/query/near/execute")["Nodes"].clone();
        [near, asked].map(|list| list[0]["Node"]["Node"].as_str().unwrap_or("none").to_string())
    };
    let wait_for_order = |of_elm: &str, of_oak: &str, places: &[(&str, f64)]| {
        let ordered = || {
            places.iter().for_each(|(node, at)| place(node, *at));
            (sorted(&elm) == [of_elm; 2] && sorted(&oak) == [of_oak; 2]).then_some(())
        };
        wait_for(&format!("{of_elm} and {of_oak} to be first"), ordered, || {
            format!("{:?} {:?} {}", sorted(&elm), sorted(&oak), oak.get("/v1/coordinate/nodes"))
        });
    };
    wait_for_order("fir", "fir", &[("ash", 20.0), ("fir", 0.0)]);
    wait_for_order("ash", "ash", &[("ash", 0.0), ("fir", 20.0)]);
    wait_for_order("fir", "ash", &[("ash", 0.0), ("fir", 20.0), ("elm", 20.0)]);
}

#[test]
fn limits_of_calls_may_be_changed_by_a_reload() {
    let limits =
        |most| format!("limits {{ rpc_handshake_timeout = \"1h\" rpc_max_conns_per_client = {most} }}");
    let oak = start("oak", fresh_address(), &[], &[("limits.hcl", &limits(100))]);
    let connect = || TcpStream::connect((oak.address, 8300)).unwrap();
    let _first = connect();
    fs::write(oak.folder.join("limits.hcl"), limits(1)).unwrap();
    assert_eq!(oak.request("PUT", "/v1/agent/reload", "").0, 200);
    let mut second = connect();
    second.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let heard = second.read(&mut [0]);
    let is_closed = match &heard {
        Ok(bytes) => *bytes == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(is_closed, "{heard:?}");
}

#[test]
fn aliases_follow_nodes_of_others() {
    let oak = server();
    let elm = client_of(&oak, "elm", &[WEB]);
    let node = "{\"Node\": \"ash\", \"Address\": \"10.0.0.9\", \"Check\": {\"Name\": \"up\", \"CheckID\": \"up\", \"Status\": \"STATUS\"}}";
    let say = |status| {
        assert_eq!(oak.request("PUT", "/v1/catalog/register", &node.replace("STATUS", status)).0, 200)
    };
    say("passing");
    let alias =
        "{\"Name\": \"like-ash\", \"ID\": \"like-ash\", \"AliasNode\": \"ash\", \"ServiceID\": \"web\"}";
    assert_eq!(elm.request("PUT", "/v1/agent/check/register", alias).0, 200);
    let is = |status: &str| {
        let now = || elm.get("/v1/agent/checks")["like-ash"]["Status"].clone();
        wait_for(&format!("the alias to be {status}"), || (now() == status).then_some(()), || elm.log());
    };
    is("passing");
    say("critical");
    is("critical");
    elm.wait_for_answers("web.service.consul", RecordType::SRV, &[]);
    say("passing");
    is("passing");
    elm.wait_for_answers("web.service.consul", RecordType::SRV, &["SRV 1 1 80 elm.node.dc1.consul."]);
}
