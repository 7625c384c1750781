//! The probes: each looks once and says what it saw. Knows sockets and processes; not when it is called, nor what
//! becomes of its result. Error texts are in the shape that Consul's operators know.

mod http;
mod script;
mod tcp;
mod tls;

use std::time::Duration;

use crate::catalog::Status;

use super::{Definition, Kind, output};

pub use http::Clients;
pub use tls::use_ring;

/// What a probe saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub status: Status,
    pub output: String,
}

/// Looks once. Never takes much longer than the definition's timeout. A TTL check is not looked at: it is told.
pub async fn look(definition: &Definition, clients: &Clients, output_bytes_max: usize) -> Option<Seen> {
    let timeout = definition.timeout;
    match &definition.kind {
        Kind::Ttl(_) => None,
        Kind::Http { .. } => Some(http::look(&definition.kind, clients, timeout, output_bytes_max).await),
        Kind::Tcp { address, tls } => Some(tcp::look(address, tls.as_ref(), timeout).await),
        Kind::Script { args } => Some(script::look(args, timeout, output_bytes_max).await),
    }
}

impl Seen {
    fn critical(output: impl Into<String>) -> Self {
        Seen { status: Status::Critical, output: output.into() }
    }
}

/// `30s`, as in a message about it.
fn shown(timeout: Duration) -> String {
    super::format_duration(i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX))
}

/// The innermost reason of an error: the outer ones repeat what was asked.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused) => "connect: connection refused".into(),
        Some(std::io::ErrorKind::HostUnreachable) => "connect: no route to host".into(),
        Some(std::io::ErrorKind::NetworkUnreachable) => "connect: network is unreachable".into(),
        Some(std::io::ErrorKind::ConnectionReset) => "read: connection reset by peer".into(),
        _ => innermost.to_string(),
    }
}
