//! Names: how they are asked and what they answer. Knows a catalog and its own settings; not whether this agent is a
//! server, nor where the catalog comes from.
//!
//! ```text
//! packet ─wire─> question ─name─> Lookup ─answer─> Answer ─reply─> packet
//! ```

mod address;
mod answer;
mod assembly;
mod chase;
mod choice;
mod elsewhere;
mod errand;
mod from_zone;
mod listen;
mod name;
mod pack;
mod prepared;
mod recursion;
mod reply;
mod reverse;
mod seats;
mod seen;
mod server;
mod settings;
mod slot;
mod tally;
mod tcp;
mod txt;
mod udp;
#[cfg(target_os = "linux")]
pub mod udp_batch;
mod wire;
mod zones;

pub use elsewhere::{AskedElsewhere, Desk, Elsewhere, ToldElsewhere};
pub use errand::Errands;
pub use listen::{Listeners, Twice, covers};
pub use recursion::{Recursion, Strategy};
pub use reply::{Asker, Outcome, Responder, Transport, View};
pub use seats::SeatsMax;
pub use server::{BindError, Handed, Published, Roads, Server};
pub use settings::{ServiceTtl, Settings, Soa};
pub use tally::{Answered, Counters, Form, Road};
pub use tcp::Limits as TcpLimits;
pub use zones::{StaticZones, Told as ZoneTold, ZoneFiles};
