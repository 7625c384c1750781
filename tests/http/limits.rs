//! What clients may take of the server, who may do what, and by which sockets.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use lictor::http::{Mode, Rates, Refused, UnixSocket};

use super::*;

#[tokio::test]
async fn who_may_not_write_may_read() {
    let writers = vec!["192.0.2.0/24".parse().unwrap()];
    let api = Running::start(Settings { writers, ..Settings::default() });
    let refused = put(api.addr, "/v1/catalog/register", WEB).await;
    assert_eq!((refused.status, refused.text()), (403, "Access is restricted"));
    assert_eq!(refused.header("x-consul-default-acl-policy"), Some("allow"));
    assert_eq!(get(api.addr, "/v1/catalog/nodes").await.text(), "[]");
    assert_eq!(ask(api.addr, "OPTIONS", "/v1/catalog/register", "", "").await.status, 200);
    assert_eq!(ask(api.addr, "POST", "/v1/catalog/register", "", "").await.status, 405);
    let writers = vec!["127.0.0.0/8".parse().unwrap()];
    api.settings.store(Arc::new(Settings { writers, ..Settings::default() }));
    assert_eq!(put(api.addr, "/v1/catalog/register", WEB).await.text(), "true", "after a reload");
    api.stop().await;
}

#[tokio::test]
async fn what_is_blocked_nobody_may_ask_for() {
    let blocked = vec!["/v1/catalog/node".to_string(), "/v1/status/".to_string()];
    let api = Running::start(Settings { blocked, ..Settings::default() });
    for path in ["/v1/catalog/nodes", "/v1/catalog/node/oak", "/v1/status/leader?a=%zz"] {
        for method in ["GET", "OPTIONS", "PUT"] {
            let answer = ask(api.addr, method, path, "", "").await;
            let blocked = (403, "Endpoint is blocked by agent configuration");
            assert_eq!((answer.status, answer.text()), blocked, "{method} {path}");
        }
    }
    assert_eq!(get(api.addr, "/v1/catalog/services").await.status, 200);
    api.stop().await;
}

#[tokio::test]
async fn requests_beyond_a_rate_are_refused_and_counted() {
    let rates = Rates { mode: Mode::Enforcing, reads_per_sec: Some(0.2), writes_per_sec: Some(0.1) };
    let api = Running::start(Settings { rates: rates.clone(), ..Settings::default() });
    let read = || get(api.addr, "/v1/catalog/nodes");
    assert_eq!((read().await.status, read().await.status), (200, 200));
    let refused = read().await;
    let text = "rate limit exceeded, try again later or against a different server";
    assert_eq!((refused.status, refused.text()), (429, text));
    assert_eq!(put(api.addr, "/v1/catalog/register", WEB).await.text(), "true", "writes have their own");
    let refused = put(api.addr, "/v1/catalog/register", DB).await;
    let text = "rate limit exceeded for operation that can only be performed by the leader, try again later";
    assert_eq!((refused.status, refused.text()), (503, text));
    for path in ["/v1/status/leader", "/v1/agent/services"] {
        assert_eq!(get(api.addr, path).await.status, 200, "{path}");
    }
    let counted = [Refused::ReadRate, Refused::WriteRate].map(|limit| api.counters.refusals(limit));
    assert_eq!(counted, [1, 1]);
    let rates = Rates { mode: Mode::Permissive, ..rates };
    api.settings.store(Arc::new(Settings { rates, ..Settings::default() }));
    assert_eq!(read().await.status, 200, "permitted after a reload");
    assert_eq!(api.counters.refusals(Refused::ReadRate), 2, "and counted all the same");
    let answers: Vec<_> = api.counters.answers().filter(|(.., count)| *count > 0).collect();
    let wanted = [("GET", "2xx", 5), ("GET", "4xx", 1), ("PUT", "2xx", 1), ("PUT", "5xx", 1)];
    assert_eq!(answers, wanted);
    api.stop().await;
}

#[tokio::test]
async fn a_path_may_hold_anything_where_that_is_wanted() {
    let api = Running::start(Settings { any_character: true, ..Settings::default() });
    assert_eq!(get(api.addr, "/v1/health/service/a%0ab").await.text(), "[]");
    api.stop().await;
}

#[tokio::test]
async fn a_header_limit_counts_for_the_next_connection() {
    let api = Running::start(Settings::default());
    let long = format!("GET /v1/status/leader HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(send(api.addr, &long).await.status, 431);
    let limits = Limits { header_bytes_max: 64 * 1024, ..Limits::default() };
    api.settings.store(Arc::new(Settings { limits, ..Settings::default() }));
    assert_eq!(send(api.addr, &long).await.status, 200);
    api.stop().await;
}

#[tokio::test]
async fn a_socket_of_the_file_system_is_served_as_it_should_be() {
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("lictor-http-{}-{number}.sock", std::process::id()));
    let socket = UnixSocket { path: path.clone(), mode: Some(0o600), ..UnixSocket::default() };
    // Left behind by one that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::bind(&[]).unwrap().beside_unix(std::slice::from_ref(&socket)).unwrap();
    let found = std::fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let (agent, shutdown) = (Memory::new(), CancellationToken::new());
    // It is not for networks to say who may write here.
    let writers = vec!["192.0.2.0/24".parse().unwrap()];
    let settings = Settings { connections_per_address_max: 1, writers, ..Settings::default() };
    let task = tokio::spawn(server.run(agent, Arc::new(ArcSwap::from_pointee(settings)), shutdown.clone()));
    let _held = tokio::net::UnixStream::connect(&path).await.unwrap();
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let head = format!(
        "PUT /v1/catalog/register HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        WEB.len()
    );
    stream.write_all(format!("{head}{WEB}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("true"), "{answer}");
    let taken = Server::bind(&[]).unwrap().beside_unix(std::slice::from_ref(&socket)).map(drop);
    let text = taken.unwrap_err().to_string();
    assert!(text.contains("somebody answers there") && text.contains("lictor-http"), "{text}");
    shutdown.cancel();
    timeout(DEADLINE, task).await.expect("it stops").unwrap().unwrap();
    assert!(!path.exists(), "gone with its server");
    std::fs::write(&path, "precious").unwrap();
    let file = Server::bind(&[]).unwrap().beside_unix(&[socket]).map(drop).unwrap_err().to_string();
    assert!(file.contains("a file that is no socket"), "{file}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let api = Running::start(Settings { connections_per_address_max: 2, ..Settings::default() });
    let mut held = vec![connect(api.addr).await, connect(api.addr).await];
    for stream in &mut held {
        stream.write_all(b"GET /v1/status/leader HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert_eq!(Answer::read(stream).await.status, 200);
    }
    let mut surplus = connect(api.addr).await;
    let told = Answer::read(&mut surplus).await;
    let text = "Your IP is issuing too many concurrent connections, please rate limit your calls\n";
    assert_eq!((told.status, told.text()), (429, text));
    // A place that is left is free again.
    held.pop();
    let again = async {
        loop {
            let answer = get(api.addr, "/v1/status/leader").await;
            if answer.status == 200 {
                break;
            }
        }
    };
    timeout(DEADLINE, again).await.expect("a place is free");
    api.stop().await;
}

#[tokio::test]
async fn all_together_have_so_many_connections_and_no_more() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let api = Running::start(Settings { limits, ..Settings::default() });
    let mut held = connect(api.addr).await;
    held.write_all(b"GET /v1/status/leader HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(Answer::read(&mut held).await.status, 200);
    let told = Answer::read(&mut connect(api.addr).await).await;
    assert_eq!((told.status, told.text()), (503, "Too many connections are open, try again later\n"));
    api.stop().await;
}

#[tokio::test]
async fn who_would_wait_too_long_for_a_turn_is_told() {
    let limits = Limits {
        bodies_max: 1,
        body_wait: Duration::from_millis(10),
        stop_wait: Duration::ZERO,
        ..Limits::default()
    };
    let api = Running::start(Settings { limits, ..Settings::default() });
    api.agent.stuck.store(true, Ordering::SeqCst);
    let mut first = connect(api.addr).await;
    let head =
        format!("PUT /v1/catalog/register HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", WEB.len());
    first.write_all(format!("{head}{WEB}").as_bytes()).await.unwrap();
    settle(&api, 1).await;
    let second = put(api.addr, "/v1/catalog/register", DB).await;
    assert_eq!((second.status, second.text()), (500, "Too many requests at once, try again later"));
    assert_eq!(get(api.addr, "/v1/status/leader").await.status, 200, "reads go on");
    drop(first);
    api.stop().await;
}

#[tokio::test]
async fn bodies_have_an_end() {
    let limits = Limits { body_bytes_max: 100, body_wait: Duration::from_millis(50), ..Limits::default() };
    let api = Running::start(Settings { limits, ..Settings::default() });
    let long = put(api.addr, "/v1/catalog/register", &"x".repeat(101)).await;
    assert_eq!((long.status, long.text()), (413, "Request body(101 bytes) too large, max size: 100 bytes."));
    let chunked = format!(
        "PUT /v1/catalog/register HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n{}\r\n0\r\n\r\n",
        "x".repeat(101)
    );
    assert_eq!(send(api.addr, &chunked).await.status, 413);
    let never = "PUT /v1/catalog/register HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{";
    assert_eq!(send(api.addr, never).await.status, 408);
    // A GET's body is not looked at.
    assert_eq!(ask(api.addr, "GET", "/v1/status/leader", "", &"x".repeat(101)).await.status, 200);
    api.stop().await;
}

#[tokio::test]
async fn a_silent_connection_ends() {
    let limits = Limits { request_wait: Duration::from_millis(20), ..Limits::default() };
    let api = Running::start(Settings { limits, ..Settings::default() });
    for start in ["", "GET /v1/status/leader HTTP/1.1\r\n"] {
        let mut stream = connect(api.addr).await;
        stream.write_all(start.as_bytes()).await.unwrap();
        timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await.expect("it ends").unwrap();
    }
    api.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_left() {
    let limits = Limits { send_wait: Duration::from_millis(20), ..Limits::default() };
    let api = Running::start(Settings { limits, connections_per_address_max: 1, ..Settings::default() });
    let meta = "m".repeat(400_000);
    let body = format!(r#"{{"Node":"oak","Address":"10.0.0.1","NodeMeta":{{"m":"{meta}"}}}}"#);
    let mut writer = connect(api.addr).await;
    let request = format!(
        "PUT /v1/catalog/register HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    writer.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut writer).await.text(), "true");
    for _ in 0..100 {
        if writer.write_all(b"GET /v1/catalog/nodes HTTP/1.1\r\nHost: a\r\n\r\n").await.is_err() {
            break;
        }
    }
    let free = async {
        while get(api.addr, "/v1/status/leader").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, free).await.expect("its place is free again");
    drop(writer);
    api.stop().await;
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let limits = Limits { stop_wait: Duration::from_millis(10), ..Limits::default() };
    let api = Running::start(Settings { limits, ..Settings::default() });
    let mut stuck = connect(api.addr).await;
    stuck
        .write_all(b"PUT /v1/catalog/register HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        .await
        .unwrap();
    api.stop().await;
}
