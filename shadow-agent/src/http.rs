//! HTTP/1 and HTTP/2: from ordered bytes to exchanges (RFC 9110, RFC 9112, RFC 9113). Pure.
//!
//! A [`Connection`] takes what `tcp` says about one connection and gives, for each exchange met on it, exactly one
//! [`Event`]. It reads no clock and knows no packets. What it refuses to do is guess: an exchange of which anything is
//! missing, or whose response may belong to another request, is lost with the reason, never given as whole.
//!
//! `connection` finds out which of the two is spoken, `h1` and `h2` read it.

use std::time::Duration;

use crate::exchange::{ConnectionId, Exchange, ExchangeId, Lost, LostReason, SkipReason};

mod connection;
mod h1;
mod h2;
mod sniff;
#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use h1::{MAX_CHUNK_LINE, MAX_FIELDS, MAX_HEAD};
pub use h2::{MAX_BLOCK, MAX_CONTINUATIONS, MAX_STREAMS, hpack};
pub use sniff::direction;

/// The most requests of one HTTP/1 connection that wait for their responses; one more, and all of them are lost
/// ([`crate::exchange::LostReason::Evicted`]).
pub const MAX_PIPELINED: usize = 256;

/// The longest method, in bytes: what is longer cannot be told from another protocol while its line is not whole.
pub const MAX_METHOD: usize = 64;

/// The bounds of exchanges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The largest body of a request or response, in bytes after transfer decoding.
    pub body: usize,
    /// From the first byte of a request to the last of its response.
    pub exchange_timeout: Duration,
}

/// How an exchange that was met ended. Each closes exactly one that [`Context::seen`] counted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly every event is an exchange, and it is moved, not kept")]
pub enum Event {
    /// It is whole.
    Exchange(Exchange),
    /// It, or the whole connection, is deliberately left alone.
    Skipped(SkipReason),
    /// It should have been whole, and is not.
    Lost(Box<Lost>),
}

/// How an exchange ends that is not given whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is deliberately left alone.
    Skipped(SkipReason),
    /// It should have been whole.
    Lost(LostReason),
}

/// What connections share: settings, numbers, and where their events go.
pub struct Context<'a> {
    /// The bounds.
    pub settings: &'a Settings,
    /// The numbers of what comes next.
    pub ids: &'a mut Ids,
    /// Exchanges met so far.
    pub seen: &'a mut u64,
    /// Takes the events.
    pub emit: &'a mut dyn FnMut(Event),
}

/// Numbers exchanges and connections, from a random start so that no two shards or runs share them.
#[derive(Clone, Debug)]
pub struct Ids {
    exchange: u64,
    connection: u64,
}

impl Ids {
    /// Numbers that follow `seed`, which must be random and differ between shards.
    #[must_use]
    pub fn new(seed: u64) -> Ids {
        Ids { exchange: seed, connection: seed }
    }

    /// The next exchange.
    pub fn exchange(&mut self) -> ExchangeId {
        self.exchange = self.exchange.wrapping_add(1);
        ExchangeId(self.exchange)
    }

    /// The next connection.
    pub fn connection(&mut self) -> ConnectionId {
        self.connection = self.connection.wrapping_add(1);
        ConnectionId(self.connection)
    }
}
