//! Aliases followed (`dns.md` §9): what the host name in the place of an address leads to. Within our zones it is
//! looked up here and now; where it leads out of them, the answer says so, for whoever can ask elsewhere.

use std::mem;

use serde::{Deserialize, Serialize};

use super::{
    answer::{Answer, Asked, Data, Item, Owner, Record},
    from_zone,
    name::Name,
    wire::{Ede, Rcode, kind},
};

/// An alias that leads out of our zones. Nobody need follow it: the answer holds the alias itself already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outside {
    /// Labels below the root, in wire form.
    pub host: Vec<u8>,
    /// What to ask of it. ANY stands for the addresses of both families.
    pub qtype: u16,
    /// Which of the answer's items it goes with: what is found comes right behind that one, or is its glue.
    pub item: usize,
    pub as_glue: bool,
    /// Behind a service's alias come aliases and addresses only, with this TTL; behind a node's whatever is found, as
    /// it is (`dns.md` §9).
    pub ttl_secs: Option<u32>,
    /// So many records more may be told.
    pub records_max: usize,
}

/// What an alias leads to.
struct Chased {
    records: Vec<Record>,
    texts: Vec<Record>,
    end: End,
    /// Not all that was found was taken.
    cut: bool,
}

/// Where a chain of aliases ends.
enum End {
    /// At an answer of ours: its records are taken, the rest says why there are no more.
    Here(Answer),
    /// At a name that is not ours.
    Outside(Vec<u8>),
    /// In a loop, or longer than we care to follow.
    Nowhere,
}

/// Look-ups behind one alias.
const HOPS_MAX: usize = 3;
/// Records told behind a service's alias to a client without EDNS.
const PLAIN_RECORDS_MAX: usize = 5;

impl Asked<'_> {
    /// Puts behind each alias, and beside each SRV record that points at a host, what these lead to. The code is that
    /// of the last name (RFC 6604 §3).
    pub(super) fn follow(&self, of_service: bool, answer: &mut Answer, random: &mut fastrand::Rng) {
        let mut behind = Vec::new();
        for at in 0..answer.items.len() {
            let record = &answer.items[at].record;
            let (host, qtype, as_glue) = match &record.data {
                Data::Cname(Owner::Elsewhere(host)) if self.qtype != kind::CNAME => (host, self.qtype, false),
                Data::Srv { target: Owner::Elsewhere(host), .. } => (host, kind::ANY, true),
                _ => continue,
            };
            let ttl_secs = of_service.then_some(record.ttl_secs);
            let records_max = if of_service && !self.has_edns { PLAIN_RECORDS_MAX } else { usize::MAX };
            let chased = self.chase(host.clone(), qtype, ttl_secs, records_max, random);
            answer.cut_by_count |= chased.cut;
            let records_max = records_max - chased.records.len();
            if as_glue {
                answer.items[at].glue.extend(chased.records);
            } else {
                answer.texts.extend(chased.texts);
                behind.push((at, chased.records));
            }
            match chased.end {
                End::Outside(host) if records_max > 0 => {
                    answer.outside.push(Outside { host, qtype, item: at, as_glue, ttl_secs, records_max });
                }
                End::Here(last) if !as_glue => {
                    (answer.rcode, answer.authority, answer.ede) = (last.rcode, last.authority, last.ede);
                }
                _ => {}
            }
        }
        // There is one alias at most, since a name that has one has no other addresses.
        for (at, records) in behind {
            answer.outside.iter_mut().filter(|it| it.item == at).for_each(|it| it.item += records.len());
            answer.items.splice(at + 1..at + 1, records.into_iter().map(Item::of));
        }
    }

    fn chase(
        &self,
        mut host: Vec<u8>,
        qtype: u16,
        ttl_secs: Option<u32>,
        records_max: usize,
        random: &mut fastrand::Rng,
    ) -> Chased {
        let mut seen = vec![self.asked_labels().to_ascii_lowercase()];
        let mut chased = Chased { records: vec![], texts: vec![], end: End::Nowhere, cut: false };
        for _ in 0..HOPS_MAX {
            if seen.contains(&host.to_ascii_lowercase()) {
                break;
            }
            seen.push(host.to_ascii_lowercase());
            let Some(mut found) = self.look_up(&host, qtype, random) else {
                chased.end = End::Outside(host);
                break;
            };
            let next = found.items.iter().find_map(|item| match &item.record.data {
                Data::Cname(Owner::Elsewhere(next)) => Some(next.clone()),
                _ => None,
            });
            for mut record in found.items.drain(..).map(|item| item.record) {
                if let Some(ttl_secs) = ttl_secs {
                    if !matches!(record.data, Data::Cname(_) | Data::Address(_)) {
                        continue;
                    }
                    record.ttl_secs = ttl_secs;
                }
                if chased.records.len() == records_max {
                    chased.cut = true;
                    break;
                }
                chased.records.push(record);
            }
            if ttl_secs.is_none() {
                chased.texts.append(&mut found.texts);
            }
            match next {
                Some(next) => host = next,
                None => {
                    chased.end = End::Here(found);
                    break;
                }
            }
        }
        chased
    }

    /// What a host has, if its name is one of ours, or one that a file tells of; told in names that stand for themselves.
    fn look_up(&self, host: &[u8], qtype: u16, random: &mut fastrand::Rng) -> Option<Answer> {
        let asked = [host, &[0]].concat();
        let name = Name::new(&asked);
        let Some(depth) = self.zones.split(&name) else {
            return from_zone::of_host(self.files, &name, qtype);
        };
        if self.is_elsewhere {
            return Some(Answer::default());
        }
        let lookup = self.zones.parse(&name, depth, false);
        let zone = &host[name.offset(depth)..];
        let inner = Asked { name: &name, qtype, zone_bytes: zone.len() + 1, ..*self };
        let mut answer = inner.direct(&lookup, random);
        let limit = self.settings.a_record_limit;
        if lookup.is_of_service() && limit > 0 {
            answer.cut(limit, |item| matches!(item.record.data, Data::Address(_)));
        }
        let records = answer.items.iter_mut().map(|item| &mut item.record);
        for record in records.chain(&mut answer.authority).chain(&mut answer.texts) {
            record.stand_alone(host, zone);
        }
        Some(answer)
    }
}

impl Outside {
    /// The types to ask for: of the addresses, those that are wanted; both where others are, as Consul gives addresses
    /// then, too.
    pub fn kinds(&self) -> &'static [u16] {
        match self.qtype {
            kind::A => &[kind::A],
            kind::AAAA => &[kind::AAAA],
            _ => &[kind::A, kind::AAAA],
        }
    }
}

/// What was found elsewhere.
#[derive(Default)]
pub struct Found {
    pub records: Vec<Record>,
    /// There is no such name at the end of the chain.
    pub is_name_error: bool,
    pub ede: Option<Ede>,
}

impl Answer {
    /// Puts what was found behind the aliases that lead outside. Where nothing was, they stand alone.
    pub fn resolve(&mut self, mut find: impl FnMut(&Outside) -> Found) {
        // From the last, so that the places of the others stay what they are.
        for outside in mem::take(&mut self.outside).into_iter().rev() {
            let Found { mut records, is_name_error, ede } = find(&outside);
            if let Some(ttl_secs) = outside.ttl_secs {
                records.iter_mut().for_each(|record| record.ttl_secs = ttl_secs);
            }
            self.cut_by_count |= records.len() > outside.records_max;
            records.truncate(outside.records_max);
            self.ede = self.ede.or(ede);
            if outside.as_glue {
                self.items[outside.item].glue.extend(records);
                continue;
            }
            if is_name_error {
                self.rcode = Some(Rcode::NxDomain);
            }
            let behind = outside.item + 1;
            self.items.splice(behind..behind, records.into_iter().map(Item::of));
        }
    }
}

impl Record {
    /// Names that were told by the question and its zone, told in full: the question was `host`, in `zone`.
    fn stand_alone(&mut self, host: &[u8], zone: &[u8]) {
        let alone = |owner: &mut Owner| match owner {
            Owner::Question => *owner = Owner::Elsewhere(host.to_vec()),
            Owner::Zone => *owner = Owner::Elsewhere(zone.to_vec()),
            Owner::InZone(labels) => *owner = Owner::Elsewhere([labels, zone].concat()),
            Owner::Elsewhere(_) => {}
        };
        alone(&mut self.owner);
        match &mut self.data {
            Data::Srv { target: name, .. }
            | Data::Cname(name)
            | Data::Ns(name)
            | Data::Ptr(name)
            | Data::Soa { servers: name, .. } => alone(name),
            Data::Address(_) | Data::Meta { .. } | Data::Whole { .. } => {}
        }
    }
}
