//! What a connection makes of bytes, rule by rule.

use std::net::SocketAddr;

use super::*;
use crate::capture::Direction;
use crate::exchange::Timestamp;
use crate::tcp::{Chunk, Ending, Event as Input, Interest, Peers};

/// One step of a conversation.
#[derive(Clone, Debug)]
enum Step {
    /// The client sends, having received everything so far.
    Up(String),
    /// The server sends, having received everything so far.
    Down(String),
    /// The server sends, having received so many bytes less than everything.
    DownBehind(u64, String),
    /// Bytes of the client, or of the server, are gone.
    Gap(Direction, u64),
    /// The client, or the server, is done.
    End(Direction),
    /// The connection is over.
    Over(Ending),
    /// So much time passes.
    Wait(Duration),
}

use Direction::{ToClient, ToServer};
use Step::{End, Gap, Over, Wait};

fn up(text: impl Into<String>) -> Step {
    Step::Up(text.into())
}

fn down(text: impl Into<String>) -> Step {
    Step::Down(text.into())
}

const LIMIT: usize = 64;

struct Peer {
    connection: Connection,
    ids: Ids,
    seen: u64,
    events: Vec<Event>,
    interest: Interest,
    now: Timestamp,
    offsets: [u64; 2],
}

impl Peer {
    fn new(joined: bool) -> Peer {
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let peers = Peers { client: address, server: address, joined };
        Peer {
            connection: Connection::new(ConnectionId(1), &peers),
            ids: Ids::new(0),
            seen: 0,
            events: Vec::new(),
            interest: Interest::Follow,
            now: Timestamp(1),
            offsets: [0; 2],
        }
    }

    fn input(&mut self, input: Input<'_>) {
        let settings = Settings { body: LIMIT, exchange_timeout: Duration::from_secs(60) };
        let Peer { connection, ids, seen, events, .. } = self;
        let mut emit = |event| events.push(event);
        let mut context = Context { settings: &settings, ids, seen, emit: &mut emit };
        self.interest = connection.handle(input, &mut context);
        let open = self.connection.load().open as u64;
        assert_eq!(self.seen, self.events.len() as u64 + open, "the books balance after every step");
    }

    /// Sends bytes in pieces of that size.
    fn send(&mut self, direction: Direction, text: &str, behind: u64, size: usize) {
        let (own, other) = if direction == ToServer { (0, 1) } else { (1, 0) };
        for bytes in text.as_bytes().chunks(size) {
            let (offset, ack) = (self.offsets[own], self.offsets[other].checked_sub(behind));
            self.offsets[own] += bytes.len() as u64;
            self.now = Timestamp(self.now.0 + 1);
            self.input(Input::Data(Chunk { direction, time: self.now, offset, ack, bytes }));
        }
    }

    fn play(&mut self, step: &Step, size: usize) {
        let time = self.now;
        match step {
            Step::Up(text) => self.send(ToServer, text, 0, size),
            Step::Down(text) => self.send(ToClient, text, 0, size),
            Step::DownBehind(bytes, text) => self.send(ToClient, text, *bytes, size),
            Gap(direction, length) => {
                self.offsets[if *direction == ToServer { 0 } else { 1 }] += length;
                self.input(Input::Gap { direction: *direction, length: *length, time });
            }
            End(direction) => self.input(Input::End { direction: *direction, time }),
            Over(ending) => self.input(Input::Over(*ending)),
            Wait(span) => {
                self.now = self.now.plus(*span);
                self.input(Input::Tick(self.now));
            }
        }
    }
}

/// An event in a few characters: `GET /a 200 body`, `skipped tls`, `lost gap`.
fn brief(event: &Event) -> String {
    match event {
        Event::Exchange(Exchange { request, response, .. }) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let part =
                |bytes: &[u8]| if bytes.is_empty() { String::new() } else { format!(" {}", text(bytes)) };
            let (target, sent, got) = (text(&request.target), part(&request.body), part(&response.body));
            format!("{} {target}{sent} {}{got}", request.method, response.status)
        }
        Event::Skipped(reason) => format!("skipped {reason}"),
        Event::Lost(reason) => format!("lost {reason}"),
    }
}

/// Plays a conversation, whole and cut into pieces, and compares what came of it.
#[track_caller]
fn check_cut(name: &str, joined: bool, sizes: &[usize], steps: &[Step], expected: &[&str]) {
    for &size in sizes {
        let mut peer = Peer::new(joined);
        for step in steps {
            peer.play(step, size);
        }
        let events: Vec<String> = peer.events.iter().map(brief).collect();
        assert_eq!(events, expected, "{name}, in pieces of {size}");
        peer.input(Input::Over(Ending::Shutdown));
        assert_eq!(peer.connection.load(), crate::tcp::Load::default(), "{name}: nothing stays");
    }
}

#[track_caller]
fn check(name: &str, steps: &[Step], expected: &[&str]) {
    check_cut(name, false, &[usize::MAX, 1, 2, 3, 7], steps, expected);
}

fn get(target: &str) -> Step {
    up(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))
}

fn post(target: &str, body: &str) -> Step {
    up(format!("POST {target} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn ok(body: &str) -> Step {
    down(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

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
        ("HTTP/2", &[up("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u{0}\u{0}"), down("\u{0}")], &["skipped http2"]),
        (
            "another protocol",
            &[up("*1\r\n$4\r\nPING\r\n"), down("+PONG\r\n"), up("*1\r\n")],
            &["skipped not_http"],
        ),
        ("a line that is no request", &[up("EHLO example.org\r\n"), up("QUIT\r\n")], &["skipped not_http"]),
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
fn what_is_malformed_is_lost_and_the_next_request_found() {
    let after = [get("/b"), ok("y")];
    let found = ["lost malformed", "GET /b 200 y"];
    let bad_requests = [
        "POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET /a HTTP/1.1\r\nbad header\r\n\r\n",
        "GET /a HTTP/1.1\r\nA : b\r\n\r\n",
        "GET /a HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
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
        ("HTTP/2 from its start", &[up("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")], &["skipped http2"]),
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
            peer.events.iter().take(MAX_PIPELINED).all(|event| *event == Event::Lost(LostReason::Evicted))
        );
    }
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
