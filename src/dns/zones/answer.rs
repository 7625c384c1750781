//! What a zone answers, written straight into the reply (RFC 1034 §4.3.2): owners are pointers into the question or
//! into data that stand there already, data are copied as they were made ready.

use super::{
    StaticZones,
    zone::{Data, Found, Inner, Set, Zone},
};
use crate::dns::{
    name::Name,
    wire::{self, NAME_BYTES_MAX, POINTER_END, QUESTION_AT, Rcode, kind},
};

/// Aliases that are followed.
const HOPS_MAX: usize = 16;

/// What may be written.
#[derive(Clone, Copy)]
pub struct Budget {
    /// Of the whole message.
    pub bytes_max: usize,
    pub compress: bool,
}

/// What was written.
pub struct Answered {
    pub rcode: Rcode,
    pub authoritative: bool,
    /// Something that must be told did not fit.
    pub cut: bool,
    /// Records in each section.
    pub counts: [u16; 3],
    /// Where the last alias leads, if no zone here knows that name: the name, and where it stands in the message.
    pub leads_to: Option<(Vec<u8>, usize)>,
}

/// Appends the records of an answer to `out`, where the question stands; the name lies in `zone`.
pub fn put(
    zones: &StaticZones,
    zone: &Zone,
    name: &Name,
    qtype: u16,
    budget: Budget,
    random: &mut fastrand::Rng,
    out: &mut Vec<u8>,
) -> Answered {
    let zone_at = QUESTION_AT + name.offset(zone.depth_of(name));
    let here = Here { zone, name, at: QUESTION_AT, written: usize::MAX, rest_at: 0, zone_at };
    let answered =
        Answered { rcode: Rcode::NoError, authoritative: true, cut: false, counts: [0; 3], leads_to: None };
    let (followed, extra) = ([None; HOPS_MAX], Vec::new());
    let mut writer = Writer { zones, qtype, budget, random, out, answered, followed, extra };
    writer.answer(&here, 0);
    writer.put_extra();
    writer.answered
}

const ANSWER: usize = 0;
const AUTHORITY: usize = 1;
const ADDITIONAL: usize = 2;

/// A name on the way of an alias, and where it stands in the message.
struct Here<'z, 'n> {
    zone: &'z Zone,
    name: &'n Name<'n>,
    at: usize,
    /// So many bytes of it stand there; then comes a pointer to the rest.
    written: usize,
    rest_at: usize,
    zone_at: usize,
}

impl Here<'_, '_> {
    fn place(&self, label: usize) -> usize {
        let offset = self.name.offset(label);
        // A DS is asked of the zone above, which begins within the rest.
        if offset < self.written { self.at + offset } else { self.rest_at + offset - self.written }
    }
}

struct Writer<'z, 'o> {
    zones: &'z StaticZones,
    qtype: u16,
    budget: Budget,
    random: &'o mut fastrand::Rng,
    out: &'o mut Vec<u8>,
    answered: Answered,
    /// Aliases on the way: one that comes again leads in a circle.
    followed: [Option<&'z Set>; HOPS_MAX],
    extra: Vec<Extra<'z>>,
}

/// Addresses that go with a record, owned by the name that stands at a place.
struct Extra<'z> {
    set: &'z Set,
    owner_at: usize,
    /// A referral is of no use without (RFC 9471 §3).
    needed: bool,
}

impl<'z> Writer<'z, '_> {
    fn answer(&mut self, here: &Here<'z, '_>, hop: usize) {
        match here.zone.find(here.name, self.qtype) {
            Found::Nowhere => {
                self.answered.rcode = Rcode::NxDomain;
                self.put_negative(here);
            }
            Found::Cut(servers, label) => {
                self.answered.authoritative = hop > 0;
                let cut = here.name.between(label, here.zone.depth_of(here.name));
                self.put_set(AUTHORITY, servers, here.place(label), here, Some(cut));
            }
            Found::Below(dname, label) => self.follow_dname(here, dname, label, hop),
            Found::Here(node) => match node.set(kind::CNAME) {
                Some(alias) if !matches!(self.qtype, kind::CNAME | kind::ANY) => {
                    self.follow_cname(here, alias, hop);
                }
                _ => {
                    let qtype = self.qtype;
                    let wanted = |set: &&Set| qtype == kind::ANY || set.kind == qtype;
                    let mut found = node.sets.iter().filter(wanted).peekable();
                    if found.peek().is_none() {
                        self.put_negative(here);
                    }
                    found.all(|set| self.put_set(ANSWER, set, here.place(0), here, None));
                }
            },
        }
    }

    fn follow_cname(&mut self, here: &Here<'z, '_>, alias: &'z Set, hop: usize) {
        let Some(data) = alias.data.first() else { return };
        if self.followed.iter().flatten().any(|followed| std::ptr::eq(*followed, alias)) {
            return;
        }
        self.followed[hop] = Some(alias);
        let Some(data_at) = self.put(ANSWER, here.place(0), alias, data, here.zone_at) else {
            return self.cut();
        };
        let Some(target) = data.names.first() else { return };
        let written = match target.zone_start {
            Some(start) if self.points(target, here.zone_at) => start,
            _ => usize::MAX,
        };
        let name = Name::new(&data.wire[target.start..target.end]);
        self.follow(&name, data_at, written, here.zone_at, hop);
    }

    /// A DNAME gives each name below it an alias of its own (RFC 6672 §3.1).
    fn follow_dname(&mut self, here: &Here<'z, '_>, dname: &'z Set, label: usize, hop: usize) {
        let Some(data) = dname.data.first() else { return };
        if self.put(ANSWER, here.place(label), dname, data, here.zone_at).is_none() {
            return self.cut();
        }
        let target = [&here.name.asked[..here.name.offset(label)], &data.wire[..]].concat();
        if target.len() > NAME_BYTES_MAX {
            self.answered.rcode = Rcode::YxDomain;
            return;
        }
        let alias = Data { wire: target.as_slice().into(), names: [].into() };
        let set = Set { kind: kind::CNAME, ttl_secs: dname.ttl_secs, data: vec![] };
        match self.put(ANSWER, here.place(0), &set, &alias, here.zone_at) {
            None => self.cut(),
            // The alias itself was asked for.
            Some(_) if matches!(self.qtype, kind::CNAME | kind::ANY) => {}
            Some(data_at) => self.follow(&Name::new(&target), data_at, usize::MAX, 0, hop),
        }
    }

    /// Goes on with another name, if it is ours to answer.
    fn follow(&mut self, name: &Name, at: usize, written: usize, rest_at: usize, hop: usize) {
        match self.zones.find(name, self.qtype) {
            Some(Some(zone)) if hop + 1 < HOPS_MAX => {
                let mut here = Here { zone, name, at, written, rest_at, zone_at: rest_at };
                here.zone_at = here.place(zone.depth_of(name));
                self.answer(&here, hop + 1);
            }
            Some(_) => {}
            None => self.answered.leads_to = Some((name.asked.to_vec(), at)),
        }
    }

    fn put_negative(&mut self, here: &Here) {
        let negative = &here.zone.negative;
        for data in &negative.data {
            if self.put(AUTHORITY, here.zone_at, negative, data, here.zone_at).is_none() {
                self.cut();
            }
        }
    }

    /// All records of a set, beginning with any, and what goes with them; `false` where one did not fit. `cut` is
    /// where another's zone begins, if they are its servers.
    fn put_set(
        &mut self,
        section: usize,
        set: &'z Set,
        owner_at: usize,
        here: &Here<'z, '_>,
        cut: Option<&[u8]>,
    ) -> bool {
        let start = if set.data.len() > 1 { self.random.usize(..set.data.len()) } else { 0 };
        let (before, after) = set.data.split_at(start);
        for data in after.iter().chain(before) {
            let Some(data_at) = self.put(section, owner_at, set, data, here.zone_at) else {
                self.cut();
                return false;
            };
            if let (kind::NS | kind::MX | kind::SRV, Some(name)) = (set.kind, data.names.first())
                && name.zone_start.is_some()
            {
                let needed = cut.is_some_and(|cut| name.key.ends_with(cut));
                for set in here.zone.addresses(&name.key, set.kind == kind::NS) {
                    self.extra.push(Extra { set, owner_at: data_at + name.start, needed });
                }
            }
        }
        true
    }

    /// Sets that do not fit are left out whole.
    fn put_extra(&mut self) {
        if self.answered.cut {
            return;
        }
        let extra = std::mem::take(&mut self.extra);
        for (at, Extra { set, owner_at, needed }) in extra.iter().enumerate() {
            if extra[..at].iter().any(|other| std::ptr::eq(other.set, *set)) {
                continue;
            }
            let (length, count) = (self.out.len(), self.answered.counts[ADDITIONAL]);
            if !set.data.iter().all(|data| self.put(ADDITIONAL, *owner_at, set, data, 0).is_some()) {
                self.out.truncate(length);
                self.answered.counts[ADDITIONAL] = count;
                self.answered.cut |= needed;
            }
        }
    }

    /// One record; gives where its data begin. `None` where it does not fit.
    fn put(
        &mut self,
        section: usize,
        owner_at: usize,
        set: &Set,
        data: &Data,
        zone_at: usize,
    ) -> Option<usize> {
        let start = self.out.len();
        self.put_owner(owner_at);
        wire::put_head(self.out, set.kind, set.ttl_secs, 0);
        let (data_at, mut copied) = (self.out.len(), 0);
        for name in &data.names {
            if let Some(zone_start) = name.zone_start.filter(|_| self.points(name, zone_at)) {
                self.out.extend_from_slice(&data.wire[copied..name.start + zone_start]);
                wire::put_pointer(self.out, zone_at);
                copied = name.end;
            }
        }
        self.out.extend_from_slice(&data.wire[copied..]);
        let length = (self.out.len() - data_at) as u16;
        self.out[data_at - 2..data_at].copy_from_slice(&length.to_be_bytes());
        if self.out.len() > self.budget.bytes_max {
            self.out.truncate(start);
            return None;
        }
        self.answered.counts[section] += 1;
        Some(data_at)
    }

    /// Whether a name in data ends with a pointer to its zone.
    fn points(&self, name: &Inner, zone_at: usize) -> bool {
        self.budget.compress && name.compress && zone_at < POINTER_END
    }

    /// The name that stands at a place, once more.
    fn put_owner(&mut self, at: usize) {
        if self.out[at] == 0 {
            return self.out.push(0);
        }
        if self.budget.compress && at < POINTER_END {
            return wire::put_pointer(self.out, at);
        }
        let mut end = at;
        while let length @ 1..=63 = self.out[end] {
            end += 1 + usize::from(length);
        }
        let last = if self.out[end] == 0 { 1 } else { 2 };
        self.out.extend_from_within(at..end + last);
    }

    fn cut(&mut self) {
        self.answered.cut = true;
    }
}
