//! One question to one recursor: by UDP from a port and with an id of its own, and by TCP where the reply is larger. All
//! the waiting for one recursor is here.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{self, error::Elapsed},
};
use uuid::Uuid;

use super::message::{Heard, Mark, Message, Question, UDP_READ_BYTES};

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing came in time, or nothing can be sent there.
    Silent,
    /// What came is of no help.
    Useless,
}

/// Asks, and takes no longer than `wait` by UDP, and as long again by TCP; and so once more without OPT, of whoever does
/// not understand it (RFC 6891 §7).
pub async fn ask(to: SocketAddr, question: &Question, mark: &Mark, wait: Duration) -> Result<Message, Fault> {
    let heard = match ask_with(to, question, Some(mark), wait).await {
        Ok(Ok(Heard::Unread)) => ask_with(to, question, None, wait).await,
        heard => heard,
    };
    match heard {
        Ok(Ok(Heard::Good(message))) => Ok(message),
        Ok(Ok(_)) => Err(Fault::Useless),
        Ok(Err(_)) | Err(_) => Err(Fault::Silent),
    }
}

async fn ask_with(
    to: SocketAddr,
    question: &Question,
    mark: Option<&Mark>,
    wait: Duration,
) -> Result<io::Result<Heard>, Elapsed> {
    match time::timeout(wait, ask_udp(to, question, mark)).await {
        Ok(Ok(Heard::Truncated)) => time::timeout(wait, ask_tcp(to, question, mark)).await,
        heard => heard,
    }
}

/// What is no reply to this question is overheard: whoever guesses must guess port and id before the recursor answers.
async fn ask_udp(to: SocketAddr, question: &Question, mark: Option<&Mark>) -> io::Result<Heard> {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(to).await?;
    let id = random_id();
    socket.send(&question.packet(id, mark)).await?;
    let mut packet = vec![0; UDP_READ_BYTES];
    loop {
        let length = socket.recv(&mut packet).await?;
        let heard = question.hear(id, &packet[..length]);
        if heard != Heard::Noise {
            return Ok(heard);
        }
    }
}

async fn ask_tcp(to: SocketAddr, question: &Question, mark: Option<&Mark>) -> io::Result<Heard> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let id = random_id();
    let packet = question.packet(id, mark);
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), &packet[..]].concat()).await?;
    let mut reply = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut reply).await?;
    Ok(question.hear(id, &reply))
}

/// From the system, since whoever can foresee it can forge replies.
fn random_id() -> u16 {
    let [first, second, ..] = Uuid::new_v4().into_bytes();
    u16::from_be_bytes([first, second])
}
