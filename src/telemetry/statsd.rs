//! Intervals to a statsd, over UDP. Who does not answer, or is not there, is not noticed: nothing waits for him, and
//! what cannot be sent is lost.

use std::{fmt::Write, net::Ipv6Addr, sync::Arc, time::Duration};

use tokio::{
    net::{UdpSocket, lookup_host},
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    figure::Labels,
    interval::{Gauge, Happened, Interval},
};

/// What a packet may hold, so that no network on the way cuts it up.
const PACKET_BYTES_MAX: usize = 1432;
/// For finding the address, and for each packet.
const WAIT: Duration = Duration::from_secs(2);

/// Sends each interval to `address` (`host:port`) until `stop`. What ends while one is being sent is skipped but for
/// the newest.
pub async fn send(
    address: String,
    mut intervals: watch::Receiver<Option<Arc<Interval>>>,
    stop: CancellationToken,
) {
    let mut was_sent = true;
    while let Some(Ok(())) = stop.run_until_cancelled(intervals.changed()).await {
        let Some(interval) = intervals.borrow_and_update().clone() else { continue };
        let sent = stop.run_until_cancelled(send_one(&address, &interval)).await;
        let is_sent = match sent {
            None => return,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                if was_sent {
                    tracing::warn!(address, error, "statsd is not reached: its figures are lost until it is");
                }
                false
            }
        };
        if is_sent && !was_sent {
            tracing::info!(address, "statsd is reached again");
        }
        was_sent = is_sent;
    }
}

/// The address is looked up each time, since it may change.
async fn send_one(address: &str, interval: &Interval) -> Result<(), String> {
    let found = timeout(WAIT, lookup_host(address)).await.map_err(|_| "its address is not found in time")?;
    let addr = found.map_err(|error| error.to_string())?.next().ok_or("it has no address")?;
    let own = if addr.is_ipv4() { ([0; 4], 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind::<std::net::SocketAddr>(own).await.map_err(|error| error.to_string())?;
    for packet in packets(interval) {
        let sent = timeout(WAIT, socket.send_to(packet.as_bytes(), addr)).await;
        sent.map_err(|_| "it takes too long to send")?.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A line to a figure, as many to a packet as it holds.
fn packets(interval: &Interval) -> Vec<String> {
    let Interval { gauges, counters, samples, .. } = interval;
    let gauges =
        gauges.iter().map(|Gauge { name, value, labels }| format!("{}:{value}|g\n", flat(name, labels)));
    let counters =
        counters.iter().map(|Happened { name, sum, labels, .. }| format!("{}:{sum}|c\n", flat(name, labels)));
    // The mean of so many values, of which one is sent for all.
    let samples = samples.iter().map(|Happened { name, mean, count, labels, .. }| {
        let mut line = format!("{}:{mean}|ms", flat(name, labels));
        if *count > 1 {
            // A text takes whatever it is given.
            let _written = write!(line, "|@{}", 1.0 / *count as f64);
        }
        line + "\n"
    });
    let mut packets: Vec<String> = Vec::new();
    for line in gauges.chain(counters).chain(samples).filter(|line| line.len() <= PACKET_BYTES_MAX) {
        match packets.last_mut().filter(|packet| packet.len() + line.len() <= PACKET_BYTES_MAX) {
            Some(packet) => packet.push_str(&line),
            None => packets.push(line),
        }
    }
    packets
}

/// statsd knows no labels: their values are words of the name.
fn flat(name: &str, labels: &Labels) -> String {
    let mut flat = String::new();
    for word in
        [name].into_iter().chain(labels.iter().map(|(_, value)| &**value)).filter(|word| !word.is_empty())
    {
        if !flat.is_empty() {
            flat.push('.');
        }
        flat.extend(word.chars().map(|c| if c.is_whitespace() || ":|@".contains(c) { '_' } else { c }));
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        count::Spread,
        telemetry::{
            figure::{Figure, Names},
            filter::Filter,
            interval::{self, Totals},
        },
    };

    fn interval(figures: Vec<Figure>) -> Interval {
        let names = Names { prefix: None, node: None };
        interval::since(&Totals::new(), figures, &names, &Filter::default(), String::new()).0
    }

    #[test]
    fn lines_are_statsd_s() {
        let spread = Spread::default();
        [1, 2, 3, 6].iter().for_each(|value| spread.record(*value));
        let figures = vec![
            Figure::gauge("consul.peers", "", 1.5),
            Figure::count("lictor.queries", "", 3).with("type", "node").with("form", "a: b"),
            Figure::measured("consul.time", "", spread.read()),
        ];
        let expected = "consul.peers:1.5|g\nlictor.queries.node.a__b:3|c\nconsul.time:3|ms|@0.25\n";
        assert_eq!(packets(&interval(figures)), [expected]);
    }

    #[test]
    fn packets_are_small_and_hold_every_line() {
        let figures: Vec<Figure> = (0..300)
            .map(|n| {
                Figure::count("lictor.queries", "", 1)
                    .with("form", "x".repeat(1 + n * 7 % 90))
                    .with("n", n.to_string())
            })
            .chain([Figure::count("lictor.queries", "", 1).with("form", "x".repeat(PACKET_BYTES_MAX))])
            .collect();
        let packets = packets(&interval(figures));
        assert!(packets.iter().all(|packet| packet.len() <= PACKET_BYTES_MAX && packet.ends_with('\n')));
        assert_eq!(packets.iter().map(|packet| packet.lines().count()).sum::<usize>(), 300);
        assert!(packets.len() < 20, "{}", packets.len());
    }
}
