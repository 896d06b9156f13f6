//! Plays conversations to a connection; what it makes of them is tested in the submodules, rule by rule.

use std::net::SocketAddr;

use super::*;
use crate::capture::Direction;
use crate::exchange::Timestamp;
use crate::tcp::{Chunk, Ending, Event as Input, Interest, Peers};

/// One step of a conversation.
#[derive(Clone, Debug)]
pub(in crate::http) enum Step {
    /// The client sends, having received everything so far.
    Up(Vec<u8>),
    /// The server sends, having received everything so far.
    Down(Vec<u8>),
    /// The server sends, having received so many bytes less than everything.
    DownBehind(u64, Vec<u8>),
    /// Bytes of the client, or of the server, are gone.
    Gap(Direction, u64),
    /// The client, or the server, is done.
    End(Direction),
    /// The connection is over.
    Over(Ending),
    /// So much time passes.
    Wait(Duration),
}

mod broken;
mod whole;

use Direction::{ToClient, ToServer};
use Step::{End, Gap, Over, Wait};

pub(in crate::http) fn up(text: impl Into<Vec<u8>>) -> Step {
    Step::Up(text.into())
}

pub(in crate::http) fn down(text: impl Into<Vec<u8>>) -> Step {
    Step::Down(text.into())
}

/// The largest body.
pub(in crate::http) const LIMIT: usize = 64;

pub(in crate::http) struct Peer {
    pub(in crate::http) connection: Connection,
    ids: Ids,
    seen: u64,
    pub(in crate::http) events: Vec<Event>,
    interest: Interest,
    now: Timestamp,
    offsets: [u64; 2],
}

impl Peer {
    pub(in crate::http) fn new(joined: bool) -> Peer {
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

    pub(in crate::http) fn input(&mut self, input: Input<'_>) {
        let settings = Settings { body: LIMIT, exchange_timeout: Duration::from_secs(60) };
        let Peer { connection, ids, seen, events, .. } = self;
        let mut emit = |event| events.push(event);
        let mut context = Context { settings: &settings, ids, seen, emit: &mut emit };
        self.interest = connection.handle(input, &mut context);
        let open = self.connection.load().open as u64;
        assert_eq!(self.seen, self.events.len() as u64 + open, "the books balance after every step");
    }

    /// Sends bytes in pieces of that size.
    fn send(&mut self, direction: Direction, bytes: &[u8], behind: u64, size: usize) {
        let (own, other) = if direction == ToServer { (0, 1) } else { (1, 0) };
        for bytes in bytes.chunks(size) {
            let (offset, ack) = (self.offsets[own], self.offsets[other].checked_sub(behind));
            self.offsets[own] += bytes.len() as u64;
            self.now = Timestamp(self.now.0 + 1);
            self.input(Input::Data(Chunk { direction, time: self.now, offset, ack, bytes }));
        }
    }

    pub(in crate::http) fn play(&mut self, step: &Step, size: usize) {
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
pub(in crate::http) fn brief(event: &Event) -> String {
    match event {
        Event::Exchange(Exchange { request, response, .. }) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let part =
                |bytes: &[u8]| if bytes.is_empty() { String::new() } else { format!(" {}", text(bytes)) };
            let (target, sent, got) = (text(&request.target), part(&request.body), part(&response.body));
            format!("{} {target}{sent} {}{got}", request.method, response.status)
        }
        Event::Skipped(reason) => format!("skipped {reason}"),
        Event::Lost(lost) => format!("lost {}", lost.reason),
    }
}

/// Plays a conversation, whole and cut into pieces, and compares what came of it.
#[track_caller]
pub(in crate::http) fn check_cut(
    name: &str,
    joined: bool,
    sizes: &[usize],
    steps: &[Step],
    expected: &[&str],
) {
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
pub(in crate::http) fn check(name: &str, steps: &[Step], expected: &[&str]) {
    // Under Miri each takes thousands of times as long.
    let sizes: &[usize] = if cfg!(miri) { &[usize::MAX, 7] } else { &[usize::MAX, 1, 2, 3, 7] };
    check_cut(name, false, sizes, steps, expected);
}

pub(in crate::http) fn get(target: &str) -> Step {
    up(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))
}

fn post(target: &str, body: &str) -> Step {
    up(format!("POST {target} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

pub(in crate::http) fn ok(body: &str) -> Step {
    down(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

#[test]
fn that_there_is_http_2_makes_no_other_connection_larger() {
    assert_eq!(size_of::<Connection>(), size_of::<h1::Connection>());
}
