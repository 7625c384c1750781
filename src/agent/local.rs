//! What this agent registers: its services and checks, whoever defined them. A value that takes events and the time;
//! what the catalog is told of it is worked out in `sync`.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    catalog::{Check, Key, Map, Service, ServiceAddress, Status, Text, fold},
    check::{Definition, Kind, ServiceDefinition},
};

/// Where a definition comes from. What files define is replaced by a reload; what was registered stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    File,
    Api,
}

/// The services and checks of this agent, by id.
#[derive(Default)]
pub struct Local {
    services: BTreeMap<Key, OwnService>,
    checks: BTreeMap<Key, OwnCheck>,
}

struct OwnService {
    service: Arc<Service>,
    source: Source,
}

struct OwnCheck {
    definition: Definition,
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
    /// Registers a service with its checks. A check that is known already keeps its status and output; checks of the
    /// former registration stay unless `replace_checks`.
    pub fn register_service(&mut self, definition: ServiceDefinition, source: Source, replace_checks: bool) {
        let ServiceDefinition { mut service, checks, .. } = definition;
        add_tagged_addresses(&mut service);
        let id: Key = fold(&service.id).into();
        if replace_checks {
            let kept =
                |check: &Definition| checks.iter().any(|other| other.id.eq_ignore_ascii_case(&check.id));
            self.checks.retain(|_, own| {
                !own.definition.service_id.eq_ignore_ascii_case(&id) || kept(&own.definition)
            });
        }
        self.services.insert(id.clone(), OwnService { service: Arc::new(service), source });
        for check in checks {
            self.put_check(check, source);
        }
        // A renamed or re-tagged service shows in the records of its other checks.
        let others: Vec<(Definition, Source)> = self
            .checks
            .values()
            .filter(|own| *fold(&own.definition.service_id) == *id)
            .map(|own| (own.definition.clone(), own.source))
            .collect();
        for (definition, source) in others {
            self.put_check(definition, source);
        }
    }

    /// # Errors
    /// Where the check is of a service that is not here.
    pub fn register_check(&mut self, definition: Definition, source: Source) -> Result<(), Unknown> {
        let service_id = &definition.service_id;
        if !service_id.is_empty() && !self.services.contains_key(&*fold(service_id)) {
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
        self.services.remove(&*fold(id)).ok_or_else(|| Unknown::Service(id.into()))?;
        self.checks.retain(|_, own| !own.definition.service_id.eq_ignore_ascii_case(id));
        Ok(())
    }

    /// # Errors
    /// Where there is no such check.
    pub fn deregister_check(&mut self, id: &str) -> Result<(), Unknown> {
        self.checks.remove(&*fold(id)).map(drop).ok_or_else(|| Unknown::Check(id.into()))
    }

    /// Replaces everything that files defined. What stays keeps its status and output.
    pub fn reload(&mut self, services: Vec<ServiceDefinition>, checks: Vec<Definition>) {
        let defined: Vec<Key> = services
            .iter()
            .flat_map(|service| service.checks.iter())
            .chain(&checks)
            .map(|check| fold(&check.id).into())
            .collect();
        let ids: Vec<Key> = services.iter().map(|service| fold(&service.service.id).into()).collect();
        self.services.retain(|id, own| own.source == Source::Api || ids.contains(id));
        self.checks.retain(|id, own| own.source == Source::Api || defined.contains(id));
        let services =
            services.into_iter().map(|service| self.register_service(service, Source::File, false));
        services.for_each(drop);
        for check in checks {
            self.put_check(check, Source::File);
        }
        let here = &self.services;
        self.checks.retain(|_, own| {
            let service_id = &own.definition.service_id;
            service_id.is_empty() || here.contains_key(&*fold(service_id))
        });
    }

    /// A check says something. A new status is told at once; of new output alone the latest is told after `delay`.
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
    ) -> Result<(), Unknown> {
        let own = self.checks.get_mut(&*fold(id)).ok_or_else(|| Unknown::Check(id.into()))?;
        own.critical_since = (status == Status::Critical).then(|| own.critical_since.unwrap_or(now));
        if own.record.status == status && &*own.record.output == output {
            return Ok(());
        }
        if own.record.status == status {
            own.output_due.get_or_insert(now + delay);
        } else {
            own.output_due = None;
        }
        own.record = Arc::new(Check { status, output: output.into(), ..Check::clone(&own.record) });
        Ok(())
    }

    /// # Errors
    /// Where there is no such check, or nobody is to tell its status.
    pub fn ttl_check(&self, id: &str) -> Result<&Definition, Unknown> {
        let own = self.checks.get(&*fold(id)).ok_or_else(|| Unknown::Check(id.into()))?;
        match own.definition.kind {
            Kind::Ttl(_) => Ok(&own.definition),
            _ => Err(Unknown::NoTtl(id.into())),
        }
    }

    /// Removes services that were critical for longer than their checks allow, and names them.
    pub fn reap(&mut self, now: Instant) -> Vec<Text> {
        let overdue = |own: &&OwnCheck| {
            let (since, after) = (own.critical_since, own.definition.deregister_critical_service_after);
            since.zip(after).is_some_and(|(since, after)| now.saturating_duration_since(since) >= after)
        };
        let ids: Vec<Text> =
            self.checks.values().filter(overdue).map(|own| own.definition.service_id.clone()).collect();
        ids.into_iter().filter(|id| self.deregister_service(id).is_ok()).collect()
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

    pub fn has_check(&self, id: &str) -> bool {
        self.checks.contains_key(&*fold(id))
    }

    /// What is to be run.
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.checks.values().map(|own| &own.definition)
    }

    /// Whether a change of output alone must still wait.
    pub(super) fn output_waits(&self, id: &str, now: Instant) -> bool {
        self.checks.get(id).and_then(|own| own.output_due).is_some_and(|due| now < due)
    }

    /// What was due by now has been told.
    pub(super) fn told(&mut self, now: Instant) {
        for own in self.checks.values_mut() {
            own.output_due = own.output_due.filter(|due| now < *due);
        }
    }

    /// Tags that someone else set on a service that allows it.
    pub(super) fn adopt_tags(&mut self, id: &str, tags: &Arc<[Text]>) {
        if let Some(own) = self.services.get_mut(id).filter(|own| own.service.enable_tag_override) {
            own.service = Arc::new(Service { tags: tags.clone(), ..Service::clone(&own.service) });
        }
    }

    fn put_check(&mut self, definition: Definition, source: Source) {
        let id: Key = fold(&definition.id).into();
        let mut record = definition.record();
        if let Some(own) = self.services.get(&*fold(&definition.service_id)) {
            record.service_id = own.service.id.clone();
            record.service_name = own.service.name.clone();
            record.service_tags = own.service.tags.clone();
        }
        let (mut output_due, mut critical_since) = (None, None);
        if let Some(former) = self.checks.get(&id) {
            record.status = former.record.status.clone();
            record.output = former.record.output.clone();
            (output_due, critical_since) = (former.output_due, former.critical_since);
        }
        let record = Arc::new(record);
        self.checks.insert(id, OwnCheck { definition, record, source, output_due, critical_since });
    }
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
