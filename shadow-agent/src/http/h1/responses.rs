//! What a server sends: responses, each to be paired with the request it answers.

use super::body::{BodyReader, Step};
use super::connection::{Connection, Requests, Responses};
use super::head::{self, Kind, ResponseHead, Taken};
use super::open::Open;
use super::{Context, Event, Fate, sniff};
use crate::exchange::{Headers, LostReason, Response, SkipReason, Timestamp};
use crate::tcp::Chunk;

/// What bytes are to an exchange whose response has to prove that it belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// They start its response.
    Given,
    /// They answer something earlier.
    Earlier,
    /// They may be either.
    Unclear,
}

impl Connection {
    /// Takes the next bytes from the server.
    pub(super) fn server_data(&mut self, chunk: &Chunk<'_>, cx: &mut Context<'_>) {
        let mut rest = chunk.bytes;
        while !self.is_dead() {
            match &mut self.responses {
                Responses::Boundary => {
                    let at_start = rest.len() == chunk.bytes.len();
                    rest = after_line_ends(rest);
                    if rest.is_empty() || !self.expect_response(chunk, at_start, rest, cx) {
                        return;
                    }
                    self.response_start = chunk.time;
                    self.responses = Responses::Head;
                }
                Responses::Head => {
                    let head = match self.response_head.take(&mut rest) {
                        Taken::Whole(head) => head,
                        Taken::Partial if sniff::status_line(self.response_head.partial()) => return,
                        Taken::Partial | Taken::TooLarge => return self.lose_all(LostReason::Malformed, cx),
                    };
                    let kind = self.queue.front().map_or(Kind::Other, |open| open.kind);
                    match head::response(&head, kind) {
                        Ok(parsed) if self.leads_to_http2(&parsed) => {
                            self.responses = Responses::Http2(rest.len());
                        }
                        Ok(parsed) => self.begin_response(parsed, kind, head.len(), chunk.time, cx),
                        Err(_) => return self.lose_all(LostReason::Malformed, cx),
                    }
                }
                Responses::Body(body) => {
                    let step = body.read(&mut rest);
                    if body.oversized() {
                        self.settle(0, Fate::Skipped(SkipReason::BodyTooLarge), cx);
                    }
                    match step {
                        Ok(Step::More) => return,
                        Ok(Step::Done) => self.response_done(chunk.time, cx),
                        Err(_) => return self.lose_all(LostReason::Malformed, cx),
                    }
                }
                Responses::Http2(_) | Responses::Over => return,
            }
        }
    }

    /// Whether what starts here is the response to the first exchange of the queue.
    fn expect_response(
        &mut self,
        chunk: &Chunk<'_>,
        at_start: bool,
        rest: &[u8],
        cx: &mut Context<'_>,
    ) -> bool {
        match self.queue.front_mut() {
            None if self.proof => false,
            None => {
                *cx.seen += 1;
                if self.spoken || sniff::status_line(rest) {
                    self.lose_unseen(LostReason::Unpaired, chunk.time, cx);
                    self.proof = true;
                } else {
                    (cx.emit)(Event::Skipped(SkipReason::NotHttp));
                    self.skip_connection(SkipReason::NotHttp, cx);
                }
                false
            }
            Some(open) if open.proof => match prove(open, chunk, at_start, rest) {
                Proof::Given => {
                    open.proof = false;
                    true
                }
                Proof::Earlier => false,
                Proof::Unclear => {
                    self.lose_all(LostReason::Unpaired, cx);
                    false
                }
            },
            Some(open) if open.answered => {
                self.lose_all(LostReason::Unpaired, cx);
                false
            }
            Some(_) => true,
        }
    }

    /// The head of a response is whole.
    fn begin_response(
        &mut self,
        head: ResponseHead,
        kind: Kind,
        size: usize,
        time: Timestamp,
        cx: &mut Context<'_>,
    ) {
        self.responses = Responses::Boundary;
        match head.status {
            101 => return self.skip_connection(SkipReason::Upgrade, cx),
            100..=199 => return,
            200..=299 if kind == Kind::Connect => return self.skip_connection(SkipReason::Upgrade, cx),
            _ => {}
        }
        if kind == Kind::Connect && matches!(self.requests, Requests::Tunnel) {
            // What the client sent for the tunnel in the meantime was dropped.
            self.search();
        }
        let mut body = BodyReader::new(head.framing, cx.settings.body);
        if head.event_stream {
            self.settle(0, Fate::Skipped(SkipReason::Streaming), cx);
        } else if body.oversized() {
            self.settle(0, Fate::Skipped(SkipReason::BodyTooLarge), cx);
        }
        self.charge(0, size);
        if let Some(open) = self.queue.front_mut() {
            open.times.response_started = self.response_start;
            if open.closed {
                body.discard();
            } else {
                open.response = Some(Response {
                    status: head.status,
                    version: head.version,
                    headers: head.headers,
                    body: bytes::Bytes::new(),
                    trailers: Headers::default(),
                });
            }
        }
        let empty = body.is_empty();
        self.responses = Responses::Body(body);
        if empty {
            self.response_done(time, cx);
        }
    }

    /// The last byte of the response under way was seen, or the connection's end ended it.
    pub(super) fn response_done(&mut self, time: Timestamp, cx: &mut Context<'_>) {
        let responses = std::mem::replace(&mut self.responses, Responses::Boundary);
        let (Responses::Body(body), Some(open)) = (responses, self.queue.front_mut()) else { return };
        open.answered = true;
        open.times.response_done = time;
        if let Some(response) = &mut open.response {
            (response.body, response.trailers) = body.finish();
            let size = response.body.len();
            self.charge(0, size);
        }
        self.finish_front(cx);
    }
}

/// Judges bytes at a response boundary by what their sender had received: only who had the whole request can answer
/// it, and everything sent by someone who had none of it answers something earlier.
fn prove(open: &Open, chunk: &Chunk<'_>, at_start: bool, rest: &[u8]) -> Proof {
    let Some(ack) = chunk.ack else { return Proof::Unclear };
    if ack <= open.start {
        return Proof::Earlier;
    }
    let starts = at_start && sniff::status_line(rest);
    if starts && open.end.is_some_and(|end| ack >= end) {
        return Proof::Given;
    }
    let interim = starts && matches!(sniff::status(rest), Some(100 | 102..=199));
    if interim && head::is_alone(rest) { Proof::Earlier } else { Proof::Unclear }
}

/// What follows the empty lines that a peer may send between messages (RFC 9112, section 2.2).
pub(super) fn after_line_ends(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    bytes.split_at(end).1
}
