//! Listens, and carries requests to the router until told to stop. Everything that a client may take of us has an end:
//! connections, headers, time; every connection's task is owned here, and ends before `run` does.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{self, Instant, Sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    agent::Agent,
    call::Api,
    route::Router,
    settings::{Limits, Settings},
};

/// Where the API is asked: bound, and not answering yet.
pub struct Server {
    listeners: Vec<std::net::TcpListener>,
    addrs: Vec<SocketAddr>,
}

/// An address that cannot be had. Nothing was left bound.
#[derive(Debug, thiserror::Error)]
#[error("HTTP cannot listen on {addr}: {source}; `ports.http` or -http-port moves it to another port")]
pub struct BindError {
    pub addr: SocketAddr,
    pub source: io::Error,
}

/// After a failed accept (no descriptors left, mostly), so that an error that stays does not take the whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(20);
const BACKLOG: i32 = 1024;
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
        let mut server = Server { listeners: Vec::new(), addrs: Vec::new() };
        // `::` alone takes IPv4 as well, as it does in Consul; beside 0.0.0.0 it must not.
        let only_v6 = addrs.iter().any(|addr| addr.ip() == Ipv4Addr::UNSPECIFIED);
        for &addr in addrs {
            let stands_for =
                |socket: &std::net::TcpListener| socket.local_addr().is_ok_and(|own| own == addr);
            let ready = match handed.iter().position(stands_for) {
                Some(at) => Ok(handed.swap_remove(at)),
                None => listen(addr, only_v6),
            };
            let bound = ready.and_then(|listener| Ok((listener.local_addr()?, listener)));
            let (own, listener) = bound.map_err(|source| BindError { addr, source })?;
            server.addrs.push(own);
            server.listeners.push(listener);
        }
        Ok(server)
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
        let limits = settings.load().limits.clone();
        let seats = Arc::new(Seats { settings: settings.clone(), taken: Mutex::default() });
        let api = Api { agent, settings, stop: shutdown.clone() };
        let router = Arc::new(Router::new(Arc::new(api)));
        let mut doors = JoinSet::new();
        for listener in self.listeners {
            let door = Door {
                listener: accepting(listener)?,
                router: router.clone(),
                seats: seats.clone(),
                limits: limits.clone(),
                shutdown: shutdown.clone(),
            };
            doors.spawn(door.serve());
        }
        while let Some(ended) = doors.join_next().await {
            ended.expect("a listener's task returns, it does not panic");
        }
        Ok(())
    }
}

fn accepting(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?; // one handed over may not be
    TcpListener::from_std(listener)
}

fn listen(addr: SocketAddr, only_v6: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() && only_v6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One listener with its connections.
struct Door {
    listener: TcpListener,
    router: Arc<Router>,
    seats: Arc<Seats>,
    limits: Limits,
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
            match self.seats.take(from.ip().to_canonical()) {
                Ok(seat) => {
                    connections.spawn(self.connection(stream, from.ip(), seat));
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
    fn connection(&self, stream: TcpStream, from: IpAddr, seat: Seat) -> impl Future<Output = ()> + use<> {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.request_wait)
            .max_buf_size(self.limits.header_bytes_max.max(HEADER_BYTES_MIN))
            .title_case_headers(true);
        let (router, shutdown) = (self.router.clone(), self.shutdown.clone());
        let (send_wait, stop_wait) = (self.limits.send_wait, self.limits.stop_wait);
        async move {
            let _seat = seat;
            // Answers go out whole; waiting to fill a packet would only delay them.
            let _ = stream.set_nodelay(true);
            let answer = service_fn(move |request| {
                let router = router.clone();
                async move { Ok::<_, Infallible>(router.answer(request, Some(from)).await) }
            });
            let stream = TokioIo::new(Taken { stream, send_wait, stalled: None });
            let mut connection = pin!(http.serve_connection(stream, answer));
            // A client that breaks off is no fault of ours.
            let ended = tokio::select! {
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
async fn turn_away(mut stream: TcpStream, full: Full) -> io::Result<()> {
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
    client: IpAddr,
    seats: Arc<Seats>,
}

/// Why there is no seat.
#[derive(Debug)]
enum Full {
    All,
    Client,
}

impl Seats {
    fn take(self: &Arc<Self>, client: IpAddr) -> Result<Seat, Full> {
        let settings = self.settings.load();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= settings.limits.connections_max {
            return Err(Full::All);
        }
        if taken.by_client.get(&client).copied().unwrap_or(0) >= settings.connections_per_address_max {
            return Err(Full::Client);
        }
        taken.all += 1;
        *taken.by_client.entry(client).or_default() += 1;
        Ok(Seat { client, seats: self.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(count) = taken.by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

/// A connection whose client must go on taking what it is sent.
struct Taken {
    stream: TcpStream,
    send_wait: Duration,
    /// Since the client stopped taking.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Taken {
    fn progress<T>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.stalled = None;
            return sent;
        }
        let deadline = Instant::now() + self.send_wait;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(time::sleep_until(deadline)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Taken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Taken {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress(cx, sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.progress(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
