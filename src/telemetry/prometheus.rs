//! Running totals in Prometheus' text form, version 0.0.4.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    figure::{Figure, Labels, Names, Value},
    filter::Filter,
};

/// All figures that the filter tells, each name once with its help and its type.
pub fn text(names: &Names, filter: &Filter, figures: &[Figure]) -> String {
    let mut families: BTreeMap<String, Vec<&Figure>> = BTreeMap::new();
    for figure in figures {
        let name = names.of(figure);
        if filter.tells(&name) {
            families.entry(family(&name, figure)).or_default().push(figure);
        }
    }
    let mut out = String::new();
    for (name, figures) in families {
        let kind = match figures[0].value {
            Value::Gauge(_) => "gauge",
            Value::Count(_) | Value::Total(_) => "counter",
            Value::Measured(_) => "summary",
        };
        let help = figures[0].help.replace('\\', "\\\\").replace('\n', "\\n");
        line(&mut out, format_args!("# HELP {name} {help}"));
        line(&mut out, format_args!("# TYPE {name} {kind}"));
        for figure in figures {
            let labels = labels(&figure.labels);
            match figure.value {
                Value::Gauge(value) | Value::Total(value) => {
                    line(&mut out, format_args!("{name}{labels} {value}"))
                }
                Value::Count(count) => line(&mut out, format_args!("{name}{labels} {count}")),
                Value::Measured(measured) => {
                    line(&mut out, format_args!("{name}_sum{labels} {}", measured.sum));
                    line(&mut out, format_args!("{name}_count{labels} {}", measured.count));
                }
            }
        }
    }
    out
}

/// Names of the process are everybody's, and ours say what they are; Consul's are as its dashboards know them.
fn family(name: &str, figure: &Figure) -> String {
    if figure.name.starts_with("process.") {
        return plain(figure.name);
    }
    let is_ours_and_counts = figure.name.starts_with("lictor.") && matches!(figure.value, Value::Count(_));
    plain(name) + if is_ours_and_counts { "_total" } else { "" }
}

fn plain(name: &str) -> String {
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == ':' { c } else { '_' }).collect();
    // It may not begin with a digit.
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn labels(labels: &Labels) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{}=\"{}\"", plain(name), escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    // A text takes whatever it is given.
    let _written = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::Spread;

    #[test]
    fn the_text_has_each_name_once() {
        let spread = Spread::default();
        spread.record(3);
        let figures = [
            Figure::count("lictor.dns.queries", "Questions.", 3).with("form", "node"),
            Figure::gauge("consul.raft.peers", "Peers.", 1.0),
            Figure::count("lictor.dns.queries", "Questions.", 4).with("form", "a \"b\"\n"),
            Figure::measured("consul.raft.commitTime", "Time.", spread.read()),
            Figure::gauge("process.open_fds", "Descriptors.", 9.0),
            Figure::count("consul.kept.back", "", 1),
        ];
        let mut filter = Filter::default();
        filter.add("-consul.kept").unwrap();
        let names = Names { prefix: None, node: Some("oak-1.x".into()) };
        assert_eq!(
            text(&names, &filter, &figures),
            "# HELP consul_oak_1_x_raft_peers Peers.\n\
             # TYPE consul_oak_1_x_raft_peers gauge\n\
             consul_oak_1_x_raft_peers 1\n\
             # HELP consul_raft_commitTime Time.\n\
             # TYPE consul_raft_commitTime summary\n\
             consul_raft_commitTime_sum 3\n\
             consul_raft_commitTime_count 1\n\
             # HELP lictor_dns_queries_total Questions.\n\
             # TYPE lictor_dns_queries_total counter\n\
             lictor_dns_queries_total{form=\"node\"} 3\n\
             lictor_dns_queries_total{form=\"a \\\"b\\\"\\n\"} 4\n\
             # HELP process_open_fds Descriptors.\n\
             # TYPE process_open_fds gauge\n\
             process_open_fds 9\n"
        );
    }
}
