//! One direction of a flow: where its bytes stand in sequence space, and those that arrived ahead of their turn.
//!
//! Decides where bytes belong; handing them on, and when to give up waiting, is the flow's business.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};

use foldhash::fast::FixedState;

use super::{PIECE_OVERHEAD, WINDOW};
use crate::exchange::Timestamp;

/// How many of the ranges handed on last are remembered, to notice when other bytes are sent for them.
const REMEMBERED: usize = 2;

/// Where a segment's bytes stand in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The first `skip` of them were there before; what is left, if anything, comes next.
    Next { skip: u64 },
    /// Something before `offset` has not arrived yet.
    Ahead { offset: u64 },
    /// Nowhere near.
    Stray,
}

/// Bytes that wait for their turn.
#[derive(Debug)]
pub(super) struct Piece {
    /// When they were captured.
    pub(super) time: Timestamp,
    /// What their sender had received.
    pub(super) ack: Option<u64>,
    /// The bytes.
    pub(super) bytes: Box<[u8]>,
    /// Bytes behind them that were not captured.
    pub(super) missing: u32,
}

impl Piece {
    fn len(&self) -> u64 {
        self.bytes.len() as u64 + u64::from(self.missing)
    }

    fn cost(&self) -> usize {
        self.bytes.len() + PIECE_OVERHEAD
    }
}

/// The end of a stream, as announced by FIN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fin {
    /// The offset behind the last byte.
    pub(super) offset: u64,
    /// When it was captured.
    pub(super) time: Timestamp,
    /// What its sender had received.
    pub(super) ack: Option<u64>,
}

/// What a reset is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// Its receiver believes it.
    Certain,
    /// Near, but not where the stream stands: its receiver asks back unless more is in flight than was seen.
    Doubtful,
    /// Nowhere near.
    Stray,
}

/// A range that was handed on.
#[derive(Clone, Copy, Debug, Default)]
struct Range {
    offset: u64,
    length: u32,
    /// What its bytes give. Who makes other bytes give the same goes unnoticed; what was handed on stays as it is.
    digest: u32,
}

impl Range {
    fn of(offset: u64, bytes: &[u8]) -> Range {
        let mut hasher = FixedState::default().build_hasher();
        hasher.write(bytes);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Range { offset, length, digest: hasher.finish() as u32 }
    }

    /// Whether `bytes` at `offset` hold this range, and other bytes in its place.
    fn is_contradicted(self, offset: u64, bytes: &[u8]) -> bool {
        let Some(start) = self.offset.checked_sub(offset).and_then(|start| usize::try_from(start).ok())
        else {
            return false;
        };
        let end = start.saturating_add(self.length as usize);
        let within = bytes.get(start..end).filter(|within| !within.is_empty());
        within.is_some_and(|within| Range::of(self.offset, within).digest != self.digest)
    }
}

/// What became of bytes that were to be held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// So many were there before.
    pub(super) duplicate: u64,
    /// Some of those were others.
    pub(super) conflict: bool,
}

/// One direction of a flow.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The sequence number of offset 0, once known.
    first: Option<u32>,
    /// The offset that comes next.
    next: u64,
    /// Bytes ahead of their turn, by offset; none overlap, none start before `next`.
    pieces: BTreeMap<u64, Piece>,
    /// What the pieces cost.
    held: usize,
    /// The end, once announced.
    fin: Option<Fin>,
    /// Whether the end was reached.
    ended: bool,
    /// The latest time handed on, so that time never runs backwards within the stream.
    clock: Timestamp,
    /// When a segment last brought the next bytes.
    pub(super) progress: Timestamp,
    /// Where the last stray segment ended.
    stray: Option<u32>,
    /// The ranges handed on last, the latest first.
    recent: [Range; REMEMBERED],
}

impl Stream {
    /// The sequence number of offset 0.
    pub(super) fn first(&self) -> Option<u32> {
        self.first
    }

    /// The offset that comes next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether the end was reached.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes held out of order, overhead included.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Says which sequence number is offset 0, unless that is known.
    pub(super) fn anchor(&mut self, seq: u32) {
        self.first.get_or_insert(seq);
    }

    /// Forgets the anchor, if no byte depends on it.
    pub(super) fn lift_anchor(&mut self) {
        if self.next == 0 && self.pieces.is_empty() && self.fin.is_none() {
            self.first = None;
        }
    }

    /// The offset at which everything before it, and FIN if it was reached, has been handed on.
    pub(super) fn reached(&self) -> u64 {
        self.next + u64::from(self.ended)
    }

    /// The signed distance of `seq` from what comes next.
    fn distance(&self, seq: u32) -> Option<i64> {
        let expected = self.first?.wrapping_add(self.next as u32);
        Some(i64::from(seq.wrapping_sub(expected).cast_signed()))
    }

    /// The offset that an acknowledgment number of the other side stands for; `None` when it is nowhere near.
    pub(super) fn offset_of_ack(&self, ack: u32) -> Option<u64> {
        let distance = self.distance(ack)?;
        let near = distance.unsigned_abs() <= u64::from(WINDOW);
        near.then(|| self.next.saturating_add_signed(distance))
    }

    /// How a reset with this number is to be taken (RFC 9293, section 3.10.7.4; RFC 5961, section 3.2).
    pub(super) fn reset_at(&self, seq: u32) -> Reset {
        let Some(distance) = self.distance(seq) else { return Reset::Certain };
        let waiting = self.pieces.last_key_value().map(|(start, piece)| start + piece.len());
        let end = self.fin.map(|fin| fin.offset + 1).or(waiting).unwrap_or(self.next).max(self.reached());
        let end = i64::try_from(end - self.next).unwrap_or(i64::MAX);
        match distance {
            // Where it stands for us, and where its sender stands as far as that is known.
            _ if distance == 0 || distance == end => Reset::Certain,
            _ if distance.unsigned_abs() <= u64::from(WINDOW) => Reset::Doubtful,
            _ => Reset::Stray,
        }
    }

    /// Where bytes that start at `seq` belong.
    pub(super) fn place(&self, seq: u32) -> Place {
        match self.distance(seq) {
            None => Place::Next { skip: 0 },
            Some(distance) if distance.unsigned_abs() > u64::from(WINDOW) => Place::Stray,
            Some(distance) if distance > 0 => Place::Ahead { offset: self.next + distance.unsigned_abs() },
            Some(distance) => Place::Next { skip: distance.unsigned_abs() },
        }
    }

    /// Takes note of a segment that fits nowhere. Returns how far the stream has to jump when it follows closely on
    /// another one: then it is the connection that moved on unseen, not the segment that is wrong.
    pub(super) fn stray(&mut self, seq: u32, length: u32) -> Option<u64> {
        let follows = self.stray.is_some_and(|end| seq.wrapping_sub(end) <= WINDOW);
        self.stray = Some(seq.wrapping_add(length));
        if !follows {
            return None;
        }
        self.stray = None;
        let expected = self.first?.wrapping_add(self.next as u32);
        Some(u64::from(seq.wrapping_sub(expected)))
    }

    /// Whether nothing waits, so that bytes that come next can be handed on as they are.
    pub(super) fn is_clear(&self) -> bool {
        self.pieces.is_empty() && self.fin.is_none()
    }

    /// The time to hand on with bytes captured at `time`.
    pub(super) fn clock(&mut self, time: Timestamp) -> Timestamp {
        self.clock = self.clock.max(time);
        self.clock
    }

    /// Whether `bytes` at `offset` are others than those handed on, as far as these are remembered.
    pub(super) fn contradicts(&self, offset: u64, bytes: &[u8]) -> bool {
        self.recent.iter().any(|range| range.is_contradicted(offset, bytes))
    }

    /// The next bytes are these; remembers them.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.recent = [Range::of(self.next, bytes), self.recent[0]];
        self.advance(bytes.len() as u64);
    }

    /// The next bytes were handed on, or given up.
    pub(super) fn advance(&mut self, length: u64) {
        self.next += length;
    }

    /// Announces the end, unless it was.
    pub(super) fn announce(&mut self, fin: Fin) {
        if fin.offset >= self.next {
            self.fin.get_or_insert(fin);
        }
    }

    /// Marks the end as reached.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// What [`Stream::hold`] would add for a segment of this length at most.
    pub(super) fn cost_of(length: usize) -> usize {
        length + PIECE_OVERHEAD
    }

    /// Keeps what is new of `bytes` (and `missing` behind them) at `offset`.
    pub(super) fn hold(
        &mut self,
        mut offset: u64,
        mut bytes: &[u8],
        mut missing: u32,
        time: Timestamp,
        ack: Option<u64>,
    ) -> Held {
        let mut duplicate = 0;
        let conflict = self.pieces_contradict(offset, bytes);
        let end = offset + bytes.len() as u64 + u64::from(missing);
        let before = self.pieces.range(..=offset).next_back().map(|(&start, piece)| start + piece.len());
        let floor = before.unwrap_or(0).max(self.next).min(end);
        if floor > offset {
            duplicate += trim_front(&mut bytes, &mut missing, floor - offset);
            offset = floor;
        }
        while offset < end {
            let after = self.pieces.range(offset..).next().map(|(&start, piece)| (start, piece.len()));
            let (stop, resume) = match after {
                Some((start, length)) if start < end => (start, (start + length).min(end)),
                _ => (end, end),
            };
            let new = stop - offset;
            if new > 0 {
                let (head, _) = bytes.split_at(bytes.len().min(usize::try_from(new).unwrap_or(usize::MAX)));
                let behind = u32::try_from(new - head.len() as u64).unwrap_or(u32::MAX);
                let piece = Piece { time, ack, bytes: head.into(), missing: behind };
                self.held += piece.cost();
                self.pieces.insert(offset, piece);
                trim_front(&mut bytes, &mut missing, new);
            }
            duplicate += trim_front(&mut bytes, &mut missing, resume - stop);
            offset = resume;
        }
        Held { duplicate, conflict }
    }

    /// Whether bytes that wait are others than those of `bytes` in their place.
    fn pieces_contradict(&self, offset: u64, bytes: &[u8]) -> bool {
        let end = offset + bytes.len() as u64;
        let before_end = self.pieces.range(..end).rev();
        let mut overlapping = before_end.take_while(|(start, piece)| *start + piece.len() > offset);
        overlapping.any(|(&start, piece)| {
            let from = start.max(offset);
            let (theirs, ours) = (behind(&piece.bytes, from - start), behind(bytes, from - offset));
            theirs.iter().zip(ours).any(|(theirs, ours)| theirs != ours)
        })
    }

    /// The first piece that waits: its offset, when it was captured, and what its sender had received.
    pub(super) fn waiting(&self) -> Option<(u64, Timestamp, Option<u64>)> {
        let piece = self.pieces.first_key_value().map(|(&offset, piece)| (offset, piece.time, piece.ack));
        let fin = || self.fin.filter(|_| !self.ended).map(|fin| (fin.offset, fin.time, fin.ack));
        piece.or_else(fin)
    }

    /// Takes the first piece out if its turn has come.
    pub(super) fn take_next(&mut self) -> Option<Piece> {
        let entry = self.pieces.first_entry().filter(|entry| *entry.key() == self.next)?;
        let piece = entry.remove();
        self.held -= piece.cost();
        Some(piece)
    }

    /// Drops everything that waits.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.held = 0;
    }
}

/// What of `bytes` is behind the first `count`.
fn behind(bytes: &[u8], count: u64) -> &[u8] {
    usize::try_from(count).ok().and_then(|count| bytes.get(count..)).unwrap_or_default()
}

/// Drops `count` bytes from the front of a segment; returns how many of them had been captured.
pub(super) fn trim_front(bytes: &mut &[u8], missing: &mut u32, count: u64) -> u64 {
    let captured = bytes.len().min(usize::try_from(count).unwrap_or(usize::MAX));
    *bytes = bytes.split_at(captured).1;
    let rest = count - captured as u64;
    *missing = missing.saturating_sub(u32::try_from(rest).unwrap_or(u32::MAX));
    captured as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(first: u32, next: u64) -> Stream {
        let mut stream = Stream::default();
        stream.anchor(first);
        stream.advance(next);
        stream
    }

    #[test]
    fn places_across_the_wrap_of_sequence_space() {
        let cases = [
            (100, 0, 100, Place::Next { skip: 0 }),
            (100, 0, 101, Place::Ahead { offset: 1 }),
            (100, 10, 100, Place::Next { skip: 10 }),
            (u32::MAX, 1, 0, Place::Next { skip: 0 }),
            (u32::MAX - 4, 3, 5, Place::Ahead { offset: 10 }),
            (u32::MAX - 4, 10, u32::MAX, Place::Next { skip: 6 }),
            (100, 1 << 33, 100, Place::Next { skip: 0 }),
            (0, 0, WINDOW, Place::Ahead { offset: u64::from(WINDOW) }),
            (0, 0, WINDOW + 1, Place::Stray),
            (0, 0, 0u32.wrapping_sub(WINDOW), Place::Next { skip: u64::from(WINDOW) }),
            (0, 0, 0u32.wrapping_sub(WINDOW + 1), Place::Stray),
        ];
        for (first, next, seq, place) in cases {
            assert_eq!(stream(first, next).place(seq), place, "first {first}, next {next}, seq {seq}");
        }
    }

    #[test]
    fn the_first_data_wins_wherever_it_overlaps() {
        let cases = [
            (&[(2, "cd"), (2, "XX")][..], "..cd", 2),
            (&[(2, "cd"), (1, "XXXX")], ".XcdX", 2),
            (&[(1, "bc"), (2, "YYY")], ".bcYY", 1),
            (&[(1, "b"), (3, "d"), (5, "f"), (0, "XXXXXXX")], "XbXdXfX", 3),
            (&[(3, "def"), (4, "Y")], "...def", 1),
            (&[(4, "e"), (2, "cdX")], "..cde", 1),
        ];
        for (pieces, expected, duplicates) in cases {
            let mut stream = stream(0, 0);
            let found: u64 = pieces
                .iter()
                .map(|(offset, bytes)| {
                    stream.hold(*offset, bytes.as_bytes(), 0, Timestamp(1), None).duplicate
                })
                .sum();
            let mut image = vec![b'.'; expected.len()];
            for (&offset, piece) in &stream.pieces {
                image[offset as usize..][..piece.bytes.len()].copy_from_slice(&piece.bytes);
            }
            assert_eq!(String::from_utf8(image).unwrap(), expected, "{pieces:?}");
            assert_eq!(found, duplicates, "duplicates in {pieces:?}");
            let held: usize = stream.pieces.values().map(Piece::cost).sum();
            assert_eq!(stream.held(), held);
        }
    }

    /// Every pair of ranges within six bytes, in every relation that two ranges can have.
    #[test]
    fn the_first_of_two_ranges_wins_in_every_overlap_and_a_conflict_is_noticed() {
        let ranges = || (0..6_usize).flat_map(|start| (start + 1..=6).map(move |end| start..end));
        for (first, second) in ranges().flat_map(|first| ranges().map(move |second| (first.clone(), second)))
        {
            for (lies, text) in [(false, b"abcdef"), (true, b"ABCDEF")] {
                // Behind a byte that is missing, so that both are held.
                let mut stream = stream(0, 0);
                stream.hold(1 + first.start as u64, &b"abcdef"[first.clone()], 0, Timestamp(1), None);
                let held = stream.hold(1 + second.start as u64, &text[second.clone()], 0, Timestamp(2), None);
                let shared = first.clone().filter(|at| second.contains(at)).count();
                let expected = Held { duplicate: shared as u64, conflict: lies && shared > 0 };
                assert_eq!(held, expected, "{first:?} and {second:?}");
                for (&at, piece) in &stream.pieces {
                    for (at, &byte) in (at as usize - 1..).zip(&piece.bytes) {
                        let own = if first.contains(&at) { b"abcdef"[at] } else { text[at] };
                        assert_eq!(byte, own, "{first:?} and {second:?} at {at}");
                    }
                }
                let covered: u64 = stream.pieces.values().map(Piece::len).sum();
                assert_eq!(covered as usize, first.len() + second.len() - shared);
            }
        }
    }

    #[test]
    fn other_bytes_for_a_range_handed_on_are_noticed_while_it_is_remembered() {
        let mut stream = stream(0, 0);
        for text in ["abc", "de", "fgh"] {
            stream.take(text.as_bytes());
        }
        for (offset, bytes, expected) in [
            (5, "fgh", false),
            (5, "fgX", true),
            (3, "defgh", false),
            (3, "dXfgh", true),
            (2, "cdefghi", false),
            (2, "XdefghX", false),
            (2, "cdXfgh", true),
            // A part of a range, or one that is forgotten, cannot be compared.
            (6, "Xh", false),
            (0, "ZZZ", false),
            (8, "", false),
        ] {
            assert_eq!(stream.contradicts(offset, bytes.as_bytes()), expected, "{bytes} at {offset}");
        }
    }

    #[test]
    fn bytes_that_were_not_captured_keep_their_place() {
        let mut stream = stream(0, 0);
        stream.hold(2, b"c", 3, Timestamp(1), None);
        let held = stream.hold(0, b"abXXXXg", 0, Timestamp(2), None);
        assert_eq!(held, Held { duplicate: 4, conflict: true }, "the hole came first, and wins");
        let lengths: Vec<_> =
            stream.pieces.iter().map(|(&at, piece)| (at, piece.bytes.len(), piece.missing)).collect();
        assert_eq!(lengths, [(0, 2, 0), (2, 1, 3), (6, 1, 0)]);
    }

    #[test]
    fn a_second_stray_close_to_the_first_moves_the_stream() {
        let far = WINDOW + 1000;
        let mut stream = stream(0, 0);
        assert_eq!(stream.stray(far, 10), None);
        assert_eq!(stream.stray(far.wrapping_mul(3), 10), None, "not close to the first");
        assert_eq!(stream.stray(far.wrapping_mul(3) + 10, 10), Some(u64::from(far) * 3 + 10));
    }
}
