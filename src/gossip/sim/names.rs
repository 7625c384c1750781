//! Who may not be here: of another datacenter, with another's id, with another's name.

use std::{net::SocketAddr, time::Duration};

use uuid::Uuid;

use super::Sim;
use crate::gossip::{Happening, Settings, Status, Timing};

/// One that asks to be let in by `seed`, and what it is told.
fn asks(sim: &mut Sim, seed: usize, change: impl FnOnce(&mut Settings)) -> Result<usize, String> {
    let at = sim.add();
    let mut settings = sim.settings(at);
    change(&mut settings);
    sim.kill(at);
    sim.nodes[at].tells.clear();
    sim.start_with(at, settings);
    sim.join(at, seed);
    sim.run(Duration::from_secs(2));
    let told = sim.nodes[at].tells.iter().find_map(|(_, it)| match it {
        Happening::Joined { outcome, .. } => Some(outcome.clone()),
        _ => None,
    });
    sim.kill(at);
    told.expect("it is told")
}

#[test]
fn who_may_not_be_here_is_told_why() {
    let mut sim = Sim::pool(5, 41, Timing::lan());
    let text = asks(&mut sim, 0, |it| it.datacenter = "dc2".into());
    assert_eq!(text, Err("Member 'node-5' part of wrong datacenter 'dc2'".into()));

    // Whoever's id it is, not the seed's alone.
    let id = Uuid::from_u128(4);
    let text = asks(&mut sim, 0, |it| it.id = id);
    assert_eq!(text, Err(format!("Member 'node-6' has conflicting node ID '{id}' with member 'node-3'")));
    let id = Uuid::from_u128(1);
    let text = asks(&mut sim, 0, |it| it.id = id);
    assert_eq!(text, Err(format!("Member 'node-7' has conflicting node ID '{id}' with this agent's ID")));

    let text = asks(&mut sim, 0, |it| it.name = "Node-3".into());
    let expected = "Conflicting address for Node-3. Mine: 10.0.0.3:8301 Theirs: 10.0.0.8:8301 Old state: 0";
    assert_eq!(text, Err(expected.into()));

    sim.run(Duration::from_secs(30));
    for at in 0..5 {
        assert_eq!(sim.members(at).len(), 5, "nobody was let in");
    }
    // The ids of those that left are free.
    sim.with(3, |machine, now| machine.leave(now));
    sim.run(Duration::from_secs(5));
    sim.kill(3);
    assert_eq!(asks(&mut sim, 0, |it| it.id = Uuid::from_u128(4)), Ok(5));
}

#[test]
fn nobody_answers_or_nobody_is_there() {
    let mut sim = Sim::pool(3, 42, Timing::lan());
    sim.kill(1);
    assert_eq!(asks(&mut sim, 1, |_| ()), Err("dial tcp 10.0.0.1:8301: connect: connection refused".into()));
    sim.lose(2);
    let at = sim.add();
    sim.join(at, 2);
    sim.run(Duration::from_secs(11));
    let told = sim.nodes[at].tells.last().map(|(_, it)| it.clone());
    let outcome = Err("dial tcp 10.0.0.2:8301: i/o timeout".into());
    assert_eq!(told, Some(Happening::Joined { id: at as u64, outcome }));
}

#[test]
fn a_name_moves_to_another_address_when_the_old_one_is_gone() {
    let mut sim = Sim::pool(10, 43, Timing::lan());
    sim.lose(3);
    sim.run(Duration::from_secs(20));
    let moved: SocketAddr = "10.9.9.9:8301".parse().unwrap();
    let at = sim.add_at("node-3".into(), moved);
    let mut settings = sim.settings(at);
    settings.id = Uuid::from_u128(4);
    settings.generation += 1_000_000;
    sim.kill(at);
    sim.start_with(at, settings);
    sim.watch(move |members| {
        members.get("node-3").is_some_and(|it| it.status == Status::Alive && it.address == moved)
    });
    sim.join(at, 0);
    assert_eq!(sim.run_until_seen(Duration::from_secs(5)), 10);
}

/// Two halves of a torn network have let in one of the same name each. foca alone would have each declare the other dead for ever,
/// and say nothing.
#[test]
fn of_two_with_one_name_the_younger_stops() {
    let mut sim = Sim::pool(10, 44, Timing::lan());
    sim.net.cut = Box::new(|from, to| (from % 2) != (to % 2));
    sim.run(Duration::from_secs(30));
    let elder = sim.add_at("twin".into(), "10.0.1.10:8301".parse().unwrap());
    let younger = sim.add_at("twin".into(), "10.0.1.11:8301".parse().unwrap());
    for (at, generation) in [(elder, 1_700_000_000_000), (younger, 1_700_000_100_000)] {
        let mut settings = sim.settings(at);
        settings.generation = generation;
        settings.id = Uuid::from_u128(99);
        sim.kill(at);
        sim.start_with(at, settings);
        sim.join(at, at % 2);
    }
    sim.run(Duration::from_secs(5));
    sim.net.cut = Box::new(|_, _| false);
    sim.run(Duration::from_secs(60));
    let stopped = |at: usize| {
        sim.nodes[at].tells.iter().find_map(|(_, it)| match it {
            Happening::Conflict(text) => Some(text.clone()),
            _ => None,
        })
    };
    let text = "Conflicting address for twin. Mine: 10.0.1.11:8301 Theirs: 10.0.1.10:8301 Old state: 0";
    assert_eq!((stopped(elder), stopped(younger)), (None, Some(text.into())));
    for at in (0..10).chain([elder]) {
        let twin = &sim.members(at)["twin"];
        let address = sim.nodes[elder].address;
        assert_eq!((twin.status, twin.address), (Status::Alive, address), "seen by {at}");
    }
    let renewed = sim.nodes[elder].machine.as_ref().unwrap().counters().renewed.get();
    assert!(renewed <= 10, "they did not outbid each other: {renewed}");
}

#[test]
fn a_pool_has_an_end() {
    let mut sim = Sim::pool(5, 45, Timing::lan());
    for at in 0..5 {
        let mut settings = sim.settings(at);
        settings.members_max = 6;
        sim.kill(at);
        sim.start_with(at, settings);
    }
    sim.acquaint();
    assert_eq!(asks(&mut sim, 0, |_| ()), Ok(6));
    sim.run(Duration::from_secs(15));
    let text = asks(&mut sim, 0, |_| ());
    assert_eq!(text, Err("the pool has its limit of 6 members".into()));
    assert!((0..5).all(|at| sim.members(at).len() == 6));
}

/// A machine was cloned with its data: both are let in at one moment, by members that do not know of the other one yet.
#[test]
fn of_two_with_one_node_id_the_younger_stops() {
    for apart in [0, 5, 20] {
        let mut sim = Sim::pool(10, 94, Timing::lan());
        let mut clones = Vec::new();
        for age in [0, 1] {
            let at = sim.add();
            let mut settings = sim.settings(at);
            settings.id = uuid::Uuid::from_u128(77);
            settings.generation += age;
            sim.kill(at);
            sim.start_with(at, settings);
            clones.push(at);
        }
        sim.join(clones[0], 0);
        sim.run(Duration::from_millis(apart));
        sim.join(clones[1], 1);
        sim.run(Duration::from_secs(60));
        // It stops, or was not let in to begin with.
        let given_up =
            |it: &Happening| matches!(it, Happening::Conflict(_) | Happening::Joined { outcome: Err(_), .. });
        let gave_up = |at: &usize| sim.nodes[*at].tells.iter().any(|(_, it)| given_up(it));
        assert_eq!(clones.iter().map(gave_up).collect::<Vec<_>>(), [false, true], "{apart} ms");
        let root = sim.nodes[0].machine.as_ref().unwrap().root();
        for at in 0..11 {
            let members = sim.members(at);
            assert_eq!(members["node-10"].status, Status::Alive, "{apart} ms: {at}");
            assert!(members.get("node-11").is_none_or(|it| it.status == Status::Failed), "{apart} ms: {at}");
            assert_eq!(sim.nodes[at].machine.as_ref().unwrap().root(), root, "{apart} ms: {at}");
        }
    }
}
