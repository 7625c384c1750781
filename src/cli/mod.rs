//! The command line: a file per command. Commands other than `agent`, `validate` and `dns` speak to an agent only through
//! its HTTP API, and know nothing else of it. Exit codes and texts are those that scripts written for Consul look for
//! (`config-cli.md` §5).

mod agent;
mod catalog;
mod child;
mod client;
mod completions;
mod dns;
mod event;
mod info;
mod keygen;
mod keyring;
mod kv;
mod leave;
mod line;
mod lock;
pub mod log;
mod maint;
mod members;
mod monitor;
mod notify;
mod operator;
mod output;
mod reload;
mod rtt;
mod services;
mod snapshot;
mod validate;
mod version;
mod watch;

use std::{fmt::Display, process::ExitCode};

use self::{
    line::{Command, Line, Run},
    output::{complain, say},
};
use crate::config::FlagError;

/// What a command came to: 0, or another exit code with what is said on standard error.
type Outcome = Result<(), Failure>;

struct Failure {
    code: u8,
    text: String,
}

/// By name, as usages list them.
const COMMANDS: &[&Command] = &[
    &agent::COMMAND,
    &catalog::DATACENTERS,
    &catalog::NODES,
    &catalog::SERVICES,
    &completions::COMMAND,
    &dns::INSTALL,
    &event::COMMAND,
    &members::FORCE_LEAVE,
    &info::COMMAND,
    &members::JOIN,
    &keygen::COMMAND,
    &keyring::COMMAND,
    &kv::DELETE,
    &kv::EXPORT,
    &kv::GET,
    &kv::IMPORT,
    &kv::PUT,
    &leave::COMMAND,
    &lock::COMMAND,
    &maint::COMMAND,
    &members::MEMBERS,
    &monitor::COMMAND,
    &operator::GET_CONFIG,
    &operator::SET_CONFIG,
    &operator::STATE,
    &operator::CONFIRM_FAILED,
    &operator::LIST_PEERS,
    &operator::REMOVE_PEER,
    &operator::TRANSFER_LEADER,
    &operator::INSTANCES,
    &reload::COMMAND,
    &rtt::COMMAND,
    &services::DEREGISTER,
    &services::REGISTER,
    &snapshot::INSPECT,
    &snapshot::RESTORE,
    &snapshot::SAVE,
    &validate::COMMAND,
    &version::COMMAND,
    &watch::COMMAND,
];

/// Words that hold several commands, and what for.
const GROUPS: &[(&str, &str)] = &[
    ("catalog", "Asks what the catalog holds"),
    ("dns", "Has this machine's resolver ask lictor"),
    ("kv", "Reads and writes keys"),
    ("operator", "For those who run the servers"),
    ("operator autopilot", "How the servers look after themselves"),
    ("operator raft", "The servers that agree"),
    ("operator usage", "How much there is"),
    ("services", "Registers and deregisters services of the agent"),
    ("snapshot", "Everything that the servers agree on, as a file"),
];

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, text }) => {
            if !text.is_empty() {
                complain(text);
            }
            ExitCode::from(code)
        }
    }
}

fn run(arguments: &[String]) -> Outcome {
    let Some(first) = arguments.first() else { return Err(Failure { code: 127, text: usage("") }) };
    match first.as_str() {
        "-v" | "-version" | "--version" => return start(&version::COMMAND, &arguments[1..]),
        "-h" | "-help" | "--help" => return say(usage("")),
        flag if flag.starts_with('-') => {
            let text = format!(
                "Invalid flags before the subcommand: {flag}. They belong after it.\n\n{}",
                usage("")
            );
            return Err(Failure::new(text));
        }
        _ => {}
    }
    let words = arguments.iter().take_while(|word| !word.starts_with('-')).count();
    for count in (1..=words).rev() {
        let name = arguments[..count].join(" ");
        if let Some(command) = COMMANDS.iter().find(|command| command.name == name) {
            return start(command, &arguments[count..]);
        }
        if GROUPS.iter().any(|(group, _)| *group == name) {
            let is_help = |word: &String| matches!(word.as_str(), "-h" | "-help" | "--help");
            let asked = arguments[count..].iter().any(is_help);
            return if asked { say(usage(&name)) } else { Err(Failure::new(usage(&name))) };
        }
    }
    Err(Failure { code: 127, text: usage("") })
}

fn start(command: &'static Command, words: &[String]) -> Outcome {
    let run = match command.run {
        Run::Words(run) => return run(words.to_vec()),
        Run::Line(run) | Run::Child(run) => run,
    };
    match Line::parse(command, words) {
        Ok(line) => run(line),
        Err(FlagError::Help) => say(command.usage()),
        Err(error) => Err(Failure::new(format!("{error}\n{}", command.usage()))),
    }
}

/// The words that may follow a group, or begin a line, and what each does.
fn below(group: &str) -> Vec<(&'static str, &'static str)> {
    let prefix = if group.is_empty() { String::new() } else { format!("{group} ") };
    let commands = COMMANDS.iter().map(|command| (command.name, command.does));
    let mut below: Vec<_> = commands
        .chain(GROUPS.iter().copied())
        .filter_map(|(name, does)| Some((name.strip_prefix(&prefix)?, does)))
        .filter(|(name, _)| !name.contains(' '))
        .collect();
    below.sort_unstable();
    below
}

fn usage(group: &str) -> String {
    let lines: String = below(group)
        .iter()
        .map(|(name, does)| format!("\n    {:<22}{does}", format!("{group} {name}").trim()))
        .collect();
    if group.is_empty() {
        format!("Usage: lictor [--version] [--help] <command> [<args>]\n\nAvailable commands are:{lines}")
    } else {
        format!("Usage: lictor {group} <subcommand> [options] [args]\n\nSubcommands:{lines}")
    }
}

/// An error, told with what was being done.
trait Doing<T> {
    fn doing(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: Display> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(format!("{what}: {error}")))
    }
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Failure { code: 1, text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_place() {
        for command in COMMANDS {
            if let Some((group, _)) = command.name.rsplit_once(' ') {
                assert!(GROUPS.iter().any(|(known, _)| *known == group), "{} has no group", command.name);
            }
            let flags = command.flag_help();
            let mut names: Vec<_> = flags.iter().map(|(name, _)| name).collect();
            names.dedup();
            assert_eq!(names.len(), flags.len(), "{} declares a flag twice", command.name);
        }
        let mut names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMMANDS.len(), "a name stands twice");
    }
}
