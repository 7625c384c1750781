//! Changes to what is registered here, whoever asks for them: kept first where anything is kept, then made; then checks
//! run as they are registered now, and the catalog is told.

use std::{mem::take, time::Duration};

use super::{Change, Shared, State, Unknown, now};
use crate::{catalog::Status, check::Definition, http::Failure};

impl Shared {
    /// Changes what is registered here, and returns when that is kept, where anything is.
    pub(super) async fn change(&self, change: Change) -> Result<(), Failure> {
        match &self.keeper {
            Some(keeper) => keeper.change(change).await,
            None => Ok(self.make(change)?),
        }
    }

    /// Makes a change that is kept already, or need not be.
    pub(super) fn make(&self, change: Change) -> Result<(), Unknown> {
        let mut state = self.state();
        state.local.apply(change)?;
        state.local.take_unkept();
        self.follow(&mut state);
        Ok(())
    }

    /// Runs checks as they are registered now, and has the catalog told.
    pub(super) fn follow(&self, state: &mut State) {
        let State { local, runner } = state;
        for id in local.take_rerun() {
            let Some(definition) = local.definition(&id) else {
                runner.remove(&id);
                continue;
            };
            if local.is_of_files(&id) || self.may_run(definition).is_ok() {
                runner.put(definition);
            } else {
                // It came from a time when it might: it stays, and is critical until it may again.
                runner.remove(&id);
                let _is_here = local.update_check(&id, Status::Critical, NO_SCRIPTS, now(), Duration::ZERO);
            }
        }
        if local.is_touched() {
            self.registered.send_modify(|count| *count += 1);
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Asks for a change whose outcome nobody waits for.
    pub(super) fn change_later(&self, change: Change) {
        match &self.keeper {
            Some(keeper) => keeper.change_later(change),
            None => drop(self.make(change)),
        }
    }

    pub(super) async fn reload(&self) -> Result<(), String> {
        let mut reloadable = (self.reread)()?;
        let (services, checks) = (take(&mut reloadable.services), take(&mut reloadable.checks));
        self.change(Change::Reload { services, checks }).await.map_err(|failure| failure.to_string())?;
        let could_run = self.timing.load().remote_scripts;
        self.apply(reloadable);
        self.zones.read_aside(self.dns.clone()).await;
        if self.timing.load().remote_scripts != could_run {
            let mut state = self.state();
            state.local.rerun_programs();
            self.follow(&mut state);
        }
        tracing::info!("configuration reloaded");
        Ok(())
    }

    /// Programs run for a file's check only, unless the operator lets anyone who reaches this API name them.
    pub(super) fn may_run(&self, check: &Definition) -> Result<(), Failure> {
        match check.kind.runs_program() && !self.timing.load().remote_scripts {
            true => Err(Failure::Other(NO_SCRIPTS.into())),
            false => Ok(()),
        }
    }
}

const NO_SCRIPTS: &str = "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true";
