//! `/v1/status`: who leads, and who has a voice (`http-api.md` §9.9).

use crate::http::{
    call::Call,
    reply::{Outcome, Reply},
    route::{Refuses, Route, Takes},
};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/status/leader",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(leader(call)),
    },
    Route {
        path: "/v1/status/peers",
        methods: &["GET"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(peers(call)),
    },
];

async fn leader(call: Call) -> Outcome {
    call.consistency()?;
    call.own_datacenter()?;
    let leader = call.api.agent.leader().map(|leader| leader.to_string()).unwrap_or_default();
    Ok(Reply::json(|json| json.text(&leader)))
}

async fn peers(call: Call) -> Outcome {
    call.consistency()?;
    call.own_datacenter()?;
    let peers = call.api.agent.peers();
    Ok(Reply::json(|json| json.list(|json| peers.iter().for_each(|peer| json.text(&peer.to_string())))))
}
