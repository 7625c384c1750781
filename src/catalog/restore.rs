//! A catalog that takes the place of another, as an archive has it. It arrives in pieces, each a command, and nothing of
//! it is seen before the last: so every server does the same, however large it is and whenever one of them dies.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Catalog, Changes, Refusal, Topic,
    rows::{Mismatch, Row},
};

/// A step of a restore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Restore {
    /// What arrived of another one is forgotten.
    Begin { id: Uuid },
    /// The next rows.
    Rows { id: Uuid, rows: Arc<[Row]> },
    /// All of them have arrived, so many: they are the catalog from now on.
    End { id: Uuid, rows: u64 },
    /// It will not be ended.
    GiveUp,
}

/// What has arrived.
#[derive(Clone, Debug)]
pub(super) struct Staging {
    pub id: Uuid,
    pub pieces: Vec<Arc<[Row]>>,
}

impl Catalog {
    /// The restore of which something has arrived, and which is not ended.
    pub fn restoring(&self) -> Option<Uuid> {
        self.staging.as_ref().map(|staging| staging.id)
    }

    /// As an archive should have it: without what has arrived of another one.
    pub fn settled(&self) -> Catalog {
        Catalog { staging: None, ..self.clone() }
    }

    /// The index rises at the end only, and above both catalogs' own.
    pub(super) fn restore(&mut self, restore: Restore) -> (Result<(), Refusal>, Changes) {
        let topics = self.restored(restore);
        let changes =
            Changes { index: self.index, topics: topics.clone().unwrap_or_default(), ..Changes::default() };
        (topics.map(drop), changes)
    }

    fn restored(&mut self, restore: Restore) -> Result<Vec<Topic>, Refusal> {
        Ok(match restore {
            Restore::Begin { id } => {
                self.staging = Some(Arc::new(Staging { id, pieces: Vec::new() }));
                vec![Topic::Restoring]
            }
            Restore::Rows { id, rows } => {
                self.staging_of(id)?.pieces.push(rows);
                vec![]
            }
            Restore::End { id, rows } => {
                self.staging_of(id)?;
                self.replace(rows)?;
                vec![Topic::Everything]
            }
            Restore::GiveUp if self.staging.take().is_some() => vec![Topic::Restoring],
            Restore::GiveUp => vec![],
        })
    }

    fn staging_of(&mut self, id: Uuid) -> Result<&mut Staging, Refusal> {
        let staging = self.staging.as_mut().filter(|staging| staging.id == id);
        staging.map(Arc::make_mut).ok_or(Refusal::OtherRestore)
    }

    /// Whatever comes of it, what has arrived is used up.
    fn replace(&mut self, rows: u64) -> Result<(), Refusal> {
        let pieces = self.staging.take().map(Arc::unwrap_or_clone).map(|staging| staging.pieces);
        let pieces = pieces.unwrap_or_default();
        let arrived = pieces.iter().map(|piece| piece.len() as u64).sum();
        if arrived != rows {
            return Err(Refusal::RowsMissing { rows, arrived });
        }
        let all = pieces.iter().flat_map(|piece| piece.iter().cloned()).map(Ok::<Row, Mismatch>);
        let restored = Catalog::from_rows(all).map_err(|fault| Refusal::NoCatalog(fault.to_string()))?;
        *self = Catalog { index: restored.index.max(self.index + 1), staging: None, ..restored };
        Ok(())
    }
}
