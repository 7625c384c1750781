//! Node meta as TXT records (`dns.md` §24): `key=value` by RFC 1464, cut into strings of at most 255 bytes.

use super::wire::{kind, put_head};

const STRING_BYTES_MAX: usize = 255;

/// Appends type, class, TTL and data of one pair's record; the owner stands before it.
pub fn put_meta(out: &mut Vec<u8>, ttl_secs: u32, key: &str, value: &str) {
    put_head(out, kind::TXT, ttl_secs, 0);
    let data_at = out.len();
    put_strings(out, key, value);
    let length = (out.len() - data_at) as u16;
    out[data_at - 2..data_at].copy_from_slice(&length.to_be_bytes());
}

fn put_strings(out: &mut Vec<u8>, key: &str, value: &str) {
    let text = text_of(key, value);
    if text.is_empty() {
        out.push(0);
    }
    for string in text.as_bytes().chunks(STRING_BYTES_MAX) {
        out.push(string.len() as u8);
        out.extend_from_slice(string);
    }
}

/// A key that begins with `rfc1035-` gives the value alone. In others back-quotes are doubled, and in the key `=` and
/// the spaces around it are marked with one.
fn text_of(key: &str, value: &str) -> String {
    if key.get(..8).is_some_and(|prefix| prefix.eq_ignore_ascii_case("rfc1035-")) {
        return value.to_string();
    }
    let bare = key.trim_matches(' ');
    let (before, after) = if bare.is_empty() {
        (key.len(), 0)
    } else {
        (key.len() - key.trim_start_matches(' ').len(), key.len() - key.trim_end_matches(' ').len())
    };
    let mut text = "` ".repeat(before);
    for letter in bare.chars() {
        if matches!(letter, '`' | '=') {
            text.push('`');
        }
        text.push(letter);
    }
    text.push_str(&"` ".repeat(after));
    text.push('=');
    text.push_str(&value.replace('`', "``"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_texts() {
        let table = [
            ("rack", "r7", "rack=r7"),
            ("RFC1035-x", "raw `text`", "raw `text`"),
            ("zone", "a=b", "zone=a=b"),
            ("q", "a`b", "q=a``b"),
            ("a=`b", "", "a`=``b="),
            (" k ", "v", "` k` =v"),
            ("  ", "v", "` ` =v"),
            ("dir", "c:\\\\dir", "dir=c:\\\\dir"),
        ];
        for (key, value, text) in table {
            assert_eq!(text_of(key, value), text);
        }
    }

    #[test]
    fn long_texts_are_split() {
        let mut out = Vec::new();
        put_meta(&mut out, 0, "k", &"v".repeat(300));
        assert_eq!(out[8..10], 304u16.to_be_bytes());
        assert_eq!((out[10], out[10 + 256]), (255, 47));
        let mut empty = Vec::new();
        put_meta(&mut empty, 0, "rfc1035-x", "");
        assert_eq!(empty[8..], [0, 1, 0]);
    }
}
