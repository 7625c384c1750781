//! A network in pieces, and together again; many at once.

use std::time::Duration;

use super::{Sim, nodes};
use crate::gossip::{Members, Status, Timing};

fn all_alive(count: usize) -> impl Fn(&Members) -> bool {
    move |members| members.len() == count && members.values().all(|it| it.status == Status::Alive)
}

#[test]
fn two_halves_become_one_again() {
    for (count, timing, apart, within) in [
        (100, Timing::lan(), 60, 4.0),
        (nodes(100), Timing::lan(), 120, 20.0),
        (30, Timing::wan(), 180, 10.0),
    ] {
        let mut sim = Sim::pool(count, 21, timing);
        sim.net.cut = Box::new(move |from, to| (from < count / 2) != (to < count / 2));
        sim.run(Duration::from_secs(apart));
        let gone = sim.members(0).values().filter(|it| it.status == Status::Failed).count();
        assert_eq!(gone, count - count / 2, "each half has failed the other");
        sim.net.cut = Box::new(|_, _| false);
        sim.watch(all_alive(count));
        let healed = sim.now;
        // The next look at one of the failed is what all the rest follows from.
        assert_eq!(sim.run_until_seen(Duration::from_secs(60)), count);
        let took = sim.took(healed);
        println!("healed, {count}: {took:?}");
        assert!(took.max <= within + 10.0, "{count}: {took:?}");
    }
}

#[test]
fn packets_that_pass_one_way_only_wrong_nobody() {
    let mut sim = Sim::pool(50, 22, Timing::lan());
    // Nothing of the first ten reaches the next ten.
    sim.net.cut = Box::new(|from, to| from < 10 && (10..20).contains(&to));
    sim.run(Duration::from_secs(120));
    assert_eq!(sim.wronged, []);
}

#[test]
fn a_third_is_lost_at_once() {
    let count = nodes(200);
    let mut sim = Sim::pool(count, 23, Timing::lan());
    let gone = count * 3 / 10;
    (0..gone).for_each(|at| sim.lose(at));
    let begun = sim.now;
    sim.watch(move |members| members.values().filter(|it| it.status == Status::Failed).count() == gone);
    assert_eq!(sim.run_until_seen(Duration::from_secs(90)), count - gone);
    let took = sim.took(begun);
    println!("a third lost, {count}: {took:?}");
    assert!(took.half <= 24.0 && took.max <= 35.0, "{took:?}");
    assert_eq!(sim.wronged, []);
}

#[test]
fn all_start_anew_at_once() {
    let count = nodes(100);
    let mut sim = Sim::pool(count, 24, Timing::lan());
    (0..count).for_each(|at| sim.kill(at));
    sim.run(Duration::from_secs(3));
    let begun = sim.now;
    sim.watch(all_alive(count));
    for at in 0..count {
        sim.start(at);
        sim.run(Duration::from_secs(2) / count as u32);
    }
    assert_eq!(
        sim.run_until_seen(Duration::from_secs(60)),
        count,
        "by what each remembers of its former life"
    );
    let took = sim.took(begun);
    println!("all anew, {count}: {took:?}");
    assert!(took.max <= 15.0, "{took:?}");
}
