//! What each key that counts means, and what a valid value of it is. One tree is read at a time; rules between keys
//! wait until all trees are one.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use nix::unistd::{Group, User};
use uuid::Uuid;

use super::{
    addresses, calls,
    definitions::without_places,
    encryption::{self, Encrypted},
    gossip::{self, Gossip},
    keys,
    reader::{Fields, Findings},
    recursors::{self, Named},
    sources::reason,
    tree::{Kind, Member, Place},
};
use crate::{
    agent::{CallLimits, Calls},
    catalog::check_meta,
    check::Span,
    dns, http,
    server::MassFailure,
    telemetry,
};

/// What one tree says.
#[derive(Default)]
pub struct Layer {
    pub bootstrap: Option<bool>,
    pub bootstrap_expect: Option<(i64, Place)>,
    pub node_name: Option<String>,
    pub node_id: Option<Uuid>,
    pub node_meta: Vec<(String, String)>,
    pub datacenter: Option<String>,
    pub server: Option<bool>,
    pub data_dir: Option<(String, Place)>,
    pub bind: Option<IpAddr>,
    pub calls: Calls,
    pub rpc_limits: CallLimits,
    pub advertise: Option<IpAddr>,
    pub advertise_wan: Option<IpAddr>,
    pub client: Option<Vec<IpAddr>>,
    pub dns_addresses: Option<Vec<IpAddr>>,
    /// Beside the addresses at the DNS port.
    pub dns_listen: Vec<(SocketAddr, Place)>,
    pub recursors: Vec<Named>,
    pub http_addresses: Option<Vec<IpAddr>>,
    /// Beside them, in the file system.
    pub http_sockets: Vec<PathBuf>,
    /// What such sockets have in common.
    pub unix_sockets: http::UnixSocket,
    pub dns_port: Option<i64>,
    pub http_port: Option<i64>,
    pub server_port: Option<i64>,
    pub serf_lan_port: Option<i64>,
    pub serf_wan_port: Option<i64>,
    pub domain: Option<String>,
    pub alt_domain: Option<(String, Place)>,
    pub dns: dns::Settings,
    pub http: http::Settings,
    pub telemetry: telemetry::Settings,
    pub encryption: Encrypted,
    pub enable_script_checks: Option<bool>,
    pub enable_local_script_checks: Option<bool>,
    pub check_update_interval: Option<Duration>,
    pub check_output_bytes_max: Option<usize>,
    pub discard_check_output: Option<bool>,
    pub leave_on_terminate: Option<bool>,
    pub skip_leave_on_interrupt: Option<bool>,
    pub log_level: Option<String>,
    pub log_json: Option<bool>,
    pub pid_file: Option<String>,
    pub free_bytes_min: Option<u64>,
    pub mass_failure: MassFailure,
    pub gossip: Gossip,
}

/// Reads a tree without its definitions; what is left of it is unknown.
pub fn read(members: &[Member], ignored: &[String], findings: &mut Findings) -> Layer {
    let mut top = Fields::new(members, "");
    let mut layer = Layer::default();
    read_identity(&mut top, &mut layer, findings);
    read_addresses(&mut top, &mut layer, ignored, findings);
    read_ports(&mut top, &mut layer, ignored, findings);
    read_checking(&mut top, &mut layer, findings);
    layer.leave_on_terminate = top.bool("leave_on_terminate", findings);
    layer.skip_leave_on_interrupt = top.bool("skip_leave_on_interrupt", findings);
    layer.log_level = read_log_level(&mut top, findings);
    layer.log_json = top.bool("log_json", findings);
    layer.pid_file = top.text("pid_file", findings);
    layer.recursors = recursors::read(&mut top, findings);
    read_dns_config(&mut top, &mut layer.dns, ignored, findings);
    read_http(&mut top, &mut layer.http, findings);
    read_limits(&mut top, &mut layer, ignored, findings);
    calls::read_performance(&mut top, &mut layer.calls, ignored, findings);
    layer.unix_sockets = read_unix_sockets(&mut top, findings);
    layer.encryption = encryption::read(&mut top, findings);
    layer.gossip = gossip::read(&mut top, findings);
    layer.telemetry = super::telemetry::read(&mut top, ignored, findings);
    read_own(&mut top, &mut layer, findings);
    keys::take_unused(&mut top, ignored, findings);
    top.finish(findings);
    layer
}

fn read_identity(top: &mut Fields, layer: &mut Layer, findings: &mut Findings) {
    if let Some(place) = top.place("primary_datacenter") {
        findings.warn(&place, keys::notice("primary_datacenter"));
    }
    layer.node_name = top.text("node_name", findings);
    layer.node_id = read_node_id(top, findings);
    layer.node_meta = read_node_meta(top, findings);
    layer.datacenter = read_datacenter(top, "datacenter", findings);
    read_datacenter(top, "primary_datacenter", findings);
    layer.server = top.bool("server", findings);
    layer.bootstrap = top.bool("bootstrap", findings);
    layer.bootstrap_expect = top
        .place("bootstrap_expect")
        .and_then(|place| Some((top.count("bootstrap_expect", i64::MAX, findings)?, place)));
    layer.data_dir = placed_text(top, "data_dir", findings);
    layer.domain = top.text("domain", findings);
    layer.alt_domain = placed_text(top, "alt_domain", findings);
}

fn read_checking(top: &mut Fields, layer: &mut Layer, findings: &mut Findings) {
    layer.enable_script_checks = read_scripts(top, "enable_script_checks", findings);
    layer.enable_local_script_checks = read_scripts(top, "enable_local_script_checks", findings);
    layer.check_update_interval = top.duration("check_update_interval", findings).map(|span| duration(&span));
    layer.check_output_bytes_max = read_output_max(top, findings);
    layer.discard_check_output = top.bool("discard_check_output", findings);
}

/// One of the wrong type is a fault, and counts as true: no check is blamed for it.
fn read_scripts(top: &mut Fields, key: &str, findings: &mut Findings) -> Option<bool> {
    let given = top.place(key).is_some();
    top.bool(key, findings).or(given.then_some(true))
}

/// A text that is not empty, with its place.
fn placed_text(fields: &mut Fields, key: &str, findings: &mut Findings) -> Option<(String, Place)> {
    let place = fields.place(key)?;
    let text = fields.text(key, findings)?;
    (!text.is_empty()).then_some((text, place))
}

/// Consul takes each in any case.
fn read_log_level(top: &mut Fields, findings: &mut Findings) -> Option<String> {
    const LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERR", "ERROR"];
    let (text, place) = placed_text(top, "log_level", findings)?;
    let level = text.to_uppercase();
    if !LEVELS.contains(&level.as_str()) {
        let text = format!("Invalid log level: {text}. Valid log levels are: [{}]", LEVELS.join(" "));
        return findings.fault(place, text);
    }
    Some(if level == "ERR" { "ERROR".into() } else { level })
}

fn read_node_id(top: &mut Fields, findings: &mut Findings) -> Option<Uuid> {
    let place = top.place("node_id")?;
    let text = top.text("node_id", findings)?;
    let hyphened = text.len() == 36;
    text.parse().ok().filter(|_| hyphened).or_else(|| {
        findings.fault(place, format!("node_id: specified NodeID is invalid: uuid string is wrong length; expected a UUID, found {text:?}"))
    })
}

fn read_node_meta(top: &mut Fields, findings: &mut Findings) -> Vec<(String, String)> {
    let place = top.place("node_meta");
    let pairs = without_places(top.map("node_meta", findings).unwrap_or_default());
    if let (Some(place), Err(fault)) =
        (place, check_meta(pairs.iter().map(|(key, value)| (&**key, &**value))))
    {
        findings.fault::<()>(place, format!("node_meta invalid: {fault}"));
    }
    pairs
}

fn read_datacenter(top: &mut Fields, key: &str, findings: &mut Findings) -> Option<String> {
    let place = top.place(key)?;
    let text = top.text(key, findings)?.to_lowercase();
    if text.is_empty() && key == "primary_datacenter" {
        return None; // the same as this one
    }
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if !text.is_empty() && text.bytes().all(valid) {
        return Some(text);
    }
    findings.fault(
        place,
        format!("{key} can only contain lowercase alphanumeric, - or _ characters. received: {text:?}"),
    )
}

fn read_addresses(top: &mut Fields, layer: &mut Layer, ignored: &[String], findings: &mut Findings) {
    layer.bind = top.place("bind_addr").and_then(|place| {
        let text = top.text("bind_addr", findings)?;
        addresses::read_one("bind_addr", &text, &place, findings)
    });
    layer.advertise = read_advertised(top, "advertise_addr", findings);
    layer.advertise_wan = read_advertised(top, "advertise_addr_wan", findings);
    // An empty list is the same as none: what it stands in for is used.
    let list = |fields: &mut Fields, key: &str, findings: &mut Findings| {
        let (text, place) = placed_text(fields, key, findings)?;
        let found = addresses::read_list(&fields.path(key), &text, &place, findings)?;
        (!found.is_empty()).then_some(found)
    };
    layer.client = list(top, "client_addr", findings);
    if let Some(mut block) = top.block("addresses", findings) {
        layer.dns_addresses = list(&mut block, "dns", findings);
        if let Some((text, place)) = placed_text(&mut block, "http", findings)
            && let Some((addresses, sockets)) =
                addresses::read_mixed("addresses.http", &text, &place, findings)
        {
            // Blanks alone are as good as nothing.
            layer.http_addresses = (!addresses.is_empty() || !sockets.is_empty()).then_some(addresses);
            layer.http_sockets = sockets;
        }
        keys::ADDRESSES.take(&mut block, ignored, findings);
        block.finish(findings);
    }
}

fn read_advertised(top: &mut Fields, key: &str, findings: &mut Findings) -> Option<IpAddr> {
    let (text, place) = placed_text(top, key, findings)?;
    let address = addresses::read_one(key, &text, &place, findings)?;
    if address.is_unspecified() {
        let text = "Advertise address cannot be 0.0.0.0, :: or [::]; expected one that others reach";
        return findings.fault(place, format!("{key}: {text}"));
    }
    Some(address)
}

fn read_ports(top: &mut Fields, layer: &mut Layer, ignored: &[String], findings: &mut Findings) {
    let Some(mut block) = top.block("ports", findings) else { return };
    layer.dns_port = read_port(&mut block, "dns", findings);
    layer.http_port = read_port(&mut block, "http", findings);
    layer.server_port = read_port_that_must_be(&mut block, "server", findings);
    layer.serf_lan_port = read_port_that_must_be(&mut block, "serf_lan", findings);
    layer.serf_wan_port = read_port(&mut block, "serf_wan", findings);
    if let Some(place) = block.place("https")
        && read_port(&mut block, "https", findings).is_some_and(|port| port > 0)
    {
        keys::refuse("ports.https", &place, ignored, findings);
    }
    for key in
        ["grpc", "grpc_tls", "sidecar_min_port", "sidecar_max_port", "expose_min_port", "expose_max_port"]
    {
        if let Some(place) = block.place(key)
            && read_port(&mut block, key, findings).is_some_and(|port| port > 0)
        {
            findings.warn(&place, keys::notice(&format!("ports.{key}")));
        }
    }
    block.finish(findings);
}

/// 0 and less turn the listener off.
fn read_port(block: &mut Fields, key: &str, findings: &mut Findings) -> Option<i64> {
    let place = block.place(key)?;
    let number = block.int(key, findings)?;
    if number > i64::from(u16::MAX) {
        return findings.fault(place, format!("ports.{key}: invalid port: {number}; expected at most 65535"));
    }
    Some(number)
}

fn read_port_that_must_be(block: &mut Fields, key: &str, findings: &mut Findings) -> Option<i64> {
    let place = block.place(key)?;
    let number = read_port(block, key, findings)?;
    if number <= 0 {
        let flag = key.replace('_', "-");
        return findings.fault(place, format!("{flag}-port must be greater than zero; found {number}"));
    }
    Some(number)
}

fn read_output_max(top: &mut Fields, findings: &mut Findings) -> Option<usize> {
    let place = top.place("check_output_max_size")?;
    let number = top.int("check_output_max_size", findings)?;
    usize::try_from(number).ok().filter(|size| *size > 0).or_else(|| {
        findings.fault(
            place,
            format!("check_output_max_size must be positive, to discard check output use the discard_check_output flag; found {number}"),
        )
    })
}

fn read_dns_config(top: &mut Fields, dns: &mut dns::Settings, ignored: &[String], findings: &mut Findings) {
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
    read_asking(&mut block, &mut dns.recursion, findings);
    keys::DNS_CONFIG.take(&mut block, ignored, findings);
    block.finish(findings);
}

/// How recursors are asked.
fn read_asking(block: &mut Fields, recursion: &mut dns::Recursion, findings: &mut Findings) {
    if let Some(wait) = block.duration("recursor_timeout", findings).map(|span| duration(&span))
        && !wait.is_zero()
    {
        recursion.timeout = wait; // 0 is the default
    }
    let Some(place) = block.place("recursor_strategy") else { return };
    recursion.strategy = match block.text("recursor_strategy", findings).as_deref() {
        Some("random") => dns::Strategy::Random,
        Some("sequential" | "") | None => dns::Strategy::Sequential,
        Some(other) => {
            let path = block.path("recursor_strategy");
            let text = format!("{path}: invalid strategy: {other:?}; expected one of sequential, random");
            findings.fault::<()>(place, text);
            return;
        }
    };
}

fn read_http(top: &mut Fields, http: &mut http::Settings, findings: &mut Findings) {
    for (key, setting) in [
        ("default_query_time", &mut http.query_wait),
        ("max_query_time", &mut http.query_wait_max),
        ("session_ttl_min", &mut http.session_ttl_min),
    ] {
        *setting = top.duration(key, findings).map_or(*setting, |span| duration(&span));
    }
    if let Some(disabled) = top.bool("disable_coordinates", findings) {
        http.coordinates = !disabled;
    }
    http.any_character =
        top.bool("disable_http_unprintable_char_filter", findings).unwrap_or(http.any_character);
    if let Some(mut block) = top.block("http_config", findings) {
        for (name, value, place) in block.map("response_headers", findings).unwrap_or_default() {
            match http::response_header(&name, &value) {
                Ok(header) => http.response_headers.push(header),
                Err(error) => {
                    let path = block.path("response_headers");
                    findings.fault::<()>(place, format!("{path}[{name}]: {error}"));
                }
            }
        }
        let bytes = block.int("max_header_bytes", findings).filter(|bytes| *bytes > 0);
        if let Some(bytes) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
            http.limits.header_bytes_max = bytes;
        }
        http.blocked = block.texts("block_endpoints", findings).unwrap_or_default();
        http.writers = addresses::read_networks(&mut block, "allow_write_http_from", findings);
        http.use_cache = block.bool("use_cache", findings).unwrap_or(http.use_cache);
        block.finish(findings);
    }
}

fn read_limits(top: &mut Fields, layer: &mut Layer, ignored: &[String], findings: &mut Findings) {
    let http = &mut layer.http;
    if let Some(mut block) = top.block("limits", findings) {
        let most = block.count("http_max_conns_per_client", i64::from(u32::MAX), findings);
        if let Some(most) = most.and_then(|most| usize::try_from(most).ok()) {
            http.connections_per_address_max = if most == 0 { usize::MAX } else { most }; // 0 is no limit
        }
        for (key, setting) in [
            ("kv_max_value_size", &mut http.limits.kv_value_bytes_max),
            ("txn_max_req_len", &mut http.limits.txn_bytes_max),
        ] {
            let most = block.count(key, i64::from(u32::MAX), findings);
            *setting = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(*setting);
        }
        read_rates(&mut block, &mut http.rates, findings);
        calls::read_limits(&mut block, &mut layer.rpc_limits, &mut layer.calls, findings);
        keys::LIMITS.take(&mut block, ignored, findings);
        block.finish(findings);
    }
}

fn read_rates(limits: &mut Fields, rates: &mut http::Rates, findings: &mut Findings) {
    let Some(mut block) = limits.block("request_limits", findings) else { return };
    if let Some(place) = block.place("mode")
        && let Some(word) = block.text("mode", findings).filter(|word| !word.is_empty())
    {
        match http::Mode::ALL.into_iter().find(|mode| mode.word() == word) {
            Some(mode) => rates.mode = mode,
            None => {
                let path = block.path("mode");
                let expected = "expected one of disabled, permissive, enforcing";
                findings.fault::<()>(place, format!("{path}: invalid mode: {word:?}; {expected}"));
            }
        }
    }
    // Less than 0 is no limit.
    let mut rate = |key| block.float(key, findings).filter(|rate| *rate >= 0.0);
    (rates.reads_per_sec, rates.writes_per_sec) = (rate("read_rate"), rate("write_rate"));
    block.finish(findings);
}

/// Owner and mode of sockets in the file system.
fn read_unix_sockets(top: &mut Fields, findings: &mut Findings) -> http::UnixSocket {
    let mut socket = http::UnixSocket::default();
    let Some(mut block) = top.block("unix_sockets", findings) else { return socket };
    if let Some((text, place)) = placed_text(&mut block, "user", findings) {
        let named = || Some(User::from_name(&text).ok()??.uid.as_raw());
        socket.user = text.parse().ok().or_else(named).or_else(|| {
            findings.fault(
                place,
                format!("unix_sockets.user: no user {text:?} is known here; expected a name or an id"),
            )
        });
    }
    if let Some((text, place)) = placed_text(&mut block, "group", findings) {
        let named = || Some(Group::from_name(&text).ok()??.gid.as_raw());
        socket.group = text.parse().ok().or_else(named).or_else(|| {
            findings.fault(
                place,
                format!("unix_sockets.group: no group {text:?} is known here; expected a name or an id"),
            )
        });
    }
    if let Some((text, place)) = placed_text(&mut block, "mode", findings) {
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
        socket.mode = mode.or_else(|| {
            findings
                .fault(place, format!("unix_sockets.mode: found {text:?}; expected permission bits, as 0770"))
        });
    }
    block.finish(findings);
    socket
}

/// Keys that Consul does not have.
fn read_own(top: &mut Fields, layer: &mut Layer, findings: &mut Findings) {
    let Some(mut own) = top.block("lictor", findings) else { return };
    layer.dns.recursion.from = addresses::read_networks(&mut own, "recursion_from", findings);
    let free = own.count("free_bytes_min", i64::MAX, findings);
    layer.free_bytes_min = free.and_then(|bytes| u64::try_from(bytes).ok());
    let archive = own.count("snapshot_bytes_max", i64::MAX, findings);
    if let Some(bytes) = archive.and_then(|bytes| u64::try_from(bytes).ok()) {
        layer.http.limits.archive_bytes_max = bytes;
    }
    gossip::read_own(&mut own, &mut layer.gossip, findings);
    layer.mass_failure = read_mass_failure(&mut own, findings);
    if let Some(mut block) = own.block("dns", findings) {
        layer.dns_listen = read_listen(&mut block, findings);
        let dns = &mut layer.dns;
        read_recursion_limits(&mut block, &mut dns.recursion, findings);
        dns.udp_batch = block.bool("udp_batch", findings).unwrap_or(dns.udp_batch);
        for (key, setting) in [
            ("udp_bytes_max", &mut dns.udp_bytes_max),
            ("udp_bytes_max_loopback", &mut dns.udp_bytes_max_loopback),
        ] {
            let Some(place) = block.place(key) else { continue };
            let Some(number) = block.int(key, findings) else { continue };
            match u16::try_from(number) {
                Ok(bytes @ 512..=65507) => *setting = bytes,
                _ => {
                    let text = format!("lictor.dns.{key} cannot be {number}. Must be between 512 and 65507");
                    findings.fault::<()>(place, text);
                }
            }
        }
        read_zones(&mut block, dns, findings);
        block.finish(findings);
    }
    own.finish(findings);
}

/// 0 anywhere turns the guard off.
fn read_mass_failure(own: &mut Fields, findings: &mut Findings) -> MassFailure {
    let mut guard = MassFailure::default();
    let Some(mut block) = own.block("mass_failure_guard", findings) else { return guard };
    if let Some(place) = block.place("percent")
        && let Some(number) = block.int("percent", findings)
    {
        match u32::try_from(number) {
            Ok(percent @ 0..=100) => guard.percent = percent,
            _ => {
                let path = block.path("percent");
                let text =
                    format!("{path} cannot be {number}. Must be between 0 and 100; 0 turns the guard off");
                findings.fault::<()>(place, text);
            }
        }
    }
    let least = block.count("members_min", i64::from(u32::MAX), findings);
    guard.members_min = least.and_then(|least| usize::try_from(least).ok()).unwrap_or(guard.members_min);
    guard.confirm_after =
        block.duration("confirm_after", findings).map_or(guard.confirm_after, |span| duration(&span));
    block.finish(findings);
    guard
}

fn read_recursion_limits(block: &mut Fields, recursion: &mut dns::Recursion, findings: &mut Findings) {
    let most = &mut recursion.in_flight_max;
    for (key, setting) in [
        ("recursion_cache_bytes", &mut recursion.cache_bytes_max),
        ("recursions_max", &mut most.all),
        ("recursions_per_client_max", &mut most.per_client),
    ] {
        let number = block.count(key, i64::from(u32::MAX), findings);
        *setting = number.and_then(|number| usize::try_from(number).ok()).unwrap_or(*setting);
    }
}

fn read_listen(block: &mut Fields, findings: &mut Findings) -> Vec<(SocketAddr, Place)> {
    let path = block.path("listen");
    let values = match block.peek("listen").map(|value| &value.kind) {
        Some(Kind::List(values)) => values.as_slice(),
        _ => &[],
    };
    let texts = block.texts("listen", findings).unwrap_or_default();
    let mut listen = Vec::new();
    for (at, (text, value)) in texts.into_iter().zip(values).enumerate() {
        match text.parse::<SocketAddr>() {
            Ok(addr) if addr.port() > 0 => listen.push((addr, value.place.clone())),
            _ => {
                let expected = "expected an IP address and a port, as 127.0.0.1:53 or [::1]:53";
                let text = format!("{path}[{at}]: found {text:?}; {expected}");
                findings.fault::<()>(value.place.clone(), text);
            }
        }
    }
    listen
}

/// Where master files are. What stands in them is read later, and a fault there stops no start.
fn read_zones(block: &mut Fields, dns: &mut dns::Settings, findings: &mut Findings) {
    let (path, Some(value)) = (block.path("zones"), block.take("zones")) else { return };
    let Kind::List(values) = &value.kind else {
        findings.no_list::<()>(&path, value);
        return;
    };
    for value in values {
        let Some(path) = findings.text(&path, value) else { continue };
        match fs::metadata(&path) {
            Ok(_) => dns.zones.push(path.into()),
            Err(error) => {
                let expected = "expected a directory of master files (*.zone), or one such file";
                let text = format!("lictor.dns.zones: {path:?}: {}; {expected}", reason(&error));
                findings.fault::<()>(value.place.clone(), text);
            }
        }
    }
}

/// A negative one counts as none.
pub fn duration(span: &Span) -> Duration {
    Duration::from_nanos(u64::try_from(span.nanos).unwrap_or(0))
}
