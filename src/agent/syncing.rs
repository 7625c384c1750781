//! Words between this agent's checks, what is registered here, and the catalog: taken up as they come, compared when
//! something changed and every minute or two. What differs is `sync`'s to say.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Change,
    backing::{is_of_all, scale, stagger},
    now,
    shared::Shared,
    sync::{self, Scope},
};
use crate::{
    catalog::{Topic, fold},
    check::Told,
};

/// Services that are critical for too long are looked for this often.
const REAP_EVERY: Duration = Duration::from_secs(30);

impl Shared {
    pub(super) fn take_up(&self, told: Told) {
        let (delay, mut state) = (self.output_delay(), self.state());
        if state.runner.is_current(&told) {
            let Told { id, status, output, .. } = told;
            let word = status.to_string();
            if state.local.update_check(&id, status, &output, now(), delay) == Ok(true) {
                tracing::debug!(check = &*id, status = word, "Check status updated");
                self.changed.send_modify(|count| *count += 1);
            }
        }
    }

    /// Waits until the catalog was told of every change so far, or could not be.
    pub(super) async fn told(&self) {
        let (upto, mut told) = (*self.changed.borrow(), self.told.subscribe());
        // The sender lives as long as this does.
        let _told = told.wait_for(|told| *told >= upto).await;
    }

    /// Compares with the catalog, and proposes what differs. `false` where something was not written.
    ///
    /// An agent that is no server compares with what it last heard, which it first has confirmed where everything is to be
    /// compared; nothing comes over the wire where that still holds. What it tells it takes for heard: what did not
    /// arrive shows when it has that confirmed again.
    pub(super) async fn sync(&self, mut scope: Scope) -> bool {
        let (client, mut written, mut goes_on) = (self.backing.client(), true, true);
        if let (Scope::Everything, Some(client)) = (scope, client)
            && let Err(error) = client.mirror.refresh(&self.identity.node_name, Duration::ZERO).await
        {
            tracing::warn!(%error, "failed to sync: servers do not say what they know of this node");
            // Where one answered, what changed here is told all the same.
            (scope, written, goes_on) = (Scope::Touched, false, !is_of_all(&error));
        }
        let catalog = self.backing.catalog();
        let commands = {
            let mut state = self.state();
            let home = catalog.node(&fold(&self.identity.node_name));
            sync::difference(&mut state.local, &self.node(), home.map(|home| &**home), scope, now())
        };
        if scope == Scope::Everything && commands.is_empty() {
            tracing::debug!("compared with the catalog: nothing differs");
        }
        for command in commands {
            self.figures.told.add(1);
            if let Some(client) = client {
                client.mirror.apply(command.clone());
            }
            if !goes_on {
                self.figures.not_told.add(1);
                continue;
            }
            let reply = self.propose(command).await;
            self.figures.not_told.add((!matches!(reply, Ok(Ok(_)))).into());
            match reply {
                Ok(Ok(_)) => {}
                Ok(Err(refusal)) => {
                    tracing::error!(%refusal, "the catalog refuses what this agent registers");
                    written = false;
                }
                Err(unwritten) if unwritten.is_end() => return false,
                Err(unwritten) => {
                    tracing::warn!(error = %unwritten, "failed to sync");
                    (written, goes_on) = (false, !unwritten.is_of_all());
                }
            }
        }
        written
    }
}

/// Takes up what checks say, and removes services that failed for too long.
pub async fn listen(shared: Arc<Shared>, mut tells: mpsc::Receiver<Told>, stop: CancellationToken) {
    let mut reap = tokio::time::interval(REAP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            told = tells.recv() => {
                let Some(told) = told else { return };
                shared.take_up(told);
            }
            _ = reap.tick() => {
                let overdue = shared.state().local.overdue(now());
                for id in overdue {
                    tracing::info!(service = &*id, "deregistered: critical for longer than its check allows");
                    shared.change_later(Change::DeregisterService(id.to_string()));
                }
            }
        }
    }
}

/// Keeps the catalog true: at once when something local changed, and every minute or two in any case. Once
/// this agent leaves or stops, nobody waits for what will not come; what has begun is let go.
pub async fn keep_in_sync(shared: Arc<Shared>, stop: CancellationToken) {
    let is_over = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = shared.going.cancelled() => {}
        }
    };
    tokio::select! {
        biased;
        () = is_over => {}
        () = compare_for_ever(&shared) => {}
    }
    shared.told.send_replace(u64::MAX);
    stop.cancelled().await;
}

async fn compare_for_ever(shared: &Shared) {
    let mut schedule = sync::Schedule::new(now());
    let mut changed = shared.changed.subscribe();
    let mut replaced = shared.backing.subscribe(vec![Topic::Everything]);
    let mut server_came = shared.server_came.subscribe();
    loop {
        let due = shared.state().local.next_due().map_or(schedule.due(), |due| due.min(schedule.due()));
        tokio::select! {
            // The sender lives as long as `shared` does.
            _ = changed.changed() => {}
            () = tokio::time::sleep_until(due.into()) => {}
            // The sender lives as long as `shared` does.
            _ = server_came.changed() => {
                let late = stagger(shared.pool.members().borrow().len()).mul_f64(fastrand::f64());
                schedule.by(now() + late);
                continue;
            }
            // What this agent has may not be in it.
            _ = &mut replaced => {
                replaced = shared.backing.subscribe(vec![Topic::Everything]);
                schedule = sync::Schedule::new(now());
            }
        };
        let upto = *changed.borrow_and_update();
        let scope = if schedule.due() <= now() { Scope::Everything } else { Scope::Touched };
        let written = shared.sync(scope).await;
        if scope == Scope::Everything || !written {
            let scale = scale(shared.pool.members().borrow().len());
            schedule.done(written, now(), fastrand::f64(), scale);
        }
        shared.told.send_replace(upto);
    }
}
