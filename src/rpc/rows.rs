//! What the catalog holds of one node, as a value that travels, and its digest: whoever holds the same has the same digest,
//! whatever indexes it has there.

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::message::NodeTold;
use crate::catalog::{Check, Home, Node, Service};

/// All that is there of a node; nothing, where there is no such node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    pub node: Option<Node>,
    /// Of the node itself.
    pub checks: Vec<Check>,
    pub services: Vec<Placed>,
}

/// A service with the checks that speak for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placed {
    pub service: Service,
    pub checks: Vec<Check>,
}

impl Rows {
    /// Equal where all is equal but the indexes. Empty for no node.
    pub fn digest(home: Option<&Home>) -> Bytes {
        let Some(home) = home else { return Bytes::new() };
        let mut digest = Digest::of(home.node());
        home.checks().iter().for_each(|check| digest.check(check));
        for instance in home.instances() {
            digest.service(&instance.service);
            instance.checks.iter().for_each(|check| digest.check(check));
        }
        digest.end()
    }

    /// That of where they came from: they stand in its order.
    pub fn own_digest(&self) -> Bytes {
        let Some(node) = &self.node else { return Bytes::new() };
        let mut digest = Digest::of(node);
        self.checks.iter().for_each(|check| digest.check(check));
        for placed in &self.services {
            digest.service(&placed.service);
            placed.checks.iter().for_each(|check| digest.check(check));
        }
        digest.end()
    }

    pub fn of(home: Option<&Home>) -> Rows {
        let mut rows = Rows::default();
        Rows::parts(home).into_iter().for_each(|part| part.add_to(&mut rows));
        rows
    }

    /// In parts that are small enough; there is one at least.
    pub(super) fn parts(home: Option<&Home>) -> Vec<NodeTold> {
        let (mut parts, mut part, mut bytes) = (Vec::new(), NodeTold::default(), 0);
        let mut room_for = |more: usize, part: &mut NodeTold| {
            if bytes > 0 && bytes + more > PART_BYTES {
                parts.push(std::mem::take(part));
                bytes = 0;
            }
            bytes += more;
        };
        let Some(home) = home else { return vec![part] };
        room_for(bytes_of(&**home.node()), &mut part);
        part.node = Some(Node::clone(home.node()));
        for check in home.checks().iter() {
            room_for(bytes_of(&**check), &mut part);
            part.checks.push(Check::clone(check));
        }
        for instance in home.instances() {
            let placed = || Placed { service: Service::clone(&instance.service), checks: Vec::new() };
            let service_bytes = bytes_of(&*instance.service);
            room_for(service_bytes, &mut part);
            part.services.push(placed());
            for check in instance.checks.iter() {
                room_for(bytes_of(&**check), &mut part);
                // Where a part begins with a check, its service is there again.
                if part.services.is_empty() {
                    room_for(service_bytes, &mut part);
                    part.services.push(placed());
                }
                part.services.last_mut().into_iter().for_each(|last| last.checks.push(Check::clone(check)));
            }
        }
        parts.push(part);
        parts
    }
}

/// About as much as one message is to hold, a quarter of what is taken: a record that is larger goes alone.
const PART_BYTES: usize = 1 << 20;

/// On its way. What cannot be encoded is told when it is sent.
fn bytes_of(record: &impl Serialize) -> usize {
    rmp_serde::to_vec_named(record).map_or(0, |bytes| bytes.len())
}

/// Of records in their order, without their indexes.
struct Digest(Context);

impl Digest {
    fn of(node: &Node) -> Digest {
        let mut digest = Digest(Context::new(&SHA256));
        digest.add(&Node { created: 0, modified: 0, ..node.clone() });
        digest
    }

    fn service(&mut self, service: &Service) {
        self.add(&Service { created: 0, modified: 0, ..service.clone() });
    }

    fn check(&mut self, check: &Check) {
        self.add(&Check { created: 0, modified: 0, ..check.clone() });
    }

    fn add(&mut self, record: &impl Serialize) {
        match rmp_serde::to_vec_named(record) {
            Ok(bytes) => {
                self.0.update(&(bytes.len() as u64).to_le_bytes());
                self.0.update(&bytes);
            }
            // Never equal, then: it is fetched.
            Err(_) => self.0.update(&fastrand::u64(..).to_le_bytes()),
        }
    }

    fn end(self) -> Bytes {
        Bytes::copy_from_slice(self.0.finish().as_ref())
    }
}
