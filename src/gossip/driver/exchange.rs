//! What goes out, and streams, each in a task of its own that ends with its deadline.

use std::{collections::hash_map::Entry, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use super::{
    ACCEPT_AGAIN, ASKED_MAX, Done, Driver, Incoming, PACKET_BYTES_MAX, SERVED_OF_HOST_MAX, lock, now, socket,
    stream::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX, Stream, StreamError},
};
use crate::gossip::{
    machine::{AskError, AskId},
    seal::Direction,
};

impl Driver {
    pub(super) fn send(&mut self, to: SocketAddr, plain: &[u8]) {
        self.packet.clear();
        lock(&self.seal).seal_packet(plain, &mut self.packet);
        debug_assert!(self.packet.len() <= PACKET_BYTES_MAX, "a packet of {} bytes", self.packet.len());
        let traffic = &self.shared.traffic;
        match self.sockets.udp.try_send_to(&self.packet, socket::reachable(self.sockets.local, to)) {
            Ok(length) => {
                traffic.packets_out.add_alone(1);
                traffic.packet_bytes_out.add_alone(length as u64);
            }
            Err(_) => traffic.packets_unsent.add_alone(1),
        }
    }

    pub(super) fn ask(&mut self, id: AskId, to: SocketAddr, plain: Vec<u8>, deadline: Duration) {
        if self.asked >= ASKED_MAX {
            let why = format!("{ASKED_MAX} streams are under way already");
            return self.machine.answered(id, Err(AskError::Failed(why)), now());
        }
        self.asked += 1;
        self.shared.traffic.streams_out.add(1);
        let (seal, traffic, room) =
            (Arc::clone(&self.seal), Arc::clone(&self.shared.traffic), Arc::clone(&self.room_out));
        let local = self.sockets.local;
        self.tasks.spawn(async move {
            let exchange = async {
                let tcp = socket::connect(local, to).await?;
                let mut stream = Stream { tcp, seal, traffic, room };
                let mut request = Direction::request();
                stream.write(&mut request, &plain).await?;
                stream.read(&mut Direction::answer(&request), ANSWER_BYTES_MAX).await
            };
            let (outcome, refused) = match timeout(deadline, exchange).await {
                Err(_) => (Err(AskError::TimedOut), None),
                Ok(Ok(answer)) => (Ok(answer), None),
                Ok(Err(StreamError::Io(error))) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    (Err(AskError::Refused), None)
                }
                Ok(Err(StreamError::Refused(refused))) => {
                    (Err(AskError::Failed(StreamError::Refused(refused).to_string())), Some(refused))
                }
                Ok(Err(error)) => (Err(AskError::Failed(error.to_string())), None),
            };
            Done::Asked(id, outcome, refused, to)
        });
    }

    pub(super) fn accept(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        let (tcp, from) = match accepted {
            Ok((tcp, from)) => (tcp, socket::canonical(from)),
            Err(_) => {
                self.accept_at = Some(now() + ACCEPT_AGAIN);
                return;
            }
        };
        if !self.may_speak(from) {
            return;
        }
        let of_host = self.served_of.entry(from.ip()).or_default();
        if *of_host >= SERVED_OF_HOST_MAX {
            return self.shared.traffic.streams_shed.add(1);
        }
        // Only this task takes seats, and none accepts without one.
        let Ok(seat) = Arc::clone(&self.served).try_acquire_owned() else { return };
        *of_host += 1;
        self.shared.traffic.streams_in.add(1);
        let (seal, traffic, room) =
            (Arc::clone(&self.seal), Arc::clone(&self.shared.traffic), Arc::clone(&self.room_in));
        let (hand_in, deadline) = (self.hand_in.clone(), self.stream_timeout);
        self.tasks.spawn(async move {
            let _seat = seat;
            let exchange = async {
                tcp.set_nodelay(true)?;
                let mut stream = Stream { tcp, seal, traffic, room };
                let mut request = Direction::request();
                let plain = stream.read(&mut request, REQUEST_BYTES_MAX).await?;
                let (answer, answered) = oneshot::channel();
                let incoming = Incoming { from, plain, answer };
                hand_in.send(incoming).await.map_err(|_| StreamError::Closed)?;
                match answered.await {
                    Ok(Some(answer)) => stream.write(&mut Direction::answer(&request), &answer).await,
                    // What is not understood is answered by nothing.
                    _ => Ok(()),
                }
            };
            let late = |_| Err(StreamError::Io(io::ErrorKind::TimedOut.into()));
            Done::Served(from, timeout(deadline, exchange).await.unwrap_or_else(late))
        });
    }

    /// A stream that another one began is over.
    pub(super) fn served(&mut self, from: SocketAddr, outcome: Result<(), StreamError>) {
        if let Entry::Occupied(mut of_host) = self.served_of.entry(from.ip()) {
            *of_host.get_mut() -= 1;
            if *of_host.get() == 0 {
                of_host.remove();
            }
        }
        match outcome {
            Ok(()) | Err(StreamError::Closed) => {}
            Err(StreamError::Refused(refused)) => self.complain(refused, from),
            Err(StreamError::Io(_)) => self.shared.traffic.streams_broken.add(1),
        }
    }
}
