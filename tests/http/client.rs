//! The least of an HTTP client: what is sent is what the test wrote, and what came is shown as it came.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Whatever a test waits for comes sooner, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// As they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is a text")
    }

    /// Reads one answer that ends with its length.
    pub async fn read(stream: &mut TcpStream) -> Answer {
        Answer::read_to(stream, "GET").await
    }

    async fn read_to(stream: &mut TcpStream, method: &str) -> Answer {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            let mut some = [0; 4096];
            let length = timeout(DEADLINE, stream.read(&mut some)).await.expect("an answer comes").unwrap();
            assert!(length > 0, "the connection ended: {:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&some[..length]);
        };
        let mut body = bytes.split_off(head + 4);
        let head = String::from_utf8(bytes).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(':').expect("a header"));
        let headers = headers.map(|(name, value)| (name.into(), value.trim().into())).collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = read_chunks(stream, body).await;
            return answer;
        }
        let length = answer.header("content-length").filter(|_| method != "HEAD");
        let length = length.map_or(0, |length| length.parse().unwrap());
        let had = body.len();
        body.resize(length, 0);
        timeout(DEADLINE, stream.read_exact(&mut body[had..])).await.expect("the body comes").unwrap();
        answer.body = body;
        answer
    }
}

/// A body in chunks, of which some bytes are there.
async fn read_chunks(stream: &mut TcpStream, mut bytes: Vec<u8>) -> Vec<u8> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n");
        let size = line.map(|end| {
            let text = std::str::from_utf8(&bytes[at..at + end]).expect("the size of a chunk");
            (at + end + 2, usize::from_str_radix(text, 16).expect("in hexadecimal digits"))
        });
        match size {
            Some((from, size)) if bytes.len() >= from + size + 2 => {
                if size == 0 {
                    return body;
                }
                body.extend_from_slice(&bytes[from..from + size]);
                at = from + size + 2;
            }
            _ => {
                let mut some = [0; 4096];
                let length = timeout(DEADLINE, stream.read(&mut some)).await.expect("more comes").unwrap();
                assert!(length > 0, "the connection ended within a body");
                bytes.extend_from_slice(&some[..length]);
            }
        }
    }
}

pub async fn connect(addr: SocketAddr) -> TcpStream {
    timeout(DEADLINE, TcpStream::connect(addr)).await.expect("somebody listens").unwrap()
}

/// Sends these bytes on a connection of their own, and reads one answer.
pub async fn send(addr: SocketAddr, request: &str) -> Answer {
    let mut stream = connect(addr).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    Answer::read_to(&mut stream, request.split(' ').next().unwrap_or_default()).await
}

/// A body that is no text.
pub async fn put_bytes(addr: SocketAddr, path: &str, body: &[u8]) -> Answer {
    let head = format!("PUT {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut stream = connect(addr).await;
    // Whoever is refused at its beginning is not read to its end.
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    Answer::read_to(&mut stream, "PUT").await
}

pub async fn ask(addr: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    send(addr, &format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{length}{headers}\r\n{body}")).await
}

pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    ask(addr, "GET", path, "", "").await
}

pub async fn put(addr: SocketAddr, path: &str, body: &str) -> Answer {
    ask(addr, "PUT", path, "", body).await
}
