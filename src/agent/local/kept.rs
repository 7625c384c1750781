//! What of an agent's registrations outlives the process: everything that came over the API. A service is kept with
//! its checks in one piece, since they change together; a check of the node by itself. Knows nothing of files.

use std::sync::Arc;

use super::{Local, OwnCheck, OwnService, Source};
use crate::{
    catalog::{Check, Key, Service, Status, Text, fold},
    check::{Definition, NODE_MAINTENANCE, ServiceDefinition},
};

/// One thing that is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    Service {
        id: Text,
        /// `None` where files define the service, and only checks of it came over the API.
        registered: Option<Registered>,
        checks: Vec<Arc<Definition>>,
        /// The reason for which it is out of every answer.
        maintenance: Option<Text>,
    },
    /// Of the node.
    Check(Arc<Definition>),
    /// The node's, with the reason.
    Maintenance(Text),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    pub service: Arc<Service>,
    pub token: Text,
}

impl Local {
    /// What is to be kept of a service, by its lower-cased id.
    pub fn kept_service(&self, id: &Key) -> Option<Kept> {
        let own = self.services.get(id)?;
        let registered = (own.source == Source::Api)
            .then(|| Registered { service: own.defined.clone(), token: own.token.clone() });
        let is_kept = |check: &&OwnCheck| check.source == Source::Api && check.is_of(id);
        let of_api: Vec<&OwnCheck> = self.checks.values().filter(is_kept).collect();
        let checks: Vec<_> = of_api.iter().filter_map(|check| check.definition.clone()).collect();
        let maintenance = of_api.iter().find(|check| check.definition.is_none());
        let maintenance = maintenance.map(|check| check.record.notes.clone());
        let is_something = registered.is_some() || !of_api.is_empty();
        let id = own.service.id.clone();
        is_something.then_some(Kept::Service { id, registered, checks, maintenance })
    }

    /// What is to be kept of a check of the node, by its lower-cased id.
    pub fn kept_check(&self, id: &Key) -> Option<Kept> {
        let own = self.checks.get(id).filter(|own| own.record.service_id.is_empty())?;
        (own.source == Source::Api).then(|| match &own.definition {
            Some(definition) => Kept::Check(definition.clone()),
            None => Kept::Maintenance(own.record.notes.clone()),
        })
    }

    /// Takes up what was kept, oldest first; of two that claim one id the later wins. What files define wins over both
    /// (`config-cli.md` §4.4), and what hangs on a service that is nowhere defined any more is gone. Whatever is kept
    /// otherwise than it stands here now is found among [`Local::take_unkept`].
    pub fn restore(&mut self, kept: Vec<Kept>) {
        for kept in kept {
            match kept {
                Kept::Check(definition) => {
                    self.unkept.checks.insert(fold(&definition.id).into());
                    self.restore_check(definition);
                }
                Kept::Maintenance(reason) => {
                    self.unkept.checks.insert(NODE_MAINTENANCE.into());
                    let _of_the_node = self.maintain(None, &reason);
                }
                Kept::Service { id, registered, checks, maintenance } => {
                    let key: Key = fold(&id).into();
                    self.unkept.services.insert(key.clone());
                    let is_file = |own: &OwnService| own.source == Source::File;
                    if let Some(Registered { service, token }) = registered
                        && !self.services.get(&key).is_some_and(is_file)
                    {
                        let service = Service::clone(&service);
                        let definition = ServiceDefinition { service, checks: vec![], token };
                        self.register_service(definition, Source::Api, false);
                    }
                    if !self.services.contains_key(&key) {
                        tracing::warn!(service = &*id, "Its checks are gone: no file defines it any more");
                        continue;
                    }
                    checks.into_iter().for_each(|check| self.restore_check(check));
                    if let Some(reason) = maintenance {
                        let _is_here = self.maintain(Some(&id), &reason);
                    }
                }
            }
        }
    }

    /// Until it is heard of it is critical, whatever it was registered with.
    fn restore_check(&mut self, definition: Arc<Definition>) {
        let id: Key = fold(&definition.id).into();
        if self.checks.get(&id).is_some_and(|own| own.source != Source::Api) {
            return;
        }
        let record = Check { status: Status::Critical, ..definition.record() };
        self.put_record(record, Some(definition), Source::Api);
    }

    /// Whether the last word of this check's program counts after a restart: not inside a file's service
    /// (`config-cli.md` §4.4). `id` is lower-cased.
    pub fn keeps_state(&self, id: &str) -> bool {
        let of = self.checks.get(id).map(|own| own.source);
        of.is_some_and(|source| source != Source::FileService) && self.ttl_check(id).is_ok()
    }

    /// Takes up the last word of a check's program. `id` is lower-cased.
    pub fn restore_state(&mut self, id: &str, status: Status, output: Text) {
        if let Some(own) = self.checks.get_mut(id) {
            own.record = Arc::new(Check { status, output, ..Check::clone(&own.record) });
            self.touched.checks.insert(id.into());
        }
    }

    /// What changed since this was last asked, and may be kept otherwise than it stands now.
    pub fn take_unkept(&mut self) -> super::Ids {
        std::mem::take(&mut self.unkept)
    }
}
