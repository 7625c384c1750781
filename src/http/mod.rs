//! The HTTP API under `/v1/`: decodes, encodes, waits, and turns refusals into status codes. Holds no business rules of
//! its own, and does not know whether this agent is a server.
//!
//! ```text
//! bytes ─> serve (connections, limits) ─> route (paths, methods) ─> v1::* (a file to an API group) ─> Agent
//!                                                                     json (bodies in)  encode (bodies out)  read (waits)
//! ```

mod agent;

pub use agent::{About, Agent, Failure, Pending};
