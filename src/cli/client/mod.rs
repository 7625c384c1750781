//! How commands speak to an agent: where it is, with which token, and what its errors look like (`config-cli.md` §3,
//! §5.1). A request has a deadline; a stream has one until it begins.

mod place;
mod request;

use std::{cell::Cell, env, str::FromStr, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Response, Uri,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use self::{
    place::{Road, parse_address, switch, token},
    request::{Upload, escape},
};
use super::{
    Doing, Failure, Outcome,
    line::{Flag, Line},
};

pub use request::Request;

/// Of every command that speaks to an agent.
pub const AGENT: &[Flag] = &[
    Flag::text("http-addr", "where the agent is: HOST:PORT, a URL or unix:///PATH; CONSUL_HTTP_ADDR"),
    Flag::text("token", "the token of the request; CONSUL_HTTP_TOKEN"),
    Flag::text("token-file", "a file that holds it; CONSUL_HTTP_TOKEN_FILE"),
    Flag::text("ca-file", "accepted: https is not spoken yet"),
    Flag::text("ca-path", "accepted: https is not spoken yet"),
    Flag::text("client-cert", "accepted: https is not spoken yet"),
    Flag::text("client-key", "accepted: https is not spoken yet"),
    Flag::text("tls-server-name", "accepted: https is not spoken yet"),
];

/// Of those whose agent may have to ask its servers.
pub const SERVERS: &[Flag] = &[
    Flag::text("datacenter", "the datacenter asked; that of the agent where not given"),
    Flag::switch("stale", "any server may answer, not only the leader"),
    Flag::text("namespace", "sent as it is; CONSUL_NAMESPACE"),
    Flag::text("partition", "sent as it is; CONSUL_PARTITION"),
];

/// Whether a flag is no command's own.
pub fn is_common(flag: &str) -> bool {
    AGENT.iter().chain(SERVERS).any(|common| common.name == flag)
}

/// A request is answered within this, where it does not say otherwise.
const DEADLINE: Duration = Duration::from_secs(60);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
pub struct Client {
    road: Road,
    /// As errors name it, with the path that everything lies below.
    base: String,
    host: HeaderValue,
    prefix: String,
    token: Option<HeaderValue>,
    authorization: Option<HeaderValue>,
    /// Parameters of every request, and those of reads alone.
    common: Vec<(&'static str, String)>,
    of_reads: Vec<(&'static str, String)>,
    /// A connection that has answered everything it was asked.
    idle: Cell<Option<SendRequest<Upload>>>,
}

pub struct Answer {
    pub code: u16,
    /// Where the next wait goes on from; 0 where none was told.
    pub index: u64,
    pub body: Bytes,
}

/// Why there is no answer to go on with.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Nobody answered. What was asked may have been done.
    #[error("{0}")]
    Way(String),
    #[error("Unexpected response code: {0} ({1})")]
    Code(u16, String),
}

/// Runs a command that speaks to the agent that its line names.
pub fn ask(line: Line, command: impl AsyncFnOnce(Client, Line) -> Outcome) -> Outcome {
    let client = Client::of(&line).doing("Error connecting to Consul agent")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(error.to_string()))?;
    let outcome = runtime.block_on(command(client, line));
    // A read of standard input may still hang.
    runtime.shutdown_background();
    outcome
}

impl Answer {
    /// # Errors
    /// Where it is not what the API promises.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Lost> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Lost::Way(format!("an answer not understood: {error}")))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether a write was done, of those that answer so.
    pub fn is_true(&self) -> bool {
        self.body.trim_ascii() == b"true"
    }
}

/// Where to wait on from: an index that fell is begun anew, and none is below 1.
pub fn next_index(before: u64, answered: u64) -> u64 {
    if answered.max(1) < before { 0 } else { answered.max(1) }
}

impl Client {
    fn of(line: &Line) -> Result<Client, String> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let flag = |name: &str| line.text(name).filter(|value| !value.is_empty()).map(String::from);
        let address = flag("http-addr").or_else(|| variable("CONSUL_HTTP_ADDR"));
        let mut address = address.unwrap_or_else(|| "127.0.0.1:8500".into());
        switch("CONSUL_HTTP_SSL_VERIFY");
        if !address.contains("://") && switch("CONSUL_HTTP_SSL") {
            address = format!("https://{address}");
        }
        let (road, host, prefix) = parse_address(&address)?;
        let base = match &road {
            Road::Tcp(..) => format!("http://{host}{prefix}"),
            Road::Unix(path) => format!("unix://{}", path.display()),
        };
        let of_servers = line.declares("datacenter");
        let of_servers = |name: &str| of_servers.then(|| flag(name)).flatten();
        let common = [
            ("dc", of_servers("datacenter")),
            ("ns", of_servers("namespace").or_else(|| variable("CONSUL_NAMESPACE"))),
            ("partition", of_servers("partition").or_else(|| variable("CONSUL_PARTITION"))),
        ];
        let is_stale = line.declares("stale") && line.is("stale");
        let header = |what: &str, value: String| {
            HeaderValue::from_str(&value)
                .map_err(|_| format!("{what} cannot be sent: it has a line break, or bytes that are no text"))
        };
        let basic =
            variable("CONSUL_HTTP_AUTH").map(|auth| format!("Basic {}", BASE64_STANDARD.encode(auth)));
        Ok(Client {
            road,
            base,
            host: header("the address", host)?,
            prefix,
            token: token(flag, variable)?.map(|token| header("the token", token)).transpose()?,
            authorization: basic.map(|value| header("CONSUL_HTTP_AUTH", value)).transpose()?,
            common: common.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            of_reads: is_stale.then(|| ("stale", String::new())).into_iter().collect(),
            idle: Cell::new(None),
        })
    }

    /// An answer, whatever its code.
    pub async fn send(&self, request: Request) -> Result<Answer, Lost> {
        let (uri, shown) = (self.uri(&request)?, self.shown(&request));
        let whole = async {
            let (response, connection) = self.exchange(&request, uri).await?;
            let index = response.headers().get("x-consul-index");
            let index = index.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
            let code = response.status().as_u16();
            let body = response.into_body().collect().await.map_err(|error| cause(&error))?.to_bytes();
            self.idle.set(Some(connection));
            Ok(Answer { code, index, body })
        };
        let ended: Result<Answer, String> =
            timeout(request.deadline, whole).await.unwrap_or_else(|_| Err(LATE.into()));
        ended.map_err(|reason| Lost::Way(format!("{shown}: {reason}")))
    }

    /// An answer that is no error.
    pub async fn ok(&self, request: Request) -> Result<Answer, Lost> {
        let answer = self.send(request).await?;
        if answer.code == 200 { Ok(answer) } else { Err(Lost::Code(answer.code, answer.text())) }
    }

    /// `None` where it is not there.
    pub async fn find(&self, request: Request) -> Result<Option<Answer>, Lost> {
        match self.ok(request).await {
            Err(Lost::Code(404, body)) if body.is_empty() => Ok(None),
            other => other.map(Some),
        }
    }

    pub async fn read<T: DeserializeOwned>(&self, request: Request) -> Result<T, Lost> {
        self.ok(request).await?.read()
    }

    /// The body of an answer as it comes. Its connection is the stream's own.
    pub async fn stream(&self, request: Request) -> Result<Stream, Lost> {
        let (uri, shown) = (self.uri(&request)?, self.shown(&request));
        let begun = timeout(request.deadline, self.exchange(&request, uri)).await;
        let begun = begun.unwrap_or_else(|_| Err(LATE.into()));
        let (response, connection) = begun.map_err(|reason| Lost::Way(format!("{shown}: {reason}")))?;
        let code = response.status().as_u16();
        let stream = Stream { body: response.into_body(), shown, _connection: connection };
        if code == 200 {
            return Ok(stream);
        }
        let text = timeout(DEADLINE, stream.body.collect()).await;
        let text = text.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        Err(Lost::Code(code, String::from_utf8_lossy(&text).into_owned()))
    }

    /// Over the idle connection, where there is one that still stands.
    async fn exchange(
        &self,
        request: &Request,
        uri: Uri,
    ) -> Result<(Response<Incoming>, SendRequest<Upload>), String> {
        let mut message = hyper::Request::new(request.upload());
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = uri;
        let headers = message.headers_mut();
        headers.insert(HOST, self.host.clone());
        self.token.iter().for_each(|token| drop(headers.insert("x-consul-token", token.clone())));
        self.authorization.iter().for_each(|value| drop(headers.insert("authorization", value.clone())));
        if let Some(mut connection) = self.idle.take()
            && connection.ready().await.is_ok()
        {
            match connection.try_send_request(message).await {
                Ok(response) => return Ok((response, connection)),
                // It was closed before anything was sent.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => message = unsent,
                    None => return Err(cause(failed.error())),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send_request(message).await.map_err(|error| cause(&error))?;
        Ok((response, connection))
    }

    async fn connect(&self) -> Result<SendRequest<Upload>, String> {
        let late = || Err(std::io::ErrorKind::TimedOut.into());
        match &self.road {
            Road::Tcp(host, port) => {
                let dialled = timeout(CONNECT_DEADLINE, dial(host, *port)).await;
                let stream = dialled.map_err(|_| format!("dial tcp {host}:{port}: i/o timeout"))??;
                let _slower = stream.set_nodelay(true);
                speak(stream).await
            }
            Road::Unix(path) => {
                let connected = timeout(CONNECT_DEADLINE, UnixStream::connect(path)).await;
                let told = |error| format!("dial unix {}: connect: {}", path.display(), reason(&error));
                speak(connected.unwrap_or_else(|_| late()).map_err(told)?).await
            }
        }
    }

    fn uri(&self, request: &Request) -> Result<Uri, Lost> {
        let target = format!(
            "{}{}{}",
            self.prefix,
            escape(&request.path),
            request.query(&self.common, &self.of_reads)
        );
        Uri::from_str(&target).map_err(|error| Lost::Way(format!("{target:?} cannot be asked for: {error}")))
    }

    /// As Go names a request that failed.
    fn shown(&self, request: &Request) -> String {
        let method = request.method.as_str();
        let verb = [&method[..1], &method[1..].to_ascii_lowercase()].concat();
        format!(
            "{verb} \"{}{}{}\"",
            self.base,
            escape(&request.path),
            request.query(&self.common, &self.of_reads)
        )
    }
}

const LATE: &str = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";

/// What an agent sends as long as it lasts.
pub struct Stream {
    body: Incoming,
    shown: String,
    /// The body ends with it.
    _connection: SendRequest<Upload>,
}

impl Stream {
    /// The next piece; `None` at its end. It may be waited for without end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Lost> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(Lost::Way(format!("{}: {}", self.shown, cause(&error)))),
            }
        }
    }
}

/// The first address of a host that answers; else what the last one said.
async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let unknown = |error| format!("dial tcp: lookup {name}: {}", reason(&error));
    let mut last = format!("dial tcp: lookup {name}: no such host");
    for addr in tokio::net::lookup_host((name, port)).await.map_err(unknown)? {
        match TcpStream::connect(addr).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("dial tcp {addr}: connect: {}", reason(&error)),
        }
    }
    Err(last)
}

async fn speak<S>(stream: S) -> Result<SendRequest<Upload>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| cause(&error))?;
    // It ends with its sender, or with the command.
    tokio::spawn(connection);
    Ok(sender)
}

/// The innermost reason: the outer ones say less.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<std::io::Error>() {
        Some(error) => reason(error),
        None => innermost.to_string(),
    }
}

/// In the words of the system, without its number: `connection refused`.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_fell_is_begun_anew() {
        let next = |before, answered| next_index(before, answered);
        assert_eq!((next(0, 0), next(7, 6), next(7, 7), next(7, 9)), (1, 0, 7, 9));
        assert_eq!(next(1, 0), 1);
    }
}
