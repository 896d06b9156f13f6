//! Tables of headers.

use std::format;
use std::vec::Vec;

use super::*;

/// A header, written as hexadecimal digits with spaces anywhere.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

const MACS: &str = "0200 0000 0001 0200 0000 0002";
const V4: &str = "4500 002c 0001 4000 4006 0000 0a00 0001 0a00 0002";
const V6: &str = "6000 0000 0018 0640 20010db8000000000000000000000001 20010db8000000000000000000000002";
/// Ports 40000 and 8080, sequence number 0x11223344, ACK, four bytes of payload.
const TCP: &str = "9c40 1f90 1122 3344 5566 7788 5010 ffff 0000 0000 de ad be ef";

#[derive(Debug, PartialEq)]
struct Read {
    located: Located,
    ports: (u16, u16),
    tcp: Tcp,
}

fn read(bytes: &[u8], layer: Layer) -> Result<Read, Unusable> {
    let located = locate(bytes, layer)?;
    let ports = ports(bytes, &located).ok_or(Unusable::Malformed)?;
    let tcp = tcp(bytes, &located)?;
    addresses(bytes, &located).ok_or(Unusable::Malformed)?;
    Ok(Read { located, ports, tcp })
}

fn ethernet_frame(kind: &str, rest: &[&str]) -> Vec<u8> {
    hex(&format!("{MACS} {kind} {}", rest.concat()))
}

#[test]
fn headers_are_found_wherever_they_are() {
    let check = |name: &str, bytes: Vec<u8>, layer: Layer, ip: u32, tcp: u32| {
        let read = read(&bytes, layer).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!((read.located.ip, read.located.tcp), (ip, tcp), "{name}");
        assert_eq!(read.ports, (40_000, 8080), "{name}");
        let Tcp { seq, ack, flags, payload, length } = read.tcp;
        assert_eq!((seq, ack, flags), (0x1122_3344, 0x5566_7788, flags::ACK), "{name}");
        assert_eq!(&bytes[payload as usize..][..length as usize], [0xDE, 0xAD, 0xBE, 0xEF], "{name}");
    };
    use Layer::{Ethernet, Ip};
    check("IPv4", ethernet_frame("0800", &[V4, TCP]), Ethernet, 14, 34);
    check("IPv6", ethernet_frame("86dd", &[V6, TCP]), Ethernet, 14, 54);
    check("no Ethernet, IPv4", hex(&[V4, TCP].concat()), Ip, 0, 20);
    check("no Ethernet, IPv6", hex(&[V6, TCP].concat()), Ip, 0, 40);
    check("802.1Q", ethernet_frame("8100 0064 0800", &[V4, TCP]), Ethernet, 18, 38);
    check("802.1ad", ethernet_frame("88a8 0064 86dd", &[V6, TCP]), Ethernet, 18, 58);
    check("QinQ", ethernet_frame("88a8 0064 8100 0065 0800", &[V4, TCP]), Ethernet, 22, 42);
    check("QinQ before 802.1ad", ethernet_frame("9100 0064 8100 0065 0800", &[V4, TCP]), Ethernet, 22, 42);
    let options = "4600 0030 0001 4000 4006 0000 0a00 0001 0a00 0002 0101 0101";
    check("IPv4 options", ethernet_frame("0800", &[options, TCP]), Ethernet, 14, 38);
    check("padding", ethernet_frame("0800", &[V4, TCP, "0000 0000 0000"]), Ethernet, 14, 34);
    check("BIG TCP", ethernet_frame("0800", &[&V4.replace("002c", "0000"), TCP]), Ethernet, 14, 34);
    check("a reserved flag", ethernet_frame("0800", &[&V4.replace("4000", "c000"), TCP]), Ethernet, 14, 34);
}

#[test]
fn extension_headers_are_passed_over() {
    let address = "20010db8000000000000000000000001 20010db8000000000000000000000002";
    let check = |name: &str, first: &str, extensions: &str, expected: Result<u32, Unusable>| {
        let payload = hex(extensions).len() + 24;
        let bytes = hex(&format!("6000 0000 {payload:04x} {first}40 {address} {extensions} {TCP}"));
        let found = read(&bytes, Layer::Ip).map(|read| read.located.tcp);
        assert_eq!(found, expected, "{name}");
    };
    check("hop-by-hop", "00", "0600 0104 0000 0000", Ok(48));
    check("destination options of 16 bytes", "3c", "0601 0000 0000 0000 0000 0000 0000 0000", Ok(56));
    check("routing, then destination", "2b", "3c00 0000 0000 0000 0600 0000 0000 0000", Ok(56));
    check("authentication of 16 bytes", "33", "0602 0000 0000 0000 0000 0000 0000 0000", Ok(56));
    check("mobility, HIP, shim6", "87", "8b00 000000000000 8c00 000000000000 0600 000000000000", Ok(64));
    check("an atomic fragment", "2c", "0600 0000 0000 0001", Ok(48));
    check("reserved bits of a fragment header", "2c", "06ff 0006 0000 0001", Ok(48));
    check("more fragments", "2c", "0600 0001 0000 0001", Err(Unusable::Fragment));
    check("a later fragment", "2c", "0600 0008 0000 0001", Err(Unusable::Fragment));
    check("a later fragment of UDP", "2c", "1100 0008 0000 0001", Err(Unusable::NotTcp));
    check("a first fragment of UDP", "2c", "1100 0001 0000 0001", Err(Unusable::NotTcp));
    check(
        "options within a fragment",
        "2c",
        "3c00 0001 0000 0001 0600 000000000000",
        Err(Unusable::Fragment),
    );
    check("no next header", "3b", "", Err(Unusable::NotTcp));
    check("ESP", "32", "0000 0000 0000 0000", Err(Unusable::NotTcp));
    let six = "3c00 0000 0000 0000".repeat(5) + "0600 0000 0000 0000";
    check("as many as are passed over", "3c", &six, Ok(88));
    let seven = "3c00 0000 0000 0000".repeat(6) + "0600 0000 0000 0000";
    check("one more", "3c", &seven, Err(Unusable::Malformed));
}

#[test]
fn what_is_not_tcp_or_not_well_formed_is_refused() {
    let check = |name: &str, bytes: Vec<u8>, expected: Unusable| {
        assert_eq!(read(&bytes, Layer::Ethernet), Err(expected), "{name}");
    };
    use Unusable::{Fragment, Malformed, NotTcp};
    check("ARP", ethernet_frame("0806", &[V4]), NotTcp);
    check("a length in place of a type", ethernet_frame("0040", &[V4]), NotTcp);
    check("three tags", ethernet_frame("8100 0001 8100 0002 8100 0003 0800", &[V4, TCP]), NotTcp);
    check("UDP", ethernet_frame("0800", &[&V4.replace("4006", "4011"), TCP]), NotTcp);
    check(
        "a later fragment of UDP",
        ethernet_frame("0800", &[&V4.replace("4000 4006", "0010 4011"), TCP]),
        NotTcp,
    );
    check("more fragments", ethernet_frame("0800", &[&V4.replace("4000", "2000"), TCP]), Fragment);
    check("a later fragment", ethernet_frame("0800", &[&V4.replace("4000", "0001"), TCP]), Fragment);
    check("IPv6 that says IPv4", ethernet_frame("0800", &[V6, TCP]), NotTcp);
    check("IPv4 that says IPv6", ethernet_frame("86dd", &[V4, TCP]), Malformed);
    check("version 5", ethernet_frame("0800", &[&V4.replace("4500", "5500"), TCP]), Malformed);
    check("a header of 16 bytes", ethernet_frame("0800", &[&V4.replace("4500", "4400"), TCP]), Malformed);
    check(
        "a total length below the headers",
        ethernet_frame("0800", &[&V4.replace("002c", "0027"), TCP]),
        Malformed,
    );
    check("a TCP header of 16 bytes", ethernet_frame("0800", &[V4, &TCP.replace("5010", "4010")]), Malformed);
    check(
        "a TCP header past the end",
        ethernet_frame("0800", &[V4, &TCP.replace("5010", "f010")]),
        Malformed,
    );
    let bytes = hex(&[&V4.replace("4500", "5500"), TCP].concat());
    assert_eq!(read(&bytes, Layer::Ip), Err(NotTcp), "layer 3, version 5");
}

#[test]
fn payload_ends_where_the_ip_length_says() {
    let check = |total: &str, padding: &str, expected: u32| {
        let bytes = ethernet_frame("0800", &[&V4.replace("002c", total), TCP, padding]);
        assert_eq!(read(&bytes, Layer::Ethernet).unwrap().tcp.length, expected, "{total}");
    };
    check("0028", "", 0);
    check("0029", "", 1);
    check("002c", "", 4);
    check("002c", "0000 0000", 4);
    // More than there is: the copy, not the decoder, knows what can be had.
    check("0064", "", 60);
    // Too large for the field: everything there is.
    check("0000", "0000 0000", 8);
    let jumbo = ethernet_frame("86dd", &[&V6.replace("0018 06", "0000 06"), TCP]);
    assert_eq!(read(&jumbo, Layer::Ethernet).unwrap().tcp.length, 4);
}

#[test]
fn addresses_are_ipv6_with_ipv4_mapped_into_it() {
    let check = |bytes: Vec<u8>, source: &str, destination: &str| {
        let located = locate(&bytes[..], Layer::Ip).unwrap();
        let (from, to) = addresses(&bytes[..], &located).unwrap();
        let expected =
            [source, destination].map(|text| text.parse::<core::net::Ipv6Addr>().unwrap().octets());
        assert_eq!([from.octets(), to.octets()], expected);
    };
    check(hex(&[V4, TCP].concat()), "::ffff:10.0.0.1", "::ffff:10.0.0.2");
    check(hex(&[V6, TCP].concat()), "2001:db8::1", "2001:db8::2");
}

#[test]
fn a_packet_cut_anywhere_before_its_payload_is_malformed() {
    let destination = "6000 0000 0020 3c40 20010db8000000000000000000000001 20010db8000000000000000000000002
                       0600 0000 0000 0000";
    for whole in [
        ethernet_frame("0800", &[V4, TCP]),
        ethernet_frame("88a8 0064 8100 0065 0800", &[V4, TCP]),
        ethernet_frame("86dd", &[V6, TCP]),
        ethernet_frame("86dd", &[destination, TCP]),
    ] {
        // Four bytes of payload, and six of the TCP header that are not looked at.
        for length in 0..whole.len() - 10 {
            assert_eq!(read(&whole[..length], Layer::Ethernet), Err(Unusable::Malformed), "{length}");
        }
        read(&whole[..whole.len() - 10], Layer::Ethernet).unwrap();
    }
}

#[test]
fn no_bytes_whatever_make_it_read_out_of_bounds_or_overflow() {
    // A cheap generator (xorshift); overflow and bad slices panic in tests.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let seeds = [ethernet_frame("88a8 0064 8100 0065 0800", &[V4, TCP]), ethernet_frame("86dd", &[V6, TCP])];
    // Under Miri each round takes thousands of times as long.
    let rounds = if cfg!(miri) { 100 } else { 200_000 };
    for round in 0..rounds {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..1 + next() % 6 {
            let at = next() as usize % bytes.len();
            bytes[at] = next() as u8;
        }
        bytes.truncate(next() as usize % (bytes.len() + 1));
        for layer in [Layer::Ethernet, Layer::Ip] {
            if let Ok(read) = read(&bytes, layer) {
                assert!(read.tcp.payload + read.tcp.length == read.located.end);
            }
        }
    }
}
