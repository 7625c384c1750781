//! What happens in a box: packets and streams on their way, timers, and what machines want done.

use std::time::{Duration, Instant};

use imbl::ordmap::DiffItem;
use rand::RngExt;

use super::{AROUND_PACKET, AROUND_STREAM, Event, Sim};
use crate::gossip::{AskError, Effect, Happening, Keep, Status};

impl Sim {
    pub(super) fn push(&mut self, at: Instant, event: Event) {
        self.number += 1;
        self.events.insert((at, self.number), event);
    }

    fn is_held(&self, at: usize) -> bool {
        let held = |until: Option<Instant>| until.is_some_and(|until| until > self.now);
        held(self.nodes[at].stopped_until) || held(self.nodes[at].stuck_until)
    }

    pub(super) fn happen(&mut self, event: Event) {
        let now = self.now;
        let to = match &event {
            Event::Packet { to, .. } | Event::Request { to, .. } | Event::Answered { to, .. } => *to,
            Event::Wake(to) | Event::Free(to) => *to,
        };
        match event {
            Event::Wake(_) => {
                if self.nodes[to].wakes != Some(now) {
                    return;
                }
                self.nodes[to].wakes = None;
                if self.nodes[to].stopped_until.is_some_and(|until| until > now) {
                    return;
                }
                if let Some(machine) = &mut self.nodes[to].machine {
                    machine.tick(now);
                }
            }
            Event::Free(_) => {
                if self.is_held(to) {
                    return;
                }
                // As the driver does it: all that waits is read, then timers may run.
                let inbox = std::mem::take(&mut self.nodes[to].inbox);
                for event in inbox {
                    self.deliver(event);
                }
                if let Some(machine) = &mut self.nodes[to].machine {
                    machine.tick(now);
                }
                let outbox = std::mem::take(&mut self.nodes[to].outbox);
                outbox.into_iter().for_each(|effect| self.perform(to, effect));
            }
            event if self.is_held(to) => {
                // A receive buffer has an end.
                if self.nodes[to].inbox.len() < 10_000 {
                    self.nodes[to].inbox.push(event);
                }
                return;
            }
            event => self.deliver(event),
        }
        self.after(to);
    }

    fn deliver(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Packet { to, from, bytes } => {
                if let Some(machine) = &mut self.nodes[to].machine {
                    machine.packet(from, &bytes, now);
                }
            }
            Event::Request { to, from, ask, bytes } => {
                let address = self.nodes[from].address;
                let outcome = match &mut self.nodes[to].machine {
                    Some(machine) => {
                        machine.request(address, &bytes, now).ok_or(AskError::Failed("closed".into()))
                    }
                    None => Err(AskError::Refused),
                };
                if let Ok(reply) = &outcome {
                    self.nodes[to].stream_bytes += reply.len() as u64;
                }
                let takes = self.by_stream();
                self.push(now + takes, Event::Answered { to: from, ask, outcome });
            }
            Event::Answered { to, ask, outcome } => {
                if self.nodes[to].asks.remove(&ask)
                    && let Some(machine) = &mut self.nodes[to].machine
                {
                    machine.answered(ask, outcome, now);
                }
            }
            Event::Wake(_) | Event::Free(_) => {}
        }
    }

    /// Whatever a machine wants done after an input, and when it wants to be called.
    pub(super) fn after(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(machine) = &mut node.machine else { return };
        let effects: Vec<Effect> = machine.effects().collect();
        if let Some(due) = machine.due() {
            let due = due.max(self.now);
            if node.wakes.is_none_or(|wakes| wakes > due || wakes <= self.now) {
                node.wakes = Some(due);
                self.push(due, Event::Wake(at));
            }
        }
        for effect in effects {
            if !matches!(effect, Effect::Tell(_)) && self.is_held(at) {
                self.nodes[at].outbox.push(effect);
            } else {
                self.perform(at, effect);
            }
        }
    }

    fn perform(&mut self, from: usize, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Send { to, bytes } => {
                let node = &mut self.nodes[from];
                node.packets += 1;
                node.packet_bytes += bytes.len() as u64 + AROUND_PACKET;
                assert!(bytes.len() <= 1352, "a packet of {} bytes", bytes.len());
                let Some(&at) = self.by_address.get(&to) else { return };
                let lost = self.net.loss > 0.0 && self.random.random_bool(self.net.loss);
                if lost
                    || !self.nodes[at].host_up
                    || (self.net.cut)(from, at)
                    || (self.net.filtered)(from, at)
                {
                    return;
                }
                let takes = self.takes();
                let from = self.nodes[from].address;
                self.push(now + takes, Event::Packet { to: at, from, bytes });
            }
            Effect::Ask { id, to, bytes, deadline } => {
                self.nodes[from].asks.insert(id);
                self.nodes[from].stream_bytes += bytes.len() as u64 + AROUND_STREAM;
                let outcome = Err(AskError::TimedOut);
                self.push(now + deadline, Event::Answered { to: from, ask: id, outcome });
                let Some(&at) = self.by_address.get(&to) else { return };
                if !self.nodes[at].host_up || (self.net.cut)(from, at) || (self.net.cut)(at, from) {
                    return;
                }
                let takes = self.takes() * 2 + self.by_stream();
                self.push(now + takes, Event::Request { to: at, from, ask: id, bytes });
            }
            Effect::Tell(happening) => self.told(from, happening),
        }
    }

    fn takes(&mut self) -> Duration {
        let jitter = self.net.jitter;
        self.net.latency.mul_f64(1.0 + self.random.random_range(-jitter..=jitter))
    }

    /// One way over a stream: what is lost is sent again.
    fn by_stream(&mut self) -> Duration {
        let mut takes = self.takes();
        let mut again = Duration::from_millis(200);
        while self.net.loss > 0.0 && self.random.random_bool(self.net.loss) && again < Duration::from_secs(10)
        {
            takes += again;
            again *= 2;
        }
        takes
    }

    fn told(&mut self, at: usize, happening: Happening) {
        match happening {
            Happening::Changed => self.changed(at),
            Happening::Event(event) => self.nodes[at].events.push((self.now, event)),
            Happening::Keep(keep) => {
                let past = &mut self.nodes[at].past;
                match keep {
                    Keep::Here { name, address } => drop(past.peers.insert(name, address)),
                    Keep::Gone { name } => drop(past.peers.remove(&name)),
                    Keep::Generation(generation) => past.generation = generation,
                    Keep::Clock(clock) => past.clock = clock,
                    Keep::Left => past.peers.clear(),
                }
            }
            happening => self.nodes[at].tells.push((self.now, happening)),
        }
    }

    fn changed(&mut self, at: usize) {
        let Some(machine) = &self.nodes[at].machine else { return };
        let members = machine.members().clone();
        let mut wronged = Vec::new();
        for difference in self.nodes[at].members.diff(&members) {
            if let DiffItem::Add(_, member) | DiffItem::Update { new: (_, member), .. } = difference
                && member.status == Status::Failed
                && self.by_address.get(&member.address).is_some_and(|of| self.is_well(*of))
            {
                wronged.push((at, member.name.to_string()));
            }
        }
        self.wronged.append(&mut wronged);
        if self.seen[at].is_none() && self.watched.as_ref().is_some_and(|watched| watched(&members)) {
            self.seen[at] = Some(self.now);
        }
        self.nodes[at].members = members;
    }

    /// Nothing was done to it, now or a little earlier.
    fn is_well(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let over =
            |until: Option<Instant>| until.is_none_or(|until| until + Duration::from_secs(60) < self.now);
        node.machine.is_some() && node.host_up && over(node.stopped_until) && over(node.stuck_until)
    }
}
