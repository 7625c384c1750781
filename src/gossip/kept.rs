//! A keyring and its file, of a pool that does not run here: operators change it as they change that of one that does.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use super::{
    driver::keyring_of,
    file,
    keyring::{Keyring, Operation, Report, Said},
    pool::{Encryption, StartError},
};
use crate::catalog::Text;

pub struct KeptKeyring {
    file: Option<PathBuf>,
    keyring: Mutex<Keyring>,
}

impl KeptKeyring {
    /// # Errors
    /// What is wrong with its file.
    pub fn open(encryption: &Encryption) -> Result<KeptKeyring, StartError> {
        let keyring = keyring_of(encryption).map_err(StartError::Keyring)?;
        Ok(KeptKeyring { file: encryption.keyring.clone(), keyring: Mutex::new(keyring) })
    }

    /// What `member`, this one, says to it. It waits for the disk.
    pub fn change(&self, operation: &Operation, member: &Text) -> Report {
        let mut keyring = self.keyring.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = |after: &Keyring| match &self.file {
            Some(path) if *after != *keyring => file::put(path, after.json().as_bytes()),
            _ => Ok(()),
        };
        let changed = keyring.after(operation).map_err(|refusal| refusal.to_string());
        let changed = changed.and_then(|after| kept(&after).map(|()| after));
        let mut report = Report::of(1);
        match changed {
            Ok(after) => {
                report.add(member, Said::Keys(after.keys().to_vec()));
                *keyring = after;
            }
            Err(why) => report.add(member, Said::Refused(why)),
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::gossip::keyring::Key;

    #[test]
    fn it_is_kept_before_the_answer() {
        let folder = std::env::temp_dir().join(format!("lictor-kept-{}", std::process::id()));
        let path = folder.join("serf/remote.keyring");
        let key = |byte| Key::of(vec![byte; 16]).unwrap();
        let encryption =
            Encryption { key: Some(key(1)), keyring: Some(path.clone()), ..Encryption::default() };
        let kept = KeptKeyring::open(&encryption).unwrap();
        let member = Text::from("oak.dc1");
        let report = kept.change(&Operation::Install(key(2)), &member);
        assert_eq!((report.fault(), report.keys.len()), (None, 2));
        assert_eq!(kept.change(&Operation::Use(key(2)), &member).fault(), None);
        let refused = kept.change(&Operation::Remove(key(2)), &member);
        assert_eq!(refused.refused[&member], "Removing the primary key is not allowed");
        // The file wins from then on, over any other key.
        let other = Encryption { key: Some(key(3)), ..encryption.clone() };
        let again = KeptKeyring::open(&other).unwrap();
        let report = again.change(&Operation::List, &member);
        assert_eq!(report.primary, [(key(2).base64(), 1)].into());
        fs::write(&path, "[]").unwrap();
        let fault = KeptKeyring::open(&encryption).err().unwrap().to_string();
        assert!(
            fault.starts_with("Failed to configure keyring: ") && fault.contains("remote.keyring"),
            "{fault}"
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
