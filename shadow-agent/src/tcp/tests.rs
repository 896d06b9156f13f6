//! What reassembly makes of segments, rule by rule.

use std::net::SocketAddr;

use super::*;
use crate::capture::{Segment, TcpFlags};

mod corners;

/// Writes down what happens, as text.
#[derive(Default)]
struct Recorder {
    log: Vec<String>,
    opened: usize,
    ignore_after: Option<&'static str>,
    load: Load,
    latest: Timestamp,
}

impl Handler for Recorder {
    type Connection = usize;

    fn open(&mut self, peers: &Peers) -> usize {
        self.opened += 1;
        if peers.joined {
            self.log.push(format!("{}joined {}", self.opened, peers.server.port()));
        }
        self.opened
    }

    fn handle(&mut self, connection: &mut usize, event: Event<'_>) -> Interest {
        let arrow = |direction| if direction == Direction::ToServer { '>' } else { '<' };
        let entry = match event {
            Event::Data(chunk) => {
                self.latest = self.latest.max(chunk.time);
                let ack = chunk.ack.map(|ack| format!("^{ack}")).unwrap_or_default();
                let text = String::from_utf8_lossy(chunk.bytes).into_owned();
                format!("{}{}{text}{ack}", arrow(chunk.direction), chunk.offset)
            }
            Event::Gap { direction, length, .. } => format!("{}gap{length}", arrow(direction)),
            Event::End { direction, .. } => format!("{}end", arrow(direction)),
            Event::Over(ending) => format!("{ending:?}"),
            Event::Tick(_) => "tick".to_owned(),
        };
        let ignore = self.ignore_after.is_some_and(|text| entry.contains(text));
        self.log.push(format!("{connection}{entry}"));
        if ignore { Interest::Ignore } else { Interest::Follow }
    }

    fn load(&self, _: &usize) -> Load {
        self.load
    }

    fn guess(&self, payload: &[u8]) -> Option<Direction> {
        match payload.first() {
            Some(b'?') => Some(Direction::ToServer),
            Some(b'!') => Some(Direction::ToClient),
            _ => None,
        }
    }
}

const CLIENT: u32 = 1000;
const SERVER: u32 = 5000;
const MS: u64 = 1_000_000;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A segment between the client `10.0.0.1:4000` and the server `10.0.0.2:80`; sequence numbers relative to the
/// streams' first bytes, `ack` as well.
fn segment(direction: Direction, seq: i64, ack: Option<i64>, text: &str, flags: TcpFlags) -> Segment<'_> {
    let (client, server) = (address("10.0.0.1:4000"), address("10.0.0.2:80"));
    let number = |base: u32, relative: i64| base.wrapping_add(1).wrapping_add(relative as u32);
    let (source, destination, own, other) = match direction {
        Direction::ToServer => (client, server, CLIENT, SERVER),
        Direction::ToClient => (server, client, SERVER, CLIENT),
    };
    let syn = i64::from(flags.has(TcpFlags::SYN));
    Segment {
        time: Timestamp(MS),
        source,
        destination,
        seq: number(own, seq - syn),
        ack: ack.map_or(0, |ack| number(other, ack)),
        flags: if ack.is_some() { flags.and(TcpFlags::ACK) } else { flags },
        direction: None,
        payload: text.as_bytes(),
        missing: 0,
        is_shed: false,
    }
}

const NONE: TcpFlags = TcpFlags(0);

fn up(seq: i64, text: &str) -> Segment<'_> {
    segment(Direction::ToServer, seq, Some(0), text, NONE)
}

fn down(seq: i64, ack: i64, text: &str) -> Segment<'_> {
    segment(Direction::ToClient, seq, Some(ack), text, NONE)
}

fn syn() -> Segment<'static> {
    segment(Direction::ToServer, 0, None, "", TcpFlags::SYN)
}

fn syn_ack() -> Segment<'static> {
    segment(Direction::ToClient, 0, Some(0), "", TcpFlags::SYN)
}

fn fin(mut segment: Segment<'_>) -> Segment<'_> {
    segment.flags = segment.flags.and(TcpFlags::FIN);
    segment
}

fn rst(mut segment: Segment<'_>) -> Segment<'_> {
    segment.flags = segment.flags.and(TcpFlags::RST);
    segment
}

fn at(time: u64, mut segment: Segment<'_>) -> Segment<'_> {
    segment.time = Timestamp(time * MS);
    segment
}

fn missing(count: u32, mut segment: Segment<'_>) -> Segment<'_> {
    segment.missing = count;
    segment
}

fn settings() -> Settings {
    Settings {
        flows: 4,
        flow_buffer: 1 << 20,
        total_buffer: 1 << 20,
        gap_wait: Settings::GAP_WAIT,
        idle: Settings::IDLE,
        linger: Settings::LINGER,
        ports: vec![(80, 80)],
        seed: 0,
    }
}

fn table() -> FlowTable<usize> {
    FlowTable::new(settings())
}

/// Feeds segments to a new table and compares what was written down.
#[track_caller]
fn check(name: &str, segments: &[Segment<'_>], expected: &[&str]) -> Stats {
    let (mut table, mut recorder) = (table(), Recorder::default());
    for segment in segments {
        table.segment(segment, &mut recorder);
    }
    assert_eq!(recorder.log, expected, "{name}");
    let stats = table.stats();
    table.finish(Ending::Shutdown, &mut recorder);
    assert_eq!(table.stats().buffered, 0, "{name}: nothing stays buffered");
    stats
}

#[test]
fn segments_in_and_out_of_order() {
    let cases: &[(&str, &[Segment<'_>], &[&str])] = &[
        ("in order", &[syn(), syn_ack(), up(0, "ab"), down(0, 2, "xy")], &["1>0ab^0", "1<0xy^2"]),
        ("swapped", &[syn(), syn_ack(), up(2, "cd"), up(0, "ab")], &["1>0ab^0", "1>2cd^0"]),
        ("retransmitted", &[syn(), up(0, "ab"), up(0, "ab"), up(2, "c")], &["1>0ab^0", "1>2c^0"]),
        ("overlap with old", &[syn(), up(0, "ab"), up(1, "XXd")], &["1>0ab^0", "1>2Xd^0"]),
        ("overlap with held", &[syn(), up(2, "cd"), up(0, "abXXe")], &["1>0ab^0", "1>2cd^0", "1>4e^0"]),
        ("keep-alive probe", &[syn(), up(0, "ab"), up(1, "\0"), up(2, "c")], &["1>0ab^0", "1>2c^0"]),
        (
            "data in SYN",
            &[segment(Direction::ToServer, 0, None, "ab", TcpFlags::SYN), up(2, "c")],
            &["1>0ab", "1>2c^0"],
        ),
        ("SYN twice", &[syn(), syn(), syn_ack(), syn_ack(), up(0, "a")], &["1>0a^0"]),
        ("SYN-ACK first", &[syn_ack(), syn(), up(0, "a")], &["1>0a^0"]),
        ("SYN late", &[syn_ack(), up(0, "a"), syn()], &["1>0a^0"]),
        (
            "missing at the end",
            &[syn(), missing(3, up(0, "ab")), up(5, "f")],
            &["1>0ab^0", "1>gap3", "1>5f^0"],
        ),
        (
            "missing, then repeated",
            &[syn(), missing(2, up(0, "ab")), up(0, "abXXe")],
            &["1>0ab^0", "1>gap2", "1>4e^0"],
        ),
        (
            "missing ahead",
            &[syn(), missing(2, up(1, "b")), up(0, "a"), up(4, "e")],
            &["1>0a^0", "1>1b^0", "1>gap2", "1>4e^0"],
        ),
        (
            "response overtakes request",
            &[syn(), syn_ack(), down(0, 2, "xy"), up(0, "ab")],
            &["1>0ab^0", "1<0xy^2"],
        ),
        (
            "response overtakes half a request",
            &[syn(), syn_ack(), up(0, "a"), down(0, 2, "xy"), up(1, "b")],
            &["1>0a^0", "1>1b^0", "1<0xy^2"],
        ),
        ("an acknowledgment declares nothing", &[syn(), syn_ack(), down(0, 9, "xy")], &[]),
    ];
    for (name, segments, expected) in cases {
        check(name, segments, expected);
    }
}

#[test]
fn ends() {
    let cases: &[(&str, &[Segment<'_>], &[&str])] = &[
        (
            "both sides",
            &[syn(), syn_ack(), fin(up(0, "ab")), fin(down(0, 3, "x"))],
            &["1>0ab^0", "1>end", "1<0x^3", "1<end", "1Closed"],
        ),
        ("FIN overtakes data", &[syn(), fin(up(2, "")), up(0, "ab")], &["1>0ab^0", "1>end"]),
        (
            "FIN with data overtakes data",
            &[syn(), fin(up(1, "b")), up(0, "a")],
            &["1>0a^0", "1>1b^0", "1>end"],
        ),
        ("FIN twice", &[syn(), fin(up(0, "a")), fin(up(0, "a")), fin(up(1, ""))], &["1>0a^0", "1>end"]),
        ("reset", &[syn(), up(0, "a"), rst(up(1, "")), up(1, "b")], &["1>0a^0", "1Reset"]),
        (
            "reset in answer",
            &[syn(), rst(segment(Direction::ToClient, -5001, Some(0), "", NONE))],
            &["1Reset"],
        ),
        ("reset from nowhere", &[syn(), up(0, "a"), rst(up(1 << 30, "")), up(1, "b")], &["1>0a^0", "1>1b^0"]),
        ("late data after the end", &[syn(), rst(up(0, "")), up(0, "a"), down(0, 0, "x")], &["1Reset"]),
        ("nothing but an end", &[fin(up(0, "")), rst(down(0, 0, ""))], &[]),
    ];
    for (name, segments, expected) in cases {
        check(name, segments, expected);
    }
}

/// The same segment in another life of the connection.
fn reborn(mut segment: Segment<'_>) -> Segment<'_> {
    let (own, other) = match segment.destination.port() {
        80 => (77_000_000, 99_000_000),
        _ => (99_000_000, 77_000_000),
    };
    segment.seq = segment.seq.wrapping_add(own);
    segment.ack = segment.ack.wrapping_add(other);
    segment
}

#[test]
fn a_tuple_is_used_again() {
    let new = || [reborn(syn()), reborn(syn_ack()), reborn(up(0, "z"))];
    let join = |old: &[Segment<'static>]| [old, &new()].concat();
    let cases: &[(&str, &[Segment<'_>], &[&str])] = &[
        ("after the end", &join(&[syn(), up(0, "a"), rst(up(1, ""))]), &["1>0a^0", "1Reset", "2>0z^0"]),
        ("while alive", &join(&[syn(), syn_ack(), up(0, "a")]), &["1>0a^0", "1Closed", "2>0z^0"]),
        ("after a SYN without answer", &join(&[syn()]), &["1Closed", "2>0z^0"]),
        (
            "SYN-ACK not seen",
            &[syn(), up(0, "a"), reborn(syn()), reborn(up(0, "z"))],
            &["1>0a^0", "1Closed", "2joined 80", "2>0z^0"],
        ),
        (
            "SYN not seen",
            &[syn(), syn_ack(), up(0, "a"), reborn(syn_ack()), reborn(up(0, "z"))],
            &["1>0a^0", "1Closed", "2>0z^0"],
        ),
        ("a forged SYN", &[syn(), syn_ack(), up(0, "a"), reborn(syn()), up(1, "b")], &["1>0a^0", "1>1b^0"]),
    ];
    for (name, segments, expected) in cases {
        check(name, segments, expected);
    }
}

#[test]
fn connections_met_in_the_middle() {
    let other_port = |mut segment: Segment<'static>| {
        (segment.source, segment.destination) = (address("10.0.0.1:4000"), address("10.0.0.2:4001"));
        segment
    };
    let both_ports = |mut segment: Segment<'static>| {
        (segment.source, segment.destination) = (address("10.0.0.1:80"), address("10.0.0.2:80"));
        segment
    };
    let declared = |mut segment: Segment<'static>| {
        segment.direction = Some(Direction::ToClient);
        other_port(segment)
    };
    let cases: &[(&str, &[Segment<'_>], &[&str])] = &[
        (
            "by port, from the client",
            &[up(700, "ab"), down(0, 702, "x")],
            &["1joined 80", "1>0ab^0", "1<0x^2"],
        ),
        ("by port, from the server", &[down(700, 0, "x"), up(0, "ab")], &["1joined 80", "1<0x^0", "1>0ab^0"]),
        (
            "the other direction's place is known",
            &[up(700, "a"), down(2, 701, "z"), down(0, 701, "xy")],
            &["1joined 80", "1>0a^0", "1<0xy^1", "1<2z^1"],
        ),
        ("no port", &[other_port(up(0, "ab")), other_port(up(2, "?"))], &["1joined 4001"]),
        ("both ports", &[both_ports(up(0, "ab")), both_ports(up(2, "?c"))], &["1joined 80", "1>0?c^0"]),
        ("both ports, from the server", &[both_ports(up(0, "!c"))], &["1joined 80", "1<0!c^0"]),
        ("declared", &[declared(up(0, "ab"))], &["1joined 4000", "1<0ab^0"]),
        ("bytes beat ports", &[up(0, "!c"), up(2, "d")], &["1joined 4000"]),
        ("SYN beats ports", &[other_port(syn()), other_port(up(0, "?"))], &[]),
    ];
    for (name, segments, expected) in cases {
        // A port that is not the server's: the flow is known, and ignored.
        check(name, segments, expected);
    }
}

#[test]
fn a_hole_is_a_gap_after_the_wait_only() {
    let wait = Settings::GAP_WAIT.as_millis() as u64;
    let cases: &[(&str, &[Segment<'_>], u64, &[&str])] = &[
        ("before", &[at(1, syn()), at(1, up(0, "a")), at(1, up(2, "c"))], wait, &["1>0a^0"]),
        (
            "after",
            &[at(1, syn()), at(1, up(0, "a")), at(1, up(2, "c"))],
            wait + 1,
            &["1>0a^0", "1>gap1", "1>2c^0"],
        ),
        (
            "progress prolongs it",
            &[at(1, syn()), at(1, up(2, "c")), at(501, up(0, "a"))],
            wait + 1,
            &["1>0a^0"],
        ),
        ("before FIN", &[at(1, syn()), at(1, fin(up(2, "c")))], wait + 1, &["1>gap2", "1>2c^0", "1>end"]),
        ("before a bare FIN", &[at(1, syn()), at(1, fin(up(2, "")))], wait + 1, &["1>gap2", "1>end"]),
        (
            "two holes",
            &[at(1, syn()), at(1, up(1, "b")), at(1, up(3, "d"))],
            wait + 1,
            &["1>gap1", "1>1b^0", "1>gap1", "1>3d^0"],
        ),
        (
            "in the other direction",
            &[at(1, syn()), at(1, syn_ack()), at(1, down(0, 3, "x"))],
            wait + 1,
            &["1>gap3", "1<0x^3"],
        ),
    ];
    for (name, segments, time, expected) in cases {
        let (mut table, mut recorder) = (table(), Recorder::default());
        for segment in *segments {
            table.segment(segment, &mut recorder);
        }
        table.tick(Timestamp(time * MS), &mut recorder);
        assert_eq!(recorder.log, *expected, "{name}");
        assert!(recorder.latest <= Timestamp(501 * MS), "{name}: bytes keep their time");
    }
}

#[test]
fn the_buffer_of_a_flow_is_bounded() {
    let piece = 10 + PIECE_OVERHEAD;
    for (flow_buffer, gap) in [(3 * piece, false), (3 * piece - 1, true)] {
        let mut table = FlowTable::new(Settings { flow_buffer, ..settings() });
        let mut recorder = Recorder::default();
        for seq in [0, 11, 22, 33] {
            table.segment(&up(seq, "0123456789"), &mut recorder);
            assert!(table.stats().buffered <= flow_buffer);
        }
        assert_eq!(table.stats().gaps > 0, gap, "{flow_buffer} bytes");
        assert_eq!(table.stats().buffered, if gap { 2 * piece } else { 3 * piece });
    }
    let mut table = FlowTable::new(Settings { flow_buffer: 5, ..settings() });
    let mut recorder = Recorder::default();
    for segment in [up(0, "a"), up(3, "0123456789"), up(1, "bc"), up(13, "n")] {
        table.segment(&segment, &mut recorder);
    }
    let expected = ["1joined 80", "1>0a^0", "1>gap2", "1>30123456789^0", "1>13n^0"];
    assert_eq!(recorder.log, expected, "more than fits is handed on at once");
}

#[test]
fn the_number_of_flows_is_bounded() {
    let (mut table, mut recorder) = (table(), Recorder::default());
    let from = |port: u16| {
        let mut segment = up(0, "a");
        segment.source.set_port(port);
        segment
    };
    for port in 1..=4 {
        table.segment(&from(port), &mut recorder);
    }
    assert_eq!((table.stats().flows, table.stats().evicted), (4, 0));
    table.segment(&from(1), &mut recorder);
    recorder.log.clear();
    table.segment(&from(5), &mut recorder);
    assert_eq!((table.stats().flows, table.stats().evicted), (4, 1));
    assert_eq!(recorder.log, ["2Evicted", "5joined 80", "5>0a^0"], "the least recently used one goes");
    let mut reset = rst(up(1, ""));
    reset.source.set_port(4);
    table.segment(&reset, &mut recorder);
    recorder.log.clear();
    table.segment(&from(6), &mut recorder);
    assert_eq!(recorder.log, ["6joined 80", "6>0a^0"], "a closed one goes first");
    assert_eq!(table.stats().evicted, 1);
}

#[test]
fn all_buffers_together_are_bounded() {
    let piece = 1 + PIECE_OVERHEAD;
    for (total_buffer, evicted) in [(2 * piece, 0), (2 * piece - 1, 1)] {
        let mut table = FlowTable::new(Settings { total_buffer, ..settings() });
        let mut recorder = Recorder::default();
        for port in [1, 2] {
            for seq in [0, 2] {
                let mut segment = up(seq, "a");
                segment.source.set_port(port);
                table.segment(&segment, &mut recorder);
            }
        }
        assert_eq!(table.stats().evicted, evicted, "{total_buffer} bytes");
        assert!(table.stats().buffered <= total_buffer);
    }
    let mut recorder = Recorder { load: Load { buffered: (1 << 20) + 1, open: 1 }, ..Recorder::default() };
    let mut table = table();
    recorder.load.buffered -= 1;
    table.segment(&up(0, "a"), &mut recorder);
    assert_eq!(table.stats().evicted, 0, "what connections hold counts as well");
    recorder.load.buffered += 1;
    table.segment(&up(1, "a"), &mut recorder);
    assert_eq!(table.stats().evicted, 1);
}

#[test]
fn idle_and_closed_flows_are_forgotten_in_time() {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let cases: &[(&str, &[Segment<'_>], u64, usize)] = &[
        ("idle", &[at(1, up(0, "a"))], ms(Settings::IDLE), 1),
        ("idle too long", &[at(1, up(0, "a"))], ms(Settings::IDLE) + 1, 0),
        ("closed", &[at(1, up(0, "a")), at(1, rst(up(1, "")))], ms(Settings::LINGER), 1),
        ("closed long ago", &[at(1, up(0, "a")), at(1, rst(up(1, "")))], ms(Settings::LINGER) + 1, 0),
        ("the clock was set back", &[at(1 << 40, up(0, "a"))], 1, 1),
    ];
    for (name, segments, time, flows) in cases {
        let (mut table, mut recorder) = (table(), Recorder::default());
        for segment in *segments {
            table.segment(segment, &mut recorder);
        }
        table.tick(Timestamp(time * MS), &mut recorder);
        assert_eq!(table.stats().flows, *flows, "{name}");
    }
}

#[test]
fn a_connection_that_nobody_wants_is_dropped_until_it_ends() {
    let (mut table, mut recorder) = (table(), Recorder { ignore_after: Some("ab"), ..Recorder::default() });
    let segments = [syn(), syn_ack(), up(4, "ef"), up(0, "ab"), up(2, "cd"), down(0, 2, "x"), rst(up(6, ""))];
    for segment in &segments {
        table.segment(segment, &mut recorder);
    }
    assert_eq!(recorder.log, ["1>0ab^0", "1Reset"]);
    assert_eq!(table.stats().buffered, 0);
}

#[test]
fn a_stream_that_moved_on_unseen_is_followed_again() {
    let far = i64::from(WINDOW) * 3;
    let segments = [syn(), up(0, "ab"), up(far, "cd"), up(2, "x"), up(far + 2, "ef"), up(far + 4, "gh")];
    let gap = format!("1>gap{}", far + 2 - 3);
    let expected = ["1>0ab^0", "1>2x^0", &gap, &format!("1>{}ef^0", far + 2), &format!("1>{}gh^0", far + 4)];
    check("one stray is ignored, a second one believed", &segments, &expected);
}

#[test]
fn duplicates_are_counted() {
    let stats = check(
        "twice",
        &[syn(), up(0, "ab"), up(0, "ab"), up(1, "bc"), up(4, "e"), up(4, "e"), up(3, "de")],
        &["1>0ab^0", "1>2c^0", "1>3d^0", "1>4e^0"],
    );
    assert_eq!((stats.bytes, stats.duplicate_bytes, stats.reordered), (10, 5, 2));
    assert_eq!(stats.duplicate_segments, 2, "one that brings anything new is none");
    let closed =
        [syn(), up(0, "ab"), fin(down(0, 2, "")), fin(up(2, "c")), up(0, "ab"), fin(up(2, "c")), up(9, "x")];
    let stats = check("after the end", &closed, &["1>0ab^0", "1<end", "1>2c^0", "1>end", "1Closed"]);
    assert_eq!(
        stats.duplicate_segments, 2,
        "the end is seen twice, too, where two devices are captured from"
    );
}
