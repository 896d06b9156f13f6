//! One HTTP/2 connection: the streams under way on it, and what gaps, ends and time do to them.
//!
//! What frames mean is read in `requests` and `responses`.

use std::net::SocketAddr;

use super::frame::Malformed;
use super::framer::Skipped;
use super::side::{Said, Side};
use super::stream::{Half, Phase, Stream};
use super::{Context, Event, Fate, MAX_STREAMS};
use crate::capture::Direction;
use crate::exchange::{ConnectionId, Exchange, Lost, LostReason, SkipReason, Times, Timestamp};
use crate::http::h1;
use crate::tcp::{self, Chunk, Ending, Interest, Load};

/// RFC 9113, section 6.5.2.
const SETTINGS_MAX_FRAME_SIZE: u16 = 5;

/// One connection as HTTP/2 sees it.
#[derive(Debug)]
pub(in crate::http) struct Connection {
    id: ConnectionId,
    client: SocketAddr,
    server: SocketAddr,
    /// What the client says.
    pub(super) up: Side,
    /// What the server says.
    pub(super) down: Side,
    /// Exchanges under way, by the number of their streams.
    #[expect(clippy::vec_box, reason = "they end anywhere in between, and are large")]
    pub(super) streams: Vec<Box<Stream>>,
    /// The last stream that the client is known to have begun, or 0.
    pub(super) last: u32,
    /// Whether streams behind that may have begun in a gap.
    pub(super) missed: bool,
    /// The last stream that the server will look at.
    pub(super) last_served: Option<u32>,
    /// Whether streams may have begun before it was met.
    pub(super) is_joined: bool,
    /// Whether the server has not spoken HTTP/2 yet where the client seems to.
    is_doubtful: bool,
    /// Whether nothing that follows matters.
    dead: bool,
    /// Bytes kept in the streams.
    pub(super) held: usize,
}

impl Connection {
    /// A connection whose first bytes come next.
    pub(in crate::http) fn new(id: ConnectionId, client: SocketAddr, server: SocketAddr) -> Connection {
        Connection {
            id,
            client,
            server,
            up: Side::new(Direction::ToServer),
            down: Side::new(Direction::ToClient),
            streams: Vec::new(),
            last: 0,
            missed: false,
            last_served: None,
            is_joined: false,
            is_doubtful: false,
            dead: false,
            held: 0,
        }
    }

    /// A connection that is met in the middle; the client's preface comes next.
    pub(in crate::http) fn at_preface(
        id: ConnectionId,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Connection {
        let down = Side::early(Direction::ToClient);
        Connection { down, is_doubtful: true, ..Connection::new(id, client, server) }
    }

    /// A connection that is met in the middle; a frame of the client comes next.
    pub(in crate::http) fn joined(id: ConnectionId, client: SocketAddr, server: SocketAddr) -> Connection {
        let mut up = Side::joined(Direction::ToServer);
        up.found();
        let down = Side::joined(Direction::ToClient);
        let new = Connection::new(id, client, server);
        Connection { up, down, is_joined: true, is_doubtful: true, ..new }
    }

    /// A connection that was HTTP/1 until now: the response to its last request comes on stream 1 (RFC 7540, section
    /// 3.2).
    pub(in crate::http) fn upgraded(
        id: ConnectionId,
        client: SocketAddr,
        server: SocketAddr,
        upgrade: h1::Upgrade,
    ) -> Connection {
        let mut connection = Connection::new(id, client, server);
        connection.settings(Direction::ToServer, &upgrade.settings);
        let h1::Upgraded { id, request, times, cost } = upgrade.exchange;
        let (up, down) = (Half::done(), Half::expected());
        let (response, is_blind) = (None, false);
        let stream = Stream { number: 1, id, request, response, up, down, times, cost, is_blind };
        connection.streams.push(Box::new(stream));
        (connection.last, connection.held) = (1, cost);
        connection
    }

    /// Who it belongs to.
    pub(in crate::http) fn name(&self) -> (ConnectionId, SocketAddr, SocketAddr) {
        (self.id, self.client, self.server)
    }

    /// Whether the server has not spoken HTTP/2 yet on a connection that was met in the middle.
    pub(in crate::http) fn is_doubtful(&self) -> bool {
        self.is_doubtful && !self.dead
    }

    /// Takes what happened on the connection.
    pub(in crate::http) fn handle(&mut self, event: tcp::Event<'_>, cx: &mut Context<'_>) -> Interest {
        if !self.dead {
            match event {
                tcp::Event::Data(chunk) => self.data(&chunk, cx),
                tcp::Event::Gap { direction, length, .. } => self.gap(direction, length, cx),
                tcp::Event::End { direction: Direction::ToServer, .. } => {
                    self.up.end();
                    self.settle_all(LostReason::Truncated, cx, |stream| stream.up.phase != Phase::Done);
                }
                tcp::Event::End { direction: Direction::ToClient, .. } => {
                    self.settle_all(LostReason::Truncated, cx, |_| true);
                    self.die();
                }
                tcp::Event::Over(ending) => self.over(ending, cx),
                tcp::Event::Tick(now) => {
                    let timeout = cx.settings.exchange_timeout;
                    let late = |stream: &Stream| now.since(stream.times.started) >= timeout;
                    self.settle_all(LostReason::Timeout, cx, late);
                }
            }
        }
        if self.dead { Interest::Ignore } else { Interest::Follow }
    }

    /// What is held at this moment: bytes allocated, and exchanges whose event is still to come.
    pub(in crate::http) fn load(&self) -> Load {
        Load { buffered: self.held + self.up.buffered() + self.down.buffered(), open: self.streams.len() }
    }

    /// Gives up everything, because this is not HTTP/2.
    pub(in crate::http) fn give_up(&mut self, cx: &mut Context<'_>) {
        self.settle_all(LostReason::Malformed, cx, |_| true);
        self.die();
    }

    pub(super) fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::ToServer => &mut self.up,
            Direction::ToClient => &mut self.down,
        }
    }

    fn data(&mut self, chunk: &Chunk<'_>, cx: &mut Context<'_>) {
        let Chunk { direction, time, bytes, .. } = *chunk;
        if !self.side(direction).is_readable(bytes) {
            return;
        }
        if direction == Direction::ToClient {
            self.is_doubtful = false;
        }
        let mut rest = bytes;
        while !self.dead {
            let taken = match self.side(direction).next(&mut rest, time) {
                Ok(Some(said)) => self.take(direction, said, time, cx),
                Ok(None) => return,
                Err(malformed) => Err(malformed),
            };
            if taken.is_err() {
                return self.refuse(direction, time, cx);
            }
        }
    }

    fn take(
        &mut self,
        direction: Direction,
        said: Said<'_>,
        time: Timestamp,
        cx: &mut Context<'_>,
    ) -> Result<(), Malformed> {
        match (direction, said) {
            (Direction::ToServer, Said::Head(head)) => return self.client_head(head, time, cx),
            (Direction::ToServer, Said::Data { stream, bytes, is_last }) => {
                self.client_data(stream, bytes, is_last, time, cx);
            }
            (Direction::ToClient, Said::Head(head)) => self.server_head(head, time, cx),
            (Direction::ToClient, Said::Data { stream, bytes, is_last }) => {
                self.server_data(stream, bytes, is_last, time, cx);
            }
            (_, Said::Reset { stream, code }) => self.reset(direction, stream, code, cx),
            (_, Said::Settings(settings)) => self.settings(direction, &settings),
            (Direction::ToClient, Said::GoAway { last }) => {
                self.last_served = Some(self.last_served.map_or(last, |before| before.min(last)));
                self.settle_all(LostReason::Reset, cx, |stream| stream.number > last);
            }
            // It speaks of streams that the server begins.
            (Direction::ToServer, Said::GoAway { .. }) => {}
        }
        Ok(())
    }

    /// What a side says of how the other one may send. The size of a header table is not needed: whoever changes it says
    /// so in a header block, too.
    fn settings(&mut self, direction: Direction, settings: &[u8]) {
        for setting in settings.chunks(6) {
            if let [a, b, value @ ..] = setting
                && u16::from_be_bytes([*a, *b]) == SETTINGS_MAX_FRAME_SIZE
                && let Some(value) = value.first_chunk()
            {
                self.side(direction.reversed()).allow(u32::from_be_bytes(*value));
            }
        }
    }

    /// A stream is given up. A server that has answered may ask a client to stop (RFC 9113, section 8.1): the response
    /// is whole then, and the request is not.
    fn reset(&mut self, direction: Direction, stream: u32, code: u32, cx: &mut Context<'_>) {
        let Some(index) = self.find(stream) else { return };
        let answered = self.streams.get(index).is_some_and(|stream| stream.down.phase == Phase::Done);
        let reason = match (direction, code, answered) {
            (Direction::ToClient, 0, true) => LostReason::Truncated,
            _ => LostReason::Reset,
        };
        self.settle(index, Fate::Lost(reason), cx);
    }

    fn gap(&mut self, direction: Direction, length: u64, cx: &mut Context<'_>) {
        if self.side(direction).is_over() {
            return;
        }
        let skipped = self.side(direction).skip(length);
        match (skipped, direction) {
            (Skipped::Nothing, _) => {}
            (Skipped::Data(stream), _) => {
                if let Some(index) = self.find(stream) {
                    self.settle(index, Fate::Lost(LostReason::Gap), cx);
                }
            }
            (Skipped::Lost, Direction::ToServer) => {
                self.missed |= self.last > 0 || !self.is_joined;
                self.lose(direction, LostReason::Gap, cx);
            }
            (Skipped::Lost, Direction::ToClient) => self.lose(direction, LostReason::Gap, cx),
        }
    }

    /// Loses what the missing or senseless frames of a direction may belong to. A request that is whole still gets its
    /// response when others are missing.
    fn lose(&mut self, direction: Direction, reason: LostReason, cx: &mut Context<'_>) {
        match direction {
            Direction::ToServer => {
                self.settle_all(reason, cx, |stream| stream.up.phase != Phase::Done);
            }
            Direction::ToClient => self.settle_all(reason, cx, |_| true),
        }
        self.side(direction).lose();
        self.side(direction.reversed()).allow(super::frame::LARGEST_FRAME);
    }

    /// One side violates the protocol, which is counted even if it touches no exchange. Who does so from the first frame
    /// on speaks something else.
    fn refuse(&mut self, direction: Direction, time: Timestamp, cx: &mut Context<'_>) {
        if self.side(direction).is_first() {
            if self.last == 0 {
                *cx.seen += 1;
                (cx.emit)(Event::Skipped(SkipReason::NotHttp));
            }
            return self.give_up(cx);
        }
        if self.streams.is_empty() {
            *cx.seen += 1;
            self.lose_unseen(LostReason::Malformed, time, cx);
        }
        self.settle_all(LostReason::Malformed, cx, |_| true);
        self.lose(direction, LostReason::Malformed, cx);
    }

    fn over(&mut self, ending: Ending, cx: &mut Context<'_>) {
        let reason = match ending {
            Ending::Closed => LostReason::Truncated,
            Ending::Reset => LostReason::Reset,
            Ending::Evicted => LostReason::Evicted,
            Ending::Shutdown => LostReason::Shutdown,
            Ending::SampledOut => LostReason::SampledOut,
            Ending::Shed => LostReason::Shed,
            Ending::Disabled => {
                while !self.streams.is_empty() {
                    self.settle(0, Fate::Skipped(SkipReason::Disabled), cx);
                }
                return self.die();
            }
        };
        self.settle_all(reason, cx, |_| true);
        self.die();
    }

    fn die(&mut self) {
        self.dead = true;
        self.streams = Vec::new();
        self.up.end();
        self.down.end();
    }

    /// The place of a stream that is an exchange under way.
    pub(super) fn find(&self, stream: u32) -> Option<usize> {
        self.streams.binary_search_by_key(&stream, |stream| stream.number).ok()
    }

    /// The client is known to have begun that stream. Those between it and the last one were begun unseen, as clients
    /// leave out no number.
    pub(super) fn reach(&mut self, stream: u32, is_seen: bool, time: Timestamp, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.missed) {
            let next = if self.last == 0 { 1 } else { self.last + 2 };
            let unseen = stream.saturating_sub(next) / 2 + u32::from(!is_seen);
            for _ in 0..unseen.min(MAX_STREAMS as u32) {
                *cx.seen += 1;
                self.lose_unseen(LostReason::Gap, time, cx);
            }
        }
        self.last = stream;
    }

    /// Gives the event of an exchange of which nothing is known but that it was there.
    pub(super) fn lose_unseen(&mut self, reason: LostReason, started: Timestamp, cx: &mut Context<'_>) {
        let times = Times { started, ..Times::default() };
        let (id, connection, client, server) = (cx.ids.exchange(), self.id, self.client, self.server);
        let (request, response) = (None, None);
        let lost = Lost { reason, id, connection, client, server, request, response, times };
        (cx.emit)(Event::Lost(Box::new(lost)));
    }

    /// Loses all exchanges under way of which something holds.
    fn settle_all(&mut self, reason: LostReason, cx: &mut Context<'_>, holds: impl Fn(&Stream) -> bool) {
        while let Some(index) = self.streams.iter().position(|stream| holds(stream)) {
            self.settle(index, Fate::Lost(reason), cx);
        }
    }

    /// Gives the event of the exchange at that place, and drops what it holds. What still comes on its stream is
    /// followed, and belongs to nothing.
    pub(super) fn settle(&mut self, index: usize, fate: Fate, cx: &mut Context<'_>) {
        let Some(stream) = self.remove(index) else { return };
        let Stream { id, request, response, times, .. } = *stream;
        let (connection, client, server, request) = (self.id, self.client, self.server, Some(request));
        (cx.emit)(match fate {
            Fate::Skipped(reason) => Event::Skipped(reason),
            Fate::Lost(reason) => Event::Lost(Box::new(Lost {
                reason,
                id,
                connection,
                client,
                server,
                request,
                response,
                times,
            })),
        });
    }

    /// Gives the exchange at that place if both of its messages ended.
    pub(super) fn finish(&mut self, index: usize, cx: &mut Context<'_>) {
        if !self.streams.get(index).is_some_and(|stream| stream.is_done()) {
            return;
        }
        let Some(stream) = self.remove(index) else { return };
        let Stream { id, request, response, times, .. } = *stream;
        let (connection, client, server) = (self.id, self.client, self.server);
        if let Some(response) = response {
            let exchange = Exchange { id, connection, client, server, request, response, times };
            (cx.emit)(Event::Exchange(exchange));
        }
    }

    fn remove(&mut self, index: usize) -> Option<Box<Stream>> {
        if index >= self.streams.len() {
            return None;
        }
        let stream = self.streams.remove(index);
        self.held -= stream.cost;
        Some(stream)
    }
}
