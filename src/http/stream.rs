//! Where requests come from: sockets of the network and of the file system, and connections on either. A connection is
//! left when its client stops taking what it is sent.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::{self, Instant, Sleep},
};

use super::settings::UnixSocket;

const BACKLOG: i32 = 1024;
/// After so long in silence a client is asked whether it is still there: one that lost its network says nothing more, and
/// would be followed or waited for without end.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A socket that is bound, and not answering yet.
pub enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// The name of a socket in the file system, gone with it.
pub struct SocketFile(PathBuf);

impl Bound {
    /// `only_v6` keeps an IPv6 wildcard to itself.
    pub fn tcp(addr: SocketAddr, only_v6: bool) -> io::Result<std::net::TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() && only_v6 {
            socket.set_only_v6(true)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }

    /// Takes the place of a socket that nobody answers at; nobody can connect before owner and mode are as they should.
    pub fn unix(wanted: &UnixSocket) -> io::Result<Bound> {
        make_way(&wanted.path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(&wanted.path)?)?;
        let file = SocketFile(wanted.path.clone());
        std::os::unix::fs::chown(&wanted.path, wanted.user, wanted.group)?;
        if let Some(mode) = wanted.mode {
            fs::set_permissions(&wanted.path, fs::Permissions::from_mode(mode))?;
        }
        socket.listen(BACKLOG)?;
        Ok(Bound::Unix(socket.into(), file))
    }
}

/// Removes a socket that somebody left behind, and nothing else.
fn make_way(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "a file that is no socket is there"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "somebody answers there")),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.0);
    }
}

/// A socket that connections come from.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "dropped with the listener")] SocketFile),
}

impl Listener {
    pub fn of(bound: Bound) -> io::Result<Listener> {
        Ok(match bound {
            Bound::Tcp(listener) => {
                listener.set_nonblocking(true)?; // one handed over may not be
                // Its connections have it from it.
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
                SockRef::from(&listener).set_tcp_keepalive(&keepalive)?;
                Listener::Tcp(TcpListener::from_std(listener)?)
            }
            Bound::Unix(listener, file) => {
                listener.set_nonblocking(true)?;
                Listener::Unix(UnixListener::from_std(listener)?, file)
            }
        })
    }

    /// The next connection, and who is at its other end, where that has an address.
    pub async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                // Answers go out whole; waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                Ok((Stream::Tcp(stream), Some(from.ip().to_canonical())))
            }
            Listener::Unix(listener, _) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }
}

pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

trait Both: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

impl Stream {
    fn both(&mut self) -> Pin<&mut dyn Both> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream),
            Stream::Unix(stream) => Pin::new(stream),
        }
    }
}

/// A connection whose client must go on taking what it is sent.
pub struct Taken {
    stream: Stream,
    send_wait: Duration,
    /// Since the client stopped taking.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Taken {
    pub fn new(stream: Stream, send_wait: Duration) -> Taken {
        Taken { stream, send_wait, stalled: None }
    }

    fn progress<T>(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            self.stalled = None;
            return sent;
        }
        let deadline = Instant::now() + self.send_wait;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(time::sleep_until(deadline)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Taken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.both().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Taken {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.stream.both().poll_write(cx, bytes);
        self.progress(cx, sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = self.stream.both().poll_write_vectored(cx, slices);
        self.progress(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        true // both kinds are
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.both().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.both().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silent_clients_are_asked_whether_they_are_there() {
        let bound = Bound::tcp(([127, 0, 0, 1], 0).into(), false).unwrap();
        let addr = bound.local_addr().unwrap();
        let listener = Listener::of(Bound::Tcp(bound)).unwrap();
        let _client = TcpStream::connect(addr).await.unwrap();
        let (Stream::Tcp(stream), _) = listener.accept().await.unwrap() else { panic!("it came over TCP") };
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }
}
