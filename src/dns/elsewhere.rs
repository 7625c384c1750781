//! Names of the catalog where this agent has none: such a question is put to somebody who has, as it came, with the settings
//! that it is to be answered by; whoever is asked says all that he can. What then is left to do, hosts that recursors know
//! more of, is done where the question was asked, and so are names that are not the catalog's.

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Asker, Outcome, Published, Responder, Settings, StaticZones, Transport, View, answer::Answer};

/// Whoever has a catalog.
pub trait Elsewhere: Send + Sync + 'static {
    /// Ends within seconds. An error says in words that nobody could be asked.
    fn ask(
        &self,
        asked: AskedElsewhere,
    ) -> Pin<Box<dyn Future<Output = Result<ToldElsewhere, String>> + Send>>;
}

/// A question, and what is to be known of who asked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedElsewhere {
    pub packet: Bytes,
    pub tcp: bool,
    pub from: IpAddr,
    /// See [`Settings`]; in MessagePack.
    pub settings: Bytes,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldElsewhere {
    /// Empty where something is left to do.
    pub reply: Bytes,
    /// What is left to do; empty where the name is not the catalog's.
    pub left: Bytes,
    /// Others may know more of the name than the reply says: nobody is known to live at that address.
    pub unsure: bool,
}

/// Names outside our zones that an answer leads to, and the answer.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Left {
    pub answer: Answer,
    pub for_subnet: bool,
}

impl Left {
    /// `None` where it cannot be what another agent left to do.
    pub fn read(bytes: &[u8]) -> Option<Left> {
        let left: Left = rmp_serde::from_slice(bytes).ok()?;
        let Answer { items, outside, .. } = &left.answer;
        outside.iter().all(|outside| outside.item < items.len()).then_some(left)
    }
}

/// Answers questions that other agents were asked.
pub struct Desk {
    published: Published,
    /// As they were read, by what they were read from: agents have the same ones from one question to the next.
    settings: Mutex<HashMap<Bytes, Arc<Settings>, ahash::RandomState>>,
    /// Those that nobody uses now.
    responders: Mutex<Vec<Responder>>,
}

/// Settings kept; agents of one datacenter mostly have the same ones, but for their names.
const SETTINGS_MAX: usize = 1024;
/// Responders kept: more would hardly be at work at once.
const RESPONDERS_MAX: usize = 64;

impl Desk {
    /// `published` says whose catalog; its settings and zones are of no meaning.
    pub fn new(published: Published) -> Self {
        Desk { published, settings: Mutex::default(), responders: Mutex::default() }
    }

    /// # Errors
    /// Where nobody can have asked like this.
    pub fn answer(&self, asked: &AskedElsewhere) -> Result<ToldElsewhere, String> {
        let settings = self.settings(&asked.settings)?;
        let kept = lock(&self.responders).pop();
        let mut responder = kept.unwrap_or_else(|| Responder::new(fastrand::u64(..)));
        let (zones, catalog) = (StaticZones::default(), self.published.catalog.load());
        let fresh = self.published.is_fresh();
        let view = View { catalog: catalog.as_deref(), settings: &settings, zones: &zones, fresh };
        let transport = if asked.tcp { Transport::Tcp } else { Transport::Udp };
        let mut reply = Vec::new();
        let outcome =
            responder.respond(&view, &Asker { transport, from: asked.from }, &asked.packet, &mut reply);
        let told = match outcome {
            Outcome::Silent => Err("no question".into()),
            Outcome::Answered => {
                let unsure = responder.knows_nobody(&reply);
                Ok(ToldElsewhere { reply: reply.into(), left: Bytes::new(), unsure })
            }
            Outcome::Later(errand) => errand.left().map_or(Ok(ToldElsewhere::default()), |left| {
                let left = rmp_serde::to_vec_named(&left).map_err(|error| error.to_string())?;
                Ok(ToldElsewhere { left: left.into(), ..ToldElsewhere::default() })
            }),
        };
        let mut responders = lock(&self.responders);
        if responders.len() < RESPONDERS_MAX {
            responders.push(responder);
        }
        told
    }

    fn settings(&self, read_from: &Bytes) -> Result<Arc<Settings>, String> {
        if let Some(known) = lock(&self.settings).get(read_from) {
            return Ok(known.clone());
        }
        let read: Settings = rmp_serde::from_slice(read_from).map_err(|error| error.to_string())?;
        let (read, mut known) = (Arc::new(read), lock(&self.settings));
        if known.len() >= SETTINGS_MAX {
            known.clear();
        }
        // A copy of its own: it came in a larger buffer.
        known.insert(Bytes::copy_from_slice(read_from), read.clone());
        Ok(read)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
