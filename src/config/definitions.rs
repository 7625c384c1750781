//! Services and checks as they stand in files (`config-cli.md` §4), read into what the check room builds from.

use crate::check::{CheckSpec, Definition, Invalid, ServiceDefinition, ServiceSpec};

use super::{
    reader::{Fields, Findings},
    tree::{Place, Value},
};

/// The services and checks of a tree, in order, each with its place.
#[derive(Default)]
pub struct Definitions {
    pub services: Vec<(Place, ServiceDefinition)>,
    pub checks: Vec<(Place, Definition)>,
}

impl Definitions {
    /// Takes `services`, `service`, `checks` and `check`. Of one id the last definition counts.
    pub fn read(top: &mut Fields, findings: &mut Findings) -> Self {
        let mut found = Definitions::default();
        for key in ["services", "service"] {
            for (path, value) in top.blocks(key) {
                if let Some(service) = read_service(value, &path, findings) {
                    found.services.retain(|(_, other)| other.service.id != service.service.id);
                    found.services.push((value.place.clone(), service));
                }
            }
        }
        for key in ["checks", "check"] {
            for (path, value) in top.blocks(key) {
                if let Some(check) = read_node_check(value, &path, findings) {
                    found.checks.retain(|(_, other)| other.id != check.id);
                    found.checks.push((value.place.clone(), check));
                }
            }
        }
        found
    }
}

fn read_service(value: &Value, path: &str, findings: &mut Findings) -> Option<ServiceDefinition> {
    let before = findings.faults.len();
    let mut fields = Fields::of(value, path, findings)?;
    let mut places = Vec::new();
    let mut checks = Vec::new();
    for key in ["checks", "check"] {
        for (path, value) in fields.blocks(key) {
            places.push((value.place.clone(), path.clone()));
            checks.extend(read_check(value, &path, findings));
        }
    }
    let spec = ServiceSpec {
        id: fields.text("id", findings),
        name: fields.text("name", findings),
        tags: fields.texts("tags", findings),
        address: fields.text("address", findings),
        port: fields.int("port", findings),
        socket_path: fields.text("socket_path", findings),
        tagged_addresses: read_tagged(&mut fields, findings),
        meta: fields.map("meta", findings).map(without_places),
        weights: fields.block("weights", findings).map(|mut weights| {
            let pair = (weights.int("passing", findings), weights.int("warning", findings));
            weights.finish(findings);
            pair
        }),
        enable_tag_override: fields.bool("enable_tag_override", findings),
        token: fields.text("token", findings),
        kind: fields.text("kind", findings),
        checks,
    };
    for key in ["proxy", "connect", "locality"] {
        if let Some(value) = fields.take(key) {
            findings.warn(
                &value.place,
                format!("{path}.{key} is accepted and has no effect: there is no mesh here"),
            );
        }
    }
    fields.finish(findings);
    if findings.faults.len() > before {
        return None;
    }
    let name = spec.name.clone().unwrap_or_default();
    warn_of_odd_name(&name, &value.place, findings);
    spec.build().map_err(|fault| place_fault(fault, path, &name, &value.place, &places, findings)).ok()
}

/// A fault stands where its block stands: the service's, or that of the check that is wrong.
fn place_fault(
    fault: Invalid,
    path: &str,
    name: &str,
    place: &Place,
    checks: &[(Place, String)],
    findings: &mut Findings,
) {
    match fault {
        Invalid::Check { at, id, fault } => {
            let (place, path) = checks.get(at).cloned().unwrap_or_else(|| (place.clone(), path.into()));
            findings.fault::<()>(place, format!("{path}: service {name:?}: check {id:?}: {fault}"));
        }
        Invalid::Meta(fault) => drop(
            findings.fault::<()>(place.clone(), format!("{path}: invalid meta for service {name}: {fault}")),
        ),
        Invalid::NoServiceName => {
            findings
                .fault::<()>(place.clone(), format!("{path}: Service name missing; expected the key name"));
        }
        fault => drop(findings.fault::<()>(place.clone(), format!("{path}: service {name:?}: {fault}"))),
    }
}

fn read_tagged(fields: &mut Fields, findings: &mut Findings) -> Option<Vec<(String, String, i64)>> {
    let path = fields.path("tagged_addresses");
    let value = fields.take("tagged_addresses")?;
    let super::tree::Kind::Object(members) = &value.kind else {
        return findings.wrong_type(&path, "map", value);
    };
    let mut found = Vec::new();
    for member in members {
        let mut address = Fields::of(&member.value, &format!("{path}.{}", member.key), findings)?;
        let text = address.text("address", findings).unwrap_or_default();
        found.push((member.key.clone(), text, address.int("port", findings).unwrap_or(0)));
        address.finish(findings);
    }
    Some(found)
}

fn read_node_check(value: &Value, path: &str, findings: &mut Findings) -> Option<Definition> {
    let spec = read_check(value, path, findings)?;
    let id = spec.id.clone().unwrap_or_default();
    let built = spec.build();
    built
        .map_err(|fault| findings.fault::<()>(value.place.clone(), format!("{path}: check {id:?}: {fault}")))
        .ok()
}

/// `None` where a key is unknown or of the wrong type.
fn read_check(value: &Value, path: &str, findings: &mut Findings) -> Option<CheckSpec> {
    let before = findings.faults.len();
    let mut fields = Fields::of(value, path, findings)?;
    let mut text = |keys: &[&str]| {
        keys.iter().map(|key| fields.text(key, findings)).fold(None, |found, other| found.or(other))
    };
    let mut spec = CheckSpec {
        id: text(&["id", "checkid", "check_id"]),
        name: text(&["name"]),
        notes: text(&["notes"]),
        status: text(&["status"]),
        service_id: text(&["service_id", "serviceid"]),
        token: text(&["token"]),
        shell: text(&["shell"]),
        docker_container_id: text(&["docker_container_id", "dockercontainerid"]),
        http: text(&["http"]),
        method: text(&["method"]),
        body: text(&["body"]),
        tcp: text(&["tcp"]),
        udp: text(&["udp"]),
        grpc: text(&["grpc"]),
        h2ping: text(&["h2ping"]),
        alias_node: text(&["alias_node"]),
        alias_service: text(&["alias_service"]),
        os_service: text(&["os_service"]),
        tls_server_name: text(&["tls_server_name"]),
        ..CheckSpec::default()
    };
    let mut flag = |keys: &[&str]| {
        keys.iter().map(|key| fields.bool(key, findings)).fold(None, |found, other| found.or(other))
    };
    spec.disable_redirects = flag(&["disable_redirects"]);
    spec.tcp_use_tls = flag(&["tcp_use_tls"]);
    spec.grpc_use_tls = flag(&["grpc_use_tls"]);
    spec.h2ping_use_tls = flag(&["h2ping_use_tls"]);
    spec.tls_skip_verify = flag(&["tls_skip_verify", "tlsskipverify"]);
    let mut span = |keys: &[&str]| {
        keys.iter().map(|key| fields.duration(key, findings)).fold(None, |found, other| found.or(other))
    };
    spec.ttl = span(&["ttl"]);
    spec.interval = span(&["interval"]);
    spec.timeout = span(&["timeout"]);
    spec.deregister_critical_service_after =
        span(&["deregister_critical_service_after", "deregistercriticalserviceafter"]);
    spec.success_before_passing = fields.int("success_before_passing", findings);
    spec.failures_before_warning = fields.int("failures_before_warning", findings);
    spec.failures_before_critical = fields.int("failures_before_critical", findings);
    spec.output_max_size = fields.int("output_max_size", findings);
    spec.args = fields.texts("args", findings).or_else(|| fields.texts("scriptargs", findings));
    spec.header = read_header(&mut fields, findings);
    fields.finish(findings);
    (findings.faults.len() == before).then_some(spec)
}

/// Values are lists.
fn read_header(fields: &mut Fields, findings: &mut Findings) -> Option<Vec<(String, Vec<String>)>> {
    let path = fields.path("header");
    let value = fields.take("header")?;
    let super::tree::Kind::Object(members) = &value.kind else {
        return findings.wrong_type(&path, "map", value);
    };
    let mut header = Fields::of(value, &path, findings)?;
    let mut found = Vec::new();
    for member in members {
        let values = header.texts(&member.key.to_lowercase(), findings)?;
        found.push((member.key.clone(), values));
    }
    Some(found)
}

pub fn without_places(pairs: Vec<(String, String, Place)>) -> Vec<(String, String)> {
    pairs.into_iter().map(|(key, value, _)| (key, value)).collect()
}

/// The service is registered all the same.
fn warn_of_odd_name(name: &str, place: &Place, findings: &mut Findings) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !name.bytes().all(plain) {
        findings.warn(
            place,
            format!(
                "Service name will not be discoverable via DNS due to invalid characters. Valid characters include all alpha-numerics and dashes.: service={name:?}"
            ),
        );
    } else if name.len() > 63 {
        findings.warn(
            place,
            format!("Service name will not be discoverable via DNS due to it being too long. Valid lengths are between 1 and 63 bytes.: service={name:?}"),
        );
    }
}
