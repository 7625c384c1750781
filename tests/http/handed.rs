//! What an agent that is no server hands on, and what a server does of it.

use lictor::http::{self, Desk, Elsewhere, Errand, ErrandBody, Failure, Mode, Pending, Rates};
use tokio_stream::StreamExt;

use super::*;

/// A server, as it is asked over HTTP and by other agents.
struct Handed {
    agent: Arc<Memory>,
    desk: Desk,
}

impl Handed {
    fn start(settings: Settings) -> Handed {
        let server = Server::bind(&[]).unwrap();
        let agent = Memory::new();
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let desk = server.desk(agent.clone(), settings, CancellationToken::new());
        Handed { agent, desk }
    }

    async fn ask(
        &self,
        method: &str,
        uri: &str,
        body: &'static str,
    ) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let (method, uri, body) = (method.into(), uri.into(), ErrandBody::Whole(body.into()));
        let errand = Errand { method, uri, headers: Vec::new(), source: None, body, wait: None };
        let mut answer = self.desk.answer("elm".into(), errand).await.unwrap();
        let mut body = Vec::new();
        while let Some(piece) = timeout(DEADLINE, answer.pieces.next()).await.unwrap() {
            body.extend_from_slice(&piece.unwrap());
        }
        (answer.status, answer.headers, body)
    }

    /// An agent that hands on what is of the datacenter.
    fn client(&self) -> Running {
        let client = Running::start(Settings::default());
        *client.agent.elsewhere.lock().unwrap() = Some(Arc::new(Hand(self.desk.clone())));
        client
    }
}

struct Hand(Desk);

impl Elsewhere for Hand {
    fn ask(&self, errand: Errand) -> Pending<'static, Result<http::Answer, Failure>> {
        let desk = self.0.clone();
        Box::pin(async move { desk.answer("elm".into(), errand).await })
    }
}

/// Whoever reaches the port for agents is none of those whom an operator lets write to the agent itself.
#[tokio::test]
async fn what_is_a_servers_own_is_not_done_for_other_agents() {
    let server = Handed::start(Settings::default());
    let check = r#"{"Name": "x", "Interval": "10s", "Args": ["/bin/true"]}"#;
    let own = [
        ("PUT", "/v1/agent/leave", ""),
        ("PUT", "/v1/agent/check/register", check),
        ("PUT", "/v1/agent/service/register", r#"{"Name": "web"}"#),
        ("PUT", "/v1/agent/service/deregister/web", ""),
        ("PUT", "/v1/agent/maintenance?enable=true", ""),
        ("PUT", "/v1/agent/reload", ""),
        ("PUT", "/v1/agent/join/10.0.0.9", ""),
        ("PUT", "/v1/agent/force-leave/elm", ""),
        ("PUT", "/v1/event/fire/deploy", ""),
        ("GET", "/v1/agent/self", ""),
        ("GET", "/v1/agent/host", ""),
        ("GET", "/v1/agent/monitor", ""),
        ("GET", "/v1/agent/metrics", ""),
        ("GET", "/v1/agent/metrics/stream", ""),
        ("GET", "/v1/agent/health/service/name/web", ""),
        ("GET", "/v1/event/list", ""),
        ("OPTIONS", "/v1/agent/self", ""),
        ("GET", "/v1/acl/tokens", ""),
    ];
    for (method, uri, body) in own {
        assert_eq!(server.ask(method, uri, body).await.0, 403, "{method} {uri}");
    }
    assert!(!server.agent.left.load(Ordering::SeqCst));
    assert!(server.agent.events.lock().unwrap().is_empty());
    assert_eq!(server.ask("PUT", "/v1/kv/a", "x").await.0, 200, "what is of the datacenter is");
}

#[tokio::test]
async fn what_stands_on_every_answer_stands_there_once() {
    // What comes too fast is refused before the server does anything about it.
    let rates = Rates { mode: Mode::Enforcing, reads_per_sec: Some(0.1), writes_per_sec: None };
    let server = Handed::start(Settings { rates, ..Settings::default() });
    let client = server.client();
    for (path, status) in [("/v1/kv/none", 404), ("/v1/kv/none?ns=x", 400), ("/v1/kv/none", 429)] {
        let answer = get(client.addr, path).await;
        assert_eq!(answer.status, status, "{path}");
        for name in ["vary", "x-consul-default-acl-policy"] {
            let count = answer.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count();
            assert_eq!(count, 1, "{name} of {path}: {answer:?}");
        }
    }
    client.stop().await;
}

#[tokio::test]
async fn a_long_error_can_be_read_by_those_who_take_gzip() {
    let server = Handed::start(Settings::default());
    let client = server.client();
    let path = format!("/v1/catalog/nodes?filter={}==1", "x".repeat(3_000));
    let plain = get(client.addr, &path).await;
    assert_eq!(plain.status, 500);
    assert!(plain.text().starts_with("rpc error making call: ") && plain.body.len() > 1_400, "{plain:?}");
    let zipped = ask(client.addr, "GET", &path, "Accept-Encoding: gzip\r\n", "").await;
    assert_eq!((zipped.header("content-encoding"), &zipped.body), (None, &plain.body));
    client.stop().await;
}

/// Who waits at an agent that stops is told what there is, as where he waits at a server.
#[tokio::test]
async fn who_waits_for_a_server_is_answered_when_the_asked_agent_stops() {
    let server = Handed::start(Settings::default());
    let client = server.client();
    server.ask("PUT", "/v1/kv/a", "x").await;
    let path = format!("/v1/kv/a?raw&wait=10m&index={}", index(&get(client.addr, "/v1/kv/a").await));
    let addr = client.addr;
    let asked = tokio::spawn(async move { get(addr, &path).await });
    let waits = async {
        while server.agent.waiting() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, waits).await.expect("it waits");
    client.shutdown.cancel();
    let answer = timeout(DEADLINE, asked).await.unwrap().unwrap();
    assert_eq!((answer.status, answer.text()), (200, "x"), "{answer:?}");
    client.stop().await;
}
