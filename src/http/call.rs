//! One request, as its handler sees it: what followed the path, the parameters that all handlers share, the body.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    agent::Agent,
    body::Arriving,
    filter::{Filter, Shape},
    json::{Malformed, Object},
    query::{Query, parse_flag},
    reply::Fault,
    settings::Settings,
};
use crate::{
    catalog::{Catalog, Instance, Node, Text},
    check::parse_duration,
};

/// What every handler can reach.
pub struct Api {
    pub agent: Arc<dyn Agent>,
    pub settings: Arc<ArcSwap<Settings>>,
    /// Whoever waits for a change answers at once when this is cancelled.
    pub stop: CancellationToken,
}

pub struct Call {
    pub api: Arc<Api>,
    pub method: Method,
    /// What follows the route's path, decoded; empty where the route is whole.
    pub rest: String,
    /// The same in bytes, where it is no UTF-8; that is U+FFFD in `rest`.
    pub rest_bytes: Option<Vec<u8>>,
    pub query: Query,
    /// The name of the node whose agent was asked: this one's, unless another handed the request over.
    pub node: Text,
    /// Who asks: the first that a proxy says it asks for, or who is connected. `None` where that has no
    /// address.
    pub source: Option<IpAddr>,
    /// Of the request; empty where it has none.
    pub cache_control: String,
    /// Whether figures are asked for as Prometheus' text, by the Accept header.
    pub wants_openmetrics: bool,
    /// Whether a plain text is asked for, by the Accept header.
    pub wants_text: bool,
    /// Empty for a GET, whatever came with it.
    pub body: Bytes,
    /// What a route takes as it comes; its body is empty.
    pub stream: Option<Stream>,
}

/// A body that is still on its way. Nobody shares it; the lock lets whoever has a call share the rest of that.
pub struct Stream(Mutex<Arriving>);

impl Stream {
    pub fn new(body: Arriving) -> Stream {
        Stream(Mutex::new(body))
    }

    pub fn into_body(self) -> Arriving {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands on what comes, until its end, or until nobody takes it any more. Where a piece takes longer than `wait`, that
    /// is its end.
    pub async fn bring(self, pieces: mpsc::Sender<Bytes>, wait: Duration) {
        let mut body = self.into_body();
        while let Ok(Some(Ok(frame))) = timeout(wait, body.frame()).await {
            if let Ok(piece) = frame.into_data()
                && pieces.send(piece).await.is_err()
            {
                return;
            }
        }
    }
}

/// How fresh an answer must be, and what it waits for.
#[derive(Debug, PartialEq)]
pub struct Options {
    pub consistency: Consistency,
    /// Answer when the index is above this; 0 is at once.
    pub index: u64,
    /// Jitter is added where the wait begins.
    pub wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    Leader,
    Stale,
    Consistent,
}

impl Consistency {
    pub fn as_str(self) -> &'static str {
        match self {
            Consistency::Leader => "leader",
            Consistency::Stale => "stale",
            Consistency::Consistent => "consistent",
        }
    }
}

/// Nobody is asked on behalf of another datacenter yet.
pub fn is_own_datacenter(asked: &str, own: &str) -> Result<(), Fault> {
    match asked.is_empty() || asked == own {
        true => Ok(()),
        false => Err(Fault::failed("No path to datacenter")),
    }
}

impl Call {
    pub fn is_get(&self) -> bool {
        self.method == Method::GET
    }

    pub fn body(&self) -> Result<Object, Malformed> {
        Object::parse(&self.body)
    }

    /// A body that may be left out: then it says nothing.
    pub fn body_if_any(&self) -> Result<Object, Malformed> {
        if self.body.is_empty() { Ok(Object::default()) } else { self.body() }
    }

    /// What follows the route's path; `text` says what is missing where nothing does.
    pub fn name(&self, text: &str) -> Result<&str, Fault> {
        if self.rest.is_empty() { Err(Fault::bad(text)) } else { Ok(&self.rest) }
    }

    /// Every parameter of a read of the catalog that may refuse it.
    pub fn options(&self) -> Result<Options, Fault> {
        let index = self.index()?;
        let wait = self.wait()?;
        self.cache_control()?;
        let consistency = self.consistency()?;
        self.own_datacenter()?;
        Ok(Options { consistency, index, wait })
    }

    /// Answer when the index is above this; 0 is at once.
    pub fn index(&self) -> Result<u64, Fault> {
        self.query.get("index").map_or(Ok(0), |index| {
            let digits = index.bytes().all(|byte| byte.is_ascii_digit());
            index.parse().ok().filter(|_| digits).ok_or_else(|| Fault::bad("Invalid index"))
        })
    }

    pub fn wait(&self) -> Result<Duration, Fault> {
        let settings = self.api.settings.load();
        self.wait_within(settings.query_wait, settings.query_wait_max)
    }

    pub fn wait_within(&self, unless_said: Duration, max: Duration) -> Result<Duration, Fault> {
        let nanos = match self.query.get("wait") {
            None => 0,
            Some(wait) => parse_duration(wait).map_err(|_| Fault::bad("Invalid wait time"))?.nanos,
        };
        let asked = u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        Ok(asked.unwrap_or(unless_said).min(max))
    }

    pub fn consistency(&self) -> Result<Consistency, Fault> {
        let max_stale = self.query.get("max_stale").map_or(Ok(0), |text| {
            let span = parse_duration(text);
            span.map(|span| span.nanos).map_err(|_| Fault::bad(format!("Invalid max_stale value {text:?}")))
        })?;
        let stale = self.query.has("stale") || max_stale > 0;
        let clash =
            |flag| Fault::bad(format!("Cannot specify ?{flag} with ?consistent, conflicting semantics."));
        match (stale, self.query.has("consistent")) {
            (true, true) => Err(clash("stale")),
            (false, true) if self.query.has("cached") => Err(clash("cached")),
            (false, true) => Ok(Consistency::Consistent),
            (true, false) => Ok(Consistency::Stale),
            (false, false) => Ok(Consistency::Leader),
        }
    }

    /// Nothing can be asked of servers that have no leader.
    pub fn led(&self) -> Result<(), Fault> {
        self.own_datacenter()?;
        let led = self.api.agent.leader().map(drop);
        led.ok_or_else(|| Fault::failed("No cluster leader"))
    }

    /// The newest catalog, for a read that waits for nothing.
    pub fn current(&self) -> Result<Arc<Catalog>, Fault> {
        let consistency = self.consistency()?;
        self.own_datacenter()?;
        let catalog = self.api.agent.catalog();
        let may_be_stale = consistency == Consistency::Stale && catalog.index() > 0;
        if !may_be_stale {
            self.led()?;
        }
        Ok(catalog)
    }

    /// Whether the answer may come from memory without asking whether anyone leads (`http-api.md` §3.6). What is in memory
    /// here is the catalog itself.
    pub fn may_be_cached(&self) -> bool {
        self.query.has("cached") && self.api.settings.load().use_cache
    }

    /// Its numbers must be some, and then change nothing: no answer is older than the catalog.
    fn cache_control(&self) -> Result<(), Fault> {
        let is_secs = |text: &str| text.trim().parse::<u64>().is_ok();
        let holds = self.cache_control.split(',').all(|directive| match directive.split_once('=') {
            Some((name, value))
                if ["max-age", "stale-if-error"].contains(&&*name.trim().to_ascii_lowercase()) =>
            {
                is_secs(value)
            }
            _ => true,
        });
        if holds { Ok(()) } else { Err(Fault::bad("Invalid Cache-Control header.")) }
    }

    /// The datacenter asked for is this one.
    pub fn own_datacenter(&self) -> Result<(), Fault> {
        let asked = self.query.get("datacenter").or_else(|| self.query.get("dc"));
        is_own_datacenter(asked.unwrap_or_default(), self.api.agent.datacenter())
    }

    /// What of a list of such records was asked for.
    pub fn filter<S: Shape>(&self) -> Result<Filter<S>, Fault> {
        match self.query.get("filter") {
            None => Ok(Filter::everything()),
            Some(text) => Filter::parse(text).map_err(|invalid| Fault::failed(invalid.to_string())),
        }
    }

    /// A truth value that counts as said when it stands without a value.
    pub fn flag(&self, name: &str) -> Result<bool, Fault> {
        match self.query.all(name).next() {
            None => Ok(false),
            Some("") => Ok(true),
            Some(text) => parse_flag(text).ok_or_else(|| Fault::bad(format!("Invalid value for ?{name}"))),
        }
    }

    /// The node that what is asked for should be near to, if any is named: `_agent` is this one, `_ip` the one that lives
    /// where the asker does.
    pub fn near(&self, catalog: &Catalog) -> Option<String> {
        match self.query.get("near")? {
            "_agent" => Some(self.node.to_string()),
            "_ip" => catalog.node_at(self.source?).map(String::from),
            node => Some(node.into()),
        }
    }

    /// The nearest first, where something is to be near.
    pub fn by_distance<T>(
        &self,
        catalog: &Catalog,
        items: impl Iterator<Item = T>,
        node_of: impl Fn(&T) -> &str,
    ) -> Vec<T> {
        let mut items = items.collect();
        if let Some(near) = self.near(catalog) {
            catalog.sort_by_distance(&near, &mut items, node_of);
        }
        items
    }

    /// Whether a node has all the meta that `node-meta` asks for.
    pub fn wants_node(&self, node: &Node) -> bool {
        self.query.all("node-meta").filter(|pair| !pair.is_empty()).all(|pair| {
            let (key, wanted) = pair.split_once(':').unwrap_or((pair, ""));
            node.meta.as_ref().and_then(|meta| meta.get(key)).is_some_and(|value| **value == *wanted)
        })
    }

    /// Whether an instance stands on a wanted node and has every tag asked for. Nothing here comes from a peer.
    pub fn wants_instance(&self, instance: &Instance) -> bool {
        let has = |wanted| instance.service.tags.iter().any(|tag| tag.eq_ignore_ascii_case(wanted));
        self.query.all("tag").all(has) && self.wants_node(&instance.node) && self.query.get("peer").is_none()
    }

    /// Whether a parameter picks instances of a service one by one, or orders them.
    pub fn picks(&self) -> bool {
        ["tag", "node-meta", "peer", "filter", "near"].iter().any(|name| self.query.has(name))
    }

    pub fn by_node_meta(&self) -> bool {
        self.query.get("node-meta").is_some()
    }
}
