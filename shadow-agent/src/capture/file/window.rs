//! Reads ahead, and lends what it has read in one piece: a part of a file that slides over it.

use std::io::{self, Cursor, ErrorKind, Read};

/// How much is read at once, in bytes.
const READ: usize = 256 << 10;

/// A part of what `source` gives. It takes as much memory as was ever asked for at once, in multiples of [`READ`].
pub(super) struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    /// What of the buffer is lent: from here to `end`.
    start: usize,
    end: usize,
    /// How many bytes of the source are behind `start`.
    position: u64,
}

impl<R: Read> Window<R> {
    pub(super) fn new(source: R) -> Window<R> {
        Window { source, buffer: Vec::new(), start: 0, end: 0, position: 0 }
    }

    /// Reads until so many bytes are there. Says no when the source ends before.
    pub(super) fn reach(&mut self, count: usize) -> io::Result<bool> {
        while self.end - self.start < count {
            if !self.more(count)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads once. Says no at the end of the source.
    pub(super) fn extend(&mut self) -> io::Result<bool> {
        self.more(self.end - self.start + 1)
    }

    /// What was read and not passed yet.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Passes over so many bytes, which must have been read.
    pub(super) fn pass(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.position += count as u64;
    }

    /// Passes over so many bytes, read or not. Says no when the source ends before.
    pub(super) fn skip(&mut self, mut count: u64) -> io::Result<bool> {
        loop {
            let there = usize::try_from(count).unwrap_or(usize::MAX).min(self.end - self.start);
            self.pass(there);
            count -= there as u64;
            if count == 0 || !self.extend()? {
                return Ok(count == 0);
            }
        }
    }

    /// What was not passed yet, and the rest of the source.
    pub(super) fn into_rest(mut self) -> impl Read {
        self.buffer.truncate(self.end);
        let mut read = Cursor::new(self.buffer);
        read.set_position(self.start as u64);
        read.chain(self.source)
    }

    /// The offset in the source of the first byte lent.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Reads once, with room for `count` bytes in all.
    fn more(&mut self, count: usize) -> io::Result<bool> {
        if self.buffer.len() - self.start < count {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() < count.max(READ) {
                self.buffer.resize(count.next_multiple_of(READ), 0);
            }
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        loop {
            match self.source.read(room) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.end += read;
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most so many bytes at once.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            let (now, later) = self.0.split_at(count);
            buffer[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    #[test]
    fn everything_is_lent_once_however_it_comes() {
        let all: Vec<u8> = (0..3 * READ + 5).map(|index| (index % 251) as u8).collect();
        for (at_once, piece) in [(7, 3), (READ, 1000), (usize::MAX, 77_777), (READ - 1, READ + 1), (5, READ)]
        {
            let mut window = Window::new(Drops(&all, at_once));
            let mut seen = Vec::new();
            while window.reach(piece).unwrap() {
                assert_eq!(window.position(), seen.len() as u64);
                seen.extend_from_slice(&window.bytes()[..piece]);
                window.pass(piece);
            }
            seen.extend_from_slice(window.bytes());
            assert!(seen == all, "{at_once} at once in pieces of {piece}");
            assert!(window.buffer.len() < piece + READ, "{} for pieces of {piece}", window.buffer.len());
        }
    }

    #[test]
    fn what_is_skipped_need_not_fit() {
        let all: Vec<u8> = (0..2 * READ).map(|index| (index % 251) as u8).collect();
        let mut window = Window::new(Drops(&all, 999));
        assert!(window.reach(10).unwrap());
        assert!(window.skip(READ as u64 + 3).unwrap());
        assert!(window.reach(1).unwrap());
        assert_eq!(window.bytes()[0], all[READ + 3]);
        assert_eq!(window.position(), READ as u64 + 3);
        assert!(!window.skip(READ as u64).unwrap(), "beyond the end");
    }
}
