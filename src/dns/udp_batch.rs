//! The fast road on Linux: a thread to a socket that takes a batch of packets with one system call, answers it from one
//! snapshot, and sends the replies with another. Knows nothing of what packets mean.
//!
//! A batch shares its control messages, so it cannot say from which local address each reply leaves: such a socket is
//! bound to one address, never to a wildcard.

use std::{
    array,
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Shutdown},
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use socket2::Socket;
use tokio_util::sync::CancellationToken;

use super::{Asker, Published, Responder, Transport, View};

/// The threads of this road. Dropped, they are stopped and joined.
pub struct Threads {
    sockets: Vec<Arc<Socket>>,
    stopping: Arc<AtomicBool>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// A thread for each socket, `dns-0` and on. One that fails cancels `shutdown`.
    pub fn start(
        sockets: Vec<Socket>,
        published: &Published,
        shutdown: &CancellationToken,
    ) -> io::Result<Threads> {
        let sockets = sockets.into_iter().map(Arc::new).collect();
        let mut threads = Threads { sockets, stopping: Arc::default(), handles: Vec::new() };
        for (number, socket) in threads.sockets.iter().enumerate() {
            let (socket, published, stopping) = (socket.clone(), published.clone(), threads.stopping.clone());
            let last = shutdown.clone().drop_guard();
            let thread = thread::Builder::new().name(format!("dns-{number}"));
            threads.handles.push(thread.spawn(move || {
                let _last = last;
                answer(&socket, &stopping, &published);
            })?);
        }
        Ok(threads)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        for socket in &self.sockets {
            // Wakes whoever waits on it, though it says that there is no connection.
            let _ = socket.shutdown(Shutdown::Both);
        }
        for handle in self.handles.drain(..) {
            // A panic was printed, and has cancelled the shutdown token.
            let _ = handle.join();
        }
    }
}

fn answer(socket: &Socket, stopping: &AtomicBool, published: &Published) {
    let mut responder = Responder::new(fastrand::u64(..));
    exchange(
        socket,
        stopping,
        || (published.catalog.load(), published.settings.load(), published.zones.load()),
        |(catalog, settings, zones), from, packet, reply| {
            let asker = Asker { transport: Transport::Udp, from };
            let view = View { catalog: catalog.as_deref(), settings, zones };
            responder.respond(&view, &asker, packet, reply);
        },
    );
}

/// Packets to a batch.
const BATCH: usize = 64;

/// The longest packet there can be. The pages of a buffer that no packet touches take no memory.
const PACKET_BYTES_MAX: usize = 65_535;

/// From one buffer to the next: not a multiple of a page, or the heads of all packets would share few lines of the cache.
const PACKET_STRIDE: usize = PACKET_BYTES_MAX + 1 + 3 * 64;

/// After a failed receive, so that an error that stays does not take the whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(1);

/// Moves batches until `stopping` is set and the socket shut down. `snapshot` is taken once a batch and not held while
/// waiting for the next; `respond` is called once a packet, with an empty reply that it may leave empty.
pub fn exchange<S>(
    socket: &Socket,
    stopping: &AtomicBool,
    snapshot: impl Fn() -> S,
    mut respond: impl FnMut(&S, IpAddr, &[u8], &mut Vec<u8>),
) {
    let mut packets = vec![0; PACKET_STRIDE * BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let mut replies = Replies::new();
    loop {
        let mut buffers = packets.chunks_exact_mut(PACKET_STRIDE);
        let mut slices: [[IoSliceMut; 1]; BATCH] = array::from_fn(|_| {
            [IoSliceMut::new(buffers.next().map_or(&mut [], |buffer| &mut buffer[..PACKET_BYTES_MAX]))]
        });
        let received =
            recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_WAITFORONE, None);
        if stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok(received) = received else {
            #[expect(
                clippy::disallowed_methods,
                reason = "a thread of its own, at the rim, for a millisecond"
            )]
            thread::sleep(ERROR_PAUSE);
            continue;
        };
        let snapshot = snapshot();
        for message in received {
            let (Some(asker), Some(packet)) = (message.address, message.iovs().next()) else { continue };
            let Some(from) = ip_of(&asker) else { continue };
            replies.add(asker, |reply| respond(&snapshot, from, packet, reply));
        }
        drop(snapshot);
        replies.send(socket.as_raw_fd());
    }
}

/// The replies to one batch.
struct Replies {
    count: usize,
    bytes: [Vec<u8>; BATCH],
    askers: [Option<SockaddrStorage>; BATCH],
    headers: MultiHeaders<SockaddrStorage>,
}

impl Replies {
    fn new() -> Self {
        Replies {
            count: 0,
            bytes: array::from_fn(|_| Vec::new()),
            askers: [None; BATCH],
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }

    fn add(&mut self, asker: SockaddrStorage, write: impl FnOnce(&mut Vec<u8>)) {
        let reply = &mut self.bytes[self.count];
        reply.clear();
        write(reply);
        if !reply.is_empty() {
            self.askers[self.count] = Some(asker);
            self.count += 1;
        }
    }

    /// Sends what the system takes at once. What it does not take is lost, as on a network that is full: the asker asks
    /// again.
    fn send(&mut self, socket: RawFd) {
        let slices: [[IoSlice; 1]; BATCH] = array::from_fn(|at| [IoSlice::new(&self.bytes[at])]);
        let mut done = 0;
        while done < self.count {
            let (slices, askers) = (&slices[done..self.count], &self.askers[done..self.count]);
            let sent = sendmmsg(socket, &mut self.headers, slices, askers, [], MsgFlags::MSG_DONTWAIT);
            // An error is the first packet's; those after it may go.
            done += sent.map_or(1, |sent| sent.count().max(1));
        }
        self.count = 0;
    }
}

fn ip_of(addr: &SockaddrStorage) -> Option<IpAddr> {
    match addr.as_sockaddr_in() {
        Some(v4) => Some(v4.ip().into()),
        None => Some(addr.as_sockaddr_in6()?.ip().into()),
    }
}
