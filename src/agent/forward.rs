//! What an agent that is no server hands on: requests and questions about the datacenter.

use std::time::Duration;

use crate::{
    catalog::Text,
    dns::{self, AskedElsewhere, ToldElsewhere},
    http::{Answer, Elsewhere, Errand, ErrandBody, Failure, Pending},
    rpc::{self, Body, DnsAsked, HttpAsked},
};

/// Hands requests of the HTTP API on.
pub struct HttpForward {
    /// This agent's.
    pub node: Text,
    pub rpc: rpc::Client,
}

/// An archive takes its time, on its way and being read.
const ARCHIVE_PATIENCE: Duration = Duration::from_secs(1800);

impl Elsewhere for HttpForward {
    fn ask(&self, errand: Errand) -> Pending<'static, Result<Answer, Failure>> {
        let (rpc, node) = (self.rpc.clone(), self.node.clone());
        Box::pin(async move {
            let Errand { method, uri, headers, source, body, wait } = errand;
            let is_read = method == "GET";
            let (body, patience) = match body {
                ErrandBody::Whole(bytes) => (Body::Whole(bytes), rpc.patience()),
                ErrandBody::Coming(pieces) => (Body::Coming(pieces), ARCHIVE_PATIENCE),
            };
            // A server adds up to a sixteenth.
            let patience = wait.map_or(patience, |wait| wait + wait / 16 + rpc.hold());
            let asked = HttpAsked { method, uri, headers, node, source };
            let (told, pieces) = rpc
                .http(asked, body, is_read, patience)
                .await
                .map_err(|error| Failure::Other(error.to_string()))?;
            Ok(Answer { status: told.status, headers: told.headers, length: told.length, pieces })
        })
    }
}

/// Hands questions for names on.
pub struct DnsForward {
    pub rpc: rpc::Client,
}

/// For one answer. Who asks waits a little longer, and another server may be asked meanwhile.
const DNS_PATIENCE: Duration = Duration::from_secs(3);

impl dns::Elsewhere for DnsForward {
    fn ask(&self, asked: AskedElsewhere) -> Pending<'static, Result<ToldElsewhere, String>> {
        let rpc = self.rpc.clone();
        Box::pin(async move {
            let AskedElsewhere { packet, tcp, from, settings } = asked;
            let asked = DnsAsked { packet, tcp, from: Some(from), settings };
            let told = rpc.dns(&asked, DNS_PATIENCE).await.map_err(|error| error.to_string())?;
            Ok(ToldElsewhere { reply: told.reply, left: told.left, unsure: told.unsure })
        })
    }
}
