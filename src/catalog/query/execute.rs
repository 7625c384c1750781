//! What a query finds: the instances that it wants, in the order in which they are to be tried (`cluster.md` §5.5,
//! `dns.md` §20). A pure function over the catalog; the dice are given to it.

use std::{net::IpAddr, sync::Arc};

use super::{Query, ServiceQuery};
use crate::catalog::{Catalog, Health, Instance, Map, Text, fold};

/// On whose behalf a query is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source<'a> {
    /// The node whose agent answers: `_agent`.
    pub agent: &'a str,
    /// Of whoever asks: `_ip`.
    pub ip: Option<IpAddr>,
    /// What to be near to, instead of what the query says; empty for that.
    pub near: &'a str,
}

/// What a query found.
pub struct Executed {
    /// In the order in which they are to be tried.
    pub instances: Vec<Arc<Instance>>,
    /// Whether that order says what is near, or is a draw.
    pub is_by_distance: bool,
    /// Whether others would have been wanted, if they were healthy.
    pub has_others: bool,
}

/// One that is asked for by name comes first only if it is among the first so many.
const FRONT: usize = 10;

impl Catalog {
    /// Here only: there is no other datacenter to ask. All that are wanted; a limit is the caller's.
    pub fn execute(&self, query: &Query, source: &Source, random: &mut fastrand::Rng) -> Executed {
        let wanted = &query.service;
        let group = self.service(&fold(&wanted.service));
        let all = group.into_iter().flat_map(|group| group.instances());
        let (mut instances, mut has_others) = (Vec::new(), false);
        for instance in all.filter(|instance| wanted.suits(instance)) {
            match wanted.is_healthy(instance) {
                true => instances.push(instance.clone()),
                false => has_others = true,
            }
        }
        random.shuffle(&mut instances);
        let near = self.near(wanted, source);
        if let Some(near) = &near {
            self.sort_by_distance(near, &mut instances, |instance| &instance.node.name);
            let is_it = |instance: &Arc<Instance>| instance.node.name.eq_ignore_ascii_case(near);
            if let Some(at) = instances.iter().take(FRONT).position(is_it) {
                instances[..=at].rotate_right(1);
            }
        }
        Executed { instances, is_by_distance: near.is_some(), has_others }
    }

    /// The node that instances should be near to.
    fn near(&self, wanted: &ServiceQuery, source: &Source) -> Option<String> {
        let near = if source.near.is_empty() { &*wanted.near } else { source.near };
        match near {
            "" => None,
            "_agent" => Some(source.agent.into()),
            "_ip" => self.node_at(source.ip?).map(String::from),
            node => Some(node.into()),
        }
    }

    /// The node that lives at an address.
    pub fn node_at(&self, address: IpAddr) -> Option<&str> {
        let mut residents = self.residents(address, address);
        residents.find(|(_, service)| service.is_none()).map(|(node, _)| &*node.name)
    }
}

impl ServiceQuery {
    /// Whatever its health.
    fn suits(&self, instance: &Instance) -> bool {
        // Nothing here takes part in a mesh, or comes from a peer.
        let is_of_here = !self.connect && self.peer.is_empty();
        is_of_here
            && self.tags.iter().flat_map(|tags| tags.iter()).all(|tag| has_or_not(instance, tag))
            && has_all(instance.node.meta.as_ref(), self.node_meta.as_ref())
            && has_all(instance.service.meta.as_ref(), self.service_meta.as_ref())
    }

    fn is_healthy(&self, instance: &Instance) -> bool {
        self.health(instance) <= if self.only_passing { Health::Passing } else { Health::Unknown }
    }

    /// Without the checks that are not to be looked at.
    fn health(&self, instance: &Instance) -> Health {
        let Some(ignored) = &self.ignore_checks else { return instance.health };
        let checks = instance.node_checks.iter().chain(instance.checks.iter());
        let counted = checks.filter(|check| !ignored.contains(&check.id));
        counted.map(|check| check.status.health()).max().unwrap_or(Health::Passing)
    }
}

/// Whether an instance has a tag, or has not, where it stands behind a `!`.
fn has_or_not(instance: &Instance, tag: &Text) -> bool {
    let has = |tag: &str| instance.service.tags.iter().any(|own| own.eq_ignore_ascii_case(tag));
    match tag.strip_prefix('!') {
        Some(unwanted) => !has(unwanted),
        None => has(tag),
    }
}

fn has_all(own: Option<&Map<Text>>, wanted: Option<&Map<Text>>) -> bool {
    let mut wanted = wanted.into_iter().flat_map(Map::iter);
    wanted.all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
}
