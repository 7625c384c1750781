//! Bodies as they are sent: one piece, or several after each other, of a length that is known, or as they come. Pieces are
//! shared, not copied.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    vec,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::{agent::Live, body::Pieces};

pub enum Frames {
    One(Bytes),
    Several {
        frames: vec::IntoIter<Bytes>,
        bytes_left: u64,
    },
    /// An error ends it, and its connection, so that nobody takes it for whole.
    Coming(mpsc::Receiver<io::Result<Bytes>>),
    /// Until somebody leaves.
    Live(Live),
    /// From another agent; an error ends it as above.
    Passed {
        pieces: Pieces,
        bytes_left: Option<u64>,
    },
}

impl From<Vec<Bytes>> for Frames {
    fn from(frames: Vec<Bytes>) -> Frames {
        let bytes_left = frames.iter().map(|frame| frame.len() as u64).sum();
        Frames::Several { frames: frames.into_iter(), bytes_left }
    }
}

impl Frames {
    /// All of it that is here.
    pub fn to_vec(&self) -> Vec<u8> {
        match self {
            Frames::One(frame) => frame.to_vec(),
            Frames::Several { frames, .. } => frames.as_slice().concat(),
            Frames::Coming(_) | Frames::Live(_) | Frames::Passed { .. } => Vec::new(),
        }
    }

    /// `None` where nobody knows.
    fn bytes_left(&self) -> Option<u64> {
        match self {
            Frames::One(frame) => Some(frame.len() as u64),
            Frames::Several { bytes_left, .. } => Some(*bytes_left),
            Frames::Passed { bytes_left, .. } => *bytes_left,
            Frames::Coming(_) | Frames::Live(_) => None,
        }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = match &mut *self {
            Frames::One(frame) if frame.is_empty() => None,
            Frames::One(frame) => Some(std::mem::take(frame)),
            Frames::Several { frames, bytes_left } => {
                frames.next().inspect(|frame| *bytes_left -= frame.len() as u64)
            }
            Frames::Coming(frames) => {
                let next = ready!(frames.poll_recv(cx));
                return Poll::Ready(next.map(|frame| frame.map(Frame::data)));
            }
            Frames::Passed { pieces, bytes_left } => {
                let next = ready!(pieces.as_mut().poll_next(cx));
                if let (Some(Ok(frame)), Some(left)) = (&next, bytes_left) {
                    *left = left.saturating_sub(frame.len() as u64);
                }
                return Poll::Ready(next.map(|frame| frame.map(Frame::data)));
            }
            Frames::Live(live) => ready!(live.0.as_mut().poll(cx)).map(|(frame, rest)| {
                *live = rest;
                frame
            }),
        };
        Poll::Ready(next.map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.bytes_left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
