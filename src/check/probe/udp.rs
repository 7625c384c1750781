//! UDP probes: an empty datagram. An answer passes, and so does silence, since most who listen answer only what they
//! understand; a refusal is critical.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Socket, Type};
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
    let failed = |doing: &'static str| {
        move |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("{doing} udp {to}: {doing}: connection refused"),
            _ => format!("{doing} udp {to}: {}", reason(&error)),
        }
    };
    // A new socket has room for a datagram: only the answer is waited for.
    let socket =
        Socket::new(Domain::for_address(to), Type::DGRAM.nonblocking(), None).map_err(failed("dial"))?;
    socket.connect(&to.into()).map_err(failed("dial"))?;
    socket.send(&[]).map_err(failed("write"))?;
    let socket = UdpSocket::from_std(socket.into()).map_err(failed("dial"))?;
    socket.recv(&mut [0; 1]).await.map_err(failed("read")).map(drop)
}
