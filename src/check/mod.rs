//! Health: what a check is, when it runs, what its results mean, and the probes that look. Knows the catalog's
//! records; not who is told of a verdict, nor whether anything is replicated.

mod definition;
mod duration;

pub use definition::{
    CheckSpec, Definition, Invalid, Kind, ServiceDefinition, ServiceSpec, Span, Thresholds, Tls,
};
pub use duration::{format_duration, parse_duration};
