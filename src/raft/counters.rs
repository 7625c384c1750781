//! What this room counts of itself.

use std::sync::Arc;

use super::ProposeError;
use crate::count::{Counter, Spread};

#[derive(Default)]
pub struct Counters {
    /// Commands in each entry that was committed.
    pub entry_commands: Spread,
    /// From giving an entry to the log to having it applied, in nanoseconds.
    pub commit: Spread,
    /// What the disk took for a transaction of the log, its sync included, in nanoseconds.
    pub sync: Arc<Spread>,
    pub snapshots: Arc<Counter>,
    refused: [Counter; ProposeError::ALL.len()],
}

impl Counters {
    /// With the numbers that others write.
    pub(super) fn new(sync: Arc<Spread>, snapshots: Arc<Counter>) -> Self {
        Counters { sync, snapshots, ..Counters::default() }
    }

    /// Commands whose proposers were told so.
    pub fn refused(&self, error: ProposeError) -> &Counter {
        &self.refused[error as usize]
    }
}
