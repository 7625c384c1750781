//! Calls to servers: which one is asked, how often, for how long (`cluster.md` §2.2), and what becomes of it. A server that
//! cannot be reached was told nothing, so another is asked at once; a write that may have reached one is never sent twice.

use std::{
    collections::HashMap,
    error::Error,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hyper::Uri;
use hyper::http::uri::PathAndQuery;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::{Stream, StreamExt};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Status, Streaming, client::Grpc};

use super::{
    codec::MessagePack,
    counters::Counters,
    link::{DialError, Link, Sender, Tasks},
    message::{
        Body, Cut, Decided, DnsAsked, DnsTold, HttpAsked, HttpTold, Located, NodeAsked, NodeTold, Nothing,
        Part, Pending, Pieces, Proposed,
    },
    method,
    rows::Rows,
    servers::{Address, Servers},
};
use crate::catalog::{Command, NodeCoordinate, Reply, Text};

/// What an operator sets of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Calls come from this address, unless it stands for any.
    pub from: IpAddr,
    /// For so long it is worth trying again where nobody leads.
    pub hold: Duration,
    /// For a call that waits for nothing.
    pub patience: Duration,
}

/// Asks servers. Cloned, it is the same one.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    settings: Settings,
    servers: Mutex<Servers>,
    links: Mutex<HashMap<SocketAddr, Arc<Link>>>,
    tasks: Tasks,
    counters: Arc<Counters>,
}

/// Why a call came to nothing. `Display` is Consul's text, with what each hop adds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent.
    #[error("No known Consul servers")]
    NoServers,
    /// Nothing was sent.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Nothing was done.
    #[error("rpc error making call: No cluster leader")]
    NoLeader,
    /// It may have been done, or not.
    #[error("rpc error making call: {0}")]
    Broken(String),
    /// It may have been done, or not.
    #[error("rpc error making call: i/o deadline reached")]
    TimedOut,
    /// The server's own words.
    #[error("rpc error making call: {0}")]
    Refused(String),
}

/// What is taken in one message; see also `Rows::parts`.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Of a node, in all messages.
const ROWS_MAX: usize = 1_000_000;

impl Client {
    /// Its connections end when `stop` is cancelled: see `stopped`.
    pub fn new(settings: Settings, stop: CancellationToken) -> Self {
        let tasks = Tasks { tracker: TaskTracker::new(), stop };
        let servers = Mutex::new(Servers::new(fastrand::u64(..)));
        let (links, counters) = (Mutex::default(), Arc::default());
        Client(Arc::new(Shared { settings, servers, links, tasks, counters }))
    }

    /// Takes up who serves now, of so many members. Says whether anyone came.
    pub fn update(&self, now_serving: &[Address], members: usize) -> bool {
        let came = self.0.servers().update(now_serving, members);
        // What goes on over a connection that is left goes on to its end.
        let servers = self.0.servers();
        self.0.links().retain(|address, _| servers.has(*address));
        came
    }

    /// How many servers are known.
    pub fn servers(&self) -> usize {
        self.0.servers().len()
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// For so long it is worth trying again where nobody leads.
    pub fn hold(&self) -> Duration {
        self.0.settings.hold
    }

    /// For a call that waits for nothing.
    pub fn patience(&self) -> Duration {
        self.0.settings.patience
    }

    /// Waits for its connections to end.
    pub async fn stopped(&self) {
        self.0.tasks.tracker.close();
        self.0.tasks.tracker.wait().await;
    }

    /// Puts a command to the log, and gives what applying it came to.
    pub async fn propose(&self, command: &Command) -> Result<Reply, CallError> {
        let told: Decided = self
            .unary(method::PROPOSE, false, self.0.settings.patience, || Proposed {
                command: Some(command.clone()),
            })
            .await?;
        told.reply.ok_or_else(|| CallError::Refused("an empty answer".into()))
    }

    /// What is there of a node; `None` where its digest is this one, and is so for as long as this.
    pub async fn node(&self, node: &Text, known: &Bytes, wait: Duration) -> Result<Option<Rows>, CallError> {
        let wait_millis = wait.as_millis() as u64;
        let asked = NodeAsked { node: node.clone(), known: known.clone(), wait_millis };
        let patience = if wait.is_zero() { self.patience() } else { wait + self.hold() };
        self.call(true, patience, move |sender| Box::pin(rows(sender, asked.clone()))).await
    }

    /// Has a request of the HTTP API answered, within this time. Where its body is only coming, it is sent once.
    pub async fn http(
        &self,
        asked: HttpAsked,
        body: Body,
        is_read: bool,
        patience: Duration,
    ) -> Result<(HttpTold, Pieces), CallError> {
        let (whole, mut coming) = match body {
            Body::Whole(bytes) => (bytes, None),
            Body::Coming(pieces) => (Bytes::new(), Some(pieces)),
        };
        let once = coming.is_some();
        let attempt = |sender| -> Pending<Result<(HttpTold, Pieces), Status>> {
            let (asked, coming, whole) = (asked.clone(), coming.take(), whole.clone());
            let body: Pieces = match (once, coming) {
                (false, _) => Box::pin(tokio_stream::once(Ok(whole))),
                (true, Some(coming)) => coming,
                (true, None) => return Box::pin(std::future::ready(Err(Status::unknown("stream closed")))),
            };
            Box::pin(forwarded(sender, asked, body, once))
        };
        self.call(is_read && !once, patience, attempt).await
    }

    /// Has a question for a name answered, within this time.
    pub async fn dns(&self, asked: &DnsAsked, patience: Duration) -> Result<DnsTold, CallError> {
        self.unary(method::DNS, true, patience, || asked.clone()).await
    }

    /// Tells where a node says that it is.
    pub async fn coordinate(&self, coordinate: &NodeCoordinate) -> Result<(), CallError> {
        let located = || Located { coordinate: Some(coordinate.clone()) };
        let Nothing {} = self.unary(method::COORDINATE, true, self.0.settings.patience, located).await?;
        Ok(())
    }

    async fn unary<Q, A>(
        &self,
        path: &'static str,
        is_read: bool,
        patience: Duration,
        asked: impl Fn() -> Q,
    ) -> Result<A, CallError>
    where
        Q: Serialize + Send + Sync + 'static,
        A: DeserializeOwned + Send + Sync + 'static,
    {
        let attempt = |sender| -> Pending<Result<A, Status>> {
            let (mut grpc, path, asked) = (grpc(sender), PathAndQuery::from_static(path), asked());
            Box::pin(async move {
                Ok(grpc.unary(Request::new(asked), path, MessagePack::default()).await?.into_inner())
            })
        };
        self.call(is_read, patience, attempt).await
    }

    async fn call<T>(
        &self,
        is_read: bool,
        patience: Duration,
        attempt: impl FnMut(Sender) -> Pending<Result<T, Status>>,
    ) -> Result<T, CallError> {
        self.0.counters.calls.add(1);
        let mut under_way = None;
        let done = timeout(patience, self.attempts(is_read, patience, attempt, &mut under_way)).await;
        let done = done.unwrap_or_else(|_| {
            under_way.inspect(|address| self.0.servers().failed(*address));
            Err(CallError::TimedOut)
        });
        self.0.counters.failed.add(done.is_err().into());
        done
    }

    async fn attempts<T>(
        &self,
        is_read: bool,
        patience: Duration,
        mut attempt: impl FnMut(Sender) -> Pending<Result<T, Status>>,
        under_way: &mut Option<SocketAddr>,
    ) -> Result<T, CallError> {
        let Settings { from, hold, .. } = self.0.settings;
        let (begun, mut rounds, mut pause) = (Instant::now(), 0, Duration::ZERO);
        let (mut tried, mut last) = (Vec::new(), CallError::NoServers);
        loop {
            let now = Instant::now();
            let Some(link) = self.0.pick(&tried, now) else {
                let is_worth_waiting = matches!(last, CallError::NoLeader | CallError::Broken(_));
                if tried.is_empty() || !is_worth_waiting || now - begun >= hold {
                    return Err(last);
                }
                tried.clear();
                pause = pause_after(rounds, pause, hold);
                rounds += 1;
                *under_way = None;
                sleep(pause).await;
                continue;
            };
            let (address, link) = link;
            *under_way = Some(address);
            // Each that is not tried yet has as much, and what is sent then, too.
            let shares = self.servers().saturating_sub(tried.len()) + 1;
            let wait = patience.saturating_sub(now - begun) / shares as u32;
            last = match link.connected(from, wait, &self.0.tasks).await {
                Err(error) => error.into(),
                Ok(sender) => match attempt(sender).await.map_err(CallError::from) {
                    Ok(done) => return Ok(done),
                    Err(CallError::NoLeader) => CallError::NoLeader,
                    Err(CallError::Broken(text)) if is_read || text == NOT_SENT => CallError::Broken(text),
                    Err(CallError::Broken(text)) => {
                        self.0.servers().failed(address);
                        return Err(CallError::Broken(text));
                    }
                    Err(error) => return Err(error),
                },
            };
            self.0.servers().failed(address);
            tried.push(address);
        }
    }
}

impl Shared {
    fn pick(&self, tried: &[SocketAddr], now: Instant) -> Option<(SocketAddr, Arc<Link>)> {
        let address = self.servers().pick(tried, now.into_std())?.address;
        let mut links = self.links();
        let link = links.entry(address).or_insert_with(|| Arc::new(Link::new(address)));
        Some((address, link.clone()))
    }

    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Before the next round of tries: anything from the last pause to a bound that doubles.
fn pause_after(rounds: u32, last: Duration, hold: Duration) -> Duration {
    let most = (hold / 16 * (1 << rounds.min(10))).max(last);
    last + (most - last).mul_f64(fastrand::f64())
}

/// It did not leave this agent.
const NOT_SENT: &str = "stream closed before anything was sent";

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::FailedPrecondition => CallError::NoLeader,
            Code::Aborted | Code::OutOfRange | Code::DataLoss | Code::Unimplemented => {
                CallError::Refused(status.message().into())
            }
            _ => {
                let source = status.source().and_then(|source| source.downcast_ref::<hyper::Error>());
                let was_sent = source.is_none_or(|error| !error.is_canceled());
                CallError::Broken(if was_sent { "stream closed" } else { NOT_SENT }.into())
            }
        }
    }
}

fn grpc(sender: Sender) -> Grpc<Sender> {
    Grpc::with_origin(sender, Uri::from_static("http://lictor"))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

async fn streaming<Q, A>(
    sender: Sender,
    path: &'static str,
    asked: impl Stream<Item = Q> + Send + 'static,
) -> Result<Streaming<A>, Status>
where
    Q: Serialize + Send + Sync + 'static,
    A: DeserializeOwned + Send + Sync + 'static,
{
    let (mut grpc, path) = (grpc(sender), PathAndQuery::from_static(path));
    Ok(grpc.streaming(Request::new(asked), path, MessagePack::default()).await?.into_inner())
}

async fn rows(sender: Sender, asked: NodeAsked) -> Result<Option<Rows>, Status> {
    let asked = tokio_stream::once(asked);
    let mut parts: Streaming<NodeTold> = streaming(sender, method::NODE, asked).await?;
    let (mut rows, mut count) = (Rows::default(), 0);
    while let Some(part) = parts.message().await? {
        if part.same {
            return Ok(None);
        }
        count += part.checks.len() + part.services.len();
        if count > ROWS_MAX {
            return Err(Status::out_of_range("a node of more rows than are taken"));
        }
        part.add_to(&mut rows);
    }
    Ok(Some(rows))
}

async fn forwarded(
    sender: Sender,
    asked: HttpAsked,
    body: Pieces,
    once: bool,
) -> Result<(HttpTold, Pieces), Status> {
    let head = tokio_stream::once(Part { head: Some(asked), body: Bytes::new() });
    // One that breaks off ends early: what comes in pieces is an archive, which says itself whether it is whole.
    let pieces = Cut::new(body).map_while(Result::ok).map(|body| Part { head: None, body });
    let mut parts: Streaming<Part<HttpTold>> = streaming(sender, method::HTTP, head.chain(pieces)).await?;
    let first = parts.message().await?.unwrap_or_default();
    let told = first.head.ok_or_else(|| Status::data_loss("an answer without a head"))?;
    if told.no_leader && !once {
        return Err(Status::from(super::Failure::NoLeader));
    }
    let rest = parts.map(|part| part.map(|part| part.body).map_err(std::io::Error::other));
    Ok((told, Box::pin(tokio_stream::once(Ok(first.body)).chain(rest))))
}
