//! Listens, and carries requests to the router until told to stop. Everything that a client may take of us has an end:
//! connections, headers, time; every connection's task is owned here, and ends before `run` does.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{self, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    agent::Agent,
    body::Arriving,
    call::Api,
    counters::{Counters, Refused},
    guard::Ration,
    onward::Desk,
    route::{Asker, Router},
    settings::{Settings, UnixSocket},
    stream::{Bound, Listener, Stream, Taken},
};

/// Where the API is asked: bound, and not answering yet.
pub struct Server {
    listeners: Vec<Bound>,
    addrs: Vec<SocketAddr>,
    counters: Arc<Counters>,
    ration: Arc<Ration>,
}

/// An address that cannot be had. Nothing was left bound.
#[derive(Debug, thiserror::Error)]
#[error("HTTP cannot listen on {addr}: {source}; `ports.http` or -http-port moves it to another port")]
pub struct BindError {
    pub addr: SocketAddr,
    pub source: io::Error,
}

/// A socket of the file system that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("HTTP cannot listen on unix://{}: {source}", path.display())]
pub struct UnixError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// After a failed accept (no descriptors left, mostly), so that an error that stays does not take the whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(20);
/// Connections being told that they cannot stay; beyond these they are not told.
const TURNED_AWAY_MAX: usize = 64;
const TURNED_AWAY_WAIT: Duration = Duration::from_secs(1);

impl Server {
    /// Takes every address, or none.
    pub fn bind(addrs: &[SocketAddr]) -> Result<Server, BindError> {
        Server::bind_beside(addrs, Vec::new())
    }

    /// As `bind`; what was bound for us already is taken as it is.
    pub fn bind_beside(
        addrs: &[SocketAddr],
        mut handed: Vec<std::net::TcpListener>,
    ) -> Result<Server, BindError> {
        let (counters, ration) = Default::default();
        let mut server = Server { listeners: Vec::new(), addrs: Vec::new(), counters, ration };
        // `::` alone takes IPv4 as well, as it does in Consul; beside 0.0.0.0 it must not.
        let only_v6 = addrs.iter().any(|addr| addr.ip() == Ipv4Addr::UNSPECIFIED);
        for &addr in addrs {
            let stands_for =
                |socket: &std::net::TcpListener| socket.local_addr().is_ok_and(|own| own == addr);
            let ready = match handed.iter().position(stands_for) {
                Some(at) => Ok(handed.swap_remove(at)),
                None => Bound::tcp(addr, only_v6),
            };
            let bound = ready.and_then(|listener| Ok((listener.local_addr()?, listener)));
            let (own, listener) = bound.map_err(|source| BindError { addr, source })?;
            server.addrs.push(own);
            server.listeners.push(Bound::Tcp(listener));
        }
        Ok(server)
    }

    /// Takes these as well.
    ///
    /// # Errors
    /// The first that cannot be had. Nothing is left bound.
    pub fn beside_unix(mut self, sockets: &[UnixSocket]) -> Result<Server, UnixError> {
        for socket in sockets {
            let bound = Bound::unix(socket);
            let bound = bound.map_err(|source| UnixError { path: socket.path.clone(), source });
            self.listeners.push(bound?);
        }
        Ok(self)
    }

    /// To be read at any time, while it runs and after.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Answers what other agents hand over, within the same rates, until `stop`.
    pub fn desk(
        &self,
        agent: Arc<dyn Agent>,
        settings: Arc<ArcSwap<Settings>>,
        stop: CancellationToken,
    ) -> Desk {
        Desk::new(agent, settings, self.counters.clone(), self.ration.clone(), stop)
    }

    /// With the ports that were taken where 0 was asked.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Answers until `shutdown`, then lets the requests under way end, for as long as the settings say. Waiting reads are
    /// answered with what they have.
    ///
    /// # Errors
    /// Where the system will not wait for a socket.
    pub async fn run(
        self,
        agent: Arc<dyn Agent>,
        settings: Arc<ArcSwap<Settings>>,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let seats = Arc::new(Seats { settings: settings.clone(), taken: Mutex::default() });
        let api = Api { agent, settings: settings.clone(), stop: shutdown.clone() };
        let router = Arc::new(Router::new(Arc::new(api), self.counters.clone(), self.ration.clone()));
        let mut doors = JoinSet::new();
        for listener in self.listeners {
            let door = Door {
                listener: Listener::of(listener)?,
                router: router.clone(),
                seats: seats.clone(),
                settings: settings.clone(),
                counters: self.counters.clone(),
                shutdown: shutdown.clone(),
            };
            doors.spawn(door.serve());
        }
        while let Some(ended) = doors.join_next().await {
            ended.expect("a listener's task returns, it does not panic");
        }
        shutdown.cancelled().await; // where there is no listener, nothing else waits for it
        Ok(())
    }
}

/// One listener with its connections.
struct Door {
    listener: Listener,
    router: Arc<Router>,
    seats: Arc<Seats>,
    settings: Arc<ArcSwap<Settings>>,
    counters: Arc<Counters>,
    shutdown: CancellationToken,
}

impl Door {
    async fn serve(self) {
        let (mut connections, mut turned_away) = (JoinSet::new(), JoinSet::new());
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    // A fault of ours costs the connection on which it showed, and no other.
                    if let Err(fault) = ended {
                        tracing::error!(%fault, "a request over HTTP ended its connection");
                    }
                    continue;
                }
                Some(_) = turned_away.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, from)) = accepted else {
                time::sleep(ERROR_PAUSE).await;
                continue;
            };
            let seat = self.seats.take(from);
            if let Err(full) = &seat {
                self.counters.refused(full.limit());
            }
            match seat {
                Ok(seat) => {
                    connections.spawn(self.connection(stream, from, seat));
                }
                Err(full) if turned_away.len() < TURNED_AWAY_MAX => {
                    turned_away.spawn(timeout(TURNED_AWAY_WAIT, turn_away(stream, full)));
                }
                Err(_) => {}
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }

    /// One connection, until its client leaves it or we stop.
    fn connection(
        &self,
        stream: Stream,
        from: Option<IpAddr>,
        seat: Seat,
    ) -> impl Future<Output = ()> + use<> {
        let settings = self.settings.load();
        let limits = &settings.limits;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.request_wait)
            .max_buf_size(limits.header_bytes_max.max(HEADER_BYTES_MIN))
            .title_case_headers(true);
        let (router, shutdown, stop_wait) = (self.router.clone(), self.shutdown.clone(), limits.stop_wait);
        let answer = service_fn(move |request| {
            let answer = router.answer(request.map(Arriving::Connected), Asker::Connected(from));
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = http.serve_connection(TokioIo::new(Taken::new(stream, limits.send_wait)), answer);
        async move {
            let _seat = seat;
            let mut connection = pin!(connection);
            // A client that breaks off is no fault of ours.
            let ended = tokio::select! {
                biased;
                _ = connection.as_mut() => true,
                () = shutdown.cancelled() => false,
            };
            if !ended {
                connection.as_mut().graceful_shutdown();
                let _ = timeout(stop_wait, connection).await;
            }
        }
    }
}

/// The least that hyper works with.
const HEADER_BYTES_MIN: usize = 8192;

/// Says why, and waits until the client has read it: closing with its request unread could take the answer back.
async fn turn_away(stream: Stream, full: Full) -> io::Result<()> {
    let (status, text) = match full {
        Full::Client => (
            "429 Too Many Requests",
            "Your IP is issuing too many concurrent connections, please rate limit your calls\n",
        ),
        Full::All => ("503 Service Unavailable", "Too many connections are open, try again later\n"),
    };
    let length = text.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    );
    let mut stream = Taken::new(stream, TURNED_AWAY_WAIT);
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}

/// The connections that may be open.
struct Seats {
    settings: Arc<ArcSwap<Settings>>,
    taken: Mutex<Taking>,
}

#[derive(Default)]
struct Taking {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// Given back when dropped.
struct Seat {
    client: Option<IpAddr>,
    seats: Arc<Seats>,
}

/// Why there is no seat.
#[derive(Debug)]
enum Full {
    All,
    Client,
}

impl Full {
    fn limit(&self) -> Refused {
        match self {
            Full::All => Refused::Connections,
            Full::Client => Refused::ConnectionsOfClient,
        }
    }
}

impl Seats {
    /// Clients without an address have no limit of their own.
    fn take(self: &Arc<Self>, client: Option<IpAddr>) -> Result<Seat, Full> {
        let settings = self.settings.load();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= settings.limits.connections_max {
            return Err(Full::All);
        }
        let of_client = client.and_then(|client| taken.by_client.get(&client)).copied().unwrap_or(0);
        if of_client >= settings.connections_per_address_max {
            return Err(Full::Client);
        }
        taken.all += 1;
        if let Some(client) = client {
            *taken.by_client.entry(client).or_default() += 1;
        }
        Ok(Seat { client, seats: self.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        let Some(client) = self.client else { return };
        if let Some(count) = taken.by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                taken.by_client.remove(&client);
            }
        }
    }
}
