//! Who is gone is found out in time, and nobody else is called so.

use std::time::Duration;

use super::{Sim, nodes};
use crate::gossip::{Status, Timing};

fn timing(floor: u64) -> Timing {
    Timing { refused_floor: Some(Duration::from_secs(floor)), ..Timing::lan() }
}

fn lost(count: usize, seed: u64, host: bool) -> super::Took {
    let mut sim = Sim::pool(count, seed, timing(2));
    let name = sim.nodes[9].name.clone();
    sim.watch(move |members| members[name.as_str()].status == Status::Failed);
    let begun = sim.now;
    if host {
        sim.lose(9)
    } else {
        sim.kill(9)
    }
    let seen = sim.run_until_seen(Duration::from_secs(60));
    assert_eq!(seen, count - 1, "{:?}", sim.took(begun));
    assert_eq!(sim.wronged, []);
    sim.took(begun)
}

#[test]
fn a_lost_host_is_failed() {
    let took = lost(100, 5, true);
    println!("host lost, 100: {took:?}");
    assert!(took.max <= 14.0 && took.half >= 8.0, "{took:?}");
}

#[test]
fn a_dead_process_is_failed_sooner() {
    let took = lost(100, 6, false);
    println!("process dead, 100: {took:?}");
    assert!(took.max <= 6.5 && took.half >= 2.0, "{took:?}");
}

fn healthy(count: usize, seed: u64, loss: f64, time: u64) -> Sim {
    let mut sim = Sim::pool(count, seed, timing(2));
    sim.net.loss = loss;
    sim.run(Duration::from_secs(time));
    sim
}

#[test]
fn lost_packets_are_no_lost_members() {
    for (count, loss, time) in [(100, 0.01, 120), (100, 0.05, 120), (100, 0.2, 200), (nodes(200), 0.2, 60)] {
        let sim = healthy(count, 7, loss, time);
        let sum = |of: fn(&crate::gossip::Counters) -> &crate::count::Counter| -> u64 {
            sim.nodes.iter().filter_map(|it| it.machine.as_ref()).map(|it| of(it.counters()).get()).sum()
        };
        println!(
            "loss {loss}, {count}: {} suspicions, {} renewed, {} refuted, {} failed probes of {}",
            sum(|it| &it.suspected),
            sum(|it| &it.renewed),
            sum(|it| &it.refuted),
            sum(|it| &it.probes_failed),
            sum(|it| &it.probes)
        );
        assert_eq!(sim.wronged, [], "{count} members, {loss} of all packets lost");
        assert_eq!(sum(|it| &it.renewed), 0, "nobody was made to come back as another");
        assert_eq!(sum(|it| &it.malformed), 0);
        if loss < 0.1 {
            assert_eq!(sum(|it| &it.suspected), 0);
            // Pinged once only, a tenth of all would have had to be asked over a stream.
            let streams: u64 = sim.nodes.iter().map(|node| node.stream_bytes).sum();
            let bytes = streams / sum(|it| &it.probes);
            println!("loss {loss}, {count}: {bytes} bytes of streams a probe");
            assert!(bytes < 10, "a ping that is lost is repeated: {bytes} bytes of streams a probe");
        }
    }
}

/// Each time anew, these so often: for how long they are held, and how long they are let go.
fn held(
    count: usize,
    share: usize,
    held: u64,
    free: u64,
    time: u64,
    how: fn(&mut Sim, usize, Duration),
) -> Sim {
    let mut sim = Sim::pool(count, 8, timing(2));
    let end = sim.now + Duration::from_secs(time);
    while sim.now < end {
        (0..count.div_ceil(share)).for_each(|at| how(&mut sim, at * share, Duration::from_secs(held)));
        sim.run(Duration::from_secs(held + free));
    }
    sim
}

#[test]
fn who_stops_now_and_then_wrongs_nobody() {
    for (count, time) in [(100, 150), (nodes(200), 60)] {
        let sim = held(count, 100, 5, 10, time, Sim::stop);
        assert_eq!(sim.wronged, [], "{count} members, 1 % stop for 5 s of 15");
        let failed = sim.members(1).values().filter(|it| it.status == Status::Failed).count();
        assert_eq!(failed, 0, "5 s are too short to be failed for");
    }
}

/// The anomaly that the Lifeguard paper is about: who hears nothing takes everyone for dead.
#[test]
fn who_hears_nothing_for_a_while_wrongs_nobody() {
    for (count, share, stuck, free, time) in
        [(100, 100, 20, 2, 600), (100, 10, 16, 4, 200), (nodes(200), 100, 20, 2, 88)]
    {
        let sim = held(count, share, stuck, free, time, Sim::stick);
        let machines = sim.nodes.iter().filter_map(|it| it.machine.as_ref());
        let failed: u64 = machines.map(|it| it.counters().failed.get()).sum();
        println!("stuck {stuck} s of {}, {count}: {failed} suspicions came true", stuck + free);
        assert!(failed > 0, "those that are silent for so long are failed themselves");
        assert_eq!(sim.wronged, [], "{count} members, one of {share} stuck {stuck} s of {}", stuck + free);
    }
}

/// Where packets to and from a member are dropped, and streams pass, it is there all the same.
#[test]
fn packets_are_not_the_only_way() {
    let mut sim = Sim::pool(20, 9, timing(2));
    sim.net.filtered = Box::new(|from, to| from == 3 || to == 3);
    sim.run(Duration::from_secs(60));
    assert_eq!(sim.wronged, []);
    let suspected = sim.nodes.iter().filter_map(|it| it.machine.as_ref());
    let suspected: u64 = suspected.map(|it| it.counters().suspected.get()).sum();
    assert_eq!(suspected, 0);
}

/// Who is heard by nobody doubts its own hearing, and accuses others at a slower pace.
#[test]
fn who_is_cut_off_probes_less() {
    let mut sim = Sim::pool(20, 10, timing(2));
    let probes = |sim: &Sim| sim.nodes[3].machine.as_ref().expect("it lives").counters().probes.get();
    let before = probes(&sim);
    sim.net.cut = Box::new(|from, to| from == 3 || to == 3);
    sim.run(Duration::from_secs(40));
    assert!(probes(&sim) - before <= 12, "{} probes", probes(&sim) - before);
    sim.net.cut = Box::new(|_, _| false);
    sim.watch(|members| members.values().all(|it| it.status == Status::Alive));
    assert_eq!(sim.run_until_seen(Duration::from_secs(15)), 20);
}

/// Those who are asked for help say that they heard nothing, either: so nobody takes another's silence for its own deafness.
#[test]
fn whoever_probes_the_dead_does_not_doubt_itself() {
    let mut sim = Sim::pool(30, 10, timing(2));
    sim.lose(9);
    for _ in 0..200 {
        sim.run(Duration::from_millis(100));
        for at in sim.alive() {
            assert_eq!(sim.nodes[at].machine.as_ref().map(crate::gossip::Machine::doubt), Some(0), "{at}");
        }
    }
    assert!(sim.members(0)["node-9"].status == Status::Failed);
}

/// It suspected others when it was stopped: they have said otherwise since, and it has not heard of that yet.
#[test]
fn who_was_stopped_hears_before_it_judges() {
    for seed in 0..4 {
        let mut sim = Sim::pool(10, 8500 + seed, timing(2));
        sim.net.cut = Box::new(|from, to| (from == 4) != (to == 4));
        sim.run(Duration::from_millis(2500));
        let suspected = sim.nodes[4].machine.as_ref().unwrap().counters().suspected.get();
        sim.stop(4, Duration::from_secs(40));
        sim.run(Duration::from_secs(1));
        sim.net.cut = Box::new(|_, _| false);
        let before = sim.nodes[4].machine.as_ref().unwrap().counters().failed.get();
        sim.run(Duration::from_secs(60));
        let after = sim.nodes[4].machine.as_ref().unwrap().counters().failed.get();
        println!("seed {seed}: {suspected} suspected before the stop, {} failed", after - before);
        assert_eq!(after - before, 0, "seed {seed}");
    }
}
