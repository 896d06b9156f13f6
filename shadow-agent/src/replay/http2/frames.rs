//! Notes when the frames of each stream pass a connection (RFC 9113, section 4.1), so that times are those of the socket
//! and not those of the tasks behind it. It reads nothing but the headers of frames.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::replay::socket::{Passage, Watch};

/// Streams whose times are kept at most; of one beyond, the times are unknown.
const MAX_TIMED: usize = 1024;

/// What a client sends before its first frame (RFC 9113, section 3.4), in bytes.
const PREFACE: usize = 24;

/// A frame's header, in bytes.
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// A flag of DATA and HEADERS.
const END_STREAM: u8 = 1;

/// What has passed one connection, shared by its socket, its task and its users.
#[derive(Clone, Debug, Default)]
pub(in crate::replay) struct Frames(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    sent: Sent,
    received: Cursor,
    greeting: Greeting,
    /// The target takes no new streams, or the connection has ended.
    leaving: bool,
    last_read: Option<Instant>,
    /// TLS itself broke.
    tls_broke: bool,
    /// The socket has taken nothing since it was last asked to.
    blocked: bool,
    /// The highest stream whose request was handed to the socket, at least in part. They go out in order.
    highest: u32,
    streams: BTreeMap<u32, Stream>,
}

/// How the target began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Greeting {
    /// It has said nothing yet.
    #[default]
    Silent,
    /// With SETTINGS, as it must, and they are here whole.
    Http2,
    /// With something else.
    Foreign,
}

#[derive(Debug)]
struct Sent {
    preface: usize,
    cursor: Cursor,
}

impl Default for Sent {
    fn default() -> Sent {
        Sent { preface: PREFACE, cursor: Cursor::default() }
    }
}

/// Where in the frames of one direction the bytes have got to.
#[derive(Debug, Default)]
struct Cursor {
    header: [u8; HEADER],
    /// Bytes of `header` that are there.
    filled: usize,
    /// Bytes of the payload that are still to come.
    payload: usize,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// The last byte of it has passed.
    whole: bool,
}

#[derive(Debug, Default)]
struct Stream {
    passage: Passage,
    /// DATA of the response has come, so that HEADERS are its trailers.
    in_body: bool,
}

impl Cursor {
    /// Moves on over `bytes`; calls `passed` for each frame that a part of them belongs to.
    fn advance(&mut self, mut bytes: &[u8], mut passed: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.filled < HEADER {
                let (now, rest) = bytes.split_at(bytes.len().min(HEADER - self.filled));
                if let Some(room) = self.header.get_mut(self.filled..self.filled + now.len()) {
                    room.copy_from_slice(now);
                }
                self.filled += now.len();
                bytes = rest;
                if self.filled < HEADER {
                    return;
                }
                let [a, b, c, ..] = self.header;
                self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
            } else {
                let taken = bytes.len().min(self.payload);
                bytes = bytes.get(taken..).unwrap_or_default();
                self.payload -= taken;
            }
            passed(self.frame());
            if self.payload == 0 {
                self.filled = 0;
            }
        }
    }

    fn frame(&self) -> Frame {
        let [_, _, _, kind, flags, a, b, c, d] = self.header;
        // The first bit is reserved.
        let stream = u32::from_be_bytes([a, b, c, d]) & (u32::MAX >> 1);
        Frame { kind, flags, stream, whole: self.payload == 0 }
    }
}

impl State {
    fn wrote(&mut self, mut bytes: &[u8], at: Instant) {
        self.blocked = false;
        let preface = bytes.len().min(self.sent.preface);
        self.sent.preface -= preface;
        bytes = bytes.get(preface..).unwrap_or_default();
        let State { sent, streams, highest, .. } = self;
        sent.cursor.advance(bytes, |frame| {
            if !matches!(frame.kind, DATA | HEADERS | CONTINUATION) {
                return;
            }
            if frame.stream > *highest {
                *highest = frame.stream;
                streams.insert(frame.stream, Stream::default());
                if streams.len() > MAX_TIMED {
                    streams.pop_first();
                }
            }
            if let Some(stream) = streams.get_mut(&frame.stream) {
                stream.passage.written = Some(at);
            }
        });
    }

    fn read(&mut self, bytes: &[u8], at: Instant) {
        self.last_read = Some(at);
        let State { received, streams, greeting, leaving, .. } = self;
        received.advance(bytes, |frame| {
            if *greeting == Greeting::Silent {
                match frame.kind {
                    SETTINGS if frame.whole => *greeting = Greeting::Http2,
                    SETTINGS => {}
                    _ => *greeting = Greeting::Foreign,
                }
            }
            *leaving |= frame.kind == GOAWAY;
            let Some(stream) = streams.get_mut(&frame.stream) else { return };
            if matches!(frame.kind, DATA | HEADERS | CONTINUATION | RST_STREAM) {
                stream.passage.last_read = Some(at);
            }
            match frame.kind {
                DATA => stream.in_body = true,
                // Either all there is, or, behind headers, trailers.
                HEADERS if frame.flags & END_STREAM != 0 => {
                    stream.passage.first_read.get_or_insert(at);
                }
                // The last ones before the body are the final response's, others interim ones (RFC 9110, section 15.2).
                HEADERS if !stream.in_body => stream.passage.first_read = Some(at),
                _ => {}
            }
        });
    }
}

impl Frames {
    pub(super) fn greeting(&self) -> Greeting {
        self.lock().greeting
    }

    /// Whether no further stream should be opened.
    pub(super) fn leaving(&self) -> bool {
        self.lock().leaving
    }

    /// No further stream can be opened.
    pub(super) fn leave(&self) {
        self.lock().leaving = true;
    }

    /// Whether what is sent now has to wait until the target reads what was sent before.
    pub(super) fn is_blocked(&self) -> bool {
        self.lock().blocked
    }

    /// Whether it was TLS that ended the connection.
    pub(super) fn tls_broke(&self) -> bool {
        self.lock().tls_broke
    }

    /// When anything was read last.
    pub(super) fn last_read(&self) -> Option<Instant> {
        self.lock().last_read
    }

    /// Whether nothing of a stream's request was handed to the socket.
    pub(super) fn is_unsent(&self, stream: u32) -> bool {
        self.lock().highest < stream
    }

    /// When the bytes of a stream passed; nothing where that is unknown.
    pub(super) fn passage(&self, stream: u32) -> Passage {
        self.lock().streams.get(&stream).map(|stream| stream.passage).unwrap_or_default()
    }

    /// Forgets the times of a stream.
    pub(super) fn forget(&self, stream: u32) {
        self.lock().streams.remove(&stream);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave times that are not times.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Frames {
    fn wrote(&self, bytes: &[u8], at: Instant) {
        self.lock().wrote(bytes, at);
    }

    fn read(&self, bytes: &[u8], at: Instant) {
        self.lock().read(bytes, at);
    }

    fn blocked(&self) {
        self.lock().blocked = true;
    }

    fn tls_broke(&self) {
        self.lock().tls_broke = true;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.resize(bytes.len() + payload, 0xff);
        bytes
    }

    #[test]
    fn times_are_those_of_the_frames_however_the_bytes_are_cut() {
        let start = Instant::now();
        let request = [vec![0; PREFACE], frame(SETTINGS, 0, 0, 6), frame(HEADERS, 4, 1, 20)].concat();
        let body = [frame(HEADERS, 5, 3, 9), frame(DATA, END_STREAM, 1, 30)].concat();
        let answer = [
            frame(SETTINGS, 0, 0, 0),
            frame(HEADERS, 4, 1, 3),
            frame(HEADERS, 4, 1, 7),
            frame(DATA, 0, 1, 5),
            frame(HEADERS, END_STREAM, 1, 2),
        ];
        for piece in [1, 2, 7, 1000] {
            let frames = Frames::default();
            let at = |millis| start + Duration::from_millis(millis);
            let write =
                |bytes: &[u8], millis| bytes.chunks(piece).for_each(|part| frames.wrote(part, at(millis)));
            assert_eq!((frames.greeting(), frames.is_unsent(1)), (Greeting::Silent, true));
            write(&request, 1);
            assert_eq!((frames.is_unsent(1), frames.is_unsent(3)), (false, true));
            write(&body, 2);
            for (millis, bytes) in (10..).zip(&answer) {
                bytes.chunks(piece).for_each(|part| frames.read(part, at(millis)));
            }
            assert_eq!((frames.greeting(), frames.leaving()), (Greeting::Http2, false));
            let passage = frames.passage(1);
            assert_eq!(passage.written, Some(at(2)));
            assert_eq!(passage.first_read, Some(at(12)), "the headers before the body, not the interim ones");
            assert_eq!(passage.last_read, Some(at(14)));
            assert_eq!(frames.passage(3).first_read, None);
            frames.forget(1);
            assert_eq!(frames.passage(1).written, None);
            assert!(!frames.is_unsent(1), "what was sent stays sent");
            frames.read(&frame(GOAWAY, 0, 0, 8), at(20));
            assert!(frames.leaving());
        }
    }

    #[test]
    fn headers_that_end_the_stream_are_the_answer_where_there_is_no_other() {
        let frames = Frames::default();
        let now = Instant::now();
        frames.wrote(&[vec![0; PREFACE], frame(HEADERS, 5, 1, 1)].concat(), now);
        frames.read(&frame(SETTINGS, 0, 0, 0), now);
        frames.read(&frame(HEADERS, 5, 1, 4), now);
        assert_eq!(frames.passage(1).first_read, Some(now));
    }

    #[test]
    fn whatever_does_not_begin_with_settings_is_foreign() {
        let frames = Frames::default();
        frames.read(b"HTTP/1.1", Instant::now());
        assert_eq!(frames.greeting(), Greeting::Silent);
        frames.read(b" 400 Bad Request\r\n\r\n", Instant::now());
        assert_eq!(frames.greeting(), Greeting::Foreign);
    }

    #[test]
    fn settings_count_once_they_are_whole() {
        let frames = Frames::default();
        let settings = frame(SETTINGS, 0, 0, 6);
        let (most, last) = settings.split_at(settings.len() - 1);
        frames.read(most, Instant::now());
        assert_eq!(frames.greeting(), Greeting::Silent);
        frames.read(last, Instant::now());
        assert_eq!(frames.greeting(), Greeting::Http2);
    }

    #[test]
    fn the_streams_timed_are_bounded() {
        let frames = Frames::default();
        let now = Instant::now();
        frames.wrote(&[0; PREFACE], now);
        let bound = u32::try_from(MAX_TIMED).unwrap();
        let id = |number: u32| 2 * number + 1;
        (0..bound).for_each(|number| frames.wrote(&frame(HEADERS, 5, id(number), 1), now));
        assert!(frames.passage(id(0)).written.is_some());
        frames.wrote(&frame(HEADERS, 5, id(bound), 1), now);
        assert!(frames.passage(id(0)).written.is_none() && frames.passage(id(1)).written.is_some());
        assert!(!frames.is_unsent(id(0)));
    }
}
