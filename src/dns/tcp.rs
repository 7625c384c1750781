//! The TCP road (RFC 7766): messages behind their length, several to a connection, answered in order. Everything that a
//! client may take of us has an end: connections, replies, time, bytes.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{Asker, Published, Responder, Transport, View};

/// What a client may take of us.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open at once, over all addresses where we listen.
    pub connections_max: usize,
    /// Of those, from one address.
    pub connections_per_client_max: usize,
    /// To one connection, which is then closed.
    pub replies_max: u32,
    /// From accepting a connection to having its first query whole.
    pub first_query_wait: Duration,
    /// From one reply to having the next query whole. A message that gets no reply does not prolong it.
    pub next_query_wait: Duration,
    /// For the client to take what we send.
    pub send_wait: Duration,
}

impl Default for Limits {
    /// Waits and replies are Consul's (`dns.md` §2); it has no cap on connections.
    fn default() -> Self {
        Limits {
            connections_max: 512,
            connections_per_client_max: 128,
            replies_max: 128,
            first_query_wait: Duration::from_secs(2),
            next_query_wait: Duration::from_secs(8),
            send_wait: Duration::from_secs(2),
        }
    }
}

/// After a failed accept (no descriptors left, mostly), so that an error that stays does not take the whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Accepts and answers until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    seats: Arc<Seats>,
    published: Published,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = connections.join_next() => {
                ended.expect("a connection returns, it does not panic");
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            time::sleep(ERROR_PAUSE).await;
            continue;
        };
        if let Some(seat) = seats.take(from.ip().to_canonical()) {
            let (published, shutdown) = (published.clone(), shutdown.clone());
            connections.spawn(async move {
                // A client that breaks off is no fault of ours.
                let _ = shutdown.run_until_cancelled(Connection::new(stream, seat, published).serve()).await;
            });
        }
    }
    connections.join_all().await;
}

/// The connections that may be open. Whoever finds none free is refused, and nobody is put out for him: whoever sits
/// is being served, no seat is held for long without asking, and one address cannot take them all.
pub struct Seats {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// Given back when dropped.
struct Seat {
    client: IpAddr,
    seats: Arc<Seats>,
}

impl Seats {
    pub fn new(limits: Limits) -> Self {
        Seats { limits, taken: Mutex::default() }
    }

    fn take(self: &Arc<Self>, client: IpAddr) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = taken.by_client.get(&client).copied().unwrap_or(0);
        if taken.all >= self.limits.connections_max || of_client >= self.limits.connections_per_client_max {
            return None;
        }
        taken.all += 1;
        taken.by_client.insert(client, of_client + 1);
        Some(Seat { client, seats: self.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(of_client) = taken.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    seat: Seat,
    published: Published,
    responder: Responder,
    /// Received, not yet answered: at most one message that is not whole, and what came in the same read.
    inbox: BytesMut,
    reply: Vec<u8>,
    /// Replies behind their lengths, not yet sent.
    outbox: Vec<u8>,
    replies_left: u32,
}

/// Replies are sent once so many bytes wait; the last of them may go beyond by its own length.
const OUTBOX_BYTES: usize = 16 * 1024;

/// Room for a read: a few questions.
const READ_BYTES: usize = 1024;

impl Connection {
    fn new(stream: TcpStream, seat: Seat, published: Published) -> Self {
        Connection {
            replies_left: seat.seats.limits.replies_max,
            stream,
            seat,
            published,
            responder: Responder::new(fastrand::u64(..)),
            inbox: BytesMut::new(),
            reply: Vec::new(),
            outbox: Vec::new(),
        }
    }

    async fn serve(mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let Limits { first_query_wait, next_query_wait, send_wait, .. } = self.seat.seats.limits;
        let mut deadline = Instant::now() + first_query_wait;
        loop {
            self.answer();
            if !self.outbox.is_empty() {
                within(Instant::now() + send_wait, self.stream.write_all(&self.outbox)).await?;
                self.outbox.clear();
                deadline = Instant::now() + next_query_wait;
            } else if self.replies_left == 0 {
                return within(Instant::now() + send_wait, self.close()).await;
            } else if within(deadline, self.read()).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Answers the whole messages of the inbox, as far as the outbox has room.
    fn answer(&mut self) {
        while self.replies_left > 0 && self.outbox.len() < OUTBOX_BYTES {
            let Some(message) = next_message(&mut self.inbox) else { return };
            let Published { catalog, settings, zones } = &self.published;
            let (catalog, settings, zones) = (catalog.load(), settings.load(), zones.load());
            let view = View { catalog: catalog.as_deref(), settings: &settings, zones: &zones };
            let asker = Asker { transport: Transport::Tcp, from: self.seat.client };
            self.reply.clear();
            self.responder.respond(&view, &asker, &message, &mut self.reply);
            if let (false, Ok(length)) = (self.reply.is_empty(), u16::try_from(self.reply.len())) {
                self.outbox.extend_from_slice(&length.to_be_bytes());
                self.outbox.extend_from_slice(&self.reply);
                self.replies_left -= 1;
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.inbox.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.inbox).await
    }

    /// Lets the client have what was sent: to close with questions unread would reset the connection, and the replies
    /// on their way would be lost.
    async fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        while self.read().await? > 0 {
            self.inbox.clear();
        }
        Ok(())
    }
}

async fn within<T>(deadline: Instant, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    time::timeout_at(deadline, work).await.map_err(io::Error::from)?
}

/// Takes the next message off the inbox, if it is there whole.
fn next_message(inbox: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::from(u16::from_be_bytes(*inbox.first_chunk()?));
    if inbox.len() < 2 + length {
        return None;
    }
    inbox.advance(2);
    Some(inbox.split_to(length))
}
