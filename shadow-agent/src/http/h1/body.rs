//! Bodies of HTTP/1 messages, read piece by piece: where they end, and what they hold after transfer decoding.
//!
//! Bytes are copied once, into the body; nothing is done byte by byte. Knows no connection.

use bytes::{Bytes, BytesMut};

use super::head::{Framing, MAX_HEAD, Malformed, trailers};
use crate::exchange::Headers;

/// The longest line that announces a chunk, extensions included, in bytes.
pub const MAX_CHUNK_LINE: usize = 4 << 10;

/// Set aside for a body when it starts, at most; a peer that announces more has to send it first.
const FIRST_RESERVE: u64 = 64 << 10;

/// Whether a body goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The input is used up, and the body goes on.
    More,
    /// The body ended; what is left of the input is not part of it.
    Done,
}

/// Reads one body.
#[derive(Debug)]
pub(super) struct BodyReader {
    decoder: Decoder,
    store: Store,
    limit: usize,
    oversized: bool,
}

#[derive(Debug)]
enum Decoder {
    /// So many bytes are left.
    Length(u64),
    Chunked(Box<Chunked>),
    UntilClose,
}

#[derive(Debug)]
enum Store {
    /// Nothing so far, or all of it in one piece.
    Whole(Bytes),
    /// In several pieces.
    Growing(BytesMut),
    /// Nobody wants it.
    Dropped,
}

impl BodyReader {
    /// A reader for a body of that framing, of which at most `limit` bytes are kept.
    pub(super) fn new(framing: Framing, limit: usize) -> BodyReader {
        let decoder = match framing {
            Framing::Length(length) => Decoder::Length(length),
            Framing::Chunked => Decoder::Chunked(Box::default()),
            Framing::UntilClose => Decoder::UntilClose,
        };
        let oversized = matches!(framing, Framing::Length(length) if length > limit as u64);
        let store = if oversized { Store::Dropped } else { Store::Whole(Bytes::new()) };
        BodyReader { decoder, store, limit, oversized }
    }

    /// Takes the bytes of the body off the front of `input`.
    pub(super) fn read(&mut self, input: &mut &[u8]) -> Result<Step, Malformed> {
        loop {
            match &mut self.decoder {
                Decoder::Length(left) => {
                    let data = take(input, *left);
                    *left -= data.len() as u64;
                    let left = *left;
                    self.keep(data, left);
                    return Ok(if left == 0 { Step::Done } else { Step::More });
                }
                Decoder::UntilClose => {
                    let data = take(input, u64::MAX);
                    self.keep(data, 0);
                    return Ok(Step::More);
                }
                Decoder::Chunked(chunked) => match chunked.next(input)? {
                    Next::Data(data, left) => self.keep(data, left),
                    Next::More => return Ok(Step::More),
                    Next::Done => return Ok(Step::Done),
                },
            }
        }
    }

    /// Passes over so many bytes that nobody saw, if the framing says that all of them belong to the body. What was
    /// read is dropped: the body will not be whole.
    pub(super) fn skip(&mut self, count: u64) -> Option<Step> {
        let Decoder::Length(left) = &mut self.decoder else { return None };
        *left = left.checked_sub(count)?;
        let step = if *left == 0 { Step::Done } else { Step::More };
        self.discard();
        Some(step)
    }

    /// Whether the body has no bytes at all, so that it ends before any is read.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.decoder, Decoder::Length(0))
    }

    /// Whether the end of the connection is the end of the body.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self.decoder, Decoder::UntilClose)
    }

    /// Whether the body turned out to be larger than the limit; then it is not kept.
    pub(super) fn oversized(&self) -> bool {
        self.oversized
    }

    /// Follows the body to its end without keeping it.
    pub(super) fn discard(&mut self) {
        self.store = Store::Dropped;
    }

    /// Bytes allocated.
    pub(super) fn buffered(&self) -> usize {
        let store = match &self.store {
            Store::Whole(bytes) => bytes.len(),
            Store::Growing(bytes) => bytes.capacity(),
            Store::Dropped => 0,
        };
        match &self.decoder {
            Decoder::Chunked(chunked) => store + chunked.line.capacity() + chunked.trailers_size,
            _ => store,
        }
    }

    /// The body and its trailer fields.
    pub(super) fn finish(self) -> (Bytes, Headers) {
        let body = match self.store {
            Store::Whole(bytes) => bytes,
            Store::Growing(bytes) => bytes.freeze(),
            Store::Dropped => Bytes::new(),
        };
        let trailers = match self.decoder {
            Decoder::Chunked(chunked) => chunked.trailers,
            _ => Headers::default(),
        };
        (body, trailers)
    }

    /// Adds bytes to the body, of which `left` more are known to follow.
    fn keep(&mut self, data: &[u8], left: u64) {
        let known = match &self.store {
            Store::Dropped => return,
            _ if data.is_empty() => return,
            Store::Whole(bytes) => bytes.len(),
            Store::Growing(bytes) => bytes.len(),
        };
        if known + data.len() > self.limit {
            self.oversized = true;
            self.store = Store::Dropped;
            return;
        }
        match &mut self.store {
            Store::Whole(_) if known == 0 && left == 0 && matches!(self.decoder, Decoder::Length(_)) => {
                self.store = Store::Whole(Bytes::copy_from_slice(data));
            }
            Store::Whole(_) => {
                let reserve = data.len() + usize::try_from(left.min(FIRST_RESERVE)).unwrap_or(0);
                let mut body = BytesMut::with_capacity(reserve.min(self.limit));
                body.extend_from_slice(data);
                self.store = Store::Growing(body);
            }
            Store::Growing(body) => body.extend_from_slice(data),
            Store::Dropped => {}
        }
    }
}

/// The chunked transfer coding (RFC 9112, section 7.1).
#[derive(Debug, Default)]
struct Chunked {
    state: ChunkState,
    /// A line that is not whole yet, or the trailer section so far.
    line: Vec<u8>,
    trailers: Headers,
    trailers_size: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum ChunkState {
    /// A line with the size of a chunk comes next.
    #[default]
    Size,
    /// So many bytes of the chunk are left.
    Data(u64),
    /// The line end behind a chunk comes next.
    DataEnd,
    /// Trailer fields, or the empty line that ends the body, come next.
    Trailers,
}

enum Next<'a> {
    /// Bytes of the body, and how many of the same chunk follow.
    Data(&'a [u8], u64),
    More,
    Done,
}

impl Chunked {
    fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Next<'a>, Malformed> {
        loop {
            if input.is_empty() {
                return Ok(Next::More);
            }
            match self.state {
                ChunkState::Data(left) => {
                    let data = take(input, left);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { ChunkState::DataEnd } else { ChunkState::Data(left) };
                    return Ok(Next::Data(data, left));
                }
                ChunkState::Size => {
                    let Some(size) = self.line(input, MAX_CHUNK_LINE, chunk_size)? else {
                        return Ok(Next::More);
                    };
                    self.state = if size == 0 { ChunkState::Trailers } else { ChunkState::Data(size) };
                }
                ChunkState::DataEnd => {
                    let empty = |line: &[u8]| if line.is_empty() { Ok(()) } else { Err(Malformed) };
                    if self.line(input, 0, empty)?.is_none() {
                        return Ok(Next::More);
                    }
                    self.state = ChunkState::Size;
                }
                ChunkState::Trailers => return self.trailer_section(input),
            }
        }
    }

    /// Reads one line, which must end with CRLF: accepting less lets peers disagree on where a message ends.
    fn line<T>(
        &mut self,
        input: &mut &[u8],
        limit: usize,
        read: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        let whole = memchr::memchr(b'\n', input);
        let part = take(input, whole.map_or(u64::MAX, |at| at as u64 + 1));
        if self.line.len() + part.len() > limit + 2 {
            return Err(Malformed);
        }
        if whole.is_none() {
            self.line.extend_from_slice(part);
            return Ok(None);
        }
        if self.line.is_empty() {
            return read(part.strip_suffix(b"\r\n").ok_or(Malformed)?).map(Some);
        }
        self.line.extend_from_slice(part);
        let value = read(self.line.strip_suffix(b"\r\n").ok_or(Malformed)?)?;
        self.line.clear();
        Ok(Some(value))
    }

    fn trailer_section<'a>(&mut self, input: &mut &'a [u8]) -> Result<Next<'a>, Malformed> {
        loop {
            let whole = memchr::memchr(b'\n', input);
            let part = take(input, whole.map_or(u64::MAX, |at| at as u64 + 1));
            if self.line.is_empty() && part == b"\r\n" {
                return Ok(Next::Done);
            }
            self.line.extend_from_slice(part);
            if self.line.len() > MAX_HEAD {
                return Err(Malformed);
            }
            if whole.is_none() {
                return Ok(Next::More);
            }
            if self.line == b"\r\n" || self.line.ends_with(b"\n\r\n") {
                let section = Bytes::from(std::mem::take(&mut self.line));
                self.trailers_size = section.len();
                self.trailers = trailers(&section)?;
                return Ok(Next::Done);
            }
        }
    }
}

/// The size in a chunk's first line; extensions are passed over (RFC 9112, section 7.1.1).
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Malformed);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Malformed)?;
    u64::from_str_radix(digits, 16).map_err(|_| Malformed)
}

/// Takes up to `count` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], count: u64) -> &'a [u8] {
    let (front, rest) = input.split_at(input.len().min(usize::try_from(count).unwrap_or(usize::MAX)));
    *input = rest;
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` cut at every position in turn; gives body, number of trailer fields and what is left.
    fn check(framing: Framing, text: &str, expected: Result<Option<(&str, usize, &str)>, Malformed>) {
        for cut in 0..=text.len() {
            let mut reader = BodyReader::new(framing, 100);
            let (mut one, mut other) = text.as_bytes().split_at(cut);
            let mut step = reader.read(&mut one);
            let rest = if step == Ok(Step::More) {
                step = reader.read(&mut other);
                other.to_vec()
            } else {
                [one, other].concat()
            };
            let found = step.map(|step| (step == Step::Done).then(|| reader.finish()));
            let found = found.map(|done| {
                done.map(|(body, trailers)| {
                    let (body, rest) = (body.to_vec(), rest.clone());
                    (String::from_utf8(body).unwrap(), trailers.len(), String::from_utf8(rest).unwrap())
                })
            });
            let expected = expected.map(|done| done.map(|(b, t, r)| (b.to_owned(), t, r.to_owned())));
            assert_eq!(found, expected, "{text:?} cut at {cut}");
        }
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        let length = Framing::Length;
        let cases = [
            (length(5), "hello", Ok(Some(("hello", 0, "")))),
            (length(5), "helloGET", Ok(Some(("hello", 0, "GET")))),
            (length(5), "hell", Ok(None)),
            (length(0), "GET", Ok(Some(("", 0, "GET")))),
            (Framing::UntilClose, "anything", Ok(None)),
            (Framing::Chunked, "0\r\n\r\nGET", Ok(Some(("", 0, "GET")))),
            (Framing::Chunked, "5\r\nhello\r\n0\r\n\r\n", Ok(Some(("hello", 0, "")))),
            (Framing::Chunked, "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", Ok(Some(("hello", 0, "")))),
            (Framing::Chunked, "A\r\n0123456789\r\n00\r\n\r\n", Ok(Some(("0123456789", 0, "")))),
            (Framing::Chunked, "1;a=b;c\r\nx\r\n0;last\r\n\r\n", Ok(Some(("x", 0, "")))),
            (Framing::Chunked, "1 ;a\r\nx\r\n0\r\n\r\n", Ok(Some(("x", 0, "")))),
            (Framing::Chunked, "1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\nZ", Ok(Some(("x", 2, "Z")))),
            (Framing::Chunked, "5\r\nhello\r\n", Ok(None)),
            (Framing::Chunked, "\r\nx", Err(Malformed)),
            (Framing::Chunked, "g\r\n", Err(Malformed)),
            (Framing::Chunked, "-1\r\n", Err(Malformed)),
            (Framing::Chunked, "1\nx\r\n0\r\n\r\n", Err(Malformed)),
            (Framing::Chunked, "1\r\nxy\r\n0\r\n\r\n", Err(Malformed)),
            (Framing::Chunked, "10000000000000000\r\n", Err(Malformed)),
            (Framing::Chunked, "0\r\nno colon\r\n\r\n", Err(Malformed)),
        ];
        for (framing, text, expected) in cases {
            check(framing, text, expected);
        }
    }

    #[test]
    fn a_body_is_kept_up_to_the_limit_and_followed_beyond_it() {
        let chunked = |size: usize| format!("{size:x}\r\n{}\r\n0\r\n\r\nrest", "x".repeat(size));
        let plain = |size: usize| format!("{}rest", "x".repeat(size));
        for size in [99, 100, 101, 1000] {
            let cases = [(Framing::Length(size as u64), plain(size)), (Framing::Chunked, chunked(size))];
            for (framing, text) in cases {
                for cut in [0, 1, 50, 100] {
                    let mut reader = BodyReader::new(framing, 100);
                    let (mut one, mut other) = text.as_bytes().split_at(cut);
                    if reader.read(&mut one) == Ok(Step::More) {
                        assert_eq!(reader.read(&mut other), Ok(Step::Done));
                    }
                    assert_eq!([one, other].concat(), b"rest");
                    assert_eq!(reader.oversized(), size > 100, "{framing:?} of {size} cut at {cut}");
                    assert_eq!(reader.finish().0.len(), if size > 100 { 0 } else { size });
                }
            }
        }
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        for (size, fits) in [(MAX_CHUNK_LINE, true), (MAX_CHUNK_LINE + 1, false)] {
            let text = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(size - 2));
            let read = BodyReader::new(Framing::Chunked, 100).read(&mut text.as_bytes());
            assert_eq!(read.is_ok(), fits, "line of {size}");
        }
        for (size, fits) in [(MAX_HEAD, true), (MAX_HEAD + 1, false)] {
            let text = format!("0\r\nA: {}\r\n\r\n", "e".repeat(size - 7));
            let read = BodyReader::new(Framing::Chunked, 100).read(&mut text.as_bytes());
            assert_eq!(read.is_ok(), fits, "trailers of {size}");
        }
    }

    #[test]
    fn bytes_that_nobody_saw_are_passed_over_where_the_length_is_known() {
        let mut reader = BodyReader::new(Framing::Length(10), 100);
        assert_eq!(reader.read(&mut &b"abc"[..]), Ok(Step::More));
        assert_eq!(reader.skip(4), Some(Step::More));
        assert_eq!(reader.skip(4), None, "more than is left");
        assert_eq!(reader.skip(3), Some(Step::Done));
        assert_eq!(reader.buffered(), 0);
        assert_eq!(BodyReader::new(Framing::Chunked, 100).skip(1), None);
    }
}
