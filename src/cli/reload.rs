//! `lictor reload`: a running agent reads its configuration again, as a SIGHUP makes it do.

use super::{
    Doing, Outcome,
    client::{self, Client, Request},
    line::{Command, Line, Run},
    output::say,
};

pub const COMMAND: Command = Command {
    name: "reload",
    arguments: "",
    does: "Makes a running agent read its configuration again",
    flags: &[client::AGENT],
    run: Run::Line(|line| client::ask(line, reload)),
};

async fn reload(client: Client, _: Line) -> Outcome {
    client.ok(Request::put("/v1/agent/reload")).await.doing("Error reloading")?;
    say("Configuration reload triggered")
}
