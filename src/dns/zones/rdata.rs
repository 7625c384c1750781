//! The data of a record: from the words of a master file to its wire form, type by type (RFC 1035 §3.3, RFC 3597 and
//! the papers of the newer types). A type is a row in a table; what is read by a row is checked by the same row.

use super::{
    lex::{At, Token, Wrong, wrong},
    svcb, text,
};
use crate::dns::wire::labels_end;

/// Data in wire form, with names in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rdata {
    pub wire: Vec<u8>,
    /// Where its names begin and end.
    pub names: Vec<(usize, usize)>,
}

/// A part of a type's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    V4,
    V6,
    Name,
    /// A number of so many bytes.
    Number(usize),
    /// Seconds.
    Span,
    /// A text of up to 255 bytes.
    Text,
    /// One text or more.
    Texts,
    /// A word of letters and digits behind its count.
    Tag,
    /// Bytes without their count.
    Rest,
    Hex,
    Base64,
    Params,
}

/// Beside a question and an OPT no more fits in a message.
const BYTES_MAX: usize = 65_000;

struct Type {
    number: u16,
    word: &'static str,
    layout: &'static [Field],
}

use Field::{Base64, Hex, Name, Number, Params, Rest, Span, Tag, Text, Texts, V4, V6};

const fn row(number: u16, word: &'static str, layout: &'static [Field]) -> Type {
    Type { number, word, layout }
}

const U8: Field = Number(1);
const U16: Field = Number(2);
const U32: Field = Number(4);

const TYPES: &[Type] = &[
    row(1, "A", &[V4]),
    row(2, "NS", &[Name]),
    row(5, "CNAME", &[Name]),
    row(6, "SOA", &[Name, Name, U32, Span, Span, Span, Span]),
    row(12, "PTR", &[Name]),
    row(13, "HINFO", &[Text, Text]),
    row(15, "MX", &[U16, Name]),
    row(16, "TXT", &[Texts]),
    row(17, "RP", &[Name, Name]),
    row(18, "AFSDB", &[U16, Name]),
    row(28, "AAAA", &[V6]),
    row(33, "SRV", &[U16, U16, U16, Name]),
    row(35, "NAPTR", &[U16, U16, Text, Text, Text, Name]),
    row(36, "KX", &[U16, Name]),
    row(37, "CERT", &[U16, U16, U8, Base64]),
    row(39, "DNAME", &[Name]),
    row(43, "DS", &[U16, U8, U8, Hex]),
    row(44, "SSHFP", &[U8, U8, Hex]),
    row(48, "DNSKEY", &[U16, U8, U8, Base64]),
    row(52, "TLSA", &[U8, U8, U8, Hex]),
    row(53, "SMIMEA", &[U8, U8, U8, Hex]),
    row(59, "CDS", &[U16, U8, U8, Hex]),
    row(60, "CDNSKEY", &[U16, U8, U8, Base64]),
    row(61, "OPENPGPKEY", &[Base64]),
    row(64, "SVCB", &[U16, Name, Params]),
    row(65, "HTTPS", &[U16, Name, Params]),
    row(99, "SPF", &[Texts]),
    row(256, "URI", &[U16, U16, Rest]),
    row(257, "CAA", &[U8, Tag, Rest]),
];

/// The number of a type, by its word or as `TYPE65280`.
pub fn type_of(word: &str) -> Option<u16> {
    let known = TYPES.iter().find(|known| known.word.eq_ignore_ascii_case(word));
    known.map(|known| known.number).or_else(|| {
        let (head, digits) = word.split_at_checked(4)?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        (head.eq_ignore_ascii_case("TYPE") && plain).then(|| digits.parse().ok())?
    })
}

pub fn word_of(kind: u16) -> String {
    layout(kind).map_or_else(|| format!("TYPE{kind}"), |known| known.word.into())
}

/// What only stands in messages: OPT, and the types of questions (RFC 6895 §3.1).
pub fn is_meta(kind: u16) -> bool {
    matches!(kind, 0 | 41 | 128..=255)
}

fn layout(kind: u16) -> Option<&'static Type> {
    TYPES.iter().find(|known| known.number == kind)
}

/// Reads the words after the type, up to `end`.
pub fn read(kind: u16, tokens: &[Token], origin: Option<&[u8]>, end: At) -> Result<Rdata, Wrong> {
    let start = tokens.first().map_or(end, |token| token.at);
    let wire = match (layout(kind), tokens) {
        (_, [mark, data @ ..]) if mark.word() == Some("\\#") => read_generic(data, end)?,
        (Some(known), _) => read_fields(known, tokens, origin, end)?,
        (None, _) => {
            let text =
                format!("data of TYPE{kind}, whose form is not known here; expected \\# and its bytes");
            return wrong(start, text);
        }
    };
    if wire.len() > BYTES_MAX {
        return wrong(start, format!("{} bytes of data; expected at most {BYTES_MAX}", wire.len()));
    }
    match names_in(kind, &wire) {
        Some(names) => Ok(Rdata { wire, names }),
        None => wrong(start, format!("these bytes do not have the form of {}", word_of(kind))),
    }
}

/// `\# 4 0a000001` (RFC 3597 §5).
fn read_generic(tokens: &[Token], end: At) -> Result<Vec<u8>, Wrong> {
    let Some((count, digits)) = tokens.split_first() else {
        return wrong(end, "nothing after \\#; expected the number of bytes");
    };
    let (length, mut wire) = (text::number(count, u16::MAX.into())?, Vec::new());
    text::hex(digits, &mut wire)?;
    if wire.len() as u64 != length {
        return wrong(
            count.at,
            format!("{} bytes follow; expected as many as it says: {length}", wire.len()),
        );
    }
    Ok(wire)
}

fn read_fields(known: &Type, mut tokens: &[Token], origin: Option<&[u8]>, end: At) -> Result<Vec<u8>, Wrong> {
    let mut wire = Vec::new();
    for field in known.layout {
        let takes_all = matches!(field, Texts | Hex | Base64 | Params);
        let Some(first) = tokens.first() else {
            if *field == Params {
                break;
            }
            return wrong(end, format!("{} ends here; expected {}", known.word, field.expected()));
        };
        let taken = if takes_all { tokens } else { &tokens[..1] };
        tokens = &tokens[taken.len()..];
        read_field(*field, first, taken, origin, &mut wire)?;
    }
    match tokens.first() {
        Some(more) => more.not(&format!("nothing more in {}", known.word)),
        None => Ok(wire),
    }
}

fn read_field(
    field: Field,
    token: &Token,
    all: &[Token],
    origin: Option<&[u8]>,
    wire: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let not = || token.not(field.expected());
    match field {
        V4 => match token.word().and_then(|word| word.parse::<std::net::Ipv4Addr>().ok()) {
            Some(ip) => wire.extend_from_slice(&ip.octets()),
            None => return not(),
        },
        V6 => match token.word().and_then(|word| word.parse::<std::net::Ipv6Addr>().ok()) {
            Some(ip) => wire.extend_from_slice(&ip.octets()),
            None => return not(),
        },
        Name => wire.extend_from_slice(&text::name(token, origin)?),
        Number(bytes) => {
            let number = text::number(token, (1 << (8 * bytes)) - 1)?;
            wire.extend_from_slice(&number.to_be_bytes()[8 - bytes..]);
        }
        Span => wire.extend_from_slice(&text::span(token)?.to_be_bytes()),
        Text => text::put_string(token, wire)?,
        Texts => return all.iter().try_for_each(|token| text::put_string(token, wire)),
        Tag => {
            let bytes = text::bytes(token)?;
            if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_alphanumeric) {
                return not();
            }
            text::put_string(token, wire)?;
        }
        Rest => wire.extend_from_slice(&text::bytes(token)?),
        Hex => return text::hex(all, wire),
        Base64 => return text::base64(all, wire),
        Params => return svcb::read(all, wire),
    }
    Ok(())
}

impl Field {
    fn expected(self) -> &'static str {
        match self {
            V4 => "an IPv4 address",
            V6 => "an IPv6 address",
            Name => "a name",
            Number(1) => "a number from 0 to 255",
            Number(2) => "a number from 0 to 65535",
            Number(_) => "a number from 0 to 4294967295",
            Span => "seconds",
            Text | Texts | Rest => "a text",
            Tag => "a word of letters and digits",
            Hex => "hexadecimal digits",
            Base64 => "base64",
            Params => "parameters",
        }
    }
}

/// Where the names of these data stand, if the data have the form of their type. Of an unknown type they have none.
pub fn names_in(kind: u16, wire: &[u8]) -> Option<Vec<(usize, usize)>> {
    let Some(known) = layout(kind) else { return Some(vec![]) };
    let (mut at, mut names) = (0, Vec::new());
    for field in known.layout {
        let rest = wire.get(at..)?;
        let counted = |rest: &[u8]| Some(1 + usize::from(*rest.first()?)).filter(|end| *end <= rest.len());
        let length = match field {
            V4 | Span => 4,
            V6 => 16,
            Name => {
                let length = labels_end(rest)?;
                names.push((at, at + length));
                length
            }
            Number(bytes) => *bytes,
            Text => counted(rest)?,
            Tag => counted(rest).filter(|end| *end > 1)?,
            Texts => {
                let mut end = counted(rest)?;
                while end < rest.len() {
                    end += counted(&rest[end..])?;
                }
                end
            }
            Hex | Base64 => Some(rest.len()).filter(|length| *length > 0)?,
            Rest => rest.len(),
            Params => Some(rest.len()).filter(|_| svcb::is_valid(rest))?,
        };
        at += length;
    }
    (at == wire.len()).then_some(names)
}
