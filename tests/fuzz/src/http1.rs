//! HTTP/1 on one connection: the books balance, and what is whole does not depend on how it was cut into segments.

use crate::talk::{numbered, play};

/// What one side says until the other one does.
const TURN: u8 = 0xFF;

/// The first byte says how the second play is cut; then client and server take turns, which 0xFF ends.
pub fn check(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let turns: Vec<&[u8]> = bytes.split(|&byte| byte == TURN).collect();
    let whole = play(&numbered(&turns), usize::MAX);
    let cut = play(&numbered(&turns), usize::from(size % 64) + 1);
    let ((whole, clean), (cut, _)) = (crate::told(&whole), crate::told(&cut));
    if clean {
        assert_eq!(whole, cut, "cut into pieces of {}", size % 64 + 1);
    }
}

/// Conversations of every framing.
pub fn seeds() -> Vec<Vec<u8>> {
    let talk = |size: u8, turns: &[&str]| {
        let turns: Vec<&[u8]> = turns.iter().map(|turn| turn.as_bytes()).collect();
        [&[size][..], &turns.join(&TURN)].concat()
    };
    let get = "GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    vec![
        talk(0, &[get, ok, get, ok]),
        talk(
            3,
            &["POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n", ok],
        ),
        talk(7, &[get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", get, ok]),
        talk(1, &[get, "HTTP/1.0 200 OK\r\n\r\nuntil the end"]),
        talk(
            5,
            &[
                "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                "HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n",
                get,
                ok,
            ],
        ),
        talk(
            9,
            &[
                "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
                "HTTP/1.1 100 C\r\n\r\n",
                "hi",
                ok,
            ],
        ),
        talk(2, &["CONNECT h:443 HTTP/1.1\r\n\r\n", "HTTP/1.1 407 A\r\nContent-Length: 0\r\n\r\n", get, ok]),
        talk(4, &["GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n\r\nGET / HTTP/1.1\n\n", &[ok, ok].concat()]),
        talk(6, &["GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 101 S\r\n\r\n\u{1}\u{2}"]),
        talk(8, &["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]),
        talk(8, &["\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}"]),
    ]
}
