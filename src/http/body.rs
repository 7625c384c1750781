//! A request's body: as it arrives, over a connection of ours or handed over by another agent; and gathered into one piece,
//! which holds no more than its bytes, in however many pieces it came.

use std::{
    error::Error,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::{
    Request, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::CONTENT_LENGTH,
};
use tokio_stream::Stream;

use super::reply::Fault;

/// Pieces of a body, as another agent hands them over.
pub type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

pub enum Arriving {
    Connected(Incoming),
    HandedOver(Pieces),
}

type AnyError = Box<dyn Error + Send + Sync>;

impl Body for Arriving {
    type Data = Bytes;
    type Error = AnyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnyError>>> {
        Poll::Ready(match &mut *self {
            Arriving::Connected(body) => {
                let next = ready!(Pin::new(body).poll_frame(cx));
                next.map(|frame| frame.map_err(AnyError::from))
            }
            Arriving::HandedOver(pieces) => {
                let next = ready!(pieces.as_mut().poll_next(cx));
                next.map(|piece| piece.map(Frame::data).map_err(AnyError::from))
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Arriving::Connected(body) => body.size_hint(),
            Arriving::HandedOver(_) => SizeHint::default(),
        }
    }
}

/// What the refusal of a large body points at.
const LIMITS_AT: &str = "https://www.consul.io/docs/agent/config/config-files";

/// # Errors
/// Where it is larger, or breaks off. `see` is what tells of the limit, after [`LIMITS_AT`].
pub async fn read<B>(request: Request<B>, bytes_max: usize, see: &str) -> Result<Bytes, Fault>
where
    B: Body<Data = Bytes, Error: Into<AnyError>>,
{
    let told = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let too_large = |bytes: String| {
        let see = if see.is_empty() { String::new() } else { format!(" See {LIMITS_AT}{see}.") };
        let text = format!("Request body({bytes} bytes) too large, max size: {bytes_max} bytes.{see}");
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    if let Some(bytes) = told.filter(|bytes: &u64| *bytes > bytes_max as u64) {
        return Err(too_large(bytes.to_string()));
    }
    let mut frames = pin!(Limited::new(request.into_body(), bytes_max));
    let mut body = BytesMut::new();
    while let Some(frame) = frames.frame().await {
        match frame.map(Frame::into_data) {
            // Copied, since each piece holds the buffer that it came in.
            Ok(Ok(piece)) => body.extend_from_slice(&piece),
            Ok(Err(_trailers)) => {}
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(too_large(format!("more than {bytes_max}")));
            }
            Err(error) => return Err(Fault::bad(format!("Request decode failed: {error}"))),
        }
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
    };

    use super::*;

    /// A body of many small pieces; each goes with the last hold on it.
    struct Pieces {
        left: usize,
        held: Arc<()>,
        held_max: Arc<AtomicUsize>,
    }

    struct Piece(#[expect(dead_code, reason = "held as long as the piece is")] Arc<()>);

    impl AsRef<[u8]> for Piece {
        fn as_ref(&self) -> &[u8] {
            b"x"
        }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.held_max.fetch_max(Arc::strong_count(&self.held) - 1, Relaxed);
            let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
            self.left = left;
            let piece = Piece(self.held.clone());
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
        }
    }

    #[tokio::test]
    async fn a_body_of_many_pieces_holds_no_more_than_its_bytes() {
        let held_max = Arc::new(AtomicUsize::new(0));
        let pieces = |left| Pieces { left, held: Arc::default(), held_max: held_max.clone() };
        let body = read(Request::new(pieces(1_000)), 1_000, "").await;
        assert_eq!(body, Ok("x".repeat(1_000).into()));
        assert!(held_max.load(Relaxed) <= 1, "{held_max:?} pieces were held at a time");
        let fault = read(Request::new(pieces(1_001)), 1_000, "").await.unwrap_err();
        let text = "Request body(more than 1000 bytes) too large, max size: 1000 bytes.";
        assert_eq!(fault, Fault::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
}
