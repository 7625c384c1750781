//! What an operator or a program defines: a check, or a service with its checks. `CheckSpec` and `ServiceSpec` hold
//! what was written, every key optional, whoever wrote it (a file, an HTTP body). The rules by which that becomes a
//! valid definition stand here once (`config-cli.md` §4.1, §4.2).

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Alias, Definition, Kind, ServiceDefinition, Thresholds, Tls};
use crate::catalog::{InvalidMeta, Service, ServiceAddress, Status, Text, Weights, check_meta};

/// A check as it was written. Durations are parsed already, since each border names its own place in an error. It is
/// also what an agent keeps of a check on disk (`docs/formats.md`): keys may be added, none may change its meaning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckSpec {
    pub id: Option<String>,
    pub name: Option<String>,
    pub notes: Option<String>,
    pub status: Option<String>,
    pub service_id: Option<String>,
    pub token: Option<String>,
    pub args: Option<Vec<String>>,
    pub shell: Option<String>,
    pub docker_container_id: Option<String>,
    pub http: Option<String>,
    pub method: Option<String>,
    pub header: Option<Vec<(String, Vec<String>)>>,
    pub body: Option<String>,
    pub disable_redirects: Option<bool>,
    pub tcp: Option<String>,
    pub tcp_use_tls: Option<bool>,
    pub udp: Option<String>,
    pub grpc: Option<String>,
    pub grpc_use_tls: Option<bool>,
    pub h2ping: Option<String>,
    pub h2ping_use_tls: Option<bool>,
    pub alias_node: Option<String>,
    pub alias_service: Option<String>,
    pub os_service: Option<String>,
    pub ttl: Option<Span>,
    pub interval: Option<Span>,
    pub timeout: Option<Span>,
    pub tls_server_name: Option<String>,
    pub tls_skip_verify: Option<bool>,
    pub success_before_passing: Option<i64>,
    pub failures_before_warning: Option<i64>,
    pub failures_before_critical: Option<i64>,
    pub deregister_critical_service_after: Option<Span>,
    pub output_max_size: Option<i64>,
}

/// A duration and the text in which it was written (records print that one). Nanoseconds, since it may be negative.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub nanos: i64,
    pub text: String,
}

/// A service as it was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceSpec {
    pub id: Option<String>,
    pub name: Option<String>,
    pub tags: Option<Vec<String>>,
    pub address: Option<String>,
    pub port: Option<i64>,
    pub socket_path: Option<String>,
    pub tagged_addresses: Option<Vec<(String, String, i64)>>,
    pub meta: Option<Vec<(String, String)>>,
    pub weights: Option<(Option<i64>, Option<i64>)>,
    pub enable_tag_override: Option<bool>,
    pub token: Option<String>,
    pub kind: Option<String>,
    pub checks: Vec<CheckSpec>,
}

/// Why a definition is refused. The texts are Consul's; a border puts before them whose definition it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("Interval and TTL cannot both be specified")]
    IntervalAndTtl,
    #[error("Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks")]
    NoInterval,
    #[error("Interval cannot be set for Alias checks")]
    AliasInterval,
    #[error("TTL must be not be set for Alias checks")]
    AliasTtl,
    #[error("TTL must be > 0 for TTL checks")]
    NoTtl,
    #[error("MaxOutputMaxSize must be positive")]
    OutputSize,
    #[error("FailuresBeforeWarning can't be higher than FailuresBeforeCritical")]
    Thresholds,
    #[error("CheckID missing")]
    NoCheckId,
    #[error("Service name missing")]
    NoServiceName,
    #[error("invalid port {0}; expected 0 to 65535")]
    Port(i64),
    #[error("Invalid service address")]
    WildcardAddress,
    #[error("service {0} cannot have both socket path {1} and address/port")]
    SocketAndAddress(String, String),
    #[error("Invalid weight definition for service {0}: Passing must be greater than 0")]
    NoPassingWeight(String),
    #[error("Invalid weight definition for service {0}: DNS Weight must be between 0 and 65535")]
    WeightRange(String),
    #[error("Invalid Service Meta: {0}")]
    Meta(InvalidMeta),
    /// Which of a service's checks, from 0, and why.
    #[error("check {id:?}: {fault}")]
    Check { at: usize, id: String, fault: Box<Invalid> },
}

/// Most a check may be late, and least it may be early.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const DEREGISTER_MIN: Duration = Duration::from_secs(60);
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(30);
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

impl Span {
    fn positive(span: &Option<Span>) -> Option<Duration> {
        let nanos = span.as_ref().map_or(0, |span| span.nanos);
        u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos)
    }
}

impl CheckSpec {
    /// A check of the node, or of the service that `service_id` names: with an id of its own, or its name for one.
    ///
    /// # Errors
    /// The first rule broken, in Consul's order (`config-cli.md` §4.2).
    pub fn build(self) -> Result<Definition, Invalid> {
        let (kind, written) = (self.kind()?, Arc::new(self.clone()));
        let name = self.name.unwrap_or_default();
        let id = self.id.filter(|id| !id.is_empty()).unwrap_or_else(|| name.clone());
        if id.is_empty() {
            return Err(Invalid::NoCheckId);
        }
        let least = |span: &Option<Span>, least: Duration| Span::positive(span).map(|given| given.max(least));
        let count = |number: Option<i64>| u32::try_from(number.unwrap_or(0)).unwrap_or(0);
        let default_timeout = if kind.runs_program() { SCRIPT_TIMEOUT } else { PROBE_TIMEOUT };
        let failures_before_critical = count(self.failures_before_critical);
        let output_max = self.output_max_size.and_then(|size| usize::try_from(size).ok());
        let text = |span: &Option<Span>| span.as_ref().map_or("", |span| span.text.as_str()).into();
        Ok(Definition {
            id: id.into(),
            name: name.into(),
            notes: self.notes.unwrap_or_default().into(),
            status: self.status.filter(|status| !status.is_empty()).map(|status| Status::from(&*status)),
            service_id: self.service_id.unwrap_or_default().into(),
            token: self.token.unwrap_or_default().into(),
            interval: least(&self.interval, INTERVAL_MIN).unwrap_or(INTERVAL_MIN),
            timeout: Span::positive(&self.timeout).unwrap_or(default_timeout),
            interval_text: text(&self.interval),
            timeout_text: text(&self.timeout),
            thresholds: Thresholds {
                success_before_passing: count(self.success_before_passing),
                failures_before_warning: self
                    .failures_before_warning
                    .map_or(failures_before_critical, |number| count(Some(number))),
                failures_before_critical,
            },
            deregister_critical_service_after: least(&self.deregister_critical_service_after, DEREGISTER_MIN),
            output_bytes_max: output_max.filter(|size| *size > 0),
            kind,
            written,
        })
    }

    /// The rules, and the first kind in Consul's order that is given.
    fn kind(&self) -> Result<Kind, Invalid> {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let (interval, ttl) = (Span::positive(&self.interval), Span::positive(&self.ttl));
        let is_script = self.args.as_ref().is_some_and(|args| !args.is_empty());
        let is_alias = given(&self.alias_node) || given(&self.alias_service);
        let probes = [&self.grpc, &self.http, &self.tcp, &self.udp, &self.h2ping, &self.os_service];
        let is_probe = is_script || probes.into_iter().any(given);
        if interval.is_some() && ttl.is_some() {
            return Err(Invalid::IntervalAndTtl);
        }
        if is_probe && interval.is_none() {
            return Err(Invalid::NoInterval);
        }
        if is_alias && is_probe {
            return Err(Invalid::AliasInterval);
        }
        if is_alias && ttl.is_some() {
            return Err(Invalid::AliasTtl);
        }
        if !is_alias && !is_probe && ttl.is_none() {
            return Err(Invalid::NoTtl);
        }
        if self.output_max_size.is_some_and(|size| size < 0) {
            return Err(Invalid::OutputSize);
        }
        if self.failures_before_warning.unwrap_or(0) > self.failures_before_critical.unwrap_or(0) {
            return Err(Invalid::Thresholds);
        }
        Ok(self.first_kind(ttl, is_alias, is_script))
    }

    /// The kinds in Consul's order; the rules leave none beside them.
    fn first_kind(&self, ttl: Option<Duration>, is_alias: bool, is_script: bool) -> Kind {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let tls = || Tls {
            server_name: self.tls_server_name.clone().unwrap_or_default(),
            skip_verify: self.tls_skip_verify.unwrap_or(false),
        };
        let tls_if = |asked: Option<bool>, unsaid: bool| asked.unwrap_or(unsaid).then(tls);
        let args = || self.args.iter().flatten().cloned();
        if let Some(target) = given(&self.grpc) {
            Kind::Grpc { target, tls: tls_if(self.grpc_use_tls, false) }
        } else if let Some(url) = given(&self.http) {
            Kind::Http {
                url,
                method: given(&self.method).unwrap_or_else(|| "GET".into()),
                header: self.header.clone().unwrap_or_default(),
                body: self.body.clone().unwrap_or_default(),
                follow_redirects: !self.disable_redirects.unwrap_or(false),
                tls: tls(),
            }
        } else if let Some(ttl) = ttl {
            Kind::Ttl(ttl)
        } else if let Some(address) = given(&self.tcp) {
            Kind::Tcp { address, tls: tls_if(self.tcp_use_tls, false) }
        } else if let Some(address) = given(&self.udp) {
            Kind::Udp { address }
        } else if is_alias {
            let text = |text: &Option<String>| Text::from(text.as_deref().unwrap_or_default());
            let of_node = given(&self.service_id).is_none() || given(&self.alias_node).is_some();
            Kind::Alias(Alias {
                node: text(&self.alias_node),
                service: text(&self.alias_service),
                with_node: of_node,
            })
        } else if let Some(container) = given(&self.docker_container_id).filter(|_| is_script) {
            Kind::Docker { container, args: within_shell(given(&self.shell), args().collect()) }
        } else if is_script {
            Kind::Script { args: args().collect() }
        } else if let Some(address) = given(&self.h2ping) {
            Kind::H2Ping { address, tls: tls_if(self.h2ping_use_tls, true) }
        } else {
            Kind::OsService { name: given(&self.os_service).unwrap_or_default() }
        }
    }
}

/// A lone text is for the shell to read, where one is named; several are a program and its arguments already.
fn within_shell(shell: Option<String>, args: Vec<String>) -> Arc<[String]> {
    match (shell, args) {
        (Some(shell), args) if args.len() == 1 => [shell, "-c".into()].into_iter().chain(args).collect(),
        (_, args) => args.into(),
    }
}

impl ServiceSpec {
    /// A service with its checks, every id and name filled in.
    ///
    /// # Errors
    /// The first rule broken (`config-cli.md` §4.1).
    pub fn build(self) -> Result<ServiceDefinition, Invalid> {
        let name = self.name.clone().filter(|name| !name.is_empty()).ok_or(Invalid::NoServiceName)?;
        let id = self.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| name.clone());
        let port = |port: i64| u16::try_from(port).map_err(|_| Invalid::Port(port));
        let (address, socket_path) = (self.address.unwrap_or_default(), self.socket_path.unwrap_or_default());
        if matches!(address.as_str(), "0.0.0.0" | "::" | "[::]") {
            return Err(Invalid::WildcardAddress);
        }
        let own_port = port(self.port.unwrap_or(0))?;
        if !socket_path.is_empty() && (!address.is_empty() || own_port != 0) {
            return Err(Invalid::SocketAndAddress(name, socket_path));
        }
        let meta = self.meta.unwrap_or_default();
        check_meta(meta.iter().map(|(key, value)| (key.as_str(), value.as_str()))).map_err(Invalid::Meta)?;
        let tagged = self.tagged_addresses.unwrap_or_default().into_iter();
        let tagged: Vec<(String, ServiceAddress)> = tagged
            .map(|(key, address, number)| {
                Ok((key, ServiceAddress { address: address.into(), port: port(number)? }))
            })
            .collect::<Result<_, Invalid>>()?;
        let service = Service {
            id: id.as_str().into(),
            name: name.as_str().into(),
            kind: self.kind.unwrap_or_default().into(),
            tags: self.tags.unwrap_or_default().into_iter().map(Text::from).collect(),
            address: address.into(),
            tagged_addresses: (!tagged.is_empty()).then(|| tagged.into_iter().collect()),
            port: own_port,
            socket_path: socket_path.into(),
            meta: (!meta.is_empty())
                .then(|| meta.into_iter().map(|(key, value)| (key, Text::from(value))).collect()),
            weights: weights(&name, self.weights)?,
            enable_tag_override: self.enable_tag_override.unwrap_or(false),
            ..Service::default()
        };
        let alone = self.checks.len() == 1;
        let checks = self.checks.into_iter().enumerate().map(|(at, check)| {
            let given = check.id.clone().unwrap_or_default();
            let number = if alone { String::new() } else { format!(":{}", at + 1) };
            let id_given = check.id.filter(|id| !id.is_empty());
            let spec = CheckSpec {
                id: Some(id_given.unwrap_or_else(|| format!("service:{id}{number}"))),
                name: Some(
                    check
                        .name
                        .filter(|name| !name.is_empty())
                        .unwrap_or_else(|| format!("Service '{name}' check")),
                ),
                service_id: Some(id.clone()),
                ..check
            };
            spec.build().map_err(|fault| Invalid::Check { at, id: given, fault: Box::new(fault) })
        });
        let checks = checks.collect::<Result<_, _>>()?;
        Ok(ServiceDefinition { service, checks, token: self.token.unwrap_or_default().into() })
    }
}

/// One of the two may be left out; a passing instance must have a weight.
fn weights(name: &str, given: Option<(Option<i64>, Option<i64>)>) -> Result<Weights, Invalid> {
    let (passing, warning) = given.unwrap_or_default();
    let (passing, warning) = (passing.unwrap_or(1), warning.unwrap_or(1));
    if passing < 1 {
        return Err(Invalid::NoPassingWeight(name.into()));
    }
    let weight = |number: i64| u16::try_from(number).map_err(|_| Invalid::WeightRange(name.into()));
    Ok(Weights { passing: weight(passing)?.into(), warning: weight(warning)?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(secs: i64) -> Option<Span> {
        Some(Span { nanos: secs * 1_000_000_000, text: format!("{secs}s") })
    }

    fn text(text: &str) -> Option<String> {
        Some(text.into())
    }

    fn named() -> CheckSpec {
        CheckSpec { id: text("c"), ..CheckSpec::default() }
    }

    #[test]
    fn rules_are_tested_in_order() {
        let http = || CheckSpec { http: text("http://a"), ..named() };
        let alias = || CheckSpec { alias_node: text("n"), ..named() };
        let table = [
            (CheckSpec { interval: span(1), ttl: span(1), ..named() }, Invalid::IntervalAndTtl),
            (http(), Invalid::NoInterval),
            (CheckSpec { ttl: span(1), ..http() }, Invalid::NoInterval),
            (CheckSpec { http: text("http://a"), interval: span(1), ..alias() }, Invalid::AliasInterval),
            (CheckSpec { ttl: span(1), ..alias() }, Invalid::AliasTtl),
            (CheckSpec { args: Some(vec![]), ..named() }, Invalid::NoTtl),
            (CheckSpec { ttl: span(1), output_max_size: Some(-1), ..named() }, Invalid::OutputSize),
            (CheckSpec { ttl: span(1), failures_before_warning: Some(1), ..named() }, Invalid::Thresholds),
            (CheckSpec { ttl: span(1), ..CheckSpec::default() }, Invalid::NoCheckId),
        ];
        for (spec, fault) in table {
            assert_eq!(spec.clone().build().unwrap_err(), fault, "{spec:?}");
        }
        let both = CheckSpec { tcp: text("a:1"), interval: span(0), ttl: span(5), ..named() };
        assert_eq!(both.build().unwrap_err(), Invalid::NoInterval);
    }

    #[test]
    fn defaults_and_minimums() {
        let spec = CheckSpec {
            args: Some(vec!["true".into()]),
            interval: Some(Span { nanos: 1, text: "1ns".into() }),
            deregister_critical_service_after: span(1),
            failures_before_critical: Some(3),
            ..named()
        };
        let built = spec.build().unwrap();
        assert_eq!((built.interval, built.timeout), (INTERVAL_MIN, SCRIPT_TIMEOUT));
        assert_eq!(built.deregister_critical_service_after, Some(DEREGISTER_MIN));
        assert_eq!(built.thresholds.failures_before_warning, 3);
        let record = built.record();
        assert_eq!((&*record.kind, &*record.interval, &*record.timeout), ("", "1ns", "0s"));
    }

    #[test]
    fn a_services_checks_get_ids_and_names() {
        let ttl = || CheckSpec { ttl: span(5), ..CheckSpec::default() };
        let spec =
            |checks| ServiceSpec { name: text("web"), id: text("web-1"), checks, ..ServiceSpec::default() };
        let one = spec(vec![ttl()]).build().unwrap();
        assert_eq!((&*one.checks[0].id, &*one.checks[0].name), ("service:web-1", "Service 'web' check"));
        assert_eq!(&*one.checks[0].record().kind, "ttl");
        let two = spec(vec![CheckSpec { id: text("own"), ..ttl() }, ttl()]).build().unwrap();
        assert_eq!((&*two.checks[0].id, &*two.checks[1].id), ("own", "service:web-1:2"));
        assert_eq!(&*two.checks[1].service_id, "web-1");
    }

    #[test]
    fn bad_services_are_refused() {
        let web = || ServiceSpec { name: text("a"), ..ServiceSpec::default() };
        let table = [
            (ServiceSpec::default(), "Service name missing"),
            (ServiceSpec { port: Some(70000), ..web() }, "invalid port 70000; expected 0 to 65535"),
            (ServiceSpec { address: text("0.0.0.0"), ..web() }, "Invalid service address"),
            (
                ServiceSpec { socket_path: text("/run/x"), port: Some(1), ..web() },
                "service a cannot have both socket path /run/x and address/port",
            ),
            (
                ServiceSpec { weights: Some((Some(0), None)), ..web() },
                "Invalid weight definition for service a: Passing must be greater than 0",
            ),
            (
                ServiceSpec { weights: Some((None, Some(65536))), ..web() },
                "Invalid weight definition for service a: DNS Weight must be between 0 and 65535",
            ),
            (
                ServiceSpec { meta: Some(vec![("a b".into(), "1".into())]), ..web() },
                "Invalid Service Meta: Couldn't load metadata pair ('a b', '1'): Key contains invalid characters",
            ),
            (
                ServiceSpec { checks: vec![CheckSpec::default()], ..web() },
                "check \"\": TTL must be > 0 for TTL checks",
            ),
        ];
        for (spec, text) in table {
            assert_eq!(spec.build().unwrap_err().to_string(), text);
        }
    }
}
