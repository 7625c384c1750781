//! `/v1/session`: who may hold locks (`http-api.md` §9.4).

use std::time::Duration;

use uuid::Uuid;

use crate::{
    catalog::{Behavior, Catalog, Command, SERF_HEALTH, Session, SessionCheck, SessionWrite, Text, fold},
    check::parse_duration,
    http::{
        call::Call,
        encode,
        json::{Json, Malformed, Object},
        read::Scope,
        reply::{Fault, Outcome, Reply},
        route::{Refuses, Route, Takes},
    },
};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/session/create",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(create(call)),
    },
    Route {
        path: "/v1/session/destroy/",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(destroy(call)),
    },
    Route {
        path: "/v1/session/renew/",
        methods: &["PUT"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(renew(call)),
    },
    Route {
        path: "/v1/session/info/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(info(call)),
    },
    Route {
        path: "/v1/session/node/",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(of_node(call)),
    },
    Route {
        path: "/v1/session/list",
        methods: &["GET"],
        refuses: Refuses::NamespacesAndPartitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(list(call)),
    },
];

/// A number below this is of seconds, and from there on of nanoseconds.
const SECONDS_BELOW: i64 = 1000;
const LOCK_DELAY: i64 = 15_000_000_000;
const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

async fn create(call: Call) -> Outcome {
    call.own_datacenter()?;
    let mut session = decode(call.body_if_any()?, &call.node)?;
    if session.node.is_empty() {
        return Err(Fault::failed("Must provide Node"));
    }
    session.ttl_nanos = ttl_nanos(&session.ttl, call.api.settings.load().session_ttl_min)?;
    session.id = Uuid::new_v4();
    let id = session.id;
    let command = Command::Session(SessionWrite::Create(Box::new(session)));
    let refused = |refusal| Fault::failed(format!("apply failed: {refusal}"));
    call.api.agent.propose(command).await?.map_err(refused)?;
    Ok(Reply::json(|json| json.object(|json| json.key("ID").text(&id.to_string()))))
}

/// What is not known is not looked at, here alone.
pub fn decode(mut body: Object, own_node: &Text) -> Result<Session, Fault> {
    let checks = list_of(&mut body, "Checks")?;
    // A list of the old kind comes beside the node's health, unless it is an empty one.
    let by_default = match &checks {
        Some(checks) if checks.is_empty() => Vec::new(),
        _ => vec![Text::from(SERF_HEALTH)],
    };
    let node_checks = match body.is_null("NodeChecks") {
        true => None,
        false => Some(list_of(&mut body, "NodeChecks")?.unwrap_or(by_default)),
    };
    let behavior = match &*body.text("Behavior")?.unwrap_or_default() {
        "" | "release" => Behavior::Release,
        "delete" => Behavior::Delete,
        other => return Err(Fault::failed(format!("Invalid Behavior setting '{other}'"))),
    };
    let service_checks = body.objects("ServiceChecks")?.map(|checks| {
        let check = |mut check: Object| {
            let mut text = |key| Ok::<_, Malformed>(Text::from(check.text(key)?.unwrap_or_default()));
            Ok(SessionCheck { id: text("ID")?, namespace: text("Namespace")? })
        };
        checks.into_iter().map(check).collect::<Result<_, Malformed>>()
    });
    Ok(Session {
        name: body.text("Name")?.unwrap_or_default().into(),
        node: body.text("Node")?.map_or_else(|| own_node.clone(), Text::from),
        lock_delay: body.any("LockDelay")?.map(lock_delay).transpose()?.unwrap_or(LOCK_DELAY),
        behavior,
        ttl: body.text("TTL")?.unwrap_or_default().into(),
        node_checks: node_checks.map(Into::into),
        service_checks: service_checks.transpose()?,
        checks: checks.filter(|checks| !checks.is_empty()).map(Into::into),
        ..Session::default()
    })
}

fn list_of(body: &mut Object, key: &str) -> Result<Option<Vec<Text>>, Malformed> {
    Ok(body.texts(key)?.map(|texts| texts.into_iter().map(Text::from).collect()))
}

/// In nanoseconds, from a duration or a number.
fn lock_delay(given: Json) -> Result<i64, Malformed> {
    match given {
        Json::Text(text) => match text.is_empty() {
            true => Err(Malformed("time: invalid duration \"\"".into())),
            false => parse_duration(&text).map(|span| span.nanos).map_err(Malformed),
        },
        Json::Int(number) if number < SECONDS_BELOW => Ok(number.saturating_mul(1_000_000_000)),
        Json::Int(number) => Ok(number),
        Json::Float(number) if number < SECONDS_BELOW as f64 => {
            Ok((number as i64).saturating_mul(1_000_000_000))
        }
        Json::Float(number) => Ok(number as i64),
        other => Err(Malformed(format!("json: cannot unmarshal {} into field LockDelay", other.kind()))),
    }
}

fn ttl_nanos(ttl: &str, min: Duration) -> Result<u64, Fault> {
    if ttl.is_empty() {
        return Ok(0);
    }
    let span = parse_duration(ttl)
        .map_err(|error| Fault::failed(format!("Session TTL '{ttl}' invalid: {error}")))?;
    let nanos = u64::try_from(span.nanos).unwrap_or(0);
    let allowed = min..=TTL_MAX;
    if span.nanos == 0 || allowed.contains(&Duration::from_nanos(nanos)) {
        return Ok(nanos);
    }
    let min = crate::check::format_duration(min.as_nanos() as i64);
    let text = format!("Invalid Session TTL '{}', must be between [{min}=24h0m0s]", span.nanos);
    Err(Fault::failed(text))
}

async fn destroy(call: Call) -> Outcome {
    call.own_datacenter()?;
    call.name("Missing session")?;
    // What is no id is no session, and so as good as destroyed.
    if let Ok(id) = call.rest.parse() {
        call.api.agent.propose(Command::Session(SessionWrite::Destroy(id))).await??;
    }
    Ok(Reply::flag(true))
}

async fn renew(call: Call) -> Outcome {
    call.own_datacenter()?;
    let missing = || Fault::missing(format!("Session id '{}' not found", call.rest));
    let id: Uuid = call.name("Missing session")?.parse().map_err(|_| missing())?;
    let options = call.options()?;
    call.may_answer(options.consistency)?;
    let session = call.api.agent.catalog().session(id).cloned().ok_or_else(missing)?;
    call.api.agent.renew_session(id).await?;
    Ok(Reply::json(|json| json.list(|json| encode::session(json, &session))))
}

async fn info(call: Call) -> Outcome {
    let id = call.name("Missing session")?.parse::<Uuid>().ok();
    let scope = id.map_or(Scope::Sessions, Scope::Session);
    answer(&call, scope, |catalog| id.and_then(|id| catalog.session(id)).into_iter().collect()).await
}

async fn of_node(call: Call) -> Outcome {
    let node = fold(call.name("Missing node name")?);
    let scope = Scope::NodeSessions(node.as_ref().into());
    answer(&call, scope, |catalog| catalog.node_sessions(&node).collect()).await
}

async fn list(call: Call) -> Outcome {
    answer(&call, Scope::Sessions, |catalog| catalog.sessions().collect()).await
}

async fn answer(
    call: &Call,
    scope: Scope,
    found: impl for<'a> FnOnce(&'a Catalog) -> Vec<&'a std::sync::Arc<Session>>,
) -> Outcome {
    call.read_plain(scope, |catalog| {
        let sessions = found(catalog);
        Reply::json(|json| json.list(|json| sessions.iter().for_each(|one| encode::session(json, one))))
    })
    .await
}
