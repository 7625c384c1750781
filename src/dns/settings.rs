//! What an operator sets about answers (`dns.md` §23).

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::recursion::Recursion;

/// Everything an answer depends on besides the catalog and the question. All of it may change at a reload but the
/// zone names, the datacenter and the road.
///
/// They go along with a question that another agent is to answer; what it has no use for does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The zone, lower-cased, with a final dot: `consul.`
    pub domain: String,
    /// A second zone with the same names; lower-cased, with a final dot.
    pub alt_domain: Option<String>,
    /// Of this agent, lower-cased.
    pub datacenter: String,
    /// Of this agent.
    pub node: String,
    pub node_ttl: Duration,
    pub service_ttl: ServiceTtl,
    pub only_passing: bool,
    pub enable_truncate: bool,
    /// Most answers over UDP to a client without EDNS (or one that offers at most 512 bytes); 0 is no limit.
    pub udp_answer_limit: usize,
    /// Most A/AAAA answers, on any transport; 0 is no limit.
    pub a_record_limit: usize,
    pub disable_compression: bool,
    pub node_meta_txt: bool,
    pub soa: Soa,
    /// Most bytes sent by UDP to a loopback client, whatever it offers.
    pub udp_bytes_max_loopback: u16,
    /// Most bytes sent by UDP to any other client, whatever it offers.
    pub udp_bytes_max: u16,
    /// Master files of static zones, and directories of them.
    #[serde(skip)]
    pub zones: Vec<PathBuf>,
    /// Serve UDP in batches with a thread a core (Linux). Off: one plain socket; the answers are the same.
    pub udp_batch: bool,
    pub recursion: Recursion,
}

/// TTLs of service answers: an exact name, else the longest matching prefix. Keys are lower-cased.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceTtl {
    pub exact: Vec<(String, Duration)>,
    /// `pa*` is held as `pa`, `*` as the empty prefix; longest first.
    pub prefixes: Vec<(String, Duration)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Soa {
    pub refresh_secs: u32,
    pub retry_secs: u32,
    pub expire_secs: u32,
    /// TTL of negative answers; 5 s where unset.
    pub min_ttl_secs: Option<u32>,
}

impl Default for Soa {
    fn default() -> Self {
        Soa { refresh_secs: 3600, retry_secs: 600, expire_secs: 86400, min_ttl_secs: None }
    }
}

impl Settings {
    /// The zones that the catalog answers.
    pub fn domains(&self) -> Vec<&str> {
        [Some(&self.domain), self.alt_domain.as_ref()].into_iter().flatten().map(String::as_str).collect()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            domain: "consul.".into(),
            alt_domain: None,
            datacenter: "dc1".into(),
            node: String::new(),
            node_ttl: Duration::ZERO,
            service_ttl: ServiceTtl::default(),
            only_passing: false,
            enable_truncate: false,
            udp_answer_limit: 3,
            a_record_limit: 0,
            disable_compression: false,
            node_meta_txt: true,
            soa: Soa::default(),
            udp_bytes_max_loopback: 4096,
            udp_bytes_max: 1232,
            zones: Vec::new(),
            udp_batch: true,
            recursion: Recursion::default(),
        }
    }
}

impl ServiceTtl {
    /// `name` is lower-cased.
    pub fn of(&self, name: &str) -> Duration {
        if let Some((_, ttl)) = self.exact.iter().find(|(exact, _)| exact == name) {
            return *ttl;
        }
        self.prefixes
            .iter()
            .find(|(prefix, _)| name.starts_with(&**prefix))
            .map_or(Duration::ZERO, |(_, ttl)| *ttl)
    }
}

impl FromIterator<(String, Duration)> for ServiceTtl {
    fn from_iter<I: IntoIterator<Item = (String, Duration)>>(pairs: I) -> Self {
        let mut ttl = ServiceTtl::default();
        for (key, value) in pairs {
            let key = key.to_lowercase();
            match key.strip_suffix('*') {
                Some(prefix) => ttl.prefixes.push((prefix.to_string(), value)),
                None => ttl.exact.push((key, value)),
            }
        }
        ttl.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        ttl
    }
}
