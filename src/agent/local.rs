//! What this agent registers: its services and checks, whoever defined them. A value that takes events and the time;
//! what the catalog is told of it is worked out in `sync`, what outlives the process in `kept`.

mod kept;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use imbl::OrdMap;

use crate::{
    catalog::{Check, Key, Map, Service, ServiceAddress, Status, Text, fold},
    check::{Definition, Kind, NODE_MAINTENANCE, SERVICE_MAINTENANCE, ServiceDefinition},
};

pub use kept::{Kept, Registered};

/// Where a definition comes from. What files define is replaced by a reload; what was registered stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    File,
    /// Of a check: it stands inside a file's service.
    FileService,
    Api,
}

/// A change to what is registered here. It happens as a whole or not at all.
#[derive(Clone, Debug)]
pub enum Change {
    RegisterService {
        definition: ServiceDefinition,
        replace_checks: bool,
    },
    DeregisterService(String),
    RegisterCheck(Definition),
    DeregisterCheck(String),
    /// Takes a service, or the whole node, out of every answer, and says why.
    Maintain {
        service: Option<String>,
        reason: String,
    },
    /// Ends that.
    Resume {
        service: Option<String>,
    },
    /// Replaces everything that files define.
    Reload {
        services: Vec<ServiceDefinition>,
        checks: Vec<Definition>,
    },
}

/// The services and checks of this agent, by id. A copy costs nothing, so that a change can be tried on one first.
#[derive(Clone, Default)]
pub struct Local {
    services: OrdMap<Key, OwnService>,
    checks: OrdMap<Key, OwnCheck>,
    touched: Ids,
    /// Checks that are to be run, run anew, or no longer.
    rerun: BTreeSet<Key>,
    /// Services (with their checks) and checks of the node whose kept form may differ from the one last written.
    unkept: Ids,
}

/// Services and checks, by their lower-cased ids; some may be gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub services: BTreeSet<Key>,
    pub checks: BTreeSet<Key>,
}

#[derive(Clone)]
struct OwnService {
    /// As it was defined.
    defined: Arc<Service>,
    /// As it stands: with the tags that others gave it, where it allows that.
    service: Arc<Service>,
    token: Text,
    source: Source,
}

#[derive(Clone)]
struct OwnCheck {
    /// `None` for maintenance: nothing is run, it lasts until it is lifted.
    definition: Option<Arc<Definition>>,
    record: Arc<Check>,
    source: Source,
    /// Until then a change of output alone is not told.
    output_due: Option<Instant>,
    /// Since when it has been critical, by a result and not just for want of one.
    critical_since: Option<Instant>,
}

/// Why something is not done. The texts are Consul's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error("Unknown service ID {0:?}. Ensure that the service ID is passed, not the service name.")]
    Service(String),
    #[error("Unknown check ID {0:?}. Ensure that the check ID is passed, not the check name.")]
    Check(String),
    #[error("ServiceID {0:?} does not exist")]
    ServiceOfCheck(String),
    #[error("CheckID {0:?} does not have associated TTL")]
    NoTtl(String),
}

impl Local {
    /// # Errors
    /// Where the change is about something that is not here. Nothing is changed then.
    pub fn apply(&mut self, change: Change) -> Result<(), Unknown> {
        match change {
            Change::RegisterService { definition, replace_checks } => {
                self.register_service(definition, Source::Api, replace_checks);
                Ok(())
            }
            Change::DeregisterService(id) => self.deregister_service(&id),
            Change::RegisterCheck(definition) => self.register_check(definition, Source::Api),
            Change::DeregisterCheck(id) => self.deregister_check(&id),
            Change::Maintain { service, reason } => self.maintain(service.as_deref(), &reason),
            Change::Resume { service } => self.resume(service.as_deref()),
            Change::Reload { services, checks } => {
                self.reload(services, checks);
                Ok(())
            }
        }
    }

    /// Registers a service with its checks. A check that is known already keeps its status and output; checks of the
    /// former registration stay unless `replace_checks`.
    pub fn register_service(&mut self, definition: ServiceDefinition, source: Source, replace_checks: bool) {
        let ServiceDefinition { mut service, checks, token } = definition;
        add_tagged_addresses(&mut service);
        let id: Key = fold(&service.id).into();
        if replace_checks {
            let kept: BTreeSet<Key> = checks.iter().map(|check| fold(&check.id).into()).collect();
            self.remove_checks(|check, own| !own.is_of(&id) || kept.contains(check));
        }
        let defined = Arc::new(service);
        let former = self.services.get(&id).filter(|former| former.defined == defined);
        let service = former.map_or(&defined, |former| &former.service).clone();
        self.put_service(id, OwnService { defined, service, token, source });
        let source = if source == Source::File { Source::FileService } else { source };
        for check in checks {
            self.put_check(check, source);
        }
    }

    /// # Errors
    /// Where the check is of a service that is not here.
    pub fn register_check(&mut self, definition: Definition, source: Source) -> Result<(), Unknown> {
        let service_id = &definition.service_id;
        if !service_id.is_empty() && self.service(service_id).is_none() {
            return Err(Unknown::ServiceOfCheck(service_id.to_string()));
        }
        self.put_check(definition, source);
        Ok(())
    }

    /// Removes a service with its checks.
    ///
    /// # Errors
    /// Where there is no such service.
    pub fn deregister_service(&mut self, id: &str) -> Result<(), Unknown> {
        let (id, _) = self.services.remove_with_key(&*fold(id)).ok_or_else(|| Unknown::Service(id.into()))?;
        self.remove_checks(|_, own| !own.is_of(&id));
        self.unkept.services.insert(id.clone());
        self.touched.services.insert(id);
        Ok(())
    }

    /// # Errors
    /// Where there is no such check.
    pub fn deregister_check(&mut self, id: &str) -> Result<(), Unknown> {
        let (id, own) = self.checks.remove_with_key(&*fold(id)).ok_or_else(|| Unknown::Check(id.into()))?;
        self.removed_check(id, &own);
        Ok(())
    }

    /// Where it is so already, the first reason stays.
    fn maintain(&mut self, service: Option<&str>, reason: &str) -> Result<(), Unknown> {
        let check = self.maintenance_check(service)?;
        if self.check(&fold(&check.id)).is_none() {
            self.put_record(Check { notes: reason.into(), ..check }, None, Source::Api);
        }
        Ok(())
    }

    fn resume(&mut self, service: Option<&str>) -> Result<(), Unknown> {
        let check = self.maintenance_check(service)?;
        let _was_not_so = self.deregister_check(&check.id);
        Ok(())
    }

    fn maintenance_check(&self, service: Option<&str>) -> Result<Check, Unknown> {
        let (id, name, service_id) = match service {
            None => (NODE_MAINTENANCE.into(), "Node Maintenance Mode", Text::default()),
            Some(id) => {
                let service = self.service(id).ok_or_else(|| Unknown::Service(id.into()))?;
                let id = format!("{SERVICE_MAINTENANCE}{}", service.id);
                (id, "Service Maintenance Mode", service.id.clone())
            }
        };
        let (id, name, kind) = (id.into(), name.into(), "maintenance".into());
        Ok(Check { id, name, kind, service_id, status: Status::Critical, ..Check::default() })
    }

    /// Replaces everything that files defined. What stays keeps its status and output, and a check whose definition is
    /// the same goes on undisturbed.
    pub fn reload(&mut self, services: Vec<ServiceDefinition>, checks: Vec<Definition>) {
        let nested = services.iter().flat_map(|service| &service.checks);
        let defined: BTreeSet<Key> = nested.chain(&checks).map(|check| fold(&check.id).into()).collect();
        let ids: BTreeSet<Key> = services.iter().map(|service| fold(&service.service.id).into()).collect();
        let is_gone = |(id, own): &(&Key, &OwnService)| own.source == Source::File && !ids.contains(*id);
        let gone: Vec<Key> = self.services.iter().filter(is_gone).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.services.remove(&id);
            self.unkept.services.insert(id.clone());
            self.touched.services.insert(id);
        }
        self.remove_checks(|id, own| own.source == Source::Api || defined.contains(id));
        for service in services {
            self.register_service(service, Source::File, false);
        }
        for check in checks {
            self.put_check(check, Source::File);
        }
        let here: BTreeSet<Key> = self.services.keys().cloned().collect();
        self.remove_checks(|_, own| {
            let service_id = &own.record.service_id;
            service_id.is_empty() || here.contains(&*fold(service_id))
        });
    }

    /// A check says something. A new status is told at once; of new output alone the latest is told after `delay`.
    /// Says whether there is something to tell, now or at another time than before.
    ///
    /// # Errors
    /// Where there is no such check.
    pub fn update_check(
        &mut self,
        id: &str,
        status: Status,
        output: &str,
        now: Instant,
        delay: Duration,
    ) -> Result<bool, Unknown> {
        let id = fold(id);
        let own = self.checks.get_mut(&*id).ok_or_else(|| Unknown::Check(id.to_string()))?;
        own.critical_since = (status == Status::Critical).then(|| own.critical_since.unwrap_or(now));
        let turned = own.record.status != status;
        if !turned && &*own.record.output == output {
            return Ok(false);
        }
        own.record = Arc::new(Check { status, output: output.into(), ..Check::clone(&own.record) });
        if turned || delay.is_zero() {
            own.output_due = None;
            self.touched.checks.insert(id.into());
            return Ok(true);
        }
        let waits = own.output_due.is_some();
        own.output_due.get_or_insert(now + delay);
        Ok(!waits)
    }

    /// # Errors
    /// Where there is no such check, or nobody is to tell its status.
    pub fn ttl_check(&self, id: &str) -> Result<&Definition, Unknown> {
        let own = self.checks.get(&*fold(id)).ok_or_else(|| Unknown::Check(id.into()))?;
        own.definition
            .as_deref()
            .filter(|own| matches!(own.kind, Kind::Ttl(_)))
            .ok_or(Unknown::NoTtl(id.into()))
    }

    /// The ids of services that were critical for longer than their checks allow.
    pub fn overdue(&self, now: Instant) -> BTreeSet<Text> {
        let is_overdue = |own: &&OwnCheck| {
            let after = own.definition.as_ref().and_then(|own| own.deregister_critical_service_after);
            let since = own.critical_since.zip(after);
            since.is_some_and(|(since, after)| now.saturating_duration_since(since) >= after)
        };
        let ids = self.checks.values().filter(is_overdue).map(|own| own.record.service_id.clone());
        ids.filter(|id| !id.is_empty()).collect()
    }

    /// When output that was held back is due next.
    pub fn next_due(&self) -> Option<Instant> {
        self.checks.values().filter_map(|own| own.output_due).min()
    }

    /// By id, lower-cased.
    pub fn services(&self) -> impl Iterator<Item = (&Key, &Arc<Service>)> {
        self.services.iter().map(|(id, own)| (id, &own.service))
    }

    pub fn service(&self, id: &str) -> Option<&Arc<Service>> {
        self.services.get(&*fold(id)).map(|own| &own.service)
    }

    /// By id, lower-cased, as they stand now.
    pub fn checks(&self) -> impl Iterator<Item = (&Key, &Arc<Check>)> {
        self.checks.iter().map(|(id, own)| (id, &own.record))
    }

    /// Checks whose definition came, changed or went since this was last asked; a check that was registered anew over
    /// the API is among them although nothing about it changed.
    pub fn take_rerun(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.rerun)
    }

    /// Has all checks run anew whose programs were named over the API.
    pub fn rerun_programs(&mut self) {
        let runs_program =
            |own: &OwnCheck| own.definition.as_ref().is_some_and(|own| own.kind.runs_program());
        let of_api = self.checks.iter().filter(|(_, own)| own.source == Source::Api && runs_program(own));
        self.rerun.extend(of_api.map(|(id, _)| id.clone()));
    }

    /// Whether a file defines this check. `id` is lower-cased.
    pub fn is_of_files(&self, id: &str) -> bool {
        self.checks.get(id).is_some_and(|own| own.source != Source::Api)
    }

    /// What is to be run for a check. `id` is lower-cased, as in the three that follow.
    pub fn definition(&self, id: &str) -> Option<&Definition> {
        self.checks.get(id)?.definition.as_deref()
    }

    pub(super) fn check(&self, id: &str) -> Option<&Arc<Check>> {
        self.checks.get(id).map(|own| &own.record)
    }

    /// Whether a change of output alone must still wait.
    pub(super) fn output_waits(&self, id: &str) -> bool {
        self.checks.get(id).is_some_and(|own| own.output_due.is_some())
    }

    /// Whether something changed that may differ from the catalog.
    pub fn is_touched(&self) -> bool {
        self.touched != Ids::default()
    }

    /// What changed since this was last asked, and may differ from the catalog.
    pub(super) fn take_touched(&mut self, now: Instant) -> Ids {
        let is_due = |(_, own): &(&Key, &OwnCheck)| own.output_due.is_some_and(|due| due <= now);
        let due: Vec<Key> = self.checks.iter().filter(is_due).map(|(id, _)| id.clone()).collect();
        for id in due {
            if let Some(own) = self.checks.get_mut(&id) {
                own.output_due = None;
            }
            self.touched.checks.insert(id);
        }
        std::mem::take(&mut self.touched)
    }

    /// Tags that someone else set on a service that allows it.
    pub(super) fn adopt_tags(&mut self, id: &Key, tags: &Arc<[Text]>) {
        let Some(own) = self.services.get(id) else { return };
        if own.service.enable_tag_override && own.service.tags != *tags {
            let service = Arc::new(Service { tags: tags.clone(), ..Service::clone(&own.service) });
            self.put_service(id.clone(), OwnService { service, ..own.clone() });
        }
    }

    fn put_service(&mut self, id: Key, own: OwnService) {
        let service = own.service.clone();
        self.unkept.services.insert(id.clone());
        let former = self.services.insert(id.clone(), own).map(|former| former.service);
        if former.as_ref() == Some(&service) {
            return;
        }
        self.touched.services.insert(id.clone());
        let renamed = |former: Arc<Service>| {
            former.id != service.id || former.name != service.name || former.tags != service.tags
        };
        if former.is_some_and(renamed) {
            // Its checks carry copies.
            let own = self.checks.iter().filter(|(_, own)| own.is_of(&id)).map(|(check, _)| check.clone());
            for check in own.collect::<Vec<_>>() {
                if let Some(own) = self.checks.get_mut(&check) {
                    own.record = Arc::new(of_service(Check::clone(&own.record), &service));
                }
                self.touched.checks.insert(check);
            }
        }
    }

    fn put_check(&mut self, definition: Definition, source: Source) {
        self.put_record(definition.record(), Some(Arc::new(definition)), source);
    }

    fn put_record(&mut self, mut record: Check, definition: Option<Arc<Definition>>, source: Source) {
        let id: Key = fold(&record.id).into();
        if let Some(own) = self.services.get(&*fold(&record.service_id)) {
            record = of_service(record, &own.service);
        }
        let (mut output_due, mut critical_since) = (None, None);
        let (mut changed, mut redefined) = (true, true);
        if let Some(former) = self.checks.get(&id) {
            record.status = former.record.status.clone();
            record.output = former.record.output.clone();
            (output_due, critical_since) = (former.output_due, former.critical_since);
            (changed, redefined) = (record != *former.record, definition != former.definition);
        }
        if changed {
            self.touched.checks.insert(id.clone());
        }
        if redefined || source == Source::Api {
            self.rerun.insert(id.clone());
        }
        let own = OwnCheck { definition, record: Arc::new(record), source, output_due, critical_since };
        self.unkept.note(&id, &own.record);
        if let Some(former) = self.checks.insert(id.clone(), own) {
            self.unkept.note(&id, &former.record);
        }
    }

    fn remove_checks(&mut self, keep: impl Fn(&Key, &OwnCheck) -> bool) {
        let gone = self.checks.iter().filter(|(id, own)| !keep(id, own)).map(|(id, _)| id.clone());
        for id in gone.collect::<Vec<_>>() {
            if let Some(own) = self.checks.remove(&id) {
                self.removed_check(id, &own);
            }
        }
    }

    fn removed_check(&mut self, id: Key, own: &OwnCheck) {
        self.unkept.note(&id, &own.record);
        self.touched.checks.insert(id.clone());
        self.rerun.insert(id);
    }
}

impl Ids {
    /// A check is kept with its service where it has one.
    fn note(&mut self, id: &Key, check: &Check) {
        match &*check.service_id {
            "" => self.checks.insert(id.clone()),
            service => self.services.insert(fold(service).into()),
        };
    }
}

impl OwnCheck {
    fn is_of(&self, service: &Key) -> bool {
        self.record.service_id.eq_ignore_ascii_case(service)
    }
}

fn of_service(check: Check, service: &Service) -> Check {
    let Service { id, name, tags, .. } = service;
    Check { service_id: id.clone(), service_name: name.clone(), service_tags: tags.clone(), ..check }
}

/// A service on an IP address says so in both ways of asking (`http-api.md` §6.2).
fn add_tagged_addresses(service: &mut Service) {
    let keys = match service.address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => ["lan_ipv4", "wan_ipv4"],
        Ok(IpAddr::V6(_)) => ["lan_ipv6", "wan_ipv6"],
        Err(_) => return,
    };
    let given = service.tagged_addresses.clone().unwrap_or_default();
    let own = ServiceAddress { address: service.address.clone(), port: service.port };
    let added =
        keys.into_iter().filter(|key| given.get(key).is_none()).map(|key| (Text::from(key), own.clone()));
    let all: Map<ServiceAddress> =
        given.iter().map(|(key, value)| (key.clone(), value.clone())).chain(added).collect();
    service.tagged_addresses = Some(all);
}
