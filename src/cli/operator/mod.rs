//! `lictor operator`: what those who run the servers see and set.

mod autopilot;
mod raft;
mod unconfirmed;
mod usage;

pub use autopilot::{GET_CONFIG, SET_CONFIG, STATE};
pub use raft::{LIST_PEERS, REMOVE_PEER, TRANSFER_LEADER};
pub use unconfirmed::CONFIRM_FAILED;
pub use usage::INSTANCES;
