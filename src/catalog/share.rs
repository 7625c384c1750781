//! Sharing of what is equal: an instance mostly says what its former self or its neighbour says, and the same few
//! words come back everywhere; then it points at the same memory. It changes no value, so peers that share
//! differently still agree.

use std::sync::Arc;

use super::{
    map::Map,
    record::{Check, Node, Service, Text},
};

/// Words seen of late: keys, tags, values of metas. One that loses its place to another is only kept twice from then on.
#[derive(Default)]
pub(super) struct Words {
    slots: Vec<Text>,
    hasher: ahash::RandomState,
}

const WORDS: usize = 4096;
/// What is longer is rarely said twice.
const WORD_BYTES_MAX: usize = 64;

impl Clone for Words {
    /// None: the copy of a catalog is there to be read.
    fn clone(&self) -> Self {
        Words::default()
    }
}

impl Words {
    /// The first model that says the same is the one that is shared; so it is below.
    pub fn node(&mut self, node: &mut Node, models: &[&Node]) {
        self.word(&mut node.datacenter);
        alike(&mut node.address, models.iter().map(|model| &model.address));
        if !alike(&mut node.meta, models.iter().map(|model| &model.meta)) {
            self.map(&mut node.meta, Words::word);
        }
        if !alike(&mut node.tagged_addresses, models.iter().map(|model| &model.tagged_addresses)) {
            // Tagged addresses are mostly the address once more.
            self.map(&mut node.tagged_addresses, |_, tagged| {
                alike(tagged, [&node.address]);
            });
        }
    }

    pub fn service(&mut self, service: &mut Service, node: &Node, models: &[&Service]) {
        self.word(&mut service.kind);
        alike(&mut service.name, models.iter().map(|model| &model.name));
        alike(&mut service.id, models.iter().map(|model| &model.id).chain([&service.name]));
        alike(
            &mut service.address,
            [&node.address].into_iter().chain(models.iter().map(|model| &model.address)),
        );
        if !alike(&mut service.tags, models.iter().map(|model| &model.tags)) {
            Arc::make_mut(&mut service.tags).iter_mut().for_each(|tag| self.word(tag));
        }
        if !alike(&mut service.meta, models.iter().map(|model| &model.meta)) {
            self.map(&mut service.meta, Words::word);
        }
        if !alike(&mut service.tagged_addresses, models.iter().map(|model| &model.tagged_addresses)) {
            self.map(&mut service.tagged_addresses, |_, tagged| {
                alike(&mut tagged.address, [&service.address]);
            });
        }
    }

    pub fn check(&mut self, check: &mut Check, models: &[&Check]) {
        for word in [&mut check.notes, &mut check.kind, &mut check.interval, &mut check.timeout] {
            self.word(word);
        }
        alike(&mut check.id, models.iter().map(|model| &model.id).chain([&check.service_id]));
        alike(&mut check.name, models.iter().map(|model| &model.name));
        alike(&mut check.output, models.iter().map(|model| &model.output));
    }

    fn map<V: Clone>(&mut self, map: &mut Option<Map<V>>, mut value: impl FnMut(&mut Self, &mut V)) {
        for (key, own) in map.as_mut().map(Map::pairs_mut).into_iter().flatten() {
            self.word(key);
            value(self, own);
        }
    }

    fn word(&mut self, own: &mut Text) {
        if own.len() > WORD_BYTES_MAX {
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize_with(WORDS, Text::default);
        }
        let slot = &mut self.slots[self.hasher.hash_one(&**own) as usize % WORDS];
        if !alike(own, [&*slot]) {
            slot.clone_from(own);
        }
    }
}

/// Points at the first model that says the same; tells whether there is one.
pub(super) fn alike<'a, T: Clone + PartialEq + 'a>(
    own: &mut T,
    models: impl IntoIterator<Item = &'a T>,
) -> bool {
    let model = models.into_iter().find(|model| *model == own);
    model.map(|model| own.clone_from(model)).is_some()
}
