//! Probes and suspicions: what foca's timers are allowed to conclude. A member is failed when several cannot reach it for long
//! enough; when one cannot, it is more likely that this one does not hear.

use std::time::{Duration, Instant};

use foca::{Header, Member, State, Timer};

use super::{Due, Machine, asks::Asked, life::Stage};
use crate::{
    catalog::Coordinate,
    gossip::{
        identity::Id,
        suspicion::{Suspicion, Votes},
        wire::{
            item::{Item, Vote},
            packet::{Body, Packet},
        },
    },
};

/// A probe of our own, from its ping to the next one.
pub(super) struct Probe {
    target: Id,
    number: u8,
    sent: Instant,
    answered: bool,
    /// It was repeated: nobody knows which one was answered.
    again: u8,
    /// How many helpers were asked, and how many of them said that they heard nothing.
    helpers: u8,
    nacks: u8,
    refused: bool,
    bytes: Vec<u8>,
}

/// A probe that was asked of us.
pub(super) struct Helped {
    number: u64,
    origin: Id,
    target: Id,
    probe: u8,
}

pub(super) const DOUBT_MAX: u32 = 7;
const HELPED_MAX: usize = 256;
const VOTES_MAX: usize = 4096;
/// Votes about one member that are passed on: more would tell nobody anything.
const PASSED_MAX: u8 = 4;
/// A timer this late means that the process was stopped.
const LATE: Duration = Duration::from_millis(250);
/// No suspicion that was put off for so long is put off again.
const PUT_OFF_MAX: Duration = Duration::from_secs(8);

impl Machine {
    /// foca wants to be called later. What it wants of its suspicions is not done: they are held here.
    pub(super) fn foca_asks(&mut self, timer: Timer<Id>, after: Duration, now: Instant) {
        match timer {
            Timer::ChangeSuspectToDown { member_id, incarnation, token } => {
                let refused = self.refused.take() == Some(member_id);
                self.accuse(member_id, incarnation, token, refused, now);
            }
            Timer::ProbeRandomMember(token) => {
                self.token = token;
                let after = after * (1 + self.doubt);
                self.timers.at(now + after, Due::Foca(Timer::ProbeRandomMember(token)));
            }
            timer => self.timers.at(now + after, Due::Foca(timer)),
        }
    }

    pub(super) fn foca_timer(&mut self, timer: Timer<Id>, now: Instant) {
        match &timer {
            Timer::SendIndirectProbe { probed_id, .. } => self.ping_by_stream(*probed_id, now),
            Timer::ProbeRandomMember(token) if *token == self.token => self.probe_over(),
            _ => {}
        }
        let gossips = matches!(timer, Timer::PeriodicGossip(_));
        let idle = self.foca.updates_backlog() == 0;
        let sends = self.life.active;
        self.swim(now, |foca, out| foca.handle_timer(timer, out));
        if gossips && sends && idle && !self.news.is_empty() {
            // foca gossips only when it has news of its own.
            self.swim(now, |foca, out| foca.gossip(out));
        }
    }

    pub(super) fn ping_sent(&mut self, header: &Header<Id>, number: u8, bytes: &[u8], now: Instant) {
        self.counters.probes.add(1);
        self.probe = Some(Probe {
            target: header.dst,
            number,
            sent: now,
            answered: false,
            again: 0,
            helpers: 0,
            nacks: 0,
            refused: false,
            bytes: bytes.to_vec(),
        });
        let again = self.settings.timing.ping_again;
        self.timers.at(now + again, Due::PingAgain(number));
        self.timers.at(now + again * 2, Due::PingAgain(number));
    }

    /// One lost packet is no silence.
    pub(super) fn ping_again(&mut self, number: u8) {
        let Some(probe) = self.probe.as_mut().filter(|it| it.number == number && !it.answered) else {
            return;
        };
        if probe.again < 2 {
            probe.again += 1;
            let (to, bytes) = (probe.target.address, probe.bytes.clone());
            self.effects.push_back(super::Effect::Send { to, bytes });
        }
    }

    /// With the question to others goes one by stream: packets may be what does not get through.
    fn ping_by_stream(&mut self, target: Id, now: Instant) {
        let Some(probe) = self.probe.as_ref().filter(|it| it.target == target && !it.answered) else {
            return;
        };
        let bytes = probe.bytes.clone();
        let timing = &self.settings.timing;
        let deadline = timing.probe_interval.saturating_sub(timing.probe_timeout);
        self.ask(target.address, Asked::Ping { of: target }, bytes, deadline, now);
    }

    pub(super) fn helper_asked(&mut self, target: &Id) {
        if let Some(probe) = self.probe.as_mut().filter(|it| it.target == *target) {
            probe.helpers += 1;
        }
    }

    pub(super) fn acked(&mut self, of: Id, number: u8, coordinate: Option<&Coordinate>, now: Instant) {
        let Some(probe) = self.probe.as_mut().filter(|it| it.target == of && it.number == number) else {
            return;
        };
        let first = !std::mem::replace(&mut probe.answered, true);
        let took = now.saturating_duration_since(probe.sent);
        if let Some(coordinate) = coordinate.filter(|_| first && probe.again == 0) {
            self.heard_from(of, coordinate, took);
        }
    }

    pub(super) fn nacked(&mut self, number: u8) {
        if let Some(probe) = self.probe.as_mut().filter(|it| it.number == number) {
            probe.nacks = probe.nacks.saturating_add(1);
        }
    }

    pub(super) fn stream_refused(&mut self, target: Id, now: Instant) {
        if let Some(probe) = self.probe.as_mut().filter(|it| it.target == target) {
            probe.refused = true;
        }
        // Whoever is suspected already is so for a better reason now.
        if let Some(suspicion) =
            self.suspicions.get_mut(&target.key).filter(|it| it.id == target && !it.refused)
        {
            suspicion.refused = true;
            self.vote(target.key, now);
        }
    }

    /// What the last probe says of ourselves: if none of those that we asked for help was heard either, we do not hear well.
    fn probe_over(&mut self) {
        let Some(probe) = self.probe.take() else { return };
        self.refused = (probe.refused && !probe.answered).then_some(probe.target);
        self.doubt = if probe.answered {
            self.doubt.saturating_sub(1)
        } else {
            self.counters.probes_failed.add(1);
            match (probe.helpers, probe.nacks) {
                (0, _) => self.doubt + 1,
                (_, 0) => self.doubt + 2,
                _ => self.doubt,
            }
            .min(DOUBT_MAX)
        };
    }

    /// Someone asks us to probe another; it is told when that comes to nothing, so that it does not take our silence for its own
    /// deafness.
    pub(super) fn help(&mut self, origin: Id, target: Id, probe: u8, now: Instant) {
        if self.helped.len() >= HELPED_MAX {
            self.counters.refused.add(1);
            return;
        }
        self.ask += 1;
        let number = self.ask;
        self.helped.push(Helped { number, origin, target, probe });
        let after = self.settings.timing.probe_timeout.mul_f64(0.8);
        self.timers.at(now + after, Due::Nack(number));
    }

    pub(super) fn helped(&mut self, from: Id, origin: Id, probe: u8) {
        self.helped.retain(|it| !(it.target == from && it.origin == origin && it.probe == probe));
    }

    pub(super) fn nack(&mut self, number: u64) {
        if let Some(at) = self.helped.iter().position(|it| it.number == number) {
            let Helped { origin, probe, .. } = self.helped.swap_remove(at);
            let packet = Packet::to(&origin, Body::Nack { from: self.me(), number: probe });
            self.send(&origin, &packet);
        }
    }

    /// Suspects a member, and says so.
    pub(super) fn accuse(&mut self, id: Id, incarnation: u16, token: u8, refused: bool, now: Instant) {
        match self.suspicions.get_mut(&id.key) {
            // The clock of one that lasts is not set back.
            Some(known) if known.id == id && known.incarnation == incarnation => {
                if known.token == token && (known.refused || !refused) {
                    return;
                }
                (known.token, known.refused) = (token, known.refused || refused);
            }
            _ => {
                self.counters.suspected.add(1);
                let put_off = Duration::ZERO;
                let suspicion =
                    Suspicion { id, incarnation, token, since: now, refused, told: false, put_off };
                self.suspicions.insert(id.key, suspicion);
            }
        }
        self.vote(id.key, now);
    }

    fn vote(&mut self, key: u64, now: Instant) {
        if let Some(suspicion) = self.suspicions.get(&key) {
            let (from, generation) = (self.me().key, suspicion.id.generation);
            let Suspicion { incarnation, refused, .. } = *suspicion;
            self.spread(&Item::Vote(Vote { target: key, generation, incarnation, from, refused }));
            self.push_soon(now);
            self.await_end(key, now);
        }
    }

    pub(super) fn told_vote(&mut self, vote: &Vote, now: Instant) -> bool {
        let me = self.me();
        if vote.target == me.key {
            if vote.generation == me.generation {
                self.told_suspect(vote.incarnation, now);
            }
            return false;
        }
        let known = self.roster.get(vote.target).is_some_and(|entry| entry.id.generation <= vote.generation);
        if !known || vote.from == me.key {
            return false;
        }
        let fresh = || Votes::new(vote.generation, vote.incarnation, now);
        if !self.votes.contains_key(&vote.target) && self.votes.len() >= VOTES_MAX {
            self.counters.refused.add(1);
            return false;
        }
        let votes = self.votes.entry(vote.target).or_insert_with(fresh);
        if (vote.generation, vote.incarnation) > (votes.generation, votes.incarnation) {
            *votes = fresh();
        }
        if (vote.generation, vote.incarnation) < (votes.generation, votes.incarnation)
            || !votes.add(vote.from, vote.refused)
        {
            return false;
        }
        votes.passed = votes.passed.saturating_add(1);
        let pass = votes.passed <= PASSED_MAX;
        self.await_end(vote.target, now);
        pass
    }

    fn await_end(&mut self, key: u64, now: Instant) {
        if let Some(suspicion) = self.suspicions.get(&key) {
            let ends = suspicion.ends(self.votes.get(&key), &self.settings.timing, self.roster.size());
            self.timers.at(ends.max(now), Due::Suspicion(key));
        }
    }

    /// It may have been taken back, or been put off: both are looked at when its time comes.
    pub(super) fn suspicion_ends(&mut self, key: u64, now: Instant) {
        let Some(suspicion) = self.suspicions.get(&key) else { return };
        let (id, incarnation, token) = (suspicion.id, suspicion.incarnation, suspicion.token);
        // foca's own check guards its members only: to one that has refuted it would still say that it is dead.
        let lasts = self
            .foca
            .iter_members()
            .any(|it| *it.id() == id && it.state() == State::Suspect && it.incarnation() == incarnation);
        if !lasts {
            self.suspicions.remove(&key);
            self.votes.remove(&key);
            self.counters.cleared.add(1);
            return;
        }
        let ends = suspicion.ends(self.votes.get(&key), &self.settings.timing, self.roster.size());
        if ends > now {
            self.timers.at(ends, Due::Suspicion(key));
            return;
        }
        self.suspicions.remove(&key);
        self.votes.remove(&key);
        self.counters.failed.add(1);
        let timer = Timer::ChangeSuspectToDown { member_id: id, incarnation, token };
        self.swim(now, |foca, out| foca.handle_timer(timer, out));
    }

    /// Suspects a member that foca did not find silent by itself.
    /// `told`: another one has called it failed.
    pub(super) fn suspect(&mut self, id: Id, refused: bool, told: bool, now: Instant) {
        let Some(known) = self.foca.iter_members().find(|it| *it.id() == id) else { return };
        let incarnation = known.incarnation();
        if known.state() == State::Alive {
            let update = Member::new(id, incarnation, State::Suspect);
            self.swim(now, |foca, out| foca.apply_many(std::iter::once(update), true, out));
        }
        self.accuse(id, incarnation, self.token, refused, now);
        if told && let Some(suspicion) = self.suspicions.get_mut(&id.key) {
            suspicion.told = true;
            self.await_end(id.key, now);
        }
    }

    /// Someone suspects us: foca refutes it at once.
    pub(super) fn told_suspect(&mut self, incarnation: u16, now: Instant) {
        if self.life.stage == Stage::Here && incarnation >= self.incarnation {
            let me = Member::new(self.me(), incarnation, State::Suspect);
            self.swim(now, |foca, out| foca.apply_many(std::iter::once(me), true, out));
        }
    }

    /// A timer that comes late says that we were stopped; what was said meanwhile has yet to be heard.
    pub(super) fn mind_pause(&mut self, now: Instant) {
        let late = self.timers.due().map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if late < LATE {
            return;
        }
        self.counters.stopped.add(1);
        self.timers.put_off(now, |due| match due {
            Due::Foca(Timer::SendIndirectProbe { .. }) => Some(Duration::from_millis(500)),
            Due::Foca(Timer::ProbeRandomMember(_)) => Some(Duration::from_secs(1)),
            _ => None,
        });
        // The time in which we heard nothing counts for nobody; nor does it give anyone a life for ever.
        let by = late + Duration::from_secs(2);
        self.suspicions.values_mut().filter(|it| it.put_off < PUT_OFF_MAX).for_each(|it| it.put_off += by);
    }
}
