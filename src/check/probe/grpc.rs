//! gRPC probes: `grpc.health.v1.Health/Check`, once. Its two messages have a field each, so they are written and read
//! here by hand, on HTTP/2.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use hyper::{HeaderMap, Request, StatusCode, Version, header};
use tokio::time::timeout;

use super::{
    Seen, connect,
    h2::{drive, greet},
    percent_decoded,
    tls::{Protocol, Trust},
};
use crate::check::Tls;

/// `target` is `host:port` or `host:port/service`.
pub async fn look(target: &str, tls: Option<&Tls>, trust: &Trust, limit: Duration) -> Seen {
    let asked = timeout(limit, ask(target, tls, trust, limit)).await;
    let late = |_| Err(Fault { code: DEADLINE_EXCEEDED, text: "context deadline exceeded".into() });
    match asked.unwrap_or_else(late) {
        Ok(SERVING) => Seen::passing(format!("gRPC check {target}: success")),
        Ok(other) => {
            let said = usize::try_from(other).ok().and_then(|at| SERVING_STATUS.get(at));
            Seen::critical(format!("gRPC check {target}: {}", said.unwrap_or(&"UNKNOWN")))
        }
        Err(Fault { code, text }) => {
            let code = usize::try_from(code).ok().and_then(|at| CODES.get(at)).unwrap_or(&"Unknown");
            Seen::critical(format!("rpc error: code = {code} desc = {text}"))
        }
    }
}

/// What a call ended with, other than an answer.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    code: u32,
    text: String,
}

const SERVING: u64 = 1;
const SERVING_STATUS: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// The codes of gRPC, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;
/// An answer is 7 bytes; a server that sends more than this is not listened to.
const BODY_BYTES_MAX: usize = 16 << 10;

async fn ask(target: &str, tls: Option<&Tls>, trust: &Trust, limit: Duration) -> Result<u64, Fault> {
    let (address, service) = target.split_once('/').unwrap_or((target, ""));
    let dialing = |error: String| {
        unavailable(format!("connection error: desc = \"transport: Error while dialing: {error}\""))
    };
    let to = connect::split(address).map_err(|error| dialing(format!("dial tcp: {error}")))?;
    let stream = connect::open(to, tls, (trust, Protocol::Http2), limit).await.map_err(dialing)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let request = Request::post(format!("{scheme}://{address}/grpc.health.v1.Health/Check"))
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "Consul Health Check")
        .body(())
        .map_err(|error| Fault { code: INTERNAL, text: format!("{address}: {error}") })?;
    let (sender, connection) = greet(stream).await.map_err(unavailable)?;
    let answer = drive(connection, call(sender, request, question(service))).await.map_err(unavailable)?;
    answer.read()
}

/// What came back of a call.
struct Answer {
    status: StatusCode,
    body: BytesMut,
    headers: HeaderMap,
    trailers: HeaderMap,
}

async fn call(sender: SendRequest<Bytes>, request: Request<()>, message: Bytes) -> Result<Answer, h2::Error> {
    let (response, mut upload) = sender.ready().await?.send_request(request, false)?;
    upload.send_data(message, true)?;
    let (head, mut download) = response.await?.into_parts();
    let mut body = BytesMut::new();
    while body.len() <= BODY_BYTES_MAX
        && let Some(data) = download.data().await
    {
        let data = data?;
        download.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = if body.len() > BODY_BYTES_MAX { None } else { download.trailers().await? };
    Ok(Answer { status: head.status, body, headers: head.headers, trailers: trailers.unwrap_or_default() })
}

impl Answer {
    fn read(self) -> Result<u64, Fault> {
        // An answer without a message has its status among the headers.
        let ended = [&self.trailers, &self.headers].into_iter().find(|headers| headers.contains_key(STATUS));
        let Some(ended) = ended else { return Err(self.without_status()) };
        let text = |name| ended.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match text(STATUS).parse() {
            Ok(0) => serving(&self.body).ok_or(Fault { code: INTERNAL, text: "malformed answer".into() }),
            Ok(code) => Err(Fault { code, text: percent_decoded(text("grpc-message")) }),
            Err(_) => Err(Fault { code: UNKNOWN, text: format!("malformed grpc-status: {}", text(STATUS)) }),
        }
    }

    /// Whoever answered speaks HTTP/2, yet not gRPC.
    fn without_status(&self) -> Fault {
        let code = match self.status.as_u16() {
            200 => {
                return Fault {
                    code: INTERNAL,
                    text: "server closed the stream without sending trailers".into(),
                };
            }
            400 => INTERNAL,
            401 => UNAUTHENTICATED,
            403 => PERMISSION_DENIED,
            404 => UNIMPLEMENTED,
            429 | 502..=504 => UNAVAILABLE,
            _ => UNKNOWN,
        };
        let reason = self.status.canonical_reason().unwrap_or_default();
        let text =
            format!("unexpected HTTP status code received from server: {} ({reason})", self.status.as_u16());
        Fault { code, text }
    }
}

const STATUS: &str = "grpc-status";

fn unavailable(text: String) -> Fault {
    Fault { code: UNAVAILABLE, text }
}

/// `HealthCheckRequest { string service = 1 }`, framed.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1 }` out of its frame; fields of other numbers are passed over.
fn serving(framed: &[u8]) -> Option<u64> {
    let (&[compressed, a, b, c, d], rest) = framed.split_first_chunk::<5>()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    let mut message = rest.get(..length).filter(|_| compressed == 0)?;
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                status = if tag >> 3 == 1 { value } else { status };
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_and_read() {
        assert_eq!(&question("")[..], [0; 5]);
        assert_eq!(&question("web")[..], *b"\0\0\0\0\x05\x0a\x03web");
        assert_eq!(&question(&"x".repeat(300))[..9], *b"\0\0\0\x01\x2f\x0a\xac\x02x");
        let table: [(&[u8], Option<u64>); 10] = [
            (b"\0\0\0\0\x02\x08\x01", Some(1)),
            (b"\0\0\0\0\x00", Some(0)),
            (b"\0\0\0\0\x07\x12\x01x\x10\x05\x08\x02", Some(2)),
            (b"\0\0\0\0\x0f\x09\0\0\0\0\0\0\0\0\x0d\0\0\0\0\x08", None),
            (b"\0\0\0\0\x10\x11\0\0\0\0\0\0\0\0\x15\0\0\0\0\x08\x03", Some(3)),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\0\0\0\x03\x08\x01", None),
            (b"\0\0\0\0\x02\x12\x05", None),
            (b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\0\0", None),
        ];
        for (bytes, status) in table {
            assert_eq!(serving(bytes), status, "{bytes:?}");
        }
    }
}
