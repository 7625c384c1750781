//! `/v1/health`: checks, and instances with them (`http-api.md` §9.2).

use std::sync::Arc;

use crate::{
    catalog::{Check, Health, Instance, Status, fold},
    http::{
        agent::Pending,
        call::Call,
        encode::{self, Json},
        filter::{Filter, HealthCheck, HealthService},
        list::Form,
        read::{ANY, Scope},
        reply::Outcome,
        route::{Refuses, Route, Takes},
    },
};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/health/service/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: service,
    },
    Route {
        path: "/v1/health/connect/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(no_mesh(call)),
    },
    Route {
        path: "/v1/health/ingress/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(no_mesh(call)),
    },
    Route {
        path: "/v1/health/node/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(node(call)),
    },
    Route {
        path: "/v1/health/checks/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(checks(call)),
    },
    Route {
        path: "/v1/health/state/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(state(call)),
    },
];

/// As they are kept, where no parameter picks some or orders them: then nothing of the request is held while it waits.
fn service(call: Call) -> Pending<'static, Outcome> {
    match call.flag("passing") {
        Ok(passing) if !call.rest.is_empty() && !call.picks() => {
            call.read_list(&fold(&call.rest), Form::Health, passing)
        }
        _ => Box::pin(picked(call)),
    }
}

async fn picked(call: Call) -> Outcome {
    let key = fold(call.name("Missing service name")?);
    let (passing, filter) = (call.flag("passing")?, call.filter::<HealthService>()?);
    let wanted = |instance: &&Arc<Instance>| {
        (!passing || instance.health == Health::Passing)
            && call.wants_instance(instance)
            && filter.shows(instance)
    };
    call.read(Scope::Service { key: key.as_ref().into(), checks: true }, |catalog, json| {
        json.list(|json| {
            let instances = catalog.service(&key).into_iter().flat_map(|group| group.instances());
            let instances =
                call.by_distance(catalog, instances.filter(wanted), |instance| &instance.node.name);
            instances.iter().for_each(|instance| encode::instance(json, instance));
        });
    })
    .await
}

/// No instance here speaks for another, or by itself, in a mesh.
async fn no_mesh(call: Call) -> Outcome {
    call.name("Missing service name")?;
    call.flag("passing")?;
    call.filter::<HealthService>()?;
    call.read(Scope::Absent, |_, json| json.list(|_| {})).await
}

async fn node(call: Call) -> Outcome {
    let (key, filter) = (fold(call.name("Missing node name")?), call.filter()?);
    call.read(Scope::NodeChecks(key.as_ref().into()), |catalog, json| {
        let checks = catalog.node(&key).into_iter().flat_map(|home| home.all_checks());
        json.list(|json| write(json, checks, &filter));
    })
    .await
}

async fn checks(call: Call) -> Outcome {
    let (key, filter) = (fold(call.name("Missing service name")?), call.filter()?);
    call.read(Scope::ServiceChecks(key.as_ref().into()), |catalog, json| {
        let instances = catalog.service(&key).into_iter().flat_map(|group| group.instances());
        let wanted = instances.filter(|instance| call.wants_node(&instance.node));
        let wanted = call.by_distance(catalog, wanted, |instance| &instance.node.name);
        json.list(|json| {
            // Instances of one node stand together.
            let mut of_node: Vec<&Arc<Check>> = Vec::new();
            for instance in wanted {
                if of_node.first().is_some_and(|check| check.node != instance.node.name) {
                    write(json, of_node.drain(..), &filter);
                }
                of_node.extend(instance.checks.iter());
            }
            write(json, of_node, &filter);
        });
    })
    .await
}

async fn state(call: Call) -> Outcome {
    let (state, filter) = (call.name("Missing check state")?, call.filter()?);
    let status = Status::from(state);
    call.read(Scope::State(state.into()), |catalog, json| {
        json.list(|json| {
            let homes = catalog.nodes().filter(|home| call.wants_node(home.node()));
            for home in call.by_distance(catalog, homes, |home| &home.node().name) {
                let checks = home.all_checks().filter(|check| state == ANY || check.status == status);
                write(json, checks, &filter);
            }
        });
    })
    .await
}

/// Checks of one node, by id.
fn write<'a>(
    json: &mut Json,
    checks: impl IntoIterator<Item = &'a Arc<Check>>,
    filter: &Filter<HealthCheck>,
) {
    let mut checks: Vec<_> = checks.into_iter().filter(|check| filter.shows(check)).collect();
    checks.sort_by(|a, b| fold(&a.id).cmp(&fold(&b.id)));
    checks.iter().for_each(|check| encode::check(json, check, (check.created, check.modified)));
}
