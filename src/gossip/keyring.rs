//! The keys that a pool's packets are sealed with: which there are, which is used, and how operators change that on every
//! member, one step after the other: install the new key, use it, remove the old one. A value; knows no file and no packet.

use std::{collections::BTreeMap, fmt};

use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::catalog::Text;

/// A secret of 16, 24 or 32 bytes that all members share.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key(Vec<u8>);

/// Why a text is no key. `Display` is Consul's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    #[error("illegal base64 data at input byte {0}")]
    NoBase64(usize),
    #[error("key size must be 16, 24 or 32 bytes")]
    Size,
}

impl Key {
    /// From base64, as operators write it.
    ///
    /// # Errors
    /// Where it is no base64, or has another length.
    pub fn parse(text: &str) -> Result<Key, NoKey> {
        let bytes = STANDARD.decode(text).map_err(|error| {
            NoKey::NoBase64(match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                // Named is where what cannot be read begins: the last four letters.
                DecodeError::InvalidLength(length) => length / 4 * 4,
                DecodeError::InvalidPadding => text.len() / 4 * 4,
            })
        })?;
        Key::of(bytes)
    }

    /// # Errors
    /// Where these are not 16, 24 or 32 bytes.
    pub fn of(bytes: Vec<u8>) -> Result<Key, NoKey> {
        matches!(bytes.len(), 16 | 24 | 32).then_some(Key(bytes)).ok_or(NoKey::Size)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// For files and operators; no log has it.
    pub fn base64(&self) -> String {
        STANDARD.encode(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Keys, the one that is used first. Without any, nothing is sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    keys: Vec<Key>,
}

/// What operators do with the keyrings of all members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    List,
    Install(Key),
    Use(Key),
    Remove(Key),
}

/// Why a member does not do it. `Display` is Consul's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("Keyring is empty (encryption not enabled)")]
    Empty,
    #[error("Requested key is not in the keyring")]
    Unknown,
    #[error("Removing the primary key is not allowed")]
    Primary,
    #[error("The keyring has {KEYS_MAX} keys already; remove one that is not used any more")]
    Full,
}

/// Whoever seals with a key tries to open with all of them, and each is kept in memory by whoever installs it.
const KEYS_MAX: usize = 64;

impl Keyring {
    /// Of one key; of none, where nothing is to be sealed.
    pub fn new(primary: Option<Key>) -> Keyring {
        Keyring { keys: primary.into_iter().collect() }
    }

    /// From its file: a list in JSON of keys in base64, the primary first.
    ///
    /// # Errors
    /// What it is instead.
    pub fn parse(json: &[u8]) -> Result<Keyring, String> {
        let texts: Vec<String> = serde_json::from_slice(json)
            .map_err(|error| format!("expected a list of keys in JSON: {error}"))?;
        let mut keys: Vec<Key> = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let key =
                Key::parse(text).map_err(|error| format!("key {} of {}: {error}", at + 1, texts.len()))?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        match keys.len() {
            0 => Err("expected at least one key, found none".into()),
            1..=KEYS_MAX => Ok(Keyring { keys }),
            more => Err(format!("expected {KEYS_MAX} keys at most, found {more}")),
        }
    }

    /// As [`Keyring::parse`] reads it.
    pub fn json(&self) -> String {
        let texts: Vec<String> = self.keys.iter().map(Key::base64).collect();
        format!("{texts:#?}\n").replace(",\n]", "\n]")
    }

    pub fn primary(&self) -> Option<&Key> {
        self.keys.first()
    }

    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keyring after that. What is so already stays so: whoever repeats a step that came half-way finishes it.
    ///
    /// # Errors
    /// Where it cannot be done; nothing changes then.
    pub fn after(&self, operation: &Operation) -> Result<Keyring, Refusal> {
        if self.is_empty() {
            return Err(Refusal::Empty);
        }
        let mut keys = self.keys.clone();
        let place = |wanted: &Key| keys.iter().position(|key| key == wanted);
        match operation {
            Operation::List => {}
            Operation::Install(key) if place(key).is_some() => {}
            Operation::Install(_) if keys.len() >= KEYS_MAX => return Err(Refusal::Full),
            Operation::Install(key) => keys.push(key.clone()),
            Operation::Use(key) => {
                let at = place(key).ok_or(Refusal::Unknown)?;
                keys[..=at].rotate_right(1);
            }
            Operation::Remove(key) => match place(key) {
                Some(0) => return Err(Refusal::Primary),
                Some(at) => drop(keys.remove(at)),
                None => {}
            },
        }
        Ok(Keyring { keys })
    }
}

/// What a member says to an operation: the keys that it has then, the primary first, or why it does not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    Keys(Vec<Key>),
    Refused(String),
}

/// What all members of a pool said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Those that were asked, and those that said something in time.
    pub members: usize,
    pub answered: usize,
    /// By member: why it did not do it.
    pub refused: BTreeMap<Text, String>,
    /// By key in base64: how many members have it, and how many use it.
    pub keys: BTreeMap<String, usize>,
    pub primary: BTreeMap<String, usize>,
}

impl Report {
    pub fn of(members: usize) -> Report {
        Report { members, ..Report::default() }
    }

    pub fn add(&mut self, member: &Text, said: Said) {
        self.answered += 1;
        match said {
            Said::Refused(why) => drop(self.refused.insert(member.clone(), why)),
            Said::Keys(keys) => {
                if let Some(primary) = keys.first() {
                    *self.primary.entry(primary.base64()).or_default() += 1;
                }
                for key in keys {
                    *self.keys.entry(key.base64()).or_default() += 1;
                }
            }
        }
    }

    /// Why it is not done everywhere, in Consul's words; `None` where it is.
    pub fn fault(&self) -> Option<String> {
        let Report { members, answered, refused, .. } = self;
        if !refused.is_empty() {
            Some(format!("{}/{members} nodes reported failure", refused.len()))
        } else if answered < members {
            Some(format!("{answered}/{members} nodes reported success"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::of(vec![byte; 16]).unwrap()
    }

    #[test]
    fn keys_are_base64_of_three_lengths() {
        for length in [16, 24, 32] {
            let text = STANDARD.encode(vec![7; length]);
            assert_eq!(Key::parse(&text).unwrap().base64(), text);
        }
        assert_eq!(Key::parse("a2V5"), Err(NoKey::Size));
        assert_eq!(Key::parse(""), Err(NoKey::Size));
        assert_eq!(Key::parse("*").unwrap_err().to_string(), "illegal base64 data at input byte 0");
        assert_eq!(Key::parse("a2V5a2V*"), Err(NoKey::NoBase64(7)));
        assert_eq!(Key::parse("a2V5a2V"), Err(NoKey::NoBase64(4)));
        assert_eq!(format!("{:?}", key(1)), "Key(…)", "no log has it");
    }

    #[test]
    fn a_key_is_installed_then_used_and_the_old_one_removed() {
        let (old, new) = (key(1), key(2));
        let ring = Keyring::new(Some(old.clone()));
        assert_eq!(ring.after(&Operation::Use(new.clone())), Err(Refusal::Unknown));
        assert_eq!(ring.after(&Operation::Remove(old.clone())), Err(Refusal::Primary));
        assert_eq!(ring.after(&Operation::Remove(new.clone())).unwrap(), ring, "it is gone already");
        let ring = ring.after(&Operation::Install(new.clone())).unwrap();
        assert_eq!(ring.keys(), [old.clone(), new.clone()]);
        assert_eq!(ring.after(&Operation::Install(old.clone())).unwrap(), ring);
        assert_eq!(ring.after(&Operation::List).unwrap(), ring);
        let ring = ring.after(&Operation::Use(new.clone())).unwrap();
        assert_eq!(ring.primary(), Some(&new));
        let ring = ring.after(&Operation::Remove(old)).unwrap();
        assert_eq!(ring.keys(), [new]);
    }

    #[test]
    fn without_encryption_there_is_no_keyring() {
        let none = Keyring::default();
        for operation in [Operation::List, Operation::Install(key(1)), Operation::Use(key(1))] {
            let refused = none.after(&operation).unwrap_err();
            assert_eq!(refused.to_string(), "Keyring is empty (encryption not enabled)");
        }
    }

    #[test]
    fn a_keyring_has_an_end() {
        let mut ring = Keyring::new(Some(key(0)));
        for byte in 1..64 {
            ring = ring.after(&Operation::Install(key(byte))).unwrap();
        }
        assert_eq!(ring.after(&Operation::Install(key(64))), Err(Refusal::Full));
        assert_eq!(ring.after(&Operation::Install(key(63))).unwrap(), ring);
    }

    #[test]
    fn its_file_is_a_list() {
        let ring = Keyring { keys: vec![key(1), key(2)] };
        let json = ring.json();
        assert_eq!(json, "[\n    \"AQEBAQEBAQEBAQEBAQEBAQ==\",\n    \"AgICAgICAgICAgICAgICAg==\"\n]\n");
        assert_eq!(Keyring::parse(json.as_bytes()), Ok(ring.clone()));
        let twice = br#"["AQEBAQEBAQEBAQEBAQEBAQ==","AgICAgICAgICAgICAgICAg==","AQEBAQEBAQEBAQEBAQEBAQ=="]"#;
        assert_eq!(Keyring::parse(twice), Ok(ring));
        for (bytes, expected) in [
            (&b"[]"[..], "expected at least one key"),
            (b"", "expected a list of keys in JSON"),
            (b"{}", "expected a list of keys in JSON"),
            (b"[1]", "expected a list of keys in JSON"),
            (br#"["AQEBAQEBAQEBAQEBAQEBAQ==","a2V5"]"#, "key 2 of 2: key size must be"),
        ] {
            let fault = Keyring::parse(bytes).unwrap_err();
            assert!(fault.starts_with(expected), "{fault}");
        }
    }

    #[test]
    fn kept_files_of_every_version_are_read() {
        let kept = include_bytes!("../../tests/formats/v3/serf/local.keyring");
        let ring = Keyring::parse(kept).unwrap();
        assert_eq!(ring.keys(), [key(2), Key::of(vec![1; 32]).unwrap()]);
        assert_eq!(ring.json().as_bytes(), kept);
    }

    #[test]
    fn a_report_counts_who_has_what() {
        let mut report = Report::of(3);
        report.add(&"a".into(), Said::Keys(vec![key(1), key(2)]));
        report.add(&"b".into(), Said::Keys(vec![key(2)]));
        assert_eq!(report.fault().as_deref(), Some("2/3 nodes reported success"));
        report.add(&"c".into(), Said::Keys(vec![key(2)]));
        assert_eq!(report.fault(), None);
        assert_eq!(report.keys[&key(2).base64()], 3);
        assert_eq!(report.primary, [(key(1).base64(), 1), (key(2).base64(), 2)].into());
        let mut report = Report::of(2);
        report.add(&"a".into(), Said::Refused(Refusal::Primary.to_string()));
        assert_eq!(report.fault().as_deref(), Some("1/2 nodes reported failure"));
    }
}
