//! A shard as a whole: whatever way the segments take, the same streams give the same exchanges, and the books balance.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::capture::{Direction, Segment, TcpFlags};
use crate::config::Limits;
use crate::exchange::{Exchange, LostReason, Request, Response, Timestamp};

mod http2;

/// A segment that owns its bytes.
#[derive(Clone, Debug)]
struct Packet {
    direction: Direction,
    flags: TcpFlags,
    seq: u32,
    ack: u32,
    payload: Vec<u8>,
    missing: u32,
    client_port: u16,
}

impl Packet {
    fn segment(&self, time: u64) -> Segment<'_> {
        let client = SocketAddr::from(([10, 0, 0, 1], self.client_port));
        let server = SocketAddr::from(([10, 0, 0, 2], 80));
        let (source, destination) = match self.direction {
            Direction::ToServer => (client, server),
            Direction::ToClient => (server, client),
        };
        Segment {
            time: Timestamp(time),
            source,
            destination,
            seq: self.seq,
            ack: self.ack,
            flags: self.flags,
            direction: None,
            payload: &self.payload,
            missing: self.missing,
            is_shed: false,
        }
    }
}

fn settings() -> PipelineSettings {
    let limits = Limits { body: 200, ..Limits::default() };
    PipelineSettings::new(&limits, &[(80, 80)], 1, 7)
}

/// Feeds packets to a new pipeline and ends it; the books must balance after each, and nothing may stay behind.
fn run_through(packets: &[Packet], settings: &PipelineSettings) -> Vec<Event> {
    let mut pipeline = Pipeline::new(settings);
    let mut events = Vec::new();
    for (index, packet) in packets.iter().enumerate() {
        pipeline.segment(&packet.segment(1 + index as u64 * 1000), &mut |event| events.push(event));
        let stats = pipeline.stats();
        assert_eq!(stats.imbalance(), 0, "after packet {index}");
        assert!(stats.tcp.flows <= settings.tcp.flows);
        assert!(stats.tcp.buffered <= settings.tcp.total_buffer);
    }
    pipeline.tick(Timestamp(u64::MAX), &mut |event| events.push(event));
    assert_eq!(pipeline.stats().imbalance(), 0);
    pipeline.finish(crate::tcp::Ending::Shutdown, &mut |event| events.push(event));
    let stats = pipeline.stats();
    assert_eq!((stats.imbalance(), stats.open(), stats.tcp.buffered, stats.tcp.flows), (0, 0, 0, 0));
    assert_eq!(stats.seen, events.len() as u64);
    events
}

/// What an exchange is, whenever it was seen and whatever it is called.
fn content(event: &Event) -> String {
    match event {
        Event::Exchange(Exchange { client, server, request, response, .. }) => {
            let Request { method, target, version, headers, body, trailers } = request;
            let asked = (method, target, version, &headers.0, body, &trailers.0);
            let Response { status, version, headers, body, trailers } = response;
            format!("{client} {server} {asked:?} {:?}", (status, version, &headers.0, body, &trailers.0))
        }
        other => format!("{other:?}"),
    }
}

/// How a body is framed on the wire.
#[derive(Clone, Copy, Debug)]
enum Wire {
    Length,
    Chunked(usize),
    Close,
}

/// One exchange of a generated conversation.
#[derive(Clone, Debug)]
struct Turn {
    method: &'static str,
    request: Vec<u8>,
    request_wire: Wire,
    interim: bool,
    status: u16,
    response: Vec<u8>,
    response_wire: Wire,
}

fn message(start: &str, body: &[u8], wire: Wire, bodiless: bool) -> Vec<u8> {
    let mut out = start.as_bytes().to_vec();
    match wire {
        Wire::Length => {
            out.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
            out.extend(if bodiless { &[] } else { body });
        }
        Wire::Chunked(size) => {
            out.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(size).filter(|_| !bodiless) {
                out.extend(format!("{:x};ext=1\r\n", chunk.len()).bytes());
                out.extend(chunk);
                out.extend(b"\r\n");
            }
            if !bodiless {
                out.extend(b"0\r\nTrailer: yes\r\n\r\n");
            }
        }
        Wire::Close => {
            out.extend(b"\r\n");
            out.extend(if bodiless { &[] } else { body });
        }
    }
    out
}

impl Turn {
    fn request(&self, number: usize) -> Vec<u8> {
        let start = format!("{} /{number} HTTP/1.1\r\nHost: h\r\n", self.method);
        let wire = if self.method == "POST" { self.request_wire } else { Wire::Close };
        message(&start, &self.request, wire, self.method != "POST")
    }

    fn response(&self) -> Vec<u8> {
        let start = format!("HTTP/1.1 {} X\r\nServer: s\r\n", self.status);
        let bodiless = self.method == "HEAD" || matches!(self.status, 204 | 304);
        let interim = if self.interim { "HTTP/1.1 103 Early Hints\r\n\r\n" } else { "" };
        [interim.as_bytes(), &message(&start, &self.response, self.response_wire, bodiless)].concat()
    }
}

fn turn() -> impl Strategy<Value = Turn> {
    let body = || {
        prop_oneof![
            Just(Vec::new()),
            prop::collection::vec(any::<u8>(), 0..260),
            Just(b"GET / HTTP/1.1\r\n\r\n".to_vec())
        ]
    };
    let wire = || prop_oneof![Just(Wire::Length), (1usize..40).prop_map(Wire::Chunked)];
    let method = prop_oneof![Just("GET"), Just("HEAD"), Just("POST")];
    let status = prop_oneof![4 => Just(200u16), 1 => Just(204), 1 => Just(304), 1 => Just(500)];
    (method, body(), wire(), any::<bool>(), status, body(), wire()).prop_map(
        |(method, request, request_wire, interim, status, response, response_wire)| Turn {
            method,
            request,
            request_wire,
            interim,
            status,
            response,
            response_wire,
        },
    )
}

/// Turns that are sent in groups: the requests of a group are pipelined. The last response may end with the connection.
fn conversation() -> impl Strategy<Value = Vec<Vec<Turn>>> {
    let groups = prop::collection::vec(prop::collection::vec(turn(), 1..4), 1..4);
    (groups, any::<bool>()).prop_map(|(mut groups, close)| {
        if let (true, Some(last)) = (close, groups.last_mut().and_then(|group| group.last_mut())) {
            last.response_wire = Wire::Close;
        }
        groups
    })
}

/// Who sends how many bytes, in turns, each having received everything before.
fn exchanges_of(groups: &[Vec<Turn>]) -> Vec<(Direction, Vec<u8>)> {
    let mut number = 0;
    groups
        .iter()
        .flat_map(|group| {
            let mut request = |turn: &Turn| {
                number += 1;
                turn.request(number)
            };
            let requests = group.iter().flat_map(&mut request).collect();
            let responses = group.iter().flat_map(Turn::response).collect();
            [(Direction::ToServer, requests), (Direction::ToClient, responses)]
        })
        .collect()
}

/// A connection's packets in order: handshake, bytes cut at the given sizes, and the end.
fn packets_of(turns: &[(Direction, Vec<u8>)], sizes: &[usize], (client, server): (u32, u32)) -> Vec<Packet> {
    let packet = |direction, seq: u32, ack, flags: TcpFlags, payload: &[u8]| Packet {
        direction,
        flags,
        seq,
        ack,
        payload: payload.to_vec(),
        missing: 0,
        client_port: 4000,
    };
    let mut packets = vec![
        packet(Direction::ToServer, client.wrapping_sub(1), 0, TcpFlags::SYN, b""),
        packet(Direction::ToClient, server.wrapping_sub(1), client, TcpFlags::SYN.and(TcpFlags::ACK), b""),
    ];
    let mut positions = (client, server);
    let mut sizes = sizes.iter().copied().cycle();
    for (direction, bytes) in turns {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (front, back) = rest.split_at(sizes.next().unwrap().clamp(1, rest.len()));
            let (own, other) = match direction {
                Direction::ToServer => (&mut positions.0, positions.1),
                Direction::ToClient => (&mut positions.1, positions.0),
            };
            packets.push(packet(*direction, *own, other, TcpFlags::ACK, front));
            *own = own.wrapping_add(front.len() as u32);
            rest = back;
        }
    }
    let fin = TcpFlags::FIN.and(TcpFlags::ACK);
    packets.push(packet(Direction::ToClient, positions.1, positions.0, fin, b""));
    packets.push(packet(Direction::ToServer, positions.0, positions.1.wrapping_add(1), fin, b""));
    packets
}

/// What happens to a packet on its way.
#[derive(Clone, Copy, Debug)]
struct Fate {
    late: usize,
    again: Option<usize>,
    /// Bytes of the next packet, if it travels the same way, that are sent with this one already.
    overlap: usize,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate =
        (0usize..6, prop::option::weighted(0.2, 0usize..9), prop_oneof![3 => Just(0usize), 1 => 1usize..30])
            .prop_map(|(late, again, overlap)| Fate { late, again, overlap });
    prop::collection::vec(fate, 1..50)
}

/// Delays, repeats and overlaps packets; the handshake keeps its place.
fn disturb(packets: &[Packet], fates: &[Fate]) -> Vec<Packet> {
    let mut arrivals = Vec::new();
    for (index, (packet, fate)) in packets.iter().zip(fates.iter().cycle()).enumerate() {
        let mut packet = packet.clone();
        if index < 2 {
            arrivals.push((index, packet));
            continue;
        }
        let next = packets.get(index + 1).filter(|next| next.direction == packet.direction);
        if let (Some(next), false) = (next, packet.payload.is_empty()) {
            packet.payload.extend(next.payload.iter().take(fate.overlap));
        }
        if let Some(again) = fate.again {
            arrivals.push((index + 2 + again, packet.clone()));
        }
        arrivals.push((index + fate.late, packet));
    }
    arrivals.sort_by_key(|(at, _)| *at);
    arrivals.into_iter().map(|(_, packet)| packet).collect()
}

fn anything() -> impl Strategy<Value = Packet> {
    let text = prop_oneof![
        Just(b"GET /a HTTP/1.1\r\n\r\n".to_vec()),
        Just(b"POST /a HTTP/1.1\r\nContent-Length: 30\r\n\r\n".to_vec()),
        Just(b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        Just(b"CONNECT h:1 HTTP/1.1\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 101 Switching\r\n\r\n".to_vec()),
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..50),
    ];
    let number = || prop_oneof![8 => 0u32..200, 1 => any::<u32>()];
    let flags = prop_oneof![
        8 => Just(TcpFlags::ACK),
        1 => Just(TcpFlags::SYN),
        1 => Just(TcpFlags::SYN.and(TcpFlags::ACK)),
        1 => Just(TcpFlags::FIN.and(TcpFlags::ACK)),
        1 => any::<u8>().prop_map(TcpFlags),
    ];
    let direction = prop_oneof![Just(Direction::ToServer), Just(Direction::ToClient)];
    let missing = prop_oneof![9 => Just(0u32), 1 => 0u32..40];
    (direction, flags, number(), number(), text, missing, 0u16..5).prop_map(
        |(direction, flags, seq, ack, payload, missing, client_port)| Packet {
            direction,
            flags,
            seq,
            ack,
            payload,
            missing,
            client_port,
        },
    )
}

proptest! {
    #[test]
    fn the_same_streams_give_the_same_exchanges(
        groups in conversation(),
        sizes in prop::collection::vec(1usize..120, 1..20),
        fates in fates(),
        start in (any::<u32>(), any::<u32>()),
    ) {
        let turns = exchanges_of(&groups);
        let whole = run_through(&packets_of(&turns, &[usize::MAX], start), &settings());
        let expected: Vec<_> = whole.iter().map(content).collect();
        prop_assert_eq!(whole.len(), groups.iter().map(Vec::len).sum::<usize>());
        let whole = whole.iter().filter(|event| !matches!(event, Event::Exchange(_)));
        let skipped = |event: &Event| matches!(event, Event::Skipped(crate::exchange::SkipReason::BodyTooLarge));
        prop_assert!(whole.clone().all(skipped), "{:?}", whole.collect::<Vec<_>>());

        let cut = packets_of(&turns, &sizes, start);
        let events = run_through(&cut, &settings());
        // A body that is too large is given up as soon as that is seen, which may be before earlier exchanges end.
        let sorted = |mut events: Vec<String>| { events.sort(); events };
        prop_assert_eq!(sorted(events.iter().map(content).collect()), sorted(expected.clone()));
        let events = run_through(&disturb(&cut, &fates), &settings());
        prop_assert_eq!(sorted(events.iter().map(content).collect()), sorted(expected));
    }

    #[test]
    fn a_lost_packet_never_makes_a_wrong_exchange(
        groups in conversation(),
        sizes in prop::collection::vec(1usize..120, 1..20),
        start in (any::<u32>(), any::<u32>()),
        lost in prop::collection::btree_set(1usize..40, 0..4),
        joined in prop::option::of(0usize..20),
    ) {
        // Who meets a connection exactly between two pipelined requests cannot know that there was one before.
        let groups = match joined {
            Some(_) => groups.into_iter().flatten().map(|turn| vec![turn]).collect(),
            None => groups,
        };
        let turns = exchanges_of(&groups);
        let whole = run_through(&packets_of(&turns, &[usize::MAX], start), &settings());
        let whole: Vec<_> = whole.iter().map(content).collect();
        let mut packets = packets_of(&turns, &sizes, start);
        // Nor can who meets it, or finds it again, at a body that is a request itself, and starts with a segment.
        let misleads = |packet: &Packet| {
            let rest = packet.payload.strip_prefix(b"GET /");
            packet.direction == Direction::ToServer
                && rest.is_some_and(|rest| rest.first().is_none_or(|byte| !byte.is_ascii_digit()))
        };
        prop_assume!(!packets.iter().any(misleads));
        let mut index = 0;
        packets.retain(|_| {
            index += 1;
            !lost.contains(&(index - 1)) && joined.is_none_or(|joined| index > joined)
        });
        for event in run_through(&packets, &settings()) {
            if matches!(event, Event::Exchange(_)) {
                prop_assert!(whole.contains(&content(&event)), "{}", content(&event));
            }
        }
    }

    #[test]
    fn one_direction_alone_makes_no_exchange_and_is_no_more_than_lost(
        groups in conversation(),
        sizes in prop::collection::vec(1usize..120, 1..20),
        start in (any::<u32>(), any::<u32>()),
        seen in prop_oneof![Just(Direction::ToServer), Just(Direction::ToClient)],
        joined in any::<bool>(),
    ) {
        let mut packets = packets_of(&exchanges_of(&groups), &sizes, start);
        packets.retain(|packet| {
            packet.direction == seen && !(joined && packet.flags.has(TcpFlags::SYN))
        });
        let events = run_through(&packets, &settings());
        prop_assert!(!events.iter().any(|event| matches!(event, Event::Exchange(_))), "{events:?}");
        if seen == Direction::ToServer && !joined {
            prop_assert!(!events.is_empty(), "requests were met");
        }
    }

    #[test]
    fn anything_at_all_is_survived(packets in prop::collection::vec(anything(), 0..80), tight in any::<bool>()) {
        let mut settings = settings();
        if tight {
            (settings.tcp.flows, settings.tcp.flow_buffer, settings.tcp.total_buffer) = (2, 300, 600);
        }
        run_through(&packets, &settings);
    }
}

#[test]
fn limits_are_shared_by_the_shards() {
    let limits = Limits {
        flows: 10,
        total_buffer: 1000,
        flow_buffer: 50,
        body: 7,
        exchange_timeout: Duration::from_secs(400),
        ..Limits::default()
    };
    let settings = PipelineSettings::new(&limits, &[(80, 81)], 4, 9);
    assert_eq!((settings.tcp.flows, settings.tcp.total_buffer, settings.tcp.flow_buffer), (2, 250, 50));
    assert_eq!((settings.http.body, settings.http.exchange_timeout), (7, Duration::from_secs(400)));
    assert!(
        settings.tcp.idle >= settings.http.exchange_timeout,
        "a slow response is a timeout, not an eviction"
    );
    assert!(settings.tcp.serves(81) && !settings.tcp.serves(82));
}

#[test]
fn a_flow_that_the_budget_leaves_out_is_given_up_at_once_and_joined_anew() {
    let packet = |direction, seq, ack, payload: &str| Packet {
        direction,
        flags: TcpFlags::ACK,
        seq,
        ack,
        payload: payload.as_bytes().to_vec(),
        missing: 0,
        client_port: 40_000,
    };
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
    let (asked, head) = (request.len() as u32, answer.len() as u32);
    let mut pipeline = Pipeline::new(&settings());
    let mut events = Vec::new();
    let mut take = |packet: &Packet, is_shed, events: &mut Vec<Event>| {
        let segment = Segment { is_shed, ..packet.segment(events.len() as u64) };
        pipeline.segment(&segment, &mut |event| events.push(event));
        pipeline.stats()
    };
    take(&packet(Direction::ToServer, 100, 500, request), false, &mut events);
    take(&packet(Direction::ToClient, 500, 100 + asked, answer), false, &mut events);
    let empty = packet(Direction::ToClient, 500 + head, 100 + asked, "");
    let stats = take(&empty, true, &mut events);
    assert!(matches!(&*events, [Event::Lost(lost)] if lost.reason == LostReason::Shed), "{events:?}");
    assert_eq!((stats.tcp.flows, stats.open()), (0, 0));
    // A flow that nothing is known of is not made by it either.
    assert_eq!(take(&empty, true, &mut events).tcp.flows, 0);
    // It comes back two exchanges later, at a request.
    take(&packet(Direction::ToServer, 100 + 3 * asked, 5000, request), false, &mut events);
    take(&packet(Direction::ToClient, 5000, 100 + 4 * asked, &format!("{answer}body")), false, &mut events);
    assert!(
        matches!(&*events, [Event::Lost(lost), Event::Exchange(_)] if lost.reason == LostReason::Shed),
        "{events:?}"
    );
}
