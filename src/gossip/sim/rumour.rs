//! What is said of those who are gone, late or by who could not know better.

use std::time::Duration;

use foca::{Header, Member, Message, State};

use super::Sim;
use crate::gossip::{
    Members, Status, Timing,
    wire::packet::{Body, Packet},
};

fn status(members: &Members, name: &str) -> Option<Status> {
    members.get(name).map(|it| it.status)
}

/// That a member is down may come before that there is one: the reply of who lets one in was made a moment earlier. Taken, it
/// kept the newcomer from ever probing that member, and the dead were alive there for ever.
#[test]
fn who_is_called_down_before_it_is_known_is_probed_all_the_same() {
    let mut sim = Sim::pool(10, 81, Timing::lan());
    let [dead, teller] = [9, 2].map(|at: usize| sim.nodes[at].machine.as_ref().unwrap().own().id);
    let new = sim.add();
    let dst = sim.nodes[new].machine.as_ref().unwrap().own().id;
    let header = Header { src: teller, src_incarnation: 0, dst, message: Message::Gossip };
    let updates = vec![Member::new(dead, 0, State::Down)];
    let bytes = Packet::to(&dst, Body::Swim { header, updates }).encode();
    sim.with(new, |machine, now| machine.packet(teller.address, &bytes, now));
    sim.join(new, 0);
    sim.run(Duration::from_millis(20));
    sim.lose(9);
    sim.watch(|members| status(members, "node-9") == Some(Status::Failed));
    assert_eq!(sim.run_until_seen(Duration::from_secs(60)), 10);
}

/// Newcomers hear of a failure in any order, from many and through loss.
#[test]
fn whoever_joins_while_many_are_lost_knows_who_is_gone() {
    for seed in 0..3 {
        let mut sim = Sim::pool(60, 8200 + seed, Timing::lan());
        sim.net.loss = 0.1;
        (42..60).for_each(|at| sim.lose(at));
        sim.run(Duration::from_secs(6));
        for number in 0..40 {
            let at = sim.add();
            sim.join(at, (number * 7) % 42);
            sim.run(Duration::from_millis(200));
        }
        sim.net.loss = 0.0;
        sim.run(Duration::from_secs(60));
        for at in sim.alive() {
            let here = sim.members(at).values().filter(|it| it.status == Status::Alive).count();
            assert_eq!(here, 82, "seed {seed}: as {at} sees it");
        }
    }
}

/// A part that was cut off knows of a former life only, and suspects it still when it hears from the others again.
#[test]
fn a_former_life_does_not_bring_a_pruned_one_back() {
    for seed in 0..6 {
        let mut sim = Sim::pool(30, 8300 + seed, Timing::lan());
        sim.net.cut = Box::new(|from, to| (from < 6) != (to < 6));
        sim.run(Duration::from_millis(500));
        sim.kill(20);
        sim.run(Duration::from_millis(300));
        sim.start(20);
        sim.run(Duration::from_secs(2));
        sim.lose(20);
        for _ in 0..300 {
            if status(sim.members(10), "node-20") == Some(Status::Failed) {
                break;
            }
            sim.run(Duration::from_millis(100));
        }
        sim.with(10, |machine, now| machine.force_leave("node-20", true, now)).unwrap();
        sim.run(Duration::from_secs(1));
        sim.net.cut = Box::new(|_, _| false);
        sim.run(Duration::from_secs(20));
        for _ in 0..300 {
            sim.run(Duration::from_millis(100));
            let back = (6..30).filter(|at| *at != 20 && sim.members(*at).contains_key("node-20")).count();
            assert_eq!(back, 0, "seed {seed}");
        }
    }
}

/// Who was cut off while a member left takes it for failed, and for longer than those who know better show that it left.
#[test]
fn who_left_does_not_come_back_by_who_was_away_for_long() {
    for prune in [false, true] {
        let timing = Timing {
            reconnect_timeout: Duration::from_secs(600),
            tombstone_timeout: Duration::from_secs(200),
            ..Timing::lan()
        };
        let mut sim = Sim::pool(10, 84, timing);
        sim.net.cut = Box::new(|from, to| (from == 9) != (to == 9));
        sim.run(Duration::from_secs(3));
        if prune {
            sim.lose(3);
            sim.run(Duration::from_secs(25));
            sim.with(0, |machine, now| machine.force_leave("node-3", true, now)).unwrap();
        } else {
            sim.with(3, |machine, now| machine.leave(now));
            sim.run(Duration::from_secs(10));
            sim.kill(3);
        }
        sim.run(Duration::from_secs(240));
        assert_eq!(status(sim.members(0), "node-3"), None, "it is not shown any more");
        assert_eq!(status(sim.members(9), "node-3"), Some(Status::Failed), "as it was seen from there");
        sim.net.cut = Box::new(|_, _| false);
        for second in 0..60 {
            sim.run(Duration::from_secs(1));
            let back = (0..9).filter(|at| *at != 3 && sim.members(*at).contains_key("node-3")).count();
            assert_eq!(back, 0, "prune: {prune}, {second} s");
        }
        assert_eq!(status(sim.members(9), "node-3"), None, "prune: {prune}");
    }
}
