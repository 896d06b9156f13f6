//! Captures as tools write them, made here byte by byte.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::*;
use crate::capture::TcpFlags;

const IPV4: u16 = 0x0800;

/// The bytes of numbers in one of the two orders.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Endian {
    Little,
    Big,
}

impl Endian {
    fn u16(self, value: u16) -> [u8; 2] {
        if self == Endian::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self == Endian::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

/// An IPv4 packet with a TCP segment from 192.0.2.1:40000 to 192.0.2.2:80.
fn ip(payload: &[u8]) -> Vec<u8> {
    let total = (40 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, (total >> 8) as u8, total as u8, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend([192, 0, 2, 1, 192, 0, 2, 2]);
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(80_u16.to_be_bytes());
    packet.extend(7_u32.to_be_bytes());
    packet.extend(9_u32.to_be_bytes());
    packet.extend([0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

fn ethernet(kind: u16, rest: &[u8]) -> Vec<u8> {
    [&[0; 12], &kind.to_be_bytes()[..], rest].concat()
}

/// A classic capture: packets with the seconds and the fraction of their time, and their length on the wire.
fn pcap(endian: Endian, magic: u32, link: u32, packets: &[(u32, u32, &[u8], usize)]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(endian.u32(magic));
    file.extend(endian.u16(2));
    file.extend(endian.u16(4));
    for value in [0, 0, 65_535, link] {
        file.extend(endian.u32(value));
    }
    for (seconds, fraction, bytes, wire) in packets {
        for value in [*seconds, *fraction, bytes.len() as u32, *wire as u32] {
            file.extend(endian.u32(value));
        }
        file.extend(*bytes);
    }
    file
}

fn block(endian: Endian, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = endian.u32(padded as u32 + 12);
    [&endian.u32(kind), &length, body, &vec![0; padded - body.len()], &length].concat()
}

fn section(endian: Endian) -> Vec<u8> {
    let body = [&endian.u32(0x1A2B_3C4D)[..], &endian.u16(1), &endian.u16(0), &[0xFF; 8]].concat();
    block(endian, 0x0A0D_0D0A, &body)
}

fn interface(endian: Endian, link: u16, snap: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = [&endian.u16(link)[..], &endian.u16(0), &endian.u32(snap)].concat();
    for (code, value) in options {
        body.extend(endian.u16(*code));
        body.extend(endian.u16(value.len() as u16));
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    block(endian, 1, &body)
}

fn enhanced(endian: Endian, interface: u32, time: u64, bytes: &[u8], wire: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for value in [interface, (time >> 32) as u32, time as u32, bytes.len() as u32, wire as u32] {
        body.extend(endian.u32(value));
    }
    body.extend(bytes);
    // A comment, as editors of captures add.
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend([&endian.u16(1)[..], &endian.u16(2), b"hi\0\0", &[0; 4]].concat());
    block(endian, 6, &body)
}

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    time: u64,
    payload: String,
    missing: u32,
}

fn seen(time: u64, payload: &str) -> Seen {
    Seen { time, payload: payload.to_owned(), missing: 0 }
}

/// What a file gives: segments, the tally, and how it ends.
fn read(bytes: &[u8]) -> (Vec<Seen>, Tally, Result<(), String>) {
    let (input, total) = (Box::new(io::Cursor::new(bytes.to_vec())), Some(bytes.len() as u64));
    let mut source = match FileSource::new(Path::new("x.pcap"), input, total) {
        Ok(source) => source,
        Err(error) => return (Vec::new(), Tally::default(), Err(error.to_string())),
    };
    let mut all = Vec::new();
    let ended = loop {
        let polled = source.poll(Duration::ZERO, &mut |segment| {
            assert_eq!(segment.source, SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 40_000)));
            assert_eq!(segment.destination, SocketAddr::from((Ipv4Addr::new(192, 0, 2, 2), 80)));
            assert_eq!((segment.seq, segment.ack, segment.flags.has(TcpFlags::ACK)), (7, 9, true));
            let payload = String::from_utf8(segment.payload.to_vec()).unwrap();
            all.push(Seen { time: segment.time.0, payload, missing: segment.missing });
        });
        match polled {
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.to_string()),
        }
    };
    assert!(matches!(source.poll(Duration::ZERO, &mut |_| panic!("a segment behind the end")), Ok(None)));
    assert!(source.progress().read() <= bytes.len() as u64);
    (all, source.tally(), ended)
}

#[test]
fn classic_captures_of_every_order_and_unit() {
    let packet = ethernet(IPV4, &ip(b"hello"));
    let cases = [(0xA1B2_C3D4, 123_456, 5_123_456_000), (0xA1B2_3C4D, 123_456_789, 5_123_456_789)];
    for endian in [Endian::Little, Endian::Big] {
        for (magic, fraction, time) in cases {
            let length = packet.len();
            let file = pcap(endian, magic, 1, &[(5, fraction, &packet, length), (6, 0, &packet, length)]);
            let (segments, tally, ended) = read(&file);
            assert_eq!(segments, [seen(time, "hello"), seen(6_000_000_000, "hello")], "{endian:?}");
            assert_eq!((tally.records[FileRecord::Segment as usize], tally.snapped, tally.cut), (2, 0, None));
            assert_eq!(ended, Ok(()));
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(&file).unwrap();
            let whole = gzip.finish().unwrap();
            assert_eq!(read(&whole), (segments, tally, Ok(())), "compressed");
            let (_, tally, ended) = read(&whole[..whole.len() - 12]);
            assert!(tally.cut.is_some() && ended.is_ok(), "compressed and cut short");
        }
    }
}

#[test]
fn link_layer_headers() {
    let ip = ip(b"hello");
    let tagged = |tags: &[u16]| {
        let mut frame = vec![0; 12];
        for tag in tags {
            frame.extend([(tag >> 8) as u8, *tag as u8, 0, 5]);
        }
        frame.extend([8, 0]);
        [frame, ip.clone()].concat()
    };
    let cooked = [&[0; 14], &[8, 0][..], &ip].concat();
    let cooked_vlan = [&[0; 14], &[0x81, 0, 0, 5, 8, 0][..], &ip].concat();
    let cooked2 = [&[8, 0][..], &[0; 18], &ip].concat();
    let cooked2_vlan = [&[0x81, 0][..], &[0; 18], &[0, 5, 8, 0], &ip].concat();
    let cases: [(u32, Vec<u8>); 16] = [
        (1, ethernet(IPV4, &ip)),
        (1, [ethernet(IPV4, &ip), vec![0xEE; 4]].concat()),
        (1, tagged(&[0x8100])),
        (1, tagged(&[0x88A8, 0x8100])),
        // With a frame check sequence of two 16-bit words.
        (1 | 0x2400_0000, [ethernet(IPV4, &ip), vec![0xEE; 4]].concat()),
        (0, [&[2, 0, 0, 0], &ip[..]].concat()),
        (0, [&[0, 0, 0, 2], &ip[..]].concat()),
        (108, [&[0, 0, 0, 2], &ip[..]].concat()),
        (12, ip.clone()),
        (14, ip.clone()),
        (101, ip.clone()),
        (228, ip.clone()),
        (113, cooked),
        (113, cooked_vlan),
        (276, cooked2),
        (276, cooked2_vlan),
    ];
    for (link, packet) in cases {
        let file = pcap(Endian::Little, 0xA1B2_C3D4, link, &[(1, 0, &packet, packet.len())]);
        let (segments, _, ended) = read(&file);
        assert_eq!((segments, ended), (vec![seen(1_000_000_000, "hello")], Ok(())), "link type {link}");
    }
    let (_, _, ended) = read(&pcap(Endian::Little, 0xA1B2_C3D4, 127, &[]));
    assert!(ended.unwrap_err().contains("x.pcap holds packets with link-layer header type 127"));
}

#[test]
fn packets_that_give_no_segment_are_counted() {
    let whole = ethernet(IPV4, &ip(b"hello world"));
    let mut udp = whole.clone();
    udp[14 + 9] = 17;
    let mut fragment = whole.clone();
    fragment[14 + 6] = 0x20;
    let mut longer = whole.clone();
    longer[14 + 3] = 200;
    let packets: [(u32, u32, &[u8], usize); 7] = [
        (1, 0, &whole, whole.len()),
        (2, 0, &udp, whole.len()),
        (3, 0, &fragment, whole.len()),
        // Its IP header claims more than there was on the wire.
        (4, 0, &longer, whole.len()),
        // Snapped within its TCP header, and within its payload.
        (5, 0, &whole[..40], whole.len()),
        (6, 0, &whole[..59], whole.len()),
        (7, 0, &ethernet(0x0806, &[0; 28]), 42),
    ];
    let (segments, tally, ended) = read(&pcap(Endian::Little, 0xA1B2_C3D4, 1, &packets));
    let snapped = Seen { time: 6_000_000_000, payload: "hello".to_owned(), missing: 6 };
    assert_eq!(segments, [seen(1_000_000_000, "hello world"), snapped]);
    let expected = [
        (FileRecord::Segment, 2),
        (FileRecord::NotTcp, 2),
        (FileRecord::Fragment, 1),
        (FileRecord::Malformed, 2),
        (FileRecord::Link, 0),
    ];
    for (result, count) in expected {
        assert_eq!(tally.records[result as usize], count, "{result}");
    }
    assert_eq!((tally.snapped, ended), (1, Ok(())));
}

#[test]
fn pcapng_of_every_order_with_its_blocks() {
    let (frame, bare) = (ethernet(IPV4, &ip(b"hello")), ip(b"there"));
    let time = 1_700_000_000_123_456;
    for (one, other) in [(Endian::Little, Endian::Big), (Endian::Big, Endian::Little)] {
        let old = |interface: u16| {
            let mut body = [&one.u16(interface)[..], &one.u16(0)].concat();
            for value in [0, 5_000_000, bare.len() as u32, bare.len() as u32] {
                body.extend(one.u32(value));
            }
            block(one, 2, &[&body[..], &bare].concat())
        };
        let simple = [&other.u32(frame.len() as u32)[..], &frame].concat();
        let file = [
            section(one),
            interface(one, 1, 0, &[(2, b"eth0"), (9, &[6])]),
            interface(one, 101, 0, &[(9, &[9])]),
            interface(one, 127, 0, &[]),
            enhanced(one, 0, time, &frame, frame.len()),
            // A block of no interest, and one of a vendor that does not fit any window.
            block(one, 5, &[0; 24]),
            block(one, 0x0000_0BAD, &vec![0; MAX_RECORD + 1000]),
            enhanced(one, 1, 3_000_000_007, &bare, bare.len()),
            enhanced(one, 2, 0, &frame, frame.len()),
            old(1),
            // The next section begins anew, in the other order.
            section(other),
            interface(other, 1, 58, &[(9, &[0x80 | 32])]),
            enhanced(other, 0, 7 << 32 | 1 << 31, &frame[..58], frame.len()),
            block(other, 3, &simple),
        ];
        let (segments, tally, ended) = read(&file.concat());
        let snapped = Seen { time: 7_500_000_000, payload: "hell".to_owned(), missing: 1 };
        assert_eq!(
            segments,
            [
                seen(time * 1000, "hello"),
                seen(3_000_000_007, "there"),
                seen(5_000_000, "there"),
                snapped.clone(),
                snapped,
            ],
            "{one:?}"
        );
        assert_eq!((tally.records[FileRecord::Link as usize], tally.snapped, ended), (1, 2, Ok(())));
    }
}

#[test]
fn a_file_that_is_cut_gives_what_is_whole() {
    let frame = ethernet(IPV4, &ip(b"hello"));
    let classic =
        pcap(Endian::Little, 0xA1B2_C3D4, 1, &[(1, 0, &frame, frame.len()), (2, 0, &frame, frame.len())]);
    let newer = [
        section(Endian::Little),
        interface(Endian::Little, 1, 0, &[]),
        enhanced(Endian::Little, 0, 1_000_000, &frame, frame.len()),
        enhanced(Endian::Little, 0, 2_000_000, &frame, frame.len()),
    ];
    let last = newer[3].len();
    for (file, last) in [(classic, 16 + frame.len()), (newer.concat(), last)] {
        for missing in 0..=last {
            let (segments, tally, ended) = read(&file[..file.len() - missing]);
            let cut = missing > 0 && missing < last;
            assert_eq!(segments.len(), 1 + usize::from(missing == 0), "{missing} bytes missing");
            assert_eq!((tally.cut.is_some(), ended), (cut, Ok(())), "{missing} bytes missing");
        }
    }
}

#[test]
fn damage_is_named_and_what_precedes_it_is_used() {
    let frame = ethernet(IPV4, &ip(b"hello"));
    let one = &[(1, 0, &frame[..], frame.len())];
    let mut huge = pcap(Endian::Little, 0xA1B2_C3D4, 1, one);
    let end = huge.len();
    huge.extend([0; 8]);
    huge.extend(u32::MAX.to_le_bytes());
    huge.extend([0; 4]);
    let little = Endian::Little;
    let start =
        [section(little), interface(little, 1, 0, &[]), enhanced(little, 0, 0, &frame, frame.len())].concat();
    let after = |block: Vec<u8>| [start.clone(), block].concat();
    let mut unequal = enhanced(little, 0, 0, &frame, frame.len());
    *unequal.last_mut().unwrap() ^= 1;
    let mut oversize = enhanced(little, 0, 0, &frame, frame.len());
    oversize[20..24].copy_from_slice(&1000_u32.to_le_bytes());
    let cases = [
        (huge, end, "a record claims a packet of 4294967295 bytes"),
        (
            after(enhanced(little, 3, 0, &frame, frame.len())),
            start.len(),
            "interface 3, which is not described",
        ),
        (
            after(vec![6, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0]),
            start.len(),
            "a block claims a length of 13 bytes",
        ),
        (
            after(vec![6, 0, 0, 0, 0, 0, 0, 0x7F, 0, 0, 0, 0]),
            start.len(),
            "a block claims a length of 2130706432",
        ),
        (after(unequal), start.len(), "the two lengths of a block differ"),
        (after(oversize), start.len(), "claims a packet of 1000"),
        (after(interface(little, 1, 0, &[(9, &[20])])), start.len(), "the time resolution 20"),
        (after(SECTION_WITHOUT_ORDER.to_vec()), start.len(), "a section does not say its byte order"),
    ];
    for (file, offset, problem) in cases {
        let (segments, _, ended) = read(&file);
        assert_eq!(segments.len(), 1, "before {problem}");
        let message = ended.unwrap_err();
        assert!(message.contains(problem), "{message}");
        assert!(message.starts_with(&format!("x.pcap is damaged at byte {offset}: ")), "{message}");
    }
}

const SECTION_WITHOUT_ORDER: [u8; 12] = [0x0A, 0x0D, 0x0D, 0x0A, 28, 0, 0, 0, 1, 2, 3, 4];

#[test]
fn what_is_no_capture_is_refused() {
    for (bytes, begins) in
        [(&b""[..], "nothing"), (b"GET", "\"GET\""), (b"\x7fELF\x02\x01", "\"\\x7fELF\\x02\\x01\"")]
    {
        let message = read(bytes).2.unwrap_err();
        assert!(message.contains(&format!("it begins with {begins};")), "{message}");
    }
    let message = read(b"\x1f\x8b\x08\x00").2.unwrap_err();
    assert!(message.contains("damaged at byte 0: it ends there"), "{message}");
    let message = read(&pcap(Endian::Big, 0xA1B2_C3D4, 1, &[])[..20]).2.unwrap_err();
    assert!(message.contains("damaged at byte 0: it ends within its header"), "{message}");
    let missing = FileSource::open(Path::new("/nonexistent.pcap")).err().unwrap().to_string();
    assert!(missing.contains("/nonexistent.pcap cannot be opened"), "{missing}");
}
