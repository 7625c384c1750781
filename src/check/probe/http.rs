//! HTTP probes: 2xx passes, 429 warns, the rest fails. A connection is made for each look, as a real client's would.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Client, Method, Request, Url, header, redirect};
use tokio::net::lookup_host;

use super::{Seen, output::Tail, reason, shown, tls};
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
        let follow = if follow_redirects {
            redirect::Policy::limited(REDIRECTS_MAX)
        } else {
            redirect::Policy::none()
        };
        let client = builder(skip_verify).redirect(follow).build().map_err(|error| reason(&error))?;
        clients.insert((follow_redirects, skip_verify), client.clone());
        Ok(client)
    }
}

fn builder(skip_verify: bool) -> reqwest::ClientBuilder {
    let tls = std::sync::Arc::unwrap_or_clone(tls::client(skip_verify));
    Client::builder().use_preconfigured_tls(tls).pool_max_idle_per_host(0).no_proxy().gzip(true)
}

pub async fn look(kind: &Kind, clients: &Clients, limit: Duration, output_bytes_max: usize) -> Seen {
    let Kind::Http { url, method, header, body, follow_redirects, tls } = kind else {
        return Seen::critical("not an HTTP check");
    };
    let verb = Verb { method, url, limit };
    let asked = ask(&verb, header, body, *follow_redirects, tls, clients, output_bytes_max);
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(text)) => Seen::critical(text),
        Err(_) => Seen::critical(
            verb.failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
        ),
    }
}

/// What is asked, for messages about it.
struct Verb<'a> {
    method: &'a str,
    url: &'a str,
    limit: Duration,
}

impl Verb<'_> {
    fn failed(&self, why: &str) -> String {
        let mut letters = self.method.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        let verb: String =
            first.into_iter().chain(letters.map(|letter| letter.to_ascii_lowercase())).collect();
        format!("{verb} {:?}: {why}", self.url)
    }
}

async fn ask(
    verb: &Verb<'_>,
    headers: &[(String, Vec<String>)],
    body: &str,
    follow_redirects: bool,
    tls: &Tls,
    clients: &Clients,
    output_bytes_max: usize,
) -> Result<Seen, String> {
    let url = Url::parse(verb.url).map_err(|error| verb.failed(&error.to_string()))?;
    let method = Method::from_bytes(verb.method.as_bytes()).map_err(|error| error.to_string())?;
    let (client, url) =
        client_for(url, follow_redirects, tls, clients).await.map_err(|text| verb.failed(&text))?;
    let mut request = Request::new(method, url.clone());
    put_headers(request.headers_mut(), verb, headers)?;
    if !body.is_empty() {
        *request.body_mut() = Some(body.to_string().into());
    }
    let mut response =
        client.execute(request).await.map_err(|error| verb.failed(&why(&error, &url, verb.limit)))?;
    let code = response.status();
    let mut tail = Tail::new(output_bytes_max);
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        tail.push(&chunk);
        read += chunk.len();
        if read > BODY_BYTES_MAX {
            break;
        }
    }
    let (kept, _) = tail.finish();
    let status = match code.as_u16() {
        200..300 => Status::Passing,
        429 => Status::Warning,
        _ => Status::Critical,
    };
    let reason = code.canonical_reason().unwrap_or("");
    let body = String::from_utf8_lossy(&kept);
    let (method, url, code) = (verb.method, verb.url, code.as_u16());
    Ok(Seen { status, output: format!("HTTP {method} {url}: {code} {reason} Output: {body}") })
}

/// The client for a URL. Where TLS is to name another server than the URL does, a client of its own connects to the
/// URL's host under that name.
async fn client_for(url: Url, follow: bool, tls: &Tls, clients: &Clients) -> Result<(Client, Url), String> {
    if tls.server_name.is_empty() || url.scheme() != "https" {
        return Ok((clients.get(follow, tls.skip_verify)?, url));
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
    let mut named = url;
    named.set_host(Some(&tls.server_name)).map_err(|error| error.to_string())?;
    let follow = if follow { redirect::Policy::limited(REDIRECTS_MAX) } else { redirect::Policy::none() };
    let client = builder(tls.skip_verify).redirect(follow).resolve_to_addrs(&tls.server_name, &addresses);
    Ok((client.build().map_err(|error| reason(&error))?, named))
}

/// The ones that Consul sends, under those that the definition sets.
fn put_headers(
    all: &mut header::HeaderMap,
    verb: &Verb,
    headers: &[(String, Vec<String>)],
) -> Result<(), String> {
    all.insert(header::USER_AGENT, header::HeaderValue::from_static("Consul Health Check"));
    all.insert(header::ACCEPT, header::HeaderValue::from_static("text/plain, text/*, */*"));
    all.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    for (name, values) in headers {
        let name = header::HeaderName::from_bytes(name.as_bytes())
            .map_err(|error| verb.failed(&error.to_string()))?;
        all.remove(&name);
        for value in values {
            let value =
                header::HeaderValue::from_str(value).map_err(|error| verb.failed(&error.to_string()))?;
            all.append(&name, value);
        }
    }
    Ok(())
}

fn why(error: &reqwest::Error, url: &Url, limit: Duration) -> String {
    if error.is_timeout() {
        return format!("no answer within {}", shown(limit));
    }
    let reason = reason(error);
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(80));
    if error.is_connect() { format!("dial tcp {host}:{port}: {reason}") } else { reason }
}
