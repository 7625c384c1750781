//! A lock that one holds: the key `PREFIX/.lock`, acquired by a session, with a flag that says what it is.

use std::time::Duration;

use super::{PAUSE, Refusal, WAIT, read};
use crate::cli::{
    client::{Client, Lost, Request},
    kv::{Entry, path},
};

/// What tells a key of this kind from others.
const FLAGS: u64 = 3_304_740_253_564_472_344;

pub struct Mutex {
    pub key: String,
}

impl Mutex {
    pub fn new(prefix: &str) -> Mutex {
        Mutex { key: format!("{prefix}/.lock").trim_start_matches('/').into() }
    }

    /// Waits until it is ours.
    pub async fn acquire(&self, client: &Client, session: &str) -> Result<(), Refusal> {
        let (mut index, mut wait) = (0, WAIT);
        loop {
            let (entry, answered) = self.read(client, index, wait).await?;
            match entry {
                Some(entry) if entry.flags != FLAGS => {
                    return Err(Refusal::Foreign("Existing key does not match lock use".into()));
                }
                Some(entry) if entry.session == session => return Ok(()),
                Some(entry) if !entry.session.is_empty() => (index, wait) = (answered.max(1), WAIT),
                _ => {
                    let take = Request::put(path(&self.key)).with("acquire", session);
                    if client.ok(take.with("flags", FLAGS.to_string())).await?.is_true() {
                        return Ok(());
                    }
                    // Somebody was faster, which changes the key; or its last holder was lost, and nobody may have it yet.
                    (index, wait) = (answered.max(1), PAUSE);
                }
            }
        }
    }

    async fn read(&self, client: &Client, index: u64, wait: Duration) -> Result<(Option<Entry>, u64), Lost> {
        let (entries, answered) = read(client, Request::get(path(&self.key)), index, wait).await?;
        Ok((entries.into_iter().next(), answered))
    }

    /// Whether it is ours, as soon as that may have changed.
    pub async fn look(&self, client: &Client, session: &str, index: u64) -> Result<(bool, u64), Lost> {
        let (entry, answered) = self.read(client, index, WAIT).await?;
        Ok((entry.is_some_and(|entry| entry.session == session), answered))
    }

    pub async fn release(&self, client: &Client, session: &str) -> Result<(), Lost> {
        let give = Request::put(path(&self.key)).with("release", session);
        client.ok(give.with("flags", FLAGS.to_string())).await.map(drop)
    }

    pub async fn clean_up(&self, client: &Client) -> Result<bool, Refusal> {
        let (entry, _) = self.read(client, 0, Duration::ZERO).await?;
        match entry {
            None => Ok(true),
            Some(entry) if entry.flags != FLAGS || !entry.session.is_empty() => Ok(false),
            Some(entry) => {
                let remove = Request::delete(path(&self.key)).with("cas", entry.modify_index.to_string());
                Ok(client.ok(remove).await?.is_true())
            }
        }
    }
}
