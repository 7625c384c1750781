//! `lictor operator confirm-failed`: an operator's word that members are gone of whom the servers do not believe it, since
//! too many vanished at once.

use serde::Deserialize;

use crate::cli::{
    Doing, Failure, Outcome,
    client::{self, Client, Request},
    line::{Command, Flag, Line, Run},
    output::say,
};

pub const CONFIRM_FAILED: Command = Command {
    name: "operator confirm-failed",
    arguments: "[NODE...]",
    does: "Says that members that vanished with many others are gone; all of them where none is named",
    flags: &[
        client::AGENT,
        client::SERVERS,
        &[Flag::switch("list", "list those that wait for it, and confirm none")],
    ],
    run: Run::Line(|line| client::ask(line, confirm_failed)),
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    confirmed: u64,
}

const PATH: &str = "/v1/operator/confirm-failed";

async fn confirm_failed(client: Client, line: Line) -> Outcome {
    if line.is("list") {
        if !line.rest.is_empty() {
            return Err(Failure::new("Nodes may not be named with -list"));
        }
        let nodes: Vec<String> =
            client.read(Request::get(PATH)).await.doing("Error listing unconfirmed members")?;
        return nodes.into_iter().try_for_each(say);
    }
    let named = line.rest.iter().map(|node| format!("{PATH}/{node}"));
    let paths = if line.rest.is_empty() { vec![PATH.to_string()] } else { named.collect() };
    let mut confirmed = 0;
    for path in paths {
        let answer: Answer =
            client.read(Request::put(path)).await.doing("Error confirming failed members")?;
        confirmed += answer.confirmed;
    }
    say(format_args!("Confirmed failed members: {confirmed}"))
}
