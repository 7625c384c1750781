//! What a pool counts of its packets and streams, for whoever wants to know.

use super::seal::Refused;
use crate::count::Counter;

/// Bytes are those that the sockets carry: envelopes are among them, heads of IP, UDP and TCP are not.
#[derive(Debug, Default)]
pub struct Traffic {
    pub packets_in: Counter,
    pub packets_out: Counter,
    pub packet_bytes_in: Counter,
    pub packet_bytes_out: Counter,
    /// Streams that others began, and those that we did.
    pub streams_in: Counter,
    pub streams_out: Counter,
    pub stream_bytes_in: Counter,
    pub stream_bytes_out: Counter,
    /// Streams that were closed at once, since their host has as many as it may.
    pub streams_shed: Counter,
    /// Streams that ended before their end.
    pub streams_broken: Counter,
    /// Packets that the system did not take: they count as lost on their way.
    pub packets_unsent: Counter,
    /// Packets and streams from addresses that may not speak with us.
    pub foreign: Counter,
    /// Packets and streams whose envelope does not open, by [`Refused::place`].
    pub refused: [Counter; Refused::ALL.len()],
}

impl Traffic {
    /// All that came and was not taken.
    pub fn refused(&self) -> u64 {
        self.foreign.get() + self.refused.iter().map(Counter::get).sum::<u64>()
    }
}
