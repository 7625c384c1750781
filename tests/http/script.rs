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
//! $ session ID                    from here on `$session` is the text under this key of the answer
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
    let mut named: Vec<(String, String)> = Vec::new();
    for case in cases {
        let case = &case;
        let fill = |text: &str| {
            named
                .iter()
                .fold(text.to_string(), |text, (name, value)| text.replace(&format!("${name}"), value))
        };
        let expected: Vec<String> = case.expected.iter().map(|line| fill(line)).collect();
        let answer = ask(addr, case.method, &fill(case.path), &fill(&case.headers), &fill(&case.body)).await;
        let (taken, expected): (Vec<_>, Vec<_>) =
            expected.into_iter().partition(|line| line.starts_with("$ "));
        for fault in compare(&expected, &answer) {
            faults.push(format!("line {}: {} {}: {fault}", case.line, case.method, case.path));
        }
        for line in taken {
            let (name, key) = line[2..].split_once(' ').unwrap_or_else(|| panic!("what is {line:?}?"));
            let found = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
            let text = found[key].as_str().unwrap_or_else(|| panic!("line {}: no text {key}", case.line));
            named.push((name.into(), text.into()));
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

fn compare(expected: &[String], answer: &Answer) -> Vec<String> {
    let (mut faults, mut json) = (Vec::new(), String::new());
    let mut expect = |holds: bool, wanted: &str| {
        if !holds {
            faults.push(format!("wanted {wanted}, found {} {:?}", answer.status, answer.headers));
            faults.push(format!("    {}", String::from_utf8_lossy(&answer.body)));
        }
    };
    for line in expected {
        if let Some(more) = line.strip_prefix("= ") {
            json += more;
        } else if let Some(name) = line.strip_prefix("! ") {
            expect(answer.header(name).is_none(), line);
        } else if line.starts_with('"') {
            let text: String = serde_json::from_str(line).expect("a quoted text");
            expect(text == answer.text(), line);
        } else if line == "empty" {
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
