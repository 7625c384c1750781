//! Anti-entropy (`cluster.md` §6.2): what the catalog says of this node, against what this agent registers. The agent
//! is right about everything on its node; where nothing differs nothing is proposed. A comparison, not a ledger: there
//! are no marks of what was sent, so there are none to be wrong.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::local::Local;
use crate::catalog::{Check, Command, Home, Node, Register, SERF_HEALTH, Service, Target, fold};

/// The service that servers register for themselves; an agent leaves it alone.
const SERVERS: &str = "consul";

/// The commands that make the catalog agree: the node first, then its services with their checks, then the rest.
/// `home` is what the catalog holds of this node.
pub fn difference(local: &mut Local, node: &Node, home: Option<&Home>, now: Instant) -> Vec<Command> {
    let mut commands = Vec::new();
    if home.is_none_or(|home| node_differs(node, home.node())) {
        commands.push(register(node, false, None, vec![]));
    }
    adopt_tags(local, home);
    let mut told: Vec<Arc<Check>> = Vec::new();
    for (id, service) in local.services() {
        let there = home.and_then(|home| home.instance(id));
        let same = there.is_some_and(|there| service_is_same(service, &there.service));
        if !same {
            let own =
                checks_to_tell(local, home, now).filter(|check| check.service_id.eq_ignore_ascii_case(id));
            let own: Vec<Arc<Check>> = own.cloned().collect();
            told.extend(own.iter().cloned());
            commands.push(register(node, true, Some(Service::clone(service)), own));
        }
    }
    let rest =
        checks_to_tell(local, home, now).filter(|check| !told.iter().any(|other| Arc::ptr_eq(other, check)));
    let rest: Vec<Arc<Check>> = rest.cloned().collect();
    commands.extend(rest.into_iter().map(|check| register(node, true, None, vec![check])));
    if let Some(home) = home {
        commands.extend(removals(local, node, home));
    }
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

    /// A comparison ended. `random` is from 0 to 1, and spreads agents that started together.
    pub fn done(&mut self, succeeded: bool, now: Instant, random: f64) {
        let base = if succeeded { Self::PERIOD } else { Self::RETRY };
        self.due = now + base + base.mul_f64(random.clamp(0.0, 1.0));
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

fn adopt_tags(local: &mut Local, home: Option<&Home>) {
    for instance in home.into_iter().flat_map(Home::instances) {
        local.adopt_tags(&fold(&instance.service.id), &instance.service.tags);
    }
}

fn checks_to_tell<'a>(
    local: &'a Local,
    home: Option<&'a Home>,
    now: Instant,
) -> impl Iterator<Item = &'a Arc<Check>> {
    local
        .checks()
        .filter(move |(id, own)| {
            let there =
                home.and_then(|home| home.all_checks().find(|there| there.id.eq_ignore_ascii_case(id)));
            let Some(there) = there else { return true };
            let as_told = |output| Check {
                node: there.node.clone(),
                output,
                created: there.created,
                modified: there.modified,
                ..Check::clone(own)
            };
            let waits = local.output_waits(id, now);
            as_told(own.output.clone()) != **there && !(waits && as_told(there.output.clone()) == **there)
        })
        .map(|(_, check)| check)
}

fn removals<'a>(local: &'a Local, node: &'a Node, home: &'a Home) -> impl Iterator<Item = Command> + 'a {
    let services = home.instances().map(|instance| &instance.service);
    let services = services.filter(|service| local.service(&service.id).is_none() && &*service.id != SERVERS);
    let services = services.map(|service| Target::Service(service.id.clone()));
    // A check that goes with its service needs no command of its own.
    let gone_with =
        |check: &&Arc<Check>| !check.service_id.is_empty() && local.service(&check.service_id).is_none();
    let checks = home.all_checks().filter(move |check| {
        !local.has_check(&check.id) && !check.id.eq_ignore_ascii_case(SERF_HEALTH) && !gone_with(check)
    });
    let checks = checks.map(|check| Target::Check(check.id.clone()));
    services.chain(checks).map(|target| Command::Deregister { node: node.name.clone(), target })
}
