//! What this agent registers: its services and checks, whoever defined them. A value that takes events and the time;
//! what the catalog is told of it is worked out in `sync`.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    touched: Ids,
    /// Checks that are to be run, run anew, or no longer.
    rerun: BTreeSet<Key>,
}

/// Services and checks, by their lower-cased ids; some may be gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub services: BTreeSet<Key>,
    pub checks: BTreeSet<Key>,
}

struct OwnService {
    /// As it was defined.
    defined: Arc<Service>,
    /// As it stands: with the tags that others gave it, where it allows that.
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
            let kept: BTreeSet<Key> = checks.iter().map(|check| fold(&check.id).into()).collect();
            self.remove_checks(|check, own| !own.is_of(&id) || kept.contains(check));
        }
        let defined = Arc::new(service);
        let former = self.services.get(&id).filter(|former| former.defined == defined);
        let service = former.map_or(&defined, |former| &former.service).clone();
        self.put_service(id, OwnService { defined, service, source });
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
        let (id, _) = self.services.remove_entry(&*fold(id)).ok_or_else(|| Unknown::Service(id.into()))?;
        self.remove_checks(|_, own| !own.is_of(&id));
        self.touched.services.insert(id);
        Ok(())
    }

    /// # Errors
    /// Where there is no such check.
    pub fn deregister_check(&mut self, id: &str) -> Result<(), Unknown> {
        let (id, _) = self.checks.remove_entry(&*fold(id)).ok_or_else(|| Unknown::Check(id.into()))?;
        self.touched.checks.insert(id.clone());
        self.rerun.insert(id);
        Ok(())
    }

    /// Replaces everything that files defined. What stays keeps its status and output, and a check whose definition is
    /// the same goes on undisturbed.
    pub fn reload(&mut self, services: Vec<ServiceDefinition>, checks: Vec<Definition>) {
        let nested = services.iter().flat_map(|service| &service.checks);
        let defined: BTreeSet<Key> = nested.chain(&checks).map(|check| fold(&check.id).into()).collect();
        let ids: BTreeSet<Key> = services.iter().map(|service| fold(&service.service.id).into()).collect();
        let gone = self.services.extract_if(.., |id, own| own.source == Source::File && !ids.contains(id));
        self.touched.services.extend(gone.map(|(id, _)| id));
        self.remove_checks(|id, own| own.source == Source::Api || defined.contains(id));
        for service in services {
            self.register_service(service, Source::File, false);
        }
        for check in checks {
            self.put_check(check, Source::File);
        }
        let here: BTreeSet<Key> = self.services.keys().cloned().collect();
        self.remove_checks(|_, own| {
            let service_id = &own.definition.service_id;
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

    /// Checks whose definition came, changed or went since this was last asked; a check that was registered anew over
    /// the API is among them although nothing about it changed.
    pub fn take_rerun(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.rerun)
    }

    /// `id` is lower-cased, as in the three that follow.
    pub fn definition(&self, id: &str) -> Option<&Definition> {
        self.checks.get(id).map(|own| &own.definition)
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
        for (id, own) in &mut self.checks {
            if own.output_due.is_some_and(|due| due <= now) {
                own.output_due = None;
                self.touched.checks.insert(id.clone());
            }
        }
        std::mem::take(&mut self.touched)
    }

    /// Tags that someone else set on a service that allows it.
    pub(super) fn adopt_tags(&mut self, id: &Key, tags: &Arc<[Text]>) {
        let Some(own) = self.services.get(id) else { return };
        if own.service.enable_tag_override && own.service.tags != *tags {
            let service = Arc::new(Service { tags: tags.clone(), ..Service::clone(&own.service) });
            let own = OwnService { defined: own.defined.clone(), service, source: own.source };
            self.put_service(id.clone(), own);
        }
    }

    fn put_service(&mut self, id: Key, own: OwnService) {
        let service = own.service.clone();
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
            for (check, own) in self.checks.iter_mut().filter(|(_, own)| own.is_of(&id)) {
                own.record = Arc::new(of_service(Check::clone(&own.record), &service));
                self.touched.checks.insert(check.clone());
            }
        }
    }

    fn put_check(&mut self, definition: Definition, source: Source) {
        let id: Key = fold(&definition.id).into();
        let mut record = definition.record();
        if let Some(own) = self.services.get(&*fold(&definition.service_id)) {
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
        let record = Arc::new(record);
        self.checks.insert(id, OwnCheck { definition, record, source, output_due, critical_since });
    }

    fn remove_checks(&mut self, keep: impl Fn(&Key, &OwnCheck) -> bool) {
        for (id, _) in self.checks.extract_if(.., |id, own| !keep(id, own)) {
            self.touched.checks.insert(id.clone());
            self.rerun.insert(id);
        }
    }
}

impl OwnCheck {
    fn is_of(&self, service: &Key) -> bool {
        self.definition.service_id.eq_ignore_ascii_case(service)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{CheckSpec, ServiceSpec, Span};

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn secs(secs: i64) -> Option<Span> {
        Some(Span { nanos: secs * 1_000_000_000, text: format!("{secs}s") })
    }

    fn ttl(id: &str) -> CheckSpec {
        CheckSpec { id: Some(id.into()), ttl: secs(30), ..CheckSpec::default() }
    }

    fn service(name: &str, checks: Vec<CheckSpec>) -> ServiceDefinition {
        ServiceSpec { name: Some(name.into()), checks, ..ServiceSpec::default() }.build().unwrap()
    }

    fn at(name: &str, address: &str) -> ServiceDefinition {
        let address = Some(address.into());
        ServiceSpec { name: Some(name.into()), port: Some(80), address, ..ServiceSpec::default() }
            .build()
            .unwrap()
    }

    fn ids(local: &Local) -> String {
        let services = local.services().map(|(id, _)| &**id);
        services.chain(local.checks().map(|(id, _)| &**id)).collect::<Vec<_>>().join(" ")
    }

    fn rerun(local: &mut Local) -> Vec<String> {
        local.take_rerun().iter().map(|id| id.to_string()).collect()
    }

    #[test]
    fn unknown_ids_are_named_in_consuls_words() {
        let mut local = Local::default();
        local.register_service(service("web", vec![]), Source::Api, false);
        let script = CheckSpec { args: Some(vec!["true".into()]), ttl: None, interval: secs(1), ..ttl("s") };
        local.register_check(script.build().unwrap(), Source::Api).unwrap();
        let of_x = CheckSpec { service_id: Some("x".into()), ..ttl("c") };
        let said = [
            local.deregister_service("x").unwrap_err(),
            local.deregister_check("x").unwrap_err(),
            local.update_check("x", Status::Passing, "", start(), Duration::ZERO).unwrap_err(),
            local.register_check(of_x.build().unwrap(), Source::Api).unwrap_err(),
            local.ttl_check("s").unwrap_err(),
        ];
        assert_eq!(
            said.map(|unknown| unknown.to_string()),
            [
                r#"Unknown service ID "x". Ensure that the service ID is passed, not the service name."#,
                r#"Unknown check ID "x". Ensure that the check ID is passed, not the check name."#,
                r#"Unknown check ID "x". Ensure that the check ID is passed, not the check name."#,
                r#"ServiceID "x" does not exist"#,
                r#"CheckID "s" does not have associated TTL"#,
            ]
        );
    }

    #[test]
    fn a_check_registered_again_keeps_what_it_said() {
        let mut local = Local::default();
        local.register_service(service("web", vec![ttl("c")]), Source::Api, false);
        local.update_check("c", Status::Warning, "slow", start(), Duration::ZERO).unwrap();
        let other = CheckSpec { status: Some("passing".into()), notes: Some("new".into()), ..ttl("c") };
        local.register_service(service("web", vec![other]), Source::Api, false);
        let check = local.check("c").unwrap();
        assert_eq!((&check.status, &*check.output, &*check.notes), (&Status::Warning, "slow", "new"));
    }

    /// Whoever runs checks hears of those that changed only; over the API a check's time begins anew in any case.
    #[test]
    fn what_runs_changes_with_its_definition() {
        let mut local = Local::default();
        local.reload(vec![service("web", vec![ttl("a"), ttl("b")])], vec![ttl("n").build().unwrap()]);
        assert_eq!(rerun(&mut local), ["a", "b", "n"]);
        let longer = CheckSpec { ttl: secs(60), ..ttl("b") };
        local.reload(vec![service("web", vec![ttl("a"), longer])], vec![]);
        assert_eq!(rerun(&mut local), ["b", "n"]);
        assert!(local.definition("b").is_some() && local.definition("n").is_none());
        local.register_service(service("web", vec![ttl("a")]), Source::Api, true);
        assert_eq!(rerun(&mut local), ["a", "b"]);
        local.deregister_service("web").unwrap();
        assert_eq!(rerun(&mut local), ["a"]);
    }

    /// `config-cli.md` §2.7: what files define is replaced, what was registered stays, the files win.
    #[test]
    fn a_reload_replaces_what_files_defined() {
        let mut local = Local::default();
        let file = |names: &[&str]| {
            names.iter().map(|name| service(name, vec![ttl(&format!("c-{name}"))])).collect()
        };
        local.reload(file(&["a", "b"]), vec![ttl("node").build().unwrap()]);
        local.register_service(service("api", vec![ttl("c-api")]), Source::Api, false);
        let beside = CheckSpec { service_id: Some("a".into()), ..ttl("beside") };
        local.register_check(beside.build().unwrap(), Source::Api).unwrap();
        local.register_service(at("b", "10.0.0.9"), Source::Api, false);
        assert_eq!(ids(&local), "a api b beside c-a c-api c-b node");
        local.update_check("c-a", Status::Passing, "up", start(), Duration::ZERO).unwrap();

        local.reload(file(&["a", "b"]), vec![]);
        assert_eq!(ids(&local), "a api b beside c-a c-api c-b");
        assert_eq!(&*local.service("b").unwrap().address, "", "the file's again");
        assert_eq!(local.check("c-a").unwrap().status, Status::Passing);

        local.reload(file(&["b"]), vec![]);
        assert_eq!(ids(&local), "api b c-api c-b", "with a service goes what others hung on it");
    }

    #[test]
    fn an_ip_address_is_tagged_for_both_networks() {
        let table = [
            ("10.0.0.1", "lan_ipv4=10.0.0.1:80 wan_ipv4=10.0.0.1:80"),
            ("2001:db8::1", "lan_ipv6=2001:db8::1:80 wan_ipv6=2001:db8::1:80"),
            ("db.example", ""),
            ("", ""),
        ];
        for (address, expected) in table {
            let mut local = Local::default();
            local.register_service(at("web", address), Source::File, false);
            let tagged = local.service("web").unwrap().tagged_addresses.clone().unwrap_or_default();
            let shown = tagged.iter().map(|(key, at)| format!("{key}={}:{}", at.address, at.port));
            assert_eq!(shown.collect::<Vec<_>>().join(" "), expected);
        }
        let mut given = at("web", "10.0.0.1");
        let outside = ServiceAddress { address: "198.51.100.7".into(), port: 443 };
        given.service.tagged_addresses = Some([("wan_ipv4", outside.clone())].into_iter().collect());
        let mut local = Local::default();
        local.register_service(given, Source::File, false);
        let tagged = local.service("web").unwrap().tagged_addresses.clone().unwrap_or_default();
        assert_eq!((tagged.len(), tagged.get("wan_ipv4")), (2, Some(&outside)), "what was given stays");
    }

    /// `config-cli.md` §4.2: the clock starts at the first result, and stops when the check is well.
    #[test]
    fn a_service_critical_for_too_long_goes() {
        let mut local = Local::default();
        let check = CheckSpec { deregister_critical_service_after: secs(90), ..ttl("c") };
        local.register_service(service("web", vec![check]), Source::Api, false);
        local
            .register_check(
                CheckSpec { deregister_critical_service_after: secs(90), ..ttl("node") }.build().unwrap(),
                Source::Api,
            )
            .unwrap();
        let (start, second) = (start(), Duration::from_secs(1));
        let say = |local: &mut Local, status: Status, at: u32| {
            local.update_check("c", status.clone(), "", start + second * at, Duration::ZERO).unwrap();
            local.update_check("node", status, "", start + second * at, Duration::ZERO).unwrap();
        };
        assert!(local.reap(start + second * 1000).is_empty(), "it has said nothing yet");
        say(&mut local, Status::Critical, 1000);
        say(&mut local, Status::Critical, 1080);
        assert!(local.reap(start + second * 1089).is_empty());
        say(&mut local, Status::Warning, 1089);
        say(&mut local, Status::Critical, 1100);
        assert!(local.reap(start + second * 1189).is_empty());
        assert_eq!(local.reap(start + second * 1190), ["web".into()]);
        assert_eq!(ids(&local), "node", "a check of the node removes no service");
    }
}
