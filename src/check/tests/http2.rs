//! Targets that speak HTTP/2: gRPC health, and pings.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::server;
use hyper::{HeaderMap, Response};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use super::{CheckSpec, closed_port, look, look_with, text, timeout_of, tls_acceptor, trusting};

/// How a server answers one call.
#[derive(Clone, Default)]
struct Answer {
    code: u16,
    headers: Vec<(&'static str, &'static str)>,
    message: Option<&'static [u8]>,
    trailers: Option<Vec<(&'static str, &'static str)>>,
}

/// Serves every connection until it ends; gives what was asked: the path, the authority and the message.
async fn serve(answer: Answer, tls: bool, looks: usize) -> (SocketAddr, JoinHandle<Vec<(String, Vec<u8>)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = async move {
        let mut asked = Vec::new();
        for _ in 0..looks {
            let (stream, _) = listener.accept().await.unwrap();
            if !tls {
                converse(stream, &answer, &mut asked).await;
            } else if let Ok(stream) = tls_acceptor(&[b"h2"]).accept(stream).await {
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                converse(stream, &answer, &mut asked).await;
            }
        }
        asked
    };
    (address, tokio::spawn(served))
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &Answer,
    asked: &mut Vec<(String, Vec<u8>)>,
) {
    let mut connection = server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        assert_eq!(request.headers()["te"], "trailers");
        let (head, mut body) = request.into_parts();
        let mut message = Vec::new();
        let read = async {
            while let Some(data) = body.data().await {
                message.extend_from_slice(&data.unwrap());
            }
        };
        tokio::select! {
            () = read => {}
            _ = std::future::poll_fn(|context| connection.poll_closed(context)) => {}
        }
        asked.push((format!("{} {}", head.method, head.uri), message));
        let mut response = Response::builder().status(answer.code);
        for (name, value) in &answer.headers {
            response = response.header(*name, *value);
        }
        let ends = answer.message.is_none() && answer.trailers.is_none();
        let mut body = respond.send_response(response.body(()).unwrap(), ends).unwrap();
        if let Some(message) = answer.message {
            body.send_data(Bytes::from_static(message), answer.trailers.is_none()).unwrap();
        }
        if let Some(trailers) = &answer.trailers {
            let pairs = trailers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            body.send_trailers(pairs.collect::<HeaderMap>()).unwrap();
        }
    }
}

fn grpc(target: String) -> CheckSpec {
    CheckSpec { grpc: Some(target), timeout: timeout_of(5000), ..CheckSpec::default() }
}

fn serving(message: &'static [u8]) -> Answer {
    let trailers = Some(vec![("grpc-status", "0")]);
    Answer { code: 200, message: Some(message), trailers, ..Answer::default() }
}

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

#[tokio::test]
async fn a_grpc_target_says_how_it_is() {
    let fault = |headers, code| Answer { code, headers, ..Answer::default() };
    let unknown = vec![("grpc-status", "12"), ("grpc-message", "unknown service grpc.health.v1.Health%21")];
    let table = [
        (serving(SERVING), 'p', "gRPC check TARGET: success"),
        (serving(b"\0\0\0\0\x02\x08\x02"), 'c', "gRPC check TARGET: NOT_SERVING"),
        (serving(b"\0\0\0\0\x00"), 'c', "gRPC check TARGET: UNKNOWN"),
        (serving(b"\0\0\0\0\x02\x08\x03"), 'c', "gRPC check TARGET: SERVICE_UNKNOWN"),
        (serving(b"\0\0\0"), 'c', "rpc error: code = Internal desc = malformed answer"),
        (
            fault(unknown, 200),
            'c',
            "rpc error: code = Unimplemented desc = unknown service grpc.health.v1.Health!",
        ),
        (fault(vec![("grpc-status", "99")], 200), 'c', "rpc error: code = Unknown desc = "),
        (
            Answer { trailers: Some(vec![("grpc-status", "7"), ("grpc-message", "no")]), ..serving(SERVING) },
            'c',
            "rpc error: code = PermissionDenied desc = no",
        ),
        (
            fault(vec![], 404),
            'c',
            "rpc error: code = Unimplemented desc = unexpected HTTP status code received from server: 404 (Not Found)",
        ),
        (
            Answer { trailers: None, ..serving(SERVING) },
            'c',
            "rpc error: code = Internal desc = server closed the stream without sending trailers",
        ),
    ];
    for (answer, status, output) in table {
        let (address, served) = serve(answer, false, 1).await;
        let target = format!("{address}/web");
        let looked = look(grpc(target.clone())).await;
        assert_eq!(looked, (status, output.replace("TARGET", &target)));
        let asked = served.await.unwrap();
        let path = format!("POST http://{address}/grpc.health.v1.Health/Check");
        assert_eq!(asked, [(path, b"\0\0\0\0\x05\x0a\x03web".to_vec())]);
    }
}

#[tokio::test]
async fn a_grpc_target_that_does_not_answer_is_critical() {
    let (_held, address) = closed_port();
    let refused = format!("Error while dialing: dial tcp {address}: connect: connection refused");
    let unavailable = "rpc error: code = Unavailable desc = connection error: desc = \"transport: ";
    assert_eq!(look(grpc(address.to_string())).await, ('c', format!("{unavailable}{refused}\"")));
    let portless =
        format!("{unavailable}Error while dialing: dial tcp: address web: missing port in address\"");
    assert_eq!(look(grpc("web/x".into())).await, ('c', portless));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let spec = CheckSpec { timeout: timeout_of(50), ..grpc(silent.local_addr().unwrap().to_string()) };
    let late = "rpc error: code = DeadlineExceeded desc = context deadline exceeded";
    assert_eq!(look(spec).await, ('c', late.into()));
    let (address, hung_up) = hang_up(b"").await;
    let eof = "rpc error: code = Unavailable desc = unexpected EOF";
    assert_eq!(look(grpc(address.to_string())).await, ('c', eof.into()));
    hung_up.await.unwrap();
}

/// Takes one connection, waits for a word, says this, and ends it.
async fn hang_up(says: &'static [u8]) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut word = [0; 1024];
        assert!(stream.read(&mut word).await.unwrap() > 0);
        stream.write_all(says).await.unwrap();
        stream.shutdown().await.unwrap();
        // Until the other side is gone too: no reset cuts short what was said.
        let _gone = stream.read_to_end(&mut vec![]).await;
    };
    (address, tokio::spawn(served))
}

#[tokio::test]
async fn over_tls_a_certificate_is_verified_unless_that_is_skipped() {
    for kind in ["grpc", "h2ping"] {
        let (address, served) = serve(serving(SERVING), true, 3).await;
        let target = text(&address.to_string());
        let spec = CheckSpec {
            grpc: target.clone().filter(|_| kind == "grpc"),
            grpc_use_tls: Some(true),
            h2ping: target.filter(|_| kind == "h2ping"),
            tls_server_name: text("check.test"),
            timeout: timeout_of(5000),
            ..CheckSpec::default()
        };
        let (status, output) = look(spec.clone()).await;
        assert_eq!((status, output.contains("certificate")), ('c', true), "{output}");
        let success = match kind {
            "grpc" => format!("gRPC check {address}: success"),
            _ => "HTTP2 ping was successful".into(),
        };
        assert_eq!(look_with(&trusting(), spec.clone()).await, ('p', success.clone()));
        assert_eq!(look(CheckSpec { tls_skip_verify: Some(true), ..spec }).await, ('p', success));
        let asked = served.await.unwrap();
        assert_eq!(asked.len(), if kind == "grpc" { 2 } else { 0 });
        assert!(asked.iter().all(|(path, _)| path.starts_with("POST https://")), "{asked:?}");
    }
}

fn h2ping(address: SocketAddr, tls: Option<bool>) -> CheckSpec {
    let h2ping = text(&address.to_string());
    CheckSpec { h2ping, h2ping_use_tls: tls, timeout: timeout_of(5000), ..CheckSpec::default() }
}

#[tokio::test]
async fn a_ping_that_comes_back_passes() {
    let (address, served) = serve(Answer::default(), false, 1).await;
    let looked = look(h2ping(address, Some(false))).await;
    assert_eq!(looked, ('p', "HTTP2 ping was successful".into()));
    served.await.unwrap();
    let (_held, closed) = closed_port();
    let refused = format!("Failed to dial to {closed}: dial tcp {closed}: connect: connection refused");
    assert_eq!(look(h2ping(closed, None)).await, ('c', refused));
    let (address, _hung_up) = hang_up(b"").await;
    let eof = "HTTP2 ping failed: unexpected EOF";
    assert_eq!(look(h2ping(address, Some(false))).await, ('c', eof.into()));
    let (address, _hung_up) = hang_up(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let not_tls =
        format!("Failed to dial to {address}: tls: first record does not look like a TLS handshake");
    assert_eq!(look(h2ping(address, None)).await, ('c', not_tls), "TLS is the default");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let spec = CheckSpec { timeout: timeout_of(50), ..h2ping(silent.local_addr().unwrap(), Some(false)) };
    assert_eq!(look(spec).await, ('c', "HTTP2 ping failed: context deadline exceeded".into()));
}
