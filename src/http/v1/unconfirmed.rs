//! `/v1/operator/confirm-failed`, which Consul does not have: members that vanished with so many others that they are not
//! believed to be gone, and an operator's word that they are.

use crate::http::{
    call::Call,
    reply::{Outcome, Reply},
    route::{Refuses, Route, Takes},
};

pub const ROUTES: &[Route] = &[
    Route {
        path: "/v1/operator/confirm-failed",
        methods: &["GET", "PUT"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(all(call)),
    },
    Route {
        path: "/v1/operator/confirm-failed/",
        methods: &["PUT"],
        refuses: Refuses::Nothing,
        takes: Takes::PLAIN,
        handler: |call| Box::pin(confirm(call)),
    },
];

async fn all(call: Call) -> Outcome {
    if !call.is_get() {
        return confirm(call).await;
    }
    call.own_datacenter()?;
    let unconfirmed = call.api.agent.unconfirmed();
    Ok(Reply::json(|json| json.list(|json| unconfirmed.iter().for_each(|node| json.text(node)))))
}

async fn confirm(call: Call) -> Outcome {
    call.own_datacenter()?;
    let node = Some(&*call.rest).filter(|node| !node.is_empty());
    let confirmed = call.api.agent.confirm_failed(node);
    Ok(Reply::json(|json| {
        json.object(|json| {
            json.key("Confirmed").number(confirmed as u64);
        });
    }))
}
