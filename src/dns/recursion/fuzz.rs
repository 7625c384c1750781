//! What recursors say, as none should say it: mutations of `tests/corpus/replies/`, from a seed. Nothing panics, what is
//! passed on fits and is a reply to whoever asked, and others read the same records in it as in what came.
//!
//! `LICTOR_FUZZ_SECS` sets how long it runs (1), `LICTOR_FUZZ_SEED` where it starts.

#![allow(
    clippy::disallowed_methods,
    reason = "how long to go on is asked of a clock; nothing is judged by it"
)]

use std::{
    env, fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use fastrand::Rng;
use hickory_proto::{op, rr};

use super::message::{Age, Heard, Message, Question};
use crate::dns::{
    Asker, Settings, Transport,
    answer::{Data, Owner},
    reply::Limits,
    wire::{self, NAME_BYTES_MAX, Parsed, Query},
};

const ID: u16 = 0x1234;
const NAME: &[u8] = b"\x03www\x07example\x03com\0";

#[test]
fn whatever_a_recursor_says_is_passed_on_or_not_heard() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("LICTOR_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let end = Instant::now() + Duration::from_secs(number("LICTOR_FUZZ_SECS").unwrap_or(1));
    println!("LICTOR_FUZZ_SEED={seed}");
    let (corpus, mut random) = (corpus(), Rng::with_seed(seed));
    let (mut rounds, mut good) = (0, 0);
    while Instant::now() < end || rounds < 1000 {
        let packet = corpus.get(rounds).cloned().unwrap_or_else(|| mutate(&mut random, &corpus));
        rounds += 1;
        // The type that is asked for is that of the corpus mostly, and another one at times.
        let qtype = if random.u8(..8) > 0 { packet.get(30).map_or(1, |kind| u16::from(*kind)) } else { 1 };
        let question = Question { name: NAME.into(), qtype, qclass: 1, dnssec_ok: random.bool(), cd: false };
        if let Heard::Good(message) = question.hear(ID, &packet) {
            good += 1;
            check(&message, &packet, qtype, &mut random);
        }
    }
    assert!(good * 20 > rounds, "{good} of {rounds} were understood: the mutations go too far");
    println!("{rounds} replies, {good} passed on");
}

fn corpus() -> Vec<Vec<u8>> {
    let mut files: Vec<_> =
        fs::read_dir("tests/corpus/replies").unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// The header's first half and the question mostly stay: else nobody listens.
fn mutate(random: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = corpus[random.usize(..corpus.len())].clone();
    let from = if random.u8(..8) > 0 { 33.min(packet.len()) } else { 0 };
    for _ in 0..random.usize(..5) {
        let at = random.usize(from..packet.len().max(from + 1));
        match random.u8(..7) {
            0 => packet.truncate(at),
            1 => packet.insert(at.min(packet.len()), random.u8(..)),
            2 if at < packet.len() => drop(packet.remove(at)),
            3 if at < packet.len() => packet[at] ^= 1 << random.u8(..8),
            4 if at < packet.len() => packet[at] = [0, 0xff, 0xc0, 0x0c, 0x3f, 41][random.usize(..6)],
            5 => packet.extend_from_slice(corpus[random.usize(..corpus.len())].get(33..).unwrap_or(&[])),
            _ if packet.len() > 12 => packet[7 + 2 * random.usize(..3)] = random.u8(..4),
            _ => {}
        }
    }
    packet
}

fn check(message: &Message, packet: &[u8], qtype: u16, random: &mut Rng) {
    assert!(message.ttl_secs <= 86_400);
    for record in message.chain(Age::Stale) {
        let mut names = vec![&record.owner];
        names.extend(match &record.data {
            Data::Cname(name) => Some(name),
            Data::Address(_) => None,
            other => panic!("{other:?} in a chain"),
        });
        for name in names {
            let Owner::Elsewhere(labels) = name else { panic!("{name:?} in a chain") };
            assert!(labels.len() < NAME_BYTES_MAX);
        }
    }
    let asked = question(qtype, random);
    let Parsed::Query(query) = wire::parse(&asked) else { panic!("not a question: {asked:02x?}") };
    let transport = if random.bool() { Transport::Udp } else { Transport::Tcp };
    let asker = Asker { transport, from: Ipv4Addr::LOCALHOST.into() };
    let limits = Limits::of(&Settings::default(), &asker, &query);
    let age = [Age::New, Age::Secs(random.u32(..400)), Age::Stale][random.usize(..3)];
    let mut out = vec![1, 2, 3];
    message.put(&mut out, &query, &limits, age);
    assert!(out.len() <= limits.bytes_max, "{} bytes", out.len());
    assert!(out.starts_with(&asked[..2]) && out[2] & 0x80 != 0, "not a reply");
    compare(packet, &out, &query, age);
}

fn question(qtype: u16, random: &mut Rng) -> Vec<u8> {
    let mut packet = [&random.u16(..).to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    packet.extend(NAME.iter().map(|byte| if random.bool() { byte.to_ascii_uppercase() } else { *byte }));
    packet.extend_from_slice(&[qtype.to_be_bytes(), [0, 1]].concat());
    if random.bool() {
        packet[11] = 1;
        packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    }
    packet
}

/// Whether all that may be a pointer leads into the question's name: one that leads into a header or a TTL says
/// something else once these are written anew.
fn is_sane(packet: &[u8]) -> bool {
    let pointers = packet[12..].windows(2).filter(|pair| pair[0] >= 0xc0);
    pointers
        .map(|pair| usize::from(pair[0] & 0x3f) << 8 | usize::from(pair[1]))
        .all(|to| (12..29).contains(&to))
}

/// What others understand of what came, they must understand alike of what was passed on.
fn compare(packet: &[u8], out: &[u8], query: &Query, age: Age) {
    let Some(came) = op::Message::from_vec(packet).ok().filter(|_| is_sane(packet)) else { return };
    let went =
        op::Message::from_vec(out).unwrap_or_else(|error| panic!("{error}\n{packet:02x?}\n{out:02x?}"));
    assert_eq!(went.metadata.id, query.id);
    assert_eq!(went.edns.is_some(), query.edns.is_some());
    if went.metadata.truncation {
        assert!(went.answers.is_empty() && went.authorities.is_empty() && went.additionals.is_empty());
        return;
    }
    let sections = [(&came.answers, &went.answers), (&came.authorities, &went.authorities)];
    for (came, went) in sections {
        assert_eq!(came.len(), went.len());
        came.iter().zip(went).for_each(|(came, went)| same(came, went, age));
    }
    // Of what is additional the first part at least.
    assert!(went.additionals.len() <= came.additionals.len());
    came.additionals.iter().zip(&went.additionals).for_each(|(came, went)| same(came, went, age));
}

fn same(came: &rr::Record, went: &rr::Record, age: Age) {
    assert_eq!(came.name.to_lowercase(), went.name.to_lowercase());
    assert_eq!(came.dns_class, went.dns_class);
    assert_eq!(came.data.to_string().to_lowercase(), went.data.to_string().to_lowercase());
    match age {
        Age::New => assert_eq!(came.ttl, went.ttl),
        Age::Secs(secs) => {
            assert_eq!(went.ttl, if came.ttl > i32::MAX as u32 { 0 } else { came.ttl.saturating_sub(secs) })
        }
        Age::Stale => assert_eq!(went.ttl, 30),
    }
}
