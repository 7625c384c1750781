//! The order in which sources count (`config-cli.md` §1.1), what each key means, and what a valid value is.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Config, Flags, Log, Scripts, addresses,
    definitions::{Definitions, without_places},
    hcl, json, keys,
    reader::{Fault, Fields, Findings},
    tree::{Kind, Member, Place, SyntaxError, Value},
};
use crate::{catalog::check_meta, check::Span, dns, http};

/// The syntax of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Hcl,
    Json,
}

/// Everything that is wrong, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

/// Reads what the flags name, and the flags themselves, into one configuration.
///
/// # Errors
/// Every fault of every source.
pub fn load(flags: &Flags) -> Result<Config, Faults> {
    let mut findings = Findings::default();
    let trees = read_sources(flags, &mut findings);
    // Each tree by itself first: what a later one overrides must be right, too.
    for tree in &trees {
        read(tree, flags, &mut findings);
    }
    if findings.faults.is_empty() {
        let mut merged = Vec::new();
        let place = Place { file: "the command line".into(), line: 0, column: 0 };
        for tree in trees {
            if let Kind::Object(members) = tree.kind {
                merge(&mut merged, members);
            }
        }
        let skipped = std::mem::take(&mut findings.warnings);
        let skipped = skipped
            .into_iter()
            .filter(|warning| warning.place.line == 0 && warning.text.starts_with("skipping"));
        findings.warnings = skipped.collect();
        let merged = Value { kind: Kind::Object(merged), place };
        if let Some(layer) = read(&merged, flags, &mut findings)
            && let Some(config) = finish(layer, flags, &mut findings)
            && findings.faults.is_empty()
        {
            return Ok(config);
        }
    }
    findings.faults.sort_by(|a, b| (&a.place.file, a.place.line).cmp(&(&b.place.file, b.place.line)));
    findings.faults.dedup();
    Err(Faults(findings.faults))
}

impl Format {
    pub fn of(word: &str) -> Option<Format> {
        match word {
            "hcl" => Some(Format::Hcl),
            "json" => Some(Format::Json),
            _ => None,
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// The trees of all sources, the ones that count most last.
fn read_sources(flags: &Flags, findings: &mut Findings) -> Vec<Value> {
    let of_flags = |members: &[Member]| Value {
        kind: Kind::Object(members.to_vec()),
        place: Place { file: "flags".into(), line: 0, column: 0 },
    };
    let mut trees = vec![of_flags(&flags.lists)];
    for path in &flags.paths {
        for file in files(Path::new(path), flags.format, findings) {
            trees.extend(read_file(&file, flags.format, findings));
        }
    }
    // Maps given by several flags overlay one another, so they are merged before anything counts them twice.
    let mut scalars = Vec::new();
    merge(&mut scalars, flags.scalars.clone());
    trees.push(of_flags(&scalars));
    for (at, fragment) in flags.fragments.iter().enumerate() {
        let file: Arc<str> = format!("flags-{at}.hcl").into();
        trees.extend(keep(hcl::parse(&file, fragment), findings));
    }
    trees
}

/// A file, or the files of a directory by name; what is neither `.hcl` nor `.json` there is skipped.
fn files(path: &Path, format: Option<Format>, findings: &mut Findings) -> Vec<PathBuf> {
    let place = |path: &Path| Place { file: path.display().to_string().into(), line: 0, column: 0 };
    let known = |path: &Path| format.is_some() || format_of(path).is_some();
    let must = "extension must be .hcl or .json, or config format must be set";
    let listed = match fs::metadata(path) {
        Ok(found) if found.is_dir() => fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>, std::io::Error>>()
        }),
        Ok(_) if known(path) => return vec![path.to_path_buf()],
        Ok(_) => {
            let text = format!(
                "file {} has unknown extension; must be .hcl or .json, or config format must be set",
                path.display()
            );
            findings.fault::<()>(place(path), text);
            return vec![];
        }
        Err(error) => Err(error),
    };
    let mut listed = match listed {
        Ok(listed) => listed,
        Err(error) => {
            findings.fault::<()>(place(path), format!("config: Open failed on {}. {error}", path.display()));
            return vec![];
        }
    };
    listed.sort();
    listed.retain(|file| !file.is_dir());
    for file in listed.iter().filter(|file| !known(file)) {
        findings.warn(&place(file), format!("skipping file {}, {must}", file.display()));
    }
    listed.into_iter().filter(|file| known(file)).collect()
}

fn format_of(path: &Path) -> Option<Format> {
    path.extension().and_then(|extension| Format::of(extension.to_str()?))
}

/// `None` for an empty file, and where there is a fault.
fn read_file(path: &Path, format: Option<Format>, findings: &mut Findings) -> Option<Value> {
    let file: Arc<str> = path.display().to_string().into();
    let text = match fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => {
            return findings.fault(Place { file, line: 0, column: 0 }, "expected UTF-8 text");
        }
        Err(error) => {
            let text = format!("config: ReadFile failed: {error}");
            return findings.fault(Place { file, line: 0, column: 0 }, text);
        }
    };
    if text.trim().is_empty() {
        return None;
    }
    let parsed = match format.or(format_of(path)) {
        Some(Format::Json) => json::parse(&file, &text),
        _ => hcl::parse(&file, &text),
    };
    keep(parsed, findings).filter(|value| value.kind != Kind::Null)
}

fn keep(parsed: Result<Value, SyntaxError>, findings: &mut Findings) -> Option<Value> {
    parsed.map_err(|error| findings.fault::<()>(error.place, format!("failed to parse: {}", error.text))).ok()
}

/// Lays later members over earlier ones: lists append, blocks and maps merge, the rest is replaced. Definitions add up.
fn merge(base: &mut Vec<Member>, later: Vec<Member>) {
    for member in later {
        let key = member.key.to_lowercase();
        let adds_up = matches!(key.as_str(), "service" | "services" | "check" | "checks");
        let same = base.iter().position(|other| !adds_up && other.key.to_lowercase() == key);
        let Some(value) = same.map(|at| &mut base[at].value) else {
            base.push(member);
            continue;
        };
        match (&mut value.kind, member.value) {
            (_, Value { kind: Kind::Null, .. }) => {}
            (Kind::Object(own), Value { kind: Kind::Object(members), .. }) => merge(own, members),
            (Kind::List(own), Value { kind: Kind::List(values), .. }) => own.extend(values),
            (_, later) => *value = later,
        }
    }
}

/// What one tree says.
#[derive(Default)]
struct Layer {
    definitions: Definitions,
    node_name: Option<String>,
    node_id: Option<uuid::Uuid>,
    node_meta: Vec<(String, String)>,
    datacenter: Option<String>,
    server: Option<bool>,
    data_dir: Option<String>,
    bind: Option<IpAddr>,
    advertise: Option<IpAddr>,
    advertise_wan: Option<IpAddr>,
    client: Option<Vec<IpAddr>>,
    dns_addresses: Option<Vec<IpAddr>>,
    http_addresses: Option<Vec<IpAddr>>,
    dns_port: Option<i64>,
    http_port: Option<i64>,
    server_port: Option<i64>,
    serf_lan_port: Option<i64>,
    domain: Option<String>,
    alt_domain: Option<(String, Place)>,
    dns: dns::Settings,
    http: http::Settings,
    enable_script_checks: Option<bool>,
    enable_local_script_checks: Option<bool>,
    check_update_interval: Option<Duration>,
    check_output_bytes_max: Option<usize>,
    discard_check_output: Option<bool>,
    leave_on_terminate: Option<bool>,
    skip_leave_on_interrupt: Option<bool>,
    log_level: Option<String>,
    log_json: Option<bool>,
    pid_file: Option<String>,
}

fn read(tree: &Value, flags: &Flags, findings: &mut Findings) -> Option<Layer> {
    let mut top = Fields::of(tree, "", findings)?;
    let mut layer = Layer { definitions: Definitions::read(&mut top, findings), ..Layer::default() };
    layer.node_name = top.text("node_name", findings);
    layer.node_id = read_node_id(&mut top, findings);
    layer.node_meta = read_node_meta(&mut top, findings);
    layer.datacenter = read_datacenter(&mut top, findings);
    layer.server = top.bool("server", findings);
    layer.data_dir = top.text("data_dir", findings);
    layer.domain = top.text("domain", findings);
    layer.alt_domain = top.peek("alt_domain").map(|value| value.place.clone()).and_then(|place| {
        let text = top.text("alt_domain", findings)?;
        (!text.is_empty()).then_some((text, place))
    });
    read_addresses(&mut top, &mut layer, findings);
    read_ports(&mut top, &mut layer, flags, findings);
    layer.enable_script_checks = top.bool("enable_script_checks", findings);
    layer.enable_local_script_checks = top.bool("enable_local_script_checks", findings);
    layer.check_update_interval = top.duration("check_update_interval", findings).map(|span| duration(&span));
    layer.check_output_bytes_max = read_output_max(&mut top, findings);
    layer.discard_check_output = top.bool("discard_check_output", findings);
    layer.leave_on_terminate = top.bool("leave_on_terminate", findings);
    layer.skip_leave_on_interrupt = top.bool("skip_leave_on_interrupt", findings);
    layer.log_level = top.text("log_level", findings);
    layer.log_json = top.bool("log_json", findings);
    layer.pid_file = top.text("pid_file", findings);
    read_dns_config(&mut top, &mut layer.dns, findings);
    read_http(&mut top, &mut layer.http, flags, findings);
    read_own(&mut top, &mut layer.dns, findings);
    keys::take_unused(&mut top, &flags.ignored_security, findings);
    top.finish(findings);
    Some(layer)
}

fn read_node_id(top: &mut Fields, findings: &mut Findings) -> Option<uuid::Uuid> {
    let place = top.peek("node_id")?.place.clone();
    let text = top.text("node_id", findings)?;
    let hyphened = text.len() == 36;
    text.parse().ok().filter(|_| hyphened).or_else(|| {
        findings.fault(place, format!("node_id: specified NodeID is invalid: uuid string is wrong length; expected a UUID, found {text:?}"))
    })
}

fn read_node_meta(top: &mut Fields, findings: &mut Findings) -> Vec<(String, String)> {
    let place = top.peek("node_meta").map(|value| value.place.clone());
    let pairs = without_places(top.map("node_meta", findings).unwrap_or_default());
    if let (Some(place), Err(fault)) =
        (place, check_meta(pairs.iter().map(|(key, value)| (&**key, &**value))))
    {
        findings.fault::<()>(place, format!("node_meta invalid: {fault}"));
    }
    pairs
}

fn read_datacenter(top: &mut Fields, findings: &mut Findings) -> Option<String> {
    let place = top.peek("datacenter")?.place.clone();
    let text = top.text("datacenter", findings)?.to_lowercase();
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if !text.is_empty() && text.bytes().all(valid) {
        return Some(text);
    }
    findings.fault(
        place,
        format!("datacenter can only contain lowercase alphanumeric, - or _ characters. received: {text:?}"),
    )
}

fn read_addresses(top: &mut Fields, layer: &mut Layer, findings: &mut Findings) {
    let one = |fields: &mut Fields, key: &str, findings: &mut Findings| {
        let place = fields.peek(key)?.place.clone();
        let text = fields.text(key, findings)?;
        addresses::read_one(&fields.path(key), &text, &place, findings)
    };
    let list = |fields: &mut Fields, key: &str, findings: &mut Findings| {
        let place = fields.peek(key)?.place.clone();
        let text = fields.text(key, findings)?;
        addresses::read_list(&fields.path(key), &text, &place, findings)
    };
    layer.bind = one(top, "bind_addr", findings);
    let advertised = |fields: &mut Fields, key: &str, findings: &mut Findings| {
        let place = fields.peek(key)?.place.clone();
        let address = one(fields, key, findings)?;
        if address.is_unspecified() {
            return findings.fault(
                place,
                format!(
                    "{key}: Advertise address cannot be 0.0.0.0, :: or [::]; expected one that others reach"
                ),
            );
        }
        Some(address)
    };
    layer.advertise = advertised(top, "advertise_addr", findings);
    layer.advertise_wan = advertised(top, "advertise_addr_wan", findings);
    layer.client = list(top, "client_addr", findings);
    if let Some(mut block) = top.block("addresses", findings) {
        layer.dns_addresses = list(&mut block, "dns", findings);
        layer.http_addresses = list(&mut block, "http", findings);
        for key in ["https", "grpc", "grpc_tls"] {
            if let Some(value) = block.take(key) {
                findings.warn(&value.place, format!("addresses.{key} is accepted and has no effect yet"));
            }
        }
        block.finish(findings);
    }
}

fn read_ports(top: &mut Fields, layer: &mut Layer, flags: &Flags, findings: &mut Findings) {
    let Some(mut block) = top.block("ports", findings) else { return };
    let port = |block: &mut Fields, key: &str, findings: &mut Findings| {
        let place = block.peek(key)?.place.clone();
        let number = block.int(key, findings)?;
        if number > i64::from(u16::MAX) {
            return findings
                .fault(place, format!("ports.{key}: invalid port: {number}; expected at most 65535"));
        }
        Some((number, place))
    };
    let positive = |found: Option<(i64, Place)>, name: &str, findings: &mut Findings| match found {
        Some((number, place)) if number <= 0 => {
            findings.fault(place, format!("{name}-port must be greater than zero; found {number}"))
        }
        found => found.map(|(number, _)| number),
    };
    layer.dns_port = port(&mut block, "dns", findings).map(|(number, _)| number);
    layer.http_port = port(&mut block, "http", findings).map(|(number, _)| number);
    let server = port(&mut block, "server", findings);
    layer.server_port = positive(server, "server", findings);
    let serf = port(&mut block, "serf_lan", findings);
    layer.serf_lan_port = positive(serf, "serf-lan", findings);
    port(&mut block, "serf_wan", findings);
    if let Some((number, place)) = port(&mut block, "https", findings)
        && number > 0
        && !flags.ignored_security.iter().any(|key| key == "ports.https")
    {
        findings.fault::<()>(place, keys::refusal("ports.https"));
    }
    for key in
        ["grpc", "grpc_tls", "sidecar_min_port", "sidecar_max_port", "expose_min_port", "expose_max_port"]
    {
        if let Some((number, place)) = port(&mut block, key, findings)
            && number > 0
        {
            findings.warn(&place, format!("ports.{key} is accepted and has no effect yet"));
        }
    }
    block.finish(findings);
}

fn read_output_max(top: &mut Fields, findings: &mut Findings) -> Option<usize> {
    let place = top.peek("check_output_max_size")?.place.clone();
    let number = top.int("check_output_max_size", findings)?;
    usize::try_from(number).ok().filter(|size| *size > 0).or_else(|| {
        findings.fault(
            place,
            format!("check_output_max_size must be positive, to discard check output use the discard_check_output flag; found {number}"),
        )
    })
}

fn read_dns_config(top: &mut Fields, dns: &mut dns::Settings, findings: &mut Findings) {
    let Some(mut block) = top.block("dns_config", findings) else { return };
    let span = |span: Span| duration(&span);
    if let Some(ttl) = block.duration("node_ttl", findings) {
        dns.node_ttl = span(ttl);
    }
    let ttls = block.map("service_ttl", findings).unwrap_or_default().into_iter().filter_map(
        |(name, text, place)| {
            let path = format!("dns_config.service_ttl[{name:?}]");
            Some((name, span(findings.duration(&path, &place, &text)?)))
        },
    );
    dns.service_ttl = ttls.collect();
    for (key, setting) in [
        ("only_passing", &mut dns.only_passing),
        ("enable_truncate", &mut dns.enable_truncate),
        ("disable_compression", &mut dns.disable_compression),
        ("enable_additional_node_meta_txt", &mut dns.node_meta_txt),
    ] {
        *setting = block.bool(key, findings).unwrap_or(*setting);
    }
    for (key, setting) in
        [("udp_answer_limit", &mut dns.udp_answer_limit), ("a_record_limit", &mut dns.a_record_limit)]
    {
        let number = block.count(key, i64::from(u32::MAX), findings);
        *setting = number.and_then(|number| usize::try_from(number).ok()).unwrap_or(*setting);
    }
    if let Some(mut soa) = block.block("soa", findings) {
        let mut number = |key: &str| {
            let number = soa.count(key, i64::from(u32::MAX), findings)?;
            u32::try_from(number).ok()
        };
        let (refresh, retry, expire) = (number("refresh"), number("retry"), number("expire"));
        dns.soa.refresh_secs = refresh.unwrap_or(dns.soa.refresh_secs);
        dns.soa.retry_secs = retry.unwrap_or(dns.soa.retry_secs);
        dns.soa.expire_secs = expire.unwrap_or(dns.soa.expire_secs);
        dns.soa.min_ttl_secs = number("min_ttl").or(dns.soa.min_ttl_secs);
        soa.finish(findings);
    }
    read_recursor_strategy(&mut block, findings);
    for key in ["max_stale", "recursor_timeout", "cache_max_age"] {
        if let Some(value) = block.peek(key).map(|value| value.place.clone()) {
            block.duration(key, findings);
            findings.warn(&value, format!("dns_config.{key} is accepted and has no effect yet"));
        }
    }
    for key in ["allow_stale", "use_cache", "prefer_namespace"] {
        if let Some(value) = block.peek(key).map(|value| value.place.clone()) {
            block.bool(key, findings);
            findings.warn(&value, format!("dns_config.{key} is accepted and has no effect yet"));
        }
    }
    block.finish(findings);
}

fn read_recursor_strategy(block: &mut Fields, findings: &mut Findings) {
    let Some(place) = block.peek("recursor_strategy").map(|value| value.place.clone()) else { return };
    match block.text("recursor_strategy", findings).as_deref() {
        Some("sequential" | "random") => {
            findings.warn(&place, "dns_config.recursor_strategy is accepted and has no effect yet");
        }
        Some(other) => {
            let text = format!(
                "dns_config.recursor_strategy: invalid strategy: {other:?}; expected sequential or random"
            );
            findings.fault::<()>(place, text);
        }
        None => {}
    }
}

fn read_http(top: &mut Fields, http: &mut http::Settings, flags: &Flags, findings: &mut Findings) {
    if let Some(mut block) = top.block("http_config", findings) {
        for (name, value, place) in block.map("response_headers", findings).unwrap_or_default() {
            match http::response_header(&name, &value) {
                Ok(header) => http.response_headers.push(header),
                Err(text) => {
                    findings.fault::<()>(place, format!("http_config.response_headers: {text}"));
                }
            }
        }
        for key in ["block_endpoints", "allow_write_http_from"] {
            let path = format!("http_config.{key}");
            let place = block.peek(key).map(|value| value.place.clone());
            let guards = block.texts(key, findings).is_some_and(|list| !list.is_empty());
            if let Some(place) = place.filter(|_| guards && !flags.ignored_security.contains(&path)) {
                findings.fault::<()>(place, keys::refusal(&path));
            }
        }
        for key in ["use_cache", "max_header_bytes"] {
            if let Some(value) = block.take(key) {
                findings.warn(&value.place, format!("http_config.{key} is accepted and has no effect yet"));
            }
        }
        block.finish(findings);
    }
    if let Some(mut block) = top.block("limits", findings) {
        let most = block.count("http_max_conns_per_client", i64::from(u32::MAX), findings);
        if let Some(most) = most.and_then(|most| usize::try_from(most).ok()) {
            http.connections_per_address_max = most;
        }
        for key in [
            "https_handshake_timeout",
            "rpc_handshake_timeout",
            "rpc_client_timeout",
            "rpc_rate",
            "rpc_max_burst",
            "rpc_max_conns_per_client",
            "kv_max_value_size",
            "txn_max_req_len",
            "request_limits",
        ] {
            if let Some(value) = block.take(key) {
                findings.warn(&value.place, format!("limits.{key} is accepted and has no effect yet"));
            }
        }
        block.finish(findings);
    }
}

/// Keys that Consul does not have.
fn read_own(top: &mut Fields, dns: &mut dns::Settings, findings: &mut Findings) {
    let Some(mut own) = top.block("lictor", findings) else { return };
    if let Some(mut block) = own.block("dns", findings) {
        dns.udp_batch = block.bool("udp_batch", findings).unwrap_or(dns.udp_batch);
        for (key, setting) in [
            ("udp_bytes_max", &mut dns.udp_bytes_max),
            ("udp_bytes_max_loopback", &mut dns.udp_bytes_max_loopback),
        ] {
            let Some(place) = block.peek(key).map(|value| value.place.clone()) else { continue };
            match block.int(key, findings) {
                Some(number @ 512..=65507) => *setting = number as u16,
                Some(number) => {
                    let text = format!("lictor.dns.{key} cannot be {number}; expected 512 to 65507");
                    findings.fault::<()>(place, text);
                }
                None => {}
            }
        }
        block.finish(findings);
    }
    own.finish(findings);
}

/// Defaults, and the rules that need more than one key.
fn finish(layer: Layer, flags: &Flags, findings: &mut Findings) -> Option<Config> {
    let here = Place { file: "configuration".into(), line: 0, column: 0 };
    let server = layer.server.unwrap_or(flags.dev);
    if flags.dev && !server {
        findings.fault::<()>(here.clone(), "'bootstrap = true' requires 'server = true': -dev is a server");
    }
    if !flags.dev && layer.data_dir.as_deref().unwrap_or_default().is_empty() {
        findings.fault::<()>(here.clone(), "data_dir cannot be empty");
    }
    let datacenter = layer.datacenter.unwrap_or_else(|| "dc1".into());
    let node_name = layer.node_name.filter(|name| !name.is_empty()).unwrap_or_else(host_name);
    warn_of_odd_node_name(&node_name, &here, findings);
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let bind = layer.bind.unwrap_or(if flags.dev { loopback } else { Ipv4Addr::UNSPECIFIED.into() });
    let advertise = layer.advertise.or_else(|| {
        if !bind.is_unspecified() {
            return Some(bind);
        }
        addresses::only_private().map_err(|text| findings.fault::<()>(here.clone(), text)).ok()
    })?;
    let client = layer.client.unwrap_or_else(|| vec![loopback]);
    let sockets = |addresses: Option<Vec<IpAddr>>, port: Option<i64>, default: u16| -> Vec<SocketAddr> {
        let port = u16::try_from(port.unwrap_or(default.into())).unwrap_or(0);
        let addresses = addresses.as_ref().unwrap_or(&client);
        if port == 0 { vec![] } else { addresses.iter().map(|address| (*address, port).into()).collect() }
    };
    let dns_addrs = sockets(layer.dns_addresses, layer.dns_port, 8600);
    let http_addrs = sockets(layer.http_addresses, layer.http_port, 8500);
    for address in http_addrs.iter().filter(|address| dns_addrs.contains(address)) {
        findings.fault::<()>(here.clone(), format!("HTTP address {address} already configured for DNS"));
    }
    let mut dns = dns::Settings { datacenter: datacenter.clone(), ..layer.dns };
    dns.domain = zone(layer.domain.as_deref().filter(|domain| !domain.is_empty()).unwrap_or("consul"));
    dns.alt_domain =
        layer.alt_domain.and_then(|(text, place)| read_alt_domain(&text, &datacenter, place, findings));
    let scripts = match (layer.enable_script_checks, layer.enable_local_script_checks) {
        (Some(true), _) => Scripts::All,
        (_, Some(true)) => Scripts::Local,
        _ => Scripts::Off,
    };
    check_definitions(&layer.definitions, scripts, findings);
    let definitions = layer.definitions;
    Some(Config {
        node_name,
        node_id: layer.node_id,
        node_meta: layer.node_meta,
        datacenter,
        dev: flags.dev,
        server,
        data_dir: layer.data_dir.filter(|path| !path.is_empty()).map(PathBuf::from),
        advertise,
        advertise_wan: layer.advertise_wan.unwrap_or(advertise),
        server_port: layer.server_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(8300),
        serf_lan_port: layer.serf_lan_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(8301),
        dns,
        dns_addrs,
        http: http::Settings { pretty: flags.dev, ..layer.http },
        http_addrs,
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
        services: definitions.services.into_iter().map(|(_, service)| service).collect(),
        checks: definitions.checks.into_iter().map(|(_, check)| check).collect(),
        warnings: findings.warnings.iter().map(Fault::to_string).collect(),
    })
}

/// What one definition cannot know of the others, or of the agent.
fn check_definitions(definitions: &Definitions, scripts: Scripts, findings: &mut Findings) {
    let checks = definitions.checks.iter().map(|(place, check)| (place, check));
    let of_services = definitions
        .services
        .iter()
        .flat_map(|(place, service)| service.checks.iter().map(move |check| (place, check)));
    for (place, check) in checks.chain(of_services) {
        let is_there = |(_, service): &(Place, crate::check::ServiceDefinition)| {
            service.service.id.eq_ignore_ascii_case(&check.service_id)
        };
        if !check.service_id.is_empty() && !definitions.services.iter().any(is_there) {
            let text = format!(
                "check {:?}: ServiceID {:?} does not exist; expected the id of a service in these files",
                check.id, check.service_id
            );
            findings.fault::<()>(place.clone(), text);
        }
        if matches!(check.kind, crate::check::Kind::Script { .. }) && scripts == Scripts::Off {
            let text = format!(
                "check {:?}: Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or 'enable_local_script_checks' to true",
                check.id
            );
            findings.fault::<()>(place.clone(), text);
        }
    }
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

/// A negative one counts as none.
fn duration(span: &Span) -> Duration {
    Duration::from_nanos(u64::try_from(span.nanos).unwrap_or(0))
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".into())
}

fn warn_of_odd_node_name(name: &str, place: &Place, findings: &mut Findings) {
    if name.len() > 63 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        findings.warn(
            place,
            format!("Node name {name:?} will not be discoverable via DNS due to invalid characters. Valid characters include all alpha-numerics and dashes."),
        );
    }
}
