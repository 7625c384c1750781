//! What the machine wants kept, on its way to the disk: never in the way of packets, however slow the disk is.

use std::{
    mem::take,
    time::{Duration, Instant},
};

use tokio::time::timeout_at;

use super::{Done, Driver, now};
use crate::gossip::{history::History, pool::Ended, settings::Keep};

/// What changes is kept this often.
const KEPT_EVERY: Duration = Duration::from_secs(1);
/// While the disk is stuck, no more than this is remembered for it.
const KEEPS_MAX: usize = 1 << 16;
const FINISHED_WITHIN: Duration = Duration::from_secs(2);

impl Driver {
    pub(super) fn remember(&mut self, keep: Keep) {
        if self.keeps_anything && self.keeps.len() < KEEPS_MAX {
            self.keeps.push(keep);
            self.keep_at.get_or_insert(now() + KEPT_EVERY);
        }
    }

    pub(super) fn keep(&mut self, now: Instant) {
        if self.keep_at.is_some_and(|at| at <= now)
            && let Some(mut history) = self.history.take()
        {
            let news = take(&mut self.keeps);
            self.keep_at = None;
            self.tasks.spawn_blocking(move || {
                let outcome = history.keep(&news);
                Done::Kept(history, outcome)
            });
        }
    }

    pub(super) fn kept(&mut self, history: History, outcome: Result<(), String>) {
        if let Err(error) = outcome {
            tracing::warn!(%error, "what is known of the members cannot be kept");
        }
        self.history = Some(history);
    }

    /// What is known by then is kept, unless the disk is stuck.
    pub(super) async fn finish(mut self) -> Ended {
        let deadline = now() + FINISHED_WITHIN;
        while self.keeps_anything && self.history.is_none() {
            match timeout_at(deadline.into(), self.tasks.join_next()).await {
                Ok(Some(Ok(Done::Kept(history, _)))) => self.history = Some(history),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        if let Some(mut history) = self.history.take()
            && !self.keeps.is_empty()
        {
            let news = take(&mut self.keeps);
            let keep = tokio::task::spawn_blocking(move || history.keep(&news));
            if let Ok(Ok(Err(error))) = timeout_at(deadline.into(), keep).await {
                tracing::warn!(%error, "what is known of the members cannot be kept");
            }
        }
        let end = self.end.take().unwrap_or(Ended::Stopped);
        if let Ended::Conflict(why) = &end {
            tracing::error!(why, "gossip has ended");
        }
        self.ended.send_replace(Some(end.clone()));
        end
    }
}
