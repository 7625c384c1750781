//! The HTTP API over real sockets, before an agent in memory. What is asked and answered stands in `tests/http/*.txt`;
//! here is what a script cannot say: malformed bytes, limits, waiting, stopping.

#[path = "http/client.rs"]
mod client;
#[path = "http/follow.rs"]
mod follow;
#[path = "http/handed.rs"]
mod handed;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/memory.rs"]
mod memory;
#[path = "http/script.rs"]
mod script;

use std::{
    io::Read,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use client::{Answer, DEADLINE, ask, connect, get, put, put_bytes, send};
use lictor::http::{Counters, Limits, Server, Settings, response_header};
use memory::Memory;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// A running API, stopped with its test.
struct Running {
    addr: SocketAddr,
    agent: Arc<Memory>,
    settings: Arc<ArcSwap<Settings>>,
    counters: Arc<Counters>,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    fn start(settings: Settings) -> Running {
        let server = Server::bind(&[([127, 0, 0, 1], 0).into()]).unwrap();
        let counters = server.counters().clone();
        let (addr, agent, shutdown) = (server.addrs()[0], Memory::new(), CancellationToken::new());
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let task = tokio::spawn(server.run(agent.clone(), settings.clone(), shutdown.clone()));
        Running { addr, agent, settings, counters, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(DEADLINE, self.task).await.expect("it stops in time").unwrap().unwrap();
    }
}

async fn run_script(script: &str) {
    let api = Running::start(Settings::default());
    script::run(api.addr, script).await;
    api.stop().await;
}

macro_rules! scripts {
    ($($name:ident)*) => {$(
        #[tokio::test]
        async fn $name() {
            run_script(include_str!(concat!("http/", stringify!($name), ".txt"))).await;
        }
    )*};
}

scripts! { absent agent canonical catalog coordinate decoding event filter health kv metrics operator parameters query register session status transport traps txn unconfirmed }

const WEB: &str = r#"{"Node":"oak","Address":"10.0.0.1","Service":{"Service":"web","Port":80}}"#;
const DB: &str = r#"{"Node":"oak","Address":"10.0.0.1","Service":{"Service":"db","Port":5432}}"#;

#[tokio::test]
async fn malformed_requests_are_refused_and_the_connection_ends() {
    let api = Running::start(Settings::default());
    let long = format!("GET /v1/status/leader HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let cases = [
        ("nonsense\r\n\r\n", 400),
        ("GET /v1/kv/%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /v1/status/leader HTTP/1.1\r\n\r\n", 400),
        ("GET /v1/status/leader HTTP/1.1\r\nHost a\r\n\r\n", 400),
        (&long, 431),
    ];
    for (request, status) in cases {
        let mut stream = connect(api.addr).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(Answer::read(&mut stream).await.status, status, "{request:.40}");
        let ended = timeout(DEADLINE, stream.read(&mut [0; 16])).await.expect("the connection ends");
        assert!(matches!(ended, Ok(0) | Err(_)), "{request:.40}");
    }
    let no_host = send(api.addr, "GET /v1/status/leader HTTP/1.1\r\n\r\n").await;
    assert_eq!(no_host.text(), "400 Bad Request: missing required Host header");
    let old = send(api.addr, "GET /v1/status/leader HTTP/1.0\r\n\r\n").await;
    assert_eq!((old.status, old.text()), (200, "\"10.0.0.1:8300\""));
    api.stop().await;
}

#[tokio::test]
async fn bytes_of_any_kind_never_end_the_server() {
    let api = Running::start(Settings::default());
    let mut random = fastrand::Rng::with_seed(7);
    let model = b"PUT /v1/catalog/register?x=%41 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{\"}";
    for _ in 0..300 {
        let mut bytes = model.to_vec();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(0..bytes.len());
            bytes[at] = random.u8(..);
        }
        let mut stream = connect(api.addr).await;
        stream.write_all(&bytes).await.unwrap();
        let _ = stream.shutdown().await;
        let _ = timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await.expect("it ends");
    }
    assert_eq!(get(api.addr, "/v1/status/leader").await.status, 200);
    api.stop().await;
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let api = Running::start(Settings::default());
    let mut stream = connect(api.addr).await;
    for _ in 0..3 {
        stream.write_all(b"GET /v1/status/peers HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(Answer::read(&mut stream).await.text(), "[\"10.0.0.1:8300\"]");
    }
    // A body in chunks, asked for first.
    let head = "PUT /v1/catalog/register HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status, 100);
    let (one, two) = WEB.split_at(20);
    let chunks = format!("{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n", one.len(), two.len());
    stream.write_all(chunks.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.text(), "true");
    api.stop().await;
}

#[tokio::test]
async fn header_names_are_written_as_consul_writes_them() {
    let api = Running::start(Settings::default());
    let answer = get(api.addr, "/v1/catalog/nodes").await;
    for name in
        ["X-Consul-Index", "X-Consul-Default-Acl-Policy", "X-Consul-Knownleader", "X-Consul-Lastcontact"]
    {
        assert!(answer.headers.iter().any(|(other, _)| other == name), "{name} in {:?}", answer.headers);
    }
    api.stop().await;
}

#[tokio::test]
async fn an_answer_from_memory_says_so_and_needs_no_leader() {
    let api = Running::start(Settings::default());
    put(api.addr, "/v1/catalog/register", WEB).await;
    let cache = |answer: &Answer| {
        (answer.header("x-cache").map(String::from), answer.header("age").map(String::from))
    };
    let hit = (Some("HIT".to_string()), Some("0".to_string()));
    for path in ["/v1/health/service/web", "/v1/catalog/service/web", "/v1/catalog/services"] {
        assert_eq!(cache(&get(api.addr, path).await), (None, None), "{path}");
        assert_eq!(cache(&get(api.addr, &format!("{path}?cached")).await), hit, "{path}");
    }
    let control = |value: &str| format!("Cache-Control: {value}\r\n");
    let header = control("max-age=30, must-revalidate");
    let asked = ask(api.addr, "GET", "/v1/health/service/web?cached", &header, "").await;
    assert_eq!(cache(&asked), hit);
    for path in ["/v1/health/service/web?cached", "/v1/catalog/nodes"] {
        let bad = ask(api.addr, "GET", path, &control("max-age=soon"), "").await;
        assert_eq!((bad.status, bad.text()), (400, "Invalid Cache-Control header."), "{path}");
    }
    assert_eq!(
        cache(&get(api.addr, "/v1/catalog/nodes?cached").await),
        (None, None),
        "Consul caches no nodes"
    );
    api.agent.led.store(false, Ordering::SeqCst);
    assert_eq!(get(api.addr, "/v1/health/service/web").await.status, 500);
    let answer = get(api.addr, "/v1/health/service/web?cached").await;
    assert_eq!((answer.status, answer.header("x-consul-knownleader")), (200, Some("false")));
    let settings = Settings { use_cache: false, ..Settings::default() };
    api.settings.store(Arc::new(settings));
    assert_eq!(get(api.addr, "/v1/health/service/web?cached").await.status, 500, "as if it did not say so");
    api.stop().await;
}

#[tokio::test]
async fn long_answers_are_zipped_for_those_who_ask() {
    let api = Running::start(Settings::default());
    for node in 0..400 {
        let body = format!(r#"{{"Node":"n{node}","Address":"10.0.0.1"}}"#);
        assert_eq!(put(api.addr, "/v1/catalog/register", &body).await.text(), "true");
    }
    let plain = get(api.addr, "/v1/catalog/nodes").await;
    let zipped = ask(api.addr, "GET", "/v1/catalog/nodes", "Accept-Encoding: gzip\r\n", "").await;
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert_eq!(zipped.header("vary"), Some("Accept-Encoding"));
    let mut unzipped = Vec::new();
    flate2::read::GzDecoder::new(&*zipped.body).read_to_end(&mut unzipped).unwrap();
    assert_eq!(unzipped, plain.body);
    let short = ask(api.addr, "GET", "/v1/status/leader", "Accept-Encoding: gzip\r\n", "").await;
    assert_eq!(short.header("content-encoding"), None);
    api.stop().await;
}

#[tokio::test]
async fn settings_count_from_the_next_request_on() {
    let api = Running::start(Settings::default());
    assert_eq!(get(api.addr, "/v1/status/peers").await.text(), "[\"10.0.0.1:8300\"]");
    let response_headers = vec![response_header("X-Team", "oak").unwrap()];
    api.settings.store(Arc::new(Settings { pretty: true, response_headers, ..Settings::default() }));
    let pretty = get(api.addr, "/v1/status/peers").await;
    assert_eq!(pretty.text(), "[\n    \"10.0.0.1:8300\"\n]\n");
    assert_eq!(pretty.header("x-team"), Some("oak"));
    assert_eq!(get(api.addr, "/nowhere").await.header("x-team"), Some("oak"));
    assert!(response_header("no good", "x").is_err() && response_header("x", "a\nb").is_err());
    api.stop().await;
}

/// Asks for a change after `index`, and returns once the server waits for it.
async fn wait_for(api: &Running, path: &str, index: u64) -> JoinHandle<Answer> {
    let (addr, before) = (api.addr, api.agent.waiting());
    let path = format!("{path}{}index={index}", if path.contains('?') { "&" } else { "?" });
    let asked = tokio::spawn(async move { get(addr, &path).await });
    settle(api, before + 1).await;
    asked
}

async fn settle(api: &Running, waiting: usize) {
    let settled = async {
        while api.agent.waiting() != waiting {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, settled).await.unwrap_or_else(|_| panic!("{} wait", api.agent.waiting()));
}

async fn answered(asked: JoinHandle<Answer>) -> Answer {
    timeout(DEADLINE, asked).await.expect("it is answered").unwrap()
}

fn index(answer: &Answer) -> u64 {
    answer.header("x-consul-index").expect("an index").parse().unwrap()
}

#[tokio::test]
async fn a_transaction_has_an_end() {
    let api = Running::start(Settings::default());
    let ops = |count: usize| vec![r#"{"KV":{"Verb":"get-or-empty","Key":"a"}}"#; count].join(",");
    assert_eq!(put(api.addr, "/v1/txn", &format!("[{}]", ops(128))).await.status, 200);
    let refused = put(api.addr, "/v1/txn", &format!("[{}]", ops(129))).await;
    assert_eq!(
        (refused.status, refused.text()),
        (413, "Transaction contains too many operations (129 > 128)")
    );
    let mut settings = Settings::default();
    settings.limits.kv_value_bytes_max = 4;
    api.settings.store(Arc::new(settings));
    let refused = put(api.addr, "/v1/txn", r#"[{"KV":{"Verb":"set","Key":"k","Value":"MTIzNDU="}}]"#).await;
    assert_eq!((refused.status, refused.text()), (413, "Value for key \"k\" is too large (5 > 4 bytes)"));
    api.stop().await;
}

/// Trap 14 of `http-api.md` §11.
#[tokio::test]
async fn without_a_leader_only_what_may_be_stale_is_answered() {
    let api = Running::start(Settings::default());
    api.agent.led.store(false, Ordering::SeqCst);
    let refused = |answer: &Answer| (answer.status, answer.text()) == (500, "No cluster leader");
    assert!(refused(&get(api.addr, "/v1/catalog/nodes?stale").await), "nothing was ever heard");
    api.agent.led.store(true, Ordering::SeqCst);
    put(api.addr, "/v1/catalog/register", WEB).await;
    api.agent.led.store(false, Ordering::SeqCst);
    assert!(refused(&get(api.addr, "/v1/catalog/nodes").await));
    assert!(refused(&get(api.addr, "/v1/catalog/nodes?consistent").await));
    assert!(refused(&put(api.addr, "/v1/catalog/register", WEB).await));
    let stale = get(api.addr, "/v1/catalog/nodes?stale").await;
    assert_eq!((stale.status, stale.header("x-consul-knownleader")), (200, Some("false")));
    assert_eq!(get(api.addr, "/v1/catalog/nodes?max_stale=1s").await.status, 200);
    assert_eq!(get(api.addr, "/v1/status/leader").await.text(), "\"\"");
    assert_eq!(get(api.addr, "/v1/status/peers").await.text(), "[]");
    assert_eq!(get(api.addr, "/v1/agent/services").await.text(), "{}");
    let reload = put(api.addr, "/v1/agent/reload", "").await;
    assert_eq!((reload.status, reload.text()), (500, "a.hcl:3: unknown key"));
    api.stop().await;
}

#[test]
fn a_port_in_use_says_which_and_what_moves_it() {
    let first = Server::bind(&[([127, 0, 0, 1], 0).into()]).unwrap();
    let taken = first.addrs()[0];
    let error = Server::bind(&[taken]).map(drop).unwrap_err().to_string();
    for part in [taken.to_string().as_str(), "ports.http", "-http-port"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn coordinates_can_be_turned_off() {
    let api = Running::start(Settings { coordinates: false, ..Settings::default() });
    for path in ["datacenters", "nodes", "node/oak"] {
        let answer = get(api.addr, &format!("/v1/coordinate/{path}")).await;
        assert_eq!((answer.status, answer.text()), (401, "Coordinate support disabled"));
    }
    assert_eq!(put(api.addr, "/v1/coordinate/update", "{}").await.status, 401);
    api.stop().await;
}

#[tokio::test]
async fn servers_that_nobody_leads_are_not_healthy() {
    let api = Running::start(Settings::default());
    put(api.addr, "/v1/catalog/register", WEB).await;
    api.agent.led.store(false, Ordering::SeqCst);
    for path in ["raft/configuration", "autopilot/configuration", "autopilot/health", "usage"] {
        let answer = get(api.addr, &format!("/v1/operator/{path}")).await;
        assert_eq!((answer.status, answer.text()), (500, "No cluster leader"), "{path}");
    }
    let health = get(api.addr, "/v1/operator/autopilot/health?stale").await;
    assert!(health.status == 429 && health.text().contains("\"Healthy\":false"), "{}", health.text());
    api.stop().await;
}

#[tokio::test]
async fn an_archive_is_saved_and_put_back() {
    let api = Running::start(Settings::default());
    put(api.addr, "/v1/catalog/register", WEB).await;
    let saved = get(api.addr, "/v1/snapshot").await;
    assert_eq!((saved.status, saved.header("content-type")), (200, Some("application/x-gzip")));
    let headers = ["x-consul-index", "x-consul-knownleader", "x-consul-lastcontact", "content-encoding"];
    assert_eq!(headers.map(|name| saved.header(name)), [Some("1"), Some("true"), Some("0"), None]);
    put(api.addr, "/v1/catalog/deregister", r#"{"Node":"oak"}"#).await;
    let asked = wait_for(&api, "/v1/health/service/web", 2).await;
    let restored = put_bytes(api.addr, "/v1/snapshot", &saved.body).await;
    assert_eq!((restored.status, restored.text()), (200, ""));
    let answer = answered(asked).await;
    assert_eq!(answer.header("x-consul-index"), Some("1"), "whoever waits is answered, whatever the index");
    assert!(answer.text().contains("\"web\""));
    // By another agent's: nothing changes, and the text says why.
    for (bytes, text) in [
        (&b""[..], "failed to decompress snapshot: EOF"),
        (b"no gzip", "failed to decompress snapshot: unexpected EOF"),
        (&saved.body[..saved.body.len() / 2], "failed to decompress snapshot: unexpected EOF"),
    ] {
        let refused = put_bytes(api.addr, "/v1/snapshot", bytes).await;
        assert_eq!((refused.status, refused.text()), (500, text));
        assert_eq!(get(api.addr, "/v1/health/service/web").await.body, answer.body);
    }
    for method in ["GET", "PUT"] {
        let other = ask(api.addr, method, "/v1/snapshot?dc=south", "", "").await;
        assert_eq!((other.status, other.text()), (500, "No path to datacenter"), "{method}");
    }
    api.agent.led.store(false, Ordering::SeqCst);
    assert_eq!(get(api.addr, "/v1/snapshot").await.text(), "No cluster leader");
    assert_eq!(put_bytes(api.addr, "/v1/snapshot", &saved.body).await.text(), "No cluster leader");
    let stale = get(api.addr, "/v1/snapshot?stale").await;
    assert_eq!((stale.status, stale.header("x-consul-knownleader")), (200, Some("false")));
    api.stop().await;
}

/// It is no larger than what one allows, and whoever stops in between has changed nothing.
#[tokio::test]
async fn an_archive_has_bounds() {
    let limits = Limits { archive_bytes_max: 100, body_wait: Duration::from_millis(20), ..Limits::default() };
    let api = Running::start(Settings { limits, ..Settings::default() });
    put(api.addr, "/v1/catalog/register", WEB).await;
    let saved = get(api.addr, "/v1/snapshot").await;
    let refused = put_bytes(api.addr, "/v1/snapshot", &saved.body).await;
    assert_eq!(refused.text(), "failed to decompress snapshot: it holds more than 100 bytes");
    let never = "PUT /v1/snapshot HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n";
    assert_eq!(send(api.addr, never).await.text(), "failed to decompress snapshot: EOF");
    api.stop().await;
}

fn json(answer: &Answer) -> serde_json::Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

const GEO: &str = r#"{"Name":"geo","Service":{"Service":"web"},"DNS":{"TTL":"10s"}}"#;

/// A definition through its life: its id is made here, and who waits for it is told of every write.
#[tokio::test]
async fn a_query_is_made_changed_and_gone() {
    let api = Running::start(Settings::default());
    let made = json(&ask(api.addr, "POST", "/v1/query", "", GEO).await);
    let id = made["ID"].as_str().unwrap().to_string();
    let path = format!("/v1/query/{id}");
    let wanted = serde_json::json!([{"ID":id,"Name":"geo","Session":"","Token":"",
        "Template":{"Type":"","Regexp":"","RemoveEmptyTags":false},
        "Service":{"Service":"web","SamenessGroup":"","Failover":{"NearestN":0,"Datacenters":null,"Targets":null},
            "OnlyPassing":false,"IgnoreCheckIDs":null,"Near":"","Tags":null,"NodeMeta":null,"ServiceMeta":null,
            "Connect":false,"Peer":""},
        "DNS":{"TTL":"10s"},"CreateIndex":1,"ModifyIndex":1}]);
    assert_eq!(json(&get(api.addr, &path).await), wanted);
    assert_eq!(json(&get(api.addr, "/v1/query").await), wanted);
    let explained = json(&get(api.addr, "/v1/query/GEO/explain").await);
    assert_eq!((&explained["Query"], &explained["Index"]), (&wanted[0], &serde_json::json!(1)));

    for waiting in [&path, "/v1/query"] {
        let index = get(api.addr, waiting).await.header("x-consul-index").unwrap().parse().unwrap();
        let asked = wait_for(&api, waiting, index).await;
        let other = r#"{"ID":"ignored","Name":"other","Service":{"Service":"db"}}"#;
        assert_eq!(put(api.addr, &path, other).await.text(), "");
        let changed = json(&answered(asked).await);
        assert_eq!((&changed[0]["Name"], &changed[0]["ID"]), (&"other".into(), &id.as_str().into()));
    }
    let asked = wait_for(&api, &path, 3).await;
    assert_eq!(ask(api.addr, "DELETE", &path, "", "").await.text(), "");
    let gone = answered(asked).await;
    assert_eq!((gone.status, gone.text()), (404, "Query not found"));
    api.stop().await;
}

#[tokio::test]
async fn a_query_ends_with_its_session() {
    let api = Running::start(Settings::default());
    put(api.addr, "/v1/catalog/register", WEB).await;
    let session = json(&put(api.addr, "/v1/session/create", r#"{"NodeChecks":[]}"#).await);
    let session = session["ID"].as_str().unwrap();
    let body = format!(r#"{{"Session":"{session}","Service":{{"Service":"web"}}}}"#);
    assert_eq!(ask(api.addr, "POST", "/v1/query", "", &body).await.status, 200);
    assert_eq!(json(&get(api.addr, "/v1/query").await)[0]["Session"], session);
    put(api.addr, &format!("/v1/session/destroy/{session}"), "").await;
    assert_eq!(get(api.addr, "/v1/query").await.text(), "[]");
    api.stop().await;
}

/// So many and no more; the nearest to whoever is named; each first at times where nobody is.
#[tokio::test]
async fn a_query_finds_the_nearest_or_any() {
    let api = Running::start(Settings::default());
    for (node, x) in [("oak", 4), ("ash", 1), ("birch", 2)] {
        let body = format!(r#"{{"Node":"{node}","Address":"10.0.0.{x}","Service":{{"Service":"web"}}}}"#);
        put(api.addr, "/v1/catalog/register", &body).await;
        let body = format!(r#"{{"Node":"{node}","Coord":{{"Vec":[{x},0,0,0,0,0,0,0]}}}}"#);
        put(api.addr, "/v1/coordinate/update", &body).await;
    }
    ask(api.addr, "POST", "/v1/query", "", GEO).await;
    let found = async |parameters: &str| {
        let path = format!("/v1/query/geo/execute?{parameters}");
        let answer = json(&ask(api.addr, "GET", &path, "X-Forwarded-For: 10.0.0.1\r\n", "").await);
        let nodes =
            answer["Nodes"].as_array().unwrap().iter().map(|node| node["Node"]["Node"].as_str().unwrap());
        nodes.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found("near=BIRCH").await, "birch ash oak");
    assert_eq!(found("near=_agent").await, "oak birch ash");
    assert_eq!(found("near=_ip&limit=2").await, "ash birch");
    let mut first = std::collections::BTreeSet::new();
    while first.len() < 3 {
        first.insert(found("limit=1").await);
    }
    assert_eq!(found("limit=-1").await.len(), "oak ash birch".len());
    api.stop().await;
}
