//! What `dns` keeps of a chunk of instances: all that A, AAAA and SRV answers need, worked out once and laid out in
//! the order in which answers take it. Nothing of a question or of the settings is inside, so a reload changes
//! nothing here, and no question can add an entry but the first one with a tag, which builds that table whole.
//!
//! What does not fit this form (host names as addresses, names that no label can hold) is left to the plain answer.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, OnceLock},
};

use ahash::{AHashMap, AHashSet};

use super::{
    address::{self, SrvTarget},
    assembly::Kind,
    choice::Weighing,
    seen::mixed,
    wire::put_labels,
};
use crate::catalog::{Chunk, Health, Instance, Text, fold};

/// A chunk's records, and who is in which answer.
pub struct Table {
    /// By place in the chunk.
    records: Box<[Record]>,
    /// The first labels of SRV targets, in wire form, end to end.
    labels: Box<[u8]>,
    /// Bytes of the longest node's labels.
    pub labels_max: u8,
    everyone: Lists,
    tags: OnceLock<Tags>,
}

/// Who has which tag.
struct Tags {
    /// By tag, lower-cased.
    rows: Box<[TagRow]>,
    /// Who is not critical, and who is passing.
    ready: [Places; 2],
    v4: Places,
    v6: Places,
}

struct TagRow {
    tag: Text,
    lists: Lists,
    places: Places,
}

/// Those who have all of several tags.
pub struct Having {
    /// Whether there are any, healthy or not.
    pub any: bool,
    pub ready: Places,
    pub v4: Places,
    pub v6: Places,
}

/// Places in a chunk, a bit each.
#[derive(Clone)]
pub struct Places(Box<[u64]>);

/// What one instance answers.
pub struct Record {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    pub port: u16,
    pub weight: u16,
    /// What an SRV record points at: the name of this address; the node where there is none.
    pub target: Option<IpAddr>,
    /// The node's row, by where it lies.
    node: usize,
    pub has_meta: bool,
    /// The labels of the node's name, as a range of the table's.
    labels: (u32, u8),
}

/// The places of one answer's candidates, by kind of record.
pub struct Lists {
    /// Instances that are passing, and that are not critical, whether or not they have a record of some kind.
    pub passing: u16,
    pub ready: u16,
    v4: List<Ipv4Addr>,
    v6: List<Ipv6Addr>,
    /// By place in the chunk.
    srv: List<u16>,
    /// The one weight of all that are not critical, and of all that are passing, where there is one.
    alike: [Option<u16>; 2],
    /// Where there is not.
    sums: Option<Box<Sums>>,
}

/// Running sums of what the entries of each list weigh, under either policy: an entry that stands for several
/// instances weighs what they do together.
struct Sums {
    v4: [Box<[u32]>; 2],
    v6: [Box<[u32]>; 2],
    srv: [Box<[u32]>; 2],
}

/// What answers take from a chunk, whole where it is an address: passing ones first, then the rest of those that are not critical; each record once, and in
/// each part in an order of no meaning, so that a run of them is a random choice.
struct List<T> {
    entries: Box<[T]>,
    passing: u16,
}

impl Table {
    /// The table of a chunk; made now if it is not there yet. `None` where the plain answer must be asked.
    pub fn of<'a>(chunk: &'a Chunk, random: &mut fastrand::Rng) -> Option<&'a Table> {
        let kept = chunk.dns_slot().get_or_init(|| Box::new(Table::build(chunk.instances(), random)));
        kept.downcast_ref::<Option<Table>>()?.as_ref()
    }

    pub fn record(&self, place: u16) -> &Record {
        &self.records[place as usize]
    }

    /// The labels of a record's node, in wire form.
    pub fn node_labels(&self, record: &Record) -> &[u8] {
        let (start, length) = record.labels;
        &self.labels[start as usize..start as usize + usize::from(length)]
    }

    /// Who is there, or who has this tag, lower-cased; `None` where nobody has it.
    pub fn lists(&self, chunk: &Chunk, tag: Option<&str>, random: &mut fastrand::Rng) -> Option<&Lists> {
        let Some(tag) = tag else { return Some(&self.everyone) };
        self.tags(chunk, random).find(tag).map(|row| &row.lists)
    }

    /// Who has all of these tags, lower-cased; `None` where nobody has one of them.
    pub fn having<'t>(
        &self,
        chunk: &Chunk,
        tags: impl Iterator<Item = &'t str>,
        only_passing: bool,
        random: &mut fastrand::Rng,
    ) -> Option<Having> {
        let own = self.tags(chunk, random);
        let rows: Option<Vec<&TagRow>> = tags.map(|tag| own.find(tag)).collect();
        let all = rows?.into_iter().map(|row| row.places.clone()).reduce(|all, places| all.and(&places))?;
        let ready = all.and(&own.ready[usize::from(only_passing)]);
        Some(Having { any: all.count() > 0, v4: ready.and(&own.v4), v6: ready.and(&own.v6), ready })
    }

    /// How much an instance weighs, if all do alike.
    pub fn alike(&self, only_passing: bool) -> Option<u16> {
        self.everyone.alike(only_passing)
    }

    fn tags(&self, chunk: &Chunk, random: &mut fastrand::Rng) -> &Tags {
        self.tags.get_or_init(|| self.build_tags(chunk.instances(), random))
    }

    fn build(instances: &[Arc<Instance>], random: &mut fastrand::Rng) -> Option<Table> {
        let mut labels = Vec::new();
        let records: Option<Box<[Record]>> =
            instances.iter().map(|instance| Record::of(instance, &mut labels)).collect();
        let records = records?;
        let everyone = Lists::of(instances, &records, (0..instances.len() as u16).collect(), random);
        let labels_max = records.iter().map(|record| record.labels.1).max().unwrap_or(0);
        Some(Table { records, labels: labels.into(), labels_max, everyone, tags: OnceLock::new() })
    }

    fn build_tags(&self, instances: &[Arc<Instance>], random: &mut fastrand::Rng) -> Tags {
        let mut entries: Vec<(Text, u16)> = Vec::new();
        for (place, instance) in instances.iter().enumerate() {
            let folded = instance.service.tags.iter().map(|tag| Text::from(fold(tag)));
            entries.extend(folded.map(|tag| (tag, place as u16)));
        }
        entries.sort();
        entries.dedup();
        let runs = entries.chunk_by(|(a, _), (b, _)| a == b);
        let row = |run: &[(Text, u16)]| {
            let places: Vec<u16> = run.iter().map(|(_, place)| *place).collect();
            TagRow {
                tag: run[0].0.clone(),
                places: Places::of(instances.len(), places.iter().copied()),
                lists: Lists::of(instances, &self.records, places, random),
            }
        };
        let rows = runs.map(row).collect();
        let those = |is_one: &dyn Fn(usize) -> bool| {
            let places = (0..instances.len()).filter(|place| is_one(*place)).map(|place| place as u16);
            Places::of(instances.len(), places)
        };
        Tags {
            rows,
            ready: [Health::Unknown, Health::Passing]
                .map(|worst| those(&|place| instances[place].health <= worst)),
            v4: those(&|place| self.records[place].v4.is_some()),
            v6: those(&|place| self.records[place].v6.is_some()),
        }
    }
}

impl Tags {
    fn find(&self, tag: &str) -> Option<&TagRow> {
        self.rows.binary_search_by(|row| (*row.tag).cmp(tag)).ok().map(|at| &self.rows[at])
    }
}

impl Places {
    /// Of a chunk of `count`.
    fn of(count: usize, places: impl Iterator<Item = u16>) -> Self {
        let mut words = vec![0; count.div_ceil(64)];
        places.for_each(|place| words[usize::from(place) / 64] |= 1 << (place % 64));
        Places(words.into())
    }

    fn and(&self, other: &Places) -> Places {
        Places(self.0.iter().zip(&other.0).map(|(own, other)| own & other).collect())
    }

    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// One of them, counted from zero.
    pub fn nth(&self, at: u32) -> u16 {
        let mut left = at;
        for (word_at, word) in self.0.iter().enumerate() {
            let ones = word.count_ones();
            if left < ones {
                let rest = (0..left).fold(*word, |word, _| word & (word - 1));
                return (64 * word_at) as u16 + rest.trailing_zeros() as u16;
            }
            left -= ones;
        }
        unreachable!("draws stay below the count")
    }
}

impl Record {
    /// `None` where the plain answer must be asked: an address that is a host name, a name that no packet can hold.
    fn of(instance: &Instance, labels: &mut Vec<u8>) -> Option<Record> {
        let (v4, v6, target) = match address::only_ip(instance) {
            Some((ip, is_nodes)) => {
                let (v4, v6) = match ip {
                    IpAddr::V4(v4) => (Some(v4), None),
                    IpAddr::V6(v6) => (None, Some(v6)),
                };
                (v4, v6, (!is_nodes).then_some(ip))
            }
            None => Record::of_several(instance)?,
        };
        let start = labels.len();
        if !put_labels(labels, &instance.node.name) {
            return None;
        }
        let weight = address::weight(instance.service.weights, instance.health);
        let labels = (u32::try_from(start).ok()?, u8::try_from(labels.len() - start).ok()?);
        let node = Arc::as_ptr(&instance.node).addr();
        let has_meta = instance.node.meta.as_ref().is_some_and(|meta| !meta.is_empty());
        Some(Record { v4, v6, port: instance.service.port, weight, target, node, has_meta, labels })
    }

    /// By the rules for instances with several addresses, or with names for addresses.
    fn of_several(instance: &Instance) -> Option<(Option<Ipv4Addr>, Option<Ipv6Addr>, Option<IpAddr>)> {
        // No question's name is empty, so nothing here points at itself.
        let found = address::of_instance(instance, &[]);
        let target = match address::srv_target(instance, &[])? {
            SrvTarget::Node => None,
            SrvTarget::Address(ip) => Some(ip),
            SrvTarget::Host(_) => return None,
        };
        // An SRV that names the node goes with the node's own addresses: they must be the ones answered here.
        let differs = target.is_none() && address::of_node(&instance.node) != found;
        (found.host.is_none() && !differs).then_some((found.v4, found.v6, target))
    }

    /// The same for SRV records of one node, target and port, and of those only.
    pub fn key(&self) -> u64 {
        let target = match self.target {
            None => 0,
            Some(IpAddr::V4(address)) => 1 << 32 | u64::from(u32::from(address)),
            Some(IpAddr::V6(address)) => {
                mixed((u128::from(address) >> 64) as u64) ^ u128::from(address) as u64
            }
        };
        // Rows lie below 2^48.
        mixed(target) ^ (self.node as u64) << 16 ^ u64::from(self.port)
    }
}

impl Lists {
    fn of(
        instances: &[Arc<Instance>],
        records: &[Record],
        mut places: Vec<u16>,
        random: &mut fastrand::Rng,
    ) -> Lists {
        let health = |place: u16| instances[place as usize].health;
        let record = |place: u16| &records[place as usize];
        places.retain(|place| health(*place) != Health::Critical);
        random.shuffle(&mut places);
        // Of those that are one record the first is told: better one that weighs something.
        places.sort_by_key(|place| (health(*place) != Health::Passing, record(*place).weight == 0));
        let passing = places.iter().filter(|place| health(**place) == Health::Passing).count();
        let policies = [&places[..], &places[..passing]];
        let alike = policies.map(|places| alike(places.iter().map(|place| record(*place).weight)));
        let sums = alike.contains(&None).then(|| {
            let weight = |place: u16| record(place).weight;
            Box::new(Sums {
                v4: policies.map(|places| sums(places, |place| record(place).v4, weight)),
                v6: policies.map(|places| sums(places, |place| record(place).v6, weight)),
                srv: policies.map(|places| sums(places, |place| Some(record(place).key()), weight)),
            })
        });
        Lists {
            passing: passing as u16,
            ready: places.len() as u16,
            v4: List::of(&places, passing, |place| record(place).v4, |_, address| address),
            v6: List::of(&places, passing, |place| record(place).v6, |_, address| address),
            srv: List::of(&places, passing, |place| Some(record(place).key()), |place, _| place),
            alike,
            sums,
        }
    }

    /// The candidates under a health policy.
    pub fn v4(&self, only_passing: bool) -> &[Ipv4Addr] {
        self.v4.under(only_passing)
    }

    pub fn v6(&self, only_passing: bool) -> &[Ipv6Addr] {
        self.v6.under(only_passing)
    }

    /// By place in the chunk.
    pub fn srv(&self, only_passing: bool) -> &[u16] {
        self.srv.under(only_passing)
    }

    /// How much an instance weighs, if all do alike.
    pub fn alike(&self, only_passing: bool) -> Option<u16> {
        self.alike[usize::from(only_passing)]
    }

    /// How much the candidates for an answer weigh.
    pub fn weighing(&self, kind: Kind, only_passing: bool) -> Weighing<'_> {
        let policy = usize::from(only_passing);
        match (self.alike[policy], &self.sums) {
            (None, Some(sums)) => Weighing::Sums(match kind {
                Kind::Aaaa => &sums.v6[policy],
                Kind::Srv => &sums.srv[policy],
                Kind::A | Kind::Any | Kind::Other => &sums.v4[policy],
            }),
            (weight, _) => weight.map_or(Weighing::NOBODY, Weighing::Alike),
        }
    }

    /// How many instances there are under a health policy, with or without a record of some kind.
    pub fn count(&self, only_passing: bool) -> usize {
        usize::from(if only_passing { self.passing } else { self.ready })
    }
}

/// The one weight there is; `None` where they differ.
fn alike(mut weights: impl Iterator<Item = u16>) -> Option<u16> {
    let first = weights.next().unwrap_or_default();
    weights.all(|weight| weight == first).then_some(first)
}

/// In the order of the list that has the same keys.
fn sums<K: Hash + Eq>(
    places: &[u16],
    key: impl Fn(u16) -> Option<K>,
    weight: impl Fn(u16) -> u16,
) -> Box<[u32]> {
    let mut entries = AHashMap::with_capacity(places.len());
    let mut weights: Vec<u32> = Vec::with_capacity(places.len());
    for (place, key) in places.iter().filter_map(|place| Some((*place, key(*place)?))) {
        let entry = *entries.entry(key).or_insert(weights.len());
        if entry == weights.len() {
            weights.push(0);
        }
        weights[entry] += u32::from(weight(place));
    }
    weights.iter_mut().fold(0, |before, weight| {
        *weight += before;
        *weight
    });
    weights.into()
}

impl<T> List<T> {
    /// Of `places`, the first `passing` of which are passing: what each that has a key gives, each key once.
    fn of<K: Hash + Eq + Copy>(
        places: &[u16],
        passing: usize,
        key: impl Fn(u16) -> Option<K>,
        entry: impl Fn(u16, K) -> T,
    ) -> Self {
        let mut seen = AHashSet::with_capacity(places.len());
        let mut new = |place: &u16| key(*place).filter(|key| seen.insert(*key)).map(|key| entry(*place, key));
        let (first, rest) = places.split_at(passing);
        let mut kept: Vec<T> = first.iter().filter_map(&mut new).collect();
        let passing = kept.len() as u16;
        kept.extend(rest.iter().filter_map(&mut new));
        List { entries: kept.into(), passing }
    }

    fn under(&self, only_passing: bool) -> &[T] {
        if only_passing { &self.entries[..usize::from(self.passing)] } else { &self.entries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_again() {
        let mut random = fastrand::Rng::with_seed(1);
        for count in [1, 63, 64, 65, 512] {
            let all: Vec<u16> = (0..count).filter(|_| random.bool()).collect();
            let places = Places::of(count.into(), all.iter().copied());
            assert_eq!(places.count(), all.len());
            assert_eq!((0..all.len()).map(|at| places.nth(at as u32)).collect::<Vec<_>>(), all);
        }
    }
}
