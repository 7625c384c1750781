//! Reverse names (`dns.md` §18): which addresses a name under `in-addr.arpa` or `ip6.arpa` stands for, and who lives
//! there. A whole name is one address; a shorter one stands above many, and is there if anyone lives at one of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    answer::{Answer, Asked, Data, Item, Owner, Record, secs},
    name::Name,
    wire::{Rcode, kind, name_of},
};
use crate::catalog::{Node, Service};

/// A name in one of the reverse zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reverse {
    /// In wire form, without the root.
    pub zone: &'static [u8],
    /// The lowest and the highest of its addresses; `None` where it stands for none.
    addresses: Option<(IpAddr, IpAddr)>,
    /// Labels below the zone.
    depth: usize,
}

const V4: &[u8] = b"\x07in-addr\x04arpa";
const V6: &[u8] = b"\x03ip6\x04arpa";
const V4_LABELS: usize = 4;
const V6_LABELS: usize = 32;

impl Reverse {
    /// `None` where the name lies in neither zone.
    pub fn parse(name: &Name) -> Option<Reverse> {
        let depth = name.count().checked_sub(2).filter(|depth| name.label(depth + 1) == b"arpa")?;
        let labels = (0..depth).rev().map(|at| name.label(at));
        let (zone, addresses) = match name.label(depth) {
            b"in-addr" => (V4, (depth <= V4_LABELS).then(|| v4(labels)).flatten()),
            b"ip6" => (V6, (depth <= V6_LABELS).then(|| v6(labels)).flatten()),
            _ => return None,
        };
        Some(Reverse { zone, addresses, depth })
    }
}

fn v4<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<(IpAddr, IpAddr)> {
    let (mut low, mut high) = ([0; V4_LABELS], [255; V4_LABELS]);
    for (at, label) in labels.enumerate() {
        // `011` is another name than `11`.
        let digits = label.iter().all(u8::is_ascii_digit) && (label == b"0" || !label.starts_with(b"0"));
        let octet = std::str::from_utf8(label).ok().filter(|_| digits)?.parse().ok()?;
        (low[at], high[at]) = (octet, octet);
    }
    Some((Ipv4Addr::from(low).into(), Ipv4Addr::from(high).into()))
}

fn v6<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<(IpAddr, IpAddr)> {
    let (mut low, mut free) = (0, 128);
    for label in labels {
        let [digit] = label else { return None };
        free -= 4;
        low |= u128::from(char::from(*digit).to_digit(16)?) << free;
    }
    let high = low | u128::MAX.checked_shr(128 - free).unwrap_or(0);
    Some((Ipv6Addr::from(low).into(), Ipv6Addr::from(high).into()))
}

impl Asked<'_> {
    /// What the catalog says of a reverse name; `None` where it knows nobody there.
    pub fn reverse(&self, reverse: &Reverse) -> Option<Answer> {
        let (low, high) = reverse.addresses?;
        let mut residents = self.catalog.residents(low, high);
        if low != high {
            return residents.next().map(|_| self.reverse_no_data(reverse));
        }
        let (ttl_secs, target) = residents.find_map(|(node, service)| self.resident_name(node, service))?;
        let data = Data::Ptr(Owner::Elsewhere(target));
        // Whatever the type; SOA has one beside it, too (`dns.md` §18).
        let authority = if self.qtype == kind::SOA { vec![self.soa_of(self.domain())] } else { vec![] };
        let items = vec![Item::of(Record { owner: Owner::Question, ttl_secs, data })];
        Some(Answer { items, authority, ..Answer::default() })
    }

    /// Where nobody else is asked either: no such name, in the zone that it lies in, so that resolvers may believe it.
    pub fn no_such_reverse(&self, reverse: &Reverse) -> Answer {
        let no_data = self.reverse_no_data(reverse);
        match (reverse.depth, self.qtype) {
            (0, kind::SOA) => {
                Answer { items: no_data.authority.into_iter().map(Item::of).collect(), ..Answer::default() }
            }
            (0, _) => no_data,
            _ => Answer { rcode: Some(Rcode::NxDomain), ..no_data },
        }
    }

    fn reverse_no_data(&self, reverse: &Reverse) -> Answer {
        Answer { authority: vec![self.soa_of(reverse.zone.to_vec())], ..Answer::default() }
    }

    /// The SOA of a zone that has no servers but ours.
    fn soa_of(&self, zone: Vec<u8>) -> Record {
        self.soa_by(Owner::Elsewhere(zone), Owner::Elsewhere(self.domain()))
    }

    /// The first of our zones, in wire form without the root.
    fn domain(&self) -> Vec<u8> {
        name_of(&self.settings.domain).unwrap_or_default()
    }

    /// The name of who lives at an address, always in the first of our zones, and its TTL. `None` where no packet can
    /// hold it.
    fn resident_name(&self, node: &Node, service: Option<&Service>) -> Option<(u32, Vec<u8>)> {
        let (ttl_secs, own, word) = match service {
            Some(service) => {
                let name = service.name.to_ascii_lowercase();
                (secs(self.settings.service_ttl.of(&name)), &service.name, "service")
            }
            None => (secs(self.settings.node_ttl), &node.name, "node"),
        };
        let (datacenter, domain) = (&self.settings.datacenter, &self.settings.domain);
        Some((ttl_secs, name_of(&format!("{own}.{word}.{datacenter}.{domain}"))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> Option<String> {
        let asked = [name_of(name).unwrap(), vec![0]].concat();
        let reverse = Reverse::parse(&Name::new(&asked))?;
        Some(match reverse.addresses {
            None => "nobody".into(),
            Some((low, high)) if low == high => low.to_string(),
            Some((low, high)) => format!("{low} to {high}"),
        })
    }

    #[test]
    fn names_of_addresses() {
        let nibbles = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.D.f.IP6.Arpa";
        let table = [
            ("11.0.1.10.in-addr.arpa", Some("10.1.0.11")),
            ("11.0.1.10.IN-ADDR.ARPA", Some("10.1.0.11")),
            (nibbles, Some("fd20::7")),
            ("1.10.in-addr.arpa", Some("10.1.0.0 to 10.1.255.255")),
            ("in-addr.arpa", Some("0.0.0.0 to 255.255.255.255")),
            ("2.d.f.ip6.arpa", Some("fd20:: to fd2f:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
            ("ip6.arpa", Some(":: to ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
            ("011.0.1.10.in-addr.arpa", Some("nobody")),
            ("256.0.1.10.in-addr.arpa", Some("nobody")),
            ("+1.0.1.10.in-addr.arpa", Some("nobody")),
            ("x.11.0.1.10.in-addr.arpa", Some("nobody")),
            ("1.11.0.1.10.in-addr.arpa", Some("nobody")),
            ("10.ip6.arpa", Some("nobody")),
            ("g.ip6.arpa", Some("nobody")),
            ("home.arpa", None),
            ("arpa", None),
            ("in-addr.arpa.consul", None),
        ];
        for (name, expected) in table {
            assert_eq!(read(name).as_deref(), expected, "{name}");
        }
        assert_eq!(read(&format!("0.{nibbles}")).as_deref(), Some("nobody"));
    }
}
