//! `lictor kv`: reads and writes keys. What stands in the store travels as it is: values are bytes, and flags are the
//! user's.

mod transfer;

use std::{
    fs,
    io::{self, Read},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    Doing, Failure, Outcome,
    client::{self, Client, Lost, Request, reason},
    line::{Command, Flag, Line, Run},
    output::{labels, put, say},
};

pub use transfer::{EXPORT, IMPORT};

pub const GET: Command = Command {
    name: "kv get",
    arguments: "[KEY or PREFIX]",
    does: "Prints the value of a key, or all below a prefix",
    flags: &[
        client::AGENT,
        client::SERVERS,
        &[
            Flag::switch("recurse", "all keys with this prefix"),
            Flag::switch("keys", "keys only, as far as the next separator"),
            Flag::text("separator", "where keys are cut, / where not given; empty for nowhere"),
            Flag::switch("base64", "values in base64"),
            Flag::switch("detailed", "with everything that is known of a key"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, get)),
};

pub const PUT: Command = Command {
    name: "kv put",
    arguments: "KEY [VALUE, @FILE or -]",
    does: "Writes a key, from the line, a file or standard input",
    flags: &[
        client::AGENT,
        client::SERVERS,
        &[
            Flag::switch("cas", "only if the key was modified at -modify-index last, or is not there for 0"),
            Flag::number("modify-index", "for -cas"),
            Flag::number("flags", "a number kept with the value"),
            Flag::switch("base64", "the value is given in base64"),
            Flag::text("session", "for -acquire and -release"),
            Flag::switch("acquire", "lock the key for a session"),
            Flag::switch("release", "unlock it"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, write)),
};

pub const DELETE: Command = Command {
    name: "kv delete",
    arguments: "[KEY or PREFIX]",
    does: "Deletes a key, or all below a prefix",
    flags: &[
        client::AGENT,
        client::SERVERS,
        &[
            Flag::switch("recurse", "all keys with this prefix"),
            Flag::switch("cas", "only if the key was modified at -modify-index last"),
            Flag::number("modify-index", "for -cas"),
        ],
    ],
    run: Run::Line(|line| client::ask(line, delete)),
};

/// A key as the API has it, and as handlers of a watch are given it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Entry {
    pub key: String,
    pub create_index: u64,
    pub modify_index: u64,
    pub lock_index: u64,
    pub flags: u64,
    /// In base64; `None` where nothing was written but the key.
    pub value: Option<String>,
    pub session: String,
}

impl Entry {
    /// # Errors
    /// Where what the agent sent is no base64.
    pub fn bytes(&self) -> Result<Vec<u8>, Failure> {
        let value = self.value.as_deref().unwrap_or("");
        BASE64_STANDARD.decode(value).doing(&format!("Error decoding the value of {}", self.key))
    }
}

/// What a read of keys finds, nothing included; and where to wait on from.
pub async fn read(client: &Client, request: Request) -> Result<(Vec<Entry>, u64), Lost> {
    let answer = client.send(request).await?;
    match answer.code {
        200 => Ok((answer.read()?, answer.index)),
        404 if answer.body.is_empty() => Ok((Vec::new(), answer.index)),
        code => Err(Lost::Code(code, answer.text())),
    }
}

pub fn path(key: &str) -> String {
    format!("/v1/kv/{key}")
}

const UNREACHED: &str = "Error querying Consul agent";

async fn get(client: Client, line: Line) -> Outcome {
    line.at_most(1, "1")?;
    let (recurse, keys) = (line.is("recurse"), line.is("keys"));
    let key = line.rest.first().map_or("", String::as_str);
    // No key begins with a slash, though people write one.
    let key = key.strip_prefix('/').unwrap_or(key);
    if key.is_empty() && !recurse && !keys {
        return Err(Failure::new("Error! Missing KEY argument"));
    }
    if keys {
        return say_keys(&client, key, if recurse { "" } else { line.text("separator").unwrap_or("/") })
            .await;
    }
    if !recurse {
        let (entries, _) = read(&client, Request::get(path(key))).await.doing(UNREACHED)?;
        let missing = || Failure::new(format!("Error! No key exists at: {key}"));
        let entry = entries.first().ok_or_else(missing)?;
        if line.is("detailed") {
            return put(&detailed(entry, line.is("base64"))?);
        }
        return put(&[value(entry, line.is("base64"))?, b"\n".to_vec()].concat());
    }
    let (entries, _) = read(&client, Request::get(path(key)).with("recurse", "")).await.doing(UNREACHED)?;
    for (at, entry) in entries.iter().enumerate() {
        if line.is("detailed") {
            let gap: &[u8] = if at == 0 { b"" } else { b"\n" };
            put(&[gap, &detailed(entry, line.is("base64"))?].concat())?;
        } else {
            let key = format!("{}:", entry.key).into_bytes();
            put(&[key, value(entry, line.is("base64"))?, b"\n".to_vec()].concat())?;
        }
    }
    Ok(())
}

async fn say_keys(client: &Client, prefix: &str, separator: &str) -> Outcome {
    let request = Request::get(path(prefix)).with("keys", "").with("separator", separator);
    let found = client.find(request).await.doing(UNREACHED)?;
    let keys: Vec<String> =
        found.map(|answer| answer.read()).transpose().doing(UNREACHED)?.unwrap_or_default();
    keys.iter().try_for_each(say)
}

fn value(entry: &Entry, in_base64: bool) -> Result<Vec<u8>, Failure> {
    if in_base64 { Ok(entry.value.clone().unwrap_or_default().into_bytes()) } else { entry.bytes() }
}

/// A line to each thing known of a key; the value comes last, since it may be anything.
fn detailed(entry: &Entry, in_base64: bool) -> Result<Vec<u8>, Failure> {
    let session = if entry.session.is_empty() { "-" } else { &entry.session };
    let known = labels(&[
        ("CreateIndex", entry.create_index.to_string()),
        ("Flags", entry.flags.to_string()),
        ("Key", entry.key.clone()),
        ("LockIndex", entry.lock_index.to_string()),
        ("ModifyIndex", entry.modify_index.to_string()),
        ("Session", session.into()),
        ("Value", String::new()),
    ]);
    Ok([known.into_bytes(), value(entry, in_base64)?, b"\n".to_vec()].concat())
}

async fn write(client: Client, line: Line) -> Outcome {
    let (key, given) = match line.rest.as_slice() {
        [] => return Err(Failure::new("Error! Missing KEY argument")),
        [key] => (key, None),
        [key, value] => (key, Some(value)),
        more => {
            let text = format!("Error! Too many arguments (expected 1 or 2, got {})", more.len());
            return Err(Failure::new(text));
        }
    };
    if key.is_empty() {
        return Err(Failure::new("Error! Missing KEY argument"));
    }
    let session = line.text("session").unwrap_or("");
    let (acquire, release, cas) = (line.is("acquire"), line.is("release"), line.is("cas"));
    if (acquire || release) && session.is_empty() {
        return Err(Failure::new("Error! Missing -session (required with -acquire and -release)"));
    }
    if key.starts_with('/') {
        let text = format!("Error! Failed writing data: Invalid key. Key must not begin with a '/': {key}");
        return Err(Failure::new(text));
    }
    let mut data = given.map_or(Ok(Vec::new()), |given| read_data(given)).doing("Error!").map_err(spaced)?;
    if line.is("base64") {
        data = BASE64_STANDARD.decode(data.trim_ascii()).doing("Error! Cannot base 64 decode data")?;
    }
    let index = line.number("modify-index").unwrap_or(0);
    let request = Request::put(path(key))
        .with_any("flags", line.number("flags").map(|flags| flags.to_string()))
        .with_any("cas", cas.then(|| index.to_string()))
        .with_any("acquire", acquire.then_some(session))
        .with_any("release", (release && !acquire).then_some(session))
        .body(data);
    let done = client.ok(request).await.doing("Error! Failed writing data")?.is_true();
    let refused = match (acquire, release, cas) {
        _ if done => None,
        (true, ..) => Some("Error! Did not acquire lock".to_string()),
        (_, true, _) => Some("Error! Did not release lock".to_string()),
        _ if index == 0 => {
            Some(format!("Error! Did not write to {key}: CAS performed with index=0 and key already exists."))
        }
        _ => Some(format!("Error! Did not write to {key}: CAS failed")),
    };
    let what = match (acquire, release) {
        (true, _) => "Lock acquired on",
        (_, true) => "Lock released on",
        _ => "Data written to",
    };
    refused.map_or_else(|| say(format_args!("Success! {what}: {key}")), |text| Err(Failure::new(text)))
}

/// `Error! Failed …`: no colon follows that exclamation mark.
fn spaced(failure: Failure) -> Failure {
    Failure { text: failure.text.replacen("Error!: ", "Error! ", 1), ..failure }
}

/// What a word of the line stands for: itself, the file behind `@`, or all of standard input.
fn read_data(word: &str) -> Result<Vec<u8>, String> {
    if word == "-" {
        let mut data = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut data);
        return read.map(|_| data).map_err(|error| format!("Failed to read stdin: {}", reason(&error)));
    }
    match word.strip_prefix('@') {
        Some(path) => {
            fs::read(path).map_err(|error| format!("Failed to read file: open {path}: {}", reason(&error)))
        }
        None => Ok(word.as_bytes().to_vec()),
    }
}

async fn delete(client: Client, line: Line) -> Outcome {
    line.at_most(1, "1")?;
    let (recurse, cas, index) =
        (line.is("recurse"), line.is("cas"), line.number("modify-index").unwrap_or(0));
    let key = line.rest.first().map_or("", String::as_str);
    let key = key.strip_prefix('/').unwrap_or(key);
    let refused = match (recurse, cas) {
        (false, _) if key.is_empty() => Some("Error! Missing KEY argument"),
        (true, true) => Some("Cannot specify both -cas and -recurse!"),
        (_, true) if index == 0 => {
            Some("Cannot delete a key that does not exist. Provide a -modify-index greater than than 0.")
        }
        (true, _) if index > 0 => Some("Cannot specify both -modify-index and -recurse!"),
        (_, false) if index > 0 => Some("Cannot specify -modify-index without -cas!"),
        _ => None,
    };
    if let Some(text) = refused {
        return Err(Failure::new(text));
    }
    let request = Request::delete(path(key))
        .with_any("recurse", recurse.then_some(""))
        .with_any("cas", cas.then(|| index.to_string()));
    let doing = if recurse { "Error! Did not delete prefix " } else { "Error! Did not delete key " };
    if !client.ok(request).await.doing(&format!("{doing}{key}"))?.is_true() {
        return Err(Failure::new(format!("Error! Did not delete key {key}: CAS failed")));
    }
    let what = if recurse { "keys with prefix" } else { "key" };
    say(format_args!("Success! Deleted {what}: {key}"))
}
