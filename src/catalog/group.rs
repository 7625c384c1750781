//! A service's instances, joined and in order, in chunks small enough to copy at each change. A chunk has a slot for
//! what `dns` answers from, and one for `http`; the catalog does not know what they hold, and a changed chunk has empty
//! ones.

use std::{
    any::Any,
    cmp::Ordering,
    sync::{Arc, OnceLock},
};

use super::{
    Key,
    record::{Check, Health, Node, Service, Text},
};

/// A chunk is split in two when it outgrows this, and joined with its neighbour when both fit half of it.
const CHUNK_MAX: usize = 512;

/// All instances of one service name.
#[derive(Clone)]
pub struct Group {
    pub(super) key: Key,
    pub(super) name: Text,
    pub(super) index: u64,
    chunks: Vec<Arc<Chunk>>,
}

/// A run of a group's instances; never empty.
pub struct Chunk {
    instances: Vec<Arc<Instance>>,
    dns: Slot,
    http: Slot,
}

/// Something that is kept of a chunk by those who read it.
type Slot = OnceLock<Box<dyn Any + Send + Sync>>;

/// A service on a node, joined with what speaks for its health.
#[derive(Clone, Debug)]
pub struct Instance {
    pub node: Arc<Node>,
    pub node_checks: Arc<[Arc<Check>]>,
    pub service: Arc<Service>,
    /// By id.
    pub checks: Arc<[Arc<Check>]>,
    pub health: Health,
}

impl Group {
    pub(super) fn new(key: Key, name: Text) -> Self {
        Group { key, name, index: 0, chunks: Vec::new() }
    }

    /// Of instances in order.
    pub(super) fn of(key: Key, name: Text, index: u64, instances: Vec<Arc<Instance>>) -> Self {
        let chunks =
            instances.chunks(CHUNK_MAX * 3 / 4).map(|run| Arc::new(Chunk::of(run.to_vec()))).collect();
        Group { key, name, index, chunks }
    }

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

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Puts an instance in its place, over its former self if there is one.
    pub(super) fn put(&mut self, instance: Arc<Instance>) {
        match self.locate(&instance.node.name, &instance.service.id) {
            Ok((chunk, at)) => Chunk::change(&mut self.chunks[chunk])[at] = instance,
            Err(_) if self.chunks.is_empty() => self.chunks.push(Arc::new(Chunk::of(vec![instance]))),
            Err((chunk, at)) => {
                Chunk::change(&mut self.chunks[chunk]).insert(at, instance);
                self.split(chunk);
            }
        }
    }

    pub(super) fn remove(&mut self, node: &str, service_id: &str) {
        if let Ok((chunk, at)) = self.locate(node, service_id) {
            Chunk::change(&mut self.chunks[chunk]).remove(at);
            self.join(chunk);
        }
    }

    /// An instance that stands, or would stand, beside this place: the likeliest to say the same things.
    pub(super) fn neighbour(&self, node: &str, service_id: &str) -> Option<&Arc<Instance>> {
        let (chunk, at) = self.locate(node, service_id).unwrap_or_else(|place| place);
        let instances = &self.chunks.get(chunk)?.instances;
        instances.get(at.saturating_sub(1)).or(instances.first())
    }

    /// Where an instance is, or else where it belongs: chunk, and place in it.
    fn locate(&self, node: &str, service_id: &str) -> Result<(usize, usize), (usize, usize)> {
        let order = |instance: &Arc<Instance>| {
            fold_cmp(&instance.node.name, node).then_with(|| fold_cmp(&instance.service.id, service_id))
        };
        let after = self.chunks.partition_point(|chunk| order(&chunk.instances[0]).is_le());
        let chunk = after.saturating_sub(1);
        let Some(found) = self.chunks.get(chunk) else { return Err((0, 0)) };
        match found.instances.binary_search_by(order) {
            Ok(at) => Ok((chunk, at)),
            Err(at) => Err((chunk, at)),
        }
    }

    fn split(&mut self, chunk: usize) {
        if self.chunks[chunk].instances.len() > CHUNK_MAX {
            let upper = Chunk::change(&mut self.chunks[chunk]).split_off(CHUNK_MAX / 2);
            self.chunks.insert(chunk + 1, Arc::new(Chunk::of(upper)));
        }
    }

    fn join(&mut self, chunk: usize) {
        if self.chunks[chunk].instances.is_empty() {
            self.chunks.remove(chunk);
            return;
        }
        let length = |at: usize| self.chunks.get(at).map_or(CHUNK_MAX, |chunk| chunk.instances.len());
        for low in [chunk.wrapping_sub(1), chunk] {
            if length(low) + length(low.wrapping_add(1)) <= CHUNK_MAX / 2 {
                let upper = self.chunks.remove(low + 1);
                Chunk::change(&mut self.chunks[low]).extend(upper.instances.iter().cloned());
                return;
            }
        }
    }
}

impl Chunk {
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// What `dns` keeps of this chunk: filled by whoever asks first, gone when the chunk changes.
    pub fn dns_slot(&self) -> &OnceLock<Box<dyn Any + Send + Sync>> {
        &self.dns
    }

    /// What `http` keeps of it, likewise.
    pub fn http_slot(&self) -> &OnceLock<Box<dyn Any + Send + Sync>> {
        &self.http
    }

    fn of(instances: Vec<Arc<Instance>>) -> Self {
        Chunk { instances, dns: Slot::new(), http: Slot::new() }
    }

    /// The chunk's instances, to be changed: in a copy where a published catalog still holds this one, and without
    /// what was kept of them.
    fn change(chunk: &mut Arc<Chunk>) -> &mut Vec<Arc<Instance>> {
        let chunk = Arc::make_mut(chunk);
        chunk.dns.take();
        chunk.http.take();
        &mut chunk.instances
    }
}

impl Clone for Chunk {
    /// The copy's slots are empty: it is made to be changed.
    fn clone(&self) -> Self {
        Chunk::of(self.instances.clone())
    }
}

impl Instance {
    pub(super) fn new(
        node: Arc<Node>,
        node_checks: Arc<[Arc<Check>]>,
        service: Arc<Service>,
        checks: Arc<[Arc<Check>]>,
    ) -> Self {
        let speaking = node_checks.iter().chain(checks.iter());
        let health = speaking.map(|check| check.status.health()).max().unwrap_or(Health::Passing);
        Instance { node, node_checks, service, checks, health }
    }
}

/// Compares as lower-cased.
pub(super) fn fold_cmp(a: &str, b: &str) -> Ordering {
    a.bytes().map(|byte| byte.to_ascii_lowercase()).cmp(b.bytes().map(|byte| byte.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(node: &str) -> Arc<Instance> {
        let node = Node { name: node.into(), ..Node::default() };
        let service = Service { id: "s".into(), name: "s".into(), ..Service::default() };
        Arc::new(Instance::new(Arc::new(node), Arc::new([]), Arc::new(service), Arc::new([])))
    }

    /// Chunks stay in order, none is empty, and none outgrows its bound, whatever comes and goes.
    #[test]
    fn chunks_split_and_join_in_order() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut group = Group::new("s".into(), "s".into());
        let mut model = std::collections::BTreeSet::new();
        for step in 0..20_000 {
            let grow = step < 8_000 || (12_000..14_000).contains(&step);
            let name = format!("n{:05}", random.u32(..3_000));
            if grow {
                group.put(instance(&name));
                model.insert(name);
            } else {
                let name = model.iter().nth(random.usize(..model.len().max(1))).cloned().unwrap_or(name);
                group.remove(&name, "S");
                model.remove(&name);
            }
            if step % 500 == 0 || model.len() < 300 {
                let names: Vec<&str> = group.instances().map(|instance| &*instance.node.name).collect();
                assert_eq!(names, model.iter().map(|name| &**name).collect::<Vec<_>>());
                assert!(group.chunks.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.instances.len())));
                let pairs = group.chunks.windows(2);
                assert!(
                    pairs.filter(|pair| pair.iter().map(|c| c.instances.len()).sum::<usize>() <= 256).count()
                        <= 1
                );
            }
        }
        assert!(model.is_empty() == group.is_empty());
    }

    #[test]
    fn a_changed_chunk_forgets_what_was_kept_of_it() {
        let mut group = Group::new("s".into(), "s".into());
        group.put(instance("a"));
        let slots = |group: &Group| {
            let chunk = &group.chunks()[0];
            [chunk.dns_slot().get().is_some(), chunk.http_slot().get().is_some()]
        };
        let fill = |group: &Group| {
            group.chunks()[0].dns_slot().get_or_init(|| Box::new(1));
            group.chunks()[0].http_slot().get_or_init(|| Box::new(2));
        };
        fill(&group);
        let published = group.clone();
        group.put(instance("b"));
        assert_eq!(slots(&group), [false; 2]);
        assert_eq!(slots(&published), [true; 2], "the published chunk keeps its own");
        fill(&group);
        group.put(instance("b"));
        assert_eq!(slots(&group), [false; 2], "changed in place");
    }
}
