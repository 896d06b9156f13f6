//! Where segments come from. Everything behind this trait is the same for live traffic and for files.
//!
//! `kernel` is the only user of aya, and the only home of `unsafe`; `interfaces` finds devices and what they are; `file`
//! reads captures.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::exchange::{Timestamp, reasons};

pub mod file;
pub mod interfaces;
pub mod kernel;

/// The control bits of a TCP header that matter to a passive observer (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Reset the connection.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// The acknowledgment number is significant.
    pub const ACK: TcpFlags = TcpFlags(0x10);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: TcpFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | other.0)
    }
}

/// Which way a segment travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From client to server: requests.
    ToServer,
    /// From server to client: responses.
    ToClient,
}

impl Direction {
    /// The opposite direction.
    #[must_use]
    pub const fn reversed(self) -> Direction {
        match self {
            Direction::ToServer => Direction::ToClient,
            Direction::ToClient => Direction::ToServer,
        }
    }
}

/// One TCP segment as seen at the capture point; a GSO super-packet counts as one.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// When it passed.
    pub time: Timestamp,
    /// Sender. IPv4-mapped IPv6 addresses are given as IPv4.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Sequence number of the first payload byte (of the SYN itself, when SYN is set).
    pub seq: u32,
    /// Acknowledgment number; meaningful with [`TcpFlags::ACK`].
    pub ack: u32,
    /// Control bits.
    pub flags: TcpFlags,
    /// Which way it travels, when the source knows; otherwise found from SYN, ports and content.
    pub direction: Option<Direction>,
    /// The payload that was captured.
    pub payload: &'a [u8],
    /// Payload bytes at the end that were on the wire and were not captured.
    pub missing: u32,
    /// There is nothing in it: the byte budget leaves its flow out from here on. What is captured of it later begins anew.
    pub is_shed: bool,
}

/// Gives segments, in the order captured, to one shard.
pub trait SegmentSource: Send {
    /// What can go wrong for good; ordinary loss is counted, not reported here.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Hands every segment that is there to `handle`, waiting up to `timeout` for the first.
    ///
    /// Returns the number of segments handed over; `Ok(None)` is the end of an offline source.
    ///
    /// # Errors
    /// When the source is unusable from now on.
    fn poll(
        &mut self,
        timeout: Duration,
        handle: &mut dyn FnMut(&Segment<'_>),
    ) -> Result<Option<usize>, Self::Error>;

    /// Whether what it holds can wait for whoever takes it: a file can, a wire cannot.
    fn can_wait(&self) -> bool {
        false
    }
}

impl<S: SegmentSource> SegmentSource for &mut S {
    type Error = S::Error;

    fn poll(
        &mut self,
        timeout: Duration,
        handle: &mut dyn FnMut(&Segment<'_>),
    ) -> Result<Option<usize>, S::Error> {
        (**self).poll(timeout, handle)
    }

    fn can_wait(&self) -> bool {
        (**self).can_wait()
    }
}

reasons! {
    /// What the kernel decided about a packet.
    PacketResult {
        /// Copied into a ring.
        Copied = "copied",
        /// Not TCP, not a configured port or network, or a header that cannot be read.
        Filtered = "filtered",
        /// Sent by this agent.
        Own = "own",
        /// The kill switch is off, or the agent's heartbeat is stale.
        Killed = "killed",
        /// The flow is not in the sample.
        SampledOut = "sampled_out",
        /// A bare acknowledgment.
        NoPayload = "no_payload",
        /// An IP fragment: it cannot be attributed to a flow.
        Fragment = "fragment",
        /// Over the byte budget.
        Shed = "shed",
        /// The ring was full.
        RingFull = "ring_full",
        /// The bytes could not be read from the packet.
        CopyError = "copy_error",
    }
}

/// What the kernel counted since the start, all CPUs together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets by decision, indexed by `PacketResult as usize`.
    pub packets: Vec<u64>,
    /// Payload bytes copied.
    pub bytes: u64,
}
