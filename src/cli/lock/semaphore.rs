//! A lock that several hold at once: `PREFIX/.lock` names its holders and how many there may be, and each contender has a
//! key `PREFIX/SESSION` that falls with its session. The list is changed by whoever read its last state, and cleaned of
//! those whose keys are gone.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{Refusal, WAIT, read};
use crate::cli::{
    client::{Client, Lost, Request},
    kv::{Entry, path},
};

/// What tells keys of this kind from others.
const FLAGS: u64 = 16_210_313_421_097_356_768;

pub struct Semaphore {
    pub key: String,
    prefix: String,
    contender: String,
    limit: u64,
}

/// What `.lock` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Holders {
    limit: u64,
    holders: BTreeMap<String, bool>,
}

/// The list as it was read, without those who are gone.
#[derive(Debug, PartialEq)]
struct Seen {
    list: Holders,
    /// 0 where there is none yet.
    modified: u64,
}

impl Semaphore {
    pub fn new(prefix: &str, limit: u64, session: &str) -> Semaphore {
        let prefix = format!("{prefix}/").trim_start_matches('/').to_string();
        Semaphore { key: format!("{prefix}.lock"), contender: format!("{prefix}{session}"), prefix, limit }
    }

    /// Waits until we are one of the holders.
    pub async fn acquire(&self, client: &Client, session: &str) -> Result<(), Refusal> {
        let enter = Request::put(path(&self.contender)).with("acquire", session);
        if !client.ok(enter.with("flags", FLAGS.to_string())).await?.is_true() {
            return Err(Refusal::Foreign("failed to make contender entry".into()));
        }
        let mut index = 0;
        loop {
            let (entries, answered) = self.read(client, index, WAIT).await?;
            let mut seen = self.seen(&entries)?;
            if seen.list.holders.contains_key(session) {
                return Ok(());
            }
            if seen.list.holders.len() as u64 >= self.limit {
                index = answered.max(1);
                continue;
            }
            seen.list.holders.insert(session.into(), true);
            if self.write(client, &seen).await? {
                return Ok(());
            }
            index = 0;
        }
    }

    /// Whether we are one of the holders, as soon as that may have changed.
    pub async fn look(&self, client: &Client, session: &str, index: u64) -> Result<(bool, u64), Lost> {
        let (entries, answered) = self.read(client, index, WAIT).await?;
        let seen = self.seen(&entries);
        Ok((seen.is_ok_and(|seen| seen.list.holders.contains_key(session)), answered))
    }

    pub async fn release(&self, client: &Client, session: &str) -> Result<(), Lost> {
        loop {
            let (entries, _) = self.read(client, 0, Duration::ZERO).await?;
            let Ok(mut seen) = self.seen(&entries) else { break };
            if seen.list.holders.remove(session).is_none() || self.write(client, &seen).await? {
                break;
            }
        }
        client.ok(Request::delete(path(&self.contender))).await.map(drop)
    }

    pub async fn clean_up(&self, client: &Client) -> Result<bool, Refusal> {
        let (entries, _) = self.read(client, 0, Duration::ZERO).await?;
        if !entries.iter().any(|entry| entry.key == self.key) {
            return Ok(true);
        }
        let in_use = entries.iter().any(|entry| !entry.session.is_empty());
        match self.seen(&entries) {
            Ok(seen) if seen.list.holders.is_empty() && !in_use => {
                let remove = Request::delete(path(&self.key)).with("cas", seen.modified.to_string());
                Ok(client.ok(remove).await?.is_true())
            }
            _ => Ok(false),
        }
    }

    /// Everything below the prefix.
    async fn read(&self, client: &Client, index: u64, wait: Duration) -> Result<(Vec<Entry>, u64), Lost> {
        read(client, Request::get(path(&self.prefix)).with("recurse", ""), index, wait).await
    }

    async fn write(&self, client: &Client, seen: &Seen) -> Result<bool, Lost> {
        let list = serde_json::to_string(&seen.list).map_err(|error| Lost::Way(error.to_string()))?;
        let write = Request::put(path(&self.key)).with("cas", seen.modified.to_string());
        Ok(client.ok(write.with("flags", FLAGS.to_string()).body(list)).await?.is_true())
    }

    fn seen(&self, entries: &[Entry]) -> Result<Seen, Refusal> {
        let Some(entry) = entries.iter().find(|entry| entry.key == self.key) else {
            return Ok(Seen { list: Holders { limit: self.limit, holders: BTreeMap::new() }, modified: 0 });
        };
        if entry.flags != FLAGS {
            return Err(Refusal::Foreign("Existing key does not match semaphore use".into()));
        }
        let bytes = BASE64_STANDARD.decode(entry.value.as_deref().unwrap_or("")).unwrap_or_default();
        let list: Result<Holders, _> = serde_json::from_slice(&bytes);
        let mut list = list
            .map_err(|error| Refusal::Foreign(format!("{}: found no list of holders: {error}", self.key)))?;
        if list.limit != self.limit {
            let text = format!("semaphore limit conflict (lock: {}, local: {})", list.limit, self.limit);
            return Err(Refusal::Foreign(text));
        }
        let lives = |session: &str| {
            let key = format!("{}{session}", self.prefix);
            entries.iter().any(|entry| entry.key == key && entry.session == session)
        };
        list.holders.retain(|session, _| lives(session));
        Ok(Seen { list, modified: entry.modify_index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, session: &str, value: &str) -> Entry {
        Entry {
            key: key.into(),
            flags: FLAGS,
            modify_index: 7,
            session: session.into(),
            value: Some(BASE64_STANDARD.encode(value)),
            ..Entry::default()
        }
    }

    #[test]
    fn who_is_gone_holds_nothing() {
        let semaphore = Semaphore::new("p", 2, "c");
        let list = r#"{"Limit":2,"Holders":{"a":true,"b":true}}"#;
        let entries = [entry("p/.lock", "", list), entry("p/a", "a", ""), entry("p/b", "", "")];
        let seen = semaphore.seen(&entries).unwrap();
        assert_eq!(
            (seen.list.holders.keys().map(String::as_str).collect::<Vec<_>>(), seen.modified),
            (vec!["a"], 7)
        );
        let written = serde_json::to_string(&seen.list).unwrap();
        assert_eq!(written, r#"{"Limit":2,"Holders":{"a":true}}"#);
    }

    #[test]
    fn what_is_no_such_lock_is_refused() {
        let refusal =
            |entry: Entry, limit| Semaphore::new("p", limit, "c").seen(&[entry]).unwrap_err().to_string();
        let list = entry("p/.lock", "", r#"{"Limit":2,"Holders":{}}"#);
        assert_eq!(refusal(list.clone(), 3), "semaphore limit conflict (lock: 2, local: 3)");
        let foreign = Entry { flags: 0, ..list };
        assert_eq!(refusal(foreign, 2), "Existing key does not match semaphore use");
        assert!(refusal(entry("p/.lock", "", "x"), 2).starts_with("p/.lock: found no list of holders"));
    }
}
