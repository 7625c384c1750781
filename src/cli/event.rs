//! `lictor event`: sends a word to all agents, or those that filters pick.

use regex::Regex;
use serde::Deserialize;

use super::{
    Doing, Failure, Outcome,
    client::{self, Client, Request},
    line::{Command, Flag, Line, Run},
    output::say,
};

pub const COMMAND: Command = Command {
    name: "event",
    arguments: "[PAYLOAD]",
    does: "Sends an event to all agents, or some",
    flags: &[
        client::AGENT,
        client::SERVERS,
        &[
            Flag::text("name", "what the event is called"),
            Flag::text("node", "a regular expression: only agents of these nodes"),
            Flag::text("service", "a regular expression: only agents with these services"),
            Flag::text("tag", "a regular expression: only where those have these tags"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, event)),
};

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "ID")]
    id: String,
}

async fn event(client: Client, line: Line) -> Outcome {
    let text = |name: &str| line.text(name).filter(|text| !text.is_empty());
    let name = text("name").ok_or_else(|| Failure::new("Event name must be specified"))?;
    if text("tag").is_some() && text("service").is_none() {
        return Err(Failure::new("Cannot provide tag filter without service filter."));
    }
    let payload = match line.rest.as_slice() {
        [] => String::new(),
        [payload] => payload.clone(),
        _ => return Err(Failure::new("Too many command line arguments.")),
    };
    for filter in ["node", "service", "tag"] {
        let text = text(filter).unwrap_or("");
        Regex::new(text).doing(&format!("Failed to compile {filter} filter regexp"))?;
    }
    client.ok(Request::get("/v1/agent/self")).await.doing("Error querying Consul agent")?;
    let request = Request::put(format!("/v1/event/fire/{name}"))
        .with_any("node", text("node"))
        .with_any("service", text("service"))
        .with_any("tag", text("tag"))
        .body(payload);
    let event: Event = client.read(request).await.doing("Error firing event")?;
    say(format_args!("Event ID: {}", event.id))
}
