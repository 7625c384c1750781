//! Keys of a real agent behave as one copy that does one thing at a time, whoever asks and however often the agent is killed
//! in between: what several clients saw is held against every order in which it could have come about.
//!
//! `LICTOR_KILL_ROUNDS` sets how often it is killed (3), `LICTOR_FUZZ_SEED` what the clients do.

#[path = "linearizable/history.rs"]
mod history;
mod support;

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use fastrand::Rng;
use history::{Deed, Event, is_linearizable};
use serde_json::Value;
use support::{Agent, fresh_folder, try_request};

const CLIENTS: u64 = 8;
const KEYS: [&str; 4] = ["a", "a/b", "c", "d"];

/// What all clients share: a clock, values that nobody wrote before, and what was seen of each key.
#[derive(Default)]
struct Shared {
    clock: AtomicU64,
    values: AtomicU64,
    answered: AtomicUsize,
    seen: Mutex<BTreeMap<&'static str, Vec<Event>>>,
}

impl Shared {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn fresh_value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn end_untold(&self) {
        let now = self.now();
        let mut seen = self.seen.lock().unwrap();
        for event in seen.values_mut().flatten().filter(|event| !event.told) {
            event.until = event.until.min(now);
        }
    }

    /// What was seen of a key so far; from now on it is this, since nobody but its reader asks.
    fn begin_anew(&self, key: &'static str, value: Option<u64>) -> Vec<Event> {
        let deed = value.map_or(Deed::Delete, Deed::Write);
        let now = Event { from: self.now(), until: self.now(), told: true, deed };
        self.seen.lock().unwrap().insert(key, vec![now]).unwrap_or_default()
    }

    fn note(&self, key: &'static str, event: Event) {
        self.seen.lock().unwrap().entry(key).or_default().push(event);
    }
}

struct Client<'a> {
    random: Rng,
    agent: SocketAddr,
    shared: &'a Shared,
}

impl Client<'_> {
    /// Until the agent is gone.
    fn work(&mut self) {
        while self.step().is_some() {
            self.shared.answered.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn step(&mut self) -> Option<()> {
        let key = KEYS[self.random.usize(..KEYS.len())];
        match self.random.u8(..8) {
            0..=2 => self.read(key).map(|_| ()),
            3 | 4 => {
                let value = self.shared.fresh_value();
                self.told(key, Deed::Write(value), "PUT", "", &value.to_string())
            }
            5 | 6 => {
                let (from, index) = self.read(key)?;
                let to = self.shared.fresh_value();
                let swap = |done| Deed::Swap { from, to, done };
                self.told(key, swap(true), "PUT", &format!("?cas={index}"), &to.to_string())
            }
            _ => self.told(key, Deed::Delete, "DELETE", "", ""),
        }
    }

    /// The key's value and index; both nothing where there is no such key.
    fn read(&mut self, key: &'static str) -> Option<(Option<u64>, u64)> {
        let from = self.shared.now();
        let mode = if self.random.bool() { "?consistent" } else { "" };
        let (status, body) = try_request(self.agent, "GET", &format!("/v1/kv/{key}{mode}"), "").ok()?;
        let found = match status {
            200 => entry(&body),
            404 => (None, 0),
            0 => return None,
            other => panic!("{other} {body}"),
        };
        self.shared
            .note(key, Event { from, until: self.shared.now(), told: true, deed: Deed::Read(found.0) });
        Some(found)
    }

    /// A write, and what came of it; of one without an answer nobody knows.
    fn told(&self, key: &'static str, deed: Deed, method: &str, flags: &str, body: &str) -> Option<()> {
        let from = self.shared.now();
        let answer = try_request(self.agent, method, &format!("/v1/kv/{key}{flags}"), body);
        let until = self.shared.now();
        let (told, deed) = match (&answer, deed) {
            (Ok((200, told)), Deed::Swap { from, to, .. }) => {
                (true, Deed::Swap { from, to, done: told == "true" })
            }
            (Ok((200, _)), deed) => (true, deed),
            (Ok((0, _)) | Err(_), deed) => (false, deed),
            (Ok(other), _) => panic!("{other:?}"),
        };
        self.shared.note(key, Event { from, until: if told { until } else { u64::MAX }, told, deed });
        told.then_some(())
    }
}

/// Value and index of an answer with one key.
fn entry(body: &str) -> (Option<u64>, u64) {
    let entries: Value = serde_json::from_str(body).unwrap();
    let entry = &entries[0];
    let text = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, entry["Value"].as_str().unwrap());
    let value = String::from_utf8(text.unwrap()).unwrap().parse().unwrap();
    (Some(value), entry["ModifyIndex"].as_u64().unwrap())
}

#[test]
fn keys_are_linearizable_through_sudden_death() {
    let number = |name: &str| env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let seed = number("LICTOR_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("LICTOR_FUZZ_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let data = fresh_folder();
    let flag = format!("-data-dir={}", data.display());
    let start = || Agent::start(&["-server", "-bootstrap-expect=1", &flag]);
    let shared = Shared::default();
    let mut agent = start();
    let client = |agent: &Agent, number| {
        let random = Rng::with_seed(seed.wrapping_mul(31).wrapping_add(number));
        Client { random, agent: agent.http(), shared: &shared }
    };
    for round in 0..number("LICTOR_KILL_ROUNDS").unwrap_or(3) {
        let enough = shared.answered.load(Ordering::SeqCst) + random.usize(100..400);
        thread::scope(|scope| {
            for number in 0..CLIENTS {
                let mut client = client(&agent, round * CLIENTS + number);
                scope.spawn(move || client.work());
            }
            while shared.answered.load(Ordering::SeqCst) < enough {
                thread::yield_now();
            }
            agent.signal("KILL");
        });
        drop(agent);
        // What nobody was told of was done by now, or never will be.
        shared.end_untold();
        agent = start();
        let mut late = client(&agent, u64::MAX);
        for key in KEYS {
            let (value, _) = late.read(key).expect("nobody kills it");
            let seen = shared.begin_anew(key, value);
            assert!(is_linearizable(&seen), "seed {seed}, round {round}: {key}: {seen:#?}");
        }
    }
    let last = client(&agent, u64::MAX);
    for key in KEYS {
        let value = shared.fresh_value();
        last.told(key, Deed::Write(value), "PUT", "", &value.to_string()).expect("nobody kills it");
    }
    agent.signal("KILL");
    drop(agent);
    // No snapshot was due yet, so that before the log is applied there is nothing: who had been answered then is found out.
    assert_eq!(fs::read_dir(data.join("raft/snapshots")).unwrap().count(), 0);
    for key in KEYS {
        let (from, until, deed) = (shared.now(), shared.now(), Deed::Read(None));
        shared.note(key, Event { from, until, told: true, deed });
        let seen = shared.begin_anew(key, None);
        assert!(!is_linearizable(&seen), "seed {seed}: {key}: a read of before the log is one of the past");
    }
    println!("{} answered", shared.answered.load(Ordering::SeqCst));
    fs::remove_dir_all(data).unwrap();
}
