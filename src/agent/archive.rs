//! Archives between agreement and whoever asks for one or brings one: written and read where nobody else waits for the
//! thread, in pieces, so that no archive is ever whole in memory.

use std::{
    io::{self, BufWriter, Read, Write},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    runtime::Handle,
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::{self, error::SendTimeoutError},
    },
};
use tokio_util::task::TaskTracker;

use super::Shared;
use crate::{
    catalog::Subscribe,
    http::{Archive, Failure},
    raft::{ArchiveHead, read_archive, write_archive},
    server::restore,
};

/// Archives on their way.
pub struct Archiving {
    /// Those that are written.
    pub tasks: TaskTracker,
    turns: Arc<Semaphore>,
}

/// On their way at a time.
const ARCHIVES_MAX: usize = 2;
/// Written, and not yet taken.
const PIECES_MAX: usize = 8;
const PIECE_BYTES: usize = 64 << 10;
/// For whoever asked for one to take some of it: others wait for its turn.
const SEND_WAIT: Duration = Duration::from_secs(30);

impl Default for Archiving {
    fn default() -> Self {
        Archiving { tasks: TaskTracker::new(), turns: Arc::new(Semaphore::new(ARCHIVES_MAX)) }
    }
}

impl Archiving {
    fn turn(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let busy = |_| Failure::Other("too many snapshots are saved or restored now, try again later".into());
        self.turns.clone().try_acquire_owned().map_err(busy)
    }
}

impl Shared {
    pub(super) fn save(&self) -> Result<Archive, Failure> {
        let server = self.backing.as_server()?;
        let turn = server.archiving.turn()?;
        // In this order: the catalog may hold more than what it is said to.
        let status = server.raft.status();
        let catalog = server.raft.catalog();
        let (term, index) = (status.last_term, status.applied_index);
        let id = format!("{term}-{index}-{}", chrono::Utc::now().timestamp_millis());
        let head = ArchiveHead { id, term, index };
        let (pieces, taken) = mpsc::channel(PIECES_MAX);
        let catalog_index = catalog.index();
        server.archiving.tasks.spawn_blocking(move || {
            let _turn = turn;
            // Whoever does not take the rest has room for this still: nobody is to take half of one for whole.
            let last = pieces.clone().try_reserve_owned();
            let out = BufWriter::with_capacity(PIECE_BYTES, Sent { pieces, wait: SEND_WAIT });
            if let (Err(error), Ok(last)) = (write_archive(out, &head, &catalog), last) {
                let _gone = last.send(Err(error));
            }
        });
        Ok(Archive { index: catalog_index, pieces: taken })
    }

    /// Once it is read, it is put to the log whether or not anybody still waits for that.
    pub(super) async fn restore(&self, pieces: mpsc::Receiver<Bytes>, bytes_max: u64) -> Result<(), Failure> {
        let server = self.backing.as_server()?;
        let turn = server.archiving.turn()?;
        let broken = |error: tokio::task::JoinError| Failure::Other(error.to_string());
        let taken = Taken { pieces, piece: Bytes::new() };
        let read = server.archiving.tasks.spawn_blocking(move || read_archive(taken, bytes_max));
        let (head, catalog) =
            read.await.map_err(broken)?.map_err(|error| Failure::Other(error.to_string()))?;
        let raft = server.raft.clone();
        let restored = server.archiving.tasks.spawn(async move {
            let _turn = turn;
            let restored = restore(&raft, &catalog).await;
            match &restored {
                Ok(()) => tracing::info!(id = head.id, "a snapshot is restored"),
                Err(error) => tracing::error!(id = head.id, error, "a snapshot is not restored"),
            }
            restored
        });
        restored.await.map_err(broken)?.map_err(Failure::Other)
    }
}

/// A file that goes to whoever takes its pieces.
struct Sent {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    /// For some of it to be taken.
    wait: Duration,
}

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.pieces.send_timeout(Ok(Bytes::copy_from_slice(bytes)), self.wait);
        match Handle::current().block_on(sent) {
            Ok(()) => Ok(bytes.len()),
            Err(SendTimeoutError::Timeout(_)) => Err(io::ErrorKind::TimedOut.into()),
            Err(SendTimeoutError::Closed(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that comes in pieces; it ends where no more come.
struct Taken {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Taken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let bytes = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..bytes]);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over a connection that is alive, too: it holds one of few turns.
    #[tokio::test]
    async fn an_archive_that_nobody_takes_ends() {
        let (pieces, mut taken) = mpsc::channel(2);
        let wait = Duration::from_millis(10);
        let written = tokio::task::spawn_blocking(move || {
            let mut sent = Sent { pieces, wait };
            let lengths = [b"a", b"b"].map(|piece| sent.write(piece).unwrap());
            (lengths, sent.write(b"c").unwrap_err().kind())
        });
        assert_eq!(written.await.unwrap(), ([1, 1], io::ErrorKind::TimedOut));
        assert_eq!(
            (taken.recv().await.unwrap().unwrap(), taken.recv().await.unwrap().unwrap()),
            ("a".into(), "b".into())
        );
        assert!(taken.recv().await.is_none());
    }
}
