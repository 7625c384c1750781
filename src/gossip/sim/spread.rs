//! How fast news gets everywhere.

use std::time::Duration;

use super::{Sim, Took, nodes};
use crate::gossip::{Status, Timing};

fn known(name: &str, status: Status) -> impl Fn(&crate::gossip::Members) -> bool + use<> {
    let name = name.to_owned();
    move |members| members.get(name.as_str()).is_some_and(|it| it.status == status)
}

#[test]
fn a_join_is_known_everywhere_and_the_joiner_knows_everyone() {
    for (count, p99, max) in [(100, 0.25, 0.3), (nodes(200), 0.25, 0.5)] {
        let mut sim = Sim::pool(count, 1, Timing::lan());
        let at = sim.add();
        let name = sim.nodes[at].name.clone();
        sim.watch(known(&name, Status::Alive));
        let begun = sim.now;
        sim.join(at, 3);
        assert_eq!(sim.run_until_seen(Duration::from_secs(10)), count + 1);
        sim.seen[at] = None;
        let took = sim.took(begun);
        assert!(took.p99 <= p99 && took.max <= max, "{count}: {took:?}");
        assert_eq!(sim.members(at).len(), count + 1);
        println!("join, {count}: {took:?}");
    }
}

#[test]
fn many_join_within_a_second() {
    for (count, max) in [(100, 2.5), (nodes(500), 5.0)] {
        let mut sim = Sim::new(2, Timing::lan());
        sim.add();
        sim.watch(move |members| members.len() == count);
        let begun = sim.now;
        for _ in 1..count {
            sim.run(Duration::from_secs(1) / count as u32);
            let at = sim.add();
            sim.join(at, 0);
        }
        assert_eq!(sim.run_until_seen(Duration::from_secs(60)), count);
        let took = sim.took(begun);
        println!("bulk join, {count}: {took:?}");
        assert!(took.max <= max, "{count}: {took:?}");
        let bytes: u64 = sim.nodes.iter().map(|it| it.packet_bytes + it.stream_bytes).sum();
        println!("bulk join, {count}: {} bytes a member", bytes / count as u64);
    }
}

#[test]
fn an_event_is_heard_once_by_everyone() {
    for (count, p99, max) in [(100, 0.25, 0.3), (nodes(200), 0.25, 0.5)] {
        let mut sim = Sim::pool(count, 3, Timing::lan());
        let begun = sim.now;
        sim.with(7, |machine, now| machine.fire("deploy".into(), vec![7; 200], now)).unwrap();
        sim.run(Duration::from_secs(5));
        let times: Vec<_> = sim.nodes.iter().flat_map(|it| &it.events).map(|(at, _)| *at - begun).collect();
        assert_eq!(times.len(), count);
        let took = Took::new(times);
        println!("event, {count}: {took:?}");
        assert!(took.p99 <= p99 && took.max <= max, "{count}: {took:?}");
    }
}

#[test]
fn changed_tags_are_known_everywhere() {
    let count = nodes(200);
    let mut sim = Sim::pool(count, 4, Timing::lan());
    sim.watch(|members| members["node-5"].tag("role").is_some_and(|role| &**role == "consul"));
    let begun = sim.now;
    sim.with(5, |machine, now| machine.set_tags([("role".into(), "consul".into())].into(), now)).unwrap();
    assert_eq!(sim.run_until_seen(Duration::from_secs(10)), count);
    let took = sim.took(begun);
    println!("tags, {count}: {took:?}");
    assert!(took.max <= 0.5, "{took:?}");
}

/// News that was over before a member could hear it again is found out by comparing.
#[test]
fn what_gossip_did_not_bring_is_found_out() {
    let mut sim = Sim::pool(30, 5, Timing::lan());
    sim.net.cut = Box::new(|from, to| from == 9 || to == 9);
    sim.watch(|members| members["node-5"].tag("role").is_some_and(|role| &**role == "consul"));
    sim.with(5, |machine, now| machine.set_tags([("role".into(), "consul".into())].into(), now)).unwrap();
    sim.run(Duration::from_secs(3));
    assert_eq!(sim.seen.iter().filter(|it| it.is_none()).count(), 1);
    sim.net.cut = Box::new(|_, _| false);
    assert_eq!(sim.run_until_seen(Duration::from_secs(21)), 30);
    assert_eq!(sim.wronged, []);
}

/// Distances are told by what probes take.
#[test]
fn members_learn_how_far_they_are_from_each_other() {
    let mut sim = Sim::pool(10, 6, Timing { probe_timeout: Duration::from_millis(500), ..Timing::lan() });
    sim.net.latency = Duration::from_millis(20);
    sim.run(Duration::from_secs(300));
    let place = |at: usize| sim.nodes[at].machine.as_ref().expect("it lives").coordinate();
    for at in 1..10 {
        let told = place(0).distance(&place(at));
        assert!((0.03..0.05).contains(&told), "{told} s to {at}, and it is 40 ms");
    }
}

#[test]
fn a_thousand_members_hear_as_fast() {
    let count = nodes(1000);
    let mut sim = Sim::pool(count, 12, Timing::lan());
    let at = sim.add();
    sim.watch(known(&sim.nodes[at].name.clone(), Status::Alive));
    let begun = sim.now;
    sim.join(at, 3);
    sim.run_until_seen(Duration::from_secs(2));
    sim.run(Duration::from_secs(2));
    let took = sim.took(begun);
    println!("join, {count}: {took:?}");
    assert!(took.p99 <= 0.25 && took.max <= 0.5, "{took:?}");
    assert_eq!(sim.members(at).len(), count + 1);
    let begun = sim.now;
    sim.with(7, |machine, now| machine.fire("deploy".into(), vec![7; 200], now)).unwrap();
    sim.run(Duration::from_secs(2));
    let times: Vec<_> = sim.nodes.iter().flat_map(|it| &it.events).map(|(at, _)| *at - begun).collect();
    assert_eq!(times.len(), count + 1);
    let took = Took::new(times);
    println!("event, {count}: {took:?}");
    assert!(took.p99 <= 0.25 && took.max <= 0.5, "{took:?}");
    assert_eq!(sim.wronged, []);
}

/// As a timer of the system has it: all at one moment, and so at one time of Lamport's.
#[test]
fn events_of_one_moment_are_all_heard() {
    let mut sim = Sim::pool(60, 91, Timing::lan());
    for at in 0..60 {
        let name = format!("cron-{at}");
        sim.with(at, |machine, now| machine.fire(name.as_str().into(), vec![], now)).unwrap();
    }
    sim.run(Duration::from_secs(10));
    assert!(sim.nodes.iter().all(|node| node.events.len() == 60));
}
