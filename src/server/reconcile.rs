//! What a member should look like in the catalog (`cluster.md` §4.2, `http-api.md` §6.2): a pure comparison of what is with
//! what ought to be. One command at a time, and none where the catalog says what is true.

use crate::{
    catalog::{
        Catalog, Check, Command, Home, Map, Node, Register, SERF_HEALTH, Service, Status, Target, Text, fold,
    },
    gossip,
};

use super::Member;

/// Whether a member that does not answer is believed to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belief {
    Gone,
    /// Not yet: so many vanished at once that it may be this server that does not hear them. `was_well` before that.
    Doubted {
        was_well: bool,
    },
}

/// The service that every server registers itself as.
const CONSUL: &str = "consul";
const ALIVE: &str = "Agent alive and reachable";
const NOT_ALIVE: &str = "Agent not live or unreachable";
/// Ours: the status beside it is that of before.
const UNCONFIRMED: &str = "Unconfirmed: the agent does not answer, as many others do not since the same time; the \
                            status is the last one known, and `lictor operator confirm-failed` says that they are gone";

/// What to write next so that the catalog says of this server what is true; `None` where it does. Nobody else has its name.
pub fn reconcile_own(catalog: &Catalog, own: &Member) -> Option<Command> {
    alive(catalog, own, |_| true)
}

/// As [`reconcile_own`], of another member.
pub fn reconcile(catalog: &Catalog, member: &Member, belief: Belief) -> Option<Command> {
    match (member.status, belief) {
        // Whoever had this name at this address before is no more: the machine was set up anew.
        (gossip::Status::Alive, _) => {
            alive(catalog, member, |former| *former.address == *member.address.to_string())
        }
        (gossip::Status::Failed, Belief::Gone) => failed(own_home(catalog, member)?),
        (gossip::Status::Failed, Belief::Doubted { was_well }) => {
            doubted(own_home(catalog, member)?, was_well)
        }
        // It may still change its mind, or be killed: what follows decides.
        (gossip::Status::Leaving, _) => None,
        (gossip::Status::Left, _) => Some(removed(own_home(catalog, member)?)),
    }
}

/// What to write of a node that gossip does not know, or not any more. Nodes that no agent stands behind are not gossip's to
/// judge.
pub fn unknown(home: &Home, belief: Belief) -> Option<Command> {
    let check = serf_health(home)?;
    match belief {
        Belief::Gone => (check.status != Status::Critical).then(|| told(home, not_alive())),
        Belief::Doubted { was_well } => doubted(home, was_well),
    }
}

/// Removes a node that gossip does not know any more; nothing where no agent stands behind it.
pub fn reap(home: &Home) -> Option<Command> {
    serf_health(home).map(|_| removed(home))
}

/// Whether what is known of an agent says that it is well, so that nobody may take its name.
pub fn is_well(home: &Home) -> bool {
    serf_health(home).is_some_and(|check| check.status != Status::Critical)
}

pub fn serf_health(home: &Home) -> Option<&Check> {
    home.checks().iter().map(|check| &**check).find(|check| check.id.eq_ignore_ascii_case(SERF_HEALTH))
}

/// The member's node, unless its name is another's there.
fn own_home<'a>(catalog: &'a Catalog, member: &Member) -> Option<&'a Home> {
    let home = &**catalog.node(&fold(&member.name))?;
    let is_other = home.node().id.zip(member.id).is_some_and(|(stored, own)| stored != own);
    (!is_other).then_some(home)
}

/// The node's tagged addresses and meta are the agent's own to tell: what stands there is kept. `inherits` says whether the
/// member may take its name from such a node.
fn alive(catalog: &Catalog, member: &Member, inherits: impl Fn(&Node) -> bool) -> Option<Command> {
    let home = catalog.node(&fold(&member.name)).map(|home| &**home);
    if let Some(home) = home
        && home.node().id.zip(member.id).is_some_and(|(stored, own)| stored != own)
        && is_well(home)
        && inherits(home.node())
    {
        return Some(told(home, not_alive()));
    }
    let consul = home.and_then(|home| home.instance(CONSUL)).map(|instance| &*instance.service);
    if let (Some(home), Some(consul), None) = (home, consul, member.port)
        && consul.meta.as_ref().is_some_and(|meta| meta.get("serf_protocol_max").is_some())
    {
        // It was a server once.
        let (node, target) = (home.node().name.clone(), Target::Service(consul.id.clone()));
        return Some(Command::Deregister { node, target });
    }
    let stored = home.map(|home| &**home.node());
    let node = node(member, stored);
    let node_is_right = stored == Some(&node);
    let service = member.port.map(|port| service(member, port, consul));
    let service_is_right = service.is_none() || service.as_ref() == consul;
    let check_is_right = home.and_then(serf_health).is_some_and(is_alive);
    (!node_is_right || !service_is_right || !check_is_right).then(|| {
        Command::Register(Box::new(Register {
            node,
            skip_node_update: node_is_right,
            service,
            checks: if check_is_right { vec![] } else { vec![health(Status::Passing, ALIVE)] },
        }))
    })
}

fn failed(home: &Home) -> Option<Command> {
    let is_told = serf_health(home).is_some_and(|check| check.status == Status::Critical);
    (!is_told).then(|| told(home, not_alive()))
}

fn doubted(home: &Home, was_well: bool) -> Option<Command> {
    let check = serf_health(home)?;
    let is_told = check.status != Status::Critical && &*check.output == UNCONFIRMED;
    (was_well && !is_told).then(|| told(home, health(Status::Passing, UNCONFIRMED)))
}

fn removed(home: &Home) -> Command {
    Command::Deregister { node: home.node().name.clone(), target: Target::Node }
}

/// Says nothing of the node but this check.
fn told(home: &Home, check: Check) -> Command {
    let (node, checks) = (Node::clone(home.node()), vec![check]);
    Command::Register(Box::new(Register { node, skip_node_update: true, service: None, checks }))
}

fn is_alive(check: &Check) -> bool {
    check.status == Status::Passing && &*check.output != UNCONFIRMED
}

fn not_alive() -> Check {
    health(Status::Critical, NOT_ALIVE)
}

fn health(status: Status, output: &str) -> Check {
    Check {
        id: SERF_HEALTH.into(),
        name: "Serf Health Status".into(),
        status,
        output: output.into(),
        ..Check::default()
    }
}

fn node(member: &Member, stored: Option<&Node>) -> Node {
    let known = stored.cloned().unwrap_or_else(|| Node {
        name: member.name.clone(),
        meta: Some(Map::from_iter([("consul-version", member.version.clone())])),
        ..Node::default()
    });
    let address = member.address.to_string().into();
    Node { id: member.id.or(known.id), address, datacenter: member.datacenter.clone(), ..known }
}

fn service(member: &Member, port: u16, stored: Option<&Service>) -> Service {
    let meta = [
        ("non_voter", "false"),
        ("raft_version", "3"),
        ("read_replica", "false"),
        ("serf_protocol_current", "2"),
        ("serf_protocol_max", "5"),
        ("serf_protocol_min", "1"),
        ("version", &member.version),
    ];
    Service {
        id: CONSUL.into(),
        name: CONSUL.into(),
        port,
        meta: Some(meta.into_iter().map(|(key, value)| (key, Text::from(value))).collect()),
        created: stored.map_or(0, |stored| stored.created),
        modified: stored.map_or(0, |stored| stored.modified),
        ..Service::default()
    }
}
