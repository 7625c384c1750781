//! Requests that go on to a server whole, from an agent that is none; and what a server does of them: it answers as if it had
//! been asked itself, but for what the asked agent puts on every answer. What an operator forbids, bodies that are too large
//! and the like end where they are asked.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;

use super::{
    agent::{Agent, Failure, Pending},
    body::{Arriving, Pieces},
    call::{Api, Call},
    counters::Counters,
    frames::Frames,
    guard::Ration,
    query,
    reply::{Body, Fault, Outcome, Reply},
    route::{Asker, Route, Router},
    settings::Settings,
    v1,
};
use crate::catalog::Text;

/// Whoever answers what is of the datacenter, where an agent cannot.
pub trait Elsewhere: Send + Sync + 'static {
    /// Ends when the head of the answer is there. Dropped, nobody works on it any more.
    fn ask(&self, errand: Errand) -> Pending<'static, Result<Answer, Failure>>;
}

/// A request, as it is handed on.
pub struct Errand {
    pub method: String,
    /// Path and query, as they were asked.
    pub uri: String,
    pub headers: Vec<(String, String)>,
    pub source: Option<IpAddr>,
    pub body: ErrandBody,
    /// How long its answer waits for a change; `None` where it waits for none.
    pub wait: Option<Duration>,
}

pub enum ErrandBody {
    Whole(Bytes),
    Coming(Pieces),
}

/// Another agent's answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Of the body, where it is known.
    pub length: Option<u64>,
    pub pieces: Pieces,
}

/// Answers requests that other agents hand over. Cloned, it is the same one.
#[derive(Clone)]
pub struct Desk(Arc<Router>);

/// Headers that say something of the answer wanted. Who asks for whom was read already.
const HEADERS: [&str; 7] = [
    "accept",
    "accept-encoding",
    "authorization",
    "cache-control",
    "x-consul-namespace",
    "x-consul-partition",
    "x-consul-token",
];

/// What an agent puts before an error that it was told, as Consul's agents do.
const TOLD: &str = "rpc error making call: ";

/// What a call takes along, where it is to go on.
pub struct Onward {
    to: Arc<dyn Elsewhere>,
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
}

impl Onward {
    /// `None` where this agent answers itself.
    pub fn of<B>(
        agent: &Arc<dyn Agent>,
        route: &Route,
        request: &Request<B>,
        nested: bool,
    ) -> Option<Onward> {
        let to = agent.elsewhere()?;
        v1::is_of_datacenter(route).then(|| Onward {
            to,
            method: request.method().to_string(),
            uri: asked_for(request.uri(), nested),
            headers: headers(request.headers()),
        })
    }

    pub async fn go(self, mut call: Call) -> Outcome {
        // Whether it can be read is for whoever answers to say.
        let waits = call.index().is_ok_and(|index| index > 0) || call.query.has("hash");
        let wait = if waits { call.wait().ok() } else { None };
        let body = match call.stream.take() {
            Some(stream) => ErrandBody::Coming(pieces(stream.into_body())),
            None => ErrandBody::Whole(call.body.clone()),
        };
        let answer = match wait {
            Some(_) => self.asked_until_stop(&call, wait).await?,
            None => self.to.ask(self.errand(self.uri.clone(), &call, body, None)).await?,
        };
        let failed = StatusCode::INTERNAL_SERVER_ERROR.as_u16();
        let (mut pieces, mut length) = (answer.pieces, answer.length);
        if answer.status == failed && length.is_some_and(|length| length > 0) {
            length = length.map(|length| length + TOLD.len() as u64);
            pieces = Box::pin(tokio_stream::once(Ok(Bytes::from_static(TOLD.as_bytes()))).chain(pieces));
        }
        let status = StatusCode::from_u16(answer.status)
            .map_err(|_| Fault::failed(format!("a server answered with status {}", answer.status)))?;
        let mut reply = Reply::new(status, Body::Passed(pieces, length));
        let named =
            answer.headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)));
        reply.headers.extend(named);
        Ok(reply)
    }

    /// As a read that waits here: when this agent stops, it is answered at once with what there is.
    async fn asked_until_stop(&self, call: &Call, wait: Option<Duration>) -> Result<Answer, Failure> {
        let body = || ErrandBody::Whole(call.body.clone());
        tokio::select! {
            biased;
            answer = self.to.ask(self.errand(self.uri.clone(), call, body(), wait)) => return answer,
            () = call.api.stop.cancelled() => {}
        }
        let at_once = self.to.ask(self.errand(without_wait(&self.uri), call, body(), None));
        let answer = timeout(STOP_PATIENCE, at_once).await;
        answer.unwrap_or_else(|_| Err(Failure::Other("the agent stops, and no server answers".into())))
    }

    fn errand(&self, uri: String, call: &Call, body: ErrandBody, wait: Option<Duration>) -> Errand {
        let (method, headers) = (self.method.clone(), self.headers.clone());
        Errand { method, uri, headers, source: call.source, body, wait }
    }
}

/// For a server to answer those who wait when this agent stops; less than a connection then has.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// What is asked, without what it waits for.
fn without_wait(uri: &str) -> String {
    let Some((path, query)) = uri.split_once('?') else { return uri.into() };
    let name = |pair: &str| query::decode(pair.split('=').next().unwrap_or_default()).unwrap_or_default();
    let stays = |pair: &&str| !["index", "hash", "wait"].contains(&name(pair).as_str());
    let rest: Vec<&str> = query.split('&').filter(stays).collect();
    if rest.is_empty() { path.into() } else { format!("{path}?{}", rest.join("&")) }
}

/// A stream of what comes, for as long as it comes.
fn pieces(body: Arriving) -> Pieces {
    let pieces = http_body_util::BodyDataStream::new(body);
    Box::pin(pieces.map(|piece| piece.map_err(std::io::Error::other)))
}

/// An operator may want every answer of this agent nested.
fn asked_for(uri: &Uri, nested: bool) -> String {
    let asked = uri.path_and_query().map_or("/", |asked| asked.as_str());
    match (nested, uri.query()) {
        (false, _) => asked.into(),
        (true, None) => format!("{asked}?pretty"),
        (true, Some(_)) => format!("{asked}&pretty"),
    }
}

fn headers(all: &HeaderMap) -> Vec<(String, String)> {
    let text = |name: &str| Some((name.to_string(), all.get(name)?.to_str().ok()?.to_string()));
    HEADERS.into_iter().filter_map(text).collect()
}

impl Desk {
    pub fn new(
        agent: Arc<dyn Agent>,
        settings: Arc<ArcSwap<Settings>>,
        counters: Arc<Counters>,
        ration: Arc<Ration>,
        stop: CancellationToken,
    ) -> Desk {
        Desk(Arc::new(Router::new(Arc::new(Api { agent, settings, stop }), counters, ration)))
    }

    /// `node` is that of the agent that was asked. Dropped, nobody works on it any more.
    pub async fn answer(&self, node: Text, mut errand: Errand) -> Result<Answer, Failure> {
        let unreadable = |what: &str| Failure::Other(format!("a request was handed over with {what}"));
        let mut request = Request::new(());
        *request.method_mut() = errand.method.parse().map_err(|_| unreadable("no method"))?;
        *request.uri_mut() = errand.uri.parse().map_err(|_| unreadable("no path"))?;
        // There is no connection to say more of.
        *request.version_mut() = Version::HTTP_10;
        for (name, value) in errand.headers.drain(..) {
            if let (Ok(name), Ok(value)) = (name.parse::<hyper::header::HeaderName>(), value.parse()) {
                request.headers_mut().insert(name, value);
            }
        }
        let body = match errand.body {
            ErrandBody::Whole(bytes) => Box::pin(tokio_stream::once(Ok(bytes))) as Pieces,
            ErrandBody::Coming(pieces) => pieces,
        };
        let asker = Asker::Agent { node, source: errand.source };
        let response = self.0.answer(request.map(|()| Arriving::HandedOver(body)), asker).await;
        Ok(Answer::of(response))
    }
}

impl Answer {
    fn of(response: Response<Frames>) -> Answer {
        let (head, frames) = response.into_parts();
        let text = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
            Some((name.to_string(), value.to_str().ok()?.to_string()))
        };
        Answer {
            status: head.status.as_u16(),
            headers: head.headers.iter().filter_map(text).collect(),
            length: hyper::body::Body::size_hint(&frames).exact(),
            pieces: Box::pin(http_body_util::BodyDataStream::new(frames)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_handed_on_as_it_was_asked() {
        let uri = |text: &str, nested| asked_for(&text.parse().unwrap(), nested);
        assert_eq!(uri("/v1/kv/a%2Fb?raw&dc=x", false), "/v1/kv/a%2Fb?raw&dc=x");
        assert_eq!(uri("/v1/kv/a?raw", true), "/v1/kv/a?raw&pretty");
        assert_eq!(uri("/v1/kv/a", true), "/v1/kv/a?pretty");
    }

    #[test]
    fn what_is_asked_can_be_asked_without_its_wait() {
        let table = [
            ("/v1/kv/a", "/v1/kv/a"),
            ("/v1/kv/a?index=3", "/v1/kv/a"),
            ("/v1/kv/a?raw&index=3&dc=x&%77ait=5m", "/v1/kv/a?raw&dc=x"),
            ("/v1/kv/index=1?hash=0&indexes", "/v1/kv/index=1?indexes"),
        ];
        for (asked, expected) in table {
            assert_eq!(without_wait(asked), expected);
        }
    }
}
