//! `/v1/catalog`: nodes, services and what was registered of them (`http-api.md` §9.1).

use std::{collections::BTreeSet, sync::Arc};

use super::register;
use crate::{
    catalog::{Group, Home, Instance, Text, fold},
    http::{
        agent::Pending,
        call::Call,
        encode::{self, Json},
        filter::{CatalogService, NodeRecord, ServiceRecord},
        list::Form,
        read::{Scope, find_node},
        reply::{Outcome, Reply},
        route::{Refuses, Route, Takes},
    },
};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/catalog/register",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(write(call, register::registration)),
    },
    Route {
        path: "/v1/catalog/deregister",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(write(call, register::deregistration)),
    },
    Route {
        path: "/v1/catalog/datacenters",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(datacenters(call)),
    },
    Route {
        path: "/v1/catalog/nodes",
        methods: &["GET"],
        refuses: Refuses::Partitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(nodes(call)),
    },
    Route {
        path: "/v1/catalog/services",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(services(call)),
    },
    Route {
        path: "/v1/catalog/service/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: service,
    },
    Route {
        path: "/v1/catalog/connect/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(connect(call)),
    },
    Route {
        path: "/v1/catalog/gateway-services/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(gateway_services(call)),
    },
    Route {
        path: "/v1/catalog/node/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(node(call)),
    },
    Route {
        path: "/v1/catalog/node-services/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(node_services(call)),
    },
];

/// Anything that a body asks of the catalog. The datacenter is the body's; `?dc` is not looked at (§2.2).
async fn write(call: Call, decode: register::Decode) -> Outcome {
    let command = decode(call.body()?, call.api.agent.datacenter())?;
    call.api.agent.propose(command).await??;
    Ok(Reply::json(|json| json.flag(true)))
}

async fn datacenters(call: Call) -> Outcome {
    Ok(Reply::json(|json| json.list(|json| json.text(call.api.agent.datacenter()))))
}

async fn nodes(call: Call) -> Outcome {
    let filter = call.filter::<NodeRecord>()?;
    call.read(Scope::Nodes, |catalog, json| {
        let wanted = |home: &&Arc<Home>| call.wants_node(home.node()) && filter.shows(home.node());
        let homes = call.by_distance(catalog, catalog.nodes().filter(wanted), |home| &home.node().name);
        json.list(|json| homes.iter().for_each(|home| encode::node(json, home.node())));
    })
    .await
}

async fn services(call: Call) -> Outcome {
    let (by_node, filter) = (call.by_node_meta(), call.filter::<CatalogService>()?);
    let wanted = |instance: &Instance| call.wants_node(&instance.node) && filter.shows(instance);
    call.read(Scope::Services { by_node }, |catalog, json| {
        json.object(|json| {
            for group in catalog.services() {
                if let Some(tags) = tags(group, wanted) {
                    json.key(group.name()).list(|json| tags.iter().for_each(|tag| json.text(tag)));
                }
            }
        });
    })
    .await
}

/// Each tag of a service's instances once; `None` where no instance is asked for.
fn tags(group: &Group, wanted: impl Fn(&Instance) -> bool) -> Option<BTreeSet<&Text>> {
    let mut seen: Option<(&Arc<[Text]>, BTreeSet<&Text>)> = None;
    for instance in group.instances().filter(|instance| wanted(instance)) {
        let tags = &instance.service.tags;
        let (last, all) = seen.get_or_insert_with(|| (tags, tags.iter().collect()));
        // Instances that stand together mostly share their tags.
        if !Arc::ptr_eq(last, tags) {
            all.extend(tags.iter());
            *last = tags;
        }
    }
    seen.map(|(_, all)| all)
}

/// As they are kept, where no parameter picks some or orders them: then nothing of the request is held while it waits.
fn service(call: Call) -> Pending<'static, Outcome> {
    match call.rest.is_empty() || call.picks() {
        false => call.read_list(&fold(&call.rest), Form::Catalog, false),
        true => Box::pin(picked(call)),
    }
}

async fn picked(call: Call) -> Outcome {
    let (key, filter) = (fold(call.name("Missing service name")?), call.filter::<CatalogService>()?);
    call.read(Scope::Service { key: key.as_ref().into(), checks: false }, |catalog, json| {
        let instances = catalog.service(&key).into_iter().flat_map(|group| group.instances());
        let wanted = instances.filter(|instance| call.wants_instance(instance) && filter.shows(instance));
        let wanted = call.by_distance(catalog, wanted, |instance| &instance.node.name);
        json.list(|json| {
            wanted.iter().for_each(|instance| encode::service_node(json, &instance.node, &instance.service));
        });
    })
    .await
}

/// No instance here speaks for another, or by itself, in a mesh.
async fn connect(call: Call) -> Outcome {
    call.name("Missing service name")?;
    call.filter::<CatalogService>()?;
    call.read(Scope::Absent, |_, json| json.list(|_| {})).await
}

async fn gateway_services(call: Call) -> Outcome {
    call.name("Missing gateway name")?;
    call.read(Scope::Absent, |_, json| json.list(|_| {})).await
}

async fn node(call: Call) -> Outcome {
    let (asked, filter) = (call.name("Missing node name")?, call.filter::<ServiceRecord>()?);
    call.read(Scope::Node(asked.into()), |catalog, json| match find_node(catalog, asked) {
        None => json.null(),
        Some(home) => json.object(|json| {
            encode::node(json.key("Node"), home.node());
            json.key("Services").object(|json| {
                for instance in home.instances().filter(|instance| filter.shows(&instance.service)) {
                    encode::node_service(json.key(&instance.service.id), &instance.service);
                }
            });
        }),
    })
    .await
}

async fn node_services(call: Call) -> Outcome {
    let (asked, filter) = (call.name("Missing node name")?, call.filter::<ServiceRecord>()?);
    let write = |home: &Arc<Home>, json: &mut Json| {
        encode::node(json.key("Node"), home.node());
        json.key("Services").list(|json| {
            let wanted = home.instances().filter(|instance| filter.shows(&instance.service));
            wanted.for_each(|instance| encode::node_service(json, &instance.service));
        });
    };
    call.read(Scope::Node(asked.into()), |catalog, json| {
        json.object(|json| match find_node(catalog, asked) {
            Some(home) => write(home, json),
            None => {
                json.key("Node").null();
                json.key("Services").null();
            }
        });
    })
    .await
}
