//! The plain road: a task to a socket, packets one by one. It serves where there are no batches, and wildcard addresses
//! everywhere, since here each reply can be told to leave from the address that was asked.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::UdpSocket, time};
use tokio_util::sync::CancellationToken;

use super::{Asker, Errands, Outcome, Published, Responder, Road, Transport, View, tally::Watch};

#[cfg(target_os = "linux")]
use told as packets;
#[cfg(not(target_os = "linux"))]
use untold as packets;

pub use packets::ask_for_addresses;

/// A reply that has not left by then is lost: the asker asks again.
const SEND_WAIT: Duration = Duration::from_secs(1);

/// After a failed receive, so that an error that stays does not take the whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(1);

/// Answers until `shutdown`.
pub async fn serve(socket: UdpSocket, published: Published, errands: Errands, shutdown: CancellationToken) {
    let socket = Arc::new(socket);
    let mut responder = Responder::counting(published.counters.tally(Road::UdpPlain), true);
    responder = responder.handing_on(errands.hand_on());
    let mut packet = vec![0; 65_535];
    let mut reply = Vec::new();
    loop {
        let received = tokio::select! {
            () = shutdown.cancelled() => return,
            received = packets::receive(&socket, &mut packet) => received,
        };
        let Ok((length, way)) = received else {
            time::sleep(ERROR_PAUSE).await;
            continue;
        };
        let asker = Asker { transport: Transport::Udp, from: way.from.ip().to_canonical() };
        reply.clear();
        let watch = Watch::start();
        let (catalog, settings) = (published.catalog.load_full(), published.settings.load_full());
        let zones = published.zones.load_full();
        let fresh = published.is_fresh();
        let view = View { catalog: catalog.as_deref(), settings: &settings, zones: &zones, fresh };
        let outcome = responder.respond(&view, &asker, &packet[..length], &mut reply);
        responder.took(watch.nanos());
        if let Outcome::Later(errand) = outcome {
            let socket = socket.clone();
            errands.take(errand, &mut reply, move |reply| drop(packets::send_now(&socket, &reply, way)));
        }
        if !reply.is_empty() {
            // An asker who cannot be reached is no fault of ours.
            let _ = time::timeout(SEND_WAIT, packets::send(&socket, &reply, way)).await;
        }
    }
}

/// Who asked, and at which of our addresses, where the system tells.
#[derive(Clone, Copy)]
struct Way {
    from: SocketAddr,
    at: Option<IpAddr>,
}

/// Linux tells of each packet at which of our addresses it arrived, and takes the word for the reply.
#[cfg(target_os = "linux")]
mod told {
    use std::{
        io::{IoSlice, IoSliceMut},
        net::{Ipv4Addr, Ipv6Addr},
        os::fd::AsRawFd,
    };

    use nix::{
        cmsg_space,
        libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo},
        sys::socket::{
            ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
            sockopt,
        },
    };
    use socket2::Socket;
    use tokio::io::Interest;

    use super::*;

    /// Of a wildcard socket. One of `::` may get IPv4 packets too: the option of IPv6 covers them.
    pub fn ask_for_addresses(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
        let asked = match addr {
            SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4PacketInfo, &true),
            SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true),
        };
        Ok(asked?)
    }

    pub async fn receive(socket: &UdpSocket, packet: &mut [u8]) -> io::Result<(usize, Way)> {
        socket.async_io(Interest::READABLE, || receive_now(socket, packet)).await
    }

    fn receive_now(socket: &UdpSocket, packet: &mut [u8]) -> io::Result<(usize, Way)> {
        let mut control = cmsg_space!(in6_pktinfo);
        let mut slices = [IoSliceMut::new(packet)];
        let received = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let from = received.address.as_ref().and_then(socket_addr);
        let from = from.ok_or_else(|| io::Error::other("a packet without a sender"))?;
        let at = received.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into())
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into()),
            _ => None,
        });
        Ok((received.bytes, Way { from, at }))
    }

    pub async fn send(socket: &UdpSocket, reply: &[u8], way: Way) -> io::Result<usize> {
        socket.async_io(Interest::WRITABLE, || send_message(socket, reply, way)).await
    }

    /// What the system does not take at once is lost: the asker asks again.
    pub fn send_now(socket: &UdpSocket, reply: &[u8], way: Way) -> io::Result<usize> {
        socket.try_io(Interest::WRITABLE, || send_message(socket, reply, way))
    }

    /// No interface is named: the routes choose it.
    fn send_message(socket: &UdpSocket, reply: &[u8], way: Way) -> io::Result<usize> {
        let (v4, v6);
        let control = match way.at {
            None => None,
            Some(IpAddr::V4(at)) => {
                let ipi_spec_dst = in_addr { s_addr: u32::from_ne_bytes(at.octets()) };
                v4 = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: in_addr { s_addr: 0 } };
                Some(ControlMessage::Ipv4PacketInfo(&v4))
            }
            Some(IpAddr::V6(at)) => {
                v6 = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: at.octets() }, ipi6_ifindex: 0 };
                Some(ControlMessage::Ipv6PacketInfo(&v6))
            }
        };
        let to = SockaddrStorage::from(way.from);
        let slices = [IoSlice::new(reply)];
        Ok(sendmsg(socket.as_raw_fd(), &slices, control.as_slice(), MsgFlags::empty(), Some(&to))?)
    }

    fn socket_addr(addr: &SockaddrStorage) -> Option<SocketAddr> {
        let v4 = addr.as_sockaddr_in().map(|addr| SocketAddr::from(*addr));
        v4.or_else(|| addr.as_sockaddr_in6().map(|addr| SocketAddr::from(*addr)))
    }
}

/// Elsewhere a reply of a wildcard socket leaves from the address that the routes choose.
#[cfg(not(target_os = "linux"))]
mod untold {
    use socket2::Socket;

    use super::*;

    pub fn ask_for_addresses(_: &Socket, _: SocketAddr) -> io::Result<()> {
        Ok(())
    }

    pub async fn receive(socket: &UdpSocket, packet: &mut [u8]) -> io::Result<(usize, Way)> {
        let (length, from) = socket.recv_from(packet).await?;
        Ok((length, Way { from, at: None }))
    }

    pub async fn send(socket: &UdpSocket, reply: &[u8], way: Way) -> io::Result<usize> {
        socket.send_to(reply, way.from).await
    }

    /// What the system does not take at once is lost: the asker asks again.
    pub fn send_now(socket: &UdpSocket, reply: &[u8], way: Way) -> io::Result<usize> {
        socket.try_send_to(reply, way.from)
    }
}
