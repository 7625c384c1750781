//! What an operator or a program defines: a check, or a service with its checks. `CheckSpec` and `ServiceSpec` hold
//! what was written, every key optional, whoever wrote it (a file, an HTTP body); `Definition` and
//! `ServiceDefinition` hold what is valid. The rules between the two stand here once (`config-cli.md` §4.1, §4.2).

use std::{sync::Arc, time::Duration};

use crate::catalog::{Map, Service, ServiceAddress, Status, Text, Weights};

/// A check as it was written. Durations are parsed already, since each border names its own place in an error.
#[derive(Clone, Debug, Default, PartialEq)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

/// A valid check, ready to be run and to be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub id: Text,
    pub name: Text,
    pub notes: Text,
    /// The status until the first result.
    pub status: Option<Status>,
    /// Empty for a check of the node.
    pub service_id: Text,
    pub token: Text,
    pub kind: Kind,
    /// Between the end of a run and the start of the next; at least 1 s. Unused by `Kind::Ttl`.
    pub interval: Duration,
    /// How long one run may take; the kind's default where none was given.
    pub timeout: Duration,
    /// As written, for the record: `Interval` and `Timeout` of `http-api.md` §6.1.
    pub interval_text: Text,
    pub timeout_text: Text,
    pub thresholds: Thresholds,
    pub deregister_critical_service_after: Option<Duration>,
    /// Bytes of output kept; `None` leaves the agent's limit.
    pub output_bytes_max: Option<usize>,
}

/// How many results in a row turn a status (`config-cli.md` §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    pub success_before_passing: u32,
    pub failures_before_warning: u32,
    pub failures_before_critical: u32,
}

/// The kinds that this agent runs. Any other kind is refused where it is defined: a check that is never run may look
/// neither passing nor critical.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// The program itself reports; silence for this long is critical.
    Ttl(Duration),
    Script {
        args: Arc<[String]>,
    },
    Http {
        url: String,
        method: String,
        header: Vec<(String, Vec<String>)>,
        body: String,
        follow_redirects: bool,
        tls: Tls,
    },
    Tcp {
        address: String,
        tls: Option<Tls>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Empty: the host that is connected to.
    pub server_name: String,
    pub skip_verify: bool,
}

/// A valid service with its checks, their ids and names filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceDefinition {
    pub service: Service,
    pub checks: Vec<Definition>,
    pub token: Text,
}
