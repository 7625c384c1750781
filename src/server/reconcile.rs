//! What a member that is alive should look like in the catalog (`cluster.md` §4.2, `http-api.md` §6.2): a pure
//! comparison of what is with what ought to be.

use std::net::IpAddr;

use uuid::Uuid;

use crate::catalog::{
    Catalog, Check, Command, Map, Node, Register, SERF_HEALTH, Service, Status, Text, fold,
};

/// A server that is alive, as members know it.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: Text,
    pub id: Uuid,
    pub address: IpAddr,
    pub datacenter: Text,
    /// Where it answers other servers.
    pub port: u16,
    /// That it is compatible with: `1.16.4`.
    pub version: Text,
}

/// The service that every server registers itself as.
const CONSUL: &str = "consul";
const ALIVE: &str = "Agent alive and reachable";
const NOT_ALIVE: &str = "Agent not live or unreachable";

/// What to write next so that the catalog says of a living server what is true; `None` where it does. The node's tagged
/// addresses and meta are the agent's own to tell: what stands there is kept.
pub fn reconcile(catalog: &Catalog, member: &Member) -> Option<Command> {
    let home = catalog.node(&fold(&member.name));
    if let Some(other) = home.map(|home| home.node()).filter(|node| node.id.is_some_and(|id| id != member.id))
        && home.is_some_and(|home| home.all_checks().any(|check| holds_name(check)))
    {
        // It had this name before, as in an archive of a server that is no more: nobody else has it now.
        let (node, checks) = (Node::clone(other), vec![not_alive()]);
        return Some(Command::Register(Box::new(Register {
            node,
            skip_node_update: true,
            service: None,
            checks,
        })));
    }
    let stored = home.map(|home| &**home.node());
    let node = member.node(stored);
    let node_is_right = stored == Some(&node);
    let stored = home.and_then(|home| home.instance(CONSUL)).map(|instance| &*instance.service);
    let service = member.service(stored);
    let service_is_right = stored == Some(&service);
    let alive = home.is_some_and(|home| home.checks().iter().any(|check| is_alive(check)));
    (!node_is_right || !service_is_right || !alive).then(|| {
        Command::Register(Box::new(Register {
            node,
            skip_node_update: node_is_right,
            service: Some(service),
            checks: if alive { vec![] } else { vec![serf_health()] },
        }))
    })
}

fn not_alive() -> Check {
    Check { status: Status::Critical, output: NOT_ALIVE.into(), ..serf_health() }
}

fn is_alive(check: &Check) -> bool {
    check.id.eq_ignore_ascii_case(SERF_HEALTH) && check.status == Status::Passing
}

/// Whatever is not critical keeps a node its name.
fn holds_name(check: &Check) -> bool {
    check.id.eq_ignore_ascii_case(SERF_HEALTH) && check.status != Status::Critical
}

fn serf_health() -> Check {
    Check {
        id: SERF_HEALTH.into(),
        name: "Serf Health Status".into(),
        status: Status::Passing,
        output: ALIVE.into(),
        ..Check::default()
    }
}

impl Member {
    fn node(&self, stored: Option<&Node>) -> Node {
        let known = stored.cloned().unwrap_or_else(|| Node {
            name: self.name.clone(),
            meta: Some(Map::from_iter([("consul-version", self.version.clone())])),
            ..Node::default()
        });
        let (id, address) = (Some(self.id), self.address.to_string().into());
        Node { id, address, datacenter: self.datacenter.clone(), ..known }
    }

    fn service(&self, stored: Option<&Service>) -> Service {
        let meta = [
            ("non_voter", "false"),
            ("raft_version", "3"),
            ("read_replica", "false"),
            ("serf_protocol_current", "2"),
            ("serf_protocol_max", "5"),
            ("serf_protocol_min", "1"),
            ("version", &self.version),
        ];
        Service {
            id: CONSUL.into(),
            name: CONSUL.into(),
            port: self.port,
            meta: Some(meta.into_iter().map(|(key, value)| (key, Text::from(value))).collect()),
            created: stored.map_or(0, |stored| stored.created),
            modified: stored.map_or(0, |stored| stored.modified),
            ..Service::default()
        }
    }
}
