//! Following a catalog: what every room that waits for a change asks of whoever holds one.

use std::{pin::Pin, sync::Arc};

use super::{Catalog, Topic};

/// Who holds a catalog that changes, and tells of its changes. Subscribe first, then read: a change in between is not
/// missed.
pub trait Subscribe: Send + Sync + 'static {
    /// The newest applied catalog; an empty one before the first apply.
    fn catalog(&self) -> Arc<Catalog>;

    /// Registers now for these topics.
    fn subscribe(&self, topics: Vec<Topic>) -> Subscription;
}

/// Ends at the first change to one of its topics since it was made, or without one: read again and compare. Dropping it
/// frees what it held.
pub type Subscription = Pin<Box<dyn Future<Output = Woken> + Send>>;

/// What ended a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    ByChange,
    /// The whole catalog was replaced: its indexes may be lower than before, and whoever waits is to be answered.
    ByReplacement,
}
