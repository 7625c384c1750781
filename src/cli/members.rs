//! `lictor members`, `join` and `force-leave`: who is in the cluster, as the agent that is asked sees it.

use std::collections::BTreeMap;

use regex::Regex;
use serde::Deserialize;

use super::{
    Doing, Failure, Outcome,
    client::{self, Client, Request},
    line::{Command, Flag, Line, Run},
    output::{FORMAT, complain, say, say_json, table, wants_json},
};

pub const MEMBERS: Command = Command {
    name: "members",
    arguments: "",
    does: "Lists the members of the cluster",
    flags: &[
        client::AGENT,
        FORMAT,
        &[
            Flag::switch("detailed", "with all tags"),
            Flag::text("filter", "an expression that picks members"),
            Flag::text("segment", "accepted: there is one segment"),
            Flag::text("status", "a regular expression: only those whose status it matches"),
            Flag::switch("wan", "the servers of all datacenters"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, members)),
};

pub const JOIN: Command = Command {
    name: "join",
    arguments: "ADDRESS...",
    does: "Makes an agent join others",
    flags: &[client::AGENT, &[Flag::switch("wan", "servers of another datacenter")]],
    run: Run::Line(|line| client::ask(line, join)),
};

pub const FORCE_LEAVE: Command = Command {
    name: "force-leave",
    arguments: "NODE",
    does: "Counts a failed member as one that has left",
    flags: &[
        client::AGENT,
        &[Flag::switch("prune", "forget it, too"), Flag::switch("wan", "a server of another datacenter")],
    ],
    run: Run::Line(|line| client::ask(line, force_leave)),
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    name: String,
    addr: String,
    port: u16,
    tags: BTreeMap<String, String>,
    status: u8,
}

impl Member {
    fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", String::as_str)
    }

    fn is_server(&self) -> bool {
        self.tag("role") == "consul"
    }

    fn status(&self) -> &'static str {
        match self.status {
            1 => "alive",
            2 => "leaving",
            3 => "left",
            4 => "failed",
            _ => "none",
        }
    }

    /// Without the columns that every row has.
    fn row(&self) -> [&str; 6] {
        let or = |text: &'static str, tag: &'static str| match self.tag(tag) {
            "" => text,
            _ => self.tag(tag),
        };
        let build = self.tag("build").split(':').next().unwrap_or_default();
        let (kind, segment) = match self.is_server() {
            true => ("server", "<all>"),
            false => ("client", or("<default>", "segment")),
        };
        [kind, build, or("", "vsn"), or("", "dc"), or("default", "ap"), segment]
    }
}

async fn members(client: Client, line: Line) -> Outcome {
    let json = wants_json(&line)?;
    let status = line.text("status").unwrap_or("");
    let status = Regex::new(status).doing("Failed to compile status regexp")?;
    let segment = line.text("segment").filter(|segment| !segment.is_empty()).unwrap_or("_all");
    let request = Request::get("/v1/agent/members")
        .with("segment", segment)
        .with_any("wan", line.is("wan").then_some("1"))
        .with_any("filter", line.text("filter"));
    let answer = client.ok(request).await.doing("Error retrieving members")?;
    let listed: Vec<serde_json::Value> = answer.read().doing("Error retrieving members")?;
    let all: Vec<Member> = answer.read().doing("Error retrieving members")?;
    let wanted = all.into_iter().zip(listed).filter(|(member, _)| status.is_match(member.status()));
    let (mut members, listed): (Vec<Member>, Vec<serde_json::Value>) = wanted.unzip();
    if members.is_empty() {
        return Err(Failure { code: 2, text: String::new() });
    }
    if json {
        return say_json(serde_json::Value::from(listed).to_string().as_bytes());
    }
    members.sort_by(|a, b| (!a.is_server(), &a.name).cmp(&(!b.is_server(), &b.name)));
    let detailed = line.is("detailed");
    let mut rows: Vec<Vec<String>> = vec![head(detailed)];
    rows.extend(members.iter().map(|member| {
        let mut row = vec![
            member.name.clone(),
            format!("{}:{}", host(&member.addr), member.port),
            member.status().into(),
        ];
        if detailed {
            let tags: Vec<_> = member.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
            row.push(tags.join(","));
        } else {
            row.extend(member.row().map(String::from));
        }
        row
    }));
    say(table(&rows))
}

fn head(detailed: bool) -> Vec<String> {
    let more: &[&str] =
        if detailed { &["Tags"] } else { &["Type", "Build", "Protocol", "DC", "Partition", "Segment"] };
    ["Node", "Address", "Status"].iter().chain(more).map(|name| name.to_string()).collect()
}

/// As it stands before a port.
fn host(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.into() }
}

async fn join(client: Client, line: Line) -> Outcome {
    if line.rest.is_empty() {
        let text = format!("At least one address to join must be specified.\n\n{}", JOIN.usage());
        return Err(Failure::new(text));
    }
    let mut joined = 0;
    for address in &line.rest {
        let request = Request::put(format!("/v1/agent/join/{address}"));
        match client.ok(request.with_any("wan", line.is("wan").then_some("1"))).await {
            Ok(_) => joined += 1,
            Err(lost) => complain(format_args!("Error joining address '{address}': {lost}")),
        }
    }
    if joined == 0 {
        return Err(Failure::new("Failed to join any nodes."));
    }
    say(format_args!("Successfully joined cluster by contacting {joined} nodes."))
}

async fn force_leave(client: Client, line: Line) -> Outcome {
    let [node] = line.rest.as_slice() else {
        let text = format!("A single node name must be specified to force leave.\n\n{}", FORCE_LEAVE.usage());
        return Err(Failure::new(text));
    };
    let request = Request::put(format!("/v1/agent/force-leave/{node}"))
        .with_any("prune", line.is("prune").then_some("1"))
        .with_any("wan", line.is("wan").then_some("1"));
    client.ok(request).await.map(drop).doing("Error force leaving")
}
