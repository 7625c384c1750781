//! What a name answers: the whole policy, over a catalog and nothing else. Written to be read; the fast road must
//! agree with it. Knows records and the reasons for them; not how they are packed.

use std::net::IpAddr;

use ahash::AHashSet;
use serde::{Deserialize, Serialize};

use super::{
    address::{self, SrvTarget},
    chase::Outside,
    choice,
    name::{Lookup, Name, Part, Zones, labels_of},
    settings::Settings,
    wire::{Ede, NAME_BYTES_MAX, Rcode, kind, name_of},
    zones::StaticZones,
};
use crate::catalog::{Catalog, Group, Health, Home, Instance, Node};

/// An answer, not yet cut to size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    pub rcode: Option<Rcode>,
    /// The answer section, each record with the addresses that go with it.
    pub items: Vec<Item>,
    pub authority: Vec<Record>,
    /// Addresses that go with the authority section.
    pub additional: Vec<Record>,
    /// Node meta: told in the additional section if all of it fits.
    pub texts: Vec<Record>,
    #[serde(with = "super::wire::ede_by_code")]
    pub ede: Option<Ede>,
    /// A limit on the number of records left some out.
    pub cut_by_count: bool,
    /// Aliases that lead out of our zones.
    pub outside: Vec<Outside>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub record: Record,
    pub glue: Vec<Record>,
    pub texts: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub owner: Owner,
    pub ttl_secs: u32,
    pub data: Data,
}

/// A name in a reply. Labels are in wire form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Owner {
    Question,
    /// The zone, in the spelling asked.
    Zone,
    /// Labels below the zone.
    InZone(Vec<u8>),
    /// Labels below the root.
    Elsewhere(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Data {
    Address(IpAddr),
    Srv {
        weight: u16,
        port: u16,
        target: Owner,
    },
    Cname(Owner),
    Ns(Owner),
    Ptr(Owner),
    Soa {
        /// The zone whose `ns` and `hostmaster` are told of.
        servers: Owner,
        /// Serial, refresh, retry, expire, minimum.
        numbers: [u32; 5],
    },
    Meta {
        key: String,
        value: String,
    },
    /// Of any other type, in wire form, with its names in full.
    Whole {
        kind: u16,
        wire: Vec<u8>,
    },
}

/// What an answer is made from.
pub struct Asked<'a> {
    pub catalog: &'a Catalog,
    /// There is none here: nothing is known of its names.
    pub is_elsewhere: bool,
    pub settings: &'a Settings,
    pub name: &'a Name<'a>,
    pub qtype: u16,
    pub zones: &'a Zones,
    pub files: &'a StaticZones,
    /// Who asks, or on whose behalf, as far as anybody said.
    pub source: Option<IpAddr>,
    /// Of the zone's name, its root included.
    pub zone_bytes: usize,
    pub has_edns: bool,
    /// So many answers are more than a message can hold.
    pub items_max: usize,
}

const NEGATIVE_TTL_SECS: u32 = 5;
/// Name servers told of, of all that are healthy.
const NAME_SERVERS_MAX: usize = 3;
const NONE_READY: Ede = Ede { code: 0, text: "instances exist, none is healthy" };

impl Asked<'_> {
    pub fn answer(&self, lookup: &Lookup, random: &mut fastrand::Rng) -> Answer {
        let mut answer = self.direct(lookup, random);
        self.follow(lookup.is_of_service(), &mut answer, random);
        answer
    }

    /// What the name itself has: aliases are not followed.
    pub(super) fn direct(&self, lookup: &Lookup, random: &mut fastrand::Rng) -> Answer {
        match lookup {
            Lookup::Apex => self.apex(random),
            Lookup::Empty => self.no_data(),
            Lookup::Servers => self.servers(random),
            Lookup::Service { service, tag } => self.service(service, tag.as_ref(), random),
            Lookup::Services { service, tag } => {
                let named = self.service(service, Some(tag), random);
                if named.rcode == Some(Rcode::NxDomain) { self.services() } else { named }
            }
            Lookup::Node(part) => self.node(part),
            Lookup::Query(part) => self.query(part, random),
            Lookup::Address(label) => self.address(*label),
            Lookup::Nowhere => self.no_such_name(),
        }
    }

    fn service(&self, service: &Part, tag: Option<&Part>, random: &mut fastrand::Rng) -> Answer {
        let Some(group) = self.catalog.service(&self.text(service)) else {
            let is_above = service.is_above(tag, self.name);
            return if is_above { self.no_data() } else { self.no_such_name() };
        };
        let tag = tag.map(|tag| self.text(tag));
        let has = |instance: &Instance, tag: &str| {
            instance.service.tags.iter().any(|own| own.eq_ignore_ascii_case(tag))
        };
        // One tag with dots, if there is such a one; else several tags, all of which an instance must have.
        let tags: Vec<&str> = match &tag {
            None => vec![],
            Some(tag) if group.instances().any(|instance| has(instance, tag)) => vec![tag],
            Some(tag) => labels_of(tag).collect(),
        };
        let instances = group.instances().map(|instance| &**instance);
        let instances: Vec<&Instance> =
            instances.filter(|instance| tags.iter().all(|tag| has(instance, tag))).collect();
        let mut ready: Vec<&Instance> = instances.iter().copied().filter(|it| self.is_ready(it)).collect();
        if ready.is_empty() {
            let ede = (!instances.is_empty()).then_some(NONE_READY);
            return Answer { ede, ..self.no_such_name() };
        }
        draw_order(&mut ready, random);
        self.of_instances(&ready, self.service_ttl_secs(group))
    }

    pub(super) fn of_instances(&self, ready: &[&Instance], ttl_secs: u32) -> Answer {
        let items = match self.qtype {
            kind::SRV => self.targets(ready, ttl_secs),
            _ => self.addresses(ready, ttl_secs),
        };
        self.some(items)
    }

    /// Instances that fail are not told of (`dns.md` §10).
    fn is_ready(&self, instance: &Instance) -> bool {
        let worst = if self.settings.only_passing { Health::Passing } else { Health::Unknown };
        instance.health <= worst
    }

    /// Addresses, each once; where there is none, the name of one instance that lives under another name.
    fn addresses(&self, ready: &[&Instance], ttl_secs: u32) -> Vec<Item> {
        let (mut items, mut hosts, mut seen) = (Vec::new(), Vec::new(), AHashSet::new());
        for instance in ready {
            let found = address::of_instance(instance, self.asked_labels());
            for ip in self.wanted(&found) {
                if seen.insert(ip) {
                    items.push(Item::of(Record {
                        owner: Owner::Question,
                        ttl_secs,
                        data: Data::Address(ip),
                    }));
                }
            }
            hosts.extend(self.wanted_host(&found).cloned());
        }
        match hosts.first() {
            Some(host) if items.is_empty() => vec![self.alias(host, ttl_secs)],
            _ => items,
        }
    }

    /// SRV records, one for each node, address and port, with the addresses and the node meta that go with them.
    fn targets(&self, ready: &[&Instance], ttl_secs: u32) -> Vec<Item> {
        let mut seen = AHashSet::new();
        let mut items = Vec::new();
        for instance in ready {
            let Some(target) = address::srv_target(instance, self.asked_labels()) else { continue };
            if seen.insert((&*instance.node.name, target.clone(), instance.service.port)) {
                items.extend(self.srv(instance, target, ttl_secs));
            }
        }
        items
    }

    fn srv(&self, instance: &Instance, target: SrvTarget, ttl_secs: u32) -> Option<Item> {
        let node_name =
            name_of(&instance.node.name).and_then(|labels| self.in_zone(&labels, &self.zones.node_tail));
        let (target, addresses) = match target {
            SrvTarget::Node => {
                let found = address::of_node(&instance.node);
                let both = [found.v4.map(IpAddr::V4), found.v6.map(IpAddr::V6)];
                (node_name.clone()?, both.into_iter().flatten().collect())
            }
            SrvTarget::Address(ip) => (self.in_zone(&address_label(ip), &self.zones.address_tail)?, vec![ip]),
            SrvTarget::Host(host) => (Owner::Elsewhere(host), vec![]),
        };
        let weight = address::weight(instance.service.weights, instance.health);
        let record = |owner: &Owner, data| Record { owner: owner.clone(), ttl_secs, data };
        let texts = if self.settings.node_meta_txt { meta(&instance.node) } else { vec![] };
        Some(Item {
            glue: addresses.into_iter().map(|ip| record(&target, Data::Address(ip))).collect(),
            texts: node_name
                .iter()
                .flat_map(|name| texts.iter().map(|data| record(name, data.clone())))
                .collect(),
            record: record(&Owner::Question, Data::Srv { weight, port: instance.service.port, target }),
        })
    }

    /// Every service by its type, for those who browse (RFC 6763 §9), as far as their names are ones that browsers take.
    fn services(&self) -> Answer {
        if !matches!(self.qtype, kind::PTR | kind::ANY) {
            return self.no_data();
        }
        let tail = [&b"\x04_tcp\x07service"[..], &self.zones.datacenter_label()].concat();
        let ttl_secs = secs(self.settings.service_ttl.of(""));
        let target = |group: &Group| self.in_zone(&service_label(group.name())?, &tail);
        let record = |target| Record { owner: Owner::Question, ttl_secs, data: Data::Ptr(target) };
        let targets = self.catalog.services().filter_map(|group| target(group)).take(self.items_max);
        self.some(targets.map(|target| Item::of(record(target))).collect())
    }

    /// A node by its name, or by the start of its id, whatever its health.
    fn node(&self, part: &Part) -> Answer {
        let text = self.text(part);
        let found = self.catalog.node(&text).map(|home| &**home).or_else(|| self.node_by_id(&text));
        let Some(node) = found.map(Home::node) else { return self.no_such_name() };
        let ttl_secs = self.node_ttl_secs();
        let own = |data| Record { owner: Owner::Question, ttl_secs, data };
        let texts: Vec<Record> = meta(node).into_iter().map(own).collect();
        let found = address::of_node(node);
        let mut items: Vec<Item> = self.wanted(&found).map(|ip| Item::of(own(Data::Address(ip)))).collect();
        if let (Some(host), kind::A | kind::AAAA | kind::ANY | kind::CNAME) =
            (self.wanted_host(&found), self.qtype)
        {
            items.push(self.alias(host, ttl_secs));
        }
        match self.qtype {
            kind::ANY | kind::TXT => {
                items.extend(texts.into_iter().map(Item::of));
                self.some(items)
            }
            kind::A | kind::AAAA if self.settings.node_meta_txt => Answer { texts, ..self.some(items) },
            _ => self.some(items),
        }
    }

    /// Of an odd number of letters the last is dropped; of what is left the digits must be even (`dns.md` §4).
    fn node_by_id(&self, text: &str) -> Option<&Home> {
        let even = text.get(..text.len() & !1).filter(|even| !even.is_empty())?;
        let digits = even.replace('-', "");
        let whole = digits.len().is_multiple_of(2);
        whole.then(|| self.catalog.node_by_id_prefix(&digits)).flatten().map(|home| &**home)
    }

    /// `0a090005.addr`: an address written as a name.
    fn address(&self, label: usize) -> Answer {
        let hex = self.name.label(label);
        let value =
            std::str::from_utf8(hex).ok().filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let ip: Option<IpAddr> = match (hex.len(), value) {
            (8, Some(hex)) => u32::from_str_radix(hex, 16).ok().map(|bits| IpAddr::V4(bits.into())),
            (32, Some(hex)) => u128::from_str_radix(hex, 16).ok().map(|bits| IpAddr::V6(bits.into())),
            (8 | 9 | 32 | 33, _) => None,
            _ => return self.no_data(),
        };
        let Some(ip) = ip else { return self.no_such_name() };
        let ttl_secs = self.node_ttl_secs();
        let wanted = matches!(
            (self.qtype, ip),
            (kind::ANY, _) | (kind::A, IpAddr::V4(_)) | (kind::AAAA, IpAddr::V6(_))
        );
        let item = Item::of(Record { owner: Owner::Question, ttl_secs, data: Data::Address(ip) });
        self.some(wanted.then_some(item).into_iter().collect())
    }

    /// SOA and NS stand here and nowhere else.
    fn apex(&self, random: &mut fastrand::Rng) -> Answer {
        let (servers, glue) = self.name_servers(random);
        match self.qtype {
            kind::NS => Answer { additional: glue, ..self.some(servers.into_iter().map(Item::of).collect()) },
            kind::SOA => Answer {
                items: vec![Item::of(self.soa())],
                authority: servers,
                additional: glue,
                ..Answer::default()
            },
            kind::ANY => self.some([self.soa()].into_iter().chain(servers).map(Item::of).collect()),
            _ => self.no_data(),
        }
    }

    /// The addresses of healthy servers, under the name that the SOA gives.
    fn servers(&self, random: &mut fastrand::Rng) -> Answer {
        let ttl_secs = self.node_ttl_secs();
        let nodes = self.healthy_servers(random);
        let found = nodes.iter().map(|node| address::of_node(node));
        let own = |ip| Item::of(Record { owner: Owner::Question, ttl_secs, data: Data::Address(ip) });
        self.some(found.flat_map(|found| self.wanted(&found).collect::<Vec<_>>()).map(own).collect())
    }

    fn name_servers(&self, random: &mut fastrand::Rng) -> (Vec<Record>, Vec<Record>) {
        let ttl_secs = self.node_ttl_secs();
        let (mut servers, mut glue) = (Vec::new(), Vec::new());
        for node in self.healthy_servers(random) {
            let Some(labels) = name_of(&node.name.to_ascii_lowercase()) else { continue };
            let Some(target) = self.in_zone(&labels, &self.zones.node_tail) else { continue };
            let found = address::of_node(node);
            let both = [found.v4.map(IpAddr::V4), found.v6.map(IpAddr::V6)].into_iter().flatten();
            glue.extend(both.map(|ip| Record { owner: target.clone(), ttl_secs, data: Data::Address(ip) }));
            servers.push(Record { owner: Owner::Zone, ttl_secs, data: Data::Ns(target) });
        }
        (servers, glue)
    }

    /// Up to three, at random, of those whose names are good host names.
    fn healthy_servers(&self, random: &mut fastrand::Rng) -> Vec<&Node> {
        let is_host = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let group = self.catalog.service("consul");
        let ready =
            group.into_iter().flat_map(|group| group.instances()).filter(|instance| self.is_ready(instance));
        let mut nodes: Vec<&Node> =
            ready.map(|instance| &*instance.node).filter(|node| is_host(&node.name)).collect();
        // Instances stand in the order of their nodes.
        nodes.dedup_by_key(|node| &node.name);
        random.shuffle(&mut nodes);
        nodes.truncate(NAME_SERVERS_MAX);
        nodes
    }

    /// Records, or the word that the name has none of this type.
    fn some(&self, items: Vec<Item>) -> Answer {
        if items.is_empty() { self.no_data() } else { Answer { items, ..Answer::default() } }
    }

    /// The name is there; it has no such records (RFC 2308 §2.2).
    pub fn no_data(&self) -> Answer {
        Answer { authority: vec![self.soa()], ..Answer::default() }
    }

    /// No such name (RFC 2308 §2.1).
    pub fn no_such_name(&self) -> Answer {
        Answer { rcode: Some(Rcode::NxDomain), ..self.no_data() }
    }

    /// As `no_such_name`, where `any` tells that instances are there and none is healthy.
    pub fn none_ready(&self, any: bool) -> Answer {
        Answer { ede: any.then_some(NONE_READY), ..self.no_such_name() }
    }

    fn soa(&self) -> Record {
        self.soa_by(Owner::Zone, Owner::Zone)
    }

    /// The SOA of a zone, whose servers go by their name in `servers`.
    pub(super) fn soa_by(&self, zone: Owner, servers: Owner) -> Record {
        let soa = &self.settings.soa;
        let ttl_secs = soa.min_ttl_secs.unwrap_or(NEGATIVE_TTL_SECS);
        let serial = self.catalog.index() as u32;
        let numbers = [serial, soa.refresh_secs, soa.retry_secs, soa.expire_secs, ttl_secs];
        Record { owner: zone, ttl_secs, data: Data::Soa { servers, numbers } }
    }

    fn alias(&self, host: &[u8], ttl_secs: u32) -> Item {
        Item::of(Record {
            owner: Owner::Question,
            ttl_secs,
            data: Data::Cname(Owner::Elsewhere(host.to_vec())),
        })
    }

    /// The addresses of the families that are asked for.
    fn wanted(&self, found: &address::Addresses) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = found.v4.filter(|_| matches!(self.qtype, kind::A | kind::ANY));
        let v6 = found.v6.filter(|_| matches!(self.qtype, kind::AAAA | kind::ANY));
        v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6))
    }

    /// The host name that stands in for addresses: where there is none of the family asked for, or, for a type of
    /// neither, none at all. An alias has no other records beside it.
    fn wanted_host<'a>(&self, found: &'a address::Addresses) -> Option<&'a Vec<u8>> {
        let has_address = match self.qtype {
            kind::A => found.v4.is_some(),
            kind::AAAA => found.v6.is_some(),
            _ => found.v4.is_some() || found.v6.is_some(),
        };
        found.host.as_ref().filter(|_| !has_address)
    }

    /// `None` where the name would be longer than a name may be.
    fn in_zone(&self, labels: &[u8], tail: &[u8]) -> Option<Owner> {
        let fits = labels.len() + tail.len() + self.zone_bytes <= NAME_BYTES_MAX;
        fits.then(|| Owner::InZone([labels, tail].concat()))
    }

    fn service_ttl_secs(&self, group: &Group) -> u32 {
        secs(self.settings.service_ttl.of(group.key()))
    }

    fn node_ttl_secs(&self) -> u32 {
        secs(self.settings.node_ttl)
    }

    /// The question's name without the root.
    pub(super) fn asked_labels(&self) -> &[u8] {
        &self.name.asked[..self.name.asked.len() - 1]
    }

    pub(super) fn text(&self, part: &Part) -> String {
        let mut text = String::new();
        self.name.write_text(part, &mut text);
        text
    }
}

/// Whoever stands first is told of first, and perhaps alone: a fair order, by weight where weights differ.
pub(super) fn draw_order(ready: &mut Vec<&Instance>, random: &mut fastrand::Rng) {
    let weight = |instance: &Instance| address::weight(instance.service.weights, instance.health);
    if ready.windows(2).all(|pair| weight(pair[0]) == weight(pair[1])) {
        return random.shuffle(ready);
    }
    let mut turns: Vec<(f64, &Instance)> =
        ready.drain(..).map(|instance| (choice::turn(weight(instance).into(), random), instance)).collect();
    turns.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    ready.extend(turns.into_iter().map(|(_, instance)| instance));
}

impl Answer {
    /// Keeps the first `most` of the records that count.
    pub fn cut(&mut self, most: usize, counts: impl Fn(&Item) -> bool) {
        let mut kept = 0;
        let before = self.items.len();
        self.items.retain(|item| {
            let keep = !counts(item) || kept < most;
            kept += usize::from(counts(item));
            keep
        });
        self.cut_by_count |= self.items.len() < before;
        self.outside.retain(|outside| outside.item < self.items.len());
    }
}

impl Item {
    pub fn of(record: Record) -> Self {
        Item { record, glue: Vec::new(), texts: Vec::new() }
    }
}

/// Whole seconds; a fraction is cut off (`dns.md` §12).
pub fn secs(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// `_web`, of a service whose name is letters, digits and inner hyphens; `None` of any other.
fn service_label(name: &str) -> Option<Vec<u8>> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_name = name.bytes().all(is_plain) && !name.starts_with('-') && !name.ends_with('-');
    name_of(&format!("_{name}")).filter(|_| is_name && !name.is_empty())
}

/// The first label of an address's name, in wire form.
pub fn address_label(ip: IpAddr) -> Vec<u8> {
    let hex = match ip {
        IpAddr::V4(ip) => format!("{:08x}", u32::from(ip)),
        IpAddr::V6(ip) => format!("{:032x}", u128::from(ip)),
    };
    [&[hex.len() as u8], hex.as_bytes()].concat()
}

fn meta(node: &Node) -> Vec<Data> {
    let pairs = node.meta.iter().flat_map(|meta| meta.iter());
    pairs.map(|(key, value)| Data::Meta { key: key.to_string(), value: value.to_string() }).collect()
}
