//! `lictor keyring`: the keys that gossip is encrypted with, on all members: install a new one, use it, remove the old.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::{
    Doing, Failure, Outcome,
    client::{self, Client, Request},
    line::{Command, Flag, Line, Run},
    output::say,
};

pub const COMMAND: Command = Command {
    name: "keyring",
    arguments: "",
    does: "Lists and changes the keys of gossip on all members",
    flags: &[
        client::AGENT,
        &[
            Flag::text("install", "a key that members shall know from now on"),
            Flag::switch("list", "every key, and how many members have it"),
            Flag::switch("list-primary", "every key that is used, and how many members use it"),
            Flag::switch("local-only", "with -list or -list-primary: of the agent that is asked alone"),
            Flag::number("relay-factor", "accepted, 0 to 5: members answer without others' help"),
            Flag::text("remove", "a key that members shall not know any more; not the one in use"),
            Flag::text("use", "an installed key that members shall use from now on"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, keyring)),
};

const PATH: &str = "/v1/operator/keyring";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pool {
    #[serde(rename = "WAN")]
    wan: bool,
    datacenter: String,
    segment: String,
    keys: BTreeMap<String, usize>,
    primary_keys: BTreeMap<String, usize>,
    num_nodes: usize,
}

async fn keyring(client: Client, line: Line) -> Outcome {
    let key = |name: &'static str| line.text(name).filter(|key| !key.is_empty()).map(|key| (name, key));
    let changes: Vec<_> = ["install", "use", "remove"].into_iter().filter_map(key).collect();
    let lists = ["list", "list-primary"].into_iter().filter(|name| line.is(name)).count();
    match changes.len() + lists {
        0 => return Err(Failure::new(COMMAND.usage())),
        1 => {}
        _ => return Err(Failure::new("Only a single action is allowed")),
    }
    if line.number("relay-factor").is_some_and(|factor| factor > 5) {
        return Err(Failure::new("Error parsing relay factor: Relay factor must be in range: [0, 5]"));
    }
    if line.is("local-only") && !changes.is_empty() {
        let text = "local-only can only be set for list requests";
        return Err(Failure::new(format!("Error validating local-only: Invalid use of local-only: {text}")));
    }
    let with_factor = |request: Request| request.with_any("relay-factor", line.text("relay-factor"));
    let Some((change, key)) = changes.first() else {
        let primary = line.is("list-primary");
        let what = if primary { "primary" } else { "installed" };
        say(format_args!("==> Gathering {what} encryption keys..."))?;
        let request = with_factor(Request::get(PATH));
        let request = request.with_any("local-only", line.is("local-only").then_some("true"));
        let pools: Vec<Pool> = client.read(request).await.doing("error")?;
        return pools.iter().try_for_each(|pool| say_pool(pool, primary));
    };
    let (says, request) = match *change {
        "install" => ("Installing new gossip encryption key", Request::post(PATH)),
        "use" => ("Changing primary gossip encryption key", Request::put(PATH)),
        _ => ("Removing gossip encryption key", Request::delete(PATH)),
    };
    say(format_args!("==> {says}..."))?;
    client.ok(with_factor(request).body(json!({"Key": key}).to_string())).await.map(drop).doing("error")
}

fn say_pool(pool: &Pool, primary: bool) -> Outcome {
    let name = match pool {
        Pool { wan: true, .. } => "WAN".into(),
        Pool { datacenter, segment, .. } if segment.is_empty() => format!("{datacenter} (LAN)"),
        Pool { datacenter, segment, .. } => format!("{datacenter} (LAN) [{segment}]"),
    };
    say(format_args!("\n{name}:"))?;
    let keys = if primary { &pool.primary_keys } else { &pool.keys };
    keys.iter().try_for_each(|(key, count)| say(format_args!("  {key} [{count}/{}]", pool.num_nodes)))
}
