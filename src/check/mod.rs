//! Health: what a check is, when it runs, what its results mean, and the probes that look. Knows the catalog's
//! records; not who is told of a verdict, nor whether anything is replicated.

mod definition;

pub use definition::{CheckSpec, Definition, Kind, ServiceDefinition, ServiceSpec, Span, Thresholds, Tls};
