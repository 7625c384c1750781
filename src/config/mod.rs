//! Files, flags and defaults become one validated `Config`, or a list of everything that is wrong. Knows the settings
//! of each room and where every value stood; starts nothing.

mod addresses;
mod calls;
mod definitions;
mod encryption;
mod flags;
#[cfg(test)]
mod fuzz;
mod gossip;
mod hcl;
mod json;
mod keys;
mod layer;
mod load;
mod reader;
mod recursors;
mod sources;
mod telemetry;
mod tree;
mod words;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    agent::{CallLimits, Calls, PoolSettings},
    check::{Definition, ServiceDefinition},
    dns,
    gossip::Encryption,
    http,
    server::MassFailure,
    telemetry as figures,
};

pub use flags::{Flags, flag_help, parse_flags};
pub use load::{Faults, load, load_services};
pub use reader::Fault;
pub use sources::Format;
pub use tree::{Member, Place};
pub use words::{FlagError, Takes, parse_bool, parse_error, parse_int, split_flags};

/// Everything an agent is started with.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub node_id: Option<Uuid>,
    /// Pairs of the node, without those that every agent has.
    pub node_meta: Vec<(String, String)>,
    /// Lower-cased.
    pub datacenter: String,
    pub dev: bool,
    pub server: bool,
    /// Whether this server may begin a datacenter where none is kept yet.
    pub may_begin: bool,
    /// Servers to wait for before a datacenter begins; 0 where nothing was said.
    pub bootstrap_expect: u32,
    pub data_dir: Option<PathBuf>,
    /// Nothing is written while fewer bytes are free on its disk.
    pub free_bytes_min: u64,
    pub mass_failure: MassFailure,
    /// Where this agent listens for others, and how it asks servers.
    pub calls: Calls,
    pub rpc_limits: CallLimits,
    /// How this agent finds others, and is one of them.
    pub pool: PoolSettings,
    /// Where agents reach this one.
    pub advertise: IpAddr,
    pub advertise_wan: IpAddr,
    pub server_port: u16,
    pub serf_lan_port: u16,
    /// `None` where other datacenters are not to be spoken with.
    pub serf_wan_port: Option<u16>,
    pub dns: dns::Settings,
    pub dns_addrs: Vec<SocketAddr>,
    pub http: http::Settings,
    pub http_addrs: Vec<SocketAddr>,
    pub http_sockets: Vec<http::UnixSocket>,
    pub telemetry: figures::Settings,
    /// Of gossip.
    pub encryption: Encryption,
    pub scripts: Scripts,
    /// Output alone is told this late (halved, and up to as long again).
    pub check_update_interval: Duration,
    pub check_output_bytes_max: usize,
    pub discard_check_output: bool,
    pub leave_on_terminate: bool,
    pub skip_leave_on_interrupt: bool,
    pub log: Log,
    pub pid_file: Option<PathBuf>,
    pub services: Vec<ServiceDefinition>,
    pub checks: Vec<Definition>,
    pub warnings: Vec<String>,
}

/// Whether checks may run programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripts {
    Off,
    /// Those defined in files.
    Local,
    /// Those registered over HTTP, too.
    All,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: String,
    pub json: bool,
}

impl Config {
    /// Why an agent with this configuration does not start yet, though nothing is wrong with it.
    pub fn refusal(&self) -> Option<String> {
        if self.bootstrap_expect > 1 {
            Some(format!(
                "bootstrap_expect = {}: a datacenter of several servers needs members to find them by, and lictor has none yet; expected bootstrap_expect = 1",
                self.bootstrap_expect
            ))
        } else {
            None
        }
    }

    /// Keys that a reload does not change, and that are different now.
    pub fn fixed_keys_changed(&self, other: &Config) -> Vec<&'static str> {
        let changed = [
            ("node_name", self.node_name != other.node_name),
            ("node_id", self.node_id != other.node_id),
            ("datacenter", self.datacenter != other.datacenter),
            ("server", self.server != other.server),
            ("data_dir", self.data_dir != other.data_dir),
            ("lictor.free_bytes_min", self.free_bytes_min != other.free_bytes_min),
            ("gossip_lan, serf_lan or another key of gossip", self.pool != other.pool),
            ("lictor.mass_failure_guard", self.mass_failure != other.mass_failure),
            ("bootstrap", self.may_begin != other.may_begin),
            ("bootstrap_expect", self.bootstrap_expect != other.bootstrap_expect),
            ("bind_addr", self.calls.bind != other.calls.bind),
            ("limits.rpc_client_timeout", self.calls.patience != other.calls.patience),
            ("performance.rpc_hold_timeout", self.calls.hold != other.calls.hold),
            ("advertise_addr", self.advertise != other.advertise),
            ("advertise_addr_wan", self.advertise_wan != other.advertise_wan),
            ("domain", self.dns.domain != other.dns.domain),
            ("alt_domain", self.dns.alt_domain != other.dns.alt_domain),
            ("lictor.dns.udp_batch", self.dns.udp_batch != other.dns.udp_batch),
            ("ports.dns or lictor.dns.listen", self.dns_addrs != other.dns_addrs),
            ("ports.http", self.http_addrs != other.http_addrs),
            ("ports.server", self.server_port != other.server_port),
            ("ports.serf_lan", self.serf_lan_port != other.serf_lan_port),
            ("ports.serf_wan", self.serf_wan_port != other.serf_wan_port),
            ("addresses.http or unix_sockets", self.http_sockets != other.http_sockets),
            ("check_output_max_size", self.check_output_bytes_max != other.check_output_bytes_max),
            ("discard_check_output", self.discard_check_output != other.discard_check_output),
            ("leave_on_terminate", self.leave_on_terminate != other.leave_on_terminate),
            ("skip_leave_on_interrupt", self.skip_leave_on_interrupt != other.skip_leave_on_interrupt),
            ("log_json", self.log.json != other.log.json),
            (
                "telemetry",
                figures::Settings { filter: Default::default(), ..self.telemetry.clone() }
                    != figures::Settings { filter: Default::default(), ..other.telemetry.clone() },
            ),
            ("encrypt or disable_keyring_file", self.encryption != other.encryption),
            ("pid_file", self.pid_file != other.pid_file),
        ];
        changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
    }
}
