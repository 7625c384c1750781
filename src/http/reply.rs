//! What a request comes to: a status, a body of some kind, headers; and the faults that end it early, with Consul's
//! texts, since clients match on them (`http-api.md` §1.3).

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::{
    Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue},
};
use tokio::sync::mpsc;

use super::{
    agent::{Failure, Live},
    body::Pieces,
    encode::Json,
    frames::Frames,
    json::Malformed,
    list::{List, ZIP_BYTES_HERE_MAX},
};
use crate::catalog::Refusal;

pub struct Reply {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Body,
}

pub enum Body {
    Empty,
    /// Compact JSON.
    Json(Vec<u8>),
    /// Compact JSON that is kept.
    List(List),
    Text(String),
    Html(String),
    /// Bytes of somebody's own, which no browser shall make more of than text.
    Raw(Vec<u8>),
    /// Compressed as it is, in pieces.
    Archive(mpsc::Receiver<io::Result<Bytes>>),
    /// What comes without an end, of this type: sent part by part.
    Live(Live, &'static str),
    /// Another agent's, whose headers say what it is; its length, where that is known.
    Passed(Pieces, Option<u64>),
}

/// Why a request is refused.
#[derive(Debug, PartialEq)]
pub struct Fault {
    pub status: StatusCode,
    pub text: String,
}

pub type Outcome = Result<Reply, Fault>;

/// Smaller bodies are sent as they are.
const GZIP_BYTES_MIN: usize = 1400;

impl Reply {
    pub fn new(status: StatusCode, body: Body) -> Reply {
        Reply { status, headers: Vec::new(), body }
    }

    pub fn empty() -> Reply {
        Reply::new(StatusCode::OK, Body::Empty)
    }

    pub fn json(write: impl FnOnce(&mut Json)) -> Reply {
        let mut json = Json::default();
        write(&mut json);
        Reply::new(StatusCode::OK, Body::Json(json.into_bytes()))
    }

    /// A truth value, as writes answer.
    pub fn flag(flag: bool) -> Reply {
        Reply::json(|json| json.flag(flag))
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        if let Ok(value) = HeaderValue::try_from(value.to_string()) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    pub fn with_static(mut self, name: &'static str, value: &'static str) -> Reply {
        self.headers.push((HeaderName::from_static(name), HeaderValue::from_static(value)));
        self
    }

    pub fn with_number(mut self, name: &'static str, value: u64) -> Reply {
        self.headers.push((HeaderName::from_static(name), value.into()));
        self
    }

    /// It came from memory, and is as new as can be.
    pub fn remembered(self) -> Reply {
        self.with_static("x-cache", "HIT").with_static("age", "0")
    }

    /// The connection ends with this answer.
    pub fn last(self) -> Reply {
        self.with_static("connection", "close")
    }

    pub async fn into_response(self, gzip: bool) -> Response<Frames> {
        let kind = match self.body {
            Body::Empty | Body::Passed(..) => None,
            Body::Json(_) | Body::List(_) => Some("application/json"),
            Body::Text(_) => Some("text/plain; charset=utf-8"),
            Body::Html(_) => Some("text/html; charset=utf-8"),
            Body::Raw(_) => Some("text/plain"),
            Body::Archive(_) => Some("application/x-gzip"),
            Body::Live(_, kind) => Some(kind),
        };
        let (body, is_zipped) = self.body.into_frames(gzip).await;
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.reserve(self.headers.len() + 2);
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if is_zipped {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.extend(self.headers.into_iter().map(|(name, value)| (Some(name), value)));
        response
    }
}

impl Body {
    /// What is sent, and whether it is compressed.
    async fn into_frames(self, gzip: bool) -> (Frames, bool) {
        let bytes = match self {
            Body::Empty => Vec::new(),
            Body::List(list) => {
                let zips = gzip && list.bytes() >= GZIP_BYTES_MIN;
                let zipped = if zips { Box::pin(list.zipped()).await } else { None };
                let is_zipped = zipped.is_some();
                return (zipped.unwrap_or_else(|| list.frames()), is_zipped);
            }
            Body::Archive(pieces) => return (Frames::Coming(pieces), false),
            Body::Live(live, _) => return (Frames::Live(live), false),
            Body::Passed(pieces, bytes_left) => return (Frames::Passed { pieces, bytes_left }, false),
            Body::Json(bytes) | Body::Raw(bytes) => bytes,
            Body::Text(text) | Body::Html(text) => text.into_bytes(),
        };
        let zipped = if gzip && bytes.len() >= GZIP_BYTES_MIN { Box::pin(zip(&bytes)).await } else { None };
        let is_zipped = zipped.is_some();
        (Frames::One(zipped.unwrap_or(bytes).into()), is_zipped)
    }
}

impl Fault {
    pub fn new(status: StatusCode, text: impl Into<String>) -> Fault {
        Fault { status, text: text.into() }
    }

    pub fn bad(text: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, text)
    }

    pub fn missing(text: impl Into<String>) -> Fault {
        Fault::new(StatusCode::NOT_FOUND, text)
    }

    /// What a server says of a request that it will not do, and anything that may go better soon: clients try again at
    /// exactly this status.
    pub fn failed(text: impl Into<String>) -> Fault {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }
}

impl From<Fault> for Reply {
    fn from(fault: Fault) -> Reply {
        let body = if fault.text.is_empty() { Body::Empty } else { Body::Text(fault.text) };
        Reply::new(fault.status, body)
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Fault {
        Fault::bad(format!("Request decode failed: {malformed}"))
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        match failure {
            Failure::Unknown(text) => Fault::missing(text),
            failure => Fault::failed(failure.to_string()),
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::failed(refusal.to_string())
    }
}

/// `None` where it cannot be done; the body then goes as it is.
async fn zip(bytes: &[u8]) -> Option<Vec<u8>> {
    let zip = |bytes: &[u8]| -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
        encoder.write_all(bytes)?;
        encoder.finish()
    };
    if bytes.len() <= ZIP_BYTES_HERE_MAX {
        return zip(bytes).ok();
    }
    let bytes = bytes.to_vec();
    tokio::task::spawn_blocking(move || zip(&bytes)).await.ok()?.ok()
}
