//! A zone as it is asked: names by hash, data in wire form. What holds of any zone is checked when one is built
//! (RFC 1034 §4.2, RFC 2181 §10): afterwards nothing in it can be wrong.

use ahash::{AHashMap, AHashSet};

use super::rdata::{self, Rdata};
use crate::dns::{
    name::Name,
    wire::{NAME_BYTES_MAX, kind},
};

pub const DNAME: u16 = 39;
pub const DS: u16 = 43;
/// What may stand beside a CNAME (RFC 4035 §2.5).
const BESIDE_CNAME: [u16; 3] = [kind::CNAME, 46, 47];

#[derive(Debug)]
pub struct Zone {
    /// In wire form, lower-cased, with the root.
    pub name: Box<[u8]>,
    pub records: usize,
    pub serial: u32,
    labels: usize,
    /// By the labels left of the zone's name, lower-cased.
    nodes: AHashMap<Box<[u8]>, Node>,
    /// The SOA as negative answers tell it (RFC 2308 §3).
    pub negative: Set,
}

/// A name, and what it has. One with nothing is there only because names below it are.
#[derive(Debug, Default)]
pub struct Node {
    pub sets: Vec<Set>,
    /// Below another's zone or a DNAME: only told as the address of a server.
    pub hidden: bool,
}

/// The records of a name and a type.
#[derive(Clone, Debug)]
pub struct Set {
    pub kind: u16,
    pub ttl_secs: u32,
    pub data: Vec<Data>,
}

#[derive(Clone, Debug)]
pub struct Data {
    pub wire: Box<[u8]>,
    pub names: Box<[Inner]>,
}

/// A name within data.
#[derive(Clone, Debug)]
pub struct Inner {
    pub start: usize,
    pub end: usize,
    /// Where the zone's name begins in it, counted from its own start, if it lies in the zone.
    pub zone_start: Option<usize>,
    /// Whether the zone's name may be pointed at there (RFC 3597 §4), and is long enough to be worth it.
    pub compress: bool,
    /// As `nodes` has it.
    pub key: Box<[u8]>,
}

/// A record, and the number of its place, as it comes from a file.
pub struct Record {
    pub owner: Vec<u8>,
    pub kind: u16,
    pub ttl_secs: u32,
    pub data: Rdata,
    pub place: usize,
}

/// What stands at a name. Labels are numbers, from the left.
pub enum Found<'z> {
    Here(&'z Node),
    /// The name lies in another's zone, which begins at a label.
    Cut(&'z Set, usize),
    /// The name lies below a DNAME, which stands at a label.
    Below(&'z Set, usize),
    /// No such name.
    Nowhere,
}

impl Zone {
    /// Builds a zone of its records, or says what is wrong with them: the number of a place, and why.
    pub fn build(records: Vec<Record>) -> Result<Zone, Vec<(usize, String)>> {
        let mut faults = Vec::new();
        let Some(soa) = records.iter().find(|record| record.kind == kind::SOA) else {
            return Err(vec![(
                records.first().map_or(0, |record| record.place),
                "no SOA; expected one, at the zone's name".into(),
            )]);
        };
        let (name, soa_place) = (soa.owner.to_ascii_lowercase(), soa.place);
        let serial = soa_number(&soa.data, 0);
        let negative_secs = soa.ttl_secs.min(soa_number(&soa.data, 4));
        let count = records.len();
        let (mut nodes, mut places) = (AHashMap::<Box<[u8]>, Node>::new(), AHashMap::new());
        let mut seen = AHashSet::new();
        nodes.insert([].into(), Node::default());
        for record in records {
            let Some(key) = key_in(&record.owner, &name) else {
                faults.push((
                    record.place,
                    format!("{} is outside the zone {}", shown(&record.owner), shown(&name)),
                ));
                continue;
            };
            if record.kind == kind::SOA && record.place != soa_place {
                faults.push((record.place, "a second SOA; expected one, at the zone's name".into()));
                continue;
            }
            let data = Data::of(record.kind, record.data, &name);
            // A record that stands twice counts once (RFC 2181 §5).
            if seen.insert((key.clone(), record.kind, data.folded())) {
                places.entry(key.clone()).or_insert(record.place);
                nodes.entry(key).or_default().add(record.kind, record.ttl_secs, data);
            }
        }
        let mut zone = Zone {
            labels: labels(&name).count(),
            records: count,
            serial,
            negative: Set { kind: kind::SOA, ttl_secs: negative_secs, data: vec![] },
            nodes,
            name: name.into(),
        };
        zone.add_empty();
        zone.hide();
        let place_of = |key: &[u8]| places.get(key).copied().unwrap_or(soa_place);
        zone.check(|key, text| faults.push((place_of(key), text)));
        if zone.set(&[], kind::NS).is_none() {
            faults.push((soa_place, "no NS beside the SOA; expected at least one".into()));
        }
        zone.negative.data = zone.set(&[], kind::SOA).map(|set| set.data.clone()).unwrap_or_default();
        faults.sort();
        if faults.is_empty() { Ok(zone) } else { Err(faults) }
    }

    /// How many of a name's labels stand left of the zone's; the name lies in it.
    pub fn depth_of(&self, name: &Name) -> usize {
        name.count().saturating_sub(self.labels)
    }

    /// What stands at a name of this zone (RFC 1034 §4.3.2, RFC 4592 §3.3.1, RFC 6672 §3.2).
    pub fn find(&self, name: &Name, qtype: u16) -> Found<'_> {
        let depth = self.depth_of(name);
        let mut above = None;
        for label in (0..=depth).rev() {
            let key = name.between(label, depth);
            let Some(node) = self.nodes.get(key) else {
                return above.map_or(Found::Nowhere, |encloser| self.wildcard(encloser));
            };
            if label < depth
                && !(label == 0 && qtype == DS)
                && let Some(set) = node.set(kind::NS)
            {
                return Found::Cut(set, label);
            }
            if label > 0
                && let Some(set) = node.set(DNAME)
            {
                return Found::Below(set, label);
            }
            if label == 0 {
                return Found::Here(node);
            }
            above = Some(key);
        }
        Found::Nowhere
    }

    #[cfg(test)]
    pub fn nodes(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(key, node)| (&**key, node))
    }

    /// The addresses of a name, as they go with other records. `even_hidden`: those below a cut, too.
    pub fn addresses(&self, key: &[u8], even_hidden: bool) -> impl Iterator<Item = &Set> {
        let node = self.nodes.get(key).filter(|node| even_hidden || !node.hidden);
        node.into_iter().flat_map(|node| [kind::A, kind::AAAA].into_iter().filter_map(|kind| node.set(kind)))
    }

    fn wildcard(&self, encloser: &[u8]) -> Found<'_> {
        let mut key = [0; NAME_BYTES_MAX + 2];
        key[..2].copy_from_slice(b"\x01*");
        key[2..2 + encloser.len()].copy_from_slice(encloser);
        self.nodes.get(&key[..2 + encloser.len()]).map_or(Found::Nowhere, Found::Here)
    }

    /// The names between those that have something and the zone's own.
    fn add_empty(&mut self) {
        let mut missing: Vec<Box<[u8]>> = Vec::new();
        for key in self.nodes.keys() {
            let above = above(key).map(|at| &key[at..]);
            missing.extend(above.take_while(|key| !self.nodes.contains_key(*key)).map(Box::from));
        }
        for key in missing {
            self.nodes.entry(key).or_default();
        }
    }

    fn hide(&mut self) {
        let hidden: Vec<Box<[u8]>> = self.nodes.keys().filter(|key| self.is_hidden(key)).cloned().collect();
        for key in hidden {
            if let Some(node) = self.nodes.get_mut(&key) {
                node.hidden = true;
            }
        }
    }

    fn is_hidden(&self, key: &[u8]) -> bool {
        let is_cut = |at: usize| at < key.len() && self.set(&key[at..], kind::NS).is_some();
        is_cut(0) || above(key).any(|at| is_cut(at) || self.set(&key[at..], DNAME).is_some())
    }

    fn set(&self, key: &[u8], kind: u16) -> Option<&Set> {
        self.nodes.get(key).and_then(|node| node.set(kind))
    }

    /// Rules within a name, and between one and those above it.
    fn check(&self, mut fault: impl FnMut(&[u8], String)) {
        for (key, node) in &self.nodes {
            let owner = || shown(&[key, &self.name[..]].concat());
            for (kind, word) in [(kind::CNAME, "CNAME"), (DNAME, "DNAME")] {
                if node.set(kind).is_some_and(|set| set.data.len() > 1) {
                    fault(key, format!("{} has more than one {word}; expected one", owner()));
                }
            }
            let other = node.sets.iter().find(|set| !BESIDE_CNAME.contains(&set.kind));
            if let (Some(other), Some(_)) = (other, node.set(kind::CNAME)) {
                let word = rdata::word_of(other.kind);
                fault(key, format!("{} has a CNAME and {word}; expected the CNAME alone", owner()));
            }
            let below_dname = above(key).any(|at| self.set(&key[at..], DNAME).is_some());
            if below_dname && !node.sets.is_empty() {
                fault(key, format!("{} stands below a DNAME; expected nothing there", owner()));
            }
        }
        for (key, node) in &self.nodes {
            let servers =
                node.set(kind::NS).into_iter().flat_map(|set| &set.data).flat_map(|data| &data.names);
            for server in servers.filter(|server| server.zone_start.is_some()) {
                if self.set(&server.key, kind::CNAME).is_some() {
                    let server = shown(&[&server.key, &self.name[..]].concat());
                    fault(
                        key,
                        format!("the name server {server} is a CNAME; expected a name with addresses"),
                    );
                }
            }
        }
    }
}

impl Node {
    pub fn set(&self, kind: u16) -> Option<&Set> {
        self.sets.iter().find(|set| set.kind == kind)
    }

    /// The first of a type says the TTL of all (RFC 2181 §5.2).
    fn add(&mut self, kind: u16, ttl_secs: u32, data: Data) {
        match self.sets.iter_mut().find(|set| set.kind == kind) {
            Some(set) => set.data.push(data),
            None => self.sets.push(Set { kind, ttl_secs, data: vec![data] }),
        }
    }
}

impl Data {
    fn of(kind: u16, data: Rdata, zone: &[u8]) -> Self {
        let compress =
            matches!(kind, kind::NS | kind::CNAME | kind::SOA | kind::PTR | kind::MX) && zone.len() > 2;
        let inner = |(start, end): &(usize, usize)| {
            let key = key_in(&data.wire[*start..*end], zone);
            let zone_start = key.as_ref().map(|key| key.len());
            Inner { start: *start, end: *end, zone_start, compress, key: key.unwrap_or_default() }
        };
        Data { names: data.names.iter().map(inner).collect(), wire: data.wire.into() }
    }

    /// For comparison: names count without regard to case, other data as they are.
    fn folded(&self) -> Vec<u8> {
        let mut wire = self.wire.to_vec();
        self.names.iter().for_each(|name| wire[name.start..name.end].make_ascii_lowercase());
        wire
    }
}

/// Where the labels of a name begin.
pub fn labels(name: &[u8]) -> impl Iterator<Item = usize> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let length = usize::from(*name.get(at).filter(|length| **length > 0)?);
        let start = at;
        at += 1 + length;
        Some(start)
    })
}

/// Where the names above a key begin in it, down to the zone's own.
fn above(key: &[u8]) -> impl Iterator<Item = usize> {
    let own = (!key.is_empty()).then_some(key.len());
    labels(key).skip(1).chain(own)
}

/// What stands left of the zone in a name that lies in it, lower-cased.
pub fn key_in(name: &[u8], zone: &[u8]) -> Option<Box<[u8]>> {
    let start = name.len().checked_sub(zone.len())?;
    let begins = start + 1 == name.len() || labels(name).any(|at| at == start);
    (begins && name[start..].eq_ignore_ascii_case(zone)).then(|| name[..start].to_ascii_lowercase().into())
}

/// A name as a master file writes it.
pub fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for at in labels(name) {
        for byte in &name[at + 1..at + 1 + usize::from(name[at])] {
            match byte {
                b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                    text.extend(['\\', char::from(*byte)])
                }
                b'!'..=b'~' => text.push(char::from(*byte)),
                other => text.push_str(&format!("\\{other:03}")),
            }
        }
        text.push('.');
    }
    if text.is_empty() { ".".into() } else { text }
}

/// One of the five numbers that a SOA ends with.
fn soa_number(data: &Rdata, at: usize) -> u32 {
    let numbers = data.names.last().and_then(|(_, end)| data.wire.get(end + 4 * at..end + 4 * at + 4));
    numbers.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}
