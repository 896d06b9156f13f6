//! Builds packets byte by byte, well-formed unless told otherwise.

use std::net::{IpAddr, SocketAddr};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// A TCP packet, to be varied field by field.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub ethernet: bool,
    /// VLAN tags, outermost first: their types.
    pub vlans: Vec<u16>,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub protocol: u8,
    /// IPv4: option bytes. IPv6: extension headers, each with its number and its bytes from the third on.
    pub options: Vec<u8>,
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// IPv4: flags and fragment offset.
    pub fragment: u16,
    /// In place of the length that is true.
    pub ip_length: Option<u16>,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
    /// Bytes after the IP packet.
    pub padding: usize,
}

impl Packet {
    /// A packet with payload between two endpoints.
    pub(crate) fn new(source: &str, destination: &str, payload: &[u8]) -> Packet {
        Packet {
            ethernet: true,
            vlans: Vec::new(),
            source: source.parse().expect("an endpoint"),
            destination: destination.parse().expect("an endpoint"),
            protocol: 6,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: 0x4000,
            ip_length: None,
            seq: 0x1122_3344,
            ack: 0x5566_7788,
            flags: ACK,
            tcp_options: Vec::new(),
            payload: payload.to_vec(),
            padding: 0,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ipv4 = self.source.is_ipv4();
        if self.ethernet {
            bytes.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
            for (index, kind) in self.vlans.iter().enumerate() {
                bytes.extend(kind.to_be_bytes());
                bytes.extend([0, 10 + index as u8]);
            }
            bytes.extend(if ipv4 { [0x08, 0x00] } else { [0x86, 0xDD] });
        }
        let tcp = self.tcp();
        if ipv4 {
            self.ipv4(&mut bytes, tcp.len())
        } else {
            self.ipv6(&mut bytes, tcp.len())
        }
        bytes.extend(tcp);
        bytes.extend(std::iter::repeat_n(0xEE, self.padding));
        bytes
    }

    fn tcp(&self) -> Vec<u8> {
        let words = 5 + self.tcp_options.len() / 4;
        let mut bytes = Vec::new();
        bytes.extend(self.source.port().to_be_bytes());
        bytes.extend(self.destination.port().to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([(words as u8) << 4, self.flags, 0xFF, 0xFF, 0, 0, 0, 0]);
        bytes.extend(&self.tcp_options);
        bytes.extend(&self.payload);
        bytes
    }

    fn ipv4(&self, bytes: &mut Vec<u8>, above: usize) {
        let header = 20 + self.options.len();
        let length = self.ip_length.unwrap_or((header + above) as u16);
        bytes.extend([0x40 | (header / 4) as u8, 0]);
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([64, self.protocol, 0, 0]);
        for address in [self.source.ip(), self.destination.ip()] {
            let IpAddr::V4(address) = address else { panic!("{address} is not IPv4") };
            bytes.extend(address.octets());
        }
        bytes.extend(&self.options);
    }

    fn ipv6(&self, bytes: &mut Vec<u8>, above: usize) {
        let mut headers = Vec::new();
        let mut numbers: Vec<u8> = self.extensions.iter().map(|(number, _)| *number).collect();
        numbers.push(self.protocol);
        for ((_, body), next) in self.extensions.iter().zip(&numbers[1..]) {
            headers.push(*next);
            headers.extend(body);
        }
        let length = self.ip_length.unwrap_or((headers.len() + above) as u16);
        bytes.extend([0x60, 0, 0, 0]);
        bytes.extend(length.to_be_bytes());
        bytes.extend([numbers[0], 64]);
        for address in [self.source.ip(), self.destination.ip()] {
            let IpAddr::V6(address) = address else { panic!("{address} is not IPv6") };
            bytes.extend(address.octets());
        }
        bytes.extend(headers);
    }
}
