//! The grammar of our names (`dns.md` §3, §4): what the labels left of the zone ask for. Knows the zones and this
//! agent's datacenter; not whether anything of that name exists.

use std::ops::Range;

use super::settings::Settings;

/// A question's name, ready to be read: lower-cased, with its labels counted.
pub struct Name<'a> {
    /// As asked, in wire form with the root.
    pub asked: &'a [u8],
    folded: [u8; 256],
    starts: [u8; 128],
    count: usize,
}

/// What a name asks for. Labels are given by number, from the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The zone itself.
    Apex,
    /// A name that is there only because names below it are.
    Empty,
    /// `ns.<zone>`: the servers, by the name that the SOA gives.
    Servers,
    Service {
        service: Part,
        tag: Option<Part>,
    },
    /// `_services._dns-sd._udp`: every service there is (RFC 6763 §9), unless one has this name.
    Services {
        service: Part,
        tag: Part,
    },
    Node(Part),
    /// A prepared query, by its name or id.
    Query(Part),
    Address(usize),
    /// No such name: nothing of this form exists, or is built yet.
    Nowhere,
}

/// Some labels, joined with dots; without the underscore that RFC 2782 puts before the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub labels: Range<usize>,
    pub underscored: bool,
}

/// The zones in wire form, lower-cased, and what stands between a target's own labels and the zone.
#[derive(Default)]
pub struct Zones {
    domain: Vec<u8>,
    alt_domain: Option<Vec<u8>>,
    datacenter: String,
    /// `\x04node\x03dc1`
    pub node_tail: Vec<u8>,
    /// `\x04addr\x03dc1`
    pub address_tail: Vec<u8>,
    made_of: (String, Option<String>),
}

impl Zones {
    pub fn of(settings: &Settings) -> Self {
        let wire = |zone: &str| {
            let mut wire = super::wire::name_of(zone).unwrap_or_default();
            wire.push(0);
            wire
        };
        let tail =
            |word: &str| super::wire::name_of(&format!("{word}.{}", settings.datacenter)).unwrap_or_default();
        Zones {
            domain: wire(&settings.domain),
            alt_domain: settings.alt_domain.as_deref().map(wire),
            datacenter: settings.datacenter.clone(),
            node_tail: tail("node"),
            address_tail: tail("addr"),
            made_of: (settings.domain.clone(), settings.alt_domain.clone()),
        }
    }

    /// `\x03dc1`
    pub fn datacenter_label(&self) -> Vec<u8> {
        super::wire::name_of(&self.datacenter).unwrap_or_default()
    }

    pub fn are_of(&self, settings: &Settings) -> bool {
        self.made_of.0 == settings.domain
            && self.made_of.1 == settings.alt_domain
            && self.datacenter == settings.datacenter
    }

    /// How many of a name's labels stand left of the longest of our zones that it lies in.
    pub fn split(&self, name: &Name) -> Option<usize> {
        let zones = [Some(&self.domain), self.alt_domain.as_ref()];
        let depths = zones.into_iter().flatten().filter_map(|zone| name.depth_in(zone));
        depths.min()
    }

    /// What a name asks for, `depth` labels below one of our zones.
    pub fn parse(&self, name: &Name, depth: usize, is_srv: bool) -> Lookup {
        let label = |at: usize| name.label(at);
        let is_word = |at: &usize| KEYWORDS.contains(&label(*at)) || is_srv && label(*at).starts_with(b"_");
        let Some(at) = (0..depth).rev().find(is_word) else { return self.parse_bare(name, depth) };
        // An implied `service` keeps its label among the parts.
        let (word, parts) =
            if label(at).starts_with(b"_") { (&b"service"[..], at + 1) } else { (label(at), at) };
        match word {
            b"addr" if parts == 1 => Lookup::Address(0),
            b"addr" if parts == 0 => Lookup::Empty,
            b"service" | b"node" if self.is_here(name, at + 1..depth) => match (word, parts) {
                (_, 0) => Lookup::Empty,
                (b"node", _) => Lookup::Node(Part::plain(0..parts)),
                _ => service(name, parts),
            },
            b"query" if self.is_own(name, at + 1..depth) => query(name, parts),
            _ => Lookup::Nowhere,
        }
    }

    /// As far right of `query` as is known there: nothing, or this datacenter's name alone.
    fn is_own(&self, name: &Name, suffix: Range<usize>) -> bool {
        suffix.len() < 2 && self.is_here(name, suffix)
    }

    /// No keyword: the zone, its name server, a name above those of a datacenter or of RFC 2782; or the short form of a
    /// service, right below the datacenter.
    fn parse_bare(&self, name: &Name, depth: usize) -> Lookup {
        if depth > 0 && is_any_protocol(name.label(0)) && self.is_here(name, 1..depth) {
            return Lookup::Empty;
        }
        let is_here = |at: usize| name.label(at) == self.datacenter.as_bytes();
        match depth {
            0 => Lookup::Apex,
            1 if name.label(0) == b"ns" => Lookup::Servers,
            1 if name.label(0) == b"dc" || is_here(0) => Lookup::Empty,
            2 if is_here(0) && name.label(1) == b"dc" => Lookup::Empty,
            3.. if is_here(depth - 2) && name.label(depth - 1) == b"dc" => service(name, depth - 2),
            2.. if is_here(depth - 1) => service(name, depth - 1),
            _ => Lookup::Nowhere,
        }
    }

    /// Whether the labels right of a keyword mean this datacenter: none, its name, or pairs of a name and `dc`, the
    /// rightmost of which counts. Other datacenters and peers are not known here.
    fn is_here(&self, name: &Name, suffix: Range<usize>) -> bool {
        let is_here = |at: usize| name.label(at) == self.datacenter.as_bytes();
        let is_dc = |at: usize| name.label(at) == b"dc";
        let first = suffix.start;
        match suffix.len() {
            0 => true,
            1 => is_here(first),
            2 => is_here(first) && is_dc(first + 1),
            4 => is_dc(first + 1) && is_here(first + 2) && is_dc(first + 3),
            _ => false,
        }
    }
}

const KEYWORDS: [&[u8]; 7] = [b"service", b"node", b"addr", b"query", b"connect", b"virtual", b"ingress"];

/// What asks for the services there are (RFC 6763 §9).
const BROWSED: [&[u8]; 3] = [b"_services", b"_dns-sd", b"_udp"];

/// `_web._tcp` (RFC 2782), or the last label with all before it as one tag.
fn service(name: &Name, parts: usize) -> Lookup {
    let underscored = |at: usize| name.label(at).starts_with(b"_");
    if parts == 2 && underscored(0) && underscored(1) {
        let tag = Part { labels: 1..2, underscored: true };
        return Lookup::Service {
            service: Part { labels: 0..1, underscored: true },
            tag: (!is_any_protocol(name.label(1))).then_some(tag),
        };
    }
    if parts == 3 && (0..parts).all(|at| name.label(at) == BROWSED[at]) {
        return Lookup::Services { service: Part::plain(2..3), tag: Part::plain(0..2) };
    }
    let tag = (parts > 1).then(|| Part::plain(0..parts - 1));
    Lookup::Service { service: Part::plain(parts - 1..parts), tag }
}

/// Dots and all; `_q._tcp` (RFC 2782) with anything for the protocol.
fn query(name: &Name, parts: usize) -> Lookup {
    let underscored = |at: usize| name.label(at).starts_with(b"_");
    match parts {
        0 => Lookup::Empty,
        2.. if underscored(0) && underscored(parts - 1) => {
            Lookup::Query(Part { labels: 0..parts - 1, underscored: true })
        }
        _ => Lookup::Query(Part::plain(0..parts)),
    }
}

/// What asks for no tag where RFC 2782 has the protocol.
fn is_any_protocol(label: &[u8]) -> bool {
    matches!(label, b"_" | b"_tcp")
}

impl Lookup {
    /// Whether it asks for instances of a service.
    pub fn is_of_service(&self) -> bool {
        matches!(self, Lookup::Service { .. } | Lookup::Query(_))
    }
}

impl Part {
    /// Whether this service, with this tag, is a name that is there because names below it may be, if nothing has it:
    /// `_tcp`, above `_web._tcp`, and what is above the browsing name.
    pub fn is_above(&self, tag: Option<&Part>, name: &Name) -> bool {
        let last = tag.map_or(self.labels.end, |tag| tag.labels.end.max(self.labels.end));
        let is_protocol = last == 1 && !self.underscored && is_any_protocol(name.label(0));
        let is_browsed = (1..BROWSED.len()).contains(&last)
            && (0..last).all(|at| name.label(at) == BROWSED[BROWSED.len() - last + at]);
        is_protocol || is_browsed
    }

    fn plain(labels: Range<usize>) -> Self {
        Part { labels, underscored: false }
    }
}

impl<'a> Name<'a> {
    /// `asked` is a whole name in wire form.
    pub fn new(asked: &'a [u8]) -> Self {
        let mut name = Name { asked, folded: [0; 256], starts: [0; 128], count: 0 };
        for (folded, byte) in name.folded.iter_mut().zip(asked) {
            *folded = byte.to_ascii_lowercase();
        }
        let mut at = 0;
        while let Some(length) = asked.get(at).filter(|length| **length != 0) {
            let Some(start) = name.starts.get_mut(name.count) else { break };
            *start = at as u8;
            name.count += 1;
            at += 1 + usize::from(*length);
        }
        name
    }

    /// How many labels there are, the root not counted.
    pub fn count(&self) -> usize {
        self.count
    }

    /// A label, lower-cased.
    pub fn label(&self, at: usize) -> &[u8] {
        let start = usize::from(self.starts[at]);
        &self.folded[start + 1..start + 1 + usize::from(self.folded[start])]
    }

    /// Where a label begins; one past the last is the root.
    pub fn offset(&self, label: usize) -> usize {
        if label < self.count { usize::from(self.starts[label]) } else { self.asked.len() - 1 }
    }

    /// The labels from one up to another, lower-cased, in wire form.
    pub fn between(&self, from: usize, to: usize) -> &[u8] {
        &self.folded[self.offset(from)..self.offset(to)]
    }

    /// The name that begins at a label, lower-cased, in wire form with the root.
    pub fn from(&self, label: usize) -> &[u8] {
        &self.folded[self.offset(label)..self.asked.len()]
    }

    /// How many labels stand left of `zone`, if the name ends with it.
    fn depth_in(&self, zone: &[u8]) -> Option<usize> {
        let start = self.asked.len().checked_sub(zone.len())?;
        if self.folded[start..self.asked.len()] != *zone {
            return None;
        }
        (0..=self.count).find(|label| self.offset(*label) == start)
    }

    /// Writes a part as it is looked up: labels joined with dots, bytes that a zone file would escape escaped, since
    /// that is how names have always been compared here (`dns.md` §3, unmatchable names).
    pub fn write_text(&self, part: &Part, text: &mut String) {
        text.clear();
        for at in part.labels.clone() {
            let label = self.label(at);
            let label = if part.underscored && at == part.labels.start { &label[1..] } else { label };
            if at > part.labels.start {
                text.push('.');
            }
            for byte in label {
                match byte {
                    b'.' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' | b'\\' | b' ' => {
                        text.push('\\');
                        text.push(char::from(*byte));
                    }
                    b'!'..=b'~' => text.push(char::from(*byte)),
                    other => text.push_str(&format!("\\{other:03}")),
                }
            }
        }
    }
}

/// The labels of a written text: its dots that are not escaped stand between them.
pub fn labels_of(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let is_end = c == '.' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name` below the zone, and what it asks for.
    fn read(name: &str, is_srv: bool) -> String {
        let zones = Zones::of(&Settings { alt_domain: Some("corp.test.".into()), ..Settings::default() });
        let mut wire = crate::dns::wire::name_of(name).unwrap_or_default();
        wire.push(0);
        let name = Name::new(&wire);
        let Some(depth) = zones.split(&name) else { return "outside".into() };
        let mut text = String::new();
        let mut of = |part: &Part| {
            name.write_text(part, &mut text);
            text.clone()
        };
        match zones.parse(&name, depth, is_srv) {
            Lookup::Service { service, tag: None } => format!("service {}", of(&service)),
            Lookup::Service { service, tag: Some(tag) } => {
                format!("service {} tag {}", of(&service), of(&tag))
            }
            Lookup::Node(part) => format!("node {}", of(&part)),
            Lookup::Query(part) => format!("query {}", of(&part)),
            Lookup::Services { .. } => "services".into(),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    #[test]
    fn the_grammar() {
        let table = [
            ("Pay.SERVICE.Consul", "service pay"),
            ("v1.2.pay.service.consul", "service pay tag v1.2"),
            ("_pay._tcp.service.consul", "service pay"),
            ("_pay._.service.consul", "service pay"),
            ("_pay._udp.service.consul", "service pay tag udp"),
            ("_a.b.service.consul", "service b tag _a"),
            ("_pay.service.consul", "service _pay"),
            ("pay.service.dc1.consul", "service pay"),
            ("pay.service.DC1.dc.consul", "service pay"),
            ("pay.service.x.dc.dc1.dc.consul", "service pay"),
            ("pay.service.dc1.dc.x.dc.consul", "nowhere"),
            ("pay.service.x.peer.dc1.dc.consul", "nowhere"),
            ("pay.service.dc1.extra.consul", "nowhere"),
            ("pay.service.nodc.consul", "nowhere"),
            ("web.service.node.consul", "node web.service"),
            ("f.g.node.dc1.consul", "node f.g"),
            ("0a090005.addr.any.old.labels.consul", "address(0)"),
            ("x.0a090005.addr.consul", "nowhere"),
            ("consul", "apex"),
            ("corp.test", "apex"),
            ("pay.service.corp.test", "service pay"),
            ("service.consul", "empty"),
            ("service.dc1.dc.consul", "empty"),
            ("node.dc1.consul", "empty"),
            ("addr.consul", "empty"),
            ("dc1.consul", "empty"),
            ("dc.consul", "empty"),
            ("dc1.dc.consul", "empty"),
            ("ns.consul", "servers"),
            ("ns.dc1.consul", "service ns"),
            ("pay.dc1.consul", "service pay"),
            ("v1.2.pay.DC1.dc.consul", "service pay tag v1.2"),
            ("_pay._tcp.dc1.consul", "service pay"),
            ("x.dc.dc1.consul", "service dc tag x"),
            ("pay.dc2.consul", "nowhere"),
            ("pay.dc2.dc.consul", "nowhere"),
            ("pay.dc.consul", "nowhere"),
            ("_services._dns-sd._udp.service.consul", "services"),
            ("_SERVICES._dns-sd._udp.service.dc1.dc.consul", "services"),
            ("x._services._dns-sd._udp.service.consul", "service _udp tag x._services._dns-sd"),
            ("junk.consul", "nowhere"),
            ("pay.connect.consul", "nowhere"),
            ("pay.virtual.consul", "nowhere"),
            ("query.consul", "empty"),
            ("query.dc1.consul", "empty"),
            ("query.dc2.consul", "nowhere"),
            ("Geo.pay.QUERY.consul", "query geo.pay"),
            ("geo.query.DC1.consul", "query geo"),
            ("geo.query.dc1.dc.consul", "nowhere"),
            ("geo.query.dc2.consul", "nowhere"),
            ("_geo._tcp.query.consul", "query geo"),
            ("_a._b._x.query.dc1.consul", "query a._b"),
            ("_geo.query.consul", "query _geo"),
            ("_geo.x.query.consul", "query _geo.x"),
            ("x._geo.query.consul", "query x._geo"),
            ("_pay._tcp.consul", "nowhere"),
            ("_tcp.consul", "empty"),
            ("_TCP.dc1.dc.consul", "empty"),
            ("_.dc1.consul", "empty"),
            ("_tcp.nodc.consul", "nowhere"),
            ("_udp.consul", "nowhere"),
            ("_tcp.service.consul", "service _tcp"),
            ("example.com", "outside"),
            ("xconsul", "outside"),
            ("", "outside"),
        ];
        for (name, expected) in table {
            assert_eq!(read(name, false), expected, "{name}");
        }
        let implied = [
            ("_pay._tcp.consul", "service pay"),
            ("_pay._blue.dc1.consul", "service pay tag blue"),
            ("_pay._tcp.dc1.dc.consul", "service pay"),
            ("_pay.consul", "service _pay"),
            ("_pay._tcp.service.consul", "service pay"),
            ("junk.consul", "nowhere"),
        ];
        for (name, expected) in implied {
            assert_eq!(read(name, true), expected, "SRV {name}");
        }
    }

    #[test]
    fn odd_bytes_are_compared_as_a_zone_file_writes_them() {
        assert_eq!(read("a@b.node.consul", false), "node a\\@b");
        assert_eq!(read("a b.node.consul", false), "node a\\ b");
        assert_eq!(read("é*/$_.node.consul", false), "node \\195\\169*/$_");
        assert_eq!(labels_of(r"a\.b.c\\.d").collect::<Vec<_>>(), [r"a\.b", r"c\\", "d"]);
    }
}
