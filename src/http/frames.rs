//! Bodies as they are sent: one piece, or several after each other, of a length that is known. Pieces are shared, not
//! copied.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

pub enum Frames {
    One(Bytes),
    Several { frames: vec::IntoIter<Bytes>, bytes_left: u64 },
}

impl From<Vec<Bytes>> for Frames {
    fn from(frames: Vec<Bytes>) -> Frames {
        let bytes_left = frames.iter().map(|frame| frame.len() as u64).sum();
        Frames::Several { frames: frames.into_iter(), bytes_left }
    }
}

impl Frames {
    fn bytes_left(&self) -> u64 {
        match self {
            Frames::One(frame) => frame.len() as u64,
            Frames::Several { bytes_left, .. } => *bytes_left,
        }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Frames::One(frame) if frame.is_empty() => None,
            Frames::One(frame) => Some(std::mem::take(frame)),
            Frames::Several { frames, bytes_left } => {
                frames.next().inspect(|frame| *bytes_left -= frame.len() as u64)
            }
        };
        Poll::Ready(next.map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left())
    }
}
