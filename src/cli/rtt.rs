//! `lictor rtt`: how far two nodes are from each other, by their coordinates.

use serde::Deserialize;

use super::{
    Doing, Failure, Outcome,
    client::{self, Client, Lost, Request},
    line::{Command, Flag, Line, Run},
    output::say,
};

pub const COMMAND: Command = Command {
    name: "rtt",
    arguments: "NODE [NODE]",
    does: "Estimates the time of a round trip between two nodes; the agent's own where one is given",
    flags: &[client::AGENT, &[Flag::switch("wan", "servers of all datacenters, named NODE.DATACENTER")]],
    run: Run::Line(|line| client::ask(line, rtt)),
};

#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Coordinate {
    vec: Vec<f64>,
    height: f64,
    adjustment: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Place {
    node: String,
    coord: Coordinate,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Datacenter {
    datacenter: String,
    coordinates: Vec<Place>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct About {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    node_name: String,
    datacenter: String,
}

async fn rtt(client: Client, line: Line) -> Outcome {
    let (first, second) = match line.rest.as_slice() {
        [] => {
            return Err(Failure::new(format!(
                "One or two node names must be specified\n\n{}",
                COMMAND.usage()
            )));
        }
        [first, rest @ ..] => (first.clone(), rest.first().cloned()),
    };
    let wan = line.is("wan");
    let second = match second {
        Some(second) => second,
        None => own_name(&client, wan).await.doing("Unable to look up agent info")?,
    };
    let places = places(&client, wan).await.doing("Error getting coordinates")?;
    let find = |node: &str| {
        let found = places.iter().find(|place| place.node.eq_ignore_ascii_case(node));
        let missing = || Failure::new(format!("Could not find a coordinate for node {node:?}"));
        found.map(|place| &place.coord).ok_or_else(missing)
    };
    let seconds = distance(find(&first)?, find(&second)?);
    let of = if wan { "WAN" } else { "LAN" };
    say(format_args!(
        "Estimated {first} <-> {second} rtt: {:.3} ms (using {of} coordinates)",
        seconds * 1000.0
    ))
}

async fn own_name(client: &Client, wan: bool) -> Result<String, Lost> {
    let About { config } = client.read(Request::get("/v1/agent/self")).await?;
    Ok(if wan { format!("{}.{}", config.node_name, config.datacenter) } else { config.node_name })
}

async fn places(client: &Client, wan: bool) -> Result<Vec<Place>, Lost> {
    if !wan {
        return client.read(Request::get("/v1/coordinate/nodes")).await;
    }
    let datacenters: Vec<Datacenter> = client.read(Request::get("/v1/coordinate/datacenters")).await?;
    let named = datacenters.into_iter().flat_map(|Datacenter { datacenter, coordinates }| {
        let named = move |place: Place| Place { node: format!("{}.{datacenter}", place.node), ..place };
        coordinates.into_iter().map(named)
    });
    Ok(named.collect())
}

/// In seconds: straight, and up and down at both ends, corrected by what was seen unless that leaves nothing.
fn distance(a: &Coordinate, b: &Coordinate) -> f64 {
    let squares: f64 = a.vec.iter().zip(&b.vec).map(|(a, b)| (a - b) * (a - b)).sum();
    let raw = squares.sqrt() + a.height + b.height;
    let adjusted = raw + a.adjustment + b.adjustment;
    if adjusted > 0.0 { adjusted } else { raw }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_never_negative() {
        let at = |x: f64, adjustment: f64| Coordinate { vec: vec![x, 0.0], height: 0.1, adjustment };
        assert!((distance(&at(0.0, 0.0), &at(0.3, 0.05)) - 0.55).abs() < 1e-9);
        assert!((distance(&at(0.0, -1.0), &at(0.3, 0.0)) - 0.5).abs() < 1e-9);
    }
}
