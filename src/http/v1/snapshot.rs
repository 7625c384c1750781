//! `/v1/snapshot`: all that is agreed on, as an archive (`http-api.md` §9.11). It goes and comes in pieces.

use hyper::StatusCode;
use tokio::sync::mpsc;

use crate::http::{
    call::Call,
    reply::{Body, Fault, Outcome, Reply},
    route::{Refuses, Route, Takes},
};

pub const ROUTES: &[Route] = &[Route {
    path: "/v1/snapshot",
    methods: &["GET", "PUT"],
    refuses: Refuses::Nothing,
    takes: Takes::STREAM,
    handler: |call| Box::pin(snapshot(call)),
}];

/// Taken from a client, and not yet read.
const PIECES_MAX: usize = 8;

async fn snapshot(call: Call) -> Outcome {
    if call.is_get() { save(call).await } else { restore(call).await }
}

async fn save(call: Call) -> Outcome {
    call.current()?;
    let archive = call.api.agent.save().await?;
    Ok(Reply::new(StatusCode::OK, Body::Archive(archive.pieces))
        .with("x-consul-index", archive.index.max(1))
        .with("x-consul-knownleader", call.api.agent.leader().is_some())
        .with("x-consul-lastcontact", 0))
}

/// What is not read of a bad archive is not waited for: the connection ends.
async fn restore(mut call: Call) -> Outcome {
    call.led()?;
    let (body_wait, bytes_max) = {
        let limits = &call.api.settings.load().limits;
        (limits.body_wait, limits.archive_bytes_max)
    };
    let (pieces, taken) = mpsc::channel(PIECES_MAX);
    let stream = call.stream.take();
    let brought = async {
        if let Some(stream) = stream {
            stream.bring(pieces, body_wait).await;
        }
    };
    let (_, restored) = tokio::join!(brought, call.api.agent.restore(taken, bytes_max));
    Ok(match restored {
        Ok(()) => Reply::empty(),
        Err(failure) => Reply::from(Fault::from(failure)).last(),
    })
}
