//! Packets (RFC 1035 §4, RFC 6891): a query is read without allocation, a reply is written in one pass. Knows bytes
//! and limits; not what any name means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub const HEADER_BYTES: usize = 12;
/// A reply's question begins where the query's did, so owners may point at it.
pub const QUESTION_AT: usize = HEADER_BYTES;
const OPT_BYTES: usize = 11;
/// What a client without EDNS takes by UDP.
pub const PLAIN_UDP_BYTES: usize = 512;
/// Names may be pointed at below this offset (RFC 1035 §4.1.4).
pub const POINTER_END: usize = 0x4000;
/// Owner pointer, type, class, TTL and length of data.
pub const HEAD_BYTES: usize = 12;
/// Of a name, its root included (RFC 1035 §2.3.4).
pub const NAME_BYTES_MAX: usize = 255;

pub mod kind {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
    /// OPT, TKEY, TSIG, IXFR, AXFR: nothing that could be asked of one server in the name of another's client.
    pub const OF_ONE_LINK: [u16; 5] = [OPT, 249, 250, 251, AXFR];
}

pub mod class {
    pub const IN: u16 = 1;
    pub const ANY: u16 = 255;
}

pub mod option {
    pub const SUBNET: u16 = 8;
    pub const EDE: u16 = 15;
}

/// Response codes (RFC 6895 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    /// A name that would be too long (RFC 6672 §2.2).
    YxDomain = 6,
    BadVers = 16,
}

/// Extended errors (RFC 8914): code, and a text for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ede {
    pub code: u16,
    pub text: &'static str,
}

/// Whether a message says that its name exists.
pub fn is_no_error(message: &[u8]) -> bool {
    message.get(3).is_some_and(|flags| flags & 0x0f == Rcode::NoError as u8)
}

/// Records in the answer section of a message; 0 where it is none.
pub fn answer_count(message: &[u8]) -> u16 {
    message.get(6..8).map_or(0, |count| u16::from_be_bytes([count[0], count[1]]))
}

/// An extended error on its way to another agent: its code says what there is to say.
pub mod ede_by_code {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Ede;

    pub fn serialize<S: Serializer>(ede: &Option<Ede>, to: S) -> Result<S::Ok, S::Error> {
        ede.map(|ede| ede.code).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Ede>, D::Error> {
        Ok(Option::deserialize(from)?.map(|code| Ede { code, text: "" }))
    }
}

/// A query's parts; the name is one run of labels, since no pointer can be right in a first name.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub id: u16,
    pub rd: bool,
    pub ad: bool,
    pub cd: bool,
    /// Name, type and class as they came; shorter where the message ended early.
    pub question: &'a [u8],
    /// In wire form, with the root.
    pub name: &'a [u8],
    pub qtype: u16,
    pub qclass: u16,
    pub edns: Option<Edns>,
}

impl Query<'_> {
    /// Whether name, type and class are all there.
    pub fn is_whole(&self) -> bool {
        self.question.len() == self.name.len() + 4
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The payload size that the client offers.
    pub size: u16,
    pub version: u8,
    pub dnssec_ok: bool,
    pub subnet: Option<Subnet>,
}

/// For whom a client asks (RFC 7871): the first bits of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// 1 is IPv4, 2 is IPv6, 0 is none.
    pub family: u16,
    pub prefix: u8,
    /// For how much of it an answer is; 0 is for everyone.
    pub scope: u8,
    /// Zero behind the prefix; the first four are those of an IPv4 address.
    pub address: [u8; 16],
}

/// The OPT of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt {
    /// Our own size.
    pub size: u16,
    /// Told as it was asked.
    pub subnet: Option<Subnet>,
}

/// What a packet is to us.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<'a> {
    /// No whole header, or a response: never answered.
    Silence,
    /// Another opcode than QUERY.
    NotImplemented,
    /// A question without a name: the header is all there is.
    NoQuestion,
    /// Not to be understood. The question, if it was read before the fault.
    Malformed(Option<&'a [u8]>),
    Query(Query<'a>),
}

/// Reads a packet (`dns.md` §2).
pub fn parse(packet: &[u8]) -> Parsed<'_> {
    let Some((header, body)) = packet.split_first_chunk::<HEADER_BYTES>() else { return Parsed::Silence };
    if header[2] & 0x80 != 0 {
        return Parsed::Silence;
    }
    if header[2] >> 3 & 0xf != 0 {
        return Parsed::NotImplemented;
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let [questions, answers, authorities, additional] = [4, 6, 8, 10].map(count);
    if questions != 1 || answers > 1 || authorities > 1 || additional > 2 {
        return Parsed::Malformed(None);
    }
    if body.is_empty() {
        return Parsed::NoQuestion;
    }
    let Some(name_bytes) = labels_end(body) else { return Parsed::Malformed(None) };
    let field = |at: usize| body.get(at..at + 2).map(|field| u16::from_be_bytes([field[0], field[1]]));
    let question = &body[..body.len().min(name_bytes + 4)];
    if (question.len() - name_bytes) % 2 == 1 {
        return Parsed::Malformed(None);
    }
    let records = [answers + authorities, additional];
    let Some(edns) = find_opt(packet, HEADER_BYTES + question.len(), records) else {
        return Parsed::Malformed((question.len() == name_bytes + 4).then_some(question));
    };
    Parsed::Query(Query {
        id: u16::from_be_bytes([header[0], header[1]]),
        rd: header[2] & 1 != 0,
        ad: header[3] & 0x20 != 0,
        cd: header[3] & 0x10 != 0,
        question,
        name: &body[..name_bytes],
        qtype: field(name_bytes).unwrap_or(0),
        qclass: field(name_bytes + 2).unwrap_or(class::IN),
        edns,
    })
}

/// Where a run of labels ends, its root included.
pub fn labels_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => return (at < NAME_BYTES_MAX).then_some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// The last OPT of the additional section, after so many records of others. A message that ends before a record has
/// no more of them; one that ends in a record is malformed.
fn find_opt(packet: &[u8], mut at: usize, [others, additional]: [u16; 2]) -> Option<Option<Edns>> {
    let mut edns = None;
    for record in 0..others + additional {
        if at >= packet.len() {
            break;
        }
        at = skip_name(packet, at)?;
        let fixed: [u8; 10] = packet.get(at..at + 10)?.try_into().ok()?;
        let end = at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        if end > packet.len() {
            return None;
        }
        if record >= others && u16::from_be_bytes([fixed[0], fixed[1]]) == kind::OPT {
            let (size, version) = (u16::from_be_bytes([fixed[2], fixed[3]]), fixed[5]);
            // What another version's options mean is not known.
            let subnet = if version == 0 { find_subnet(&packet[at + 10..end])? } else { None };
            edns = Some(Edns { size, version, dnssec_ok: fixed[6] & 0x80 != 0, subnet });
        }
        at = end;
    }
    Some(edns)
}

/// The first subnet of an OPT's options; none of them may be faulty.
fn find_subnet(mut options: &[u8]) -> Option<Option<Subnet>> {
    let mut subnet = None;
    while !options.is_empty() {
        let (&[c0, c1, l0, l1], rest) = options.split_first_chunk()?;
        let (data, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        if u16::from_be_bytes([c0, c1]) == option::SUBNET {
            subnet = subnet.or(Some(Subnet::read(data)?));
        }
        options = rest;
    }
    Some(subnet)
}

pub fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return packet.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// A header with these bits and no counts.
pub fn put_header(out: &mut Vec<u8>, id: u16, flags: [u8; 2]) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&flags);
    out.extend_from_slice(&[0; 8]);
}

/// How many records a section has; written over the header's.
pub fn put_count(out: &mut [u8], section: usize, count: u16) {
    out[4 + 2 * section..6 + 2 * section].copy_from_slice(&count.to_be_bytes());
}

pub fn put_u16(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(&number.to_be_bytes());
}

pub fn put_pointer(out: &mut Vec<u8>, at: usize) {
    put_u16(out, 0xc000 | at as u16);
}

/// Type, class IN, TTL and the length of what follows.
pub fn put_head(out: &mut Vec<u8>, kind: u16, ttl_secs: u32, data_bytes: usize) {
    let [k0, k1] = kind.to_be_bytes();
    let [t0, t1, t2, t3] = ttl_secs.to_be_bytes();
    let [l0, l1] = (data_bytes as u16).to_be_bytes();
    out.extend_from_slice(&[k0, k1, 0, 1, t0, t1, t2, t3, l0, l1]);
}

pub fn put_v4(out: &mut Vec<u8>, ttl_secs: u32, address: Ipv4Addr) {
    put_head(out, kind::A, ttl_secs, 4);
    out.extend_from_slice(&address.octets());
}

pub fn put_v6(out: &mut Vec<u8>, ttl_secs: u32, address: Ipv6Addr) {
    put_head(out, kind::AAAA, ttl_secs, 16);
    out.extend_from_slice(&address.octets());
}

/// The OPT of a reply: version 0, the subnet asked for, and at most one extended error.
pub fn put_opt(out: &mut Vec<u8>, opt: &Opt, rcode: Rcode, ede: Option<Ede>) {
    out.push(0);
    put_u16(out, kind::OPT);
    put_u16(out, opt.size);
    out.extend_from_slice(&[(rcode as u16 >> 4) as u8, 0, 0, 0]);
    put_u16(out, (opt.bytes() - OPT_BYTES + ede.map_or(0, |ede| ede.bytes())) as u16);
    if let Some(subnet) = &opt.subnet {
        subnet.put(out);
    }
    if let Some(ede) = ede {
        put_u16(out, option::EDE);
        put_u16(out, 2 + ede.text.len() as u16);
        put_u16(out, ede.code);
        out.extend_from_slice(ede.text.as_bytes());
    }
}

impl Ede {
    /// As an option of OPT.
    pub fn bytes(&self) -> usize {
        6 + self.text.len()
    }
}

impl Opt {
    /// Without an extended error.
    pub fn bytes(&self) -> usize {
        OPT_BYTES + self.subnet.map_or(0, |subnet| 8 + subnet.octets().len())
    }
}

impl Subnet {
    /// `dns.md` §15: the scope means nothing in a query, what is cut off an address is read as zeros, what is behind its prefix is dropped.
    fn read(data: &[u8]) -> Option<Subnet> {
        let (&[f0, f1, prefix, _], address) = data.split_first_chunk()?;
        let family = u16::from_be_bytes([f0, f1]);
        let bits = match family {
            0 => 0,
            1 => 32,
            2 => 128,
            _ => return None,
        };
        if prefix > bits {
            return None;
        }
        let mut octets = [0; 16];
        for (at, (octet, given)) in octets.iter_mut().zip(address).enumerate() {
            let kept = usize::from(prefix).saturating_sub(8 * at).min(8);
            *octet = given & !(0xff_u16 >> kept) as u8;
        }
        Some(Subnet { family, prefix, scope: 0, address: octets })
    }

    /// As it is told: no more than the prefix needs.
    fn octets(&self) -> &[u8] {
        &self.address[..usize::from(self.prefix).div_ceil(8)]
    }

    /// The address, unless it says nothing.
    pub fn ip(&self) -> Option<IpAddr> {
        let v4 = || *self.address.first_chunk::<4>().expect("an address has sixteen octets");
        match self.family {
            _ if self.prefix == 0 => None,
            1 => Some(IpAddr::from(v4())),
            2 => Some(IpAddr::from(self.address).to_canonical()),
            _ => None,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_u16(out, option::SUBNET);
        put_u16(out, 4 + self.octets().len() as u16);
        put_u16(out, self.family);
        out.extend_from_slice(&[self.prefix, self.scope]);
        out.extend_from_slice(self.octets());
    }
}

/// A text as a name in wire form, without the root. `None` where a label is empty or longer than 63 bytes, or the
/// whole is longer than a name may be.
pub fn name_of(text: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(text.len() + 1);
    put_labels(&mut wire, text).then_some(wire)
}

/// As `name_of`, appended; `false` where it is no name, and then what was appended means nothing.
pub fn put_labels(out: &mut Vec<u8>, text: &str) -> bool {
    let start = out.len();
    for label in text.strip_suffix('.').unwrap_or(text).split('.') {
        if label.is_empty() || label.len() > 63 {
            return false;
        }
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.len() - start < NAME_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_ends_early_has_what_it_has() {
        let header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        let query = |body: &[u8]| [&header[..], body].concat();
        assert!(matches!(parse(&header[..11]), Parsed::Silence));
        assert!(matches!(parse(&header), Parsed::NoQuestion));
        let packet = query(b"\x01a\0");
        let Parsed::Query(cut) = parse(&packet) else { panic!() };
        assert_eq!(
            (cut.qtype, cut.qclass, cut.name, cut.question),
            (0, class::IN, &b"\x01a\0"[..], &b"\x01a\0"[..])
        );
        let packet = query(b"\x01a\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0");
        assert!(matches!(parse(&packet), Parsed::Malformed(Some(_))), "ends within a record");
        for bad in
            [&b"\x01"[..], b"\x40a\0\0\x01\0\x01", b"\xc0\x0c\0\x01\0\x01", b"\x01a\0\0", b"\x01a\0\0\x01\0"]
        {
            assert!(matches!(parse(&query(bad)), Parsed::Malformed(None)));
        }
    }

    #[test]
    fn the_last_opt_counts() {
        let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 2];
        packet.extend_from_slice(b"\x01a\0\0\x01\0\x01");
        for size in [1232, 4096] {
            put_opt(&mut packet, &Opt { size, subnet: None }, Rcode::NoError, None);
        }
        let Parsed::Query(query) = parse(&packet) else { panic!() };
        assert_eq!(query.edns, Some(Edns { size: 4096, version: 0, dnssec_ok: false, subnet: None }));
    }

    /// A subnet of no family is what `dig +subnet=0` asks with.
    #[test]
    fn a_subnet_is_told_without_what_is_behind_its_prefix() {
        let table: [(&[u8], Option<&[u8]>); 9] = [
            (&[0, 0, 0, 0], Some(&[0, 0, 0, 0])),
            (&[0, 0, 1, 0, 9], None),
            (&[0, 1, 0, 0], Some(&[0, 1, 0, 0])),
            (&[0, 1, 9, 32, 10, 255], Some(&[0, 1, 9, 0, 10, 128])),
            (&[0, 1, 32, 0, 10], Some(&[0, 1, 32, 0, 10, 0, 0, 0])),
            (&[0, 1, 8, 0, 10, 1, 2, 3, 4, 5], Some(&[0, 1, 8, 0, 10])),
            (&[0, 1, 8, 255, 10], Some(&[0, 1, 8, 0, 10])),
            (&[0, 2, 129, 0], None),
            (&[0, 3, 0, 0], None),
        ];
        for (asked, told) in table {
            let options = [&[0, 10, 0, 0, 0, 8, 0, asked.len() as u8], asked].concat();
            let subnet = find_subnet(&options).map(|subnet| {
                let mut out = Vec::new();
                subnet.expect("there is one").put(&mut out);
                out[4..].to_vec()
            });
            assert_eq!(subnet.as_deref(), told, "{asked:?}");
            assert_eq!(find_subnet(&options[..options.len() - 1]), None);
        }
    }

    #[test]
    fn names_have_bounds() {
        assert_eq!(name_of("a.bc."), Some(b"\x01a\x02bc".to_vec()));
        assert!(name_of("").is_none() && name_of("a..b").is_none() && name_of(&"a".repeat(64)).is_none());
        assert!(name_of(&["a"; 126].join(".")).is_some() && name_of(&["a"; 128].join(".")).is_none());
    }
}
