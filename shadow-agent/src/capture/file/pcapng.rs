//! The newer capture format: blocks, of which sections, interfaces and packets matter here
//! (IETF draft-ietf-opsawg-pcapng).

use std::io::Read;

use super::frame::{Link, Packet};
use super::pcap::Order;
use super::window::Window;
use super::{Broken, MAX_RECORD};
use crate::exchange::Timestamp;

/// What a section begins with, in either byte order.
pub(super) const SECTION: [u8; 4] = [0x0A, 0x0D, 0x0D, 0x0A];

const INTERFACE: u32 = 1;
/// A packet block as written before the enhanced one took its place.
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Type and length, before and behind what a block holds.
const FRAME: usize = 12;
/// Interfaces of one section.
const MAX_INTERFACES: usize = 65_536;

const OPTION_END: u16 = 0;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;

/// Where packets of a section come from, and how their time is meant.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: Link,
    /// Bytes captured of a packet at most; 0: any number.
    snap: u32,
    /// Units in a second.
    resolution: u64,
    /// Seconds to be added.
    offset: i64,
}

/// The packets of a file.
pub(super) struct PcapNg<R> {
    window: Window<R>,
    order: Order,
    interfaces: Vec<Interface>,
    /// The time of the last packet, which stands for that of packets that have none.
    last: Timestamp,
    /// Bytes of the window that the last block took.
    taken: usize,
}

/// Where in the window a packet is.
struct Place {
    time: Timestamp,
    link: Link,
    start: usize,
    length: usize,
    wire: u32,
}

impl<R: Read> PcapNg<R> {
    pub(super) fn new(window: Window<R>) -> PcapNg<R> {
        PcapNg { window, order: Order::Little, interfaces: Vec::new(), last: Timestamp::default(), taken: 0 }
    }

    /// How far the file was read, in bytes.
    pub(super) fn position(&self) -> u64 {
        self.window.position()
    }

    /// The next packet.
    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, Broken> {
        let place = loop {
            self.window.pass(std::mem::take(&mut self.taken));
            match self.block()? {
                Some(Some(place)) => break place,
                Some(None) => {}
                None => return Ok(None),
            }
        };
        self.last = place.time;
        Ok(Some(Packet {
            time: place.time,
            link: place.link,
            bytes: self.window.bytes().get(place.start..place.start + place.length).unwrap_or_default(),
            wire: place.wire,
        }))
    }

    /// Reads one block; `None` at the end of the file, `Some(None)` for one without a packet.
    #[expect(clippy::option_option, reason = "both ends of the file and blocks of no interest are ordinary")]
    fn block(&mut self) -> Result<Option<Option<Place>>, Broken> {
        let position = self.window.position();
        let damaged = |problem: String| Err(Broken::damaged(position, problem));
        if !self.window.reach(FRAME)? {
            let rest = self.window.bytes().len();
            return if rest == 0 { Ok(None) } else { Err(Broken::Cut) };
        }
        let is_section = self.window.bytes().starts_with(&SECTION);
        if is_section {
            self.order = match self.window.bytes().get(8..12) {
                Some([0x1A, 0x2B, 0x3C, 0x4D]) => Order::Big,
                Some([0x4D, 0x3C, 0x2B, 0x1A]) => Order::Little,
                _ => return damaged("a section does not say its byte order".to_owned()),
            };
            self.interfaces.clear();
        }
        let order = self.order;
        let (kind, length) = (order.word(self.window.bytes(), 0), order.word(self.window.bytes(), 4));
        if length < FRAME as u32 || length % 4 != 0 {
            return damaged(format!("a block claims a length of {length} bytes"));
        }
        let wanted = matches!(kind, INTERFACE | OLD_PACKET | SIMPLE_PACKET | ENHANCED_PACKET);
        if is_section || !wanted {
            // Whatever it holds, it need not fit the window.
            return match self.window.skip(u64::from(length))? {
                true => Ok(Some(None)),
                false => Err(Broken::Cut),
            };
        }
        let length = length as usize;
        if length > MAX_RECORD + 64 {
            return damaged(format!("a block claims a length of {length} bytes"));
        }
        if !self.window.reach(length)? {
            return Err(Broken::Cut);
        }
        let block = self.window.bytes().get(..length).unwrap_or_default();
        if order.word(block, length - 4) as usize != length {
            return damaged("the two lengths of a block differ".to_owned());
        }
        let body = block.get(8..length - 4).unwrap_or_default();
        let place = match kind {
            INTERFACE => {
                if self.interfaces.len() >= MAX_INTERFACES {
                    return damaged(format!("a section has more than {MAX_INTERFACES} interfaces"));
                }
                match interface(order, body) {
                    Ok(interface) => self.interfaces.push(interface),
                    Err(problem) => return damaged(problem),
                }
                Ok(None)
            }
            SIMPLE_PACKET => self.simple(body).map(Some),
            ENHANCED_PACKET => self.packet(body, order.word(body, 0)).map(Some),
            _ => self.packet(body, order.short(body, 0).into()).map(Some),
        };
        self.taken = length;
        place.map(Some).map_err(|problem| Broken::damaged(position, problem))
    }

    /// An enhanced packet block, or an old one; they differ in how the interface is written only.
    fn packet(&self, body: &[u8], interface: u32) -> Result<Place, String> {
        const START: usize = 20;
        let order = self.order;
        let Some(&Interface { link, resolution, offset, .. }) = self.interfaces.get(interface as usize)
        else {
            return Err(format!("a packet is from interface {interface}, which is not described"));
        };
        let [high, low, captured, wire] = [4, 8, 12, 16].map(|offset| order.word(body, offset));
        let length = captured as usize;
        if body.len() < START || length > body.len() - START {
            return Err(format!("a block of {} bytes claims a packet of {captured}", body.len()));
        }
        let time = time(u64::from(high) << 32 | u64::from(low), resolution, offset);
        Ok(Place { time, link, start: 8 + START, length, wire: wire.max(captured) })
    }

    /// A simple packet block: of the first interface, without a time.
    fn simple(&self, body: &[u8]) -> Result<Place, String> {
        const START: usize = 4;
        let Some(&Interface { link, snap, .. }) = self.interfaces.first() else {
            return Err("a packet comes before any interface".to_owned());
        };
        if body.len() < START {
            return Err(format!("a packet block of {} bytes", body.len()));
        }
        let wire = self.order.word(body, 0);
        let captured = if snap == 0 { wire } else { wire.min(snap) };
        let length = (captured as usize).min(body.len() - START);
        Ok(Place { time: self.last, link, start: 8 + START, length, wire })
    }
}

fn interface(order: Order, body: &[u8]) -> Result<Interface, String> {
    let link = Link::of(order.short(body, 0).into());
    let mut interface = Interface { link, snap: order.word(body, 4), resolution: 1_000_000, offset: 0 };
    let mut options = body.get(8..).unwrap_or_default();
    while options.len() >= 4 {
        let (code, length) = (order.short(options, 0), usize::from(order.short(options, 2)));
        let Some(value) = options.get(4..4 + length) else {
            return Err(format!("an option of an interface claims {length} bytes"));
        };
        match (code, value) {
            (OPTION_END, _) => break,
            (OPTION_RESOLUTION, &[value]) => {
                let power = u32::from(value & 0x7F);
                let units =
                    if value & 0x80 == 0 { 10_u64.checked_pow(power) } else { 1_u64.checked_shl(power) };
                interface.resolution =
                    units.ok_or_else(|| format!("an interface has the time resolution {value}"))?;
            }
            (OPTION_OFFSET, value) if value.len() == 8 => {
                let (first, second) = (order.word(value, 0), order.word(value, 4));
                let (high, low) = if order == Order::Big { (first, second) } else { (second, first) };
                interface.offset = (u64::from(high) << 32 | u64::from(low)).cast_signed();
            }
            _ => {}
        }
        options = options.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(interface)
}

/// Units since the epoch as a point in time; what is outside of its range becomes its end.
fn time(units: u64, resolution: u64, offset: i64) -> Timestamp {
    const SECOND: u64 = 1_000_000_000;
    let nanoseconds = if SECOND.is_multiple_of(resolution) {
        units.saturating_mul(SECOND / resolution)
    } else {
        let wide = u128::from(units) * u128::from(SECOND) / u128::from(resolution);
        u64::try_from(wide).unwrap_or(u64::MAX)
    };
    if offset == 0 {
        return Timestamp(nanoseconds);
    }
    let offset = i128::from(offset) * i128::from(SECOND);
    let moved = (i128::from(nanoseconds) + offset).clamp(0, i128::from(u64::MAX));
    Timestamp(u64::try_from(moved).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_every_resolution() {
        let cases = [
            (1_700_000_000_123_456, 1_000_000, 0, 1_700_000_000_123_456_000),
            (1_700_000_000_123_456_789, 1_000_000_000, 0, 1_700_000_000_123_456_789),
            (1_700_000_000, 1, 0, 1_700_000_000_000_000_000),
            (3 << 32 | 1 << 31, 1 << 32, 0, 3_500_000_000),
            (15, 10_000_000_000, 0, 1),
            (5, 1, 1_700_000_000, 1_700_000_005_000_000_000),
            (5, 1, -3, 2_000_000_000),
            (5, 1, -6, 0),
            (u64::MAX, 1, 0, u64::MAX),
            (u64::MAX, 1 << 63, i64::MAX, u64::MAX),
        ];
        for (units, resolution, offset, expected) in cases {
            assert_eq!(time(units, resolution, offset), Timestamp(expected), "{units} {resolution} {offset}");
        }
    }
}
