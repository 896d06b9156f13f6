//! Connections that are met in the middle, and those that become HTTP/2 on the way.

use super::encoder::{WINDOW_UPDATE, literal};
use super::*;

#[test]
fn a_connection_is_joined_at_the_head_of_a_request() {
    let mut talk = Talk::new();
    let steps = [talk.get(1, "/a"), talk.ok(1, "x"), talk.get(3, "/b"), talk.ok(3, "y")];
    check_joined("headers from before", &["skipped header_table"], &steps[2..]);
    let mut talk = Talk::new();
    talk.get(1, "/a");
    let mut plain = Talk::new();
    check_joined(
        "known since",
        &["GET /b 200 y", "GET /b 200 y"],
        &[plain.get(3, "/b"), talk.ok(3, "y"), plain.get(5, "/b"), talk.ok(5, "y")],
    );
    let mut talk = Talk::new();
    let busy = [last_data(7, "old body"), talk.head(9, "POST", "/a", 0), data(9, "hi")].concat();
    let answer = [frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]), last_data(5, "old")].concat();
    check_joined(
        "among streams whose start was not seen",
        &["POST /a hiho 200 x"],
        &[
            down("the middle of an old body"),
            up("the middle of another"),
            Up(busy),
            Down(answer),
            Up(last_data(9, "ho")),
            talk.ok(9, "x"),
        ],
    );
    let mut talk = Talk::new();
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 3, &literal("a", "b"));
    check_joined(
        "trailers of what was not seen are no request",
        &["GET /a 200 x", "GET /b 200 y"],
        &[talk.get(1, "/a"), Up(trailers), talk.ok(1, "x"), talk.get(5, "/b"), talk.ok(5, "y")],
    );
    let mut talk = Talk::new();
    check_joined(
        "at its start",
        &["GET /a 200 x"],
        &[hello(), vec![talk.get(1, "/a"), talk.ok(1, "x")]].concat(),
    );
    let mut talk = Talk::new();
    check_joined(
        "a response of which the head was not seen",
        &["lost gap", "GET /b 200 y"],
        &[
            talk.get(1, "/a"),
            down("the head in here cannot be found"),
            Down(last_data(1, "x")),
            talk.get(3, "/b"),
            talk.ok(3, "y"),
        ],
    );
    let mut talk = Talk::new();
    let frames = [talk.head(1, "GET", "/a", END_STREAM), data(1, "x")].concat();
    check_joined(
        "not within a segment",
        &[],
        &[Up([b"rest of a body", &frames[..]].concat()), talk.ok(1, "x")],
    );
}

#[test]
fn http_1_that_looks_like_http_2_stays_http_1() {
    let mut talk = Talk::new();
    let frames = Talk::new().head(1, "GET", "/nested", END_STREAM);
    let upload = format!("POST /a HTTP/1.1\r\nContent-Length: {}\r\n\r\n", frames.len());
    check_cut(
        "in a body",
        false,
        &[usize::MAX],
        &[
            up("PUT /0 HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
            ok("-"),
            up(upload),
            Up(frames.clone()),
            ok("x"),
        ],
        &["PUT /0 200 -", &format!("POST /a {} 200 x", String::from_utf8_lossy(&frames))],
    );
    check_joined(
        "in a body that is met in the middle",
        &["lost malformed", "GET /b 200 y"],
        &[Up(frames.clone()), ok("unseen"), get("/b"), ok("y")],
    );
    check_joined(
        "when a request was seen before",
        &["GET /a 200 x", "lost gap", "GET /b 200 y"],
        &[
            get("/a"),
            ok("x"),
            Gap(ToServer, 40),
            Up(frames),
            talk.ok(1, "z"),
            ok("unseen"),
            get("/b"),
            ok("y"),
        ],
    );
}

const ASKS: &str =
    "Host: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAUAAEAB\r\n";
const AGREES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";

#[test]
fn an_upgrade_is_answered_on_stream_1() {
    let mut talk = Talk::new();
    let Down(answer) = talk.ok(1, "x") else { panic!() };
    let server = [AGREES.as_bytes(), &encoder::settings(&[]), &answer].concat();
    let client = [PREFACE, &encoder::settings(&[])].concat();
    check(
        "with GET",
        &[
            up(format!("GET /a HTTP/1.1\r\n{ASKS}\r\n")),
            Down(server),
            Up(client.clone()),
            talk.get(3, "/b"),
            talk.ok(3, "y"),
        ],
        &["GET /a 200 x", "GET /b 200 y"],
    );
    let mut talk = Talk::new();
    check(
        "with a body, behind other exchanges",
        &[
            get("/0"),
            ok("-"),
            up(format!("POST /a HTTP/1.1\r\n{ASKS}Content-Length: 2\r\n\r\nhi")),
            down(AGREES),
            Down(encoder::settings(&[])),
            Up(client),
            talk.ok(1, "x"),
            talk.post(3, "/b", "ho"),
            talk.ok(3, "y"),
        ],
        &["GET /0 200 -", "POST /a hi 200 x", "POST /b ho 200 y"],
    );
    let mut talk = Talk::new();
    // The client's settings, with the request, allow frames of one byte more than usual.
    let large = [talk.status(1, "200", &[], 0), data(1, vec![0; 16385])].concat();
    check_cut(
        "settings with the request",
        false,
        &[usize::MAX],
        &[
            up(format!("GET /a HTTP/1.1\r\n{ASKS}\r\n")),
            down(AGREES),
            Down(encoder::settings(&[])),
            Down(large),
        ],
        &["skipped body_too_large"],
    );
    for (name, asks, agrees) in [
        ("another protocol", ASKS.replace("h2c", "websocket"), AGREES.replace("h2c", "websocket")),
        ("what nobody asked for", ASKS.replace("h2c", "foo"), AGREES.to_owned()),
        ("settings that are none", ASKS.replace("AAUAAEAB", "AAU!"), AGREES.to_owned()),
        ("half a setting", ASKS.replace("AAUAAEAB", "AAUA"), AGREES.to_owned()),
    ] {
        let request = up(format!("GET /a HTTP/1.1\r\n{asks}\r\n"));
        check(name, &[request, down(agrees), get("/b")], &["skipped upgrade"]);
    }
    check(
        "a client that goes on with something else",
        &[up(format!("GET /a HTTP/1.1\r\n{ASKS}\r\n")), down(AGREES), get("/b")],
        &["lost malformed"],
    );
    check(
        "refused",
        &[up(format!("GET /a HTTP/1.1\r\n{ASKS}\r\n")), ok("x"), get("/b"), ok("y")],
        &["GET /a 200 x", "GET /b 200 y"],
    );
}

#[test]
fn the_server_may_speak_first() {
    let mut talk = Talk::new();
    let mut steps = hello();
    steps.swap(0, 1);
    steps.extend([talk.get(1, "/a"), talk.ok(1, "x")]);
    check("SETTINGS", &steps, &["GET /a 200 x"]);
    check(
        "something else",
        &[down("\u{0}\u{0}\u{0}\u{4}x"), up("PRI * HTTP/2.0\r\n")],
        &["skipped not_http"],
    );
}
