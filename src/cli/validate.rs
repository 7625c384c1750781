//! `lictor validate`: what an agent would say of these files, without starting one.

use clap::Args;

use super::{Failure, Outcome, parse};
use crate::{
    config::{Config, Flags, Format, load},
    dns::ZoneFiles,
};

#[derive(Args)]
struct Arguments {
    /// hcl or json, whatever the files are called
    #[arg(long, value_name = "FORMAT")]
    config_format: Option<String>,
    /// Say nothing of a valid configuration
    #[arg(long)]
    quiet: bool,
    #[arg(value_name = "FILE or DIRECTORY")]
    paths: Vec<String>,
}

pub fn run(arguments: Vec<String>) -> Outcome {
    let arguments: Arguments = parse("validate", arguments)?;
    if arguments.paths.is_empty() {
        return Err(Failure::new("Must specify at least one config file or directory"));
    }
    let format = arguments.config_format.as_deref().map(|word| {
        Format::of(word).ok_or_else(|| Failure::new("-config-format must be either 'hcl' or 'json"))
    });
    let flags = Flags { paths: arguments.paths, format: format.transpose()?, ..Flags::default() };
    match load(&flags) {
        Ok(config) => {
            config.warnings.iter().for_each(|warning| eprintln!("{warning}"));
            check_zones(&config)?;
            if !arguments.quiet {
                println!("Configuration is valid!");
            }
            Ok(())
        }
        Err(faults) => Err(Failure::new(format!("Config validation failed: {faults}"))),
    }
}

/// What would be wrong with the static zones. An agent starts all the same, without the zones that have faults.
fn check_zones(config: &Config) -> Outcome {
    let told = ZoneFiles::default().read(&config.dns.zones, &config.dns.domains(), true);
    let faults: Vec<String> = told.iter().filter(|told| told.is_fault()).map(ToString::to_string).collect();
    if faults.is_empty() { Ok(()) } else { Err(Failure::new(faults.join("\n"))) }
}
