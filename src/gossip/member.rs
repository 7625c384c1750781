//! What gossip says of a node: a member, and all of them as a value. Knows nothing of packets or of how it came to be known.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc};

use crate::catalog::{Key, Text};

/// By lower-cased name.
pub type Members = imbl::OrdMap<Key, Arc<Member>>;

/// What a node says of itself, by name: its role, its id, its datacenter, its ports ...
pub type Tags = BTreeMap<Text, Text>;

#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub name: Text,
    /// Where it is reached by gossip.
    pub address: SocketAddr,
    pub status: Status,
    pub tags: Arc<Tags>,
    /// Of its identity: a later start, or a return from being taken for dead, has a larger one.
    pub generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Alive,
    /// It said that it goes, and still answers.
    Leaving,
    /// It said so, and is gone; or an operator said it of a failed one.
    Left,
    /// Gone without a word.
    Failed,
}

impl Status {
    /// Whether it answers, as far as is known.
    pub fn is_here(self) -> bool {
        matches!(self, Status::Alive | Status::Leaving)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Status::Alive => "alive",
            Status::Leaving => "leaving",
            Status::Left => "left",
            Status::Failed => "failed",
        })
    }
}

impl Member {
    pub fn tag(&self, name: &str) -> Option<&Text> {
        self.tags.get(name)
    }
}
