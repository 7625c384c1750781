//! What is asked of recursors, and what they say (RFC 1035 §4, RFC 2308, RFC 6891). A reply is kept as it came, but for
//! its OPT, which is a word between two neighbours only; understood is no more of it than what the next one must know.
//! Knows bytes; not who said them, nor when.

use std::{net::IpAddr, ops::Range};

use crate::dns::{
    answer::{Data, Owner, Record},
    reply::Limits,
    wire::{
        self, Ede, HEADER_BYTES, NAME_BYTES_MAX, PLAIN_UDP_BYTES, POINTER_END, QUESTION_AT, Query, Rcode,
        class, kind,
    },
};

/// What is asked elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// In wire form, in the spelling of whoever asked first.
    pub name: Box<[u8]>,
    pub qtype: u16,
    pub qclass: u16,
    pub dnssec_ok: bool,
    pub cd: bool,
}

/// What makes two questions the same: name in lower case, type, class, DO and CD.
pub type Key = Box<[u8]>;

/// A reply that may be passed on.
#[derive(Debug, PartialEq)]
pub struct Message {
    /// Header, question and records, without OPT.
    bytes: Box<[u8]>,
    /// Where the additional section begins.
    additional_at: usize,
    /// For so long everything in it holds; 0 where it may not be kept.
    pub ttl_secs: u32,
}

/// What a packet is to whoever asked.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// No reply to this question: somebody else's, or a forger's.
    Noise,
    Good(Message),
    /// To be asked again by TCP.
    Truncated,
    /// It does not understand the question; without OPT it may.
    Unread,
    /// This recursor is of no help here: it says so, or what it says cannot be understood.
    Useless,
}

/// How old a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// From the wire.
    New,
    /// So many seconds.
    Secs(u32),
    /// Nobody could be asked whether it still holds (RFC 8767).
    Stale,
}

/// The size of UDP replies that we take: what fits everywhere without fragments.
const UDP_BYTES: u16 = 1232;
/// Of a stale record (RFC 8767 §4).
const STALE_TTL_SECS: u32 = 30;
const STALE: Ede = Ede { code: 3, text: "no recursor answers; this is what the last one said" };
/// No answer is kept for longer, and none that says there is nothing (RFC 8767 §4, RFC 2308 §5).
const TTL_SECS_MAX: u32 = 86_400;
const NEGATIVE_TTL_SECS_MAX: u32 = 10_800;
/// An option of ours, from the range for private use (RFC 6891 §9).
const MARK_OPTION: u16 = 65_001;

const QR: u8 = 0x80;
const AA: u8 = 0x04;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const RA: u8 = 0x80;
const AD: u8 = 0x20;
const CD: u8 = 0x10;

/// What our own questions carry, to be known again should one come back.
#[derive(Clone, Copy, Debug)]
pub struct Mark([u8; 12]);

impl Mark {
    pub fn new(random: u64) -> Self {
        let mut bytes = [0; 12];
        bytes[..2].copy_from_slice(&MARK_OPTION.to_be_bytes());
        bytes[3] = 8;
        bytes[4..].copy_from_slice(&random.to_be_bytes());
        Mark(bytes)
    }

    /// Whether a packet has it. Nobody meets these bytes by chance.
    pub fn is_in(&self, packet: &[u8]) -> bool {
        packet.windows(self.0.len()).any(|window| window == self.0)
    }
}

impl Question {
    pub fn of(query: &Query) -> Self {
        Question {
            name: query.name.into(),
            qtype: query.qtype,
            qclass: query.qclass,
            dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
            cd: query.cd,
        }
    }

    pub fn key(&self) -> Key {
        let mut key = self.name.to_ascii_lowercase();
        key.extend_from_slice(&self.qtype.to_be_bytes());
        key.extend_from_slice(&self.qclass.to_be_bytes());
        key.push(u8::from(self.dnssec_ok) | u8::from(self.cd) << 1);
        key.into()
    }

    /// As it is sent: recursion is wanted and validation told of, whoever asks (RFC 6840 §5.7). Without a mark there is no
    /// OPT either.
    pub fn packet(&self, id: u16, mark: Option<&Mark>) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.name.len() + 27);
        wire::put_header(&mut out, id, [RD, AD | if self.cd { CD } else { 0 }]);
        out.extend_from_slice(&self.name);
        wire::put_u16(&mut out, self.qtype);
        wire::put_u16(&mut out, self.qclass);
        wire::put_count(&mut out, 0, 1);
        if let Some(Mark(mark)) = mark {
            out.extend_from_slice(&[0, 0, kind::OPT as u8]);
            wire::put_u16(&mut out, UDP_BYTES);
            out.extend_from_slice(&[0, 0, if self.dnssec_ok { 0x80 } else { 0 }, 0]);
            wire::put_u16(&mut out, mark.len() as u16);
            out.extend_from_slice(mark);
            wire::put_count(&mut out, 3, 1);
        }
        out
    }

    /// Judges a packet that came from where this question was sent with `id`.
    pub fn hear(&self, id: u16, packet: &[u8]) -> Heard {
        let Some((header, body)) = packet.split_first_chunk::<HEADER_BYTES>() else { return Heard::Noise };
        let is_reply = header[2] & QR != 0 && header[2] >> 3 & 0xf == 0;
        if !is_reply || header[..2] != id.to_be_bytes() {
            return Heard::Noise;
        }
        let rcode = header[3] & 0xf;
        let is_unread = [Rcode::FormErr, Rcode::NotImp].iter().any(|code| *code as u8 == rcode);
        let refusal = if is_unread { Heard::Unread } else { Heard::Useless };
        if header[4..6] != [0, 1] {
            // A server that could not even read the question need not repeat it.
            return if header[4..6] == [0, 0] && rcode != 0 { refusal } else { Heard::Noise };
        }
        if !body.get(..self.name.len() + 4).is_some_and(|question| self.is(question)) {
            return Heard::Noise;
        }
        if header[2] & TC != 0 {
            return Heard::Truncated;
        }
        self.message(packet).map_or(refusal, Heard::Good)
    }

    fn is(&self, question: &[u8]) -> bool {
        let (name, rest) = question.split_at(self.name.len());
        let kinds = [self.qtype.to_be_bytes(), self.qclass.to_be_bytes()].concat();
        name.eq_ignore_ascii_case(&self.name) && rest == kinds
    }

    /// `None` where the message cannot be read to its end, or its code is neither NOERROR nor NXDOMAIN.
    fn message(&self, packet: &[u8]) -> Option<Message> {
        let counts = [6, 8, 10].map(|at| u16::from_be_bytes([packet[at], packet[at + 1]]));
        let mut rcode = u16::from(packet[3] & 0xf);
        let mut end = HEADER_BYTES + self.name.len() + 4;
        let mut additional_at = end;
        let mut kept = 0;
        let mut life = Life::default();
        let mut opt = None;
        for (section, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                let record = Raw::at(packet, end)?;
                if record.kind == kind::OPT {
                    rcode |= u16::from(packet[record.ttl_at]) << 4;
                    opt.get_or_insert(end);
                } else {
                    life.take(packet, &record, section, self.qtype);
                }
                end = record.end;
                kept += u16::from(section == 2 && opt.is_none());
            }
            if section < 2 {
                additional_at = end;
            }
        }
        let is_name_error = rcode == Rcode::NxDomain as u16;
        if !is_name_error && rcode != Rcode::NoError as u16 || opt.is_some_and(|opt| opt < additional_at) {
            return None;
        }
        // What stands behind the OPT points over it perhaps, and nobody must have it: it is additional.
        let mut bytes: Box<[u8]> = packet[..opt.unwrap_or(end)].into();
        wire::put_count(&mut bytes, 3, kept);
        Some(Message { bytes, additional_at, ttl_secs: life.secs(is_name_error) })
    }
}

/// For how long the records of a message hold.
#[derive(Default)]
struct Life {
    shortest: Option<u32>,
    is_answered: bool,
    negative: Option<u32>,
}

impl Life {
    fn take(&mut self, packet: &[u8], record: &Raw, section: usize, qtype: u16) {
        let ttl_secs = record.ttl_secs(packet);
        self.shortest = Some(self.shortest.map_or(ttl_secs, |shortest| shortest.min(ttl_secs)));
        self.is_answered |= section == 0 && (record.kind == qtype || qtype == kind::ANY);
        if section == 1 && record.kind == kind::SOA {
            let minimum =
                packet[record.data.clone()].last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            self.negative = Some(minimum.min(NEGATIVE_TTL_SECS_MAX));
        }
    }

    /// That there is nothing may be kept only with an SOA that says for how long (RFC 2308 §5).
    fn secs(&self, is_name_error: bool) -> u32 {
        let shortest = self.shortest.unwrap_or(0).min(TTL_SECS_MAX);
        if self.is_answered && !is_name_error { shortest } else { shortest.min(self.negative.unwrap_or(0)) }
    }
}

/// Where the parts of a record are.
struct Raw {
    kind: u16,
    class: u16,
    ttl_at: usize,
    data: Range<usize>,
    end: usize,
}

impl Raw {
    fn at(packet: &[u8], start: usize) -> Option<Raw> {
        let at = wire::skip_name(packet, start)?;
        let fixed: [u8; 10] = packet.get(at..at + 10)?.try_into().ok()?;
        let data = at + 10..at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let is_whole = data.end <= packet.len();
        let [kind, class] = [0, 2].map(|at| u16::from_be_bytes([fixed[at], fixed[at + 1]]));
        is_whole.then(|| Raw { kind, class, ttl_at: at + 4, end: data.end, data })
    }

    /// One that looks negative is none (RFC 2181 §8).
    fn ttl_secs(&self, packet: &[u8]) -> u32 {
        let bytes = packet[self.ttl_at..].first_chunk().copied().unwrap_or_default();
        let secs = u32::from_be_bytes(bytes);
        if secs > i32::MAX as u32 { 0 } else { secs }
    }
}

impl Message {
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_name_error(&self) -> bool {
        self.bytes[3] & 0xf == Rcode::NxDomain as u8
    }

    /// Passes the message on to another who asked the same: whole if it fits, else without what is additional, else
    /// the word that there is more.
    pub fn put(&self, out: &mut Vec<u8>, query: &Query, limits: &Limits, age: Age) {
        let ede = (age == Age::Stale).then_some(STALE);
        let opt_bytes = limits.opt.map_or(0, |opt| opt.bytes() + ede.map_or(0, |ede| ede.bytes()));
        let question_end = HEADER_BYTES + query.question.len();
        let ends = [self.bytes.len(), self.additional_at, question_end];
        let end = ends.into_iter().find(|end| end + opt_bytes <= limits.bytes_max).unwrap_or(question_end);
        out.clear();
        out.extend_from_slice(&self.bytes[..end]);
        out[..2].copy_from_slice(&query.id.to_be_bytes());
        let bits = |set: bool, bit: u8| if set { bit } else { 0 };
        let wants_ad = query.ad || query.edns.is_some_and(|edns| edns.dnssec_ok);
        let [own, other] = [self.bytes[2], self.bytes[3]];
        let is_cut = end == question_end && end < self.additional_at;
        out[2] = QR | own & bits(age == Age::New, AA) | bits(is_cut, TC) | bits(query.rd, RD);
        out[3] = own_bits(other, wants_ad) | bits(query.cd, CD);
        out[QUESTION_AT..question_end].copy_from_slice(query.question);
        if end == question_end {
            (1..4).for_each(|section| wire::put_count(out, section, 0));
        } else if end == self.additional_at {
            wire::put_count(out, 3, 0);
        }
        self.age(out, question_end, age);
        if let Some(opt) = &limits.opt {
            let count = u16::from_be_bytes([out[10], out[11]]);
            let at = out.len();
            wire::put_opt(out, opt, Rcode::NoError, ede);
            out[at + 7] = bits(query.edns.is_some_and(|edns| edns.dnssec_ok), 0x80);
            wire::put_count(out, 3, count.saturating_add(1));
        }
    }

    /// Counts the TTLs down.
    fn age(&self, out: &mut [u8], mut at: usize, age: Age) {
        if age == Age::New {
            return;
        }
        while at < out.len()
            && let Some(record) = Raw::at(out, at)
        {
            let ttl_secs = match age {
                Age::Secs(secs) => record.ttl_secs(out).saturating_sub(secs),
                _ => STALE_TTL_SECS,
            };
            out[record.ttl_at..record.ttl_at + 4].copy_from_slice(&ttl_secs.to_be_bytes());
            at = record.end;
        }
    }

    /// The aliases and addresses of the answer section, in order.
    pub fn chain(&self, age: Age) -> Vec<Record> {
        let mut records = Vec::new();
        let Some(mut at) = wire::skip_name(&self.bytes, QUESTION_AT).map(|end| end + 4) else {
            return records;
        };
        for _ in 0..u16::from_be_bytes([self.bytes[6], self.bytes[7]]) {
            let Some(raw) = Raw::at(&self.bytes, at) else { break };
            let ttl_secs = match age {
                Age::New => raw.ttl_secs(&self.bytes),
                Age::Secs(secs) => raw.ttl_secs(&self.bytes).saturating_sub(secs),
                Age::Stale => STALE_TTL_SECS,
            };
            let owner = name_at(&self.bytes, at).map(Owner::Elsewhere);
            if let (Some(owner), Some(data), class::IN) = (owner, self.data(&raw), raw.class) {
                records.push(Record { owner, ttl_secs, data });
            }
            at = raw.end;
        }
        records
    }

    fn data(&self, raw: &Raw) -> Option<Data> {
        let bytes = &self.bytes[raw.data.clone()];
        match raw.kind {
            kind::CNAME => Some(Data::Cname(Owner::Elsewhere(name_at(&self.bytes, raw.data.start)?))),
            kind::A => Some(Data::Address(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?))),
            kind::AAAA => Some(Data::Address(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?))),
            _ => None,
        }
    }
}

/// RA and the code are the recursor's; its word on validity is for those who want it (RFC 6840 §5.8).
fn own_bits(flags: u8, wants_ad: bool) -> u8 {
    flags & (RA | 0xf | if wants_ad { AD } else { 0 })
}

/// A name in full, without its root. Each pointer must lead further back, so that none leads in a circle.
fn name_at(packet: &[u8], start: usize) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let (mut at, mut barrier) = (start, start.min(POINTER_END));
    loop {
        match *packet.get(at)? {
            0 => return Some(labels),
            length @ 1..=63 => {
                labels.extend_from_slice(packet.get(at..at + 1 + usize::from(length))?);
                if labels.len() >= NAME_BYTES_MAX {
                    return None;
                }
                at += 1 + usize::from(length);
            }
            high @ 0xc0.. => {
                let to = usize::from(high & 0x3f) << 8 | usize::from(*packet.get(at + 1)?);
                if to >= barrier || to < HEADER_BYTES {
                    return None;
                }
                (at, barrier) = (to, to);
            }
            _ => return None,
        }
    }
}

/// So large a UDP reply is read whole: beyond what was offered, since some overdo it.
pub const UDP_READ_BYTES: usize = 4096;
const _: () = assert!(UDP_READ_BYTES > UDP_BYTES as usize && UDP_BYTES as usize > PLAIN_UDP_BYTES);
