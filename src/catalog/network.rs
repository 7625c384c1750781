//! Networks: addresses that begin alike, as operators write them where some may do what others may not.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// As 192.0.2.0/24, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(IpAddr, u8)", into = "(IpAddr, u8)")]
pub struct Network {
    ip: IpAddr,
    prefix: u8,
}

impl Network {
    /// An IPv4 address in IPv6's clothes is that address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                same_start(own.to_bits().into(), ip.to_bits().into(), self.prefix, u32::BITS)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                same_start(own.to_bits(), ip.to_bits(), self.prefix, Ipv6Addr::BITS)
            }
            _ => false,
        }
    }
}

fn same_start(one: u128, other: u128, prefix: u8, bits: u32) -> bool {
    (one ^ other).checked_shr(bits - u32::from(prefix)).unwrap_or(0) == 0
}

/// No network is written like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an address, or a network as 192.0.2.0/24")]
pub struct NoNetwork;

impl TryFrom<(IpAddr, u8)> for Network {
    type Error = NoNetwork;

    fn try_from((ip, prefix): (IpAddr, u8)) -> Result<Self, NoNetwork> {
        let whole = if ip.is_ipv4() { u32::BITS } else { Ipv6Addr::BITS };
        if u32::from(prefix) > whole { Err(NoNetwork) } else { Ok(Network { ip, prefix }) }
    }
}

impl From<Network> for (IpAddr, u8) {
    fn from(Network { ip, prefix }: Network) -> Self {
        (ip, prefix)
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
        let ip: IpAddr = ip.parse().map_err(|_| NoNetwork)?;
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(whole), |prefix| prefix.parse().map_err(|_| NoNetwork))?;
        Network::try_from((ip, prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_written_as_anywhere() {
        for text in ["0.0.0.0/0", "::/0", "192.0.2.1", "192.0.2.1/32", "2001:db8::1/128"] {
            assert!(text.parse::<Network>().is_ok(), "{text}");
        }
        for text in ["", "192.0.2", "192.0.2.0/33", "2001:db8::/129", "192.0.2.0/", "192.0.2.0/-1", "a/8"] {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork), "{text}");
        }
        let sent: Network = "192.0.2.0/24".parse().unwrap();
        let bytes = rmp_serde::to_vec_named(&sent).unwrap();
        assert_eq!(rmp_serde::from_slice::<Network>(&bytes).unwrap(), sent);
        let none = rmp_serde::to_vec_named(&(IpAddr::from([192, 0, 2, 0]), 33_u8)).unwrap();
        assert!(rmp_serde::from_slice::<Network>(&none).is_err(), "nor is it sent like that");
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains("8.8.8.8".parse().unwrap()));
    }
}
