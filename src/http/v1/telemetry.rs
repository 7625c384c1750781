//! `/v1/agent/metrics`: figures of the agent (`http-api.md` §8.1).

use hyper::StatusCode;

use crate::http::{
    call::Call,
    reply::{Body, Outcome, Reply},
    route::{Refuses, Route, Takes},
};

pub const ROUTES: &[Route] = &[Route {
    path: "/v1/agent/metrics",
    methods: &["GET"],
    refuses: Refuses::Nothing,
    takes: Takes::PLAIN,
    handler: |call| Box::pin(metrics(call)),
}];

/// The version of its text form that Prometheus knows.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const NO_PROMETHEUS: &str = "Prometheus is not enabled since its retention time is not positive";

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
