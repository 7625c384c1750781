//! `lictor validate`: what an agent would say of these files, without starting one.

use super::{
    Failure, Outcome,
    line::{Command, Flag, Line, Run},
    output::{complain, say},
};
use crate::{
    config::{Config, Flags, Format, load},
    dns::ZoneFiles,
};

pub const COMMAND: Command = Command {
    name: "validate",
    arguments: "FILE or DIRECTORY...",
    does: "Checks configuration files and directories",
    flags: &[&[
        Flag::text("config-format", "hcl or json, whatever the files are called"),
        Flag::switch("quiet", "say nothing of a valid configuration"),
    ]],
    run: Run::Line(validate),
};

fn validate(line: Line) -> Outcome {
    if line.rest.is_empty() {
        return Err(Failure::new("Must specify at least one config file or directory"));
    }
    let format = format(&line)?;
    let quiet = line.is("quiet");
    match load(&Flags { paths: line.rest, format, ..Flags::default() }) {
        Ok(config) => {
            config.warnings.iter().for_each(complain);
            check_zones(&config)?;
            if quiet { Ok(()) } else { say("Configuration is valid!") }
        }
        Err(faults) => Err(Failure::new(format!("Config validation failed: {faults}"))),
    }
}

/// The syntax of files whose names do not tell it.
fn format(line: &Line) -> Result<Option<Format>, Failure> {
    let unknown = || Failure::new("-config-format must be either 'hcl' or 'json");
    line.text("config-format").map(|word| Format::of(word).ok_or_else(unknown)).transpose()
}

/// What would be wrong with the static zones. An agent starts all the same, without the zones that have faults.
fn check_zones(config: &Config) -> Outcome {
    let told = ZoneFiles::default().read(&config.dns.zones, &config.dns.domains(), true);
    let faults: Vec<String> = told.iter().filter(|told| told.is_fault()).map(ToString::to_string).collect();
    if faults.is_empty() { Ok(()) } else { Err(Failure::new(faults.join("\n"))) }
}
