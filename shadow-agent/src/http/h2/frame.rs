//! Headers of frames (RFC 9113, section 4.1): reading one, and whether a peer may send it, or would.

use crate::capture::Direction;

/// What stands in front of every payload, in bytes.
pub(super) const HEADER: usize = 9;

/// The largest payload until the receiver allows more (RFC 9113, section 6.5.2).
pub(super) const DEFAULT_FRAME: u32 = 16 << 10;

/// The largest payload that a receiver can allow.
pub(super) const LARGEST_FRAME: u32 = (1 << 24) - 1;

/// The largest DATA frame that is taken for one where the start of a frame has to be found.
const PLAUSIBLE_DATA: u32 = 1 << 20;

/// The most settings in a frame.
pub(super) const MAX_SETTINGS: u32 = 128;

/// The type of a frame (RFC 9113, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// Of an extension; passed over (RFC 9113, section 5.5).
    Other(u8),
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// The length of the payload.
    pub(super) length: u32,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// The bit in front of the stream, which is zero.
    reserved: bool,
}

/// RFC 9113 forbids it; nothing behind it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl FrameHeader {
    const END_STREAM: u8 = 0x1;
    const ACK: u8 = 0x1;
    const END_HEADERS: u8 = 0x4;
    const PADDED: u8 = 0x8;
    const PRIORITY: u8 = 0x20;

    pub(super) fn read(bytes: &[u8; HEADER]) -> FrameHeader {
        let [a, b, c, kind, flags, d, e, f, g] = *bytes;
        let stream = u32::from_be_bytes([d, e, f, g]);
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::RstStream,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            other => Kind::Other(other),
        };
        let length = u32::from_be_bytes([0, a, b, c]);
        FrameHeader { length, kind, flags, stream: stream & !(1 << 31), reserved: stream >> 31 != 0 }
    }

    /// Whether it ends its side of the stream.
    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers) && self.flags & FrameHeader::END_STREAM != 0
    }

    /// Whether the header block ends with it.
    pub(super) fn ends_headers(&self) -> bool {
        self.flags & FrameHeader::END_HEADERS != 0
    }

    /// Whether it acknowledges settings.
    pub(super) fn is_ack(&self) -> bool {
        self.flags & FrameHeader::ACK != 0
    }

    /// Whether its payload begins with the length of its padding.
    pub(super) fn is_padded(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Headers | Kind::PushPromise)
            && self.flags & FrameHeader::PADDED != 0
    }

    /// Whether this frame may follow one that did not end its header block (RFC 9113, section 6.10).
    pub(super) fn continues(&self, block: Option<u32>) -> bool {
        match block {
            Some(stream) => self.kind == Kind::Continuation && self.stream == stream,
            None => self.kind != Kind::Continuation,
        }
    }

    /// What RFC 9113, sections 4.2 and 6, make an error of the connection.
    pub(super) fn check(&self, largest: u32) -> Result<(), Malformed> {
        let (length, on_stream) = (self.length, self.stream != 0);
        let fine = length <= largest
            && match self.kind {
                Kind::Data => on_stream && (!self.is_padded() || length > 0),
                Kind::Headers => on_stream && length as usize >= self.in_front(),
                Kind::PushPromise => on_stream && length as usize >= self.in_front(),
                Kind::Priority | Kind::Continuation => on_stream,
                Kind::RstStream => on_stream && length == 4,
                Kind::Settings if self.is_ack() => !on_stream && length == 0,
                Kind::Settings => !on_stream && length.is_multiple_of(6) && length / 6 <= MAX_SETTINGS,
                Kind::Ping => !on_stream && length == 8,
                Kind::GoAway => !on_stream && length >= 8,
                Kind::WindowUpdate => length == 4,
                Kind::Other(_) => true,
            };
        if fine { Ok(()) } else { Err(Malformed) }
    }

    /// Bytes in front of the header block: padding length, priority, promised stream.
    fn in_front(&self) -> usize {
        let priority = self.kind == Kind::Headers && self.flags & FrameHeader::PRIORITY != 0;
        let promised = self.kind == Kind::PushPromise;
        usize::from(self.is_padded()) + if priority { 5 } else { 0 } + if promised { 4 } else { 0 }
    }

    /// The part of the payload that belongs to the header block (RFC 9113, sections 6.2, 6.6 and 6.10).
    pub(super) fn fragment<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let padding = if self.is_padded() { payload.first().copied().unwrap_or(0) } else { 0 };
        let end = payload.len().checked_sub(usize::from(padding)).ok_or(Malformed)?;
        payload.get(self.in_front()..end).ok_or(Malformed)
    }

    /// Whether this looks like a frame of that direction where nothing else says so: more than what is allowed, it
    /// must be what is done.
    pub(super) fn is_plausible(&self, direction: Direction) -> bool {
        let only = |flags: u8| self.flags & !flags == 0;
        let (end_stream, end_headers) = (FrameHeader::END_STREAM, FrameHeader::END_HEADERS);
        let (padded, priority) = (FrameHeader::PADDED, FrameHeader::PRIORITY);
        let asked = !self.stream.is_multiple_of(2);
        let from_server = direction == Direction::ToClient;
        let sensible = match self.kind {
            Kind::Data => {
                only(end_stream | padded)
                    && (asked || from_server)
                    && (self.length > 0 || self.ends_stream())
                    && self.length <= PLAUSIBLE_DATA
            }
            Kind::Headers => {
                only(end_stream | end_headers | padded | priority)
                    && (asked || from_server)
                    && self.length > 0
                    && self.length <= DEFAULT_FRAME
            }
            Kind::Priority => only(0) && self.length == 5,
            Kind::RstStream | Kind::WindowUpdate => only(0),
            Kind::Settings | Kind::Ping => only(FrameHeader::ACK),
            Kind::PushPromise => {
                only(end_headers | padded) && from_server && asked && self.length <= DEFAULT_FRAME
            }
            Kind::GoAway => only(0) && self.length <= DEFAULT_FRAME,
            Kind::Continuation => only(end_headers) && self.length <= DEFAULT_FRAME,
            Kind::Other(_) => false,
        };
        sensible && !self.reserved && self.check(PLAUSIBLE_DATA).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_plausible_up_to_its_bound() {
        for (length, expected) in [(PLAUSIBLE_DATA, true), (PLAUSIBLE_DATA + 1, false)] {
            let [_, a, b, c] = length.to_be_bytes();
            let header = FrameHeader::read(&[a, b, c, 0, 0, 0, 0, 0, 1]);
            assert_eq!(header.is_plausible(Direction::ToServer), expected, "{length} bytes");
            assert_eq!(header.check(LARGEST_FRAME), Ok(()), "a receiver may allow it");
        }
    }
}
