//! Undoes and renews the content-encoding of a body, and says what media type a message has. Stops at the caller's limit.
//!
//! Pure. It knows no rules: what is done with the bytes is the business of `policy` and `compare`.

use std::io::Read;

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use flate2::read::{DeflateDecoder, GzEncoder, MultiGzDecoder, ZlibDecoder, ZlibEncoder};
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use thiserror::Error;

use crate::exchange::Headers;

/// Content codings undone one after the other; a body with more is refused.
pub const MAX_CODINGS: usize = 4;

/// The window that every zstd decoder has to support, in bytes (RFC 9659, section 3).
const ZSTD_WINDOW: usize = 8 << 20;

/// Bytes of compressed input that the brotli decoder takes at a time.
const BROTLI_BUFFER: usize = 4096;

/// A body that decodes to more than this is refused once it is larger than [`MAX_RATIO`] times what was received.
pub const FREE: usize = 1 << 20;

/// How much larger than what was received a decoded body may be, beyond [`FREE`]: hardly anything but a bomb is.
pub const MAX_RATIO: usize = 1024;

/// Why a body cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A coding that is none of gzip, deflate, br and zstd.
    #[error("the content coding `{0}` is unknown")]
    Unknown(String),
    /// The bytes are not what the coding says, or end too early.
    #[error("the body is not valid {0}")]
    Broken(&'static str),
    /// More than [`MAX_CODINGS`] codings.
    #[error("the body has {0} content codings, more than {MAX_CODINGS}")]
    TooMany(usize),
    /// The decoded body is larger than the limit, in bytes.
    #[error("the decoded body is larger than {0} bytes")]
    TooLarge(usize),
    /// The decoded body is larger than any that is meant to be read, for its size.
    #[error("the decoded body is larger than {MAX_RATIO} times the body, which makes it a bomb")]
    Bomb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    fn named(name: String) -> Result<Coding, DecodeError> {
        match name.as_str() {
            "gzip" | "x-gzip" => Ok(Coding::Gzip),
            "deflate" => Ok(Coding::Deflate),
            "br" => Ok(Coding::Brotli),
            "zstd" => Ok(Coding::Zstd),
            _ => Err(DecodeError::Unknown(name)),
        }
    }
}

/// The body without its content codings (RFC 9110, section 8.4), at most `limit` bytes at every step, and at most
/// [`MAX_RATIO`] times its size beyond [`FREE`].
///
/// An empty body stays empty whatever its headers say (the answer to HEAD has them, too).
///
/// # Errors
/// When a coding is unknown, the bytes are broken, or the result is larger than `limit`.
pub fn decode(headers: &Headers, body: &Bytes, limit: usize) -> Result<Bytes, DecodeError> {
    let mut body = body.clone();
    if !body.is_empty() {
        let plausible = plausible(body.len());
        for coding in codings(headers)?.into_iter().rev() {
            body = undo(coding, &body, limit, plausible)?;
        }
    }
    if body.len() > limit { Err(DecodeError::TooLarge(limit)) } else { Ok(body) }
}

/// Bytes without the one coding of that name, whatever its case, at most `limit` of them; `identity` is none.
///
/// # Errors
/// When the coding is unknown, the bytes are broken, or the result is larger than `limit`.
pub fn decode_one(coding: &str, body: &Bytes, limit: usize) -> Result<Bytes, DecodeError> {
    let name = coding.trim().to_ascii_lowercase();
    let body = if name == "identity" {
        body.clone()
    } else {
        undo(Coding::named(name)?, body, limit, plausible(body.len()))?
    };
    if body.len() > limit { Err(DecodeError::TooLarge(limit)) } else { Ok(body) }
}

/// A new body in the content coding that a message states, if that is one of gzip, deflate and zstd alone; `None` if there is
/// another one, or more, or none.
#[must_use]
pub fn encode_alike(headers: &Headers, plain: &[u8]) -> Option<Bytes> {
    let [coding] = codings(headers).ok()?[..] else { return None };
    let fast = flate2::Compression::fast();
    let mut encoded = Vec::new();
    match coding {
        Coding::Gzip => GzEncoder::new(plain, fast).read_to_end(&mut encoded).ok()?,
        Coding::Deflate => ZlibEncoder::new(plain, fast).read_to_end(&mut encoded).ok()?,
        Coding::Zstd => {
            encoded = compress_to_vec(plain, CompressionLevel::Fastest);
            encoded.len()
        }
        // There is no encoder for it here; a body without coding is one that every server takes.
        Coding::Brotli => return None,
    };
    Some(encoded.into())
}

/// Whether a message says that its body has a content coding other than `identity`.
#[must_use]
pub fn is_encoded(headers: &Headers) -> bool {
    names(headers).next().is_some()
}

/// The media type without parameters, in lower case; `None` without a content-type.
#[must_use]
pub fn media_type(headers: &Headers) -> Option<String> {
    let value = String::from_utf8_lossy(headers.get("content-type")?);
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence.is_empty() { None } else { Some(essence) }
}

/// Whether a media type is JSON: `application/json`, or the suffix `+json` (RFC 6839, section 3.1).
#[must_use]
pub fn is_json(media_type: &str) -> bool {
    matches!(media_type, "application/json" | "text/json") || media_type.ends_with("+json")
}

/// Whether bytes begin as a JSON object or array does.
#[must_use]
pub fn begins_like_json(bytes: &[u8]) -> bool {
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['))
}

fn names(headers: &Headers) -> impl Iterator<Item = String> + '_ {
    headers
        .all("content-encoding")
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty() && name != "identity")
}

fn codings(headers: &Headers) -> Result<Vec<Coding>, DecodeError> {
    let codings: Vec<Coding> = names(headers).map(Coding::named).collect::<Result<_, _>>()?;
    if codings.len() > MAX_CODINGS { Err(DecodeError::TooMany(codings.len())) } else { Ok(codings) }
}

/// The most that a body of so many bytes is taken to decode to.
fn plausible(received: usize) -> usize {
    received.saturating_mul(MAX_RATIO).max(FREE)
}

fn undo(coding: Coding, body: &[u8], limit: usize, plausible: usize) -> Result<Bytes, DecodeError> {
    undo_within(coding, body, limit.min(plausible)).map_err(|error| match error {
        DecodeError::TooLarge(_) if plausible < limit => DecodeError::Bomb,
        other => other,
    })
}

fn undo_within(coding: Coding, body: &[u8], limit: usize) -> Result<Bytes, DecodeError> {
    match coding {
        Coding::Gzip => read(MultiGzDecoder::new(body), limit, "gzip"),
        Coding::Deflate if has_zlib_header(body) => match read(ZlibDecoder::new(body), limit, "deflate") {
            Err(DecodeError::Broken(_)) => read(DeflateDecoder::new(body), limit, "deflate"),
            decoded => decoded,
        },
        Coding::Deflate => read(DeflateDecoder::new(body), limit, "deflate"),
        Coding::Brotli => read(Decompressor::new(body, BROTLI_BUFFER), limit, "br"),
        Coding::Zstd => zstd(body, limit),
    }
}

/// `deflate` means the zlib format (RFC 9110, section 8.4.1.2), but some senders leave its header out.
fn has_zlib_header(body: &[u8]) -> bool {
    match body {
        [method, flags, ..] => method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31),
        _ => false,
    }
}

fn read(decoder: impl Read, limit: usize, coding: &'static str) -> Result<Bytes, DecodeError> {
    let mut decoded = Vec::new();
    append(decoder, limit, coding, &mut decoded)?;
    Ok(decoded.into())
}

/// Appends what `decoder` gives, one byte past `limit` at most, so that a bomb costs no more than the limit.
fn append(
    decoder: impl Read,
    limit: usize,
    coding: &'static str,
    decoded: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let room = u64::try_from(limit - decoded.len().min(limit)).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(room).read_to_end(decoded).map_err(|_| DecodeError::Broken(coding))?;
    if decoded.len() > limit { Err(DecodeError::TooLarge(limit)) } else { Ok(()) }
}

/// One or more frames, skippable ones among them (RFC 8878, section 3.1).
fn zstd(mut body: &[u8], limit: usize) -> Result<Bytes, DecodeError> {
    let broken = DecodeError::Broken("zstd");
    let window = u64::try_from(limit.max(ZSTD_WINDOW)).unwrap_or(u64::MAX);
    let mut decoded = Vec::new();
    while !body.is_empty() {
        match StreamingDecoder::new_with_max_window_size(&mut body, window) {
            Ok(mut frame) => {
                append(&mut frame, limit, "zstd", &mut decoded)?;
                let stated = frame.decoder.get_checksum_from_data();
                if stated.is_some() && stated != frame.decoder.get_calculated_checksum() {
                    return Err(broken);
                }
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                body = body.get(length..).ok_or_else(|| broken.clone())?;
            }
            Err(_) => return Err(broken),
        }
    }
    Ok(decoded.into())
}

#[cfg(test)]
mod tests;
