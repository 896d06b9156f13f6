//! IP packets with TCP segments in them (RFC 791, RFC 8200, RFC 9293), with checksums that are right.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;

const TCP: u8 = 6;
const HOPS: u8 = 64;
const WINDOW: u16 = 65_535;
const TCP_HEADER: usize = 20;

/// From where to where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

/// A packet with one segment.
pub(super) fn tcp(route: &Route, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = TCP_HEADER + payload.len();
    let mut segment = Vec::with_capacity(length);
    segment.extend(route.source.port().to_be_bytes());
    segment.extend(route.destination.port().to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([(TCP_HEADER as u8 / 4) << 4, flags]);
    segment.extend(WINDOW.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend_from_slice(payload);
    let (mut header, addresses) = ip(route, length);
    let pseudo = [&addresses[..], &(length as u32).to_be_bytes(), &[0, 0, 0, TCP]].concat();
    let sum = checksum(&[&pseudo, &segment]);
    put(&mut segment, 16, sum);
    header.extend(segment);
    header
}

/// The header of a packet with so much behind it, and both addresses.
fn ip(route: &Route, length: usize) -> (Vec<u8>, Vec<u8>) {
    let mut header = Vec::with_capacity(40 + length);
    match (route.source.ip(), route.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let addresses = [source.octets(), destination.octets()].concat();
            header.extend([0x45, 0]);
            header.extend((20 + length as u16).to_be_bytes());
            // Not fragmented, nor to be.
            header.extend([0, 0, 0x40, 0, HOPS, TCP, 0, 0]);
            header.extend_from_slice(&addresses);
            let sum = checksum(&[&header]);
            put(&mut header, 10, sum);
            (header, addresses)
        }
        (source, destination) => {
            let addresses = [wide(source).octets(), wide(destination).octets()].concat();
            header.extend([0x60, 0, 0, 0]);
            header.extend((length as u16).to_be_bytes());
            header.extend([TCP, HOPS]);
            header.extend_from_slice(&addresses);
            (header, addresses)
        }
    }
}

fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn put(bytes: &mut [u8], at: usize, sum: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}

/// The checksum of the internet (RFC 1071) over parts, all but the last of an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u64 = words
        .map(|word| match word {
            [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            [high] => u64::from(*high) << 8,
            _ => 0,
        })
        .sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}
