//! Every bound, at N and at N + 1.

use super::encoder::{CONTINUATION, SETTINGS, literal};
use super::frame::{DEFAULT_FRAME, LARGEST_FRAME, MAX_SETTINGS};
use super::*;

#[test]
fn streams_are_bounded() {
    for (count, evicted) in [(MAX_STREAMS, 0), (MAX_STREAMS + 1, 1)] {
        let (mut peer, mut talk) = (Peer::new(false), Talk::new());
        for step in hello() {
            peer.play(&step, usize::MAX);
        }
        for number in 0..count as u32 {
            peer.play(&talk.get(1 + 2 * number, "/a"), usize::MAX);
        }
        let lost: Vec<_> = peer.events.iter().map(brief).collect();
        assert_eq!(lost, vec!["lost evicted"; evicted], "{count} streams");
        assert_eq!(peer.connection.load().open, MAX_STREAMS);
        peer.play(&talk.ok(1, "x"), usize::MAX);
        peer.play(&talk.get(1001, "/b"), usize::MAX);
        peer.play(&talk.ok(1001, "y"), usize::MAX);
        let events: Vec<_> = peer.events.iter().skip(evicted).map(brief).collect();
        assert_eq!(events, ["GET /a 200 x", "GET /b 200 y"], "there is room again");
    }
}

/// A block of that size, and the frames that it comes in.
fn flood(size: usize, frames: usize) -> Vec<u8> {
    let start = [&[0x82, 0x86][..], &literal(":path", "/a")].concat();
    let value = "v".repeat(size - start.len() - 7);
    let mut block = [start, literal("abc", &value)].concat();
    // Lengths take more bytes the larger they are.
    let excess = block.len() - size;
    block.truncate(0);
    let value = "v".repeat(value.len() - excess);
    block.extend([&[0x82, 0x86][..], &literal(":path", "/a"), &literal("abc", &value)].concat());
    assert_eq!(block.len(), size);
    let mut pieces = block.chunks(size.div_ceil(frames).min(DEFAULT_FRAME as usize));
    let mut out = frame(HEADERS, END_STREAM, 1, pieces.next().unwrap());
    let rest: Vec<&[u8]> = pieces.collect();
    let missing = (frames - 1).saturating_sub(rest.len());
    for piece in rest.into_iter().chain(std::iter::repeat_n(&[][..], missing)) {
        out.extend(frame(CONTINUATION, 0, 1, piece));
    }
    out
}

/// Ends a block with a CONTINUATION in addition.
fn ended(frames: Vec<u8>) -> Vec<u8> {
    [frames, frame(CONTINUATION, END_HEADERS, 1, &[])].concat()
}

#[test]
fn header_blocks_are_bounded_by_size_and_by_frames() {
    for (frames, fits) in [(MAX_CONTINUATIONS, true), (MAX_CONTINUATIONS + 1, false)] {
        let first = if fits { "GET /a 200 x" } else { "lost malformed" };
        check_whole(&format!("{frames} continuations"), &[first, "GET /b 200 y"], |talk| {
            vec![Up(ended(flood(1000, frames))), talk.ok(1, "x"), talk.get(3, "/b"), talk.ok(3, "y")]
        });
    }
    // What may be decoded is then bounded by its fields: a block that fits is malformed, but read.
    for (size, known) in [(MAX_BLOCK, true), (MAX_BLOCK + 1, false)] {
        let second = if known { "GET /b 200 y" } else { "skipped header_table" };
        check_whole(&format!("{size} bytes"), &["GET /b 200 y", "lost malformed", second], |talk| {
            let first = [talk.get(1, "/b"), talk.ok(1, "y")];
            let mut block = flood(size, 1);
            for stream in block
                .windows(4)
                .enumerate()
                .filter(|(_, id)| *id == [0, 0, 0, 1])
                .map(|(at, _)| at)
                .collect::<Vec<_>>()
            {
                block[stream + 3] = 3;
            }
            let end = frame(CONTINUATION, END_HEADERS, 3, &[]);
            let second = [Up([block, end].concat()), talk.get(5, "/b"), talk.ok(5, "y")];
            [&first[..], &second].concat()
        });
    }
}

#[test]
fn a_flood_of_continuations_costs_nothing_beyond_the_bound() {
    let mut peer = Peer::new(false);
    for step in hello() {
        peer.play(&step, usize::MAX);
    }
    peer.play(&Up(frame(HEADERS, 0, 1, &[0x82])), usize::MAX);
    for _ in 0..1000 {
        peer.play(&Up(frame(CONTINUATION, 0, 1, &[b'x'; 1000])), usize::MAX);
        assert!(peer.connection.load().buffered <= 2 * MAX_BLOCK + 4096);
    }
    assert!(peer.connection.load().buffered < 4096);
}

#[test]
fn frames_are_bounded_by_what_the_receiver_allows() {
    let cases = [
        (None, DEFAULT_FRAME, true),
        (None, DEFAULT_FRAME + 1, false),
        (Some(20_000), 20_000, true),
        (Some(20_000), 20_001, false),
        (Some(u32::MAX), LARGEST_FRAME, true),
    ];
    for (allowed, size, fits) in cases {
        let expected = if fits { "skipped body_too_large" } else { "lost malformed" };
        check_whole(&format!("{size} of {allowed:?}"), &[expected], |talk| {
            let settings: Vec<_> = allowed.map(|allowed| (5, allowed)).into_iter().collect();
            let head = talk.head(1, "POST", "/a", 0);
            vec![Down(encoder::settings(&settings)), Up([head, data(1, vec![0; size as usize])].concat())]
        });
    }
}

#[test]
fn settings_of_a_frame_are_bounded() {
    for (count, fits) in [(MAX_SETTINGS, true), (MAX_SETTINGS + 1, false)] {
        let expected = if fits { "GET /a 200 x" } else { "lost malformed" };
        check_whole(&format!("{count} settings"), &[expected], |talk| {
            let settings = frame(SETTINGS, 0, 0, &[0; 6].repeat(count as usize));
            vec![talk.get(1, "/a"), Down(settings), talk.ok(1, "x")]
        });
    }
}

#[test]
fn unseen_requests_are_counted_up_to_the_bound() {
    for (unseen, counted) in [(MAX_STREAMS, MAX_STREAMS), (MAX_STREAMS + 1, MAX_STREAMS)] {
        let expected = [&["GET /a 200 x"][..], &vec!["lost gap"; counted], &["GET /b 200 y"]].concat();
        check_whole(&format!("{unseen} requests"), &expected, |talk| {
            let stream = 3 + 2 * unseen as u32;
            let first = [talk.get(1, "/a"), talk.ok(1, "x"), Gap(ToServer, 9)];
            [&first[..], &[Talk::new().get(stream, "/b"), talk.ok(stream, "y")]].concat()
        });
    }
}
