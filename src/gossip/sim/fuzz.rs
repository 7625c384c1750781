//! Bytes that are no packet, and packets that are not whole: counted, and nothing else.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::Sim;
use crate::gossip::{
    Effect, Members, Timing,
    identity::GENERATION_MAX,
    wire::{
        item::Record,
        packet::{Body, Packet},
        stream::{self, Request, Row, State},
    },
};

/// What its machine wants sent in the next seconds, and the requests it makes, addressed to the first node.
fn said(sim: &mut Sim) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut packets, mut requests) = (Vec::new(), Vec::new());
    let to = sim.nodes[0].address;
    for at in 1..sim.nodes.len() {
        let mut machine = sim.nodes[at].machine.take().expect("the process lives");
        machine.fire("some".into(), vec![1; 100], sim.now).unwrap();
        machine.join(1, to, sim.now);
        let mut now = sim.now;
        for _ in 0..400 {
            now += Duration::from_millis(50);
            machine.tick(now);
            for effect in machine.effects() {
                match effect {
                    Effect::Send { to: address, bytes } if address == to => packets.push(bytes),
                    Effect::Ask { to: address, bytes, .. } if address == to => requests.push(bytes),
                    _ => {}
                }
            }
        }
    }
    (packets, requests)
}

#[test]
fn what_is_no_packet_changes_nothing() {
    let mut sim = Sim::pool(8, 71, Timing::lan());
    let (packets, requests) = said(&mut sim);
    assert!(packets.len() > 20 && requests.len() > 7);
    let mut random = SmallRng::seed_from_u64(72);
    let now = sim.now;
    let machine = sim.nodes[0].machine.as_mut().unwrap();
    let from = "10.0.0.9:8301".parse().unwrap();
    let state =
        |machine: &crate::gossip::Machine| -> (Members, u64) { (machine.members().clone(), machine.root()) };
    let before = state(machine);
    let bad = |machine: &crate::gossip::Machine| {
        let counters = machine.counters();
        counters.malformed.get() + counters.future.get() + counters.misaddressed.get()
    };
    let given = std::cell::Cell::new(0);
    let give = |machine: &mut crate::gossip::Machine, bytes: &[u8]| {
        machine.packet(from, bytes, now);
        assert_eq!(machine.request(from, bytes, now), None);
        given.set(given.get() + 2);
    };
    for bytes in packets.iter().take(60) {
        for cut in 0..bytes.len() {
            give(machine, &bytes[..cut]);
        }
        let mut longer = bytes.clone();
        longer.push(0);
        give(machine, &longer);
        let mut future = bytes.clone();
        future[0] = 2;
        give(machine, &future);
    }
    for bytes in &requests {
        for _ in 0..200 {
            let cut = random.random_range(0..bytes.len());
            assert_eq!(machine.request(from, &bytes[..cut], now), None);
            given.set(given.get() + 1);
        }
    }
    for _ in 0..20_000 {
        let length = random.random_range(0..1500);
        let bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
        give(machine, &bytes);
    }
    assert_eq!(bad(machine), given.get(), "each of them was counted");
    assert!(state(machine) == before);
    assert!(machine.effects().next().is_none(), "and nothing was said to it");
}

/// Packets in which some bytes are others: whatever they now say, the machine goes on. (Nobody forges them where keys are used.)
#[test]
fn nothing_that_is_said_stops_a_machine() {
    let mut sim = Sim::pool(8, 73, Timing::lan());
    let (packets, requests) = said(&mut sim);
    let mut random = SmallRng::seed_from_u64(74);
    let mut now = sim.now;
    let machine = sim.nodes[0].machine.as_mut().unwrap();
    let from = "10.0.0.9:8301".parse().unwrap();
    for round in 0..20_000 {
        let all = if round % 4 == 0 { &requests } else { &packets };
        let mut bytes = all[random.random_range(0..all.len())].clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        if round % 4 == 0 {
            machine.request(from, &bytes, now);
        } else {
            machine.packet(from, &bytes, now);
        }
        now += Duration::from_millis(3);
        machine.tick(now);
        machine.effects().for_each(drop);
    }
    assert!(machine.members().len() <= 20_000);
    machine.fire("still".into(), vec![], now).unwrap();
}

/// Numbers that no member could have come to: taken, they would be carried on, and pin whom they are about.
#[test]
fn a_generation_that_cannot_be_is_no_word_of_anybody() {
    let mut sim = Sim::pool(5, 93, Timing::lan());
    let from = sim.nodes[1].machine.as_ref().unwrap().own().id;
    let mut own = sim.nodes[0].machine.as_ref().unwrap().own().id;
    let before = own.generation;
    let down = |generation| Packet::anyone(Body::Down { from, key: own.key, generation }).encode();
    let packets = [down(u64::MAX), down(GENERATION_MAX + 1)];
    own.generation = GENERATION_MAX + 5;
    let record = Record { version: 1, name: "node-0".into(), tags: [("dc".into(), "dc1".into())].into() };
    let rows = vec![Row { id: own, state: State::Alive, age_secs: 0, record: Some(record) }];
    let push = stream::encode(&Request::Push { clock: 1, rows });
    for at in [0, 2] {
        sim.with(at, |machine, now| {
            packets.iter().for_each(|packet| machine.packet(from.address, packet, now))
        });
        sim.with(at, |machine, now| assert_eq!(machine.request(from.address, &push, now), None));
        let malformed = sim.nodes[at].machine.as_ref().unwrap().counters().malformed.get();
        assert_eq!(malformed, 3);
    }
    sim.run(Duration::from_secs(30));
    assert!((0..5).all(|at| sim.members(at)["node-0"].generation == before));
}
