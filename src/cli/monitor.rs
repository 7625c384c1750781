//! `lictor monitor`: the log of an agent as it is written, until somebody has seen enough.

use super::{
    Doing, Failure, Outcome,
    child::Interrupt,
    client::{self, Client, Request, Stream},
    line::{Command, Flag, Line, Run},
    output::put,
};

pub const COMMAND: Command = Command {
    name: "monitor",
    arguments: "",
    does: "Prints the log of an agent as it is written",
    flags: &[
        client::AGENT,
        &[
            Flag::text("log-level", "trace, debug, info, warn or error; info where not given"),
            Flag::switch("log-json", "a JSON object to a line"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, monitor)),
};

async fn monitor(client: Client, line: Line) -> Outcome {
    let request = Request::get("/v1/agent/monitor")
        .with("loglevel", line.text("log-level").unwrap_or("INFO"))
        .with_any("logjson", line.is("log-json").then_some("true"));
    let mut interrupt = Interrupt::listen();
    tokio::select! {
        outcome = follow(&client, request) => outcome,
        () = interrupt.came() => Ok(()),
    }
}

async fn follow(client: &Client, request: Request) -> Outcome {
    let mut stream: Stream = client.stream(request).await.doing("Error starting monitor")?;
    while let Some(piece) = stream.next().await.doing("Error reading the log")? {
        put(&piece)?;
    }
    Err(Failure::new(
        "Remote side ended the monitor! This usually means that the\nremote side has exited or crashed.",
    ))
}
