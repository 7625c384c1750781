//! What spreads beside membership: pieces of news, each in a packet as often as it takes to reach everyone.

use serde::{Deserialize, Serialize};

use super::Malformed;
use crate::{
    catalog::Text,
    gossip::{
        identity::{Id, generation},
        member::Tags,
    },
};

/// In postcard: a tag of one byte, then the fields. New kinds are added at the end; an older member counts them and lets them go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Item {
    Record {
        id: Id,
        record: Record,
    },
    Vote(Vote),
    /// It goes, and says so.
    Leave {
        key: u64,
        #[serde(deserialize_with = "generation")]
        generation: u64,
    },
    /// An operator says that it is gone for good; `prune`: and is to be forgotten.
    Force {
        key: u64,
        #[serde(deserialize_with = "generation")]
        generation: u64,
        prune: bool,
    },
    Event {
        time: u64,
        name: Text,
        #[serde(with = "bytes_of")]
        payload: Vec<u8>,
    },
    Query {
        time: u64,
        id: u64,
        origin: Id,
        name: Text,
        #[serde(with = "bytes_of")]
        payload: Vec<u8>,
    },
}

/// What a member says of itself; beside its identity, since it rarely changes and is large.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Rises with every change, and is larger in a later life.
    pub version: u64,
    pub name: Text,
    pub tags: Tags,
}

/// One more that cannot reach a member.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Vote {
    pub target: u64,
    #[serde(deserialize_with = "generation")]
    pub generation: u64,
    pub incarnation: u16,
    pub from: u64,
    /// Its host is there and refuses connections: the process is gone, not the network.
    pub refused: bool,
}

/// Names and values of tags, as Consul's agents bound them.
pub(crate) const TAG_BYTES_MAX: usize = 512;
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// A packet has this room for news whatever it is about.
pub(crate) const ITEM_BYTES_MAX: usize = 1200;

impl Item {
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain data of a bounded size can be written to memory")
    }

    pub fn decode(bytes: &[u8]) -> Result<Item, Malformed> {
        let (item, rest) = postcard::take_from_bytes::<Item>(bytes)?;
        let fits = match &item {
            Item::Record { record, .. } => record.fits(),
            _ => true,
        };
        if fits && rest.is_empty() { Ok(item) } else { Err(Malformed::Form) }
    }
}

impl Record {
    pub fn fits(&self) -> bool {
        let tags: usize = self.tags.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        (1..=NAME_BYTES_MAX).contains(&self.name.len()) && tags <= TAG_BYTES_MAX
    }
}

/// Bytes as bytes: serde would write a list of numbers.
pub(crate) mod bytes_of {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<u8>, D::Error> {
        <&[u8]>::deserialize(from).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tag: usize) -> Item {
        let tags = [("big".into(), "x".repeat(tag).as_str().into())].into();
        let id = Id::new(1, ([10, 0, 0, 1], 8301).into(), 7);
        Item::Record { id, record: Record { version: 1, name: "web-1".into(), tags } }
    }

    #[test]
    fn an_item_is_whole_and_of_its_size_or_it_is_none() {
        let fits = record(TAG_BYTES_MAX - 5);
        let bytes = fits.encode();
        assert!(bytes.len() <= ITEM_BYTES_MAX);
        assert_eq!(Item::decode(&bytes), Ok(fits));
        assert_eq!(Item::decode(&record(TAG_BYTES_MAX - 4).encode()), Err(Malformed::Form));
        for cut in 0..bytes.len() {
            assert_eq!(Item::decode(&bytes[..cut]), Err(Malformed::Form));
        }
        assert_eq!(Item::decode(&[&bytes[..], &[0]].concat()), Err(Malformed::Form));
        assert_eq!(Item::decode(&[99, 1, 2]), Err(Malformed::Form), "of a kind that is not known yet");
    }
}
