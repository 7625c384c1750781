//! Zone files as nobody should write them: mutations of `tests/corpus/zones/` for `LICTOR_FUZZ_SECS` seconds (1 unless set)
//! from the seed `LICTOR_FUZZ_SEED`. None panics, every fault has a place in the text, and a zone that is served has data
//! that others can read, and an answer for each of its names.

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
use hickory_proto::op::Message;

use super::{
    Opened, Served, StaticZones, master, rdata,
    zone::{Zone, labels},
};
use crate::dns::{Asker, Responder, Settings, Transport, View, wire::kind};

const WORDS: &[&str] = &[
    "(",
    ")",
    "\"",
    "\\",
    "\\0",
    "\\255",
    "\\256",
    ";",
    "\n",
    "\t",
    " ",
    "@",
    "*",
    ".",
    "..",
    "$ORIGIN",
    "$TTL 1",
    "$INCLUDE x",
    "$INCLUDE x y.",
    "IN",
    "CH",
    "A",
    "NS",
    "SOA",
    "CNAME",
    "DNAME",
    "MX",
    "TXT",
    "SRV",
    "HTTPS",
    "CAA",
    "TYPE65280",
    "TYPE1",
    "\\# 4 00000001",
    "\\# 0",
    "192.0.2.1",
    "::1",
    "4294967296",
    "1w",
    "alpn=\"a,b\"",
    "key7=",
    "mandatory=port",
    "ipv4hint=1.2.3.4",
    "\u{feff}",
    "é",
    "\0",
    "\r\n",
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
];

#[test]
fn mutated_files_are_read_or_refused() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("LICTOR_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("LICTOR_FUZZ_SEED={seed}");
    let (corpus, mut rng) = (corpus(), Rng::with_seed(seed));
    let (mut texts, mut served) = (0u64, 0u64);
    for text in &corpus {
        let text_shown = String::from_utf8_lossy(text);
        assert!(check(text, &corpus, &mut rng), "the corpus is valid: {text_shown}");
    }
    let end = Instant::now() + Duration::from_secs(number("LICTOR_FUZZ_SECS").unwrap_or(1));
    while Instant::now() < end {
        for _ in 0..20 {
            let text = mutate(&mut rng, &corpus);
            served += u64::from(check(&text, &corpus, &mut rng));
            texts += 1;
        }
    }
    println!("{texts} texts, {served} of them zones");
    assert!(served > 0);
}

fn corpus() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/zones");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn mutate(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut text = corpus[rng.usize(..corpus.len())].clone();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=text.len());
        let to = rng.usize(at..=text.len().min(at + 20));
        let piece = match rng.u8(..5) {
            0 => vec![],
            1 | 2 => format!(" {} ", WORDS[rng.usize(..WORDS.len())]).into_bytes(),
            3 => vec![rng.u8(..)],
            _ => {
                let lines: Vec<&[u8]> =
                    corpus[rng.usize(..corpus.len())].split(|byte| *byte == b'\n').collect();
                [b"\n", lines[rng.usize(..lines.len())], b"\n"].concat()
            }
        };
        text.splice(at..to, piece);
    }
    text
}

/// Whether it is a zone.
fn check(text: &[u8], corpus: &[Vec<u8>], rng: &mut Rng) -> bool {
    let included = &corpus[rng.usize(..corpus.len())];
    let mut open = |_: &str, _: &str| Ok(Opened { file: "included".into(), text: included.clone() });
    let read = master::read("fuzz".into(), text, Some(b"\x04fuzz\0".to_vec()), &mut open);
    match read.zone {
        Ok(zone) => {
            answers(Arc::new(zone), rng);
            true
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "neither a zone nor a fault");
            for fault in faults {
                let lines = if &*fault.file == "fuzz" { text } else { included.as_slice() };
                let lines = lines.iter().filter(|byte| **byte == b'\n').count() + 1;
                assert!((1..=lines).contains(&(fault.at.line as usize)) && fault.at.column > 0, "{fault}");
            }
            false
        }
    }
}

/// Asks for every name and for one below it.
fn answers(zone: Arc<Zone>, rng: &mut Rng) {
    let served: Served = Some(zone.clone());
    let zones = StaticZones::new([(zone.name.clone(), served)], false);
    let (mut responder, mut reply) = (Responder::new(rng.u64(..)), Vec::new());
    let settings = Settings { disable_compression: rng.bool(), ..Settings::default() };
    let view = View { catalog: None, settings: &settings, zones: &zones, fresh: true };
    for (key, node) in zone.nodes() {
        for set in &node.sets {
            assert!(set.data.iter().all(|data| rdata::names_in(set.kind, &data.wire).is_some()));
        }
        let mut kinds: Vec<u16> = node.sets.iter().map(|set| set.kind).collect();
        kinds.extend([kind::A, kind::ANY, kind::CNAME, 43]);
        for kind in kinds {
            for prefix in [&b""[..], b"\x01x"] {
                let name = [prefix, key, &zone.name].concat();
                if name.len() > 255 {
                    continue;
                }
                let header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                let packet = [&header, &name[..], &kind.to_be_bytes(), &[0, 1]].concat();
                let transport = if rng.bool() { Transport::Udp } else { Transport::Tcp };
                let asker = Asker { transport, from: [127, 0, 0, 1].into() };
                responder.respond(&view, &asker, &packet, &mut reply);
                let most = if transport == Transport::Udp { 512 } else { 65535 };
                assert!(
                    reply.len() <= most && reply[12..].starts_with(&name),
                    "{name:?} {kind}: {reply:02x?}"
                );
                judge(&reply);
            }
        }
        assert!(labels(key).count() < 128);
    }
}

/// Every record ends where it says, the last with the message; and others can read it, but for empty records and
/// parameters that are no UTF-8: RFC 3597 and RFC 9460 allow them, and this judge does not.
fn judge(reply: &[u8]) {
    let records = records(reply).unwrap_or_else(|| panic!("not whole: {reply:02x?}"));
    let strict = records.iter().any(|(kind, bytes)| matches!(kind, 64 | 65) || *bytes == 0);
    if let (Err(error), false) = (Message::from_vec(reply), strict) {
        panic!("{error}: {reply:02x?}");
    }
}

/// Type and bytes of data of each record.
fn records(reply: &[u8]) -> Option<Vec<(u16, usize)>> {
    let field = |at: usize| Some(u16::from_be_bytes(*reply.get(at..)?.first_chunk()?));
    let count: u16 = [6, 8, 10].into_iter().map(|at| field(at).unwrap_or_default()).sum();
    let mut at = name_end(reply, 12)? + 4;
    let mut records = Vec::new();
    for _ in 0..count {
        at = name_end(reply, at)?;
        let bytes = usize::from(field(at + 8)?);
        records.push((field(at)?, bytes));
        at += 10 + bytes;
    }
    (at == reply.len()).then_some(records)
}

fn name_end(reply: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *reply.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            high @ 0xc0.. => {
                let to = usize::from(high & 0x3f) << 8 | usize::from(*reply.get(at + 1)?);
                return (to < at && to >= 12).then_some(at + 2);
            }
            _ => return None,
        }
    }
}
