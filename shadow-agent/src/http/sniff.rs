//! What the first bytes of a stream say about it. Judges prefixes only; parses nothing.

use super::{MAX_METHOD, h2};
use crate::capture::Direction;

/// Methods that make a place in the middle of a stream plausible as the start of a request.
const METHODS: [&[u8]; 16] = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PROPFIND ",
    b"REPORT ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
    b"PURGE ",
];

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1, as far as can be seen.
    Http1,
    /// TLS (RFC 8446, section 5.1).
    Tls,
    /// Something else.
    Other,
    /// Too few bytes to tell.
    Unclear,
}

/// Judges the first bytes that a client sent on a connection.
pub(super) fn protocol(prefix: &[u8]) -> Protocol {
    match prefix {
        [] | [0x16] | [0x16, 0x03] => Protocol::Unclear,
        [0x16, 0x03, 0..=4, ..] => Protocol::Tls,
        _ => match request_line(prefix) {
            Some(true) => Protocol::Http1,
            Some(false) => Protocol::Other,
            None => Protocol::Unclear,
        },
    }
}

/// Whether these bytes start with an HTTP/1 request line (RFC 9112, section 3); `None` while that is open.
pub(super) fn request_line(prefix: &[u8]) -> Option<bool> {
    let line =
        memchr::memchr(b'\n', prefix).and_then(|end| prefix.split_at_checked(end)).map(|(line, _)| line);
    let visible = line.unwrap_or(prefix);
    let method = visible.iter().position(|&byte| byte == b' ').unwrap_or(visible.len());
    let (method, rest) = visible.split_at(method);
    if !method.iter().all(|&byte| is_token(byte))
        || method.len() > MAX_METHOD
        || (method.is_empty() && !rest.is_empty())
    {
        return Some(false);
    }
    let line = line?.trim_ascii_end();
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    Some(!method.is_empty() && matches!(version, b"HTTP/1.0" | b"HTTP/1.1"))
}

/// Whether a segment in the middle of a client's stream looks like the start of a request.
pub(super) fn request_boundary(segment: &[u8]) -> bool {
    let target = METHODS.iter().find_map(|method| segment.strip_prefix(*method)).unwrap_or_default();
    let plausible = match target.first() {
        Some(b'/' | b'*' | b'h' | b'H') => true,
        Some(byte) => segment.starts_with(b"CONNECT ") && byte.is_ascii_graphic(),
        None => false,
    };
    plausible && request_line(segment) != Some(false)
}

/// Whether a segment in the middle of a client's stream looks like a TLS record (RFC 8446, section 5.1).
pub(super) fn tls_record(segment: &[u8]) -> bool {
    match segment {
        [0x14..=0x17, 0x03, 0x01..=0x04, high, low, ..] => u16::from_be_bytes([*high, *low]) <= 0x4100,
        _ => false,
    }
}

/// Whether these bytes may be the start of an HTTP/1 response (RFC 9112, section 4).
pub(super) fn status_line(prefix: &[u8]) -> bool {
    let start = b"HTTP/1.";
    start.iter().zip(prefix).all(|(expected, byte)| expected == byte)
}

/// The status code at the start of a response, when all of it is there.
pub(super) fn status(prefix: &[u8]) -> Option<u16> {
    match prefix.strip_prefix(b"HTTP/1.")? {
        [_, b' ', code @ ..] => std::str::from_utf8(code.get(..3)?).ok()?.parse().ok(),
        _ => None,
    }
}

/// Which way a segment travels, judged by its first bytes alone.
#[must_use]
pub fn direction(segment: &[u8]) -> Option<Direction> {
    match segment {
        [0x16, 0x03, 0..=4, _, _, 0x01, ..] => Some(Direction::ToServer),
        [0x16, 0x03, 0..=4, _, _, 0x02, ..] => Some(Direction::ToClient),
        _ if segment.starts_with(b"HTTP/1.") => Some(Direction::ToClient),
        _ if request_boundary(segment) => Some(Direction::ToServer),
        _ => h2::evidence(segment),
    }
}

/// Whether a byte may stand in a method or field name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_by_their_first_bytes() {
        let cases: [(&[u8], Protocol); 18] = [
            (b"", Protocol::Unclear),
            (b"G", Protocol::Unclear),
            (b"GET /very/long", Protocol::Unclear),
            (b"GET / HTTP/1.1\r\n", Protocol::Http1),
            (b"get / HTTP/1.0\n", Protocol::Http1),
            (b"M-SEARCH * HTTP/1.1\r\nA", Protocol::Http1),
            (b"GET /\r\n", Protocol::Other),
            (b"GET / HTTP/2.0\r\n", Protocol::Other),
            (b" GET / HTTP/1.1\r\n", Protocol::Other),
            (b"*1\r\n$4\r\nPING\r\n", Protocol::Other),
            (b"SSH-2.0-OpenSSH\r\n", Protocol::Other),
            (b"\x00\x01", Protocol::Other),
            (b"\x16", Protocol::Unclear),
            (b"\x16\x03", Protocol::Unclear),
            (b"\x16\x03\x01", Protocol::Tls),
            (b"\x16\x04\x01", Protocol::Other),
            (b"PRI * HTTP", Protocol::Unclear),
            (b"PRI * HTTP/2.0\r\n\r\nSM", Protocol::Other),
        ];
        for (prefix, expected) in cases {
            assert_eq!(protocol(prefix), expected, "{}", prefix.escape_ascii());
        }
    }

    #[test]
    fn a_boundary_needs_a_known_method_and_a_target() {
        let cases: [(&[u8], bool); 9] = [
            (b"GET / HTTP/1.1\r\n", true),
            (b"GET /half", true),
            (b"GET ", false),
            (b"GE", false),
            (b"GET /x y\r\n", false),
            (b"GETTY /", false),
            (b"CONNECT host:443 HTTP/1.1\r\n", true),
            (b"POST http://h/ HTTP/1.1\r\n", true),
            (b"{\"GET /\": 1}", false),
        ];
        for (segment, expected) in cases {
            assert_eq!(request_boundary(segment), expected, "{}", segment.escape_ascii());
        }
    }

    #[test]
    fn the_sender_shows_in_the_bytes() {
        let cases: [(&[u8], Option<Direction>); 6] = [
            (b"HTTP/1.1 200 OK\r\n", Some(Direction::ToClient)),
            (b"GET / HTTP/1.1\r\n", Some(Direction::ToServer)),
            (b"\x16\x03\x01\x02\x00\x01", Some(Direction::ToServer)),
            (b"\x16\x03\x03\x00\x7a\x02", Some(Direction::ToClient)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Direction::ToServer)),
            (b"anything", None),
        ];
        for (segment, expected) in cases {
            assert_eq!(direction(segment), expected, "{}", segment.escape_ascii());
        }
    }

    #[test]
    fn status_codes_and_their_prefixes() {
        assert_eq!(status(b"HTTP/1.1 204 No Content"), Some(204));
        assert_eq!(status(b"HTTP/1.1 20"), None);
        assert!(status_line(b"HT") && status_line(b"HTTP/1.0 ") && !status_line(b"HTTP/2"));
    }
}
