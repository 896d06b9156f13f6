//! The classic capture format: a header that says byte order, unit of time and kind of link, then a record a packet
//! (IETF draft-ietf-opsawg-pcap).

use std::io::Read;

use super::frame::{Link, Packet};
use super::window::Window;
use super::{Broken, MAX_RECORD};
use crate::exchange::Timestamp;

const HEADER: usize = 24;
const RECORD: usize = 16;

/// Numbers as the machine that wrote the file had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    /// The 16 bits at `offset`; zero where there are none.
    pub(super) fn short(self, bytes: &[u8], offset: usize) -> u16 {
        let bytes = bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        if self == Order::Big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    /// The 32 bits at `offset`; zero where there are none.
    pub(super) fn word(self, bytes: &[u8], offset: usize) -> u32 {
        let bytes = bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        if self == Order::Big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

/// Byte order, and nanoseconds in a unit of the fraction of a second, by the first four bytes.
pub(super) fn magic(bytes: &[u8]) -> Option<(Order, u64)> {
    match bytes.first_chunk()? {
        [0xA1, 0xB2, 0xC3, 0xD4] => Some((Order::Big, 1000)),
        [0xD4, 0xC3, 0xB2, 0xA1] => Some((Order::Little, 1000)),
        [0xA1, 0xB2, 0x3C, 0x4D] => Some((Order::Big, 1)),
        [0x4D, 0x3C, 0xB2, 0xA1] => Some((Order::Little, 1)),
        _ => None,
    }
}

/// The packets of a file.
pub(super) struct Pcap<R> {
    window: Window<R>,
    order: Order,
    /// Nanoseconds in a unit.
    unit: u64,
    link: Link,
    /// Bytes of the window that the last packet took.
    taken: usize,
}

impl<R: Read> Pcap<R> {
    /// Reads the header.
    pub(super) fn new(mut window: Window<R>) -> Result<Pcap<R>, Broken> {
        if !window.reach(HEADER)? {
            return Err(Broken::damaged(0, "it ends within its header"));
        }
        let Some((order, unit)) = magic(window.bytes()) else {
            return Err(Broken::damaged(0, "it does not begin with the header of a capture"));
        };
        // The upper bits say whether frames end with a check sequence; the length in the IP header leaves it out.
        let link = Link::of(order.word(window.bytes(), 20) & 0xFFFF);
        if let Link::Other(number) = link {
            return Err(Broken::Link { number });
        }
        window.pass(HEADER);
        Ok(Pcap { window, order, unit, link, taken: 0 })
    }

    /// How far the file was read, in bytes.
    pub(super) fn position(&self) -> u64 {
        self.window.position()
    }

    /// The next packet.
    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, Broken> {
        self.window.pass(std::mem::take(&mut self.taken));
        if !self.window.reach(RECORD)? {
            let rest = self.window.bytes().len();
            return if rest == 0 { Ok(None) } else { Err(Broken::Cut) };
        }
        let (order, position) = (self.order, self.window.position());
        let header = self.window.bytes();
        let [seconds, fraction, captured, wire] = [0, 4, 8, 12].map(|offset| order.word(header, offset));
        let length = captured as usize;
        if length > MAX_RECORD {
            let problem = format!("a record claims a packet of {captured} bytes");
            return Err(Broken::damaged(position, problem));
        }
        if !self.window.reach(RECORD + length)? {
            return Err(Broken::Cut);
        }
        self.taken = RECORD + length;
        let nanoseconds = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.unit;
        Ok(Some(Packet {
            time: Timestamp(nanoseconds),
            link: self.link,
            bytes: self.window.bytes().get(RECORD..self.taken).unwrap_or_default(),
            wire: wire.max(captured),
        }))
    }
}
