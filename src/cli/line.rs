//! How a command is declared, and its line read: flags by Go's rules between the command and its arguments
//! (`config-cli.md` §5.1). What is declared is also what `-help` and the shells' completion tell.

use std::time::Duration;

use super::{Failure, Outcome, client};
use crate::{
    check::parse_duration,
    config::{FlagError, Takes, parse_bool, parse_error, parse_int, split_flags},
};

/// A command, told apart by its words.
pub struct Command {
    /// `kv get`.
    pub name: &'static str,
    /// What may stand behind the flags, for `-help`.
    pub arguments: &'static str,
    pub does: &'static str,
    pub flags: &'static [&'static [Flag]],
    pub run: Run,
}

pub enum Run {
    /// Reads its words by itself.
    Words(fn(Vec<String>) -> Outcome),
    Line(fn(Line) -> Outcome),
    /// As `Line`; behind the flags stands another program with flags of its own.
    Child(fn(Line) -> Outcome),
}

pub struct Flag {
    pub name: &'static str,
    form: Form,
    pub does: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Switch,
    Text,
    Number,
    Duration,
    /// `key=value`.
    Pair,
}

/// What was given to a command. Asked for a flag that the command does not declare, it panics.
pub struct Line {
    command: &'static Command,
    given: Vec<(String, String)>,
    pub rest: Vec<String>,
}

impl Flag {
    pub const fn switch(name: &'static str, does: &'static str) -> Flag {
        Flag { name, form: Form::Switch, does }
    }

    /// The last one counts, or all do where it is read as a list.
    pub const fn text(name: &'static str, does: &'static str) -> Flag {
        Flag { name, form: Form::Text, does }
    }

    pub const fn number(name: &'static str, does: &'static str) -> Flag {
        Flag { name, form: Form::Number, does }
    }

    pub const fn duration(name: &'static str, does: &'static str) -> Flag {
        Flag { name, form: Form::Duration, does }
    }

    pub const fn pair(name: &'static str, does: &'static str) -> Flag {
        Flag { name, form: Form::Pair, does }
    }

    pub fn takes_word(&self) -> bool {
        self.form != Form::Switch
    }

    fn check(&self, value: &str) -> Result<(), FlagError> {
        let expected = |expected: &str| parse_error(self.name, value, expected);
        match self.form {
            Form::Switch => parse_bool(self.name, value).map(drop),
            Form::Text => Ok(()),
            Form::Number => parse_int::<u64>(self.name, value).map(drop),
            Form::Duration => {
                duration(value).map(drop).ok_or_else(|| expected("a duration, as 1m30s, and not below 0"))
            }
            Form::Pair => value.split_once('=').map(drop).ok_or_else(|| expected("key=value")),
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let span = parse_duration(text).ok()?;
    u64::try_from(span.nanos).ok().map(Duration::from_nanos)
}

impl Line {
    /// # Errors
    /// The first word that is not understood, or one that asks for help.
    pub fn parse(command: &'static Command, words: &[String]) -> Result<Line, FlagError> {
        let takes = |flag: &Flag| if flag.takes_word() { Takes::Word } else { Takes::Nothing };
        let (given, rest) = split_flags(words, |name| command.find(name).map(takes))?;
        for (name, value) in &given {
            command.find(name).map_or(Ok(()), |flag| flag.check(value))?;
        }
        let own = matches!(command.run, Run::Line(_));
        if own && rest.iter().any(|word| matches!(word.as_str(), "-h" | "-help" | "--help")) {
            return Err(FlagError::Help);
        }
        Ok(Line { command, given, rest })
    }

    pub fn is(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| parse_bool(name, value) == Ok(true))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts(name).last()
    }

    /// Every value of a flag that may be given several times.
    pub fn texts(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        assert!(self.command.find(name).is_some(), "{} declares no flag {name}", self.command.name);
        self.given.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    pub fn duration(&self, name: &str) -> Option<Duration> {
        duration(self.text(name)?)
    }

    pub fn pairs(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        self.texts(name).filter_map(|pair| pair.split_once('='))
    }

    /// Whether the command knows such a flag.
    pub fn declares(&self, name: &str) -> bool {
        self.command.find(name).is_some()
    }

    /// # Errors
    /// Where more words than `most` stand behind the flags; `expected` says how many may.
    pub fn at_most(&self, most: usize, expected: &str) -> Outcome {
        let found = self.rest.len();
        if found > most {
            return Err(Failure::new(format!("Too many arguments (expected {expected}, got {found})")));
        }
        Ok(())
    }
}

impl Command {
    fn find(&self, name: &str) -> Option<&'static Flag> {
        self.flags.iter().copied().flatten().find(|flag| flag.name == name)
    }

    /// Every flag by name, and what it does.
    pub fn flag_help(&self) -> Vec<(&'static str, &'static str)> {
        let flags = self.flags.iter().copied().flatten();
        let mut lines: Vec<_> = flags.map(|flag| (flag.name, flag.does)).collect();
        if let Run::Words(_) = self.run {
            lines = crate::config::flag_help();
        }
        lines.sort_unstable();
        lines
    }

    pub fn usage(&self) -> String {
        let arguments = [" ", self.arguments].concat();
        let head = format!("Usage: lictor {} [options]{}", self.name, arguments.trim_end());
        let speaks = !matches!(self.run, Run::Words(_));
        let (common, own): (Vec<_>, Vec<_>) =
            self.flag_help().into_iter().partition(|(name, _)| speaks && client::is_common(name));
        let section = |title: &str, flags: &[(&str, &str)]| match flags {
            [] => String::new(),
            flags => {
                let lines = flags.iter().map(|(flag, help)| format!("\n  -{flag:<28}{help}"));
                format!("\n\n{title}{}", lines.collect::<String>())
            }
        };
        let own = section("Options:", &own);
        format!("{head}\n\n  {}{own}{}", self.does, section("Of the way to the agent:", &common))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: Command = Command {
        name: "test",
        arguments: "WORD",
        does: "Nothing.",
        flags: &[&[
            Flag::switch("all", ""),
            Flag::text("tag", ""),
            Flag::number("n", ""),
            Flag::duration("wait", ""),
            Flag::pair("meta", ""),
        ]],
        run: Run::Line(|_| Ok(())),
    };

    fn parse(words: &str) -> Result<Line, String> {
        static DECLARED: Command = COMMAND;
        let words: Vec<String> = words.split(' ').map(String::from).collect();
        Line::parse(&DECLARED, &words).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_stand_before_the_arguments() {
        let line = parse("-all --tag a -tag=b,c -n 3 -wait=1m a -all").ok().unwrap();
        assert!(line.is("all"));
        assert_eq!(line.texts("tag").collect::<Vec<_>>(), ["a", "b,c"]);
        assert_eq!((line.number("n"), line.duration("wait")), (Some(3), Some(Duration::from_secs(60))));
        assert_eq!(line.rest, ["a", "-all"]);
        assert!(!parse("-all=false -- -all").ok().unwrap().is("all"));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let error = |words| parse(words).err().unwrap();
        assert_eq!(error("-none"), "flag provided but not defined: -none");
        assert_eq!(error("-tag"), "flag needs an argument: -tag");
        assert!(error("-n x").starts_with(r#"invalid value "x" for flag -n: parse error"#));
        assert!(error("-wait=-1s").starts_with(r#"invalid value "-1s" for flag -wait: parse error"#));
        assert!(error("-meta a").contains("expected key=value"));
        assert_eq!(error("a -h"), "help requested");
    }
}
