//! `lictor services`: what the agent is to register, from flags or from files as its configuration has them, and to
//! deregister. A file is read as an agent would read it, and told of with the same faults.

use serde_json::{Map, Value, json};

use super::{
    Doing, Failure, Outcome,
    client::{self, Client, Request},
    line::{Command, Flag, Line, Run},
    output::{complain, say},
};
use crate::{
    check::{CheckSpec, ServiceDefinition},
    config::{Flags, load_services},
};

pub const REGISTER: Command = Command {
    name: "services register",
    arguments: "[FILE or DIRECTORY...]",
    does: "Registers services with the agent",
    flags: &[
        client::AGENT,
        &[
            Flag::text("name", "the name"),
            Flag::text("id", "the id; the name where not given"),
            Flag::text("address", "the address; the node's where not given"),
            Flag::number("port", "the port"),
            Flag::text("socket", "the path of a unix socket, instead of address and port"),
            Flag::text("tag", "a tag; several times"),
            Flag::pair("meta", "key=value; several times"),
            Flag::pair("tagged-address", "key=HOST:PORT; several times"),
            Flag::text("kind", "sent as it is"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, register)),
};

pub const DEREGISTER: Command = Command {
    name: "services deregister",
    arguments: "[FILE or DIRECTORY...]",
    does: "Deregisters services of the agent",
    flags: &[client::AGENT, &[Flag::text("id", "the id")]],
    run: Run::Line(|line| client::ask(line, deregister)),
};

async fn register(client: Client, line: Line) -> Outcome {
    let text = |name: &str| line.text(name).unwrap_or("");
    let by_flags = !text("name").is_empty() || !text("id").is_empty();
    if by_flags && !line.rest.is_empty() {
        return Err(Failure::new("Service registration requires arguments or -id, not both."));
    }
    if text("name").is_empty() && line.rest.is_empty() {
        return Err(Failure::new("Service registration requires at least one argument or flags."));
    }
    let services: Vec<(String, Value)> = if by_flags {
        vec![(text("name").into(), of_flags(&line)?)]
    } else {
        read(&line)?.iter().map(|service| (service.service.name.to_string(), of_file(service))).collect()
    };
    for (name, service) in services {
        let request = Request::put("/v1/agent/service/register").body(service.to_string());
        client.ok(request).await.doing(&format!("Error registering service {name:?}"))?;
        say(format_args!("Registered service: {name}"))?;
    }
    Ok(())
}

async fn deregister(client: Client, line: Line) -> Outcome {
    let id = line.text("id").unwrap_or("");
    if id.is_empty() && line.rest.is_empty() {
        return Err(Failure::new("Service deregistration requires at least one argument or -id."));
    }
    if !id.is_empty() && !line.rest.is_empty() {
        return Err(Failure::new("Service deregistration requires arguments or -id, not both."));
    }
    let services = if id.is_empty() {
        let named =
            |service: &ServiceDefinition| (service.service.id.to_string(), service.service.name.to_string());
        read(&line)?.iter().map(named).collect()
    } else {
        vec![(id.to_string(), String::new())]
    };
    for (id, name) in services {
        let request = Request::put(format!("/v1/agent/service/deregister/{id}"));
        client.ok(request).await.doing(&format!("Error deregistering service {name:?}"))?;
        say(format_args!("Deregistered service: {id}"))?;
    }
    Ok(())
}

/// The services of the files that the line names.
fn read(line: &Line) -> Result<Vec<ServiceDefinition>, Failure> {
    let read = load_services(&Flags { paths: line.rest.clone(), ..Flags::default() });
    let (services, warnings) = read.doing("Error")?;
    warnings.iter().for_each(complain);
    Ok(services)
}

fn of_flags(line: &Line) -> Result<Value, Failure> {
    let text = |name: &str| line.text(name).unwrap_or("");
    let mut tagged = Map::new();
    for (key, address) in line.pairs("tagged-address") {
        let wrong = || Failure::new(format!("-tagged-address: {key}: found {address:?}; expected HOST:PORT"));
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        tagged.insert(key.into(), json!({ "Address": host, "Port": port }));
    }
    let meta: Map<String, Value> =
        line.pairs("meta").map(|(key, value)| (key.into(), value.into())).collect();
    Ok(json!({
        "ID": text("id"),
        "Name": text("name"),
        "Kind": text("kind"),
        "Tags": line.texts("tag").collect::<Vec<_>>(),
        "Address": text("address"),
        "Port": line.number("port").unwrap_or(0),
        "SocketPath": text("socket"),
        "TaggedAddresses": tagged,
        "Meta": meta,
    }))
}

/// As the API takes what stands in a file.
fn of_file(definition: &ServiceDefinition) -> Value {
    let service = &definition.service;
    let tagged = service.tagged_addresses.iter().flat_map(|tagged| tagged.iter());
    let tagged: Map<String, Value> = tagged
        .map(|(key, at)| (key.to_string(), json!({ "Address": &*at.address, "Port": at.port })))
        .collect();
    let meta = service.meta.iter().flat_map(|meta| meta.iter());
    let meta: Map<String, Value> = meta.map(|(key, value)| (key.to_string(), (&**value).into())).collect();
    json!({
        "ID": &*service.id,
        "Name": &*service.name,
        "Kind": &*service.kind,
        "Tags": service.tags.iter().map(|tag| &**tag).collect::<Vec<_>>(),
        "Address": &*service.address,
        "Port": service.port,
        "SocketPath": &*service.socket_path,
        "TaggedAddresses": tagged,
        "Meta": meta,
        "Weights": { "Passing": service.weights.passing, "Warning": service.weights.warning },
        "EnableTagOverride": service.enable_tag_override,
        "Token": &*definition.token,
        "Checks": definition.checks.iter().map(|check| of_check(&check.written)).collect::<Vec<_>>(),
    })
}

/// The keys of a file are those of the API with underscores, which knows them in any case; but for the id. Durations go
/// as they were written, and headers as a map.
fn of_check(check: &CheckSpec) -> Value {
    let written = serde_json::to_value(check).unwrap_or_default();
    let keys = written.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let keys = keys.map(|(key, value)| match key.as_str() {
        "id" => ("CheckID".into(), value.clone()),
        "header" => {
            let pairs = check.header.iter().flatten();
            let map = pairs.map(|(name, values)| (name.clone(), values.clone().into()));
            ("Header".into(), Value::Object(map.collect()))
        }
        key => (key.replace('_', ""), value.get("text").unwrap_or(value).clone()),
    });
    // Neither is a key of a service's check.
    Value::Object(keys.filter(|(key, _)| !matches!(key.as_str(), "serviceid" | "token")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Span;

    #[test]
    fn a_check_of_a_file_becomes_one_of_the_api() {
        let span = |text: &str| Some(Span { nanos: 1, text: text.into() });
        let check = CheckSpec {
            id: Some("up".into()),
            service_id: Some("web".into()),
            args: Some(vec!["/bin/true".into()]),
            header: Some(vec![("X".into(), vec!["a".into(), "b".into()])]),
            interval: span("10s"),
            deregister_critical_service_after: span("1h"),
            tls_skip_verify: Some(true),
            failures_before_critical: Some(2),
            ..CheckSpec::default()
        };
        let expected = json!({
            "CheckID": "up",
            "args": ["/bin/true"],
            "Header": { "X": ["a", "b"] },
            "interval": "10s",
            "deregistercriticalserviceafter": "1h",
            "tlsskipverify": true,
            "failuresbeforecritical": 2,
        });
        assert_eq!(of_check(&check), expected);
    }
}
