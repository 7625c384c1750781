//! Networks as zones of reverse names. Pure.

use std::net::IpAddr;

/// The networks that nobody has on the Internet (RFC 1918).
pub const PRIVATE: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];

/// One network may come to this many zones.
const ZONES_MAX: usize = 128;

/// The zones that hold the reverse names of a network, without final dots: names are cut at whole octets (at half octets
/// in IPv6), so a network that ends between is several zones.
///
/// # Errors
/// What the text should have been.
pub fn zones(network: &str) -> Result<Vec<String>, String> {
    let expected =
        || format!("found the network {network:?}; expected one as 10.0.0.0/8, or the word private");
    let (ip, bits) = network.split_once('/').ok_or_else(expected)?;
    let ip: IpAddr = ip.parse().map_err(|_| expected())?;
    let bits: usize = bits.parse().map_err(|_| expected())?;
    let (digits, base, width, suffix) = match ip {
        IpAddr::V4(ip) => (ip.octets().map(u32::from).to_vec(), 10, 8, "in-addr.arpa"),
        IpAddr::V6(ip) => {
            let halves = ip.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            (halves.map(u32::from).collect(), 16, 4, "ip6.arpa")
        }
    };
    if bits == 0 || bits > digits.len() * width {
        return Err(expected());
    }
    let kept = bits.div_ceil(width);
    let count = 1 << (kept * width - bits);
    let last = digits[kept - 1];
    if count > ZONES_MAX || last % count as u32 != 0 || digits[kept..].iter().any(|digit| *digit != 0) {
        return Err(expected());
    }
    let word = |digit: u32| if base == 10 { digit.to_string() } else { format!("{digit:x}") };
    let parents: Vec<String> = digits[..kept - 1].iter().rev().map(|digit| word(*digit)).collect();
    let zone = |digit: u32| {
        let labels = [word(digit)].into_iter().chain(parents.iter().cloned()).chain([suffix.to_string()]);
        labels.collect::<Vec<_>>().join(".")
    };
    Ok((last..last + count as u32).map(zone).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_cut_at_octets() {
        assert_eq!(zones("10.0.0.0/8").unwrap(), ["10.in-addr.arpa"]);
        assert_eq!(zones("192.168.0.0/16").unwrap(), ["168.192.in-addr.arpa"]);
        assert_eq!(zones("10.1.2.4/31").unwrap(), ["4.2.1.10.in-addr.arpa", "5.2.1.10.in-addr.arpa"]);
        let sixteen = zones("172.16.0.0/12").unwrap();
        assert_eq!(
            (sixteen.len(), &*sixteen[0], &*sixteen[15]),
            (16, "16.172.in-addr.arpa", "31.172.in-addr.arpa")
        );
        assert_eq!(zones("fd00::/8").unwrap(), ["d.f.ip6.arpa"]);
        assert_eq!(zones("fc00::/7").unwrap(), ["c.f.ip6.arpa", "d.f.ip6.arpa"]);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["10.0.0.0", "10.0.0.0/0", "10.0.0.0/33", "10.0.0.1/8", "172.17.0.0/12", "x/8", "10.0.0.0/x"]
        {
            assert!(zones(text).unwrap_err().contains("expected one as 10.0.0.0/8"), "{text}");
        }
    }
}
