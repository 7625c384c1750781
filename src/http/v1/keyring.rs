//! `/v1/operator/keyring`: the keys that gossip is encrypted with, on all members (`http-api.md` §9.10).

use std::collections::BTreeMap;

use crate::http::{
    agent::{KeyOperation, KeyReport},
    call::Call,
    encode::Json,
    reply::{Fault, Outcome, Reply},
    route::{Refuses, Route, Takes},
};

pub const ROUTES: &[Route] = &[Route {
    path: "/v1/operator/keyring",
    methods: &["GET", "POST", "PUT", "DELETE"],
    refuses: Refuses::Nothing,
    takes: Takes::PLAIN,
    handler: |call| Box::pin(keyring(call)),
}];

async fn keyring(call: Call) -> Outcome {
    // Answers of members go straight to whoever asks: there is nothing to relay, whatever the factor.
    let factor = call.query.get("relay-factor").map_or(Some(0), |factor| factor.parse().ok());
    if factor.is_none_or(|factor: u8| factor > 5) {
        return Err(Fault::bad("Invalid relay-factor: Relay factor must be in range: [0, 5]"));
    }
    let local_only = call.query.has("local-only") && call.query.get("local-only") != Some("false");
    if !call.is_get() && call.query.has("local-only") {
        return Err(Fault::bad("Invalid use of local-only: local-only can only be set for list requests"));
    }
    let operation = match call.method.as_str() {
        "GET" => KeyOperation::List,
        "POST" => KeyOperation::Install(key(&call)?),
        "PUT" => KeyOperation::Use(key(&call)?),
        _ => KeyOperation::Remove(key(&call)?),
    };
    let reports = call.api.agent.keyring(operation, local_only).await;
    let datacenter = call.api.agent.datacenter();
    let faults: Vec<String> = reports.iter().flat_map(|report| faults(report, datacenter)).collect();
    if !faults.is_empty() {
        let lines: String = faults.iter().map(|fault| format!("\n\t* {fault}")).collect();
        let count = if faults.len() == 1 { "1 error".into() } else { format!("{} errors", faults.len()) };
        return Err(Fault::failed(format!("{count} occurred:{lines}\n\n")));
    }
    match call.is_get() {
        true => Ok(Reply::json(|json| {
            json.list(|json| reports.iter().for_each(|report| write(json, report, datacenter)));
        })),
        false => Ok(Reply::empty()),
    }
}

fn key(call: &Call) -> Result<String, Fault> {
    Ok(call.body()?.text("Key")?.unwrap_or_default())
}

/// A line for the pool, and one for each member of it that says why.
fn faults(report: &KeyReport, datacenter: &str) -> Vec<String> {
    let pool = if report.wan { "WAN" } else { "LAN" };
    let of_pool = report.fault.iter().map(|fault| format!("{datacenter} ({pool}) error: {fault}"));
    let of_members = report.messages.iter().map(|(member, why)| format!("{member}: {why}"));
    of_pool.chain(of_members).collect()
}

fn write(json: &mut Json, report: &KeyReport, datacenter: &str) {
    let counts = |json: &mut Json, counts: &BTreeMap<String, usize>| {
        json.object(|json| counts.iter().for_each(|(key, count)| json.key(key).number(*count as u64)));
    };
    json.object(|json| {
        json.key("WAN").flag(report.wan);
        json.key("Datacenter").text(datacenter);
        json.key("Segment").text("");
        counts(json.key("Keys"), &report.keys);
        counts(json.key("PrimaryKeys"), &report.primary);
        json.key("NumNodes").number(report.members as u64);
    });
}
