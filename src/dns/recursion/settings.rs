//! What an operator sets about names that are not ours (`dns.md` §19).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{catalog::Network, dns::seats::SeatsMax};

/// Whom to ask, for whom, and how much at once. All of it may change at a reload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recursion {
    /// In order. With none, what is not ours is refused.
    pub recursors: Vec<SocketAddr>,
    #[serde(skip)]
    pub strategy: Strategy,
    /// For one recursor to answer by UDP, and as long again by TCP.
    pub timeout: Duration,
    /// Networks that names are looked up for, beside loopback and private ones.
    pub from: Vec<Network>,
    /// Of answers kept. 0 keeps none.
    pub cache_bytes_max: usize,
    /// Questions that wait for an answer from elsewhere.
    #[serde(skip)]
    pub in_flight_max: SeatsMax,
}

/// Who of the recursors is asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// As listed.
    #[default]
    Sequential,
    Random,
}

impl Default for Recursion {
    fn default() -> Self {
        Recursion {
            recursors: Vec::new(),
            strategy: Strategy::Sequential,
            timeout: Duration::from_secs(2),
            from: Vec::new(),
            cache_bytes_max: 16 << 20,
            in_flight_max: SeatsMax::default(),
        }
    }
}

impl Recursion {
    pub fn is_on(&self) -> bool {
        !self.recursors.is_empty()
    }

    /// Whether names are looked up elsewhere for this client: a listener that the world can reach must not become
    /// everybody's resolver.
    pub fn serves(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        client.is_loopback() || is_private(client) || self.from.iter().any(|network| network.contains(client))
    }

    /// After so long a question is given up, whoever is still being asked.
    pub fn patience(&self) -> Duration {
        self.timeout * 5 / 2
    }
}

/// RFC 1918, 6598 (carrier-grade NAT), 3927 and 4291 (link-local), 4193 (unique local).
fn is_private(client: IpAddr) -> bool {
    match client {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            ip.is_private() || ip.is_link_local() || first == 100 && second & 0xc0 == 64
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recursion_is_for_the_machine_and_its_neighbours() {
        let mut recursion = Recursion::default();
        let serves = |recursion: &Recursion, ip: &str| recursion.serves(ip.parse().unwrap());
        let near = [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.1.2.3",
        ];
        let far = ["8.8.8.8", "172.32.0.1", "100.128.0.1", "100.63.0.1", "2001:db8::1", "::ffff:8.8.8.8"];
        assert!(near.iter().all(|ip| serves(&recursion, ip)));
        assert!(far.iter().all(|ip| !serves(&recursion, ip)));
        recursion.from = vec!["8.8.8.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        assert!(
            ["8.8.8.8", "8.8.8.255", "2001:db8::1", "::ffff:8.8.8.8"].iter().all(|ip| serves(&recursion, ip))
        );
        assert!(["8.8.9.1", "2001:db9::1"].iter().all(|ip| !serves(&recursion, ip)));
    }
}
