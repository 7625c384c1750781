//! Parameters of SVCB and HTTPS records (RFC 9460 §2.1, §2.2; `dohpath` is RFC 9461's).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    lex::{Token, Wrong, wrong},
    text,
};

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const NO_DEFAULT_ALPN: u16 = 2;
const PORT: u16 = 3;
const IPV4HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6HINT: u16 = 6;
const DOHPATH: u16 = 7;

const KEYS: &[(&str, u16)] = &[
    ("mandatory", MANDATORY),
    ("alpn", ALPN),
    ("no-default-alpn", NO_DEFAULT_ALPN),
    ("port", PORT),
    ("ipv4hint", IPV4HINT),
    ("ech", ECH),
    ("ipv6hint", IPV6HINT),
    ("dohpath", DOHPATH),
];

/// Reads words such as `port=53`, and puts them in the order of their keys.
pub fn read(tokens: &[Token], wire: &mut Vec<u8>) -> Result<(), Wrong> {
    let mut params: Vec<(u16, Vec<u8>, &Token)> = Vec::new();
    for token in tokens {
        let (key, value) = read_param(token)?;
        if params.iter().any(|(other, ..)| *other == key) {
            return token.not("each parameter once");
        }
        params.push((key, value, token));
    }
    params.sort_by_key(|(key, ..)| *key);
    let has = |key: u16| params.iter().any(|(other, ..)| *other == key);
    for (key, value, token) in &params {
        let missing =
            value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).find(|key| !has(*key));
        match *key {
            MANDATORY if missing.is_some() => return token.not("only parameters that stand here, too"),
            NO_DEFAULT_ALPN if !has(ALPN) => return token.not("alpn beside it"),
            _ => {}
        }
        wire.extend_from_slice(&key.to_be_bytes());
        let Ok(length) = u16::try_from(value.len()) else { return token.not("at most 65535 bytes") };
        wire.extend_from_slice(&length.to_be_bytes());
        wire.extend_from_slice(value);
    }
    Ok(())
}

/// Whether these are parameters with rising keys.
pub fn is_valid(mut wire: &[u8]) -> bool {
    let mut last = None;
    while let [k0, k1, l0, l1, rest @ ..] = wire {
        let key = u16::from_be_bytes([*k0, *k1]);
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if last.is_some_and(|last| last >= key) || length > rest.len() {
            return false;
        }
        (last, wire) = (Some(key), &rest[length..]);
    }
    wire.is_empty()
}

fn read_param(token: &Token) -> Result<(u16, Vec<u8>), Wrong> {
    if token.quoted {
        return token.not("a parameter such as port=53");
    }
    let equals = token.raw.iter().position(|byte| *byte == b'=');
    let (word, given) = match equals {
        Some(at) => (&token.raw[..at], Some(&token.raw[at + 1..])),
        None => (token.raw, None),
    };
    let Some(key) = key_of(word) else {
        let known: Vec<&str> = KEYS.iter().map(|(word, _)| *word).collect();
        return token.not(&format!("one of {}, key65280", known.join(", ")));
    };
    // Either all of it is quoted, or nothing.
    let quoted = |given: &[u8]| given.len() >= 2 && given[0] == b'"' && given[given.len() - 1] == b'"';
    let raw = match given {
        Some(given) if quoted(given) => &given[1..given.len() - 1],
        Some(given) if given.contains(&b'"') => {
            return token.not("the whole value within quotes, or none of it");
        }
        given => given.unwrap_or_default(),
    };
    let value = text::unescape(token, raw)?;
    let needs_none = key == NO_DEFAULT_ALPN;
    let may_be_empty = !KEYS.iter().any(|(_, known)| *known == key);
    if needs_none != value.is_empty() && !may_be_empty {
        return token.not(if needs_none { "no value" } else { "a value after =" });
    }
    Ok((key, read_value(token, key, value)?))
}

fn key_of(word: &[u8]) -> Option<u16> {
    let word = std::str::from_utf8(word).ok()?;
    let known = KEYS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, key)| *key);
    known.or_else(|| {
        let digits = word.strip_prefix("key")?;
        let plain =
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        plain.then(|| digits.parse().ok().filter(|key| *key < u16::MAX))?
    })
}

fn read_value(token: &Token, key: u16, value: Vec<u8>) -> Result<Vec<u8>, Wrong> {
    let word = || std::str::from_utf8(&value).unwrap_or_default();
    let mut wire = Vec::new();
    match key {
        MANDATORY => {
            let keys: Option<Vec<u16>> = word().split(',').map(|word| key_of(word.as_bytes())).collect();
            let mut keys = keys.unwrap_or_default();
            keys.sort_unstable();
            let count = keys.len();
            keys.dedup();
            if keys.is_empty() || keys[0] == MANDATORY || keys.len() < count {
                return token.not("keys, each once, without mandatory itself");
            }
            keys.iter().for_each(|key| wire.extend_from_slice(&key.to_be_bytes()));
        }
        ALPN => {
            for id in split_list(&value) {
                match u8::try_from(id.len()) {
                    Ok(length @ 1..) => wire.push(length),
                    _ => return token.not("protocols of 1 to 255 bytes, with commas between"),
                }
                wire.extend_from_slice(&id);
            }
        }
        PORT => match word().parse::<u16>() {
            Ok(port) => wire.extend_from_slice(&port.to_be_bytes()),
            Err(_) => return token.not("a port from 0 to 65535"),
        },
        IPV4HINT => {
            for address in word().split(',') {
                let Ok(ip) = address.parse::<Ipv4Addr>() else { return token.not("IPv4 addresses") };
                wire.extend_from_slice(&ip.octets());
            }
        }
        IPV6HINT => {
            for address in word().split(',') {
                let Ok(ip) = address.parse::<Ipv6Addr>() else { return token.not("IPv6 addresses") };
                wire.extend_from_slice(&ip.octets());
            }
        }
        ECH => {
            let letters = Token { raw: &value, quoted: false, at: token.at };
            if text::base64(&[letters], &mut wire).is_err() {
                return wrong(token.at, format!("found {}; expected base64 after ech=", token.shown()));
            }
        }
        _ => return Ok(value),
    }
    Ok(wire)
}

/// A list with commas between; `\,` and `\\` are letters of an item (RFC 9460, appendix A.1).
fn split_list(value: &[u8]) -> Vec<Vec<u8>> {
    let (mut items, mut bytes) = (vec![Vec::new()], value.iter());
    while let Some(byte) = bytes.next() {
        let literal = if *byte == b'\\' { bytes.next() } else { None };
        match (byte, items.last_mut()) {
            (b',', _) => items.push(Vec::new()),
            (byte, Some(item)) => item.push(*literal.unwrap_or(byte)),
            (_, None) => {}
        }
    }
    items
}
