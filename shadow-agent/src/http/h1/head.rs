//! Heads of HTTP/1 messages: finding their end, parsing them, and what they say about the body that follows.
//!
//! Parsing of lines and fields is `httparse`'s; framing (RFC 9112, section 6) is ours. Knows no connection.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{Method, Version};

use crate::exchange::Headers;
use crate::http::MAX_METHOD;

/// The largest head taken, in bytes; a message with a larger one is malformed to us.
pub const MAX_HEAD: usize = 64 << 10;

/// The most field lines taken in one head or trailer section; more make the message malformed to us.
pub const MAX_FIELDS: usize = 128;

/// The bytes violate RFC 9112, or go beyond [`MAX_HEAD`], [`MAX_FIELDS`] or the codings understood here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// By the last chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What of a request matters to the framing of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The response has no body, whatever its fields say.
    Head,
    /// A 2xx response makes the connection a tunnel.
    Connect,
    /// Neither.
    Other,
}

/// A parsed request head.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) target: Bytes,
    pub(super) version: Version,
    pub(super) headers: Headers,
    pub(super) framing: Framing,
}

/// A parsed response head.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    pub(super) version: Version,
    pub(super) headers: Headers,
    pub(super) framing: Framing,
    pub(super) event_stream: bool,
}

impl Kind {
    pub(super) fn of(method: &Method) -> Kind {
        match *method {
            Method::HEAD => Kind::Head,
            Method::CONNECT => Kind::Connect,
            _ => Kind::Other,
        }
    }
}

/// Collects the bytes of a head until it is whole.
#[derive(Debug, Default)]
pub(super) struct HeadBuffer {
    bytes: BytesMut,
    /// Up to here no end was found.
    scanned: usize,
}

/// What [`HeadBuffer::take`] came to.
#[derive(Debug)]
pub(super) enum Taken {
    /// The whole head, with the empty line.
    Whole(Bytes),
    /// The input is used up; [`HeadBuffer::partial`] shows what there is.
    Partial,
    /// More than [`MAX_HEAD`] bytes without an end.
    TooLarge,
}

impl HeadBuffer {
    /// Takes the bytes of the head off the front of `input`. A head that is whole there is copied once.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Taken {
        if self.bytes.is_empty() {
            match head_end(input, 0) {
                Some(end) if end > MAX_HEAD => return Taken::TooLarge,
                Some(end) => {
                    let (head, rest) = input.split_at(end.min(input.len()));
                    *input = rest;
                    return Taken::Whole(Bytes::copy_from_slice(head));
                }
                None => {}
            }
        }
        let before = self.bytes.len();
        let (fits, _) = input.split_at(input.len().min((MAX_HEAD + 1).saturating_sub(before)));
        self.bytes.extend_from_slice(fits);
        match head_end(&self.bytes, self.scanned) {
            Some(end) if end <= MAX_HEAD => {
                *input = input.split_at(end.saturating_sub(before).min(input.len())).1;
                let mut head = std::mem::take(&mut self.bytes);
                head.truncate(end);
                self.scanned = 0;
                Taken::Whole(head.freeze())
            }
            Some(_) => Taken::TooLarge,
            None if self.bytes.len() > MAX_HEAD => Taken::TooLarge,
            None => {
                // The end may begin with the last three bytes.
                self.scanned = self.bytes.len().saturating_sub(3);
                *input = &[];
                Taken::Partial
            }
        }
    }

    /// What there is of an unfinished head.
    pub(super) fn partial(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes allocated.
    pub(super) fn buffered(&self) -> usize {
        self.bytes.capacity()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = HeadBuffer::default();
    }
}

/// The position behind the empty line that ends a head, looking from `from` on. A lone LF ends a line as well
/// (RFC 9112, section 2.2).
fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let tail = bytes.get(from..)?;
    memchr::memchr_iter(b'\n', tail).map(|at| from + at + 1).find_map(|next| match bytes.get(next..)? {
        [b'\n', ..] => Some(next + 1),
        [b'\r', b'\n', ..] => Some(next + 2),
        _ => None,
    })
}

/// Whether these bytes are exactly one head.
pub(super) fn is_alone(bytes: &[u8]) -> bool {
    head_end(bytes, 0) == Some(bytes.len())
}

/// The head with obsolete line folding undone: what continues a line becomes spaces, as RFC 9112, section 5.2, has it for
/// whoever does not refuse it. Nothing moves, and a head without it is not copied.
fn unfolded(head: &Bytes) -> Cow<'_, Bytes> {
    let continues = |end: &usize| matches!(head.get(end + 1), Some(b' ' | b'\t'));
    // The first line end is that of the start line, which cannot go on.
    let folds: Vec<usize> = memchr::memchr_iter(b'\n', head).skip(1).filter(continues).collect();
    if folds.is_empty() {
        return Cow::Borrowed(head);
    }
    let mut bytes = head.to_vec();
    for end in folds {
        let start = if end > 0 && head.get(end - 1) == Some(&b'\r') { end - 1 } else { end };
        bytes.get_mut(start..=end).unwrap_or_default().fill(b' ');
    }
    Cow::Owned(bytes.into())
}

/// Parses the whole head of a request and decides on the framing of its body (RFC 9112, section 6.3).
pub(super) fn request(head: &Bytes) -> Result<RequestHead, Malformed> {
    let head = &*unfolded(head);
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(Malformed),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Malformed);
    };
    if method.len() > MAX_METHOD {
        return Err(Malformed);
    }
    let version = version_of(version);
    let facts = Facts::of(parsed.headers)?;
    let framing = match (facts.coding, facts.length) {
        (None, length) => Framing::Length(length.unwrap_or(0)),
        // Both fields at once, or a coding in HTTP/1.0, is how requests are smuggled: refused (section 6.1).
        (Some(Coding::Chunked), None) if version == Version::HTTP_11 => Framing::Chunked,
        _ => return Err(Malformed),
    };
    Ok(RequestHead {
        method: Method::from_bytes(method.as_bytes()).map_err(|_| Malformed)?,
        target: part_of(head, target.as_bytes()),
        version,
        headers: headers_of(head, parsed.headers),
        framing,
    })
}

/// Parses the whole head of a response to a request of that kind and decides on the framing of its body.
pub(super) fn response(head: &Bytes, kind: Kind) -> Result<ResponseHead, Malformed> {
    let head = &*unfolded(head);
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    // Which a proxy takes away, and every client passes over (RFC 9112, section 5.1).
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    match config.parse_response_with_uninit_headers(&mut parsed, head, &mut fields) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(Malformed),
    }
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else { return Err(Malformed) };
    if !(100..=999).contains(&status) {
        return Err(Malformed);
    }
    let version = version_of(version);
    let bodiless = kind == Kind::Head || matches!(status, 100..=199 | 204 | 304);
    let facts = Facts::of(parsed.headers)?;
    let framing = match (facts.coding, facts.length) {
        _ if bodiless => Framing::Length(0),
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::UntilClose,
        (Some(Coding::Chunked), None) if version == Version::HTTP_11 => Framing::Chunked,
        _ => return Err(Malformed),
    };
    let headers = headers_of(head, parsed.headers);
    Ok(ResponseHead { status, version, headers, framing, event_stream: facts.event_stream })
}

/// Parses a trailer section that ends with its empty line (RFC 9112, section 7.1.2).
pub(super) fn trailers(section: &Bytes) -> Result<Headers, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => Ok(headers_of(section, fields)),
        _ => Err(Malformed),
    }
}

/// The transfer coding of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// Anything else, alone or together with chunked: we do not undo it.
    Other,
}

/// The fields that decide what follows the head.
#[derive(Debug, Default)]
struct Facts {
    length: Option<u64>,
    coding: Option<Coding>,
    event_stream: bool,
}

impl Facts {
    fn of(fields: &[httparse::Header<'_>]) -> Result<Facts, Malformed> {
        let mut facts = Facts::default();
        for field in fields {
            match field.name.len() {
                14 if field.name.eq_ignore_ascii_case("content-length") => facts.add_length(field.value)?,
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => facts.add_coding(field.value),
                12 if field.name.eq_ignore_ascii_case("content-type") => {
                    let media_type = field.value.split(|&byte| byte == b';').next().unwrap_or_default();
                    facts.event_stream = media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream");
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    /// Repeated values must agree (RFC 9110, section 8.6).
    fn add_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        for part in value.split(|&byte| byte == b',') {
            let digits = part.trim_ascii();
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(Malformed);
            }
            let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            let length = length.ok_or(Malformed)?;
            if *self.length.get_or_insert(length) != length {
                return Err(Malformed);
            }
        }
        Ok(())
    }

    fn add_coding(&mut self, value: &[u8]) {
        for part in value.split(|&byte| byte == b',') {
            let chunked = part.trim_ascii().eq_ignore_ascii_case(b"chunked");
            let first = self.coding.is_none();
            self.coding = Some(if chunked && first { Coding::Chunked } else { Coding::Other });
        }
    }
}

fn version_of(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

fn headers_of(head: &Bytes, fields: &[httparse::Header<'_>]) -> Headers {
    let part =
        |field: &httparse::Header<'_>| (part_of(head, field.name.as_bytes()), part_of(head, field.value));
    Headers(fields.iter().map(part).collect())
}

/// A part of the head as a slice that shares its memory.
fn part_of(head: &Bytes, part: &[u8]) -> Bytes {
    // An empty part need not point into the head; every other one does, for it was parsed from it.
    if part.is_empty() { Bytes::new() } else { head.slice_ref(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn framing_of_requests() {
        let cases: [(&str, Result<Framing, Malformed>); 17] = [
            ("", Ok(Framing::Length(0))),
            ("Content-Length: 5\r\n", Ok(Framing::Length(5))),
            ("content-length:  18446744073709551615 \r\n", Ok(Framing::Length(u64::MAX))),
            ("Content-Length: 18446744073709551616\r\n", Err(Malformed)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Ok(Framing::Length(5))),
            ("Content-Length: 5, 5\r\n", Ok(Framing::Length(5))),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(Malformed)),
            ("Content-Length: 5, 6\r\n", Err(Malformed)),
            ("Content-Length: +5\r\n", Err(Malformed)),
            ("Content-Length: \r\n", Err(Malformed)),
            ("Content-Length: 0x5\r\n", Err(Malformed)),
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            ("transfer-encoding: Chunked\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(Malformed)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(Malformed)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(Malformed)),
            ("Transfer-Encoding: identity\r\n", Err(Malformed)),
        ];
        for (fields, expected) in cases {
            let head = bytes(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
            assert_eq!(request(&head).map(|head| head.framing), expected, "{fields:?}");
        }
        let old = bytes("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(request(&old).is_err(), "HTTP/1.0 knows no transfer codings");
    }

    #[test]
    fn framing_of_responses() {
        let cases: [(Kind, u16, &str, Result<Framing, Malformed>); 12] = [
            (Kind::Other, 200, "", Ok(Framing::UntilClose)),
            (Kind::Other, 200, "Content-Length: 7\r\n", Ok(Framing::Length(7))),
            (Kind::Other, 200, "Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            (Kind::Other, 200, "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n", Err(Malformed)),
            (Kind::Other, 200, "Content-Length: 7\r\nContent-Length: 8\r\n", Err(Malformed)),
            (Kind::Other, 200, "Transfer-Encoding: gzip\r\n", Err(Malformed)),
            (Kind::Head, 200, "Content-Length: 7\r\n", Ok(Framing::Length(0))),
            (Kind::Head, 200, "Transfer-Encoding: chunked\r\n", Ok(Framing::Length(0))),
            (Kind::Other, 204, "", Ok(Framing::Length(0))),
            (Kind::Other, 304, "Content-Length: 7\r\n", Ok(Framing::Length(0))),
            (Kind::Other, 100, "", Ok(Framing::Length(0))),
            (Kind::Other, 205, "Content-Length: 0\r\n", Ok(Framing::Length(0))),
        ];
        for (kind, status, fields, expected) in cases {
            let head = bytes(&format!("HTTP/1.1 {status} X\r\n{fields}\r\n"));
            let framing = response(&head, kind).map(|head| head.framing);
            assert_eq!(framing, expected, "{status} {fields:?} to {kind:?}");
        }
    }

    #[test]
    fn event_streams_by_media_type() {
        for (value, expected) in
            [("text/event-stream", true), ("Text/Event-Stream; charset=utf-8", true), ("text/events", false)]
        {
            let head = bytes(&format!("HTTP/1.1 200 OK\r\nContent-Type: {value}\r\n\r\n"));
            assert_eq!(response(&head, Kind::Other).unwrap().event_stream, expected, "{value}");
        }
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        for (count, fits) in [(MAX_FIELDS, true), (MAX_FIELDS + 1, false)] {
            let head = bytes(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count)));
            assert_eq!(request(&head).is_ok(), fits, "{count} fields");
        }
    }

    #[test]
    fn the_size_of_a_head_is_bounded_however_it_is_cut() {
        for (size, fits) in [(MAX_HEAD, true), (MAX_HEAD + 1, false)] {
            let start = "GET / HTTP/1.1\r\na: ";
            let head = format!("{start}{}\r\n\r\n", "x".repeat(size - start.len() - 4));
            assert_eq!(head.len(), size);
            for cut in [0, 1, 1000, size - 3, size - 1] {
                let mut buffer = HeadBuffer::default();
                let (mut one, mut other) = head.as_bytes().split_at(cut);
                let taken = match buffer.take(&mut one) {
                    Taken::Partial => buffer.take(&mut other),
                    taken => taken,
                };
                assert_eq!(matches!(taken, Taken::Whole(_)), fits, "{size} bytes cut at {cut}");
            }
        }
    }

    #[test]
    fn a_head_ends_at_its_empty_line_however_it_is_cut() {
        for ending in ["\r\n\r\n", "\n\n", "\r\n\n", "\n\r\n"] {
            let head = format!("GET / HTTP/1.1\r\nHost: h{ending}");
            let text = format!("{head}body");
            for cut in 0..head.len() {
                let mut buffer = HeadBuffer::default();
                let (mut one, _) = text.as_bytes().split_at(cut);
                assert!(matches!(buffer.take(&mut one), Taken::Partial), "{ending:?} cut at {cut}");
                let (_, mut other) = text.as_bytes().split_at(cut);
                let Taken::Whole(taken) = buffer.take(&mut other) else { panic!("{ending:?} cut at {cut}") };
                assert_eq!((&taken[..], other), (head.as_bytes(), &b"body"[..]));
            }
        }
    }

    #[test]
    fn empty_values_are_kept() {
        let head = request(&bytes("GET / HTTP/1.1\r\nHost:\r\nA: b\r\n\r\n")).unwrap();
        assert_eq!(head.headers.get("host").unwrap(), "");
        assert_eq!(head.headers.get("a").unwrap(), "b");
    }
}
