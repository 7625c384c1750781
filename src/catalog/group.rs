//! A service's instances, joined and in order, in chunks small enough to copy at each change. A chunk has a slot for
//! each room that answers from it; the catalog does not know what they hold, and a changed chunk has empty ones.

use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

use super::{
    Key,
    record::{Check, Health, Node, Service, Text},
};

/// A chunk is split when it outgrows this.
pub(super) const CHUNK_MAX: usize = 512;

/// All instances of one service name.
#[derive(Clone)]
pub struct Group {
    pub(super) key: Key,
    pub(super) name: Text,
    pub(super) index: u64,
    pub(super) chunks: Vec<Arc<Chunk>>,
}

/// A run of a group's instances.
#[derive(Default)]
pub struct Chunk {
    pub(super) instances: Vec<Arc<Instance>>,
    dns: Slot,
}

type Slot = OnceLock<Box<dyn Any + Send + Sync>>;

/// A service on a node, joined with what speaks for its health.
#[derive(Clone, Debug)]
pub struct Instance {
    pub node: Arc<Node>,
    pub node_checks: Arc<[Arc<Check>]>,
    pub service: Arc<Service>,
    pub checks: Arc<[Arc<Check>]>,
    pub health: Health,
}

impl Group {
    /// In the spelling of the first registration.
    pub fn name(&self) -> &Text {
        &self.name
    }

    /// Lower-cased.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Of the newest change to an instance, its checks or its node.
    pub fn index(&self) -> u64 {
        self.index
    }

    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// In order of node name, then service id, both lower-cased.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.chunks.iter().flat_map(|chunk| chunk.instances.iter())
    }
}

impl Chunk {
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// What `dns` keeps of this chunk; filled by whoever asks first, and gone when the chunk changes.
    pub fn dns_slot(&self) -> &OnceLock<Box<dyn Any + Send + Sync>> {
        &self.dns
    }
}

impl Clone for Chunk {
    /// The copy's slots are empty: it is made to be changed.
    fn clone(&self) -> Self {
        Chunk { instances: self.instances.clone(), dns: Slot::new() }
    }
}
