//! `lictor kv export` and `import`: keys as JSON, in the form that Consul's own commands write and read, so that they can
//! be carried from one to the other.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{Entry, UNREACHED, path, read, read_data, spaced};
use crate::cli::{
    Doing, Failure, Outcome,
    client::{self, Client, Request},
    line::{Command, Flag, Line, Run},
    output::{Progress, reformat, say},
};

pub const EXPORT: Command = Command {
    name: "kv export",
    arguments: "[PREFIX]",
    does: "Prints keys, values and flags as JSON",
    flags: &[client::AGENT, client::SERVERS],
    run: Run::Line(|line| client::ask(line, export)),
};

pub const IMPORT: Command = Command {
    name: "kv import",
    arguments: "DATA, @FILE or -",
    does: "Writes what an export printed",
    flags: &[client::AGENT, client::SERVERS, &[Flag::text("prefix", "put before every key")]],
    run: Run::Line(|line| client::ask(line, import)),
};

/// A key as it is carried. Keys that are read stand in any case, and others beside them are passed over.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Carried {
    #[serde(alias = "Key")]
    key: String,
    #[serde(default, alias = "Flags")]
    flags: u64,
    /// In base64.
    #[serde(default, alias = "Value")]
    value: Option<String>,
}

async fn export(client: Client, line: Line) -> Outcome {
    line.at_most(1, "1")?;
    let prefix = line.rest.first().map_or("", String::as_str);
    let prefix = prefix.strip_prefix('/').unwrap_or(prefix);
    let (entries, _) =
        read(&client, Request::get(path(prefix)).with("recurse", "")).await.doing(UNREACHED)?;
    say(write(entries).doing("Error exporting")?)
}

/// Nested by tabs; what would mean something to a web page is escaped.
fn write(entries: Vec<Entry>) -> Result<String, serde_json::Error> {
    let carried = entries.into_iter().map(|Entry { key, flags, value, .. }| Carried {
        key,
        flags,
        value: Some(value.unwrap_or_default()),
    });
    let json = serde_json::to_string(&carried.collect::<Vec<_>>())?;
    let escapes = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    // Outside of texts JSON has none of these.
    let json = escapes.iter().fold(json, |json, (letter, escape)| json.replace(*letter, escape));
    Ok(reformat(&json, Some("\t")))
}

async fn import(client: Client, line: Line) -> Outcome {
    line.at_most(1, "1")?;
    let data = line.rest.first().filter(|data| !data.is_empty());
    let data = data.ok_or_else(|| Failure::new("Error! Missing DATA argument"))?;
    let data = read_data(data).doing("Error!").map_err(spaced)?;
    let all: Vec<Carried> = serde_json::from_slice(&data).map_err(|error| {
        let end = "unexpected end of JSON input".to_string();
        let text = if error.is_eof() { end } else { error.to_string() };
        Failure::new(format!("Cannot unmarshal data: {text}"))
    })?;
    let mut progress = Progress::of_lines("Importing", "keys");
    for carried in all {
        let key = join(line.text("prefix").unwrap_or(""), &carried.key);
        let value = BASE64_STANDARD.decode(carried.value.unwrap_or_default());
        let value = value.doing(&format!("Error base64 decoding value for key {}", carried.key))?;
        let request = Request::put(path(&key)).with("flags", carried.flags.to_string()).body(value);
        client.ok(request).await.doing(&format!("Error! Failed writing data for key {}", carried.key))?;
        say(format_args!("Imported: {key}"))?;
        progress.add(1);
    }
    Ok(())
}

/// With one slash between them.
fn join(prefix: &str, key: &str) -> String {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() { key.into() } else { format!("{prefix}/{}", key.trim_start_matches('/')) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_consul() {
        let entry = |key: &str, value: Option<&str>, flags| Entry {
            key: key.into(),
            value: value.map(String::from),
            flags,
            ..Entry::default()
        };
        let written = write(vec![entry("a/<b>&", Some("YQ=="), 0), entry("c", None, 42)]).unwrap();
        let expected = "[\n\t{\n\t\t\"key\": \"a/\\u003cb\\u003e\\u0026\",\n\t\t\"flags\": 0,\n\t\t\"value\": \"YQ==\"\n\t},\n\t{\n\t\t\"key\": \"c\",\n\t\t\"flags\": 42,\n\t\t\"value\": \"\"\n\t}\n]";
        assert_eq!(written, expected);
        assert_eq!(write(Vec::new()).unwrap(), "[]");
        let read: Vec<Carried> = serde_json::from_str(&written).unwrap();
        assert_eq!(read[0].key, "a/<b>&");
    }

    #[test]
    fn a_prefix_is_joined_by_one_slash() {
        for (prefix, key) in [("", "a"), ("p", "p/a"), ("p/", "p/a"), ("/p/q//", "p/q/a")] {
            assert_eq!(join(prefix, "a"), key);
        }
        assert_eq!(join("p", "/a"), "p/a");
    }
}
