//! A member as packets name it: small, and the same size for all. What a member is called and what it says of itself stands in
//! its record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};

use super::wire::Malformed;
use crate::catalog::fold;

/// 20 bytes on the wire, 32 with an address of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Id {
    /// Of the lower-cased name; see [`key`].
    pub key: u64,
    pub address: SocketAddr,
    /// Of two identities with one key the one with the larger generation is true.
    #[serde(deserialize_with = "generation")]
    pub generation: u64,
}

/// Generations are milliseconds in 47 bits: until the year 6429. The bit above says which family the address is of.
pub(crate) const GENERATION_MAX: u64 = (1 << 47) - 1;

/// What others say of a generation; one that cannot be is no word of theirs.
pub(crate) fn generation<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let generation = u64::deserialize(from)?;
    match generation {
        ..=GENERATION_MAX => Ok(generation),
        _ => Err(serde::de::Error::custom("a generation beyond the largest")),
    }
}

/// FNV-1a, then mixed: stable across versions, and every bit of it is good to choose a bucket by.
pub(crate) fn key(name: &str) -> u64 {
    let fnv = fold(name).bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

/// Spreads every bit over all bits.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Id {
    pub fn new(key: u64, address: SocketAddr, generation: u64) -> Id {
        // Flow and scope mean something on one host only.
        let address = SocketAddr::new(address.ip(), address.port());
        Id { key, address, generation: generation.min(GENERATION_MAX) }
    }

    /// Stands for the whole identity where the one who reads it knows which it should be.
    pub fn short(&self) -> u32 {
        mix(self.key ^ mix(self.generation)) as u32
    }

    pub fn put(&self, out: &mut impl BufMut) {
        let six = u64::from(self.address.is_ipv6()) << 47;
        out.put_u64_le(self.key);
        out.put_uint_le(self.generation | six, 6);
        match self.address.ip() {
            IpAddr::V4(ip) => out.put_slice(&ip.octets()),
            IpAddr::V6(ip) => out.put_slice(&ip.octets()),
        }
        out.put_u16_le(self.address.port());
    }

    pub fn get(from: &mut impl Buf) -> Result<Id, Malformed> {
        let key = from.try_get_u64_le()?;
        let bits = from.try_get_uint_le(6)?;
        let ip = if bits > GENERATION_MAX {
            let mut octets = [0; 16];
            from.try_copy_to_slice(&mut octets)?;
            IpAddr::V6(Ipv6Addr::from(octets))
        } else {
            let mut octets = [0; 4];
            from.try_copy_to_slice(&mut octets)?;
            IpAddr::V4(Ipv4Addr::from(octets))
        };
        let address = SocketAddr::new(ip, from.try_get_u16_le()?);
        Ok(Id { key, address, generation: bits & GENERATION_MAX })
    }
}

impl foca::Identity for Id {
    type Addr = u64;

    fn addr(&self) -> u64 {
        self.key
    }

    fn renew(&self) -> Option<Id> {
        let generation = self.generation + 1;
        (generation <= GENERATION_MAX).then_some(Id { generation, ..*self })
    }

    /// Of two with one generation, which is a conflict that [`super::machine`] ends, all must choose the same.
    fn win_addr_conflict(&self, other: &Id) -> bool {
        (self.generation, self.address) > (other.generation, other.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_twenty_bytes() {
        for (address, size) in [("10.0.0.1:8301", 20), ("[fd00::1]:8301", 32)] {
            let id = Id::new(key("Web-1"), address.parse().unwrap(), 1_700_000_000_000);
            let mut bytes = Vec::new();
            id.put(&mut bytes);
            assert_eq!(bytes.len(), size);
            assert_eq!(Id::get(&mut &bytes[..]).unwrap(), id);
            for cut in 0..size {
                assert!(Id::get(&mut &bytes[..cut]).is_err(), "{cut} of {size} bytes");
            }
        }
    }

    #[test]
    fn names_are_one_whatever_their_case() {
        assert_eq!(key("Web-1"), key("web-1"));
        assert_ne!(key("web-1"), key("web-2"));
    }
}
