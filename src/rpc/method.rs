//! From a call's path to what a server does about it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{Request, Response, body::Incoming};
use tokio::time::{Instant, timeout_at};
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Code, Status, Streaming,
    body::Body,
    server::{Grpc, ServerStreamingService, StreamingService, UnaryService},
};

use super::{
    call::MESSAGE_BYTES_MAX,
    codec::MessagePack,
    message::{
        Cut, Decided, DnsAsked, Failure, HttpAsked, HttpTold, Located, NodeAsked, NodeTold, Nothing, Part,
        Pending, Pieces, Proposed, Serve,
    },
    rows::Rows,
};
use crate::catalog::{Topic, fold};

pub const PROPOSE: &str = "/lictor.agents.v1/Propose";
pub const NODE: &str = "/lictor.agents.v1/Node";
pub const HTTP: &str = "/lictor.agents.v1/Http";
pub const DNS: &str = "/lictor.agents.v1/Dns";
pub const COORDINATE: &str = "/lictor.agents.v1/Coordinate";

/// Nobody waits longer for a node to change.
const NODE_WAIT_MAX: Duration = Duration::from_secs(600);
/// An answer in several messages. A type of its own, so that no lifetime shows in what the framework is generic over.
struct Parts<T>(Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>);

impl<T> Stream for Parts<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// For the head of a request, whose stream is there.
const HEAD_WAIT: Duration = Duration::from_secs(10);

pub fn answer(serve: Arc<dyn Serve>, request: Request<Incoming>) -> Pending<Response<Body>> {
    match request.uri().path() {
        PROPOSE => unary(request, move |asked| Box::pin(propose(serve.clone(), asked))),
        DNS => unary(request, move |asked: DnsAsked| {
            let told = serve.clone().dns(asked).map_err(Status::from);
            Box::pin(std::future::ready(told))
        }),
        COORDINATE => unary(request, move |asked: Located| {
            if let Some(coordinate) = asked.coordinate {
                serve.coordinate(coordinate);
            }
            Box::pin(std::future::ready(Ok(Nothing {})))
        }),
        NODE => {
            let method: Method<NodeAsked, Parts<NodeTold>> =
                Method(Box::new(move |asked| Box::pin(node(serve.clone(), asked))));
            Box::pin(async move { grpc().server_streaming(method, request).await })
        }
        HTTP => {
            let method: Method<Streaming<Part<HttpAsked>>, Parts<Part<HttpTold>>> =
                Method(Box::new(move |asked| Box::pin(http(serve.clone(), asked))));
            Box::pin(async move { grpc().streaming(method, request).await })
        }
        other => {
            let unknown = Status::unimplemented(format!("{other}: this server does not know it"));
            Box::pin(std::future::ready(unknown.into_http()))
        }
    }
}

fn unary<Q, A>(
    request: Request<Incoming>,
    method: impl FnMut(Q) -> Pending<Result<A, Status>> + Send + 'static,
) -> Pending<Response<Body>>
where
    Q: serde::de::DeserializeOwned + Send + Sync + 'static,
    A: serde::Serialize + Send + Sync + 'static,
{
    let method = Method(Box::new(method));
    Box::pin(async move { grpc().unary(method, request).await })
}

async fn propose(serve: Arc<dyn Serve>, asked: Proposed) -> Result<Decided, Status> {
    let command = asked.command.ok_or_else(|| Failure::Other("Propose: no command".into()))?;
    Ok(Decided { reply: Some(serve.propose(command).await?) })
}

fn grpc<E, D>() -> Grpc<MessagePack<E, D>>
where
    E: serde::Serialize + Send + 'static,
    D: serde::de::DeserializeOwned + Send + 'static,
{
    Grpc::new(MessagePack::default())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// At once where it differs from what is known; else when it does, or after the wait.
async fn node(serve: Arc<dyn Serve>, asked: NodeAsked) -> Result<Parts<NodeTold>, Status> {
    let key = fold(&asked.node).into_owned();
    let until = Instant::now() + Duration::from_millis(asked.wait_millis).min(NODE_WAIT_MAX);
    loop {
        let topics = vec![Topic::Node(key.as_str().into()), Topic::NodeChecks(key.as_str().into())];
        let changed = serve.subscribe(topics);
        let catalog = serve.catalog();
        let home = catalog.node(&key).map(|home| &**home);
        let parts = if Rows::digest(home) != asked.known {
            Rows::parts(home)
        } else if timeout_at(until, changed).await.is_ok() {
            continue;
        } else {
            vec![NodeTold { same: true, ..NodeTold::default() }]
        };
        return Ok(Parts(Box::pin(tokio_stream::iter(parts.into_iter().map(Ok)))));
    }
}

async fn http(
    serve: Arc<dyn Serve>,
    mut asked: Streaming<Part<HttpAsked>>,
) -> Result<Parts<Part<HttpTold>>, Status> {
    let first = timeout_at(Instant::now() + HEAD_WAIT, asked.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("Http: no head came"))??.unwrap_or_default();
    let head = first.head.ok_or_else(|| Status::from(Failure::Other("Http: no head".into())))?;
    let rest = asked.map(|part| part.map(|part| part.body).map_err(std::io::Error::other));
    let body: Pieces = Box::pin(tokio_stream::once(Ok(first.body)).chain(rest));
    let (told, pieces) = serve.http(head, body).await?;
    let head = tokio_stream::once(Ok(Part { head: Some(told), body: Default::default() }));
    let broken = |error: std::io::Error| Status::unknown(error.to_string());
    let rest = Cut::new(pieces).map(move |piece| Ok(Part { head: None, body: piece.map_err(broken)? }));
    Ok(Parts(Box::pin(head.chain(rest))))
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        let code = match failure {
            Failure::NoLeader => Code::FailedPrecondition,
            Failure::Other(_) => Code::Aborted,
        };
        Status::new(code, failure.to_string())
    }
}

/// A function as a service.
struct Method<Q, A>(Box<dyn FnMut(Q) -> Pending<Result<A, Status>> + Send>);

type Answered<A> = Pending<Result<tonic::Response<A>, Status>>;

impl<Q, A: Send + 'static> Method<Q, A> {
    fn begin(&mut self, request: tonic::Request<Q>) -> Answered<A> {
        let done = (self.0)(request.into_inner());
        Box::pin(async move { Ok(tonic::Response::new(done.await?)) })
    }
}

impl<Q, A: Send + 'static> UnaryService<Q> for Method<Q, A> {
    type Response = A;
    type Future = Answered<A>;

    fn call(&mut self, request: tonic::Request<Q>) -> Answered<A> {
        self.begin(request)
    }
}

impl<Q, A: 'static> ServerStreamingService<Q> for Method<Q, Parts<A>> {
    type Response = A;
    type ResponseStream = Parts<A>;
    type Future = Answered<Parts<A>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Answered<Parts<A>> {
        self.begin(request)
    }
}

impl<Q, A: 'static> StreamingService<Q> for Method<Streaming<Q>, Parts<A>> {
    type Response = A;
    type ResponseStream = Parts<A>;
    type Future = Answered<Parts<A>>;

    fn call(&mut self, request: tonic::Request<Streaming<Q>>) -> Answered<Parts<A>> {
        self.begin(request)
    }
}
