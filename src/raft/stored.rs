//! The forms in which agreement outlives the process (docs/formats.md): log entries, votes, log ids, snapshots' heads. A
//! container says its version; the records in it grow by fields that have defaults. Knows bytes, not files.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{
    BasicNode, CommittedLeaderId, Entry, EntryPayload, LogId, Membership, SnapshotMeta, StoredMembership,
    Vote,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Types;
use crate::catalog::Command;

/// A container and the version of what it holds.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Stored<T> {
    V1(T),
}

/// An entry's container: of version 1 are those whose commands are `Register` and `Deregister`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum StoredLog<C> {
    V1(StoredEntry<C>),
    V2(StoredEntry<C>),
}

/// Why bytes are not what was stored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("its checksum is not that of its bytes")]
    Checksum,
    #[error("it cannot be read: {0}")]
    Form(String),
}

/// A log entry; `C` are its commands, owned when read and borrowed when written.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct StoredEntry<C> {
    at: StoredLogId,
    payload: Payload<C>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Payload<C> {
    Blank,
    Commands(C),
    Membership(StoredVoters),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct StoredLogId {
    term: u64,
    leader: u64,
    index: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct StoredVote {
    term: u64,
    candidate: u64,
    committed: bool,
}

/// One set of voters, or two while they change; the addresses of all, learners included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct StoredVoters {
    voters: Vec<BTreeSet<u64>>,
    addresses: BTreeMap<u64, String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct StoredHead {
    id: String,
    last: Option<StoredLogId>,
    voters: StoredVoters,
    voters_at: Option<StoredLogId>,
}

const CHECKSUM_BYTES: usize = 4;

/// With a checksum over its bytes and its index, so that an entry in another's place is found out, too.
pub fn entry_bytes(entry: &Entry<Types>) -> Result<Vec<u8>, Damage> {
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(commands) => Payload::Commands(commands),
        EntryPayload::Membership(membership) => Payload::Membership(StoredVoters::of(membership)),
    };
    let stored = StoredLog::V2(StoredEntry { at: StoredLogId::of(entry.log_id), payload });
    let mut bytes = rmp_serde::to_vec_named(&stored).map_err(|error| Damage::Form(error.to_string()))?;
    let sum = checksum(entry.log_id.index, &bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

/// The entry at this index.
pub fn entry(index: u64, bytes: &[u8]) -> Result<Entry<Types>, Damage> {
    let stored: StoredLog<Vec<Command>> =
        rmp_serde::from_slice(checked(index, bytes)?).map_err(|error| Damage::Form(error.to_string()))?;
    let (StoredLog::V1(stored) | StoredLog::V2(stored)) = stored;
    if stored.at.index != index {
        return Err(Damage::Form(format!("it says that it is entry {}", stored.at.index)));
    }
    let payload = match stored.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Commands(commands) => EntryPayload::Normal(commands),
        Payload::Membership(voters) => EntryPayload::Membership(voters.into_membership()),
    };
    Ok(Entry { log_id: stored.at.into_log_id(), payload })
}

/// The bytes of an entry without their checksum, if that is right.
pub fn checked(index: u64, bytes: &[u8]) -> Result<&[u8], Damage> {
    let (body, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Damage::Checksum)?;
    if checksum(index, body) == u32::from_le_bytes(*sum) { Ok(body) } else { Err(Damage::Checksum) }
}

pub fn vote_bytes(vote: &Vote<u64>) -> Result<Vec<u8>, Damage> {
    let (term, candidate) = (vote.leader_id.term, vote.leader_id.node_id);
    write(&StoredVote { term, candidate, committed: vote.committed })
}

pub fn vote(bytes: &[u8]) -> Result<Vote<u64>, Damage> {
    let StoredVote { term, candidate, committed } = read(bytes)?;
    Ok(if committed { Vote::new_committed(term, candidate) } else { Vote::new(term, candidate) })
}

pub fn log_id_bytes(log_id: LogId<u64>) -> Result<Vec<u8>, Damage> {
    write(&StoredLogId::of(log_id))
}

pub fn log_id(bytes: &[u8]) -> Result<LogId<u64>, Damage> {
    read(bytes).map(StoredLogId::into_log_id)
}

pub fn head_bytes(meta: &SnapshotMeta<u64, BasicNode>) -> Result<Vec<u8>, Damage> {
    write(&StoredHead {
        id: meta.snapshot_id.clone(),
        last: meta.last_log_id.map(StoredLogId::of),
        voters: StoredVoters::of(meta.last_membership.membership()),
        voters_at: meta.last_membership.log_id().map(StoredLogId::of),
    })
}

pub fn head(bytes: &[u8]) -> Result<SnapshotMeta<u64, BasicNode>, Damage> {
    let StoredHead { id, last, voters, voters_at } = read(bytes)?;
    let voters_at = voters_at.map(StoredLogId::into_log_id);
    Ok(SnapshotMeta {
        last_log_id: last.map(StoredLogId::into_log_id),
        last_membership: StoredMembership::new(voters_at, voters.into_membership()),
        snapshot_id: id,
    })
}

fn checksum(index: u64, body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&index.to_le_bytes());
    sum.update(body);
    sum.finalize()
}

fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, Damage> {
    rmp_serde::to_vec_named(&Stored::V1(value)).map_err(|error| Damage::Form(error.to_string()))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damage> {
    let Stored::V1(value) = rmp_serde::from_slice(bytes).map_err(|error| Damage::Form(error.to_string()))?;
    Ok(value)
}

impl StoredLogId {
    fn of(log_id: LogId<u64>) -> Self {
        let CommittedLeaderId { term, node_id: leader } = log_id.leader_id;
        StoredLogId { term, leader, index: log_id.index }
    }

    fn into_log_id(self) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(self.term, self.leader), self.index)
    }
}

impl StoredVoters {
    fn of(membership: &Membership<u64, BasicNode>) -> Self {
        let addresses = membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
        StoredVoters { voters: membership.get_joint_config().clone(), addresses }
    }

    fn into_membership(self) -> Membership<u64, BasicNode> {
        let nodes: BTreeMap<u64, BasicNode> =
            self.addresses.into_iter().map(|(id, address)| (id, BasicNode::new(address))).collect();
        Membership::new(self.voters, nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Node, Register};

    fn entries() -> Vec<Entry<Types>> {
        let at = |index| LogId::new(CommittedLeaderId::new(3, 1), index);
        let node = Node { name: "ash".into(), ..Node::default() };
        let command = Command::Register(Box::new(Register { node, ..Register::default() }));
        let voters = StoredVoters {
            voters: vec![[1, 2].into(), [2].into()],
            addresses: [(1, "10.0.0.1:8300".to_string()), (2, "10.0.0.2:8300".to_string())].into(),
        };
        vec![
            Entry { log_id: at(0), payload: EntryPayload::Membership(voters.into_membership()) },
            Entry { log_id: at(1), payload: EntryPayload::Blank },
            Entry { log_id: at(2), payload: EntryPayload::Normal(vec![command]) },
        ]
    }

    #[test]
    fn entries_come_back_as_they_were() {
        for own in entries() {
            let (index, bytes) = (own.log_id.index, entry_bytes(&own).unwrap());
            assert_eq!(entry(index, &bytes), Ok(own));
            assert_eq!(entry(index + 1, &bytes), Err(Damage::Checksum), "in another's place");
        }
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        for own in entries() {
            let bytes = entry_bytes(&own).unwrap();
            for bit in 0..8 * bytes.len() {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(entry(own.log_id.index, &damaged), Err(Damage::Checksum));
            }
            for length in 0..bytes.len() {
                assert!(entry(own.log_id.index, &bytes[..length]).is_err());
            }
        }
    }

    #[test]
    fn a_newer_version_is_no_damage_that_is_read() {
        let newer = rmp_serde::to_vec_named(&BTreeMap::from([("V2", 1)])).unwrap();
        assert!(matches!(vote(&newer), Err(Damage::Form(text)) if text.contains("V2")));
    }
}
