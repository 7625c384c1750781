//! UDP probes: an empty datagram. An answer passes, and so does silence, since most who listen answer only what they
//! understand; a refusal is critical.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::UdpSocket, time::timeout};

use super::{Seen, connect, reason};

pub async fn look(address: &str, limit: Duration) -> Seen {
    let found = match connect::split(address) {
        Ok((host, port)) => timeout(limit, connect::lookup(host, port)).await,
        Err(error) => return Seen::critical(format!("dial udp: {error}")),
    };
    let addresses = match found {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Seen::critical(format!("dial udp: {error}")),
        Err(_) => return Seen::critical(format!("dial udp {address}: i/o timeout")),
    };
    let mut last = String::new();
    for to in addresses {
        match timeout(limit, ask(to)).await {
            Ok(Err(error)) => last = error,
            Ok(Ok(())) | Err(_) => return Seen::passing(format!("UDP connect {address}: Success")),
        }
    }
    Seen::critical(last)
}

async fn ask(to: SocketAddr) -> Result<(), String> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let failed = |doing: &str| {
        let doing = doing.to_string();
        move |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => format!("{doing} udp {to}: {doing}: connection refused"),
            _ => format!("{doing} udp {to}: {}", reason(&error)),
        }
    };
    let socket = UdpSocket::bind(any).await.map_err(failed("bind"))?;
    socket.connect(to).await.map_err(failed("dial"))?;
    socket.send(&[]).await.map_err(failed("write"))?;
    socket.recv(&mut [0; 1]).await.map_err(failed("read")).map(drop)
}
