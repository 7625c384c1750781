//! What a pool counts of itself, for whoever draws figures of it.

use crate::count::Counter;

#[derive(Debug, Default)]
pub struct Counters {
    /// Packets and requests that are not of any known form.
    pub malformed: Counter,
    /// Of a version that is not known here.
    pub future: Counter,
    /// Addressed to who this member is not, or no longer.
    pub misaddressed: Counter,
    /// From who has this member's own name.
    pub conflicts: Counter,
    /// Beyond how many members, events or requests are kept.
    pub refused: Counter,
    /// Members of another datacenter, or with another's id.
    pub strangers: Counter,
    pub probes: Counter,
    pub probes_failed: Counter,
    /// Suspicions that this member raised, those that were taken back, and those that ended as failures.
    pub suspected: Counter,
    pub cleared: Counter,
    pub failed: Counter,
    /// This member was suspected, and said otherwise.
    pub refuted: Counter,
    /// This member was taken for dead, and came back.
    pub renewed: Counter,
    pub syncs: Counter,
    /// Rows that a comparison with another member brought.
    pub synced: Counter,
    /// Timers that found the process had been stopped.
    pub stopped: Counter,
}
