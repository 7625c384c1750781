//! `/v1/txn`: several operations, all of them or none (`http-api.md` §9.8). What only reads does not go through the log.

use hyper::StatusCode;

use super::register;
use crate::{
    catalog::{Answer, Command, Found, KvOp, Op, OpFault, Refusal, RowVerb, Text},
    http::{
        call::{Call, Consistency},
        encode::{self, Json},
        json::{Malformed, Object},
        reply::{Body, Fault, Outcome, Reply},
        route::{Refuses, Route, Takes},
    },
};

const BATCH: Takes = Takes {
    bytes_max: |limits| limits.txn_bytes_max.max(limits.kv_value_bytes_max),
    see: "#txn_max_req_len",
    ..Takes::PLAIN
};

pub const ROUTES: &[Route] = &[Route {
    path: "/v1/txn",
    methods: &["PUT"],
    refuses: Refuses::NamespacesAndPartitions,
    takes: BATCH,
    handler: |call| Box::pin(txn(call)),
}];

const OPS_MAX: usize = 128;

async fn txn(call: Call) -> Outcome {
    let consistency = call.consistency()?;
    call.own_datacenter()?;
    let malformed = |malformed: Malformed| Fault::bad(format!("Failed to parse body: {malformed}"));
    let ops = operations(&call.body, call.api.agent.datacenter()).map_err(malformed)?;
    within(&ops, call.api.settings.load().limits.kv_value_bytes_max)?;
    if ops.iter().all(Op::is_read) && !ops.is_empty() {
        return look(&call, ops, consistency);
    }
    if ops.is_empty() {
        return Ok(results(&[]));
    }
    match call.api.agent.propose(Command::Txn(ops)).await? {
        Ok(applied) => Ok(match &applied.answer {
            Answer::Found(found) => results(found),
            Answer::Done | Answer::NotDone => results(&[]),
        }),
        Err(Refusal::Txn(faults)) => Ok(refusal(|json| write_faults(json, &faults))),
        Err(other) => Err(other.into()),
    }
}

/// From a body, on an agent of this datacenter.
pub fn operations(body: &[u8], own: &Text) -> Result<Vec<Op>, Malformed> {
    Object::parse_list(body)?.into_iter().filter_map(|body| decode(body, own).transpose()).collect()
}

/// Says how fresh it is, in the body and in headers.
fn look(call: &Call, ops: Vec<Op>, consistency: Consistency) -> Outcome {
    call.may_answer(consistency)?;
    let known = call.api.agent.leader().is_some();
    let meta = |json: &mut Json| encode::query_meta(json, 1, "", known);
    let reply = match call.api.agent.catalog().look(ops) {
        Ok(found) => Reply::json(|json| {
            json.object(|json| {
                write_results(json, &found);
                meta(json);
            });
        }),
        Err(faults) => refusal(|json| {
            write_faults(json, &faults);
            meta(json);
        }),
    };
    Ok(reply.with("x-consul-lastcontact", 0).with("x-consul-knownleader", known))
}

fn within(ops: &[Op], value_bytes_max: usize) -> Result<(), Fault> {
    let too_large = |text: String| Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    if ops.len() > OPS_MAX {
        return too_large(format!("Transaction contains too many operations ({} > {OPS_MAX})", ops.len()));
    }
    let mut values = ops.iter().filter_map(|op| match op {
        Op::Kv(op) => Some((&op.key, op.value.len())),
        _ => None,
    });
    match values.find(|(_, bytes)| *bytes > value_bytes_max) {
        None => Ok(()),
        Some((key, bytes)) => {
            too_large(format!("Value for key \"{key}\" is too large ({bytes} > {value_bytes_max} bytes)"))
        }
    }
}

/// The first kind of operation that is named counts; an object that names none is skipped.
fn decode(mut body: Object, own: &Text) -> Result<Option<Op>, Malformed> {
    let (kv, node) = (body.object("KV")?, body.object("Node")?);
    let (service, check) = (body.object("Service")?, body.object("Check")?);
    body.finish()?;
    if let Some(body) = kv {
        return decode_kv(body).map(Some);
    }
    if let Some(mut body) = node {
        let verb = verb(&mut body)?;
        let node = body.object("Node")?.map(|node| register::decode_node(node, own)).transpose()?;
        body.finish()?;
        return Ok(Some(Op::Node { verb, node: Box::new(node.unwrap_or_default()) }));
    }
    if let Some(mut body) = service {
        let (verb, node) = (verb(&mut body)?, body.text("Node")?.unwrap_or_default().into());
        let service = body.object("Service")?.map(register::decode_row_service).transpose()?;
        body.finish()?;
        return Ok(Some(Op::Service { verb, node, service: Box::new(service.unwrap_or_default()) }));
    }
    if let Some(mut body) = check {
        let verb = verb(&mut body)?;
        let check = body.object("Check")?.map(register::decode_check).transpose()?;
        body.finish()?;
        return Ok(Some(Op::Check { verb, check: Box::new(check.unwrap_or_default()) }));
    }
    Ok(None)
}

fn verb(body: &mut Object) -> Result<RowVerb, Malformed> {
    Ok(RowVerb::from(&*body.text("Verb")?.unwrap_or_default()))
}

fn decode_kv(mut body: Object) -> Result<Op, Malformed> {
    let op = KvOp {
        verb: body.text("Verb")?.unwrap_or_default().into(),
        key: body.text("Key")?.unwrap_or_default().as_str().into(),
        value: body.bytes("Value")?.unwrap_or_default().into(),
        flags: body.index("Flags")?.unwrap_or(0),
        index: body.index("Index")?.unwrap_or(0),
        session: body.text("Session")?.unwrap_or_default().into(),
    };
    body.enterprise();
    body.finish()?;
    Ok(Op::Kv(op))
}

fn results(found: &[Found]) -> Reply {
    Reply::json(|json| json.object(|json| write_results(json, found)))
}

fn refusal(fill: impl FnOnce(&mut Json)) -> Reply {
    let mut json = Json::default();
    json.object(fill);
    Reply::new(StatusCode::CONFLICT, Body::Json(json.into_bytes()))
}

fn write_results(json: &mut Json, found: &[Found]) {
    json.key("Results").list(|json| {
        for one in found {
            json.object(|json| match one {
                Found::Entry(entry) => encode::entry(json.key("KV"), entry),
                Found::Node(node) => encode::node(json.key("Node"), node),
                Found::Service(service) => encode::node_service_of_txn(json.key("Service"), service),
                Found::Check(check) => encode::check_of_txn(json.key("Check"), check),
            });
        }
    });
    json.key("Errors").null();
}

fn write_faults(json: &mut Json, faults: &[OpFault]) {
    json.key("Results").null();
    json.key("Errors").list(|json| {
        for fault in faults {
            json.object(|json| {
                json.key("OpIndex").number(fault.at as i128);
                json.key("What").text(&fault.what);
            });
        }
    });
}
