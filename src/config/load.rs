//! All sources become one `Config`: what is wrong with each, what they say together, the defaults, and the rules that
//! need more than one key.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Config, Flags, Log, Scripts, addresses,
    definitions::Definitions,
    layer::{self, Layer},
    reader::{Fault, Findings},
    recursors, sources,
    tree::Place,
};
use crate::{
    agent::Calls,
    check::{Definition, ServiceDefinition},
    dns, http,
};

/// Everything that is wrong, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

/// Reads what the flags name, and the flags themselves, into one configuration.
///
/// # Errors
/// Every fault of every source.
pub fn load(flags: &Flags) -> Result<Config, Faults> {
    let mut findings = Findings::default();
    let mut trees = sources::read(flags, &mut findings);
    let unread = findings.faults.len();
    let mut definitions = Definitions::default();
    for tree in &mut trees {
        definitions.take(tree, &mut findings);
    }
    // Each tree by itself first: what a later one overrides must be right, too. What is only worth a warning counts
    // for what they say together.
    let mut alone = Findings::default();
    for tree in &trees {
        layer::read(tree, &flags.ignored_security, &mut alone);
    }
    let mut merged = Vec::new();
    trees.into_iter().for_each(|tree| sources::merge(&mut merged, tree));
    let of_definitions = findings.faults.len();
    let layer = layer::read(&merged, &flags.ignored_security, &mut findings);
    findings.faults.append(&mut alone.faults);
    // Of half a configuration only nonsense could follow.
    let is_whole = unread == 0 && findings.faults.len() == of_definitions;
    findings.faults.append(&mut findings.refusals);
    if unread == 0 {
        check_definitions(&definitions, scripts(&layer), &mut findings);
    }
    warn_of_remote_scripts(&layer, &mut findings);
    findings.warnings.sort_by(|a, b| a.place.cmp(&b.place));
    let config = if is_whole { finish(layer, definitions, flags, &mut findings) } else { None };
    config.filter(|_| findings.faults.is_empty()).ok_or_else(|| Faults::new(findings.faults))
}

/// The services that files define, and what is worth a warning; everything else in them is passed over. Whether an agent
/// runs the programs of their checks is its own to say.
///
/// # Errors
/// Every fault of every file, and of every service.
pub fn load_services(flags: &Flags) -> Result<(Vec<ServiceDefinition>, Vec<String>), Faults> {
    let mut findings = Findings::default();
    let mut definitions = Definitions::default();
    for tree in &mut sources::read(flags, &mut findings) {
        definitions.take(tree, &mut findings);
    }
    if !findings.faults.is_empty() {
        return Err(Faults::new(findings.faults));
    }
    let services = definitions.services.into_all().into_iter().map(|(service, _)| service).collect();
    Ok((services, findings.warnings.iter().map(Fault::to_string).collect()))
}

impl Faults {
    fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort_by(|a, b| (&a.place, &a.text).cmp(&(&b.place, &b.text)));
        faults.dedup();
        Faults(faults)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// `None` where a default cannot be found.
fn finish(layer: Layer, definitions: Definitions, flags: &Flags, findings: &mut Findings) -> Option<Config> {
    let (server, scripts) = (layer.server.unwrap_or(flags.dev), scripts(&layer));
    check_bootstrap(&layer, flags, server, findings);
    let bootstrap_expect = layer.bootstrap_expect.as_ref().map_or(0, |(count, _)| *count);
    let may_begin = layer.bootstrap.unwrap_or(flags.dev) || bootstrap_expect == 1;
    check_data_dir(&layer, flags, findings);
    let datacenter = layer.datacenter.unwrap_or_else(|| "dc1".into());
    let node_name = layer.node_name.filter(|name| !name.is_empty()).unwrap_or_else(host_name);
    warn_of_odd_node_name(&node_name, findings);
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let client = layer.client.unwrap_or_else(|| vec![loopback]);
    let sockets = |addresses: Option<Vec<IpAddr>>, port: Option<i64>, default: u16| -> Vec<SocketAddr> {
        let port = u16::try_from(port.unwrap_or(default.into())).unwrap_or(0);
        let addresses = addresses.as_ref().unwrap_or(&client);
        if port == 0 { vec![] } else { addresses.iter().map(|address| (*address, port).into()).collect() }
    };
    let dns_addrs = sockets(layer.dns_addresses, layer.dns_port, 8600);
    let http_addrs = sockets(layer.http_addresses, layer.http_port, 8500);
    let dns_addrs = listeners(dns_addrs, &layer.dns_listen, findings);
    for http in &http_addrs {
        let clash = |dns: &&SocketAddr| *dns == http || dns::covers(dns, http) || dns::covers(http, dns);
        if let Some(dns) = dns_addrs.iter().find(clash) {
            let within = if dns == http { String::new() } else { format!(", as {dns}") };
            let text = format!("HTTP address {http} already configured for DNS{within}");
            findings.fault::<()>(Place::default(), text);
        }
    }
    let sockets = layer.http_sockets.into_iter();
    let http_sockets = sockets.map(|path| http::UnixSocket { path, ..layer.unix_sockets.clone() }).collect();
    let mut dns = dns::Settings { datacenter: datacenter.clone(), node: node_name.clone(), ..layer.dns };
    dns.recursion.recursors = recursors::resolve(layer.recursors, &dns_addrs, findings);
    dns.domain = zone(layer.domain.as_deref().filter(|domain| !domain.is_empty()).unwrap_or("consul"));
    dns.alt_domain =
        layer.alt_domain.and_then(|(text, place)| read_alt_domain(&text, &datacenter, place, findings));
    let bind = layer.bind.unwrap_or(if flags.dev { loopback } else { Ipv4Addr::UNSPECIFIED.into() });
    let advertise = layer.advertise.or_else(|| {
        if !bind.is_unspecified() {
            return Some(bind);
        }
        addresses::only_private().map_err(|text| findings.fault::<()>(Place::default(), text)).ok()
    })?;
    let data_dir = layer.data_dir.map(|(path, _)| PathBuf::from(path));
    let encryption = layer.encryption.settings(data_dir.as_deref(), flags.dev);
    Some(Config {
        node_name,
        node_id: layer.node_id,
        node_meta: layer.node_meta,
        datacenter,
        dev: flags.dev,
        server,
        may_begin,
        bootstrap_expect: u32::try_from(bootstrap_expect).unwrap_or(u32::MAX),
        free_bytes_min: layer.free_bytes_min.unwrap_or(FREE_BYTES_MIN),
        mass_failure: layer.mass_failure,
        data_dir,
        encryption,
        calls: Calls { bind, ..layer.calls },
        rpc_limits: layer.rpc_limits,
        pool: layer.gossip.finish(bind, flags.dev),
        advertise,
        advertise_wan: layer.advertise_wan.unwrap_or(advertise),
        server_port: layer.server_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(8300),
        serf_lan_port: layer.serf_lan_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(8301),
        serf_wan_port: u16::try_from(layer.serf_wan_port.unwrap_or(8302)).ok().filter(|port| *port > 0),
        dns,
        dns_addrs,
        http: http::Settings { pretty: flags.dev, ..layer.http },
        http_addrs,
        http_sockets,
        telemetry: layer.telemetry,
        scripts,
        check_update_interval: layer.check_update_interval.unwrap_or(Duration::from_secs(300)),
        check_output_bytes_max: layer.check_output_bytes_max.unwrap_or(4096),
        discard_check_output: layer.discard_check_output.unwrap_or(false),
        leave_on_terminate: layer.leave_on_terminate.unwrap_or(!server),
        skip_leave_on_interrupt: layer.skip_leave_on_interrupt.unwrap_or(server),
        log: Log {
            level: layer.log_level.unwrap_or_else(|| if flags.dev { "DEBUG" } else { "INFO" }.into()),
            json: layer.log_json.unwrap_or(false),
        },
        pid_file: layer.pid_file.filter(|path| !path.is_empty()).map(PathBuf::from),
        services: definitions.services.into_all().into_iter().map(|(service, _)| service).collect(),
        checks: definitions.checks.into_all().into_iter().map(|(check, _)| check).collect(),
        warnings: findings.warnings.iter().map(Fault::to_string).collect(),
    })
}

/// The addresses at the DNS port, and the listeners beside them.
fn listeners(
    mut addrs: Vec<SocketAddr>,
    beside: &[(SocketAddr, Place)],
    findings: &mut Findings,
) -> Vec<SocketAddr> {
    addrs.extend(beside.iter().map(|(addr, _)| *addr));
    let place = beside.first().map_or_else(Place::default, |(_, place)| place.clone());
    let found = dns::Listeners::of(&addrs).unwrap_or_else(|dns::Twice(addr)| {
        let is_same = |(own, _): &&(SocketAddr, Place)| (own.ip().to_canonical(), own.port()) == (addr.ip(), addr.port());
        let place = beside.iter().rfind(is_same).map_or_else(Place::default, |(_, place)| place.clone());
        let text = format!("DNS address {addr} is configured twice; expected each once, among addresses.dns at ports.dns and lictor.dns.listen");
        findings.fault::<()>(place, text);
        dns::Listeners::default()
    });
    for (addr, wide) in &found.covered {
        findings.warn(&place, format!("DNS address {addr} is within {wide}, which is bound alone"));
    }
    found.addrs
}

fn scripts(layer: &Layer) -> Scripts {
    match (layer.enable_script_checks, layer.enable_local_script_checks) {
        (Some(true), _) => Scripts::All,
        (_, Some(true)) => Scripts::Local,
        _ => Scripts::Off,
    }
}

fn warn_of_remote_scripts(layer: &Layer, findings: &mut Findings) {
    if layer.enable_script_checks == Some(true) && layer.http.writers.is_empty() {
        let text = "enable_script_checks without access control is DANGEROUS: whoever reaches the HTTP API may run programs here; enable_local_script_checks is enough for checks in files";
        findings.warn(&Place::default(), text);
    }
}

/// As much as the log may grow to, and its transactions with it, several times.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// Who may begin a datacenter.
fn check_bootstrap(layer: &Layer, flags: &Flags, server: bool, findings: &mut Findings) {
    let (expect, place) = layer.bootstrap_expect.clone().unwrap_or_default();
    let bootstrap = layer.bootstrap.unwrap_or(flags.dev);
    let text = if bootstrap && !server {
        "'bootstrap = true' requires 'server = true'"
    } else if expect > 0 && !server {
        "'bootstrap_expect > 0' requires 'server = true'"
    } else if expect > 1 && flags.dev {
        "'bootstrap_expect > 0' not allowed in dev mode"
    } else if expect > 0 && layer.bootstrap == Some(true) {
        "'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive"
    } else {
        return;
    };
    findings.fault::<()>(if expect > 0 { place } else { Place::default() }, text);
}

fn check_data_dir(layer: &Layer, flags: &Flags, findings: &mut Findings) {
    match &layer.data_dir {
        None if !flags.dev => drop(findings.fault::<()>(Place::default(), "data_dir cannot be empty")),
        Some((path, place)) if Path::new(path).is_file() => {
            findings.fault::<()>(place.clone(), format!("data_dir {path:?} is not a directory"));
        }
        _ => {}
    }
}

/// What one definition cannot know of the others, or of the agent.
fn check_definitions(definitions: &Definitions, scripts: Scripts, findings: &mut Findings) {
    let of_services =
        definitions.services.iter().flat_map(|(service, places)| service.checks.iter().zip(places));
    for (check, place) in definitions.checks.iter().map(|(check, place)| (check, place)).chain(of_services) {
        if let Some(text) = refused(check, definitions, scripts) {
            findings.fault::<()>(place.clone(), format!("check {:?}: {text}", check.id));
        }
    }
}

fn refused(check: &Definition, definitions: &Definitions, scripts: Scripts) -> Option<String> {
    if !check.service_id.is_empty() && !definitions.has_service(&check.service_id) {
        let expected = "expected the id of a service in these files";
        return Some(format!("ServiceID {:?} does not exist; {expected}", check.service_id));
    }
    (check.kind.runs_program() && scripts == Scripts::Off).then(|| {
        "Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or 'enable_local_script_checks' to true".into()
    })
}

fn read_alt_domain(text: &str, datacenter: &str, place: Place, findings: &mut Findings) -> Option<String> {
    let zone = zone(text);
    let first = zone.split('.').next().unwrap_or_default();
    let below = zone.split('.').count() > 2;
    if below && (["service", "connect", "node", "query", "addr"].contains(&first) || first == datacenter) {
        let text = format!(
            "alt_domain cannot start with {{service,connect,node,query,addr,{datacenter}}}; found {text:?}"
        );
        return findings.fault(place, text);
    }
    Some(zone)
}

/// Lower-cased, with a final dot.
fn zone(text: &str) -> String {
    format!("{}.", text.trim_end_matches('.').to_ascii_lowercase())
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".into())
}

fn warn_of_odd_node_name(name: &str, findings: &mut Findings) {
    if name.len() > 63 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        findings.warn(
            &Place::default(),
            format!("Node name {name:?} will not be discoverable via DNS due to invalid characters. Valid characters include all alpha-numerics and dashes."),
        );
    }
}
