//! Health: what a check is, when it runs, what its results mean, and the probes that look. Knows the catalog's
//! records; not who is told of a verdict, nor whether anything is replicated.

mod alias;
mod counters;
mod definition;
mod duration;
mod output;
mod probe;
mod runner;
mod spec;
mod verdict;

pub use counters::Counters;
pub use definition::{Alias, Definition, Kind, ServiceDefinition, Thresholds, Tls};
pub use duration::{format_duration, parse_duration};
pub use output::of_ttl as cut_output;
pub use probe::use_ring;
pub use runner::{Runner, Settings, Told};
pub use spec::{CheckSpec, Invalid, ServiceSpec, Span};
pub use verdict::Verdict;

/// The check that takes a node out of every answer, and with a service's id behind it the one that takes out that service.
pub const NODE_MAINTENANCE: &str = "_node_maintenance";
pub const SERVICE_MAINTENANCE: &str = "_service_maintenance:";

#[cfg(test)]
mod tests;
