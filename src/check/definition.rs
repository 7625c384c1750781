//! What a valid check and a valid service are, and the records that show them. How they come about from what was written
//! stands in `spec`.

use std::{sync::Arc, time::Duration};

use super::CheckSpec;
use crate::catalog::{self, Service, Status, Text};

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
    /// Between the starts of two looks; at least 1 s. Unused by `Kind::Ttl` and `Kind::Alias`.
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
    /// What this was built from, and can be built from again.
    pub written: Arc<CheckSpec>,
}

/// How many results in a row turn a status (`config-cli.md` §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    pub success_before_passing: u32,
    pub failures_before_warning: u32,
    pub failures_before_critical: u32,
}

/// The kinds of checks, and what each looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Grpc {
        /// `host:port` or `host:port/service`.
        target: String,
        tls: Option<Tls>,
    },
    Http {
        url: String,
        method: String,
        header: Vec<(String, Vec<String>)>,
        body: String,
        follow_redirects: bool,
        tls: Tls,
    },
    /// The program itself reports; silence for this long is critical.
    Ttl(Duration),
    Tcp {
        address: String,
        tls: Option<Tls>,
    },
    Udp {
        address: String,
    },
    Alias(Alias),
    /// A program inside a container.
    Docker {
        container: String,
        args: Arc<[String]>,
    },
    Script {
        args: Arc<[String]>,
    },
    H2Ping {
        address: String,
        tls: Option<Tls>,
    },
    OsService {
        name: String,
    },
}

/// Whose checks an alias follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alias {
    /// Empty: this agent's node.
    pub node: Text,
    /// By id. Empty: the node alone.
    pub service: Text,
    /// Whether the node's own checks count beside the service's.
    pub with_node: bool,
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

impl Kind {
    /// What `word` gives of any kind.
    pub const WORDS: [&str; 10] =
        ["grpc", "http", "ttl", "tcp", "udp", "alias", "docker", "script", "h2ping", "os_service"];

    /// Whether a process is started here for each look.
    pub fn starts_process(&self) -> bool {
        matches!(self, Kind::Script { .. } | Kind::OsService { .. })
    }

    /// Whether it runs a program that its definition names, which takes the operator's leave.
    pub fn runs_program(&self) -> bool {
        matches!(self, Kind::Script { .. } | Kind::Docker { .. })
    }

    /// The word that a check's record carries.
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Grpc { .. } => "grpc",
            Kind::Http { .. } => "http",
            Kind::Ttl(_) => "ttl",
            Kind::Tcp { .. } => "tcp",
            Kind::Udp { .. } => "udp",
            Kind::Alias(_) => "alias",
            Kind::Docker { .. } => "docker",
            Kind::Script { .. } => "script",
            Kind::H2Ping { .. } => "h2ping",
            Kind::OsService { .. } => "os_service",
        }
    }
}

impl Definition {
    /// The record of this check before its first result. Node and service are filled in where it is registered.
    pub fn record(&self) -> catalog::Check {
        let of_service = !self.service_id.is_empty();
        // A node's check tells no kind, and its durations in full (`config-cli.md` §4.3).
        let duration = |text: &Text| if of_service || !text.is_empty() { text.clone() } else { "0s".into() };
        catalog::Check {
            id: self.id.clone(),
            name: self.name.clone(),
            status: self.status.clone().unwrap_or(Status::Critical),
            notes: self.notes.clone(),
            service_id: self.service_id.clone(),
            kind: if of_service { self.kind.word().into() } else { Text::default() },
            interval: duration(&self.interval_text),
            timeout: duration(&self.timeout_text),
            ..catalog::Check::default()
        }
    }
}
