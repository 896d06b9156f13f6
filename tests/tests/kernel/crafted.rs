//! Crafted packets through the loaded programs: every decision, and exactly what is in the record.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use shadow_agent::capture::interfaces::Layer;
use shadow_agent::capture::kernel::{Attachment, Entry, KernelCapture, Leads, RingSource};
use shadow_agent::capture::{Direction, PacketResult, SegmentSource as _};
use shadow_agent::config::{Capture, Networks, Share, Side};
use shadow_ebpf::abi::{MAX_OWN, RECORD_SIZES};

use crate::packet::{ACK, FIN, Packet, RST, SYN};
use crate::{capture, networks, xdp};

mod budget;
mod own;
mod running;

const CLIENT: &str = "10.0.0.1:40000";
const SERVER: &str = "10.0.0.2:8080";
const CLIENT6: &str = "[2001:db8::1]:40000";
const SERVER6: &str = "[2001:db8::2]:8080";
const MARK: u32 = 0x1050;

/// A segment that outlives its record.
#[derive(Debug, PartialEq)]
struct Captured {
    source: SocketAddr,
    destination: SocketAddr,
    seq: u32,
    ack: u32,
    flags: u8,
    direction: Option<Direction>,
    payload: Vec<u8>,
    missing: u32,
    is_shed: bool,
}

/// Loaded programs that nothing is attached to.
struct Bench {
    kernel: KernelCapture,
    source: RingSource,
    loaded: Vec<Entry>,
}

impl Bench {
    fn new(config: &Capture) -> Bench {
        let (kernel, mut sources) =
            KernelCapture::start_with(config, &[], true, Attachment::Tcx).expect("these tests need root");
        assert_eq!(sources.len(), 1);
        Bench { kernel, source: sources.remove(0), loaded: Vec::new() }
    }

    /// Runs a packet, and gives the one thing that was decided about it and what was captured.
    fn run(&mut self, entry: Entry, packet: &[u8], mark: u32) -> (PacketResult, Vec<Captured>) {
        self.load(entry);
        self.kernel.beat();
        self.run_without_heartbeat(entry, packet, mark)
    }

    /// Loads a program, by running it: that can take longer than a heartbeat lasts.
    fn load(&mut self, entry: Entry) {
        if !self.loaded.contains(&entry) {
            self.kernel.run_packet(entry, &[0; 64], 0, 1).unwrap();
            self.loaded.push(entry);
        }
    }

    fn run_without_heartbeat(
        &mut self,
        entry: Entry,
        packet: &[u8],
        mark: u32,
    ) -> (PacketResult, Vec<Captured>) {
        let before = self.kernel.counters().unwrap();
        let ran = self.kernel.run_packet(entry, packet, mark, 1).unwrap();
        assert_eq!(ran.verdict, entry.verdict(), "production's packet must go on");
        let after = self.kernel.counters().unwrap();
        let mut decided = PacketResult::ALL
            .iter()
            .filter(|&&result| after.packets[result as usize] != before.packets[result as usize]);
        let (Some(&result), None) = (decided.next(), decided.next()) else {
            panic!("one decision expected: {before:?} {after:?}");
        };
        assert_eq!(after.packets[result as usize], before.packets[result as usize] + 1);
        let captured = self.drain();
        let bytes: usize = captured.iter().map(|segment| segment.payload.len()).sum();
        assert_eq!(after.bytes - before.bytes, bytes as u64);
        (result, captured)
    }

    fn drain(&mut self) -> Vec<Captured> {
        let mut captured = Vec::new();
        self.source
            .poll(Duration::ZERO, &mut |segment| {
                captured.push(Captured {
                    source: segment.source,
                    destination: segment.destination,
                    seq: segment.seq,
                    ack: segment.ack,
                    flags: segment.flags.0,
                    direction: segment.direction,
                    payload: segment.payload.to_vec(),
                    missing: segment.missing,
                    is_shed: segment.is_shed,
                });
            })
            .unwrap();
        captured
    }
}

const TO_SERVER: Entry = Entry::Tc { layer: Layer::Ethernet, leads: Leads::ToServer };
const TO_CLIENT: Entry = Entry::Tc { layer: Layer::Ethernet, leads: Leads::ToClient };
const EITHER: Entry = Entry::Tc { layer: Layer::Ethernet, leads: Leads::Either };

/// Where requests come in: at TC and at XDP the same is decided and captured.
fn ingress() -> impl Iterator<Item = Entry> {
    [TO_SERVER, XDP_TO_SERVER].into_iter().filter(|entry| possible(*entry))
}

fn possible(entry: Entry) -> bool {
    matches!(entry, Entry::Tc { .. }) || xdp::is_there()
}

const XDP_TO_SERVER: Entry = Entry::Xdp(Direction::ToServer);
const XDP_TO_CLIENT: Entry = Entry::Xdp(Direction::ToClient);

/// What must be captured of a whole packet.
fn whole(packet: &Packet, direction: Option<Direction>) -> Vec<Captured> {
    vec![Captured {
        source: packet.source,
        destination: packet.destination,
        seq: packet.seq,
        ack: packet.ack,
        flags: packet.flags,
        direction,
        payload: packet.payload.clone(),
        missing: 0,
        is_shed: false,
    }]
}

fn request() -> Packet {
    Packet::new(CLIENT, SERVER, b"GET / HTTP/1.1\r\n\r\n")
}

fn request6() -> Packet {
    Packet::new(CLIENT6, SERVER6, b"GET /6 HTTP/1.1\r\n\r\n")
}

/// A packet made from another by changing something.
fn with(mut packet: Packet, change: impl FnOnce(&mut Packet)) -> Packet {
    change(&mut packet);
    packet
}

#[test]
fn headers_of_every_kind_are_read() {
    let mut bench = Bench::new(&capture());
    let mut check = |name: &str, packet: Packet| {
        for entry in ingress() {
            let (result, captured) = bench.run(entry, &packet.bytes(), 0);
            assert_eq!(result, PacketResult::Copied, "{name} {entry:?}");
            assert_eq!(captured, whole(&packet, Some(Direction::ToServer)), "{name} {entry:?}");
        }
    };
    check("IPv4", request());
    check("IPv6", request6());
    check("IPv4 options", with(request(), |packet| packet.options = vec![1; 40]));
    check("TCP options", with(request(), |packet| packet.tcp_options = vec![1; 40]));
    check(
        "all options",
        with(request(), |packet| {
            packet.options = vec![1; 12];
            packet.tcp_options = vec![1; 20];
        }),
    );
    check("a VLAN", with(request(), |packet| packet.vlans = vec![0x8100]));
    check("QinQ", with(request(), |packet| packet.vlans = vec![0x88A8, 0x8100]));
    check("QinQ over IPv6", with(request6(), |packet| packet.vlans = vec![0x8100, 0x8100]));
    check("hop-by-hop options", with(request6(), |packet| packet.extensions = vec![(0, vec![0; 7])]));
    check(
        "a long extension",
        with(request6(), |packet| {
            packet.extensions = vec![(60, [vec![3], vec![0; 30]].concat())];
        }),
    );
    check(
        "routing, then destination options",
        with(request6(), |packet| {
            packet.extensions = vec![(43, vec![0; 7]), (60, vec![0; 7])];
        }),
    );
    check(
        "an authentication header",
        with(request6(), |packet| {
            packet.extensions = vec![(51, [vec![4], vec![0; 22]].concat())];
        }),
    );
    check("an atomic fragment", with(request6(), |packet| packet.extensions = vec![(44, vec![0; 7])]));
    check("six extensions", with(request6(), |packet| packet.extensions = vec![(60, vec![0; 7]); 6]));
    check("the last port of a range", with(request(), |packet| packet.destination.set_port(9010)));
    check(
        "SYN",
        with(request(), |packet| {
            packet.flags = SYN;
            packet.payload.clear();
        }),
    );
    check(
        "FIN",
        with(request(), |packet| {
            packet.flags = FIN | ACK;
            packet.payload.clear();
        }),
    );
    check(
        "RST",
        with(request(), |packet| {
            packet.flags = RST;
            packet.payload.clear();
        }),
    );
    check("BIG TCP over IPv4", with(request(), |packet| packet.ip_length = Some(0)));
    check("BIG TCP over IPv6", with(request6(), |packet| packet.ip_length = Some(0)));
    check("padding", with(Packet::new(CLIENT, SERVER, b"x"), |packet| packet.padding = 5));
}

#[test]
fn what_is_not_wanted_is_counted_by_its_reason() {
    let mut bench = Bench::new(&capture());
    let mut check = |name: &str, expected: PacketResult, packet: Packet| {
        for entry in ingress() {
            let (result, captured) = bench.run(entry, &packet.bytes(), 0);
            assert_eq!((result, captured), (expected, Vec::new()), "{name} {entry:?}");
        }
    };
    use PacketResult::{Filtered, Fragment, NoPayload};
    check("UDP", Filtered, with(request(), |packet| packet.protocol = 17));
    check("UDP over IPv6", Filtered, with(request6(), |packet| packet.protocol = 17));
    check("another port", Filtered, with(request(), |packet| packet.destination.set_port(8081)));
    check("the port before a range", Filtered, with(request(), |packet| packet.destination.set_port(8999)));
    check("the port after a range", Filtered, with(request(), |packet| packet.destination.set_port(9011)));
    check("three tags", Filtered, with(request(), |packet| packet.vlans = vec![0x88A8, 0x8100, 0x8100]));
    check("an unknown ethertype", Filtered, with(request(), |packet| packet.vlans = vec![0x0806]));
    check(
        "seven extensions",
        Filtered,
        with(request6(), |packet| packet.extensions = vec![(60, vec![0; 7]); 7]),
    );
    check("no next header", Filtered, with(request6(), |packet| packet.protocol = 59));
    check("more fragments", Fragment, with(request(), |packet| packet.fragment = 0x2000));
    check("a later fragment", Fragment, with(request(), |packet| packet.fragment = 0x0010));
    check(
        "more fragments over IPv6",
        Fragment,
        with(request6(), |packet| {
            packet.extensions = vec![(44, vec![0, 0, 1, 0, 0, 0, 9])];
        }),
    );
    check(
        "a later fragment over IPv6",
        Fragment,
        with(request6(), |packet| {
            packet.extensions = vec![(44, vec![0, 0, 8, 0, 0, 0, 9])];
        }),
    );
    let acknowledgment = with(request(), |packet| packet.payload.clear());
    check("a bare acknowledgment", NoPayload, acknowledgment.clone());
    check("a padded acknowledgment", NoPayload, with(acknowledgment, |packet| packet.padding = 6));
    check("an IP length below its headers", Filtered, with(request(), |packet| packet.ip_length = Some(30)));
}

#[test]
fn a_packet_cut_short_anywhere_is_let_go_and_never_read_past_its_end() {
    let mut bench = Bench::new(&capture());
    // The kernel wants a whole IP header for a test, where it knows the protocol; tags keep it from knowing.
    for (shortest, packet) in [
        (34, with(request(), |packet| packet.options = vec![1; 8])),
        (14, with(request(), |packet| packet.vlans = vec![0x88A8, 0x8100])),
        (14, with(request6(), |packet| packet.vlans = vec![0x8100])),
        (54, with(request6(), |packet| packet.extensions = vec![(0, vec![0; 7]), (60, vec![0; 7])])),
    ] {
        let bytes = packet.bytes();
        let headers = bytes.len() - packet.payload.len();
        for (entry, length) in
            ingress().flat_map(|entry| (shortest..bytes.len()).map(move |length| (entry, length)))
        {
            let (result, captured) = bench.run(entry, &bytes[..length], 0);
            // The six last bytes of the TCP header (window, checksum, urgent pointer) are not looked at.
            if length < headers - 6 {
                assert_eq!((result, captured), (PacketResult::Filtered, Vec::new()), "{length} {entry:?}");
                continue;
            }
            assert_eq!(result, PacketResult::Copied, "{length} {entry:?}");
            let there = length.saturating_sub(headers);
            let mut expected = whole(&packet, Some(Direction::ToServer));
            expected[0].payload.truncate(there);
            expected[0].missing = (packet.payload.len() - there) as u32;
            assert_eq!(captured, expected, "{length} {entry:?}");
        }
    }
}

#[test]
fn layer_3_devices_have_no_ethernet_header() {
    let mut bench = Bench::new(&capture());
    for (leads, direction) in [(Leads::ToServer, Direction::ToServer), (Leads::Either, Direction::ToServer)] {
        for packet in [request(), request6(), with(request(), |packet| packet.options = vec![1; 4])] {
            let packet = with(packet, |packet| packet.ethernet = false);
            let (result, captured) = bench.run(Entry::Tc { layer: Layer::Ip, leads }, &packet.bytes(), 0);
            assert_eq!(result, PacketResult::Copied);
            assert_eq!(captured, whole(&packet, Some(direction)));
        }
    }
    let entry = Entry::Tc { layer: Layer::Ip, leads: Leads::ToServer };
    let (result, _) = bench.run(entry, &request().bytes(), 0);
    assert_eq!(result, PacketResult::Filtered, "an Ethernet header is not an IP header");
}

#[test]
fn payloads_of_every_size_class_are_whole() {
    let mut bench = Bench::new(&capture());
    let borders = RECORD_SIZES.into_iter().filter(|&size| size < 3000);
    for size in borders.flat_map(|size| [size - 1, size, size + 1]).chain([1, 2, 7, 3000]) {
        let payload: Vec<u8> = (0..size).map(|at| (at * 31 + size) as u8).collect();
        let packet = Packet::new(CLIENT, SERVER, &payload);
        for entry in ingress() {
            let (result, captured) = bench.run(entry, &packet.bytes(), 0);
            assert_eq!(result, PacketResult::Copied, "{size} {entry:?}");
            assert_eq!(captured, whole(&packet, Some(Direction::ToServer)), "{size} {entry:?}");
        }
    }
}

#[test]
fn the_side_decides_which_port_is_the_server_s() {
    let response = || Packet::new(SERVER, CLIENT, b"HTTP/1.1 200 OK\r\n\r\n");
    let both_ports = || with(request(), |packet| packet.source.set_port(9000));
    let (to_server, to_client) = (Some(Some(Direction::ToServer)), Some(Some(Direction::ToClient)));
    // What comes of a request, a response, and a packet between two configured ports.
    let table = [
        (Side::Server, TO_SERVER, [to_server, None, to_server]),
        (Side::Server, TO_CLIENT, [None, to_client, to_client]),
        (Side::Server, EITHER, [to_server, to_client, Some(None)]),
        (Side::Client, TO_SERVER, [None, to_client, to_client]),
        (Side::Client, TO_CLIENT, [to_server, None, to_server]),
        (Side::Client, EITHER, [to_server, to_client, Some(None)]),
        (Side::Both, TO_SERVER, [to_server, to_client, Some(None)]),
        (Side::Both, TO_CLIENT, [to_server, to_client, Some(None)]),
        (Side::Server, XDP_TO_SERVER, [to_server, None, to_server]),
        (Side::Server, XDP_TO_CLIENT, [None, to_client, to_client]),
        (Side::Client, XDP_TO_SERVER, [None, to_client, to_client]),
        (Side::Client, XDP_TO_CLIENT, [to_server, None, to_server]),
        (Side::Both, XDP_TO_SERVER, [to_server, to_client, Some(None)]),
    ];
    for side in [Side::Server, Side::Client, Side::Both] {
        let mut bench = Bench::new(&Capture { side, ..capture() });
        for (_, entry, expected) in table.iter().filter(|(row, entry, _)| *row == side && possible(*entry)) {
            for (packet, expected) in [request(), response(), both_ports()].iter().zip(expected) {
                let (result, captured) = bench.run(*entry, &packet.bytes(), 0);
                let wanted = expected.map_or(PacketResult::Filtered, |_| PacketResult::Copied);
                assert_eq!(result, wanted, "{side:?} {entry:?} {packet:?}");
                assert_eq!(
                    captured.first().map(|segment| segment.direction),
                    *expected,
                    "{side:?} {entry:?}"
                );
            }
        }
    }
}

#[test]
fn networks_of_both_families_include_and_exclude() {
    use PacketResult::{Copied, Filtered};
    let check = |server: Networks, client: Networks, expected: [PacketResult; 2]| {
        let config = Capture { server, client, ..capture() };
        let mut bench = Bench::new(&config);
        for (packet, expected) in [request(), request6()].iter().zip(expected) {
            let (result, _) = bench.run(TO_SERVER, &packet.bytes(), 0);
            assert_eq!(result, expected, "{config:?}");
        }
    };
    let none = Networks::default;
    check(networks(&["10.0.0.2/32"], &[]), none(), [Copied, Filtered]);
    check(networks(&["2001:db8::/32"], &[]), none(), [Filtered, Copied]);
    check(networks(&["10.0.0.0/8", "2001:db8::2/128"], &[]), none(), [Copied, Copied]);
    check(networks(&[], &["10.0.0.0/8"]), none(), [Filtered, Copied]);
    check(networks(&["10.0.0.0/8"], &["10.0.0.2/31"]), none(), [Filtered, Filtered]);
    check(none(), networks(&["10.0.0.1/32"], &[]), [Copied, Filtered]);
    check(none(), networks(&[], &["2001:db8::1/128"]), [Copied, Filtered]);
    // The server's list does not speak of clients, nor one family of the other.
    check(networks(&[], &["10.0.0.1/32"]), none(), [Copied, Copied]);
    check(networks(&["::/0"], &[]), none(), [Filtered, Copied]);
}

#[test]
fn networks_apply_to_either_end_when_the_direction_is_unknown() {
    let config = Capture { server: networks(&["10.0.0.2/32"], &[]), ..capture() };
    let mut bench = Bench::new(&config);
    let there = with(request(), |packet| packet.source.set_port(9000));
    let back = Packet { source: there.destination, destination: there.source, ..there.clone() };
    for packet in [there, back] {
        assert_eq!(bench.run(EITHER, &packet.bytes(), 0).0, PacketResult::Copied);
    }
    let elsewhere = Packet::new("10.0.0.3:9000", "10.0.0.4:8080", b"x");
    assert_eq!(bench.run(EITHER, &elsewhere.bytes(), 0).0, PacketResult::Filtered);
}

#[test]
fn our_own_packets_are_known_by_their_mark() {
    let mut bench = Bench::new(&capture());
    let packet = request().bytes();
    assert_eq!(bench.run(TO_SERVER, &packet, MARK), (PacketResult::Own, Vec::new()));
    assert_eq!(bench.run(TO_SERVER, &packet, MARK + 1).0, PacketResult::Copied);
    let other_port = with(request(), |packet| packet.destination.set_port(1)).bytes();
    assert_eq!(bench.run(TO_SERVER, &other_port, MARK).0, PacketResult::Filtered, "ports come first");
    let mut unmarked = Bench::new(&Capture { mark: 0, ..capture() });
    for mark in [0, MARK] {
        assert_eq!(unmarked.run(TO_SERVER, &packet, mark).0, PacketResult::Copied, "0 turns the mark off");
    }
}

#[test]
fn a_sample_takes_flows_whole_and_a_smaller_one_is_part_of_it() {
    const FLOWS: u16 = 400;
    let mut bench = Bench::new(&Capture { sample: Share(0.25), ..capture() });
    let mut sampled = |share: f64| -> Vec<u16> {
        bench.kernel.set_sample(Share(share));
        let mut flows = Vec::new();
        for port in 30_000..30_000 + FLOWS {
            let request = with(request(), |packet| packet.source.set_port(port));
            let response =
                Packet { source: request.destination, destination: request.source, ..request.clone() };
            let (there, _) = bench.run(TO_SERVER, &request.bytes(), 0);
            let (back, _) = bench.run(TO_CLIENT, &response.bytes(), 0);
            assert_eq!(there, back, "both directions of a flow have one fate");
            for entry in ingress() {
                assert_eq!(bench.run(entry, &request.bytes(), 0).0, there, "wherever it comes in");
            }
            match there {
                PacketResult::Copied => flows.push(port),
                other => assert_eq!(other, PacketResult::SampledOut),
            }
        }
        flows
    };
    let quarter = sampled(0.25);
    assert!((60..=140).contains(&quarter.len()), "{} of {FLOWS}", quarter.len());
    let half = sampled(0.5);
    assert!((160..=240).contains(&half.len()), "{} of {FLOWS}", half.len());
    assert!(quarter.iter().all(|port| half.contains(port)));
    assert_eq!(sampled(0.0).len(), 0);
    assert_eq!(sampled(1.0).len(), usize::from(FLOWS));
}

#[test]
fn another_seed_samples_other_flows() {
    let sampled = |seed| {
        let mut bench = Bench::new(&Capture { sample: Share(0.5), seed, ..capture() });
        let mut run = |port| {
            let packet = with(request(), |packet| packet.source.set_port(port));
            bench.run(TO_SERVER, &packet.bytes(), 0).0 == PacketResult::Copied
        };
        (30_000..30_064).map(&mut run).collect::<Vec<_>>()
    };
    assert_eq!(sampled(1), sampled(1));
    assert_ne!(sampled(1), sampled(2));
}
