//! `/v1/agent/health/service`: what this agent holds of the health of a service of its own, also as a status code
//! (`http-api.md` §8.2).

use std::sync::Arc;

use hyper::StatusCode;

use crate::{
    catalog::{Check, Health, Service},
    check::{NODE_MAINTENANCE, SERVICE_MAINTENANCE},
    http::{
        call::Call,
        encode::{self, Json},
        reply::{Body, Fault, Outcome, Reply},
        route::{Refuses, Route, Takes},
    },
};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/agent/health/service/id/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(by_id(call)),
    },
    Route {
        path: "/v1/agent/health/service/name/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(by_name(call)),
    },
];

/// All that speaks for a service, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

/// A service with the checks of its own and of its node.
struct Judged {
    service: Arc<Service>,
    checks: Vec<Arc<Check>>,
    verdict: Verdict,
}

async fn by_id(call: Call) -> Outcome {
    if call.rest.is_empty() {
        return Err(Fault::failed("Missing serviceID"));
    }
    let judged = judged(&call, |service| *service.id == *call.rest).pop();
    let (status, reason) = match &judged {
        Some(judged) => (judged.verdict.status(), judged.verdict.word().into()),
        None => (StatusCode::NOT_FOUND, format!("ServiceId {} not found", call.rest)),
    };
    Ok(answer(&call, status, reason, |json| match &judged {
        Some(judged) => judged.write(json, call.api.agent.datacenter()),
        None => json.object(|json| {
            json.key("AggregatedStatus").text(Verdict::Critical.word());
            json.key("Service").null();
            json.key("Checks").null();
        }),
    }))
}

async fn by_name(call: Call) -> Outcome {
    if call.rest.is_empty() {
        return Err(Fault::failed("Missing service Name"));
    }
    let judged = judged(&call, |service| *service.name == *call.rest);
    let (status, reason) = match judged.iter().map(|judged| judged.verdict).max() {
        Some(worst) => (worst.status(), worst.word().into()),
        None => (StatusCode::NOT_FOUND, format!("ServiceName {} Not Found", call.rest)),
    };
    Ok(answer(&call, status, reason, |json| {
        json.list(|json| {
            judged.iter().for_each(|judged| judged.write(json, call.api.agent.datacenter()));
        });
    }))
}

fn answer(call: &Call, status: StatusCode, reason: String, write: impl FnOnce(&mut Json)) -> Reply {
    let as_text = call.wants_text || call.query.get("format") == Some("text");
    let body = match as_text {
        true => Body::Text(reason.clone()),
        false => {
            let mut json = Json::default();
            write(&mut json);
            Body::Json(json.into_bytes())
        }
    };
    Reply::new(status, body).with("x-consul-reason", reason)
}

fn judged(call: &Call, is_wanted: impl Fn(&Service) -> bool) -> Vec<Judged> {
    let (services, checks) = (call.api.agent.services(), call.api.agent.checks());
    let wanted = services.into_iter().filter(|service| is_wanted(service));
    wanted.map(|service| Judged::of(service, &checks)).collect()
}

impl Judged {
    fn of(service: Arc<Service>, checks: &[Arc<Check>]) -> Judged {
        let speaks = |check: &&Arc<Check>| {
            check.service_id.is_empty() || check.service_id.eq_ignore_ascii_case(&service.id)
        };
        let checks: Vec<_> = checks.iter().filter(speaks).cloned().collect();
        let verdict = checks.iter().map(|check| Verdict::of(check)).max().unwrap_or(Verdict::Passing);
        Judged { service, checks, verdict }
    }

    fn write(&self, json: &mut Json, datacenter: &str) {
        json.object(|json| {
            json.key("AggregatedStatus").text(self.verdict.word());
            encode::agent_service(json.key("Service"), &self.service, datacenter, None);
            json.key("Checks").list(|json| self.checks.iter().for_each(|check| write_check(json, check)));
        });
    }
}

impl Verdict {
    fn of(check: &Check) -> Verdict {
        let id = &*check.id;
        if id == NODE_MAINTENANCE || id.starts_with(SERVICE_MAINTENANCE) {
            return Verdict::Maintenance;
        }
        match check.status.health() {
            Health::Passing => Verdict::Passing,
            Health::Warning => Verdict::Warning,
            Health::Unknown | Health::Critical => Verdict::Critical,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Verdict::Passing => "passing",
            Verdict::Warning => "warning",
            Verdict::Critical => "critical",
            Verdict::Maintenance => "maintenance",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Verdict::Passing => StatusCode::OK,
            Verdict::Warning => StatusCode::TOO_MANY_REQUESTS,
            Verdict::Critical | Verdict::Maintenance => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The second shape of a check: it is printed here and nowhere else.
fn write_check(json: &mut Json, check: &Check) {
    json.object(|json| {
        encode::check_head(json, check, encode::Empty::Null);
        json.key("Type").text("");
        json.key("ExposedPort").number(check.exposed_port);
        json.key("Definition").raw(NO_DEFINITION);
        json.key("CreateIndex").number(0);
        json.key("ModifyIndex").number(0);
    });
}

/// That of a check which an agent runs is not told.
const NO_DEFINITION: &str = r#"{"Interval":"0s","Timeout":"0s","DeregisterCriticalServiceAfter":"0s","HTTP":"","Header":null,"Method":"","Body":"","TLSServerName":"","TLSSkipVerify":false,"TCP":"","TCPUseTLS":false,"UDP":"","GRPC":"","OSService":"","GRPCUseTLS":false}"#;
