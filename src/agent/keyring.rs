//! The keys of gossip, as operators change them over this agent: those of its pool, and on a server those of the pool
//! between datacenters, which does not run yet and whose keys are kept for it.

use std::sync::Arc;

use super::{Identity, shared::Shared};
use crate::{
    catalog::Text,
    gossip::{Encryption, KeptKeyring, Key, Operation, Report},
    http::{KeyOperation, KeyReport},
};

/// On a server that has a port for it: with the same key to begin with, in a file of its own.
///
/// # Errors
/// What is wrong with that file.
pub fn of_wan(identity: &Identity, encryption: &Encryption) -> Result<Option<Arc<KeptKeyring>>, String> {
    if !identity.server || identity.serf_wan_port.is_none() {
        return Ok(None);
    }
    let keyring = encryption.keyring.as_ref().map(|path| path.with_file_name("remote.keyring"));
    let kept = KeptKeyring::open(&Encryption { keyring, ..encryption.clone() });
    Ok(Some(Arc::new(kept.map_err(|error| error.to_string())?)))
}

impl Shared {
    pub(super) async fn change_keyring(&self, asked: KeyOperation, local_only: bool) -> Vec<KeyReport> {
        let operation = match operation(&asked) {
            Ok(operation) => operation,
            Err(fault) => {
                let pools = if self.wan_keys.is_some() { vec![true, false] } else { vec![false] };
                let refused = |wan| KeyReport { wan, fault: Some(fault.clone()), ..KeyReport::default() };
                return pools.into_iter().map(refused).collect();
            }
        };
        let mut reports = Vec::new();
        if let Some(keys) = self.wan_keys.as_ref().filter(|_| !local_only) {
            let name = format!("{}.{}", self.identity.node_name, self.identity.datacenter);
            reports.push(told(true, change_kept(Arc::clone(keys), operation.clone(), name.into()).await));
        }
        let lan = self.pool.keyring(operation, local_only).await;
        reports.push(match lan {
            Ok(report) => told(false, report),
            Err(over) => KeyReport { fault: Some(over.to_string()), ..KeyReport::default() },
        });
        reports
    }
}

async fn change_kept(keys: Arc<KeptKeyring>, operation: Operation, name: Text) -> Report {
    let changed = tokio::task::spawn_blocking(move || keys.change(&operation, &name)).await;
    changed.expect("a keyring is changed without a panic")
}

fn operation(asked: &KeyOperation) -> Result<Operation, String> {
    let key = |text: &str| Key::parse(text).map_err(|fault| fault.to_string());
    Ok(match asked {
        KeyOperation::List => Operation::List,
        KeyOperation::Install(text) => Operation::Install(key(text)?),
        KeyOperation::Use(text) => Operation::Use(key(text)?),
        KeyOperation::Remove(text) => Operation::Remove(key(text)?),
    })
}

fn told(wan: bool, report: Report) -> KeyReport {
    let fault = report.fault();
    let Report { members, refused, keys, primary, .. } = report;
    KeyReport { wan, members, fault, messages: refused, keys, primary }
}
