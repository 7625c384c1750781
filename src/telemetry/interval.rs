//! What happened between two readings, in the form in which Consul tells it (`http-api.md` §8.1).

use std::collections::HashMap;

use serde::{Serialize, Serializer};
use serde_json::Number;

use super::{
    INTERVAL,
    figure::{Figure, Labels, Names, Value},
    filter::Filter,
};
use crate::count::Measured;

/// The figures of one interval.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Interval {
    /// When it began.
    timestamp: String,
    pub gauges: Vec<Gauge>,
    /// Figures of another kind, of which there are none here.
    points: [(); 0],
    pub counters: Vec<Happened>,
    pub samples: Vec<Happened>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Gauge {
    pub name: String,
    pub value: Number,
    #[serde(serialize_with = "as_map")]
    pub labels: Labels,
}

/// Values that came up: how many, and how they lie.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Happened {
    pub name: String,
    pub count: u64,
    /// Of the sum, per second.
    rate: Number,
    pub sum: Number,
    min: Number,
    max: Number,
    pub mean: Number,
    stddev: Number,
    #[serde(serialize_with = "as_map")]
    pub labels: Labels,
}

/// What has been counted up to a moment.
pub type Totals = HashMap<(&'static str, Labels), Value>;

/// What the figures say beyond the totals of before; and the totals of now.
pub fn since(
    before: &Totals,
    figures: Vec<Figure>,
    names: &Names,
    filter: &Filter,
    timestamp: String,
) -> (Interval, Totals) {
    let mut interval =
        Interval { timestamp, gauges: Vec::new(), points: [], counters: Vec::new(), samples: Vec::new() };
    let mut totals = Totals::new();
    for figure in figures {
        let name = names.of(&figure);
        let key = (figure.name, figure.labels);
        let earlier = before.get(&key).copied();
        if filter.tells(&name) {
            interval.add(name, key.1.clone(), figure.value, earlier);
        }
        totals.insert(key, figure.value);
    }
    let Interval { gauges, counters, samples, .. } = &mut interval;
    gauges.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
    for list in [counters, samples] {
        list.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
    }
    (interval, totals)
}

impl Interval {
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names, texts and numbers can be written as JSON")
    }

    fn add(&mut self, name: String, labels: Labels, value: Value, earlier: Option<Value>) {
        match (value, earlier) {
            (Value::Gauge(value) | Value::Total(value), _) => {
                self.gauges.push(Gauge { name, value: number(value), labels });
            }
            (Value::Count(count), earlier) => {
                let earlier = if let Some(Value::Count(earlier)) = earlier { earlier } else { 0 };
                let count = count.saturating_sub(earlier);
                let sum = count as f64;
                let ones = Measured { count, sum, squares: sum, least: 1.0, most: 1.0 };
                self.counters.extend(Happened::of(name, ones, labels));
            }
            (Value::Measured(measured), earlier) => {
                let earlier =
                    if let Some(Value::Measured(earlier)) = earlier { earlier } else { Measured::default() };
                self.samples.extend(Happened::of(name, measured.since(&earlier), labels));
            }
        }
    }
}

impl Happened {
    /// `None` where nothing happened.
    fn of(name: String, measured: Measured, labels: Labels) -> Option<Self> {
        (measured.count > 0).then(|| Happened {
            name,
            count: measured.count,
            rate: number(measured.sum / INTERVAL.as_secs_f64()),
            sum: number(measured.sum),
            min: number(measured.least),
            max: number(measured.most),
            mean: number(measured.mean()),
            stddev: number(measured.deviation()),
            labels,
        })
    }
}

fn as_map<S: Serializer>(labels: &Labels, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.iter().map(|(name, value)| (name, value)))
}

/// As Go prints it: whole numbers without a fraction.
pub fn number(value: f64) -> Number {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        return Number::from(value as i64);
    }
    Number::from_f64(value).unwrap_or_else(|| Number::from(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::Spread;

    #[test]
    fn an_interval_is_what_came_since_the_one_before() {
        let (names, filter) = (Names { prefix: None, node: Some("oak".into()) }, Filter::default());
        let spread = Spread::default();
        let figures = |count, spread: &Spread| {
            vec![
                Figure::count("lictor.b", "", count).with("form", "node"),
                Figure::count("lictor.a", "", 7),
                Figure::gauge("consul.peers", "", 1.0),
                Figure::measured("consul.time", "", spread.take()),
            ]
        };
        spread.record(4);
        let (_, totals) = since(&Totals::new(), figures(3, &spread), &names, &filter, "T0".into());
        [1, 3].iter().for_each(|value| spread.record(*value));
        let (interval, _) = since(&totals, figures(5, &spread), &names, &filter, "T1".into());
        assert_eq!(
            String::from_utf8(interval.to_json()).unwrap(),
            concat!(
                r#"{"Timestamp":"T1","Gauges":[{"Name":"consul.oak.peers","Value":1,"Labels":{}}],"Points":[],"#,
                r#""Counters":[{"Name":"lictor.b","Count":2,"Rate":0.2,"Sum":2,"Min":1,"Max":1,"Mean":1,"#,
                r#""Stddev":0,"Labels":{"form":"node"}}],"Samples":[{"Name":"consul.time","Count":2,"Rate":0.4,"#,
                r#""Sum":4,"Min":1,"Max":3,"Mean":2,"Stddev":1.4142135623730951,"Labels":{}}]}"#
            ),
            "what did not happen is not told"
        );
    }
}
