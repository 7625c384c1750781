//! Typed reading of a tree: every key asked for is known, the rest are faults, and all faults are collected so that
//! one start tells them all.

use ahash::AHashMap;

use crate::check::{Span, parse_duration};

use super::tree::{Kind, Member, Place, Value};

/// Something wrong with what was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub place: Place,
    pub text: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.place.file.is_empty() {
            true => write!(f, "{}", self.text),
            false => write!(f, "{}: {}", self.place, self.text),
        }
    }
}

/// Faults, and what is worth a warning.
#[derive(Default)]
pub struct Findings {
    pub faults: Vec<Fault>,
    /// Keys that are meant to secure the agent and cannot: faults, unless a later source takes them back.
    pub refusals: Vec<Fault>,
    pub warnings: Vec<Fault>,
}

/// The members of one object, taken one by one.
pub struct Fields<'a> {
    /// `services[0].check`; empty at the top.
    path: String,
    members: Vec<(String, &'a Member)>,
    taken: Vec<bool>,
}

impl<'a> Fields<'a> {
    /// `None`, and a fault, where the value is no object. A key that is `null` is a key that is not there.
    pub fn of(value: &'a Value, path: &str, findings: &mut Findings) -> Option<Self> {
        let Kind::Object(members) = &value.kind else {
            findings.wrong_type::<()>(path, "map", value);
            return None;
        };
        Some(Fields::new(members, path))
    }

    pub fn new(members: &'a [Member], path: &str) -> Self {
        let said = members.iter().filter(|member| member.value.kind != Kind::Null);
        let members: Vec<_> = said.map(|member| (member.key.to_lowercase(), member)).collect();
        let taken = vec![false; members.len()];
        Fields { path: path.into(), members, taken }
    }

    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    /// The last value given for a key.
    pub fn take(&mut self, key: &str) -> Option<&'a Value> {
        self.take_all(key).into_iter().next_back()
    }

    /// Every value given for a key, in order.
    pub fn take_all(&mut self, key: &str) -> Vec<&'a Value> {
        let mut values = Vec::new();
        for (at, (name, member)) in self.members.iter().enumerate() {
            if name == key {
                self.taken[at] = true;
                values.push(&member.value);
            }
        }
        values
    }

    pub fn text(&mut self, key: &str, findings: &mut Findings) -> Option<String> {
        let value = self.take(key)?;
        findings.text(&self.path(key), value)
    }

    pub fn bool(&mut self, key: &str, findings: &mut Findings) -> Option<bool> {
        let value = self.take(key)?;
        match value.kind {
            Kind::Bool(word) => Some(word),
            _ => findings.wrong_type(&self.path(key), "bool", value),
        }
    }

    /// A fraction is cut off.
    pub fn int(&mut self, key: &str, findings: &mut Findings) -> Option<i64> {
        let value = self.take(key)?;
        match value.kind {
            Kind::Int(number) => Some(number),
            Kind::Float(number) => Some(number as i64),
            _ => findings.wrong_type(&self.path(key), "int", value),
        }
    }

    pub fn float(&mut self, key: &str, findings: &mut Findings) -> Option<f64> {
        let value = self.take(key)?;
        match value.kind {
            Kind::Int(number) => Some(number as f64),
            Kind::Float(number) => Some(number),
            _ => findings.wrong_type(&self.path(key), "float64", value),
        }
    }

    /// As `int`, no less than 0 and no more than `most`.
    pub fn count(&mut self, key: &str, most: i64, findings: &mut Findings) -> Option<i64> {
        let place = self.place(key)?;
        let number = self.int(key, findings)?;
        if number < 0 {
            return findings.fault(
                place,
                format!("{} cannot be {number}. Must be greater than or equal to zero", self.path(key)),
            );
        }
        if number > most {
            return findings
                .fault(place, format!("{} cannot be {number}; expected at most {most}", self.path(key)));
        }
        Some(number)
    }

    pub fn duration(&mut self, key: &str, findings: &mut Findings) -> Option<Span> {
        let place = self.place(key)?;
        let text = self.text(key, findings)?;
        findings.duration(&self.path(key), &place, &text)
    }

    pub fn texts(&mut self, key: &str, findings: &mut Findings) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let path = self.path(key);
        let Kind::List(values) = &value.kind else {
            let text = format!("'{path}': source data must be an array or slice, got {}", value.kind_word());
            return findings.fault(value.place.clone(), text);
        };
        findings.texts(&path, values)
    }

    /// A map whose values are texts; maps given several times overlay one another.
    pub fn map(&mut self, key: &str, findings: &mut Findings) -> Option<Vec<(String, String, Place)>> {
        let path = self.path(key);
        let values = self.take_all(key);
        let (mut pairs, mut at) = (Vec::new(), AHashMap::new());
        for value in &values {
            let Kind::Object(members) = &value.kind else {
                findings.wrong_type::<()>(&path, "map", value);
                continue;
            };
            for Member { key, value } in members {
                let Some(text) = findings.text(&format!("{path}[{key}]"), value) else { continue };
                let pair = (key.clone(), text, value.place.clone());
                match at.get(key).and_then(|at: &usize| pairs.get_mut(*at)) {
                    Some(earlier) => *earlier = pair,
                    None => {
                        at.insert(key.clone(), pairs.len());
                        pairs.push(pair);
                    }
                }
            }
        }
        (!values.is_empty()).then_some(pairs)
    }

    /// A block that stands once.
    pub fn block(&mut self, key: &str, findings: &mut Findings) -> Option<Fields<'a>> {
        let path = self.path(key);
        let values = self.take_all(key);
        let last = values.last().copied()?;
        if values.len() > 1 {
            let text = format!("'{path}' expected a map, got 'slice'; the block stands here again");
            return findings.fault(last.place.clone(), text);
        }
        Fields::of(last, &path, findings)
    }

    /// Blocks under a key, each with its path: one block, several, or a list of them.
    pub fn blocks(&mut self, key: &str) -> Vec<(String, &'a Value)> {
        let path = self.path(key);
        let found = self.take_all(key);
        if let [value] = found.as_slice()
            && let Kind::Object(_) = value.kind
        {
            return vec![(path, value)];
        }
        let blocks = found.into_iter().flat_map(|value| match &value.kind {
            Kind::List(values) => values.iter().collect(),
            _ => vec![value],
        });
        blocks.enumerate().map(|(at, value)| (format!("{path}[{at}]"), value)).collect()
    }

    /// What `take` would give, left to be taken.
    pub fn peek(&self, key: &str) -> Option<&'a Value> {
        self.members.iter().rev().find(|(name, _)| name == key).map(|(_, member)| &member.value)
    }

    /// Where a key stands, if it does.
    pub fn place(&self, key: &str) -> Option<Place> {
        self.peek(key).map(|value| value.place.clone())
    }

    /// Faults for every key that nobody asked for.
    pub fn finish(&self, findings: &mut Findings) {
        for (at, (_, member)) in self.members.iter().enumerate() {
            if !self.taken[at] {
                let text = format!("invalid config key {}", self.path(&member.key));
                findings.fault::<()>(member.value.place.clone(), text);
            }
        }
    }
}

impl Findings {
    /// Notes a fault; there is no value then.
    pub fn fault<T>(&mut self, place: Place, text: impl Into<String>) -> Option<T> {
        self.faults.push(Fault { place, text: text.into() });
        None
    }

    pub fn refuse(&mut self, place: &Place, text: impl Into<String>) {
        self.refusals.push(Fault { place: place.clone(), text: text.into() });
    }

    pub fn warn(&mut self, place: &Place, text: impl Into<String>) {
        self.warnings.push(Fault { place: place.clone(), text: text.into() });
    }

    pub fn wrong_type<T>(&mut self, path: &str, expected: &str, found: &Value) -> Option<T> {
        let (word, shown) = (found.kind_word(), found.shown());
        let text =
            format!("'{path}' expected type '{expected}', got unconvertible type '{word}', value: '{shown}'");
        self.fault(found.place.clone(), text)
    }

    pub fn text(&mut self, path: &str, value: &Value) -> Option<String> {
        match &value.kind {
            Kind::Text(text) => Some(text.clone()),
            _ => self.wrong_type(path, "string", value),
        }
    }

    pub fn texts(&mut self, path: &str, values: &[Value]) -> Option<Vec<String>> {
        let each = values.iter().enumerate().map(|(at, value)| self.text(&format!("{path}[{at}]"), value));
        each.collect::<Vec<_>>().into_iter().collect()
    }

    pub fn no_list<T>(&mut self, path: &str, found: &Value) -> Option<T> {
        let word = found.kind_word();
        let text = format!("'{path}': source data must be an array or slice, got {word}");
        self.fault(found.place.clone(), text)
    }

    pub fn duration(&mut self, path: &str, place: &Place, text: &str) -> Option<Span> {
        match parse_duration(text) {
            Ok(span) => Some(span),
            Err(error) => self.fault(place.clone(), format!("{path}: invalid duration: {text:?}: {error}")),
        }
    }
}
