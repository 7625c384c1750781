//! What single words of a master file say: names, numbers, times and bytes.

use super::lex::{Token, Wrong, wrong};
use crate::dns::wire::NAME_BYTES_MAX;

/// A TTL or another span of time (RFC 2181 §8).
const SECS_MAX: u64 = i32::MAX as u64;

/// A name in wire form. Relative ones are below `origin`, if there is one.
pub fn name(token: &Token, origin: Option<&[u8]>) -> Result<Vec<u8>, Wrong> {
    if token.quoted || token.raw.is_empty() {
        return token.not("a name");
    }
    let relative = |mut labels: Vec<u8>| match origin {
        Some(origin) if labels.len() + origin.len() <= NAME_BYTES_MAX => {
            labels.extend_from_slice(origin);
            Ok(labels)
        }
        Some(_) => token.not("a name of at most 255 bytes with its origin"),
        None => token.not("a name that ends with a dot, or $ORIGIN before it: there is no origin yet"),
    };
    match token.raw {
        b"@" => return relative(vec![]),
        b"." => return Ok(vec![0]),
        _ => {}
    }
    let (mut wire, mut start, mut rest) = (vec![0], 0, token.raw);
    while let Some(byte) = rest.first() {
        if *byte == b'.' {
            end_label(token, &mut wire, start)?;
            start = wire.len();
            wire.push(0);
            rest = &rest[1..];
        } else {
            wire.push(take_byte(token, &mut rest)?);
        }
    }
    if wire.len() > NAME_BYTES_MAX {
        return token.not("a name of at most 255 bytes");
    }
    if start + 1 == wire.len() {
        return Ok(wire);
    }
    end_label(token, &mut wire, start)?;
    relative(wire)
}

fn end_label(token: &Token, wire: &mut [u8], start: usize) -> Result<(), Wrong> {
    match wire.len() - start - 1 {
        0 => token.not("a name without empty labels"),
        length @ 1..=63 => {
            wire[start] = length as u8;
            Ok(())
        }
        _ => token.not("labels of at most 63 bytes"),
    }
}

/// The bytes that a word stands for.
pub fn bytes(token: &Token) -> Result<Vec<u8>, Wrong> {
    let mut rest = token.raw.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => drop(rest.next()),
            b'"' => return token.not("a word without quotes in it"),
            _ => {}
        }
    }
    unescape(token, token.raw)
}

pub fn unescape(token: &Token, mut rest: &[u8]) -> Result<Vec<u8>, Wrong> {
    let mut bytes = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        bytes.push(take_byte(token, &mut rest)?);
    }
    Ok(bytes)
}

/// One byte, which may be written as `\.` or `\046`.
fn take_byte(token: &Token, rest: &mut &[u8]) -> Result<u8, Wrong> {
    let (byte, length) = match **rest {
        [b'\\', a, b, c, ..] if [a, b, c].iter().all(u8::is_ascii_digit) => {
            let number = [a, b, c].iter().fold(0u16, |number, digit| number * 10 + u16::from(digit - b'0'));
            (u8::try_from(number).ok(), 4)
        }
        [b'\\', a, ..] if !a.is_ascii_digit() => (Some(a), 2),
        [b'\\', ..] | [] => (None, 0),
        [byte, ..] => (Some(byte), 1),
    };
    *rest = rest.get(length..).unwrap_or_default();
    byte.map_or_else(|| token.not("three digits up to 255 after a \\, or one letter"), Ok)
}

/// Up to 255 bytes behind their count (RFC 1035 §3.3).
pub fn put_string(token: &Token, wire: &mut Vec<u8>) -> Result<(), Wrong> {
    let bytes = bytes(token)?;
    let Ok(length) = u8::try_from(bytes.len()) else {
        return wrong(token.at, format!("a text of {} bytes; expected at most 255", bytes.len()));
    };
    wire.push(length);
    wire.extend_from_slice(&bytes);
    Ok(())
}

pub fn number(token: &Token, most: u64) -> Result<u64, Wrong> {
    let digits = token.word().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok()).filter(|number| *number <= most);
    number.map_or_else(|| token.not(&format!("a number from 0 to {most}")), Ok)
}

/// Seconds, or with units: `1h30m`.
pub fn span(token: &Token) -> Result<u32, Wrong> {
    let secs = token.word().and_then(secs).filter(|secs| *secs <= SECS_MAX);
    let secs = secs.and_then(|secs| u32::try_from(secs).ok());
    secs.map_or_else(|| token.not("seconds from 0 to 2147483647, or a span such as 1h30m"), Ok)
}

fn secs(word: &str) -> Option<u64> {
    let (mut all, mut number) = (0u64, None);
    for byte in word.bytes() {
        let unit = match byte {
            b'0'..=b'9' => {
                number = Some(number.unwrap_or(0u64).checked_mul(10)?.checked_add(u64::from(byte - b'0'))?);
                continue;
            }
            b's' | b'S' => 1,
            b'm' | b'M' => 60,
            b'h' | b'H' => 3600,
            b'd' | b'D' => 86_400,
            b'w' | b'W' => 604_800,
            _ => return None,
        };
        all = all.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    match number {
        Some(number) => all.checked_add(number),
        None => (!word.is_empty()).then_some(all),
    }
}

/// Words of hexadecimal digits, which may be cut anywhere.
pub fn hex(tokens: &[Token], wire: &mut Vec<u8>) -> Result<(), Wrong> {
    let mut half = None;
    for token in tokens {
        for byte in token.raw {
            let digit = char::from(*byte).to_digit(16).filter(|_| !token.quoted);
            let Some(digit) = digit.and_then(|digit| u8::try_from(digit).ok()) else {
                return token.not("hexadecimal digits");
            };
            match half.take() {
                Some(high) => wire.push(high << 4 | digit),
                None => half = Some(digit),
            }
        }
    }
    match (half, tokens.last()) {
        (Some(_), Some(last)) => last.not("an even number of hexadecimal digits"),
        _ => Ok(()),
    }
}

/// Words of base64 (RFC 4648 §4), which may be cut anywhere.
pub fn base64(tokens: &[Token], wire: &mut Vec<u8>) -> Result<(), Wrong> {
    let (mut bits, mut held, mut letters, mut padding) = (0u32, 0u32, 0usize, 0usize);
    for token in tokens {
        for byte in token.raw {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' if padding < 2 => {
                    padding += 1;
                    continue;
                }
                _ => return token.not("base64"),
            };
            if padding > 0 || token.quoted {
                return token.not("base64");
            }
            (bits, held, letters) = (bits << 6 | u32::from(value), held + 6, letters + 1);
            if held >= 8 {
                held -= 8;
                wire.push((bits >> held) as u8);
                bits &= (1 << held) - 1;
            }
        }
    }
    let whole = (letters + padding).is_multiple_of(4) && bits == 0;
    match tokens.last() {
        Some(last) if !whole => last.not("base64 whose letters come in fours, padded with ="),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(raw: &str) -> Token<'_> {
        Token { raw: raw.as_bytes(), quoted: false, at: Default::default() }
    }

    #[test]
    fn names() {
        let origin = b"\x03org\0";
        let read = |raw: &str| name(&token(raw), Some(origin)).map_err(|wrong| wrong.text);
        assert_eq!(read("@"), Ok(origin.to_vec()));
        assert_eq!(read("."), Ok(vec![0]));
        assert_eq!(read("Www"), Ok(b"\x03Www\x03org\0".to_vec()));
        assert_eq!(read("a.b."), Ok(b"\x01a\x01b\0".to_vec()));
        assert_eq!(read("a\\.b\\046c\\@.x."), Ok(b"\x06a.b.c@\x01x\0".to_vec()));
        assert_eq!(read("\\@"), Ok(b"\x01@\x03org\0".to_vec()));
        for bad in ["a..b", ".a", "..", &"a".repeat(64), "a\\256", "a\\1", "a\\12x", &"abc.".repeat(64)] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let longest = "abc.".repeat(63) + "a.";
        assert!(read(&longest).is_ok() == (longest.len() < NAME_BYTES_MAX), "255 with the root");
        assert!(name(&token("a"), None).is_err() && name(&token("a."), None).is_ok());
    }

    #[test]
    fn spans_and_numbers() {
        let table =
            [("0", Some(0)), ("1h30M", Some(5400)), ("1w2d3h4m5s", Some(788_645)), ("5m3", Some(303))];
        for (raw, secs) in table
            .into_iter()
            .chain(["", "m", "1x", "-1", "2147483648", "99999999999999999999"].map(|raw| (raw, None)))
        {
            assert_eq!(span(&token(raw)).ok(), secs, "{raw}");
        }
        assert_eq!(number(&token("65535"), 65535), Ok(65535));
        assert!(["65536", "", "+1", "1h"].iter().all(|raw| number(&token(raw), 65535).is_err()));
    }

    #[test]
    fn digits_become_bytes() {
        let decode = |read: fn(&[Token], &mut Vec<u8>) -> Result<(), Wrong>, words: &[&str]| {
            let mut wire = Vec::new();
            let tokens: Vec<Token> = words.iter().map(|raw| token(raw)).collect();
            read(&tokens, &mut wire).map(|()| wire).ok()
        };
        assert_eq!(decode(hex, &["0aF", "f1", "2"]), Some(vec![0x0a, 0xff, 0x12]));
        assert_eq!(decode(hex, &["0a1"]), None);
        assert_eq!(decode(hex, &["0g"]), None);
        assert_eq!(decode(base64, &["aGV", "sbG8="]), Some(b"hello".to_vec()));
        assert_eq!(decode(base64, &["aA=="]), Some(b"h".to_vec()));
        for bad in ["aGV", "aA=", "aA==aA==", "a*==", "aB=="] {
            assert_eq!(decode(base64, &[bad]), None, "{bad}");
        }
    }
}
