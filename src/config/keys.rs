//! Every key that is known without being acted on: those of features that do not exist here yet, which cost a warning
//! each, and those that secure something, which stop the start where they are meant to.

use super::{
    reader::{Fields, Findings},
    tree::{Kind, Value},
};

/// Known at the top, and without effect yet. Blocks are not looked into.
const UNUSED: &[&str] = &[
    "acl",
    "acl_agent_master_token",
    "acl_agent_token",
    "acl_datacenter",
    "acl_default_policy",
    "acl_down_policy",
    "acl_enable_key_list_policy",
    "acl_enforce_version_8",
    "acl_master_token",
    "acl_replication_token",
    "acl_token",
    "acl_ttl",
    "advertise_addr_ipv4",
    "advertise_addr_ipv6",
    "advertise_addr_wan_ipv4",
    "advertise_addr_wan_ipv6",
    "advertise_reconnect_timeout",
    "audit",
    "auto_config",
    "auto_encrypt",
    "auto_reload_config",
    "autopilot",
    "bootstrap",
    "bootstrap_expect",
    "ca_file",
    "ca_path",
    "cache",
    "cert_file",
    "cloud",
    "config_entries",
    "connect",
    "default_query_time",
    "disable_anonymous_signature",
    "disable_coordinates",
    "disable_host_node_id",
    "disable_http_unprintable_char_filter",
    "disable_keyring_file",
    "disable_remote_exec",
    "disable_update_check",
    "discovery_max_stale",
    "enable_acl_replication",
    "enable_central_service_config",
    "enable_debug",
    "enable_syslog",
    "encrypt",
    "encrypt_verify_incoming",
    "encrypt_verify_outgoing",
    "experiments",
    "gossip_lan",
    "gossip_wan",
    "key_file",
    "license_path",
    "locality",
    "log_file",
    "log_rotate_bytes",
    "log_rotate_duration",
    "log_rotate_max_files",
    "max_query_time",
    "non_voting_server",
    "partition",
    "peering",
    "performance",
    "primary_datacenter",
    "primary_gateways",
    "primary_gateways_interval",
    "protocol",
    "raft_boltdb",
    "raft_logstore",
    "raft_protocol",
    "raft_snapshot_interval",
    "raft_snapshot_threshold",
    "raft_trailing_logs",
    "read_replica",
    "reconnect_timeout",
    "reconnect_timeout_wan",
    "recursors",
    "rejoin_after_leave",
    "reporting",
    "retry_interval",
    "retry_interval_wan",
    "retry_join",
    "retry_join_wan",
    "retry_max",
    "retry_max_wan",
    "rpc",
    "serf_lan",
    "serf_lan_allowed_cidrs",
    "serf_wan",
    "serf_wan_allowed_cidrs",
    "server_rejoin_age_max",
    "session_ttl_min",
    "start_join",
    "start_join_wan",
    "syslog_facility",
    "telemetry",
    "tls",
    "tls_cipher_suites",
    "tls_min_version",
    "tls_prefer_server_cipher_suites",
    "translate_wan_addrs",
    "ui",
    "ui_config",
    "ui_content_path",
    "ui_dir",
    "unix_sockets",
    "use_streaming_backend",
    "verify_incoming",
    "verify_incoming_https",
    "verify_incoming_rpc",
    "verify_outgoing",
    "verify_server_hostname",
    "watches",
];

/// Keys that no user may set: accepted without a word.
const FIXED: &[&str] = &[
    "ae_interval",
    "check_deregister_interval_min",
    "check_reap_interval",
    "revision",
    "version",
    "version_prerelease",
    "version_metadata",
    "build_date",
];

/// Old names of keys that are unused all the same.
const DEPRECATED: &[(&str, &str)] = &[
    ("acl_datacenter", "primary_datacenter"),
    ("acl_token", "acl.tokens.default"),
    ("acl_master_token", "acl.tokens.initial_management"),
    ("acl_default_policy", "acl.default_policy"),
    ("enable_acl_replication", "acl.enable_token_replication"),
    ("ui", "ui_config.enabled"),
    ("ui_dir", "ui_config.dir"),
    ("ui_content_path", "ui_config.content_path"),
    ("start_join", "retry_join"),
    ("start_join_wan", "retry_join_wan"),
    ("ca_file", "tls.defaults.ca_file"),
    ("cert_file", "tls.defaults.cert_file"),
    ("key_file", "tls.defaults.key_file"),
    ("verify_incoming", "tls.defaults.verify_incoming"),
    ("verify_outgoing", "tls.defaults.verify_outgoing"),
    ("verify_server_hostname", "tls.internal_rpc.verify_server_hostname"),
    ("tls_min_version", "tls.defaults.tls_min_version"),
    ("raft_boltdb", "raft_logstore.boltdb"),
];

/// Takes every key of the lists above out of `top`. `ignored` are the securing keys that the operator wants ignored.
pub fn take_unused(top: &mut Fields, ignored: &[String], findings: &mut Findings) {
    for key in FIXED {
        top.take_all(key);
    }
    for key in UNUSED {
        for value in top.take_all(key) {
            if let Some((_, new)) = DEPRECATED.iter().find(|(old, _)| old == key) {
                findings.warn(
                    &value.place,
                    format!("The '{key}' field is deprecated. Use the '{new}' field instead."),
                );
            }
            let secured = secures(key, value);
            match secured.into_iter().find(|path| !ignored.contains(path)) {
                Some(path) => drop(findings.fault::<()>(value.place.clone(), refusal(&path))),
                None => findings.warn(&value.place, format!("{key} is accepted and has no effect yet")),
            }
        }
    }
}

/// An operator who wrote this believes that something is protected: it is not, so the agent does not start.
pub fn refusal(path: &str) -> String {
    format!(
        "{path} is meant to secure this agent, and lictor cannot do that yet: it does not start unsecured; expected the key to be left out, or the flag -ignore-security-key={path}"
    )
}

/// The keys under this one that are set to something that secures.
fn secures(key: &str, value: &Value) -> Vec<String> {
    let text = || matches!(&value.kind, Kind::Text(text) if !text.is_empty());
    let is_true = || value.kind == Kind::Bool(true);
    let own = |secures: bool| if secures { vec![key.to_string()] } else { vec![] };
    match key {
        "encrypt" | "ca_file" | "ca_path" | "cert_file" | "key_file" => own(text()),
        "acl_token" | "acl_master_token" | "acl_agent_token" | "acl_agent_master_token" => own(text()),
        "acl_default_policy" => own(matches!(&value.kind, Kind::Text(policy) if policy != "allow")),
        "verify_incoming"
        | "verify_incoming_rpc"
        | "verify_incoming_https"
        | "verify_outgoing"
        | "verify_server_hostname" => own(is_true()),
        "acl" => inside(value, "acl", |key, value| match key {
            "enabled" => value.kind == Kind::Bool(true),
            "default_policy" => {
                matches!(&value.kind, Kind::Text(policy) if !policy.eq_ignore_ascii_case("allow"))
            }
            "tokens" => matches!(&value.kind, Kind::Object(members) if !members.is_empty()),
            _ => false,
        }),
        "auto_encrypt" => inside(value, "auto_encrypt", |key, value| {
            matches!(key, "tls" | "allow_tls") && value.kind == Kind::Bool(true)
        }),
        "auto_config" => {
            inside(value, "auto_config", |key, value| key == "enabled" && value.kind == Kind::Bool(true))
        }
        "tls" => own(says_something(value)),
        _ => vec![],
    }
}

fn inside(value: &Value, path: &str, secures: impl Fn(&str, &Value) -> bool) -> Vec<String> {
    let Kind::Object(members) = &value.kind else { return vec![] };
    let named = members.iter().map(|member| (member.key.to_lowercase(), &member.value));
    named.filter(|(key, value)| secures(key, value)).map(|(key, _)| format!("{path}.{key}")).collect()
}

/// Whether anything but empty texts and `false` stands in it.
fn says_something(value: &Value) -> bool {
    match &value.kind {
        Kind::Object(members) => members.iter().any(|member| says_something(&member.value)),
        Kind::List(values) => values.iter().any(says_something),
        Kind::Text(text) => !text.is_empty(),
        Kind::Bool(word) => *word,
        Kind::Null => false,
        Kind::Int(_) | Kind::Float(_) => true,
    }
}
