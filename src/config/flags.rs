//! The flags of `lictor agent`. They become the same tree as files do.

use std::sync::Arc;

use super::{
    sources::Format,
    tree::{Kind, Member, Place, Value},
    words::{FlagError, Takes, parse_bool, parse_int, split_flags},
};

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flags {
    pub dev: bool,
    /// Files and directories, in order.
    pub paths: Vec<String>,
    pub format: Option<Format>,
    /// Lists, which files append to.
    pub lists: Vec<Member>,
    /// Single values, which win over files.
    pub scalars: Vec<Member>,
    /// `-hcl` fragments, which win over all.
    pub fragments: Vec<String>,
    /// Keys that were meant to secure this agent, and that the operator wants ignored.
    pub ignored_security: Vec<String>,
}

/// What a flag's value is, and the key that it sets.
#[derive(Clone, Copy)]
enum Form {
    Bool,
    Int,
    Text,
    /// May be given several times.
    List,
    /// `key:value`, several times.
    Pair,
}

/// Flag, form, the key it stands for (dots go into blocks), and what it does.
const FLAGS: &[(&str, Form, &str, &str)] = &[
    ("advertise", Form::Text, "advertise_addr", "the address that other agents reach this one by"),
    ("advertise-wan", Form::Text, "advertise_addr_wan", "the same, for other datacenters"),
    (
        "allow-write-http-from",
        Form::List,
        "http_config.allow_write_http_from",
        "a network that may write; others may read",
    ),
    ("alt-domain", Form::Text, "alt_domain", "a second DNS zone"),
    ("auto-reload-config", Form::Bool, "auto_reload_config", "accepted"),
    ("bind", Form::Text, "bind_addr", "the address to listen on for other agents"),
    ("bootstrap", Form::Bool, "bootstrap", "begin a datacenter where none is kept yet"),
    ("bootstrap-expect", Form::Int, "bootstrap_expect", "1: the same as -bootstrap"),
    ("check_output_max_size", Form::Int, "check_output_max_size", "bytes kept of a check's output"),
    ("client", Form::Text, "client_addr", "the addresses for DNS and HTTP"),
    ("data-dir", Form::Text, "data_dir", "where state is kept"),
    ("datacenter", Form::Text, "datacenter", "the datacenter of this agent"),
    (
        "default-query-time",
        Form::Text,
        "default_query_time",
        "how long a blocking query waits unless it says",
    ),
    ("disable-host-node-id", Form::Bool, "disable_host_node_id", "accepted"),
    ("disable-keyring-file", Form::Bool, "disable_keyring_file", "keep gossip's keys in memory alone"),
    ("dns-port", Form::Int, "ports.dns", "the DNS port; -1 turns it off"),
    ("domain", Form::Text, "domain", "the DNS zone"),
    (
        "enable-local-script-checks",
        Form::Bool,
        "enable_local_script_checks",
        "checks from files may run programs",
    ),
    ("enable-script-checks", Form::Bool, "enable_script_checks", "checks may run programs"),
    ("encrypt", Form::Text, "encrypt", "the key that gossip begins with, as keygen prints it"),
    ("grpc-port", Form::Int, "ports.grpc", "accepted"),
    ("grpc-tls-port", Form::Int, "ports.grpc_tls", "accepted"),
    ("http-port", Form::Int, "ports.http", "the HTTP port; -1 turns it off"),
    ("https-port", Form::Int, "ports.https", "accepted"),
    ("join", Form::List, "start_join", "the same as -retry-join"),
    ("join-wan", Form::List, "start_join_wan", "accepted"),
    ("log-file", Form::Text, "log_file", "accepted"),
    ("log-json", Form::Bool, "log_json", "log JSON objects"),
    ("log-level", Form::Text, "log_level", "TRACE, DEBUG, INFO, WARN or ERROR"),
    ("log-rotate-bytes", Form::Int, "log_rotate_bytes", "accepted"),
    ("log-rotate-duration", Form::Text, "log_rotate_duration", "accepted"),
    ("log-rotate-max-files", Form::Int, "log_rotate_max_files", "accepted"),
    ("max-query-time", Form::Text, "max_query_time", "and at most"),
    ("node", Form::Text, "node_name", "the name of this node"),
    ("node-id", Form::Text, "node_id", "the id of this node, a UUID"),
    ("node-meta", Form::Pair, "node_meta", "key:value; several times"),
    ("pid-file", Form::Text, "pid_file", "where the process id is written"),
    ("primary-gateway", Form::List, "primary_gateways", "accepted"),
    ("protocol", Form::Int, "protocol", "accepted"),
    ("raft-protocol", Form::Int, "raft_protocol", "accepted"),
    ("recursor", Form::List, "recursors", "a server to ask for names that are not ours; several times"),
    ("rejoin", Form::Bool, "rejoin_after_leave", "find the former members again after a leave"),
    ("retry-interval", Form::Text, "retry_interval", "from one attempt to join to the next"),
    ("retry-interval-wan", Form::Text, "retry_interval_wan", "accepted"),
    ("retry-join", Form::List, "retry_join", "where other agents are; several times"),
    ("retry-join-wan", Form::List, "retry_join_wan", "accepted"),
    ("retry-max", Form::Int, "retry_max", "attempts to join before the agent ends; 0: no limit"),
    ("retry-max-wan", Form::Int, "retry_max_wan", "accepted"),
    ("serf-lan-allowed-cidrs", Form::List, "serf_lan_allowed_cidrs", "a network whose agents may be members"),
    ("serf-lan-bind", Form::Text, "serf_lan", "the address for gossip"),
    ("serf-lan-port", Form::Int, "ports.serf_lan", "the gossip port"),
    ("serf-wan-allowed-cidrs", Form::List, "serf_wan_allowed_cidrs", "accepted"),
    ("serf-wan-bind", Form::Text, "serf_wan", "accepted"),
    ("serf-wan-port", Form::Int, "ports.serf_wan", "the gossip port between datacenters"),
    ("server", Form::Bool, "server", "be a server"),
    ("server-port", Form::Int, "ports.server", "the port for other servers"),
    ("syslog", Form::Bool, "enable_syslog", "accepted"),
    ("ui", Form::Bool, "ui", "accepted"),
    ("ui-content-path", Form::Text, "ui_content_path", "accepted"),
    ("ui-dir", Form::Text, "ui_dir", "accepted"),
];

/// Those that are no keys of a configuration.
const OWN: &[(&str, &str)] = &[
    ("config-dir", "a directory of .hcl and .json files; several times"),
    ("config-file", "a file; several times"),
    ("config-format", "hcl or json, whatever the files are called"),
    ("dev", "one server, in memory: for trying and for tests"),
    ("hcl", "a piece of configuration; several times"),
    ("ignore-security-key", "start although this key cannot be honoured; several times"),
];

/// Every flag by name, and what it does.
pub fn flag_help() -> Vec<(&'static str, &'static str)> {
    let mut lines: Vec<_> =
        FLAGS.iter().map(|(flag, .., help)| (*flag, *help)).chain(OWN.iter().copied()).collect();
    lines.sort_unstable();
    lines
}

/// Reads the words after `agent`.
///
/// # Errors
/// The first word that is not understood.
pub fn parse_flags(words: &[String]) -> Result<Flags, FlagError> {
    let (given, extra) = split_flags(words, |name| match find(name) {
        Some((_, Form::Bool, ..)) => Some(Takes::Nothing),
        Some(_) => Some(Takes::Word),
        None if name == "dev" => Some(Takes::Nothing),
        None => OWN.iter().any(|(own, _)| *own == name).then_some(Takes::Word),
    })?;
    if !extra.is_empty() {
        return Err(FlagError::Extra(extra.join(" ")));
    }
    let mut flags = Flags::default();
    given.into_iter().try_for_each(|(name, value)| flags.take(&name, value))?;
    Ok(flags)
}

fn find(name: &str) -> Option<&'static (&'static str, Form, &'static str, &'static str)> {
    FLAGS.iter().find(|(flag, ..)| *flag == name)
}

impl Flags {
    fn take(&mut self, name: &str, value: String) -> Result<(), FlagError> {
        match (name, find(name)) {
            ("dev", _) => self.dev = parse_bool(name, &value)?,
            ("config-dir" | "config-file", _) => self.paths.push(value),
            ("hcl", _) => self.fragments.push(value),
            ("ignore-security-key", _) => self.ignored_security.push(value),
            ("config-format", _) => {
                let fault = "-config-format must be either 'hcl' or 'json".to_string();
                let format =
                    Format::of(&value).ok_or(FlagError::Value { flag: name.into(), value, fault })?;
                self.format = Some(format);
            }
            (_, Some((flag, form, key, _))) => self.set(flag, *form, key, value)?,
            _ => return Err(FlagError::Unknown(name.into())),
        }
        Ok(())
    }

    fn set(&mut self, flag: &str, form: Form, key: &str, value: String) -> Result<(), FlagError> {
        let kind = match form {
            Form::Bool => Kind::Bool(parse_bool(flag, &value)?),
            Form::Int => Kind::Int(parse_int(flag, &value)?),
            Form::Text => Kind::Text(value),
            Form::List => Kind::List(vec![at(flag, Kind::Text(value))]),
            Form::Pair => {
                let (name, text) = value.split_once(':').unwrap_or((&value, ""));
                let text = at(flag, Kind::Text(text.into()));
                Kind::Object(vec![Member { key: name.into(), value: text }])
            }
        };
        let mut path = key.split('.').rev();
        let innermost = Member { key: path.next().unwrap_or(key).into(), value: at(flag, kind) };
        let member = path.fold(innermost, |inner, key| Member {
            key: key.into(),
            value: at(flag, Kind::Object(vec![inner])),
        });
        let list = matches!(form, Form::List);
        if list { &mut self.lists } else { &mut self.scalars }.push(member);
        Ok(())
    }
}

fn at(flag: &str, kind: Kind) -> Value {
    Value { kind, place: Place { file: Arc::from(format!("flag -{flag}")), line: 0, column: 0 } }
}
