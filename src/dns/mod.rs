//! Names: how they are asked and what they answer.

mod settings;

pub use settings::{ServiceTtl, Settings, Soa};
