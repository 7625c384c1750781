//! `lictor version`: our own version, and the one of Consul that we are compatible with, where programs compare it.

use super::{
    Outcome,
    line::{Command, Line, Run},
    output::{FORMAT, say, wants_json},
};

/// The version of Consul whose files, DNS and HTTP we follow; what `agent/self` and node metas report.
const COMPATIBLE: &str = crate::agent::COMPATIBLE_VERSION;

pub const COMMAND: Command = Command {
    name: "version",
    arguments: "",
    does: "Prints the version",
    flags: &[FORMAT],
    run: Run::Line(version),
};

fn version(line: Line) -> Outcome {
    let own = env!("CARGO_PKG_VERSION");
    if wants_json(&line)? {
        let versions = serde_json::json!({ "Version": COMPATIBLE, "LictorVersion": own, "Prerelease": "" });
        return say(format_args!("{versions:#}"));
    }
    say(format_args!("lictor v{own}\nCompatible with Consul v{COMPATIBLE}: files, HTTP API and DNS"))
}
