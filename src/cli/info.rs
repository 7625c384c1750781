//! `lictor info`: what an agent tells of itself in numbers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    Doing, Outcome,
    client::{self, Client, Request},
    line::{Command, Line, Run},
    output::{FORMAT, say, say_json, wants_json},
};

pub const COMMAND: Command = Command {
    name: "info",
    arguments: "",
    does: "Prints what an agent tells of itself",
    flags: &[client::AGENT, FORMAT],
    run: Run::Line(|line| client::ask(line, info)),
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct About {
    stats: BTreeMap<String, BTreeMap<String, String>>,
}

async fn info(client: Client, line: Line) -> Outcome {
    let json = wants_json(&line)?;
    let about: About = client.read(Request::get("/v1/agent/self")).await.doing("Error querying agent")?;
    if json {
        return say_json(serde_json::json!(about.stats).to_string().as_bytes());
    }
    about.stats.iter().try_for_each(|(section, pairs)| {
        say(format_args!("{section}:"))?;
        pairs.iter().try_for_each(|(key, value)| say(format_args!("\t{key} = {value}")))
    })
}
