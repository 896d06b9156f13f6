//! Tables of decisions. What headers can look like is tested with `packet`.

use std::vec::Vec;

use super::*;

const CLIENT: u8 = 1;
const SERVER: u8 = 2;
const PAYLOAD: &[u8] = b"GET";

/// An IPv4 packet from 10.0.0.`source` to 10.0.0.`destination`.
fn packet(source: (u8, u16), destination: (u8, u16), flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend([0x45, 0, 0, 40 + payload.len() as u8, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    bytes.extend([10, 0, 0, source.0, 10, 0, 0, destination.0]);
    bytes.extend(source.1.to_be_bytes());
    bytes.extend(destination.1.to_be_bytes());
    bytes.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    bytes.extend(payload);
    bytes
}

fn request() -> Vec<u8> {
    packet((CLIENT, 40_000), (SERVER, 8080), flags::ACK, PAYLOAD)
}

fn response() -> Vec<u8> {
    packet((SERVER, 8080), (CLIENT, 40_000), flags::ACK, PAYLOAD)
}

/// Ports 8080 and 8081; port 50,000 of the client is our own socket's; the lists that each host is in, by the last octet
/// of its address.
struct Table(Vec<(u8, u32)>);

/// What is known about one packet and asked for it.
struct Asked<'a> {
    table: &'a Table,
    mark: u32,
    rules: Rules,
}

impl Tables for Asked<'_> {
    fn port(&self, port: u16) -> bool {
        port == 8080 || port == 8081
    }

    fn mark(&self) -> u32 {
        self.mark
    }

    fn rules(&self) -> Rules {
        self.rules
    }

    fn own(&self, address: Address, port: u16) -> bool {
        address.low as u8 == CLIENT && port == 50_000
    }

    fn networks(&self, address: Address) -> u32 {
        let found = self.table.0.iter().find(|(host, _)| *host == address.low as u8);
        found.map_or(0, |(_, lists)| *lists)
    }
}

const RULES: Rules = Rules { mark: 0x5AD0, seed: 0, lists: 0, sample: abi::SAMPLE_ALL };

fn decide_on(bytes: &[u8], hook: Hook, mark: u32, rules: Rules, table: &Table) -> Result<Wanted, Outcome> {
    decide_for(Side::Server, bytes, hook, &Asked { table, mark, rules })
}

fn decide_for(side: Side, bytes: &[u8], hook: Hook, asked: &Asked<'_>) -> Result<Wanted, Outcome> {
    decide(bytes, &Seen { layer: Layer::Ip, hook, side }, asked)
}

fn decision(bytes: &[u8], rules: Rules) -> Result<u8, Outcome> {
    decide_on(bytes, Hook::TowardServer, 0, rules, &Table(Vec::new())).map(|wanted| wanted.direction)
}

#[test]
fn a_wanted_packet_is_described_whole() {
    let wanted = decide_on(&request(), Hook::TowardServer, 0, RULES, &Table(Vec::new())).unwrap();
    assert_eq!(wanted.source.0.octets(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 0, 0, 1]);
    assert_eq!(wanted.destination.0.octets(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 0, 0, 2]);
    assert_eq!((wanted.source.1, wanted.destination.1), (40_000, 8080));
    assert_eq!(wanted.direction, direction::TO_SERVER);
    let tcp = packet::Tcp { seq: 7, ack: 9, flags: flags::ACK, payload: 40, length: 3 };
    assert_eq!(wanted.tcp, tcp);
    let back = decide_on(&response(), Hook::TowardClient, 0, RULES, &Table(Vec::new())).unwrap();
    assert_eq!(back.hash, wanted.hash);
    assert_eq!(back.direction, direction::TO_CLIENT);
}

#[test]
fn the_side_and_the_hook_say_whose_port_counts() {
    use Hook::{Either, TowardClient, TowardServer};
    let between = packet((CLIENT, 8081), (SERVER, 8080), flags::ACK, PAYLOAD);
    let neither = packet((CLIENT, 1), (SERVER, 2), flags::ACK, PAYLOAD);
    const TO_SERVER: Result<u8, Outcome> = Ok(direction::TO_SERVER);
    const TO_CLIENT: Result<u8, Outcome> = Ok(direction::TO_CLIENT);
    const UNKNOWN: Result<u8, Outcome> = Ok(direction::UNKNOWN);
    const NO: Result<u8, Outcome> = Err(Outcome::Filtered);
    for (side, hook, expected) in [
        (Side::Server, TowardServer, [TO_SERVER, NO, TO_SERVER]),
        (Side::Server, TowardClient, [NO, TO_CLIENT, TO_CLIENT]),
        (Side::Server, Either, [TO_SERVER, TO_CLIENT, UNKNOWN]),
        (Side::Client, TowardServer, [NO, TO_CLIENT, TO_CLIENT]),
        (Side::Client, TowardClient, [TO_SERVER, NO, TO_SERVER]),
        (Side::Client, Either, [TO_SERVER, TO_CLIENT, UNKNOWN]),
        (Side::Both, TowardServer, [TO_SERVER, TO_CLIENT, UNKNOWN]),
        (Side::Both, TowardClient, [TO_SERVER, TO_CLIENT, UNKNOWN]),
        (Side::Both, Either, [TO_SERVER, TO_CLIENT, UNKNOWN]),
    ] {
        let decide = |bytes: &[u8]| {
            let asked = Asked { table: &Table(Vec::new()), mark: 0, rules: RULES };
            decide_for(side, bytes, hook, &asked).map(|wanted| wanted.direction)
        };
        assert_eq!(
            [&request(), &response(), &between].map(|bytes| decide(bytes)),
            expected,
            "{side:?} {hook:?}"
        );
        assert_eq!(decide(&neither), NO, "{side:?} {hook:?}");
    }
}

#[test]
fn sides_survive_their_code() {
    for side in [Side::Server, Side::Client, Side::Both] {
        assert_eq!(Side::from_code(side.code()), side);
    }
}

#[test]
fn lists_admit_servers_and_clients() {
    use networks::{CLIENT_EXCLUDE, CLIENT_INCLUDE, SERVER_EXCLUDE, SERVER_INCLUDE};
    let check = |lists: u32, server: u32, client: u32, admitted: bool| {
        let table = Table([(SERVER, server), (CLIENT, client)].into());
        for (bytes, hook) in [
            (request(), Hook::TowardServer),
            (response(), Hook::TowardClient),
            (request(), Hook::Either),
            (response(), Hook::Either),
        ] {
            let result = decide_on(&bytes, hook, 0, Rules { lists, ..RULES }, &table);
            assert_eq!(result.is_ok(), admitted, "{lists:b}: server {server:b}, client {client:b}, {hook:?}");
        }
    };
    check(0, 0, 0, true);
    check(SERVER_INCLUDE, SERVER_INCLUDE, 0, true);
    check(SERVER_INCLUDE, 0, 0, false);
    check(SERVER_INCLUDE, 0, SERVER_INCLUDE, false);
    check(SERVER_EXCLUDE, SERVER_EXCLUDE, 0, false);
    check(SERVER_EXCLUDE, 0, SERVER_EXCLUDE, true);
    check(CLIENT_INCLUDE, 0, CLIENT_INCLUDE, true);
    check(CLIENT_INCLUDE, CLIENT_INCLUDE, 0, false);
    check(CLIENT_EXCLUDE, 0, CLIENT_EXCLUDE, false);
    check(SERVER_INCLUDE | SERVER_EXCLUDE, SERVER_INCLUDE | SERVER_EXCLUDE, 0, false);
    let both = SERVER_INCLUDE | CLIENT_INCLUDE;
    check(both, SERVER_INCLUDE, CLIENT_INCLUDE, true);
    check(both, SERVER_INCLUDE, 0, false);
    check(both, 0, CLIENT_INCLUDE, false);
}

#[test]
fn either_way_round_will_do_when_the_direction_is_unknown() {
    let between = packet((CLIENT, 8081), (SERVER, 8080), flags::ACK, PAYLOAD);
    let rules = Rules { lists: networks::SERVER_INCLUDE, ..RULES };
    for (host, admitted) in [(SERVER, true), (CLIENT, true), (9, false)] {
        let table = Table([(host, networks::SERVER_INCLUDE)].into());
        let result = decide_on(&between, Hook::Either, 0, rules, &table);
        assert_eq!(result.is_ok(), admitted, "{host}");
    }
}

#[test]
fn the_first_reason_in_the_order_of_work_is_the_one_counted() {
    let check = |name: &str, bytes: &[u8], mark: u32, rules: Rules, expected: Outcome| {
        let table = Table([(SERVER, networks::SERVER_EXCLUDE)].into());
        let result = decide_on(bytes, Hook::TowardServer, mark, rules, &table);
        assert_eq!(result.err(), Some(expected), "{name}");
    };
    // Each rule set refuses for one reason more than the next.
    let acknowledgment = packet((CLIENT, 40_000), (SERVER, 8080), flags::ACK, b"");
    let elsewhere = packet((CLIENT, 40_000), (SERVER, 1), flags::ACK, b"");
    let listed = Rules { lists: networks::SERVER_EXCLUDE, sample: 0, ..RULES };
    let sampled = Rules { sample: 0, ..RULES };
    let mut fragment = elsewhere.clone();
    fragment[6] = 0x20;
    check("fragment", &fragment, RULES.mark, listed, Outcome::Fragment);
    check("port", &elsewhere, RULES.mark, listed, Outcome::Filtered);
    check("mark", &acknowledgment, RULES.mark, listed, Outcome::Own);
    check("network", &acknowledgment, 0, listed, Outcome::Filtered);
    check("sample", &acknowledgment, 0, sampled, Outcome::SampledOut);
    check("payload", &acknowledgment, 0, RULES, Outcome::NoPayload);
    check("mark 0", &acknowledgment, 0, Rules { mark: 0, ..RULES }, Outcome::NoPayload);
}

#[test]
fn flags_that_open_or_close_a_connection_count_without_payload() {
    for flag in 0..8 {
        let bits = 1 << flag;
        let bytes = packet((CLIENT, 40_000), (SERVER, 8080), bits, b"");
        let wanted = bits & (flags::SYN | flags::FIN | flags::RST) != 0;
        let expected = if wanted { Ok(direction::TO_SERVER) } else { Err(Outcome::NoPayload) };
        assert_eq!(decision(&bytes, RULES), expected, "{bits:#x}");
        let bytes = packet((CLIENT, 40_000), (SERVER, 8080), bits, b"x");
        assert_eq!(decision(&bytes, RULES), Ok(direction::TO_SERVER), "{bits:#x} with payload");
    }
}

#[test]
fn a_flow_is_in_the_sample_when_its_hash_is_below() {
    let hash = decide_on(&request(), Hook::TowardServer, 0, RULES, &Table(Vec::new())).unwrap().hash.sample();
    let check = |sample, expected| assert_eq!(decision(&request(), Rules { sample, ..RULES }), expected);
    check(hash, Err(Outcome::SampledOut));
    check(hash + 1, Ok(direction::TO_SERVER));
    check(0, Err(Outcome::SampledOut));
    check(abi::SAMPLE_ALL, Ok(direction::TO_SERVER));
}

#[test]
fn both_directions_of_our_own_sockets_are_left_alone() {
    let ours = (CLIENT, 50_000);
    let asked = Asked { table: &Table(Vec::new()), mark: 0, rules: RULES };
    for (source, destination, expected) in [
        (ours, (SERVER, 8080), Err(Outcome::Own)),
        ((SERVER, 8080), ours, Err(Outcome::Own)),
        ((SERVER, 50_000), (CLIENT, 8080), Ok(direction::TO_SERVER)),
        ((CLIENT, 50_001), (SERVER, 8080), Ok(direction::TO_SERVER)),
    ] {
        let bytes = packet(source, destination, flags::ACK, PAYLOAD);
        let decided = decide_for(Side::Both, &bytes, Hook::Either, &asked);
        assert_eq!(decided.map(|wanted| wanted.direction), expected, "{source:?} {destination:?}");
    }
    // Cheaper questions come first.
    assert_eq!(decision(&packet(ours, (SERVER, 7), flags::ACK, PAYLOAD), RULES), Err(Outcome::Filtered));
}
