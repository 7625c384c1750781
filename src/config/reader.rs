//! Typed reading of a tree: every key asked for is known, the rest are faults, and all faults are collected so that
//! one start tells them all.

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
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Faults, and what is worth a warning.
#[derive(Default)]
pub struct Findings {
    pub faults: Vec<Fault>,
    pub warnings: Vec<Fault>,
}

/// The members of one object, taken one by one.
pub struct Fields<'a> {
    /// `services[0].check`; empty at the top.
    path: String,
    members: Vec<(String, &'a Member)>,
    taken: Vec<bool>,
    pub place: Place,
}

impl<'a> Fields<'a> {
    /// `None`, and a fault, where the value is no object.
    pub fn of(value: &'a Value, path: &str, findings: &mut Findings) -> Option<Self> {
        let Kind::Object(members) = &value.kind else {
            findings.wrong_type::<()>(path, "map", value);
            return None;
        };
        let members: Vec<_> = members.iter().map(|member| (member.key.to_lowercase(), member)).collect();
        let taken = vec![false; members.len()];
        Some(Fields { path: path.into(), members, taken, place: value.place.clone() })
    }

    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }

    /// The last value given for a key; `null` is the same as no value.
    pub fn take(&mut self, key: &str) -> Option<&'a Value> {
        self.take_all(key).into_iter().next_back()
    }

    /// Every value given for a key, in order.
    pub fn take_all(&mut self, key: &str) -> Vec<&'a Value> {
        let mut values = Vec::new();
        for (at, (name, member)) in self.members.iter().enumerate() {
            if name == key {
                self.taken[at] = true;
                if member.value.kind != Kind::Null {
                    values.push(&member.value);
                }
            }
        }
        values
    }

    pub fn text(&mut self, key: &str, findings: &mut Findings) -> Option<String> {
        let value = self.take(key)?;
        match &value.kind {
            Kind::Text(text) => Some(text.clone()),
            _ => findings.wrong_type(&self.path(key), "string", value),
        }
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

    /// As `int`, no less than 0 and no more than `most`.
    pub fn count(&mut self, key: &str, most: i64, findings: &mut Findings) -> Option<i64> {
        let place = self.peek(key)?.place.clone();
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
        let place = self.peek(key)?.place.clone();
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
        let each = values.iter().enumerate().map(|(at, value)| match &value.kind {
            Kind::Text(text) => Some(text.clone()),
            _ => findings.wrong_type(&format!("{path}[{at}]"), "string", value),
        });
        each.collect::<Vec<_>>().into_iter().collect()
    }

    /// A map whose values are texts; maps given several times overlay one another.
    pub fn map(&mut self, key: &str, findings: &mut Findings) -> Option<Vec<(String, String, Place)>> {
        let path = self.path(key);
        let values = self.take_all(key);
        let mut pairs = Vec::new();
        for value in &values {
            let Kind::Object(members) = &value.kind else {
                findings.wrong_type::<()>(&path, "map", value);
                continue;
            };
            for member in members {
                match &member.value.kind {
                    Kind::Text(text) => {
                        pairs.push((member.key.clone(), text.clone(), member.value.place.clone()))
                    }
                    _ => drop(findings.wrong_type::<()>(
                        &format!("{path}[{}]", member.key),
                        "string",
                        &member.value,
                    )),
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
            let text = format!("'{path}' expected a map, got 'slice': the block stands here again");
            return findings.fault(last.place.clone(), text);
        }
        Fields::of(last, &path, findings)
    }

    /// Blocks under a key, each with its path: several blocks, or a list of them.
    pub fn blocks(&mut self, key: &str) -> Vec<(String, &'a Value)> {
        let path = self.path(key);
        let mut blocks: Vec<&'a Value> = Vec::new();
        for value in self.take_all(key) {
            match &value.kind {
                Kind::List(values) => blocks.extend(values),
                _ => blocks.push(value),
            }
        }
        blocks.into_iter().enumerate().map(|(at, value)| (format!("{path}[{at}]"), value)).collect()
    }

    /// Where a key stands, if it does.
    pub fn peek(&self, key: &str) -> Option<&'a Value> {
        let named = self.members.iter().rev().find(|(name, _)| name == key)?;
        (named.1.value.kind != Kind::Null).then_some(&named.1.value)
    }

    /// Faults for every key that nobody asked for.
    pub fn finish(self, findings: &mut Findings) {
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

    pub fn warn(&mut self, place: &Place, text: impl Into<String>) {
        self.warnings.push(Fault { place: place.clone(), text: text.into() });
    }

    pub fn wrong_type<T>(&mut self, path: &str, expected: &str, found: &Value) -> Option<T> {
        let (word, shown) = (found.kind_word(), found.shown());
        let text =
            format!("'{path}' expected type '{expected}', got unconvertible type '{word}', value: {shown}");
        self.fault(found.place.clone(), text)
    }

    pub fn duration(&mut self, path: &str, place: &Place, text: &str) -> Option<Span> {
        match parse_duration(text) {
            Ok(span) => Some(span),
            Err(error) => self.fault(place.clone(), format!("{path}: invalid duration: {text:?}: {error}")),
        }
    }
}
