//! Putting an archive in place of all that is agreed on: a command for each piece, so that every server does it, and a
//! last one that makes it count.

use uuid::Uuid;

use crate::{
    catalog::{Catalog, Command, Restore, Row, Subscribe},
    raft::{Raft, bytes_of},
};

/// A piece is closed when its rows, written out, hold this much.
const PIECE_BYTES: usize = 256 << 10;

/// Returns when the catalog is what all servers agree on.
///
/// # Errors
/// Why it is not. What was agreed on before goes on to be; where the last answer alone is lost, either may be.
pub async fn restore(raft: &Raft, catalog: &Catalog) -> Result<(), String> {
    let id = Uuid::new_v4();
    let restored = send(raft, id, catalog).await;
    // Another one that has begun since goes on.
    if restored.is_err() && raft.catalog().restoring() == Some(id) {
        give_up(raft).await;
    }
    restored
}

/// Forgets what has arrived of a restore that nobody will end.
pub async fn give_up(raft: &Raft) {
    if raft.catalog().restoring().is_some()
        && let Err(error) = propose(raft, Restore::GiveUp).await
    {
        tracing::warn!(error, "what has arrived of an archive takes memory until the next one does");
    }
}

async fn send(raft: &Raft, id: Uuid, catalog: &Catalog) -> Result<(), String> {
    propose(raft, Restore::Begin { id }).await?;
    let (mut piece, mut bytes, mut sent): (Vec<Row>, usize, u64) = (Vec::new(), 0, 0);
    for row in catalog.rows() {
        bytes += bytes_of(&row);
        piece.push(row);
        sent += 1;
        if bytes >= PIECE_BYTES {
            propose(raft, Restore::Rows { id, rows: std::mem::take(&mut piece).into() }).await?;
            bytes = 0;
        }
    }
    if !piece.is_empty() {
        propose(raft, Restore::Rows { id, rows: piece.into() }).await?;
    }
    propose(raft, Restore::End { id, rows: sent }).await
}

async fn propose(raft: &Raft, step: Restore) -> Result<(), String> {
    match raft.propose(Command::Restore(step)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refusal)) => Err(refusal.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
