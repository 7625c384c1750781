//! The records that the catalog holds: nodes, services, checks. Plain values that travel in the log and between
//! agents; they know nothing of indexes other than their own, nor of who asks for them.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::map::Map;

/// A text that is shared rather than copied. An empty one allocates nothing.
pub type Text = Arc<str>;

/// A machine in the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    pub id: Option<Uuid>,
    /// The name in the spelling in which it was registered; it is looked up without regard to case.
    pub name: Text,
    /// An IP address or a host name; any text is accepted, and empty where nobody gave one.
    pub address: Text,
    pub datacenter: Text,
    /// Alternatives to `address` by key (`lan`, `wan_ipv4` …). `None` where nothing was said of them.
    pub tagged_addresses: Option<Map<Text>>,
    pub meta: Option<Map<Text>>,
    pub locality: Option<Arc<Locality>>,
    pub created: u64,
    pub modified: u64,
}

/// One copy of a service on one node, as it was registered: the record, not yet joined with its node and checks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    pub id: Text,
    pub name: Text,
    /// Empty for an ordinary service; `connect-proxy`, `mesh-gateway` …: kept as given, any text.
    pub kind: Text,
    pub tags: Arc<[Text]>,
    /// An IP address or a host name; empty means the node's.
    pub address: Text,
    pub tagged_addresses: Option<Map<ServiceAddress>>,
    /// 0 where none was given.
    pub port: u16,
    pub socket_path: Text,
    pub meta: Option<Map<Text>>,
    pub weights: Weights,
    pub enable_tag_override: bool,
    pub locality: Option<Arc<Locality>>,
    pub created: u64,
    pub modified: u64,
}

/// What is known of the health of a node, or of one service on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// The node's name.
    pub node: Text,
    pub id: Text,
    pub name: Text,
    pub status: Status,
    pub notes: Text,
    pub output: Text,
    /// Empty for a check of the node itself.
    pub service_id: Text,
    /// Copied from the service when the check is written.
    pub service_name: Text,
    pub service_tags: Arc<[Text]>,
    /// What runs it: `ttl`, `http` …; empty where nobody said.
    pub kind: Text,
    /// As written by whoever registered it, `10s`; empty where unset.
    pub interval: Text,
    pub timeout: Text,
    pub exposed_port: u16,
    /// The `Definition` of a check registered through the catalog: its canonical JSON object. `None` prints `{}`.
    pub definition: Option<Text>,
    pub created: u64,
    pub modified: u64,
}

/// A check's status as a word. What is none of the three known words is kept as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    Passing,
    Warning,
    #[default]
    Critical,
    Other(Text),
}

/// The health of an instance as an answer needs it: the worst of its node's checks and its own, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    Passing,
    Warning,
    /// A check says a word that is none of the three: not passing, yet not critical.
    Unknown,
    Critical,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceAddress {
    pub address: Text,
    pub port: u16,
}

/// The SRV weight by health. A registration through the catalog may hold any number; what does not fit 0 to 65535 is
/// answered as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    pub passing: i32,
    pub warning: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Locality {
    pub region: Text,
    pub zone: Text,
}

impl Service {
    /// A service without an id goes by its name.
    pub fn id_or_name(&self) -> &Text {
        if self.id.is_empty() { &self.name } else { &self.id }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Weights { passing: 1, warning: 1 }
    }
}

impl Status {
    pub fn as_str(&self) -> &str {
        match self {
            Status::Passing => "passing",
            Status::Warning => "warning",
            Status::Critical => "critical",
            Status::Other(word) => word,
        }
    }

    pub fn health(&self) -> Health {
        match self {
            Status::Passing => Health::Passing,
            Status::Warning => Health::Warning,
            Status::Critical => Health::Critical,
            Status::Other(_) => Health::Unknown,
        }
    }
}

impl From<&str> for Status {
    fn from(word: &str) -> Self {
        match word {
            "passing" => Status::Passing,
            "warning" => Status::Warning,
            "critical" => Status::Critical,
            other => Status::Other(other.into()),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Status {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Status::from(&*String::deserialize(deserializer)?))
    }
}
