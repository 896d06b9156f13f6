//! Finds HTTP/2 in the middle of a stream: whether frames start with a segment, and whether they can be anything else.
//!
//! Judges one segment by itself; keeps nothing.

use super::frame::{FrameHeader, HEADER, Kind};
use super::framer::PREFACE;
use super::hpack::{Decoder, Field};
use crate::capture::Direction;

/// Frames that were found from the start of a segment on.
#[derive(Debug, Default)]
struct Chain<'a> {
    /// Headers of frames, whole and plausible.
    frames: usize,
    /// Whether the segment ends where a frame does.
    is_closed: bool,
    /// The first header block that is whole.
    block: Option<&'a [u8]>,
}

/// Follows the frames of a segment to its end; none when something there is no frame.
fn chain(segment: &[u8], direction: Direction) -> Option<Chain<'_>> {
    let mut chain = Chain::default();
    let mut rest = segment;
    let mut open = None;
    while let Some((header, behind)) = rest.split_first_chunk::<HEADER>() {
        let header = FrameHeader::read(header);
        if !header.is_plausible(direction) || !header.continues(open) {
            return None;
        }
        chain.frames += 1;
        let Some((payload, next)) = behind.split_at_checked(header.length as usize) else {
            return Some(chain);
        };
        if header.kind == Kind::WindowUpdate && payload == [0; 4] {
            return None;
        }
        if header.kind == Kind::Headers {
            let fragment = header.fragment(payload).ok()?;
            if header.ends_headers() {
                chain.block.get_or_insert(fragment);
            }
        }
        if matches!(header.kind, Kind::Headers | Kind::PushPromise | Kind::Continuation) {
            open = (!header.ends_headers()).then_some(header.stream);
        }
        rest = next;
    }
    chain.is_closed = rest.is_empty() && chain.frames > 0;
    Some(chain)
}

/// Whether a frame starts with this segment of a connection that is known to be HTTP/2: there must be two frames, or
/// one that ends with the segment.
pub(super) fn starts_with_frame(segment: &[u8], direction: Direction) -> bool {
    chain(segment, direction).is_some_and(|chain| chain.frames > 1 || chain.is_closed)
}

/// Which way this segment of a connection of which nothing is known travels, if it is HTTP/2 beyond doubt: it is the
/// client's preface, or it consists of frames, among them the head of a request, or of a response, that can be decoded.
pub(in crate::http) fn evidence(segment: &[u8]) -> Option<Direction> {
    if segment.starts_with(PREFACE) {
        return Some(Direction::ToServer);
    }
    [Direction::ToServer, Direction::ToClient].into_iter().find(|&direction| {
        let block = chain(segment, direction).and_then(|chain| chain.block);
        block.is_some_and(|block| is_head(block, direction))
    })
}

/// Whether this header block is that of a request, or of a response. Two fields of a request must be known: the static
/// table, at least, is.
fn is_head(block: &[u8], direction: Direction) -> bool {
    let (mut fields, mut sensible, mut asks, mut answers) = (0, true, 0, 0);
    let decoded = Decoder::joined().decode(block, &mut |field| {
        fields += 1;
        if let Field::Known(name, value) = field {
            match &name[..] {
                b":method" | b":scheme" | b":path" | b":authority" if !value.is_empty() => asks += 1,
                b":status" if value.len() == 3 && value.iter().all(u8::is_ascii_digit) => answers += 1,
                _ => sensible &= !name.is_empty() && name.iter().all(|byte| matches!(byte, b'!'..=b'~')),
            }
        }
    });
    let (asked, answered) = (asks >= 2 && answers == 0, asks == 0 && answers == 1 && fields > 1);
    decoded.is_ok() && sensible && if direction == Direction::ToServer { asked } else { answered }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{ToClient, ToServer};

    const GET: &[u8] = b"\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84";
    const OK: &[u8] = b"\0\0\x05\x01\x04\0\0\0\x01\x88\x0f\x0d\x010";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0abcdefgh";

    #[test]
    fn frames_start_with_a_segment_if_they_go_on_or_end_with_it() {
        let cases: [(&[u8], Direction, bool); 17] = [
            (GET, ToServer, true),
            (OK, ToClient, true),
            (PING, ToClient, true),
            (b"\0\0\0\x04\x01\0\0\0\0", ToClient, true),
            (b"\0\0\x09\0\x01\0\0\0\x01part", ToClient, false),
            (b"\0\0\x04\0\0\0\0\0\x01part\0\0\x09\0\x01\0\0\0\x01part", ToClient, true),
            (b"\0\0\x04\0\0\0\0\0\x01part\0\0\x09", ToClient, false),
            (b"\0\0\x04\0\0\0\0\0\x01partgarbage!!", ToClient, false),
            (b"\0\0\x04\0\0\0\0\0\x02part", ToServer, false),
            (b"\0\0\x04\0\0\0\0\0\0part", ToServer, false),
            (b"\0\0\x04\0\x02\0\0\0\x01part", ToServer, false),
            (b"\0\0\x04\0\0\x80\0\0\x01part", ToServer, false),
            (b"\0\0\x03\x09\x04\0\0\0\x01\x82\x86\x84", ToServer, false),
            (b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0", ToServer, false),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", ToServer, false),
            (b"\0\0\0\x0b\0\0\0\0\0", ToServer, false),
            (b"", ToServer, false),
        ];
        for (segment, direction, expected) in cases {
            let found = starts_with_frame(segment, direction);
            assert_eq!(found, expected, "{} {direction:?}", segment.escape_ascii());
        }
    }

    #[test]
    fn only_a_head_is_evidence() {
        let cases: [(&[u8], Option<Direction>); 9] = [
            (PREFACE, Some(ToServer)),
            (&[PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat(), Some(ToServer)),
            (PREFACE.split_last().unwrap().1, None),
            (GET, Some(ToServer)),
            (&[PING, GET, b"\0\0\x09\0\x01\0\0\0\x01part"].concat(), Some(ToServer)),
            (OK, Some(ToClient)),
            (PING, None),
            // A head of which every field is unknown says nothing.
            (b"\0\0\x03\x01\x05\0\0\0\x01\xbe\xbf\xc0", None),
            (b"GET / HTTP/1.1\r\n\r\n", None),
        ];
        for (segment, expected) in cases {
            assert_eq!(evidence(segment), expected, "{}", segment.escape_ascii());
        }
    }
}
