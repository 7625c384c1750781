//! `/v1/agent/metrics` and `/v1/agent/monitor`: figures of the agent, and its log as it is written (`http-api.md` §8.1).

use hyper::StatusCode;
use tracing::Level;

use crate::http::{
    agent::Live,
    call::Call,
    reply::{Body, Fault, Outcome, Reply},
    route::{Handler, Refuses, Route, Takes},
};

pub const ROUTES: &[Route] = &[
    route("/v1/agent/metrics", |call| Box::pin(metrics(call))),
    route("/v1/agent/metrics/stream", |call| Box::pin(stream(call))),
    route("/v1/agent/monitor", |call| Box::pin(monitor(call))),
];

const fn route(path: &'static str, handler: Handler) -> Route {
    Route { path, methods: &["GET"], refuses: Refuses::Nothing, takes: Takes::PLAIN, handler }
}

/// The version of its text form that Prometheus knows.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const NO_PROMETHEUS: &str = "Prometheus is not enabled since its retention time is not positive";
const TOO_MANY: &str = "Too many follow the log of this agent already, try again later";

async fn metrics(call: Call) -> Outcome {
    let agent = call.api.agent.clone();
    if call.query.get("format") != Some("prometheus") && !call.wants_openmetrics {
        return Ok(Reply::new(StatusCode::OK, Body::Json(agent.metrics().await)));
    }
    Ok(match agent.prometheus().await {
        Some(text) => Reply::new(StatusCode::OK, Body::Text(text)).with("content-type", PROMETHEUS),
        None => Reply::empty().with("x-consul-reason", NO_PROMETHEUS),
    })
}

async fn stream(call: Call) -> Outcome {
    let metrics = call.api.agent.metrics_to_come();
    Ok(live(&call, metrics, "application/json"))
}

async fn monitor(call: Call) -> Outcome {
    let word = call.query.get("loglevel").unwrap_or("info");
    let level = match word.to_ascii_lowercase().as_str() {
        "trace" => Level::TRACE,
        "debug" => Level::DEBUG,
        "info" => Level::INFO,
        "warn" => Level::WARN,
        "err" | "error" => Level::ERROR,
        _ => return Err(Fault::bad(format!("Unknown log level: {word}"))),
    };
    let log = call.api.agent.log_to_come(level, call.query.has("logjson"));
    let log = log.ok_or_else(|| Fault::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY))?;
    Ok(live(&call, log, "text/plain; charset=utf-8"))
}

fn live(call: &Call, live: Live, kind: &'static str) -> Reply {
    Reply::new(StatusCode::OK, Body::Live(live.until(call.api.stop.clone()), kind))
}
