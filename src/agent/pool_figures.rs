//! Figures of this agent's pool, by Consul's names where it has the same, and of whom the servers do not believe to be gone.

use super::shared::Shared;
use crate::{
    gossip::{Refused, Status},
    telemetry::Figure,
};

impl Shared {
    pub(super) fn of_pool(&self) -> Vec<Figure> {
        let mut figures = self.of_members();
        let (traffic, counters, seen) = (self.pool.traffic(), self.pool.counters(), &self.seen);
        let counts = [
            (
                "consul.memberlist.udp.sent",
                "Bytes of packets of gossip that were sent.",
                &traffic.packet_bytes_out,
            ),
            (
                "consul.memberlist.udp.received",
                "Bytes of packets of gossip that came.",
                &traffic.packet_bytes_in,
            ),
            ("consul.memberlist.tcp.connect", "Streams to other members.", &traffic.streams_out),
            ("consul.memberlist.tcp.accept", "Streams from other members.", &traffic.streams_in),
            ("consul.memberlist.tcp.sent", "Bytes sent by streams.", &traffic.stream_bytes_out),
            ("lictor.gossip.tcp_received", "Bytes that came by streams.", &traffic.stream_bytes_in),
            ("lictor.gossip.packets_sent", "Packets of gossip that were sent.", &traffic.packets_out),
            ("lictor.gossip.packets_received", "Packets of gossip that came.", &traffic.packets_in),
            (
                "lictor.gossip.packets_unsent",
                "Packets that the system did not take.",
                &traffic.packets_unsent,
            ),
            ("lictor.gossip.streams_broken", "Streams that ended before their end.", &traffic.streams_broken),
            ("consul.memberlist.msg.suspect", "Members that this agent suspected.", &counters.suspected),
            ("consul.serf.member.join", "Members that came, or came back.", &seen.joined),
            ("consul.serf.member.left", "Members that left.", &seen.left),
            ("consul.serf.member.failed", "Members that failed.", &seen.failed),
            ("consul.serf.events", "Events that came.", &seen.events),
            ("lictor.gossip.events_lost", "Events that came too fast.", &seen.events_lost),
            ("lictor.gossip.cleared", "Suspicions of this agent that were taken back.", &counters.cleared),
            ("lictor.gossip.failed", "Suspicions of this agent that ended as failures.", &counters.failed),
            (
                "lictor.gossip.refuted",
                "How often this agent was suspected, and said otherwise.",
                &counters.refuted,
            ),
            (
                "lictor.gossip.renewed",
                "How often this agent was taken for dead, and came back.",
                &counters.renewed,
            ),
            ("lictor.gossip.conflicts", "Words of another agent of this one's name.", &counters.conflicts),
            ("lictor.gossip.probes", "Members that were asked whether they are there.", &counters.probes),
            ("lictor.gossip.probes_failed", "Those that did not answer at once.", &counters.probes_failed),
            ("lictor.gossip.syncs", "Comparisons with other members.", &counters.syncs),
            ("lictor.gossip.synced", "What they brought.", &counters.synced),
            (
                "lictor.gossip.stopped",
                "How often this process was found to have stood still.",
                &counters.stopped,
            ),
        ];
        figures.extend(counts.map(|(name, help, counter)| Figure::count(name, help, counter.get())));
        let reasons = Refused::ALL.map(|refused| (word(refused), traffic.refused[refused.place()].get()));
        let more = [
            ("foreign", traffic.foreign.get()),
            ("malformed", counters.malformed.get()),
            ("future", counters.future.get()),
            ("misaddressed", counters.misaddressed.get()),
            ("strangers", counters.strangers.get()),
            ("bounds", counters.refused.get()),
        ];
        for (reason, count) in reasons.into_iter().chain(more) {
            let help = "Packets and streams of gossip that were not taken, by the reason.";
            figures.push(Figure::count("lictor.gossip.refused", help, count).with("reason", reason));
        }
        figures
    }

    fn of_members(&self) -> Vec<Figure> {
        let members = self.pool.members();
        let (mut servers, mut clients) = (0, 0);
        for member in members.borrow().values().filter(|member| member.status == Status::Alive) {
            let is_server = member.tag("role").is_some_and(|role| &**role == "consul");
            *if is_server { &mut servers } else { &mut clients } += 1;
        }
        let datacenter = &*self.identity.datacenter;
        let gauge = |name, help, count: usize| Figure::gauge(name, help, count as f64);
        let mut figures = vec![
            gauge("consul.members.servers", "Servers that are alive.", servers)
                .with("datacenter", datacenter),
            gauge("consul.members.clients", "Client agents that are alive.", clients)
                .with("datacenter", datacenter),
        ];
        figures.extend(self.backing.server().map(|server| {
            let help = "Members that vanished with many others and are not believed to be gone.";
            gauge("lictor.members.unconfirmed", help, server.membership.unconfirmed().len())
        }));
        let standings = self.standings();
        for status in [Status::Alive, Status::Leaving, Status::Left, Status::Failed] {
            let count = standings.get(&status).copied().unwrap_or_default();
            let figure = gauge("lictor.members", "Members that are known, by their status.", count);
            figures.push(figure.with("status", status.to_string()));
        }
        figures
    }
}

fn word(refused: Refused) -> &'static str {
    match refused {
        Refused::Size => "size",
        Refused::Version => "version",
        Refused::Unencrypted => "unencrypted",
        Refused::Key => "key",
        Refused::Broken => "broken",
        Refused::Replayed => "replayed",
    }
}
