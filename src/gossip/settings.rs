//! What a pool is told at its start: who this node is, how often it asks and how long it waits, and what it remembers of its
//! former life.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use uuid::Uuid;

use super::member::Tags;
use crate::catalog::Text;

#[derive(Clone, Debug)]
pub struct Settings {
    pub name: Text,
    pub id: Uuid,
    pub datacenter: Text,
    /// Where others reach this node.
    pub advertise: SocketAddr,
    /// `id` and `dc` are added.
    pub tags: Tags,
    pub timing: Timing,
    /// At least one more than any before; the time in milliseconds where nothing is remembered.
    pub generation: u64,
    pub past: Past,
    /// No member beyond these is taken in: what a pool keeps has an end.
    pub members_max: usize,
    /// Whether round trips are measured, to tell how far from each other nodes are.
    pub coordinates: bool,
    /// Of an event's name and payload together.
    pub event_bytes_max: usize,
}

/// What a pool kept of its former life.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// Who was here, and is asked to be let in again; none where the node had left.
    pub peers: BTreeMap<Text, SocketAddr>,
    pub generation: u64,
    /// Of events and queries.
    pub clock: u64,
}

/// What changes of a [`Past`]: lines of its file.
#[derive(Clone, Debug, PartialEq)]
pub enum Keep {
    Here {
        name: Text,
        address: SocketAddr,
    },
    Gone {
        name: Text,
    },
    Generation(u64),
    Clock(u64),
    /// This node left by its own will: it asks nobody at its next start unless told to.
    Left,
}

/// How often, how many, how long. One to one with Consul's `gossip_lan` and `gossip_wan` where it has a name there.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    pub probe_interval: Duration,
    pub probe_timeout: Duration,
    pub indirect_probes: usize,
    pub gossip_interval: Duration,
    pub gossip_nodes: usize,
    pub suspicion_mult: u32,
    pub suspicion_max_mult: u32,
    pub retransmit_mult: u32,
    /// News is pushed this soon after it arrives, and no more often than [`Timing::eager_interval`].
    pub eager_delay: Duration,
    pub eager_interval: Duration,
    /// A ping without an answer is repeated after this, and after twice this.
    pub ping_again: Duration,
    pub stream_timeout: Duration,
    /// Peers compare what they know this often while they agree.
    pub sync_interval: Duration,
    pub reconnect_interval: Duration,
    /// A failed member is forgotten after this; its tag `rc_tm` says otherwise of itself.
    pub reconnect_timeout: Duration,
    /// One that left is forgotten after this.
    pub tombstone_timeout: Duration,
    /// How long leaving waits until it is told.
    pub leave_timeout: Duration,
    /// How long a node that left still answers.
    pub leave_propagate_delay: Duration,
    /// A member whose host refuses connections, by the word of several, is failed no sooner than this; `None` is the larger of
    /// 5 s and half of the least suspicion.
    pub refused_floor: Option<Duration>,
}

impl Timing {
    pub fn lan() -> Timing {
        Timing {
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            indirect_probes: 3,
            gossip_interval: Duration::from_millis(200),
            gossip_nodes: 3,
            suspicion_mult: 4,
            suspicion_max_mult: 6,
            retransmit_mult: 4,
            eager_delay: Duration::from_millis(10),
            eager_interval: Duration::from_millis(100),
            ping_again: Duration::from_millis(160),
            stream_timeout: Duration::from_secs(10),
            sync_interval: Duration::from_secs(10),
            reconnect_interval: Duration::from_secs(10),
            reconnect_timeout: Duration::from_secs(72 * 3600),
            tombstone_timeout: Duration::from_secs(24 * 3600),
            leave_timeout: Duration::from_secs(5),
            leave_propagate_delay: Duration::from_secs(3),
            refused_floor: None,
        }
    }

    pub fn wan() -> Timing {
        Timing {
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(3),
            gossip_interval: Duration::from_millis(500),
            gossip_nodes: 4,
            suspicion_mult: 6,
            eager_delay: Duration::from_millis(50),
            ping_again: Duration::from_secs(1),
            stream_timeout: Duration::from_secs(30),
            ..Timing::lan()
        }
    }

    /// What one knob means for another: a probe asks others before it ends, and repeats itself before it asks them.
    pub(crate) fn reconcile(&mut self) {
        self.probe_timeout = self.probe_timeout.min(self.probe_interval.mul_f64(0.6));
        self.ping_again = self.ping_again.min(self.probe_timeout.mul_f64(0.35));
    }

    /// How often one piece of news is sent on by each who hears it.
    pub fn transmissions(&self, members: usize) -> u8 {
        let digits = ((members + 1) as f64).log10().ceil() as u32;
        u8::try_from((self.retransmit_mult * digits).max(6)).unwrap_or(u8::MAX)
    }

    /// The least time between a suspicion and its end, when others suspect too.
    pub fn suspicion(&self, members: usize) -> Duration {
        self.probe_interval.mul_f64(f64::from(self.suspicion_mult) * (members.max(1) as f64).log10().max(1.0))
    }

    /// See [`Timing::refused_floor`].
    pub fn floor(&self, members: usize) -> Duration {
        let half = self.suspicion(members) / 2;
        self.refused_floor.unwrap_or(half.max(Duration::from_secs(5))).min(self.suspicion(members))
    }

    /// How long answers to a query are awaited.
    pub fn query_timeout(&self, members: usize) -> Duration {
        self.gossip_interval.mul_f64(16.0 * ((members + 1) as f64).log10().ceil().max(1.0))
    }
}
