//! HTTP/1: heads, framing of bodies, and pairing of requests with responses in their order (RFC 9110, RFC 9112).

mod body;
mod connection;
mod head;
mod open;
mod requests;
mod responses;
mod upgrade;

use super::{Context, Event, Fate, MAX_PIPELINED, sniff};

pub use body::MAX_CHUNK_LINE;
pub(super) use connection::Connection;
pub use head::{MAX_FIELDS, MAX_HEAD};
pub(super) use upgrade::{Upgrade, Upgraded};
