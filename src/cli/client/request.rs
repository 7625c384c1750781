//! A request as a command states it, and as it is sent.

use std::{
    cell::Cell,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Method,
    body::{Body, Frame, SizeHint},
};
use url::form_urlencoded;

use super::DEADLINE;
use crate::cli::output::Progress;

/// For an answer to come, beyond the wait that was asked for: a server stretches that by a sixteenth.
const WAIT_MARGIN: Duration = Duration::from_secs(20);

/// A parameter of a query.
pub type Pair = (&'static str, String);

pub struct Request {
    pub method: Method,
    pub path: String,
    query: Vec<Pair>,
    body: Bytes,
    pub deadline: Duration,
    progress: Cell<Option<Progress>>,
}

impl Request {
    pub fn get(path: impl Into<String>) -> Request {
        Request::new(Method::GET, path.into())
    }

    pub fn put(path: impl Into<String>) -> Request {
        Request::new(Method::PUT, path.into())
    }

    pub fn post(path: impl Into<String>) -> Request {
        Request::new(Method::POST, path.into())
    }

    pub fn delete(path: impl Into<String>) -> Request {
        Request::new(Method::DELETE, path.into())
    }

    fn new(method: Method, path: String) -> Request {
        Request {
            method,
            path,
            query: Vec::new(),
            body: Bytes::new(),
            deadline: DEADLINE,
            progress: Cell::new(None),
        }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.query.push((name, value.into()));
        self
    }

    /// Without the parameter where there is no value.
    pub fn with_any<V: Into<String>>(
        self,
        name: &'static str,
        values: impl IntoIterator<Item = V>,
    ) -> Request {
        values.into_iter().fold(self, |request, value| request.with(name, value))
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Request {
        self.body = body.into();
        self
    }

    /// Told of the body as it is sent.
    pub fn told(self, progress: Progress) -> Request {
        self.progress.set(Some(progress));
        self
    }

    pub fn deadline(mut self, deadline: Duration) -> Request {
        self.deadline = deadline;
        self
    }

    /// To be answered when there is something newer than `index`, or after `wait`; at once where `index` is 0.
    pub fn newer_than(self, index: u64, wait: Duration) -> Request {
        if index == 0 {
            return self;
        }
        let deadline = wait + wait / 16 + WAIT_MARGIN;
        let wait = format!("{}ms", wait.as_millis());
        self.with("index", index.to_string()).with("wait", wait).deadline(deadline)
    }

    pub fn upload(&self) -> Upload {
        Upload { rest: self.body.clone(), progress: self.progress.take() }
    }

    /// The query, with what belongs to every request and to every read.
    pub fn query(&self, common: &[Pair], of_reads: &[Pair]) -> String {
        // Who asks for the last word does not take an old one.
        let may_be_old =
            self.method == Method::GET && !self.query.iter().any(|(name, _)| *name == "consistent");
        let of_reads = of_reads.iter().filter(|_| may_be_old);
        let mut pairs: Vec<_> = common.iter().chain(of_reads).chain(&self.query).collect();
        if pairs.is_empty() {
            return String::new();
        }
        pairs.sort_by_key(|(name, _)| *name);
        let mut query = form_urlencoded::Serializer::for_suffix(String::from("?"), 1);
        pairs.into_iter().for_each(|(name, value)| {
            query.append_pair(name, value);
        });
        query.finish()
    }
}

/// A body on its way, in pieces that can be told of.
pub struct Upload {
    rest: Bytes,
    progress: Option<Progress>,
}

const PIECE_BYTES: usize = 64 * 1024;

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            self.progress = None;
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        self.progress.iter_mut().for_each(|progress| progress.add(piece.len() as u64));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A path as it is sent: what has a meaning in a URL keeps it only as a slash.
pub fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => escaped.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_their_slashes_alone() {
        assert_eq!(escape("/v1/kv/a b/%?#é+c"), "/v1/kv/a%20b/%25%3F%23%C3%A9+c");
    }
}
