//! Membership: who is here, who is gone, and what they tell each other. Knows the catalog's records at most; what a member
//! means to the catalog is the servers' to say.

mod member;

pub use member::{Member, Members, Status, Tags};
