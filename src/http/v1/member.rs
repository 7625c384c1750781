//! `/v1/agent/members` and its like: this agent among others (`http-api.md` §8.1). Nobody else is known before there is
//! gossip: to join oneself is all that can be joined, and who is a member is alive.

use std::net::{IpAddr, SocketAddr};

use crate::http::{
    agent::Member,
    call::Call,
    encode,
    filter::AgentMember,
    reply::{Fault, Outcome, Reply},
    route::{Refuses, Route, Takes},
};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/agent/members",
        methods: &["GET"],
        refuses: Refuses::Partitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(members(call)),
    },
    Route {
        path: "/v1/agent/join/",
        methods: &["PUT"],
        refuses: Refuses::Partitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(join(call)),
    },
    Route {
        path: "/v1/agent/leave",
        methods: &["PUT"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(leave(call)),
    },
    Route {
        path: "/v1/agent/force-leave/",
        methods: &["PUT"],
        refuses: Refuses::Partitions,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(force_leave(call)),
    },
];

/// Of Consul's pools of members, where an address says no port.
const LAN_PORT: u16 = 8301;
const WAN_PORT: u16 = 8302;

/// Any value counts, `false` as well.
fn wan(call: &Call) -> bool {
    call.query.get("wan").is_some()
}

async fn members(call: Call) -> Outcome {
    if call.query.get("segment").is_some_and(|segment| segment != "_all") {
        return Err(Fault::failed("Network segments are not supported in this version of Consul"));
    }
    let filter = call.filter::<AgentMember>()?;
    let members = call.api.agent.members(wan(&call));
    Ok(Reply::json(|json| {
        json.list(|json| {
            let wanted = members.iter().filter(|member| filter.shows(member));
            wanted.for_each(|member| encode::member(json, member));
        });
    }))
}

async fn join(call: Call) -> Outcome {
    let wan = wan(&call);
    let port = if wan { WAN_PORT } else { LAN_PORT };
    let with_port = |ip: IpAddr| SocketAddr::new(ip, port);
    let addr = call.rest.parse().ok().or_else(|| call.rest.parse().ok().map(with_port));
    let is_here = |member: &Member| addr.is_some() && member.gossip == addr;
    if call.api.agent.members(wan).iter().any(is_here) {
        return Ok(Reply::empty());
    }
    let shown = addr.map_or(call.rest, |addr: SocketAddr| addr.to_string());
    let fault = format!("Failed to join {shown}: this agent does not speak with others yet");
    Err(Fault::failed(format!("1 error occurred:\n\t* {fault}\n\n")))
}

/// The answer goes out before its connection ends with all others.
async fn leave(call: Call) -> Outcome {
    call.api.agent.leave().await;
    Ok(Reply::empty().last())
}

/// Whoever is alive stays.
async fn force_leave(call: Call) -> Outcome {
    let wan = wan(&call);
    match call.api.agent.members(wan).iter().any(|member| *member.name == *call.rest) {
        true => Ok(Reply::empty()),
        false => {
            let shown = if wan { "" } else { &call.rest };
            Err(Fault::failed(format!("agent: No node found with name '{shown}'")))
        }
    }
}
