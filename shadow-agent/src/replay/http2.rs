//! HTTP/2 with prior knowledge (RFC 9113, section 3.3): few connections to a target, each shared by many requests.
//!
//! Unlike one of HTTP/1, a connection needs a task of its own, because none of its users may hold up the others. What
//! may be sent, or sent again, is not decided here.

mod connection;
mod frames;
mod pool;

pub(super) use connection::{Connection, OpenError};
#[cfg(test)]
pub(super) use pool::STREAMS;
pub(super) use pool::{Lease, MAX_IDLE, Pool};
