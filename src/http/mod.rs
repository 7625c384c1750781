//! The HTTP API under `/v1/`: decodes, encodes, waits, and turns refusals into status codes. Holds no business rules of its
//! own, and does not know whether this agent is a server.
//!
//! ```text
//! bytes ─> serve ─> route ─> v1::* ─> Agent        serve: connections and their limits   route: paths, methods
//!                            │  │                  v1: a file to an API group
//!                      json ─┘  └─ read, encode    json: bodies in   read: waits   encode: bodies out   list: those kept
//! ```

mod agent;
mod body;
mod call;
mod counters;
mod encode;
mod filter;
mod frames;
mod guard;
mod json;
mod list;
mod onward;
mod query;
mod read;
mod reply;
mod route;
mod serve;
mod settings;
mod stream;
mod v1;

pub use agent::{
    About, Agent, Archive, Event, Failure, KeyOperation, KeyReport, Live, Member, Pending, ServerStatus,
    Standing,
};
pub use body::Pieces;
pub use counters::{Counters, Refused};
pub use filter::pattern;
pub use onward::{Answer, Desk, Elsewhere, Errand, ErrandBody};
pub use serve::{BindError, Server, UnixError};
pub use settings::{Limits, Mode, Rates, Settings, UnixSocket, response_header};
