//! `lictor maint`: takes the node or a service out of answers while somebody works on it, and tells what is out.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    Doing, Failure, Outcome,
    client::{self, Client, Request},
    line::{Command, Flag, Line, Run},
    output::say,
};

pub const COMMAND: Command = Command {
    name: "maint",
    arguments: "",
    does: "Begins, ends or lists maintenance of the node or a service",
    flags: &[
        client::AGENT,
        &[
            Flag::switch("enable", "begin"),
            Flag::switch("disable", "end"),
            Flag::text("reason", "why, for whoever asks"),
            Flag::text("service", "the id of a service; the node where not given"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, maint)),
};

#[derive(Deserialize)]
struct About {
    #[serde(rename = "Config")]
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "NodeName")]
    node: String,
}

#[derive(Deserialize)]
struct Check {
    #[serde(rename = "CheckID")]
    id: String,
    #[serde(rename = "Notes")]
    notes: String,
}

async fn maint(client: Client, line: Line) -> Outcome {
    let (enable, disable) = (line.is("enable"), line.is("disable"));
    let (reason, service) = (line.text("reason").unwrap_or(""), line.text("service").unwrap_or(""));
    if enable && disable {
        return Err(Failure::new("Only one of -enable or -disable may be provided"));
    }
    if !enable && !reason.is_empty() {
        return Err(Failure::new("Reason may only be provided with -enable"));
    }
    if !service.is_empty() && !enable && !disable {
        return Err(Failure::new("Service requires either -enable or -disable"));
    }
    let about: About =
        client.read(Request::get("/v1/agent/self")).await.doing("Error querying Consul agent")?;
    if !enable && !disable {
        return list(&client, &about.config.node).await;
    }
    let (path, what, of) = match service {
        "" => ("/v1/agent/maintenance".to_string(), "node", String::new()),
        id => (format!("/v1/agent/service/maintenance/{id}"), "service", format!(" for {id:?}")),
    };
    let (doing, done) = if enable { ("enabling", "enabled") } else { ("disabling", "disabled") };
    let mut request = Request::put(path).with("enable", enable.to_string());
    if enable {
        request = request.with("reason", reason);
    }
    client.ok(request).await.doing(&format!("Error {doing} {what} maintenance"))?;
    let what = if service.is_empty() { "Node" } else { "Service" };
    say(format_args!("{what} maintenance is now {done}{of}"))
}

async fn list(client: &Client, node: &str) -> Outcome {
    let checks: BTreeMap<String, Check> =
        client.read(Request::get("/v1/agent/checks")).await.doing("Error getting checks")?;
    for check in checks.values() {
        if check.id == "_node_maintenance" {
            say(format_args!("Node:\n  Name:   {node}\n  Reason: {}\n", check.notes))?;
        } else if let Some(id) = check.id.strip_prefix("_service_maintenance:") {
            say(format_args!("Service:\n  ID:     {id}\n  Reason: {}\n", check.notes))?;
        }
    }
    Ok(())
}
