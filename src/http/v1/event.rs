//! `/v1/event`: what users tell to agents, and what this one heard (`http-api.md` §9.5).

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use uuid::Uuid;

use crate::http::{
    agent::Event,
    call::Call,
    encode::Json,
    reply::{Outcome, Reply},
    route::{Refuses, Route, Takes},
};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/event/fire/",
        methods: &["PUT"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(fire(call)),
    },
    Route {
        path: "/v1/event/list",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(list(call)),
    },
];

/// How long a list waits where nothing is said, and at most.
const WAIT_MAX: Duration = Duration::from_secs(600);

async fn fire(call: Call) -> Outcome {
    call.own_datacenter()?;
    let parameter = |name: &str| call.query.get(name).unwrap_or_default().to_string();
    let event = Event {
        id: Uuid::new_v4(),
        name: call.name("Missing name")?.into(),
        payload: call.body.clone(),
        node_filter: parameter("node"),
        service_filter: parameter("service"),
        tag_filter: parameter("tag"),
        time: 0,
    };
    call.api.agent.fire(event.clone()).await?;
    Ok(Reply::json(|json| write(json, &event)))
}

/// The index is made of the newest event's id: it is compared, and has no order.
async fn list(call: Call) -> Outcome {
    let (asked, wait) = (call.index()?, call.wait_within(WAIT_MAX, WAIT_MAX)?);
    let agent = &call.api.agent;
    let over = tokio::time::sleep(wait);
    tokio::pin!(over);
    let (events, index) = loop {
        let changed = agent.events_changed();
        let name = call.query.get("name");
        let is_wanted = |event: &Arc<Event>| name.is_none_or(|name| event.name == name);
        let events: Vec<_> = agent.events().into_iter().filter(is_wanted).collect();
        let index = events.last().map_or(1, |event| index(event.id));
        if asked != index {
            break (events, index);
        }
        tokio::select! {
            () = changed => {}
            () = &mut over => break (events, index),
            () = call.api.stop.cancelled() => break (events, index),
        }
    };
    let write_all = |json: &mut Json| json.list(|json| events.iter().for_each(|event| write(json, event)));
    Ok(Reply::json(write_all).with("x-consul-index", index))
}

/// Never 0: to clients that means no index at all.
fn index(id: Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    (high ^ low).max(1)
}

fn write(json: &mut Json, event: &Event) {
    json.object(|json| {
        json.key("ID").text(&event.id.to_string());
        json.key("Name").text(&event.name);
        match &*event.payload {
            [] => json.key("Payload").null(),
            bytes => json.key("Payload").text(&BASE64_STANDARD.encode(bytes)),
        }
        json.key("NodeFilter").text(&event.node_filter);
        json.key("ServiceFilter").text(&event.service_filter);
        json.key("TagFilter").text(&event.tag_filter);
        json.key("Version").number(1);
        json.key("LTime").number(event.time);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one of `http-api.md` §10.12.
    #[test]
    fn an_index_is_made_of_both_halves() {
        let id: Uuid = "b54fe110-7af5-cafc-d1fb-afc8ba432b1c".parse().unwrap();
        assert_eq!(index(id), 0xb54f_e110_7af5_cafc ^ 0xd1fb_afc8_ba43_2b1c);
        assert_eq!(index(Uuid::nil()), 1);
    }
}
