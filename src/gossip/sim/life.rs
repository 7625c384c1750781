//! Dying and coming back, and what foca alone gets wrong about it.

use std::time::Duration;

use super::Sim;
use crate::gossip::{Counters, Happening, Members, Status, Timing};

fn counted(sim: &Sim, at: usize, of: fn(&Counters) -> &crate::count::Counter) -> u64 {
    of(sim.nodes[at].machine.as_ref().expect("the process lives").counters()).get()
}

fn has(name: &'static str, status: Status) -> impl Fn(&Members) -> bool {
    move |members| members.get(name).is_some_and(|it| it.status == status)
}

#[test]
fn a_quick_restart_on_the_same_address_is_no_failure() {
    let mut sim = Sim::pool(20, 51, Timing::lan());
    let before = sim.members(0)["node-3"].generation;
    sim.kill(3);
    // Its host refuses connections meanwhile: that ends nothing before 5 s.
    sim.run(Duration::from_secs(5));
    sim.start(3);
    sim.watch(move |members| members["node-3"].generation > before);
    assert_eq!(sim.run_until_seen(Duration::from_secs(5)), 20);
    sim.run(Duration::from_secs(60));
    assert_eq!(sim.wronged, [], "it was there again before it was called failed, and nobody does so later");
    assert!((0..20).all(|at| has("node-3", Status::Alive)(sim.members(at))));
}

#[test]
fn who_was_failed_comes_back_by_its_own_memory() {
    let mut sim = Sim::pool(20, 52, Timing::lan());
    sim.kill(3);
    sim.watch(has("node-3", Status::Failed));
    assert_eq!(sim.run_until_seen(Duration::from_secs(30)), 19);
    sim.run(Duration::from_secs(120));
    sim.start(3);
    sim.watch(has("node-3", Status::Alive));
    assert_eq!(sim.run_until_seen(Duration::from_secs(6)), 20, "it asked whom it remembers");
    assert_eq!(sim.members(3).len(), 20);
}

#[test]
fn who_is_alone_keeps_asking_those_of_its_former_life() {
    let mut sim = Sim::pool(5, 53, Timing::lan());
    (0..5).for_each(|at| sim.lose(at));
    sim.nodes[0].host_up = true;
    sim.start(0);
    sim.run(Duration::from_secs(120));
    assert_eq!(sim.members(0).len(), 1, "what is not there is not taken for alive, nor for failed");
    sim.nodes[4].host_up = true;
    sim.nodes[4].past.peers.clear();
    sim.start(4);
    sim.watch(|members| members.len() == 2);
    assert_eq!(sim.run_until_seen(Duration::from_secs(40)), 2);
}

/// A host back from a snapshot: it remembers less than the others do of it.
#[test]
fn a_generation_behind_the_pools_is_caught_up_with_in_one_step() {
    let mut sim = Sim::pool(20, 54, Timing::lan());
    sim.kill(3);
    sim.run(Duration::from_secs(1));
    let mut settings = sim.settings(3);
    settings.generation = 1_000;
    sim.start_with(3, settings);
    sim.join(3, 0);
    let before = sim.members(0)["node-3"].generation;
    sim.watch(move |members| members.get("node-3").is_some_and(|it| it.generation > before));
    assert_eq!(sim.run_until_seen(Duration::from_secs(10)), 20);
    sim.run(Duration::from_secs(30));
    assert!(counted(&sim, 3, |it| &it.renewed) <= 2, "not one step a packet");
    assert_eq!(sim.wronged, []);
    assert!((0..20).all(|at| has("node-3", Status::Alive)(sim.members(at))));
}

/// foca's timer of a suspicion that was refuted still tells its victim that it is dead.
#[test]
fn a_refuted_suspicion_kicks_nobody() {
    let mut sim = Sim::pool(2, 55, Timing { suspicion_mult: 12, ..Timing::lan() });
    sim.net.cut = Box::new(|_, _| true);
    sim.run(Duration::from_millis(3500));
    sim.net.cut = Box::new(|_, _| false);
    sim.run(Duration::from_secs(60));
    assert!(counted(&sim, 0, |it| &it.suspected) > 0, "there was a suspicion");
    assert!(counted(&sim, 0, |it| &it.cleared) > 0, "which was taken back");
    assert_eq!(sim.wronged, []);
    assert_eq!((counted(&sim, 0, |it| &it.renewed), counted(&sim, 1, |it| &it.renewed)), (0, 0));
}

/// foca tells three members of its new identity, once. If that is lost, pings to the old one are dropped without a word.
#[test]
fn who_is_renewed_is_not_stranded_when_its_first_packets_are_lost() {
    let mut sim = Sim::pool(20, 56, Timing::lan());
    let before = sim.members(0)["node-3"].generation;
    sim.net.cut = Box::new(|from, _| from == 3);
    let key = sim.nodes[3].machine.as_ref().unwrap().own().id;
    sim.with(3, |machine, now| machine.renew_for_test(key.generation, now));
    sim.run(Duration::from_millis(150));
    sim.net.cut = Box::new(|_, _| false);
    sim.watch(move |members| members["node-3"].generation > before);
    assert_eq!(sim.run_until_seen(Duration::from_secs(2)), 20);
    sim.run(Duration::from_secs(30));
    assert_eq!(sim.wronged, []);
}

/// What a newcomer is told at once stays out of what it tells others: foca walks all of that for each packet.
#[test]
fn bulk_knowledge_is_not_told_on() {
    let mut sim = Sim::pool(200, 57, Timing::lan());
    let at = sim.add();
    sim.join(at, 0);
    sim.run(Duration::from_millis(3));
    assert_eq!(sim.members(at).len(), 201);
    let backlog = sim.nodes[at].machine.as_ref().unwrap().backlog();
    assert!(backlog < 10, "{backlog} updates wait to be sent");
}

/// A custom broadcast of foca's that finds no room is never sent and never dropped, and all of them starve in churn.
#[test]
fn an_event_is_heard_while_many_join() {
    let mut sim = Sim::pool(50, 58, Timing::lan());
    for at in 50..150 {
        sim.add();
        sim.join(at, 0);
        sim.run(Duration::from_millis(5));
    }
    let fired = sim.now;
    let too_large = sim.with(7, |machine, now| machine.fire("big".into(), vec![0; 600], now));
    let text = too_large.map_err(|it| it.to_string());
    assert_eq!(text, Err("user event exceeds configured limit of 512 bytes before encoding".into()));
    sim.with(7, |machine, now| machine.fire("deploy".into(), vec![0; 500], now)).unwrap();
    sim.run(Duration::from_secs(5));
    let heard: Vec<_> = sim.nodes.iter().flat_map(|it| &it.events).map(|(at, _)| *at - fired).collect();
    assert_eq!(heard.len(), 150);
    assert!(heard.iter().max().is_some_and(|last| *last < Duration::from_secs(3)), "{heard:?}");
}

#[test]
fn everyone_answers_a_query() {
    let mut sim = Sim::pool(30, 59, Timing::lan());
    sim.with(4, |machine, now| machine.query(17, "ring".into(), b"list".to_vec(), now)).unwrap();
    let end = sim.now + Duration::from_secs(3);
    while sim.now < end {
        sim.run(Duration::from_millis(5));
        for at in 0..30 {
            let asked = sim.nodes[at].tells.iter().position(|(_, it)| matches!(it, Happening::Query(_)));
            if let Some(place) = asked
                && let (_, Happening::Query(query)) = sim.nodes[at].tells.remove(place)
            {
                assert_eq!((&*query.name, &*query.payload), ("ring", &b"list"[..]));
                sim.with(at, |machine, now| machine.respond(&query, vec![at as u8], now));
            }
        }
    }
    sim.run(Duration::from_secs(5));
    let mut answers: Vec<_> = sim.nodes[4]
        .tells
        .iter()
        .filter_map(|(_, it)| match it {
            Happening::Answer { id: 17, from, payload } => Some((payload[0], from.to_string())),
            _ => None,
        })
        .collect();
    answers.sort();
    let expected: Vec<_> = (0..30).map(|at| (at, format!("node-{at}"))).collect();
    assert_eq!(answers, expected);
    assert!(matches!(sim.nodes[4].tells.last(), Some((_, Happening::QueryOver { id: 17 }))));
}

#[test]
fn events_are_not_heard_again_after_a_restart() {
    let mut sim = Sim::pool(5, 60, Timing::lan());
    let time = sim.with(1, |machine, now| machine.fire("one".into(), vec![], now)).unwrap();
    sim.run(Duration::from_secs(2));
    sim.kill(1);
    sim.start(1);
    sim.run(Duration::from_secs(10));
    let later = sim.with(1, |machine, now| machine.fire("two".into(), vec![], now)).unwrap();
    assert!(later > time, "its clock did not go back");
    sim.run(Duration::from_secs(2));
    for node in &sim.nodes {
        let names: Vec<_> = node.events.iter().map(|(_, it)| &*it.name).collect();
        assert_eq!(names, ["one", "two"], "{}", node.name);
    }
}

#[test]
fn a_pool_over_long_distances_works_by_its_own_times() {
    let mut sim = Sim::pool(30, 61, Timing::wan());
    let at = sim.add();
    let begun = sim.now;
    sim.watch(has("node-30", Status::Alive));
    sim.join(at, 3);
    assert_eq!(sim.run_until_seen(Duration::from_secs(5)), 31);
    assert!(sim.took(begun).max <= 0.8, "{:?}", sim.took(begun));
    sim.net.loss = 0.2;
    sim.run(Duration::from_secs(600));
    assert_eq!(sim.wronged, []);
    sim.net.loss = 0.0;
    sim.watch(has("node-9", Status::Failed));
    let begun = sim.now;
    sim.lose(9);
    assert_eq!(sim.run_until_seen(Duration::from_secs(120)), 30);
    println!("WAN host lost, 31: {:?}", sim.took(begun));
    assert!(sim.took(begun).max <= 75.0, "{:?}", sim.took(begun));
}

/// Agents that are started to try something out ask ten times a second, and wait no longer for an answer than for the next
/// question: foca would take that for a fault.
#[test]
fn hasty_times_are_made_to_fit_each_other() {
    let hasty = Duration::from_millis(100);
    let timing = Timing {
        probe_interval: hasty,
        probe_timeout: hasty,
        gossip_interval: hasty,
        suspicion_mult: 3,
        ..Timing::lan()
    };
    let mut sim = Sim::pool(5, 62, timing);
    sim.net.loss = 0.02;
    sim.run(Duration::from_secs(60));
    assert_eq!(sim.wronged, []);
    let faults: u64 = (0..5).map(|at| counted(&sim, at, |it| &it.malformed)).sum();
    assert_eq!(faults, 0);
    sim.watch(has("node-3", Status::Failed));
    sim.lose(3);
    assert_eq!(sim.run_until_seen(Duration::from_secs(3)), 4);
}

/// A file that knows forty who are not there any more is no reason to ask for them for ever.
#[test]
fn a_former_pool_that_was_larger_is_not_sought_for_ever() {
    let mut sim = Sim::pool(10, 92, Timing::lan());
    sim.kill(9);
    let gone = (0..40_u8).map(|at| (format!("gone-{at}").as_str().into(), ([10, 50, 0, at], 8301).into()));
    sim.nodes[9].past.peers = gone.chain([("node-0".into(), sim.nodes[0].address)]).collect();
    sim.run(Duration::from_secs(1));
    sim.start(9);
    sim.join(9, 0);
    sim.run(Duration::from_secs(310));
    let before = sim.nodes[9].stream_bytes;
    sim.run(Duration::from_secs(60));
    assert_eq!(sim.members(9).len(), 10);
    assert_eq!(sim.nodes[9].stream_bytes - before, 0, "it is quiet");
}
