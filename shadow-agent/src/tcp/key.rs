//! The name of a flow: its two endpoints in canonical order, so that both directions find the same entry.

use std::net::{IpAddr, SocketAddr};

use shadow_ebpf::packet::Address;

/// Both endpoints, the lower one first. IPv4 addresses are taken as IPv4-mapped IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    low: u128,
    high: u128,
    /// The port of the lower endpoint in the upper half.
    ports: u32,
}

impl FlowKey {
    /// The key of a segment, and whether its sender is the lower endpoint.
    pub(super) fn of(source: &SocketAddr, destination: &SocketAddr) -> (FlowKey, bool) {
        let (from, to) = (endpoint(source), endpoint(destination));
        let from_low = from <= to;
        let (low, high) = if from_low { (from, to) } else { (to, from) };
        let ports = u32::from(low.1) << 16 | u32::from(high.1);
        (FlowKey { low: low.0, high: high.0, ports }, from_low)
    }

    /// Both endpoints, as the kernel programs have them.
    pub(super) fn endpoints(&self) -> [(Address, u16); 2] {
        let address = |bits: u128| Address { high: (bits >> 64) as u64, low: bits as u64 };
        [(address(self.low), (self.ports >> 16) as u16), (address(self.high), self.ports as u16)]
    }
}

fn endpoint(address: &SocketAddr) -> (u128, u16) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    (ip.to_bits(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_have_one_key() {
        let cases = [
            ("10.0.0.1:1", "10.0.0.2:80"),
            ("10.0.0.1:9", "10.0.0.1:80"),
            ("[2001:db8::1]:443", "[2001:db8::2]:443"),
            ("10.0.0.1:1", "[2001:db8::2]:443"),
        ];
        for (one, other) in cases {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            let (there, from_low) = FlowKey::of(&one, &other);
            let (back, back_from_low) = FlowKey::of(&other, &one);
            assert_eq!(there, back);
            assert_ne!(from_low, back_from_low);
        }
    }

    #[test]
    fn exchanged_ports_are_another_flow() {
        let key = |one: &str, other: &str| FlowKey::of(&one.parse().unwrap(), &other.parse().unwrap()).0;
        assert_ne!(key("10.0.0.1:1", "10.0.0.2:2"), key("10.0.0.1:2", "10.0.0.2:1"));
    }
}
