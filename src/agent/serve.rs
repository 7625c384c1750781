//! What a server does for other agents: proposes for them, and answers what they were asked.

use std::sync::Arc;

use tokio_stream::StreamExt;

use super::shared::Shared;
use crate::{
    catalog::{Catalog, Command, NodeCoordinate, Reply, Subscribe, Subscription, Topic},
    dns::{self, AskedElsewhere},
    http::{self, Answer, Desk, Errand, ErrandBody},
    rpc::{DnsAsked, DnsTold, Failure, HttpAsked, HttpTold, Pending, Pieces, Serve},
};

pub struct Served {
    shared: Arc<Shared>,
    http: Desk,
    dns: dns::Desk,
}

/// What clients match on, and try again at.
const NO_LEADER: &str = "No cluster leader";

impl Served {
    pub fn new(shared: Arc<Shared>, http: Desk, dns: dns::Desk) -> Self {
        Served { shared, http, dns }
    }
}

impl Subscribe for Served {
    fn catalog(&self) -> Arc<Catalog> {
        self.shared.backing.catalog()
    }

    fn subscribe(&self, topics: Vec<Topic>) -> Subscription {
        self.shared.backing.subscribe(topics)
    }
}

impl Serve for Served {
    fn propose(self: Arc<Self>, command: Command) -> Pending<Result<Reply, Failure>> {
        Box::pin(async move {
            let written = self.shared.propose(command).await;
            written.map_err(|unwritten| failure(unwritten.into()))
        })
    }

    fn http(self: Arc<Self>, asked: HttpAsked, body: Pieces) -> Pending<Result<(HttpTold, Pieces), Failure>> {
        Box::pin(async move {
            let HttpAsked { method, uri, headers, node, source } = asked;
            let errand = Errand { method, uri, headers, source, body: ErrandBody::Coming(body), wait: None };
            let answer = self.http.answer(node, errand).await.map_err(failure)?;
            let Answer { status, headers, length, mut pieces } = answer;
            let may_lack_leader = status == 500 && length == Some(NO_LEADER.len() as u64);
            let first = if may_lack_leader { pieces.next().await } else { None };
            let no_leader = matches!(&first, Some(Ok(text)) if text == NO_LEADER);
            let pieces = Box::pin(tokio_stream::iter(first).chain(pieces));
            Ok((HttpTold { status, headers, length, no_leader }, pieces as Pieces))
        })
    }

    fn dns(self: Arc<Self>, asked: DnsAsked) -> Result<DnsTold, Failure> {
        let DnsAsked { packet, tcp, from, settings } = asked;
        let from = from.ok_or_else(|| Failure::Other("Dns: nobody asks".into()))?;
        let told =
            self.dns.answer(&AskedElsewhere { packet, tcp, from, settings }).map_err(Failure::Other)?;
        Ok(DnsTold { reply: told.reply, left: told.left, unsure: told.unsure })
    }

    fn coordinate(&self, coordinate: NodeCoordinate) {
        self.shared.backing.update_coordinate(coordinate);
    }
}

fn failure(failure: http::Failure) -> Failure {
    match failure {
        http::Failure::NoLeader => Failure::NoLeader,
        other => Failure::Other(other.to_string()),
    }
}
