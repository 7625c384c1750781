//! `/v1/agent/members` and its like: this agent among others (`http-api.md` §8.1).

use crate::http::{
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

/// Any value counts, `false` as well.
fn wan(call: &Call) -> bool {
    call.query.get("wan").is_some()
}

async fn members(call: Call) -> Outcome {
    if call.query.get("segment").is_some_and(|segment| segment != "_all") {
        return Err(Fault::failed("Network segments are not supported in this version of Consul"));
    }
    let filter = call.filter::<AgentMember>()?;
    let Some(members) = call.api.agent.members(wan(&call)) else {
        return Ok(Reply::json(|json| json.null()));
    };
    Ok(Reply::json(|json| {
        json.list(|json| {
            let wanted = members.iter().filter(|member| filter.shows(member));
            wanted.for_each(|member| encode::member(json, member));
        });
    }))
}

async fn join(call: Call) -> Outcome {
    let wan = wan(&call);
    call.api.agent.join(call.rest.clone(), wan).await?;
    Ok(Reply::empty())
}

/// The answer goes out before its connection ends with all others.
async fn leave(call: Call) -> Outcome {
    call.api.agent.leave().await;
    Ok(Reply::empty().last())
}

async fn force_leave(call: Call) -> Outcome {
    let (wan, prune) = (wan(&call), call.query.has("prune"));
    call.api.agent.force_leave(call.rest.clone(), prune, wan).await?;
    Ok(Reply::empty())
}
