//! Services and checks as they stand in files (`config-cli.md` §4), read into what the check room builds from.

use ahash::{AHashMap, AHashSet};

use crate::check::{CheckSpec, Definition, Invalid, ServiceDefinition, ServiceSpec};

use super::{
    reader::{Fields, Findings},
    tree::{Kind, Member, Place, Value},
};

/// The services and checks of all trees, each with its place, and those of a service's checks.
#[derive(Default)]
pub struct Definitions {
    pub services: LastOfId<(ServiceDefinition, Vec<Place>)>,
    pub checks: LastOfId<(Definition, Place)>,
    /// Lower-cased ids of all services, those that are wrong too: a check may name them without a second fault.
    ids: AHashSet<String>,
}

/// Of one id the last counts.
pub struct LastOfId<T> {
    at: AHashMap<String, usize>,
    all: Vec<T>,
}

impl Definitions {
    /// Takes `services`, `service`, `checks` and `check` out of a tree.
    pub fn take(&mut self, tree: &mut Vec<Member>, findings: &mut Findings) {
        let is_definition = |member: &mut Member| {
            ["services", "service", "checks", "check"].iter().any(|key| member.key.eq_ignore_ascii_case(key))
        };
        let members: Vec<Member> = tree.extract_if(.., is_definition).collect();
        let mut fields = Fields::new(&members, "");
        for (path, value) in ["services", "service"].into_iter().flat_map(|key| fields.blocks(key)) {
            self.service(&path, value, findings);
        }
        for (path, value) in ["checks", "check"].into_iter().flat_map(|key| fields.blocks(key)) {
            if let Some(check) = read_node_check(value, &path, findings) {
                self.checks.put(&check.id.clone(), (check, value.place.clone()));
            }
        }
    }

    /// Whether a service of this id was written.
    pub fn has_service(&self, id: &str) -> bool {
        self.ids.contains(&id.to_lowercase())
    }

    fn service(&mut self, path: &str, value: &Value, findings: &mut Findings) {
        let Some(mut fields) = Fields::of(value, path, findings) else { return };
        let named = ["id", "name"].into_iter().filter_map(|key| fields.peek(key)).find_map(|value| {
            match &value.kind {
                Kind::Text(text) if !text.is_empty() => Some(text),
                _ => None,
            }
        });
        self.ids.extend(named.map(|id| id.to_lowercase()));
        let mut places = Vec::new();
        if let Some(service) = read_service(&mut fields, path, value, &mut places, findings) {
            self.services.put(&service.service.id.clone(), (service, places));
        }
    }
}

impl<T> LastOfId<T> {
    fn put(&mut self, id: &str, value: T) {
        match self.at.get(&id.to_lowercase()).and_then(|at| self.all.get_mut(*at)) {
            Some(earlier) => *earlier = value,
            None => {
                self.at.insert(id.to_lowercase(), self.all.len());
                self.all.push(value);
            }
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.all.iter()
    }

    pub fn into_all(self) -> Vec<T> {
        self.all
    }
}

impl<T> Default for LastOfId<T> {
    fn default() -> Self {
        LastOfId { at: AHashMap::new(), all: Vec::new() }
    }
}

/// `places` are filled with those of its checks.
fn read_service(
    fields: &mut Fields,
    path: &str,
    value: &Value,
    places: &mut Vec<Place>,
    findings: &mut Findings,
) -> Option<ServiceDefinition> {
    let before = findings.faults.len();
    let (mut paths, mut checks) = (Vec::new(), Vec::new());
    for (path, value) in ["checks", "check"].into_iter().flat_map(|key| fields.blocks(key)) {
        checks.extend(read_check(value, &path, findings));
        places.push(value.place.clone());
        paths.push(path);
    }
    let spec = ServiceSpec {
        id: fields.text("id", findings),
        name: fields.text("name", findings),
        tags: fields.texts("tags", findings),
        address: fields.text("address", findings),
        port: fields.int("port", findings),
        socket_path: fields.text("socket_path", findings),
        tagged_addresses: read_tagged(fields, findings),
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
    let built = spec.build();
    built.map_err(|fault| place_fault(fault, path, &name, &value.place, places, &paths, findings)).ok()
}

/// A fault stands where its block stands: the service's, or that of the check that is wrong.
fn place_fault(
    fault: Invalid,
    path: &str,
    name: &str,
    place: &Place,
    check_places: &[Place],
    check_paths: &[String],
    findings: &mut Findings,
) {
    let (at, text) = match fault {
        Invalid::Check { at, id, fault } => {
            let path = check_paths.get(at).map_or(path, String::as_str);
            let text = format!("{path}: service {name:?}: check {id:?}: {fault}");
            (check_places.get(at).unwrap_or(place), text)
        }
        Invalid::Meta(fault) => (place, format!("{path}: invalid meta for service {name}: {fault}")),
        Invalid::NoServiceName => (place, format!("{path}: Service name missing; expected the key name")),
        fault => (place, format!("{path}: service {name:?}: {fault}")),
    };
    findings.fault::<()>(at.clone(), text);
}

fn read_tagged(fields: &mut Fields, findings: &mut Findings) -> Option<Vec<(String, String, i64)>> {
    let path = fields.path("tagged_addresses");
    let value = fields.take("tagged_addresses")?;
    let Kind::Object(members) = &value.kind else {
        return findings.wrong_type(&path, "map", value);
    };
    let mut found = Vec::new();
    for member in members {
        let path = format!("{path}.{}", member.key);
        let Some(mut address) = Fields::of(&member.value, &path, findings) else { continue };
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
    let Kind::Object(members) = &value.kind else {
        return findings.wrong_type(&path, "map", value);
    };
    let each = members.iter().map(|Member { key, value }| {
        let path = format!("{path}[{key}]");
        let Kind::List(values) = &value.kind else { return findings.no_list(&path, value) };
        Some((key.clone(), findings.texts(&path, values)?))
    });
    each.collect::<Vec<_>>().into_iter().collect()
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
