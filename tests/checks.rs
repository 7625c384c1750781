//! Checks of a real agent, at real targets, as they show in what is answered.

mod support;

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use bytes::Bytes;
use hickory_proto::rr::RecordType;
use hyper::{HeaderMap, Response};
use support::{Agent, wait_for};

/// A gRPC server whose health can be set, gone with the test.
struct Grpc {
    address: SocketAddr,
    /// As `grpc.health.v1` numbers it.
    status: Arc<AtomicU8>,
    _runtime: tokio::runtime::Runtime,
}

impl Grpc {
    fn start() -> Grpc {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let (address, status) = (listener.local_addr().unwrap(), Arc::new(AtomicU8::new(1)));
        let said = status.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let mut body = respond.send_response(Response::new(()), false).unwrap();
                    let message = [0, 0, 0, 0, 2, 8, said.load(Ordering::SeqCst)];
                    body.send_data(Bytes::copy_from_slice(&message), false).unwrap();
                    let ok = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
                    body.send_trailers(HeaderMap::from_iter(ok)).unwrap();
                }
            }
        });
        Grpc { address, status, _runtime: runtime }
    }
}

const WEB: &str = "web.service.consul.";
const THERE: [&str; 1] = ["SRV 1 1 80 test-1.node.dc1.consul."];

/// And a check that is another kind after a reload starts over as that.
#[test]
fn a_grpc_check_asks_its_server() {
    let server = Grpc::start();
    let file = |target: &str| {
        format!(
            "service {{\n  name = \"web\"\n  port = 80\n  check {{\n    {target}\n    interval = \"1s\"\n  }}\n}}\n"
        )
    };
    let grpc = file(&format!("grpc = \"{}/web\"", server.address));
    let agent = Agent::start_with(&["-dev"], &[("web.hcl", &grpc)]);
    agent.wait_for_answers(WEB, RecordType::SRV, &THERE);
    let check = &agent.get("/v1/agent/checks")["service:web"];
    assert_eq!((&check["Type"], &check["Status"]), (&"grpc".into(), &"passing".into()), "{check}");
    assert_eq!(check["Output"], format!("gRPC check {}/web: success", server.address));
    server.status.store(2, Ordering::SeqCst);
    agent.wait_for_answers(WEB, RecordType::SRV, &[]);
    fs::write(agent.folder.join("web.hcl"), file(&format!("tcp = \"{}\"", server.address))).unwrap();
    agent.signal("HUP");
    agent.wait_for_answers(WEB, RecordType::SRV, &THERE);
    assert_eq!(agent.get("/v1/agent/checks")["service:web"]["Type"], "tcp");
    fs::write(agent.folder.join("web.hcl"), grpc).unwrap();
    agent.signal("HUP");
    agent.wait_for_answers(WEB, RecordType::SRV, &[]);
}

#[test]
fn an_alias_follows_its_target() {
    let agent = Agent::start(&["-dev"]);
    let put = |path: &str, body: &str| assert_eq!(agent.request("PUT", path, body).0, 200, "{path}");
    put("/v1/agent/service/register", r#"{"Name":"db","Check":{"CheckID":"db","Name":"beats","TTL":"1h"}}"#);
    put("/v1/agent/service/register", r#"{"Name":"web","Port":80,"Check":{"AliasService":"db"}}"#);
    let output = |text: &str| {
        let shown = || agent.get("/v1/agent/checks")["service:web"]["Output"].clone();
        wait_for(&format!("the output {text}"), || (shown() == text).then_some(()), || shown().to_string());
    };
    output("Aliased check \"beats\" failing: ");
    assert_eq!(agent.answers(WEB, RecordType::SRV), [] as [&str; 0]);
    put("/v1/agent/check/pass/db", "");
    agent.wait_for_answers(WEB, RecordType::SRV, &THERE);
    assert_eq!(agent.get("/v1/agent/checks")["service:web"]["Type"], "alias");
    put("/v1/agent/check/fail/db?note=worn", "");
    agent.wait_for_answers(WEB, RecordType::SRV, &[]);
    output("Aliased check \"beats\" failing: worn");
    put("/v1/agent/check/deregister/db", "");
    output("No checks found.");
    put("/v1/agent/service/deregister/db", "");
    output("Service db could not be found on node ");
    // A node that the catalog knows, and no agent.
    let printer =
        r#"{"Node":"printer","Address":"10.0.0.9","Check":{"Name":"paper","CheckID":"p","Status":"STATUS"}}"#;
    put("/v1/catalog/register", &printer.replace("STATUS", "passing"));
    let of_node = r#"{"Name":"web","Port":80,"Check":{"AliasNode":"printer"}}"#;
    put("/v1/agent/service/register", of_node);
    output("All checks passing.");
    put("/v1/catalog/register", &printer.replace("STATUS", "critical"));
    output("Aliased check \"paper\" failing: ");
    put("/v1/catalog/deregister", r#"{"Node":"printer"}"#);
    output("Node printer could not be found");
}

/// Two that follow each other have nothing to follow; nothing is written once that is said.
#[test]
fn aliases_of_each_other_come_to_rest() {
    let agent = Agent::start(&["-dev"]);
    for (name, other, status) in [("a", "b", "passing"), ("b", "a", "critical")] {
        let body = format!(r#"{{"Name":"{name}","Check":{{"AliasService":"{other}","Status":"{status}"}}}}"#);
        assert_eq!(agent.request("PUT", "/v1/agent/service/register", &body).0, 200);
    }
    let outputs = || {
        let checks = agent.get("/v1/agent/checks");
        ["service:a", "service:b"].map(|id| checks[id]["Output"].as_str().unwrap_or_default().to_string())
    };
    let said = ["No checks found.", "No checks found."];
    wait_for("both to rest", || (outputs() == said).then_some(()), || format!("{:?}", outputs()));
    let index = || agent.get("/v1/health/state/any")[0]["ModifyIndex"].clone();
    let before = index();
    assert_eq!(agent.request("PUT", "/v1/agent/reload", "").0, 200);
    assert_eq!((outputs(), index()), (said.map(String::from), before));
}

/// By the names of the API, and with its aliases (`http-api.md` §8.3).
#[test]
fn every_kind_is_registered_over_http() {
    let agent = Agent::start(&["-dev", "-enable-script-checks"]);
    let body = r#"{"Name":"all","Checks":[
        {"CheckID":"grpc","GRPC":"127.0.0.1:1/x","GRPCUseTLS":true,"Interval":"1h","TLSServerName":"s"},
        {"CheckID":"grpc2","GRPC":"127.0.0.1:1","grpc_use_tls":true,"Interval":"1h","tls_skip_verify":true},
        {"CheckID":"udp","UDP":"127.0.0.1:1","Interval":"1h"},
        {"CheckID":"alias","AliasNode":"test-1","AliasService":"web"},
        {"CheckID":"docker","DockerContainerID":"c","Shell":"/bin/sh","ScriptArgs":["x"],"Interval":"1h"},
        {"CheckID":"docker2","docker_container_id":"c","Args":["x"],"Interval":"1h"},
        {"CheckID":"h2ping","H2PING":"127.0.0.1:1","H2PingUseTLS":false,"Interval":"1h"},
        {"CheckID":"h2ping2","H2PING":"127.0.0.1:1","h2ping_use_tls":false,"Interval":"1h"},
        {"CheckID":"os_service","OSService":"web","Interval":"1h"}]}"#;
    assert_eq!(agent.request("PUT", "/v1/agent/service/register", body), (200, String::new()));
    let checks = agent.get("/v1/agent/checks");
    for (id, check) in checks.as_object().unwrap() {
        assert_eq!(check["Type"], id.trim_end_matches('2'));
    }
    assert_eq!(checks.as_object().map(|checks| checks.len()), Some(9), "{checks}");
    let node = r#"{"ID":"u","Name":"udp","UDP":"127.0.0.1:1","Interval":"1h"}"#;
    assert_eq!(agent.request("PUT", "/v1/agent/check/register", node), (200, String::new()));
    let check = &agent.get("/v1/agent/checks")["u"];
    assert_eq!((&check["Type"], &check["Interval"]), (&"".into(), &"1h0m0s".into()), "{check}");
    let locked = Agent::start(&["-dev"]);
    let docker = r#"{"Name":"d","Check":{"DockerContainerID":"c","Args":["x"],"Interval":"1h"}}"#;
    let (status, text) = locked.request("PUT", "/v1/agent/service/register", docker);
    assert_eq!((status, text.starts_with("Scripts are disabled on this agent")), (500, true), "{text}");
}
