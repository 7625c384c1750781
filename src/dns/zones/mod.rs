//! Static zones: names that stand in master files (RFC 1035 §5), answered beside the catalog.

/// Every zone that is served from a file, as one value: published whole.
#[derive(Debug, Default)]
pub struct StaticZones {}
