//! `/v1/operator`: the servers, how they come and go, how much there is (`http-api.md` §9.10).

use hyper::StatusCode;

use crate::{
    catalog::{Answer, Autopilot, Catalog, Command, SetAutopilot},
    check::format_duration,
    http::{
        agent::ServerStatus,
        call::Call,
        encode::{self, Json},
        json::{Malformed, Object},
        read::Scope,
        reply::{Fault, Outcome, Reply},
        route::{Refuses, Route, Takes},
    },
};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/operator/raft/configuration",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(configuration(call)),
    },
    Route {
        path: "/v1/operator/raft/peer",
        methods: &["DELETE"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(remove_peer(call)),
    },
    Route {
        path: "/v1/operator/raft/transfer-leader",
        methods: &["POST"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(transfer_leader(call)),
    },
    Route {
        path: "/v1/operator/autopilot/configuration",
        methods: &["GET", "PUT"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(autopilot(call)),
    },
    Route {
        path: "/v1/operator/autopilot/health",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(health(call)),
    },
    Route {
        path: "/v1/operator/autopilot/state",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(state(call)),
    },
    Route {
        path: "/v1/operator/usage",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(usage(call)),
    },
];

async fn configuration(call: Call) -> Outcome {
    call.current()?;
    let servers = call.api.agent.servers();
    Ok(Reply::json(|json| {
        json.object(|json| {
            json.key("Servers").list(|json| servers.iter().for_each(|server| voter(json, server)));
            json.key("Index").number(0);
        });
    }))
}

fn voter(json: &mut Json, server: &ServerStatus) {
    json.object(|json| {
        json.key("ID").text(&server.id.to_string());
        json.key("Node").text(&server.node);
        json.key("Address").text(&server.address.to_string());
        json.key("Leader").flag(server.leads);
        json.key("ProtocolVersion").text("3");
        json.key("Voter").flag(server.votes);
        json.key("LastIndex").number(server.last_index);
    });
}

/// There is one server, and without it there would be none.
async fn remove_peer(call: Call) -> Outcome {
    let servers = call.api.agent.servers();
    let (id, address) = (call.query.get("id"), call.query.get("address"));
    let is_known = match (id, address) {
        (None, None) => {
            return Err(Fault::bad(
                "Must specify either ?id with the server's ID or ?address with IP:port of peer to remove",
            ));
        }
        (Some(_), Some(_)) => return Err(Fault::bad("Must specify only one of ?id or ?address")),
        (Some(id), None) => servers.iter().any(|server| server.id.to_string() == id),
        (None, Some(address)) => servers.iter().any(|server| server.address.to_string() == address),
    };
    call.led()?;
    let named = match (id, address) {
        (Some(id), _) => format!("id {id:?}"),
        (None, address) => format!("address {:?}", address.unwrap_or_default()),
    };
    Err(Fault::failed(match is_known {
        false => format!("{named} was not found in the Raft configuration"),
        true => "need at least one voter in configuration: this is the only server".into(),
    }))
}

async fn transfer_leader(call: Call) -> Outcome {
    call.led()?;
    let servers = call.api.agent.servers();
    Err(Fault::failed(match call.query.get("id") {
        None => "cannot find peer".into(),
        Some(id) if servers.iter().any(|server| server.id.to_string() == id) => {
            "cannot transfer leadership to itself".into()
        }
        Some(id) => format!("Could not find address for server id {id}"),
    }))
}

async fn autopilot(call: Call) -> Outcome {
    if call.is_get() {
        let catalog = call.current()?;
        return Ok(Reply::json(|json| write_autopilot(json, &catalog.autopilot())));
    }
    call.own_datacenter()?;
    let refused = |Malformed(text)| Fault::bad(format!("Error parsing autopilot config: {text}"));
    let autopilot = call.body().and_then(decode_autopilot).map_err(refused)?;
    let cas = call.query.all("cas").next().map(|index| {
        let refused =
            |_| format!("Error parsing cas value: strconv.ParseUint: parsing {index:?}: invalid syntax");
        index.parse().map_err(refused).map_err(Fault::bad)
    });
    let cas = cas.transpose()?;
    let applied = call.api.agent.propose(Command::Autopilot(SetAutopilot { autopilot, cas })).await??;
    let done = applied.answer == Answer::Done;
    Ok(Reply::json(|json| json.flag(done)))
}

fn write_autopilot(json: &mut Json, autopilot: &Autopilot) {
    json.object(|json| {
        json.key("CleanupDeadServers").flag(autopilot.cleanup_dead_servers);
        json.key("LastContactThreshold").text(&format_duration(autopilot.last_contact_threshold_nanos));
        json.key("MaxTrailingLogs").number(autopilot.max_trailing_logs);
        json.key("MinQuorum").number(autopilot.min_quorum);
        json.key("ServerStabilizationTime").text(&format_duration(autopilot.server_stabilization_nanos));
        json.key("RedundancyZoneTag").text(&autopilot.redundancy_zone_tag);
        json.key("DisableUpgradeMigration").flag(autopilot.disable_upgrade_migration);
        json.key("UpgradeVersionTag").text(&autopilot.upgrade_version_tag);
        json.key("CreateIndex").number(autopilot.created);
        json.key("ModifyIndex").number(autopilot.modified);
    });
}

/// What is not said is as it is by default, not as it was.
pub fn decode_autopilot(mut body: Object) -> Result<Autopilot, Malformed> {
    let usual = Autopilot::default();
    let count = |given: Option<i64>, key: &str, usual: u64| {
        let negative = |_| Malformed(format!("json: cannot unmarshal a negative number into field {key}"));
        given.map_or(Ok(usual), |given| given.try_into().map_err(negative))
    };
    let nanos = |span: Option<crate::check::Span>, usual| span.map_or(usual, |span| span.nanos);
    let autopilot = Autopilot {
        cleanup_dead_servers: body.flag("CleanupDeadServers")?.unwrap_or(usual.cleanup_dead_servers),
        last_contact_threshold_nanos: nanos(
            body.span("LastContactThreshold")?,
            usual.last_contact_threshold_nanos,
        ),
        max_trailing_logs: count(body.int("MaxTrailingLogs")?, "MaxTrailingLogs", usual.max_trailing_logs)?,
        min_quorum: count(body.int("MinQuorum")?, "MinQuorum", usual.min_quorum)?,
        server_stabilization_nanos: nanos(
            body.span("ServerStabilizationTime")?,
            usual.server_stabilization_nanos,
        ),
        redundancy_zone_tag: body.text("RedundancyZoneTag")?.unwrap_or_default().into(),
        disable_upgrade_migration: body.flag("DisableUpgradeMigration")?.unwrap_or_default(),
        upgrade_version_tag: body.text("UpgradeVersionTag")?.unwrap_or_default().into(),
        ..usual
    };
    body.ignore("CreateIndex|ModifyIndex");
    body.finish()?;
    Ok(autopilot)
}

/// Healthy together, as far as this server knows.
fn is_healthy(servers: &[ServerStatus]) -> bool {
    !servers.is_empty() && servers.iter().all(|server| server.healthy)
}

/// How many servers may fail before nothing can be agreed on.
fn failure_tolerance(servers: &[ServerStatus]) -> usize {
    let voters = servers.iter().filter(|server| server.votes);
    let healthy = voters.clone().filter(|server| server.healthy).count();
    healthy.saturating_sub(voters.count() / 2 + 1)
}

async fn health(call: Call) -> Outcome {
    call.current()?;
    let servers = call.api.agent.servers();
    let healthy = is_healthy(&servers);
    let mut reply = Reply::json(|json| {
        json.object(|json| {
            json.key("Healthy").flag(healthy);
            json.key("FailureTolerance").number(failure_tolerance(&servers) as u64);
            json.key("Servers").list(|json| {
                for server in &servers {
                    json.object(|json| {
                        write_server(json, server, "SerfStatus");
                        json.key("Leader").flag(server.leads);
                        json.key("Voter").flag(server.votes);
                    });
                }
            });
        });
    });
    if !healthy {
        reply.status = StatusCode::TOO_MANY_REQUESTS;
    }
    Ok(reply)
}

/// What both forms tell of a server.
fn write_server(json: &mut Json, server: &ServerStatus, status_key: &str) {
    json.key("ID").text(&server.id.to_string());
    json.key("Name").text(&server.node);
    json.key("Address").text(&server.address.to_string());
    json.key(status_key).text("alive");
    json.key("Version").text(&server.version);
    json.key("LastContact").text("0s");
    json.key("LastTerm").number(server.last_term);
    json.key("LastIndex").number(server.last_index);
    json.key("Healthy").flag(server.healthy);
    json.key("StableSince").text(&server.stable_since);
}

async fn state(call: Call) -> Outcome {
    let catalog = call.current()?;
    let servers = call.api.agent.servers();
    Ok(Reply::json(|json| {
        json.object(|json| {
            json.key("Healthy").flag(is_healthy(&servers));
            json.key("FailureTolerance").number(failure_tolerance(&servers) as u64);
            json.key("OptimisticFailureTolerance").number(failure_tolerance(&servers) as u64);
            json.key("Servers").object(|json| {
                for server in &servers {
                    write_state(json.key(&server.id.to_string()), server, &catalog);
                }
            });
            let leader = servers.iter().find(|server| server.leads);
            json.key("Leader").text(&leader.map(|leader| leader.id.to_string()).unwrap_or_default());
            let voters = servers.iter().filter(|server| server.votes);
            json.key("Voters").list(|json| voters.for_each(|server| json.text(&server.id.to_string())));
        });
    }))
}

fn write_state(json: &mut Json, server: &ServerStatus, catalog: &Catalog) {
    json.object(|json| {
        write_server(json, server, "NodeStatus");
        json.key("ReadReplica").flag(false);
        json.key("Status").text(match (server.leads, server.votes) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "non-voter",
        });
        let home = catalog.node_by_id(server.id);
        let own = home.and_then(|home| home.instance("consul")).and_then(|own| own.service.meta.as_ref());
        json.key("Meta").object(|json| {
            own.into_iter().flat_map(|meta| meta.iter()).for_each(|(key, value)| json.key(key).text(value));
        });
        json.key("NodeType").text("voter");
    });
}

/// Of the mesh, as it stands here: nothing takes part in it but what says so by its kind.
const KINDS: [&str; 6] = [
    "api-gateway",
    "connect-native",
    "connect-proxy",
    "ingress-gateway",
    "mesh-gateway",
    "terminating-gateway",
];

/// Of this datacenter, whichever is asked for.
async fn usage(mut call: Call) -> Outcome {
    ["dc", "datacenter"].iter().for_each(|name| call.query.forget(name));
    let consistency = call.consistency()?.as_str();
    let (own, leads) = (call.api.agent.datacenter(), call.api.agent.leader().is_some());
    call.read(Scope::Services { by_node: false }, |catalog, json| {
        json.object(|json| {
            json.key("Usage").object(|json| count(json.key(own), catalog));
            encode::query_meta(json, Scope::Services { by_node: false }.index(catalog), consistency, leads);
        });
    })
    .await
}

fn count(json: &mut Json, catalog: &Catalog) {
    let (mut all, mut billable, mut of_kind) = (0_u64, 0_u64, [0_u64; KINDS.len()]);
    for group in catalog.services() {
        for instance in group.instances() {
            all += 1;
            billable += u64::from(&**group.key() != "consul");
            if let Some(kind) = KINDS.iter().position(|kind| **kind == *instance.service.kind) {
                of_kind[kind] += 1;
            }
        }
    }
    json.object(|json| {
        json.key("Services").number(catalog.service_count() as u64);
        json.key("ServiceInstances").number(all);
        json.key("ConnectServiceInstances").object(|json| {
            KINDS.iter().zip(of_kind).for_each(|(kind, count)| json.key(kind).number(count));
        });
        json.key("BillableServiceInstances").number(billable);
        json.key("Nodes").number(catalog.node_count() as u64);
    });
}
