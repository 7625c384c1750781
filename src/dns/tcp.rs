//! The TCP road (RFC 7766): messages behind their length, several to a connection, answered in order. Everything that a
//! client may take of us has an end: connections, replies, time, bytes.

use std::{future::Future, io, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    Asker, Errands, Outcome, Published, Responder, Transport, View,
    seats::{Seat, Seats, SeatsMax},
    tally::{Tally, Watch},
};

/// What a client may take of us.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open at once, over all addresses where we listen.
    pub connections_max: usize,
    /// Of those, from one address.
    pub connections_per_client_max: usize,
    /// To one connection, which is then closed.
    pub replies_max: u32,
    /// Questions of one connection that wait for an answer from elsewhere: no more are read.
    pub errands_max: usize,
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
            errands_max: 32,
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
    limits: Limits,
    seats: Arc<Seats>,
    published: Published,
    errands: Errands,
    tally: Arc<Tally>,
    shutdown: CancellationToken,
) {
    let most = SeatsMax { all: limits.connections_max, per_client: limits.connections_per_client_max };
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
        // No seat is held for long without asking, and one address cannot take them all.
        let Some(seat) = seats.take(from.ip().to_canonical(), most) else {
            published.counters.turned_away.add(1);
            continue;
        };
        let shutdown = shutdown.clone();
        let responder = Responder::counting(tally.clone(), false).handing_on(errands.hand_on());
        let connection =
            Connection::new(stream, seat, limits.clone(), published.clone(), errands.clone(), responder);
        connections.spawn(async move {
            // A client that breaks off is no fault of ours.
            let _ = shutdown.run_until_cancelled(connection.serve()).await;
        });
    }
    connections.join_all().await;
}

struct Connection {
    stream: TcpStream,
    seat: Seat,
    limits: Limits,
    published: Published,
    errands: Errands,
    responder: Responder,
    /// Received, not yet answered: at most one message that is not whole, and what came in the same read.
    inbox: BytesMut,
    reply: Vec<u8>,
    /// Replies behind their lengths, not yet sent.
    outbox: Vec<u8>,
    /// Replies that may still be promised.
    replies_left: u32,
    /// Errands whose replies are to come, in the order in which they are had (RFC 7766 §6.2.1.1); by `awaited_until`,
    /// or they never will.
    awaited: usize,
    awaited_until: Instant,
    later: (mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>),
}

/// Replies are sent once so many bytes wait; the last of them may go beyond by its own length.
const OUTBOX_BYTES: usize = 16 * 1024;

/// Room for a read: a few questions.
const READ_BYTES: usize = 1024;

impl Connection {
    fn new(
        stream: TcpStream,
        seat: Seat,
        limits: Limits,
        published: Published,
        errands: Errands,
        responder: Responder,
    ) -> Self {
        Connection {
            replies_left: limits.replies_max,
            later: mpsc::channel(limits.errands_max.max(1)),
            stream,
            seat,
            limits,
            published,
            errands,
            responder,
            inbox: BytesMut::new(),
            reply: Vec::new(),
            outbox: Vec::new(),
            awaited: 0,
            awaited_until: Instant::now(),
        }
    }

    async fn serve(mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let Limits { first_query_wait, next_query_wait, send_wait, errands_max, .. } = self.limits;
        let mut deadline = Instant::now() + first_query_wait;
        let mut is_ended = false;
        loop {
            self.answer();
            if !self.outbox.is_empty() {
                within(Instant::now() + send_wait, self.stream.write_all(&self.outbox)).await?;
                self.outbox.clear();
                deadline = Instant::now() + next_query_wait;
            } else if self.awaited == 0 && is_ended {
                return Ok(());
            } else if self.awaited == 0 && self.replies_left == 0 {
                return within(Instant::now() + send_wait, self.close()).await;
            } else if self.awaited == 0 {
                is_ended = within(deadline, self.read()).await? == 0;
            } else if is_ended || self.awaited >= errands_max || self.replies_left == 0 {
                let reply = time::timeout_at(self.awaited_until, self.later.1.recv()).await?;
                self.awaited -= 1;
                self.put(&reply.unwrap_or_default());
            } else {
                self.inbox.reserve(READ_BYTES);
                tokio::select! {
                    Some(reply) = self.later.1.recv() => {
                        self.awaited -= 1;
                        self.put(&reply);
                    }
                    read = self.stream.read_buf(&mut self.inbox) => is_ended = read? == 0,
                    () = time::sleep_until(self.awaited_until) => return Err(io::ErrorKind::TimedOut.into()),
                }
            }
        }
    }

    /// Answers the whole messages of the inbox, as far as the outbox has room.
    fn answer(&mut self) {
        let mut watch = None;
        while self.replies_left > 0
            && self.outbox.len() < OUTBOX_BYTES
            && self.awaited < self.limits.errands_max
            && let Some(message) = next_message(&mut self.inbox)
        {
            watch.get_or_insert_with(Watch::start);
            let Published { catalog, settings, zones, .. } = &self.published;
            let (catalog, settings, zones) = (catalog.load(), settings.load(), zones.load());
            let fresh = self.published.is_fresh();
            let view = View { catalog: catalog.as_deref(), settings: &settings, zones: &zones, fresh };
            let asker = Asker { transport: Transport::Tcp, from: self.seat.client };
            let mut reply = std::mem::take(&mut self.reply);
            match self.responder.respond(&view, &asker, &message, &mut reply) {
                Outcome::Silent => {}
                Outcome::Answered => self.replies_left -= 1,
                Outcome::Later(errand) => {
                    self.replies_left -= 1;
                    let later = self.later.0.clone();
                    let patience = errand.patience(&settings.recursion);
                    // There is room: no more are awaited than the channel holds. Nobody may be left to take it.
                    self.errands.take(errand, &mut reply, move |reply| drop(later.try_send(reply)));
                    self.awaited += usize::from(reply.is_empty());
                    self.awaited_until = Instant::now() + patience + self.limits.send_wait;
                }
            }
            self.put(&reply);
            self.reply = reply;
        }
        if let Some(watch) = watch {
            self.responder.took(watch.nanos());
        }
    }

    fn put(&mut self, reply: &[u8]) {
        if let (false, Ok(length)) = (reply.is_empty(), u16::try_from(reply.len())) {
            self.outbox.extend_from_slice(&length.to_be_bytes());
            self.outbox.extend_from_slice(reply);
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
