//! Makes whole exchanges as people and disks may see them: nothing is shortened, and what is not masked stays byte by
//! byte as it was. What cannot be masked is not kept.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem;
use regex::bytes::Regex;

use super::send::{DESCRIBING, remove};
use super::{Kept, Masker, check};
use crate::exchange::{Exchange, Headers, Request, Response, SkipReason};

pub(super) mod body;
pub(super) mod framing;
#[cfg(test)]
mod tests;

/// How what was masked looks, in text and in a target or form.
const MASKED: [&[u8]; 2] = [b"[masked: ", b"[masked:%20"];

/// A placeholder that ends in a hash.
#[expect(clippy::expect_used, reason = "a constant pattern; tests of this module compile it")]
static HASH_IN_MARK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\[masked:(?: |%20|\+)([a-z][a-z0-9_-]{0,31})(?: |%20|\+)[a-p]{32}\]")
        .expect("the pattern is valid")
});

/// Whether something in the request was masked when it was recorded, so that production was asked for something else.
#[must_use]
pub fn request_was_masked(request: &Request) -> bool {
    holds_mask(&request.target) || message_was_masked(&request.headers, &request.body, &request.trailers)
}

/// Whether something in the response was masked when it was recorded.
#[must_use]
pub fn response_was_masked(response: &Response) -> bool {
    message_was_masked(&response.headers, &response.body, &response.trailers)
}

fn message_was_masked(headers: &Headers, body: &[u8], trailers: &Headers) -> bool {
    holds_mask(body) || headers.iter().chain(trailers.iter()).any(|(_, value)| holds_mask(value))
}

fn holds_mask(bytes: &[u8]) -> bool {
    MASKED.iter().any(|mask| memmem::find(bytes, mask).is_some())
}

/// Masks are applied until nothing changes any more, so that what is kept is masked to itself. What still changes after
/// so many passes is given up.
const MAX_PASSES: usize = 4;

/// Masks until nothing changes, or gives up.
fn until_still<T: Clone + PartialEq>(
    value: &T,
    pass: impl Fn(&T) -> Result<T, SkipReason>,
) -> Result<T, SkipReason> {
    let mut kept = value.clone();
    for _ in 0..MAX_PASSES {
        let masked = pass(&kept)?;
        if masked == kept {
            return Ok(kept);
        }
        kept = masked;
    }
    Err(SkipReason::Unmaskable)
}

impl Masker {
    /// An exchange as people and disks may see it.
    ///
    /// - Target, header and trailer fields as in reports, and not shortened. In a target, what a placeholder may not have
    ///   there is percent-encoded (RFC 3986, section 2.1).
    /// - Of JSON, the members that the rules or the built-in list of credentials name, and whatever a detector finds in
    ///   a string, a name or a number; of forms likewise, a parameter being a member of an object; of other text, what
    ///   the detectors find.
    /// - In forms in parts, the content of parts that the rules name, and whatever is found in the rest of what is text.
    /// - A masked body loses its content coding, and the fields that describe its bytes.
    /// - Either message says how long its body is, in one `Content-Length`; a message with trailers is chunked instead.
    ///   Answers to HEAD, and with status 304, keep the length that they state of a body that is not there.
    ///
    /// Masking what is kept changes nothing.
    ///
    /// # Errors
    /// [`SkipReason::Unmaskable`] when rules may apply to a body that cannot be decoded or parsed: a content coding that is
    /// broken or unknown, more than 16 MiB decoded, an object with two members of one name, a form in parts that cannot be
    /// taken apart and has a part that is named like credentials, something compressed that is called text, something binary or of wide characters in which there is anything to hide; a method or the name of a field in which there is; and with configured fields,
    /// everything binary but images, audio, video and fonts, and text that is no JSON and has JSON in it.
    /// [`SkipReason::DropExchange`] when a rule with that action finds something;
    /// [`SkipReason::MaskFailed`] when the self-check finds something that should have been masked.
    pub fn keep_exchange(&self, exchange: &Exchange) -> Result<Kept<Exchange>, SkipReason> {
        self.refuse_dropped(exchange)?;
        let mut kept = until_still(exchange, |exchange| self.pass(exchange))?;
        framing::settle(&mut kept);
        if self.keep.tally.turn(check::ONE_IN) {
            self.check_kept(&kept)?;
        }
        Ok(Kept(kept))
    }

    /// A response as it would have been recorded, which makes it comparable with one that was.
    ///
    /// # Errors
    /// As for [`Masker::keep_exchange`].
    pub fn as_recorded(&self, response: &Response) -> Result<Response, SkipReason> {
        let masker = self.redacting.as_deref().unwrap_or(self);
        let response = without_hashes(response);
        until_still(&response, |response| {
            let mut masked = response.clone();
            masker.message(&mut masked.headers, &mut masked.body, &mut masked.trailers)?;
            Ok(masked)
        })
    }

    pub(super) fn pass(&self, exchange: &Exchange) -> Result<Exchange, SkipReason> {
        let mut masked = exchange.clone();
        let Exchange { request, response, .. } = &mut masked;
        if self.hides(request.method.as_str().as_bytes()) {
            return Err(SkipReason::Unmaskable);
        }
        if let Some(target) = self.whole_target(&exchange.request) {
            request.target = target;
        }
        self.message(&mut request.headers, &mut request.body, &mut request.trailers)?;
        self.message(&mut response.headers, &mut response.body, &mut response.trailers)?;
        Ok(masked)
    }

    fn message(
        &self,
        headers: &mut Headers,
        body: &mut Bytes,
        trailers: &mut Headers,
    ) -> Result<(), SkipReason> {
        if let Some(masked) = self.whole_body(headers, body)? {
            *body = masked;
            remove(headers, DESCRIBING);
            remove(trailers, DESCRIBING);
        }
        for (name, value) in headers.0.iter_mut().chain(&mut trailers.0) {
            if framing::is_framing(name) {
                continue;
            }
            if self.hides(name) {
                return Err(SkipReason::Unmaskable);
            }
            let kept = self.keep_whole_header(name, value);
            if *kept.get() != String::from_utf8_lossy(value) {
                *value = in_a_field(kept.get());
            }
        }
        Ok(())
    }

    /// Whether there is something to hide in a method or the name of a field, where no placeholder may stand.
    fn hides(&self, token: &[u8]) -> bool {
        matches!(self.keep.scrub(&String::from_utf8_lossy(token)), Cow::Owned(_))
    }

    /// The masked target; `None` when nothing in it is masked.
    fn whole_target(&self, request: &Request) -> Option<Bytes> {
        let kept = self.keep_whole_target(request);
        if *kept.get() == String::from_utf8_lossy(&request.target) {
            return None;
        }
        Some(encoded(kept.get(), |byte| byte.is_ascii_graphic() && byte != b'#').into_owned().into())
    }
}

/// The response with the hashes of another run taken from its placeholders, so that they are those of every run.
fn without_hashes(response: &Response) -> Response {
    let strip = |bytes: &Bytes| -> Bytes {
        match HASH_IN_MARK.replace_all(bytes, &b"[masked: $1]"[..]) {
            Cow::Borrowed(_) => bytes.clone(),
            Cow::Owned(stripped) => stripped.into(),
        }
    };
    let mut response = response.clone();
    response.body = strip(&response.body);
    for (_, value) in response.headers.0.iter_mut().chain(&mut response.trailers.0) {
        *value = strip(value);
    }
    response
}

/// A text as a field value (RFC 9110, section 5.5): undoing percent-encoding may have brought control characters to light.
pub(super) fn in_a_field(text: &str) -> Bytes {
    let fits = |byte: u8| byte == b'\t' || !byte.is_ascii_control();
    Bytes::copy_from_slice(encoded(text, fits).trim_ascii())
}

/// The text with every byte percent-encoded that does not fit.
pub(super) fn encoded(text: &str, fits: fn(u8) -> bool) -> Cow<'_, [u8]> {
    if text.bytes().all(fits) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut encoded = Vec::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if fits(byte) {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    Cow::Owned(encoded)
}
