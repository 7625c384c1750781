//! Binds the addresses where names are asked, and runs the roads that lead to the answers until told to stop. Knows
//! sockets, threads and tasks; what an answer says is [`Responder`](super::Responder)'s.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use socket2::{Domain, Socket, Type};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

#[cfg(target_os = "linux")]
use super::udp_batch;
use super::{Counters, Elsewhere, Errands, Road, Settings, StaticZones, listen, seats::Seats, tcp, udp};
use crate::catalog::Catalog;

/// Where names are asked: bound, and not answering yet. Each address is served by UDP and TCP, on one port.
pub struct Server {
    addrs: Vec<SocketAddr>,
    tcp: Vec<Socket>,
    tcp_limits: tcp::Limits,
    /// A task each.
    udp_plain: Vec<Socket>,
    /// A thread each.
    udp_batch: Vec<Socket>,
    /// A thread each, though some are one socket.
    udp_shared: Vec<Socket>,
    elsewhere: Option<Arc<dyn Elsewhere>>,
}

/// Sockets that whoever started this process has bound for it, and keeps: they outlive it.
#[derive(Default)]
pub struct Handed {
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
}

/// How questions reach the answers.
#[derive(Clone, Debug)]
pub struct Roads {
    /// Take and send UDP packets by the batch. On Linux; elsewhere they go one by one, with the same answers.
    pub udp_batch: bool,
    /// Threads to an address where packets go by the batch.
    pub udp_threads: NonZeroUsize,
    pub tcp: tcp::Limits,
}

/// What answers are made of. A question is answered from what is published when it is taken up.
#[derive(Clone)]
pub struct Published {
    /// `None` until something was applied.
    pub catalog: Arc<ArcSwapOption<Catalog>>,
    pub settings: Arc<ArcSwap<Settings>>,
    pub zones: Arc<ArcSwap<StaticZones>>,
    /// Set once everything that was acknowledged is in the catalog.
    pub fresh: Arc<AtomicBool>,
    /// What is asked is counted here.
    pub counters: Arc<Counters>,
}

impl Published {
    pub fn is_fresh(&self) -> bool {
        self.fresh.load(Ordering::Acquire)
    }
}

/// An address that cannot be had. Nothing was left bound.
#[derive(Debug, thiserror::Error)]
#[error(
    "DNS cannot listen on {protocol} {addr}: {source}; `ports.dns`, -dns-port or `lictor.dns.listen` moves it elsewhere"
)]
pub struct BindError {
    pub protocol: &'static str,
    pub addr: SocketAddr,
    pub source: io::Error,
}

impl Roads {
    /// As set, with a thread for each core.
    pub fn of(settings: &Settings) -> Self {
        Roads {
            udp_batch: settings.udp_batch,
            udp_threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            tcp: tcp::Limits::default(),
        }
    }
}

impl Server {
    /// Takes every address, or none. Where the port is 0 any free one is taken, the same for UDP and TCP.
    pub fn bind(addrs: &[SocketAddr], roads: &Roads) -> Result<Server, BindError> {
        Server::bind_beside(addrs, Handed::default(), roads)
    }

    /// As `bind`; what is bound already is taken as it is. Every socket handed over must stand for one of the addresses.
    pub fn bind_beside(addrs: &[SocketAddr], mut handed: Handed, roads: &Roads) -> Result<Server, BindError> {
        let mut server = Server {
            addrs: Vec::new(),
            tcp: Vec::new(),
            tcp_limits: roads.tcp.clone(),
            udp_plain: Vec::new(),
            udp_batch: Vec::new(),
            udp_shared: Vec::new(),
            elsewhere: None,
        };
        for addr in addrs {
            let attempts = if addr.port() == 0 { PORT_ATTEMPTS } else { 1 };
            server.add(*addr, &mut handed, roads, listen::only_v6(addr, addrs), attempts)?;
        }
        Ok(server)
    }

    /// Has names of the catalog asked of somebody, for as long as there is none here.
    pub fn asking(self, elsewhere: Arc<dyn Elsewhere>) -> Server {
        Server { elsewhere: Some(elsewhere), ..self }
    }

    /// With the ports that were taken where 0 was asked.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Answers until `shutdown`, and returns when all its tasks and threads have ended. Should a thread fail, it cancels
    /// `shutdown`.
    ///
    /// # Errors
    /// Where the system refuses a thread, or will not wait for a socket.
    pub async fn run(self, published: Published, shutdown: CancellationToken) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        let seats = Arc::<Seats>::default();
        let errands = Errands::new(Handle::current(), &published, self.elsewhere, shutdown.clone());
        let tcp_tally = published.counters.tally(Road::Tcp);
        for socket in self.tcp {
            let listener = tokio::net::TcpListener::from_std(socket.into())?;
            let (limits, seats, published) = (self.tcp_limits.clone(), seats.clone(), published.clone());
            let (errands, tally) = (errands.clone(), tcp_tally.clone());
            tasks.spawn(tcp::serve(listener, limits, seats, published, errands, tally, shutdown.clone()));
        }
        for socket in self.udp_plain {
            let socket = tokio::net::UdpSocket::from_std(socket.into())?;
            tasks.spawn(udp::serve(socket, published.clone(), errands.clone(), shutdown.clone()));
        }
        #[cfg(target_os = "linux")]
        let threads = {
            let (own, shared) = (self.udp_batch, self.udp_shared);
            udp_batch::Threads::start(own, shared, &published, &errands, &shutdown)?
        };
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a road returns, it does not panic");
        }
        shutdown.cancelled().await; // where there is no listener, nothing else waits for it
        #[cfg(target_os = "linux")]
        drop(threads);
        errands.stopped().await;
        Ok(())
    }

    /// TCP comes first: it is the lock. A second agent of the same user could bind UDP beside us (`SO_REUSEPORT`), and
    /// would silently take a share of the questions.
    fn add(
        &mut self,
        asked: SocketAddr,
        handed: &mut Handed,
        roads: &Roads,
        only_v6: bool,
        attempts: u32,
    ) -> Result<(), BindError> {
        let fault = |protocol, addr, source| BindError { protocol, addr, source };
        let tcp = match handed.take_tcp(asked) {
            Some(listener) => Ok(listener),
            None => bind_tcp(asked, only_v6),
        };
        let tcp = tcp.map_err(|error| fault("TCP", asked, error))?;
        let addr = tcp.local_addr().map_err(|error| fault("TCP", asked, error))?;
        let addr = addr.as_socket().unwrap_or(asked);
        let threads = if roads.udp_batch { roads.udp_threads.get() } else { 1 };
        let batch = cfg!(target_os = "linux") && roads.udp_batch && !addr.ip().is_unspecified();
        let shared = handed.take_udp(addr);
        let sockets = match &shared {
            Some(socket) => share(socket, addr, threads),
            None => (0..threads).map(|_| bind_udp(addr, only_v6, threads > 1, batch)).collect(),
        };
        match sockets {
            Ok(sockets) => {
                self.addrs.push(addr);
                self.tcp.push(tcp);
                let road = match (batch, shared) {
                    (true, Some(_)) => &mut self.udp_shared,
                    (true, None) => &mut self.udp_batch,
                    (false, _) => &mut self.udp_plain,
                };
                road.extend(sockets);
                Ok(())
            }
            // The port that is free by TCP is not by UDP: hold it, so that the next try finds another.
            Err(_) if attempts > 1 => self.add(asked, handed, roads, only_v6, attempts - 1),
            Err(error) => Err(fault("UDP", addr, error)),
        }
    }
}

impl Handed {
    fn take_tcp(&mut self, addr: SocketAddr) -> Option<Socket> {
        let stands_for = |socket: &TcpListener| socket.local_addr().is_ok_and(|own| own == addr);
        let at = self.tcp.iter().position(stands_for)?;
        let socket = Socket::from(self.tcp.swap_remove(at));
        socket.set_nonblocking(true).ok().map(|()| socket)
    }

    fn take_udp(&mut self, addr: SocketAddr) -> Option<Socket> {
        let stands_for = |socket: &UdpSocket| socket.local_addr().is_ok_and(|own| own == addr);
        let at = self.udp.iter().position(stands_for)?;
        Some(Socket::from(self.udp.swap_remove(at)))
    }
}

/// Of finding a port that is free both by TCP and by UDP.
const PORT_ATTEMPTS: u32 = 16;

/// Connections that the system completes and holds until we accept them.
const TCP_BACKLOG: i32 = 1024;

fn bind_tcp(addr: SocketAddr, only_v6: bool) -> io::Result<Socket> {
    let socket = socket(addr, Type::STREAM, only_v6)?;
    socket.set_reuse_address(true)?; // or connections of a former run would hold the port for a minute
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(TCP_BACKLOG)?;
    Ok(socket)
}

fn bind_udp(addr: SocketAddr, only_v6: bool, shared: bool, batch: bool) -> io::Result<Socket> {
    let socket = socket(addr, Type::DGRAM, only_v6)?;
    #[cfg(unix)]
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(!batch)?;
    if addr.ip().is_unspecified() {
        udp::ask_for_addresses(&socket, addr)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// The same socket for each thread: it was bound without `SO_REUSEPORT`, and there is no other on its address.
fn share(socket: &Socket, addr: SocketAddr, threads: usize) -> io::Result<Vec<Socket>> {
    socket.set_nonblocking(true)?;
    if addr.ip().is_unspecified() {
        udp::ask_for_addresses(socket, addr)?;
    }
    (0..threads).map(|_| socket.try_clone()).collect()
}

fn socket(addr: SocketAddr, kind: Type, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    Ok(socket)
}
