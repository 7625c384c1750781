//! `/v1/kv`: keys and values, by key or by how keys begin (`http-api.md` §9.3).

use std::collections::BTreeSet;

use hyper::Method;

use crate::{
    catalog::{Answer, Blob, Catalog, Command, KvVerb, KvWrite, Refusal},
    http::{
        call::Call,
        encode,
        query::encode as encode_query,
        read::Scope,
        reply::{Body, Fault, Outcome, Reply},
        route::{Refuses, Route, Takes},
    },
};

const VALUE: Takes =
    Takes { bytes_max: |limits| limits.kv_value_bytes_max, see: "#kv_max_value_size", ..Takes::PLAIN };

pub const ROUTES: &[Route] = &[Route {
    path: "/v1/kv/",
    methods: &["GET", "PUT", "DELETE"],
    refuses: Refuses::NamespacesAndPartitions,
    takes: VALUE,
    handler: |call| {
        Box::pin(async move {
            match call.method {
                Method::PUT => put(call).await,
                Method::DELETE => delete(call).await,
                _ => get(call).await,
            }
        })
    },
}];

fn key(call: &Call) -> Blob {
    Blob::from(call.rest_bytes.as_deref().unwrap_or(call.rest.as_bytes()))
}

async fn get(call: Call) -> Outcome {
    let key = key(&call);
    if call.query.has("keys") {
        return keys(call, key).await;
    }
    if call.query.has("recurse") {
        let scope = Scope::Entries(key.clone());
        return call
            .read_plain(scope, |catalog| {
                let mut entries = catalog.entries_under(&key).peekable();
                match entries.peek() {
                    None => nothing(),
                    Some(_) => Reply::json(|json| {
                        json.list(|json| entries.for_each(|entry| encode::entry(json, entry)));
                    }),
                }
            })
            .await;
    }
    call.name("Missing key name")?;
    let raw = call.query.has("raw");
    call.read_plain(Scope::Entry(key.clone()), |catalog| match catalog.entry(&key) {
        None => nothing(),
        Some(entry) if raw => Reply::new(hyper::StatusCode::OK, Body::Raw(entry.value.to_vec()))
            .with("x-content-type-options", "nosniff")
            .with("content-security-policy", "sandbox"),
        Some(entry) => Reply::json(|json| json.list(|json| encode::entry(json, entry))),
    })
    .await
}

/// The index headers stand on it all the same.
fn nothing() -> Reply {
    Reply::new(hyper::StatusCode::NOT_FOUND, Body::Empty)
}

/// The names alone; with a separator up to its first place after the prefix, each once.
async fn keys(call: Call, prefix: Blob) -> Outcome {
    let separator = call.query.get("separator").or(call.query.get("seperator")).unwrap_or_default();
    call.read_plain(Scope::Entries(prefix.clone()), |catalog| {
        let names = names(catalog, &prefix, separator.as_bytes());
        match names.is_empty() && !prefix.is_empty() {
            true => nothing(),
            false => Reply::json(|json| {
                json.list(|json| {
                    names.iter().for_each(|name| json.text(&String::from_utf8_lossy(name)));
                });
            }),
        }
    })
    .await
}

fn names<'a>(catalog: &'a Catalog, prefix: &'a [u8], separator: &[u8]) -> BTreeSet<&'a [u8]> {
    let cut = |key: &'a [u8]| {
        let places = || key[prefix.len()..].windows(separator.len());
        let found = if separator.is_empty() { None } else { places().position(|at| at == separator) };
        found.map_or(key, |at| &key[..prefix.len() + at + separator.len()])
    };
    catalog.entries_under(prefix).map(|entry| cut(&entry.key)).collect()
}

async fn put(call: Call) -> Outcome {
    call.own_datacenter()?;
    call.name("Missing key name")?;
    conflicts(&call, &["acquire", "cas", "release"])?;
    let flags = number(&call, "flags")?.unwrap_or(0);
    let holder = |name: &str| call.query.all(name).next();
    let verb = if let Some(index) = number(&call, "cas")? {
        KvVerb::Cas(index)
    } else if let Some(session) = holder("acquire") {
        let id = session.parse().map_err(|_| refused(Refusal::NoSession(session.into())));
        KvVerb::Lock(if session.is_empty() { return Err(no_session()) } else { id? })
    } else if let Some(session) = holder("release") {
        match session.parse() {
            Ok(id) => KvVerb::Unlock(id),
            Err(_) if session.is_empty() => return Err(no_session()),
            // Nobody holds anything by what is no session.
            Err(_) => return Ok(Reply::flag(false)),
        }
    } else {
        KvVerb::Set
    };
    propose(&call, KvWrite { verb, key: key(&call), value: Blob::from(&call.body[..]), flags }).await
}

async fn delete(call: Call) -> Outcome {
    call.own_datacenter()?;
    conflicts(&call, &["cas", "recurse"])?;
    let verb = if call.query.has("recurse") {
        KvVerb::DeleteTree
    } else {
        call.name("Missing key name")?;
        number(&call, "cas")?.map_or(KvVerb::Delete, KvVerb::DeleteCas)
    };
    propose(&call, KvWrite { verb, key: key(&call), ..KvWrite::default() }).await
}

async fn propose(call: &Call, write: KvWrite) -> Outcome {
    let applied = call.api.agent.propose(Command::Kv(write)).await?.map_err(refused)?;
    Ok(Reply::flag(applied.answer == Answer::Done))
}

fn refused(refusal: Refusal) -> Fault {
    Fault::failed(format!("raft apply failed: {refusal}"))
}

fn no_session() -> Fault {
    Fault::failed("raft apply failed: missing session")
}

/// Of these flags one may be given; which ones were is told in their order.
fn conflicts(call: &Call, flags: &[&str]) -> Result<(), Fault> {
    let given: Vec<String> = flags
        .iter()
        .filter_map(|flag| Some((flag, call.query.all(flag).next()?)))
        .map(|(flag, value)| format!("{flag}={}", encode_query(value)))
        .collect();
    match given.len() {
        0 | 1 => Ok(()),
        _ => Err(Fault::bad(format!("Conflicting flags: {}", given.join("&")))),
    }
}

fn number(call: &Call, name: &str) -> Result<Option<u64>, Fault> {
    let Some(text) = call.query.all(name).next() else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fault = if digits { "value out of range" } else { "invalid syntax" };
    let number = text.parse().ok().filter(|_| digits);
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(Fault::failed(format!("strconv.ParseUint: parsing {text:?}: {fault}"))),
    }
}
