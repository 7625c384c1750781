//! Who lives at an address: nodes by their plain address, services by one that is not their node's, both read as
//! numbers, so that every spelling of an address is the same one. What is no number lives nowhere.

use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use super::{
    Catalog,
    group::{Instance, fold_cmp},
    record::{Node, Service},
};

/// A node, or a service on it, at an address. In order of the address; nodes come before services, then by node name
/// and service id, lower-cased.
#[derive(Clone)]
pub struct Resident {
    /// Of an IPv4 address the mapped one.
    address: Ipv6Addr,
    /// Nobody in the bound of a search, which comes before everyone at its address.
    who: Option<(Arc<Node>, Option<Arc<Service>>)>,
}

impl Catalog {
    /// Those between two addresses, both included, in order.
    pub fn residents(&self, low: IpAddr, high: IpAddr) -> impl Iterator<Item = (&Node, Option<&Service>)> {
        let high = mapped(high);
        let range = self.residents.range(Resident { address: mapped(low), who: None }..);
        range
            .take_while(move |resident| resident.address <= high)
            .filter_map(|resident| resident.who.as_ref())
            .map(|(node, service)| (&**node, service.as_deref()))
    }
}

impl Resident {
    pub(super) fn node(node: &Arc<Node>) -> Option<Self> {
        Some(Resident { address: read(&node.address)?, who: Some((node.clone(), None)) })
    }

    /// `None` also where a service lives with its node, whether it says so or says nothing: most do, and the node comes
    /// before them.
    pub(super) fn service(instance: &Instance) -> Option<Self> {
        let Instance { node, service, .. } = instance;
        if service.address == node.address {
            return None;
        }
        let address = read(&service.address).filter(|own| read(&node.address) != Some(*own))?;
        Some(Resident { address, who: Some((node.clone(), Some(service.clone()))) })
    }

    /// Whether both are the same rows at the same address.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let rows = |resident: &Resident| {
            let (node, service) = resident.who.as_ref()?;
            Some((Arc::as_ptr(node), service.as_ref().map(Arc::as_ptr)))
        };
        self.address == other.address && rows(self) == rows(other)
    }
}

impl Ord for Resident {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_service = |a: &Option<Arc<Service>>, b: &Option<Arc<Service>>| match (a, b) {
            (Some(a), Some(b)) => fold_cmp(&a.id, &b.id),
            _ => Ordering::Equal,
        };
        self.address.cmp(&other.address).then_with(|| match (&self.who, &other.who) {
            (Some((node, service)), Some((other_node, other_service))) => (service.is_some())
                .cmp(&other_service.is_some())
                .then_with(|| fold_cmp(&node.name, &other_node.name))
                .then_with(|| by_service(service, other_service)),
            (who, other_who) => who.is_some().cmp(&other_who.is_some()),
        })
    }
}

impl PartialOrd for Resident {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Resident {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Resident {}

fn read(text: &str) -> Option<Ipv6Addr> {
    text.parse().ok().map(mapped)
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
