//! What is counted of calls, on both of their ends.

use crate::count::Counter;

#[derive(Debug, Default)]
pub struct Counters {
    /// Calls that were made to servers, and those of them that came to nothing.
    pub calls: Counter,
    pub failed: Counter,
    /// Connections that were accepted, those for which there was no room, and what was asked over them.
    pub accepted: Counter,
    pub turned_away: Counter,
    pub requests: Counter,
    /// Requests that were not done.
    pub not_done: Counter,
}
