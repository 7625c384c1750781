//! Bodies of requests: JSON read as Consul reads it. Keys in any case, `null` is as good as absent, the last of two equal
//! keys counts, unknown keys and wrong types are refused, what follows the first value is not looked at
//! (`http-api.md` §1, §11). A reader takes the keys that it knows, and what is left over is unknown.

use std::fmt;

use base64::{DecodeError, Engine, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use crate::{
    catalog::{Map, Text},
    check::{Span, format_duration, parse_duration},
};

/// An object of which the known keys are taken one by one. A key is written `Name|alias`.
#[derive(Debug, Default)]
pub struct Object {
    pairs: Vec<(String, Json)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Int(i64),
    /// Beyond what a signed number holds.
    Large(u64),
    Float(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Why a body is refused. Go's words, as far as clients match on them.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

type Taken<T> = Result<Option<T>, Malformed>;

impl Object {
    pub fn parse(body: &[u8]) -> Result<Object, Malformed> {
        Ok(Json::parse(body)?.object("the body")?.unwrap_or_default())
    }

    /// A body that is a list of objects.
    pub fn parse_list(body: &[u8]) -> Result<Vec<Object>, Malformed> {
        let items = Json::parse(body)?.list("the body")?.into_iter();
        items.map(|item| Ok(item.object("the body")?.unwrap_or_default())).collect()
    }

    /// Whether a key says `null` and nothing else: to most readers that is no key at all.
    pub fn is_null(&self, key: &str) -> bool {
        let mut said = self.pairs.iter().filter(|(name, _)| is_named(name, key)).peekable();
        said.peek().is_some() && said.all(|(_, value)| *value == Json::Null)
    }

    /// A value of any kind.
    pub fn any(&mut self, key: &str) -> Taken<Json> {
        self.value(key, |value, _| Ok(value))
    }

    /// Bytes, as base64.
    pub fn bytes(&mut self, key: &str) -> Taken<Vec<u8>> {
        self.value(key, |value, key| {
            let text = value.text(key)?;
            BASE64_STANDARD.decode(&text).map_err(|error| {
                let at = match error {
                    DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                    DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len() / 4 * 4,
                };
                Malformed(format!("illegal base64 data at input byte {at}"))
            })
        })
    }

    /// An index: a number that is never below 0.
    pub fn index(&mut self, key: &str) -> Taken<u64> {
        self.value(key, |value, key| match value {
            Json::Int(number) if number >= 0 => Ok(number as u64),
            Json::Large(number) => Ok(number),
            other => Err(other.is_not("uint64", key)),
        })
    }

    pub fn text(&mut self, key: &str) -> Taken<String> {
        self.value(key, Json::text)
    }

    pub fn flag(&mut self, key: &str) -> Taken<bool> {
        self.value(key, |value, key| match value {
            Json::Bool(flag) => Ok(flag),
            other => Err(other.is_not("bool", key)),
        })
    }

    pub fn int(&mut self, key: &str) -> Taken<i64> {
        self.value(key, |value, key| match value {
            Json::Int(number) => Ok(number),
            other => Err(other.is_not("int", key)),
        })
    }

    pub fn float(&mut self, key: &str) -> Taken<f64> {
        self.value(key, Json::float)
    }

    pub fn floats(&mut self, key: &str) -> Taken<Vec<f64>> {
        self.value(key, |value, key| value.list(key)?.into_iter().map(|item| item.float(key)).collect())
    }

    /// A duration in Go's syntax, or a number of nanoseconds; its text is as Go prints it.
    pub fn span(&mut self, key: &str) -> Taken<Span> {
        self.value(key, |value, key| {
            let nanos = match value {
                Json::Int(nanos) => nanos,
                Json::Large(_) => i64::MAX,
                Json::Float(nanos) => nanos as i64,
                Json::Text(text) if text.is_empty() => 0,
                Json::Text(text) => parse_duration(&text).map_err(Malformed)?.nanos,
                other => return Err(other.is_not("time.Duration", key)),
            };
            Ok(Span { nanos, text: format_duration(nanos) })
        })
    }

    pub fn texts(&mut self, key: &str) -> Taken<Vec<String>> {
        self.value(key, |value, key| value.list(key)?.into_iter().map(|item| item.text(key)).collect())
    }

    /// Names and texts, in the order written.
    pub fn pairs(&mut self, key: &str) -> Taken<Vec<(String, String)>> {
        self.value(key, |value, key| value.entries(key, Json::text))
    }

    pub fn map(&mut self, key: &str) -> Taken<Map<Text>> {
        let pairs = self.pairs(key)?;
        Ok(pairs.map(|pairs| pairs.into_iter().map(|(name, text)| (name, Text::from(text))).collect()))
    }

    /// Names and lists of texts, as headers are.
    pub fn lists(&mut self, key: &str) -> Taken<Vec<(String, Vec<String>)>> {
        self.value(key, |value, key| {
            value.entries(key, |value, key| {
                value.list(key)?.into_iter().map(|item| item.text(key)).collect::<Result<_, _>>()
            })
        })
    }

    pub fn object(&mut self, key: &str) -> Taken<Object> {
        Ok(self.value(key, Json::object)?.flatten())
    }

    pub fn objects(&mut self, key: &str) -> Taken<Vec<Object>> {
        self.value(key, |value, key| {
            let objects = value.list(key)?.into_iter().map(|item| item.object(key));
            objects.map(|object| Ok(object?.unwrap_or(Object { pairs: Vec::new() }))).collect()
        })
    }

    /// Names and objects, in the order written.
    pub fn object_map(&mut self, key: &str) -> Taken<Vec<(String, Object)>> {
        self.value(key, |value, key| {
            value.entries(key, |value, key| Ok(value.object(key)?.unwrap_or(Object { pairs: Vec::new() })))
        })
    }

    /// Keys that are known and of no meaning here: what a client echoes of an answer.
    pub fn ignore(&mut self, key: &str) {
        self.pairs.retain(|(name, _)| !is_named(name, key));
    }

    /// Keys of what this agent does not have. Nothing may be lost silently, so only what says nothing is let through.
    pub fn refuse(&mut self, key: &str) -> Result<(), Malformed> {
        let said = |(name, value): &&(String, Json)| is_named(name, key) && !value.is_hollow();
        if let Some((name, _)) = self.pairs.iter().find(said) {
            return Err(Malformed(format!("json: field {name:?} is not supported by this agent")));
        }
        self.ignore(key);
        Ok(())
    }

    /// The Enterprise keys: unknown ones, unless they ask for what is here anyway.
    pub fn enterprise(&mut self) {
        let default = |value: &Json| match value {
            Json::Text(name) => name.is_empty() || name.eq_ignore_ascii_case("default"),
            other => *other == Json::Null,
        };
        self.pairs.retain(|(name, value)| !(is_named(name, "Namespace|Partition") && default(value)));
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// # Errors
    /// The first key that nobody took.
    pub fn finish(self) -> Result<(), Malformed> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(Malformed(format!("json: unknown field {name:?}"))),
        }
    }

    fn value<T>(&mut self, key: &str, read: impl Fn(Json, &str) -> Result<T, Malformed>) -> Taken<T> {
        let mut last = None;
        for (_, value) in self.pairs.extract_if(.., |(name, _)| is_named(name, key)) {
            if value != Json::Null {
                last = Some(read(value, key)?);
            }
        }
        Ok(last)
    }
}

impl Json {
    fn parse(body: &[u8]) -> Result<Json, Malformed> {
        let text = String::from_utf8_lossy(body);
        if text.trim_ascii().is_empty() {
            return Err(Malformed("EOF".into()));
        }
        let read = Json::deserialize(&mut serde_json::Deserializer::from_str(&text));
        read.map_err(|error| match error.is_eof() {
            true => Malformed("unexpected EOF".into()),
            false => Malformed(error.to_string()),
        })
    }

    fn text(self, key: &str) -> Result<String, Malformed> {
        match self {
            Json::Text(text) => Ok(text),
            Json::Null => Ok(String::new()),
            other => Err(other.is_not("string", key)),
        }
    }

    fn float(self, key: &str) -> Result<f64, Malformed> {
        match self {
            Json::Int(number) => Ok(number as f64),
            Json::Float(number) => Ok(number),
            Json::Null => Ok(0.0),
            other => Err(other.is_not("float64", key)),
        }
    }

    fn list(self, key: &str) -> Result<Vec<Json>, Malformed> {
        match self {
            Json::List(items) => Ok(items),
            Json::Null => Ok(Vec::new()),
            other => Err(other.is_not("[]", key)),
        }
    }

    fn object(self, key: &str) -> Taken<Object> {
        match self {
            Json::Object(pairs) => Ok(Some(Object { pairs })),
            Json::Null => Ok(None),
            other => Err(other.is_not("struct", key)),
        }
    }

    fn entries<T>(
        self,
        key: &str,
        read: impl Fn(Json, &str) -> Result<T, Malformed>,
    ) -> Result<Vec<(String, T)>, Malformed> {
        match self {
            Json::Object(pairs) => {
                pairs.into_iter().map(|(name, value)| Ok((name, read(value, key)?))).collect()
            }
            other => Err(other.is_not("map", key)),
        }
    }

    /// Says nothing: what a client prints of a field that nobody set.
    fn is_hollow(&self) -> bool {
        match self {
            Json::Null | Json::Bool(false) | Json::Int(0) => true,
            Json::Text(text) => text.is_empty(),
            Json::List(items) => items.is_empty(),
            Json::Object(pairs) => pairs.iter().all(|(_, value)| value.is_hollow()),
            Json::Bool(true) | Json::Int(_) | Json::Large(_) | Json::Float(_) => false,
        }
    }

    /// As Go calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "bool",
            Json::Int(_) | Json::Large(_) | Json::Float(_) => "number",
            Json::Text(_) => "string",
            Json::List(_) => "array",
            Json::Object(_) => "object",
        }
    }

    fn is_not(&self, wanted: &str, key: &str) -> Malformed {
        let key = key.split('|').next().unwrap_or(key);
        Malformed(format!("json: cannot unmarshal {} into field {key} of type {wanted}", self.kind()))
    }
}

fn is_named(name: &str, key: &str) -> bool {
    key.split('|').any(|key| name.eq_ignore_ascii_case(key))
}

/// Keeps what `serde_json::Value` does not: the order of the keys, and every one of equal ones.
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Json;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
            fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
                Ok(Json::Bool(flag))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
                Ok(Json::Int(number))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(i64::try_from(number).map_or(Json::Large(number), Json::Int))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
                Ok(Json::Float(number))
            }
            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.into()))
            }
            fn visit_string<E>(self, text: String) -> Result<Json, E> {
                Ok(Json::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Json::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = entries.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Json::Object(pairs))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault<T: fmt::Debug>(result: Result<T, Malformed>) -> String {
        result.unwrap_err().0
    }

    #[test]
    fn keys_are_found_in_any_case_and_the_last_counts() {
        let mut body =
            Object::parse(br#"{"port":1,"PORT":3,"Port":null,"tagged_addresses":{"a":"b"}} tail"#).unwrap();
        assert_eq!(body.int("Port"), Ok(Some(3)));
        assert_eq!(body.pairs("TaggedAddresses|tagged_addresses"), Ok(Some(vec![("a".into(), "b".into())])));
        assert_eq!(body.finish(), Ok(()));
    }

    #[test]
    fn null_is_absent() {
        let mut body = Object::parse(br#"{"Tags":null,"Meta":{"a":null}}"#).unwrap();
        assert_eq!(body.texts("Tags"), Ok(None));
        assert_eq!(body.pairs("Meta"), Ok(Some(vec![("a".into(), String::new())])));
        assert!(Object::parse(b"null").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(fault(Object::parse(b" \n")), "EOF");
        assert_eq!(fault(Object::parse(br#"{"a":"#)), "unexpected EOF");
        assert_eq!(
            fault(Object::parse(b"[]")),
            "json: cannot unmarshal array into field the body of type struct"
        );
        let body = || Object::parse(br#"{"Port":"80","P":80.5,"Tags":"","d":"5"}"#).unwrap();
        assert_eq!(fault(body().int("Port")), "json: cannot unmarshal string into field Port of type int");
        assert_eq!(fault(body().int("P")), "json: cannot unmarshal number into field P of type int");
        assert_eq!(fault(body().texts("Tags")), "json: cannot unmarshal string into field Tags of type []");
        assert_eq!(fault(body().span("D")), "time: missing unit in duration \"5\"");
        assert_eq!(fault(body().finish()), "json: unknown field \"Port\"");
    }

    #[test]
    fn durations_are_texts_or_nanoseconds() {
        let mut body = Object::parse(br#"{"a":"60s","b":1500000000,"c":1e9,"d":""}"#).unwrap();
        let texts = ["a", "b", "c", "d"].map(|key| body.span(key).unwrap().unwrap().text);
        assert_eq!(texts, ["1m0s", "1.5s", "1s", "0s"]);
    }

    #[test]
    fn what_is_not_here_is_refused_only_where_it_says_something() {
        let mut body =
            Object::parse(br#"{"Proxy":{"Mode":"","Expose":{}},"Connect":{"Native":true}}"#).unwrap();
        assert_eq!(body.refuse("Proxy"), Ok(()));
        assert_eq!(fault(body.refuse("Connect")), "json: field \"Connect\" is not supported by this agent");
        let mut body = Object::parse(br#"{"Namespace":"default","Partition":"team"}"#).unwrap();
        body.enterprise();
        assert_eq!(fault(body.finish()), "json: unknown field \"Partition\"");
    }

    #[test]
    fn depth_has_an_end() {
        assert!(Object::parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
