//! Requests and what must be answered, as text:
//!
//! ```text
//! # Why.
//! PUT /v1/catalog/register
//! + X-Consul-Namespace: team      a header of the request
//! | {"Node":"oak"}                its body
//! 200
//! X-Consul-Index: 3               a header of the answer;   ! X-Consul-Index   one that must not be there
//! = {"a":1}                       its body, compared as JSON;   "text\n"   exactly;   empty   nothing, of no type
//! ```

use std::net::SocketAddr;

use serde_json::Value;

use crate::client::{Answer, ask};

#[derive(Default)]
struct Case<'a> {
    line: usize,
    method: &'a str,
    path: &'a str,
    headers: String,
    body: String,
    expected: Vec<&'a str>,
}

/// Asks everything in order, and fails with all that was not answered as it must be.
pub async fn run(addr: SocketAddr, script: &str) {
    let mut faults = Vec::new();
    let cases = parse(script);
    assert!(!cases.is_empty());
    for case in cases {
        let answer = ask(addr, case.method, case.path, &case.headers, &case.body).await;
        for fault in compare(&case, &answer) {
            faults.push(format!("line {}: {} {}: {fault}", case.line, case.method, case.path));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn parse(script: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case> = Vec::new();
    for (at, line) in script.lines().enumerate() {
        let is_request = |(method, rest): &(&str, &str)| {
            rest.starts_with('/') && method.bytes().all(|byte| byte.is_ascii_uppercase())
        };
        if let Some((method, path)) = line.split_once(' ').filter(is_request) {
            cases.push(Case { line: at + 1, method, path, ..Case::default() });
            continue;
        }
        let Some(case) = cases.last_mut() else { continue };
        match line.split_once(' ') {
            Some(("+", header)) => case.headers += &format!("{header}\r\n"),
            Some(("|", body)) => case.body += body,
            Some(("#", _)) => {}
            _ if line.is_empty() => {}
            _ => case.expected.push(line),
        }
    }
    cases
}

fn compare(case: &Case, answer: &Answer) -> Vec<String> {
    let (mut faults, mut json) = (Vec::new(), String::new());
    let mut expect = |holds: bool, wanted: &str| {
        if !holds {
            faults.push(format!("wanted {wanted}, found {} {:?}", answer.status, answer.headers));
            faults.push(format!("    {}", String::from_utf8_lossy(&answer.body)));
        }
    };
    for line in &case.expected {
        if let Some(more) = line.strip_prefix("= ") {
            json += more;
        } else if let Some(name) = line.strip_prefix("! ") {
            expect(answer.header(name).is_none(), line);
        } else if line.starts_with('"') {
            let text: String = serde_json::from_str(line).expect("a quoted text");
            expect(text == answer.text(), line);
        } else if *line == "empty" {
            expect(answer.body.is_empty() && answer.header("content-type").is_none(), line);
        } else if let Ok(status) = line.parse::<u16>() {
            expect(answer.status == status, line);
        } else {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("what is {line:?}?"));
            expect(answer.header(name) == Some(value), line);
        }
    }
    if !json.is_empty() {
        let wanted: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in {json}"));
        let found = serde_json::from_slice::<Value>(&answer.body).ok();
        expect(found.as_ref() == Some(&wanted), &json);
        expect(answer.header("content-type") == Some("application/json"), "application/json");
    }
    faults
}
