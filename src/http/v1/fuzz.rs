//! Bodies of registrations, sessions and transactions as nobody should send them: mutations of `tests/corpus/bodies/` for `LICTOR_FUZZ_SECS`
//! seconds (1 unless set) from the seed `LICTOR_FUZZ_SEED`. Each is put to every route that takes one: it is refused with
//! a 4xx or 5xx and a text, or becomes something valid. A catalog takes what the catalog's routes make of it.

#![allow(
    clippy::disallowed_methods,
    reason = "how long to go on is asked of a clock; nothing is judged by it"
)]

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use fastrand::Rng;
use serde_json::Value;

use super::{coordinate, definition, operator, query, register, session, txn};
use crate::{
    catalog::{Catalog, Command, Coordinate, QueryWrite, SessionWrite, Source, Text},
    check::{Definition, ServiceDefinition},
    http::{
        json::Object,
        reply::{Body, Fault, Reply},
    },
};

/// What mutations throw in.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\ud800",
    "null",
    "true",
    "-1",
    "65536",
    "1e999",
    "99999999999999999999",
    "\"9999999h\"",
    "\"-5s\"",
    "\"\"",
    "\"Check\":{\"TTL\":\"1s\"}",
    "\"Checks\":[{}]",
    "\"Service\":{\"Service\":\"a\"}",
    "\"CheckID\":\"c\",",
    "\"Node\":\"oak\",",
    "{\"KV\":{\"Verb\":\"set\",\"Key\":\"a\"}},",
    "\"lock\"",
    "\"NodeChecks\":[],",
    "\"consul-x\":\"1\"",
    "${match(1)}",
    "${",
    "\u{0}",
    "é",
];

#[test]
fn mutated_bodies_are_refused_or_become_something_valid() {
    let number = |name: &str| env::var(name).ok().and_then(|number| number.parse().ok());
    let seed = number("LICTOR_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("LICTOR_FUZZ_SEED={seed}");
    let (corpus, mut random) = (corpus(), Rng::with_seed(seed));
    let mut tally = Tally::default();
    corpus.iter().for_each(|body| tally.put(body));
    assert!(tally.services > 0 && tally.checks > 0 && tally.commands > 0, "the corpus is taken: {tally:?}");
    let beside = [tally.queries, tally.coordinates, tally.autopilots, tally.transactions];
    assert!(beside.iter().all(|count| *count > 0), "the corpus is taken: {tally:?}");
    let end = Instant::now() + Duration::from_secs(number("LICTOR_FUZZ_SECS").unwrap_or(1));
    while Instant::now() < end || tally.bodies < 1000 {
        tally.put(&mutate(&mut random, &corpus));
        tally.put(&reshaped(&mut random, &corpus));
    }
    println!("{tally:?}");
}

/// What became of all of them.
#[derive(Debug, Default)]
struct Tally {
    bodies: u64,
    services: u64,
    checks: u64,
    commands: u64,
    transactions: u64,
    applied: u64,
    queries: u64,
    coordinates: u64,
    autopilots: u64,
}

impl Tally {
    fn put(&mut self, body: &[u8]) {
        self.bodies += 1;
        let own = Text::from("dc1");
        let parsed = || Object::parse(body).map_err(Fault::from);
        let service = taken(parsed().and_then(definition::service));
        let check = taken(parsed().and_then(definition::check));
        self.services += u64::from(service.is_some());
        self.checks += u64::from(check.is_some());
        service.iter().for_each(assert_whole);
        check.iter().for_each(assert_written);
        let mut catalog = Catalog::default();
        for decode in [register::registration, register::deregistration] {
            let Some(command) = taken(parsed().and_then(|body| decode(body, &own))) else { continue };
            self.commands += 1;
            self.applied += u64::from(catalog.apply(command).0.is_ok());
            catalog.assert_consistent();
        }
        let id = uuid::Uuid::from_u128(1);
        if let Some(query) = taken(parsed().and_then(|body| query::definition(body, id))) {
            self.queries += 1;
            let name = format!("{}-x", query.name);
            // It may be bound to a session, and there is none.
            let _refused = catalog.apply(Command::Query(QueryWrite::Create(query.into()))).0.is_err();
            if let Ok(query) = catalog.find_query(&name) {
                let all = catalog.execute(&query, &Source::default(), &mut Rng::with_seed(1));
                assert!(all.instances.len() <= 1);
            }
            catalog.assert_consistent();
        }
        let coordinate = taken(parsed().and_then(|body| coordinate::decode(body).map_err(Fault::from)));
        if let Some((_, told)) = coordinate.filter(|(_, told)| told.coordinate.is_valid()) {
            self.coordinates += 1;
            assert!(!told.coordinate.distance(&Coordinate::origin()).is_nan());
        }
        let autopilot =
            taken(parsed().and_then(|body| operator::decode_autopilot(body).map_err(Fault::from)));
        self.autopilots += u64::from(autopilot.is_some());
        let session = taken(parsed().and_then(|body| session::decode(body, &"oak".into())));
        let create = session.map(|session| Command::Session(SessionWrite::Create(Box::new(session))));
        let ops = taken(txn::operations(body, &own).map_err(Fault::from)).map(Command::Txn);
        self.transactions += u64::from(ops.is_some());
        for command in create.into_iter().chain(ops) {
            self.applied += u64::from(catalog.apply(command).0.is_ok());
            catalog.assert_consistent();
        }
    }
}

fn taken<T>(outcome: Result<T, Fault>) -> Option<T> {
    outcome
        .map_err(|fault| {
            let reply = Reply::from(fault);
            let says = matches!(&reply.body, Body::Text(text) if !text.is_empty());
            assert!(says && !reply.status.is_success(), "{}", reply.status);
        })
        .ok()
}

fn assert_whole(definition: &ServiceDefinition) {
    let ServiceDefinition { service, checks, .. } = definition;
    assert!(!service.id.is_empty() && !service.name.is_empty() && service.weights.passing > 0);
    for check in checks {
        assert!(!check.name.is_empty() && check.service_id == service.id);
        assert_written(check);
    }
}

/// What is kept of a check makes the same check again.
fn assert_written(check: &Definition) {
    assert!(!check.id.is_empty() && !check.interval.is_zero() && !check.timeout.is_zero());
    assert_eq!(check.written.as_ref().clone().build().as_ref(), Ok(check));
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/bodies");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn mutate(random: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Rng| &corpus[random.usize(..corpus.len())];
    let mut body = pick(random).clone();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..=body.len());
        let to = random.usize(at..=body.len().min(at + 30));
        let piece = match random.u8(..4) {
            0 => vec![],
            1 => WORDS[random.usize(..WORDS.len())].as_bytes().to_vec(),
            2 => vec![random.u8(..)],
            _ => {
                let other = pick(random);
                let from = random.usize(..=other.len());
                other[from..random.usize(from..=other.len())].to_vec()
            }
        };
        body.splice(at..to, piece);
    }
    body
}

/// Still JSON, with values where others were.
fn reshaped(random: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut pick = || serde_json::from_slice(&corpus[random.usize(..corpus.len())]).unwrap_or_default();
    let (mut body, other): (Value, Value) = (pick(), pick());
    for _ in 0..random.usize(1..4) {
        replace(random, &mut body, &other);
    }
    body.to_string().into_bytes()
}

fn replace(random: &mut Rng, value: &mut Value, other: &Value) {
    let deeper = random.u8(..5) > 0;
    match value {
        Value::Object(members) if deeper && !members.is_empty() => {
            let at = random.usize(..members.len());
            members.values_mut().nth(at).into_iter().for_each(|value| replace(random, value, other));
        }
        Value::Array(values) if deeper && !values.is_empty() => {
            let at = random.usize(..values.len());
            replace(random, &mut values[at], other);
        }
        value => {
            let values = other.as_object().into_iter().flat_map(|members| members.values());
            let values: Vec<&Value> = values.collect();
            *value = match random.u8(..4) {
                0 => serde_json::from_str(WORDS[random.usize(..WORDS.len())]).unwrap_or_default(),
                1 => WORDS[random.usize(..WORDS.len())].into(),
                2 => random.i64(-3..70_000).into(),
                _ => values.get(random.usize(..9)).copied().cloned().unwrap_or_default(),
            };
        }
    }
}
