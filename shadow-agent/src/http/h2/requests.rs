//! What a client sends: the requests of streams.

use super::connection::Connection;
use super::frame::Malformed;
use super::side::Head;
use super::stream::{Half, Phase, Stream};
use super::{Context, Event, Fate, MAX_STREAMS};
use crate::exchange::{Headers, LostReason, Times, Timestamp};

impl Connection {
    /// The head or the trailers of a request are whole.
    pub(super) fn client_head(
        &mut self,
        head: Head,
        time: Timestamp,
        cx: &mut Context<'_>,
    ) -> Result<(), Malformed> {
        if head.stream.is_multiple_of(2) {
            return Err(Malformed);
        }
        match self.find(head.stream) {
            Some(index) => self.client_trailers(index, head, time, cx),
            None if head.stream > self.last => self.begin_request(head, time, cx),
            None => {}
        }
        Ok(())
    }

    fn begin_request(&mut self, head: Head, time: Timestamp, cx: &mut Context<'_>) {
        // Trailers of a request whose start was not seen.
        let is_head = head.fields.as_ref().is_none_or(|fields| fields.has_pseudo());
        if !is_head && head.ends_stream && (self.missed || self.is_joined) {
            return self.reach(head.stream, false, head.started, cx);
        }
        self.reach(head.stream, true, head.started, cx);
        *cx.seen += 1;
        let fate = if self.streams.len() >= MAX_STREAMS {
            Fate::Lost(LostReason::Evicted)
        } else if self.last_served.is_some_and(|last| head.stream > last) {
            Fate::Lost(LostReason::Reset)
        } else {
            match head.fields.map(|fields| fields.request()) {
                Some(Ok(request)) => {
                    let times = Times { started: head.started, ..Times::default() };
                    let (id, is_blind) = (cx.ids.exchange(), self.down.is_searching());
                    self.held += request.size;
                    self.streams.push(Box::new(Stream {
                        number: head.stream,
                        id,
                        request: request.message,
                        response: None,
                        up: Half::expected(),
                        down: Half::expected(),
                        times,
                        cost: request.size,
                        is_blind,
                    }));
                    let index = self.streams.len() - 1;
                    return self.begin_body(index, request.length, head.ends_stream, time, cx);
                }
                Some(Err(refusal)) => refusal.into(),
                None => Fate::Lost(LostReason::Malformed),
            }
        };
        match fate {
            Fate::Skipped(reason) => (cx.emit)(Event::Skipped(reason)),
            Fate::Lost(reason) => self.lose_unseen(reason, head.started, cx),
        }
    }

    fn begin_body(
        &mut self,
        index: usize,
        length: Option<u64>,
        is_empty: bool,
        time: Timestamp,
        cx: &mut Context<'_>,
    ) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        match stream.up.begin(length, cx.settings.body) {
            Ok(()) if is_empty => self.finish_request(index, Headers::default(), time, cx),
            Ok(()) => {}
            Err(fate) => self.settle(index, fate, cx),
        }
    }

    fn client_trailers(&mut self, index: usize, head: Head, time: Timestamp, cx: &mut Context<'_>) {
        let under_way = self.streams.get(index).is_some_and(|stream| stream.up.phase == Phase::Body);
        let malformed = Fate::Lost(LostReason::Malformed);
        if !under_way || !head.ends_stream {
            return self.settle(index, malformed, cx);
        }
        match head.fields.map(|fields| fields.trailers()) {
            Some(Ok(trailers)) => {
                self.charge(index, trailers.size);
                self.finish_request(index, trailers.message, time, cx);
            }
            Some(Err(refusal)) => self.settle(index, refusal.into(), cx),
            None => self.settle(index, malformed, cx),
        }
    }

    /// Bytes of a request's body.
    pub(super) fn client_data(
        &mut self,
        stream: u32,
        bytes: &[u8],
        is_last: bool,
        time: Timestamp,
        cx: &mut Context<'_>,
    ) {
        let Some(index) = self.find(stream) else {
            if stream > self.last && !stream.is_multiple_of(2) {
                self.reach(stream, false, time, cx);
            }
            return;
        };
        let Some(open) = self.streams.get_mut(index) else { return };
        match open.up.add(bytes, cx.settings.body) {
            Ok(allocated) => self.charge(index, allocated),
            Err(fate) => return self.settle(index, fate, cx),
        }
        if is_last {
            self.finish_request(index, Headers::default(), time, cx);
        }
    }

    fn finish_request(&mut self, index: usize, trailers: Headers, time: Timestamp, cx: &mut Context<'_>) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        match stream.finish_request(trailers) {
            Ok(()) => {
                stream.times.request_done = time;
                self.finish(index, cx);
            }
            Err(fate) => self.settle(index, fate, cx),
        }
    }

    /// Adds to the bytes kept for the exchange at that place.
    pub(super) fn charge(&mut self, index: usize, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(index) {
            stream.cost += bytes;
            self.held += bytes;
        }
    }
}
