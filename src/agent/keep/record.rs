//! The bytes of a kept file, described in `docs/formats.md`. A line says what follows, in which version of its form, the
//! how-manieth writing this was, and the checksum of all that; then comes JSON. Pure: knows no file.
//!
//! ```text
//! lictor service 1 42 9f86d081884c7d65…
//! {"id":"web","service":{…},"checks":[…]}
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    agent::local::{Kept, Registered},
    catalog::{Text, fold},
    check::{Invalid, NODE_MAINTENANCE},
};

/// What is wrong with a file. Whatever it is, the file is set aside, and the agent starts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it is not lictor's: expected a first line of the form \"lictor KIND VERSION …\"")]
    Foreign,
    #[error("it has version {0} of its form, and this lictor reads up to {VERSION}: a newer one wrote it")]
    Newer(u32),
    #[error("its checksum is not that of its contents: it is torn, or was changed by something else")]
    Torn,
    #[error("its contents cannot be read: {0}")]
    Undecodable(String),
    #[error("its name is not that of its id {0:?}, which is {1}")]
    Misnamed(String, String),
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// The form that is written. Older ones are read for good.
pub const VERSION: u32 = 1;

/// The first form. Keys may be added, none may change its meaning; a key that is missing has its default.
mod v1 {
    use super::{Deserialize, Serialize, Text};
    use crate::{catalog, check::CheckSpec};

    #[derive(Default, Serialize, Deserialize)]
    #[serde(default)]
    pub struct Service {
        pub id: Text,
        pub service: Option<catalog::Service>,
        pub token: Text,
        pub checks: Vec<CheckSpec>,
        pub maintenance: Option<Text>,
    }

    #[derive(Serialize, Deserialize)]
    pub struct Check {
        pub check: CheckSpec,
    }

    #[derive(Serialize, Deserialize)]
    pub struct Maintenance {
        pub reason: Text,
    }
}

/// Bytes of a kept thing without the number of its writing: what is the same needs no writing.
pub struct Record {
    kind: &'static str,
    json: String,
}

impl Record {
    pub fn of(kept: &Kept) -> Record {
        match kept {
            Kept::Service { id, registered, checks, maintenance } => {
                let (service, token) = match registered {
                    Some(Registered { service, token }) => (Some(service.as_ref().clone()), token.clone()),
                    None => (None, Text::default()),
                };
                let checks = checks.iter().map(|check| check.written.as_ref().clone()).collect();
                let (id, maintenance) = (id.clone(), maintenance.clone());
                let service = v1::Service { id, service, token, checks, maintenance };
                Record { kind: "service", json: json(&service) }
            }
            Kept::Check(definition) => Record {
                kind: "check",
                json: json(&v1::Check { check: definition.written.as_ref().clone() }),
            },
            Kept::Maintenance(reason) => {
                Record { kind: "maintenance", json: json(&v1::Maintenance { reason: reason.clone() }) }
            }
        }
    }

    pub fn checksum(&self) -> String {
        checksum(&[self.kind.as_bytes(), self.json.as_bytes()])
    }

    pub fn bytes(&self, writing: u64) -> Vec<u8> {
        let head = format!("lictor {} {VERSION} {writing}", self.kind);
        let checksum = checksum(&[head.as_bytes(), self.json.as_bytes()]);
        format!("{head} {checksum}\n{}", self.json).into_bytes()
    }
}

/// The number of its writing, and what is kept in it.
///
/// # Errors
/// What is wrong with it.
pub fn read(bytes: &[u8]) -> Result<(u64, Kept), Refused> {
    let (line, json) = bytes.iter().position(|byte| *byte == b'\n').map_or((bytes, &[][..]), |at| {
        let (line, json) = bytes.split_at(at);
        (line, &json[1..])
    });
    let line = std::str::from_utf8(line).map_err(|_| Refused::Foreign)?;
    let words: Vec<&str> = line.split(' ').collect();
    let ["lictor", kind @ ("service" | "check" | "maintenance"), version, rest @ ..] = &words[..] else {
        return Err(Refused::Foreign);
    };
    match version.parse::<u32>() {
        Ok(VERSION) => {}
        Ok(newer) if newer > VERSION => return Err(Refused::Newer(newer)),
        _ => return Err(Refused::Foreign),
    }
    let [writing, given] = rest else { return Err(Refused::Torn) };
    let head = format!("lictor {kind} {version} {writing}");
    if checksum(&[head.as_bytes(), json]) != *given {
        return Err(Refused::Torn);
    }
    let writing = writing.parse().map_err(|_| Refused::Undecodable("the number of its writing".into()))?;
    Ok((writing, read_v1(kind, json)?))
}

fn read_v1(kind: &str, json: &[u8]) -> Result<Kept, Refused> {
    let invalid = |invalid: Invalid| Refused::Undecodable(invalid.to_string());
    let built = |check: crate::check::CheckSpec| check.build().map(Arc::new).map_err(invalid);
    match kind {
        "check" => {
            let check = built(parse::<v1::Check>(json)?.check)?;
            if !check.service_id.is_empty() {
                return Err(Refused::Undecodable("a check of the node has a service".into()));
            }
            Ok(Kept::Check(check))
        }
        "maintenance" => Ok(Kept::Maintenance(parse::<v1::Maintenance>(json)?.reason)),
        _ => {
            let v1::Service { id, service, token, checks, maintenance } = parse(json)?;
            let checks = checks.into_iter().map(built).collect::<Result<Vec<_>, _>>()?;
            let is_of = |other: &str| fold(other) == fold(&id);
            if id.is_empty()
                || !checks.iter().all(|check| is_of(&check.service_id))
                || !service.as_ref().is_none_or(|service| is_of(&service.id) && !service.name.is_empty())
            {
                return Err(Refused::Undecodable("ids of its service do not agree".into()));
            }
            let registered = service.map(|service| Registered { service: Arc::new(service), token });
            Ok(Kept::Service { id, registered, checks, maintenance })
        }
    }
}

/// Where a kept thing stands below the data directory: by the checksum of its id, in lower case.
pub fn place(kept: &Kept) -> String {
    match kept {
        Kept::Service { id, .. } => service_place(&fold(id)),
        Kept::Check(definition) => check_place(&fold(&definition.id)),
        Kept::Maintenance(_) => check_place(NODE_MAINTENANCE),
    }
}

pub fn id(kept: &Kept) -> &str {
    match kept {
        Kept::Service { id, .. } => id,
        Kept::Check(definition) => &definition.id,
        Kept::Maintenance(_) => NODE_MAINTENANCE,
    }
}

pub fn service_place(id: &str) -> String {
    format!("services/{}", checksum(&[id.as_bytes()]))
}

pub fn check_place(id: &str) -> String {
    format!("checks/{}", checksum(&[id.as_bytes()]))
}

/// SHA-256 of these lines, in hexadecimal digits.
pub fn checksum(lines: &[&[u8]]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, &lines.join(&b'\n'));
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One line; keys that say nothing are left out.
pub fn json(value: &impl Serialize) -> String {
    let mut value =
        serde_json::to_value(value).expect("records have text for keys, and no number that is none");
    drop_nulls(&mut value);
    value.to_string() + "\n"
}

pub fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(json).map_err(|error| Refused::Undecodable(error.to_string()))
}

fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
