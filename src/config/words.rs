//! The words of a command line by Go's rules: one dash or two, `-name=value` or `-name value`, and a word alone only for
//! flags that are true or false. Flags end at the first word that is none. Knows no flag.

use std::str::FromStr;

/// A command line that cannot be understood, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("invalid value {value:?} for flag -{flag}: {fault}")]
    Value { flag: String, value: String, fault: String },
    #[error("==> Unexpected extra arguments: [{0}]")]
    Extra(String),
    /// Not a fault: the flags are asked for.
    #[error("help requested")]
    Help,
}

/// What belongs to a flag beside its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// It is true, unless `=false` says otherwise.
    Nothing,
    Word,
}

/// Flags and their values in the order given, and the words behind them.
pub type Split = (Vec<(String, String)>, Vec<String>);

/// Tells flags from what stands behind them. `takes` knows the flags; two dashes alone say
/// that no flag follows.
///
/// # Errors
/// The first word that is not understood, or that asks for help.
pub fn split_flags(words: &[String], takes: impl Fn(&str) -> Option<Takes>) -> Result<Split, FlagError> {
    let (mut flags, mut rest) = (Vec::new(), words);
    while let [word, behind @ ..] = rest {
        let name = word.strip_prefix("--").or(word.strip_prefix('-')).filter(|name| !name.is_empty());
        let Some(name) = name else { break };
        rest = behind;
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (name, None),
        };
        let value = match (takes(name), value) {
            (None, _) if matches!(name, "h" | "help") => return Err(FlagError::Help),
            (None, _) => return Err(FlagError::Unknown(name.into())),
            (_, Some(value)) => value,
            (Some(Takes::Nothing), None) => "true".into(),
            (Some(Takes::Word), None) => {
                let (value, behind) = rest.split_first().ok_or_else(|| FlagError::NoValue(name.into()))?;
                rest = behind;
                value.clone()
            }
        };
        flags.push((name.to_string(), value));
    }
    if rest.first().is_some_and(|word| word == "--") {
        rest = &rest[1..];
    }
    Ok((flags, rest.to_vec()))
}

/// # Errors
/// Names the flag, and what was expected.
pub fn parse_bool(flag: &str, value: &str) -> Result<bool, FlagError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(parse_error(flag, value, "true or false")),
    }
}

/// # Errors
/// Names the flag, and what was expected.
pub fn parse_int<N: FromStr>(flag: &str, value: &str) -> Result<N, FlagError> {
    value.parse().map_err(|_| parse_error(flag, value, "a whole number"))
}

pub fn parse_error(flag: &str, value: &str, expected: &str) -> FlagError {
    let fault = format!("parse error: expected {expected}");
    FlagError::Value { flag: flag.into(), value: value.into(), fault }
}
