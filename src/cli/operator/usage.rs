//! `lictor operator usage instances`: how much there is, of the mesh and without.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cli::{
    Doing, Failure, Outcome,
    client::{self, Client, Request},
    line::{Command, Flag, Line, Run},
    output::{FORMAT, say, say_json, spread, wants_json},
};

pub const INSTANCES: Command = Command {
    name: "operator usage instances",
    arguments: "",
    does: "Counts services, instances and nodes",
    flags: &[
        client::AGENT,
        client::SERVERS,
        FORMAT,
        &[
            Flag::switch("all-datacenters", "of every datacenter"),
            Flag::switch("billable", "only those that are no part of the cluster or a mesh"),
            Flag::switch("connect", "only those of a mesh"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, instances)),
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    usage: BTreeMap<String, Usage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Usage {
    services: u64,
    connect_service_instances: BTreeMap<String, u64>,
    billable_service_instances: u64,
    nodes: u64,
}

async fn instances(client: Client, line: Line) -> Outcome {
    let json = wants_json(&line)?;
    let (billable, connect, all) = (line.is("billable"), line.is("connect"), line.is("all-datacenters"));
    if billable && connect {
        return Err(Failure::new("Cannot specify both -billable and -connect"));
    }
    let request = Request::get("/v1/operator/usage").with_any("global", all.then_some(""));
    let answer = client.ok(request).await.doing("Error fetching usage information")?;
    if json {
        return say_json(&answer.body);
    }
    let Answer { usage } = answer.read().doing("Error fetching usage information")?;
    if !connect {
        let total: u64 = usage.values().map(|usage| usage.billable_service_instances).sum();
        say(format_args!("Billable Service Instances Total: {total}"))?;
        for (datacenter, usage) in &usage {
            let count = usage.billable_service_instances;
            say(format_args!("{datacenter} Billable Service Instances: {count}"))?;
        }
        say("\nBillable Services")?;
        let head = ["Services", "Service instances"];
        say(by_datacenter(&usage, &head, all, |usage| {
            vec![usage.services, usage.billable_service_instances]
        }))?;
        say("\nNodes")?;
        say(by_datacenter(&usage, &["Count"], true, |usage| vec![usage.nodes]))?;
    }
    if !billable {
        say(if connect { "Connect Services" } else { "\nConnect Services" })?;
        say(by_kind(&usage, all))?;
    }
    Ok(())
}

/// A row to a datacenter and one to their sum; or, of one datacenter, its numbers alone.
fn by_datacenter(
    usage: &BTreeMap<String, Usage>,
    head: &[&str],
    named: bool,
    numbers: impl Fn(&Usage) -> Vec<u64>,
) -> String {
    let row = |name: &str, numbers: &[u64]| -> Vec<String> {
        let name = named.then(|| name.to_string());
        name.into_iter().chain(numbers.iter().map(u64::to_string)).collect()
    };
    let mut sum = vec![0; head.len()];
    let name = named.then(|| "Datacenter".to_string());
    let mut rows: Vec<Vec<String>> =
        vec![name.into_iter().chain(head.iter().map(|name| name.to_string())).collect()];
    for (datacenter, usage) in usage {
        let numbers = numbers(usage);
        sum.iter_mut().zip(&numbers).for_each(|(sum, number)| *sum += number);
        rows.push(row(datacenter, &numbers));
    }
    if named {
        rows.push(row("Total", &sum));
    }
    spread(&rows)
}

fn by_kind(usage: &BTreeMap<String, Usage>, named: bool) -> String {
    let name = |name: &str| named.then(|| name.to_string()).into_iter().collect::<Vec<_>>();
    let mut rows = vec![[name("Datacenter"), vec!["Type".into(), "Service instances".into()]].concat()];
    for (datacenter, usage) in usage {
        for (kind, count) in &usage.connect_service_instances {
            rows.push([name(datacenter), vec![kind.clone(), count.to_string()]].concat());
        }
    }
    spread(&rows)
}
