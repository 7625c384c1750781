//! `lictor reload`: a running agent reads its configuration again, as a SIGHUP makes it do.

use clap::Args;

use super::{Outcome, client::Client, parse};

#[derive(Args)]
struct Flags {
    #[command(flatten)]
    client: Client,
}

pub fn run(arguments: Vec<String>) -> Outcome {
    let flags: Flags = parse("reload", arguments)?;
    flags.client.put("/v1/agent/reload").map_err(|failure| failure.after("Error reloading"))?;
    println!("Configuration reload triggered");
    Ok(())
}
