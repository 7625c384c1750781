//! `lictor catalog`: datacenters, nodes and services, as the catalog has them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{
    Doing, Outcome,
    client::{self, Answer, Client, Lost, Request},
    line::{Command, Flag, Line, Run},
    output::{FORMAT, complain, labels, say, say_json, table, wants_json},
};

pub const DATACENTERS: Command = Command {
    name: "catalog datacenters",
    arguments: "",
    does: "Lists the datacenters that are known, nearest first",
    flags: &[client::AGENT, client::SERVERS, FORMAT],
    run: Run::Line(|line| client::ask(line, datacenters)),
};

pub const NODES: Command = Command {
    name: "catalog nodes",
    arguments: "",
    does: "Lists nodes",
    flags: &[
        client::AGENT,
        client::SERVERS,
        FORMAT,
        &[
            Flag::switch("detailed", "ids in full, tagged addresses and meta"),
            Flag::text("filter", "an expression that picks nodes"),
            Flag::text("near", "the nearest to this node first; _agent is the one asked"),
            Flag::pair("node-meta", "key=value that a node must have; several times"),
            Flag::text("service", "only nodes with an instance of this service"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, nodes)),
};

pub const SERVICES: Command = Command {
    name: "catalog services",
    arguments: "",
    does: "Lists services",
    flags: &[
        client::AGENT,
        client::SERVERS,
        FORMAT,
        &[
            Flag::text("node", "only those of this node, by name or id"),
            Flag::pair("node-meta", "key=value that their node must have; several times"),
            Flag::switch("tags", "with the tags of each"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, services)),
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    datacenter: String,
    tagged_addresses: Option<BTreeMap<String, String>>,
    #[serde(alias = "NodeMeta")]
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfNode {
    services: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    service: String,
    tags: Option<Vec<String>>,
}

type Tags = BTreeSet<String>;

async fn datacenters(client: Client, line: Line) -> Outcome {
    line.at_most(0, "0")?;
    let json = wants_json(&line)?;
    let asked = client.ok(Request::get("/v1/catalog/datacenters")).await;
    let answer = asked.doing("Error listing datacenters")?;
    if json {
        return say_json(&answer.body);
    }
    let names: Vec<String> = answer.read().doing("Error listing datacenters")?;
    names.iter().try_for_each(say)
}

async fn nodes(client: Client, line: Line) -> Outcome {
    line.at_most(0, "0")?;
    let json = wants_json(&line)?;
    let request = match line.text("service") {
        Some(service) if !service.is_empty() => Request::get(format!("/v1/catalog/service/{service}")),
        _ => Request::get("/v1/catalog/nodes"),
    };
    let request = request.with_any("filter", line.text("filter")).with_any("near", line.text("near"));
    let request = of_nodes(request, &line);
    let answer = client.ok(request).await.doing("Error listing nodes")?;
    if json {
        return say_json(&answer.body);
    }
    let mut nodes: Vec<Node> = answer.read().doing("Error listing nodes")?;
    if nodes.is_empty() {
        complain("No nodes match the given query - try expanding your search.");
        return Ok(());
    }
    if line.text("near").is_none_or(str::is_empty) {
        nodes.sort_by_key(|node| node.node.to_lowercase());
    }
    // A node has as many instances of a service as it likes.
    let mut told = BTreeSet::new();
    nodes.retain(|node| told.insert(node.node.to_lowercase()));
    say(table(&node_rows(&nodes, line.is("detailed"))))
}

fn node_rows(nodes: &[Node], detailed: bool) -> Vec<Vec<String>> {
    let pairs = |map: &Option<BTreeMap<String, String>>| {
        let pairs = map.iter().flatten().map(|(key, value)| format!("{key}={value}"));
        pairs.collect::<Vec<_>>().join(", ")
    };
    let mut head = vec!["Node", "ID", "Address", "DC"];
    if detailed {
        head.extend(["TaggedAddresses", "Meta"]);
    }
    let rows = nodes.iter().map(|node| {
        let id = if detailed { node.id.clone() } else { node.id.chars().take(8).collect() };
        let mut row = vec![node.node.clone(), id, node.address.clone(), node.datacenter.clone()];
        if detailed {
            row.extend([pairs(&node.tagged_addresses), pairs(&node.meta)]);
        }
        row
    });
    [head.into_iter().map(String::from).collect()].into_iter().chain(rows).collect()
}

async fn services(client: Client, line: Line) -> Outcome {
    line.at_most(0, "0")?;
    let json = wants_json(&line)?;
    let node = line.text("node").filter(|node| !node.is_empty());
    let request = match node {
        Some(node) => Request::get(format!("/v1/catalog/node/{node}")),
        None => of_nodes(Request::get("/v1/catalog/services"), &line),
    };
    let answer = client.ok(request).await.doing("Error listing services")?;
    if json {
        return say_json(&answer.body);
    }
    let services = names(&answer, node.is_some()).doing("Error listing services")?;
    if services.is_empty() {
        complain("No services match the given query - try expanding your search.");
        return Ok(());
    }
    if !line.is("tags") {
        return services.keys().try_for_each(say);
    }
    let tags = |tags: &Tags| tags.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let rows: Vec<_> = services.iter().map(|(name, of)| (name.as_str(), tags(of))).collect();
    say(labels(&rows))
}

/// Names, and the tags of all instances. Of a node that is not known there are none.
fn names(answer: &Answer, of_node: bool) -> Result<BTreeMap<String, Tags>, Lost> {
    if !of_node {
        return answer.read();
    }
    let mut found: BTreeMap<String, Tags> = BTreeMap::new();
    let node: Option<OfNode> = answer.read()?;
    for service in node.into_iter().flat_map(|node| node.services.into_values()) {
        found.entry(service.service).or_default().extend(service.tags.into_iter().flatten());
    }
    Ok(found)
}

fn of_nodes(request: Request, line: &Line) -> Request {
    request.with_any("node-meta", line.pairs("node-meta").map(|(key, value)| format!("{key}:{value}")))
}
