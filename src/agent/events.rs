//! User events that this agent heard: those that are for it, the last ones (`cluster.md` §4.6); and what they are among the
//! words of members. A value; how words travel is not known here.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    catalog::{Blob, Service, Text},
    http::{Event, pattern},
};

#[derive(Debug)]
pub struct Events {
    heard: VecDeque<Arc<Event>>,
    /// Later than all that was heard.
    time: u64,
}

/// An event as members tell it each other, with the names that Consul has for its parts; more may come.
#[derive(Serialize, Deserialize)]
struct Told {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "n")]
    name: String,
    #[serde(rename = "p", default, skip_serializing_if = "is_empty")]
    payload: Blob,
    #[serde(rename = "nf", default, skip_serializing_if = "String::is_empty")]
    node_filter: String,
    #[serde(rename = "sf", default, skip_serializing_if = "String::is_empty")]
    service_filter: String,
    #[serde(rename = "tf", default, skip_serializing_if = "String::is_empty")]
    tag_filter: String,
    #[serde(rename = "v")]
    version: u8,
}

/// What is told has this form.
const VERSION: u8 = 1;

/// Why an event is not told, in Consul's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untold {
    #[error("Cannot provide tag filter without service filter")]
    TagAlone,
    #[error("Invalid {kind} filter: {fault}")]
    Filter { kind: &'static str, fault: String },
    #[error(
        "error broadcasting event: user event exceeds configured limit of {EVENT_BYTES_MAX} bytes before encoding"
    )]
    TooLarge,
    #[error(
        "error broadcasting event: encoded user event exceeds configured limit of {EVENT_BYTES_MAX} bytes after encoding"
    )]
    TooLargeEncoded,
}

const HEARD_MAX: usize = 256;
/// Of an event as Consul would send it: it fits one packet of gossip with others.
const EVENT_BYTES_MAX: usize = 512;
/// Stands before the name of an event: gossip carries other words, too, and no user can say those.
const PREFIX: &str = "consul:event:";

impl Default for Events {
    fn default() -> Self {
        Events { heard: VecDeque::new(), time: 1 }
    }
}

impl Events {
    /// The word and its bytes by which members are told of an event.
    ///
    /// # Errors
    /// Where it may not be told.
    pub fn word(&self, event: &Event) -> Result<(Text, Vec<u8>), Untold> {
        is_meant(event, "", &[])?;
        fits(event, self.time)?;
        let told = Told {
            id: event.id.to_string(),
            name: event.name.clone(),
            payload: Blob::from(&*event.payload),
            node_filter: event.node_filter.clone(),
            service_filter: event.service_filter.clone(),
            tag_filter: event.tag_filter.clone(),
            version: VERSION,
        };
        let bytes = rmp_serde::to_vec_named(&told).map_err(|_| Untold::TooLarge)?;
        Ok((format!("{PREFIX}{}", event.name).into(), bytes))
    }

    /// Hears a word of a member, and keeps it where it is an event for this node and its services. What is none, or of a
    /// form to come, is passed over.
    pub fn hear(&mut self, word: &str, bytes: &[u8], time: u64, node: &str, services: &[Arc<Service>]) {
        self.time = self.time.max(time.saturating_add(1));
        let told = rmp_serde::from_slice::<Told>(bytes).ok().filter(|told| told.version == VERSION);
        let Some(told) = told.filter(|told| word.strip_prefix(PREFIX) == Some(&*told.name)) else { return };
        let Ok(id) = Uuid::parse_str(&told.id) else { return };
        let Told { name, payload, node_filter, service_filter, tag_filter, .. } = told;
        let payload = Bytes::copy_from_slice(&payload);
        let event = Event { id, name, payload, node_filter, service_filter, tag_filter, time };
        if is_meant(&event, node, services).unwrap_or(false) {
            if self.heard.len() == HEARD_MAX {
                self.heard.pop_front();
            }
            self.heard.push_back(event.into());
        }
    }

    /// Oldest first.
    pub fn heard(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.heard.iter()
    }

    /// Lamport's.
    pub fn time(&self) -> u64 {
        self.time
    }
}

fn is_empty(bytes: &Blob) -> bool {
    bytes.is_empty()
}

/// Every pattern is looked at, whoever it is for.
fn is_meant(event: &Event, node: &str, services: &[Arc<Service>]) -> Result<bool, Untold> {
    let Event { node_filter, service_filter, tag_filter, .. } = event;
    if service_filter.is_empty() && !tag_filter.is_empty() {
        return Err(Untold::TagAlone);
    }
    let compiled = |kind, text: &String| {
        let given = (!text.is_empty()).then(|| pattern(text)).transpose();
        given.map_err(|fault| Untold::Filter { kind, fault })
    };
    let on_node = compiled("node", node_filter)?;
    let (of_service, of_tag) = (compiled("service", service_filter)?, compiled("tag", tag_filter)?);
    let is_service = |service: &Arc<Service>| {
        of_service.as_ref().is_none_or(|pattern| pattern.is_match(&service.name))
            && of_tag.as_ref().is_none_or(|pattern| service.tags.iter().any(|tag| pattern.is_match(tag)))
    };
    let here = on_node.is_none_or(|pattern| pattern.is_match(node));
    Ok(here && (of_service.is_none() || services.iter().any(is_service)))
}

/// The size is that of Consul's MessagePack, so that what fits there fits here.
fn fits(event: &Event, time: u64) -> Result<(), Untold> {
    let bytes = |length: usize| length + if length < 32 { 1 } else { 3 };
    let unless_empty = |length: usize| if length == 0 { 0 } else { bytes(length) };
    let id = bytes("ID".len()) + bytes(uuid::fmt::Hyphenated::LENGTH);
    let name = bytes("n".len()) + bytes(event.name.len());
    let given = [("p", event.payload.len()), ("nf", event.node_filter.len())]
        .into_iter()
        .chain([("sf", event.service_filter.len()), ("tf", event.tag_filter.len())]);
    let given: usize = given
        .map(|(key, length)| unless_empty(length) + if length == 0 { 0 } else { bytes(key.len()) })
        .sum();
    let version = bytes("v".len()) + 1;
    let inner = 1 + id + name + given + version;
    let name = PREFIX.len() + event.name.len();
    if name + inner > EVENT_BYTES_MAX {
        return Err(Untold::TooLarge);
    }
    let time = match time {
        0..=0x7f => 1,
        0x80..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    };
    let coalesce = bytes("CC".len()) + 1;
    let fields = bytes("LTime".len()) + time + bytes("Name".len()) + bytes(name) + bytes("Payload".len());
    let outer = 2 + fields + bytes(inner) + coalesce;
    if outer > EVENT_BYTES_MAX { Err(Untold::TooLargeEncoded) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tells an event, and hears it at once.
    fn fire(events: &mut Events, event: Event, services: &[Arc<Service>]) -> Result<(), Untold> {
        let (word, bytes) = events.word(&event)?;
        events.hear(&word, &bytes, events.time, "oak", services);
        Ok(())
    }

    fn event(name: &str) -> Event {
        Event { name: name.into(), ..Event::default() }
    }

    fn heard(events: &Events) -> Vec<(&str, u64)> {
        events.heard().map(|event| (event.name.as_str(), event.time)).collect()
    }

    #[test]
    fn events_are_heard_by_those_whom_they_are_for() {
        let service = |name: &str, tags: &[&str]| {
            let tags = tags.iter().map(|tag| (*tag).into()).collect();
            Arc::new(Service { id: "x".into(), name: name.into(), tags, ..Service::default() })
        };
        let services = [service("web", &["v1", "blue"]), service("db", &[])];
        let table = [
            ("", "", "", true),
            ("^oak$", "", "", true),
            ("elm", "", "", false),
            ("oa", "we", "", true),
            ("elm", "web", "", false),
            ("", "^b", "", false),
            ("", "web", "^v", true),
            ("", "db", "^v", false),
            ("", "web|db", "red", false),
        ];
        for (node, service, tag, wanted) in table {
            let mut events = Events::default();
            let [node_filter, service_filter, tag_filter] = [node, service, tag].map(String::from);
            let event = Event { node_filter, service_filter, tag_filter, ..event("deploy") };
            assert_eq!(fire(&mut events, event, &services), Ok(()));
            assert_eq!(!heard(&events).is_empty(), wanted, "{node:?} {service:?} {tag:?}");
        }
        let mut nobody = Events::default();
        let event = Event { service_filter: ".".into(), ..event("deploy") };
        assert_eq!(fire(&mut nobody, event, &[]), Ok(()));
        assert!(heard(&nobody).is_empty(), "no service matches where none is");
    }

    #[test]
    fn filters_that_cannot_be_are_refused() {
        let fire = |event: Event| Events::default().word(&event).unwrap_err().to_string();
        let tag = Event { tag_filter: "a".into(), ..event("a") };
        assert_eq!(fire(tag), "Cannot provide tag filter without service filter");
        let fault = "error parsing regexp: unclosed group";
        let node = Event { node_filter: "(".into(), ..event("a") };
        assert_eq!(fire(node), format!("Invalid node filter: {fault}"));
        let service = Event { service_filter: "(".into(), node_filter: "elm".into(), ..event("a") };
        assert_eq!(fire(service), format!("Invalid service filter: {fault}"));
        let tag = Event { service_filter: "a".into(), tag_filter: "(".into(), ..event("a") };
        assert_eq!(fire(tag), format!("Invalid tag filter: {fault}"));
    }

    #[test]
    fn the_last_ones_stay_in_order() {
        let mut events = Events::default();
        for number in 0..HEARD_MAX + 2 {
            let filter = if number == 5 { "elm" } else { "" };
            let event = Event { node_filter: filter.into(), ..event(&number.to_string()) };
            fire(&mut events, event, &[]).unwrap();
        }
        let heard = heard(&events);
        assert_eq!((heard.len(), heard[0], heard[4]), (HEARD_MAX, ("1", 2), ("6", 7)), "time passes for all");
        assert_eq!(heard.last(), Some(&("257", 258)));
        assert_eq!(events.time(), 259);
    }

    #[test]
    fn all_of_an_event_arrives_and_nothing_else_is_one() {
        let event = Event {
            id: Uuid::from_u128(7),
            payload: Bytes::from_static(b"\x00\xff"),
            node_filter: "^o".into(),
            ..event("deploy/web")
        };
        let (word, bytes) = Events::default().word(&event).unwrap();
        assert_eq!(&*word, "consul:event:deploy/web");
        let hear = |word: &str, bytes: &[u8]| {
            let mut events = Events::default();
            events.hear(word, bytes, 40, "oak", &[]);
            assert_eq!(events.time(), 41, "time passes with whatever is heard");
            events.heard().map(|event| Event::clone(event)).collect::<Vec<_>>()
        };
        assert_eq!(hear(&word, &bytes), [Event { time: 40, ..event.clone() }]);
        let others =
            [("consul:event:deploy", &*bytes), ("deploy/web", &*bytes), ("consul:new-leader", b"oak")];
        others.into_iter().for_each(|(word, bytes)| assert_eq!(hear(word, bytes), []));
        (0..bytes.len()).for_each(|end| assert_eq!(hear(&word, &bytes[..end]), []));
        let at = bytes.len() - 1;
        assert_eq!(bytes[at], VERSION);
        assert_eq!(hear(&word, &[&bytes[..at], &[VERSION + 1]].concat()), [], "a form to come");
    }

    #[test]
    fn an_event_fits_a_packet() {
        let sized = |length: usize| Event { payload: Bytes::from(vec![0; length]), ..event("abcd") };
        let fire = |event: Event| Events::default().word(&event).map(drop);
        assert_eq!(fire(sized(407)), Ok(()));
        assert_eq!(fire(sized(408)), Err(Untold::TooLargeEncoded));
        assert_eq!(fire(sized(435)), Err(Untold::TooLargeEncoded));
        assert_eq!(fire(sized(438)), Err(Untold::TooLarge));
        let with_filter = Event { service_filter: "s".repeat(10), ..sized(400) };
        assert_eq!(fire(with_filter), Err(Untold::TooLargeEncoded), "filters count");
    }
}
