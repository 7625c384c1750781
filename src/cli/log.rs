//! The agent's log on standard output, in the forms that [`Line`] has. The level can be changed while the agent runs,
//! and others may follow it at levels of their own.

use std::{fmt, str::FromStr};

use tracing::{Event, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use crate::telemetry::{Line, Monitor};

/// Changes the level of a running log.
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<Targets, Registry>);

/// Starts the log of this process. `level` is one of `TRACE DEBUG INFO WARN ERR ERROR` in any case.
pub fn start(level: &str, json: bool) -> Result<(LevelHandle, Monitor), String> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = tracing_subscriber::fmt::layer().event_format(Form { json }).with_filter(filter);
    let monitor = Monitor::default();
    let followers = monitor.clone().with_filter(monitor.clone());
    let started = tracing_subscriber::registry().with(lines).with(followers).try_init();
    started.map_err(|error| format!("Failed to setup logging: {error}"))?;
    Ok((LevelHandle(handle), monitor))
}

impl LevelHandle {
    pub fn set(&self, level: &str) -> Result<(), String> {
        let filter = filter(level)?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

/// Our own words from `level` on; those of the libraries below only where something is wrong, or everything is asked.
fn filter(level: &str) -> Result<Targets, String> {
    let word = if level.eq_ignore_ascii_case("err") { "error" } else { level };
    let known = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let level = LevelFilter::from_str(word).ok().filter(|_| known(word)).ok_or_else(|| {
        format!("Invalid log level: {level}. Valid log levels are: [TRACE DEBUG INFO WARN ERR ERROR]")
    })?;
    let libraries = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    Ok(Targets::new().with_default(libraries).with_target("lictor", level))
}

struct Form {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let line = Line::of(event);
        writeln!(out, "{}", if self.json { line.json() } else { line.text() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words() {
        assert!(["trace", "DEBUG", "Info", "warn", "ERR", "error"].iter().all(|level| filter(level).is_ok()));
        let text = "Invalid log level: foo. Valid log levels are: [TRACE DEBUG INFO WARN ERR ERROR]";
        assert_eq!(filter("foo").unwrap_err(), text);
        assert!(filter("3").is_err() && filter("").is_err());
    }
}
