//! TCP probes: a connection, and a handshake where TLS is asked for.

use std::{net::SocketAddr, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{error::Elapsed, timeout},
};
use tokio_rustls::TlsConnector;

use super::{Seen, reason, tls};
use crate::{catalog::Status, check::Tls};

pub async fn look(address: &str, tls: Option<&Tls>, limit: Duration) -> Seen {
    let Some((host, port)) = address.rsplit_once(':').filter(|(_, port)| !port.is_empty()) else {
        return Seen::critical(format!("dial tcp: address {address}: missing port in address"));
    };
    let late = |_: Elapsed| Err(format!("dial tcp {address}: i/o timeout"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match timeout(limit, connect(host, port, tls, limit)).await.unwrap_or_else(late) {
        Ok(()) => Seen { status: Status::Passing, output: format!("TCP connect {address}: Success") },
        Err(error) => Seen::critical(error),
    }
}

/// Tries every address of the name, each for its share of the time: one that is silent does not hide the others.
async fn connect(host: &str, port: &str, tls: Option<&Tls>, limit: Duration) -> Result<(), String> {
    let port: u16 = port.parse().map_err(|_| format!("dial tcp: lookup tcp/{port}: unknown port"))?;
    let found =
        lookup_host((host, port)).await.map_err(|error| format!("dial tcp: lookup {host}: {error}"))?;
    let addresses: Vec<SocketAddr> = found.collect();
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = format!("dial tcp: lookup {host}: no such host");
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return shake_hands(stream, host, tls).await,
            Ok(Err(error)) => last = format!("dial tcp {address}: {}", reason(&error)),
            Err(_) => last = format!("dial tcp {address}: i/o timeout"),
        }
    }
    Err(last)
}

async fn shake_hands(stream: TcpStream, host: &str, tls: Option<&Tls>) -> Result<(), String> {
    let Some(tls) = tls else { return Ok(()) };
    let name = if tls.server_name.is_empty() { host } else { &tls.server_name };
    let name = ServerName::try_from(name.to_string()).map_err(|error| format!("tls: {error}: {name}"))?;
    let connector = TlsConnector::from(tls::client(tls.skip_verify));
    connector.connect(name, stream).await.map(drop).map_err(|error| format!("tls: {error}"))
}
