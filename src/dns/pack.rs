//! Records into a message: data by their type, and names in the fewest bytes, pointed at where they stand already. Knows
//! what stands where in the message; not what fits, nor why a record is told.

use std::net::IpAddr;

use ahash::AHashMap;

use super::{
    answer::{Data, Owner, Record},
    txt,
    wire::{self, HEAD_BYTES, POINTER_END, QUESTION_AT, kind},
};

/// The names that a message holds already, to be pointed at.
pub struct Names {
    compress: bool,
    /// Where the zone begins in the question.
    zone_at: usize,
    seen: AHashMap<Owner, usize>,
}

impl Names {
    pub fn new(compress: bool, zone_at: usize) -> Self {
        Names { compress, zone_at, seen: AHashMap::new() }
    }

    /// A name stands there already.
    pub fn stands(&mut self, owner: Owner, at: usize) {
        if at < POINTER_END {
            self.seen.entry(owner).or_insert(at);
        }
    }

    pub fn put_record(&mut self, out: &mut Vec<u8>, record: &Record) {
        self.put_owner(out, &record.owner);
        let data_at = out.len() + HEAD_BYTES - 2;
        match &record.data {
            Data::Address(IpAddr::V4(ip)) => return wire::put_v4(out, record.ttl_secs, *ip),
            Data::Address(IpAddr::V6(ip)) => return wire::put_v6(out, record.ttl_secs, *ip),
            Data::Meta { key, value } => return txt::put_meta(out, record.ttl_secs, key, value),
            Data::Srv { weight, port, target } => {
                wire::put_head(out, kind::SRV, record.ttl_secs, 0);
                [PRIORITY, *weight, *port].into_iter().for_each(|number| wire::put_u16(out, number));
                self.put_whole(out, target);
            }
            Data::Cname(target) => {
                wire::put_head(out, kind::CNAME, record.ttl_secs, 0);
                self.put_whole(out, target);
            }
            Data::Ns(target) => {
                wire::put_head(out, kind::NS, record.ttl_secs, 0);
                self.put_whole(out, target);
            }
            Data::Ptr(target) => {
                wire::put_head(out, kind::PTR, record.ttl_secs, 0);
                self.put_owner(out, target);
            }
            Data::Whole { kind, wire } => {
                wire::put_head(out, *kind, record.ttl_secs, 0);
                out.extend_from_slice(wire);
            }
            Data::Soa { servers, numbers } => {
                wire::put_head(out, kind::SOA, record.ttl_secs, 0);
                for label in [&b"\x02ns"[..], b"\x0ahostmaster"] {
                    out.extend_from_slice(label);
                    self.put_owner(out, servers);
                }
                numbers.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
            }
        }
        let length = (out.len() - data_at) as u16;
        out[data_at - 2..data_at].copy_from_slice(&length.to_be_bytes());
    }

    /// A name in the fewest bytes: the question and its zone are always there to be pointed at.
    fn put_owner(&mut self, out: &mut Vec<u8>, owner: &Owner) {
        if !self.compress {
            return self.put_whole(out, owner);
        }
        let seen = self.seen.get(owner).copied();
        match (owner, seen) {
            (Owner::Question, _) => wire::put_pointer(out, QUESTION_AT),
            (Owner::Zone, _) => wire::put_pointer(out, self.zone_at),
            (_, Some(at)) => wire::put_pointer(out, at),
            (Owner::InZone(labels), None) => {
                out.extend_from_slice(labels);
                wire::put_pointer(out, self.zone_at);
            }
            (Owner::Elsewhere(_), None) => self.put_whole(out, owner),
        }
    }

    /// A name in full, as RFC 2782 wants targets.
    fn put_whole(&mut self, out: &mut Vec<u8>, owner: &Owner) {
        let at = out.len();
        match owner {
            Owner::Question => put_asked(out, QUESTION_AT),
            Owner::Zone => put_asked(out, self.zone_at),
            Owner::InZone(labels) => {
                out.extend_from_slice(labels);
                put_asked(out, self.zone_at);
            }
            Owner::Elsewhere(labels) => {
                out.extend_from_slice(labels);
                out.push(0);
            }
        }
        if at < POINTER_END {
            self.seen.entry(owner.clone()).or_insert(at);
        }
    }
}

/// The question's name from here to its root, once more.
fn put_asked(out: &mut Vec<u8>, from: usize) {
    let mut end = from;
    while out[end] != 0 {
        end += 1 + usize::from(out[end]);
    }
    out.extend_from_within(from..=end);
}

/// The priority of every SRV record.
pub const PRIORITY: u16 = 1;
