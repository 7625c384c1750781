//! What the rest of the house asks of a pool.

use tokio::sync::oneshot;

use super::{
    Done, Driver,
    keys::{self, Step, To},
    lock, now,
};
use crate::gossip::{
    file,
    keyring::{Operation, Report},
    pool::Request,
};

impl Driver {
    pub(super) fn request(&mut self, request: Request) {
        let at = now();
        match request {
            Request::Join { addresses, reply } => {
                for (id, address) in self.joining.ask(addresses, reply) {
                    self.machine.join(id, address, at);
                }
            }
            Request::Leave => self.machine.leave(at),
            Request::ForceLeave { name, prune, reply } => {
                let _nobody_waits = reply.send(self.machine.force_leave(&name, prune, at));
            }
            Request::Fire { name, payload, reply } => {
                let _nobody_waits = reply.send(self.machine.fire(name, payload, at));
            }
            Request::SetTags { tags, reply } => {
                let _nobody_waits = reply.send(self.machine.set_tags(tags, at));
            }
            Request::Keyring { operation, local_only, reply } => {
                self.change_keyring(operation, local_only, reply);
            }
        }
    }

    /// On every member, this one among them, as long as they understand each other at all.
    fn change_keyring(&mut self, operation: Operation, local_only: bool, reply: oneshot::Sender<Report>) {
        let keyring = self.keyring();
        if local_only {
            let steps = self.keys.add(operation, To::Here(reply), &keyring, &self.name);
            self.walk(steps);
        } else {
            let members = self.machine.members().values().filter(|member| member.status.is_here()).count();
            if let Some((id, payload)) = self.keys.ask(operation, members, reply, &self.name)
                && let Err(error) = self.machine.query(id, keys::QUERY.into(), payload, now())
            {
                tracing::error!(%error, "members cannot be asked for their keyrings");
                self.keys.over(id);
            }
        }
    }

    pub(super) fn walk(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Write(path, json) => {
                    self.tasks
                        .spawn_blocking(move || Done::KeyringWritten(file::put(&path, json.as_bytes())));
                }
                Step::Use(keyring) => {
                    tracing::info!(keys = keyring.keys().len(), "the keyring has changed");
                    self.encrypted.send_replace(!keyring.is_empty());
                    lock(&self.seal).set_keyring(keyring);
                }
                Step::Respond(query, payload) => self.machine.respond(&query, payload, now()),
            }
        }
    }
}
