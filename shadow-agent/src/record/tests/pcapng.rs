//! Captures made of exchanges.

use super::super::pcapng::PcapNg;
use super::*;
use crate::capture::TcpFlags;

/// Time in milliseconds since some day, ports, flags and payload of every packet, as our own reader finds them.
fn packets(bytes: &[u8]) -> Vec<(u64, u16, u16, TcpFlags, usize)> {
    let mut source = FileSource::new(Path::new("x"), Box::new(Cursor::new(bytes.to_vec())), None).unwrap();
    let mut packets = Vec::new();
    let mut add = |segment: &crate::capture::Segment<'_>| {
        let time = (segment.time.0 - DAY) / MILLI;
        let ports = (segment.source.port(), segment.destination.port());
        packets.push((time, ports.0, ports.1, segment.flags, segment.payload.len()));
    };
    while source.poll(Duration::ZERO, &mut add).unwrap().is_some() {}
    packets
}

#[test]
fn an_exchange_is_a_connection_with_its_times_and_addresses() {
    let exchange = exchange(4000, [0, 3, 5, 9], "ask", "answer");
    let bytes = recorded("a.pcapng", std::slice::from_ref(&exchange));
    let [read] = &read(&bytes)[..] else { panic!() };
    assert_eq!((read.times, read.client, read.server), (exchange.times, exchange.client, exchange.server));
    assert_eq!((&read.request, &read.response), (&exchange.request, &exchange.response));
    let (syn, ack, fin) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN);
    let packets = packets(&bytes);
    let flags: Vec<_> =
        packets.iter().map(|(time, from, .., payload)| (*time, *from, *payload > 0)).collect();
    let (client, server) = (4000, 8080);
    let expected = [
        (0, client, false),
        (0, server, false),
        (0, client, false),
        (0, client, true),
        (3, client, true),
        (3, server, false),
        (5, server, true),
        (9, server, true),
        (9, client, false),
        (9, server, false),
        (9, client, false),
        (9, server, false),
    ];
    assert_eq!(flags, expected);
    assert_eq!((packets[0].3, packets[1].3, packets[9].3), (syn, syn.and(ack), fin.and(ack)));
}

/// The checksum over everything, its own field among it, is 0xFFFF when it is right.
fn sum(bytes: &[u8]) -> u32 {
    let mut sum: u32 =
        bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum
}

#[test]
fn checksums_are_right_and_packets_fit() {
    let mut wide = exchange(1, [0; 4], &"x".repeat(5001), "y");
    wide.client.set_ip("fd00::1".parse().unwrap());
    wide.server.set_ip("fd00::2".parse().unwrap());
    let bytes = recorded("a.pcapng", &[exchange(1, [0; 4], "odd", &"y".repeat(40_000)), wide]);
    let mut at = 0;
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut seen = [0, 0];
    while at < bytes.len() {
        let length = word(at + 4);
        assert_eq!(word(at + length - 4), length);
        if word(at) == 6 {
            let packet = &bytes[at + 28..at + 28 + word(at + 20)];
            assert!(packet.len() <= 1500, "{}", packet.len());
            let (addresses, segment) = match packet[0] >> 4 {
                4 => {
                    assert_eq!(sum(&packet[..20]), 0xFFFF);
                    seen[0] += 1;
                    (&packet[12..20], &packet[20..])
                }
                _ => {
                    seen[1] += 1;
                    (&packet[8..40], &packet[40..])
                }
            };
            let pseudo = [addresses, &(segment.len() as u32).to_be_bytes(), &[0, 0, 0, 6]].concat();
            assert_eq!(sum(&[&pseudo, segment].concat()), 0xFFFF);
        }
        at += length;
    }
    assert!(seen[0] > 30 && seen[1] > 12, "{seen:?}");
}

#[test]
fn exchanges_at_the_same_time_stand_in_the_order_of_their_packets() {
    let long = exchange(1, [0, 0, 400, 400], "long", "l");
    let short = exchange(2, [100, 100, 200, 200], "short", "s");
    let bytes = recorded("a.pcapng", &[short.clone(), long.clone()]);
    let times: Vec<u64> = packets(&bytes).iter().map(|packet| packet.0).collect();
    assert!(times.is_sorted(), "{times:?}");
    let read = read(&bytes);
    assert_eq!(told(&read), told(&[short.clone(), long.clone()]));
    assert_eq!([read[0].times, read[1].times], [short.times, long.times]);
    // What began before more than half a second was written comes behind it.
    let place = Place::new();
    let mut recorder = place.recorder("b.pcapng");
    recorder.take(&short).unwrap();
    recorder.tick(Timestamp(DAY + 699 * MILLI)).unwrap();
    assert_eq!(recorder.summary().written, 0);
    recorder.tick(Timestamp(DAY + 950 * MILLI)).unwrap();
    assert_eq!(recorder.summary().written, 1);
    recorder.take(&exchange(3, [0, 0, 960, 960], "late", "l")).unwrap();
    recorder.finish().unwrap();
    let times: Vec<u64> = packets(&place.files()["b.pcapng"]).iter().map(|packet| packet.0).collect();
    assert!(times.is_sorted() && times[times.len() - 1] == 960, "{times:?}");
}

#[test]
fn what_is_taken_is_in_the_file_a_second_later() {
    let place = Place::new();
    let mut recorder = place.recorder("a.pcapng");
    for step in 0..40_u64 {
        if step % 3 == 0 {
            recorder.take(&simple(step * 250)).unwrap();
        }
        recorder.tick(Timestamp(DAY + step * 250 * MILLI)).unwrap();
        let old = if step < 4 { 0 } else { (step - 4) / 3 + 1 };
        assert!(recorder.summary().written >= old, "{step}: {:?}", recorder.summary());
        assert!(read(&place.files()["a.pcapng"]).len() as u64 >= old, "{step}");
    }
}

#[test]
fn connections_open_at_once_have_addresses_of_their_own() {
    let at = |start, end| exchange(4000, [start, start, end, end], "x", "y");
    let ports = |exchanges: &[Exchange]| -> Vec<u16> {
        read(&recorded("a.pcapng", exchanges)).iter().map(|exchange| exchange.client.port()).collect()
    };
    assert_eq!(ports(&[at(0, 10), at(10, 20), at(21, 30)]), [4000, 4000, 4000]);
    let open = ports(&[at(0, 10), at(9, 20), at(5, 30)]);
    assert_eq!(open, [4000, 49_152, 49_153]);
}

#[test]
fn so_many_bytes_wait_and_no_more() {
    const MAX_HELD: usize = 16 << 20;
    let mut pcapng = PcapNg::default();
    let mut written = 0;
    let body = "x".repeat(1 << 20);
    let exchange = exchange(1, [0; 4], "x", &body);
    for taken in 1..40 {
        let conversation = pcapng.conversation(&exchange);
        let size = conversation.size() as usize;
        pcapng.hold(conversation, &mut |_, ends| written += u64::from(ends));
        assert!(pcapng.held() <= MAX_HELD);
        assert_eq!(pcapng.exchanges() + written, taken);
        // Of 1 MiB, 15 fit with their headers; of the next, so many bytes must go that the first is written in part.
        assert_eq!(pcapng.held() == size * taken as usize, taken <= 15, "{taken}");
        assert_eq!(written > 0, taken > 16, "{taken}");
    }
}

#[test]
fn so_many_connections_are_remembered_and_no_more() {
    const MAX_PEERS: u16 = 16_384;
    let mut pcapng = PcapNg::default();
    for client in 1..=MAX_PEERS {
        // They are all open, so none can be forgotten before it is written.
        let conversation = pcapng.conversation(&exchange(client, [0, 0, 9, 9], "", ""));
        pcapng.hold(conversation, &mut |_, _| {});
        assert_eq!(pcapng.exchanges() == 0, client == MAX_PEERS, "{client}");
    }
}
