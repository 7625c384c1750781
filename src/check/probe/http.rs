//! HTTP probes: 2xx passes, 429 warns, the rest fails. A connection is made for each look, as a real client's would.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hyper::ext::ReasonPhrase;
use reqwest::{Client, Method, Request, Response, Url, header, redirect};
use tokio::{
    net::lookup_host,
    time::{Instant, timeout_at},
};

use super::{Seen, output::Tail, reason, tls};
use crate::{
    catalog::Status,
    check::{Kind, Tls},
};

/// Clients for each way of following and trusting; made when first needed, and shared by all checks.
#[derive(Default)]
pub struct Clients(Mutex<HashMap<(bool, bool), Client>>);

/// A body is read this far; what lies beyond is nobody's health.
const BODY_BYTES_MAX: usize = 4 << 20;
const REDIRECTS_MAX: usize = 10;

impl Clients {
    fn get(&self, follow_redirects: bool, skip_verify: bool) -> Result<Client, String> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&(follow_redirects, skip_verify)) {
            return Ok(client.clone());
        }
        let client = builder(follow_redirects, skip_verify).build().map_err(|error| reason(&error))?;
        clients.insert((follow_redirects, skip_verify), client.clone());
        Ok(client)
    }
}

/// Without proxies: a check looks at the service itself.
fn builder(follow_redirects: bool, skip_verify: bool) -> reqwest::ClientBuilder {
    let follow =
        if follow_redirects { redirect::Policy::limited(REDIRECTS_MAX) } else { redirect::Policy::none() };
    let tls = std::sync::Arc::unwrap_or_clone(tls::client(skip_verify));
    let builder = Client::builder().use_preconfigured_tls(tls).redirect(follow);
    builder.pool_max_idle_per_host(0).no_proxy().gzip(true)
}

/// Asks once. When time runs out while the body still comes, the code decides with as much of it as was read.
pub async fn look(kind: &Kind, clients: &Clients, limit: Duration, output_bytes_max: usize) -> Seen {
    let Kind::Http { url, method, header, body, follow_redirects, tls } = kind else {
        return Seen::critical("not an HTTP check");
    };
    let (ask, deadline) = (Ask { method, url }, Instant::now() + limit);
    let mut response =
        match timeout_at(deadline, ask.send(header, body, *follow_redirects, tls, clients)).await {
            Ok(Ok(response)) => response,
            Ok(Err(text)) => return Seen::critical(text),
            Err(_) => {
                return Seen::critical(
                    ask.failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
                );
            }
        };
    let mut tail = Tail::new(output_bytes_max);
    let mut read = 0;
    while read <= BODY_BYTES_MAX
        && let Ok(Ok(Some(chunk))) = timeout_at(deadline, response.chunk()).await
    {
        tail.push(&chunk);
        read += chunk.len();
    }
    let code = response.status();
    let status = match code.as_u16() {
        200..300 => Status::Passing,
        429 => Status::Warning,
        _ => Status::Critical,
    };
    let sent = response.extensions().get::<ReasonPhrase>();
    let reason = sent.map_or(code.canonical_reason().unwrap_or("").as_bytes(), ReasonPhrase::as_bytes);
    let (reason, (kept, _)) = (String::from_utf8_lossy(reason), tail.finish());
    let body = String::from_utf8_lossy(&kept);
    Seen { status, output: format!("HTTP {method} {url}: {} {reason} Output: {body}", code.as_u16()) }
}

/// What is asked, as it was defined.
struct Ask<'a> {
    method: &'a str,
    url: &'a str,
}

impl Ask<'_> {
    async fn send(
        &self,
        headers: &[(String, Vec<String>)],
        body: &str,
        follow_redirects: bool,
        tls: &Tls,
        clients: &Clients,
    ) -> Result<Response, String> {
        let url = Url::parse(self.url).map_err(|error| self.failed(&error.to_string()))?;
        let method = Method::from_bytes(self.method.as_bytes()).map_err(|error| error.to_string())?;
        let (client, named) =
            client_for(&url, follow_redirects, tls, clients).await.map_err(|text| self.failed(&text))?;
        let mut request = Request::new(method, named.clone());
        if named != url {
            let host = host_header(&url).map_err(|text| self.failed(&text))?;
            request.headers_mut().insert(header::HOST, host);
        }
        put_headers(request.headers_mut(), headers).map_err(|text| self.failed(&text))?;
        if !body.is_empty() {
            *request.body_mut() = Some(body.to_string().into());
        }
        client.execute(request).await.map_err(|error| self.failed(&why(&error, &url)))
    }

    /// The verb is spelled as Go spells it, `Get`.
    fn failed(&self, why: &str) -> String {
        let mut letters = self.method.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        let verb: String =
            first.into_iter().chain(letters.map(|letter| letter.to_ascii_lowercase())).collect();
        format!("{verb} {:?}: {why}", self.url)
    }
}

/// The client for a URL. Where TLS is to name another server than the URL does, a client of its own connects to the
/// URL's host under that name.
async fn client_for(url: &Url, follow: bool, tls: &Tls, clients: &Clients) -> Result<(Client, Url), String> {
    if tls.server_name.is_empty() || url.scheme() != "https" {
        return Ok((clients.get(follow, tls.skip_verify)?, url.clone()));
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_string();
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses: Vec<_> = match host.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => lookup_host((host.as_str(), port))
            .await
            .map_err(|error| format!("dial tcp: lookup {host}: {error}"))?
            .collect(),
    };
    let mut named = url.clone();
    named.set_host(Some(&tls.server_name)).map_err(|error| error.to_string())?;
    let client = builder(follow, tls.skip_verify).resolve_to_addrs(&tls.server_name, &addresses);
    Ok((client.build().map_err(|error| reason(&error))?, named))
}

/// The URL's own, although TLS names another server.
fn host_header(url: &Url) -> Result<header::HeaderValue, String> {
    let (host, port) = (url.host_str().unwrap_or_default(), url.port());
    let host = port.map_or(host.to_string(), |port| format!("{host}:{port}"));
    header::HeaderValue::from_str(&host).map_err(|error| error.to_string())
}

/// The ones that Consul sends, under those that the definition sets.
fn put_headers(all: &mut header::HeaderMap, headers: &[(String, Vec<String>)]) -> Result<(), String> {
    all.insert(header::USER_AGENT, header::HeaderValue::from_static("Consul Health Check"));
    all.insert(header::ACCEPT, header::HeaderValue::from_static("text/plain, text/*, */*"));
    all.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    for (name, values) in headers {
        let name = header::HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
        all.remove(&name);
        for value in values {
            let value = header::HeaderValue::from_str(value).map_err(|error| error.to_string())?;
            all.append(&name, value);
        }
    }
    Ok(())
}

fn why(error: &reqwest::Error, url: &Url) -> String {
    let reason = reason(error);
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(80));
    if error.is_redirect() {
        format!("stopped after {REDIRECTS_MAX} redirects")
    } else if error.is_connect() {
        format!("dial tcp {host}:{port}: {reason}")
    } else {
        reason
    }
}
