//! Filters that nobody wrote, for `LICTOR_FUZZ_SECS` seconds (1 unless set) from the seed `LICTOR_FUZZ_SEED`. What is
//! drawn as a tree and written out is read back as that tree, and chooses what a reader of the answer's own JSON would.
//! What was mutated is refused, or chooses something.

#![allow(
    clippy::disallowed_methods,
    reason = "how long to go on is asked of a clock; nothing is judged by it"
)]

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use serde_json::Value;

use super::*;
use crate::{
    catalog::{self, Check, Map, Node, Service, ServiceAddress, Text},
    http::encode::{self, Json},
};

#[test]
fn filters_choose_what_a_reader_of_the_answer_would() {
    let number = |name: &str| env::var(name).ok().and_then(|number| number.parse().ok());
    let seed = number("LICTOR_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("LICTOR_FUZZ_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let (mut shown, mut all) = (0_u64, 0_u64);
    let end = Instant::now() + Duration::from_secs(number("LICTOR_FUZZ_SECS").unwrap_or(1));
    while Instant::now() < end || all < 2000 {
        let instance = instance(&mut random);
        let agrees = [
            agrees::<CatalogService>(&mut random, CATALOG, &instance, |json, instance| {
                encode::service_node(json, &instance.node, &instance.service);
            }),
            agrees::<HealthService>(&mut random, HEALTH, &instance, encode::instance),
            agrees::<NodeRecord>(&mut random, NODE, &instance.node, encode::node),
        ];
        all += 3;
        shown += agrees.into_iter().map(u64::from).sum::<u64>();
    }
    assert!(
        shown > all / 10 && shown < all * 9 / 10,
        "something is chosen, and something not: {shown} of {all}"
    );
}

/// Paths through the answers with the kind of what is there. `*` stands for a key that a map may have or not.
type Paths = &'static [(&'static str, Kind)];

const NODE: Paths = &[
    ("ID", Kind::Text),
    ("Node", Kind::Text),
    ("Address", Kind::Text),
    ("PeerName", Kind::Text),
    ("TaggedAddresses", Kind::Keys),
    ("TaggedAddresses.*", Kind::Text),
    ("Meta", Kind::Keys),
    ("Meta.*", Kind::Text),
];
const CATALOG: Paths = &[
    ("Node", Kind::Text),
    ("NodeMeta.*", Kind::Text),
    ("ServiceID", Kind::Text),
    ("ServiceName", Kind::Text),
    ("ServiceTags", Kind::Texts),
    ("ServiceMeta", Kind::Keys),
    ("ServiceMeta.*", Kind::Text),
    ("ServicePort", Kind::Number),
    ("ServiceTaggedAddresses", Kind::Keys),
    ("ServiceTaggedAddresses.*.Port", Kind::Number),
    ("ServiceTaggedAddresses.*.Address", Kind::Text),
    ("ServiceWeights.Passing", Kind::Number),
    ("ServiceEnableTagOverride", Kind::Flag),
    ("ServiceProxy.Mode", Kind::Text),
];
const HEALTH: Paths = &[
    ("Node.Node", Kind::Text),
    ("Node.Meta.*", Kind::Text),
    ("Service.Kind", Kind::Text),
    ("Service.Tags", Kind::Texts),
    ("Service.Port", Kind::Number),
    ("Service.Meta", Kind::Keys),
    ("Service.SocketPath", Kind::Text),
    ("Service.TaggedAddresses.*.Port", Kind::Number),
    ("Service.Proxy.Upstreams", Kind::List),
    ("Service.Proxy.Upstreams.DestinationName", Kind::Text),
    ("Service.Connect.Native", Kind::Flag),
    ("Checks", Kind::List),
    ("Checks.Status", Kind::Text),
    ("Checks.ServiceTags", Kind::Texts),
    ("Checks.ExposedPort", Kind::Number),
];
/// Few enough that what is looked for is often there.
const WORDS: &[&str] = &["a", "b", "ab", "a-b", "", "1", "0", "7", "true", "é \"x\\"];

/// Whether the filter shows the record; all that must hold of it is checked.
fn agrees<S: Shape>(
    random: &mut Rng,
    paths: Paths,
    record: &S::Record,
    write: impl Fn(&mut Json, &S::Record),
) -> bool {
    let tree = tree(random, paths, 3);
    let text = written(random, &tree);
    assert_eq!(parse::parse(&text).as_ref(), Ok(&tree), "{text}");
    let filter = Filter::<S>::parse(&text).unwrap_or_else(|invalid| panic!("{text}: {invalid}"));
    let mut json = Json::default();
    write(&mut json, record);
    let json = serde_json::from_slice(&json.into_bytes()).expect("what we write is JSON");
    let shown = filter.shows(record);
    assert_eq!(shown, chosen(&tree, &json), "{text} of {json}");
    if let Ok(filter) = Filter::<S>::parse(&mutated(random, &text)) {
        filter.shows(record);
    }
    shown
}

fn tree(random: &mut Rng, paths: Paths, depth: usize) -> Tree {
    let some = |random: &mut Rng| (0..random.usize(2..4)).map(|_| tree(random, paths, depth - 1)).collect();
    // Of two like ones within one another the inner one is written in parentheses, and stays.
    match random.u8(..8) {
        0 if depth > 0 => Tree::Any(some(random)),
        1 if depth > 0 => Tree::All(some(random)),
        2 if depth > 0 => Tree::Not(tree(random, paths, depth - 1).into()),
        _ => {
            let (path, kind) = paths[random.usize(..paths.len())];
            let word = |random: &mut Rng| WORDS[random.usize(..WORDS.len())];
            let selector = path.split('.').map(|part| if part == "*" { word(random) } else { part }.into());
            let selector = selector.collect();
            let operator = match kind {
                Kind::Text => [Operator::Equal, Operator::In, Operator::Matches][random.usize(..3)],
                Kind::Texts | Kind::Keys => [Operator::In, Operator::Empty][random.usize(..2)],
                Kind::List => Operator::Empty,
                _ => Operator::Equal,
            };
            let value = match (operator, kind) {
                (Operator::Empty, _) => "",
                (Operator::Matches, _) => [".", "^a", "b$", "^$", "a|7"][random.usize(..5)],
                (_, Kind::Number) => ["0", "1", "7", "0x7"][random.usize(..4)],
                (_, Kind::Flag) => ["true", "0", "F", "1"][random.usize(..4)],
                _ => word(random),
            };
            Tree::Match(Clause { selector, operator, denied: random.bool(), value: value.into() })
        }
    }
}

fn written(random: &mut Rng, tree: &Tree) -> String {
    let blank = [" ", "\t", "  ", "\n"][random.usize(..4)];
    let mut within = |tree: &Tree| match tree {
        Tree::Any(_) | Tree::All(_) => format!("({})", written(random, tree)),
        tree => written(random, tree),
    };
    match tree {
        Tree::Any(trees) => trees.iter().map(within).collect::<Vec<_>>().join(&format!("{blank}or ")),
        Tree::All(trees) => trees.iter().map(within).collect::<Vec<_>>().join(&format!(" and{blank}")),
        Tree::Not(tree) => format!("not{blank}{}", within(tree)),
        Tree::Match(Clause { selector, operator, denied, value }) => {
            let mut parts = selector.iter();
            let first = parts.next().cloned().unwrap_or_default();
            let is_word =
                |part: &str| part.starts_with(char::is_alphabetic) && part.is_ascii() && !part.contains('-');
            let selector = parts.fold(first, |before, part| match is_word(part) {
                true => format!("{before}.{part}"),
                false => format!("{before}[`{part}`]"),
            });
            let value = match value.as_str() {
                "0" | "1" | "7" if random.bool() => value.clone(),
                "a" | "true" if random.bool() => value.clone(),
                value => format!("`{value}`"),
            };
            match (operator, denied) {
                (Operator::Equal, false) => format!("{selector}=={value}"),
                (Operator::Equal, true) => format!("{selector}{blank}!= {value}"),
                (Operator::Empty, false) => format!("{selector}{blank}is empty"),
                (Operator::Empty, true) => format!("{selector} is{blank}not empty"),
                (Operator::In, false) if random.bool() => format!("{selector} contains{blank}{value}"),
                (Operator::In, true) if random.bool() => format!("{selector} not{blank}contains {value}"),
                (Operator::In, false) => format!("{value} in{blank}{selector}"),
                (Operator::In, true) => format!("{value}{blank}not in {selector}"),
                (Operator::Matches, false) => format!("{selector} matches{blank}{value}"),
                (Operator::Matches, true) => format!("{selector} not matches {value}"),
            }
        }
    }
}

fn mutated(random: &mut Rng, text: &str) -> String {
    const PIECES: &[&str] =
        &["(", ")", "not ", " in ", "\"", "`", "[", "]", ".", "0", "\\x", "é", " ", "is", "\0"];
    let mut chars: Vec<String> = text.chars().map(String::from).collect();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=chars.len());
        let to = random.usize(at..=chars.len().min(at + 5));
        let piece = PIECES[random.usize(..PIECES.len())].to_string();
        chars.splice(at..to, [piece]);
    }
    chars.concat()
}

/// What a reader of the answer would choose, without a thought for speed.
fn chosen(tree: &Tree, json: &Value) -> bool {
    match tree {
        Tree::Any(trees) => trees.iter().any(|tree| chosen(tree, json)),
        Tree::All(trees) => trees.iter().all(|tree| chosen(tree, json)),
        Tree::Not(tree) => !chosen(tree, json),
        Tree::Match(clause) => matches(clause, &clause.selector, json, false),
    }
}

/// `in_map`: what is not there is missing; elsewhere it was left out because it is empty.
fn matches(clause: &Clause, path: &[String], json: &Value, in_map: bool) -> bool {
    let Some((first, rest)) = path.split_first() else { return says(clause, json, in_map) };
    let is_map = in_map || first.ends_with("Meta") || first.ends_with("TaggedAddresses");
    match json {
        Value::Array(items) => items.iter().any(|item| matches(clause, path, item, false)),
        Value::Null if in_map => missing(clause),
        json => match json.get(first) {
            Some(value) => matches(clause, rest, value, is_map && !in_map),
            None if in_map => missing(clause),
            None if first == "Upstreams" && !rest.is_empty() => false,
            None => matches(clause, rest, &Value::Null, is_map),
        },
    }
}

fn missing(clause: &Clause) -> bool {
    clause.denied || clause.operator == Operator::Matches
}

fn says(clause: &Clause, json: &Value, is_map: bool) -> bool {
    let value = clause.value.as_str();
    let says = match (clause.operator, json) {
        (Operator::Equal, Value::Number(number)) => {
            let wanted = value.strip_prefix("0x").unwrap_or(value);
            number.to_string() == wanted
        }
        (Operator::Equal, Value::Bool(flag)) => *flag == matches!(value, "true" | "1"),
        (Operator::Equal, Value::String(text)) => text == value,
        (Operator::Equal, _) => match clause.selector.last().map(String::as_str) {
            Some("Port" | "Native") => matches!(value, "0" | "F"),
            _ => value.is_empty(),
        },
        (Operator::In, Value::String(text)) => text.contains(value),
        (Operator::In, Value::Array(items)) => items.contains(&value.into()),
        (Operator::In, Value::Object(map)) => map.contains_key(value),
        (Operator::In, _) => value.is_empty() && !is_map,
        (Operator::Empty, Value::Array(items)) => items.is_empty(),
        (Operator::Empty, Value::Object(map)) => map.is_empty(),
        (Operator::Empty, _) => true,
        (Operator::Matches, json) => match (value, json.as_str().unwrap_or_default()) {
            (".", text) => !text.is_empty(),
            ("^a", text) => text.starts_with('a'),
            ("b$", text) => text.ends_with('b'),
            ("^$", text) => text.is_empty(),
            (_, text) => text.contains(['a', '7']),
        },
    };
    says != clause.denied
}

fn instance(random: &mut Rng) -> catalog::Instance {
    let word = |random: &mut Rng| Text::from(WORDS[random.usize(..WORDS.len())]);
    let number = |random: &mut Rng| [0, 1, 7][random.usize(..3)];
    let texts = |random: &mut Rng| -> Arc<[Text]> { (0..random.usize(..3)).map(|_| word(random)).collect() };
    let map = |random: &mut Rng| -> Option<Map<Text>> {
        let map = (0..random.usize(..4)).map(|_| (word(random), word(random))).collect();
        random.bool().then_some(map)
    };
    let addresses: Map<ServiceAddress> = (0..random.usize(..4))
        .map(|_| (word(random), ServiceAddress { address: word(random), port: number(random) as u16 }))
        .collect();
    let node = Node {
        id: random.bool().then(|| uuid::Uuid::from_u128(random.u128(..))),
        name: word(random),
        address: word(random),
        tagged_addresses: map(random),
        meta: map(random),
        ..Node::default()
    };
    let service = Service {
        id: word(random),
        name: word(random),
        kind: word(random),
        tags: texts(random),
        tagged_addresses: random.bool().then_some(addresses),
        port: number(random) as u16,
        socket_path: word(random),
        meta: map(random),
        weights: catalog::Weights { passing: number(random), warning: 1 },
        enable_tag_override: random.bool(),
        ..Service::default()
    };
    let checks = |random: &mut Rng| -> Arc<[Arc<Check>]> {
        let check = |random: &mut Rng| Check {
            status: (&*word(random)).into(),
            service_tags: texts(random),
            exposed_port: number(random) as u16,
            ..Check::default()
        };
        (0..random.usize(..3)).map(|_| Arc::new(check(random))).collect()
    };
    catalog::Instance {
        node: node.into(),
        node_checks: checks(random),
        service: service.into(),
        checks: checks(random),
        health: catalog::Health::Passing,
    }
}
