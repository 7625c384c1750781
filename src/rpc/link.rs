//! The one connection to a server: many calls share it. It is made when it is first needed, and again when it has broken.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{Request, Response, body::Incoming, client::conn::http2, rt::Executor};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Mutex,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;

pub struct Link {
    address: SocketAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sender: Option<http2::SendRequest<Body>>,
    /// Why the last try came to nothing, and when.
    failed: Option<(Instant, DialError)>,
}

/// Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rpc error getting client: failed to get conn: dial tcp {from}:0->{address}: {reason}")]
pub struct DialError {
    from: IpAddr,
    address: SocketAddr,
    reason: String,
}

/// To make a connection, at most.
const DIAL_WAIT: Duration = Duration::from_secs(5);
/// A peer that says nothing for so long is asked whether it is there, and has so long to answer.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);
pub const KEEP_ALIVE_WAIT: Duration = Duration::from_secs(20);
/// On its way, of one body and of all; a long list must not wait for a word after each 64 kB.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

impl Link {
    pub fn new(address: SocketAddr) -> Self {
        Link { address, state: Mutex::default() }
    }

    /// The connection, made now if need be, within this time; it comes from this address, where that is one. Whoever waits
    /// while another's try fails has that error, too: they do not wait for each other's tries.
    pub async fn connected(&self, from: IpAddr, wait: Duration, tasks: &Tasks) -> Result<Sender, DialError> {
        let asked = Instant::now();
        let until = asked + wait.min(DIAL_WAIT);
        let too_long = || DialError { from, address: self.address, reason: "i/o timeout".into() };
        let mut state = timeout_at(until, self.state.lock()).await.map_err(|_| too_long())?;
        if let Some(sender) = state.sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(Sender(sender.clone()));
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        match timeout_at(until, self.dial(from, tasks)).await {
            Ok(Ok(sender)) => {
                state.sender = Some(sender.clone());
                Ok(Sender(sender))
            }
            failed => {
                let reason = failed.map(|error| in_words(&error));
                let error = reason
                    .map_or_else(|_| too_long(), |reason| DialError { from, address: self.address, reason });
                (state.sender, state.failed) = (None, Some((Instant::now(), error.clone())));
                Err(error)
            }
        }
    }

    async fn dial(&self, from: IpAddr, tasks: &Tasks) -> io::Result<http2::SendRequest<Body>> {
        let stream = connect(self.address, from).await?;
        stream.set_nodelay(true)?;
        let mut http = http2::Builder::new(tasks.clone());
        http.timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_WAIT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tasks.execute(async {
            // Whoever waits for something over it is told.
            let _broken = connection.await;
        });
        Ok(sender)
    }
}

async fn connect(to: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if from.is_ipv4() == to.is_ipv4() && !from.is_unspecified() {
        socket.bind((from, 0).into())?;
    }
    socket.connect(to).await
}

/// As Go's programs say it, since people look for that.
fn in_words(failed: &Result<http2::SendRequest<Body>, io::Error>) -> String {
    match failed {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "connect: connection refused".into()
        }
        Err(error) if error.kind() == io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => {
            "connect: network is unreachable".into()
        }
        Err(error) => error.to_string(),
        Ok(_) => String::new(),
    }
}

/// A connection, as what makes calls needs it.
#[derive(Clone)]
pub struct Sender(http2::SendRequest<Body>);

impl tower_service::Service<Request<Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// What connections have to do beside: it is owned here, and ends with `stop`.
#[derive(Clone)]
pub struct Tasks {
    pub tracker: TaskTracker,
    pub stop: CancellationToken,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, work: F) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move { stop.run_until_cancelled(work).await.map(drop) });
    }
}
