//! Conversations of which nothing is missing.

use super::*;

#[test]
fn messages_and_their_framing() {
    let cases: &[(&str, &[Step], &[&str])] = &[
        ("content-length", &[post("/a", "hello"), ok("world")], &["POST /a hello 200 world"]),
        ("keep-alive", &[get("/a"), ok("x"), get("/b"), ok("y")], &["GET /a 200 x", "GET /b 200 y"]),
        (
            "chunked both ways",
            &[
                up("PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
                down(
                    "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\nd\r\n2\r\nef\r\n0\r\nA: b\r\n\r\n",
                ),
                get("/b"),
                ok(""),
            ],
            &["PUT /a abc 201 def", "GET /b 200"],
        ),
        (
            "until close",
            &[get("/a"), down("HTTP/1.1 200 OK\r\n\r\nall of it"), End(ToClient), End(ToServer)],
            &["GET /a 200 all of it"],
        ),
        (
            "HTTP/1.0 until close",
            &[up("GET /a HTTP/1.0\r\n\r\n"), down("HTTP/1.0 200 OK\r\n\r\nold"), End(ToClient)],
            &["GET /a 200 old"],
        ),
        (
            "HTTP/1.0 with length",
            &[
                up("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
                down("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"),
                get("/b"),
                ok("y"),
            ],
            &["GET /a 200 x", "GET /b 200 y"],
        ),
        (
            "HEAD",
            &[
                up("HEAD /a HTTP/1.1\r\n\r\n"),
                down("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
                get("/b"),
                ok("y"),
            ],
            &["HEAD /a 200", "GET /b 200 y"],
        ),
        (
            "HEAD until close, which has no body",
            &[up("HEAD /a HTTP/1.1\r\n\r\n"), down("HTTP/1.1 200 OK\r\n\r\n"), get("/b"), ok("y")],
            &["HEAD /a 200", "GET /b 200 y"],
        ),
        (
            "204",
            &[get("/a"), down("HTTP/1.1 204 No Content\r\n\r\n"), get("/b"), ok("y")],
            &["GET /a 204", "GET /b 200 y"],
        ),
        (
            "304 with the length of what it stands for",
            &[get("/a"), down("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"), get("/b"), ok("y")],
            &["GET /a 304", "GET /b 200 y"],
        ),
        ("no content", &[get("/a"), ok("")], &["GET /a 200"]),
        (
            "pipelined",
            &[
                up(
                    "GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET /c HTTP/1.1\r\n\r\n",
                ),
                down(
                    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 204 N\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3",
                ),
            ],
            &["GET /a 200 1", "POST /b hi 204", "GET /c 200 3"],
        ),
        (
            "lone line feeds",
            &[up("GET /a HTTP/1.1\nHost: h\n\n"), down("HTTP/1.1 200 OK\nContent-Length: 1\n\nx")],
            &["GET /a 200 x"],
        ),
        (
            "lines that are folded, as long ago",
            &[
                up(
                    "POST /a HTTP/1.1\r\nA: b\r\n\tc\r\n   d\r\nTransfer-Encoding:\r\n chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
                ),
                down("HTTP/1.1 200 OK\nContent-Length:\n 1\nA: b\n \n\nx"),
                get("/b"),
                ok("y"),
            ],
            &["POST /a x 200 x", "GET /b 200 y"],
        ),
        (
            "spaces between a name and its colon, in a response",
            &[get("/a"), down("HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\nx")],
            &["GET /a 200 x"],
        ),
        (
            "the same length twice",
            &[up("POST /a HTTP/1.1\r\nContent-Length: 1, 1\r\nContent-Length: 1\r\n\r\nx"), ok("y")],
            &["POST /a x 200 y"],
        ),
        (
            "targets in absolute and asterisk form",
            &[
                up("GET http://h:80/a?b HTTP/1.1\r\nHost: h\r\n\r\n"),
                ok(""),
                up("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"),
                ok(""),
            ],
            &["GET http://h:80/a?b 200", "OPTIONS * 200"],
        ),
        (
            "empty lines between messages",
            &[
                up("\r\nPOST /a HTTP/1.1\r\nContent-Length: 1\r\n\r\nx\r\n"),
                ok("y"),
                up("\r\n"),
                down("\r\n"),
                get("/b"),
                ok(""),
            ],
            &["POST /a x 200 y", "GET /b 200"],
        ),
        (
            "status without reason",
            &[get("/a"), down("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n")],
            &["GET /a 200"],
        ),
        (
            "a method at the limit",
            &[up(format!("{} /a HTTP/1.1\r\n\r\n", "M".repeat(64))), ok("x")],
            &[&format!("{} /a 200 x", "M".repeat(64))],
        ),
        ("extension method", &[up("M-SEARCH * HTTP/1.1\r\n\r\n"), ok("")], &["M-SEARCH * 200"]),
        (
            "a half-closed client still gets its response",
            &[get("/a"), End(ToServer), ok("x")],
            &["GET /a 200 x"],
        ),
    ];
    for (name, steps, expected) in cases {
        check(name, steps, expected);
    }
}

#[test]
fn interim_and_early_responses() {
    let cases: &[(&str, &[Step], &[&str])] = &[
        (
            "100 Continue",
            &[
                up("POST /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"),
                down("HTTP/1.1 100 Continue\r\n\r\n"),
                up("hi"),
                ok("x"),
                get("/b"),
                ok("y"),
            ],
            &["POST /a hi 200 x", "GET /b 200 y"],
        ),
        (
            "100 and 103, together with the response",
            &[
                get("/a"),
                down(
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 N\r\n\r\n",
                ),
            ],
            &["GET /a 204"],
        ),
        (
            "a response before the request ends",
            &[
                up("POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\nhi"),
                ok("early"),
                up("ho"),
                get("/b"),
                ok("y"),
            ],
            &["POST /a hiho 200 early", "GET /b 200 y"],
        ),
        (
            "a refusal instead of the rest",
            &[
                up("POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\nhi"),
                down("HTTP/1.1 413 Too Large\r\n\r\nno"),
                End(ToClient),
                End(ToServer),
                Over(Ending::Closed),
            ],
            &["lost truncated"],
        ),
        (
            "a second response to an unfinished request",
            &[
                up("POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\nhi"),
                ok("x"),
                ok("y"),
                up("ho"),
                get("/b"),
                ok("z"),
                get("/c"),
                ok("z"),
            ],
            &["lost unpaired", "lost unpaired", "GET /c 200 z"],
        ),
    ];
    for (name, steps, expected) in cases {
        check(name, steps, expected);
    }
}

#[test]
fn what_is_left_alone() {
    let big = "x".repeat(LIMIT + 1);
    let fits = "x".repeat(LIMIT);
    let chunked = format!("{:x}\r\n{big}\r\n0\r\n\r\n", big.len());
    let fitting = format!("GET /a 200 {fits}");
    let cases: &[(&str, &[Step], &[&str])] = &[
        ("TLS", &[up("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}"), down("\u{16}\u{3}\u{3}")], &["skipped tls"]),
        ("what begins like HTTP/2 only", &[up("PRI * HTTP/2.0\r\n\r\nNO"), down("x")], &["skipped not_http"]),
        (
            "another protocol",
            &[up("*1\r\n$4\r\nPING\r\n"), down("+PONG\r\n"), up("*1\r\n")],
            &["skipped not_http"],
        ),
        ("a line that is no request", &[up("EHLO example.org\r\n"), up("QUIT\r\n")], &["skipped not_http"]),
        (
            "a method that is too long, whole or in pieces",
            &[up(format!("{} /a HTTP/1.1\r\n\r\n", "M".repeat(65))), ok("x")],
            &["skipped not_http"],
        ),
        ("HTTP/0.9", &[up("GET /\r\n"), down("<html>")], &["skipped not_http"]),
        ("the server speaks first", &[down("220 mail\r\n"), up("EHLO\r\n")], &["skipped not_http"]),
        (
            "upgrade",
            &[
                up("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
                down("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u{1}\u{2}"),
                up("\u{1}"),
                get("/b"),
            ],
            &["skipped upgrade"],
        ),
        (
            "upgrade refused",
            &[up("GET /ws HTTP/1.1\r\nUpgrade: h2c\r\n\r\n"), ok("x"), get("/b"), ok("y")],
            &["GET /ws 200 x", "GET /b 200 y"],
        ),
        (
            "tunnel",
            &[
                up("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n"),
                down("HTTP/1.1 200 Connected\r\n\r\n"),
                up("\u{16}\u{3}"),
            ],
            &["skipped upgrade"],
        ),
        (
            "tunnel used before it is granted",
            &[up("CONNECT h:443 HTTP/1.1\r\n\r\n"), up("\u{16}\u{3}"), down("HTTP/1.1 200 C\r\n\r\n")],
            &["skipped upgrade"],
        ),
        (
            "event stream",
            &[
                get("/a"),
                down(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
                ),
                down("0\r\n\r\n"),
                get("/b"),
                ok("y"),
            ],
            &["skipped streaming", "GET /b 200 y"],
        ),
        (
            "body at the limit",
            &[get("/a"), ok(&fits), post("/b", &fits), ok("")],
            &[&fitting, &format!("POST /b {fits} 200")],
        ),
        (
            "body beyond the limit",
            &[get("/a"), ok(&big), post("/b", &big), ok(""), get("/c"), ok("y")],
            &["skipped body_too_large", "skipped body_too_large", "GET /c 200 y"],
        ),
        (
            "chunked body beyond the limit",
            &[
                up(format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}")),
                down(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}")),
                get("/b"),
                ok("y"),
            ],
            &["skipped body_too_large", "GET /b 200 y"],
        ),
        (
            "body beyond the limit until close",
            &[get("/a"), down(format!("HTTP/1.1 200 OK\r\n\r\n{big}")), End(ToClient)],
            &["skipped body_too_large"],
        ),
    ];
    for (name, steps, expected) in cases {
        check(name, steps, expected);
    }
    check_cut(
        "tunnel refused",
        false,
        &[usize::MAX],
        &[
            up("CONNECT h:443 HTTP/1.1\r\n\r\n"),
            down("HTTP/1.1 407 Auth\r\nContent-Length: 1\r\n\r\nx"),
            get("/b"),
            ok("y"),
        ],
        &["CONNECT h:443 407 x", "GET /b 200 y"],
    );
}

#[test]
fn parts_are_timed_and_kept_as_received() {
    let mut peer = Peer::new(false);
    let steps = [
        up("POST /a?b=c HTTP/1.1\r\nhOsT: h\r\nX: \r\nX: 2\r\nTransfer-Encoding: chunked\r\n"),
        up("\r\n1\r\nx\r\n"),
        up("0\r\nT: u\r\n\r\n"),
        down("HTTP/1.1 103 Early\r\n\r\n"),
        down("HTTP/1.0 299 Fine\r\nContent-Length: 2\r\n\r\n"),
        down("ab"),
    ];
    for step in steps {
        peer.play(&step, usize::MAX);
    }
    let [Event::Exchange(exchange)] = &peer.events[..] else { panic!("{:?}", peer.events) };
    let times = exchange.times;
    let order = [times.started, times.request_done, times.response_started, times.response_done];
    assert_eq!(order, [2, 4, 6, 7].map(Timestamp));
    let fields: Vec<_> =
        exchange.request.headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let expected: [(&[u8], &[u8]); 4] =
        [(b"hOsT", b"h"), (b"X", b""), (b"X", b"2"), (b"Transfer-Encoding", b"chunked")];
    assert_eq!(fields, expected);
    assert_eq!(exchange.request.target, "/a?b=c");
    assert_eq!(exchange.request.trailers.get("t").unwrap(), "u");
    assert_eq!((exchange.request.version, exchange.response.version), (http_11(), http_10()));
}

fn http_10() -> ::http::Version {
    ::http::Version::HTTP_10
}

fn http_11() -> ::http::Version {
    ::http::Version::HTTP_11
}

#[test]
fn what_is_read_is_accounted_for() {
    let mut peer = Peer::new(false);
    peer.play(&post("/a", &"x".repeat(LIMIT)), 40);
    let request = peer.connection.load();
    assert!(request.buffered >= LIMIT && request.open == 1, "{request:?}");
    peer.play(&down("HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\nhalf"), 40);
    assert!(peer.connection.load().buffered > request.buffered);
    peer.play(&down("x".repeat(60)), 40);
    assert_eq!(peer.connection.load(), crate::tcp::Load::default());
    assert_eq!(peer.events.len(), 1);
}
