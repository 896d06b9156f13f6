//! From a packet as it stands in a file to a segment, by the same decoder that the kernel programs use.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use shadow_ebpf::packet::{self, Address, Layer, Reader, Unusable};

use crate::capture::{Segment, TcpFlags};
use crate::exchange::Timestamp;

/// What comes before the IP header of a packet (the registry of link-layer header types, tcpdump.org).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing.
    Ip,
    /// Ethernet, VLAN tags included.
    Ethernet,
    /// Four bytes that name the family.
    Loopback,
    /// Linux cooked, version 1.
    Cooked,
    /// Linux cooked, version 2.
    Cooked2,
    /// Something that we cannot read.
    Other(u32),
}

impl Link {
    pub(super) fn of(number: u32) -> Link {
        match number {
            0 | 108 => Link::Loopback,
            1 => Link::Ethernet,
            // The first two are what systems call raw IP in their own numbering.
            12 | 14 | 101 | 228 | 229 => Link::Ip,
            113 => Link::Cooked,
            276 => Link::Cooked2,
            other => Link::Other(other),
        }
    }
}

/// A packet of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub(super) time: Timestamp,
    pub(super) link: Link,
    /// What was captured of it.
    pub(super) bytes: &'a [u8],
    /// Its length on the wire.
    pub(super) wire: u32,
}

/// What is behind a link header: the bytes captured, and how many there were on the wire.
struct Frame<'a> {
    bytes: &'a [u8],
    wire: u32,
}

impl Reader for Frame<'_> {
    fn length(&self) -> u32 {
        self.wire
    }

    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.bytes.read(offset)
    }
}

impl<'a> Packet<'a> {
    /// The TCP segment in it.
    pub(super) fn segment(&self) -> Result<Segment<'a>, Unusable> {
        let (frame, layer) = self.unwrap()?;
        let located = packet::locate(&frame, layer)?;
        let decoded = packet::tcp(&frame, &located)?;
        let addresses = packet::addresses(&frame, &located).ok_or(Unusable::Malformed)?;
        let ports = packet::ports(&frame, &located).ok_or(Unusable::Malformed)?;
        if located.end > frame.wire {
            return Err(Unusable::Malformed);
        }
        let end = frame.bytes.len().min(located.end as usize);
        let payload = frame.bytes.get(decoded.payload as usize..end).unwrap_or_default();
        Ok(Segment {
            time: self.time,
            source: socket(addresses.0, ports.0),
            destination: socket(addresses.1, ports.1),
            seq: decoded.seq,
            ack: decoded.ack,
            flags: TcpFlags(decoded.flags),
            direction: None,
            payload,
            missing: decoded.length - payload.len() as u32,
            is_shed: false,
        })
    }

    /// What is behind headers that the decoder does not know.
    fn unwrap(&self) -> Result<(Frame<'a>, Layer), Unusable> {
        let (skipped, layer) = match self.link {
            Link::Ip => (0, Layer::Ip),
            Link::Ethernet => (0, Layer::Ethernet),
            Link::Loopback => (4, Layer::Ip),
            // Its last two bytes are the type, as those of an Ethernet header are.
            Link::Cooked => (16 - 14, Layer::Ethernet),
            Link::Cooked2 => (self.cooked2()?, Layer::Ip),
            Link::Other(_) => return Err(Unusable::NotTcp),
        };
        let bytes = self.bytes.get(skipped..).ok_or(Unusable::Malformed)?;
        Ok((Frame { bytes, wire: self.wire - skipped as u32 }, layer))
    }

    /// Where the IP header is behind a cooked header of version 2, which begins with the type.
    fn cooked2(&self) -> Result<usize, Unusable> {
        const HEADER: usize = 20;
        let mut kind: [u8; 2] = self.bytes.read(0).ok_or(Unusable::Malformed)?;
        let mut end = HEADER;
        for _ in 0..packet::MAX_VLANS {
            if !matches!(u16::from_be_bytes(kind), 0x8100 | 0x88A8 | 0x9100) {
                break;
            }
            kind = self.bytes.read(end as u32 + 2).ok_or(Unusable::Malformed)?;
            end += 4;
        }
        if matches!(u16::from_be_bytes(kind), 0x0800 | 0x86DD) { Ok(end) } else { Err(Unusable::NotTcp) }
    }
}

fn socket(address: Address, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(address.octets())).to_canonical(), port)
}
