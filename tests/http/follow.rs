//! Waiting for a change: who is woken, by what, and what ends a wait.

use super::*;

/// Trap 1 of `http-api.md` §11.
#[tokio::test]
async fn a_read_waits_for_what_it_reads() {
    for path in ["/v1/health/service/web", "/v1/catalog/service/WEB"] {
        let api = Running::start(Settings::default());
        put(api.addr, "/v1/catalog/register", WEB).await;
        let first = index(&get(api.addr, path).await);
        let asked = wait_for(&api, path, first).await;
        // Another service on the same node: whoever is woken by it goes on waiting.
        put(api.addr, "/v1/catalog/register", DB).await;
        settle(&api, 1).await;
        put(api.addr, "/v1/catalog/register", &WEB.replace("80", "81")).await;
        let second = answered(asked).await;
        assert!(index(&second) > first && second.text().contains("81"), "{second:?}");
        let late = get(api.addr, &format!("{path}?index={first}")).await;
        assert_eq!(index(&late), index(&second), "who comes late is answered at once");

        let asked = wait_for(&api, path, index(&second)).await;
        put(api.addr, "/v1/catalog/deregister", r#"{"Node":"oak","ServiceID":"web"}"#).await;
        let gone = answered(asked).await;
        assert_eq!((gone.text(), index(&gone) > index(&second)), ("[]", true), "the last one to go is seen");

        let asked = wait_for(&api, path, index(&gone)).await;
        put(api.addr, "/v1/catalog/register", WEB).await;
        assert!(index(&answered(asked).await) > index(&gone), "and so is the first one to come");
        api.stop().await;
    }
}

#[tokio::test]
async fn every_read_of_the_catalog_can_wait() {
    let api = Running::start(Settings::default());
    put(api.addr, "/v1/catalog/register", WEB).await;
    let check =
        r#"{"Node":"oak","SkipNodeUpdate":true,"Check":{"CheckID":"c","ServiceID":"web","Status":"STATUS"}}"#;
    let reads = [
        ("/v1/catalog/nodes", r#"{"Node":"elm","Address":"ADDRESS"}"#),
        (
            "/v1/catalog/services",
            r#"{"Node":"elm","SkipNodeUpdate":true,"Service":{"Service":"s","Address":"ADDRESS"}}"#,
        ),
        ("/v1/catalog/node/elm", r#"{"Node":"elm","Address":"ADDRESS"}"#),
        ("/v1/catalog/node-services/nowhere", r#"{"Node":"nowhere","Address":"ADDRESS"}"#),
        (
            "/v1/catalog/service/absent",
            r#"{"Node":"elm","SkipNodeUpdate":true,"Service":{"Service":"absent"}}"#,
        ),
        ("/v1/health/node/oak", check),
        ("/v1/health/checks/web", check),
        ("/v1/health/state/any", check),
        ("/v1/health/state/passing", check),
    ];
    for (number, (path, change)) in reads.into_iter().enumerate() {
        let asked = wait_for(&api, path, index(&get(api.addr, path).await)).await;
        let status = ["passing", "critical"][number % 2];
        let change = change.replace("ADDRESS", &format!("10.0.1.{number}")).replace("STATUS", status);
        assert_eq!(put(api.addr, "/v1/catalog/register", &change).await.text(), "true");
        assert_eq!(answered(asked).await.status, 200, "{path}");
    }
    api.stop().await;
}

/// Trap 2 of `http-api.md` §11.
/// Who waits for a key that is not there is not woken by others, and is told 404 with a newer index when the wait is over.
#[tokio::test]
async fn keys_and_sessions_can_be_waited_for() {
    let api = Running::start(Settings::default());
    put(api.addr, "/v1/catalog/register", WEB).await;
    put(api.addr, "/v1/kv/a/1", "x").await;
    let session = put(api.addr, "/v1/session/create", r#"{"NodeChecks":[]}"#).await;
    let id = serde_json::from_slice::<serde_json::Value>(&session.body).unwrap()["ID"]
        .as_str()
        .unwrap()
        .to_string();
    let info = format!("/v1/session/info/{id}");
    let lock = format!("/v1/kv/a/1?acquire={id}");
    let destroy = format!("/v1/session/destroy/{id}");
    let changes = [
        ("/v1/kv/a/1", "/v1/kv/a/1", true),
        ("/v1/kv/a/1", "/v1/kv/a/2", false),
        ("/v1/kv/none", "/v1/kv/a/3", false),
        ("/v1/kv/none", "/v1/kv/none", true),
        ("/v1/kv/a?recurse", "/v1/kv/a/4", true),
        ("/v1/kv/a?keys", "/v1/kv/b", false),
        ("/v1/kv/?keys", "/v1/kv/c", true),
        ("/v1/kv/a/1", &lock, true),
        ("/v1/session/node/elm", "/v1/session/create", false),
        ("/v1/session/list", "/v1/session/create", true),
        (&info, "/v1/session/create", false),
        (&info, &destroy, true),
    ];
    for (number, (path, change, wakes)) in changes.into_iter().enumerate() {
        let asked = wait_for(&api, path, index(&get(api.addr, path).await)).await;
        let body =
            if change.starts_with("/v1/kv") { format!("v{number}") } else { r#"{"NodeChecks":[]}"#.into() };
        assert_eq!(put(api.addr, change, &body).await.status, 200);
        if wakes {
            answered(asked).await;
        } else {
            get(api.addr, "/v1/status/leader").await;
            assert!(!asked.is_finished(), "{path} is woken by {change}");
            asked.abort();
            settle(&api, 0).await;
        }
    }
    let first = index(&get(api.addr, "/v1/kv/nowhere").await);
    put(api.addr, "/v1/kv/other", "x").await;
    let late = get(api.addr, &format!("/v1/kv/nowhere?index={}&wait=1ms", first + 1)).await;
    assert_eq!((late.status, index(&late), late.body.len()), (404, first + 1, 0));
    api.stop().await;
}

#[tokio::test]
async fn a_wait_has_an_end() {
    let api = Running::start(Settings { query_wait: Duration::from_millis(5), ..Settings::default() });
    put(api.addr, "/v1/catalog/register", WEB).await;
    let first = get(api.addr, "/v1/health/service/web").await;
    for wait in ["&wait=10ms", "", "&wait=0", "&wait=-1s"] {
        let path = format!("/v1/health/service/web?index={}{wait}", index(&first));
        let again = get(api.addr, &path).await;
        assert_eq!((again.status, index(&again), &again.body), (200, index(&first), &first.body), "{wait}");
    }
    let missing = get(api.addr, "/v1/kv/nothing?index=99&wait=1ms").await;
    assert_eq!((missing.status, missing.text()), (404, ""), "of a key that is not there, too");
    let ahead = get(api.addr, "/v1/health/service/web?index=99&wait=1ms").await;
    assert_eq!(index(&ahead), index(&first), "an index that never was is answered with the real one");
    let settings = Settings { query_wait_max: Duration::from_millis(5), ..Settings::default() };
    api.settings.store(Arc::new(settings));
    get(api.addr, "/v1/health/service/web?index=99&wait=3h").await;
    api.stop().await;
}

#[tokio::test]
async fn who_waits_is_answered_when_the_catalog_is_replaced() {
    let api = Running::start(Settings::default());
    put(api.addr, "/v1/catalog/register", WEB).await;
    put(api.addr, "/v1/catalog/register", DB).await;
    let asked = wait_for(&api, "/v1/health/service/web", 2).await;
    api.agent.replace(lictor::catalog::Catalog::default());
    let answer = answered(asked).await;
    assert_eq!((answer.text(), index(&answer)), ("[]", 1), "though its index is lower");
    api.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_what_it_held() {
    let api = Running::start(Settings::default());
    let mut stream = connect(api.addr).await;
    stream.write_all(b"GET /v1/catalog/nodes?index=5 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    settle(&api, 1).await;
    drop(stream);
    settle(&api, 0).await;
    api.stop().await;
}

/// Asks on a connection of its own, and reads until the answer ends with `end`.
async fn read_until(api: &Running, path: &str, end: &str) -> (TcpStream, String) {
    let mut stream = connect(api.addr).await;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let read = timeout(DEADLINE, stream.read_buf(&mut answer)).await;
        let told = || String::from_utf8_lossy(&answer);
        assert!(read.unwrap_or_else(|_| panic!("{}", told())).unwrap() > 0, "{}", told());
    }
    (stream, String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn what_has_no_end_is_sent_as_it_comes_and_ends_with_client_or_agent() {
    let api = Running::start(Settings::default());
    let before = api.agent.waiting();
    let (stream, answer) = read_until(&api, "/v1/agent/monitor", "7\r\na line\n\r\n").await;
    assert!(answer.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains("\r\nTransfer-Encoding: chunked\r\n"), "{answer}");
    assert_eq!(api.agent.waiting(), before + 1);
    drop(stream);
    settle(&api, before).await;
    let (mut stream, _) = read_until(&api, "/v1/agent/monitor?loglevel=Debug&logjson", "3\r\n{}\n\r\n").await;
    let end = "12\r\n{\"Timestamp\":\"3\"}\n\r\n0\r\n\r\n";
    let (_, answer) = read_until(&api, "/v1/agent/metrics/stream", end).await;
    assert!(
        answer.contains("\r\nContent-Type: application/json\r\n") && answer.contains(":\"1\"}\n\r\n"),
        "{answer}"
    );
    api.stop().await;
    let mut rest = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("it ends").unwrap();
    assert_eq!(rest, b"0\r\n\r\n", "and is whole");
}

#[tokio::test]
async fn a_change_wakes_those_who_wait_for_it_and_nobody_else() {
    const WATCHERS: usize = 50;
    let api = Running::start(Settings::default());
    put(api.addr, "/v1/catalog/register", WEB).await;
    let mut asked = Vec::new();
    for _ in 0..WATCHERS {
        asked.push(wait_for(&api, "/v1/health/service/web?passing", 1).await);
    }
    for port in 1..10 {
        put(api.addr, "/v1/catalog/register", &DB.replace("5432", &port.to_string())).await;
    }
    assert_eq!((api.agent.waiting(), api.agent.woken()), (WATCHERS, 0));
    put(api.addr, "/v1/catalog/register", &WEB.replace("80", "81")).await;
    let mut bodies = Vec::new();
    for asked in asked {
        bodies.push(answered(asked).await.body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!((api.agent.waiting(), api.agent.woken()), (0, WATCHERS));
    api.stop().await;
}

#[tokio::test]
async fn stopping_answers_those_who_wait() {
    let api = Running::start(Settings::default());
    put(api.addr, "/v1/catalog/register", WEB).await;
    let asked = wait_for(&api, "/v1/health/service/web", 1).await;
    let mut idle = connect(api.addr).await;
    idle.write_all(b"GET /v1/status/leader HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(Answer::read(&mut idle).await.status, 200);
    let addr = api.addr;
    api.stop().await;
    assert_eq!(answered(asked).await.status, 200);
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_service_is_followed_by_its_hash() {
    let api = Running::start(Settings::default());
    put(api.addr, "/v1/agent/service/register", r#"{"Name":"web","Port":80}"#).await;
    let first = get(api.addr, "/v1/agent/service/web").await;
    let hash = first.header("x-consul-contenthash").expect("a hash").to_string();
    assert_eq!(hash.len(), 16);
    assert!(first.text().contains(&format!("\"ContentHash\":\"{hash}\"")));
    let same = get(api.addr, &format!("/v1/agent/service/web?hash={hash}&wait=1ms")).await;
    assert_eq!(same.body, first.body);
    let other = get(api.addr, "/v1/agent/service/web?hash=0").await;
    assert_eq!(other.body, first.body, "another hash is answered at once");
    let asked = wait_for(&api, &format!("/v1/agent/service/web?hash={hash}"), 0).await;
    put(api.addr, "/v1/agent/service/register", r#"{"Name":"web","Port":81}"#).await;
    let changed = answered(asked).await;
    assert_ne!(changed.header("x-consul-contenthash"), Some(&*hash));
    let hash = changed.header("x-consul-contenthash").unwrap();
    let asked = wait_for(&api, &format!("/v1/agent/service/web?hash={hash}"), 0).await;
    put(api.addr, "/v1/agent/service/deregister/web", "").await;
    assert_eq!(answered(asked).await.status, 404);
    api.stop().await;
}

#[tokio::test]
async fn a_list_of_events_waits_for_another() {
    let api = Running::start(Settings::default());
    let asked = wait_for(&api, "/v1/event/list?name=deploy", 1).await;
    put(api.addr, "/v1/event/fire/other", "").await;
    settle(&api, 1).await;
    let fired: serde_json::Value =
        serde_json::from_str(put(api.addr, "/v1/event/fire/deploy", "").await.text()).unwrap();
    let first = answered(asked).await;
    assert!(first.text().contains(fired["ID"].as_str().unwrap()) && index(&first) != 1, "{first:?}");
    let asked = wait_for(&api, "/v1/event/list?name=deploy", index(&first)).await;
    put(api.addr, "/v1/event/fire/deploy", "").await;
    assert_ne!(index(&answered(asked).await), index(&first));
    api.stop().await;
}

#[tokio::test]
async fn a_coordinate_that_is_told_anew_wakes_who_waits_for_it() {
    let api = Running::start(Settings::default());
    put(api.addr, "/v1/catalog/register", WEB).await;
    let told = |x: u8| format!(r#"{{"Node":"oak","Coord":{{"Vec":[{x},0,0,0,0,0,0,0]}}}}"#);
    put(api.addr, "/v1/coordinate/update", &told(1)).await;
    for path in ["/v1/coordinate/nodes", "/v1/coordinate/node/oak"] {
        let index = get(api.addr, path).await.header("x-consul-index").unwrap().parse().unwrap();
        let asked = wait_for(&api, path, index).await;
        put(api.addr, "/v1/coordinate/update", &told(index as u8)).await;
        assert!(answered(asked).await.text().contains(&format!("[{index},0")));
    }
    api.stop().await;
}
