//! `lictor version`: our own version, and the one of Consul that we are compatible with, where programs compare it.

use clap::Args;

use super::{Failure, Outcome, parse};

/// The version of Consul whose files, DNS and HTTP we follow; what `agent/self` and node metas report.
pub const COMPATIBLE: &str = crate::agent::COMPATIBLE_VERSION;

#[derive(Args)]
struct Flags {
    /// Output format: pretty or json
    #[arg(long, default_value = "pretty")]
    format: String,
}

pub fn run(arguments: Vec<String>) -> Outcome {
    let flags: Flags = parse("version", arguments)?;
    let own = env!("CARGO_PKG_VERSION");
    match flags.format.as_str() {
        "pretty" => {
            println!("lictor v{own}\nCompatible with Consul v{COMPATIBLE}: files, HTTP API and DNS");
            Ok(())
        }
        "json" => {
            println!(
                "{:#}",
                serde_json::json!({ "Version": COMPATIBLE, "LictorVersion": own, "Prerelease": "" })
            );
            Ok(())
        }
        other => Err(Failure::new(format!("Invalid format {other:?}: expected pretty or json"))),
    }
}
