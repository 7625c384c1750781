//! User events that this agent heard: those that are for it, the last ones (`cluster.md` §4.6). A value, with Lamport's
//! clock in it; how events travel is not known here.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    catalog::Service,
    http::{Event, pattern},
};

#[derive(Debug)]
pub struct Events {
    heard: VecDeque<Arc<Event>>,
    /// The time of the next event that is told from here.
    time: u64,
}

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
/// Stands before the name of an event where gossip carries other things, too.
const PREFIX_BYTES: usize = "consul:event:".len();

impl Default for Events {
    fn default() -> Self {
        Events { heard: VecDeque::new(), time: 1 }
    }
}

impl Events {
    /// Tells an event, and hears it where it is for this node and its services.
    ///
    /// # Errors
    /// Where it is told to nobody.
    pub fn fire(&mut self, event: Event, node: &str, services: &[Arc<Service>]) -> Result<(), Untold> {
        let is_meant = is_meant(&event, node, services)?;
        fits(&event, self.time)?;
        let event = Event { time: self.time, ..event };
        self.time += 1;
        if is_meant {
            if self.heard.len() == HEARD_MAX {
                self.heard.pop_front();
            }
            self.heard.push_back(event.into());
        }
        Ok(())
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
    let name = PREFIX_BYTES + event.name.len();
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
    use bytes::Bytes;

    use super::*;

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
            assert_eq!(events.fire(event, "oak", &services), Ok(()));
            assert_eq!(!heard(&events).is_empty(), wanted, "{node:?} {service:?} {tag:?}");
        }
        let mut nobody = Events::default();
        let event = Event { service_filter: ".".into(), ..event("deploy") };
        assert_eq!(nobody.fire(event, "oak", &[]), Ok(()));
        assert!(heard(&nobody).is_empty(), "no service matches where none is");
    }

    #[test]
    fn filters_that_cannot_be_are_refused() {
        let fire = |event: Event| Events::default().fire(event, "oak", &[]).unwrap_err().to_string();
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
            events.fire(event, "oak", &[]).unwrap();
        }
        let heard = heard(&events);
        assert_eq!((heard.len(), heard[0], heard[4]), (HEARD_MAX, ("1", 2), ("6", 7)), "time passes for all");
        assert_eq!(heard.last(), Some(&("257", 258)));
        assert_eq!(events.time(), 259);
    }

    #[test]
    fn an_event_fits_a_packet() {
        let sized = |length: usize| Event { payload: Bytes::from(vec![0; length]), ..event("abcd") };
        let fire = |event: Event| Events::default().fire(event, "oak", &[]);
        assert_eq!(fire(sized(407)), Ok(()));
        assert_eq!(fire(sized(408)), Err(Untold::TooLargeEncoded));
        assert_eq!(fire(sized(435)), Err(Untold::TooLargeEncoded));
        assert_eq!(fire(sized(438)), Err(Untold::TooLarge));
        let with_filter = Event { service_filter: "s".repeat(10), ..sized(400) };
        assert_eq!(fire(with_filter), Err(Untold::TooLargeEncoded), "filters count");
    }
}
