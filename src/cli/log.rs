//! The agent's log on standard output, in the two forms that people's tools read already: lines, or a JSON object a
//! line (`config-cli.md` §2.4). The level can be changed while the agent runs.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde_json::Value;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

/// Changes the level of a running log.
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<Targets, tracing_subscriber::Registry>);

/// Starts the log of this process. `level` is one of `TRACE DEBUG INFO WARN ERR ERROR` in any case.
pub fn start(level: &str, json: bool) -> Result<LevelHandle, String> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = tracing_subscriber::fmt::layer().event_format(Form { json });
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    started.map_err(|error| format!("Failed to setup logging: {error}"))?;
    Ok(LevelHandle(handle))
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

/// A line's message, and its fields in order of name.
#[derive(Default)]
struct Fields {
    message: String,
    others: BTreeMap<&'static str, Value>,
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, module) = (event.metadata().level(), module(event.metadata().target()));
        let now = chrono::Utc::now();
        if self.json {
            let stamp = now.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
            writeln!(out, "{}", json_line(fields, *level, &module, stamp))
        } else {
            let stamp = now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            writeln!(out, "{stamp} {}", text_line(fields, *level, &module))
        }
    }
}

fn text_line(fields: Fields, level: Level, module: &str) -> String {
    let level = match level {
        Level::ERROR => "[ERROR]",
        Level::WARN => "[WARN] ",
        Level::INFO => "[INFO] ",
        Level::DEBUG => "[DEBUG]",
        Level::TRACE => "[TRACE]",
    };
    let mut line = format!("{level} {module}: {}", fields.message);
    for (at, (key, value)) in fields.others.iter().enumerate() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        let plain = !text.is_empty() && !text.contains([' ', '"', '=', '\n']);
        let text = if plain { text } else { format!("{text:?}") };
        line.push_str(&format!("{} {key}={text}", if at == 0 { ":" } else { "" }));
    }
    line
}

fn json_line(fields: Fields, level: Level, module: &str, stamp: String) -> Value {
    let mut object: serde_json::Map<String, Value> = [
        ("@level".to_string(), level.as_str().to_lowercase().into()),
        ("@message".to_string(), fields.message.into()),
        ("@module".to_string(), module.into()),
        ("@timestamp".to_string(), stamp.into()),
    ]
    .into_iter()
    .collect();
    object.extend(fields.others.into_iter().map(|(key, value)| (key.to_string(), value)));
    Value::Object(object)
}

/// Our modules by the names that Consul's operators know: `lictor::dns::tcp` is `agent.dns`.
fn module(target: &str) -> String {
    match target.strip_prefix("lictor::").unwrap_or(target).split("::").next() {
        Some(room @ ("dns" | "http" | "raft" | "server" | "check")) => format!("agent.{room}"),
        Some("agent" | "cli" | "config") | None => "agent".to_string(),
        Some(other) => other.to_string(),
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value.as_str().unwrap_or_default().to_string();
        } else {
            self.others.insert(field.name(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        let others = [("service", "z".into()), ("error", "no such host".into()), ("count", 3.into())];
        Fields { message: "Deregistered service".into(), others: others.into_iter().collect() }
    }

    #[test]
    fn lines_have_the_known_forms() {
        assert_eq!(
            text_line(fields(), Level::INFO, "agent"),
            "[INFO]  agent: Deregistered service: count=3 error=\"no such host\" service=z"
        );
        assert_eq!(
            json_line(fields(), Level::WARN, "agent", "T".into()).to_string(),
            r#"{"@level":"warn","@message":"Deregistered service","@module":"agent","@timestamp":"T","count":3,"error":"no such host","service":"z"}"#
        );
        assert_eq!(module("lictor::dns::tcp"), "agent.dns");
    }

    #[test]
    fn levels_are_words() {
        assert!(["trace", "DEBUG", "Info", "warn", "ERR", "error"].iter().all(|level| filter(level).is_ok()));
        let text = "Invalid log level: foo. Valid log levels are: [TRACE DEBUG INFO WARN ERR ERROR]";
        assert_eq!(filter("foo").unwrap_err(), text);
        assert!(filter("3").is_err() && filter("").is_err());
    }
}
