//! Kept files as nobody wrote them: mutations of `tests/corpus/stored/` for `LICTOR_FUZZ_SECS` seconds (1 unless set)
//! from the seed `LICTOR_FUZZ_SEED`. Whatever comes is read or refused; what is read is written and read alike. Half of
//! them get a right checksum, so that what stands behind it is reached.

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

use super::{
    record::{self, Record},
    states,
};
use crate::agent::Local;

/// What mutations throw in.
const WORDS: &[&str] = &[
    "lictor ",
    "service",
    "check",
    "maintenance",
    "states ",
    " 1 ",
    " 2 ",
    "18446744073709551616",
    "\n",
    "{",
    "}",
    "[[",
    "\"",
    "\\ud800",
    "null",
    "-1",
    "1e999",
    "\"ttl\":{\"nanos\":-1,\"text\":\"\"}",
    "\"interval\":{\"nanos\":9223372036854775807,\"text\":\"\"}",
    "\"grpc\":\"a:1/b\"",
    "\"id\":\"\"",
    "\u{0}",
    "é",
];

#[test]
fn mutated_files_are_read_or_refused() {
    let number = |name: &str| env::var(name).ok().and_then(|number| number.parse().ok());
    let seed = number("LICTOR_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("LICTOR_FUZZ_SEED={seed}");
    let (corpus, mut random) = (corpus(), Rng::with_seed(seed));
    assert!(corpus.iter().all(|bytes| check(bytes)), "the corpus is valid");
    let end = Instant::now() + Duration::from_secs(number("LICTOR_FUZZ_SECS").unwrap_or(1));
    let (mut rounds, mut read) = (0u64, 0u64);
    while Instant::now() < end || rounds < 1000 {
        let mut bytes = mutate(&mut random, &corpus);
        if random.bool() {
            bytes = signed(&bytes);
        }
        rounds += 1;
        read += u64::from(check(&bytes));
    }
    assert!(read > 0, "none got past its checksum");
    println!("{rounds} files, {read} of them read");
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/stored");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn mutate(random: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Rng| &corpus[random.usize(..corpus.len())];
    let mut bytes = pick(random).clone();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..=bytes.len());
        let to = random.usize(at..=bytes.len().min(at + 30));
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
        bytes.splice(at..to, piece);
    }
    bytes
}

/// With the checksum that its other bytes have.
fn signed(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let (head, rest) = text.split_once('\n').unwrap_or((&text, ""));
    if head.starts_with("lictor states") {
        let line = |line: &str| {
            let json = line.get(17..).unwrap_or_default().to_string() + "\n";
            format!("{} {json}", &record::checksum(&[json.as_bytes()])[..16])
        };
        return format!("{head}\n{}", rest.lines().map(line).collect::<String>()).into_bytes();
    }
    let head = head.rsplit_once(' ').map_or(head, |(head, _)| head);
    let checksum = record::checksum(&[head.as_bytes(), rest.as_bytes()]);
    format!("{head} {checksum}\n{rest}").into_bytes()
}

/// Whether it was read.
fn check(bytes: &[u8]) -> bool {
    let (words, _) = states::read(bytes);
    let (again, fault) = states::read(states::write(&words).as_bytes());
    assert_eq!((&again, fault), (&words, None), "{:?}", String::from_utf8_lossy(bytes));
    let Ok((writing, kept)) = record::read(bytes) else { return !words.is_empty() };
    let again = record::read(&Record::of(&kept).bytes(writing));
    assert_eq!(again, Ok((writing, kept.clone())), "{:?}", String::from_utf8_lossy(bytes));
    Local::default().restore(vec![kept]);
    true
}
