//! Going, and being sent away.

use std::time::Duration;

use super::{Sim, nodes};
use crate::gossip::{Happening, Members, Status, Timing, Unknown};

fn has(name: &'static str, status: Status) -> impl Fn(&Members) -> bool {
    move |members| members.get(name).is_some_and(|it| it.status == status)
}

#[test]
fn who_leaves_has_left_and_not_failed() {
    for (count, loss, within) in [(100, 0.0, 1.0), (nodes(200), 0.0, 1.5), (50, 0.2, 20.0)] {
        let mut sim = Sim::pool(count, 31, Timing::lan());
        sim.net.loss = loss;
        sim.watch(has("node-4", Status::Left));
        let begun = sim.now;
        sim.with(4, |machine, now| machine.leave(now));
        assert_eq!(sim.run_until_seen(Duration::from_secs(40)), count, "{count}, {loss}");
        let took = sim.took(begun);
        println!("leave, {count}, {loss}: {took:?}");
        assert!(took.max <= within, "{count}: {took:?}");
        sim.run(Duration::from_secs(9));
        assert!(sim.nodes[4].tells.iter().any(|(_, it)| *it == Happening::Left), "it is told that it may go");
        sim.kill(4);
        sim.run(Duration::from_secs(40));
        for at in sim.alive() {
            assert_eq!(sim.members(at)["node-4"].status, Status::Left);
        }
        assert_eq!(sim.wronged, []);
        assert_eq!(sim.nodes[4].past.peers.len(), 0, "nobody is asked at its next start");
    }
}

#[test]
fn who_is_alone_leaves_at_once() {
    let mut sim = Sim::new(32, Timing::lan());
    sim.add();
    sim.with(0, |machine, now| machine.leave(now));
    sim.run(Duration::from_millis(100));
    assert!(matches!(sim.nodes[0].tells[..], [(_, Happening::Left)]));
}

#[test]
fn a_failed_one_leaves_by_an_operators_word() {
    let mut sim = Sim::pool(30, 33, Timing::lan());
    sim.lose(3);
    sim.run(Duration::from_secs(20));
    let unknown = sim.with(0, |machine, now| machine.force_leave("nobody", false, now));
    assert_eq!(unknown, Err(Unknown("nobody".into())));
    sim.watch(has("node-3", Status::Left));
    sim.with(0, |machine, now| machine.force_leave("NODE-3", false, now)).unwrap();
    assert_eq!(sim.run_until_seen(Duration::from_secs(2)), 29);

    sim.watch(|members| !members.contains_key("node-3"));
    sim.with(1, |machine, now| machine.force_leave("node-3", true, now)).unwrap();
    assert_eq!(sim.run_until_seen(Duration::from_secs(2)), 29);
    let forgotten = sim.with(1, |machine, now| machine.force_leave("node-3", true, now));
    assert!(forgotten.is_err(), "it is not known any more");
    // By comparing with each other they do not remember it either; nor does a newcomer hear of it.
    let new = sim.add();
    sim.join(new, 7);
    sim.run(Duration::from_secs(60));
    for at in sim.alive() {
        assert!(!sim.members(at).contains_key("node-3"), "{at} remembers it");
    }
    // And it may come back.
    sim.nodes[3].host_up = true;
    sim.start(3);
    sim.watch(has("node-3", Status::Alive));
    assert_eq!(sim.run_until_seen(Duration::from_secs(20)), 31);
}

#[test]
fn a_pruned_one_stays_forgotten_by_who_was_away_when_it_was() {
    let mut sim = Sim::pool(30, 34, Timing::lan());
    sim.lose(3);
    sim.run(Duration::from_secs(20));
    sim.net.cut = Box::new(|from, to| (from == 9) != (to == 9));
    sim.run(Duration::from_secs(1));
    sim.with(1, |machine, now| machine.force_leave("node-3", true, now)).unwrap();
    sim.run(Duration::from_secs(4));
    assert!(sim.members(9).contains_key("node-3"));
    sim.net.cut = Box::new(|_, _| false);
    sim.watch(|members| !members.contains_key("node-3"));
    sim.run(Duration::from_secs(60));
    assert!(sim.alive().iter().all(|at| !sim.members(*at).contains_key("node-3")));
}

#[test]
fn who_is_there_stays_though_it_is_sent_away() {
    for prune in [false, true] {
        let mut sim = Sim::pool(30, 35, Timing::lan());
        let before = sim.members(5)["node-5"].generation;
        sim.watch(|members| !has("node-5", Status::Alive)(members));
        sim.with(0, |machine, now| machine.force_leave("node-5", prune, now)).unwrap();
        let gone = sim.run_until_seen(Duration::from_secs(30));
        assert_eq!(gone, 0, "prune: {prune}: somebody took it for gone");
        sim.watch(move |members| members["node-5"].generation > before);
        assert_eq!(sim.run_until_seen(Duration::from_secs(15)), 30, "prune: {prune}");
        assert_eq!(sim.nodes[5].past.generation, sim.members(5)["node-5"].generation, "it is kept");
    }
}

/// An operator is quicker than the pool: it is not waited for once it is found to be gone.
#[test]
fn who_is_not_there_any_more_leaves_when_that_is_noticed() {
    for (prune, told) in [(false, Some(Status::Left)), (true, None)] {
        let mut sim = Sim::pool(30, 37, Timing::lan());
        sim.lose(5);
        sim.with(0, |machine, now| machine.force_leave("node-5", prune, now)).unwrap();
        sim.watch(has("node-5", Status::Failed));
        let failed = sim.run_until_seen(Duration::from_secs(30));
        assert_eq!(failed, 0, "prune: {prune}");
        for at in sim.alive() {
            assert_eq!(sim.members(at).get("node-5").map(|it| it.status), told, "prune: {prune}");
        }
    }
}

/// Forgotten at nearly, but not quite the same time everywhere: nobody learns it anew from who has not yet forgotten.
#[test]
fn who_is_gone_for_long_is_forgotten_for_good() {
    let timing = Timing {
        reconnect_timeout: Duration::from_secs(240),
        tombstone_timeout: Duration::from_secs(120),
        ..Timing::lan()
    };
    let mut sim = Sim::pool(20, 36, timing);
    let mut own = sim.settings(8);
    own.tags.insert("rc_tm".into(), "0h3m0s".into());
    sim.kill(8);
    sim.start_with(8, own);
    sim.join(8, 0);
    sim.run(Duration::from_secs(5));
    [7, 8].into_iter().for_each(|at| sim.lose(at));
    sim.with(9, |machine, now| machine.leave(now));
    sim.run(Duration::from_secs(10));
    sim.kill(9);
    let known =
        |sim: &Sim, name: &str| sim.alive().iter().filter(|at| sim.members(**at).contains_key(name)).count();
    sim.run(Duration::from_secs(100));
    assert_eq!((known(&sim, "node-7"), known(&sim, "node-8"), known(&sim, "node-9")), (17, 17, 17));
    sim.run(Duration::from_secs(40));
    assert_eq!((known(&sim, "node-7"), known(&sim, "node-8"), known(&sim, "node-9")), (17, 17, 0));
    sim.run(Duration::from_secs(60));
    assert_eq!((known(&sim, "node-7"), known(&sim, "node-8"), known(&sim, "node-9")), (17, 0, 0));
    sim.run(Duration::from_secs(70));
    assert_eq!((known(&sim, "node-7"), known(&sim, "node-8"), known(&sim, "node-9")), (0, 0, 0));
    let new = sim.add();
    sim.join(new, 0);
    sim.run(Duration::from_secs(300));
    assert_eq!((known(&sim, "node-7"), known(&sim, "node-8"), known(&sim, "node-9")), (0, 0, 0));
}
