//! Bodies that define services and checks on this agent (`http-api.md` §8.3, §8.4). Which keys there are stands here,
//! and what Consul says of a definition over HTTP; which definitions are valid is `check`'s to know.

use super::register::{decode_addresses, decode_locality};
use crate::{
    catalog::Service,
    check::{CheckSpec, Definition, Invalid, ServiceDefinition, ServiceSpec, Span},
    http::{
        json::{Malformed, Object},
        reply::Fault,
    },
};

pub fn service(mut body: Object) -> Result<ServiceDefinition, Fault> {
    let mut checks: Vec<Object> = body.object("Check")?.into_iter().collect();
    checks.extend(body.objects("Checks")?.unwrap_or_default());
    let checks = checks.into_iter().filter(|check| !check.is_empty()).map(service_check);
    let (tagged_addresses, locality) = (decode_addresses(&mut body)?, decode_locality(&mut body)?);
    // A service may have both a socket and an address here, though not in a file.
    let socket_path = body.text("SocketPath")?.unwrap_or_default();
    let spec = ServiceSpec {
        id: body.text("ID")?,
        name: body.text("Name")?,
        tags: body.texts("Tags")?,
        address: body.text("Address")?,
        port: body.int("Port")?,
        socket_path: None,
        tagged_addresses: None,
        meta: body.pairs("Meta")?,
        weights: body.object("Weights")?.map(weights).transpose()?,
        enable_tag_override: body.flag("EnableTagOverride|enable_tag_override")?,
        token: body.text("Token")?,
        kind: body.text("Kind")?,
        checks: checks.collect::<Result<_, Malformed>>()?,
    };
    body.refuse("Proxy")?;
    body.refuse("Connect")?;
    // What a client sends that echoes what an agent told it of a service.
    body.ignore("CreateIndex|ModifyIndex|Datacenter|ContentHash|Service|PeerName");
    body.enterprise();
    body.finish()?;
    if spec.name.as_ref().is_none_or(String::is_empty) {
        return Err(Fault::bad("Missing service name"));
    }
    if !spec.checks.iter().all(has_known_status) {
        return Err(Fault::bad("Status for checks must 'passing', 'warning', 'critical'"));
    }
    let mut definition = spec.build().map_err(|invalid| Fault::bad(words(&invalid)))?;
    definition.service.socket_path = socket_path.into();
    definition.service.tagged_addresses = tagged_addresses;
    definition.service.locality = locality;
    stands_for_something(&definition.service)?;
    Ok(definition)
}

/// A sidecar says for whom it stands. Whoever says so was refused already: what it says would not be kept.
fn stands_for_something(service: &Service) -> Result<(), Fault> {
    if &*service.kind != "connect-proxy" {
        return Ok(());
    }
    let no_port = "\n\t* Port or SocketPath must be set for a connect-proxy";
    let (count, no_port) = match service.port == 0 && service.socket_path.is_empty() {
        true => ("2 errors", no_port),
        false => ("1 error", ""),
    };
    let nobody = "\n\t* Proxy.DestinationServiceName must be non-empty for Connect proxy services";
    Err(Fault::bad(format!("Validation failed: {count} occurred:{no_port}{nobody}\n\n")))
}

pub fn check(mut body: Object) -> Result<Definition, Fault> {
    let mut spec = check_spec(&mut body, "ID")?;
    spec.token = body.text("Token")?;
    body.enterprise();
    body.finish()?;
    if spec.name.as_ref().is_none_or(String::is_empty) {
        return Err(Fault::bad("Missing check name"));
    }
    if !has_known_status(&spec) {
        return Err(Fault::bad("Bad check status"));
    }
    // Consul shows a duration that nobody set as one of 0 s here, and as none where a service brings the check.
    let unset = || Some(Span { nanos: 0, text: "0s".into() });
    spec.interval = spec.interval.or_else(unset);
    spec.timeout = spec.timeout.or_else(unset);
    spec.build().map_err(|invalid| Fault::bad(format!("Invalid check: {invalid}")))
}

fn service_check(mut body: Object) -> Result<CheckSpec, Malformed> {
    let spec = check_spec(&mut body, "CheckID")?;
    body.enterprise();
    body.finish()?;
    Ok(spec)
}

fn check_spec(body: &mut Object, id: &str) -> Result<CheckSpec, Malformed> {
    body.refuse("ProxyHTTP")?;
    body.refuse("ProxyGRPC")?;
    Ok(CheckSpec {
        id: body.text(id)?,
        name: body.text("Name")?,
        notes: body.text("Notes")?,
        status: body.text("Status")?,
        service_id: body.text("ServiceID|service_id")?,
        token: None,
        args: body.texts("ScriptArgs|Args|script_args")?,
        shell: body.text("Shell")?,
        docker_container_id: body.text("DockerContainerID|docker_container_id")?,
        http: body.text("HTTP")?,
        method: body.text("Method")?,
        header: body.lists("Header")?,
        body: body.text("Body")?,
        disable_redirects: body.flag("DisableRedirects|disable_redirects")?,
        tcp: body.text("TCP")?,
        tcp_use_tls: body.flag("TCPUseTLS|tcp_use_tls")?,
        udp: body.text("UDP")?,
        grpc: body.text("GRPC")?,
        grpc_use_tls: body.flag("GRPCUseTLS|grpc_use_tls")?,
        h2ping: body.text("H2PING")?,
        h2ping_use_tls: body.flag("H2PingUseTLS|h2ping_use_tls")?,
        alias_node: body.text("AliasNode")?,
        alias_service: body.text("AliasService")?,
        os_service: body.text("OSService")?,
        ttl: body.span("TTL")?,
        interval: body.span("Interval")?,
        timeout: body.span("Timeout")?,
        tls_server_name: body.text("TLSServerName|tls_server_name")?,
        tls_skip_verify: body.flag("TLSSkipVerify|tls_skip_verify")?,
        success_before_passing: body.int("SuccessBeforePassing")?,
        failures_before_warning: body.int("FailuresBeforeWarning")?,
        failures_before_critical: body.int("FailuresBeforeCritical")?,
        deregister_critical_service_after: body
            .span("DeregisterCriticalServiceAfter|deregister_critical_service_after")?,
        output_max_size: body.int("OutputMaxSize")?,
    })
}

/// Where weights are given, one that is left out is 0.
fn weights(mut body: Object) -> Result<(Option<i64>, Option<i64>), Malformed> {
    let weights = (body.int("Passing")?.or(Some(0)), body.int("Warning")?.or(Some(0)));
    body.finish()?;
    Ok(weights)
}

fn has_known_status(check: &CheckSpec) -> bool {
    matches!(check.status.as_deref(), None | Some("" | "passing" | "warning" | "critical"))
}

/// What Consul says over HTTP, where that is not what it says of a file.
fn words(invalid: &Invalid) -> String {
    match invalid {
        Invalid::NoPassingWeight(_) => "Invalid Weights: Passing must be greater than 0".into(),
        Invalid::WeightRange(_) => "Invalid Weights: DNS Weight must be between 0 and 65535".into(),
        Invalid::Check { fault, .. } => format!("Invalid check: {fault}"),
        other => other.to_string(),
    }
}
