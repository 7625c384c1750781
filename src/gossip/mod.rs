//! Who is alive: a pool of members that find each other, spread news, and notice who is gone. Knows names and addresses of nodes;
//! not what runs on them, nor that anyone agrees on anything.
//!
//! ```text
//! packets, replies, time ─> Machine ─> packets, requests, what happened ─> whoever drives it
//!   machine   owns foca, the state machine of SWIM, and stands between it and everything else:
//!     health    which of its timers are believed, and when            suspicion   how long one lasts
//!     sync      bulk knowledge over streams, and what differs         roster      everyone, summed up
//!     life      joining, leaving, forgetting, two of one name         news        what is sent on beside it
//!     events    user events and queries                               ring        which were heard already
//!   wire      what all that looks like in bytes
//! ```
//!
//! Raw foca is not usable: a newcomer does not learn the members, one stalled node among a hundred has others declared dead, and a
//! refuted suspicion still kicks its victim. Each rule here that seems to repeat foca's work is there for one of these.

mod coordinates;
mod counters;
mod identity;
mod machine;
mod member;
mod news;
mod ring;
mod roster;
mod settings;
#[cfg(test)]
mod sim;
mod suspicion;
mod wire;

pub use coordinates::Coordinates;
pub use counters::Counters;
pub use machine::{AskError, AskId, Effect, Happening, Machine, Query, TooLarge, Unknown, UserEvent};
pub use member::{Member, Members, Status, Tags};
pub use settings::{Keep, Past, Settings, Timing};
