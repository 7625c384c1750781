//! Packets on their way out: what foca wants sent is put into our form, with the news that still has room, and with what belongs to
//! pings and their answers.

use std::time::Instant;

use foca::{Codec, Header, Message, State};

use super::{Due, Effect, Machine};
use crate::gossip::{
    identity::Id,
    news::Topic,
    ring::hash,
    wire::{
        PACKET_MAX,
        item::Item,
        packet::{Body, Packet, wrap},
        swim::Swim,
    },
};

/// What stands around foca's bytes at most, news aside: version, flags, short identity, coordinate, incarnation, two lengths.
const AROUND: usize = 36;

impl Machine {
    pub(super) fn send(&mut self, to: &Id, packet: &Packet) {
        let bytes = packet.encode();
        self.effects.push_back(Effect::Send { to: to.address, bytes });
    }

    /// One packet of foca's.
    pub(super) fn send_swim(&mut self, to: Id, swim: &[u8], now: Instant) {
        let Ok(header) = Swim.decode_header(swim) else { return };
        self.mind_incarnation(header.src_incarnation);
        if header.message == Message::TurnUndead {
            // It names no generation, and so cannot say how far behind the other one is.
            self.call(to, now);
            return;
        }
        let mut packet = Packet::to(&to, Body::default());
        if matches!(header.message, Message::Ack(_)) {
            packet.coordinate = self.own_coordinate();
        }
        if matches!(header.message, Message::Ping(_)) {
            packet.suspect = self.suspected(&to);
        }
        let transmissions = self.settings.timing.transmissions(self.sized_for);
        let room = PACKET_MAX.saturating_sub(swim.len() + AROUND);
        let (news, short) = self.news.take(room, transmissions);
        packet.news = news;
        let bytes = wrap(&packet, swim);
        if let Message::Ping(number) = header.message {
            self.ping_sent(&header, number, &bytes, now);
        }
        if let Message::PingReq { target, .. } = &header.message {
            self.helper_asked(target);
        }
        self.effects.push_back(Effect::Send { to: to.address, bytes });
        if short && header.message == Message::Gossip {
            // foca fills its packets to the brim in times of much news: ours must not starve behind it.
            self.send_news(&to, transmissions);
        }
    }

    fn send_news(&mut self, to: &Id, transmissions: u8) {
        let (news, _) = self.news.take(PACKET_MAX - AROUND - 32, transmissions);
        if !news.is_empty() {
            let packet = Packet { news, ..Packet::to(to, Body::News { from: self.me() }) };
            self.send(to, &packet);
        }
    }

    /// To everyone, by and by.
    pub(super) fn spread(&mut self, item: &Item) {
        let topic = match item {
            Item::Record { id, .. } => Topic::Record(id.key),
            Item::Vote(vote) => Topic::Vote { target: vote.target, from: vote.from },
            Item::Leave { key, .. } => Topic::Leave(*key),
            Item::Force { key, .. } => Topic::Force(*key),
            Item::Event { time, name, payload } => Topic::Event { time: *time, hash: hash(name, payload) },
            Item::Query { id, .. } => Topic::Query(*id),
        };
        self.news.push(topic, item.encode());
    }

    /// News is pushed soon after it arrived, and not at every item: how often each is sent is bounded anyway, so that pushing
    /// makes it faster, not more.
    pub(super) fn push_soon(&mut self, now: Instant) {
        if self.push_waits {
            return;
        }
        let timing = &self.settings.timing;
        let soonest = self.pushed.map_or(now, |last| last + timing.eager_interval);
        self.push_waits = true;
        self.timers.at(soonest.max(now + timing.eager_delay), Due::Push);
    }

    pub(super) fn push(&mut self, now: Instant) {
        self.push_waits = false;
        self.pushed = Some(now);
        if !self.news.is_empty() || self.foca.updates_backlog() > 0 {
            self.swim(now, |foca, out| foca.gossip(out));
            if !self.news.is_empty() || self.foca.updates_backlog() > 0 {
                self.push_soon(now);
            }
        }
    }

    /// The incarnation in which a member is suspected here, if it is.
    fn suspected(&self, id: &Id) -> Option<u16> {
        let known = self.foca.iter_members().find(|member| member.id() == id)?;
        (known.state() == State::Suspect).then(|| known.incarnation())
    }

    fn mind_incarnation(&mut self, incarnation: u16) {
        if incarnation > self.incarnation {
            // Someone did not hear us: who is slow to be heard may be slow to hear.
            self.doubt = (self.doubt + 1).min(super::health::DOUBT_MAX);
            self.counters.refuted.add(1);
        }
        self.incarnation = incarnation;
    }

    /// A ping of our own making, for where foca cannot be asked to probe whom we want.
    pub(super) fn own_ping(&self, to: &Id) -> Vec<u8> {
        let header =
            Header { src: self.me(), src_incarnation: self.incarnation, dst: *to, message: Message::Ping(0) };
        Packet { suspect: self.suspected(to), ..Packet::to(to, Body::Swim { header, updates: Vec::new() }) }
            .encode()
    }
}
