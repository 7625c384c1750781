//! The sockets of a pool: one of UDP and one of TCP at the same address and port.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

pub struct Sockets {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
    pub local: SocketAddr,
}

/// Who else has the address, or why else it cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("gossip cannot listen at {address}: {error}")]
pub struct BindError {
    pub address: SocketAddr,
    pub error: io::Error,
}

/// While a whole datacenter joins, packets of many come at once: none is lost for want of room here.
const RECEIVE_BUFFER: usize = 4 << 20;
const BACKLOG: i32 = 1024;
/// A port that chance gives for TCP may be taken for UDP.
const PORTS_TRIED: usize = 16;

impl Sockets {
    /// TCP first: it is the lock by which two agents find out that they have one address.
    ///
    /// # Errors
    /// Where the address cannot be had.
    pub fn bind(address: SocketAddr) -> Result<Sockets, BindError> {
        let mut outcome = Sockets::try_bind(address);
        for _ in 1..PORTS_TRIED {
            if address.port() != 0 || outcome.is_ok() {
                break;
            }
            outcome = Sockets::try_bind(address);
        }
        outcome.map_err(|error| BindError { address, error })
    }

    fn try_bind(address: SocketAddr) -> io::Result<Sockets> {
        let domain = Domain::for_address(address);
        let tcp = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        // A former self's connections may still linger.
        tcp.set_reuse_address(true)?;
        tcp.bind(&address.into())?;
        tcp.listen(BACKLOG)?;
        let tcp = TcpListener::from_std(tcp.into())?;
        let local = tcp.local_addr()?;
        let udp = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        udp.bind(&local.into())?;
        // Beyond what the system allows only to those that may ask for more; the others get what there is.
        if setsockopt(&udp, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            udp.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        let udp = UdpSocket::from_std(udp.into())?;
        Ok(Sockets { udp, tcp, local })
    }
}

/// A stream to a member, from the address that packets come from: others may know us by it.
pub async fn connect(local: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if !local.ip().is_unspecified() && local.is_ipv4() == to.is_ipv4() {
        socket.bind(SocketAddr::new(local.ip(), 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An address as a socket bound to `local` takes it.
pub fn reachable(local: SocketAddr, to: SocketAddr) -> SocketAddr {
    match (local.ip(), to.ip()) {
        (IpAddr::V6(_), IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
        _ => to,
    }
}

/// An address as others write it.
pub fn canonical(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}
