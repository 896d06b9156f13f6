//! Conversations that are malformed, cut short, or have holes.

use std::time::Duration;

use super::encoder::{
    CONTINUATION, GOAWAY, PING, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, goaway, literal, reset,
    settings,
};
use super::*;

#[test]
fn a_malformed_message_loses_its_stream_only() {
    let heads: [&[(&str, &str)]; 4] = [
        &[(":method", "GET"), (":scheme", "http"), (":path", "/a"), ("Upper", "x")],
        &[(":method", "GET"), (":scheme", "http")],
        &[(":method", "GET"), (":scheme", "http"), (":path", "/a"), ("connection", "close")],
        &[(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":odd", "x")],
    ];
    for fields in heads {
        check_talk(&format!("{fields:?}"), &["lost malformed", "GET /b 200 y"], |talk| {
            let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &talk.client.encode(fields));
            vec![Up(head), talk.ok(1, "refused"), talk.get(3, "/b"), talk.ok(3, "y")]
        });
    }
    let answers: [fn(&mut Talk) -> Vec<u8>; 8] = [
        |talk| talk.status(1, "20", &[], END_STREAM),
        |talk| talk.status(1, "101", &[], 0),
        |talk| talk.status(1, "100", &[], END_STREAM),
        |talk| [talk.status(1, "200", &[("content-length", "3")], 0), last_data(1, "ab")].concat(),
        |talk| [talk.status(1, "200", &[("content-length", "3")], 0), data(1, "abcd")].concat(),
        |_| data(1, "a body without a head"),
        |talk| [talk.status(1, "200", &[], 0), talk.status(1, "200", &[], END_STREAM)].concat(),
        |talk| {
            let trailers = frame(HEADERS, END_HEADERS, 1, &talk.server.encode(&[("a", "b")]));
            [talk.status(1, "200", &[], 0), trailers].concat()
        },
    ];
    for (number, answer) in answers.iter().enumerate() {
        check_talk(&format!("response {number}"), &["lost malformed", "GET /b 200 y"], |talk| {
            vec![talk.get(1, "/a"), Down(answer(talk)), talk.get(3, "/b"), talk.ok(3, "y")]
        });
    }
    check_talk("DATA behind the end", &["lost malformed"], |talk| {
        vec![Up([talk.head(1, "GET", "/a", END_STREAM), data(1, "x")].concat()), talk.ok(1, "x")]
    });
    check_talk("a request shorter than it says", &["lost malformed"], |talk| {
        let fields = [(":method", "PUT"), (":scheme", "http"), (":path", "/a"), ("content-length", "3")];
        let head = frame(HEADERS, END_HEADERS, 1, &talk.client.encode(&fields));
        vec![Up([head, last_data(1, "ab")].concat()), talk.ok(1, "x")]
    });
}

#[test]
fn an_error_of_the_connection_loses_everything_open_and_frames_are_found_again() {
    let large = vec![0; 16385];
    let bad: [(&str, Vec<u8>); 14] = [
        ("too large", frame(DATA, 0, 1, &large)),
        ("DATA without a stream", data(0, "x")),
        ("HEADERS without a stream", frame(HEADERS, END_HEADERS, 0, &[0x82])),
        ("a stream of the server", frame(HEADERS, END_HEADERS, 2, &[0x82])),
        ("padding beyond the frame", frame(DATA, PADDED, 1, b"\x02x")),
        ("padding beyond the block", frame(HEADERS, PADDED | END_HEADERS, 3, b"\x02\x82")),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &[])),
        ("a block that is interrupted", [frame(HEADERS, 0, 3, &[0x82]), frame(PING, 0, 0, &[0; 8])].concat()),
        ("a block that is no HPACK", frame(HEADERS, END_HEADERS, 3, &[0x80])),
        ("a push by the client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("RST_STREAM of another size", frame(RST_STREAM, 0, 1, &[0])),
        ("SETTINGS of half a setting", frame(SETTINGS, 0, 0, &[0, 1, 0])),
        ("WINDOW_UPDATE of another size", frame(WINDOW_UPDATE, 0, 0, &[0])),
        ("GOAWAY that is too short", frame(GOAWAY, 0, 0, &[0; 4])),
    ];
    for (name, frames) in bad {
        check_whole(name, &["lost malformed", "lost malformed", "GET /c 200 z"], |talk| {
            let mut server = talk.clone();
            let open = Up([talk.head(1, "POST", "/a", 0), talk.head(3, "POST", "/b", 0)].concat());
            let mut again = Talk::new();
            vec![open, Up(frames), again.get(5, "/c"), server.ok(5, "z")]
        });
    }
    check_whole("with nothing open", &["lost malformed", "GET /a 200 x"], |talk| {
        vec![Up(frame(HEADERS, END_HEADERS, 1, &[0x80])), talk.get(3, "/a"), talk.ok(3, "x")]
    });
    check_whole("a larger frame that is allowed", &["lost gap"], |talk| {
        let allowed = Down(settings(&[(5, 16385)]));
        vec![allowed, Up([talk.head(1, "POST", "/a", 0), data(1, [])].concat()), Gap(ToServer, 50)]
    });
    check_cut(
        "no preface behind SETTINGS of the server",
        false,
        &[usize::MAX, 1, 3],
        &[Down(settings(&[])), up("GET / HTTP/1.1\r\n\r\n"), down("whatever")],
        &["skipped not_http"],
    );
    check_cut(
        "a server that knows HTTP/1 only, before a request",
        false,
        &[usize::MAX, 1, 7],
        &[hello().remove(0), down("HTTP/1.1 400 Bad Request\r\n\r\n"), End(ToClient)],
        &["skipped not_http"],
    );
    check_cut(
        "a server that knows HTTP/1 only",
        false,
        &[usize::MAX],
        &[
            hello().remove(0),
            Talk::new().get(1, "/a"),
            down("HTTP/1.1 400 Bad Request\r\n\r\n"),
            End(ToClient),
        ],
        &["lost malformed"],
    );
}

#[test]
fn streams_that_are_given_up() {
    check_talk("by the client", &["lost reset", "GET /b 200 y"], |talk| {
        let half = [talk.status(1, "200", &[], 0), data(1, "ab")].concat();
        let more = Down(last_data(1, "cd"));
        vec![talk.get(1, "/a"), Down(half), Up(reset(1, 8)), more, talk.get(3, "/b"), talk.ok(3, "y")]
    });
    check_talk("by the server", &["lost reset", "GET /b 200 y"], |talk| {
        vec![talk.get(1, "/a"), Down(reset(1, 7)), talk.get(3, "/b"), talk.ok(3, "y")]
    });
    check_talk("a client that is asked to stop", &["lost truncated"], |talk| {
        let answer = talk.ok(1, "enough");
        vec![Up([talk.head(1, "POST", "/a", 0), data(1, "x")].concat()), answer, Down(reset(1, 0))]
    });
    check_talk(
        "streams that a server will not look at",
        &["lost reset", "GET /a 200 x", "lost reset"],
        |talk| {
            let (one, two) = (talk.get(1, "/a"), talk.get(3, "/b"));
            vec![one, two, Down(goaway(1)), talk.ok(1, "x"), talk.get(5, "/c")]
        },
    );
    check_talk("a shutdown that is announced", &["GET /a 200 x", "GET /b 200 y"], |talk| {
        let (one, two) = (talk.get(1, "/a"), talk.get(3, "/b"));
        vec![one, Down(goaway(i32::MAX as u32)), two, Down(goaway(3)), talk.ok(1, "x"), talk.ok(3, "y")]
    });
    check_talk("what a client says of pushes", &["GET /a 200 x"], |talk| {
        vec![talk.get(1, "/a"), Up(goaway(0)), talk.ok(1, "x")]
    });
}

#[test]
fn ends_of_the_connection() {
    let cases: [(&str, Vec<Step>, &[&str]); 7] = [
        ("the server's", vec![End(ToClient)], &["lost truncated", "lost truncated"]),
        ("the client's", vec![End(ToServer), End(ToClient)], &["lost truncated", "lost truncated"]),
        ("reset", vec![Over(Ending::Reset)], &["lost reset", "lost reset"]),
        ("eviction", vec![Over(Ending::Evicted)], &["lost evicted", "lost evicted"]),
        ("shutdown", vec![Over(Ending::Shutdown)], &["lost shutdown", "lost shutdown"]),
        ("the kill switch", vec![Over(Ending::Disabled)], &["skipped disabled", "skipped disabled"]),
        ("a timeout", vec![Wait(Duration::from_secs(60))], &["lost timeout", "lost timeout"]),
    ];
    for (name, end, expected) in cases {
        check_talk(name, expected, |talk| {
            let open = Up([talk.head(1, "GET", "/a", END_STREAM), talk.head(3, "POST", "/b", 0)].concat());
            let half = Down([talk.status(1, "200", &[], 0), data(1, "half")].concat());
            [vec![open, half], end].concat()
        });
    }
    check_talk("in time", &["GET /a 200 x"], |talk| {
        vec![talk.get(1, "/a"), Wait(Duration::from_secs(59)), talk.ok(1, "x")]
    });
}

#[test]
fn a_gap_within_data_loses_that_stream_only() {
    check_whole("of a response", &["lost gap", "GET /b 200 y", "GET /c 200 z"], |talk| {
        let (one, two) = (talk.get(1, "/a"), talk.get(3, "/b"));
        let answer = [talk.status(1, "200", &[], 0), data(1, "0123456789")].concat();
        let (seen, _) = answer.split_at(answer.len() - 8);
        let rest = [&b"89"[..], &last_data(1, "more")].concat();
        vec![
            one,
            two,
            Down(seen.to_vec()),
            Gap(ToClient, 6),
            Down(rest),
            talk.ok(3, "y"),
            talk.get(5, "/c"),
            talk.ok(5, "z"),
        ]
    });
    check_whole("to the end of the last DATA of a request", &["lost gap", "GET /b 200 y"], |talk| {
        let request = [talk.head(1, "POST", "/a", 0), last_data(1, "0123456789")].concat();
        let (seen, _) = request.split_at(request.len() - 10);
        vec![Up(seen.to_vec()), Gap(ToServer, 10), talk.ok(1, "x"), talk.get(3, "/b"), talk.ok(3, "y")]
    });
    check_whole("from the length of the padding on", &["lost gap", "GET /b 200 y"], |talk| {
        let request =
            [talk.head(1, "POST", "/a", 0), frame(DATA, PADDED | END_STREAM, 1, b"\x01ab\0")].concat();
        let (seen, rest) = request.split_at(request.len() - 4);
        let rest = rest[2..].to_vec();
        vec![
            Up(seen.to_vec()),
            Gap(ToServer, 2),
            Up(rest),
            talk.ok(1, "x"),
            talk.get(3, "/b"),
            talk.ok(3, "y"),
        ]
    });
    check_whole("in a frame that does not matter", &["GET /a 200 x"], |talk| {
        let ping = frame(PING, 0, 0, &[1; 8]);
        let (seen, rest) = ping.split_at(12);
        let rest = rest[3..].to_vec();
        vec![talk.get(1, "/a"), Down(seen.to_vec()), Gap(ToClient, 3), Down(rest), talk.ok(1, "x")]
    });
}

#[test]
fn any_other_gap_loses_what_it_may_have_touched() {
    check_whole("of the server", &["lost gap", "lost gap", "GET /c 200 z"], |talk| {
        let (one, two, three) = (talk.get(1, "/a"), talk.get(3, "/b"), talk.get(5, "/c"));
        let mut plain = Talk::new();
        vec![one, two, Gap(ToClient, 5), talk.ok(1, "x"), three, plain.ok(5, "z")]
    });
    check_whole(
        "of the client: requests that are whole keep their responses",
        &["lost gap", "GET /a 200 x"],
        |talk| {
            let open = Up([talk.head(1, "GET", "/a", END_STREAM), talk.head(3, "POST", "/b", 0)].concat());
            vec![open, Gap(ToServer, 30), talk.ok(1, "x"), talk.ok(3, "y")]
        },
    );
    check_whole("beyond DATA", &["lost gap"], |talk| {
        let request = [talk.head(1, "POST", "/a", 0), data(1, "0123456789")].concat();
        let (seen, _) = request.split_at(request.len() - 4);
        vec![Up(seen.to_vec()), Gap(ToServer, 5), talk.ok(1, "x")]
    });
    check_whole("within a header block", &["lost gap", "GET /b 200 y"], |talk| {
        let open = talk.get(1, "/a");
        let begun = Down(frame(HEADERS, 0, 1, &[0x88]));
        let (next, mut plain) = (talk.get(3, "/b"), Talk::new());
        vec![open, begun, Gap(ToClient, 20), next, plain.ok(3, "y")]
    });
    let unseen = ["GET /a 200 x", "lost gap", "lost gap", "GET /d 200 z"];
    check_whole("requests that nobody saw are counted by their numbers", &unseen, |talk| {
        let (one, answer) = (talk.get(1, "/a"), talk.ok(1, "x"));
        let mut plain = Talk::new();
        vec![one, answer, Gap(ToServer, 80), talk.ok(3, "y"), plain.get(7, "/d"), talk.ok(7, "z")]
    });
    check_whole(
        "a table that is not known any more",
        &["GET /a 200 x", "skipped header_table", "GET /c 200 z"],
        |talk| {
            let first = [talk.get(1, "/a"), talk.ok(1, "x"), Gap(ToServer, 13)];
            // Its path and authority are entries from before.
            let second = [talk.get(3, "/a"), talk.ok(3, "y")];
            let block = [&[0x82, 0x86][..], &literal(":path", "/c")].concat();
            let third = [Up(frame(HEADERS, END_HEADERS | END_STREAM, 5, &block)), talk.ok(5, "z")];
            [&first[..], &second, &third].concat()
        },
    );
    check_whole(
        "a table of the server's that is not known any more",
        &["GET /a 200 x", "skipped header_table"],
        |talk| {
            vec![talk.get(1, "/a"), talk.ok(1, "x"), Gap(ToClient, 13), talk.get(3, "/b"), talk.ok(3, "y")]
        },
    );
}
