//! Routes of what is not here: access control, the mesh, configuration entries, peerings
//! (`http-api.md` §9.10, §9.12, §9.13). They answer as Consul does where that is off, or where there is none of it, so
//! that clients which look go on; nothing is taken that is not kept.

use std::future::ready;

use hyper::StatusCode;

use crate::http::{
    call::Call,
    read::Scope,
    reply::{Body, Fault, Outcome, Reply},
    route::{Handler, Refuses, Route, Takes},
};

pub const ROUTES: &[Route] = &[
    acl("/v1/acl/bootstrap", &["PUT"]),
    acl("/v1/acl/login", &["POST"]),
    acl("/v1/acl/logout", &["POST"]),
    acl("/v1/acl/replication", &["GET"]),
    acl("/v1/acl/tokens", &["GET"]),
    acl("/v1/acl/token", &["PUT"]),
    acl("/v1/acl/token/", &["GET", "PUT", "DELETE"]),
    acl("/v1/acl/token/self", &["GET"]),
    acl("/v1/acl/policies", &["GET"]),
    acl("/v1/acl/policy", &["PUT"]),
    acl("/v1/acl/policy/", &["GET", "PUT", "DELETE"]),
    acl("/v1/acl/policy/name/", &["GET"]),
    acl("/v1/acl/roles", &["GET"]),
    acl("/v1/acl/role", &["PUT"]),
    acl("/v1/acl/role/", &["GET", "PUT", "DELETE"]),
    acl("/v1/acl/role/name/", &["GET"]),
    acl("/v1/acl/binding-rules", &["GET"]),
    acl("/v1/acl/binding-rule", &["PUT"]),
    acl("/v1/acl/binding-rule/", &["GET", "PUT", "DELETE"]),
    acl("/v1/acl/auth-methods", &["GET"]),
    acl("/v1/acl/auth-method", &["PUT"]),
    acl("/v1/acl/auth-method/", &["GET", "PUT", "DELETE"]),
    acl("/v1/internal/acl/authorize", &["POST"]),
    acl("/v1/agent/token/", &["PUT"]),
    mesh("/v1/agent/connect/authorize", &["POST"]),
    mesh("/v1/agent/connect/ca/leaf/", &["GET"]),
    mesh("/v1/agent/connect/ca/roots", &["GET"]),
    mesh("/v1/connect/ca/configuration", &["GET", "PUT"]),
    mesh("/v1/connect/ca/roots", &["GET"]),
    mesh("/v1/connect/intentions", &["GET", "POST"]),
    mesh("/v1/connect/intentions/", &["GET", "PUT", "DELETE"]),
    mesh("/v1/connect/intentions/check", &["GET"]),
    mesh("/v1/connect/intentions/exact", &["GET", "PUT", "DELETE"]),
    mesh("/v1/connect/intentions/match", &["GET"]),
    mesh("/v1/discovery-chain/", &["GET", "POST"]),
    route("/v1/config", &["PUT"], |_| {
        Box::pin(ready(Err(Fault::failed("Config entries are not supported by this agent"))))
    }),
    route("/v1/config/", &["GET", "DELETE"], |call| Box::pin(config_entry(call))),
    route("/v1/peerings", &["GET"], |call| Box::pin(nothing(call))),
    route("/v1/peering/", &["GET", "DELETE"], |call| Box::pin(peering(call))),
    route("/v1/peering/token", &["POST"], |call| Box::pin(peer(call, "generating a new peering token"))),
    route("/v1/peering/establish", &["POST"], |call| Box::pin(peer(call, "establishing a peering"))),
];

const fn route(path: &'static str, methods: &'static [&'static str], handler: Handler) -> Route {
    Route { path, methods, refuses: Refuses::NamespacesAndPartitions, takes: Takes::PLAIN, handler }
}

/// That there is none is said before anything else is looked at.
const fn acl(path: &'static str, methods: &'static [&'static str]) -> Route {
    let handler: Handler =
        |_| Box::pin(ready(Err(Fault::new(StatusCode::UNAUTHORIZED, "ACL support disabled"))));
    Route { path, methods, refuses: Refuses::Nothing, takes: Takes::PLAIN, handler }
}

const fn mesh(path: &'static str, methods: &'static [&'static str]) -> Route {
    route(path, methods, |_| {
        Box::pin(ready(Err(Fault::failed("Connect must be enabled in order to use this endpoint"))))
    })
}

/// A list that waits as others do, and stays empty.
async fn nothing(call: Call) -> Outcome {
    let mut reply = call.read(Scope::Absent, |_, json| json.list(|_| {})).await?;
    reply.headers.retain(|(name, _)| name != "x-consul-effective-consistency");
    Ok(reply)
}

/// Of a kind, or of all kinds: none. By name: there is none of that name.
async fn config_entry(call: Call) -> Outcome {
    let (kind, name) = call.rest.split_once('/').unwrap_or((&call.rest, ""));
    let known = kind.is_empty() || KINDS.contains(&kind);
    let invalid = || format!("invalid config entry kind: {kind}");
    if call.is_get() {
        if !known {
            return Err(Fault::failed(invalid()));
        }
        let missing = Body::Text(format!("Config entry not found for {kind:?} / {name:?}"));
        let is_list = name.is_empty();
        let reply = nothing(call).await?;
        return Ok(if is_list {
            reply
        } else {
            Reply { status: StatusCode::NOT_FOUND, body: missing, ..reply }
        });
    }
    call.own_datacenter()?;
    match (kind, name) {
        ("", _) | (_, "") => Err(Fault::missing("Must provide both a kind and name to delete")),
        _ if !known => Err(Fault::bad(invalid())),
        _ if call.query.has("cas") => Ok(Reply::json(|json| json.flag(false))),
        _ => Ok(Reply::json(|json| json.object(|_| {}))),
    }
}

async fn peering(call: Call) -> Outcome {
    match call.is_get() {
        true => Err(Fault::missing(format!("Peering not found for {:?}", call.rest))),
        false => Ok(Reply::empty()),
    }
}

async fn peer(call: Call, what: &str) -> Outcome {
    let named = call.body()?.text("PeerName")?.is_some_and(|name| !name.is_empty());
    match named {
        true => Err(Fault::failed("Peering is not supported by this agent")),
        false => Err(Fault::bad(format!("PeerName is required in the payload when {what}."))),
    }
}

const KINDS: &[&str] = &[
    "api-gateway",
    "bound-api-gateway",
    "control-plane-request-limit",
    "exported-services",
    "http-route",
    "ingress-gateway",
    "inline-certificate",
    "jwt-provider",
    "mesh",
    "proxy-defaults",
    "service-defaults",
    "service-intentions",
    "service-resolver",
    "service-router",
    "service-splitter",
    "tcp-route",
    "terminating-gateway",
];
