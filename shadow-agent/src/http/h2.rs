//! HTTP/2 without TLS (RFC 9113), as a passive observer sees it: frames, header blocks, and streams that are exchanges.
//!
//! Each direction has a framer and a header table of its own (`side`); what its frames mean is read in `requests` and
//! `responses`. Decisions that RFC 9113 leaves to who watches:
//!
//! - bytes that are missing within the payload of DATA lose that stream; all others lose what they may belong to, the
//!   table of that direction is unknown from there on, and the next frame is found again at the start of a segment;
//! - a field that refers to an entry of the table that was never seen makes its exchange `skipped{header_table}`;
//! - streams whose start was not seen, and responses that a server pushes, are followed and are no exchanges;
//! - an error of the connection loses everything open, and frames are searched as behind a gap.

mod connection;
mod frame;
mod framer;
mod head;
pub mod hpack;
mod join;
mod requests;
mod responses;
mod side;
mod stream;
#[cfg(test)]
mod tests;

use super::{Context, Event, Fate, MAX_HEAD};

pub(super) use connection::Connection;
pub(super) use framer::PREFACE;
pub(super) use join::evidence;

/// The most exchanges under way on one HTTP/2 connection; one more is lost
/// ([`crate::exchange::LostReason::Evicted`]).
pub const MAX_STREAMS: usize = 256;

/// The largest header block taken, padding and priorities included, in bytes; the message of a larger one is malformed
/// to us, and the header table unknown from there on.
pub const MAX_BLOCK: usize = MAX_HEAD;

/// The most CONTINUATION frames of one header block; with more, it is too large.
pub const MAX_CONTINUATIONS: usize = 128;
