//! A question of our own, to see whether the answer comes. UDP, one name, no options.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

const REPLY_WAIT: Duration = Duration::from_secs(2);
/// A resolver that was just started again may not be there at once.
const TRIES: usize = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(300);
const SOA: u16 = 6;

/// Asks for the SOA of a zone until it comes.
///
/// # Errors
/// What came instead at last.
pub fn ask(server: SocketAddr, zone: &str) -> Result<(), String> {
    let mut last = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            #[expect(clippy::disallowed_methods, reason = "a command waits for a daemon, a few times")]
            std::thread::sleep(BETWEEN_TRIES);
        }
        match exchange(server, &question(attempt as u16, zone)).map(|reply| judge(&reply, attempt as u16)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(text)) => last = text,
            Err(error) => last = no_reply(&error),
        }
    }
    Err(last)
}

fn exchange(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(REPLY_WAIT))?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut reply = vec![0; 4096];
    let length = socket.recv(&mut reply)?;
    reply.truncate(length);
    Ok(reply)
}

fn no_reply(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no reply in time".into(),
        io::ErrorKind::ConnectionRefused => "nobody listens there".into(),
        _ => error.to_string(),
    }
}

fn question(id: u16, zone: &str) -> Vec<u8> {
    // RD, one question.
    let mut packet = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in zone.split('.').filter(|label| !label.is_empty()) {
        packet.push(label.len().min(63) as u8);
        packet.extend_from_slice(&label.as_bytes()[..label.len().min(63)]);
    }
    packet.push(0);
    packet.extend_from_slice(&SOA.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet
}

fn judge(reply: &[u8], id: u16) -> Result<(), String> {
    let Some(head) = reply.first_chunk::<12>() else { return Err("a reply too short to be one".into()) };
    if u16::from_be_bytes([head[0], head[1]]) != id || head[2] & 0x80 == 0 {
        return Err("a reply to another question".into());
    }
    match (head[3] & 15, u16::from_be_bytes([head[6], head[7]])) {
        (0, 0) => Err("a reply without an answer".into()),
        (0, _) => Ok(()),
        (2, _) => Err("SERVFAIL".into()),
        (3, _) => Err("NXDOMAIN: someone else answered".into()),
        (5, _) => Err("REFUSED".into()),
        (code, _) => Err(format!("response code {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_the_question_counts() {
        let reply = |flags: u8, code: u8, answers: u8| [0, 7, flags, code, 0, 1, 0, answers, 0, 0, 0, 0];
        assert_eq!(judge(&reply(0x81, 0, 1), 7), Ok(()));
        for (reply, fault) in [
            (reply(0x81, 0, 0), "without an answer"),
            (reply(0x81, 0x82, 0), "SERVFAIL"),
            (reply(0x81, 3, 0), "NXDOMAIN"),
            (reply(1, 0, 1), "another question"),
        ] {
            assert!(judge(&reply, 7).unwrap_err().contains(fault), "{fault}");
        }
        assert!(judge(&reply(0x81, 0, 1), 8).is_err() && judge(&[0; 11], 0).is_err());
        assert_eq!(question(7, "a.bc")[12..], [1, b'a', 2, b'b', b'c', 0, 0, 6, 0, 1]);
    }
}
