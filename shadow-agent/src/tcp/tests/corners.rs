//! Corners of RFC 9293, hosts that lie, and flows that are seen in part.

use super::*;

#[test]
fn corners_of_connections() {
    let syn_with_data = || segment(Direction::ToServer, 0, None, "ab", TcpFlags::SYN);
    let open = |more: &[Segment<'static>]| [&[syn(), syn_ack()], more].concat();
    let cases: &[(&str, &[Segment<'_>], &[&str])] = &[
        (
            "SYN with data that the server takes (RFC 7413)",
            &[syn_with_data(), segment(Direction::ToClient, 0, Some(2), "", TcpFlags::SYN), up(2, "c")],
            &["1>0ab", "1>2c^0"],
        ),
        (
            "SYN with data that the server leaves, so that it is sent again",
            &[syn_with_data(), syn_ack(), up(0, "ab"), up(2, "c")],
            &["1>0ab", "1>2c^0"],
        ),
        ("SYN with data, twice", &[syn_with_data(), syn_with_data()], &["1>0ab"]),
        (
            "both FINs cross (section 3.6)",
            &open(&[up(0, "a"), fin(up(1, "")), fin(down(0, 1, "x")), up(2, ""), down(2, 2, "")]),
            &["1>0a^0", "1>end", "1<0x^1", "1<end", "1Closed"],
        ),
        (
            "one side is closed, and the other goes on",
            &open(&[fin(up(0, "a")), down(0, 2, "x"), down(1, 2, "y"), fin(down(2, 2, "z"))]),
            &["1>0a^0", "1>end", "1<0x^2", "1<1y^2", "1<2z^2", "1<end", "1Closed"],
        ),
        (
            "keep-alive probes with and without a byte (section 3.8.4)",
            &open(&[up(0, "ab"), up(1, ""), up(1, "?"), down(0, 2, "x"), down(0, 2, "?"), up(2, "c")]),
            &["1>0ab^0", "1<0x^2", "1>2c^0"],
        ),
        (
            "zero-window probes bring the next byte, and it is sent again (section 3.8.6.1)",
            &open(&[up(0, "ab"), up(2, "c"), up(2, "c"), up(2, "cde")]),
            &["1>0ab^0", "1>2c^0", "1>3de^0"],
        ),
    ];
    for (name, segments, expected) in cases {
        check(name, segments, expected);
    }
}

#[test]
fn a_reset_that_its_receiver_may_refuse_ends_the_connection_only_if_silence_follows() {
    let wait = Settings::GAP_WAIT.as_millis() as u64;
    let open = || [syn(), syn_ack(), up(0, "ab")];
    for (name, reset, certain) in [
        ("where it stands", rst(up(2, "")), true),
        ("ahead", rst(up(500, "")), false),
        ("behind", rst(up(0, "")), false),
        ("where the server stands", rst(down(0, 2, "")), true),
    ] {
        let segments = [&open()[..], &[at(1, reset)]].concat();
        let silent = [&segments[..], &[]].concat();
        let expected: &[&str] = if certain { &["1>0ab^0", "1Reset"] } else { &["1>0ab^0"] };
        check(name, &silent, expected);
        if certain {
            continue;
        }
        let (mut table, mut recorder) = (table(), Recorder::default());
        for segment in &segments {
            table.segment(segment, &mut recorder);
        }
        table.segment(&at(10, down(0, 2, "x")), &mut recorder);
        table.tick(Timestamp((wait + 600) * MS), &mut recorder);
        assert_eq!(recorder.log, ["1>0ab^0", "1<0x^2", "1Reset"], "{name}: only the other side spoke since");

        let refused = [&segments[..], &[at(10, up(2, "c")), at(wait + 600, up(3, "d"))]].concat();
        let stats = check(name, &refused, &["1>0ab^0", "1>2c^0", "1>3d^0"]);
        assert_eq!(stats.strays, 1, "{name}: its sender goes on");
    }
    let ahead_of_a_hole = [&open()[..], &[up(4, "ef"), rst(up(6, ""))]].concat();
    check("behind what is held", &ahead_of_a_hole, &["1>0ab^0", "1Reset"]);
    let after_fin = [&open()[..], &[fin(up(2, "")), rst(up(3, ""))]].concat();
    check("behind its FIN", &after_fin, &["1>0ab^0", "1>end", "1Reset"]);
}

#[test]
fn other_bytes_in_the_same_place_are_counted_and_the_first_ones_stay() {
    let stats = check(
        "handed on, and held",
        &[
            syn(),
            up(0, "ab"),
            up(0, "ab"),
            up(0, "XX"),
            up(4, "ef"),
            up(4, "eX"),
            up(1, "bcd"),
            up(0, "abXX"),
        ],
        &["1>0ab^0", "1>2cd^0", "1>4ef^0"],
    );
    assert_eq!(stats.conflicting_segments, 3);
    let stats = check("more behind them", &[syn(), up(0, "ab"), up(0, "aXc")], &["1>0ab^0", "1>2c^0"]);
    assert_eq!(stats.conflicting_segments, 1);
}

#[test]
fn flows_of_which_one_direction_is_seen_are_counted() {
    let end = |segments: &[Segment<'_>]| {
        let (mut table, mut recorder) = (table(), Recorder::default());
        for segment in segments {
            table.segment(segment, &mut recorder);
        }
        table.finish(Ending::Shutdown, &mut recorder);
        table.stats().one_sided_flows
    };
    for (name, segments, expected) in [
        ("requests", &[syn(), up(0, "ab"), fin(up(2, ""))][..], 1),
        ("responses", &[syn_ack(), down(0, 0, "x")], 1),
        ("both", &[syn(), syn_ack(), up(0, "ab")], 0),
        ("both, joined", &[up(0, "ab"), down(0, 2, "")], 0),
        ("a scan", &[syn()], 0),
    ] {
        assert_eq!(end(segments), expected, "{name}");
    }
}

#[test]
fn sequence_numbers_wrap() {
    let shift = |mut segment: Segment<'static>| {
        segment.seq = segment.seq.wrapping_sub(CLIENT + 3);
        segment.ack = segment.ack.wrapping_sub(SERVER + 3);
        segment
    };
    let segments = [syn(), up(0, "a"), up(3, "d"), up(1, "bc"), up(4, "e")].map(shift);
    assert_eq!(segments[0].seq, u32::MAX - 2);
    check("across zero", &segments, &["1>0a^0", "1>1bc^0", "1>3d^0", "1>4e^0"]);
}
