//! The HTTP API under `/v1/`: encodes, decodes, and turns refusals into status codes. Holds no business rules of its
//! own, and does not know whether this agent is a server.

mod settings;

pub use settings::Settings;
