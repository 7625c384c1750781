//! Anti-entropy (`cluster.md` §6.2): what the catalog says of this node, against what this agent registers. The agent
//! is right about everything on its node; where nothing differs nothing is proposed. A comparison, not a ledger: there
//! are no marks of what was sent, so there are none to be wrong.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::local::{Ids, Local};
use crate::catalog::{Check, Command, Home, Key, Node, Register, SERF_HEALTH, Service, Target, Text, fold};

/// The service that servers register for themselves; an agent leaves it alone.
const SERVERS: &str = "consul";

/// How much to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What changed here since the last comparison: its price does not grow with what is registered.
    Touched,
    /// Whatever is here or there: finds what others changed, and repairs what failed.
    Everything,
}

/// The commands that make the catalog agree: the node first, then its services with their checks, then the rest.
/// `home` is what the catalog holds of this node.
pub fn difference(
    local: &mut Local,
    node: &Node,
    home: Option<&Home>,
    scope: Scope,
    now: Instant,
) -> Vec<Command> {
    adopt_tags(local, home, scope);
    let mut ids = local.take_touched(now);
    if scope == Scope::Everything {
        everything(&mut ids, local, home);
    }
    let deregister = |target| Command::Deregister { node: node.name.clone(), target };
    let mut commands = Vec::new();
    if home.is_none_or(|home| node_differs(node, home.node())) {
        commands.push(register(node, false, None, vec![]));
    }
    let differing = ids.checks.iter().filter_map(|id| Some((id, differing_check(local, home, id)?)));
    let mut differing: BTreeMap<(Key, &Key), &Arc<Check>> =
        differing.map(|(id, check)| ((fold(&check.service_id).into(), id), check)).collect();
    for id in &ids.services {
        let there = home.and_then(|home| home.instance(id)).map(|there| &there.service);
        match (local.service(id), there) {
            (Some(own), there) if there.is_none_or(|there| !service_is_same(own, there)) => {
                let checks = differing.extract_if(.., |(service, _), _| service == id);
                let checks = checks.map(|(_, check)| check.clone()).collect();
                commands.push(register(node, true, Some(Service::clone(own)), checks));
            }
            (None, Some(there)) if &**id != SERVERS => {
                commands.push(deregister(Target::Service(there.id.clone())));
            }
            _ => {}
        }
    }
    let checks = differing.into_values();
    commands.extend(checks.map(|check| register(node, true, None, vec![check.clone()])));
    let gone = ids.checks.iter().filter_map(|id| check_to_remove(local, home?, id));
    commands.extend(gone.map(|id| deregister(Target::Check(id))));
    commands
}

/// When to compare although nothing is known to have changed.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    due: Instant,
}

impl Schedule {
    const PERIOD: Duration = Duration::from_secs(60);
    const RETRY: Duration = Duration::from_secs(15);

    /// At once.
    pub fn new(now: Instant) -> Self {
        Schedule { due: now }
    }

    pub fn due(&self) -> Instant {
        self.due
    }

    /// A comparison ended. `random` is from 0 to 1, and spreads agents that started together, in a large datacenter over
    /// `scale` times as long.
    pub fn done(&mut self, succeeded: bool, now: Instant, random: f64, scale: u32) {
        let base = if succeeded { Self::PERIOD } else { Self::RETRY };
        self.due = now + base + (base * scale).mul_f64(random.clamp(0.0, 1.0));
    }

    /// Then at the latest.
    pub fn by(&mut self, then: Instant) {
        self.due = self.due.min(then);
    }
}

fn register(
    node: &Node,
    skip_node_update: bool,
    service: Option<Service>,
    checks: Vec<Arc<Check>>,
) -> Command {
    let checks =
        checks.iter().map(|check| Check { node: node.name.clone(), ..Check::clone(check) }).collect();
    Command::Register(Box::new(Register { node: node.clone(), skip_node_update, service, checks }))
}

/// Not by its address alone: that waits for the leader.
fn node_differs(own: &Node, there: &Node) -> bool {
    own.id != there.id
        || own.tagged_addresses != there.tagged_addresses
        || own.meta != there.meta
        || own.locality != there.locality
}

fn service_is_same(own: &Service, there: &Service) -> bool {
    let (created, modified) = (there.created, there.modified);
    Service { created, modified, ..own.clone() } == *there
}

/// Of services that allow it: others' tags come first, so that they are compared as ours.
fn adopt_tags(local: &mut Local, home: Option<&Home>, scope: Scope) {
    if scope == Scope::Everything {
        for instance in home.into_iter().flat_map(Home::instances) {
            local.adopt_tags(&fold(&instance.service.id).into(), &instance.service.tags);
        }
    }
}

fn everything(ids: &mut Ids, local: &Local, home: Option<&Home>) {
    ids.services.extend(local.services().map(|(id, _)| id.clone()));
    ids.checks.extend(local.checks().map(|(id, _)| id.clone()));
    if let Some(home) = home {
        ids.services.extend(home.instances().map(|there| Key::from(fold(&there.service.id))));
        ids.checks.extend(home.all_checks().map(|there| Key::from(fold(&there.id))));
    }
}

/// The check, where the catalog is to be told of it.
fn differing_check<'a>(local: &'a Local, home: Option<&Home>, id: &str) -> Option<&'a Arc<Check>> {
    let own = local.check(id)?;
    let there = home.and_then(|home| {
        let beside = match &*own.service_id {
            "" => home.checks(),
            service => &home.instance(&fold(service))?.checks,
        };
        beside.iter().find(|there| there.id.eq_ignore_ascii_case(id))
    });
    let Some(there) = there else { return Some(own) };
    let output = if local.output_waits(id) { &there.output } else { &own.output };
    let told = Check {
        node: there.node.clone(),
        output: output.clone(),
        created: there.created,
        modified: there.modified,
        ..Check::clone(own)
    };
    (told != **there).then_some(own)
}

/// The id of a check that is in the catalog and not here; one that goes with its service needs no command of its own.
fn check_to_remove(local: &Local, home: &Home, id: &str) -> Option<Text> {
    if local.check(id).is_some() || id.eq_ignore_ascii_case(SERF_HEALTH) {
        return None;
    }
    let there = home.all_checks().find(|there| there.id.eq_ignore_ascii_case(id))?;
    let stays = there.service_id.is_empty() || local.service(&there.service_id).is_some();
    stays.then(|| there.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::local::Source,
        catalog::{Catalog, Map, Status},
        check::{CheckSpec, Definition, ServiceDefinition, ServiceSpec, Span},
    };

    /// A catalog, and an agent that keeps it true.
    struct World {
        catalog: Catalog,
        local: Local,
        node: Node,
        now: Instant,
    }

    impl World {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        fn new() -> Self {
            let node = Node { name: "Oak".into(), address: "10.0.0.1".into(), ..Node::default() };
            World { catalog: Catalog::default(), local: Local::default(), node, now: Instant::now() }
        }

        /// Compares, has the catalog obey, and says what was told. Afterwards nothing differs.
        fn sync(&mut self, scope: Scope) -> Vec<String> {
            let commands = self.difference(scope);
            let told = commands.iter().map(shown).collect();
            commands.into_iter().for_each(|command| self.apply(command));
            assert_eq!(self.difference(Scope::Touched), []);
            told
        }

        fn difference(&mut self, scope: Scope) -> Vec<Command> {
            let home = self.catalog.node("oak").map(|home| &**home);
            difference(&mut self.local, &self.node, home, scope, self.now)
        }

        fn apply(&mut self, command: Command) {
            let (reply, _) = self.catalog.apply(command);
            reply.unwrap();
        }

        /// As someone else would.
        fn write(&mut self, service: Option<Service>, checks: Vec<Check>) {
            let checks = checks.into_iter().map(|check| Check { node: "Oak".into(), ..check }).collect();
            let node = self.node.clone();
            let register = Register { node, skip_node_update: true, service, checks };
            self.apply(Command::Register(Box::new(register)));
        }

        fn register(&mut self, service: ServiceDefinition) {
            self.local.register_service(service, Source::Api, false);
        }

        fn update(&mut self, id: &str, status: Status, output: &str, delay_secs: u64) -> bool {
            let delay = Duration::from_secs(delay_secs);
            self.local.update_check(id, status, output, self.now, delay).unwrap()
        }
    }

    fn shown(command: &Command) -> String {
        match command {
            Command::Register(register) => {
                let checks: Vec<&str> = register.checks.iter().map(|check| &*check.id).collect();
                let node = if register.skip_node_update { "" } else { "node" };
                let service = register.service.as_ref().map_or("", |service| &*service.id);
                format!("+{node}{service} {}", checks.join(" ")).trim_end().to_string()
            }
            Command::Deregister { target: Target::Service(id), .. } => format!("-{id}"),
            Command::Deregister { target: Target::Check(id), .. } => format!("- {id}"),
            Command::Deregister { target: Target::Node, .. } => "-node".into(),
            other => format!("{other:?}"),
        }
    }

    fn ttl(id: &str) -> CheckSpec {
        let ttl = Some(Span { nanos: 30_000_000_000, text: "30s".into() });
        CheckSpec { id: Some(id.into()), ttl, ..CheckSpec::default() }
    }

    fn service(name: &str, checks: &[&str]) -> ServiceSpec {
        let checks = checks.iter().map(|id| ttl(id)).collect();
        ServiceSpec { name: Some(name.into()), checks, ..ServiceSpec::default() }
    }

    fn node_check(id: &str) -> Definition {
        ttl(id).build().unwrap()
    }

    fn web() -> ServiceDefinition {
        service("web", &["c1", "c2"]).build().unwrap()
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn what_is_registered_is_told_once() {
        let mut world = World::new();
        world.register(web());
        world.local.register_check(node_check("disk"), Source::Api).unwrap();
        assert_eq!(world.sync(Scope::Everything), ["+node", "+web c1 c2", "+ disk"]);
        assert_eq!(world.sync(Scope::Everything), NONE);
        world.register(web());
        assert_eq!(world.sync(Scope::Touched), NONE, "the same again");
        world.register(service("web", &["c1"]).build().unwrap());
        assert_eq!(world.sync(Scope::Touched), NONE, "its other check stays");
        world.local.register_service(service("web", &["c1"]).build().unwrap(), Source::Api, true);
        assert_eq!(world.sync(Scope::Touched), ["- c2"]);
        world.local.deregister_service("WEB").unwrap();
        assert_eq!(world.sync(Scope::Touched), ["-web"]);
        world.local.deregister_check("disk").unwrap();
        assert_eq!(world.sync(Scope::Touched), ["- disk"]);
    }

    #[test]
    fn only_the_service_and_its_differing_checks_are_written_again() {
        let mut world = World::new();
        world.register(web());
        world.sync(Scope::Everything);
        let port = ServiceSpec { port: Some(81), ..service("web", &["c1"]) };
        world.register(port.build().unwrap());
        world.update("c2", Status::Passing, "", 0);
        assert_eq!(world.sync(Scope::Touched), ["+web c2"]);
        let tags = ServiceSpec { port: Some(81), tags: Some(vec!["new".into()]), ..service("web", &[]) };
        world.register(tags.build().unwrap());
        assert_eq!(world.sync(Scope::Touched), ["+web c1 c2"], "checks carry a copy of the tags");
        assert_eq!(world.sync(Scope::Everything), NONE);
    }

    /// `cluster.md` §6.3.
    #[test]
    fn a_status_is_told_at_once_and_output_alone_later() {
        let mut world = World::new();
        world.register(web());
        world.sync(Scope::Everything);
        assert!(!world.update("c1", Status::Critical, "", 300), "nothing new");
        assert!(world.update("c1", Status::Passing, "up", 300));
        assert_eq!(world.sync(Scope::Touched), ["+ c1"]);

        assert!(world.update("c1", Status::Passing, "fine", 300), "due later");
        assert!(!world.update("c1", Status::Passing, "finer", 300), "due already");
        assert_eq!(world.local.next_due(), Some(world.now + Duration::from_secs(300)));
        assert_eq!(world.sync(Scope::Touched), NONE);
        assert_eq!(world.sync(Scope::Everything), NONE, "not even by a full comparison");
        world.now += Duration::from_secs(300);
        assert_eq!(world.sync(Scope::Touched), ["+ c1"]);
        let home = world.catalog.node("oak").unwrap();
        assert_eq!(&*home.instance("web").unwrap().checks[0].output, "finer", "the latest");
        assert_eq!(world.local.next_due(), None);

        world.update("c1", Status::Passing, "slow", 300);
        assert!(world.update("c1", Status::Warning, "slower", 300));
        assert_eq!(world.sync(Scope::Touched), ["+ c1"]);
        assert_eq!(world.local.next_due(), None, "it went along");
    }

    /// `cluster.md` §6.2: the agent is right about its node, but for what servers keep there.
    #[test]
    fn what_others_did_is_undone_by_a_full_comparison() {
        let mut world = World::new();
        world.register(web());
        world.sync(Scope::Everything);
        let port = Service { port: 99, ..web().service };
        let foreign = Service { id: "x".into(), name: "x".into(), ..Service::default() };
        let check =
            |id: &str, service: &str| Check { id: id.into(), service_id: service.into(), ..Check::default() };
        let servers = Service { id: SERVERS.into(), name: SERVERS.into(), ..Service::default() };
        world.write(Some(port), vec![check("odd", "web"), check("stray", ""), check(SERF_HEALTH, "")]);
        world.write(Some(foreign), vec![check("of-x", "x")]);
        world.write(Some(servers), vec![check("of-consul", "consul")]);
        assert_eq!(world.sync(Scope::Touched), NONE);
        assert_eq!(world.sync(Scope::Everything), ["+web", "-x", "- odd", "- stray"]);

        world.apply(Command::Deregister { node: "oak".into(), target: Target::Check("c1".into()) });
        assert_eq!(world.sync(Scope::Everything), ["+ c1"]);
        world.apply(Command::Deregister { node: "oak".into(), target: Target::Node });
        assert_eq!(world.sync(Scope::Everything), ["+node", "+web c1 c2"]);
        world.node.meta = Some([("rack", "7")].into_iter().map(|(k, v)| (k, v.into())).collect::<Map<_>>());
        assert_eq!(world.sync(Scope::Touched), ["+node"]);
        world.node.address = "10.0.0.2".into();
        assert_eq!(world.sync(Scope::Everything), NONE, "the address waits for the leader");
    }

    #[test]
    fn others_may_tag_a_service_that_allows_it() {
        let mut world = World::new();
        let open =
            || ServiceSpec { enable_tag_override: Some(true), ..service("web", &["c1"]) }.build().unwrap();
        world.register(open());
        world.sync(Scope::Everything);
        let tagged = Service { tags: ["green".into()].into(), port: 99, ..open().service };
        world.write(Some(tagged), vec![]);
        assert_eq!(world.sync(Scope::Everything), ["+web c1"], "the port comes back, the tags stay");
        assert_eq!(world.local.service("web").unwrap().tags[..], ["green".into()]);
        assert_eq!(world.sync(Scope::Everything), NONE);
        world.local.reload(vec![open()], vec![]);
        world.register(open());
        assert_eq!(world.sync(Scope::Everything), NONE, "nor does the same definition take them away");
        let own = ServiceSpec { tags: Some(vec!["blue".into()]), ..service("web", &["c1"]) };
        world.register(ServiceSpec { enable_tag_override: Some(true), ..own }.build().unwrap());
        assert_eq!(world.sync(Scope::Touched), ["+web c1"], "another one does");
    }

    /// A check keeps its id when it moves to another service, and ids differ in letter case only on paper.
    #[test]
    fn a_check_moves_and_letter_case_does_not_matter() {
        let mut world = World::new();
        world.register(web());
        world.register(service("db", &[]).build().unwrap());
        world.sync(Scope::Everything);
        world.register(service("db", &["C2"]).build().unwrap());
        assert_eq!(world.sync(Scope::Touched), ["+ C2"]);
        assert_eq!(world.sync(Scope::Everything), NONE);
        world.register(ServiceSpec { id: Some("WEB".into()), ..service("web", &["c1"]) }.build().unwrap());
        world.sync(Scope::Touched);
        assert_eq!(world.sync(Scope::Everything), NONE);
    }

    #[test]
    fn full_comparisons_come_every_minute_or_two() {
        let world = World::new();
        let mut schedule = Schedule::new(world.now);
        assert_eq!(schedule.due(), world.now);
        for (succeeded, random, scale, secs) in [
            (true, 0.0, 1, 60),
            (true, 1.0, 1, 120),
            (true, 0.5, 4, 180),
            (false, 0.0, 1, 15),
            (false, 1.0, 1, 30),
            (false, 1.0, 3, 60),
        ] {
            schedule.done(succeeded, world.now, random, scale);
            assert_eq!(schedule.due(), world.now + Duration::from_secs(secs));
        }
        schedule.by(world.now + Duration::from_secs(99));
        assert_eq!(schedule.due(), world.now + Duration::from_secs(60), "it is due before that");
        schedule.by(world.now);
        assert_eq!(schedule.due(), world.now);
    }
}
