//! Conversations of which nothing is missing.

use super::encoder::{CONTINUATION, PING, PUSH_PROMISE, WINDOW_UPDATE, literal, reset};
use super::*;
use crate::http::{Event, Exchange};

#[test]
fn streams_are_exchanges() {
    check_talk("one after the other", &["GET /a 200 x", "POST /b hi 200 y"], |talk| {
        vec![talk.get(1, "/a"), talk.ok(1, "x"), talk.post(3, "/b", "hi"), talk.ok(3, "y")]
    });
    check_talk("answered in another order", &["GET /c 200 z", "GET /a 200 x", "GET /b 200 y"], |talk| {
        vec![
            talk.get(1, "/a"),
            talk.get(3, "/b"),
            talk.get(5, "/c"),
            talk.ok(5, "z"),
            talk.ok(1, "x"),
            talk.ok(3, "y"),
        ]
    });
    check_talk("interleaved both ways", &["POST /b 34 200 BB", "POST /a 12 200 AA"], |talk| {
        let up = [
            talk.head(1, "POST", "/a", 0),
            talk.head(3, "POST", "/b", 0),
            data(1, "1"),
            data(3, "3"),
            last_data(1, "2"),
            last_data(3, "4"),
        ];
        let down = [
            talk.status(1, "200", &[], 0),
            data(1, "A"),
            talk.status(3, "200", &[], 0),
            data(3, "B"),
            last_data(3, "B"),
            last_data(1, "A"),
        ];
        vec![Up(up.concat()), Down(down.concat())]
    });
    check_talk("other frames between", &["POST /a hi 200 x"], |talk| {
        let update = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]);
        let (ping, unknown) = (frame(PING, 0, 0, &[7; 8]), frame(0xEE, 0xFF, 9, b"whatever"));
        let priority = frame(2, 0, 1, &[0; 5]);
        vec![
            Up([
                talk.head(1, "POST", "/a", 0),
                ping.clone(),
                data(1, "h"),
                unknown,
                priority,
                last_data(1, "i"),
            ]
            .concat()),
            Down([update, ping, encoder::settings(&[(4, 9)])].concat()),
            talk.ok(1, "x"),
        ]
    });
    check_talk("a response before the request ends", &["POST /a hiho 200 early"], |talk| {
        vec![
            Up([talk.head(1, "POST", "/a", 0), data(1, "hi")].concat()),
            talk.ok(1, "early"),
            Up(last_data(1, "ho")),
        ]
    });
    check_talk("a half-closed client still gets its response", &["GET /a 200 x"], |talk| {
        vec![talk.get(1, "/a"), End(ToServer), talk.ok(1, "x")]
    });
    check_talk("a stream that is reset behind its end", &["GET /a 200 x"], |talk| {
        vec![talk.get(1, "/a"), talk.ok(1, "x"), Up(reset(1, 8)), Down(reset(1, 0))]
    });
}

#[test]
fn bodies_are_what_data_holds() {
    check_talk("padding, of any length", &["POST /a body 200 answer"], |talk| {
        let up = [
            talk.head(1, "POST", "/a", 0),
            frame(DATA, PADDED, 1, b"\x03bo\0\0\0"),
            frame(DATA, PADDED, 1, b"\x00dy"),
            frame(DATA, PADDED | END_STREAM, 1, &[&[0xFF][..], &[0; 255]].concat()),
        ];
        let down = [talk.status(1, "200", &[], 0), frame(DATA, PADDED | END_STREAM, 1, b"\x01answer\0")];
        vec![Up(up.concat()), Down(down.concat())]
    });
    check_talk("empty DATA", &["POST /a 200"], |talk| {
        let up = [talk.head(1, "POST", "/a", 0), data(1, ""), last_data(1, "")];
        vec![Up(up.concat()), Down(talk.status(1, "200", &[], END_STREAM))]
    });
    let cases: [(&str, &str, &str, &str, &str); 6] = [
        ("HEAD", "200", "99", "", "HEAD /a 200"),
        ("GET", "304", "99", "", "GET /a 304"),
        ("GET", "204", "0", "", "GET /a 204"),
        ("GET", "200", "2", "ok", "GET /a 200 ok"),
        ("HEAD", "200", "2", "no", "lost malformed"),
        ("GET", "204", "2", "no", "lost malformed"),
    ];
    for (method, status, length, body, expected) in cases {
        check_talk(&format!("{method} {status} {length} {body:?}"), &[expected], |talk| {
            let head = talk.status(1, status, &[("content-length", length)], 0);
            let request = talk.head(1, method, "/a", END_STREAM);
            vec![Up(request), Down([head, last_data(1, body)].concat())]
        });
    }
}

#[test]
fn header_blocks_come_in_pieces_padded_and_with_priority() {
    check_talk("continued", &["GET /a 200 x", "GET /b 200 y"], |talk| {
        let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "host")];
        let block = talk.client.encode(&fields);
        let (one, rest) = block.split_at(3);
        let (two, three) = rest.split_at(1);
        let up = [
            frame(HEADERS, END_STREAM, 1, one),
            frame(CONTINUATION, 0, 1, two),
            frame(CONTINUATION, 0, 1, &[]),
            frame(CONTINUATION, END_HEADERS, 1, three),
        ];
        vec![Up(up.concat()), talk.ok(1, "x"), talk.get(3, "/b"), talk.ok(3, "y")]
    });
    check_talk("padded, and with priority", &["GET /a 200 x"], |talk| {
        let block = talk.client.encode(&[(":method", "GET"), (":scheme", "http"), (":path", "/a")]);
        let payload = [&[2, 0, 0, 0, 0, 9], &block[..], &[0, 0]].concat();
        let flags = PADDED | PRIORITY | END_HEADERS | END_STREAM;
        vec![Up(frame(HEADERS, flags, 1, &payload)), talk.ok(1, "x")]
    });
    check_talk("without Huffman", &["GET /a 200 x"], |talk| {
        (talk.client.is_huffman, talk.server.is_huffman) = (false, false);
        vec![talk.get(1, "/a"), talk.ok(1, "x")]
    });
    check_talk("a table that is emptied, and made large", &["GET /a 200 x", "GET /b 200 y"], |talk| {
        let block = [&[0x20, 0x3F, 0xE1, 0x1F, 0x82, 0x86][..], &literal(":path", "/a")].concat();
        let first = Up(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
        vec![first, talk.ok(1, "x"), talk.get(3, "/b"), talk.ok(3, "y")]
    });
}

#[test]
fn what_is_pushed_is_followed_and_is_no_exchange() {
    check_talk("push", &["GET /a 200 x", "GET /b 200 y"], |talk| {
        let promised = [(":method", "GET"), (":scheme", "http"), (":path", "/pushed"), ("x", "y")];
        let block = [&2_u32.to_be_bytes()[..], &talk.server.encode(&promised)].concat();
        let push = [
            frame(PUSH_PROMISE, END_HEADERS, 1, &block),
            talk.status(2, "200", &[("x", "y")], 0),
            last_data(2, "pushed"),
        ];
        vec![talk.get(1, "/a"), Down(push.concat()), talk.ok(1, "x"), talk.get(3, "/b"), talk.ok(3, "y")]
    });
}

#[test]
fn interim_responses_are_passed_over() {
    check_talk("100 and 103", &["POST /a hi 200 x"], |talk| {
        let interim = [talk.status(1, "100", &[], 0), talk.status(1, "103", &[("link", "x")], 0)].concat();
        vec![Up(talk.head(1, "POST", "/a", 0)), Down(interim), Up(last_data(1, "hi")), talk.ok(1, "x")]
    });
}

#[test]
fn what_is_left_alone() {
    let big = "x".repeat(LIMIT + 1);
    check_talk("CONNECT", &["skipped upgrade", "GET /b 200 y"], |talk| {
        let block = talk.client.encode(&[(":method", "CONNECT"), (":authority", "h:443")]);
        let tunnel = [frame(HEADERS, END_HEADERS, 1, &block), data(1, "bytes")].concat();
        let answer = [talk.status(1, "200", &[], 0), data(1, "bytes")].concat();
        vec![Up(tunnel), Down(answer), talk.get(3, "/b"), talk.ok(3, "y")]
    });
    check_talk("bodies beyond the limit", &["skipped body_too_large"; 3], |talk| {
        let long = talk.status(5, "200", &[("content-length", &big.len().to_string())], 0);
        vec![
            talk.post(1, "/a", &big),
            talk.get(3, "/b"),
            talk.ok(3, &big),
            talk.get(5, "/c"),
            Down([long, last_data(5, &big)].concat()),
        ]
    });
    let (fits, half) = ("x".repeat(LIMIT), "x".repeat(LIMIT / 2));
    check_talk("bodies at the limit", &[&format!("POST /a {fits} 200 {fits}")], |talk| {
        let answer = [talk.status(1, "200", &[], 0), data(1, &half), last_data(1, &half)];
        vec![talk.post(1, "/a", &fits), Down(answer.concat())]
    });
    check_talk("event streams", &["skipped streaming"], |talk| {
        let head = talk.status(1, "200", &[("content-type", "text/event-stream; charset=utf-8")], 0);
        vec![talk.get(1, "/a"), Down([head, data(1, "data: 1\n\n")].concat())]
    });
}

#[test]
fn parts_are_timed_and_kept_as_received() {
    let mut peer = Peer::new(false);
    let mut talk = Talk::new();
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "host:80"),
        (":path", "/a?b=c"),
        ("te", "trailers"),
        ("cookie", "a=1"),
        ("x-b", ""),
        ("cookie", "b=2"),
    ];
    let block = talk.client.encode(&fields);
    let (one, two) = block.split_at(5);
    let trailers = talk.client.encode(&[("checksum", "1")]);
    let answer = talk.server.encode(&[("grpc-status", "0")]);
    let steps = [
        Up(frame(HEADERS, 0, 1, one)),
        Up(frame(CONTINUATION, END_HEADERS, 1, two)),
        Up(data(1, "x")),
        Up(frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers)),
        Down(talk.status(1, "103", &[], 0)),
        Down(talk.status(1, "299", &[("server", "s")], 0)),
        Down(data(1, "ab")),
        Down(frame(HEADERS, END_HEADERS | END_STREAM, 1, &answer)),
    ];
    for step in [hello(), steps.to_vec()].concat() {
        peer.play(&step, usize::MAX);
    }
    let [Event::Exchange(Exchange { request, response, times, .. })] = &peer.events[..] else {
        panic!("{:?}", peer.events)
    };
    let order = [times.started, times.request_done, times.response_started, times.response_done];
    assert_eq!(order, [5, 8, 10, 12].map(Timestamp));
    let expected = [("host", "host:80"), ("te", "trailers"), ("cookie", "a=1; b=2"), ("x-b", "")];
    let headers: Vec<_> = request.headers.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    assert_eq!(headers, expected.map(|(n, v)| (n.into(), v.into())));
    assert_eq!((&request.target[..], &request.body[..]), (&b"/a?b=c"[..], &b"x"[..]));
    assert_eq!(request.trailers.get("checksum").unwrap(), "1");
    assert_eq!((response.status, response.headers.len()), (299, 1));
    assert_eq!(response.trailers.get("grpc-status").unwrap(), "0");
    let http2 = ::http::Version::HTTP_2;
    assert_eq!((request.version, response.version), (http2, http2));
}

#[test]
fn what_is_read_is_accounted_for() {
    let mut peer = Peer::new(false);
    let mut talk = Talk::new();
    for step in hello() {
        peer.play(&step, usize::MAX);
    }
    peer.play(&Up([talk.head(1, "POST", "/a", 0), data(1, "x".repeat(LIMIT))].concat()), 40);
    let request = peer.connection.load();
    assert!(request.buffered >= LIMIT && request.open == 1, "{request:?}");
    peer.play(&Down([talk.status(1, "200", &[], 0), data(1, "x".repeat(60))].concat()), 40);
    assert!(peer.connection.load().buffered >= request.buffered + 60);
    peer.play(&Down(reset(1, 8)), 40);
    let left = peer.connection.load();
    assert!(left.buffered < request.buffered && left.open == 0, "{left:?}");
    peer.play(&Over(Ending::Closed), 1);
    assert_eq!(peer.connection.load(), Load::default());
    assert_eq!(peer.events.iter().map(brief).collect::<Vec<_>>(), ["lost reset"]);
}
