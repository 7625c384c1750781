//! TCP probes: a connection, and a handshake where TLS is asked for.

use std::time::Duration;

use tokio::time::{error::Elapsed, timeout};

use super::{
    Seen, connect,
    tls::{Protocol, Trust},
};
use crate::check::Tls;

pub async fn look(address: &str, tls: Option<&Tls>, trust: &Trust, limit: Duration) -> Seen {
    let late = |_: Elapsed| Err(format!("dial tcp {address}: i/o timeout"));
    match timeout(limit, connect(address, tls, trust, limit)).await.unwrap_or_else(late) {
        Ok(()) => Seen::passing(format!("TCP connect {address}: Success")),
        Err(error) => Seen::critical(error),
    }
}

async fn connect(address: &str, tls: Option<&Tls>, trust: &Trust, limit: Duration) -> Result<(), String> {
    let (host, port) = connect::split(address).map_err(|error| format!("dial tcp: {error}"))?;
    let stream = connect::tcp(host, port, limit).await?;
    let Some(tls) = tls else { return Ok(()) };
    let config = trust.client(tls.skip_verify, Protocol::Any);
    connect::shake_hands(stream, host, tls, config).await.map(drop)
}
