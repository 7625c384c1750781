//! What an operator sets of the HTTP API.

use std::{path::PathBuf, time::Duration};

use hyper::header::{HeaderName, HeaderValue};

use crate::catalog::Network;

/// Everything but the addresses, which are handed over bound. All of it may change at a reload: what belongs to a
/// connection counts from the next one on, and `Limits::bodies_max` from the next start.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Put on every answer; see [`response_header`].
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
    /// Connections that one address may have open at a time.
    pub connections_per_address_max: usize,
    /// Nest every JSON answer, as with `?pretty`.
    pub pretty: bool,
    /// Whether nodes' coordinates are told and taken.
    pub coordinates: bool,
    /// How long a read waits for a change where it does not say, and at most.
    pub query_wait: Duration,
    pub query_wait_max: Duration,
    /// The least time to live that a session may ask for.
    pub session_ttl_min: Duration,
    pub limits: Limits,
    /// How fast requests may come.
    pub rates: Rates,
    /// Beginnings of paths that nobody may ask for.
    pub blocked: Vec<String>,
    /// Who may do more than read; everyone, where nobody is named.
    pub writers: Vec<Network>,
    /// Let characters pass in a path that cannot be printed.
    pub any_character: bool,
    /// Say of answers to `?cached` that they came from memory.
    pub use_cache: bool,
}

/// Requests a second, of all clients together; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    pub mode: Mode,
    pub reads_per_sec: Option<f64>,
    pub writes_per_sec: Option<f64>,
}

/// What becomes of a request beyond its rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is counted.
    #[default]
    Disabled,
    /// It is counted and logged.
    Permissive,
    /// It is refused, too.
    Enforcing,
}

/// A socket of the file system to listen at. What is not said is as this process has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixSocket {
    pub path: PathBuf,
    pub user: Option<u32>,
    pub group: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
}

/// What clients may take of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open at once, over all addresses where we listen.
    pub connections_max: usize,
    /// Of a request's line and headers. Each connection may hold as much for as long as it is open.
    pub header_bytes_max: usize,
    /// Of most bodies; see `Takes`.
    pub body_bytes_max: usize,
    /// Of a value in KV, as it comes and in a transaction.
    pub kv_value_bytes_max: usize,
    /// Of a transaction's body, unless a value may be larger.
    pub txn_bytes_max: usize,
    /// Of an archive that is restored, once it is not compressed any more.
    pub archive_bytes_max: u64,
    /// Requests with a body at once; others wait for their turn, as long as for a body.
    pub bodies_max: usize,
    /// From accepting a connection, or the last answer on it, to having the next request's headers whole.
    pub request_wait: Duration,
    /// From the headers to having the body whole.
    pub body_wait: Duration,
    /// For a client to take some of what we send.
    pub send_wait: Duration,
    /// For requests to end when we stop.
    pub stop_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            response_headers: Vec::new(),
            connections_per_address_max: 200,
            pretty: false,
            coordinates: true,
            query_wait: Duration::from_secs(300),
            query_wait_max: Duration::from_secs(600),
            session_ttl_min: Duration::from_secs(10),
            limits: Limits::default(),
            rates: Rates::default(),
            blocked: Vec::new(),
            writers: Vec::new(),
            any_character: false,
            use_cache: true,
        }
    }
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::Disabled, Mode::Permissive, Mode::Enforcing];

    pub fn word(self) -> &'static str {
        match self {
            Mode::Disabled => "disabled",
            Mode::Permissive => "permissive",
            Mode::Enforcing => "enforcing",
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 16_384,
            header_bytes_max: 16 * 1024,
            body_bytes_max: 512 * 1024,
            kv_value_bytes_max: 512 * 1024,
            txn_bytes_max: 512 * 1024,
            archive_bytes_max: 1 << 30,
            bodies_max: 1024,
            // Longer than clients keep a connection that they do not use (90 s in Go): they close it, not we.
            request_wait: Duration::from_secs(120),
            body_wait: Duration::from_secs(30),
            send_wait: Duration::from_secs(30),
            stop_wait: Duration::from_secs(5),
        }
    }
}

/// A header as an operator writes it.
///
/// # Errors
/// What of it no header may hold.
pub fn response_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let header = name.parse().map_err(|_| format!("{name:?} is no name for a header"))?;
    let value = value.parse().map_err(|_| format!("{value:?} is no value for the header {name}"))?;
    Ok((header, value))
}
