//! The probes: each looks once and says what it saw. Knows sockets and processes; not when it is called, nor what
//! becomes of its result. Error texts are in the shape that Consul's operators know.

mod connect;
mod docker;
mod exchange;
mod grpc;
mod h2;
mod h2ping;
mod http;
mod os_service;
mod script;
mod tcp;
mod tls;
mod udp;

use std::{ffi::OsString, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::catalog::Status;

use super::{Definition, Kind, output};

pub use docker::Host as DockerHost;
pub use tls::{Trust, use_ring};

/// What a probe saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub status: Status,
    pub output: String,
}

/// What the probes share.
pub struct Tools {
    pub trust: Trust,
    pub docker: DockerHost,
    pub systemctl: OsString,
}

impl Tools {
    /// Of this machine.
    pub fn here() -> Tools {
        Tools {
            trust: Trust::default(),
            docker: DockerHost::of(std::env::var("DOCKER_HOST").ok().as_deref()),
            systemctl: "systemctl".into(),
        }
    }
}

/// Looks once. Never takes much longer than the definition's timeout. A program is killed when `gone` is cancelled, and is
/// left alone when this is dropped. `None` for a check that is not looked at: a TTL check is told, an alias follows others.
pub async fn look(
    definition: &Definition,
    tools: &Tools,
    output_bytes_max: usize,
    gone: &CancellationToken,
) -> Option<Seen> {
    let (limit, Tools { trust, docker, systemctl }) = (definition.timeout, tools);
    Some(match &definition.kind {
        Kind::Ttl(_) | Kind::Alias(_) => return None,
        Kind::Grpc { target, tls } => grpc::look(target, tls.as_ref(), trust, limit).await,
        Kind::Http { url, method, header, body, follow_redirects, tls } => {
            let ask = http::Ask { url, method, header, body, follow_redirects: *follow_redirects, tls };
            ask.look(trust, limit, output_bytes_max).await
        }
        Kind::Tcp { address, tls } => tcp::look(address, tls.as_ref(), trust, limit).await,
        Kind::Udp { address } => udp::look(address, limit).await,
        Kind::Docker { container, args } => {
            docker::look(container, args, docker, limit, output_bytes_max).await
        }
        Kind::Script { args } => script::look(args, gone, limit, output_bytes_max).await,
        Kind::H2Ping { address, tls } => h2ping::look(address, tls.as_ref(), trust, limit).await,
        Kind::OsService { name } => os_service::look(name, systemctl, gone, limit).await,
    })
}

impl Seen {
    fn passing(output: impl Into<String>) -> Self {
        Seen { status: Status::Passing, output: output.into() }
    }

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

fn percent_decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        let ahead = bytes.clone().take(2).map(|byte| char::from(byte).to_digit(16));
        match ahead.collect::<Option<Vec<_>>>().as_deref() {
            Some([high, low]) if byte == b'%' => {
                decoded.push((high << 4 | low) as u8);
                bytes.nth(1);
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_decoded_as_far_as_they_go() {
        for (sent, read) in [("a%20b%", "a b%"), ("%C3%A9", "é"), ("%zz%4", "%zz%4"), ("", "")] {
            assert_eq!(percent_decoded(sent), read);
        }
    }
}
