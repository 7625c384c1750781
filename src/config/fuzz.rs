//! Readers of text that anyone may have written: they neither panic nor differ from serde_json. Mutates the files of
//! `tests/corpus/config/` for `LICTOR_FUZZ_SECS` seconds (1 unless set) from the seed `LICTOR_FUZZ_SEED`.

#![allow(
    clippy::disallowed_methods,
    reason = "how long to go on is asked of a clock; nothing is judged by it"
)]

use std::{
    env, fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::{
    definitions::Definitions,
    hcl, json, layer,
    reader::Findings,
    sources,
    tree::{Kind, Member, Value},
};

/// What mutations throw in.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    "=",
    ":",
    "\"",
    "\\",
    "\\u",
    "\\ud83d",
    "\\udc00",
    "\\x4",
    "/*",
    "*/",
    "//",
    "#",
    "<<E\n",
    "<<-E\n",
    "\nE\n",
    "null",
    "true",
    "0x",
    "-",
    "1e999",
    "99999999999999999999",
    "services",
    "check",
    "ports {",
    "\r\n",
    "\u{feff}",
    "\u{0}",
    "é",
    "acl",
    "\"5s\"",
];

#[test]
fn mutated_files_are_read_or_refused() {
    let seed = env::var("LICTOR_FUZZ_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    let secs = env::var("LICTOR_FUZZ_SECS").ok().and_then(|secs| secs.parse().ok()).unwrap_or(1);
    println!("LICTOR_FUZZ_SEED={seed}");
    let corpus = corpus();
    let mut rng = Rng::with_seed(seed);
    for text in &corpus {
        check(text);
    }
    let end = Instant::now() + Duration::from_secs(secs);
    let mut rounds = 0;
    while Instant::now() < end {
        for _ in 0..100 {
            check(&mutate(&mut rng, &corpus));
        }
        rounds += 100;
    }
    println!("{rounds} texts");
}

#[test]
fn the_corpus_is_valid() {
    let files = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let read = if is_json { json::parse } else { hcl::parse };
        read(&"corpus".into(), &text).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    }
}

#[test]
fn depth_ends() {
    for (open, close) in
        [("a = [", "]"), ("a {", "}"), ("a = { b = [", "]}"), ("a a a a a a a a {", "}"), ("a ", "")]
    {
        for text in [open.repeat(100_000), open.repeat(100_000) + &close.repeat(100_000)] {
            assert!(hcl::parse(&"deep".into(), &text).is_err(), "{open}");
        }
    }
    for open in ["[", "{\"a\":", "[{\"a\":"] {
        assert!(json::parse(&"deep".into(), &open.repeat(100_000)).is_err(), "{open}");
    }
}

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/config")
}

fn corpus() -> Vec<String> {
    let files = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn mutate(rng: &mut Rng, corpus: &[String]) -> String {
    let pick = |rng: &mut Rng| corpus[rng.usize(..corpus.len())].as_bytes();
    let mut text = pick(rng).to_vec();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..=text.len());
        let to = rng.usize(at..=text.len().min(at + 40));
        let piece = match rng.u8(..4) {
            0 => vec![],
            1 => WORDS[rng.usize(..WORDS.len())].as_bytes().to_vec(),
            2 => vec![rng.u8(..)],
            _ => {
                let other = pick(rng);
                let from = rng.usize(..other.len());
                other[from..rng.usize(from..=other.len())].to_vec()
            }
        };
        text.splice(at..to, piece);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Both readers, and everything behind them.
fn check(text: &str) {
    let file: Arc<str> = "fuzz".into();
    for parsed in [hcl::parse(&file, text), json::parse(&file, text)] {
        if let Ok(Value { kind: Kind::Object(members), .. }) = parsed {
            read_on(members);
        }
    }
    let (ours, theirs) = (json::parse(&file, text), serde_json::from_str::<serde_json::Value>(text));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert!(same(&ours, &theirs), "{text:?}\n{ours:?}\n{theirs:?}"),
        (Err(error), Ok(_)) => assert!(error.text.starts_with("nested deeper"), "{text:?}\n{error:?}"),
        // Half a pair is a replacement character, as in Go; a byte order mark is skipped.
        (Ok(_), Err(error)) => {
            assert!(text.contains("\\u") || text.starts_with('\u{feff}'), "{text:?}\n{error}")
        }
        (Err(_), Err(_)) => {}
    }
}

fn read_on(mut members: Vec<Member>) {
    let mut findings = Findings::default();
    Definitions::default().take(&mut members, &mut findings);
    layer::read(&members, &[], &mut findings);
    let mut merged = members.clone();
    sources::merge(&mut merged, members);
    layer::read(&merged, &["acl".into()], &mut findings);
}

fn same(ours: &Value, theirs: &serde_json::Value) -> bool {
    use serde_json::Value as Json;
    match (&ours.kind, theirs) {
        (Kind::Null, Json::Null) => true,
        (Kind::Bool(ours), Json::Bool(theirs)) => ours == theirs,
        (Kind::Text(ours), Json::String(theirs)) => ours == theirs,
        (Kind::Int(ours), Json::Number(theirs)) => theirs.as_f64() == Some(*ours as f64),
        // serde_json may be off by the last bit.
        (Kind::Float(ours), Json::Number(theirs)) => {
            theirs.as_f64().is_some_and(|theirs| (ours - theirs).abs() <= theirs.abs() * 1e-15)
        }
        (Kind::List(ours), Json::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| same(ours, theirs))
        }
        (Kind::Object(ours), Json::Object(theirs)) => {
            let found =
                |member: &Member| theirs.get(&member.key).is_some_and(|theirs| same(&member.value, theirs));
            ours.len() == theirs.len() && ours.iter().all(found)
        }
        _ => false,
    }
}
