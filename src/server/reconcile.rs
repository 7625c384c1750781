//! From a living server to its rows (`cluster.md` §4.2): its node, the service `consul`, the check serfHealth.

use std::net::IpAddr;

use uuid::Uuid;

use crate::catalog::{Catalog, Check, Command, Map, Node, Register, SERF_HEALTH, Service, Status, Text, fold};

/// A server as the members know it.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: Text,
    pub id: Uuid,
    pub address: IpAddr,
    pub port: u16,
    pub datacenter: Text,
    /// The version that it is compatible with.
    pub version: Text,
}

/// What must be written so that the catalog says what is true of a living server; `None` where it does.
pub fn reconcile(catalog: &Catalog, member: &Member) -> Option<Command> {
    let home = catalog.node(&fold(&member.name));
    let stored = home.map(|home| home.node());
    let node = Node {
        id: Some(member.id),
        name: member.name.clone(),
        address: member.address.to_string().into(),
        datacenter: member.datacenter.clone(),
        // What the agent itself says of its node stays.
        tagged_addresses: stored.and_then(|node| node.tagged_addresses.clone()),
        meta: stored.map_or_else(|| Some(pairs([("consul-version", &member.version)])), |node| node.meta.clone()),
        locality: stored.and_then(|node| node.locality.clone()),
        ..Node::default()
    };
    let (service, check) = (service(member), check(member));
    let is_true = home.is_some_and(|home| {
        let own = home.instance(&service.id).is_some_and(|own| {
            let (created, modified) = (own.service.created, own.service.modified);
            Service { created, modified, ..service.clone() } == *own.service
        });
        let alive = home.checks().iter().any(|own| &*own.id == SERF_HEALTH && own.status == Status::Passing);
        own && alive && home.node().address == node.address && home.node().id == node.id
    });
    let register = Register { node, skip_node_update: false, service: Some(service), checks: vec![check] };
    (!is_true).then(|| Command::Register(Box::new(register)))
}

fn service(member: &Member) -> Service {
    let meta = [
        ("non_voter", "false"),
        ("raft_version", "3"),
        ("read_replica", "false"),
        ("serf_protocol_current", "2"),
        ("serf_protocol_max", "5"),
        ("serf_protocol_min", "1"),
        ("version", &*member.version),
    ];
    Service {
        id: "consul".into(),
        name: "consul".into(),
        port: member.port,
        meta: Some(pairs(meta)),
        ..Service::default()
    }
}

fn check(member: &Member) -> Check {
    Check {
        node: member.name.clone(),
        id: SERF_HEALTH.into(),
        name: "Serf Health Status".into(),
        status: Status::Passing,
        output: "Agent alive and reachable".into(),
        ..Check::default()
    }
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Map<Text> {
    pairs.into_iter().map(|(key, value)| (key, Text::from(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Target;

    fn member() -> Member {
        Member {
            name: "srv1".into(),
            id: Uuid::from_u128(1),
            address: IpAddr::from([10, 1, 0, 1]),
            port: 8300,
            datacenter: "dc1".into(),
            version: "1.16.4".into(),
        }
    }

    fn settle(catalog: &mut Catalog) {
        let command = reconcile(catalog, &member()).expect("something is missing");
        catalog.apply(command).0.unwrap();
        assert_eq!(reconcile(catalog, &member()), None, "a true catalog is left alone");
    }

    #[test]
    fn what_is_removed_or_changed_comes_back() {
        let mut catalog = Catalog::default();
        settle(&mut catalog);
        for target in [Target::Node, Target::Service("consul".into()), Target::Check(SERF_HEALTH.into())] {
            catalog.apply(Command::Deregister { node: "srv1".into(), target }).0.unwrap();
            settle(&mut catalog);
        }
        let stored = Node { meta: Some(pairs([("rack", "r7")])), ..Node::clone(catalog.node("srv1").unwrap().node()) };
        let moved = Node { address: "10.9.9.9".into(), ..stored.clone() };
        catalog.apply(Command::Register(Box::new(Register { node: moved, ..Register::default() }))).0.unwrap();
        settle(&mut catalog);
        let home = catalog.node("srv1").unwrap();
        assert_eq!((home.node().meta.clone(), &*home.node().address), (stored.meta, "10.1.0.1"), "meta stays");
    }
}
