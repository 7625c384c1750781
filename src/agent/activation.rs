//! Sockets that whoever started this process has bound for it, as systemd does for a `.socket` unit: which of them serve
//! what. Reads the environment; knows nothing of what comes through the sockets.
//!
//! A socket stands for a listener of this agent by its kind and address, or by the name `dns` or `http`
//! (`FileDescriptorName=`): then its address is one more. Nothing else is guessed: a socket that is used for neither is
//! told of.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use listenfd::ListenFd;
use socket2::SockRef;

use crate::dns;

/// What was handed over, by use.
#[derive(Default)]
pub struct Activation {
    pub dns: dns::Handed,
    pub http: Vec<TcpListener>,
    /// Why some of it is of no use, a line each.
    pub unused: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Dns,
    Http,
}

/// One that was handed over.
enum Socket {
    Udp(UdpSocket, SocketAddr),
    Tcp(TcpListener, SocketAddr),
}

impl Activation {
    /// Takes what the environment tells of: once, and before there are threads.
    pub fn take(dns_addrs: &[SocketAddr], http_addrs: &[SocketAddr]) -> Activation {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut handed = ListenFd::from_env();
        let mut activation = Activation::default();
        for at in 0..handed.len() {
            let name = names.get(at).copied().unwrap_or_default();
            let told = |fault: &dyn std::fmt::Display| format!("socket {at} handed over ({name:?}): {fault}");
            match socket(&mut handed, at) {
                Ok(socket) => match usage(&socket, name, dns_addrs, http_addrs) {
                    Ok(usage) => activation.add(socket, usage),
                    Err(fault) => activation.unused.push(told(&fault)),
                },
                Err(error) => activation.unused.push(told(&error)),
            }
        }
        activation
    }

    /// Every address of DNS: the given, and those handed over beside them.
    pub fn dns_addrs(&self, given: &[SocketAddr]) -> Vec<SocketAddr> {
        let udp = self.dns.udp.iter().filter_map(|socket| socket.local_addr().ok());
        let tcp = self.dns.tcp.iter().filter_map(|socket| socket.local_addr().ok());
        with(given, tcp.chain(udp))
    }

    /// Every address of HTTP, likewise.
    pub fn http_addrs(&self, given: &[SocketAddr]) -> Vec<SocketAddr> {
        with(given, self.http.iter().filter_map(|socket| socket.local_addr().ok()))
    }

    fn add(&mut self, socket: Socket, usage: Use) {
        match (socket, usage) {
            (Socket::Udp(socket, _), _) => self.dns.udp.push(socket),
            (Socket::Tcp(socket, _), Use::Dns) => self.dns.tcp.push(socket),
            (Socket::Tcp(socket, _), Use::Http) => self.http.push(socket),
        }
    }
}

fn with(given: &[SocketAddr], more: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addrs = given.to_vec();
    for addr in more {
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs
}

fn socket(handed: &mut ListenFd, at: usize) -> io::Result<Socket> {
    let taken_twice = || io::Error::other("it is no longer there");
    if let Ok(udp) = handed.take_udp_socket(at) {
        let udp = udp.ok_or_else(taken_twice)?;
        let addr = udp.local_addr()?;
        return Ok(Socket::Udp(udp, addr));
    }
    let neither = |_| io::Error::other("it is neither a UDP nor a TCP socket");
    let tcp = handed.take_tcp_listener(at).map_err(neither)?.ok_or_else(taken_twice)?;
    let addr = tcp.local_addr()?;
    if !SockRef::from(&tcp).is_listener()? {
        return Err(io::Error::other("it is a connection, not a listener; expected Accept=no"));
    }
    Ok(Socket::Tcp(tcp, addr))
}

fn usage(
    socket: &Socket,
    name: &str,
    dns_addrs: &[SocketAddr],
    http_addrs: &[SocketAddr],
) -> Result<Use, String> {
    let (kind, addr) = match socket {
        Socket::Udp(_, addr) => ("UDP", addr),
        Socket::Tcp(_, addr) => ("TCP", addr),
    };
    let expected =
        "expected the address of a listener, or the name \"dns\" or \"http\" (FileDescriptorName=)";
    match name {
        "dns" => Ok(Use::Dns),
        _ if dns_addrs.contains(addr) => Ok(Use::Dns),
        "http" if kind == "TCP" => Ok(Use::Http),
        _ if kind == "TCP" && http_addrs.contains(addr) => Ok(Use::Http),
        _ => Err(format!("{kind} {addr} is none of this agent's listeners; {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_known_by_address_or_name() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let (udp_addr, tcp_addr) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let (udp, tcp) = (Socket::Udp(udp, udp_addr), Socket::Tcp(tcp, tcp_addr));
        for (socket, name, dns, http, expected) in [
            (&udp, "x", &[udp_addr][..], &[][..], Some(Use::Dns)),
            (&udp, "dns", &[], &[], Some(Use::Dns)),
            (&udp, "http", &[], &[udp_addr], None),
            (&tcp, "", &[tcp_addr], &[], Some(Use::Dns)),
            (&tcp, "", &[], &[tcp_addr], Some(Use::Http)),
            (&tcp, "http", &[], &[], Some(Use::Http)),
            (&tcp, "lictor.socket", &[], &[], None),
        ] {
            assert_eq!(usage(socket, name, dns, http).ok(), expected, "{name}");
        }
        assert_eq!(with(&[udp_addr], [tcp_addr, udp_addr].into_iter()), [udp_addr, tcp_addr]);
    }
}
