//! One request over HTTP/1.1, on a connection that is driven while its answer is read and gone afterwards.

use std::pin::pin;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

/// Why there is no answer.
pub enum Lost {
    Late,
    Error(hyper::Error),
}

/// An answer's header fields; whoever sends more is not listened to.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// The answer's head comes before the deadline or not at all; its body is `read`'s to wait for.
pub async fn exchange<S, T>(
    stream: TokioIo<S>,
    request: Request<Full<Bytes>>,
    deadline: Instant,
    read: impl AsyncFnOnce(Result<Response<Incoming>, Lost>) -> T,
) -> T
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEADER_BYTES_MAX).title_case_headers(true);
    let (mut sender, connection) = match builder.handshake::<_, Full<Bytes>>(stream).await {
        Ok(greeted) => greeted,
        Err(error) => return read(Err(Lost::Error(error))).await,
    };
    let mut asked = pin!(async {
        let answer = timeout_at(deadline, sender.send_request(request)).await;
        read(answer.map_or(Err(Lost::Late), |answer| answer.map_err(Lost::Error))).await
    });
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        // What it brought is read to the end.
        _ended = connection => asked.await,
    }
}
