//! Which of an instance's addresses an answer takes (`dns.md` §6, §7), and where an SRV record points.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::wire::name_of;
use crate::catalog::{Health, Instance, Node, Text, Weights};

/// An address as it is registered: a number, or the name of another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Ip(IpAddr),
    /// In wire form, without the root.
    Host(Vec<u8>),
    /// A name that no packet can hold.
    Unpackable,
}

/// What an instance, or a node, answers to those who ask for addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// Set where the address, for one family at least, is a host name instead.
    pub host: Option<Vec<u8>>,
}

/// Where an SRV record of an instance points.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SrvTarget {
    Node,
    Address(IpAddr),
    Host(Vec<u8>),
}

/// The choices by family: the tagged address of that family, else the plain one; for either, IPv6 first.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
    Any,
}

/// `asked` is the question's name in wire form without the root, in any spelling: a service that points at itself is on its
/// node (`dns.md` §7).
pub fn of_instance(instance: &Instance, asked: &[u8]) -> Addresses {
    let mut found = Addresses::default();
    for family in [Family::V4, Family::V6] {
        let own = service_target(instance, family);
        let target = match own {
            Some(Target::Host(host)) if host.eq_ignore_ascii_case(asked) && is_ip(&instance.node) => {
                node_target(&instance.node, family)
            }
            None => node_target(&instance.node, family),
            own => own,
        };
        found.add(target, family);
    }
    found
}

pub fn of_node(node: &Node) -> Addresses {
    let mut found = Addresses::default();
    for family in [Family::V4, Family::V6] {
        found.add(node_target(node, family), family);
    }
    found
}

/// The one address of an instance that has only one, and whether it is its node's: what most instances are, at the
/// price of one reading.
pub fn only_ip(instance: &Instance) -> Option<(IpAddr, bool)> {
    let (service, node) = (&instance.service, &instance.node);
    let tags = ["lan_ipv4", "lan_ipv6"];
    let tagged = |tag| Some(&service.tagged_addresses.as_ref()?.get(tag)?.address);
    if tags.into_iter().filter_map(tagged).any(|tagged| *tagged != service.address) {
        return None;
    }
    if !service.address.is_empty() {
        return service.address.parse().ok().map(|ip: IpAddr| (ip.to_canonical(), false));
    }
    let tagged = |tag| node.tagged_addresses.as_ref()?.get(tag);
    if tags.into_iter().filter_map(tagged).any(|tagged| *tagged != node.address) {
        return None;
    }
    node.address.parse().ok().map(|ip: IpAddr| (ip.to_canonical(), true))
}

/// `None` where the instance has no address, or one that no packet can hold.
pub fn srv_target(instance: &Instance, asked: &[u8]) -> Option<SrvTarget> {
    let node = || name_of(&instance.node.name).map(|_| SrvTarget::Node);
    match service_target(instance, Family::Any) {
        None => match node_target(&instance.node, Family::Any)? {
            Target::Ip(ip) if is_of_name(&instance.node, ip) => node(),
            Target::Ip(ip) => Some(SrvTarget::Address(ip)),
            Target::Host(host) => Some(SrvTarget::Host(host)),
            Target::Unpackable => None,
        },
        Some(Target::Ip(ip)) => Some(SrvTarget::Address(ip)),
        Some(Target::Host(host)) if host.eq_ignore_ascii_case(asked) && is_ip(&instance.node) => node(),
        Some(Target::Host(host)) => Some(SrvTarget::Host(host)),
        Some(Target::Unpackable) => None,
    }
}

/// Whether a node's chosen address goes by the node's name: its plain one does, and both of a dual-stack node.
fn is_of_name(node: &Node, chosen: IpAddr) -> bool {
    let found = of_node(node);
    target(&node.address) == Some(Target::Ip(chosen)) || found.v4.is_some() && found.v6.is_some()
}

/// The SRV weight of an instance by its health; what is no weight counts as 1 (`dns.md` §10).
pub fn weight(weights: Weights, health: Health) -> u16 {
    let weight = match health {
        Health::Passing => weights.passing,
        Health::Warning => weights.warning,
        Health::Unknown => 1,
        Health::Critical => 0,
    };
    u16::try_from(weight).unwrap_or(1)
}

fn is_ip(node: &Node) -> bool {
    matches!(node_target(node, Family::Any), Some(Target::Ip(_)))
}

fn service_target(instance: &Instance, family: Family) -> Option<Target> {
    let service = &instance.service;
    let tagged = |tag: &str| service.tagged_addresses.as_ref()?.get(tag).map(|tagged| &tagged.address);
    target(choose(family, tagged, &service.address))
}

fn node_target(node: &Node, family: Family) -> Option<Target> {
    let tagged = |tag: &str| node.tagged_addresses.as_ref()?.get(tag);
    target(choose(family, tagged, &node.address))
}

fn choose<'a>(family: Family, tagged: impl Fn(&str) -> Option<&'a Text>, plain: &'a Text) -> &'a str {
    let v4 = || tagged("lan_ipv4").filter(|address| !address.is_empty());
    let v6 = || tagged("lan_ipv6").filter(|address| !address.is_empty());
    match family {
        Family::V4 => v4(),
        Family::V6 => v6(),
        Family::Any => v6().or_else(v4),
    }
    .unwrap_or(plain)
}

/// `None` for an empty address.
fn target(text: &str) -> Option<Target> {
    if text.is_empty() {
        return None;
    }
    Some(match text.parse::<IpAddr>() {
        Ok(ip) => Target::Ip(ip.to_canonical()),
        Err(_) => name_of(text).map_or(Target::Unpackable, Target::Host),
    })
}

impl Addresses {
    fn add(&mut self, target: Option<Target>, family: Family) {
        match (target, family) {
            (Some(Target::Ip(IpAddr::V4(ip))), Family::V4 | Family::Any) => self.v4 = Some(ip),
            (Some(Target::Ip(IpAddr::V6(ip))), Family::V6 | Family::Any) => self.v6 = Some(ip),
            (Some(Target::Host(host)), _) => self.host = Some(host),
            _ => {}
        }
    }
}
