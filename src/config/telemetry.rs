//! The keys of `telemetry`: what is told of this agent, and to whom.

use super::{
    keys,
    reader::{Fields, Findings},
    tree::{Kind, Place},
};
use crate::telemetry::Settings;

pub fn read(top: &mut Fields, ignored: &[String], findings: &mut Findings) -> Settings {
    let mut settings = Settings::default();
    let Some(mut block) = top.block("telemetry", findings) else { return settings };
    settings.prefix = block.text("metrics_prefix", findings).filter(|prefix| !prefix.is_empty());
    settings.with_node = !block.bool("disable_hostname", findings).unwrap_or(false);
    settings.filter.otherwise = block.bool("filter_default", findings).unwrap_or(true);
    read_rules(&mut block, &mut settings, findings);
    let retention = block.duration("prometheus_retention_time", findings);
    settings.prometheus = retention.is_some_and(|span| span.nanos > 0);
    settings.statsd = read_address(&mut block, findings);
    keys::TELEMETRY.take(&mut block, ignored, findings);
    block.finish(findings);
    settings
}

/// A rule that says nothing costs a warning, as in Consul.
fn read_rules(block: &mut Fields, settings: &mut Settings, findings: &mut Findings) {
    let places: Vec<Place> = match block.peek("prefix_filter").map(|value| &value.kind) {
        Some(Kind::List(values)) => values.iter().map(|value| value.place.clone()).collect(),
        _ => vec![],
    };
    let rules = block.texts("prefix_filter", findings).unwrap_or_default();
    for (rule, place) in rules.into_iter().zip(places.into_iter().chain(std::iter::repeat(Place::default())))
    {
        if let Err(no_sign) = settings.filter.add(&rule) {
            findings.warn(&place, format!("telemetry.prefix_filter: {no_sign}"));
        }
    }
}

fn read_address(block: &mut Fields, findings: &mut Findings) -> Option<String> {
    let place = block.place("statsd_address")?;
    let text = block.text("statsd_address", findings).filter(|text| !text.is_empty())?;
    let is_whole = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if is_whole {
        return Some(text);
    }
    let expected = "expected a host and a port, as 127.0.0.1:8125";
    findings.fault(place, format!("telemetry.statsd_address: found {text:?}; {expected}"))
}
