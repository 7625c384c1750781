//! `/v1/query`: questions that are prepared, and asked by their names (`http-api.md` §9.7).

use std::sync::Arc;

use hyper::{Method, StatusCode};
use uuid::Uuid;

use crate::{
    catalog::{
        Catalog, Command, Failover, FailoverTarget, NoQuery, Query, QueryWrite, Refusal, ServiceQuery,
        Source, Template, Text,
    },
    check::parse_duration,
    http::{
        call::Call,
        encode::{self, Json},
        json::{Malformed, Object},
        query::parse_flag,
        read::Scope,
        reply::{Fault, Outcome, Reply},
        route::{Refuses, Route, Takes},
    },
};

/// What leads to single queries. Asked for its methods it has a body, as no other path.
pub const QUERY: &str = "/v1/query/";

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/query",
        methods: &["GET", "POST"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(all(call)),
    },
    Route {
        path: QUERY,
        methods: &["GET", "PUT", "DELETE"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(one(call)),
    },
];

async fn all(call: Call) -> Outcome {
    if !call.is_get() {
        return create(call).await;
    }
    call.read(Scope::Queries, |catalog, json| {
        json.list(|json| catalog.queries().for_each(|query| write(json, query)));
    })
    .await
}

async fn one(call: Call) -> Outcome {
    if let Some(asked) = call.rest.strip_suffix("/execute") {
        return if call.is_get() { execute(&call, asked) } else { Ok(only_get(&call)) };
    }
    if let Some(asked) = call.rest.strip_suffix("/explain") {
        return if call.is_get() { explain(&call, asked) } else { Ok(only_get(&call)) };
    }
    match call.method {
        Method::GET => read(call).await,
        Method::DELETE => {
            let id = existing(&call)?;
            propose(&call, QueryWrite::Delete(id)).await?;
            Ok(Reply::empty())
        }
        _ => update(call).await,
    }
}

fn only_get(call: &Call) -> Reply {
    let text = format!("method {} not allowed", call.method);
    Reply::from(Fault::new(StatusCode::METHOD_NOT_ALLOWED, text)).with("allow", "GET")
}

/// Waits only for what is there.
async fn read(call: Call) -> Outcome {
    let id = parse_id(&call.rest).map_err(Fault::failed)?;
    call.options()?;
    if call.current()?.query(id).is_none() {
        return Ok(not_found(&call));
    }
    let mut is_there = false;
    let reply = call
        .read(Scope::Query(id), |catalog, json| {
            let query = catalog.query(id);
            is_there = query.is_some();
            json.list(|json| query.into_iter().for_each(|query| write(json, query)));
        })
        .await?;
    Ok(if is_there { reply } else { not_found(&call) })
}

/// With an index, unlike what is not there elsewhere.
fn not_found(call: &Call) -> Reply {
    with_index(call, Reply::from(Fault::missing(NoQuery::Unknown.to_string())))
}

/// Of what waits for nothing.
fn with_index(call: &Call, reply: Reply) -> Reply {
    reply
        .with_number("x-consul-index", 1)
        .with("x-consul-knownleader", call.api.agent.leader().is_some())
        .with_number("x-consul-lastcontact", 0)
        .with_static("x-consul-query-backend", "blocking-query")
}

async fn create(call: Call) -> Outcome {
    call.led()?;
    let (given, id) = decode(call.body()?)?;
    if !id.is_empty() {
        return Err(Fault::failed("ID must be empty when creating a new prepared query"));
    }
    let id = Uuid::new_v4();
    let query = valid(given, id)?;
    propose(&call, QueryWrite::Create(query.into())).await?;
    Ok(Reply::json(|json| json.object(|json| json.key("ID").text(&id.to_string()))))
}

async fn update(call: Call) -> Outcome {
    let (given, _) = decode(call.body()?)?;
    let query = valid(given, existing(&call)?)?;
    propose(&call, QueryWrite::Update(query.into())).await?;
    Ok(Reply::empty())
}

/// The id of a query that is there.
fn existing(call: &Call) -> Result<Uuid, Fault> {
    call.led()?;
    let id = parse_id(&call.rest)
        .map_err(|text| Fault::failed(format!("Prepared Query lookup failed: {text}")))?;
    match call.api.agent.catalog().query(id) {
        Some(_) => Ok(id),
        None => Err(Refusal::NoQuery(id).into()),
    }
}

async fn propose(call: &Call, write: QueryWrite) -> Result<(), Fault> {
    match call.api.agent.propose(Command::Query(write)).await? {
        Ok(_) => Ok(()),
        Err(Refusal::NoQuery(id)) => Err(Refusal::NoQuery(id).into()),
        Err(refusal) => Err(refused(refusal)),
    }
}

fn refused(reason: impl std::fmt::Display) -> Fault {
    Fault::failed(format!("raft apply failed: {reason}"))
}

fn parse_id(text: &str) -> Result<Uuid, String> {
    if text.len() != uuid::fmt::Hyphenated::LENGTH {
        return Err("failed prepared query lookup: index error: UUID must be 36 characters".into());
    }
    Uuid::try_parse(text)
        .map_err(|_| format!("failed prepared query lookup: index error: invalid UUID {text:?}"))
}

/// A query as a body gives it; what must be checked is as it came.
struct Given {
    query: Query,
    session: String,
    nearest: i64,
}

/// From a body, whatever id it says.
#[cfg(test)]
pub fn definition(body: Object, id: Uuid) -> Result<Query, Fault> {
    valid(decode(body)?.0, id)
}

/// With the id that was given.
fn decode(mut body: Object) -> Result<(Given, String), Malformed> {
    let template = body.object("Template")?.map(decode_template).transpose()?.unwrap_or_default();
    let (service, nearest) = body.object("Service")?.map(decode_service).transpose()?.unwrap_or_default();
    let ttl = body.object("DNS")?.map(|mut dns| {
        let ttl = text(&mut dns, "TTL")?;
        dns.finish().map(|()| ttl)
    });
    let id = body.text("ID")?.unwrap_or_default();
    let session = body.text("Session")?.unwrap_or_default();
    let query = Query {
        name: text(&mut body, "Name")?,
        token: text(&mut body, "Token")?,
        template,
        service,
        ttl: ttl.transpose()?.unwrap_or_default(),
        ..Query::default()
    };
    body.ignore("CreateIndex|ModifyIndex|WriteRequest");
    body.finish()?;
    Ok((Given { query, session, nearest }, id))
}

fn decode_template(mut body: Object) -> Result<Template, Malformed> {
    let template = Template {
        kind: text(&mut body, "Type")?,
        regexp: text(&mut body, "Regexp")?,
        remove_empty_tags: body.flag("RemoveEmptyTags")?.unwrap_or(false),
    };
    body.finish().map(|()| template)
}

fn decode_service(mut body: Object) -> Result<(ServiceQuery, i64), Malformed> {
    let (failover, nearest) = body.object("Failover")?.map(decode_failover).transpose()?.unwrap_or_default();
    let service = ServiceQuery {
        service: text(&mut body, "Service")?,
        failover,
        only_passing: body.flag("OnlyPassing")?.unwrap_or(false),
        ignore_checks: texts(&mut body, "IgnoreCheckIDs")?,
        near: text(&mut body, "Near")?,
        tags: texts(&mut body, "Tags")?,
        node_meta: body.map("NodeMeta")?,
        service_meta: body.map("ServiceMeta")?,
        connect: body.flag("Connect")?.unwrap_or(false),
        peer: text(&mut body, "Peer")?,
    };
    body.refuse("SamenessGroup")?;
    body.enterprise();
    body.finish()?;
    Ok((service, nearest))
}

fn decode_failover(mut body: Object) -> Result<(Failover, i64), Malformed> {
    let target = |mut body: Object| {
        let (peer, datacenter) = (text(&mut body, "Peer")?, text(&mut body, "Datacenter")?);
        body.enterprise();
        body.finish().map(|()| FailoverTarget { peer, datacenter })
    };
    let nearest = body.int("NearestN")?.unwrap_or(0);
    let datacenters = texts(&mut body, "Datacenters")?;
    let targets = body.objects("Targets")?;
    let targets = targets.map(|targets| targets.into_iter().map(target).collect()).transpose()?;
    body.finish()?;
    Ok((Failover { nearest: 0, datacenters, targets }, nearest))
}

fn text(body: &mut Object, key: &str) -> Result<Text, Malformed> {
    Ok(body.text(key)?.unwrap_or_default().into())
}

fn texts(body: &mut Object, key: &str) -> Result<Option<Arc<[Text]>>, Malformed> {
    Ok(body.texts(key)?.map(|texts| texts.into_iter().map(Text::from).collect()))
}

/// What must be right of a query before it is put to the log.
fn valid(given: Given, id: Uuid) -> Result<Query, Fault> {
    let Given { mut query, session, nearest } = given;
    let invalid = |text: String| Fault::failed(format!("Invalid prepared query: {text}"));
    if query.name.is_empty() && !query.is_template() && session.is_empty() {
        return Err(invalid("Must be bound to a session".into()));
    }
    if query.service.service.is_empty() {
        return Err(invalid("Must provide a Service name to query".into()));
    }
    query.service.failover.nearest =
        nearest.try_into().map_err(|_| invalid(format!("Bad NearestN '{nearest}', must be >= 0")))?;
    query.ttl_secs = ttl_secs(&query.ttl).map_err(invalid)?;
    if !session.is_empty() {
        let unknown = |_| refused(Refusal::NoSession(session.as_str().into()));
        query.session = Some(Uuid::try_parse(&session).map_err(unknown)?);
    }
    query.check_template().map_err(|fault| refused(format!("failed compiling template: {fault}")))?;
    query.id = id;
    Ok(query)
}

fn ttl_secs(ttl: &str) -> Result<Option<u32>, String> {
    if ttl.is_empty() {
        return Ok(None);
    }
    let span = parse_duration(ttl).map_err(|fault| format!("Bad DNS TTL '{ttl}': {fault}"))?;
    let nanos = u64::try_from(span.nanos).map_err(|_| format!("DNS TTL '{}', must be >=0", span.nanos))?;
    Ok(Some(u32::try_from(nanos / 1_000_000_000).unwrap_or(u32::MAX)))
}

/// PreparedQuery: a definition, with what nobody gave as `null`.
fn write(json: &mut Json, query: &Query) {
    json.object(|json| {
        json.key("ID").text(&query.id.to_string());
        json.key("Name").text(&query.name);
        json.key("Session").text(&query.session.map(|session| session.to_string()).unwrap_or_default());
        json.key("Token").text(&query.token);
        json.key("Template").object(|json| {
            json.key("Type").text(&query.template.kind);
            json.key("Regexp").text(&query.template.regexp);
            json.key("RemoveEmptyTags").flag(query.template.remove_empty_tags);
        });
        write_service(json.key("Service"), &query.service);
        json.key("DNS").object(|json| json.key("TTL").text(&query.ttl));
        encode::indexes(json, query.created, query.modified);
    });
}

fn write_service(json: &mut Json, wanted: &ServiceQuery) {
    let Failover { nearest, datacenters, targets } = &wanted.failover;
    json.object(|json| {
        json.key("Service").text(&wanted.service);
        json.key("SamenessGroup").text("");
        json.key("Failover").object(|json| {
            json.key("NearestN").number(*nearest);
            texts_or_null(json.key("Datacenters"), datacenters.as_deref());
            json.key("Targets");
            match targets {
                None => json.null(),
                Some(targets) => json.list(|json| {
                    for FailoverTarget { peer, datacenter } in targets.iter() {
                        json.object(|json| {
                            json.key("Peer").text(peer);
                            json.key("Datacenter").text(datacenter);
                        });
                    }
                }),
            }
        });
        json.key("OnlyPassing").flag(wanted.only_passing);
        texts_or_null(json.key("IgnoreCheckIDs"), wanted.ignore_checks.as_deref());
        json.key("Near").text(&wanted.near);
        texts_or_null(json.key("Tags"), wanted.tags.as_deref());
        json.key("NodeMeta");
        encode::map_or_null(json, &wanted.node_meta);
        json.key("ServiceMeta");
        encode::map_or_null(json, &wanted.service_meta);
        json.key("Connect").flag(wanted.connect);
        json.key("Peer").text(&wanted.peer);
    });
}

fn texts_or_null(json: &mut Json, texts: Option<&[Text]>) {
    match texts {
        None => json.null(),
        Some(texts) => json.texts(texts),
    }
}

/// What a name asks for; or the answer that there is nothing.
fn found(call: &Call, catalog: &Catalog, asked: &str) -> Result<Result<Arc<Query>, Reply>, Fault> {
    match catalog.find_query(asked) {
        Ok(query) => Ok(Ok(query)),
        Err(NoQuery::Unknown) => Ok(Err(not_found(call))),
        Err(error) => Err(Fault::failed(error.to_string())),
    }
}

/// There is no other datacenter to ask: none that a query names is known, so none is tried.
fn execute(call: &Call, asked: &str) -> Outcome {
    let limit = call.query.get("limit").map_or(Ok(0), |limit| {
        let bad = || format!("Bad limit: strconv.Atoi: parsing {limit:?}: invalid syntax");
        limit.parse::<i64>().map_err(|_| Fault::failed(bad()))
    })?;
    let connect = call.query.get("connect").map_or(Ok(false), |flag| {
        let bad =
            || format!("Error parsing 'connect' value: strconv.ParseBool: parsing {flag:?}: invalid syntax");
        parse_flag(flag).ok_or_else(|| Fault::failed(bad()))
    })?;
    let catalog = call.current()?;
    let mut query = match found(call, &catalog, asked)? {
        Ok(query) => query,
        Err(reply) => return Ok(reply),
    };
    if connect && !query.service.connect {
        Arc::make_mut(&mut query).service.connect = true;
    }
    let near = call.query.get("near").unwrap_or_default();
    let source = Source { agent: &call.node, ip: call.source, near };
    let found = catalog.execute(&query, &source, &mut fastrand::Rng::new()).instances;
    let most = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    answer(call, |json| {
        json.key("Service").text(&query.service.service);
        json.key("Nodes").list(|json| {
            found.iter().take(most).for_each(|instance| encode::instance_of_query(json, instance));
        });
        json.key("DNS").object(|json| json.key("TTL").text(&query.ttl));
        json.key("Datacenter").text(call.api.agent.datacenter());
        json.key("PeerName").text("");
        json.key("Failovers").number(0);
    })
}

/// The query that a name asks for, as it would be executed.
fn explain(call: &Call, asked: &str) -> Outcome {
    let catalog = call.current()?;
    match found(call, &catalog, asked)? {
        Ok(query) => answer(call, |json| write(json.key("Query"), &query)),
        Err(reply) => Ok(reply),
    }
}

/// It waits for nothing, so it has no index.
fn answer(call: &Call, write: impl FnOnce(&mut Json)) -> Outcome {
    let consistency = call.consistency()?.as_str();
    let leads = call.api.agent.leader().is_some();
    let reply = Reply::json(|json| {
        json.object(|json| {
            write(json);
            encode::query_meta(json, 1, consistency, leads);
        });
    });
    Ok(with_index(call, reply).with_static("x-consul-effective-consistency", consistency))
}
