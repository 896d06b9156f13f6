//! Reassembly of TCP streams as a passive observer sees them (RFC 9293, section 3). Pure.
//!
//! [`FlowTable`] takes [`Segment`](crate::capture::Segment)s and hands each connection's bytes to a [`Handler`], in
//! stream order, once, as borrowed slices. It knows nothing of HTTP and reads no clock: time is what segments carry
//! and what [`FlowTable::tick`] is told.
//!
//! Rules that hold for every flow:
//!
//! - the first data to arrive for a byte of the stream wins; whatever overlaps it later is a duplicate;
//! - a hole is declared a gap only after [`Settings::gap_wait`] without progress, or when the buffer of the flow is
//!   full. An acknowledgment never declares one: the observer may simply not have been handed the bytes yet;
//! - a segment that acknowledges bytes of the other direction is handed on after those bytes (or after their gap),
//!   because its sender had them. So a response never overtakes its request, however the capture reordered them.

use std::net::SocketAddr;
use std::time::Duration;

use crate::capture::Direction;
use crate::exchange::Timestamp;

mod flow;
mod key;
mod lru;
mod sample;
mod stream;
mod table;
#[cfg(test)]
mod tests;

pub use table::FlowTable;

/// What a buffered piece of out-of-order data costs beside its bytes, so that tiny segments cannot hide from the bounds.
pub const PIECE_OVERHEAD: usize = 96;

/// A sequence number further than this from what is expected belongs to another life of the connection, or to nobody.
/// Far more than any receive window in use; bytes.
pub const WINDOW: u32 = 64 << 20;

/// The bounds of one [`FlowTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Flows tracked at once; at the bound the least recently used one is evicted.
    pub flows: usize,
    /// Out-of-order bytes held for one flow, both directions together, [`PIECE_OVERHEAD`] a piece included; at the
    /// bound a gap is declared.
    pub flow_buffer: usize,
    /// Bytes held for all flows, those of the handler's connections included; at the bound the least recently used
    /// flows are evicted.
    pub total_buffer: usize,
    /// How long a hole may stay without progress before it is a gap.
    pub gap_wait: Duration,
    /// How long a flow may stay without a segment before it is evicted.
    pub idle: Duration,
    /// How long a closed flow is remembered, so that late retransmissions are not taken for a new connection.
    pub linger: Duration,
    /// The server's ports as inclusive ranges; a flow that turns out to have another server port is ignored.
    /// Empty: any.
    pub ports: Vec<(u16, u16)>,
    /// `capture.seed`: which flows a sample of a given share holds.
    pub seed: u32,
}

impl Settings {
    /// A hole may wait this long: several retransmission time-outs of a sender on a short path.
    pub const GAP_WAIT: Duration = Duration::from_secs(2);
    /// A flow may be idle this long; longer than the keep-alive timers in common use. It can be joined again later.
    pub const IDLE: Duration = Duration::from_secs(300);
    /// A closed flow is remembered this long.
    pub const LINGER: Duration = Duration::from_secs(2);

    /// Whether `port` is one of the server's.
    #[must_use]
    pub fn serves(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|&(first, last)| (first..=last).contains(&port))
    }
}

/// Bytes of one direction, in order.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Which way they travel.
    pub direction: Direction,
    /// When they could be read: the capture time of the segment, or of a later one that completed the order.
    pub time: Timestamp,
    /// The offset of the first byte in its stream; 0 is the first byte of the connection, or where it was joined.
    pub offset: u64,
    /// The offset in the other stream up to which the sender had received everything when it sent these bytes.
    pub ack: Option<u64>,
    /// The bytes, at least one.
    pub bytes: &'a [u8],
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both sides closed, or the tuple was used for a new connection.
    Closed,
    /// One side reset it.
    Reset,
    /// It was evicted: table or buffers full, or idle for too long.
    Evicted,
    /// The kill switch was thrown.
    Disabled,
    /// Sampling was lowered, and leaves it out.
    SampledOut,
    /// The byte budget leaves it out for a while.
    Shed,
    /// The observer stops.
    Shutdown,
}

/// What happens on a connection.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The next bytes of one direction.
    Data(Chunk<'a>),
    /// Bytes of one direction that nobody will ever see.
    Gap {
        /// Which way they travelled.
        direction: Direction,
        /// How many; at least 1.
        length: u64,
        /// When they were given up.
        time: Timestamp,
    },
    /// One direction ended in order (FIN).
    End {
        /// Which.
        direction: Direction,
        /// When.
        time: Timestamp,
    },
    /// The connection is over; no event follows.
    Over(Ending),
    /// Time has passed while something was open.
    Tick(Timestamp),
}

/// Whether a connection is worth being followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// More events are wanted.
    Follow,
    /// Nothing but the connection's end matters any more; its bytes are dropped.
    Ignore,
}

/// What a connection holds at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes buffered.
    pub buffered: usize,
    /// Exchanges open.
    pub open: usize,
}

/// Who speaks on a connection, and whether it was met in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Who connected.
    pub client: SocketAddr,
    /// Who accepted.
    pub server: SocketAddr,
    /// Whether the start of the connection was not seen.
    pub joined: bool,
}

/// Takes what happens on connections. The other side of this trait is HTTP in the agent, and a recorder in tests.
pub trait Handler {
    /// What is kept for each connection.
    type Connection;

    /// A connection was met.
    fn open(&mut self, peers: &Peers) -> Self::Connection;

    /// Something happened on it.
    fn handle(&mut self, connection: &mut Self::Connection, event: Event<'_>) -> Interest;

    /// What it holds now.
    fn load(&self, connection: &Self::Connection) -> Load;

    /// Which way these first bytes of a segment travel, judged by themselves.
    fn guess(&self, payload: &[u8]) -> Option<Direction>;
}

/// What is odd about the segments taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Segments that were seen before: retransmitted, or passing more than one interface.
    pub duplicate_segments: u64,
    /// Segments that brought other bytes than those taken before.
    pub conflicting_segments: u64,
    /// Flows that ended, of whose one direction nothing was ever seen.
    pub one_sided_flows: u64,
}

impl Oddities {
    /// What came about since `before`.
    #[must_use]
    pub fn since(self, before: Oddities) -> Oddities {
        Oddities {
            duplicate_segments: self.duplicate_segments - before.duplicate_segments,
            conflicting_segments: self.conflicting_segments - before.conflicting_segments,
            one_sided_flows: self.one_sided_flows - before.one_sided_flows,
        }
    }

    /// Adds what came about elsewhere.
    pub fn add(&mut self, more: Oddities) {
        self.duplicate_segments += more.duplicate_segments;
        self.conflicting_segments += more.conflicting_segments;
        self.one_sided_flows += more.one_sided_flows;
    }
}

/// What a [`FlowTable`] counted since it was made, and where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments taken.
    pub segments: u64,
    /// Payload bytes taken.
    pub bytes: u64,
    /// Segments with payload all of which had been seen before, on flows that are followed or just closed.
    pub duplicate_segments: u64,
    /// Payload bytes that had been seen before.
    pub duplicate_bytes: u64,
    /// Segments that bring other bytes than those taken before: a host that lies, or somebody between. Noticed for bytes
    /// that wait, and for the two ranges of each direction handed on last.
    pub conflicting_segments: u64,
    /// Segments that arrived ahead of their turn.
    pub reordered: u64,
    /// Segments dropped because nothing tells who is client, or because they fit no place of their stream.
    pub strays: u64,
    /// Gaps declared.
    pub gaps: u64,
    /// Bytes in those gaps.
    pub gap_bytes: u64,
    /// Flows that ended after bytes of one direction, of whose other direction nothing was ever seen: it takes another way.
    pub one_sided_flows: u64,
    /// Flows evicted.
    pub evicted: u64,
    /// Flows tracked now, closed ones that are still remembered included.
    pub flows: usize,
    /// Bytes buffered now.
    pub buffered: usize,
    /// Exchanges open now.
    pub open: usize,
}

impl Stats {
    /// What was odd about the segments taken.
    #[must_use]
    pub fn oddities(&self) -> Oddities {
        Oddities {
            duplicate_segments: self.duplicate_segments,
            conflicting_segments: self.conflicting_segments,
            one_sided_flows: self.one_sided_flows,
        }
    }
}
