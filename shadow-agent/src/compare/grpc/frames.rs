//! Takes a gRPC body apart into its messages: each is behind a flag (compressed or not) and its length, and compressed by
//! itself. It knows nothing of what is in them.

use bytes::{Buf, Bytes};

use crate::content;
use crate::exchange::{Headers, UncomparableReason};

/// The field that names how messages are compressed.
pub(super) const ENCODING: &str = "grpc-encoding";

/// Messages of one body at most.
pub(super) const MAX_MESSAGES: usize = 10_000;

/// The flag and the length, in bytes.
const PREFIX: usize = 5;

/// The messages of a body, decompressed, at most `limit` bytes together.
///
/// # Errors
/// [`UncomparableReason::Framing`] when the body is not made of whole messages, [`UncomparableReason::Encoding`] when one
/// cannot be decompressed, [`UncomparableReason::TooLarge`] beyond `limit` or [`MAX_MESSAGES`].
pub(super) fn messages(
    headers: &Headers,
    body: &Bytes,
    limit: usize,
) -> Result<Vec<Bytes>, UncomparableReason> {
    let mut body = body.clone();
    let mut messages = Vec::new();
    let mut left = limit;
    while !body.is_empty() {
        if messages.len() >= MAX_MESSAGES {
            return Err(UncomparableReason::TooLarge);
        }
        if body.len() < PREFIX {
            return Err(UncomparableReason::Framing);
        }
        let flag = body.get_u8();
        let length = usize::try_from(body.get_u32()).unwrap_or(usize::MAX);
        if body.len() < length {
            return Err(UncomparableReason::Framing);
        }
        let message = body.split_to(length);
        let message = match flag {
            0 => message,
            1 => decompressed(headers, &message, left)?,
            _ => return Err(UncomparableReason::Framing),
        };
        left = left.checked_sub(message.len()).ok_or(UncomparableReason::TooLarge)?;
        messages.push(message);
    }
    Ok(messages)
}

fn decompressed(headers: &Headers, message: &Bytes, limit: usize) -> Result<Bytes, UncomparableReason> {
    // A flag without a field to explain it is an error of the sender.
    let name = headers.get(ENCODING).ok_or(UncomparableReason::Encoding)?;
    Ok(content::decode_one(&String::from_utf8_lossy(name), message, limit)?)
}
