//! What goes over a stream: one request, and one reply to it. Bulk knowledge goes this way, and what must reach one member.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Malformed, VERSION,
    item::{Record, bytes_of},
};
use crate::{catalog::Text, gossip::identity::Id};

/// New kinds and fields are for a new version, since postcard skips nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Here I am, and this is what I know, summed up: what do you know that I do not?
    /// `sums`: of each bucket, four bytes each; none where everything is wanted.
    Sync {
        me: Row,
        join: bool,
        clock: u64,
        #[serde(with = "bytes_of")]
        sums: Vec<u8>,
    },
    /// What you do not know.
    Push { clock: u64, rows: Vec<Row> },
    /// A ping that packets did not bring.
    Ping(#[serde(with = "bytes_of")] Vec<u8>),
    /// To one who asked everyone.
    Answer {
        query: u64,
        from: Text,
        #[serde(with = "bytes_of")]
        payload: Vec<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Not let in, and why.
    Refused(String),
    /// `buckets` whose sums differ, with all rows in them; where not `whole` only some rows of some.
    Rows {
        clock: u64,
        whole: bool,
        #[serde(with = "bytes_of")]
        buckets: Vec<u8>,
        rows: Vec<Row>,
    },
    Done,
    Ack(#[serde(with = "bytes_of")] Vec<u8>),
}

/// All that is known of a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub id: Id,
    pub state: State,
    /// For how long it has been in that state: what was forgotten here is not learnt anew for another three days.
    pub age_secs: u32,
    pub record: Option<Record>,
}

/// In the order in which one takes precedence over another, of the same generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum State {
    Alive,
    Leaving,
    Failed,
    Left,
    /// An operator wants it forgotten; kept unseen for as long as others may still remember it.
    Pruned,
}

impl State {
    pub fn is_here(self) -> bool {
        self <= State::Leaving
    }
}

pub(crate) fn encode(message: &impl Serialize) -> Vec<u8> {
    let bytes = vec![VERSION];
    postcard::to_extend(message, bytes).expect("plain data can be written to memory")
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes::<T>(rest)? {
            (message, []) => Ok(message),
            _ => Err(Malformed::Form),
        },
        Some(_) => Err(Malformed::Future),
        None => Err(Malformed::Form),
    }
}
