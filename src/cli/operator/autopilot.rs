//! `lictor operator autopilot`: how the servers look after themselves, and how they are.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    check::format_duration,
    cli::{
        Doing, Failure, Outcome,
        client::{self, Client, Request},
        line::{Command, Flag, Line, Run},
        output::{FORMAT, say, say_json, wants_json},
    },
};

pub const GET_CONFIG: Command = Command {
    name: "operator autopilot get-config",
    arguments: "",
    does: "Prints how the servers look after themselves",
    flags: &[client::AGENT, client::SERVERS, FORMAT],
    run: Run::Line(|line| client::ask(line, get_config)),
};

pub const SET_CONFIG: Command = Command {
    name: "operator autopilot set-config",
    arguments: "",
    does: "Sets how the servers look after themselves; what is not given stays",
    flags: &[
        client::AGENT,
        client::SERVERS,
        &[
            Flag::switch("cleanup-dead-servers", "a server that failed is removed when another one comes"),
            Flag::duration(
                "last-contact-threshold",
                "a server that has not heard the leader for so long is not healthy",
            ),
            Flag::number("max-trailing-logs", "nor is one that is so many entries behind"),
            Flag::number("min-quorum", "none is removed below so many servers"),
            Flag::duration(
                "server-stabilization-time",
                "a new server votes after it was healthy for so long",
            ),
        ],
    ],
    run: Run::Line(|line| client::ask(line, set_config)),
};

pub const STATE: Command = Command {
    name: "operator autopilot state",
    arguments: "",
    does: "Prints how the servers are",
    flags: &[client::AGENT, client::SERVERS, FORMAT],
    run: Run::Line(|line| client::ask(line, state)),
};

const PATH: &str = "/v1/operator/autopilot/configuration";
const QUERYING: &str = "Error querying Autopilot configuration";

async fn get_config(client: Client, line: Line) -> Outcome {
    let json = wants_json(&line)?;
    let answer = client.ok(Request::get(PATH)).await.doing(QUERYING)?;
    if json {
        return say_json(&answer.body);
    }
    let config: Value = answer.read().doing(QUERYING)?;
    for key in [
        "CleanupDeadServers",
        "LastContactThreshold",
        "MaxTrailingLogs",
        "MinQuorum",
        "ServerStabilizationTime",
    ] {
        let shown = config[key].as_str().map_or_else(|| config[key].to_string(), String::from);
        say(format_args!("{key} = {shown}"))?;
    }
    ["RedundancyZoneTag", "DisableUpgradeMigration", "UpgradeVersionTag"]
        .iter()
        .try_for_each(|key| say(format_args!("{key} = {}", config[key])))
}

/// What is read is written again, if nobody changed it meanwhile.
async fn set_config(client: Client, line: Line) -> Outcome {
    let mut config: Value = client.read(Request::get(PATH)).await.doing(QUERYING)?;
    let duration = |name| line.duration(name).map(|span| format_duration(span.as_nanos() as i64).into());
    let given: [(&str, Option<Value>); 5] = [
        (
            "CleanupDeadServers",
            line.text("cleanup-dead-servers").map(|_| line.is("cleanup-dead-servers").into()),
        ),
        ("LastContactThreshold", duration("last-contact-threshold")),
        ("MaxTrailingLogs", line.number("max-trailing-logs").map(Value::from)),
        ("MinQuorum", line.number("min-quorum").map(Value::from)),
        ("ServerStabilizationTime", duration("server-stabilization-time")),
    ];
    for (key, value) in given {
        value.into_iter().for_each(|value| config[key] = value);
    }
    let modified = config["ModifyIndex"].as_u64().unwrap_or(0).to_string();
    let request = Request::put(PATH).with("cas", modified).body(config.to_string());
    let written = client.ok(request).await.doing("Error setting Autopilot configuration")?;
    if !written.is_true() {
        return Err(Failure::new("Configuration could not be atomically updated, please try again"));
    }
    say("Configuration updated!")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    healthy: bool,
    failure_tolerance: u64,
    optimistic_failure_tolerance: u64,
    leader: String,
    voters: Vec<String>,
    servers: BTreeMap<String, Server>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Server {
    name: String,
    address: String,
    version: String,
    status: String,
    node_type: String,
    node_status: String,
    healthy: bool,
    last_contact: String,
    last_term: u64,
    last_index: u64,
    meta: Option<BTreeMap<String, String>>,
}

async fn state(client: Client, line: Line) -> Outcome {
    let json = wants_json(&line)?;
    let asked = client.ok(Request::get("/v1/operator/autopilot/state")).await;
    let answer = asked.doing("Error reading Autopilot state")?;
    if json {
        return say_json(&answer.body);
    }
    let state: State = answer.read().doing("Error reading Autopilot state")?;
    say(format_args!("Healthy:                      {}", state.healthy))?;
    say(format_args!("Failure Tolerance:            {}", state.failure_tolerance))?;
    say(format_args!("Optimistic Failure Tolerance: {}", state.optimistic_failure_tolerance))?;
    say(format_args!("Leader:                       {}\nVoters:", state.leader))?;
    state.voters.iter().try_for_each(|voter| say(format_args!("   {voter}")))?;
    say("Servers:")?;
    state.servers.iter().try_for_each(|(id, server)| say_server(id, server))
}

fn say_server(id: &str, server: &Server) -> Outcome {
    say(format_args!("   {id}"))?;
    let rows = [
        ("Name", json!(server.name)),
        ("Address", json!(server.address)),
        ("Version", json!(server.version)),
        ("Status", json!(server.status)),
        ("Node Type", json!(server.node_type)),
        ("Node Status", json!(server.node_status)),
        ("Healthy", json!(server.healthy)),
        ("Last Contact", json!(server.last_contact)),
        ("Last Term", json!(server.last_term)),
        ("Last Index", json!(server.last_index)),
    ];
    for (name, value) in rows {
        let value = value.as_str().map_or_else(|| value.to_string(), String::from);
        say(format_args!("      {:<16}{value}", format!("{name}:")))?;
    }
    say("      Meta:")?;
    let pairs = server.meta.iter().flatten();
    pairs.into_iter().try_for_each(|(key, value)| say(format_args!("         {key:?}: {value:?}")))
}
