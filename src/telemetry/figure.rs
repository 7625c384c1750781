//! One figure, and what it is called.

use crate::count::Measured;

/// Something that an agent knows of itself, at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Words with dots between them, of which the first says whose name it is: `consul`, `lictor`, `process`.
    pub name: &'static str,
    pub labels: Labels,
    pub help: &'static str,
    pub value: Value,
}

/// In the order in which they are told.
pub type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// May rise and fall.
    Gauge(f64),
    /// How often something happened.
    Count(u64),
    /// What only rises, and is not counted one by one.
    Total(f64),
    /// Times are in milliseconds, as Consul's.
    Measured(Measured),
}

impl Figure {
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Figure { name, labels: Vec::new(), help, value: Value::Gauge(value) }
    }

    pub fn count(name: &'static str, help: &'static str, count: u64) -> Self {
        Figure { name, labels: Vec::new(), help, value: Value::Count(count) }
    }

    pub fn measured(name: &'static str, help: &'static str, measured: Measured) -> Self {
        Figure { name, labels: Vec::new(), help, value: Value::Measured(measured) }
    }

    /// Times measured in nanoseconds.
    pub fn time(name: &'static str, help: &'static str, nanos: Measured) -> Self {
        Figure::measured(name, help, nanos.per(1e6))
    }

    pub fn with(mut self, label: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((label, value.into()));
        self
    }
}

/// How names are told.
pub struct Names {
    pub prefix: Option<String>,
    /// The node's, which gauges carry behind their first word.
    pub node: Option<String>,
}

impl Names {
    pub fn of(&self, figure: &Figure) -> String {
        let (whose, rest) = figure.name.split_once('.').unwrap_or((figure.name, ""));
        let mut name = match &self.prefix {
            None => whose.to_string(),
            Some(prefix) if whose == "consul" => prefix.clone(),
            Some(prefix) => format!("{prefix}.{whose}"),
        };
        let of_node = matches!(figure.value, Value::Gauge(_) | Value::Total(_));
        for word in self.node.as_deref().filter(|_| of_node).into_iter().chain([rest]) {
            name.push('.');
            name.push_str(word);
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_prefix_and_node() {
        let name = |prefix: Option<&str>, node: Option<&str>, figure: &Figure| {
            Names { prefix: prefix.map(Into::into), node: node.map(Into::into) }.of(figure)
        };
        let (gauge, count) = (Figure::gauge("consul.a.b", "", 1.0), Figure::count("lictor.a", "", 1));
        assert_eq!(name(None, Some("oak"), &gauge), "consul.oak.a.b");
        assert_eq!(name(Some("x"), None, &gauge), "x.a.b");
        assert_eq!(name(None, Some("oak"), &count), "lictor.a");
        assert_eq!(name(Some("x"), Some("oak"), &count), "x.lictor.a");
    }
}
