//! Docker probes: a program inside a container, through the Docker API on its unix socket. Docker has no way to end such
//! a program; one that takes too long is left to its container.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, body::Incoming, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::UnixStream,
    time::{Instant, timeout_at},
};

use super::{
    Seen,
    exchange::{Lost, exchange},
    output::Tail,
    reason,
    script::{Ended, timed_out},
};

/// Where Docker listens, or why we cannot know.
pub struct Host(Result<PathBuf, String>);

const SOCKET: &str = "/var/run/docker.sock";
/// Of an answer that is not a program's output.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// A program's exit may become known a little after its output ended.
const EXIT_KNOWN_AFTER: Duration = Duration::from_millis(50);

impl Host {
    /// Of `DOCKER_HOST`, as Docker's own client reads it.
    pub fn of(docker_host: Option<&str>) -> Host {
        Host(match docker_host.filter(|host| !host.is_empty()) {
            None => Ok(SOCKET.into()),
            Some(host) => match host.strip_prefix("unix://") {
                Some(path) => Ok(path.into()),
                None => Err(format!("docker: DOCKER_HOST is {host:?}; expected unix:///path/to/docker.sock")),
            },
        })
    }
}

pub async fn look(
    container: &str,
    args: &Arc<[String]>,
    host: &Host,
    limit: Duration,
    output_bytes_max: usize,
) -> Seen {
    let deadline = Instant::now() + limit;
    let ended = async {
        let socket = host.0.as_deref().map_err(String::clone)?;
        run(container, args, Docker { socket, deadline }, output_bytes_max).await
    };
    let ended = timeout_at(deadline, ended).await.unwrap_or_else(|_| Err(timed_out(limit)));
    ended.map_or_else(Seen::critical, Ended::seen)
}

async fn run(
    container: &str,
    args: &Arc<[String]>,
    docker: Docker<'_>,
    output_bytes_max: usize,
) -> Result<Ended, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !container.bytes().all(is_plain) {
        return Err(format!("docker: {container:?} is no container's name or id"));
    }
    let create = json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": args[..] });
    let path = format!("/containers/{container}/exec");
    let created = docker.ask(Method::POST, &path, Some(create), read_json).await?;
    let id = created["Id"]
        .as_str()
        .filter(|id| id.bytes().all(is_plain))
        .ok_or("docker: an exec without an id")?;
    let start = json!({ "Detach": false, "Tty": false });
    let read = |answer| read_output(answer, output_bytes_max);
    let (kept, bytes) = docker.ask(Method::POST, &format!("/exec/{id}/start"), Some(start), read).await?;
    loop {
        let state = docker.ask(Method::GET, &format!("/exec/{id}/json"), None, read_json).await?;
        if state["Running"] != true {
            let code = state["ExitCode"].as_i64().and_then(|code| i32::try_from(code).ok());
            return Ok(Ended { code, kept, bytes });
        }
        tokio::time::sleep(EXIT_KNOWN_AFTER).await;
    }
}

/// Docker, for as long as one look may take.
#[derive(Clone, Copy)]
struct Docker<'a> {
    socket: &'a Path,
    deadline: Instant,
}

impl Docker<'_> {
    /// Asks one thing, on a connection of its own.
    async fn ask<T>(
        self,
        method: Method,
        path: &str,
        body: Option<Value>,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, String>,
    ) -> Result<T, String> {
        let stream = UnixStream::connect(self.socket).await.map_err(|error| {
            format!("docker: dial unix {}: connect: {}", self.socket.display(), lower(&error))
        })?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "docker")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.map_or_else(Bytes::new, |body| body.to_string().into())))
            .map_err(|error| format!("docker: {error}"))?;
        exchange(TokioIo::new(stream), request, self.deadline, async |answer| match answer {
            Ok(answer) if answer.status().is_success() => read(answer).await,
            Ok(answer) => {
                let status = answer.status();
                let said = read_json(answer).await.unwrap_or_default();
                let text = said["message"].as_str().or(status.canonical_reason()).unwrap_or_default();
                Err(format!("docker: {} {text}", status.as_u16()))
            }
            Err(Lost::Error(error)) => Err(format!("docker: {}", reason(&error))),
            Err(Lost::Late) => Err("docker: no answer in time".into()),
        })
        .await
    }
}

async fn read_json(answer: Response<Incoming>) -> Result<Value, String> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("docker: {error}"))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| format!("docker: {error}"))
}

/// What the program prints, until it ends.
async fn read_output(answer: Response<Incoming>, bytes_max: usize) -> Result<(Vec<u8>, usize), String> {
    let (mut body, mut frames, mut tail) = (answer.into_body(), Frames::default(), Tail::new(bytes_max));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("docker: {}", reason(&error)))?;
        if let Some(data) = frame.data_ref() {
            frames.push(data, &mut tail);
        }
    }
    Ok(tail.finish())
}

/// Docker's way of sending both streams over one: each piece behind a header of 8 bytes, of which the last 4 are its
/// length.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    left: usize,
}

impl Frames {
    fn push(&mut self, mut bytes: &[u8], tail: &mut Tail) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
                tail.push(piece);
                self.left -= piece.len();
                bytes = rest;
                continue;
            }
            let (piece, rest) = bytes.split_at((8 - self.header.len()).min(bytes.len()));
            self.header.extend(piece);
            bytes = rest;
            if let [.., a, b, c, d] = self.header[..]
                && self.header.len() == 8
            {
                self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                self.header.clear();
            }
        }
    }
}

fn lower(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut.
    #[test]
    fn frames_are_taken_apart() {
        let sent = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x03err";
        for size in 1..=sent.len() {
            let (mut frames, mut tail) = (Frames::default(), Tail::new(5));
            sent.chunks(size).for_each(|piece| frames.push(piece, &mut tail));
            assert_eq!(tail.finish(), (b"uterr".to_vec(), 6));
        }
    }

    #[test]
    fn docker_listens_where_its_own_client_looks() {
        let table = [
            (None, Ok(SOCKET)),
            (Some(""), Ok(SOCKET)),
            (Some("unix:///run/d.sock"), Ok("/run/d.sock")),
            (
                Some("tcp://10.0.0.1:2375"),
                Err("docker: DOCKER_HOST is \"tcp://10.0.0.1:2375\"; expected unix:///path/to/docker.sock"),
            ),
        ];
        for (given, expected) in table {
            assert_eq!(Host::of(given).0, expected.map(PathBuf::from).map_err(String::from));
        }
    }
}
