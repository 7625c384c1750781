//! `lictor leave`: an agent takes its leave, and ends.

use super::{
    Doing, Failure, Outcome,
    client::{self, Client, Request},
    line::{Command, Line, Run},
    output::say,
};

pub const COMMAND: Command = Command {
    name: "leave",
    arguments: "",
    does: "Makes an agent leave its cluster and end",
    flags: &[client::AGENT],
    run: Run::Line(|line| client::ask(line, leave)),
};

async fn leave(client: Client, line: Line) -> Outcome {
    if !line.rest.is_empty() {
        let text = format!("Error found unexpected args: [{}]\n{}", line.rest.join(" "), COMMAND.usage());
        return Err(Failure::new(text));
    }
    client.ok(Request::put("/v1/agent/leave")).await.doing("Error leaving")?;
    say("Graceful leave complete")
}
