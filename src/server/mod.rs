//! What only servers do. The leader turns members into catalog: today itself alone, since nobody else can join yet.
//! Knows agreement and the catalog; not how members are found, nor what else an agent has registered on its node.

mod member;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::raft::Raft;

pub use member::{Member, reconcile};

/// The leader's duties. They write only where the catalog differs from what they want of it.
pub struct Leader {
    pub raft: Raft,
    /// This server itself.
    pub member: Member,
    /// [`RECONCILE_EVERY`], unless a test is in a hurry.
    pub reconcile_every: Duration,
}

/// Rows of ours that somebody removed are back after this, at the latest.
pub const RECONCILE_EVERY: Duration = Duration::from_secs(60);
/// After a write that did not come through.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Leader {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            let pause = if self.reconcile().await {
                self.reconcile_every
            } else {
                self.reconcile_every.min(RETRY_AFTER)
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Repairs the rows of this server, if it leads; says whether they are as they should be. An agent calls it before
    /// it registers anything itself, so that its own word about its node is the later one.
    pub async fn reconcile(&self) -> bool {
        if !self.raft.is_leader() {
            return true;
        }
        let Some(command) = reconcile(&self.raft.catalog(), &self.member) else { return true };
        let fault = match self.raft.propose(command).await {
            Ok(Ok(_)) => return true,
            Ok(Err(refusal)) => refusal.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(member = %self.member.name, error = %fault, "failed to register a member");
        false
    }
}

#[cfg(test)]
mod tests;
