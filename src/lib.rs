//! lictor: a DNS-first service discovery server.
//!
//! ```text
//! query ─> dns ─reads─> catalog <─applies─ raft <─proposes─ agent <─ check, files, HTTP
//! ```
//!
//! - [`catalog`]: what exists. A value, and the commands that change it
//! - [`dns`]: how it is asked: the grammar of names, answers, packets, the UDP and TCP roads, recursion, static zones
//! - [`check`]: what is healthy: verdicts, schedules, probes
//! - [`gossip`]: who is alive
//! - [`rpc`]: what agents say to each other, and whom they ask
//! - [`raft`]: how servers agree on the next catalog, and where it is published
//! - [`http`]: the API under `/v1/`
//! - [`agent`]: what every agent does: local services, their sync into the catalog, start and stop in order
//! - [`server`]: what only servers do: the leader's duties
//! - [`telemetry`]: what an agent says of itself: figures and log lines, in the forms that others read
//! - [`config`]: files, flags and defaults become one validated configuration
//! - [`cli`]: the command line
//! - [`count`]: plain numbers that any room writes where things happen
//!
//! Arrows point down: `main`, `cli`, `config` → `agent`, `server` → `http`, `dns`, `telemetry` → `raft`, `rpc`,
//! `gossip`, `check` → `catalog`, `count`.

#![forbid(unsafe_code)]

pub mod agent;
pub mod catalog;
pub mod check;
pub mod cli;
pub mod config;
pub mod count;
pub mod dns;
pub mod gossip;
pub mod http;
pub mod raft;
pub mod rpc;
pub mod server;
pub mod telemetry;
