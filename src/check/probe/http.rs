//! HTTP probes: 2xx passes, 429 warns, the rest fails. A connection is made for each look, as a stranger's would be, and
//! without proxies: a check looks at the service itself.

use std::{io::Write, time::Duration};

use bytes::Bytes;
use flate2::write::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    ext::ReasonPhrase,
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use url::{Position, Url};

use super::{
    Seen, connect,
    exchange::{Lost, exchange},
    output::Tail,
    percent_decoded, reason,
    tls::{Protocol, Trust},
};
use crate::{catalog::Status, check::Tls};

/// What is asked, as it was defined.
pub struct Ask<'a> {
    pub url: &'a str,
    pub method: &'a str,
    pub header: &'a [(String, Vec<String>)],
    pub body: &'a str,
    pub follow_redirects: bool,
    pub tls: &'a Tls,
}

/// A body is read this far; what lies beyond is nobody's health.
const BODY_BYTES_MAX: usize = 4 << 20;
const REDIRECTS_MAX: usize = 10;
/// Where a redirect leads to another host, these stay behind.
const OF_THE_HOST: [HeaderName; 4] =
    [header::HOST, header::AUTHORIZATION, header::COOKIE, header::WWW_AUTHENTICATE];

/// What is asked next, and where.
struct Hop {
    url: Url,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

enum Answer {
    Seen(Seen),
    Moved(StatusCode, Url),
}

impl Ask<'_> {
    /// Asks once. When time runs out while the body still comes, the code decides with as much of it as was read.
    pub async fn look(&self, trust: &Trust, limit: Duration, output_bytes_max: usize) -> Seen {
        let deadline = Instant::now() + limit;
        let looked = async {
            let mut hop = self.first_hop()?;
            for _ in 0..=REDIRECTS_MAX {
                let (code, to) = match self.answer(&hop, trust, deadline, output_bytes_max).await? {
                    Answer::Seen(seen) => return Ok(seen),
                    Answer::Moved(code, to) => (code, to),
                };
                hop = hop.moved(code, to);
            }
            Err(format!("stopped after {REDIRECTS_MAX} redirects"))
        };
        looked.await.unwrap_or_else(|why| Seen::critical(self.failed(&why)))
    }

    fn first_hop(&self) -> Result<Hop, String> {
        let url = Url::parse(self.url).map_err(|error| error.to_string())?;
        let method = Method::from_bytes(self.method.as_bytes()).map_err(|error| error.to_string())?;
        let headers = headers(&url, self.header)?;
        Ok(Hop { url, method, headers, body: Bytes::copy_from_slice(self.body.as_bytes()) })
    }

    async fn answer(
        &self,
        hop: &Hop,
        trust: &Trust,
        deadline: Instant,
        output_bytes_max: usize,
    ) -> Result<Answer, String> {
        let tls = match hop.url.scheme() {
            "http" => None,
            "https" => Some(self.tls),
            other => return Err(format!("unsupported protocol scheme {other:?}")),
        };
        let host = hop.url.host_str().ok_or("no Host in request URL")?;
        let port = hop.url.port_or_known_default().unwrap_or(80);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let left = deadline.saturating_duration_since(Instant::now());
        let opened = connect::open((host, port), tls, (trust, Protocol::Any), left);
        let stream = timeout_at(deadline, opened).await.map_err(|_| late())??;
        let mut request = Request::new(Full::new(hop.body.clone()));
        *request.method_mut() = hop.method.clone();
        let path = &hop.url[Position::BeforePath..Position::AfterQuery];
        *request.uri_mut() = path.parse().map_err(|error| format!("{path}: {error}"))?;
        *request.headers_mut() = hop.headers.clone();
        exchange(TokioIo::new(stream), request, deadline, async |answer| {
            let answer = answer.map_err(|lost| why(&lost))?;
            match self.is_moved(&hop.url, &answer)? {
                Some(to) => Ok(Answer::Moved(answer.status(), to)),
                None => Ok(Answer::Seen(self.read(hop, answer, deadline, output_bytes_max).await)),
            }
        })
        .await
    }

    fn is_moved(&self, from: &Url, answer: &Response<Incoming>) -> Result<Option<Url>, String> {
        let location = answer.headers().get(header::LOCATION);
        let Some(location) = location.filter(|_| {
            self.follow_redirects && matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308)
        }) else {
            return Ok(None);
        };
        let location = String::from_utf8_lossy(location.as_bytes());
        let to = from.join(&location);
        to.map(Some).map_err(|error| format!("failed to parse Location header {location:?}: {error}"))
    }

    async fn read(
        &self,
        hop: &Hop,
        answer: Response<Incoming>,
        deadline: Instant,
        output_bytes_max: usize,
    ) -> Seen {
        let (head, mut body) = answer.into_parts();
        let mut tail = Tail::new(output_bytes_max);
        let packed = head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
        let ours = hop.headers.get(header::ACCEPT_ENCODING).is_some_and(|asked| asked == "gzip");
        let mut unpack = (packed && ours).then(|| GzDecoder::new(Tail::new(output_bytes_max)));
        while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
            let Some(data) = frame.data_ref() else { continue };
            let taken = match &mut unpack {
                Some(unpack) => unpack.write_all(data).map(|()| unpack.get_ref().bytes()),
                None => tail.write_all(data).map(|()| tail.bytes()),
            };
            if taken.is_ok_and(|bytes| bytes <= BODY_BYTES_MAX) {
                continue;
            }
            break;
        }
        if let Some(mut unpack) = unpack {
            // What was cut is shown as far as it goes.
            let _cut = unpack.try_finish();
            std::mem::swap(&mut tail, unpack.get_mut());
        }
        let code = head.status;
        let status = match code.as_u16() {
            200..300 => Status::Passing,
            429 => Status::Warning,
            _ => Status::Critical,
        };
        let sent = head.extensions.get::<ReasonPhrase>();
        let reason = sent.map_or(code.canonical_reason().unwrap_or("").as_bytes(), ReasonPhrase::as_bytes);
        let (reason, (kept, _)) = (String::from_utf8_lossy(reason), tail.finish());
        let body = String::from_utf8_lossy(&kept);
        let Ask { method, url, .. } = self;
        Seen { status, output: format!("HTTP {method} {url}: {} {reason} Output: {body}", code.as_u16()) }
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

impl Hop {
    /// Where an answer sends us: by most codes to see something else, by 307 and 308 to do the same there.
    fn moved(mut self, code: StatusCode, to: Url) -> Hop {
        let same = matches!(code, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !same && self.method != Method::HEAD {
            (self.method, self.body) = (Method::GET, Bytes::new());
            self.headers.remove(header::CONTENT_TYPE);
        }
        let place = |url: &Url| (url.host_str().map(str::to_string), url.port_or_known_default());
        if place(&self.url) != place(&to) {
            OF_THE_HOST.iter().for_each(|name| drop(self.headers.remove(name)));
            self.headers.extend(host_header(&to).ok().map(|host| (header::HOST, host)));
        }
        Hop { url: to, ..self }
    }
}

/// The ones that Consul sends, under those that the definition sets.
fn headers(url: &Url, defined: &[(String, Vec<String>)]) -> Result<HeaderMap, String> {
    let mut all = HeaderMap::with_capacity(8);
    all.insert(header::HOST, host_header(url)?);
    all.insert(header::USER_AGENT, HeaderValue::from_static("Consul Health Check"));
    all.insert(header::ACCEPT, HeaderValue::from_static("text/plain, text/*, */*"));
    all.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    all.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if !url.username().is_empty() {
        let user = percent_decoded(url.username());
        let password = percent_decoded(url.password().unwrap_or_default());
        let basic = format!("Basic {}", base64(format!("{user}:{password}").as_bytes()));
        all.insert(header::AUTHORIZATION, HeaderValue::from_str(&basic).map_err(|error| error.to_string())?);
    }
    for (name, values) in defined {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| format!("{name}: {error}"))?;
        all.remove(&name);
        for value in values {
            let value = HeaderValue::from_str(value).map_err(|error| format!("{name}: {error}"))?;
            all.append(&name, value);
        }
    }
    Ok(all)
}

fn host_header(url: &Url) -> Result<HeaderValue, String> {
    HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]).map_err(|error| error.to_string())
}

fn why(lost: &Lost) -> String {
    match lost {
        Lost::Late => late(),
        Lost::Error(error) if error.is_incomplete_message() => "EOF".into(),
        Lost::Error(error) => reason(error),
    }
}

fn late() -> String {
    "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let quad = |three: &[u8]| {
        let bits = (0..3).fold(0u32, |bits, at| bits << 8 | u32::from(*three.get(at).unwrap_or(&0)));
        let letter = |at: usize| LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
        [0, 1, 2, 3].map(|at| if at > three.len() { '=' } else { char::from(letter(at)) })
    };
    bytes.chunks(3).flat_map(quad).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        for (plain, packed) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("a:~?", "YTp+Pw==")]
        {
            assert_eq!(base64(plain.as_bytes()), packed);
        }
    }

    #[test]
    fn a_redirect_leaves_behind_what_is_of_the_host() {
        let hop = |method| Hop {
            url: Url::parse("http://a:1/x").unwrap(),
            method,
            headers: headers(&Url::parse("http://u:p@a:1/").unwrap(), &[("Host".into(), vec!["web".into()])])
                .unwrap(),
            body: Bytes::from_static(b"b"),
        };
        let table = [
            (302, Method::PUT, "http://a:1/y", "GET", "", "web", true),
            (307, Method::PUT, "http://a:1/y", "PUT", "b", "web", true),
            (308, Method::PUT, "http://b/", "PUT", "b", "b", false),
            (301, Method::HEAD, "https://a:1/", "HEAD", "b", "web", true),
        ];
        for (code, method, to, then, body, host, authorized) in table {
            let moved = hop(method).moved(StatusCode::from_u16(code).unwrap(), Url::parse(to).unwrap());
            assert_eq!((moved.method.as_str(), &moved.body[..]), (then, body.as_bytes()), "{code} to {to}");
            assert_eq!(moved.headers[header::HOST], host);
            assert_eq!(moved.headers.contains_key(header::AUTHORIZATION), authorized);
        }
    }
}
