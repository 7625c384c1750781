//! A request and its answer over TCP: chunks in envelopes, each behind four bytes that say how long it is and whether it
//! is the last. What is not known yet to be of a member is never more than a chunk; all that waits here together has a
//! bound.
//!
//! ```text
//! last 1 bit | length 31 bits | envelope      … the other way the same
//! ```

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::gossip::{
    seal::{CHUNK_BYTES, CHUNK_SEALED_BYTES_MAX, Direction, Refused, Seal},
    traffic::Traffic,
};

/// Of a request's and an answer's inside.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
pub const ANSWER_BYTES_MAX: usize = 20 << 20;

/// One stream, of either side.
pub struct Stream {
    pub tcp: TcpStream,
    pub seal: Arc<Mutex<Seal>>,
    pub traffic: Arc<Traffic>,
    /// A permit a chunk, until the stream is over.
    pub room: Arc<Semaphore>,
}

#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("what came is {0}")]
    Refused(#[from] Refused),
    #[error("closed without a word")]
    Closed,
}

const LAST: u32 = 1 << 31;
const LENGTH_BYTES: usize = 4;

impl Stream {
    pub async fn write(&mut self, direction: &mut Direction, plain: &[u8]) -> Result<(), StreamError> {
        let mut out = Vec::with_capacity(plain.len().min(CHUNK_BYTES) + 64);
        let mut rest = plain;
        loop {
            let (chunk, more) = rest.split_at(rest.len().min(CHUNK_BYTES));
            let last = more.is_empty();
            out.clear();
            out.extend_from_slice(&[0; LENGTH_BYTES]);
            self.seal
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .seal_chunk(direction, chunk, last, &mut out);
            // No chunk comes near 31 bits.
            let length = (out.len() - LENGTH_BYTES) as u32 | if last { LAST } else { 0 };
            out[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
            self.tcp.write_all(&out).await?;
            self.traffic.stream_bytes_out.add(out.len() as u64);
            if last {
                return Ok(());
            }
            rest = more;
        }
    }

    /// All that comes this way, up to so many bytes.
    pub async fn read(
        &mut self,
        direction: &mut Direction,
        bytes_max: usize,
    ) -> Result<Vec<u8>, StreamError> {
        let (mut all, mut chunk) = (Vec::new(), Vec::new());
        let mut taken: Option<OwnedSemaphorePermit> = None;
        loop {
            let mut head = [0; LENGTH_BYTES];
            match self.tcp.read_exact(&mut head).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && all.is_empty() => {
                    return Err(StreamError::Closed);
                }
                read => read?,
            };
            let head = u32::from_be_bytes(head);
            let (length, last) = ((head & !LAST) as usize, head & LAST != 0);
            if length > CHUNK_SEALED_BYTES_MAX || all.len() + length > bytes_max + CHUNK_SEALED_BYTES_MAX {
                return Err(Refused::Size.into());
            }
            let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| StreamError::Closed)?;
            match &mut taken {
                Some(taken) => taken.merge(room),
                none => *none = Some(room),
            }
            chunk.resize(length, 0);
            self.tcp.read_exact(&mut chunk).await?;
            self.traffic.stream_bytes_in.add((LENGTH_BYTES + length) as u64);
            let mut seal = self.seal.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend_from_slice(seal.open_chunk(direction, last, &mut chunk)?);
            if all.len() > bytes_max {
                return Err(Refused::Size.into());
            }
            if last {
                return Ok(all);
            }
        }
    }
}
