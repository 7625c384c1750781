//! An agent is killed while several clients register, deregister and speak for checks, and started again on what is
//! left: whatever was acknowledged is there, nothing is there by half, and what was deregistered stays away.
//!
//! `LICTOR_KILL_ROUNDS` sets how often it is killed (4), `LICTOR_FUZZ_SEED` what happens.

mod support;

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use fastrand::Rng;
use serde_json::Value;
use support::{Agent, fresh_folder, try_request, wait_for};

/// What is registered under one id: a service, or a check of the node. `None` is nothing.
type Thing = Option<Registered>;

#[derive(Clone, Debug, Default, PartialEq)]
struct Registered {
    /// Counts registrations, so that every part says which one it is of.
    version: u64,
    /// By id.
    checks: BTreeMap<String, Check>,
    maintenance: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Check {
    version: u64,
    word: Option<String>,
}

/// One client, the only one that writes its things, and what each of them may be.
struct Client {
    random: Rng,
    things: BTreeMap<String, Vec<Thing>>,
    version: u64,
}

const CLIENTS: u64 = 4;

impl Client {
    fn new(seed: u64, number: u64) -> Client {
        let ids = (0..3).map(|thing| format!("s{number}-{thing}")).chain([format!("n{number}")]);
        let things = ids.map(|id| (id, vec![None])).collect();
        Client { random: Rng::with_seed(seed ^ number), things, version: 0 }
    }

    /// Changes things until the agent is gone. A change without an answer may have been made.
    fn work(&mut self, agent: SocketAddr, acknowledged: &AtomicUsize) {
        loop {
            let ids: Vec<&String> = self.things.keys().collect();
            let id = ids[self.random.usize(..ids.len())].clone();
            let before = self.things[&id][0].clone();
            let (path, body, after) = self.change(&id, before.clone());
            match try_request(agent, "PUT", &path, &body) {
                Ok((200, _)) => {
                    self.things.insert(id, vec![after]);
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
                Ok((0, _)) | Err(_) => {
                    self.things.insert(id, vec![before, after]);
                    return;
                }
                Ok((status, text)) => panic!("{path} {body}: {status} {text}"),
            }
        }
    }

    /// A request, and what the thing is after it.
    fn change(&mut self, id: &str, before: Thing) -> (String, String, Thing) {
        self.version += 1;
        let version = self.version;
        let is_service = id.starts_with('s');
        let Some(mut thing) = before.filter(|_| self.random.u8(..4) > 0) else {
            return if is_service { self.register(id) } else { self.register_check(id) };
        };
        match self.random.u8(..4) {
            0 if is_service => (format!("/v1/agent/service/deregister/{id}"), String::new(), None),
            0 => (format!("/v1/agent/check/deregister/{id}"), String::new(), None),
            1 if is_service => self.register(id),
            2 if is_service => {
                let (on, reason) = (self.random.bool(), format!("r{version}"));
                let path = format!("/v1/agent/service/maintenance/{id}?enable={on}&reason={reason}");
                thing.maintenance = if on { thing.maintenance.or(Some(reason)) } else { None };
                (path, String::new(), Some(thing))
            }
            _ => match thing.checks.iter_mut().next() {
                Some((check, spoken)) => {
                    spoken.word = Some(format!("w{version}"));
                    let path = format!("/v1/agent/check/warn/{check}?note=w{version}");
                    (path, String::new(), Some(thing))
                }
                None => self.register(id),
            },
        }
    }

    /// Anew, and with checks of its own only; those that stay keep their word. A maintenance check is none of them.
    fn register(&mut self, id: &str) -> (String, String, Thing) {
        let version = self.version;
        let former = self.things[id][0].clone().unwrap_or_default().checks;
        let mut checks = BTreeMap::new();
        for letter in ["a", "b"] {
            if self.random.bool() {
                let check = format!("{id}-{letter}");
                let word = former.get(&check).and_then(|check| check.word.clone());
                checks.insert(check, Check { version, word });
            }
        }
        let list =
            checks.keys().map(|check| format!(r#"{{"CheckID":"{check}","TTL":"1h","Notes":"{version}"}}"#));
        let list = list.collect::<Vec<_>>().join(",");
        let body = format!(r#"{{"Name":"{id}","Meta":{{"v":"{version}"}},"Checks":[{list}]}}"#);
        let path = "/v1/agent/service/register?replace-existing-checks".into();
        (path, body, Some(Registered { version, checks, maintenance: None }))
    }

    fn register_check(&mut self, id: &str) -> (String, String, Thing) {
        let version = self.version;
        let word = self.things[id][0].as_ref().and_then(|thing| thing.checks[id].word.clone());
        let checks = BTreeMap::from([(id.to_string(), Check { version, word })]);
        let body = format!(r#"{{"Name":"{id}","TTL":"1h","Notes":"{version}"}}"#);
        let thing = Registered { checks, ..Registered::default() };
        ("/v1/agent/check/register".into(), body, Some(thing))
    }

    /// From what is there now the next round begins.
    fn compare(&mut self, there: &mut BTreeMap<String, Registered>, told: &str) {
        for (id, allowed) in &mut self.things {
            let found = there.remove(id);
            assert!(allowed.contains(&found), "{told}: {id} may be {allowed:?}, and is {found:?}");
            *allowed = vec![found];
        }
    }
}

/// What the agent says of itself, by id of the service, or of the node's check.
fn there(agent: &Agent) -> BTreeMap<String, Registered> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let number = |value: &Value| text(value).parse::<u64>().unwrap();
    let mut there = BTreeMap::new();
    for (id, service) in agent.get("/v1/agent/services").as_object().unwrap() {
        let version = number(&service["Meta"]["v"]);
        there.insert(id.clone(), Registered { version, ..Registered::default() });
    }
    for (id, check) in agent.get("/v1/agent/checks").as_object().unwrap() {
        let service = text(&check["ServiceID"]);
        let of = there.entry(if service.is_empty() { id.clone() } else { service }).or_default();
        if check["Type"] == "maintenance" {
            of.maintenance = Some(text(&check["Notes"]));
            continue;
        }
        let word = match (text(&check["Status"]).as_str(), text(&check["Output"])) {
            ("critical", output) if output.is_empty() => None,
            ("warning", output) => Some(output),
            other => panic!("{id}: {other:?}"),
        };
        of.checks.insert(id.clone(), Check { version: number(&check["Notes"]), word });
    }
    there
}

/// Whether the catalog has the services of the agent and no others.
fn is_told(agent: &Agent) -> bool {
    let own = agent.get("/v1/agent/services");
    let mut own: Vec<&str> = own.as_object().unwrap().keys().map(String::as_str).chain(["consul"]).collect();
    own.sort();
    let node = agent.get("/v1/catalog/node/test-1");
    node["Services"].as_object().is_some_and(|services| services.keys().map(String::as_str).eq(own))
}

#[test]
fn what_was_acknowledged_survives_sudden_death() {
    let number = |name: &str| env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let seed = number("LICTOR_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("LICTOR_FUZZ_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|number| Client::new(seed, number)).collect();
    let data = fresh_folder();
    let flag = format!("-data-dir={}", data.display());
    let start = || Agent::start(&["-server", "-bootstrap-expect=1", &flag]);
    let mut agent = start();
    let mut total = 0;
    for round in 0..number("LICTOR_KILL_ROUNDS").unwrap_or(4) {
        let (acknowledged, enough) = (AtomicUsize::new(0), random.usize(1..150));
        thread::scope(|scope| {
            for client in &mut clients {
                let (http, acknowledged) = (agent.http(), &acknowledged);
                scope.spawn(move || client.work(http, acknowledged));
            }
            while acknowledged.load(Ordering::SeqCst) < enough {
                thread::yield_now();
            }
            agent.signal("KILL");
        });
        total += acknowledged.into_inner();
        drop(agent);
        agent = start();
        let (mut there, told) = (there(&agent), format!("seed {seed}, round {round}"));
        wait_for("the catalog to hold the same services", || is_told(&agent).then_some(()), || agent.log());
        clients.iter_mut().for_each(|client| client.compare(&mut there, &told));
        assert!(there.is_empty(), "{told}: nobody registered {there:?}");
        // The last line of the journal may be one that nobody was told of.
        let aside = fs::read_dir(data.join("quarantine")).into_iter().flatten();
        let aside: Vec<_> = aside.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(aside.iter().all(|name| name.starts_with("checks-state-journal")), "{told}: {aside:?}");
    }
    println!("{total} acknowledged");
    drop(agent);
    fs::remove_dir_all(data).unwrap();
}
