//! Streams: a request and its answer, each cut into chunks, so that what is not yet known to be of a member is never
//! large. A chunk opens at its own place only, and an answer under its own request only: nothing can be left out, moved,
//! or taken from elsewhere.

use super::{OVERHEAD, Origin, PLACE, Refused, Seal};

/// Of a chunk's inside.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Of a chunk in its envelope.
pub const CHUNK_SEALED_BYTES_MAX: usize = CHUNK_BYTES + OVERHEAD;

/// One way of a stream, as one of both sides sees it: chunks are sealed or opened in order.
#[derive(Debug)]
pub struct Direction {
    space: u8,
    /// The request's beginning; before the first chunk of a request, nobody's.
    pub(super) of: Option<Origin>,
    pub(super) next: u32,
    /// Whether its chunks are encrypted: all of them, or none.
    sealed: Option<bool>,
}

const REQUESTS: u8 = 1;
const ANSWERS: u8 = 2;

impl Direction {
    pub fn request() -> Direction {
        Direction { space: REQUESTS, of: None, next: 0, sealed: None }
    }

    /// Of the answer to a request of which at least one chunk is sealed, or opened.
    pub fn answer(request: &Direction) -> Direction {
        Direction { space: ANSWERS, of: request.of, next: 0, sealed: None }
    }

    /// What the chunk's envelope is bound to.
    fn place(&self, last: bool) -> [u8; PLACE] {
        let mut place = [0; PLACE];
        if let Some(Origin { start, count }) = self.of {
            place[..8].copy_from_slice(&start.to_be_bytes());
            place[8..16].copy_from_slice(&count.to_be_bytes());
        }
        place[16..20].copy_from_slice(&self.next.to_be_bytes());
        place[20] = u8::from(last);
        place[21] = u8::from(self.of.is_some());
        place
    }

    fn begins_request(&self) -> bool {
        self.space == REQUESTS && self.next == 0
    }

    fn went_on(&mut self, origin: Option<Origin>) {
        if self.begins_request() {
            self.of = origin;
        }
        self.sealed = Some(origin.is_some());
        self.next += 1;
    }
}

impl Seal {
    /// Adds the envelope of the next chunk to `out`.
    pub fn seal_chunk(&mut self, direction: &mut Direction, plain: &[u8], last: bool, out: &mut Vec<u8>) {
        let sealed = direction.sealed.unwrap_or(self.seals()) && !self.keys.is_empty();
        self.chunks_sealed += 1;
        let origin = Origin { start: self.start, count: self.chunks_sealed };
        let place = direction.place(last);
        self.seal(direction.space, self.streams, &place, origin, sealed, plain, out);
        direction.went_on(sealed.then_some(origin));
    }

    /// What is in the next chunk. Of a request that was heard already not even the first is opened.
    ///
    /// # Errors
    /// Why it is not taken; the stream is over then.
    pub fn open_chunk<'a>(
        &mut self,
        direction: &mut Direction,
        last: bool,
        bytes: &'a mut [u8],
    ) -> Result<&'a [u8], Refused> {
        if bytes.len() > CHUNK_SEALED_BYTES_MAX {
            return Err(Refused::Size);
        }
        let begins = direction.begins_request();
        let place = direction.place(last);
        let (plain, origin) = self.open(direction.space, self.streams, &place, begins, bytes)?;
        if direction.sealed.is_some_and(|sealed| sealed != origin.is_some()) {
            return Err(Refused::Broken);
        }
        if let Some(Origin { start, count }) = origin.filter(|_| begins) {
            self.heard.take(start, direction.space, count);
        }
        direction.went_on(origin);
        Ok(plain)
    }
}
