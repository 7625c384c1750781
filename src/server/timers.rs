//! What ends by itself: sessions that nobody renews, lock delays, the memory of deleted keys. Deadlines only; the catalog
//! says what there is, and the clock is whoever calls. A new leader begins all of them again (`cluster.md` §1.6, §1.7).

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::catalog::{Blob, Catalog, Command, SessionWrite, Table};

/// A deleted key is remembered this long: until then a read of its prefix tells of it.
pub const TOMBSTONES_KEPT: Duration = Duration::from_secs(15 * 60);
/// Deletions within this time are forgotten together.
const TOMBSTONES_TOGETHER: Duration = Duration::from_secs(30);
/// A session ends after this many times its time to live without a word.
const TTLS: u32 = 2;
/// For a command that was given out to show in the catalog; after that it is given out again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct Timers {
    sessions: HashMap<Uuid, Session>,
    delays: HashMap<Blob, Delay>,
    /// By index, and so by time.
    tombstones: VecDeque<Tombstones>,
    /// The index of sessions, and of deletions with their number, when they were last looked at.
    seen: (u64, (u64, usize)),
}

#[derive(Debug)]
struct Session {
    ttl: Duration,
    ends: Instant,
}

#[derive(Debug)]
struct Delay {
    since: u64,
    ends: Instant,
}

/// All deletions up to an index.
#[derive(Debug)]
struct Tombstones {
    upto: u64,
    began: Instant,
    ends: Instant,
    /// Given out: it goes when the catalog holds none of them.
    is_due: bool,
}

impl Timers {
    /// Takes up what there is now, and forgets what is gone.
    pub fn follow(&mut self, catalog: &Catalog, now: Instant) {
        let tombstones = (catalog.table_index(Table::Tombstones), catalog.tombstone_count());
        let seen = (catalog.table_index(Table::Sessions), tombstones);
        if seen.0 != self.seen.0 {
            self.sessions.retain(|id, _| catalog.session(*id).is_some());
            for session in catalog.sessions().filter(|session| session.ttl_nanos > 0) {
                let ttl = Duration::from_nanos(session.ttl_nanos);
                self.sessions.entry(session.id).or_insert(Session { ttl, ends: now + TTLS * ttl });
            }
        }
        if self.tombstones.front().is_some_and(|bin| bin.is_due) {
            let oldest = catalog.tombstones().map(|(_, index)| index).min();
            self.tombstones.retain(|bin| oldest.is_some_and(|oldest| bin.upto >= oldest));
        }
        if seen.1 != self.seen.1 {
            self.follow_tombstones(seen.1, now);
        }
        self.seen = seen;
        self.delays
            .retain(|key, delay| catalog.lock_delay(key).is_some_and(|current| current.since == delay.since));
        for (key, delay) in catalog.lock_delays() {
            let ends = now + Duration::from_nanos(delay.nanos);
            self.delays.entry(key.clone()).or_insert(Delay { since: delay.since, ends });
        }
    }

    /// There may be very many: what is newest is told by their index, and which is oldest is looked for only when some
    /// should be gone.
    fn follow_tombstones(&mut self, (newest, count): (u64, usize), now: Instant) {
        if count == 0 {
            self.tombstones.clear();
            return;
        }
        match self.tombstones.back_mut() {
            Some(last) if newest <= last.upto => {}
            Some(last) if now < last.began + TOMBSTONES_TOGETHER => last.upto = newest,
            _ => {
                let ends = now + TOMBSTONES_KEPT + TOMBSTONES_TOGETHER;
                self.tombstones.push_back(Tombstones { upto: newest, began: now, ends, is_due: false });
            }
        }
    }

    /// A session's client gave a word.
    pub fn renew(&mut self, id: Uuid, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.ends = now + TTLS * session.ttl;
        }
    }

    /// What had its time. It is given out again later if the catalog still holds it then.
    pub fn due(&mut self, now: Instant) -> Vec<Command> {
        let again = now + AGAIN_AFTER;
        let mut due = Vec::new();
        for (id, session) in self.sessions.iter_mut().filter(|(_, session)| session.ends <= now) {
            session.ends = again;
            due.push(Command::Session(SessionWrite::Destroy(*id)));
        }
        let mut delays = Vec::new();
        for (key, delay) in self.delays.iter_mut().filter(|(_, delay)| delay.ends <= now) {
            delay.ends = again;
            delays.push((key.clone(), delay.since));
        }
        if !delays.is_empty() {
            due.push(Command::EndLockDelays(delays));
        }
        let mut upto = None;
        for bin in self.tombstones.iter_mut().filter(|bin| bin.ends <= now) {
            (bin.ends, bin.is_due) = (again, true);
            upto = Some(bin.upto);
        }
        due.extend(upto.map(|upto| Command::ForgetTombstones { upto }));
        due
    }

    /// When something is due next.
    pub fn next(&self) -> Option<Instant> {
        let sessions = self.sessions.values().map(|session| session.ends);
        let delays = self.delays.values().map(|delay| delay.ends);
        sessions.chain(delays).chain(self.tombstones.iter().map(|bin| bin.ends)).min()
    }

    /// Nobody's time runs here any more.
    pub fn clear(&mut self) {
        *self = Timers::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{KvVerb, KvWrite, Node, Register, Session};

    const SECOND: Duration = Duration::from_secs(1);

    struct Scene {
        catalog: Catalog,
        timers: Timers,
        now: Instant,
    }

    impl Scene {
        #[expect(clippy::disallowed_methods, reason = "a beginning to count from")]
        fn new() -> Scene {
            let mut scene =
                Scene { catalog: Catalog::default(), timers: Timers::default(), now: Instant::now() };
            let node = Node { name: "ash".into(), ..Node::default() };
            scene.apply(Command::Register(Box::new(Register { node, ..Register::default() })));
            scene
        }

        fn apply(&mut self, command: Command) {
            self.catalog.apply(command).0.expect("the scene is accepted");
            self.timers.follow(&self.catalog, self.now);
        }

        fn session(&mut self, id: u128, ttl_secs: u64, delay_secs: i64) {
            self.apply(Command::Session(SessionWrite::Create(Box::new(Session {
                id: Uuid::from_u128(id),
                node: "ash".into(),
                ttl_nanos: ttl_secs * 1_000_000_000,
                lock_delay: delay_secs * 1_000_000_000,
                ..Session::default()
            }))));
        }

        fn kv(&mut self, verb: KvVerb, key: &str) {
            self.apply(Command::Kv(KvWrite { verb, key: key.into(), ..KvWrite::default() }));
        }

        /// What falls due in the next seconds, each with the second at which it did; it is applied.
        fn pass(&mut self, secs: u64) -> Vec<String> {
            let (from, until) = (self.now, self.now + Duration::from_secs(secs));
            let mut told = Vec::new();
            while let Some(next) = self.timers.next().filter(|next| *next <= until) {
                self.now = next;
                for command in self.timers.due(self.now) {
                    let at = self.now.duration_since(from).as_secs();
                    told.push(match &command {
                        Command::Session(SessionWrite::Destroy(id)) => format!("{at} -{}", id.as_u128()),
                        Command::EndLockDelays(ended) => format!("{at} delays {ended:?}"),
                        other => format!("{at} {other:?}"),
                    });
                    self.apply(command);
                }
            }
            self.now = until;
            told
        }
    }

    #[test]
    fn a_session_that_nobody_renews_ends_after_twice_its_time() {
        let mut scene = Scene::new();
        scene.session(1, 10, 0);
        scene.session(2, 0, 0);
        assert_eq!(scene.pass(15), Vec::<String>::new());
        scene.timers.renew(Uuid::from_u128(1), scene.now);
        scene.timers.renew(Uuid::from_u128(9), scene.now);
        assert_eq!(scene.pass(60), ["20 -1"]);
        assert_eq!(scene.catalog.sessions().count(), 1, "without a time to live it stays");
        assert_eq!(scene.timers.next(), None, "and nothing is left to wait for");
    }

    #[test]
    fn a_lock_delay_ends_and_no_earlier_one_ends_it() {
        let mut scene = Scene::new();
        scene.session(1, 0, 15);
        scene.session(2, 0, 120);
        scene.kv(KvVerb::Lock(Uuid::from_u128(1)), "a");
        scene.kv(KvVerb::Lock(Uuid::from_u128(2)), "b");
        scene.apply(Command::Session(SessionWrite::Destroy(Uuid::from_u128(1))));
        let since = scene.catalog.index();
        scene.apply(Command::Session(SessionWrite::Destroy(Uuid::from_u128(2))));
        let told = scene.pass(100);
        let wanted = [format!("15 delays [(\"a\", {since})]"), format!("60 delays [(\"b\", {})]", since + 1)];
        assert_eq!(told, wanted, "none lasts longer than a minute");
        assert_eq!(scene.timers.next(), None);
    }

    #[test]
    fn deletions_are_forgotten_together() {
        let mut scene = Scene::new();
        for key in ["a", "b", "c"] {
            scene.kv(KvVerb::Set, key);
            scene.kv(KvVerb::Delete, key);
            scene.now += 20 * SECOND;
        }
        let told = scene.pass(2_000);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(scene.catalog.tombstones().count(), 0);
        assert_eq!(scene.timers.next(), None);
    }

    /// A key that is deleted again is remembered anew: of the first time nothing is left to forget.
    #[test]
    fn a_deletion_that_was_overtaken_is_not_forgotten_for_ever() {
        let mut scene = Scene::new();
        for pause in [40, 0] {
            scene.kv(KvVerb::Set, "a");
            scene.kv(KvVerb::Delete, "a");
            scene.now += pause * SECOND;
        }
        let told = scene.pass(2_000);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!((scene.catalog.tombstones().count(), scene.timers.next()), (0, None));
    }

    #[test]
    fn what_does_not_come_through_is_tried_again() {
        let mut scene = Scene::new();
        scene.session(1, 10, 0);
        scene.now += 20 * SECOND;
        assert_eq!(scene.timers.due(scene.now).len(), 1);
        assert!(scene.timers.due(scene.now + 4 * SECOND).is_empty());
        assert_eq!(scene.timers.due(scene.now + 5 * SECOND).len(), 1);
        scene.timers.clear();
        scene.timers.follow(&scene.catalog, scene.now);
        assert_eq!(scene.timers.next(), Some(scene.now + 20 * SECOND), "a new leader begins again");
    }
}
