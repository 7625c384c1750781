//! Names: how they are asked and what they answer.

mod server;
mod settings;
mod stand_in;
mod tcp;
mod udp;
#[cfg(target_os = "linux")]
pub mod udp_batch;

pub use server::{BindError, Published, Roads, Server};
pub use settings::{ServiceTtl, Settings, Soa};
pub use stand_in::{Asker, Responder, Transport};
pub use tcp::Limits as TcpLimits;
