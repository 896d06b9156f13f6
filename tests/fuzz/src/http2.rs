//! HTTP/2 on one connection: the books balance, and what is whole does not depend on how it was cut into segments.

use shadow_agent::capture::Direction;

use crate::talk::play;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// The first byte says how the second play is cut. Then come frames: a byte with the direction (bit 7), whether the
/// length is right (bit 6 says that it is not) and the type, one with the flags, one with the stream, one with the length
/// of the payload, and the payload.
pub fn check(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let turns = turns(bytes);
    let turns: Vec<(Direction, &[u8])> =
        turns.iter().map(|(direction, bytes)| (*direction, &bytes[..])).collect();
    let size = usize::from(size % 64) + 1;
    let ((whole, clean), (cut, _)) =
        (crate::told(&play(&turns, usize::MAX)), crate::told(&play(&turns, size)));
    if clean {
        assert_eq!(whole, cut, "cut into pieces of {size}");
    }
}

fn turns(mut bytes: &[u8]) -> Vec<(Direction, Vec<u8>)> {
    let mut turns = vec![
        (Direction::ToServer, [PREFACE, &frame(SETTINGS, 0, 0, 0, &[])].concat()),
        (Direction::ToClient, frame(SETTINGS, 0, 0, 0, &[])),
    ];
    while let [first, flags, stream, length, rest @ ..] = bytes {
        let direction = if first & 0x80 == 0 { Direction::ToServer } else { Direction::ToClient };
        let (payload, behind) = rest.split_at(rest.len().min(usize::from(*length)));
        let more = u32::from(first & 0x40 != 0);
        let frame = frame(first & 0x0F, *flags, u32::from(*stream), more, payload);
        match turns.last_mut() {
            Some((last, bytes)) if *last == direction => bytes.extend(frame),
            _ => turns.push((direction, frame)),
        }
        bytes = behind;
    }
    turns
}

/// A frame whose length says `more` than what is there.
fn frame(kind: u8, flags: u8, stream: u32, more: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32 + more).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Conversations of several streams.
pub fn seeds() -> Vec<Vec<u8>> {
    let say = |server: bool, kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let first = kind | if server { 0x80 } else { 0 };
        [&[first, flags, stream, payload.len() as u8], payload].concat()
    };
    let up = |kind, flags, stream, payload: &[u8]| say(false, kind, flags, stream, payload);
    let down = |kind, flags, stream, payload: &[u8]| say(true, kind, flags, stream, payload);
    let get = b"\x82\x86\x84\x41\x01h";
    let again = b"\x82\x86\x84\xbe";
    let ok = b"\x88\x76\x01s";
    let talks: [Vec<Vec<u8>>; 6] = [
        vec![
            up(HEADERS, END | END_HEADERS, 1, get),
            up(HEADERS, END | END_HEADERS, 3, again),
            down(HEADERS, END_HEADERS, 3, ok),
            down(HEADERS, END_HEADERS, 1, b"\x88\xbe"),
            down(DATA, 0, 3, b"abc"),
            down(DATA, END, 1, b"x"),
            down(DATA, END, 3, b""),
        ],
        vec![
            up(HEADERS, 0, 1, b"\x83\x86"),
            up(CONTINUATION, 0, 1, b"\x84\x40\x01a\x01b"),
            up(CONTINUATION, END_HEADERS, 1, b""),
            up(DATA, PADDED, 1, b"\x02ab\0\0"),
            up(HEADERS, END | END_HEADERS, 1, b"\x10\x01t\x01u"),
            down(HEADERS, END_HEADERS, 1, b"\x08\x03100"),
            down(HEADERS, END_HEADERS, 1, b"\x88"),
            down(HEADERS, END | END_HEADERS, 1, b"\x10\x01t\x01u"),
        ],
        vec![up(HEADERS, END | END_HEADERS, 1, get), down(3, 0, 1, &[0, 0, 0, 8])],
        vec![up(HEADERS, END_HEADERS, 1, get), down(7, 0, 0, &[0; 8]), up(3, 0, 1, &[0; 4])],
        vec![
            up(HEADERS, END | END_HEADERS, 1, get),
            down(5, END_HEADERS, 1, b"\0\0\0\x02\x82\x86\x84"),
            down(HEADERS, END_HEADERS | END, 2, ok),
            down(HEADERS, END_HEADERS | END, 1, b"\x88\xbe"),
        ],
        vec![up(HEADERS, END | END_HEADERS, 1, b"\xbe\x80"), up(HEADERS, END | END_HEADERS, 3, get)],
    ];
    talks.iter().zip(0_u8..).map(|(talk, size)| [vec![size * 3], talk.concat()].concat()).collect()
}
