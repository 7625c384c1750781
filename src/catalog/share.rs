//! Sharing of what is equal: an instance mostly says what its former self or its neighbour says, and then it points
//! at the same memory. It changes no value, so peers that share differently still agree.

use std::sync::Arc;

use super::{
    map::Map,
    record::{Check, Node, Service, Text},
};

pub(super) fn node(node: &mut Node, model: &Node) {
    text(&mut node.datacenter, &model.datacenter);
    text(&mut node.address, &model.address);
    map(&mut node.meta, &model.meta, text);
    map(&mut node.tagged_addresses, &model.tagged_addresses, text);
}

/// Tagged addresses are mostly the address once more.
pub(super) fn node_within(node: &mut Node) {
    for (_, tagged) in node.tagged_addresses.as_mut().map(Map::pairs_mut).into_iter().flatten() {
        text(tagged, &node.address);
    }
}

pub(super) fn service(service: &mut Service, model: &Service) {
    text(&mut service.id, &model.id);
    text(&mut service.name, &model.name);
    text(&mut service.kind, &model.kind);
    text(&mut service.address, &model.address);
    list(&mut service.tags, &model.tags);
    map(&mut service.tagged_addresses, &model.tagged_addresses, |own, model| {
        text(&mut own.address, &model.address)
    });
    map(&mut service.meta, &model.meta, text);
}

/// A service mostly listens on its node's address, and its id is often its name.
pub(super) fn service_within(service: &mut Service, node: &Node) {
    text(&mut service.id, &service.name);
    text(&mut service.address, &node.address);
    for (_, tagged) in service.tagged_addresses.as_mut().map(Map::pairs_mut).into_iter().flatten() {
        text(&mut tagged.address, &service.address);
    }
}

pub(super) fn check(check: &mut Check, model: &Check) {
    for (own, model) in [
        (&mut check.id, &model.id),
        (&mut check.name, &model.name),
        (&mut check.notes, &model.notes),
        (&mut check.output, &model.output),
        (&mut check.kind, &model.kind),
        (&mut check.interval, &model.interval),
        (&mut check.timeout, &model.timeout),
    ] {
        text(own, model);
    }
}

pub(super) fn text(own: &mut Text, model: &Text) {
    if own == model {
        own.clone_from(model);
    }
}

/// The whole map where it is equal, else its keys and values one by one.
fn map<V: Clone + PartialEq>(own: &mut Option<Map<V>>, model: &Option<Map<V>>, share: impl Fn(&mut V, &V)) {
    if own == model {
        own.clone_from(model);
        return;
    }
    let (Some(own), Some(model)) = (own, model) else { return };
    for ((key, value), (model_key, model_value)) in own.pairs_mut().iter_mut().zip(model.iter()) {
        text(key, model_key);
        share(value, model_value);
    }
}

fn list(own: &mut Arc<[Text]>, model: &Arc<[Text]>) {
    if own == model {
        own.clone_from(model);
    } else {
        for tag in Arc::make_mut(own) {
            model.iter().for_each(|model| text(tag, model));
        }
    }
}
