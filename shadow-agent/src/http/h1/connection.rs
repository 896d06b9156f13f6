//! One HTTP/1 connection: the exchanges under way on it, and what gaps, ends and time do to them.
//!
//! What bytes mean is read in `requests` and `responses`.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::body::{BodyReader, Step};
use super::head::HeadBuffer;
use super::open::Open;
use super::{Context, Event, Fate};
use crate::capture::Direction;
use crate::exchange::{ConnectionId, Exchange, Lost, LostReason, SkipReason, Times, Timestamp};
use crate::tcp::{self, Ending, Interest, Load, Peers};

/// What comes next from the client.
#[derive(Debug)]
pub(super) enum Requests {
    /// The start of a request.
    Boundary,
    /// Anything; the start of a request has to be found.
    Search,
    /// The rest of a head. One that was found by searching counts only once it proves to be a head.
    Head { tentative: bool },
    /// The rest of a body.
    Body(BodyReader),
    /// Bytes for a tunnel, if the server agrees to it.
    Tunnel,
    /// Nothing that matters.
    Over,
}

/// What comes next from the server.
#[derive(Debug)]
pub(super) enum Responses {
    /// The start of a response.
    Boundary,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body(BodyReader),
    /// HTTP/2; so many bytes of it came with the last bytes of HTTP/1.
    Http2(usize),
    /// Nothing that matters.
    Over,
}

/// Where a request starts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Start {
    /// The offset of its first byte.
    pub(super) offset: u64,
    /// When that was captured.
    pub(super) time: Timestamp,
    /// What the client had received when it sent it.
    pub(super) ack: Option<u64>,
}

/// One connection as HTTP/1 sees it.
#[derive(Debug)]
pub(in crate::http) struct Connection {
    id: ConnectionId,
    client: SocketAddr,
    server: SocketAddr,
    /// Exchanges under way, in the order of their requests.
    pub(super) queue: VecDeque<Box<Open>>,
    pub(super) requests: Requests,
    pub(super) request_head: HeadBuffer,
    pub(super) responses: Responses,
    pub(super) response_head: HeadBuffer,
    /// Whether the request under way is the last of the queue; if not, nobody wants it.
    pub(super) attached: bool,
    /// Where the request under way started.
    pub(super) request_start: Start,
    /// Where the client's stream stands, and what the client had received when it sent the last of it, if known.
    pub(super) position: (u64, Option<u64>),
    /// Up to where the client's stream may hold requests that nobody waits for a response to, but the client.
    pub(super) outstanding: Option<(u64, Option<u64>)>,
    /// When the response under way started.
    pub(super) response_start: Timestamp,
    /// Whether the response to the next request has to prove that it belongs to it.
    pub(super) proof: bool,
    /// Whether the client is known to speak HTTP/1.
    pub(super) spoken: bool,
    /// Whether nothing that follows matters.
    dead: bool,
    /// Bytes kept in the queue.
    held: usize,
}

impl Connection {
    /// A connection that was just met.
    pub(in crate::http) fn new(id: ConnectionId, peers: &Peers) -> Connection {
        Connection {
            id,
            client: peers.client,
            server: peers.server,
            queue: VecDeque::new(),
            requests: if peers.joined { Requests::Search } else { Requests::Boundary },
            request_head: HeadBuffer::default(),
            responses: Responses::Boundary,
            response_head: HeadBuffer::default(),
            attached: false,
            request_start: Start::default(),
            position: (0, None),
            outstanding: None,
            response_start: Timestamp::default(),
            proof: peers.joined,
            spoken: false,
            dead: false,
            held: 0,
        }
    }

    /// Who it belongs to.
    pub(in crate::http) fn name(&self) -> (ConnectionId, SocketAddr, SocketAddr) {
        (self.id, self.client, self.server)
    }

    /// Forgets what is not known any more: the client's stream stands at `offset`, and anything may come next.
    pub(in crate::http) fn resume_at(&mut self, offset: u64) {
        self.position = (offset, None);
        self.search();
    }

    /// Whether nothing was seen yet that only HTTP/1 says, and what comes next has to be found.
    pub(in crate::http) fn is_undecided(&self) -> bool {
        matches!(self.requests, Requests::Search) && !self.spoken && !self.dead
    }

    /// Takes what happened on the connection.
    pub(in crate::http) fn handle(&mut self, event: tcp::Event<'_>, cx: &mut Context<'_>) -> Interest {
        if !self.dead {
            match event {
                tcp::Event::Data(chunk) => match chunk.direction {
                    Direction::ToServer => {
                        self.position = (chunk.offset + chunk.bytes.len() as u64, chunk.ack);
                        self.client_data(&chunk, cx);
                    }
                    Direction::ToClient => {
                        if self.outstanding.is_some_and(|(end, _)| chunk.ack >= Some(end)) {
                            self.outstanding = None;
                        }
                        self.server_data(&chunk, cx);
                    }
                },
                tcp::Event::Gap { direction: Direction::ToServer, length, time } => {
                    self.position = (self.position.0 + length, None);
                    self.client_gap(length, time, cx);
                }
                tcp::Event::Gap { direction: Direction::ToClient, length, time } => {
                    self.server_gap(length, time, cx);
                }
                tcp::Event::End { direction: Direction::ToServer, .. } => self.client_end(cx),
                tcp::Event::End { direction: Direction::ToClient, time } => self.server_end(time, cx),
                tcp::Event::Over(ending) => self.over(ending, cx),
                tcp::Event::Tick(now) => self.expire(now, cx),
            }
        }
        if self.dead { Interest::Ignore } else { Interest::Follow }
    }

    /// What is held at this moment: bytes allocated, and exchanges whose event is still to come.
    pub(in crate::http) fn load(&self) -> Load {
        let body = |body: &BodyReader| body.buffered();
        let requests = if let Requests::Body(reader) = &self.requests { body(reader) } else { 0 };
        let responses = if let Responses::Body(reader) = &self.responses { body(reader) } else { 0 };
        let heads = self.request_head.buffered() + self.response_head.buffered();
        Load {
            buffered: self.held + requests + responses + heads,
            open: self.queue.iter().filter(|open| !open.closed).count(),
        }
    }

    fn client_gap(&mut self, length: u64, time: Timestamp, cx: &mut Context<'_>) {
        match &mut self.requests {
            Requests::Search | Requests::Tunnel | Requests::Over => return,
            Requests::Head { tentative: true } => {}
            Requests::Boundary => {
                // Nothing but (a part of) at least one request can be missing here.
                *cx.seen += 1;
                self.lose_unseen(LostReason::Gap, time, cx);
                self.give_up_unproven(LostReason::Gap, cx);
            }
            Requests::Head { tentative: false } => self.drop_request(LostReason::Gap, cx),
            Requests::Body(body) => {
                if let Some(step) = body.skip(length) {
                    self.settle_request(Fate::Lost(LostReason::Gap), cx);
                    if step == Step::Done {
                        self.request_done(u64::MAX, time, cx);
                    }
                    return;
                }
                self.drop_request(LostReason::Gap, cx);
            }
        }
        self.search();
    }

    fn server_gap(&mut self, length: u64, time: Timestamp, cx: &mut Context<'_>) {
        match &mut self.responses {
            Responses::Over | Responses::Http2(_) => {}
            Responses::Body(body) => match body.skip(length) {
                Some(step) => {
                    self.settle(0, Fate::Lost(LostReason::Gap), cx);
                    if step == Step::Done {
                        self.response_done(time, cx);
                    }
                }
                None => self.lose_all(LostReason::Gap, cx),
            },
            Responses::Boundary | Responses::Head => self.lose_all(LostReason::Gap, cx),
        }
    }

    fn client_end(&mut self, cx: &mut Context<'_>) {
        if matches!(self.requests, Requests::Head { .. } | Requests::Body(_)) {
            self.drop_request(LostReason::Truncated, cx);
            self.proof = true;
        }
        self.requests = Requests::Over;
        self.request_head.clear();
    }

    fn server_end(&mut self, time: Timestamp, cx: &mut Context<'_>) {
        if matches!(&self.responses, Responses::Body(body) if body.ends_with_connection()) {
            self.response_done(time, cx);
        }
        self.responses = Responses::Over;
        self.response_head.clear();
        // What has its response may still get the rest of its request; nothing else will be answered.
        while self.queue.back().is_some_and(|open| !open.answered) {
            self.settle(self.queue.len() - 1, Fate::Lost(LostReason::Truncated), cx);
            self.queue.pop_back();
            self.attached = false;
        }
        if self.queue.is_empty() {
            self.requests = Requests::Over;
            self.request_head.clear();
        }
    }

    fn over(&mut self, ending: Ending, cx: &mut Context<'_>) {
        let reason = match ending {
            Ending::Closed => LostReason::Truncated,
            Ending::Reset => LostReason::Reset,
            Ending::Evicted => LostReason::Evicted,
            Ending::Shutdown => LostReason::Shutdown,
            Ending::SampledOut => LostReason::SampledOut,
            Ending::Shed => LostReason::Shed,
            Ending::Disabled => return self.skip_connection(SkipReason::Disabled, cx),
        };
        self.lose_all(reason, cx);
        self.die();
    }

    fn expire(&mut self, now: Timestamp, cx: &mut Context<'_>) {
        for index in 0..self.queue.len() {
            let late = |started| now.since(started) >= cx.settings.exchange_timeout;
            if self.queue.get(index).is_some_and(|open| late(open.times.started)) {
                self.settle(index, Fate::Lost(LostReason::Timeout), cx);
            }
        }
    }

    /// Leaves the whole connection alone from here on.
    pub(super) fn skip_connection(&mut self, reason: SkipReason, cx: &mut Context<'_>) {
        for index in 0..self.queue.len() {
            self.settle(index, Fate::Skipped(reason), cx);
        }
        self.die();
    }

    fn die(&mut self) {
        self.dead = true;
        self.queue = VecDeque::new();
        self.requests = Requests::Over;
        self.responses = Responses::Over;
        self.request_head.clear();
        self.response_head.clear();
    }

    /// Whether nothing that follows matters.
    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Starts an exchange with the request under way. While the order of pairs is lost, a request that was sent before
    /// anything came back for what precedes it cannot be paired.
    pub(super) fn open(&mut self, cx: &mut Context<'_>) {
        *cx.seen += 1;
        let start = self.request_start;
        let sequential = |(_, ack): (u64, Option<u64>)| ack.is_some() && start.ack > ack;
        if self.proof && self.outstanding.is_some_and(|before| !sequential(before)) {
            self.lose_unseen(LostReason::Unpaired, start.time, cx);
            self.attached = false;
            return;
        }
        let proof = std::mem::take(&mut self.proof);
        self.outstanding = None;
        self.queue.push_back(Box::new(Open::new(cx.ids.exchange(), start.offset, start.time, proof)));
        self.attached = true;
    }

    /// Gives the event of the exchange at that place of the queue, unless it was given, and drops what it holds.
    pub(super) fn settle(&mut self, index: usize, fate: Fate, cx: &mut Context<'_>) {
        let last = index + 1 == self.queue.len();
        let Some(open) = self.queue.get_mut(index) else { return };
        if open.closed {
            return;
        }
        open.closed = true;
        self.held -= std::mem::take(&mut open.cost);
        let (request, response) = (open.request.take(), open.response.take());
        (cx.emit)(match fate {
            Fate::Skipped(reason) => Event::Skipped(reason),
            Fate::Lost(reason) => Event::Lost(Box::new(Lost {
                reason,
                id: open.id,
                connection: self.id,
                client: self.client,
                server: self.server,
                request,
                response,
                times: open.times,
            })),
        });
        if let (true, true, Requests::Body(body)) = (last, self.attached, &mut self.requests) {
            body.discard();
        }
        if let (0, Responses::Body(body)) = (index, &mut self.responses) {
            body.discard();
        }
    }

    /// Gives the event of an exchange of which nothing is known but that it was there.
    pub(super) fn lose_unseen(&mut self, reason: LostReason, started: Timestamp, cx: &mut Context<'_>) {
        (cx.emit)(Event::Lost(Box::new(Lost {
            reason,
            id: cx.ids.exchange(),
            connection: self.id,
            client: self.client,
            server: self.server,
            request: None,
            response: None,
            times: Times { started, ..Times::default() },
        })));
    }

    /// Gives the event of the exchange whose request is under way, if there is one.
    pub(super) fn settle_request(&mut self, fate: Fate, cx: &mut Context<'_>) {
        if self.attached {
            self.settle(self.queue.len().saturating_sub(1), fate, cx);
        }
    }

    /// Adds to the bytes kept for the exchange at that place.
    pub(super) fn charge(&mut self, index: usize, bytes: usize) {
        if let Some(open) = self.queue.get_mut(index)
            && !open.closed
        {
            open.cost += bytes;
            self.held += bytes;
        }
    }

    /// Gives up the request under way; its response, if its head was seen, is still expected.
    pub(super) fn drop_request(&mut self, reason: LostReason, cx: &mut Context<'_>) {
        if !std::mem::take(&mut self.attached) {
            return;
        }
        let index = self.queue.len().saturating_sub(1);
        self.settle(index, Fate::Lost(reason), cx);
        if matches!(self.requests, Requests::Body(_)) {
            if let Some(open) = self.queue.back_mut() {
                open.end = Some(u64::MAX);
            }
            self.finish_front(cx);
            return;
        }
        // The method is unknown, and with it the framing of a response.
        self.queue.pop_back();
        if index == 0 && !matches!(self.responses, Responses::Over) {
            self.responses = Responses::Boundary;
            self.response_head.clear();
        }
    }

    /// Gives up everything under way, because it is unknown which response the next one is.
    pub(super) fn lose_all(&mut self, reason: LostReason, cx: &mut Context<'_>) {
        for index in 0..self.queue.len() {
            self.settle(index, Fate::Lost(reason), cx);
        }
        self.queue.clear();
        self.attached = false;
        self.forget_order();
        if !matches!(self.responses, Responses::Over) {
            self.responses = Responses::Boundary;
        }
        self.response_head.clear();
        if matches!(self.requests, Requests::Tunnel) {
            self.requests = Requests::Search;
        }
    }

    /// Gives up everything under way if it begins with a request that was found by searching and has not been answered:
    /// as what follows it is no request, it was perhaps none itself, but a part of some body.
    pub(super) fn give_up_unproven(&mut self, reason: LostReason, cx: &mut Context<'_>) {
        if self.queue.iter().any(|open| open.proof) {
            self.lose_all(reason, cx);
        }
    }

    /// Looks for the start of a request from here on.
    pub(super) fn search(&mut self) {
        self.requests = Requests::Search;
        self.request_head.clear();
        self.forget_order();
    }

    /// From here on it is unknown how many responses are still to come for what the client sent so far.
    pub(super) fn forget_order(&mut self) {
        self.proof = true;
        self.outstanding = Some(self.position);
    }

    /// Gives the first exchange of the queue if both of its messages ended.
    pub(super) fn finish_front(&mut self, cx: &mut Context<'_>) {
        let Some(open) = self.queue.pop_front_if(|open| open.is_done()) else { return };
        let Open { id, closed, request, response, times, cost, .. } = *open;
        self.held -= cost;
        if closed {
            return;
        }
        let (connection, client, server) = (self.id, self.client, self.server);
        (cx.emit)(match (request, response) {
            (Some(request), Some(response)) => {
                Event::Exchange(Exchange { id, connection, client, server, request, response, times })
            }
            (request, response) => {
                let reason = LostReason::Unpaired;
                let lost = Lost { reason, id, connection, client, server, request, response, times };
                Event::Lost(Box::new(lost))
            }
        });
    }
}
