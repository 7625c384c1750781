//! `/v1/agent`: what is registered on this agent, and the agent itself (`http-api.md` §8).

use hyper::StatusCode;

use super::definition;
use crate::{
    catalog::{Service, Status},
    http::{
        agent::About,
        call::Call,
        encode::{self, Json},
        filter::{HealthCheck, ServiceRecord},
        json::Object,
        query::parse_flag,
        read::jitter,
        reply::{Body, Fault, Outcome, Reply},
        route::{Refuses, Route, Takes},
    },
};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/agent/self",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(about(call)),
    },
    Route {
        path: "/v1/agent/host",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(host(call)),
    },
    Route {
        path: "/v1/agent/version",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(version(call)),
    },
    Route {
        path: "/v1/agent/reload",
        methods: &["PUT"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(reload(call)),
    },
    Route {
        path: "/v1/agent/maintenance",
        methods: &["PUT"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(maintenance(call, Of::Node)),
    },
    Route {
        path: "/v1/agent/services",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(services(call)),
    },
    Route {
        path: "/v1/agent/service/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(service(call)),
    },
    Route {
        path: "/v1/agent/service/register",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(register_service(call)),
    },
    Route {
        path: "/v1/agent/service/deregister/",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(deregister_service(call)),
    },
    Route {
        path: "/v1/agent/service/maintenance/",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(maintenance(call, Of::Service)),
    },
    Route {
        path: "/v1/agent/checks",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(checks(call)),
    },
    Route {
        path: "/v1/agent/check/register",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(register_check(call)),
    },
    Route {
        path: "/v1/agent/check/deregister/",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(deregister_check(call)),
    },
    Route {
        path: "/v1/agent/check/pass/",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(note(call, Status::Passing)),
    },
    Route {
        path: "/v1/agent/check/warn/",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(note(call, Status::Warning)),
    },
    Route {
        path: "/v1/agent/check/fail/",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(note(call, Status::Critical)),
    },
    Route {
        path: "/v1/agent/check/update/",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(update(call)),
    },
];

async fn reload(call: Call) -> Outcome {
    call.api.agent.reload().await?;
    Ok(Reply::empty())
}

async fn services(call: Call) -> Outcome {
    let filter = call.filter::<ServiceRecord>()?;
    let datacenter = call.api.agent.datacenter();
    Ok(Reply::json(|json| {
        json.object(|json| {
            for service in call.api.agent.services().iter().filter(|service| filter.shows(service)) {
                encode::agent_service(json.key(&service.id), service, datacenter, None);
            }
        });
    }))
}

/// Waits while the definition is the one whose hash was given (§3.3).
async fn service(call: Call) -> Outcome {
    let wait = call.wait()?;
    let asked = call.query.get("hash");
    let over = tokio::time::sleep(wait + jitter(wait));
    tokio::pin!(over);
    let (service, hash) = loop {
        let changed = call.api.agent.services_changed();
        let service = call.api.agent.services().into_iter().find(|service| *service.id == *call.rest);
        let service = service.ok_or_else(|| Fault::missing(format!("unknown service ID: {}", call.rest)))?;
        let hash = content_hash(&service);
        if asked != Some(hash.as_str()) {
            break (service, hash);
        }
        tokio::select! {
            () = changed => {}
            () = &mut over => break (service, hash),
            () = call.api.stop.cancelled() => break (service, hash),
        }
    };
    let datacenter = call.api.agent.datacenter();
    let reply = Reply::json(|json| encode::agent_service(json, &service, datacenter, Some(&hash)));
    Ok(reply.with("x-consul-contenthash", hash))
}

/// Of a definition as it is shown: the same in every process, 16 hexadecimal digits (FNV-1a).
fn content_hash(service: &Service) -> String {
    let mut json = Json::default();
    encode::agent_service(&mut json, service, "", None);
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", json.into_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, step))
}

async fn register_service(call: Call) -> Outcome {
    let definition = definition::service(call.body()?)?;
    let replace = call.query.all("replace-existing-checks").next();
    let replace = matches!(replace, Some("" | "true"));
    call.api.agent.register_service(definition, replace).await?;
    Ok(Reply::empty())
}

async fn deregister_service(call: Call) -> Outcome {
    call.api.agent.deregister_service(call.rest).await?;
    Ok(Reply::empty())
}

/// What is taken out of every answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Node,
    Service,
}

async fn maintenance(call: Call, of: Of) -> Outcome {
    if of == Of::Service {
        call.name("Missing service ID")?;
    }
    let enable = call.query.all("enable").next().ok_or_else(|| Fault::bad("Missing value for enable"))?;
    let invalid = || Fault::bad(format!("Invalid value for enable: {enable:?}"));
    let enable = parse_flag(enable).ok_or_else(invalid)?;
    let word = if of == Of::Node { "node" } else { "service" };
    let unsaid = || {
        format!(
            "Maintenance mode is enabled for this {word}, but no reason was provided. This is a default message."
        )
    };
    let reason = call.query.get("reason").map_or_else(unsaid, str::to_string);
    let service = (of == Of::Service).then_some(call.rest);
    match enable {
        true => call.api.agent.maintain(service, reason).await?,
        false => call.api.agent.resume(service).await?,
    }
    Ok(Reply::empty())
}

async fn checks(call: Call) -> Outcome {
    let filter = call.filter::<HealthCheck>()?;
    Ok(Reply::json(|json| {
        json.object(|json| {
            for check in call.api.agent.checks().iter().filter(|check| filter.shows(check)) {
                encode::check(json.key(&check.id), check, (0, 0));
            }
        });
    }))
}

async fn register_check(call: Call) -> Outcome {
    let definition = definition::check(call.body()?)?;
    call.api.agent.register_check(definition).await?;
    Ok(Reply::empty())
}

async fn deregister_check(call: Call) -> Outcome {
    call.api.agent.deregister_check(call.rest).await?;
    Ok(Reply::empty())
}

/// `pass`, `warn` and `fail`; the body may be empty or anything.
async fn note(call: Call, status: Status) -> Outcome {
    let output = call.query.get("note").unwrap_or_default().to_string();
    call.api.agent.update_check(call.rest, status, output).await?;
    Ok(Reply::empty())
}

async fn update(call: Call) -> Outcome {
    let mut body: Object = call.body()?;
    let status = body.text("Status")?.unwrap_or_default();
    let output = body.text("Output")?.unwrap_or_default();
    body.finish()?;
    let known = match Status::from(&*status) {
        Status::Other(_) => return Err(Fault::bad(format!("Invalid check status: '{status}'"))),
        known => known,
    };
    call.api.agent.update_check(call.rest, known, output).await?;
    Ok(Reply::empty())
}

async fn about(call: Call) -> Outcome {
    let (datacenter, about) = (call.api.agent.datacenter(), call.api.agent.about());
    Ok(Reply::json(|json| {
        json.object(|json| {
            json.key("Config").object(|json| config(json, datacenter, &about));
            json.key("DebugConfig").object(|json| {
                json.key("DNSAddrs").list(|json| {
                    let both = about.dns_addrs.iter().flat_map(|addr| [("tcp", addr), ("udp", addr)]);
                    both.for_each(|(kind, addr)| json.text(&format!("{kind}://{addr}")));
                });
                json.key("DNSDomain").text(&about.dns_domain);
                json.key("Datacenter").text(datacenter);
                json.key("NodeName").text(&about.node);
                json.key("ServerMode").flag(about.server);
            });
            encode::coordinate(json.key("Coord"), &about.coordinate);
            encode::member(json.key("Member"), &about.member);
            json.key("Stats").object(|json| {
                about.stats.iter().for_each(|(section, figures)| encode::pairs(json.key(section), figures));
            });
            encode::pairs(json.key("Meta"), &about.meta);
        });
    }))
}

async fn host(call: Call) -> Outcome {
    Ok(Reply::new(StatusCode::OK, Body::Json(call.api.agent.host().await)))
}

async fn version(call: Call) -> Outcome {
    let about = call.api.agent.about();
    Ok(Reply::json(|json| {
        json.object(|json| {
            json.key("SHA").text("");
            json.key("BuildDate").text(BUILD_DATE);
            json.key("HumanVersion").text(&about.version);
            json.key("FIPS").text("");
            json.key("LictorVersion").text(env!("CARGO_PKG_VERSION"));
        });
    }))
}

/// Clients read versions here to know what they may ask for: it is that of the Consul we keep to, ours beside it.
fn config(json: &mut Json, datacenter: &str, about: &About) {
    json.key("Datacenter").text(datacenter);
    json.key("PrimaryDatacenter").text(datacenter);
    json.key("NodeName").text(&about.node);
    json.key("NodeID").text(&about.id.map(|id| id.to_string()).unwrap_or_default());
    json.key("Revision").text("");
    json.key("Server").flag(about.server);
    json.key("Version").text(&about.version);
    json.key("BuildDate").text(BUILD_DATE);
    json.key("LictorVersion").text(env!("CARGO_PKG_VERSION"));
}

/// Builds are alike whenever they are made.
const BUILD_DATE: &str = "1970-01-01T00:00:00Z";
