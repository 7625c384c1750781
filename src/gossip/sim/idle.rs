//! What a pool costs in which nothing happens.

use std::time::Duration;

use super::{Sim, nodes};
use crate::gossip::Timing;

#[test]
fn an_idle_member_costs_little_at_any_size() {
    for count in [20, nodes(200)] {
        let mut sim = Sim::pool(count, 11, Timing::lan());
        sim.run(Duration::from_secs(40));
        for node in &mut sim.nodes {
            (node.packets, node.packet_bytes, node.stream_bytes) = (0, 0, 0);
        }
        sim.run(Duration::from_secs(60));
        let each =
            |of: fn(&super::Node) -> u64| sim.nodes.iter().map(of).sum::<u64>() as f64 / count as f64 / 60.0;
        let (packets, bytes, streams) =
            (each(|it| it.packets), each(|it| it.packet_bytes), each(|it| it.stream_bytes));
        println!("idle, {count}: {packets:.2} packets, {bytes:.0} + {streams:.0} bytes a second");
        assert!(packets <= 2.2 && bytes + streams <= 240.0, "{packets} packets, {bytes} + {streams} bytes");
    }
}
