//! Which addresses names are asked at: what the lists of them come to. Pure: binds nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What there is to bind, no address of it within another.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    pub addrs: Vec<SocketAddr>,
    /// Asked for by themselves, and taken by the wildcard beside each already: to bind both would fail.
    pub covered: Vec<(SocketAddr, SocketAddr)>,
}

/// An address that is asked for twice.
#[derive(Debug, PartialEq, Eq)]
pub struct Twice(pub SocketAddr);

impl Listeners {
    /// Keeps the order.
    pub fn of(asked: &[SocketAddr]) -> Result<Listeners, Twice> {
        let asked: Vec<SocketAddr> = asked.iter().map(plain).collect();
        let mut listeners = Listeners::default();
        for (at, addr) in asked.iter().enumerate() {
            if asked[..at].contains(addr) {
                return Err(Twice(*addr));
            }
            match asked.iter().find(|wide| covers(wide, addr)) {
                Some(wide) => listeners.covered.push((*addr, *wide)),
                None => listeners.addrs.push(*addr),
            }
        }
        Ok(listeners)
    }
}

/// Whether a socket of `wide` takes what comes to `addr`, too. `::` takes IPv4 as well, as it does in Consul; beside
/// 0.0.0.0 it must not.
pub fn covers(wide: &SocketAddr, addr: &SocketAddr) -> bool {
    let within = match wide.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && addr.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified() && addr.ip() != Ipv4Addr::UNSPECIFIED,
    };
    within && wide.port() == addr.port() && wide != addr
}

/// Whether `::` is to leave IPv4 alone: among these addresses 0.0.0.0 has the same port.
pub fn only_v6(addr: &SocketAddr, among: &[SocketAddr]) -> bool {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()));
    addr.ip() != Ipv6Addr::UNSPECIFIED || among.contains(&v4)
}

/// An IPv4 address that is written as one of IPv6 is the same address.
pub fn plain(addr: &SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, addr.port()).into(),
        IpAddr::V6(_) => *addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(words: &str) -> Vec<SocketAddr> {
        words.split_whitespace().map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn a_wildcard_takes_what_is_within_it() {
        for (asked, bound) in [
            ("127.0.0.1:53 127.0.0.1:54 [::1]:53", "127.0.0.1:53 127.0.0.1:54 [::1]:53"),
            ("127.0.0.1:53 0.0.0.0:53 10.0.0.1:53 [::1]:53", "0.0.0.0:53 [::1]:53"),
            ("127.0.0.1:53 [::]:53 [::1]:53", "[::]:53"),
            ("127.0.0.1:53 [::]:53 0.0.0.0:53", "[::]:53 0.0.0.0:53"),
            ("127.0.0.1:53 0.0.0.0:54", "127.0.0.1:53 0.0.0.0:54"),
        ] {
            let listeners = Listeners::of(&addrs(asked)).unwrap();
            assert_eq!(listeners.addrs, addrs(bound), "{asked}");
            assert_eq!(listeners.addrs.len() + listeners.covered.len(), addrs(asked).len(), "{asked}");
        }
        let twice = Listeners::of(&addrs("127.0.0.1:53 [::ffff:127.0.0.1]:53"));
        assert_eq!(twice, Err(Twice("127.0.0.1:53".parse().unwrap())));
    }

    #[test]
    fn only_a_v6_wildcard_alone_on_its_port_takes_v4() {
        let among = addrs("[::]:53 0.0.0.0:53 [::]:54");
        assert!(only_v6(&among[0], &among) && !only_v6(&among[2], &among));
    }
}
