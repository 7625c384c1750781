//! A reply from a static zone: the same header, OPT and limits as those of the catalog. Where an alias leads from a zone
//! into the catalog, or from there into a zone, the other goes on; where it leads out of both, whoever can be asked.

use super::{
    answer::{Answer, Asked, Data, Item, Owner, Record},
    errand::Wants,
    name::Name,
    pack::Names,
    reply::{self, AA, Limits, TC, View},
    wire::{self, Ede, NAME_BYTES_MAX, QUESTION_AT, Query, Rcode, kind},
    zones::{Answered, Budget, Found, Set, StaticZones, Zone, put},
};

/// A question that a zone answers.
pub struct FromZone<'a> {
    pub view: &'a View<'a>,
    pub query: &'a Query<'a>,
    pub name: &'a Name<'a>,
    pub limits: &'a Limits,
    /// The same question, as the catalog would be asked it.
    pub asked: Option<Asked<'a>>,
    /// The catalog knows of names below this one: it exists, whatever the zone says.
    pub lives_below: bool,
}

/// Types that an alias is followed for out of here: of the others it is told alone.
const ADDRESSES: [u16; 2] = [kind::A, kind::AAAA];
/// Records of aliases that are told.
const CHAIN_MAX: usize = 32;
const INVALID: Ede = Ede { code: 24, text: "the zone's file has faults; the log says where" };

impl FromZone<'_> {
    /// `zone` is `None` where its file has faults. `Some` is given where there is no reply yet.
    pub fn put(self, zone: Option<&Zone>, random: &mut fastrand::Rng, out: &mut Vec<u8>) -> Option<Wants> {
        let FromZone { view, query, name, limits, .. } = self;
        let Some(zone) = zone else {
            reply::put_refusal(out, query, limits, Rcode::ServFail, 0, Some(INVALID));
            return None;
        };
        if query.qtype == kind::AXFR {
            reply::put_refusal(out, query, limits, Rcode::NotImp, AA, None);
            return None;
        }
        reply::put_question(out, query, limits, Rcode::NoError, 0);
        let opt_bytes = limits.opt.map_or(0, |opt| opt.bytes());
        let budget =
            Budget { bytes_max: limits.bytes_max - opt_bytes, compress: !view.settings.disable_compression };
        let mut answered = put(view.zones, zone, name, query.qtype, budget, random, out);
        if answered.rcode == Rcode::NxDomain && self.lives_below {
            answered.rcode = Rcode::NoError;
        }
        if let (Some((host, at)), Some(asked), false) = (answered.leads_to.take(), &self.asked, answered.cut)
        {
            let found = follow(asked, &host, random);
            if !found.outside.is_empty() && limits.asks_elsewhere() && ADDRESSES.contains(&query.qtype) {
                let answer = self.before(found);
                return Some(Wants::Chase {
                    answer,
                    zone_at: QUESTION_AT,
                    answers_max: usize::MAX,
                    for_subnet: false,
                });
            }
            put_behind(&found, &host, at, budget, &mut answered, out);
        }
        out[2] |= if answered.authoritative { AA } else { 0 } | if answered.cut { TC } else { 0 };
        out[3] |= answered.rcode as u8;
        let [answers, authority, mut additional] = answered.counts;
        if let Some(opt) = &limits.opt {
            wire::put_opt(out, opt, answered.rcode, None);
            additional += 1;
        }
        for (section, count) in [answers, authority, additional].into_iter().enumerate() {
            wire::put_count(out, section + 1, count);
        }
        None
    }

    /// What was found behind the last alias, with all of them before it.
    fn before(&self, mut found: Answer) -> Answer {
        let mut chain = chain(self.view.zones, self.name, self.query.qtype);
        if let Some(first) =
            chain.first_mut().filter(|it| it.owner == Owner::Elsewhere(labels(self.name.asked)))
        {
            first.owner = Owner::Question;
        }
        if let Some(alias) = chain.pop() {
            found.items[0] = Item::of(alias);
        }
        found.outside.iter_mut().for_each(|outside| outside.item += chain.len());
        found.items.splice(0..0, chain.into_iter().map(Item::of));
        found
    }
}

/// What the catalog, and the files again, say of a name that an alias leads to: behind an item for that alias.
fn follow(asked: &Asked, host: &[u8], random: &mut fastrand::Rng) -> Answer {
    let alias =
        Record { owner: Owner::Question, ttl_secs: 0, data: Data::Cname(Owner::Elsewhere(labels(host))) };
    let mut answer = Answer { items: vec![Item::of(alias)], ..Answer::default() };
    asked.follow(false, &mut answer, random);
    answer
}

/// Puts behind the alias in the message what was found of its host, whose name stands at a place there.
fn put_behind(
    found: &Answer,
    host: &[u8],
    at: usize,
    budget: Budget,
    answered: &mut Answered,
    out: &mut Vec<u8>,
) {
    let mut names = Names::new(budget.compress, QUESTION_AT);
    names.stands(Owner::Elsewhere(labels(host)), at);
    let items = found.items.iter().skip(1).map(|item| (0, &item.record));
    for (section, record) in items.chain(found.authority.iter().map(|record| (1, record))) {
        let length = out.len();
        names.put_record(out, record);
        if out.len() > budget.bytes_max {
            out.truncate(length);
            answered.cut = true;
            return;
        }
        answered.counts[section] += 1;
    }
    answered.rcode = found.rcode.unwrap_or(Rcode::NoError);
}

/// What a file says of a host, as the catalog would say it. `None` where no file does, or sends elsewhere.
pub fn of_host(files: &StaticZones, name: &Name, qtype: u16) -> Option<Answer> {
    let Some(zone) = files.find(name, qtype)? else {
        return Some(Answer { rcode: Some(Rcode::ServFail), ede: Some(INVALID), ..Answer::default() });
    };
    let negative = || records(&zone.name, &zone.negative);
    match zone.find(name, qtype) {
        Found::Cut(..) | Found::Below(..) => None,
        Found::Nowhere => Some(Answer {
            rcode: Some(Rcode::NxDomain),
            authority: negative().collect(),
            ..Answer::default()
        }),
        Found::Here(node) => {
            let wanted = |set: &&Set| set.kind == qtype || set.kind == kind::CNAME || qtype == kind::ANY;
            let found = node.sets.iter().filter(wanted).flat_map(|set| records(name.asked, set));
            let items: Vec<Item> = found.map(Item::of).collect();
            let authority = if items.is_empty() { negative().collect() } else { vec![] };
            Some(Answer { items, authority, ..Answer::default() })
        }
    }
}

/// The aliases from a name on, as far as files have them.
fn chain(files: &StaticZones, name: &Name, qtype: u16) -> Vec<Record> {
    let (mut chain, mut next) = (Vec::new(), name.asked.to_vec());
    while chain.len() < CHAIN_MAX {
        let name = Name::new(&next);
        let Some(Some(zone)) = files.find(&name, qtype) else { break };
        let (alias, target) = match zone.find(&name, qtype) {
            Found::Here(node) => {
                let Some(set) = node.set(kind::CNAME) else { break };
                (set, set.data.first().map(|data| data.wire.to_vec()))
            }
            Found::Below(dname, label) => {
                chain.extend(records(&name.asked[name.offset(label)..], dname));
                let before = &name.asked[..name.offset(label)];
                (dname, dname.data.first().map(|data| [before, &data.wire[..]].concat()))
            }
            _ => break,
        };
        let Some(target) = target.filter(|target| target.len() <= NAME_BYTES_MAX) else { break };
        let data = Data::Cname(Owner::Elsewhere(labels(&target)));
        chain.push(Record { owner: Owner::Elsewhere(labels(&next)), ttl_secs: alias.ttl_secs, data });
        next = target;
    }
    chain
}

fn records(owner: &[u8], set: &Set) -> impl Iterator<Item = Record> {
    let owner = Owner::Elsewhere(labels(owner));
    set.data.iter().map(move |data| {
        let data = match (set.kind, &*data.wire) {
            (kind::A, wire) => wire.first_chunk::<4>().map(|octets| Data::Address((*octets).into())),
            (kind::AAAA, wire) => wire.first_chunk::<16>().map(|octets| Data::Address((*octets).into())),
            (kind::CNAME, wire) => Some(Data::Cname(Owner::Elsewhere(labels(wire)))),
            _ => None,
        }
        .unwrap_or_else(|| Data::Whole { kind: set.kind, wire: data.wire.to_vec() });
        Record { owner: owner.clone(), ttl_secs: set.ttl_secs, data }
    })
}

/// A name without its root.
fn labels(name: &[u8]) -> Vec<u8> {
    name.strip_suffix(&[0]).unwrap_or(name).to_vec()
}
