//! What a server sends: the responses of streams.

use super::connection::Connection;
use super::head::Fields;
use super::side::Head;
use super::stream::Phase;
use super::{Context, Fate};
use crate::exchange::{Headers, LostReason, SkipReason, Timestamp};

const MALFORMED: Fate = Fate::Lost(LostReason::Malformed);

impl Connection {
    /// The head of a response, an interim one, or trailers are whole. What belongs to no exchange, as what is pushed, is
    /// passed over.
    pub(super) fn server_head(&mut self, head: Head, time: Timestamp, cx: &mut Context<'_>) {
        let Some(index) = self.find(head.stream) else { return };
        let Some(stream) = self.streams.get(index) else { return };
        let Some(fields) = head.fields else { return self.settle(index, MALFORMED, cx) };
        let (ends, started) = (head.ends_stream, head.started);
        match stream.down.phase {
            Phase::Head => self.begin_response(index, fields, ends, started, time, cx),
            Phase::Body if ends => match fields.trailers() {
                Ok(trailers) => {
                    self.charge(index, trailers.size);
                    self.finish_response(index, trailers.message, time, cx);
                }
                Err(refusal) => self.settle(index, refusal.into(), cx),
            },
            Phase::Body | Phase::Done => self.settle(index, MALFORMED, cx),
        }
    }

    fn begin_response(
        &mut self,
        index: usize,
        fields: Fields,
        ends_stream: bool,
        started: Timestamp,
        time: Timestamp,
        cx: &mut Context<'_>,
    ) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        let head = match fields.response() {
            Ok(head) => head,
            Err(refusal) => {
                let fate = stream.misled(refusal.into());
                return self.settle(index, fate, cx);
            }
        };
        let response = head.message;
        match response.status {
            // HTTP/2 knows no change of protocol (RFC 9113, section 8.6), and no end with an interim response.
            101 => return self.settle(index, MALFORMED, cx),
            100..=199 if ends_stream => return self.settle(index, MALFORMED, cx),
            100..=199 => return,
            _ => {}
        }
        let is_bodiless = stream.request.method == http::Method::HEAD || matches!(response.status, 204 | 304);
        let length = if is_bodiless { Some(0) } else { head.length };
        stream.times.response_started = started;
        let begun = if is_event_stream(&response.headers) {
            Err(Fate::Skipped(SkipReason::Streaming))
        } else {
            stream.down.begin(length, cx.settings.body)
        };
        stream.response = Some(response);
        self.charge(index, head.size);
        match begun {
            Ok(()) if ends_stream => self.finish_response(index, Headers::default(), time, cx),
            Ok(()) => {}
            Err(fate) => self.settle(index, fate, cx),
        }
    }

    /// Bytes of a response's body.
    pub(super) fn server_data(
        &mut self,
        stream: u32,
        bytes: &[u8],
        is_last: bool,
        time: Timestamp,
        cx: &mut Context<'_>,
    ) {
        let Some(index) = self.find(stream) else { return };
        let Some(open) = self.streams.get_mut(index) else { return };
        match open.down.add(bytes, cx.settings.body) {
            Ok(allocated) => self.charge(index, allocated),
            Err(fate) => {
                let fate = if open.down.phase == Phase::Head { open.misled(fate) } else { fate };
                return self.settle(index, fate, cx);
            }
        }
        if is_last {
            self.finish_response(index, Headers::default(), time, cx);
        }
    }

    fn finish_response(&mut self, index: usize, trailers: Headers, time: Timestamp, cx: &mut Context<'_>) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        match stream.finish_response(trailers) {
            Ok(()) => {
                stream.times.response_done = time;
                self.finish(index, cx);
            }
            Err(fate) => self.settle(index, fate, cx),
        }
    }
}

/// Whether a response is an event stream, which does not end.
fn is_event_stream(headers: &Headers) -> bool {
    headers.get("content-type").is_some_and(|value| {
        let media_type = value.split(|&byte| byte == b';').next().unwrap_or_default();
        media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}
