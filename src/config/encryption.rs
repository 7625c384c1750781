//! The keys of the configuration that say how gossip is encrypted.

use std::path::Path;

use super::reader::{Fields, Findings};
use crate::gossip::{Encryption, Key, NoKey};

/// What one tree says of it.
#[derive(Default)]
pub struct Encrypted {
    key: Option<Key>,
    verify_incoming: Option<bool>,
    verify_outgoing: Option<bool>,
    without_file: Option<bool>,
}

pub fn read(top: &mut Fields, findings: &mut Findings) -> Encrypted {
    Encrypted {
        key: read_key(top, findings),
        verify_incoming: top.bool("encrypt_verify_incoming", findings),
        verify_outgoing: top.bool("encrypt_verify_outgoing", findings),
        without_file: top.bool("disable_keyring_file", findings),
    }
}

/// It is not named: whoever reads the log must not read the key.
fn read_key(top: &mut Fields, findings: &mut Findings) -> Option<Key> {
    let place = top.place("encrypt")?;
    let text = top.text("encrypt", findings)?;
    if text.is_empty() {
        return None;
    }
    let expected = "expected what lictor keygen prints";
    Key::parse(&text)
        .map_err(|fault| match fault {
            NoKey::NoBase64(_) => format!("encrypt has invalid key: {fault}; {expected}"),
            NoKey::Size => format!("Failed to configure keyring: Invalid key: {fault}; {expected}"),
        })
        .map_err(|text| findings.fault::<()>(place, text))
        .ok()
}

impl Encrypted {
    pub fn settings(self, data_dir: Option<&Path>, dev: bool) -> Encryption {
        let folder = data_dir.filter(|_| !self.without_file.unwrap_or(dev));
        Encryption {
            key: self.key,
            keyring: folder.map(|folder| folder.join("serf/local.keyring")),
            verify_incoming: self.verify_incoming.unwrap_or(true),
            verify_outgoing: self.verify_outgoing.unwrap_or(true),
        }
    }
}
