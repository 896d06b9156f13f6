//! Conversations that are malformed, cut short, or met in the middle.

use super::*;
use crate::exchange::LostReason;

#[test]
fn what_is_malformed_is_lost_and_the_next_request_found() {
    let after = [get("/b"), ok("y")];
    let found = ["lost malformed", "GET /b 200 y"];
    let bad_requests = [
        "POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET /a HTTP/1.1\r\nbad header\r\n\r\n",
        "GET /a HTTP/1.1\r\nA : b\r\n\r\n",
        "GET /a HTTP/1.1\r\n Host: folded into the start line\r\n\r\n",
        "POST /a HTTP/1.1\r\nContent-Length: 1\r\n 0\r\n\r\n",
        "POST /a HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n",
    ];
    for request in bad_requests {
        let steps = [&[up(request), ok("whatever")], &after[..]].concat();
        check_cut(request, false, &[usize::MAX], &steps, &found);
    }
    check_cut(
        "chunk",
        false,
        &[usize::MAX],
        &[up("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), ok(""), get("/b"), ok("y")],
        &found,
    );
    let bad_responses = [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "garbage",
    ];
    for response in bad_responses {
        let steps = [&[get("/a"), down(response)], &after[..]].concat();
        check_cut(response, false, &[usize::MAX], &steps, &found);
    }
    check_cut(
        "a later request",
        false,
        &[usize::MAX],
        &[
            get("/a"),
            ok("x"),
            up("nonsense\r\n"),
            down("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"),
            get("/b"),
            ok("y"),
        ],
        &["GET /a 200 x", "lost malformed", "GET /b 200 y"],
    );
}

#[test]
fn ends_of_the_connection() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    let cases: &[(&str, &[Step], &[&str])] = &[
        ("no response", &[get("/a"), End(ToClient)], &["lost truncated"]),
        ("half a response", &[get("/a"), down(half), End(ToClient)], &["lost truncated"]),
        (
            "half a chunked response",
            &[
                get("/a"),
                down("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"),
                End(ToClient),
            ],
            &["lost truncated"],
        ),
        ("half a head", &[get("/a"), down("HTTP/1.1 20"), End(ToClient)], &["lost truncated"]),
        (
            "half a request",
            &[up("POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"), End(ToServer)],
            &["lost truncated"],
        ),
        (
            "half a request head",
            &[up("GET /a HT"), End(ToServer), down("HTTP/1.1 400 B\r\n\r\n"), End(ToClient)],
            &["lost truncated"],
        ),
        (
            "some answered",
            &[get("/a"), get("/b"), get("/c"), ok("x"), End(ToClient), get("/d")],
            &["GET /a 200 x", "lost truncated", "lost truncated"],
        ),
        ("reset", &[get("/a"), down(half), Over(Ending::Reset)], &["lost reset"]),
        (
            "reset of what ends with the connection",
            &[get("/a"), down("HTTP/1.1 200 OK\r\n\r\npart"), Over(Ending::Reset)],
            &["lost reset"],
        ),
        ("eviction", &[get("/a"), Over(Ending::Evicted)], &["lost evicted"]),
        ("shutdown", &[get("/a"), Over(Ending::Shutdown)], &["lost shutdown"]),
        ("a tuple used again", &[get("/a"), Over(Ending::Closed)], &["lost truncated"]),
        ("after a whole exchange", &[get("/a"), ok("x"), Over(Ending::Reset)], &["GET /a 200 x"]),
        (
            "an unsolicited response",
            &[get("/a"), ok("x"), down("HTTP/1.1 408 Timeout\r\nConnection: close\r\n\r\n"), End(ToClient)],
            &["GET /a 200 x", "lost unpaired"],
        ),
    ];
    for (name, steps, expected) in cases {
        check(name, steps, expected);
    }
}

#[test]
fn time_runs_out() {
    let cases: &[(&str, &[Step], &[&str])] = &[
        ("in time", &[get("/a"), Wait(Duration::from_secs(59)), ok("x")], &["GET /a 200 x"]),
        (
            "too late",
            &[get("/a"), Wait(Duration::from_secs(60)), ok("x"), get("/b"), ok("y")],
            &["lost timeout", "GET /b 200 y"],
        ),
        (
            "half a response",
            &[
                get("/a"),
                down("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"),
                Wait(Duration::from_secs(60)),
                down("cd"),
                get("/b"),
                ok("y"),
            ],
            &["lost timeout", "GET /b 200 y"],
        ),
        (
            "half a request",
            &[
                up("POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\nab"),
                Wait(Duration::from_secs(60)),
                up("cd"),
                ok("x"),
                get("/b"),
                ok("y"),
            ],
            &["lost timeout", "GET /b 200 y"],
        ),
    ];
    for (name, steps, expected) in cases {
        check(name, steps, expected);
    }
}

#[test]
fn gaps_lose_what_they_touch() {
    let whole = &[usize::MAX][..];
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    let cases: &[(&str, &[Step], &[&str])] = &[
        (
            "between requests",
            &[get("/a"), ok("x"), Gap(ToServer, 50), ok("lost"), get("/b"), ok("y")],
            &["GET /a 200 x", "lost gap", "GET /b 200 y"],
        ),
        (
            "in a request head",
            &[up("GET /a HT"), Gap(ToServer, 9), ok("x"), get("/b"), ok("y")],
            &["lost gap", "GET /b 200 y"],
        ),
        (
            "in a request body of known length",
            &[
                up("POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nha"),
                Gap(ToServer, 5),
                up("lf"),
                ok("x"),
                get("/b"),
                ok("y"),
            ],
            &["lost gap", "GET /b 200 y"],
        ),
        (
            "at the end of a request body",
            &[
                up("POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"),
                Gap(ToServer, 5),
                ok("x"),
                get("/b"),
                ok("y"),
            ],
            &["lost gap", "GET /b 200 y"],
        ),
        (
            "beyond a request body",
            &[
                up("POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"),
                Gap(ToServer, 50),
                ok("x"),
                ok("?"),
                get("/b"),
                ok("y"),
            ],
            &["lost gap", "GET /b 200 y"],
        ),
        (
            "in a chunked request",
            &[
                up("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab"),
                Gap(ToServer, 5),
                up("\r\n0\r\n\r\n"),
                ok("x"),
                get("/b"),
                ok("y"),
            ],
            &["lost gap", "GET /b 200 y"],
        ),
        (
            "in a response of known length",
            &[get("/a"), down(half), Gap(ToClient, 3), down("xx"), get("/b"), ok("y")],
            &["lost gap", "GET /b 200 y"],
        ),
        (
            "a known length keeps pairs together",
            &[get("/a"), get("/b"), down(half), Gap(ToClient, 5), ok("y")],
            &["lost gap", "GET /b 200 y"],
        ),
        (
            "beyond a response",
            &[get("/a"), get("/b"), down(half), Gap(ToClient, 50), get("/c"), ok("z")],
            &["lost gap", "lost gap", "GET /c 200 z"],
        ),
        (
            "in a response head",
            &[get("/a"), down("HTTP/1.1 2"), Gap(ToClient, 9), down("x"), get("/b"), ok("y")],
            &["lost gap", "GET /b 200 y"],
        ),
        (
            "a whole response",
            &[get("/a"), Gap(ToClient, 50), get("/b"), ok("y")],
            &["lost gap", "GET /b 200 y"],
        ),
        (
            "in what ends with the connection",
            &[get("/a"), down("HTTP/1.1 200 OK\r\n\r\nab"), Gap(ToClient, 9), down("cd"), End(ToClient)],
            &["lost gap"],
        ),
        (
            "earlier requests keep their responses",
            &[get("/a"), get("/b"), Gap(ToServer, 50), ok("x"), ok("y"), ok("unseen"), get("/c"), ok("z")],
            &["lost gap", "GET /a 200 x", "GET /b 200 y", "GET /c 200 z"],
        ),
        (
            "under an upload: the response is of an exchange that is gone",
            &[
                up("POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\nab"),
                Gap(ToClient, 9),
                up("cd"),
                ok("x"),
                get("/b"),
                ok("y"),
            ],
            &["lost gap", "GET /b 200 y"],
        ),
        (
            "nothing of a connection left alone",
            &[up("\u{16}\u{3}\u{1}"), Gap(ToServer, 9), Gap(ToClient, 9)],
            &["skipped tls"],
        ),
    ];
    for (name, steps, expected) in cases {
        check_cut(name, false, whole, steps, expected);
    }
}

#[test]
fn connections_are_joined_at_a_request() {
    let cases: &[(&str, &[Step], &[&str])] = &[
        ("between exchanges", &[get("/a"), ok("x")], &["GET /a 200 x"]),
        ("in a response", &[down("tail of a body"), get("/a"), ok("x")], &["GET /a 200 x"]),
        ("in a request body", &[up("tail of a body"), ok("unseen"), get("/a"), ok("x")], &["GET /a 200 x"]),
        (
            "a request in a body that is none",
            &[up("GETTING / HTTP/1.1"), ok("unseen"), get("/a"), ok("x")],
            &["GET /a 200 x"],
        ),
        (
            "a request in a chunked body that is none",
            &[up("GET / HTTP/1.1\r\n\r\n\r\n0\r\nx: y\r\n\r\n"), ok("unseen"), get("/a"), ok("x")],
            &["lost malformed", "lost malformed", "GET /a 200 x"],
        ),
        (
            "a line that turns out to be none",
            &[up("GET /half"), up(" way\r\n"), ok("unseen"), get("/a"), ok("x")],
            &["GET /a 200 x"],
        ),
        (
            "a head that turns out to be none",
            &[up("GET /x HTTP/1.1\r\nno"), ok("unseen"), get("/a"), ok("x")],
            &["GET /a 200 x"],
        ),
        (
            "a request behind one that was not seen whole",
            &[
                up("half /0 HTTP/1.1\r\n\r\n"),
                get("/a"),
                get("/b"),
                ok("0"),
                ok("x"),
                ok("y"),
                get("/c"),
                ok("z"),
            ],
            &["lost unpaired", "lost unpaired", "GET /c 200 z"],
        ),
        (
            "a response that does not acknowledge the request",
            &[
                get("/a"),
                Step::DownBehind(28, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()),
                ok("x"),
            ],
            &["GET /a 200 x"],
        ),
        (
            "a response that acknowledges half the request",
            &[
                get("/a"),
                Step::DownBehind(9, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()),
                ok("x"),
                get("/b"),
                ok("y"),
            ],
            &["lost unpaired", "GET /b 200 y"],
        ),
        (
            "the rest of a response behind the request",
            &[get("/a"), down("tail"), ok("x"), get("/b"), ok("y")],
            &["lost unpaired", "GET /b 200 y"],
        ),
        (
            "100 Continue first",
            &[
                up("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n"),
                down("HTTP/1.1 100 Continue\r\n\r\n"),
                up("hi"),
                ok("x"),
            ],
            &["POST /a hi 200 x"],
        ),
        (
            "an early response",
            &[
                up("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n"),
                ok("early"),
                up("hi"),
                get("/b"),
                ok("y"),
                get("/c"),
                ok("z"),
            ],
            &["lost unpaired", "lost unpaired", "GET /c 200 z"],
        ),
        ("TLS from its start", &[up("\u{16}\u{3}\u{1}\u{2}\u{0}")], &["skipped tls"]),
        (
            "TLS in the middle",
            &[up("\u{17}\u{3}\u{3}\u{1}\u{0}..."), up("\u{17}\u{3}\u{3}")],
            &["skipped tls"],
        ),
        ("HTTP/2 from its start, without a request", &[up("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")], &[]),
        ("nothing to be joined", &[up("bytes"), down("more"), Gap(ToServer, 5), End(ToClient)], &[]),
    ];
    for (name, steps, expected) in cases {
        check_cut(name, true, &[usize::MAX], steps, expected);
    }
}

#[test]
fn pipelined_requests_are_bounded() {
    for (count, lost) in [(MAX_PIPELINED, 0), (MAX_PIPELINED + 1, MAX_PIPELINED + 1)] {
        let mut peer = Peer::new(false);
        for _ in 0..count {
            peer.play(&get("/a"), usize::MAX);
        }
        assert_eq!(peer.events.len(), lost, "{count} requests");
        assert!(
            peer.events
                .iter()
                .take(MAX_PIPELINED)
                .all(|event| matches!(event, Event::Lost(lost) if lost.reason == LostReason::Evicted))
        );
    }
}
