//! The table of `cluster.md` §4.2, and what becomes of the rows of members that come, go, and vanish in masses.

use std::{collections::BTreeMap, net::SocketAddr};

use super::*;
use crate::{
    catalog::{Key, Text, fold},
    gossip::Status as Standing,
    server::{
        reconcile::{Belief, reconcile},
        roll::{News, Roll},
    },
};

const WELL: &str = "Agent alive and reachable";
const GONE: &str = "Agent not live or unreachable";

/// A pool, a catalog, the roll between them, and a clock.
struct World {
    members: Members,
    catalog: Catalog,
    roll: Roll,
    now: Instant,
    written: usize,
}

impl World {
    fn new(guard: MassFailure) -> World {
        let suspicion = Suspicion { multiplier: 4, probe_interval: Duration::from_secs(1) };
        let (roll, now) = (Roll::new(member(), guard, suspicion), now());
        let mut world = World { members: Members::new(), catalog: Catalog::default(), roll, now, written: 0 };
        world.settle();
        world
    }

    fn of(names: impl IntoIterator<Item = String>, guard: MassFailure) -> World {
        let mut world = World::new(guard);
        names.into_iter().for_each(|name| world.set(&name, Standing::Alive));
        world.settle();
        world
    }

    fn set(&mut self, name: &str, status: Standing) {
        self.put(client(name, status));
    }

    fn put(&mut self, member: gossip::Member) {
        self.members.insert(fold(&member.name).into(), Arc::new(member));
    }

    fn after(&mut self, secs: u64) -> &mut World {
        self.now += Duration::from_secs(secs);
        self
    }

    /// What gossip says is taken up, and all is written that has to be. Gives how many commands that took.
    fn settle(&mut self) -> (usize, Vec<News>) {
        self.roll.follow(&self.members, &self.catalog, self.now);
        let news = self.roll.judge(self.now);
        let before = self.written;
        loop {
            let batch = self.roll.next(&self.catalog, self.now, 3);
            if batch.is_empty() {
                break;
            }
            for (_, command) in batch {
                let (reply, _) = self.catalog.apply(command.clone());
                assert!(reply.expect("it is not refused").changed, "{command:?} changes nothing");
                self.written += 1;
            }
        }
        self.catalog.assert_consistent();
        (self.written - before, news)
    }

    fn everything(&mut self) -> usize {
        self.roll.everything(&self.catalog, self.now);
        self.settle().0
    }

    fn apply(&mut self, command: Command) {
        self.catalog.apply(command).0.unwrap();
    }

    /// `+` where its health is passing, `-` where it is critical, `?` where it is unconfirmed; nothing of a node not there.
    fn health(&self, name: &str) -> String {
        let Some(home) = self.catalog.node(&fold(name)) else { return String::new() };
        let mut checks = home.checks().iter().filter(|check| &*check.id == SERF_HEALTH);
        let told = checks.next().map(|check| (check.status.clone(), check.output.to_string()));
        match told {
            None => "no check".into(),
            Some((Status::Passing, output)) if output == WELL => "+".into(),
            Some((Status::Critical, output)) if output == GONE => "-".into(),
            Some((Status::Passing, output)) if output.starts_with("Unconfirmed: ") => "?".into(),
            Some(other) => format!("{other:?}"),
        }
    }

    fn count(&self, health: &str) -> usize {
        self.catalog.nodes().filter(|home| self.health(&home.node().name) == health).count()
    }
}

fn off() -> MassFailure {
    MassFailure { percent: 0, ..MassFailure::default() }
}

fn id(name: &str) -> Uuid {
    Uuid::from_u128(name.bytes().fold(1, |sum, byte| sum * 257 + u128::from(byte)))
}

fn client(name: &str, status: Standing) -> gossip::Member {
    let tags = [
        ("role", "node".to_string()),
        ("dc", "north".into()),
        ("id", id(name).to_string()),
        ("build", "1.16.4:".into()),
    ];
    of_tags(name, status, tags)
}

fn of_tags<const N: usize>(name: &str, status: Standing, tags: [(&str, String); N]) -> gossip::Member {
    let tags: BTreeMap<Text, Text> =
        tags.into_iter().map(|(key, value)| (Text::from(key), Text::from(value))).collect();
    let address: SocketAddr = ([10, 0, 0, 2], 8301).into();
    gossip::Member { name: name.into(), address, status, tags: Arc::new(tags), generation: 1 }
}

fn web_on(node: &str) -> Command {
    let service = Service { name: "web".into(), port: 80, ..Service::default() };
    let node = Node { name: node.into(), ..Node::default() };
    let register = Register { node, skip_node_update: true, service: Some(service), ..Register::default() };
    Command::Register(Box::new(register))
}

fn check_on(node: &str, check: Check) -> Command {
    let node = Node { name: node.into(), ..Node::default() };
    let register = Register { node, skip_node_update: true, checks: vec![check], ..Register::default() };
    Command::Register(Box::new(register))
}

#[test]
fn a_client_is_a_node_with_its_health_and_nothing_else() {
    let mut world = World::new(off());
    world.set("Elm", Standing::Alive);
    assert_eq!(world.settle().0, 1);
    let home = world.catalog.node("elm").unwrap();
    let node = home.node();
    assert_eq!((&*node.name, &*node.address, &*node.datacenter), ("Elm", "10.0.0.2", "north"));
    assert_eq!((node.id, node.tagged_addresses.as_ref()), (Some(id("Elm")), None));
    assert_eq!(node.meta.as_ref().unwrap(), &Map::from_iter([("consul-version", "1.16.4".into())]));
    assert_eq!((home.instances().count(), world.health("elm")), (0, "+".into()));
    assert_eq!((world.settle().0, world.everything()), (0, 0), "what is right is not written");
}

#[test]
fn who_does_not_answer_is_critical_and_keeps_its_services() {
    let mut world = World::of(["elm".into()], off());
    world.apply(web_on("elm"));
    world.set("elm", Standing::Failed);
    assert_eq!(world.settle().0, 1);
    assert_eq!(world.health("elm"), "-");
    let web = |world: &World| world.catalog.service("web").unwrap().instances().next().unwrap().health;
    assert_eq!(web(&world), Health::Critical);
    assert_eq!(world.everything(), 0);
    world.set("elm", Standing::Alive);
    assert_eq!(world.settle().0, 1);
    assert_eq!((world.health("elm"), web(&world)), ("+".into(), Health::Passing));
}

#[test]
fn what_failed_before_it_was_known_makes_no_node() {
    let mut world = World::new(off());
    world.set("elm", Standing::Failed);
    assert_eq!((world.settle().0, world.health("elm")), (0, String::new()));
}

#[test]
fn who_leaves_is_removed_with_everything_once_it_has_left() {
    let mut world = World::of(["elm".into()], off());
    world.apply(web_on("elm"));
    world.set("elm", Standing::Leaving);
    assert_eq!((world.settle().0, world.health("elm")), (0, "+".into()));
    world.set("elm", Standing::Left);
    assert_eq!(world.settle().0, 1);
    assert!(world.catalog.node("elm").is_none() && world.catalog.service("web").is_none());
    assert_eq!(world.everything(), 0);

    // What it said as it left may arrive late: it does not come back by rumour.
    world.apply(web_on("elm"));
    assert_eq!(world.everything(), 1);
    assert!(world.catalog.node("elm").is_none());
}

/// Removing is for the agent's own node: a name may be somebody else's by then.
#[test]
fn who_left_takes_no_node_of_another_with_it() {
    let mut world = World::of(["elm".into()], off());
    world.set("elm", Standing::Left);
    world.settle();
    let node = Node { name: "elm".into(), id: Some(id("other")), ..Node::default() };
    world.apply(Command::Register(Box::new(Register { node, ..Register::default() })));
    assert_eq!(world.everything(), 0);
    assert!(world.catalog.node("elm").is_some());
}

#[test]
fn what_the_pool_forgets_is_removed_unless_no_agent_stood_behind_it() {
    let mut world = World::of(["elm".into(), "ash".into()], off());
    world.set("elm", Standing::Failed);
    world.settle();
    world.members.remove("elm");
    world.members.remove("ash");
    world.apply(Command::Deregister { node: "ash".into(), target: Target::Check(SERF_HEALTH.into()) });
    assert_eq!(world.settle().0, 1);
    assert!(world.catalog.node("elm").is_none() && world.catalog.node("ash").is_some());
}

/// As after the start of a server that lost what it knew of its pool: others have a minute or two to find it.
#[test]
fn nodes_that_gossip_does_not_know_have_some_time() {
    let mut world = World::of(["elm".into(), "ash".into()], off());
    world.apply(web_on("external"));
    let mut late = World { catalog: world.catalog.clone(), ..World::new(off()) };
    assert_eq!(late.everything(), 0);
    assert_eq!((late.health("elm"), late.health("ash")), ("+".into(), "+".into()));
    late.after(59).everything();
    assert_eq!(late.health("elm"), "+");
    late.set("ash", Standing::Alive);
    assert_eq!(late.after(1).everything(), 1);
    assert_eq!((late.health("elm"), late.health("ash")), ("-".into(), "+".into()));
    late.after(119).everything();
    assert_eq!(late.health("elm"), "-");
    assert_eq!(late.after(1).everything(), 1);
    assert!(late.catalog.node("elm").is_none());
    assert!(late.catalog.node("external").is_some(), "no agent stands behind it");
    late.members.remove("ash");
    assert_eq!(late.settle().0, 1, "what was known and is forgotten is gone at once");
}

#[test]
fn another_server_has_its_service_and_is_told_of_once() {
    let tags = |build: &str| {
        let id = id("fir").to_string();
        [
            ("role", "consul".to_string()),
            ("dc", "north".into()),
            ("id", id),
            ("port", "8300".into()),
            ("build", build.into()),
        ]
    };
    let mut world = World::new(off());
    world.put(of_tags("fir", Standing::Alive, tags("1.16.4:")));
    let (written, news) = world.settle();
    assert_eq!((written, news), (1, vec![News::OtherServer("fir".into())]));
    let home = world.catalog.node("fir").unwrap();
    assert_eq!(home.instance("consul").unwrap().service.port, 8300);
    // It is no server any more.
    world.put(of_tags("fir", Standing::Failed, tags("1.16.4:")));
    world.settle();
    world.set("fir", Standing::Alive);
    assert_eq!(world.settle(), (2, vec![]), "the service goes, the health comes back");
    assert_eq!(world.catalog.node("fir").unwrap().instances().count(), 0);
    world.put(of_tags("fir", Standing::Alive, tags("1.16.4:")));
    assert_eq!(world.settle(), (1, vec![]));
}

#[test]
fn this_server_stays_whatever_gossip_says_of_it() {
    for status in [Standing::Failed, Standing::Leaving, Standing::Left] {
        let mut world = World::new(off());
        world.set("OAK", status);
        assert_eq!((world.settle().0, world.everything()), (0, 0), "{status:?}");
        world.members.remove("oak");
        assert_eq!(world.settle().0, 0);
        assert_eq!(world.health("oak"), "+");
    }
}

#[test]
fn members_of_other_datacenters_are_no_nodes() {
    let mut world = World::new(off());
    let tags = [("role", "node".to_string()), ("dc", "south".into()), ("id", id("elm").to_string())];
    world.put(of_tags("elm", Standing::Alive, tags));
    assert_eq!(world.settle().0, 0);
}

/// A machine that was set up anew has another id. At another address it may be another machine: then the name is free once
/// the former one is known to be gone.
#[test]
fn a_name_goes_to_another_id_at_the_same_address() {
    let mut world = World::of(["elm".into()], off());
    let again = |address: [u8; 4]| {
        let mut member = Member::from(&client("elm", Standing::Alive));
        (member.id, member.address) = (Some(Uuid::from_u128(9)), address.into());
        member
    };
    let write = |world: &mut World, member: &Member| {
        let command = reconcile(&world.catalog, member, Belief::Gone).expect("it is to be written");
        world.catalog.apply(command).0
    };
    assert!(write(&mut world, &again([10, 0, 0, 3])).is_err(), "the name is another's");
    write(&mut world, &again([10, 0, 0, 2])).unwrap();
    assert_eq!(world.health("elm"), "-");
    write(&mut world, &again([10, 0, 0, 2])).unwrap();
    assert_eq!(world.health("elm"), "+");
    assert_eq!(world.catalog.node("elm").unwrap().node().id, Some(Uuid::from_u128(9)));
}

/// What it had on its way when it left comes after it was removed; what it has when it is back may come before it is known.
#[test]
fn who_left_is_no_node_again() {
    let mut world = World::of(["elm".into()], off());
    world.set("elm", Standing::Left);
    assert_eq!((world.settle().0, world.settle().0), (1, 0));
    assert_eq!((world.health("elm"), world.roll.due()), (String::new(), None));
    let node =
        Node { name: "elm".into(), id: Some(id("elm")), address: "10.0.0.2".into(), ..Node::default() };
    let late = Command::Register(Box::new(Register { node, ..Register::default() }));
    world.apply(late.clone());
    assert_eq!(world.settle().0, 0);
    assert_eq!(world.roll.due(), Some(world.now + Duration::from_secs(5)));
    assert_eq!(world.after(4).settle().0, 0);
    assert_eq!((world.after(1).settle().0, world.settle().0), (1, 0));
    assert_eq!((world.catalog.node("elm").is_none(), world.roll.due()), (true, None));
    world.apply(late);
    world.settle();
    world.set("elm", Standing::Alive);
    world.after(5).settle();
    assert_eq!((world.health("elm"), world.roll.due()), ("+".into(), None));
}

#[test]
fn maintenance_of_a_node_elsewhere_takes_its_services_out() {
    let mut world = World::of(["elm".into()], off());
    world.apply(web_on("elm"));
    world.apply(check_on("elm", Check { id: "_node_maintenance".into(), ..Check::default() }));
    assert_eq!(world.everything(), 0, "it is the agent's own to end");
    let web = world.catalog.service("web").unwrap().instances().next().unwrap().health;
    assert_eq!((world.health("elm"), web), ("+".into(), Health::Critical));
}

fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("n{number:02}"))
}

#[test]
fn where_many_vanish_at_once_their_health_stays() {
    let mut world = World::of(names(30), MassFailure::default());
    for (number, name) in names(12).enumerate() {
        world.set(&name, Standing::Failed);
        let (_, news) = world.after(1).settle();
        let told = News::Doubted { members: 10, first: "n00".into() };
        assert_eq!(news.contains(&told), number == 9, "{news:?}");
    }
    assert_eq!((world.count("?"), world.count("-"), world.roll.doubted().len()), (12, 0, 12));
    assert_eq!(world.everything(), 0);

    world.set("n03", Standing::Alive);
    assert_eq!(world.settle().0, 1, "its output is as before");
    assert_eq!((world.health("n03"), world.roll.doubted().len()), ("+".into(), 11));
    assert_eq!(world.roll.confirm(Some("N05")), 1);
    assert_eq!(world.settle().0, 1);
    assert_eq!(world.health("n05"), "-");
    world.set("n06", Standing::Left);
    world.settle();
    assert_eq!((world.health("n06"), world.count("?")), (String::new(), 9));

    world.after(300);
    assert_eq!(world.roll.due().map(|due| due <= world.now), Some(true));
    let (written, news) = world.settle();
    assert_eq!((written, news), (9, vec![News::Confirmed { members: 9, first: "n00".into() }]));
    assert_eq!((world.count("?"), world.count("-")), (0, 10));
    world.set("n00", Standing::Alive);
    world.settle();
    assert_eq!(world.health("n00"), "+");
}

#[test]
fn at_once_is_as_long_as_gossip_takes_from_one_to_the_next() {
    let longest = |multiplier, probe_millis, members| {
        let probe_interval = Duration::from_millis(probe_millis);
        Suspicion { multiplier, probe_interval }.longest(members).as_millis()
    };
    assert_eq!(longest(4, 1000, 10), 24_000 + 8_000);
    assert_eq!(longest(4, 1000, 1000), 72_000 + 8_000);
    assert_eq!(longest(3, 100, 12), 10_000, "dev mode");
}

#[test]
fn an_operator_says_that_all_of_them_are_gone() {
    let mut world = World::of(names(30), MassFailure::default());
    names(20).for_each(|name| world.set(&name, Standing::Failed));
    world.settle();
    assert_eq!(world.count("?"), 20);
    assert_eq!(world.roll.confirm(None), 20);
    assert_eq!((world.settle().0, world.count("-"), world.roll.doubted().len()), (20, 20, 0));
    assert_eq!(world.everything(), 0);
}

/// A server that was away itself: what is in the catalog from before counts.
#[test]
fn a_server_that_finds_most_of_its_nodes_silent_doubts() {
    let mut before = World::of(names(30), off());
    before.set("n29", Standing::Failed);
    before.settle();
    let mut world = World { catalog: before.catalog.clone(), ..World::new(MassFailure::default()) };
    world.everything();
    world.after(60).everything();
    assert_eq!((world.count("?"), world.count("-"), world.roll.doubted().len()), (29, 1, 29));
    world.after(180).everything();
    assert_eq!(world.count("?"), 29);
    world.after(120).everything();
    assert_eq!(world.catalog.node_count(), 1, "they were given the time that was set");
}

#[test]
fn without_the_guard_all_are_gone_at_once() {
    let mut world = World::of(names(30), off());
    names(30).for_each(|name| world.set(&name, Standing::Failed));
    assert_eq!((world.settle().0, world.count("-")), (30, 30));
}

/// Members come, fail, leave, are forgotten, rows are damaged: in the end the catalog says what is true of everyone, and
/// nothing more is to be written.
#[test]
fn whatever_happens_the_catalog_ends_true() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let guard = if random.bool() { MassFailure::default() } else { off() };
        let mut world = World::of(names(5), guard);
        for _ in 0..150 {
            let name = format!("n{:02}", random.u8(..25));
            match random.u8(..12) {
                0..4 => world.set(&name, Standing::Alive),
                4..6 => world.set(&name, Standing::Failed),
                6 => world.set(&name, Standing::Leaving),
                7 => world.set(&name, Standing::Left),
                8 => drop(world.members.remove(&*name)),
                9 => {
                    let damage = Command::Deregister { node: name.as_str().into(), target: Target::Node };
                    drop(world.catalog.apply(damage));
                }
                10 => drop(world.roll.confirm(random.bool().then_some(&name))),
                _ => drop(world.after(random.u64(..90)).everything()),
            }
            if random.bool() {
                world.settle();
            }
        }
        for _ in 0..3 {
            world.after(301).everything();
        }
        let keys: Vec<Key> = world.members.keys().cloned().collect();
        for name in names(25) {
            let expected = match world.members.get(&*name).map(|member| member.status) {
                Some(Standing::Alive) => "+",
                Some(Standing::Failed) => "-",
                // Its health is the last that was known.
                Some(Standing::Leaving) => continue,
                Some(Standing::Left) | None => "",
            };
            let found = world.health(&name);
            // A node that somebody removed comes back only when its agent is alive.
            let is_right = found == expected || (expected == "-" && found.is_empty());
            assert!(is_right, "seed {seed}: {name} is {found:?}, not {expected:?} ({keys:?})");
        }
        assert_eq!(world.everything(), 0, "seed {seed}");
    }
}
