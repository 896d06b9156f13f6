//! One direction of a flow: where its bytes stand in sequence space, and those that arrived ahead of their turn.
//!
//! Decides where bytes belong; handing them on, and when to give up waiting, is the flow's business.

use std::collections::BTreeMap;

use super::{PIECE_OVERHEAD, WINDOW};
use crate::exchange::Timestamp;

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

    /// Whether `seq` is anywhere near what comes next.
    pub(super) fn near(&self, seq: u32) -> bool {
        self.distance(seq).is_none_or(|distance| distance.unsigned_abs() <= u64::from(WINDOW))
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

    /// Keeps what is new of `bytes` (and `missing` behind them) at `offset`; returns how many bytes were not new.
    pub(super) fn hold(
        &mut self,
        mut offset: u64,
        mut bytes: &[u8],
        mut missing: u32,
        time: Timestamp,
        ack: Option<u64>,
    ) -> u64 {
        let mut duplicate = 0;
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
        duplicate
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
                .map(|(offset, bytes)| stream.hold(*offset, bytes.as_bytes(), 0, Timestamp(1), None))
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

    #[test]
    fn bytes_that_were_not_captured_keep_their_place() {
        let mut stream = stream(0, 0);
        stream.hold(2, b"c", 3, Timestamp(1), None);
        assert_eq!(stream.hold(0, b"abXXXXg", 0, Timestamp(2), None), 4, "the hole came first, and wins");
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
