//! Every key that is known without being acted on: those of features that do not exist here yet, which cost a warning
//! each, and those that secure something, which stop the start where they are meant to.

use super::{
    reader::{Fields, Findings},
    tree::{Kind, Place, Value},
};

/// What a value must be.
enum Form {
    Bool,
    Int,
    /// Not negative.
    Count,
    Between(i64, i64),
    Float,
    Text,
    Texts,
    Span,
    /// Nanoseconds.
    SpanMin(i64),
    Block(Keys),
    /// A block that is not looked into. Anything else would hide what it secures.
    Open,
    /// Not looked into.
    Any,
    /// Accepted without a word: no user may set it.
    Fixed,
}

type Keys = &'static [(&'static str, Form)];

use Form::{Any, Between, Block, Bool, Count, Fixed, Float, Int, Open, SpanMin, Texts};
const TEXT: Form = Form::Text;
const SPAN: Form = Form::Span;

/// Known at the top, and without effect yet.
const UNUSED: Keys = &[
    ("acl", Block(ACL)),
    ("acl_agent_master_token", TEXT),
    ("acl_agent_token", TEXT),
    ("acl_datacenter", TEXT),
    ("acl_default_policy", TEXT),
    ("acl_down_policy", TEXT),
    ("acl_enable_key_list_policy", Bool),
    ("acl_enforce_version_8", Bool),
    ("acl_master_token", TEXT),
    ("acl_replication_token", TEXT),
    ("acl_token", TEXT),
    ("acl_ttl", SPAN),
    ("advertise_addr_ipv4", TEXT),
    ("advertise_addr_ipv6", TEXT),
    ("advertise_addr_wan_ipv4", TEXT),
    ("advertise_addr_wan_ipv6", TEXT),
    ("ae_interval", Fixed),
    ("audit", Open),
    ("auto_config", Open),
    ("auto_encrypt", Block(&[("tls", Bool), ("allow_tls", Bool), ("dns_san", Texts), ("ip_san", Texts)])),
    ("auto_reload_config", Bool),
    ("autopilot", Block(AUTOPILOT)),
    ("build_date", Fixed),
    ("ca_file", TEXT),
    ("ca_path", TEXT),
    ("cache", Block(&[("entry_fetch_max_burst", Int), ("entry_fetch_rate", Float)])),
    ("cert_file", TEXT),
    ("check_deregister_interval_min", Fixed),
    ("check_reap_interval", Fixed),
    ("cloud", Open),
    ("config_entries", Open),
    ("connect", Open),
    ("disable_anonymous_signature", Bool),
    ("disable_host_node_id", Bool),
    ("disable_remote_exec", Bool),
    ("disable_update_check", Bool),
    ("discovery_max_stale", SPAN),
    ("enable_acl_replication", Bool),
    ("enable_central_service_config", Bool),
    ("enable_debug", Bool),
    ("enable_syslog", Bool),
    ("experiments", Texts),
    ("gossip_wan", Block(GOSSIP)),
    ("key_file", TEXT),
    ("license_path", TEXT),
    ("locality", Open),
    ("log_file", TEXT),
    ("log_rotate_bytes", Int),
    ("log_rotate_duration", SPAN),
    ("log_rotate_max_files", Int),
    ("non_voting_server", Bool),
    ("partition", TEXT),
    ("peering", Block(&[("enabled", Bool), ("test_allow_peer_registrations", Bool)])),
    ("primary_gateways", Texts),
    ("primary_gateways_interval", SPAN),
    ("protocol", Int),
    ("raft_boltdb", Open),
    ("raft_logstore", Open),
    ("raft_protocol", Int),
    ("raft_snapshot_interval", SPAN),
    ("raft_snapshot_threshold", Int),
    ("raft_trailing_logs", Int),
    ("read_replica", Bool),
    ("reconnect_timeout_wan", SPAN),
    ("reporting", Open),
    ("retry_interval_wan", SPAN),
    ("retry_join_wan", Texts),
    ("retry_max_wan", Int),
    ("revision", Fixed),
    ("rpc", Block(&[("enable_streaming", Bool)])),
    ("serf_wan", TEXT),
    ("serf_wan_allowed_cidrs", Texts),
    ("server_rejoin_age_max", SpanMin(6 * HOUR)),
    ("start_join_wan", Texts),
    ("syslog_facility", TEXT),
    ("tls", Open),
    ("tls_cipher_suites", TEXT),
    ("tls_min_version", TEXT),
    ("tls_prefer_server_cipher_suites", Bool),
    ("translate_wan_addrs", Bool),
    ("ui", Bool),
    ("ui_config", Open),
    ("ui_content_path", TEXT),
    ("ui_dir", TEXT),
    ("use_streaming_backend", Bool),
    ("verify_incoming", Bool),
    ("verify_incoming_https", Bool),
    ("verify_incoming_rpc", Bool),
    ("verify_outgoing", Bool),
    ("verify_server_hostname", Bool),
    ("version", Fixed),
    ("version_metadata", Fixed),
    ("version_prerelease", Fixed),
    ("watches", Any),
    ("xds", Open),
];

const HOUR: i64 = 3_600_000_000_000;

const ACL: Keys = &[
    ("default_policy", TEXT),
    ("down_policy", TEXT),
    ("enable_key_list_policy", Bool),
    ("enable_token_persistence", Bool),
    ("enable_token_replication", Bool),
    ("enabled", Bool),
    ("managed_service_provider", Any),
    ("msp_disable_bootstrap", Bool),
    ("policy_ttl", SPAN),
    ("role_ttl", SPAN),
    ("token_ttl", SPAN),
    ("tokens", Open),
];

const AUTOPILOT: Keys = &[
    ("cleanup_dead_servers", Bool),
    ("disable_upgrade_migration", Bool),
    ("last_contact_threshold", SPAN),
    ("max_trailing_logs", Count),
    ("min_quorum", Count),
    ("redundancy_zone_tag", TEXT),
    ("server_stabilization_time", SPAN),
    ("upgrade_version_tag", TEXT),
];

const GOSSIP: Keys = &[
    ("gossip_interval", SPAN),
    ("gossip_nodes", Int),
    ("probe_interval", SPAN),
    ("probe_timeout", SPAN),
    ("retransmit_mult", Int),
    ("suspicion_mult", Int),
];

/// Inside `performance`, beside the key that counts.
pub const PERFORMANCE: UnusedBlock = UnusedBlock(&[
    ("grpc_keepalive_interval", SPAN),
    ("grpc_keepalive_timeout", SPAN),
    ("leave_drain_time", SPAN),
    ("raft_multiplier", Between(1, 10)),
]);

/// Inside `limits`, beside the keys that count.
pub const LIMITS: UnusedBlock =
    UnusedBlock(&[("https_handshake_timeout", SPAN), ("rpc_max_burst", Int), ("rpc_rate", Float)]);

/// Inside `dns_config`, beside the keys that count.
pub const DNS_CONFIG: UnusedBlock = UnusedBlock(&[
    ("allow_stale", Bool),
    ("cache_max_age", SPAN),
    ("max_stale", SPAN),
    ("prefer_namespace", Bool),
    ("use_cache", Bool),
]);

/// Inside `telemetry`, beside the keys that count.
pub const TELEMETRY: UnusedBlock = UnusedBlock(&[
    ("circonus_api_app", TEXT),
    ("circonus_api_token", TEXT),
    ("circonus_api_url", TEXT),
    ("circonus_broker_id", TEXT),
    ("circonus_broker_select_tag", TEXT),
    ("circonus_check_display_name", TEXT),
    ("circonus_check_force_metric_activation", TEXT),
    ("circonus_check_id", TEXT),
    ("circonus_check_instance_id", TEXT),
    ("circonus_check_search_tag", TEXT),
    ("circonus_check_tags", TEXT),
    ("circonus_submission_interval", TEXT),
    ("circonus_submission_url", TEXT),
    ("dogstatsd_addr", TEXT),
    ("dogstatsd_tags", Texts),
    ("enable_host_metrics", Bool),
    ("disable_per_tenancy_usage_metrics", Bool),
    ("retry_failed_connection", Bool),
    ("statsite_address", TEXT),
]);

/// Inside `addresses`, beside the keys that count.
pub const ADDRESSES: UnusedBlock = UnusedBlock(&[("grpc", TEXT), ("grpc_tls", TEXT), ("https", TEXT)]);

/// Known keys of a block that has others, too.
pub struct UnusedBlock(Keys);

/// Old names of keys that are unused all the same.
const DEPRECATED: &[(&str, &str)] = &[
    ("acl_datacenter", "primary_datacenter"),
    ("acl_default_policy", "acl.default_policy"),
    ("acl_master_token", "acl.tokens.initial_management"),
    ("acl_token", "acl.tokens.default"),
    ("ca_file", "tls.defaults.ca_file"),
    ("cert_file", "tls.defaults.cert_file"),
    ("enable_acl_replication", "acl.enable_token_replication"),
    ("key_file", "tls.defaults.key_file"),
    ("raft_boltdb", "raft_logstore.boltdb"),
    ("start_join_wan", "retry_join_wan"),
    ("tls_min_version", "tls.defaults.tls_min_version"),
    ("ui", "ui_config.enabled"),
    ("ui_content_path", "ui_config.content_path"),
    ("ui_dir", "ui_config.dir"),
    ("verify_incoming", "tls.defaults.verify_incoming"),
    ("verify_outgoing", "tls.defaults.verify_outgoing"),
    ("verify_server_hostname", "tls.internal_rpc.verify_server_hostname"),
];

const ENTERPRISE: &[&str] = &["audit", "license_path", "non_voting_server", "partition", "read_replica"];

/// Takes every key of the lists above out of `top`.
pub fn take_unused(top: &mut Fields, ignored: &[String], findings: &mut Findings) {
    UnusedBlock(UNUSED).take(top, ignored, findings);
    if let Some(place) = top.place("segment") {
        top.take_all("segment");
        findings.fault::<()>(place, "Network segments are not supported in this version of Consul, nor here");
    }
}

impl UnusedBlock {
    /// Takes these keys out of a block, each with its warning, or with the reason why it does not pass.
    pub fn take(&self, block: &mut Fields, ignored: &[String], findings: &mut Findings) {
        for (key, form) in self.0 {
            let Some(value) = block.peek(key) else { continue };
            let path = block.path(key);
            read(block, key, form, findings);
            if matches!(form, Fixed) {
                continue;
            }
            let mut secured = Vec::new();
            find_secured(&path, value, &mut secured);
            if secured.is_empty() {
                findings.warn(&value.place, notice(&path));
            }
            for (path, place) in secured {
                refuse(&path, &place, ignored, findings);
            }
        }
    }
}

/// Notes that `path` is at a value that secures something. It costs only a warning where the operator wants that
/// ignored: by the key's name, or by that of the block around it.
pub fn refuse(path: &str, place: &Place, ignored: &[String], findings: &mut Findings) {
    let is_around =
        |block: &str| path.strip_prefix(block).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if ignored.iter().any(|key| is_around(&key.to_lowercase())) {
        findings.warn(place, format!("{path} is ignored as asked: it does not secure this agent"));
    } else {
        let so = "lictor cannot do that yet and does not start unsecured";
        let expected = format!("expected no such key, or the flag -ignore-security-key={path}");
        findings.refuse(place, format!("{path} is meant to secure this agent: {so}; {expected}"));
    }
}

pub fn notice(path: &str) -> String {
    match DEPRECATED.iter().find(|(old, _)| *old == path) {
        Some((_, new)) => {
            format!(
                "The '{path}' field is deprecated. Use the '{new}' field instead. (It has no effect yet.)"
            )
        }
        None if path == "acl_enforce_version_8" => {
            format!("config key {path:?} is deprecated and should be removed")
        }
        None if ENTERPRISE.contains(&path) => {
            format!("{path:?} is a Consul Enterprise configuration and will have no effect")
        }
        None => format!("{path} is accepted and has no effect yet"),
    }
}

/// Takes one key, and tests its value against its form.
fn read(block: &mut Fields, key: &str, form: &Form, findings: &mut Findings) {
    let (path, place) = (block.path(key), block.place(key).unwrap_or_default());
    match form {
        Bool => {
            block.bool(key, findings);
        }
        Int => {
            block.int(key, findings);
        }
        Count => {
            block.count(key, i64::MAX, findings);
        }
        Float => {
            block.float(key, findings);
        }
        Form::Text => {
            block.text(key, findings);
        }
        Texts => {
            block.texts(key, findings);
        }
        Form::Span => {
            block.duration(key, findings);
        }
        Open => {
            block.block(key, findings);
        }
        Any | Fixed => {
            block.take_all(key);
        }
        Between(least, most) => {
            if let Some(number) = block.int(key, findings).filter(|number| !(least..=most).contains(&number))
            {
                let text = format!("{path} cannot be {number}. Must be between {least} and {most}");
                findings.fault::<()>(place, text);
            }
        }
        SpanMin(least) => {
            if let Some(span) = block.duration(key, findings).filter(|span| span.nanos < *least) {
                let least = crate::check::format_duration(*least);
                let text = format!("{path}: duration '{}' cannot be less than: {least}", span.text);
                findings.fault::<()>(place, text);
            }
        }
        Block(keys) => {
            let Some(mut inner) = block.block(key, findings) else { return };
            for (key, form) in *keys {
                if inner.peek(key).is_some() {
                    read(&mut inner, key, form, findings);
                }
            }
            inner.finish(findings);
        }
    }
}

/// Every key at or below `path` that is set to something that secures, with its place.
fn find_secured(path: &str, value: &Value, found: &mut Vec<(String, Place)>) {
    if let Kind::Object(members) = &value.kind {
        for member in members {
            find_secured(&format!("{path}.{}", member.key.to_lowercase()), &member.value, found);
        }
    } else if secures(path, &value.kind) {
        found.push((path.into(), value.place.clone()));
    }
}

fn secures(path: &str, value: &Kind) -> bool {
    let says_something = match value {
        Kind::Text(text) => !text.is_empty(),
        Kind::Bool(word) => *word,
        Kind::List(values) => !values.is_empty(),
        Kind::Null => false,
        Kind::Int(_) | Kind::Float(_) | Kind::Object(_) => true,
    };
    let open = matches!(value, Kind::Text(policy) if policy.eq_ignore_ascii_case("allow"));
    says_something
        && match path {
            "acl.default_policy" | "acl_default_policy" => !open,
            "ca_file"
            | "ca_path"
            | "cert_file"
            | "key_file"
            | "acl.enabled"
            | "auto_encrypt.tls"
            | "auto_encrypt.allow_tls"
            | "auto_config.enabled"
            | "verify_incoming"
            | "verify_incoming_https"
            | "verify_incoming_rpc"
            | "verify_outgoing"
            | "verify_server_hostname"
            | "acl_token"
            | "acl_master_token"
            | "acl_agent_token"
            | "acl_agent_master_token" => true,
            _ => path.starts_with("tls.") || path.starts_with("acl.tokens."),
        }
}
