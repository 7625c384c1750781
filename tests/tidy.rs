//! What no lint knows: which room may know which, and that every file says what it is for.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each room, and the rooms it may name. Arrows point one way (see the map in `src/lib.rs`).
const ARROWS: &[(&str, &[&str])] = &[
    ("catalog", &[]),
    ("count", &[]),
    ("telemetry", &["count"]),
    ("check", &["catalog", "count"]),
    ("raft", &["catalog", "count"]),
    ("rpc", &["catalog", "count"]),
    ("gossip", &["catalog", "count"]),
    ("dns", &["catalog", "count"]),
    ("http", &["catalog", "check", "count"]),
    ("server", &["catalog", "raft", "gossip"]),
    ("agent", &["catalog", "check", "raft", "rpc", "gossip", "dns", "http", "server", "count", "telemetry"]),
    ("config", &["catalog", "check", "gossip", "dns", "http", "agent", "server", "telemetry"]),
    ("cli", &["catalog", "check", "config", "agent", "http", "dns", "telemetry"]),
    ("lib.rs", &[]),
    ("main.rs", &["cli"]),
];

#[test]
fn arrows_point_one_way() {
    let mut faults = Vec::new();
    let mut rooms = Vec::new();
    for (file, text) in sources("src") {
        let room = file.components().nth(1).expect("src/…").as_os_str().to_string_lossy().into_owned();
        let Some((_, known)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            faults.push(format!("{}: no arrows are drawn for the room {room}", file.display()));
            continue;
        };
        for named in text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(named_rooms) {
            if named != room && !known.contains(&&*named) {
                faults.push(format!("{}: {room} may not know {named}", file.display()));
            }
        }
        rooms.push(room);
    }
    assert!(
        ARROWS.iter().all(|(room, _)| rooms.iter().any(|seen| seen == room)),
        "an arrow starts in a room that is gone"
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The crate's own modules that a line names: `crate::x`, `crate::{x, y::z}`, `lictor::x`.
fn named_rooms(line: &str) -> Vec<String> {
    let mut named = Vec::new();
    for prefix in ["crate::", "lictor::"] {
        for (at, _) in line.match_indices(prefix) {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let rest = &line[at + prefix.len()..];
            let list = rest.strip_prefix('{').map_or(vec![rest], |list| list.split(", ").collect());
            let word = |text: &str| {
                text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
            };
            named.extend(
                list.into_iter().map(word).filter(|word| ARROWS.iter().any(|(room, _)| room == word)),
            );
        }
    }
    named
}

#[test]
fn named_rooms_are_found() {
    assert_eq!(named_rooms("use crate::catalog::Map;"), ["catalog"]);
    assert_eq!(named_rooms("use crate::{catalog::{Map, Node}, check};"), ["catalog", "check"]);
    assert_eq!(named_rooms("    let x = crate::dns::Settings::default();"), ["dns"]);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mute: Vec<String> = sources("src")
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(file, _)| file.display().to_string())
        .collect();
    assert!(mute.is_empty(), "no header: {}", mute.join(", "));
}

#[test]
fn no_unsafe_code() {
    assert!(fs::read_to_string("src/lib.rs").unwrap().contains("#![forbid(unsafe_code)]"));
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(Path::new(folder), &mut found);
    assert!(!found.is_empty());
    found
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}
