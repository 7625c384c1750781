//! Names into queries: by id, by the whole name, else by the template whose name is the longest that a name begins with.
//! A template's texts have variables in them, `${name.full}` and others, which stand for parts of the name asked for.
//! What such a text may be is checked when it is written; one that cannot be read is kept here as it stands.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use uuid::Uuid;

use super::{PREFIX, Query, ServiceQuery};
use crate::catalog::{Catalog, Map, Text, fold};

/// Why no query goes by a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoQuery {
    #[error("Query not found")]
    Unknown,
    #[error("prepared query templates can only be resolved up by name, not by ID")]
    TemplateById,
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    #[error("Bad Template.Type '{0}'")]
    Kind(Text),
    #[error("Bad Regexp: {0}")]
    Regexp(String),
    #[error("Bad format '{text}' in Service.{field}: {fault}")]
    Text { field: &'static str, text: Text, fault: String },
}

/// Of a compiled regular expression, in bytes; more is refused.
const REGEXP_BYTES_MAX: usize = 1 << 20;

impl Catalog {
    /// The query that a name or an id asks for, with a template's variables filled in.
    ///
    /// # Errors
    /// Where there is none.
    pub fn find_query(&self, asked: &str) -> Result<Arc<Query>, NoQuery> {
        let id = Some(asked).filter(|asked| asked.len() == uuid::fmt::Hyphenated::LENGTH);
        if let Some(query) = id.and_then(|id| self.query(Uuid::try_parse(id).ok()?)) {
            return if query.is_template() { Err(NoQuery::TemplateById) } else { Ok(query.clone()) };
        }
        let name = fold(asked);
        // Without a name there is the template of all other names, which none of them is.
        let whole = (!name.is_empty()).then(|| self.query_by_name(&name)).flatten();
        let Some(query) = whole.or_else(|| self.template_of(&name)) else { return Err(NoQuery::Unknown) };
        Ok(if query.is_template() { Arc::new(query.expanded(asked)) } else { query.clone() })
    }

    fn template_of(&self, name: &str) -> Option<&Arc<Query>> {
        let starts = (0..=name.len()).rev().filter(|end| name.is_char_boundary(*end));
        let mut found = starts.filter_map(|end| self.query_by_name(&name[..end]));
        found.find(|query| query.is_template())
    }
}

impl Query {
    /// Whether its template can be used, if it is one.
    ///
    /// # Errors
    /// The first fault.
    pub fn check_template(&self) -> Result<(), InvalidTemplate> {
        if !self.is_template() {
            return Ok(());
        }
        if *self.template.kind != *PREFIX {
            return Err(InvalidTemplate::Kind(self.template.kind.clone()));
        }
        if !self.template.regexp.is_empty() {
            compile(&self.template.regexp).map_err(InvalidTemplate::Regexp)?;
        }
        let mut fault = None;
        self.service.with_texts(|field, text| {
            if let Err(found) = parse(text) {
                fault.get_or_insert_with(|| InvalidTemplate::Text {
                    field,
                    text: text.clone(),
                    fault: found,
                });
            }
            text.clone()
        });
        fault.map_or(Ok(()), Err)
    }

    /// As it is for a name, which it is a template for.
    fn expanded(&self, asked: &str) -> Query {
        let expansion = Expansion::of(self, asked);
        let mut service = self.service.with_texts(|_, text| expansion.fill(text));
        if self.template.remove_empty_tags {
            let is_there = |tag: &&Text| !tag.is_empty();
            let tags = service.tags.map(|tags| tags.iter().filter(is_there).cloned().collect());
            service.tags = tags;
        }
        Query { service, ..self.clone() }
    }
}

impl ServiceQuery {
    /// With every text put through `change`, which is told the field.
    fn with_texts(&self, mut change: impl FnMut(&'static str, &Text) -> Text) -> ServiceQuery {
        let list =
            |field, list: &Option<Arc<[Text]>>, change: &mut dyn FnMut(&'static str, &Text) -> Text| {
                list.as_ref().map(|list| list.iter().map(|text| change(field, text)).collect())
            };
        let map = |field, map: &Option<Map<Text>>, change: &mut dyn FnMut(&'static str, &Text) -> Text| {
            map.as_ref().map(|map| map.iter().map(|(key, text)| (key.clone(), change(field, text))).collect())
        };
        let mut all = self.clone();
        all.service = change("Service", &self.service);
        all.near = change("Near", &self.near);
        all.peer = change("Peer", &self.peer);
        all.tags = list("Tags", &self.tags, &mut change);
        all.ignore_checks = list("IgnoreCheckIDs", &self.ignore_checks, &mut change);
        all.failover.datacenters = list("Failover.Datacenters", &self.failover.datacenters, &mut change);
        if let Some(targets) = &mut all.failover.targets {
            for target in Arc::make_mut(targets) {
                target.peer = change("Failover.Targets", &target.peer);
                target.datacenter = change("Failover.Targets", &target.datacenter);
            }
        }
        all.node_meta = map("NodeMeta", &self.node_meta, &mut change);
        all.service_meta = map("ServiceMeta", &self.service_meta, &mut change);
        all
    }
}

/// What the variables stand for.
struct Expansion<'a> {
    full: &'a str,
    prefix: &'a str,
    suffix: &'a str,
    /// Of the regular expression in the name; none where it does not match.
    groups: Vec<&'a str>,
}

impl<'a> Expansion<'a> {
    fn of(query: &'a Query, asked: &'a str) -> Self {
        let regexp = &query.template.regexp;
        let regexp = (!regexp.is_empty()).then(|| compile(regexp).ok()).flatten();
        let found = regexp.and_then(|regexp| regexp.captures(asked));
        let groups =
            found.map(|groups| groups.iter().map(|group| group.map_or("", |it| it.as_str())).collect());
        Expansion {
            full: asked,
            prefix: &query.name,
            // In any spelling: the name was found without regard to case.
            suffix: asked.get(query.name.len()..).unwrap_or(""),
            groups: groups.unwrap_or_default(),
        }
    }

    fn fill(&self, text: &Text) -> Text {
        match parse(text) {
            Ok(parts) if matches!(parts[..], [] | [Part::Plain(_)]) && !text.contains("$${") => text.clone(),
            Ok(parts) => parts.into_iter().map(|part| self.of_part(part)).collect::<String>().into(),
            Err(_) => text.clone(),
        }
    }

    fn of_part<'b>(&'b self, part: Part<'b>) -> &'b str {
        match part {
            Part::Plain(text) => text,
            Part::Full => self.full,
            Part::Prefix => self.prefix,
            Part::Suffix => self.suffix,
            Part::Segment => "",
            Part::Match(group) => self.groups.get(group).copied().unwrap_or(""),
        }
    }
}

enum Part<'a> {
    Plain(&'a str),
    Full,
    Prefix,
    Suffix,
    /// There are no network segments.
    Segment,
    Match(usize),
}

/// `$${` is a `${` that means nothing.
fn parse(text: &str) -> Result<Vec<Part<'_>>, String> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            parts.push(Part::Plain(&rest[..at - 1]));
            parts.push(Part::Plain("${"));
            rest = &rest[at + 2..];
            continue;
        }
        parts.push(Part::Plain(&rest[..at]));
        let inside = &rest[at + 2..];
        let end = inside.find('}').ok_or("expected a closing brace")?;
        parts.push(variable(inside[..end].trim())?);
        rest = &inside[end + 1..];
    }
    parts.push(Part::Plain(rest));
    parts.retain(|part| !matches!(part, Part::Plain("")));
    Ok(parts)
}

fn variable(text: &str) -> Result<Part<'static>, String> {
    Ok(match text {
        "name.full" => Part::Full,
        "name.prefix" => Part::Prefix,
        "name.suffix" => Part::Suffix,
        "agent.segment" => Part::Segment,
        other => {
            let group = other.strip_prefix("match(").and_then(|rest| rest.strip_suffix(')'));
            let expected = || {
                format!(
                    "found {other:?}; expected name.full, name.prefix, name.suffix, agent.segment or match(N)"
                )
            };
            Part::Match(group.and_then(|group| group.trim().parse().ok()).ok_or_else(expected)?)
        }
    })
}

/// What one server could compile and another could not would only be asked for differently: nothing is decided by it
/// while commands are applied.
fn compile(regexp: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(regexp).size_limit(REGEXP_BYTES_MAX).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("it takes more than {REGEXP_BYTES_MAX} bytes, compiled"),
        error => error.to_string(),
    })
}
