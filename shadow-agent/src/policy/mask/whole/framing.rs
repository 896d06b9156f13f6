//! Makes the fields that say how long a body is agree with what is there (RFC 9112, section 6).

use bytes::Bytes;
use http::{Method, Version};

use crate::exchange::{Exchange, Headers};

const LENGTH: &[u8] = b"Content-Length";
const CODING: &[u8] = b"Transfer-Encoding";

/// Whether a field says how long a body is.
pub(super) fn is_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(LENGTH) || name.eq_ignore_ascii_case(CODING)
}

/// Settles both messages of an exchange. Doing it again changes nothing.
pub(super) fn settle(exchange: &mut Exchange) {
    let Exchange { request, response, .. } = exchange;
    let stated = request.headers.iter().any(|(name, _)| is_framing(name));
    let lower = request.version == Version::HTTP_2;
    if !request.trailers.is_empty() {
        chunked(&mut request.headers, lower);
    } else if stated || !request.body.is_empty() {
        length(&mut request.headers, request.body.len(), lower);
    }
    let lower = response.version == Version::HTTP_2;
    match response.status {
        204 => {
            response.headers.0.retain(|(name, _)| !is_framing(name));
            response.trailers = Headers::default();
        }
        304 => without_body(&mut response.headers, &mut response.trailers),
        _ if request.method == Method::HEAD => {
            without_body(&mut response.headers, &mut response.trailers);
        }
        _ if !response.trailers.is_empty() => chunked(&mut response.headers, lower),
        _ => length(&mut response.headers, response.body.len(), lower),
    }
}

/// The answer keeps the length of the body that it would have.
fn without_body(headers: &mut Headers, trailers: &mut Headers) {
    headers.0.retain(|(name, _)| !name.eq_ignore_ascii_case(CODING));
    let mut stated = false;
    headers.0.retain(|(name, _)| !is_framing(name) || !std::mem::replace(&mut stated, true));
    *trailers = Headers::default();
}

fn chunked(headers: &mut Headers, lower: bool) {
    only(headers, CODING, Bytes::from_static(b"chunked"), lower);
}

fn length(headers: &mut Headers, length: usize, lower: bool) {
    only(headers, LENGTH, length.to_string().into(), lower);
}

/// Puts one field in the place of the first that says anything about the length, or at the end. A field of the same name
/// keeps the way its name is written.
fn only(headers: &mut Headers, name: &'static [u8], value: Bytes, lower: bool) {
    let first = headers.0.iter().position(|(field, _)| is_framing(field));
    let written = match first.and_then(|first| headers.0.get(first)) {
        Some((field, _)) if field.eq_ignore_ascii_case(name) => field.clone(),
        Some((field, _)) if field.iter().all(|byte| !byte.is_ascii_uppercase()) => {
            name.to_ascii_lowercase().into()
        }
        None if lower => name.to_ascii_lowercase().into(),
        _ => Bytes::from_static(name),
    };
    match first.and_then(|first| headers.0.get_mut(first)) {
        Some(field) => *field = (written, value),
        None => headers.0.push((written, value)),
    }
    let mut met = false;
    headers.0.retain(|(field, _)| !is_framing(field) || !std::mem::replace(&mut met, true));
}
