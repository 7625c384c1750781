//! Checks against real targets: each probe looks at a server or a program of the test's own.

mod docker;
mod http2;
mod kinds;
mod programs;
mod udp;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    CheckSpec, Span,
    probe::{self, Tools},
};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);
const OUTPUT_BYTES_MAX: usize = 40;

/// Looks once; the status' first letter and the output.
async fn look(spec: CheckSpec) -> (char, String) {
    look_with(&Tools::here(), spec).await
}

async fn look_with(tools: &Tools, spec: CheckSpec) -> (char, String) {
    let interval = Some(Span { nanos: 1_000_000_000, text: "1s".into() });
    let definition = CheckSpec { id: text("c"), interval, ..spec }.build().unwrap();
    let gone = CancellationToken::new();
    let looked = timeout(LIMIT, probe::look(&definition, tools, OUTPUT_BYTES_MAX, &gone)).await;
    let seen = looked.expect("a look ends").expect("a probe");
    (seen.status.as_str().chars().next().unwrap(), seen.output)
}

fn text(text: &str) -> Option<String> {
    Some(text.into())
}

fn timeout_of(millis: i64) -> Option<Span> {
    Some(Span { nanos: millis * 1_000_000, text: format!("{millis}ms") })
}

fn http(address: SocketAddr) -> CheckSpec {
    CheckSpec { http: text(&format!("http://{address}/health")), ..CheckSpec::default() }
}

/// Answers as many connections as there are answers, one each; gives what was asked.
async fn answer(answers: Vec<Vec<u8>>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && !request.ends_with(b"the body") {
                let mut bytes = [0; 1024];
                match stream.read(&mut bytes).await.unwrap() {
                    0 => break,
                    read => request.extend(&bytes[..read]),
                }
            }
            stream.write_all(&answer).await.unwrap();
            asked.push(String::from_utf8(request).unwrap());
        }
        asked
    };
    (address, tokio::spawn(served))
}

/// A port at which nobody listens, held while the socket lives.
fn closed_port() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// `config-cli.md` §4.3.
#[tokio::test]
async fn an_http_code_is_a_status() {
    let gzip =
        [31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 43, 46, 44, 77, 77, 173, 74, 77, 1, 0, 222, 38, 20, 0, 8, 0, 0, 0];
    let packed =
        [&b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 28\r\n\r\n"[..], &gzip].concat();
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n{}{}", "a".repeat(20), "b".repeat(40));
    let tail = format!("200 OK Output: {}", "b".repeat(40));
    let table: [(&[u8], char, &str); 10] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine", 'p', "200 OK Output: fine"),
        (b"HTTP/1.1 299 So So\r\n\r\nuntil the end", 'p', "299 So So Output: until the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 'p', "204 No Content Output: "),
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", 'w', "429 Too Many Requests Output: "),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 'c', "404 Not Found Output: "),
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", 'c', "500 Internal Server Error Output: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", 'p', "200 OK Output: cut"),
        (b"HTTP/1.1 200 OK\r\n\r\n\xffodd", 'p', "200 OK Output: \u{fffd}odd"),
        (&packed, 'p', "200 OK Output: squeezed"),
        (long.as_bytes(), 'p', &tail),
    ];
    for (answered, status, output) in table {
        let (address, served) = answer(vec![answered.to_vec()]).await;
        let expected = format!("HTTP GET http://{address}/health: {output}");
        assert_eq!(look(http(address)).await, (status, expected));
        served.await.unwrap();
    }
}

#[tokio::test]
async fn an_http_request_is_consuls_under_what_is_defined() {
    let ok = || b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    let (address, served) = answer(vec![ok(), ok()]).await;
    look(http(address)).await;
    let header = vec![
        ("Host".into(), vec!["web.example".into()]),
        ("user-agent".into(), vec!["me".into()]),
        ("X-A".into(), vec!["1".into(), "2".into()]),
    ];
    look(CheckSpec { method: text("PUT"), body: text("the body"), header: Some(header), ..http(address) })
        .await;
    let asked = served.await.unwrap();
    let plain = [
        "GET /health HTTP/1.1",
        &format!("host: {address}"),
        "user-agent: Consul Health Check",
        "accept: text/plain, text/*, */*",
        "accept-encoding: gzip",
        "connection: close",
    ];
    let defined =
        ["PUT /health HTTP/1.1", "host: web.example", "user-agent: me", "x-a: 1", "x-a: 2", "the body"];
    for (asked, expected) in asked.iter().zip([&plain[..], &defined[..]]) {
        for line in expected {
            assert!(asked.lines().any(|asked| asked.eq_ignore_ascii_case(line)), "{line} in {asked}");
        }
    }
    assert!(!asked[1].contains("Consul"), "{}", asked[1]);
}

#[tokio::test]
async fn redirects_are_followed_unless_disabled() {
    let moved = || b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (address, served) = answer(vec![moved(), b"HTTP/1.1 200 OK\r\n\r\nthere".to_vec()]).await;
    assert_eq!(
        look(http(address)).await,
        ('p', format!("HTTP GET http://{address}/health: 200 OK Output: there"))
    );
    assert!(served.await.unwrap()[1].starts_with("GET /other "));
    let (address, _served) = answer(vec![moved()]).await;
    let stays = CheckSpec { disable_redirects: Some(true), ..http(address) };
    assert_eq!(look(stays).await, ('c', format!("HTTP GET http://{address}/health: 302 Found Output: ")));
    let kept = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n";
    let (address, served) = answer(vec![kept.to_vec(), b"HTTP/1.1 200 OK\r\n\r\n".to_vec()]).await;
    look(CheckSpec { method: text("PUT"), body: text("the body"), ..http(address) }).await;
    let asked = served.await.unwrap();
    assert!(asked[1].starts_with("PUT /other ") && asked[1].ends_with("the body"), "{asked:?}");
    let (address, _served) = answer((0..=10).map(|_| moved()).collect()).await;
    let expected = format!("Get \"http://{address}/health\": stopped after 10 redirects");
    assert_eq!(look(http(address)).await, ('c', expected));
}

#[tokio::test]
async fn an_http_target_that_is_not_there_or_silent_is_critical() {
    let (_held, address) = closed_port();
    let expected =
        format!("Get \"http://{address}/health\": dial tcp {address}: connect: connection refused");
    assert_eq!(look(http(address)).await, ('c', expected));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let expected = format!(
        "Post \"http://{address}/health\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    );
    let spec = CheckSpec { method: text("POST"), timeout: timeout_of(50), ..http(address) };
    assert_eq!(look(spec).await, ('c', expected));
    let (address, _served) = answer(vec![vec![]]).await;
    assert_eq!(look(http(address)).await, ('c', format!("Get \"http://{address}/health\": EOF")));
    let scheme = look(CheckSpec { http: text("ftp://a/"), ..CheckSpec::default() }).await;
    assert_eq!(scheme, ('c', "Get \"ftp://a/\": unsupported protocol scheme \"ftp\"".into()));
    let (status, output) = look(CheckSpec { http: text("no url"), ..CheckSpec::default() }).await;
    assert_eq!((status, output.starts_with("Get \"no url\": ")), ('c', true), "{output}");
}

/// The code is known: a slow body does not make the target ill.
#[tokio::test]
async fn time_may_run_out_in_the_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow").await.unwrap();
        // Until the probe hangs up.
        let _reset_or_closed = stream.read_to_end(&mut vec![]).await;
    });
    let spec = CheckSpec { timeout: timeout_of(1000), ..http(address) };
    assert_eq!(look(spec).await, ('p', format!("HTTP GET http://{address}/health: 200 OK Output: slow")));
    timeout(LIMIT, served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_tcp_target_that_takes_a_connection_passes() {
    let tcp = |address: &str| CheckSpec { tcp: text(address), ..CheckSpec::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap();
    let (_held, closed) = closed_port();
    let by_name = format!("localhost:{}", open.port());
    let table = [
        (open.to_string(), 'p', format!("TCP connect {open}: Success")),
        (by_name.clone(), 'p', format!("TCP connect {by_name}: Success")),
        (closed.to_string(), 'c', format!("dial tcp {closed}: connect: connection refused")),
        ("web".into(), 'c', "dial tcp: address web: missing port in address".into()),
        ("web:x".into(), 'c', "dial tcp: lookup tcp/x: unknown port".into()),
    ];
    for (address, status, output) in table {
        assert_eq!(look(tcp(&address)).await, (status, output));
    }
}

/// Serves TLS as `check.test`, certified by nobody but itself.
fn tls_acceptor(protocols: &[&[u8]]) -> TlsAcceptor {
    super::use_ring();
    let (certificate, key) = certificate();
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let pem = include_bytes!("testdata/check.test.pem");
    (CertificateDer::from_pem_slice(pem).unwrap(), PrivateKeyDer::from_pem_slice(pem).unwrap())
}

/// Tools that take `check.test` for what it says it is.
fn trusting() -> Tools {
    let mut roots = RootCertStore::empty();
    roots.add(certificate().0).unwrap();
    Tools { trust: probe::Trust::only(roots), ..Tools::here() }
}

/// Serves HTTP under TLS, and gives the names that were asked for, and what was.
async fn tls(looks: usize) -> (SocketAddr, tokio::task::JoinHandle<Vec<(Option<String>, String)>>) {
    let acceptor = tls_acceptor(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = async move {
        let mut asked = Vec::new();
        for _ in 0..looks {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut request = vec![0; 1024];
                // A TCP probe has hung up by now.
                let length = stream.read(&mut request).await.unwrap_or(0);
                let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                let _gone = stream.shutdown().await;
                let name = stream.get_ref().1.server_name().map(str::to_string);
                asked.push((name, String::from_utf8_lossy(&request[..length]).into_owned()));
            }
        }
        asked
    };
    (address, tokio::spawn(served))
}

/// SNI and the name that is verified, the URL's or the one that the definition sets; Host stays the URL's.
#[tokio::test]
async fn a_certificate_is_verified_for_the_name_that_is_set() {
    let (address, served) = tls(3).await;
    let https = CheckSpec {
        http: text(&format!("https://{address}/")),
        tls_server_name: text("check.test"),
        ..CheckSpec::default()
    };
    let named = look_with(&trusting(), https.clone()).await;
    assert_eq!(named, ('p', format!("HTTP GET https://{address}/: 200 OK Output: ")));
    let other = CheckSpec { tls_server_name: text("other.test"), ..https };
    let (status, output) = look_with(&trusting(), other.clone()).await;
    assert_eq!((status, output.contains("not valid for name")), ('c', true), "{output}");
    let skipped = look(CheckSpec { tls_skip_verify: Some(true), ..other }).await;
    assert_eq!(skipped.0, 'p', "{}", skipped.1);
    let asked = timeout(LIMIT, served).await.unwrap().unwrap();
    let names: Vec<_> = asked.iter().map(|(name, _)| name.as_deref().unwrap_or_default()).collect();
    assert_eq!(names, ["check.test", "other.test"]);
    assert!(asked.iter().all(|(_, asked)| asked.contains(&format!("Host: {address}\r\n"))), "{asked:?}");
}

#[tokio::test]
async fn certificates_are_verified_unless_that_is_skipped() {
    let (address, served) = tls(4).await;
    let https = CheckSpec {
        http: text(&format!("https://{address}/")),
        tls_server_name: text("check.test"),
        ..CheckSpec::default()
    };
    let tcp =
        CheckSpec { http: None, tcp: text(&address.to_string()), tcp_use_tls: Some(true), ..https.clone() };
    for (spec, verifies) in [(&https, true), (&tcp, true), (&https, false), (&tcp, false)] {
        let spec = CheckSpec { tls_skip_verify: Some(!verifies), ..spec.clone() };
        let (status, output) = look(spec).await;
        assert_eq!(status, if verifies { 'c' } else { 'p' }, "{output}");
        assert_eq!(output.contains("certificate"), verifies, "{output}");
    }
    let asked = timeout(LIMIT, served).await.unwrap().unwrap();
    let names: Vec<_> = asked.iter().map(|(name, _)| name.as_deref()).collect();
    assert_eq!(names, [Some("check.test"); 2]);
}

async fn until(condition: impl Fn() -> bool) {
    let reached = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            ticks.tick().await;
        }
    };
    timeout(LIMIT, reached).await.expect("the condition is reached");
}
