//! Where a server is asked: connections and their limits. Every connection's task is owned here, and ends before `run` does.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper::{body::Body as _, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    counters::Counters,
    link::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE, KEEP_ALIVE_WAIT, STREAM_WINDOW_BYTES, Tasks},
    message::Serve,
    method,
};

/// Bound, and not answering yet.
pub struct Server {
    listener: std::net::TcpListener,
    address: SocketAddr,
    counters: Arc<Counters>,
}

/// What agents may take of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections from one address.
    pub connections_per_address_max: usize,
    /// From accepting a connection to having a request over it.
    pub handshake_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections_per_address_max: 100, handshake_wait: Duration::from_secs(5) }
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for other agents on {address}: {source}; `ports.server` or -server-port moves it to another port"
)]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Open at once, over all addresses.
const CONNECTIONS_MAX: usize = 16_384;
/// Under way at once over one connection: an agent forwards what waits for a change, too.
const STREAMS_MAX: u32 = 8192;
/// For requests to end when we stop.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// After a failed accept (no descriptors left, mostly), so that an error that stays does not take the whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(20);
const BACKLOG: i32 = 1024;

impl Server {
    /// # Errors
    /// Where the address cannot be had.
    pub fn bind(address: SocketAddr) -> Result<Server, BindError> {
        let bound = bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (own, listener) = bound.map_err(|source| BindError { address, source })?;
        Ok(Server { listener, address: own, counters: Arc::default() })
    }

    /// With the port that was taken where 0 was asked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Answers until `shutdown`, then lets what is under way end, for a moment.
    ///
    /// # Errors
    /// Where the system will not wait for the socket.
    pub async fn run(
        self,
        serve: Arc<dyn Serve>,
        limits: Arc<ArcSwap<Limits>>,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let tasks = Tasks { tracker: TaskTracker::new(), stop: CancellationToken::new() };
        let (taken, mut connections) = (Arc::new(Mutex::default()), JoinSet::new());
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    // A fault of ours costs the connection on which it showed, and no other.
                    if let Err(fault) = ended {
                        tracing::error!(%fault, "a call ended its connection");
                    }
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, from)) = accepted else {
                sleep(ERROR_PAUSE).await;
                continue;
            };
            let limits = limits.load();
            let Some(seat) = Seat::take(&taken, from.ip().to_canonical(), limits.connections_per_address_max)
            else {
                self.counters.turned_away.add(1);
                continue;
            };
            self.counters.accepted.add(1);
            let connection = Connection {
                serve: serve.clone(),
                counters: self.counters.clone(),
                tasks: tasks.clone(),
                handshake_wait: limits.handshake_wait,
                shutdown: shutdown.clone(),
                _seat: seat,
            };
            connections.spawn(connection.serve(stream));
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
        tasks.stop.cancel();
        tasks.tracker.close();
        tasks.tracker.wait().await;
        Ok(())
    }
}

struct Connection {
    serve: Arc<dyn Serve>,
    counters: Arc<Counters>,
    tasks: Tasks,
    handshake_wait: Duration,
    shutdown: CancellationToken,
    _seat: Seat,
}

impl Connection {
    /// Until the other end leaves it, says nothing at first, or we stop.
    async fn serve(self, stream: TcpStream) {
        if stream.set_nodelay(true).is_err() {
            return; // it is gone
        }
        let asked = Arc::new(AtomicBool::new(false));
        let mut http = http2::Builder::new(self.tasks);
        http.timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_WAIT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_MAX)
            .auto_date_header(false);
        let (serve, counters, heard) = (self.serve, self.counters, asked.clone());
        let answer = service_fn(move |request| {
            heard.store(true, Ordering::Relaxed);
            counters.requests.add(1);
            let (answer, counters) = (method::answer(serve.clone(), request), counters.clone());
            async move {
                let response = answer.await;
                // Where there is no body, the head says why.
                counters.not_done.add(response.body().is_end_stream().into());
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), answer));
        let mut handshake = pin!(sleep(self.handshake_wait));
        let mut waits = true;
        let ended = loop {
            tokio::select! {
                biased;
                _ = connection.as_mut() => break true,
                () = self.shutdown.cancelled() => break false,
                () = handshake.as_mut(), if waits => {
                    waits = false;
                    if !asked.load(Ordering::Relaxed) {
                        break true;
                    }
                }
            }
        };
        if !ended {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(STOP_WAIT, connection).await;
        }
    }
}

type Taken = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Given back when dropped.
struct Seat {
    address: IpAddr,
    taken: Taken,
}

impl Seat {
    fn take(taken: &Taken, address: IpAddr, most: usize) -> Option<Seat> {
        let mut counts = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (counts.values().sum::<usize>(), counts.get(&address).copied().unwrap_or(0));
        // 0 is no limit, as in Consul.
        if all >= CONNECTIONS_MAX || (most > 0 && own >= most) {
            return None;
        }
        *counts.entry(address).or_default() += 1;
        Some(Seat { address, taken: taken.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?; // or connections of a former run would hold the port for a minute
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
