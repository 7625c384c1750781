//! Snapshots and log entries as nobody wrote them: mutations of those under `tests/formats/v2/raft` for
//! `LICTOR_FUZZ_SECS` seconds (1 unless set) from the seed `LICTOR_FUZZ_SEED`. Whatever comes is read or refused; what is
//! read is a whole catalog. Most get right checksums, so that what stands behind them is reached.

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

use super::*;

/// What stands before the frames of a snapshot, and before the bytes of one.
const PREFACE_BYTES: usize = 12;
const FRAME_HEAD_BYTES: usize = 8;

#[test]
fn mutated_snapshots_and_entries_are_read_or_refused() {
    let number = |name: &str| env::var(name).ok().and_then(|number| number.parse().ok());
    let seed = number("LICTOR_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("LICTOR_FUZZ_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/v2/raft/snapshots");
    let file = fs::read_dir(kept).unwrap().next().expect("a snapshot is kept").unwrap().path();
    let snapshot = fs::read(file).unwrap();
    assert!(snapshot::read(&snapshot[..]).is_ok(), "the corpus is valid");
    assert_eq!(framed(&frames(&snapshot)), snapshot, "it is taken apart rightly");
    let entry = stored::entry_bytes(&openraft::Entry {
        log_id: LogId::new(openraft::CommittedLeaderId::new(3, 1), 7),
        payload: openraft::EntryPayload::Normal(super::disks::of_every_kind(3)),
    });
    let entry = entry.unwrap();
    let end = Instant::now() + Duration::from_secs(number("LICTOR_FUZZ_SECS").unwrap_or(1));
    let (mut rounds, mut read) = (0u64, 0u64);
    while Instant::now() < end || rounds < 1_000 {
        rounds += 1;
        if random.bool() {
            let mut body = entry[..entry.len() - 4].to_vec();
            mutate(&mut random, &mut body);
            let mut sum = crc32fast::Hasher::new();
            sum.update(&7u64.to_le_bytes());
            sum.update(&body);
            body.extend_from_slice(&sum.finalize().to_le_bytes());
            read += u64::from(stored::entry(7, &body).is_ok());
            continue;
        }
        let mut frames = frames(&snapshot);
        for _ in 0..random.usize(1..3) {
            let at = random.usize(..frames.len());
            mutate(&mut random, &mut frames[at]);
        }
        let mut bytes = framed(&frames);
        if random.u8(..8) == 0 {
            mutate(&mut random, &mut bytes);
        }
        if let Ok((_, catalog)) = snapshot::read(&bytes[..]) {
            read += 1;
            let _walked = catalog.rows().count();
        }
    }
    assert!(read > 0, "none got past its checksum");
    println!("{rounds} forms, {read} of them read");
}

/// The bytes of each frame, the empty one at the end included.
fn frames(snapshot: &[u8]) -> Vec<Vec<u8>> {
    let (mut frames, mut at) = (Vec::new(), PREFACE_BYTES);
    while at < snapshot.len() {
        let length = u32::from_le_bytes(snapshot[at..at + 4].try_into().unwrap()) as usize;
        at += FRAME_HEAD_BYTES;
        frames.push(snapshot[at..at + length].to_vec());
        at += length;
    }
    frames
}

/// A snapshot of these frames, each under its right checksum.
fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"lictsnap\x02\0\0\0".to_vec();
    for (number, frame) in frames.iter().enumerate() {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&(number as u32).to_le_bytes());
        sum.update(frame);
        bytes.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&sum.finalize().to_le_bytes());
        bytes.extend_from_slice(frame);
    }
    bytes
}

fn mutate(random: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len().max(1));
        match random.u8(..6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), random.u8(..)),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            // Markers of MessagePack: nothing, maps, arrays, long texts and numbers.
            4 if at < bytes.len() => {
                bytes[at] = [0xc0, 0xdf, 0xdd, 0xdb, 0xcf, 0xd3, 0x80, 0x90, 0xa0, 0xff][random.usize(..10)];
            }
            _ => {
                let from = random.usize(..bytes.len().max(1)).min(at);
                bytes.extend_from_within(from..at.min(bytes.len()));
            }
        }
    }
}
