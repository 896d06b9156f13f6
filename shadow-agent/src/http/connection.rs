//! One connection: finds out whether HTTP/1 or HTTP/2 is spoken on it, and hands on what happens to whom reads that.
//!
//! HTTP/2 is known by the client's preface, by the SETTINGS that a server may send before it, and by an upgrade. On a
//! connection that was met in the middle it takes evidence (`h2::evidence`), and nothing that only HTTP/1 says may have
//! been seen; when the server then answers in HTTP/1, it was none.

use super::{Context, h1, h2};
use crate::capture::Direction;
use crate::exchange::{ConnectionId, Timestamp};
use crate::tcp::{Chunk, Event as Input, Interest, Load, Peers};

/// The header of a SETTINGS frame, the last two bytes of its length aside (RFC 9113, section 6.5).
const SETTINGS: [Option<u8>; 9] = [Some(0), None, None, Some(4), Some(0), Some(0), Some(0), Some(0), Some(0)];

/// One connection as HTTP sees it.
#[derive(Debug)]
pub struct Connection(Speaks);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every connection is HTTP/1, and stays it")]
enum Speaks {
    Opening(Opening),
    Http1(h1::Connection),
    Http2(Box<h2::Connection>),
}

/// A connection that is met at its start, until its first bytes tell what is spoken on it.
#[derive(Debug)]
struct Opening {
    id: ConnectionId,
    peers: Peers,
    /// So many bytes of the client's are the preface's.
    asked: usize,
    /// When the first of them was captured, and what the client had received.
    started: (Timestamp, Option<u64>),
    /// What the server sent, which may be the header of SETTINGS.
    said: [u8; 9],
    said_len: usize,
    said_at: Timestamp,
}

enum Judgement {
    Open,
    Http1,
    Http2,
}

impl Connection {
    /// A connection that was just met.
    #[must_use]
    pub fn new(id: ConnectionId, peers: &Peers) -> Connection {
        Connection(if peers.joined {
            Speaks::Http1(h1::Connection::new(id, peers))
        } else {
            Speaks::Opening(Opening::new(id, *peers))
        })
    }

    /// Takes what happened on the connection.
    pub fn handle(&mut self, event: Input<'_>, cx: &mut Context<'_>) -> Interest {
        if let Speaks::Opening(opening) = &mut self.0 {
            let mut next = match opening.judge(&event) {
                Judgement::Open => return Interest::Follow,
                Judgement::Http1 => Speaks::Http1(h1::Connection::new(opening.id, &opening.peers)),
                Judgement::Http2 => {
                    let Peers { client, server, .. } = opening.peers;
                    Speaks::Http2(Box::new(h2::Connection::new(opening.id, client, server)))
                }
            };
            opening.tell(&mut |event| next.handle(event, cx));
            self.0 = next;
        }
        if let Input::Data(chunk) = &event {
            self.reconsider(chunk, cx);
        }
        let interest = self.0.handle(event, cx);
        match event {
            Input::Data(chunk) => self.upgrade(&chunk, cx).unwrap_or(interest),
            _ => interest,
        }
    }

    /// What is held at this moment: bytes allocated, and exchanges whose event is still to come.
    #[must_use]
    pub fn load(&self) -> Load {
        match &self.0 {
            Speaks::Opening(_) => Load::default(),
            Speaks::Http1(connection) => connection.load(),
            Speaks::Http2(connection) => connection.load(),
        }
    }

    /// Changes the mind about a connection that was met in the middle.
    fn reconsider(&mut self, chunk: &Chunk<'_>, cx: &mut Context<'_>) {
        let bytes = chunk.bytes;
        match (&mut self.0, chunk.direction) {
            (Speaks::Http1(http1), Direction::ToServer)
                if http1.is_undecided() && h2::evidence(bytes) == Some(Direction::ToServer) =>
            {
                let (id, client, server) = http1.name();
                let is_start = bytes.starts_with(h2::PREFACE);
                let met = if is_start { h2::Connection::at_preface } else { h2::Connection::joined };
                self.0 = Speaks::Http2(Box::new(met(id, client, server)));
            }
            (Speaks::Http2(http2), Direction::ToClient)
                if http2.is_doubtful() && bytes.starts_with(b"HTTP/1.") =>
            {
                http2.give_up(cx);
                let (id, client, server) = http2.name();
                let mut http1 = h1::Connection::new(id, &Peers { client, server, joined: true });
                http1.resume_at(chunk.ack.unwrap_or_default());
                self.0 = Speaks::Http1(http1);
            }
            _ => {}
        }
    }

    /// Goes on with HTTP/2 if that is what both sides have just agreed on.
    fn upgrade(&mut self, chunk: &Chunk<'_>, cx: &mut Context<'_>) -> Option<Interest> {
        let Speaks::Http1(http1) = &mut self.0 else { return None };
        let upgrade = http1.take_upgrade()?;
        let (id, client, server) = http1.name();
        let read = chunk.bytes.len().saturating_sub(upgrade.unread);
        let bytes = chunk.bytes.get(read..).unwrap_or_default();
        let mut http2 = Box::new(h2::Connection::upgraded(id, client, server, upgrade));
        if !bytes.is_empty() {
            http2.handle(Input::Data(Chunk { bytes, offset: chunk.offset + read as u64, ..*chunk }), cx);
        }
        self.0 = Speaks::Http2(http2);
        Some(Interest::Follow)
    }
}

impl Speaks {
    fn handle(&mut self, event: Input<'_>, cx: &mut Context<'_>) -> Interest {
        match self {
            Speaks::Opening(_) => Interest::Follow,
            Speaks::Http1(connection) => connection.handle(event, cx),
            Speaks::Http2(connection) => connection.handle(event, cx),
        }
    }
}

impl Opening {
    fn new(id: ConnectionId, peers: Peers) -> Opening {
        let (started, said_at) = Default::default();
        Opening { id, peers, asked: 0, started, said: [0; 9], said_len: 0, said_at }
    }

    /// Judges by what happens next, of which bytes are kept only while the question is open.
    fn judge(&mut self, event: &Input<'_>) -> Judgement {
        let chunk = match event {
            Input::Tick(_) => return Judgement::Open,
            Input::Data(chunk) => chunk,
            _ => return Judgement::Http1,
        };
        match chunk.direction {
            Direction::ToServer => {
                let (_, expected) = h2::PREFACE.split_at(self.asked.min(h2::PREFACE.len()));
                if chunk.bytes.starts_with(expected) {
                    return Judgement::Http2;
                }
                if !expected.starts_with(chunk.bytes) {
                    return Judgement::Http1;
                }
                if self.asked == 0 {
                    self.started = (chunk.time, chunk.ack);
                }
                self.asked += chunk.bytes.len();
            }
            Direction::ToClient => {
                let expected = SETTINGS.get(self.said_len..).unwrap_or_default();
                if !expected.iter().zip(chunk.bytes).all(|(byte, said)| byte.is_none_or(|byte| byte == *said))
                {
                    return Judgement::Http1;
                }
                if chunk.bytes.len() >= expected.len() {
                    return Judgement::Http2;
                }
                if self.said_len == 0 {
                    self.said_at = chunk.time;
                }
                let place = self.said.get_mut(self.said_len..).unwrap_or_default();
                place.iter_mut().zip(chunk.bytes).for_each(|(place, byte)| *place = *byte);
                self.said_len += chunk.bytes.len();
            }
        }
        Judgement::Open
    }

    /// Tells what was kept.
    fn tell(&self, take: &mut dyn FnMut(Input<'_>) -> Interest) {
        let (time, ack) = self.started;
        let asked = h2::PREFACE.get(..self.asked).unwrap_or_default();
        let said = self.said.get(..self.said_len).unwrap_or_default();
        let asked = Chunk { direction: Direction::ToServer, time, offset: 0, ack, bytes: asked };
        let said =
            Chunk { direction: Direction::ToClient, time: self.said_at, offset: 0, ack: None, bytes: said };
        for chunk in [asked, said].into_iter().filter(|chunk| !chunk.bytes.is_empty()) {
            take(Input::Data(chunk));
        }
    }
}
