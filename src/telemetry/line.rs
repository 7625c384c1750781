//! A line of the log, in the two forms that people's tools read already: words, or a JSON object (`config-cli.md` §2.4).

use std::{collections::BTreeMap, fmt};

use serde_json::Value;
use tracing::{
    Event, Level, Metadata,
    field::{Field, Visit},
    level_filters::LevelFilter,
};

/// What is said at a time.
pub struct Line {
    now: chrono::DateTime<chrono::Utc>,
    level: Level,
    module: String,
    said: Said,
}

/// The message, and its fields in order of name.
#[derive(Default)]
struct Said {
    message: String,
    fields: BTreeMap<&'static str, Value>,
}

/// Whether a log at this level has a place for it: our own words from the level on; those of the libraries below only
/// where something is wrong, or everything is asked.
pub fn is_wanted(level: LevelFilter, metadata: &Metadata) -> bool {
    let is_ours = metadata.target() == "lictor" || metadata.target().starts_with("lictor::");
    let level = if is_ours || level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    *metadata.level() <= level
}

impl Line {
    /// Of an event that happens now.
    pub fn of(event: &Event) -> Self {
        let mut said = Said::default();
        event.record(&mut said);
        let (level, module) = (*event.metadata().level(), module(event.metadata().target()));
        Line { now: chrono::Utc::now(), level, module, said }
    }

    /// A warning of the agent's own.
    pub fn warning(message: String) -> Self {
        let said = Said { message, ..Said::default() };
        Line { now: chrono::Utc::now(), level: Level::WARN, module: "agent".into(), said }
    }

    /// Without an end of line.
    pub fn text(&self) -> String {
        let stamp = self.now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let level = match self.level {
            Level::ERROR => "[ERROR]",
            Level::WARN => "[WARN] ",
            Level::INFO => "[INFO] ",
            Level::DEBUG => "[DEBUG]",
            Level::TRACE => "[TRACE]",
        };
        let mut line = format!("{stamp} {level} {}: {}", self.module, self.said.message);
        for (at, (key, value)) in self.said.fields.iter().enumerate() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            let plain = !text.is_empty() && !text.contains([' ', '"', '=', '\n']);
            let text = if plain { text } else { format!("{text:?}") };
            line.push_str(&format!("{} {key}={text}", if at == 0 { ":" } else { "" }));
        }
        line
    }

    /// Without an end of line.
    pub fn json(&self) -> String {
        let stamp = self.now.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let own: [(&str, Value); 4] = [
            ("@level", self.level.as_str().to_lowercase().into()),
            ("@message", self.said.message.as_str().into()),
            ("@module", self.module.as_str().into()),
            ("@timestamp", stamp.into()),
        ];
        let fields = self.said.fields.iter().map(|(key, value)| (*key, value.clone()));
        let object: serde_json::Map<String, Value> =
            own.into_iter().chain(fields).map(|(key, value)| (key.to_string(), value)).collect();
        Value::Object(object).to_string()
    }
}

/// Our modules by the names that Consul's operators know: `lictor::dns::tcp` is `agent.dns`.
fn module(target: &str) -> String {
    match target.strip_prefix("lictor::").unwrap_or(target).split("::").next() {
        Some(room @ ("dns" | "http" | "raft" | "server" | "check")) => format!("agent.{room}"),
        Some("agent" | "cli" | "config" | "telemetry") | None => "agent".to_string(),
        Some(other) => other.to_string(),
    }
}

impl Visit for Said {
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

impl Said {
    fn put(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value.as_str().unwrap_or_default().to_string();
        } else {
            self.fields.insert(field.name(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_known_forms() {
        let fields = [("service", "z".into()), ("error", "no such host".into()), ("count", 3.into())];
        let line = |level| Line {
            now: chrono::DateTime::from_timestamp_micros(1_714_979_289_123_456).unwrap(),
            level,
            module: "agent".into(),
            said: Said {
                message: "Deregistered service".into(),
                fields: fields.clone().into_iter().collect(),
            },
        };
        assert_eq!(
            line(Level::INFO).text(),
            "2024-05-06T07:08:09.123Z [INFO]  agent: Deregistered service: count=3 error=\"no such host\" service=z"
        );
        assert_eq!(
            line(Level::WARN).json(),
            r#"{"@level":"warn","@message":"Deregistered service","@module":"agent","@timestamp":"2024-05-06T07:08:09.123456Z","count":3,"error":"no such host","service":"z"}"#
        );
        assert_eq!(module(&["lictor", "dns", "tcp"].join("::")), "agent.dns");
    }
}
