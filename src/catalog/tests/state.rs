//! Keys, sessions, locks and transactions row by row (`cluster.md` §1.6 to §1.8), and a naive model of them.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const SECOND: i64 = 1_000_000_000;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn kv(verb: KvVerb, key: &str, value: &str) -> Command {
    Command::Kv(KvWrite { verb, key: key.into(), value: value.into(), flags: 0 })
}

fn set(key: &str, value: &str) -> Command {
    kv(KvVerb::Set, key, value)
}

fn session(number: u128, node: &str, checks: &[&str]) -> Session {
    let checks: Vec<Text> = checks.iter().map(|check| Text::from(*check)).collect();
    Session {
        id: id(number),
        node: node.into(),
        lock_delay: 15 * SECOND,
        node_checks: Some(checks.into()),
        ..Session::default()
    }
}

fn create(session: Session) -> Command {
    Command::Session(SessionWrite::Create(Box::new(session)))
}

fn destroy(number: u128) -> Command {
    Command::Session(SessionWrite::Destroy(id(number)))
}

fn op(verb: &str, key: &str, value: &str) -> Op {
    Op::Kv(KvOp { verb: verb.into(), key: key.into(), value: value.into(), ..KvOp::default() })
}

/// One word a command: whether it was done, and the catalog's index.
fn told(catalog: &mut Catalog, command: Command) -> String {
    let (reply, changes) = catalog.apply(command);
    catalog.assert_consistent();
    match reply {
        Ok(applied) => {
            let word = if applied.answer == Answer::NotDone { "false" } else { "true" };
            format!("{word} {}", changes.index)
        }
        Err(refusal) => refusal.to_string(),
    }
}

fn shown(catalog: &Catalog, key: &str) -> String {
    catalog.entry(key.as_bytes()).map_or("-".into(), |entry| {
        let holder = entry.session.map_or(0, |session| session.as_u128());
        format!("{} {holder} {} {}", entry.value, entry.lock_index, entry.modified)
    })
}

#[test]
fn a_key_is_written_under_its_conditions() {
    let mut catalog = Catalog::default();
    let table = [
        (set("a", "1"), "true 1", "1 0 0 1"),
        (set("a", "1"), "true 1", "1 0 0 1"),
        (kv(KvVerb::Cas(0), "a", "2"), "false 1", "1 0 0 1"),
        (kv(KvVerb::Cas(1), "a", "2"), "true 2", "2 0 0 2"),
        (kv(KvVerb::Cas(1), "a", "3"), "false 2", "2 0 0 2"),
        (kv(KvVerb::DeleteCas(1), "a", ""), "false 2", "2 0 0 2"),
        (kv(KvVerb::DeleteCas(0), "a", ""), "false 2", "2 0 0 2"),
        (kv(KvVerb::DeleteCas(2), "a", ""), "true 3", "-"),
        (kv(KvVerb::DeleteCas(9), "a", ""), "true 3", "-"),
        (kv(KvVerb::Delete, "a", ""), "true 3", "-"),
        (kv(KvVerb::Cas(0), "a", "4"), "true 4", "4 0 0 4"),
        (set("", "1"), "Missing key name", "4 0 0 4"),
    ];
    for (number, (command, wanted, entry)) in table.into_iter().enumerate() {
        assert_eq!((&*told(&mut catalog, command), &*shown(&catalog, "a")), (wanted, entry), "{number}");
    }
}

#[test]
fn a_lock_is_held_by_one_and_let_go_with_its_session() {
    let mut catalog = fixture();
    let base = catalog.index();
    for number in [1, 2] {
        catalog.apply(create(session(number, "ash", &[]))).0.unwrap();
    }
    let at = |more: u64| base + 2 + more;
    let lock = |number: u128, value: &str| kv(KvVerb::Lock(id(number)), "l", value);
    let unlock = |number: u128| kv(KvVerb::Unlock(id(number)), "l", "u");
    assert_eq!(told(&mut catalog, lock(7, "x")), format!("invalid session \"{}\"", id(7)));
    assert_eq!(told(&mut catalog, lock(1, "x")), format!("true {}", at(1)));
    assert_eq!(told(&mut catalog, lock(1, "x")), format!("true {}", at(1)), "the same again writes nothing");
    assert_eq!(told(&mut catalog, lock(1, "y")), format!("true {}", at(2)));
    assert_eq!(shown(&catalog, "l"), format!("y 1 1 {}", at(2)), "it was locked once");
    assert_eq!(told(&mut catalog, lock(2, "z")), format!("false {}", at(2)));
    assert_eq!(told(&mut catalog, unlock(2)), format!("false {}", at(2)));
    assert_eq!(told(&mut catalog, set("l", "plain")), format!("true {}", at(3)), "locks are advisory");
    assert_eq!(shown(&catalog, "l"), format!("plain 1 1 {}", at(3)), "and it stays locked");
    assert_eq!(told(&mut catalog, unlock(1)), format!("true {}", at(4)));
    assert_eq!(told(&mut catalog, lock(2, "z")), format!("true {}", at(5)), "who unlocks leaves no delay");
    assert_eq!(shown(&catalog, "l"), format!("z 2 2 {}", at(5)));
    assert_eq!(told(&mut catalog, destroy(2)), format!("true {}", at(6)));
    assert_eq!(shown(&catalog, "l"), format!("z 0 2 {}", at(6)));
    assert_eq!(told(&mut catalog, lock(1, "w")), format!("false {}", at(6)), "its holder was lost");
    let delay = catalog.lock_delay(b"l").unwrap();
    assert_eq!((delay.since, delay.nanos), (at(6), 15 * SECOND as u64));
    catalog.apply(Command::EndLockDelays(vec![("l".into(), 1)])).0.unwrap();
    assert_eq!(catalog.lock_delay(b"l"), Some(delay), "that one was another");
    catalog.apply(Command::EndLockDelays(vec![("l".into(), at(6))])).0.unwrap();
    assert_eq!(told(&mut catalog, lock(1, "w")), format!("true {}", at(8)));
}

#[test]
fn a_session_ends_with_whatever_vouches_for_it() {
    let on_ash = |checks: &[&str]| create(session(1, "Ash", checks));
    let critical = |id: &str, of: &str| register(node("ash"), None, vec![check(id, of, "critical")]);
    let warning = |id: &str, of: &str| register(node("ash"), None, vec![check(id, of, "warning")]);
    let table = [
        (vec!["c-node"], warning("c-node", ""), true),
        (vec!["C-NODE"], critical("c-node", ""), false),
        (vec!["c-web"], critical("c-web", "web"), false),
        (vec!["c-web"], critical("c-node", ""), true),
        // It speaks for something else from now on, and is there all the while.
        (vec!["c-web"], warning("c-web", ""), true),
        (vec!["c-web"], critical("c-web", ""), false),
        (vec!["c-web"], deregister("ash", Target::Service("web".into())), false),
        (vec!["c-node"], deregister("ash", Target::Service("web".into())), true),
        (vec!["c-node"], deregister("ASH", Target::Check("c-node".into())), false),
        (vec![], deregister("ash", Target::Node), false),
        (vec![], deregister("birch", Target::Node), true),
        (vec![], destroy(1), false),
        (vec![], destroy(2), true),
    ];
    for (checks, command, lives) in table {
        let mut catalog = fixture();
        catalog.apply(on_ash(&checks)).0.unwrap();
        catalog.apply(kv(KvVerb::Lock(id(1)), "l", "")).0.unwrap();
        let at = catalog.table_index(Table::Sessions);
        let text = format!("{checks:?} {command:?}");
        let changes = catalog.apply(command).1;
        catalog.assert_consistent();
        assert_eq!(catalog.session(id(1)).is_some(), lives, "{text}");
        assert_eq!(catalog.entry(b"l").unwrap().session.is_some(), lives, "{text}");
        assert_eq!(catalog.table_index(Table::Sessions) > at, !lives, "{text}");
        assert_eq!(changes.topics.contains(&Topic::Session(id(1))), !lives, "{text}");
    }
}

#[test]
fn a_session_needs_a_node_and_checks_that_do_not_fail() {
    let mut catalog = fixture();
    let refused = |catalog: &mut Catalog, session| told(catalog, create(session));
    assert_eq!(refused(&mut catalog, session(1, "oak", &[])), "Missing node registration");
    assert_eq!(refused(&mut catalog, session(1, "ash", &["none"])), "Missing check 'none' registration");
    assert_eq!(refused(&mut catalog, session(1, "birch", &["c-web"])), "Missing check 'c-web' registration");
    catalog.apply(register(node("ash"), None, vec![check("c-web", "web", "critical")])).0.unwrap();
    assert_eq!(refused(&mut catalog, session(1, "ash", &["c-web"])), "Check 'c-web' is in critical state");
    assert_eq!(catalog.sessions().count(), 0);
}

#[test]
fn a_deleting_session_takes_its_keys_with_it() {
    let mut catalog = fixture();
    let deleting = Session { behavior: Behavior::Delete, ..session(1, "ash", &[]) };
    catalog.apply(create(Session { lock_delay: -SECOND, ..deleting })).0.unwrap();
    catalog.apply(kv(KvVerb::Lock(id(1)), "l", "")).0.unwrap();
    catalog.apply(destroy(1)).0.unwrap();
    assert!(catalog.entry(b"l").is_none() && catalog.lock_delay(b"l").is_none());
    assert_eq!(catalog.entries_index(b"l"), catalog.index(), "its tombstone tells");
}

/// §1.3: deletions count, until they are forgotten.
#[test]
fn a_prefix_tells_of_what_is_under_it() {
    let mut catalog = catalog([set("a/1", ""), set("a/2", ""), set("b", "")]);
    let index = |catalog: &Catalog, prefix: &str| catalog.entries_index(prefix.as_bytes());
    assert_eq!((index(&catalog, "a/"), index(&catalog, "b"), index(&catalog, "")), (2, 3, 3));
    assert_eq!(index(&catalog, "none"), 3, "nothing there: of all keys");
    catalog.apply(kv(KvVerb::Delete, "a/2", "")).0.unwrap();
    assert_eq!((index(&catalog, "a/"), catalog.entry_index(b"a/2")), (4, 4));
    catalog.apply(kv(KvVerb::DeleteTree, "none", "")).0.unwrap();
    assert_eq!(catalog.index(), 4, "nothing matched");
    let changes = catalog.apply(kv(KvVerb::DeleteTree, "a/", "")).1;
    assert_eq!((index(&catalog, "a/"), index(&catalog, "b")), (5, 3));
    assert!(changes.topics.contains(&Topic::Kv("a/1".into())), "each key is told");
    assert_eq!(catalog.tombstones().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), ["a/", "a/2"]);
    catalog.apply(Command::ForgetTombstones { upto: 4 }).0.unwrap();
    assert_eq!(catalog.tombstones().count(), 1);
    assert_eq!((catalog.index(), index(&catalog, "")), (6, 5), "a table's index does not fall");
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let mut catalog = fixture();
    let before = catalog.index();
    let what = |catalog: &mut Catalog, ops: Vec<Op>| match catalog.apply(Command::Txn(ops)).0 {
        Ok(Applied { answer: Answer::Found(found), .. }) => format!("{} found", found.len()),
        Ok(other) => format!("{other:?}"),
        Err(Refusal::Txn(faults)) => {
            faults.iter().map(|fault| format!("{} {}", fault.at, fault.what)).collect::<Vec<_>>().join("; ")
        }
        Err(other) => other.to_string(),
    };
    let ops = vec![op("set", "a", "1"), op("get", "none", ""), op("zap", "a", ""), op("get", "", "")];
    assert_eq!(
        what(&mut catalog, ops),
        "1 key \"none\" doesn't exist; 2 unknown KV verb \"zap\"; 3 Must provide key"
    );
    assert_eq!((catalog.index(), shown(&catalog, "a")), (before, "-".into()));
    let ops = vec![op("set", "a", "1"), op("set", "b", "2"), op("get", "a", ""), op("delete", "b", "")];
    assert_eq!(what(&mut catalog, ops), "3 found");
    assert_eq!((catalog.index(), shown(&catalog, "a")), (before + 1, format!("1 0 0 {}", before + 1)));
    catalog.assert_consistent();
    let (reply, changes) = catalog.apply(Command::Txn(vec![op("set", "a", "1"), op("delete", "none", "")]));
    assert!(reply.is_ok() && changes.topics.is_empty(), "nothing changed, and nobody is woken");
    let service_op = |verb: &str, node: &str, id: &str| Op::Service {
        verb: verb.into(),
        node: node.into(),
        service: Box::new(service(id, id)),
    };
    assert_eq!(what(&mut catalog, vec![service_op("set", "oak", "api")]), "0 Missing node registration");
    let oak = Op::Node { verb: "set".into(), node: Box::new(node("oak")) };
    assert_eq!(what(&mut catalog, vec![oak, service_op("set", "oak", "api")]), "2 found");
    assert!(catalog.service("api").is_some());
    let stale = Op::Node { verb: "cas".into(), node: Box::new(node("oak")) };
    assert_eq!(what(&mut catalog, vec![stale]), "0 failed to set node \"oak\", index is stale");
    assert_eq!(what(&mut catalog, vec![service_op("delete", "oak", "api")]), "0 found");
    assert!(catalog.service("api").is_none());
    let on = Check { node: "oak".into(), ..check("c", "api", "passing") };
    let checked = Op::Check { verb: "set".into(), check: Box::new(on) };
    assert_eq!(what(&mut catalog, vec![checked]), "0 Missing service registration");
}

#[test]
fn looking_changes_nothing() {
    let catalog = catalog([set("a", "1"), set("a/b", "2")]);
    let found = catalog.look(vec![
        op("get-tree", "a", ""),
        op("get-or-empty", "none", ""),
        op("check-not-exists", "c", ""),
    ]);
    assert_eq!(found.unwrap().len(), 3);
    assert_eq!(catalog.look(vec![op("set", "c", "")]).unwrap().len(), 1);
    assert!(catalog.entry(b"c").is_none());
}

/// Rows of every kind come back, and so do the ways to find them.
#[test]
fn state_is_put_together_again() {
    let mut grown = fixture();
    for command in [
        create(session(1, "ash", &["c-node"])),
        create(session(2, "birch", &[])),
        kv(KvVerb::Lock(id(1)), "l/1", "x"),
        kv(KvVerb::Lock(id(2)), "l/2", "y"),
        set("gone", ""),
        kv(KvVerb::Delete, "gone", ""),
        destroy(2),
    ] {
        grown.apply(command).0.unwrap();
    }
    let rows = |catalog: &Catalog| -> Vec<String> {
        catalog.rows().map(|row| serde_json::to_string(&row).unwrap()).collect()
    };
    let read = |row: &String| serde_json::from_str::<Row>(row).unwrap();
    let again = Catalog::from_rows(rows(&grown).iter().map(|row| Ok::<Row, Mismatch>(read(row)))).unwrap();
    again.assert_consistent();
    assert_eq!(rows(&again), rows(&grown));
    assert_eq!(again.held(id(1)).count(), 1);
    assert!(again.lock_delay(b"l/2").is_some());
    let homeless = rows(&grown).iter().filter(|row| !row.contains("Session")).map(read).collect::<Vec<_>>();
    let fault = Catalog::from_rows(homeless.into_iter().map(Ok::<Row, Mismatch>)).err();
    assert_eq!(fault, Some(Mismatch::NoHolder("l/1".into())));
}

/// What keys and locks are, as plainly as can be.
#[derive(Default)]
struct Plain {
    entries: BTreeMap<String, (String, u128, u64)>,
    sessions: BTreeSet<u128>,
    delays: BTreeSet<String>,
}

impl Plain {
    fn kv(&mut self, verb: KvVerb, key: &str, value: &str, modified: u64) -> bool {
        let former = self.entries.get(key).cloned();
        let (_, holder, locks) = former.clone().unwrap_or_default();
        let entry = match verb {
            KvVerb::Set => (value.to_string(), holder, locks),
            KvVerb::Cas(index) if index == modified => (value.to_string(), holder, locks),
            KvVerb::Lock(session) if holder == session.as_u128() => (value.to_string(), holder, locks),
            KvVerb::Lock(session) if holder == 0 && !self.delays.contains(key) => {
                (value.to_string(), session.as_u128(), locks + 1)
            }
            KvVerb::Unlock(session) if holder == session.as_u128() => (value.to_string(), 0, locks),
            KvVerb::Delete => {
                self.entries.remove(key);
                return true;
            }
            KvVerb::DeleteTree => {
                self.entries.retain(|other, _| !other.starts_with(key));
                return true;
            }
            _ => return false,
        };
        self.entries.insert(key.into(), entry);
        true
    }

    fn destroy(&mut self, session: u128) {
        if self.sessions.remove(&session) {
            for (key, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.1 == session) {
                entry.1 = 0;
                self.delays.insert(key.clone());
            }
        }
    }
}

#[test]
fn keys_and_locks_agree_with_a_naive_model() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut catalog, mut plain) = (fixture(), Plain::default());
        for step in 0..60 {
            let key = ["a", "a/b", "a/c", "b"][random.usize(..4)];
            let value = ["1", "2"][random.usize(..2)];
            let who = random.u128(1..4);
            let modified = catalog.entry(key.as_bytes()).map_or(0, |entry| entry.modified);
            let verb = match random.u8(..10) {
                0 => {
                    catalog.apply(create(session(who, "ash", &[]))).0.unwrap();
                    plain.sessions.insert(who);
                    continue;
                }
                1 => {
                    catalog.apply(destroy(who)).0.unwrap();
                    plain.destroy(who);
                    continue;
                }
                2 => {
                    let since = catalog.lock_delay(key.as_bytes()).map_or(0, |delay| delay.since);
                    catalog.apply(Command::EndLockDelays(vec![(key.into(), since)])).0.unwrap();
                    plain.delays.remove(key);
                    continue;
                }
                3 => KvVerb::Cas(if random.bool() { modified } else { 1 }),
                4 | 5 => KvVerb::Lock(id(who)),
                6 => KvVerb::Unlock(id(who)),
                7 => KvVerb::Delete,
                8 if random.u8(..4) == 0 => KvVerb::DeleteTree,
                _ => KvVerb::Set,
            };
            let reply = catalog.apply(kv(verb, key, value)).0;
            catalog.assert_consistent();
            let unknown =
                matches!(verb, KvVerb::Lock(session) if !plain.sessions.contains(&session.as_u128()));
            assert_eq!(reply.is_err(), unknown, "{seed} {step} {verb:?}");
            if let Ok(applied) = reply {
                let done = plain.kv(verb, key, value, modified);
                assert_eq!(applied.answer == Answer::Done, done, "{seed} {step} {verb:?} {key}");
            }
            let is = |entry: &Arc<Entry>| {
                let holder = entry.session.map_or(0, |session| session.as_u128());
                (entry.key.to_string(), (entry.value.to_string(), holder, entry.lock_index))
            };
            let entries: BTreeMap<_, _> = catalog.entries_under(b"").map(is).collect();
            assert_eq!(entries, plain.entries, "{seed} {step} {verb:?} {key}");
        }
    }
}
