//! Cuts the bytes of one direction into frames. DATA is handed on as it arrives; what else matters is collected whole.
//!
//! Knows no stream, and nothing of the frames before.

use std::borrow::Cow;

use super::MAX_BLOCK;
use super::frame::{DEFAULT_FRAME, FrameHeader, HEADER, Kind, LARGEST_FRAME, Malformed};
use crate::exchange::Timestamp;

/// What a client sends first (RFC 9113, section 3.4).
pub(in crate::http) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What comes off the front of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Bytes of a body, perhaps none.
    Data {
        stream: u32,
        bytes: &'a [u8],
        /// Whether the body ends behind them.
        is_last: bool,
    },
    /// A frame, with its payload or as much of it as matters.
    Frame(FrameHeader, Cow<'a, [u8]>),
    /// A part of a header block that is larger than [`MAX_BLOCK`]; its payload is passed over.
    Oversized(FrameHeader),
}

/// What bytes that nobody saw did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipped {
    /// They belong to the payload of a frame that does not matter.
    Nothing,
    /// They belong to the body of that stream.
    Data(u32),
    /// What follows them is unknown.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of the preface were there.
    Preface(usize),
    /// So many bytes of a header were there.
    Header(usize),
    /// The length of the padding comes next.
    Padding(FrameHeader),
    /// So much of a body and of its padding comes next.
    Data(FrameHeader, u32, u32),
    /// The rest of a payload, of which so many bytes matter.
    Payload(FrameHeader, usize),
    /// So many bytes that do not matter.
    Pass(u32),
}

/// Reads the frames of one direction.
#[derive(Debug)]
pub(super) struct Framer {
    state: State,
    header: [u8; HEADER],
    payload: Vec<u8>,
    largest: u32,
    started: Timestamp,
}

impl Framer {
    /// A framer that begins with a frame.
    pub(super) fn new() -> Framer {
        Framer {
            state: State::Header(0),
            header: [0; HEADER],
            payload: Vec::new(),
            largest: DEFAULT_FRAME,
            started: Timestamp::default(),
        }
    }

    /// A framer that begins with the client's preface.
    pub(super) fn with_preface() -> Framer {
        Framer { state: State::Preface(0), ..Framer::new() }
    }

    /// A frame begins with the next byte.
    pub(super) fn restart(&mut self) {
        *self = Framer { largest: self.largest, ..Framer::new() };
    }

    /// The receiver allows payloads of that size. It may have allowed larger ones before, and some may be on their way.
    pub(super) fn allow(&mut self, largest: u32) {
        self.largest = self.largest.max(largest.min(LARGEST_FRAME));
    }

    /// Bytes allocated.
    pub(super) fn buffered(&self) -> usize {
        self.payload.capacity()
    }

    /// When the first byte of the last frame was captured.
    pub(super) fn started(&self) -> Timestamp {
        self.started
    }

    /// Takes the next piece off the front of `input`; none when that is used up.
    pub(super) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        time: Timestamp,
    ) -> Result<Option<Piece<'a>>, Malformed> {
        loop {
            match self.state {
                State::Preface(seen) => {
                    let (_, expected) = PREFACE.split_at(seen.min(PREFACE.len()));
                    let bytes = take(input, expected.len());
                    if !expected.starts_with(bytes) {
                        return Err(Malformed);
                    }
                    if bytes.len() < expected.len() {
                        self.state = State::Preface(seen + bytes.len());
                        return Ok(None);
                    }
                    self.state = State::Header(0);
                }
                State::Header(seen) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    if seen == 0 {
                        self.started = time;
                    }
                    let bytes = take(input, HEADER - seen);
                    let place = self.header.get_mut(seen..seen + bytes.len()).unwrap_or_default();
                    place.copy_from_slice(bytes);
                    if seen + bytes.len() < HEADER {
                        self.state = State::Header(seen + bytes.len());
                        return Ok(None);
                    }
                    if let Some(piece) = self.begin(FrameHeader::read(&self.header))? {
                        return Ok(Some(piece));
                    }
                }
                State::Padding(header) => {
                    let [padding] = take(input, 1) else { return Ok(None) };
                    let padding = u32::from(*padding);
                    let data = (header.length - 1).checked_sub(padding).ok_or(Malformed)?;
                    self.state = State::Data(header, data, padding);
                }
                State::Data(header, data, padding) => {
                    if let Some(piece) = self.data(header, data, padding, input) {
                        return Ok(Some(piece));
                    }
                    if matches!(self.state, State::Data(..)) {
                        return Ok(None);
                    }
                }
                State::Payload(header, wanted) => {
                    let bytes = take(input, wanted - self.payload.len());
                    if self.payload.is_empty() && bytes.len() == wanted {
                        self.state = State::Pass(header.length - wanted as u32);
                        return Ok(Some(Piece::Frame(header, Cow::Borrowed(bytes))));
                    }
                    self.payload.extend_from_slice(bytes);
                    if self.payload.len() < wanted {
                        return Ok(None);
                    }
                    self.state = State::Pass(header.length - wanted as u32);
                    return Ok(Some(Piece::Frame(header, Cow::Owned(std::mem::take(&mut self.payload)))));
                }
                State::Pass(left) => {
                    let left = left - take(input, left as usize).len() as u32;
                    if left > 0 {
                        self.state = State::Pass(left);
                        return Ok(None);
                    }
                    self.state = State::Header(0);
                }
            }
        }
    }

    /// A header is whole.
    fn begin<'a>(&mut self, header: FrameHeader) -> Result<Option<Piece<'a>>, Malformed> {
        header.check(self.largest)?;
        let length = header.length;
        self.state = match header.kind {
            Kind::Data if header.is_padded() => State::Padding(header),
            Kind::Data => State::Data(header, length, 0),
            Kind::Headers | Kind::PushPromise | Kind::Continuation if length as usize > MAX_BLOCK => {
                self.state = State::Pass(length);
                return Ok(Some(Piece::Oversized(header)));
            }
            Kind::Headers | Kind::PushPromise | Kind::Continuation | Kind::Settings | Kind::RstStream => {
                State::Payload(header, length as usize)
            }
            Kind::GoAway => State::Payload(header, 8),
            // That they are there matters to header blocks, which they must not interrupt.
            Kind::Priority | Kind::Ping | Kind::WindowUpdate | Kind::Other(_) => State::Payload(header, 0),
        };
        Ok(None)
    }

    /// Takes bytes of a body and of its padding. The state is that of the frame still if there were too few.
    fn data<'a>(
        &mut self,
        header: FrameHeader,
        data: u32,
        padding: u32,
        input: &mut &'a [u8],
    ) -> Option<Piece<'a>> {
        let bytes = take(input, data as usize);
        let data = data - bytes.len() as u32;
        let padding = if data == 0 { padding - take(input, padding as usize).len() as u32 } else { padding };
        let is_over = data == 0 && padding == 0;
        self.state = if is_over { State::Header(0) } else { State::Data(header, data, padding) };
        let is_last = is_over && header.ends_stream();
        (!bytes.is_empty() || is_last).then_some(Piece::Data { stream: header.stream, bytes, is_last })
    }

    /// Passes over so many bytes that nobody saw.
    pub(super) fn skip(&mut self, count: u64) -> Skipped {
        let within = |left: u32| u32::try_from(count).ok().and_then(|count| left.checked_sub(count));
        match self.state {
            State::Data(header, data, padding) => {
                let Some(left) = within(data + padding) else { return Skipped::Lost };
                self.state = State::Data(header, left.saturating_sub(padding), left.min(padding));
                Skipped::Data(header.stream)
            }
            State::Padding(header) => {
                let Some(left) = within(header.length) else { return Skipped::Lost };
                self.state = State::Pass(left);
                Skipped::Data(header.stream)
            }
            State::Pass(left) => {
                let Some(left) = within(left) else { return Skipped::Lost };
                self.state = State::Pass(left);
                Skipped::Nothing
            }
            State::Preface(_) | State::Header(_) | State::Payload(..) => Skipped::Lost,
        }
    }
}

/// Takes up to `count` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(input.len().min(count));
    *input = rest;
    front
}
