//! `lictor watch`: tells of one thing in the catalog or the store as it changes, to a program or once to the reader.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Doing, Failure, Outcome,
    child::{Child, Input, Interrupt},
    client::{self, Client, Lost, Request, next_index},
    kv,
    line::{Command, Flag, Line, Run},
    output::{complain, reformat, say},
};
use crate::config::parse_bool;

pub const COMMAND: Command = Command {
    name: "watch",
    arguments: "[CHILD...]",
    does: "Runs a program whenever something changes, or prints it once",
    flags: &[
        client::AGENT,
        client::SERVERS,
        &[
            Flag::text("type", "key, keyprefix, services, nodes, service, checks or event"),
            Flag::text("key", "which key"),
            Flag::text("prefix", "which keys"),
            Flag::text("service", "which service, of service and checks"),
            Flag::text("tag", "only instances with this tag, of service; several times"),
            Flag::text("passingonly", "true: only instances whose checks pass, of service"),
            Flag::text("state", "only checks of this status"),
            Flag::text("name", "only events of this name"),
            Flag::text("filter", "an expression that picks services, nodes, instances or checks"),
            Flag::switch("shell", "run the program by a shell; so it is where not given"),
        ],
    ],
    run: Run::Child(|line| client::ask(line, watch)),
};

/// How long a server holds a question that nothing has answered.
const WAIT: Duration = Duration::from_secs(300);
/// After an error; times the square of errors in a row, and no longer than the other.
const PAUSE: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(180);

/// What is watched.
#[derive(Debug, PartialEq)]
enum Thing {
    Key(String),
    Prefix(String),
    /// A list or map that the API has: its path, and the parameters that pick from it.
    Path(String, Vec<(&'static str, String)>),
    Events(String),
}

/// Flags that say what is watched.
const PARAMETERS: &[&str] = &["filter", "key", "name", "passingonly", "prefix", "service", "state", "tag"];

async fn watch(client: Client, line: Line) -> Outcome {
    let thing = thing(&line)?;
    // What is wrong with the way to the agent is told at once; what goes wrong later passes.
    client.ok(Request::get("/v1/agent/self")).await.doing("Error querying Consul agent")?;
    follow(&client, &line, &thing).await
}

fn thing(line: &Line) -> Result<Thing, Failure> {
    let text = |name: &str| line.text(name).filter(|text| !text.is_empty()).map(String::from);
    let only =
        |name: &str| text(name).ok_or_else(|| Failure::new(format!("Must specify a single {name} to watch")));
    let kind = text("type").ok_or_else(|| Failure::new("Watch type must be specified"))?;
    let (thing, known): (Thing, &[&str]) = match kind.as_str() {
        "key" => (Thing::Key(only("key")?), &["key"]),
        "keyprefix" => (Thing::Prefix(only("prefix")?), &["prefix"]),
        "services" => (Thing::Path("/v1/catalog/services".into(), Vec::new()), &["filter"]),
        "nodes" => (Thing::Path("/v1/catalog/nodes".into(), Vec::new()), &["filter"]),
        "service" => {
            let mut query: Vec<_> = line.texts("tag").map(|tag| ("tag", tag.to_string())).collect();
            if let Some(value) = text("passingonly")
                && parse_bool("passingonly", &value).map_err(|error| Failure::new(error.to_string()))?
            {
                query.push(("passing", "1".into()));
            }
            let path = format!("/v1/health/service/{}", only("service")?);
            (Thing::Path(path, query), &["filter", "passingonly", "service", "tag"])
        }
        "checks" => {
            let path = match (text("service"), text("state")) {
                (Some(_), Some(_)) => return Err(Failure::new("Cannot specify service and state")),
                (Some(service), None) => format!("/v1/health/checks/{service}"),
                (None, state) => format!("/v1/health/state/{}", state.unwrap_or_else(|| "any".into())),
            };
            (Thing::Path(path, Vec::new()), &["filter", "service", "state"])
        }
        "event" => (Thing::Events(text("name").unwrap_or_default()), &["name"]),
        other => return Err(Failure::new(format!("Unsupported watch type: {other}"))),
    };
    let others: Vec<&str> =
        PARAMETERS.iter().copied().filter(|name| !known.contains(name) && text(name).is_some()).collect();
    if !others.is_empty() {
        return Err(Failure::new(format!("Invalid parameters: [{}]", others.join(" "))));
    }
    Ok(match thing {
        Thing::Path(path, mut query) => {
            query.extend(text("filter").map(|filter| ("filter", filter)));
            Thing::Path(path, query)
        }
        thing => thing,
    })
}

/// Tells of each change, until nobody listens any more.
async fn follow(client: &Client, line: &Line, thing: &Thing) -> Outcome {
    let (mut index, mut told, mut failures) = (0, None, 0_u32);
    let mut interrupt = Interrupt::listen();
    loop {
        let looked = tokio::select! {
            looked = look(client, thing, index) => looked,
            () = interrupt.came() => return Ok(()),
        };
        let (found, answered) = match looked {
            Ok(found) => found,
            Err(lost) => {
                failures = failures.saturating_add(1);
                let pause = PAUSE.saturating_mul(failures.saturating_mul(failures)).min(PAUSE_MAX);
                complain(format_args!("[ERR] watch: {lost}; asked again in {}s", pause.as_secs()));
                tokio::select! {
                    () = tokio::time::sleep(pause) => continue,
                    () = interrupt.came() => return Ok(()),
                }
            }
        };
        failures = 0;
        let before = index;
        index = thing.next_index(before, answered);
        if before == index || told.as_ref() == Some(&found) {
            continue;
        }
        if line.rest.is_empty() {
            return say(reformat(&found, Some("    ")));
        }
        let mut child = start(line, &found, answered).map_err(failed)?;
        tokio::select! {
            ended = child.wait() => ended.map_err(failed)?,
            () = interrupt.came() => {
                child.stop().await;
                return Ok(());
            }
        }
        told = Some(found);
    }
}

/// What there is as compact JSON, once it is newer than `index`; and the index of that.
async fn look(client: &Client, thing: &Thing, index: u64) -> Result<(String, u64), Lost> {
    match thing {
        Thing::Key(key) => {
            let request = Request::get(kv::path(key)).newer_than(index, WAIT);
            let (entries, answered) = kv::read(client, request).await?;
            Ok((json(&entries.first())?, answered))
        }
        Thing::Prefix(prefix) => {
            let request = Request::get(kv::path(prefix)).with("recurse", "").newer_than(index, WAIT);
            let (entries, answered) = kv::read(client, request).await?;
            Ok((json(&Some(entries).filter(|entries| !entries.is_empty()))?, answered))
        }
        Thing::Path(path, query) => {
            let request = Request::get(path.clone()).newer_than(index, WAIT);
            let request = query.iter().fold(request, |request, (name, value)| request.with(name, value));
            let answer = client.ok(request).await?;
            Ok((reformat(&answer.text(), None), answer.index))
        }
        Thing::Events(name) => {
            let name = Some(name).filter(|name| !name.is_empty());
            let request = Request::get("/v1/event/list").with_any("name", name).newer_than(index, WAIT);
            let answer = client.ok(request).await?;
            Ok((json(&behind(answer.read()?, index))?, answer.index))
        }
    }
}

fn json(value: &impl Serialize) -> Result<String, Lost> {
    serde_json::to_string(value).map_err(|error| Lost::Way(error.to_string()))
}

/// The program that is told. It runs to its end before anything else is.
fn start(line: &Line, found: &str, index: u64) -> Result<Child, String> {
    let by_shell = line.text("shell").is_none() || line.is("shell");
    let (index, input) = (index.max(1).to_string(), Input::Text(format!("{found}\n")));
    Child::start(&line.rest, by_shell, ("CONSUL_INDEX", &index), input)
}

fn failed(text: String) -> Failure {
    Failure::new(format!("Error executing handler: {text}"))
}

impl Thing {
    fn next_index(&self, before: u64, answered: u64) -> u64 {
        match self {
            // Theirs is drawn from an id, and neither rises nor falls.
            Thing::Events(_) => answered,
            _ => next_index(before, answered),
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    #[serde(rename = "ID")]
    id: Uuid,
    name: String,
    payload: Option<String>,
    node_filter: String,
    service_filter: String,
    tag_filter: String,
    version: u64,
    l_time: u64,
}

/// The events behind the one that an index was drawn from; all where it is not among them.
fn behind(mut events: Vec<Event>, index: u64) -> Vec<Event> {
    let drawn = |event: &Event| {
        let (high, low) = event.id.as_u64_pair();
        high ^ low
    };
    let from = events.iter().position(|event| drawn(event) == index).map_or(0, |at| at + 1);
    events.split_off(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Result<Thing, String> {
        let words: Vec<String> = words.split(' ').map(String::from).collect();
        static DECLARED: Command = COMMAND;
        thing(&Line::parse(&DECLARED, &words).map_err(|error| error.to_string())?)
            .map_err(|failure| failure.text)
    }

    #[test]
    fn what_is_watched_is_named_by_flags() {
        let path = |path: &str, query: &[(&'static str, &str)]| {
            let query = query.iter().map(|(name, value)| (*name, value.to_string())).collect();
            Ok(Thing::Path(path.into(), query))
        };
        assert_eq!(of("-type=key -key=a/b"), Ok(Thing::Key("a/b".into())));
        assert_eq!(of("-type keyprefix -prefix a/ cat -key"), Ok(Thing::Prefix("a/".into())));
        assert_eq!(
            of("-type=service -service=web -tag=a -tag=b -passingonly=true -filter=x"),
            path("/v1/health/service/web", &[("tag", "a"), ("tag", "b"), ("passing", "1"), ("filter", "x")])
        );
        assert_eq!(of("-type=checks"), path("/v1/health/state/any", &[]));
        assert_eq!(of("-type=checks -service=a"), path("/v1/health/checks/a", &[]));
        for (words, text) in [
            ("-stale", "Watch type must be specified"),
            ("-type=zork", "Unsupported watch type: zork"),
            ("-type=key", "Must specify a single key to watch"),
            ("-type=key -key=a -prefix=b", "Invalid parameters: [prefix]"),
            ("-type=nodes -tag=a -key=b", "Invalid parameters: [key tag]"),
        ] {
            assert_eq!(of(words), Err(text.into()));
        }
    }

    #[test]
    fn events_are_told_once() {
        let event = |id: u128| Event {
            id: Uuid::from_u128(id),
            name: "a".into(),
            payload: None,
            node_filter: String::new(),
            service_filter: String::new(),
            tag_filter: String::new(),
            version: 1,
            l_time: 0,
        };
        let events = || vec![event(1), event(2), event(3)];
        assert_eq!(behind(events(), 2), [event(3)]);
        assert_eq!(behind(events(), 3), []);
        assert_eq!(behind(events(), 0), events());
    }
}
