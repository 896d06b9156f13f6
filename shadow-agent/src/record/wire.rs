//! Messages as HTTP/1 has them on the wire (RFC 9112), whatever version they came in.
//!
//! It relies on what masking has made sure of: the fields agree with the body.

use std::io::Write as _;

use http::{StatusCode, Version};

use crate::exchange::{Headers, Request, Response};

/// A request. Where the body shall be cut, each part becomes a chunk.
pub(super) fn request(request: &Request, cuts: &[usize]) -> Vec<u8> {
    let Request { method, target, version, headers, body, trailers } = request;
    let chunked = !cuts.is_empty() || !trailers.is_empty();
    let mut message = Vec::with_capacity(512 + body.len());
    message.extend_from_slice(method.as_str().as_bytes());
    message.push(b' ');
    message.extend_from_slice(target);
    message.push(b' ');
    message.extend_from_slice(shown(*version, chunked).as_bytes());
    message.extend_from_slice(b"\r\n");
    rest(message, headers, chunked.then_some(cuts), body, trailers)
}

/// A response, likewise.
pub(super) fn response(response: &Response, cuts: &[usize]) -> Vec<u8> {
    let Response { status, version, headers, body, trailers } = response;
    let chunked = !cuts.is_empty() || !trailers.is_empty();
    let mut message = Vec::with_capacity(512 + body.len());
    message.extend_from_slice(shown(*version, chunked).as_bytes());
    // Writing to memory cannot fail.
    let _ = write!(message, " {status} {}\r\n", reason(*status));
    rest(message, headers, chunked.then_some(cuts), body, trailers)
}

/// The reason phrase that is usual for a status, which exchanges do not have.
pub(super) fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}

/// HTTP/1.0 has no chunks.
pub(super) fn shown(version: Version, chunked: bool) -> &'static str {
    if version == Version::HTTP_10 && !chunked { "HTTP/1.0" } else { "HTTP/1.1" }
}

fn rest(
    mut message: Vec<u8>,
    headers: &Headers,
    chunks: Option<&[usize]>,
    body: &[u8],
    trailers: &Headers,
) -> Vec<u8> {
    for (name, value) in headers.iter() {
        // Masking left one field that says the length.
        if chunks.is_some() && name.eq_ignore_ascii_case(b"content-length") {
            let lower = name.iter().all(|byte| !byte.is_ascii_uppercase());
            field(&mut message, if lower { b"transfer-encoding" } else { b"Transfer-Encoding" }, b"chunked");
        } else {
            field(&mut message, name, value);
        }
    }
    message.extend_from_slice(b"\r\n");
    let Some(cuts) = chunks else {
        message.extend_from_slice(body);
        return message;
    };
    let ends = cuts.iter().copied().chain([body.len()]);
    let mut start = 0;
    for end in ends {
        let chunk = body.get(start..end).unwrap_or_default();
        start = end;
        if !chunk.is_empty() {
            let _ = write!(message, "{:x}\r\n", chunk.len());
            message.extend_from_slice(chunk);
            message.extend_from_slice(b"\r\n");
        }
    }
    message.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.iter() {
        field(&mut message, name, value);
    }
    message.extend_from_slice(b"\r\n");
    message
}

fn field(message: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !name.starts_with(b":") {
        for part in [name, b": ", value, b"\r\n"] {
            message.extend_from_slice(part);
        }
    }
}
