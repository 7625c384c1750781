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
    map(&mut node.meta, &model.meta);
    map(&mut node.tagged_addresses, &model.tagged_addresses);
}

pub(super) fn service(service: &mut Service, model: &Service) {
    text(&mut service.id, &model.id);
    text(&mut service.name, &model.name);
    text(&mut service.kind, &model.kind);
    text(&mut service.address, &model.address);
    list(&mut service.tags, &model.tags);
    map(&mut service.tagged_addresses, &model.tagged_addresses);
    map(&mut service.meta, &model.meta);
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

/// An id that equals the name, a key, or another field is one text.
pub(super) fn text(own: &mut Text, model: &Text) {
    if own == model {
        *own = model.clone();
    }
}

fn map<V: PartialEq + Clone>(own: &mut Option<Map<V>>, model: &Option<Map<V>>) {
    if own == model {
        own.clone_from(model);
    }
}

fn list(own: &mut Arc<[Text]>, model: &Arc<[Text]>) {
    if own == model {
        own.clone_from(model);
    }
}
