//! HTTP/2 pings: whether a server of HTTP/2 answers at all.

use std::time::Duration;

use h2::Ping;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Seen,
    connect::{self, Stream},
    h2::{drive, greet},
    tls::{Protocol, Trust},
};
use crate::check::Tls;

pub async fn look(address: &str, tls: Option<&Tls>, trust: &Trust, limit: Duration) -> Seen {
    let deadline = Instant::now() + limit;
    let opened = timeout(limit, open(address, tls, trust, limit)).await;
    let stream = match opened.unwrap_or_else(|_| Err("i/o timeout".into())) {
        Ok(stream) => stream,
        Err(error) => return Seen::critical(format!("Failed to dial to {address}: {error}")),
    };
    let pinged = timeout_at(deadline, ping(stream)).await;
    match pinged.unwrap_or_else(|_| Err("context deadline exceeded".into())) {
        Ok(()) => Seen::passing("HTTP2 ping was successful"),
        Err(error) => Seen::critical(format!("HTTP2 ping failed: {error}")),
    }
}

async fn open(address: &str, tls: Option<&Tls>, trust: &Trust, limit: Duration) -> Result<Stream, String> {
    let target = connect::split(address).map_err(|error| format!("dial tcp: {error}"))?;
    connect::open(target, tls, (trust, Protocol::Http2), limit).await
}

async fn ping(stream: Stream) -> Result<(), String> {
    let (sender, mut connection) = greet(stream).await?;
    let mut pings = connection.ping_pong().ok_or("no pings")?;
    drive(connection, async {
        let pong = pings.ping(Ping::opaque()).await.map(drop);
        // Now nothing more is asked: that ends the connection.
        drop(sender);
        pong
    })
    .await
}
