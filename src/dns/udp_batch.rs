//! The fast road on Linux: a thread to a socket that takes a batch of packets with one system call, answers it from one
//! snapshot, and sends the replies with another. Knows nothing of what packets mean.
//!
//! A socket of our own is shut down to stop: that wakes whoever waits on it. One that was handed over must not be, since
//! it stays shut down for whoever gets it next; there a thread waits for the socket and for a pipe at once.
//!
//! A batch shares its control messages, so it cannot say from which local address each reply leaves: such a socket is
//! bound to one address, never to a wildcard.

use std::{
    array,
    io::{self, IoSlice, IoSliceMut, PipeReader, PipeWriter},
    net::{Shutdown, SocketAddr},
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    errno::Errno,
    libc::MSG_DONTWAIT,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg},
    },
};
use socket2::Socket;
use tokio_util::sync::CancellationToken;

use super::{Asker, Errands, Outcome, Published, Responder, Road, Transport, View, tally::Watch};

/// The threads of this road. Dropped, they are stopped and joined.
pub struct Threads {
    own: Vec<Arc<Socket>>,
    stopping: Arc<AtomicBool>,
    /// Dropped, it wakes the threads of shared sockets.
    wake: Option<PipeWriter>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// A thread for each socket, `dns-0` and on. One that fails cancels `shutdown`. `shared` are sockets that others have,
    /// too, here and elsewhere.
    pub fn start(
        own: Vec<Socket>,
        shared: Vec<Socket>,
        published: &Published,
        errands: &Errands,
        shutdown: &CancellationToken,
    ) -> io::Result<Threads> {
        let own = own.into_iter().map(Arc::new).collect();
        let mut threads = Threads { own, stopping: Arc::default(), wake: None, handles: Vec::new() };
        for socket in threads.own.clone() {
            threads.add(socket, None, published, errands, shutdown)?;
        }
        if !shared.is_empty() {
            let (woken, wake) = io::pipe()?;
            threads.wake = Some(wake);
            for socket in shared {
                let doze = Doze::new(&socket, woken.try_clone()?)?;
                threads.add(Arc::new(socket), Some(doze), published, errands, shutdown)?;
            }
        }
        Ok(threads)
    }

    fn add(
        &mut self,
        socket: Arc<Socket>,
        doze: Option<Doze>,
        published: &Published,
        errands: &Errands,
        shutdown: &CancellationToken,
    ) -> io::Result<()> {
        let (published, errands, stopping) = (published.clone(), errands.clone(), self.stopping.clone());
        let last = shutdown.clone().drop_guard();
        let thread = thread::Builder::new().name(format!("dns-{}", self.handles.len()));
        self.handles.push(thread.spawn(move || {
            let _last = last;
            answer(&socket, doze.as_ref(), &stopping, &published, &errands);
        })?);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.wake = None;
        for socket in &self.own {
            // Wakes whoever waits on it, though it says that there is no connection.
            let _ = socket.shutdown(Shutdown::Both);
        }
        for handle in self.handles.drain(..) {
            // A panic was printed, and has cancelled the shutdown token.
            let _ = handle.join();
        }
    }
}

/// How a thread waits on a socket that it shares: until there is a packet, which wakes one of those that wait, or until
/// all are to stop.
pub struct Doze {
    epoll: Epoll,
    /// Says so by its end.
    _woken: PipeReader,
}

impl Doze {
    fn new(socket: &Socket, woken: PipeReader) -> io::Result<Doze> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE, 0))?;
        epoll.add(&woken, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        Ok(Doze { epoll, _woken: woken })
    }

    fn wait(&self) -> Result<(), Errno> {
        self.epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE).map(drop)
    }
}

fn answer(
    socket: &Arc<Socket>,
    doze: Option<&Doze>,
    stopping: &AtomicBool,
    published: &Published,
    errands: &Errands,
) {
    let mut responder = Responder::counting(published.counters.tally(Road::UdpBatch), true);
    responder = responder.handing_on(errands.hand_on());
    exchange(
        socket,
        doze,
        stopping,
        &mut responder,
        || {
            (
                Watch::start(),
                published.catalog.load(),
                published.settings.load(),
                published.zones.load(),
                published.is_fresh(),
            )
        },
        |responder, (_, catalog, settings, zones, fresh), from, packet, reply| {
            let asker = Asker { transport: Transport::Udp, from: from.ip() };
            let view = View { catalog: catalog.as_deref(), settings, zones, fresh: *fresh };
            if let Outcome::Later(errand) = responder.respond(&view, &asker, packet, reply) {
                let socket = socket.clone();
                // As in `Replies::send`: what the system does not take at once is lost.
                errands.take(errand, reply, move |reply| {
                    drop(socket.send_to_with_flags(&reply, &from.into(), MSG_DONTWAIT));
                });
            }
        },
        |responder, (watch, ..)| responder.took(watch.nanos()),
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

/// Moves batches until `stopping` is set, and the socket shut down or the doze ended. `snapshot` is taken once a batch and
/// not held while waiting for the next; `respond` is called once a packet, with an empty reply that it may leave empty;
/// `done` gets the snapshot back when the batch is answered, before it is sent. Both share `state`.
pub fn exchange<T, S>(
    socket: &Socket,
    doze: Option<&Doze>,
    stopping: &AtomicBool,
    state: &mut T,
    snapshot: impl Fn() -> S,
    respond: impl Fn(&mut T, &S, SocketAddr, &[u8], &mut Vec<u8>),
    done: impl Fn(&mut T, S),
) {
    let mut packets = vec![0; PACKET_STRIDE * BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let mut replies = Replies::new();
    let flags = if doze.is_some() { MsgFlags::MSG_DONTWAIT } else { MsgFlags::MSG_WAITFORONE };
    loop {
        let mut buffers = packets.chunks_exact_mut(PACKET_STRIDE);
        let mut slices: [[IoSliceMut; 1]; BATCH] = array::from_fn(|_| {
            [IoSliceMut::new(buffers.next().map_or(&mut [], |buffer| &mut buffer[..PACKET_BYTES_MAX]))]
        });
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, flags, None);
        if stopping.load(Ordering::Acquire) {
            return;
        }
        let received = match (received, doze) {
            (Err(Errno::EAGAIN), Some(doze)) if doze.wait().is_ok() => continue,
            (received, _) => received,
        };
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
            let Some(from) = socket_addr(&asker) else { continue };
            replies.add(asker, |reply| respond(state, &snapshot, from, packet, reply));
        }
        done(state, snapshot);
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

fn socket_addr(addr: &SockaddrStorage) -> Option<SocketAddr> {
    match addr.as_sockaddr_in() {
        Some(v4) => Some(SocketAddr::from(*v4)),
        None => Some(SocketAddr::from(*addr.as_sockaddr_in6()?)),
    }
}
