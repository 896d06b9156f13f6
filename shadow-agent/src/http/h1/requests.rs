//! What a client sends: requests, and what turns out to be something else.

use super::body::{BodyReader, Step};
use super::connection::{Connection, Requests, Responses, Start};
use super::head::{self, Kind, RequestHead, Taken};
use super::responses::after_line_ends;
use super::sniff::{self, Protocol};
use super::{Context, Event, Fate, MAX_PIPELINED};
use crate::exchange::{Headers, LostReason, Request, SkipReason, Timestamp};
use crate::tcp::Chunk;

impl Connection {
    /// Takes the next bytes from the client.
    pub(super) fn client_data(&mut self, chunk: &Chunk<'_>, cx: &mut Context<'_>) {
        let mut rest = chunk.bytes;
        let time = chunk.time;
        if matches!(self.requests, Requests::Search) {
            self.look_for_request(chunk, cx);
        }
        while !self.is_dead() {
            let position = |rest: &[u8]| chunk.offset + (chunk.bytes.len() - rest.len()) as u64;
            match &mut self.requests {
                Requests::Boundary => {
                    rest = after_line_ends(rest);
                    if rest.is_empty() {
                        return;
                    }
                    if matches!(self.responses, Responses::Over) {
                        self.requests = Requests::Over;
                        return;
                    }
                    if self.queue.len() >= MAX_PIPELINED {
                        self.lose_all(LostReason::Evicted, cx);
                    }
                    self.request_start = Start { offset: position(rest), time, ack: chunk.ack };
                    self.open(cx);
                    self.requests = Requests::Head { tentative: false };
                }
                Requests::Head { tentative } => {
                    let tentative = *tentative;
                    let parsed = match self.request_head.take(&mut rest) {
                        Taken::Whole(head) => head::request(&head).map_err(|_| head),
                        Taken::Partial if self.may_be_request(tentative) => return,
                        Taken::Partial | Taken::TooLarge => Err(self.request_head.partial().to_vec().into()),
                    };
                    match parsed {
                        Ok(head) => self.begin_request(head, position(rest), time, cx),
                        Err(_) if tentative => {
                            self.search();
                            if self.request_start.offset < chunk.offset {
                                self.outstanding = Some((chunk.offset, self.request_start.ack));
                                self.client_data(chunk, cx);
                            }
                            return;
                        }
                        Err(bytes) => return self.refuse_request(&bytes, cx),
                    }
                }
                Requests::Body(body) => {
                    let step = body.read(&mut rest);
                    if body.oversized() {
                        self.settle_request(Fate::Skipped(SkipReason::BodyTooLarge), cx);
                    }
                    match step {
                        Ok(Step::More) => return,
                        Ok(Step::Done) => self.request_done(position(rest), time, cx),
                        Err(_) => {
                            self.drop_request(LostReason::Malformed, cx);
                            return self.search();
                        }
                    }
                }
                Requests::Search | Requests::Tunnel | Requests::Over => return,
            }
        }
    }

    /// Judges a segment in the middle of the stream: whether a request starts with it.
    fn look_for_request(&mut self, chunk: &Chunk<'_>, cx: &mut Context<'_>) {
        if sniff::request_boundary(chunk.bytes) {
            self.request_start = Start { offset: chunk.offset, time: chunk.time, ack: chunk.ack };
            self.requests = Requests::Head { tentative: true };
        } else {
            self.forget_order();
            if self.spoken {
                return;
            }
            if sniff::protocol(chunk.bytes) == Protocol::Tls || sniff::tls_record(chunk.bytes) {
                *cx.seen += 1;
                (cx.emit)(Event::Skipped(SkipReason::Tls));
                self.skip_connection(SkipReason::Tls, cx);
            }
        }
    }

    /// Whether the unfinished head can still become one.
    fn may_be_request(&self, tentative: bool) -> bool {
        let bytes = self.request_head.partial();
        if self.spoken || tentative {
            return sniff::request_line(bytes) != Some(false);
        }
        matches!(sniff::protocol(bytes), Protocol::Http1 | Protocol::Unclear)
    }

    /// What starts with these bytes is no request that we understand.
    fn refuse_request(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        let protocol = if self.spoken { Protocol::Http1 } else { sniff::protocol(bytes) };
        match protocol {
            Protocol::Tls => self.skip_connection(SkipReason::Tls, cx),
            Protocol::Other => self.skip_connection(SkipReason::NotHttp, cx),
            Protocol::Http1 | Protocol::Unclear => {
                self.drop_request(LostReason::Malformed, cx);
                self.give_up_unproven(LostReason::Malformed, cx);
                self.search();
            }
        }
    }

    /// The head of a request is whole.
    fn begin_request(&mut self, head: RequestHead, end: u64, time: Timestamp, cx: &mut Context<'_>) {
        if matches!(self.requests, Requests::Head { tentative: true }) {
            if self.queue.len() >= MAX_PIPELINED {
                self.lose_all(LostReason::Evicted, cx);
            }
            self.open(cx);
        }
        self.spoken = true;
        let kind = Kind::of(&head.method);
        let mut body = BodyReader::new(head.framing, cx.settings.body);
        let (oversized, empty) = (body.oversized(), body.is_empty() || kind == Kind::Connect);
        let wanted = self.attached && self.queue.back().is_some_and(|open| !open.closed);
        if !wanted {
            body.discard();
        }
        if let (true, Some(open)) = (self.attached, self.queue.back_mut()) {
            open.kind = kind;
            let size = (end - open.start) as usize;
            open.request = wanted.then(|| Request {
                method: head.method,
                target: head.target,
                version: head.version,
                headers: head.headers,
                body: bytes::Bytes::new(),
                trailers: Headers::default(),
            });
            self.charge(self.queue.len() - 1, size);
        }
        self.requests = Requests::Body(body);
        if oversized && kind != Kind::Connect {
            self.settle_request(Fate::Skipped(SkipReason::BodyTooLarge), cx);
        }
        if empty {
            let attached = self.attached;
            self.request_done(end, time, cx);
            if kind == Kind::Connect {
                self.requests = if attached { Requests::Tunnel } else { Requests::Search };
            }
        }
    }

    /// The last byte of the request under way was seen, or is known to be behind `end`.
    pub(super) fn request_done(&mut self, end: u64, time: Timestamp, cx: &mut Context<'_>) {
        let Requests::Body(body) = std::mem::replace(&mut self.requests, Requests::Boundary) else { return };
        if std::mem::take(&mut self.attached)
            && let Some(open) = self.queue.back_mut()
        {
            open.end = Some(end);
            open.times.request_done = time;
            if let Some(request) = &mut open.request {
                (request.body, request.trailers) = body.finish();
                let size = request.body.len();
                self.charge(self.queue.len() - 1, size);
            }
            self.finish_front(cx);
        } else {
            self.forget_order();
        }
    }
}
