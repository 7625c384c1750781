//! What agents say to each other: messages, the server that answers them, the client that asks. Knows the catalog; not who
//! agrees on it, nor how servers are found, nor what a forwarded question is about.
//!
//! ```text
//! call ─> servers (whom) ─> link (one connection a server) ═HTTP/2, gRPC, MessagePack═> listen ─> method ─> Serve
//! ```
//!
//! Messages grow by fields: what is not known is skipped, what is missing has its default. What cannot grow so gets a method
//! of another name.

mod call;
mod codec;
mod counters;
mod link;
mod listen;
mod message;
mod method;
mod rows;
mod servers;
#[cfg(test)]
mod tests;

pub use call::{CallError, Client, Settings};
pub use counters::Counters;
pub use listen::{BindError, Limits, Server};
pub use message::{Body, DnsAsked, DnsTold, Failure, HttpAsked, HttpTold, Pending, Pieces, Serve};
pub use rows::Rows;
pub use servers::Address;
