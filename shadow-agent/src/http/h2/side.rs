//! One direction of an HTTP/2 connection: from bytes to what they say, header blocks decoded. Knows no stream.

use std::borrow::Cow;

use super::frame::{FrameHeader, Kind, LARGEST_FRAME, Malformed};
use super::framer::{Framer, Piece, Skipped};
use super::head::Fields;
use super::hpack::Decoder;
use super::{MAX_BLOCK, MAX_CONTINUATIONS, join};
use crate::capture::Direction;
use crate::exchange::Timestamp;

/// What one side says.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is looked at at once, and not kept")]
pub(super) enum Said<'a> {
    /// Bytes of a body, perhaps none.
    Data { stream: u32, bytes: &'a [u8], is_last: bool },
    /// The head or the trailers of a message.
    Head(Head),
    /// A stream is given up, with that error code.
    Reset { stream: u32, code: u32 },
    /// How the other side may send.
    Settings(Cow<'a, [u8]>),
    /// Streams beyond that one were not looked at.
    GoAway { last: u32 },
}

/// A header block that is whole.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) stream: u32,
    pub(super) ends_stream: bool,
    /// When its first byte was captured.
    pub(super) started: Timestamp,
    /// Its fields; none if it was too large.
    pub(super) fields: Option<Fields>,
}

/// A header block that is not whole yet (RFC 9113, section 6.10).
#[derive(Debug)]
struct Block {
    stream: u32,
    is_promise: bool,
    ends_stream: bool,
    started: Timestamp,
    bytes: Vec<u8>,
    /// Bytes of payload, and frames, so far.
    size: usize,
    frames: usize,
    oversized: bool,
}

#[derive(Debug)]
pub(super) struct Side {
    direction: Direction,
    framer: Framer,
    hpack: Decoder,
    block: Option<Box<Block>>,
    /// Whether the start of a frame has to be found.
    searching: bool,
    /// Whether nothing but SETTINGS may come next.
    is_first: bool,
    is_over: bool,
}

impl Side {
    /// A side that is seen from its first byte on.
    pub(super) fn new(direction: Direction) -> Side {
        let framer = if direction == Direction::ToServer { Framer::with_preface() } else { Framer::new() };
        let (hpack, block) = (Decoder::new(), None);
        Side { direction, framer, hpack, block, searching: false, is_first: true, is_over: false }
    }

    /// A side that is met when it has not sent a header block yet, but perhaps other frames.
    pub(super) fn early(direction: Direction) -> Side {
        let framer = Framer::new();
        Side { framer, searching: true, is_first: false, ..Side::new(direction) }
    }

    /// A side that is met anywhere.
    pub(super) fn joined(direction: Direction) -> Side {
        let mut side = Side::early(direction);
        side.lose();
        side
    }

    /// Bytes allocated.
    pub(super) fn buffered(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| block.bytes.capacity());
        self.framer.buffered() + self.hpack.buffered() + block
    }

    /// Whether the start of a frame has to be found.
    pub(super) fn is_searching(&self) -> bool {
        self.searching
    }

    /// Whether its first frame is still to come.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Whether there is something to be read in this segment. If a frame has to be found, it is only at the start of
    /// one, and if it is beyond doubt.
    pub(super) fn is_readable(&mut self, segment: &[u8]) -> bool {
        if self.searching && !self.is_over && join::starts_with_frame(segment, self.direction) {
            self.searching = false;
        }
        !self.searching && !self.is_over
    }

    /// A frame starts with the next byte, whoever found that out.
    pub(super) fn found(&mut self) {
        self.searching = false;
    }

    /// What follows is unknown: the start of a frame has to be found, and no older header is known.
    pub(super) fn lose(&mut self) {
        self.framer.restart();
        self.allow(LARGEST_FRAME);
        self.hpack.forget();
        (self.block, self.searching, self.is_first) = (None, true, false);
    }

    /// Nothing that follows matters.
    pub(super) fn end(&mut self) {
        let direction = self.direction;
        *self = Side { is_over: true, ..Side::new(direction) };
    }

    /// Whether nothing that follows matters.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The other side allows payloads of that size.
    pub(super) fn allow(&mut self, largest: u32) {
        self.framer.allow(largest);
    }

    /// Passes over so many bytes that nobody saw.
    pub(super) fn skip(&mut self, count: u64) -> Skipped {
        if self.searching { Skipped::Lost } else { self.framer.skip(count) }
    }

    /// Takes what is said next off the front of `input`; none when that is used up.
    pub(super) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        time: Timestamp,
    ) -> Result<Option<Said<'a>>, Malformed> {
        while let Some(piece) = self.framer.next(input, time)? {
            let (header, payload) = match piece {
                Piece::Data { stream, bytes, is_last } => {
                    if self.block.is_some() || self.is_first {
                        return Err(Malformed);
                    }
                    return Ok(Some(Said::Data { stream, bytes, is_last }));
                }
                Piece::Frame(header, payload) => (header, Some(payload)),
                Piece::Oversized(header) => (header, None),
            };
            if !header.continues(self.block.as_ref().map(|block| block.stream)) {
                return Err(Malformed);
            }
            if self.is_first && (header.kind != Kind::Settings || header.is_ack()) {
                return Err(Malformed);
            }
            self.is_first = false;
            if let Some(said) = self.frame(header, payload)? {
                return Ok(Some(said));
            }
        }
        Ok(None)
    }

    fn frame<'a>(
        &mut self,
        header: FrameHeader,
        payload: Option<Cow<'a, [u8]>>,
    ) -> Result<Option<Said<'a>>, Malformed> {
        let bytes = payload.as_deref().unwrap_or_default();
        Ok(match header.kind {
            Kind::Headers | Kind::PushPromise | Kind::Continuation => {
                self.block(header, payload.as_deref())?.map(Said::Head)
            }
            Kind::RstStream => {
                let code = bytes.first_chunk().map_or(0, |code| u32::from_be_bytes(*code));
                Some(Said::Reset { stream: header.stream, code })
            }
            Kind::Settings if !header.is_ack() => payload.map(Said::Settings),
            Kind::GoAway => {
                let last = bytes.first_chunk().map_or(0, |last| u32::from_be_bytes(*last) & !(1 << 31));
                Some(Said::GoAway { last })
            }
            _ => None,
        })
    }

    /// Takes a part of a header block, and gives what came of it if it is the last.
    fn block(&mut self, header: FrameHeader, payload: Option<&[u8]>) -> Result<Option<Head>, Malformed> {
        let is_promise = header.kind == Kind::PushPromise;
        if is_promise && self.direction == Direction::ToServer {
            return Err(Malformed);
        }
        let fragment = payload.map(|payload| header.fragment(payload)).transpose()?;
        let mut block = match (self.block.take(), fragment) {
            (None, Some(fragment)) if header.ends_headers() => {
                let (started, ends_stream) = (self.framer.started(), header.ends_stream());
                let fields = Some(self.decode(fragment)?);
                let head = Head { stream: header.stream, ends_stream, started, fields };
                return Ok((!is_promise).then_some(head));
            }
            (Some(block), _) => block,
            (None, _) => Box::new(Block {
                stream: header.stream,
                is_promise,
                ends_stream: header.ends_stream(),
                started: self.framer.started(),
                bytes: Vec::new(),
                size: 0,
                frames: 0,
                oversized: false,
            }),
        };
        block.size = block.size.saturating_add(header.length as usize);
        block.frames = block.frames.saturating_add(1);
        block.oversized |= block.size > MAX_BLOCK || block.frames > 1 + MAX_CONTINUATIONS;
        match fragment {
            Some(fragment) if !block.oversized => block.bytes.extend_from_slice(fragment),
            _ => block.bytes = Vec::new(),
        }
        if !header.ends_headers() {
            self.block = Some(block);
            return Ok(None);
        }
        let Block { stream, is_promise, ends_stream, started, bytes, oversized, .. } = *block;
        let fields = if oversized {
            self.hpack.forget();
            None
        } else {
            Some(self.decode(&bytes)?)
        };
        Ok((!is_promise).then_some(Head { stream, ends_stream, started, fields }))
    }

    fn decode(&mut self, block: &[u8]) -> Result<Fields, Malformed> {
        let mut fields = Fields::default();
        self.hpack.decode(block, &mut |field| fields.take(field)).map_err(|_| Malformed)?;
        Ok(fields)
    }
}
