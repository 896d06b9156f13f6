//! Makes the request as the shadow may see it. What cannot be masked is not sent.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;

use super::rules::Rules;
use super::whole::{encoded, in_a_field};
use super::{Compartment, Masker, Sealed, Sendable, Withheld, check, cookies};
use crate::config::Credentials;
use crate::content;
use crate::exchange::{Exchange, Headers, Request, SkipReason};
use crate::policy::credentials;

mod body;
mod target;

pub(super) use target::plain;

/// A request body is decoded for masking up to so many bytes; a larger one cannot be masked.
pub(super) const MAX_UNMASKED: usize = 16 << 20;

/// Preconditions (RFC 9110, section 13.1): production's validators mean nothing to a shadow.
const CONDITIONAL: &[&str] =
    &["if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range"];

/// The coding of a body, which stays if the masked body can have it as well.
const CODING: &[&str] = &["content-encoding"];

/// Fields that describe the bytes of a body, and are wrong once it is masked.
const DIGESTS: &[&str] = &["content-md5", "digest", "content-digest", "repr-digest"];

/// Both of these.
pub(super) const DESCRIBING: &[&str] =
    &["content-encoding", "content-md5", "digest", "content-digest", "repr-digest"];

/// Fields that a message cannot do without as they are: whatever is to be masked in them by its form cannot be.
const STRUCTURAL: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields whose value is a URL, so that parameters are looked for in it.
const URLS: &[&str] = &[
    "destination",
    "referer",
    "x-envoy-original-path",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// What of a request is masked.
pub(super) struct Message {
    pub target: Bytes,
    pub headers: Headers,
    pub trailers: Headers,
    pub body: Bytes,
}

impl Message {
    /// That of a request, its target in origin-form.
    pub(super) fn of(request: &Request) -> Message {
        let target = match request.origin_form() {
            origin if origin.len() == request.target.len() => request.target.clone(),
            // An absolute-form target with a query and no path (RFC 9112, section 3.2.1).
            origin if origin.first() == Some(&b'?') => [b"/", origin].concat().into(),
            origin => Bytes::copy_from_slice(origin),
        };
        Message {
            target,
            headers: request.headers.clone(),
            trailers: request.trailers.clone(),
            body: request.body.clone(),
        }
    }
}

impl Masker {
    /// The request of an exchange as the shadow may see it.
    ///
    /// - The target is in origin-form.
    /// - With [`Credentials::Strip`] and [`Credentials::Replace`] known credentials are removed. That counts as altered:
    ///   production answered someone whom it knew.
    /// - With [`Credentials::Forward`] they travel apart from the rest, after masking.
    /// - What the rules of `mask.send` name or find is replaced: headers, cookies, parameters of the target and of URLs in
    ///   known fields, fields of forms, JSON fields, and in all text what patterns match and detectors find. A masked JSON
    ///   value keeps its type (`"masked"`, 0, false, empty, or a hash of that type), so that the shadow still understands
    ///   the request. A masked body keeps a content coding of gzip, deflate or zstd; otherwise it is sent without. Its new
    ///   length is the sender's business.
    /// - When production answered 2xx, its preconditions held, so they are removed: the shadow's validators differ. A
    ///   `Range` stays, unless `If-Range` came with it and production ignored it (a 200): then the shadow has to answer
    ///   in full as well.
    ///
    /// # Errors
    /// [`SkipReason::DropExchange`] when a rule with that action finds something in the request, or one of `mask.keep` in
    /// either message;
    /// [`SkipReason::Credentials`] when credentials are carried that nobody decided on;
    /// [`SkipReason::Unmaskable`] when rules may apply to a body that cannot be decoded and parsed whole, or to something
    /// that cannot be replaced, such as the name of a field;
    /// [`SkipReason::MaskFailed`] when the self-check finds something that should have been masked.
    pub fn sendable(&self, exchange: &Exchange) -> Result<Sendable, SkipReason> {
        let request = &exchange.request;
        self.refuse_dropped(exchange)?;
        let mut message = Message::of(request);
        let mut altered = false;
        match self.credentials {
            Credentials::Forward => {}
            Credentials::Skip if credentials::carried(request) => return Err(SkipReason::Credentials),
            Credentials::Skip => {}
            Credentials::Strip | Credentials::Replace => {
                altered |= !self.take_credentials(&mut message).is_empty();
            }
        }
        let stripped = altered;
        if !self.send.is_empty() {
            // A method cannot be masked.
            if self.send.finds(request.method.as_str()).is_some() {
                return Err(SkipReason::Unmaskable);
            }
            altered |= self.send.mask(&mut message)?;
        }
        let compartment = match self.credentials {
            Credentials::Forward => {
                let taken = self.take_credentials(&mut message);
                if taken.is_empty() { Compartment::Nothing } else { Compartment::Forward(taken) }
            }
            Credentials::Replace if stripped => Compartment::Replace,
            Credentials::Skip | Credentials::Strip | Credentials::Replace => Compartment::Nothing,
        };
        let Message { target, mut headers, trailers, body } = message;
        remove_preconditions(&mut headers, exchange.response.status);
        let sendable = Sendable {
            id: exchange.id,
            seen: exchange.times.started,
            method: request.method.clone(),
            target,
            version: request.version,
            headers,
            body,
            trailers,
            credentials: Sealed::new(compartment),
            altered,
            dry_run: false,
            session: None,
            issued: Arc::default(),
        };
        if !self.send.is_empty() && self.send.tally.turn(check::ONE_IN) {
            self.check_sendable(&sendable.checked())?;
        }
        Ok(sendable)
    }

    /// Takes everything out of the parts of a request that carries credentials.
    fn take_credentials(&self, message: &mut Message) -> Withheld {
        let also = &self.replaced;
        let stripped = credentials::strip_target(&message.target, &also.query);
        Withheld {
            target: stripped.map(|stripped| std::mem::replace(&mut message.target, stripped)),
            headers: credentials::take_headers(&mut message.headers, &also.headers),
            trailers: credentials::take_headers(&mut message.trailers, &also.headers),
        }
    }
}

impl Rules {
    /// Masks all of a message; says whether anything changed.
    ///
    /// # Errors
    /// As for [`Masker::sendable`].
    pub(super) fn mask(&self, message: &mut Message) -> Result<bool, SkipReason> {
        let mut altered =
            self.mask_headers(&mut message.headers)? | self.mask_headers(&mut message.trailers)?;
        if let Some(masked) = self.mask_target(&message.target)? {
            message.target = masked;
            altered = true;
        }
        if let Some(masked) = self.mask_body(&message.headers, &message.body)? {
            match content::encode_alike(&message.headers, &masked) {
                Some(encoded) => message.body = encoded,
                None => {
                    message.body = masked;
                    remove(&mut message.headers, CODING);
                }
            }
            remove(&mut message.headers, DIGESTS);
            remove(&mut message.trailers, DESCRIBING);
            altered = true;
        }
        Ok(altered)
    }

    fn mask_headers(&self, headers: &mut Headers) -> Result<bool, SkipReason> {
        let mut altered = false;
        for (name, value) in &mut headers.0 {
            let text = String::from_utf8_lossy(value);
            if self.finds(&String::from_utf8_lossy(name)).is_some() {
                return Err(SkipReason::Unmaskable);
            }
            let masked = match self.header(name) {
                Some(hit) => Some(self.cover(hit, "header", &text)),
                None => self.mask_field(name, &text)?,
            };
            if let Some(masked) = masked.filter(|masked| *masked != text) {
                *value = in_a_field(&masked);
                altered = true;
            }
        }
        Ok(altered)
    }

    /// Each cookie by itself: those that rules name, and what is in the others.
    fn mask_cookies(&self, kind: cookies::Kind, line: &str) -> Result<Option<String>, SkipReason> {
        let failed = Cell::new(None);
        let cover = |name: &str, value: &str| match self.cookie(name.as_bytes()) {
            Some(hit) => Some(self.cover(hit, "cookie", value)),
            None => {
                let masked = self.mask_text(value).unwrap_or_else(|reason| {
                    failed.set(Some(reason));
                    None
                })?;
                let fits = |byte: u8| !byte.is_ascii_control() && !b";,\"".contains(&byte);
                Some(String::from_utf8_lossy(&encoded(&masked, fits)).into_owned())
            }
        };
        let masked = cookies::masked(kind, line, &cover);
        failed.get().map_or(Ok(masked), Err)
    }

    /// The value of a field that no rule names.
    fn mask_field(&self, name: &[u8], text: &str) -> Result<Option<String>, SkipReason> {
        let is = |list: &[&str]| list.iter().any(|listed| name.eq_ignore_ascii_case(listed.as_bytes()));
        let mut shown = Cow::Borrowed(text);
        if let Some(kind) = cookies::kind(name) {
            let cookies = self.mask_cookies(kind, text)?;
            let shown = self.scrubbed(cookies.as_deref().unwrap_or(text));
            return Ok(shown.or(cookies));
        }
        if is(URLS) {
            // What is found in the URL as a whole, as a user before its host, is in none of its pieces.
            if let Some(masked) = self.mask_text(text)? {
                shown = Cow::Owned(masked);
            }
            if let Some(masked) = self.mask_target(shown.as_bytes())? {
                shown = Cow::Owned(String::from_utf8_lossy(&masked).into_owned());
            }
        }
        match self.mask_text(&shown)? {
            Some(_) if is(STRUCTURAL) => Err(SkipReason::Unmaskable),
            Some(masked) => Ok(Some(masked)),
            None if matches!(shown, Cow::Owned(_)) => Ok(Some(shown.into_owned())),
            None => Ok(None),
        }
    }
}

pub(super) fn remove(headers: &mut Headers, names: &[&str]) {
    headers.0.retain(|(name, _)| !names.iter().any(|listed| name.eq_ignore_ascii_case(listed.as_bytes())));
}

fn remove_preconditions(headers: &mut Headers, status: u16) {
    if !(200..300).contains(&status) {
        return;
    }
    if status == 200 && headers.contains("if-range") {
        remove(headers, &["range"]);
    }
    remove(headers, CONDITIONAL);
}

#[cfg(test)]
mod tests;
