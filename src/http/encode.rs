//! The JSON that we answer: the shared objects of `http-api.md` §6, written straight into a buffer. Which empty value is
//! `null`, which `[]`, and which key is left out stands here (§6.3).

use std::io::Write;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::agent::Member;
use crate::catalog::{
    Check, Coordinate, Entry, Instance, Locality, Map, Node, Service, ServiceAddress, Session, Text, Weights,
};

/// JSON being written. Commas come by themselves: whatever follows anything but an opening one needs one before it.
#[derive(Default)]
pub struct Json(Vec<u8>);

impl Json {
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub fn object(&mut self, fill: impl FnOnce(&mut Self)) {
        self.within(b'{', b'}', fill);
    }

    pub fn list(&mut self, fill: impl FnOnce(&mut Self)) {
        self.within(b'[', b']', fill);
    }

    /// The name of the value that follows.
    pub fn key(&mut self, key: &str) -> &mut Self {
        self.text(key);
        self.0.push(b':');
        self
    }

    pub fn null(&mut self) {
        self.raw("null");
    }

    pub fn flag(&mut self, flag: bool) {
        self.raw(if flag { "true" } else { "false" });
    }

    pub fn number(&mut self, number: impl Into<i128>) {
        self.comma();
        write!(self.0, "{}", number.into()).expect("a buffer takes what it is given");
    }

    /// A number that is finite; as short as it can be read back.
    pub fn float(&mut self, number: f64) {
        self.comma();
        write!(self.0, "{number}").expect("a buffer takes what it is given");
    }

    /// Something that is JSON already.
    pub fn raw(&mut self, json: &str) {
        self.comma();
        self.0.extend_from_slice(json.as_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.comma();
        self.0.push(b'"');
        let mut clean = 0;
        for (at, byte) in text.bytes().enumerate() {
            let escaped: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                b'<' | b'>' | b'&' | 0..=0x1f => b"",
                // U+2028 and U+2029 end a line in JavaScript.
                0xe2 if text[at..].starts_with(['\u{2028}', '\u{2029}']) => b"",
                _ => continue,
            };
            self.0.extend_from_slice(&text.as_bytes()[clean..at]);
            let length = match escaped {
                b"" => self.escape(text[at..].chars().next().unwrap_or_default()),
                known => {
                    self.0.extend_from_slice(known);
                    1
                }
            };
            clean = at + length;
        }
        self.0.extend_from_slice(&text.as_bytes()[clean..]);
        self.0.push(b'"');
    }

    /// Bytes, as a text in base64.
    pub fn base64(&mut self, bytes: &[u8]) {
        self.comma();
        self.0.push(b'"');
        self.0.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
        self.0.push(b'"');
    }

    pub fn texts(&mut self, texts: &[Text]) {
        self.list(|list| texts.iter().for_each(|text| list.text(text)));
    }

    fn escape(&mut self, c: char) -> usize {
        write!(self.0, "\\u{:04x}", c as u32).expect("a buffer takes what it is given");
        c.len_utf8()
    }

    fn within(&mut self, open: u8, close: u8, fill: impl FnOnce(&mut Self)) {
        self.comma();
        self.0.push(open);
        fill(self);
        self.0.push(close);
    }

    fn comma(&mut self) {
        if !matches!(self.0.last(), None | Some(b'{' | b'[' | b':')) {
            self.0.push(b',');
        }
    }

    fn text_unless_empty(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.key(key).text(text);
        }
    }
}

/// Node, under `/catalog` and `/health`.
pub fn node(json: &mut Json, node: &Node) {
    json.object(|json| {
        node_head(json, node);
        json.key("Meta");
        map_or_null(json, &node.meta);
        locality(json, "Locality", node.locality.as_deref());
        indexes(json, node.created, node.modified);
    });
}

/// How a list with nothing in it is told (§6.3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    List,
    /// In what prepared queries, transactions and the health of own services answer.
    Null,
}

/// NodeService: a service, under its node.
pub fn node_service(json: &mut Json, service: &Service) {
    node_service_as(json, service, Empty::List);
}

/// The same, as a transaction yields it.
pub fn node_service_of_txn(json: &mut Json, service: &Service) {
    node_service_as(json, service, Empty::Null);
}

fn node_service_as(json: &mut Json, service: &Service, empty: Empty) {
    json.object(|json| {
        json.text_unless_empty("Kind", &service.kind);
        json.key("ID").text(&service.id);
        json.key("Service").text(&service.name);
        tags(json.key("Tags"), &service.tags, empty);
        json.key("Address").text(&service.address);
        addresses(json, "TaggedAddresses", service);
        json.key("Meta");
        map_or_null(json, &service.meta);
        if service.port != 0 {
            json.key("Port").number(service.port);
        }
        json.text_unless_empty("SocketPath", &service.socket_path);
        weights(json.key("Weights"), service.weights);
        json.key("EnableTagOverride").flag(service.enable_tag_override);
        locality(json, "Locality", service.locality.as_deref());
        json.key("Proxy").raw(NO_PROXY);
        json.key("Connect").raw("{}");
        json.key("PeerName").text("");
        indexes(json, service.created, service.modified);
    });
}

/// ServiceNode: a service and its node in one, under `/catalog/service`.
pub fn service_node(json: &mut Json, node: &Node, service: &Service) {
    json.object(|json| {
        node_head(json, node);
        json.key("NodeMeta");
        map_or_null(json, &node.meta);
        json.key("ServiceKind").text(&service.kind);
        json.key("ServiceID").text(&service.id);
        json.key("ServiceName").text(&service.name);
        json.key("ServiceTags").texts(&service.tags);
        json.key("ServiceAddress").text(&service.address);
        addresses(json, "ServiceTaggedAddresses", service);
        weights(json.key("ServiceWeights"), service.weights);
        json.key("ServiceMeta");
        map(json, service.meta.as_ref());
        json.key("ServicePort").number(service.port);
        json.key("ServiceSocketPath").text(&service.socket_path);
        json.key("ServiceEnableTagOverride").flag(service.enable_tag_override);
        json.key("ServiceProxy").raw(NO_PROXY);
        json.key("ServiceConnect").raw("{}");
        match service.locality.as_deref() {
            None => json.key("ServiceLocality").null(),
            given => locality(json, "ServiceLocality", given),
        }
        indexes(json, service.created, service.modified);
    });
}

/// AgentService: a service as its own agent tells of it. `hash` is that of its definition, where one was asked for.
pub fn agent_service(json: &mut Json, service: &Service, datacenter: &str, hash: Option<&str>) {
    json.object(|json| {
        json.text_unless_empty("Kind", &service.kind);
        json.key("ID").text(&service.id);
        json.key("Service").text(&service.name);
        json.key("Tags").texts(&service.tags);
        json.key("Meta");
        map(json, service.meta.as_ref());
        json.key("Port").number(service.port);
        json.key("Address").text(&service.address);
        json.text_unless_empty("SocketPath", &service.socket_path);
        addresses(json, "TaggedAddresses", service);
        weights(json.key("Weights"), service.weights);
        json.key("EnableTagOverride").flag(service.enable_tag_override);
        json.text_unless_empty("ContentHash", hash.unwrap_or_default());
        json.text_unless_empty("Datacenter", datacenter);
        locality(json, "Locality", service.locality.as_deref());
    });
}

/// HealthCheck. An agent's own checks are not in a catalog: their indexes are 0.
pub fn check(json: &mut Json, check: &Check, indexes: (u64, u64)) {
    check_as(json, check, indexes, Empty::List);
}

/// The same, as a transaction yields it.
pub fn check_of_txn(json: &mut Json, check: &Check) {
    check_as(json, check, (check.created, check.modified), Empty::Null);
}

fn check_as(json: &mut Json, check: &Check, (created, modified): (u64, u64), empty: Empty) {
    json.object(|json| {
        check_head(json, check, empty);
        json.key("Type").text(&check.kind);
        json.key("Interval").text(&check.interval);
        json.key("Timeout").text(&check.timeout);
        json.key("ExposedPort").number(check.exposed_port);
        json.key("Definition").raw(check.definition.as_deref().unwrap_or("{}"));
        indexes(json, created, modified);
    });
}

/// What every shape of a check begins with, in the object being written.
pub fn check_head(json: &mut Json, check: &Check, empty: Empty) {
    json.key("Node").text(&check.node);
    json.key("CheckID").text(&check.id);
    json.key("Name").text(&check.name);
    json.key("Status").text(check.status.as_str());
    json.key("Notes").text(&check.notes);
    json.key("Output").text(&check.output);
    json.key("ServiceID").text(&check.service_id);
    json.key("ServiceName").text(&check.service_name);
    tags(json.key("ServiceTags"), &check.service_tags, empty);
}

/// CheckServiceNode: an instance with all that speaks for its health.
pub fn instance(json: &mut Json, instance: &Instance) {
    instance_as(json, instance, Empty::List);
}

/// The same, as a prepared query tells it.
pub fn instance_of_query(json: &mut Json, instance: &Instance) {
    instance_as(json, instance, Empty::Null);
}

fn instance_as(json: &mut Json, instance: &Instance, empty: Empty) {
    json.object(|json| {
        node(json.key("Node"), &instance.node);
        node_service_as(json.key("Service"), &instance.service, empty);
        let mut checks = instance.node_checks.iter().chain(instance.checks.iter()).peekable();
        json.key("Checks");
        if checks.peek().is_none() && empty == Empty::Null {
            return json.null();
        }
        json.list(|json| {
            checks.for_each(|one| check_as(json, one, (one.created, one.modified), empty));
        });
    });
}

fn tags(json: &mut Json, tags: &[Text], empty: Empty) {
    match empty {
        Empty::Null if tags.is_empty() => json.null(),
        _ => json.texts(tags),
    }
}

/// Member: an agent, as others see it.
pub fn member(json: &mut Json, member: &Member) {
    json.object(|json| {
        json.key("Name").text(&member.name);
        json.key("Addr").text(&member.gossip.map(|gossip| gossip.ip().to_string()).unwrap_or_default());
        json.key("Port").number(member.gossip.map_or(0, |gossip| gossip.port()));
        pairs(json.key("Tags"), &member.tags);
        json.key("Status").number(member.status as u8);
        for (name, version) in PROTOCOLS {
            json.key(name).number(*version);
        }
    });
}

pub fn coordinate(json: &mut Json, coordinate: &Coordinate) {
    json.object(|json| {
        json.key("Vec").list(|json| coordinate.vec.iter().for_each(|part| json.float(*part)));
        json.key("Error").float(coordinate.error);
        json.key("Adjustment").float(coordinate.adjustment);
        json.key("Height").float(coordinate.height);
    });
}

pub fn pairs(json: &mut Json, pairs: &[(Text, Text)]) {
    json.object(|json| pairs.iter().for_each(|(key, value)| json.key(key).text(value)));
}

/// What a read says of itself within its body, where it does.
pub fn query_meta(json: &mut Json, index: u64, consistency: &str, known_leader: bool) {
    json.key("Index").number(index);
    json.key("LastContact").number(0);
    json.key("KnownLeader").flag(known_leader);
    json.key("ConsistencyLevel").text(consistency);
    json.key("NotModified").flag(false);
    json.key("Backend").number(0);
    json.key("ResultsFilteredByACLs").flag(false);
}

/// KVEntry. What of a key is no UTF-8 is shown as U+FFFD.
pub fn entry(json: &mut Json, entry: &Entry) {
    json.object(|json| {
        json.key("LockIndex").number(entry.lock_index);
        json.key("Key").text(&entry.key.to_string());
        json.key("Flags").number(entry.flags);
        json.key("Value");
        match entry.value.is_empty() {
            true => json.null(),
            false => json.base64(&entry.value),
        }
        if let Some(session) = entry.session {
            json.key("Session").text(&session.to_string());
        }
        indexes(json, entry.created, entry.modified);
    });
}

pub fn session(json: &mut Json, session: &Session) {
    json.object(|json| {
        json.key("ID").text(&session.id.to_string());
        json.key("Name").text(&session.name);
        json.key("Node").text(&session.node);
        json.key("LockDelay").number(session.lock_delay);
        json.key("Behavior").text(session.behavior.as_str());
        json.key("TTL").text(&session.ttl);
        json.key("NodeChecks");
        match &session.node_checks {
            None => json.null(),
            Some(checks) => json.texts(checks),
        }
        json.key("ServiceChecks");
        match &session.service_checks {
            None => json.null(),
            Some(checks) => json.list(|json| {
                for check in checks.iter() {
                    json.object(|json| {
                        json.key("ID").text(&check.id);
                        json.key("Namespace").text(&check.namespace);
                    });
                }
            }),
        }
        if let Some(checks) = &session.checks {
            json.key("Checks").texts(checks);
        }
        indexes(json, session.created, session.modified);
    });
}

/// Nested four blanks deep, and a line's end (`?pretty`).
pub fn pretty(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 4 * depth));
    };
    for (at, &byte) in compact.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| compact[at]);
        if quoted {
            out.push(byte);
            quoted = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !matches!(before, Some(b'{' | b'[')) {
                    line(&mut out, depth);
                }
            }
            _ if matches!(before, Some(b'{' | b'[' | b',')) => line(&mut out, depth),
            _ => {}
        }
        out.push(byte);
        match byte {
            b'{' | b'[' => depth += 1,
            b':' => out.push(b' '),
            b'"' => quoted = true,
            _ => {}
        }
    }
    out.push(b'\n');
    out
}

/// What Consul's members say they speak.
pub const PROTOCOLS: &[(&str, i32)] = &[
    ("ProtocolMin", 1),
    ("ProtocolMax", 5),
    ("ProtocolCur", 2),
    ("DelegateMin", 2),
    ("DelegateMax", 5),
    ("DelegateCur", 4),
];

/// What a service without a sidecar prints.
const NO_PROXY: &str = r#"{"Mode":"","MeshGateway":{},"Expose":{}}"#;

fn node_head(json: &mut Json, node: &Node) {
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    json.key("ID").text(node.id.as_ref().map_or("", |uuid| uuid.hyphenated().encode_lower(&mut id)));
    json.key("Node").text(&node.name);
    json.key("Address").text(&node.address);
    json.key("Datacenter").text(&node.datacenter);
    json.key("TaggedAddresses");
    map_or_null(json, &node.tagged_addresses);
}

pub fn indexes(json: &mut Json, created: u64, modified: u64) {
    json.key("CreateIndex").number(created);
    json.key("ModifyIndex").number(modified);
}

fn map(json: &mut Json, map: Option<&Map<Text>>) {
    let pairs = map.into_iter().flat_map(Map::iter);
    json.object(|json| pairs.for_each(|(key, value)| json.key(key).text(value)));
}

pub fn map_or_null(json: &mut Json, given: &Option<Map<Text>>) {
    match given {
        None => json.null(),
        given => map(json, given.as_ref()),
    }
}

fn addresses(json: &mut Json, key: &str, service: &Service) {
    let Some(addresses) = &service.tagged_addresses else { return };
    json.key(key).object(|json| {
        for (name, ServiceAddress { address, port }) in addresses.iter() {
            json.key(name).object(|json| {
                json.key("Address").text(address);
                json.key("Port").number(*port);
            });
        }
    });
}

fn weights(json: &mut Json, weights: Weights) {
    json.object(|json| {
        json.key("Passing").number(weights.passing);
        json.key("Warning").number(weights.warning);
    });
}

fn locality(json: &mut Json, key: &str, locality: Option<&Locality>) {
    let Some(Locality { region, zone }) = locality else { return };
    json.key(key).object(|json| {
        json.key("Region").text(region);
        json.key("Zone").text(zone);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> String {
        let mut json = Json::default();
        json.text(text);
        String::from_utf8(json.into_bytes()).unwrap()
    }

    #[test]
    fn texts_are_escaped_as_go_does() {
        assert_eq!(text("plain é"), "\"plain é\"");
        assert_eq!(text("a<b>&\"\\\n\r\t\u{1}\u{8}"), r#""a\u003cb\u003e\u0026\"\\\n\r\t\u0001\u0008""#);
        assert_eq!(text("a\u{2028}b\u{2029}ö…"), "\"a\\u2028b\\u2029ö…\"");
    }

    #[test]
    fn commas_come_by_themselves() {
        let mut json = Json::default();
        json.object(|json| {
            json.key("a").list(|json| {
                json.number(1);
                json.text("x[");
                json.object(|_| {});
                json.flag(true);
            });
            json.key("b:").null();
        });
        assert_eq!(String::from_utf8(json.into_bytes()).unwrap(), r#"{"a":[1,"x[",{},true],"b:":null}"#);
    }

    #[test]
    fn pretty_is_nested_by_four() {
        let nested = pretty(br#"{"a":[1,{"b":"x:,{\"}"}],"c":{},"d":[]}"#);
        let wanted = "{\n    \"a\": [\n        1,\n        {\n            \"b\": \"x:,{\\\"}\"\n        }\n    ],\n    \"c\": {},\n    \"d\": []\n}\n";
        assert_eq!(String::from_utf8(nested).unwrap(), wanted);
    }
}
