//! An agent in memory: a catalog that commands are applied to at once, and what is registered on the agent.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use lictor::{
    catalog::{
        Catalog, Check, Command, Coordinate, NodeCoordinate, Reply, Service, Status, Subscribe, Subscription,
        Text, Topic, Woken,
    },
    check::{Definition, Kind, ServiceDefinition},
    http::{
        About, Agent, Archive, Elsewhere, Event, Failure, KeyOperation, KeyReport, Live, Member, Pending,
        ServerStatus, Standing,
    },
    raft::{ArchiveHead, read_archive, write_archive},
};
use tokio::sync::{broadcast, mpsc, watch};
use tracing::Level;
use uuid::Uuid;

const OWN_ID: &str = "7b1f0d3e-52c4-4a0c-9a53-6f1f4b0f9a11";

pub struct Memory {
    catalog: Mutex<Catalog>,
    services: Mutex<BTreeMap<String, Arc<Service>>>,
    checks: Mutex<BTreeMap<String, OwnCheck>>,
    datacenter: Text,
    node: Text,
    pub led: AtomicBool,
    /// Somebody asked it to.
    pub left: AtomicBool,
    pub events: Mutex<Vec<Arc<Event>>>,
    /// Members that vanished with many others.
    unconfirmed: Mutex<Vec<Text>>,
    /// Proposals are never answered.
    pub stuck: AtomicBool,
    /// Answers what is of the datacenter, where this agent is no server.
    pub elsewhere: Mutex<Option<Arc<dyn Elsewhere>>>,
    /// Of the agent's own registrations.
    changed: watch::Sender<()>,
    /// Of the catalog: the topics of each, or that all of it was replaced.
    changes: broadcast::Sender<Option<Vec<Topic>>>,
    waiting: Arc<AtomicUsize>,
    woken: Arc<AtomicUsize>,
}

struct OwnCheck {
    record: Arc<Check>,
    is_ttl: bool,
}

fn maintenance_of(service: Option<String>) -> String {
    service.map_or_else(|| "_node_maintenance".into(), |id| format!("_service_maintenance:{id}"))
}

/// Whether who waits for one topic is told of a change to the other.
fn is_told(own: &Topic, changed: &Topic) -> bool {
    match (own, changed) {
        (Topic::KvTree(prefix), Topic::Kv(key)) => key.starts_with(prefix),
        _ => own == changed,
    }
}

/// One who waits, for as long as he does.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// These, and then the end; nothing more, where somebody waits.
fn lines(mut parts: Vec<&'static str>, waiting: Option<Waiting>) -> Live {
    Live::new(async move {
        if let (true, Some(_)) = (parts.is_empty(), &waiting) {
            std::future::pending::<()>().await;
        }
        let rest = parts.split_off(parts.len().min(1));
        Some((parts.first()?.as_bytes().into(), lines(rest, waiting)))
    })
}

impl Memory {
    pub fn new() -> Arc<Memory> {
        Arc::new(Memory {
            catalog: Mutex::default(),
            services: Mutex::default(),
            checks: Mutex::default(),
            datacenter: "north".into(),
            node: "oak".into(),
            led: AtomicBool::new(true),
            left: AtomicBool::default(),
            events: Mutex::default(),
            unconfirmed: Mutex::new(vec!["ash".into(), "elm".into(), "fir".into()]),
            stuck: AtomicBool::default(),
            elsewhere: Mutex::default(),
            changed: watch::channel(()).0,
            changes: broadcast::channel(64).0,
            waiting: Arc::default(),
            woken: Arc::default(),
        })
    }

    /// Puts another catalog in place of this one.
    pub fn replace(&self, catalog: Catalog) {
        *self.catalog.lock().unwrap() = catalog;
        let _nobody_waits = self.changes.send(None);
    }

    /// Reads that wait for a change now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How often a read was woken by a change.
    pub fn woken(&self) -> usize {
        self.woken.load(Ordering::SeqCst)
    }

    fn put_check(&self, definition: &Definition) {
        let services = self.services.lock().unwrap();
        let service = services.get(&*definition.service_id);
        let mut record = Check {
            node: "oak".into(),
            service_name: service.map(|service| service.name.clone()).unwrap_or_default(),
            service_tags: service.map(|service| service.tags.clone()).unwrap_or_default(),
            ..definition.record()
        };
        let mut checks = self.checks.lock().unwrap();
        if let Some(former) = checks.get(&*definition.id) {
            (record.status, record.output) = (former.record.status.clone(), former.record.output.clone());
        }
        let is_ttl = matches!(definition.kind, Kind::Ttl(_));
        checks.insert(definition.id.to_string(), OwnCheck { record: record.into(), is_ttl });
    }

    fn wait(&self) -> Pending<'static, ()> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let (waiting, mut changed) = (Waiting(self.waiting.clone()), self.changed.subscribe());
        Box::pin(async move {
            let _waiting = waiting;
            let _ = changed.changed().await;
        })
    }

    fn done<T: Send + 'static>(&self, result: T) -> Pending<'static, T> {
        self.changed.send_replace(());
        Box::pin(std::future::ready(result))
    }
}

impl Subscribe for Memory {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::new(self.catalog.lock().unwrap().clone())
    }

    fn subscribe(&self, topics: Vec<Topic>) -> Subscription {
        assert!(!topics.is_empty());
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let (waiting, mut changes) = (Waiting(self.waiting.clone()), self.changes.subscribe());
        let woken = self.woken.clone();
        Box::pin(async move {
            let _waiting = waiting;
            let why = loop {
                match changes.recv().await {
                    Ok(Some(changed))
                        if !changed.iter().any(|topic| topics.iter().any(|own| is_told(own, topic))) => {}
                    Ok(None) => break Woken::ByReplacement,
                    _ => break Woken::ByChange,
                }
            };
            woken.fetch_add(1, Ordering::SeqCst);
            why
        })
    }
}

impl Agent for Memory {
    fn elsewhere(&self) -> Option<Arc<dyn Elsewhere>> {
        self.elsewhere.lock().unwrap().clone()
    }

    fn datacenter(&self) -> &Text {
        &self.datacenter
    }

    fn node(&self) -> &Text {
        &self.node
    }

    fn renew_session(&self, _id: Uuid) -> Pending<'_, Result<(), Failure>> {
        self.done(Ok(()))
    }

    fn propose(&self, command: Command) -> Pending<'_, Result<Reply, Failure>> {
        if self.stuck.load(Ordering::SeqCst) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            return Box::pin(std::future::pending());
        }
        if !self.led.load(Ordering::SeqCst) {
            return self.done(Err(Failure::NoLeader));
        }
        let (reply, changes) = self.catalog.lock().unwrap().apply(command);
        let _nobody_waits = self.changes.send(Some(changes.topics));
        self.done(Ok(reply))
    }

    fn leader(&self) -> Option<SocketAddr> {
        self.led.load(Ordering::SeqCst).then(|| ([10, 0, 0, 1], 8300).into())
    }

    fn peers(&self) -> Vec<SocketAddr> {
        self.leader().into_iter().collect()
    }

    fn servers(&self) -> Vec<ServerStatus> {
        vec![ServerStatus {
            id: OWN_ID.parse().unwrap(),
            node: "oak".into(),
            address: ([10, 0, 0, 1], 8300).into(),
            version: "1.16.4".into(),
            leads: self.leader().is_some(),
            votes: true,
            healthy: self.leader().is_some(),
            last_term: 2,
            last_index: 17,
            stable_since: "2026-01-02T03:04:05Z".into(),
        }]
    }

    fn update_coordinate(&self, coordinate: NodeCoordinate) {
        let told = Command::Coordinates(vec![coordinate]);
        let (_, changes) = self.catalog.lock().unwrap().apply(told);
        let _nobody_waits = self.changes.send(Some(changes.topics));
    }

    fn save(&self) -> Pending<'_, Result<Archive, Failure>> {
        let catalog = self.catalog();
        let mut archive = Vec::new();
        write_archive(&mut archive, &ArchiveHead::default(), &catalog).unwrap();
        let (pieces, taken) = mpsc::channel(1);
        tokio::spawn(async move {
            for piece in archive.chunks(100) {
                let _ = pieces.send(Ok(piece.to_vec().into())).await;
            }
        });
        Box::pin(std::future::ready(Ok(Archive { index: catalog.index(), pieces: taken })))
    }

    fn restore(&self, mut pieces: mpsc::Receiver<Bytes>, bytes_max: u64) -> Pending<'_, Result<(), Failure>> {
        Box::pin(async move {
            let mut archive = Vec::new();
            while let Some(piece) = pieces.recv().await {
                archive.extend_from_slice(&piece);
            }
            let read = read_archive(&archive[..], bytes_max);
            let (_, catalog) = read.map_err(|error| Failure::Other(error.to_string()))?;
            self.replace(catalog);
            Ok(())
        })
    }

    fn services(&self) -> Vec<Arc<Service>> {
        self.services.lock().unwrap().values().cloned().collect()
    }

    fn services_changed(&self) -> Pending<'static, ()> {
        self.wait()
    }

    fn checks(&self) -> Vec<Arc<Check>> {
        self.checks.lock().unwrap().values().map(|own| own.record.clone()).collect()
    }

    fn register_service(
        &self,
        definition: ServiceDefinition,
        replace_checks: bool,
    ) -> Pending<'_, Result<(), Failure>> {
        let ServiceDefinition { service, checks, .. } = definition;
        if replace_checks {
            self.checks.lock().unwrap().retain(|_, own| own.record.service_id != service.id);
        }
        self.services.lock().unwrap().insert(service.id.to_string(), service.into());
        checks.iter().for_each(|check| self.put_check(check));
        self.done(Ok(()))
    }

    fn deregister_service(&self, id: String) -> Pending<'_, Result<(), Failure>> {
        let known = self.services.lock().unwrap().remove(&id).is_some();
        self.checks.lock().unwrap().retain(|_, own| *own.record.service_id != *id);
        self.done(if known { Ok(()) } else { Err(Failure::Unknown(format!("no service {id}"))) })
    }

    fn register_check(&self, definition: Definition) -> Pending<'_, Result<(), Failure>> {
        let service = &definition.service_id;
        if !service.is_empty() && !self.services.lock().unwrap().contains_key(&**service) {
            return self.done(Err(Failure::Unknown(format!("ServiceID {service:?} does not exist"))));
        }
        self.put_check(&definition);
        self.done(Ok(()))
    }

    fn deregister_check(&self, id: String) -> Pending<'_, Result<(), Failure>> {
        let known = self.checks.lock().unwrap().remove(&id).is_some();
        self.done(if known { Ok(()) } else { Err(Failure::Unknown(format!("no check {id}"))) })
    }

    fn maintain(&self, service: Option<String>, reason: String) -> Pending<'_, Result<(), Failure>> {
        let known = service.as_ref().is_none_or(|id| self.services.lock().unwrap().contains_key(id));
        if !known {
            return self.done(Err(Failure::Unknown(format!("no service {service:?}"))));
        }
        let id = maintenance_of(service);
        let record =
            Check { node: "oak".into(), id: id.as_str().into(), notes: reason.into(), ..Check::default() };
        let own = OwnCheck { record: record.into(), is_ttl: false };
        self.checks.lock().unwrap().entry(id).or_insert(own);
        self.done(Ok(()))
    }

    fn resume(&self, service: Option<String>) -> Pending<'_, Result<(), Failure>> {
        self.checks.lock().unwrap().remove(&maintenance_of(service));
        self.done(Ok(()))
    }

    fn update_check(&self, id: String, status: Status, output: String) -> Pending<'_, Result<(), Failure>> {
        let mut checks = self.checks.lock().unwrap();
        let result = match checks.get_mut(&id) {
            None => Err(Failure::Unknown(format!("no check {id}"))),
            Some(own) if !own.is_ttl => Err(Failure::Other(format!("{id} has no TTL"))),
            Some(own) => {
                let check = Arc::make_mut(&mut own.record);
                (check.status, check.output) = (status, output.into());
                Ok(())
            }
        };
        self.done(result)
    }

    fn reload(&self) -> Pending<'_, Result<(), Failure>> {
        let led = self.led.load(Ordering::SeqCst);
        self.done(if led { Ok(()) } else { Err(Failure::Other("a.hcl:3: unknown key".into())) })
    }

    fn host(&self) -> Pending<'static, Vec<u8>> {
        self.done(br#"{"Host":{"os":"linux"}}"#.to_vec())
    }

    fn metrics(self: Arc<Self>) -> Pending<'static, Vec<u8>> {
        self.done(br#"{"Timestamp":"T","Gauges":[]}"#.to_vec())
    }

    /// Three, and no more.
    fn metrics_to_come(&self) -> Live {
        lines(vec!["{\"Timestamp\":\"1\"}\n", "{\"Timestamp\":\"2\"}\n", "{\"Timestamp\":\"3\"}\n"], None)
    }

    /// A line, and then none, and no end.
    fn log_to_come(&self, level: Level, json: bool) -> Option<Live> {
        if !self.led.load(Ordering::SeqCst) {
            return None;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let line = if json { "{}\n" } else { "a line\n" };
        let line = if level < Level::INFO { "low\n" } else { line };
        Some(lines(vec![line], Some(Waiting(self.waiting.clone()))))
    }

    fn prometheus(self: Arc<Self>) -> Pending<'static, Option<String>> {
        self.done(self.led.load(Ordering::SeqCst).then(|| "# TYPE a gauge\na 1\n".to_string()))
    }

    fn unconfirmed(&self) -> Vec<Text> {
        self.unconfirmed.lock().unwrap().clone()
    }

    fn confirm_failed(&self, node: Option<&str>) -> usize {
        let mut unconfirmed = self.unconfirmed.lock().unwrap();
        let before = unconfirmed.len();
        unconfirmed.retain(|name| node.is_some_and(|node| !node.eq_ignore_ascii_case(name)));
        before - unconfirmed.len()
    }

    fn join(&self, address: String, wan: bool) -> Pending<'_, Result<(), Failure>> {
        let is_known = address.starts_with("10.");
        let refused =
            || Failure::Other(format!("1 error occurred:\n\t* Failed to join {address}: {wan}\n\n"));
        self.done(if is_known { Ok(()) } else { Err(refused()) })
    }

    fn force_leave(&self, node: String, prune: bool, wan: bool) -> Pending<'_, Result<(), Failure>> {
        let is_known = node == "elm" || prune;
        let shown = if wan { "" } else { &node };
        let refused = || Failure::Other(format!("agent: No node found with name '{shown}'"));
        self.done(if is_known { Ok(()) } else { Err(refused()) })
    }

    /// Nobody here has keys.
    fn keyring(&self, _: KeyOperation, local_only: bool) -> Pending<'_, Vec<KeyReport>> {
        let pools = if local_only { vec![false] } else { vec![true, false] };
        let reports = pools.into_iter().map(|wan| {
            let refused = |member: &Member| {
                (member.name.clone(), "Keyring is empty (encryption not enabled)".to_string())
            };
            let messages = self.members(wan).unwrap_or_default().iter().map(refused).collect();
            let fault = Some("1/1 nodes reported failure".into());
            KeyReport { wan, members: 1, fault, messages, ..KeyReport::default() }
        });
        self.done(reports.collect())
    }

    fn leave(&self) -> Pending<'_, ()> {
        self.left.store(true, Ordering::SeqCst);
        self.done(())
    }

    fn fire(&self, event: Event) -> Pending<'_, Result<(), Failure>> {
        let mut events = self.events.lock().unwrap();
        let event = Event { time: events.len() as u64 + 1, ..event };
        events.push(event.into());
        self.done(Ok(()))
    }

    fn events(&self) -> Vec<Arc<Event>> {
        self.events.lock().unwrap().clone()
    }

    fn events_changed(&self) -> Pending<'static, ()> {
        self.wait()
    }

    fn about(&self) -> About {
        let pair = |key: &str, value: &str| (Text::from(key), Text::from(value));
        About {
            node: "oak".into(),
            id: OWN_ID.parse().ok(),
            version: "1.16.4".into(),
            server: true,
            dns_domain: "consul.".into(),
            dns_addrs: vec![([127, 0, 0, 1], 8600).into()],
            member: self.members(false).unwrap_or_default().remove(0),
            coordinate: Coordinate::origin(),
            meta: vec![pair("consul-network-segment", ""), pair("consul-version", "1.16.4")],
            stats: vec![("agent".into(), vec![pair("services", "1")])],
        }
    }

    fn members(&self, wan: bool) -> Option<Vec<Member>> {
        let pair = |key: &str, value: &str| (Text::from(key), Text::from(value));
        let member = Member {
            name: if wan { "oak.north" } else { "oak" }.into(),
            gossip: Some(([10, 0, 0, 1], if wan { 8302 } else { 8301 }).into()),
            tags: vec![pair("role", "consul"), pair("dc", "north")],
            status: Standing::Alive,
        };
        Some(vec![member])
    }
}
