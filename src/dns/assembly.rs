//! The fast road: an answer for a service put together from what is kept of its chunks, at a price that does not
//! depend on how many instances there are. It gives what the plain answer gives; where it cannot, it says so and
//! leaves nothing behind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    choice::{Choice, Draw, Weighing},
    name::labels_of,
    pack::PRIORITY,
    seen::{Seen, mixed},
    slot::{Having, Lists, Record, Table},
    txt,
    wire::{self, HEAD_BYTES, NAME_BYTES_MAX, POINTER_END, QUESTION_AT, kind},
};
use crate::catalog::{Chunk, Group};

/// What is asked of a service, and how much may be said.
pub struct Asked<'a> {
    pub group: &'a Group,
    /// Lower-cased.
    pub tag: Option<&'a str>,
    pub kind: Kind,
    pub only_passing: bool,
    /// Most records (of instances, for SRV) that policy allows.
    pub count_max: usize,
    /// Most bytes of the message, less what is reserved for OPT.
    pub bytes_max: usize,
    pub ttl_secs: u32,
    /// Our zone's labels in the spelling asked, to the root, and where they stand in the message.
    pub zone: &'a [u8],
    pub zone_at: usize,
    /// The labels between a target's own and the zone: `\x04node\x03dc1`, `\x04addr\x03dc1`.
    pub node_tail: &'a [u8],
    pub address_tail: &'a [u8],
    pub node_meta_txt: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
    Srv,
    /// Addresses of both families.
    Any,
    /// A type that no instance here has records of.
    Other,
}

/// What the fast road came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assembled {
    /// Records are appended to the message.
    Records { answers: u16, additional: u16, cut: Cut },
    /// Instances are ready, but none has a record of this kind.
    NoData,
    /// No instance is ready. `any`: there are some (with this tag, if one was asked).
    NoneReady { any: bool },
    /// Only the plain answer can tell; nothing was appended.
    AskPlain,
}

/// Why fewer records were given than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    No,
    ByCount,
    BySize,
}

/// Room to work in, kept from question to question.
#[derive(Default)]
pub struct Assembly {
    choice: Choice,
    seen: Seen,
    written: Vec<Written>,
}

/// A chunk, what is kept of it, and who is a candidate.
struct Part<'a> {
    chunk: &'a Chunk,
    table: &'a Table,
    v4: &'a [Ipv4Addr],
    v6: &'a [Ipv6Addr],
    srv: &'a [u16],
    /// Where these lists come from.
    lists: Option<&'a Lists>,
    /// In the place of lists, where several tags are asked for.
    having: Option<Box<Having>>,
}

/// An SRV record in the message, whose target wants its addresses.
struct Written {
    draw: Draw,
    target_at: usize,
}

const SRV_NUMBER_BYTES: usize = 6;
const ADDRESS_V4_BYTES: usize = 4;
const ADDRESS_V6_BYTES: usize = 16;
const RECORD_BYTES_MAX: usize = HEAD_BYTES + ADDRESS_V6_BYTES;
/// Of an IPv6 address: 32 digits and their number.
const ADDRESS_LABEL_BYTES_MAX: usize = 33;

impl Assembly {
    /// Appends records to `out`, which holds the header and the question as asked.
    pub fn assemble(&mut self, asked: &Asked, out: &mut Vec<u8>, random: &mut fastrand::Rng) -> Assembled {
        let (kind, parts) = match self.parts(asked, false, random) {
            Err(outcome) => return outcome,
            Ok(parts) => parts,
        };
        let asked = &Asked { kind, ..*asked };
        match kind {
            Kind::Srv => self.targets(asked, &parts, out, random),
            Kind::Aaaa => {
                let pick = |draw: Draw| parts[draw.chunk as usize].v6(draw.at);
                let record = record_of(kind::AAAA, asked.ttl_secs, ADDRESS_V6_BYTES);
                self.addresses(asked, &parts, pick, key_of_v6, record, Ipv6Addr::octets, out, random)
            }
            _ => {
                let pick = |draw: Draw| parts[draw.chunk as usize].v4(draw.at);
                let record = record_of(kind::A, asked.ttl_secs, ADDRESS_V4_BYTES);
                let key = |address| u64::from(u32::from(address));
                self.addresses(asked, &parts, pick, key, record, Ipv4Addr::octets, out, random)
            }
        }
    }

    /// The candidates of each chunk, and which kind to answer where ANY is asked. A tag with dots is several where
    /// nobody has it.
    fn parts<'a>(
        &mut self,
        asked: &Asked<'a>,
        several: bool,
        random: &mut fastrand::Rng,
    ) -> Result<(Kind, Vec<Part<'a>>), Assembled> {
        let (mut ready, mut v4, mut v6, mut any) = (0, 0, 0, false);
        let only_passing = asked.only_passing;
        let mut parts = Vec::with_capacity(asked.group.chunks().len());
        self.choice.clear();
        for chunk in asked.group.chunks() {
            let table = Table::of(chunk, random).ok_or(Assembled::AskPlain)?;
            if asked.kind == Kind::Srv && !asked.has_room_for_targets(table) {
                return Err(Assembled::AskPlain);
            }
            let mut part = Part { chunk, table, v4: &[], v6: &[], srv: &[], lists: None, having: None };
            let mut alike = None;
            if several {
                // Running sums are kept of lists only.
                alike = Some(table.alike(only_passing).ok_or(Assembled::AskPlain)?);
                let tags = labels_of(asked.tag.unwrap_or_default());
                part.having = table.having(chunk, tags, only_passing, random).map(Box::new);
                any |= part.having.as_ref().is_some_and(|having| having.any);
                ready += part.having.as_ref().map_or(0, |having| having.ready.count());
            } else if let Some(lists) = table.lists(chunk, asked.tag, random) {
                alike = lists.alike(only_passing);
                part.v4 = lists.v4(only_passing);
                part.v6 = lists.v6(only_passing);
                part.srv = lists.srv(only_passing);
                part.lists = Some(lists);
                any = true;
                ready += lists.count(only_passing);
            }
            let counts = part.counts();
            v4 += counts[0];
            v6 += counts[1];
            let count = match asked.kind {
                Kind::A | Kind::Any => counts[0],
                Kind::Aaaa => counts[1],
                Kind::Srv => counts[2],
                Kind::Other => 0,
            };
            self.choice.push(count, alike);
            parts.push(part);
        }
        match asked.kind {
            _ if !any && !several && asked.tag.is_some_and(|tag| labels_of(tag).nth(1).is_some()) => {
                self.parts(asked, true, random)
            }
            _ if ready == 0 => Err(Assembled::NoneReady { any }),
            Kind::Any if v4 > 0 && v6 > 0 => Err(Assembled::AskPlain),
            Kind::Any if v6 > 0 => self.parts(&Asked { kind: Kind::Aaaa, ..*asked }, several, random),
            Kind::Any if v4 > 0 => Ok((Kind::A, parts)),
            _ if self.choice.total() == 0 => Err(Assembled::NoData),
            kind => Ok((kind, parts)),
        }
    }

    /// Addresses of one family. `record` is one of them without its address, of which there are `N` bytes.
    #[expect(clippy::too_many_arguments, reason = "all that differs between the families, by value")]
    fn addresses<A: Copy, const N: usize>(
        &mut self,
        asked: &Asked,
        parts: &[Part],
        pick: impl Fn(Draw) -> A,
        key: impl Fn(A) -> u64,
        mut record: [u8; RECORD_BYTES_MAX],
        octets: impl Fn(&A) -> [u8; N],
        out: &mut Vec<u8>,
        random: &mut fastrand::Rng,
    ) -> Assembled {
        let record = &mut record[..HEAD_BYTES + N];
        self.begin(asked, parts, record.len(), out, random);
        let several = may_repeat(parts);
        let (mut answers, mut cut) = (0, Cut::No);
        while let Some(draw) = self.choice.next(weighing_of(asked, parts), random) {
            let address = pick(draw);
            if several && !self.seen.insert(key(address)) {
                continue;
            }
            cut = asked.cut(answers, out.len() + record.len());
            if cut != Cut::No {
                break;
            }
            record[HEAD_BYTES..].copy_from_slice(&octets(&address));
            out.extend_from_slice(record);
            answers += 1;
        }
        Assembled::Records { answers: answers as u16, additional: 0, cut }
    }

    /// SRV records, their targets' addresses, and the meta of their nodes if all of it fits.
    fn targets(
        &mut self,
        asked: &Asked,
        parts: &[Part],
        out: &mut Vec<u8>,
        random: &mut fastrand::Rng,
    ) -> Assembled {
        let fixed = HEAD_BYTES + SRV_NUMBER_BYTES;
        let usual = fixed + 8 + asked.node_tail.len() + asked.zone.len() + HEAD_BYTES + ADDRESS_V4_BYTES;
        self.begin(asked, parts, usual, out, random);
        self.written.clear();
        let several = may_repeat(parts);
        let (mut glue_bytes, mut cut) = (0, Cut::No);
        while let Some(draw) = self.choice.next(weighing_of(asked, parts), random) {
            let found = Found::of(parts, draw);
            if several && !self.seen.insert(found.record.key()) {
                continue;
            }
            let target_at = out.len() + fixed;
            let target_bytes = found.target_bytes(asked);
            let glue = found.glue_bytes(asked, target_at);
            cut = asked.cut(self.written.len(), target_at + target_bytes + glue_bytes + glue);
            if cut != Cut::No {
                break;
            }
            glue_bytes += glue;
            found.push_srv(asked, target_bytes, out);
            self.written.push(Written { draw, target_at });
        }
        let written =
            || self.written.iter().map(|written| (Found::of(parts, written.draw), written.target_at));
        let additional: u16 =
            written().map(|(found, target_at)| found.push_glue(asked, target_at, out)).sum();
        let before = out.len();
        let mut texts = 0;
        if asked.node_meta_txt && cut != Cut::BySize {
            texts = written().map(|(found, target_at)| found.push_meta(asked, target_at, out)).sum();
        }
        if out.len() > asked.bytes_max {
            out.truncate(before);
            texts = 0;
        }
        Assembled::Records { answers: self.written.len() as u16, additional: additional + texts, cut }
    }

    fn begin(&mut self, asked: &Asked, parts: &[Part], each: usize, out: &[u8], random: &mut fastrand::Rng) {
        let room = (asked.bytes_max.saturating_sub(out.len()) / each).min(asked.count_max);
        self.choice.begin(room, weighing_of(asked, parts), random);
        self.seen.clear();
    }
}

impl Asked<'_> {
    /// Whether every target's name is as short as a name must be.
    fn has_room_for_targets(&self, table: &Table) -> bool {
        let longest = (usize::from(table.labels_max) + self.node_tail.len())
            .max(ADDRESS_LABEL_BYTES_MAX + self.address_tail.len());
        longest + self.zone.len() <= NAME_BYTES_MAX
    }

    /// Why no more may be said after `answers` records, if the message were to grow to `bytes`.
    fn cut(&self, answers: usize, bytes: usize) -> Cut {
        if answers >= self.count_max {
            Cut::ByCount
        } else if bytes > self.bytes_max {
            Cut::BySize
        } else {
            Cut::No
        }
    }
}

impl Part<'_> {
    /// Candidates for A, AAAA and SRV.
    fn counts(&self) -> [usize; 3] {
        match &self.having {
            None => [self.v4.len(), self.v6.len(), self.srv.len()],
            Some(having) => [having.v4.count(), having.v6.count(), having.ready.count()],
        }
    }

    fn v4(&self, at: u32) -> Ipv4Addr {
        match &self.having {
            None => self.v4[at as usize],
            Some(having) => self.table.record(having.v4.nth(at)).v4.expect("these have one"),
        }
    }

    fn v6(&self, at: u32) -> Ipv6Addr {
        match &self.having {
            None => self.v6[at as usize],
            Some(having) => self.table.record(having.v6.nth(at)).v6.expect("these have one"),
        }
    }
}

/// Whether a record may be drawn that was drawn before: lists of one chunk have each once.
fn may_repeat(parts: &[Part]) -> bool {
    parts.len() > 1 || parts.iter().any(|part| part.having.is_some())
}

/// A drawn instance and what is kept of it.
struct Found<'a> {
    part: &'a Part<'a>,
    place: u16,
    record: &'a Record,
    node_labels: &'a [u8],
}

impl<'a> Found<'a> {
    fn of(parts: &'a [Part<'a>], draw: Draw) -> Self {
        let part = &parts[draw.chunk as usize];
        let place = match &part.having {
            None => part.srv[draw.at as usize],
            Some(having) => having.ready.nth(draw.at),
        };
        let record = part.table.record(place);
        Found { part, place, record, node_labels: part.table.node_labels(record) }
    }

    fn push_srv(&self, asked: &Asked, target_bytes: usize, out: &mut Vec<u8>) {
        wire::put_pointer(out, QUESTION_AT);
        wire::put_head(out, kind::SRV, asked.ttl_secs, SRV_NUMBER_BYTES + target_bytes);
        for number in [PRIORITY, self.record.weight, self.record.port] {
            wire::put_u16(out, number);
        }
        self.push_target(asked, out);
        out.extend_from_slice(asked.zone);
    }

    /// The target's own labels and those before the zone.
    fn push_target(&self, asked: &Asked, out: &mut Vec<u8>) {
        match self.record.target {
            None => {
                out.extend_from_slice(self.node_labels);
                out.extend_from_slice(asked.node_tail);
            }
            Some(address) => {
                put_address_label(out, address);
                out.extend_from_slice(asked.address_tail);
            }
        }
    }

    /// In full, to the root.
    fn target_bytes(&self, asked: &Asked) -> usize {
        asked.zone.len()
            + match self.record.target {
                None => self.node_labels.len() + asked.node_tail.len(),
                Some(IpAddr::V4(_)) => 9 + asked.address_tail.len(),
                Some(IpAddr::V6(_)) => 33 + asked.address_tail.len(),
            }
    }

    fn glue_bytes(&self, asked: &Asked, target_at: usize) -> usize {
        let owner = if target_at < POINTER_END { 2 } else { self.target_bytes(asked) - asked.zone.len() + 2 };
        let each = |bytes: usize| owner + HEAD_BYTES - 2 + bytes;
        let (v4, v6) = self.glue();
        v4.map_or(0, |_| each(ADDRESS_V4_BYTES)) + v6.map_or(0, |_| each(ADDRESS_V6_BYTES))
    }

    /// The addresses of the target: both of a node's, the one of an address name.
    fn glue(&self) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        match self.record.target {
            None => (self.record.v4, self.record.v6),
            Some(IpAddr::V4(address)) => (Some(address), None),
            Some(IpAddr::V6(address)) => (None, Some(address)),
        }
    }

    fn push_glue(&self, asked: &Asked, target_at: usize, out: &mut Vec<u8>) -> u16 {
        let (v4, v6) = self.glue();
        if let Some(address) = v4 {
            self.push_owner(asked, target_at, out);
            wire::put_v4(out, asked.ttl_secs, address);
        }
        if let Some(address) = v6 {
            self.push_owner(asked, target_at, out);
            wire::put_v6(out, asked.ttl_secs, address);
        }
        u16::from(v4.is_some()) + u16::from(v6.is_some())
    }

    /// The target's name, in the fewest bytes: a pointer to it where a pointer reaches.
    fn push_owner(&self, asked: &Asked, target_at: usize, out: &mut Vec<u8>) {
        if target_at < POINTER_END {
            wire::put_pointer(out, target_at);
        } else {
            self.push_target(asked, out);
            wire::put_pointer(out, asked.zone_at);
        }
    }

    fn push_meta(&self, asked: &Asked, target_at: usize, out: &mut Vec<u8>) -> u16 {
        if !self.record.has_meta {
            return 0;
        }
        let instance = &self.part.chunk.instances()[usize::from(self.place)];
        let Some(meta) = &instance.node.meta else { return 0 };
        let mut put = 0;
        for (key, value) in meta.iter() {
            // Too long already: all of it will be taken back.
            if out.len() > asked.bytes_max {
                break;
            }
            put += 1;
            if self.record.target.is_none() {
                self.push_owner(asked, target_at, out);
            } else {
                out.extend_from_slice(self.node_labels);
                out.extend_from_slice(asked.node_tail);
                wire::put_pointer(out, asked.zone_at);
            }
            txt::put_meta(out, asked.ttl_secs, key, value);
        }
        put
    }
}

/// How much the candidates of each part weigh.
fn weighing_of<'a>(asked: &Asked, parts: &'a [Part<'a>]) -> impl Fn(u32) -> Weighing<'a> {
    let (kind, only_passing) = (asked.kind, asked.only_passing);
    move |chunk| {
        let part = &parts[chunk as usize];
        match part.lists {
            Some(lists) => lists.weighing(kind, only_passing),
            None => part.table.alike(only_passing).map_or(Weighing::NOBODY, Weighing::Alike),
        }
    }
}

/// A record of the question's name, without its address.
fn record_of(kind: u16, ttl_secs: u32, data_bytes: usize) -> [u8; RECORD_BYTES_MAX] {
    let mut record = [0; RECORD_BYTES_MAX];
    record[..2].copy_from_slice(&(0xc000 | QUESTION_AT as u16).to_be_bytes());
    record[2..4].copy_from_slice(&kind.to_be_bytes());
    record[4..6].copy_from_slice(&wire::class::IN.to_be_bytes());
    record[6..10].copy_from_slice(&ttl_secs.to_be_bytes());
    record[10..HEAD_BYTES].copy_from_slice(&(data_bytes as u16).to_be_bytes());
    record
}

/// The first label of an address's name: its digits in hexadecimal.
fn put_address_label(out: &mut Vec<u8>, address: IpAddr) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut put = |octets: &[u8]| {
        out.push(2 * octets.len() as u8);
        for octet in octets {
            out.push(DIGITS[usize::from(octet >> 4)]);
            out.push(DIGITS[usize::from(octet & 15)]);
        }
    };
    match address {
        IpAddr::V4(address) => put(&address.octets()),
        IpAddr::V6(address) => put(&address.octets()),
    }
}

fn key_of_v6(address: Ipv6Addr) -> u64 {
    let bits = u128::from(address);
    mixed((bits >> 64) as u64) ^ bits as u64
}
