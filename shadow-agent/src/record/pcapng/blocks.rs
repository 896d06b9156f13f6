//! The blocks of a capture (IETF draft-ietf-opsawg-pcapng), little-endian: one section, one interface, packets.

use crate::exchange::Timestamp;

const SECTION: u32 = 0x0A0D_0D0A;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

/// Packets begin with an IP header.
const LINK_RAW: u16 = 101;

const COMMENT: u16 = 1;
const HARDWARE: u16 = 2;
const SYSTEM: u16 = 3;
const APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const END: u16 = 0;

/// What stands around a packet in its block.
const AROUND: usize = 32;

/// The bytes of a block with a packet of that length.
pub(super) fn size(packet: usize) -> usize {
    AROUND + packet.next_multiple_of(4)
}

/// What a file begins with.
pub(super) fn head() -> Vec<u8> {
    let mut section = Vec::new();
    section.extend(BYTE_ORDER.to_le_bytes());
    section.extend(1_u16.to_le_bytes());
    section.extend(0_u16.to_le_bytes());
    // Nobody knows how long it will be.
    section.extend((-1_i64).to_le_bytes());
    let application = format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    option(&mut section, COMMENT, b"Packets made of masked exchanges, each in a connection of its own");
    option(&mut section, HARDWARE, std::env::consts::ARCH.as_bytes());
    option(&mut section, SYSTEM, b"Linux");
    option(&mut section, APPLICATION, application.as_bytes());
    option(&mut section, END, b"");
    let mut interface = Vec::new();
    interface.extend(LINK_RAW.to_le_bytes());
    interface.extend(0_u16.to_le_bytes());
    // No packet is cut.
    interface.extend(0_u32.to_le_bytes());
    option(&mut interface, INTERFACE_NAME, b"exchanges");
    // Nanoseconds.
    option(&mut interface, RESOLUTION, &[9]);
    option(&mut interface, END, b"");
    [block(SECTION, &section), block(INTERFACE, &interface)].concat()
}

/// A packet as a block.
pub(super) fn packet(time: Timestamp, packet: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(size(packet.len()));
    body.extend(0_u32.to_le_bytes());
    body.extend(((time.0 >> 32) as u32).to_le_bytes());
    body.extend((time.0 as u32).to_le_bytes());
    body.extend((packet.len() as u32).to_le_bytes());
    body.extend((packet.len() as u32).to_le_bytes());
    body.extend_from_slice(packet);
    body.resize(body.len().next_multiple_of(4), 0);
    block(ENHANCED_PACKET, &body)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, body, &length].concat()
}
