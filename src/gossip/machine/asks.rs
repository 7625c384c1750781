//! Requests over streams, ours and those of others, and the bookkeeping of what was asked.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{AskError, AskId, Effect, Happening, Machine, life::Stage};
use crate::gossip::{
    identity::Id,
    wire::{
        packet::Packet,
        stream::{self, Reply, Request},
    },
};

pub(super) struct Ask {
    pub what: Asked,
    to: SocketAddr,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Asked {
    /// To be let in: for whoever wants to know, by their own number.
    Join {
        tell: Option<u64>,
    },
    Sync,
    Push,
    Ping {
        of: Id,
    },
    /// Whether a member is there; `told`: that another one calls dead.
    Doubt {
        of: Id,
        told: bool,
    },
    Answer,
}

const ASKS_MAX: usize = 1024;

/// Whoever is not let in asks again; that it is not is told in the log this often at most.
const COMPLAIN_MILLIS: i64 = 60_000;

impl Machine {
    pub(super) fn ask(
        &mut self,
        to: SocketAddr,
        what: Asked,
        bytes: Vec<u8>,
        deadline: Duration,
        now: Instant,
    ) -> bool {
        if self.asks.len() >= ASKS_MAX {
            self.counters.refused.add(1);
            return false;
        }
        let bytes = match what {
            Asked::Ping { .. } | Asked::Doubt { .. } => stream::encode(&Request::Ping(bytes)),
            _ => bytes,
        };
        self.ask += 1;
        let id = AskId(self.ask);
        self.asks.insert(id, Ask { what, to, since: now });
        self.effects.push_back(Effect::Ask { id, to, bytes, deadline });
        true
    }

    pub(super) fn ask_sync(&mut self, to: SocketAddr, what: Asked, now: Instant) -> bool {
        let join = matches!(what, Asked::Join { .. });
        let at = self.age(now);
        let Some(me) = self.roster.get(self.me().key).map(|entry| entry.row(at)) else {
            return false;
        };
        // Who is alone knows nothing that is worth summing up.
        let sums = if self.roster.len() > 1 { self.roster.sums() } else { Vec::new() };
        let request = Request::Sync { me, join, clock: self.heard.clock(), sums };
        let deadline = self.settings.timing.stream_timeout;
        self.ask(to, what, stream::encode(&request), deadline, now)
    }

    /// The outcome of an [`Effect::Ask`].
    pub fn answered(&mut self, id: AskId, outcome: Result<Vec<u8>, AskError>, now: Instant) {
        if let Some(ask) = self.asks.remove(&id) {
            let reply = outcome.and_then(|bytes| {
                stream::decode::<Reply>(&bytes).map_err(|fault| {
                    self.count(&fault);
                    AskError::Failed(format!("the reply is {fault}"))
                })
            });
            match ask.what {
                Asked::Join { tell } => self.joined(tell, ask.to, reply, now),
                Asked::Sync => {
                    if let Ok(Reply::Rows { clock, whole, buckets, rows }) = reply {
                        self.synced(ask.to, clock, whole, &buckets, rows, now);
                    }
                }
                Asked::Ping { of } => match reply {
                    Ok(Reply::Ack(bytes)) => drop(self.take(&bytes, now)),
                    Err(AskError::Refused) => self.stream_refused(of, now),
                    _ => {}
                },
                Asked::Doubt { of, told } => match reply {
                    Ok(Reply::Ack(bytes)) => drop(self.take(&bytes, now)),
                    outcome => self.suspect(of, outcome == Err(AskError::Refused), told, now),
                },
                Asked::Push | Asked::Answer => {}
            }
        }
        self.finish();
    }

    /// A request that came over a stream; `None` where there is nothing to say.
    pub fn request(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> Option<Vec<u8>> {
        let reply = match stream::decode::<Request>(bytes) {
            Ok(_) if self.life.stage == Stage::Stopped => None,
            Ok(request) => self.reply(from, request, now),
            Err(fault) => {
                self.count(&fault);
                None
            }
        };
        self.finish();
        reply.map(|reply| stream::encode(&reply))
    }

    fn reply(&mut self, from: SocketAddr, request: Request, now: Instant) -> Option<Reply> {
        match request {
            Request::Sync { me: row, join, clock, sums } => {
                if let Some(text) = self.refusal(&row, now) {
                    self.counters.strangers.add(1);
                    let at = self.age(now);
                    if at >= self.life.complains {
                        self.life.complains = at + COMPLAIN_MILLIS;
                        tracing::warn!(%from, "a member was not let in: {text}");
                    }
                    return Some(Reply::Refused(text));
                }
                self.witness(clock);
                let reply = self.rows(&row, join, &sums, now);
                self.take_rows(vec![row], true, now);
                Some(reply)
            }
            Request::Push { clock, rows } => {
                self.witness(clock);
                self.bulk(rows, now);
                Some(Reply::Done)
            }
            Request::Ping(bytes) => {
                let before = self.effects.len();
                if !self.take(&bytes, now) {
                    return None;
                }
                // The answer goes where the question came from; it stands among what foca wants sent.
                let src = Packet::decode(&bytes, &self.me()).ok()?.from();
                let answers =
                    |effect: &Effect| matches!(effect, Effect::Send { to, .. } if *to == src.address);
                let at = before + self.effects.iter().skip(before).position(answers)?;
                match self.effects.remove(at) {
                    Some(Effect::Send { bytes, .. }) => Some(Reply::Ack(bytes)),
                    _ => None,
                }
            }
            Request::Answer { query, from, payload } => {
                self.answer(query, from, payload);
                Some(Reply::Done)
            }
        }
    }

    /// Calls and requests that nobody will hear of again.
    pub(super) fn forget_asked(&mut self, now: Instant) {
        let at = self.age(now);
        self.called.retain(|_, last| at - *last < 1000);
        let longest = self.settings.timing.stream_timeout * 2 + Duration::from_secs(5);
        let mut lost = Vec::new();
        self.asks.retain(|_, ask| {
            let stays = now.saturating_duration_since(ask.since) < longest;
            if !stays && let Asked::Join { tell: Some(id) } = ask.what {
                lost.push(id);
            }
            stays
        });
        for id in lost {
            self.tell(Happening::Joined { id, outcome: Err("timed out".into()) });
        }
    }
}
