//! The command line: a file per command. Commands other than `agent`, `validate` and `dns` speak to an agent only through
//! its HTTP API, and know nothing else of it. Exit codes and texts are those that scripts written for Consul look for
//! (`config-cli.md` §5).

mod agent;
mod client;
mod dns;
pub mod log;
mod notify;
mod reload;
mod validate;
mod version;

use std::process::ExitCode;

use clap::{Args, Parser, error::ErrorKind};

/// What a command came to: 0, or another exit code with what is said on standard error.
type Outcome = Result<(), Failure>;

struct Failure {
    code: u8,
    text: String,
}

const COMMANDS: &[(&str, &str)] = &[
    ("agent", "Runs a lictor agent"),
    ("dns", "Has this machine's resolver ask lictor"),
    ("reload", "Makes a running agent read its configuration again"),
    ("validate", "Checks configuration files and directories"),
    ("version", "Prints the version"),
];

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        eprintln!("{}", usage());
        return ExitCode::from(127);
    }
    let command = arguments.remove(0);
    let outcome = match command.as_str() {
        "agent" => agent::run(arguments),
        "dns" => dns::run(arguments),
        "reload" => reload::run(arguments),
        "validate" => validate::run(arguments),
        "version" | "-v" | "-version" | "--version" => version::run(arguments),
        "-h" | "-help" | "--help" => {
            println!("{}", usage());
            Ok(())
        }
        flag if flag.starts_with('-') => Err(Failure::new(format!(
            "Invalid flags before the subcommand: {flag}. They belong after it.\n\n{}",
            usage()
        ))),
        _ => Err(Failure { code: 127, text: usage() }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, text }) => {
            if !text.is_empty() {
                eprintln!("{text}");
            }
            ExitCode::from(code)
        }
    }
}

fn usage() -> String {
    let commands: String = COMMANDS.iter().map(|(name, does)| format!("\n    {name:<12}{does}")).collect();
    format!("Usage: lictor [--version] [--help] <command> [<args>]\n\nAvailable commands are:{commands}")
}

/// Flags by clap; one dash does as well as two.
fn parse<F: Args>(command: &'static str, arguments: Vec<String>) -> Result<F, Failure> {
    #[derive(Parser)]
    #[command(disable_version_flag = true, args_override_self = true)]
    struct Line<F: Args> {
        #[command(flatten)]
        flags: F,
    }
    let doubled = arguments
        .into_iter()
        .map(|argument| if is_long_flag(&argument) { format!("-{argument}") } else { argument });
    let words = [format!("lictor {command}")].into_iter().chain(doubled);
    match Line::<F>::try_parse_from(words) {
        Ok(line) => Ok(line.flags),
        Err(help) if help.kind() == ErrorKind::DisplayHelp => {
            println!("{help}");
            Err(Failure { code: 0, text: String::new() })
        }
        Err(error) => Err(Failure::new(error.to_string().trim_end().to_string())),
    }
}

/// `-name`, as opposed to `--name`, `-`, and `-h`.
fn is_long_flag(argument: &str) -> bool {
    let mut letters = argument.bytes();
    letters.next() == Some(b'-')
        && letters.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && letters.next().is_some()
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Failure { code: 1, text: text.into() }
    }
}
