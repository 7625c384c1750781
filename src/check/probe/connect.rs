//! How probes reach a target: its addresses in turn, and a handshake where TLS is asked for.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, InvalidMessage, pki_types::ServerName};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::{
    reason,
    tls::{Protocol, Trust},
};
use crate::check::Tls;

/// A connection, under TLS or not.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The host and port of `host:port`; an IPv6 host stands in brackets.
pub fn split(address: &str) -> Result<(&str, u16), String> {
    let missing = || format!("address {address}: missing port in address");
    let (host, port) = address.rsplit_once(':').filter(|(_, port)| !port.is_empty()).ok_or_else(missing)?;
    let port = port.parse().map_err(|_| format!("lookup tcp/{port}: unknown port"))?;
    Ok((host.trim_start_matches('[').trim_end_matches(']'), port))
}

pub async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = lookup_host((host, port)).await.map_err(|error| format!("lookup {host}: {error}"))?;
    Some(found.collect())
        .filter(|found: &Vec<_>| !found.is_empty())
        .ok_or(format!("lookup {host}: no such host"))
}

/// Tries every address of the name, each for its share of the time: one that is silent does not hide the others.
pub async fn tcp(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let addresses = lookup(host, port).await.map_err(|error| format!("dial tcp: {error}"))?;
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let mut last = String::new();
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = format!("dial tcp {address}: {}", reason(&error)),
            Err(_) => last = format!("dial tcp {address}: i/o timeout"),
        }
    }
    Err(last)
}

/// Connects, and shakes hands where TLS is asked for.
pub async fn open(
    (host, port): (&str, u16),
    tls: Option<&Tls>,
    (trust, protocol): (&Trust, Protocol),
    limit: Duration,
) -> Result<Stream, String> {
    let stream = tcp(host, port, limit).await?;
    // More than one small write follows. Where that cannot be set, they are late.
    let _late = stream.set_nodelay(true);
    match tls {
        Some(tls) => {
            let config = trust.client(tls.skip_verify, protocol);
            Ok(Either::Right(Box::new(shake_hands(stream, host, tls, config).await?)))
        }
        None => Ok(Either::Left(stream)),
    }
}

pub async fn shake_hands(
    stream: TcpStream,
    host: &str,
    tls: &Tls,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let name = if tls.server_name.is_empty() { host } else { &tls.server_name };
    let name = ServerName::try_from(name.to_string()).map_err(|error| format!("tls: {error}: {name}"))?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| why_not_tls(&error))
}

fn why_not_tls(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "tls: first record does not look like a TLS handshake".into()
        }
        Some(inner) => format!("tls: {inner}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".into(),
        None => format!("tls: {}", reason(error)),
    }
}
