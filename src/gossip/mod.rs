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
//!   driver    the one task that carries between a machine and its sockets, and reads the clock; `pool` is its handle
//!     seal      envelopes: what is encrypted, by which key, and heard once           keyring   which keys there are
//!     history   what is kept of the members for the next start                       traffic   what went over the sockets
//!   coordinates   where this member is, by the time that probes take
//! ```
//!
//! Raw foca is not usable: a newcomer does not learn the members, one stalled node among a hundred has others declared dead, and a
//! refuted suspicion still kicks its victim. Each rule here that seems to repeat foca's work is there for one of these.

mod coordinates;
mod counters;
mod driver;
mod file;
mod history;
mod identity;
mod kept;
mod keyring;
mod machine;
mod member;
mod news;
mod pool;
mod ring;
mod roster;
mod seal;
mod settings;
#[cfg(test)]
mod sim;
mod suspicion;
mod traffic;
mod wire;

pub use coordinates::Coordinates;
pub use counters::Counters;
pub use driver::BindError;
pub use kept::KeptKeyring;
pub use keyring::{Key, Keyring, NoKey, Operation, Refusal, Report};
pub use machine::{AskError, AskId, Effect, Happening, Machine, Query, TooLarge, Unknown, UserEvent};
pub use member::{Member, Members, Status, Tags};
pub use pool::{Encryption, Ended, Joined, Kind, Over, Pool, Settings as PoolSettings, StartError};
pub use seal::{Refused, Seal, Settings as SealSettings};
pub use settings::{Keep, Past, Settings, Timing};
pub use traffic::Traffic;
