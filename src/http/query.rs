//! What stands after the `?`, and percent-encoding. Of a parameter that is given twice the first counts.

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// `None` where it cannot be read: an escape that is none, or a `;`.
    pub fn parse(raw: &str) -> Option<Query> {
        if raw.contains(';') {
            return None;
        }
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
        });
        Some(Query(pairs.collect::<Option<_>>()?))
    }

    /// Whether it is given at all, empty or not.
    pub fn has(&self, name: &str) -> bool {
        self.all(name).next().is_some()
    }

    /// Its value; an empty one is as good as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    /// As if it had not been given.
    pub fn forget(&mut self, name: &str) {
        self.0.retain(|(other, _)| other != name);
    }

    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Takes percent-encoding off; `None` where an escape is none. What is no UTF-8 becomes U+FFFD.
pub fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.into());
    }
    Some(String::from_utf8_lossy(&decode_bytes(text)?).into_owned())
}

/// As [`decode`], in bytes.
pub fn decode_bytes(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = tail;
    }
    Some(bytes)
}

/// Puts percent-encoding on a path.
pub fn encode(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => encoded.push(byte.into()),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' => {
                encoded.push(byte.into());
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// A truth value, in Go's spellings.
pub fn parse_flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        let query = Query::parse("a=1&b&a=2&tag=x+y%2f&&c=%C3%A9%ff").unwrap();
        assert_eq!(
            (query.get("a"), query.get("b"), query.has("b"), query.has("d")),
            (Some("1"), None, true, false)
        );
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["x y/"]);
        assert_eq!(query.get("c"), Some("é\u{fffd}"));
        for bad in ["a=%zz", "a=%2", "a=1;b=2", "%=1"] {
            assert_eq!(Query::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn encoding_is_taken_off_and_put_on() {
        let path = "/v1/a b/é%?#";
        assert_eq!(encode(path), "/v1/a%20b/%C3%A9%25%3F%23");
        assert_eq!(decode(&encode(path)).as_deref(), Some(path));
    }
}
