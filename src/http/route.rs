//! From a request's line to its handler, by a table of paths; and what is answered where no handler is reached: unclean
//! and unknown paths, wrong methods, Enterprise parameters (`http-api.md` §1, §2.3).

use std::{
    borrow::Cow,
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Version,
    header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, HOST, HeaderName, HeaderValue, VARY},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    agent::Pending,
    body::{self, Arriving},
    call::{Api, Call, Stream},
    counters::{Counters, Refused},
    encode,
    frames::Frames,
    guard::{self, Ration},
    onward::Onward,
    query::{self, Query},
    reply::{Body, Fault, Outcome, Reply},
    settings::Limits,
    v1,
};
use crate::catalog::Text;

/// A path and what it leads to. One that ends in `/` leads there with whatever follows it.
pub struct Route {
    pub path: &'static str,
    pub methods: &'static [&'static str],
    pub refuses: Refuses,
    pub takes: Takes,
    pub handler: Handler,
}

pub type Handler = fn(Call) -> Pending<'static, Outcome>;

/// Enterprise parameters that a route looks at, and then refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refuses {
    Nothing,
    Partitions,
    NamespacesAndPartitions,
}

/// The body that a route takes with anything but a GET. Most take [`Takes::PLAIN`]; one with a limit of its own has a
/// constant beside its table, as `Takes { bytes_max: |limits| limits.kv_value_bytes_max, see: "#kv_max_value_size" }`.
#[derive(Clone, Copy)]
pub struct Takes {
    /// Inclusive. What is larger is answered 413, and its connection ends.
    pub bytes_max: fn(&Limits) -> usize,
    /// Where Consul's documentation tells of the limit, as `#kv_max_value_size`; empty where it does not.
    pub see: &'static str,
    /// As it comes, however large it is: see [`Call::stream`].
    pub as_it_comes: bool,
}

/// Who asks.
pub enum Asker {
    /// Whoever is connected, where that has an address.
    Connected(Option<IpAddr>),
    /// The agent of another node, for somebody who asked it.
    Agent { node: Text, source: Option<IpAddr> },
}

/// To an agent that asks for another's own.
const OWN: &str =
    "Permission denied: an agent answers for itself only whoever is connected to its own HTTP API";

/// Requests into answers.
pub struct Router {
    api: Arc<Api>,
    bodies: Semaphore,
    ration: Arc<Ration>,
    counters: Arc<Counters>,
}

impl Router {
    pub fn new(api: Arc<Api>, counters: Arc<Counters>, ration: Arc<Ration>) -> Router {
        let bodies_max = api.settings.load().limits.bodies_max;
        Router { bodies: Semaphore::new(bodies_max), ration, counters, api }
    }

    /// The request is taken apart before this returns, and nothing of it is held while its answer waits: thousands may
    /// wait. What goes to another agent has nothing yet of what that one puts on every answer.
    pub fn answer(
        self: &Arc<Self>,
        request: Request<Arriving>,
        asker: Asker,
    ) -> impl Future<Output = Response<Frames>> + Send + use<> {
        let (gzip, method) = (accepts_gzip(request.headers()), request.method().clone());
        let is_own = matches!(asker, Asker::Connected(_));
        let (begun, router) = (self.begin(request, asker), self.clone());
        async move {
            let mut reply = match begun {
                Begun::Answered { reply, is_known } => {
                    if is_own && is_known {
                        known_headers(reply)
                    } else {
                        reply
                    }
                }
                Begun::Working { path, work, pretty } => {
                    let start = Instant::now();
                    let done = work.await.unwrap_or_else(Reply::from);
                    router.counters.took(path, &method, start.elapsed());
                    let reply = printed(done, pretty);
                    if is_own { known_headers(reply) } else { reply }
                }
            };
            if is_own {
                reply.headers.extend(router.api.settings.load().response_headers.iter().cloned());
            }
            router.counters.answered(&method, reply.status);
            // The asked agent puts something before what failed.
            let is_told = !is_own && reply.status == StatusCode::INTERNAL_SERVER_ERROR;
            reply.into_response(gzip && !is_told).await
        }
    }

    fn begin(self: &Arc<Self>, request: Request<Arriving>, asker: Asker) -> Begun {
        let settings = self.api.settings.load();
        let (route, rest) = match line(&request, settings.any_character) {
            Ok(found) => found,
            Err(reply) => return Begun::Answered { reply, is_known: false },
        };
        let known = |reply| Begun::Answered { reply, is_known: true };
        // What an operator forbids was forbidden where it was asked; what is this agent's own is never asked so.
        let may_ask = match &asker {
            Asker::Connected(_) => guard::may_ask(&settings, route.path, &rest),
            Asker::Agent { .. } if v1::is_of_datacenter(route) => Ok(()),
            Asker::Agent { .. } => Err(Fault::new(StatusCode::FORBIDDEN, OWN)),
        };
        if let Err(fault) = may_ask {
            return known(fault.into());
        }
        let Some(query) = Query::parse(request.uri().query().unwrap_or_default()) else {
            let reply = Reply::new(StatusCode::INTERNAL_SERVER_ERROR, Body::Empty);
            return known(reply);
        };
        let pretty = settings.pretty || query.has("pretty");
        match self.call(route, rest, query, request, asker) {
            Ok(work) => Begun::Working { path: route.path, work, pretty },
            Err(reply) => known(reply),
        }
    }

    /// The work of the handler; or the answer, where it is not reached.
    fn call(
        self: &Arc<Self>,
        route: &'static Route,
        rest: String,
        query: Query,
        request: Request<Arriving>,
        asker: Asker,
    ) -> Result<Pending<'static, Outcome>, Reply> {
        let allow = || format!("OPTIONS,{}", route.methods.join(","));
        if request.method() == Method::OPTIONS {
            let reply = if route.path == v1::QUERY {
                Reply::json(|json| json.object(|_| {}))
            } else {
                Reply::empty()
            };
            return Err(reply.with("allow", allow()));
        }
        if !route.methods.contains(&request.method().as_str()) {
            let text = format!("method {} not allowed", request.method());
            return Err(Reply::from(Fault::new(StatusCode::METHOD_NOT_ALLOWED, text)).with("allow", allow()));
        }
        let is_get = request.method() == Method::GET;
        self.let_through(route, is_get, &asker)?;
        route.refuses.check(&query, request.headers())?;
        let headers = request.headers();
        let (node, source) = match asker {
            Asker::Connected(from) => (self.api.agent.node().clone(), asked_for(headers).or(from)),
            Asker::Agent { node, source } => (node, source),
        };
        let nested = self.api.settings.load().pretty && !query.has("pretty");
        let onward = Onward::of(&self.api.agent, route, &request, nested);
        let call = Call {
            api: self.api.clone(),
            method: request.method().clone(),
            rest_bytes: odd_bytes(&rest, route, &request),
            rest,
            query,
            node,
            source,
            cache_control: text_of(headers, CACHE_CONTROL),
            wants_openmetrics: wants_openmetrics(headers),
            wants_text: wants_text(headers),
            body: Bytes::new(),
            stream: None,
        };
        Ok(match is_get {
            true => done(route, call, onward),
            false => Box::pin(self.clone().with_body(route, call, onward, request)),
        })
    }

    async fn with_body(
        self: Arc<Self>,
        route: &Route,
        call: Call,
        onward: Option<Onward>,
        request: Request<Arriving>,
    ) -> Outcome {
        let (body_wait, bytes_max) = {
            let limits = &self.api.settings.load().limits;
            (limits.body_wait, (route.takes.bytes_max)(limits))
        };
        let until = Instant::now() + body_wait;
        // Held until the answer, so that no more bodies than this are being worked on.
        let Ok(Ok(_turn)) = timeout_at(until, self.bodies.acquire()).await else {
            self.counters.refused(Refused::BodiesAtOnce);
            return Err(Fault::failed("Too many requests at once, try again later"));
        };
        if route.takes.as_it_comes {
            let stream = Some(Stream::new(request.into_body()));
            return done(route, Call { stream, ..call }, onward).await;
        }
        match timeout_at(until, body::read(request, bytes_max, route.takes.see)).await {
            Ok(Ok(body)) => done(route, Call { body, ..call }, onward).await,
            Ok(Err(fault)) => {
                if fault.status == StatusCode::PAYLOAD_TOO_LARGE {
                    self.counters.refused(Refused::BodyBytes);
                }
                Ok(Reply::from(fault).last())
            }
            Err(_) => {
                self.counters.refused(Refused::BodyWait);
                Ok(Reply::from(Fault::new(StatusCode::REQUEST_TIMEOUT, "Request body took too long")).last())
            }
        }
    }

    /// Whether an operator lets it through, by who asks and by how many ask.
    fn let_through(&self, route: &Route, is_get: bool, asker: &Asker) -> Result<(), Fault> {
        let settings = self.api.settings.load();
        if let (false, Asker::Connected(from)) = (is_get, asker) {
            guard::may_write(&settings, *from)?;
        }
        self.ration.take(&settings.rates, route.path, is_get, &self.counters, Instant::now())
    }
}

/// The handler's work, or a server's.
fn done(route: &Route, call: Call, onward: Option<Onward>) -> Pending<'static, Outcome> {
    match onward {
        Some(onward) => Box::pin(onward.go(call)),
        None => (route.handler)(call),
    }
}

/// A request whose line and headers are read.
enum Begun {
    Answered {
        reply: Reply,
        /// Whether the path is.
        is_known: bool,
    },
    Working {
        /// Of the route.
        path: &'static str,
        work: Pending<'static, Outcome>,
        pretty: bool,
    },
}

/// As it is sent: compact, or nested.
fn printed(mut reply: Reply, pretty: bool) -> Reply {
    if pretty {
        reply.body = match reply.body {
            Body::Json(json) => Body::Json(encode::pretty(&json)),
            Body::List(list) => Body::Json(encode::pretty(&list.to_vec())),
            other => other,
        };
    }
    reply
}

impl Takes {
    /// A body of the usual size, `Limits::body_bytes_max`.
    pub const PLAIN: Takes = Takes { bytes_max: |limits| limits.body_bytes_max, see: "", as_it_comes: false };

    /// A body that is not gathered before the handler has it.
    pub const STREAM: Takes = Takes { as_it_comes: true, ..Takes::PLAIN };
}

impl Refuses {
    /// What asks for the only namespace and the only partition there are is let through.
    fn check(self, query: &Query, headers: &HeaderMap) -> Result<(), Fault> {
        let kinds =
            [("ns", "X-Consul-Namespace", "Namespaces"), ("partition", "X-Consul-Partition", "Partitions")];
        let refused = match self {
            Refuses::Nothing => &kinds[2..],
            Refuses::Partitions => &kinds[1..],
            Refuses::NamespacesAndPartitions => &kinds[..],
        };
        let says = |value: &&str| !value.is_empty() && !value.eq_ignore_ascii_case("default");
        for (parameter, header, what) in refused {
            let fault = |kind: &str, name: &str| {
                Fault::bad(format!("Invalid {kind}: {name:?} - {what} are a Consul Enterprise feature"))
            };
            if query.get(parameter).filter(says).is_some() {
                return Err(fault("query parameter", parameter));
            }
            if headers.get(*header).and_then(|value| value.to_str().ok()).filter(says).is_some() {
                return Err(fault("header", header));
            }
        }
        Ok(())
    }
}

/// What follows a route's path, where that is no UTF-8.
fn odd_bytes(rest: &str, route: &Route, request: &Request<Arriving>) -> Option<Vec<u8>> {
    let bytes = rest.contains(char::REPLACEMENT_CHARACTER).then(|| query::decode_bytes(request.uri().path()));
    Some(bytes??.split_off(route.path.len()))
}

/// The route of a request and what followed its path; or the answer, where there is none.
fn line(request: &Request<Arriving>, any_character: bool) -> Result<(&'static Route, String), Reply> {
    let malformed = |text: &str| Reply::from(Fault::bad(text)).last();
    if request.version() >= Version::HTTP_11 && !request.headers().contains_key(HOST) {
        return Err(malformed("400 Bad Request: missing required Host header"));
    }
    let path = query::decode(request.uri().path()).ok_or_else(|| malformed("400 Bad Request"))?;
    if !any_character && !path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.chars().all(is_printable)
    {
        return Err(Fault::bad("").into());
    }
    let clean = clean(&path);
    if clean != path {
        return Err(moved(request, &clean));
    }
    match find(&path) {
        Found::Route(route, rest) => Ok((route, rest.to_string())),
        Found::WithSlash => Err(moved(request, &format!("{path}/"))),
        Found::Nothing => Err(unknown(&path)),
    }
}

enum Found<'a> {
    Route(&'static Route, &'a str),
    /// It would be a route with a slash behind.
    WithSlash,
    Nothing,
}

/// By path: a look-up for each slash in a request's, however many routes there are.
static ROUTES: LazyLock<HashMap<&'static str, &'static Route, ahash::RandomState>> =
    LazyLock::new(|| v1::routes().map(|route| (route.path, route)).collect());

/// A whole path, else the longest that leads on.
fn find(path: &str) -> Found<'_> {
    if let Some(route) = ROUTES.get(path).filter(|_| !path.ends_with('/')) {
        return Found::Route(route, "");
    }
    let mut starts = path.rmatch_indices('/').map(|(at, _)| &path[..=at]);
    let found = starts.find_map(|start| ROUTES.get(start));
    // A name that a shorter path leads to may be another's path without its slash.
    if ROUTES.contains_key(format!("{path}/").as_str()) {
        return Found::WithSlash;
    }
    match found {
        Some(route) => Found::Route(route, &path[route.path.len()..]),
        None => Found::Nothing,
    }
}

/// Without empty segments, `.` and `..`; a slash at the end stays.
fn clean(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let end = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{end}", segments.join("/")))
}

fn moved(request: &Request<Arriving>, path: &str) -> Reply {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = query::encode(path) + &query;
    let body = match *request.method() {
        Method::GET => {
            Body::Html(format!("<a href=\"{}\">Moved Permanently</a>.\n\n", escape_html(&location)))
        }
        _ => Body::Empty,
    };
    Reply::new(StatusCode::MOVED_PERMANENTLY, body).with("location", location)
}

fn unknown(path: &str) -> Reply {
    let (status, text) = match path {
        "/" => (
            StatusCode::OK,
            "Consul Agent: UI disabled. To enable, set ui_config.enabled=true in the agent configuration and restart.",
        ),
        path if path.contains("/v1/") => {
            (StatusCode::NOT_FOUND, "Invalid URL path: not a recognized HTTP API endpoint\n")
        }
        _ => (
            StatusCode::NOT_FOUND,
            "Invalid URL path: if attempting to use the HTTP API, ensure the path starts with '/v1/'\n",
        ),
    };
    Reply::new(status, Body::Text(text.into()))
}

/// What every answer of a known path carries.
fn known_headers(mut reply: Reply) -> Reply {
    reply.headers.push((VARY, HeaderValue::from_static("Accept-Encoding")));
    reply.with_static("x-consul-default-acl-policy", "allow")
}

/// Whom a proxy asks for: the first that it names.
fn asked_for(headers: &HeaderMap) -> Option<IpAddr> {
    let named = headers.get("x-forwarded-for")?.to_str().ok()?;
    named.split(',').next()?.trim().parse().ok()
}

/// A header's value; empty where there is none.
fn text_of(headers: &HeaderMap, name: HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().into()
}

/// `gzip` by name, and not at a quality of 0.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let zero =
            quality.trim().strip_prefix("q=").and_then(|quality| quality.parse::<f32>().ok()) == Some(0.0);
        name.trim().eq_ignore_ascii_case("gzip") && !zero
    })
}

/// By either of the types in which Prometheus' text may be asked for.
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|kind| {
        let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
        match parts.next().as_deref() {
            Some("application/openmetrics-text") => true,
            Some("text/plain") => {
                parts.next().is_some_and(|version| ["version=0.4.0", "version=0.0.4"].contains(&&*version))
            }
            _ => false,
        }
    })
}

fn wants_text(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.starts_with("text/plain"))
}

fn is_printable(c: char) -> bool {
    let is_format = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    c == ' ' || !(c.is_control() || c.is_whitespace() || is_format)
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('\'', "&#39;").replace('"', "&#34;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        let table = [
            ("/", "/"),
            ("", "/"),
            ("/v1//kv/a", "/v1/kv/a"),
            ("/v1/./kv/../kv/", "/v1/kv/"),
            ("/..", "/"),
            ("//", "/"),
            ("/v1/kv/a", "/v1/kv/a"),
        ];
        for (path, wanted) in table {
            assert_eq!(clean(path), wanted, "{path}");
        }
    }

    #[test]
    fn the_longest_path_leads() {
        let found = |path| match find(path) {
            Found::Route(route, rest) => format!("{} {rest}", route.path),
            Found::WithSlash => "slash".into(),
            Found::Nothing => "nothing".into(),
        };
        assert_eq!(found("/v1/agent/service/register"), "/v1/agent/service/register ");
        assert_eq!(found("/v1/agent/service/deregister/a/b"), "/v1/agent/service/deregister/ a/b");
        assert_eq!(found("/v1/agent/service/deregister"), "slash");
        assert_eq!(found("/v1/agent/service/web"), "/v1/agent/service/ web");
        assert_eq!(found("/v1/status/leader/"), "nothing");
    }

    #[test]
    fn every_route_stands_once() {
        let mut paths: Vec<_> = v1::routes().map(|route| route.path).collect();
        let all = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), all);
    }

    #[test]
    fn prometheus_is_known_by_what_it_accepts() {
        let wants = |value: &'static str| {
            wants_openmetrics(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))]))
        };
        assert!(
            wants("application/openmetrics-text;version=1.0.0,*/*;q=0.1")
                && wants("text/plain; version=0.0.4")
        );
        assert!(wants("text/html, TEXT/PLAIN;version=0.4.0"));
        assert!(!wants("text/plain") && !wants("*/*") && !wants("text/plain;version=1"));
    }

    #[test]
    fn gzip_is_sent_to_those_who_name_it() {
        let accepts = |value: &'static str| {
            accepts_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        assert!(accepts("gzip") && accepts("deflate, GZIP;q=0.5"));
        assert!(!accepts("*") && !accepts("gzip;q=0") && !accepts("deflate"));
    }
}
