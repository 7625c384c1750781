//! The envelope of all that members say to each other, with encryption and without. Pure, but for a counter: bytes in,
//! bytes out; knows neither sockets nor what is inside.
//!
//! ```text
//! sealed  1 | key id 4 | start 8 | count 8 | AES-256-GCM | tag 16      37 bytes more
//! open    1 | 0 0 0 0  | CRC-32 4          | as it is                   9 bytes more
//! ```
//!
//! The key in the ring is never used itself: each start of a member has a key of its own, derived from that one and from
//! `start`, 8 bytes drawn by chance. So a count is a nonce that nobody else uses, however many members there are. What a
//! receiver opened once it does not open again. Authenticated beside the bytes are this head, the pool that they belong to,
//! and, in streams, their place in it.

mod replay;
mod stream;

use std::collections::HashMap;

use ahash::RandomState;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};

use self::replay::Heard;
pub use self::stream::{CHUNK_BYTES, CHUNK_SEALED_BYTES_MAX, Direction};
use super::keyring::{Key, Keyring};

/// How much longer an envelope makes a packet, at most.
pub const OVERHEAD: usize = HEAD + MAX_TAG_LEN;

/// Seals and opens, by a keyring that may change.
pub struct Seal {
    keyring: Keyring,
    /// As `keyring`, ready for use.
    keys: Vec<Ready>,
    verify_incoming: bool,
    verify_outgoing: bool,
    packets: Label,
    streams: Label,
    start: u64,
    packets_sealed: u64,
    chunks_sealed: u64,
    /// Of others' starts; what is not here is derived again.
    subkeys: HashMap<(u32, u64), LessSafeKey, RandomState>,
    heard: Heard,
}

/// Why bytes are not taken. Nothing but a count remembers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("shorter than any envelope, or longer than allowed")]
    Size,
    #[error("of another version")]
    Version,
    #[error("not encrypted, while encrypt_verify_incoming asks for that")]
    Unencrypted,
    #[error("encrypted with a key that is not in the keyring")]
    Key,
    #[error("changed on its way, or of another pool")]
    Broken,
    #[error("heard already")]
    Replayed,
}

impl Refused {
    /// In the order of [`Refused::place`].
    pub const ALL: [Refused; 6] = [
        Refused::Size,
        Refused::Version,
        Refused::Unencrypted,
        Refused::Key,
        Refused::Broken,
        Refused::Replayed,
    ];

    /// For counters.
    pub fn place(self) -> usize {
        self as usize
    }
}

/// How a pool is sealed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which pool packets belong to, and which streams: bytes of one do not open in the other.
    pub packets: String,
    pub streams: String,
    /// Whether what comes, and what goes, must be encrypted, once there are keys. Both are false while operators give the
    /// keys to one member after the other.
    pub verify_incoming: bool,
    pub verify_outgoing: bool,
}

/// Who sealed something, and the how-manieth it was of his.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    start: u64,
    count: u64,
}

/// A key of the ring: its name in envelopes, and what keys are derived from.
struct Ready {
    id: u32,
    root: Prk,
    own: LessSafeKey,
}

type Label = [u8; 16];

const VERSION: u8 = 1;
/// Version, key id, start, count.
const HEAD: usize = 1 + 4 + 8 + 8;
/// Version, no key, checksum.
const OPEN_HEAD: usize = 1 + 4 + 4;
const SUBKEYS_MAX: usize = 1 << 10;
/// What counts apart: a nonce of one is none of another.
const PACKETS: u8 = 0;
/// What is authenticated of a place in a stream.
const PLACE: usize = 22;
const NOWHERE: [u8; PLACE] = [0; PLACE];

impl Seal {
    /// `start` is drawn by chance, each time that a member starts.
    pub fn new(settings: &Settings, start: u64, keyring: Keyring) -> Seal {
        let label = |text: &str| -> Label {
            let digest = digest(&SHA256, text.as_bytes());
            std::array::from_fn(|at| digest.as_ref()[at])
        };
        let mut seal = Seal {
            keyring: Keyring::default(),
            keys: Vec::new(),
            verify_incoming: settings.verify_incoming,
            verify_outgoing: settings.verify_outgoing,
            packets: label(&settings.packets),
            streams: label(&settings.streams),
            start,
            packets_sealed: 0,
            chunks_sealed: 0,
            subkeys: HashMap::default(),
            heard: Heard::default(),
        };
        seal.set_keyring(keyring);
        seal
    }

    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// What was heard stays heard: counts go on under other keys.
    pub fn set_keyring(&mut self, keyring: Keyring) {
        self.keys = keyring.keys().iter().map(|key| Ready::of(key, self.start)).collect();
        self.subkeys.retain(|(id, _), _| self.keys.iter().any(|key| key.id == *id));
        self.keyring = keyring;
    }

    /// Adds the envelope of a packet to `out`.
    pub fn seal_packet(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.packets_sealed += 1;
        let origin = Origin { start: self.start, count: self.packets_sealed };
        self.seal(PACKETS, self.packets, &NOWHERE, origin, self.seals(), plain, out);
    }

    /// What is in the envelope of a packet.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn open_packet<'a>(&mut self, bytes: &'a mut [u8]) -> Result<&'a [u8], Refused> {
        let (plain, origin) = self.open(PACKETS, self.packets, &NOWHERE, true, bytes)?;
        if let Some(Origin { start, count }) = origin {
            self.heard.take(start, PACKETS, count);
        }
        Ok(plain)
    }

    fn seals(&self) -> bool {
        self.verify_outgoing && !self.keys.is_empty()
    }

    /// Appends an envelope; an open one, unless `sealed`.
    #[expect(clippy::too_many_arguments, reason = "what an envelope is made of")]
    fn seal(
        &self,
        space: u8,
        label: Label,
        place: &[u8; PLACE],
        origin: Origin,
        sealed: bool,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) {
        let begin = out.len();
        out.push(VERSION);
        let Some(key) = self.keys.first().filter(|_| sealed) else {
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&checksum(space, label, place, plain));
            return out.extend_from_slice(plain);
        };
        out.extend_from_slice(&key.id.to_be_bytes());
        out.extend_from_slice(&origin.start.to_be_bytes());
        out.extend_from_slice(&origin.count.to_be_bytes());
        out.extend_from_slice(plain);
        let (head, inside) = out[begin..].split_at_mut(HEAD);
        let beside = beside(head, space, label, place);
        let tag = key
            .own
            .seal_in_place_separate_tag(nonce(space, origin.count), Aad::from(beside), inside)
            .expect("no plaintext of ours is near the 64 GiB that AES-GCM takes");
        out.extend_from_slice(tag.as_ref());
    }

    /// The inside, and who sealed it. `once`: what was heard already is refused; to have it heard is the caller's.
    fn open<'a>(
        &mut self,
        space: u8,
        label: Label,
        place: &[u8; PLACE],
        once: bool,
        bytes: &'a mut [u8],
    ) -> Result<(&'a [u8], Option<Origin>), Refused> {
        if bytes.len() < OPEN_HEAD {
            return Err(Refused::Size);
        }
        if bytes[0] != VERSION {
            return Err(Refused::Version);
        }
        let id = u32::from_be_bytes(four(&bytes[1..]));
        if id == 0 {
            if self.verify_incoming && !self.keys.is_empty() {
                return Err(Refused::Unencrypted);
            }
            let (head, plain) = bytes.split_at(OPEN_HEAD);
            let is_whole = checksum(space, label, place, plain) == head[5..];
            return if is_whole { Ok((plain, None)) } else { Err(Refused::Broken) };
        }
        if bytes.len() < OVERHEAD {
            return Err(Refused::Size);
        }
        let (head, inside) = bytes.split_at_mut(HEAD);
        let origin = Origin {
            start: u64::from_be_bytes(eight(&head[5..])),
            count: u64::from_be_bytes(eight(&head[13..])),
        };
        // Before the work of opening it: whoever sends it again need not have a key.
        if once && !self.heard.is_new(origin.start, space, origin.count) {
            return Err(Refused::Replayed);
        }
        let beside = beside(head, space, label, place);
        let (nonce, beside) = (nonce(space, origin.count), Aad::from(beside));
        if let Some(known) = self.subkeys.get(&(id, origin.start)) {
            let plain = known.open_in_place(nonce, beside, inside).map_err(|_| Refused::Broken)?;
            return Ok((plain, Some(origin)));
        }
        let key = self.keys.iter().find(|key| key.id == id).ok_or(Refused::Key)?;
        let subkey = derive(&key.root, origin.start);
        let plain = subkey.open_in_place(nonce, beside, inside).map_err(|_| Refused::Broken)?;
        // Only of whoever proved to have the key; beyond the bound all are derived again, 1.4 µs each.
        if self.subkeys.len() >= SUBKEYS_MAX {
            self.subkeys.clear();
        }
        self.subkeys.insert((id, origin.start), subkey);
        Ok((plain, Some(origin)))
    }
}

impl Ready {
    fn of(key: &Key, start: u64) -> Ready {
        let root = Salt::new(HKDF_SHA256, b"lictor gossip 1").extract(key.bytes());
        let mut id = [0; 4];
        let filled = root.expand(&[b"id"], Length(4)).and_then(|okm| okm.fill(&mut id));
        filled.expect("HKDF gives four bytes");
        // 0 says that there is no key.
        Ready { id: u32::from_be_bytes(id).max(1), own: derive(&root, start), root }
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(root: &Prk, start: u64) -> LessSafeKey {
    let start = start.to_be_bytes();
    let info = [&b"key"[..], &start];
    let okm = root.expand(&info, &AES_256_GCM).expect("HKDF gives 32 bytes");
    LessSafeKey::new(UnboundKey::from(okm))
}

fn nonce(space: u8, count: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[0] = space;
    nonce[4..].copy_from_slice(&count.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// What is authenticated, and not sent or not secret.
fn beside(head: &[u8], space: u8, label: Label, place: &[u8; PLACE]) -> [u8; HEAD + 1 + 16 + PLACE] {
    let mut all = [0; HEAD + 1 + 16 + PLACE];
    all[..HEAD].copy_from_slice(head);
    all[HEAD] = space;
    all[HEAD + 1..HEAD + 17].copy_from_slice(&label);
    all[HEAD + 17..].copy_from_slice(place);
    all
}

/// Against chance, not against anybody.
fn checksum(space: u8, label: Label, place: &[u8; PLACE], plain: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[VERSION, space]);
    crc.update(&label);
    crc.update(place);
    crc.update(plain);
    crc.finalize().to_be_bytes()
}

fn four(bytes: &[u8]) -> [u8; 4] {
    std::array::from_fn(|at| bytes[at])
}

fn eight(bytes: &[u8]) -> [u8; 8] {
    std::array::from_fn(|at| bytes[at])
}

#[cfg(test)]
mod tests;
