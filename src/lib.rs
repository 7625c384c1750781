//! lictor: a DNS-first service discovery server.
//!
//! ```text
//! query ─> dns ─reads─> catalog <─applies─ raft <─proposes─ agent <─ check, files, HTTP
//! ```
//!
//! - [`catalog`]: what exists. A value, and the commands that change it
//! - [`dns`]: how it is asked: the grammar of names, answers, packets, the UDP and TCP roads, recursion, static zones
//! - [`check`]: what is healthy: verdicts, schedules, probes
//! - [`raft`]: how servers agree on the next catalog, and where it is published
//! - [`http`]: the API under `/v1/`
//! - [`agent`]: what every agent does: local services, their sync into the catalog, start and stop in order
//! - [`server`]: what only servers do: the leader's duties
//! - [`config`]: files, flags and defaults become one validated configuration
//! - [`cli`]: the command line
//!
//! Arrows point down: `main`, `cli`, `config` → `agent`, `server` → `http`, `dns` → `raft`, `check` → `catalog`.

#![forbid(unsafe_code)]

pub mod agent;
pub mod catalog;
pub mod check;
pub mod cli;
pub mod config;
pub mod dns;
pub mod http;
pub mod raft;
pub mod server;
