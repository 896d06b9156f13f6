//! Makes the request as the shadow may see it. What cannot be masked is not sent.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Compartment, Masker, Rules, Sealed, Sendable, Withheld, fields};
use crate::config::Credentials;
use crate::content;
use crate::exchange::{Exchange, Headers, Request, SkipReason};
use crate::policy::credentials;
use crate::policy::target::parameters;

/// A request body is decoded for masking up to so many bytes; a larger one cannot be masked.
pub(super) const MAX_UNMASKED: usize = 16 << 20;

/// What stands in the place of a masked value; it is valid in header fields, queries and JSON strings.
const MASK: &str = "masked";

/// Preconditions (RFC 9110, section 13.1): production's validators mean nothing to a shadow.
const CONDITIONAL: &[&str] =
    &["if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range"];

/// Fields that describe the bytes of a body, and are wrong once it is masked.
pub(super) const DESCRIBING: &[&str] =
    &["content-encoding", "content-md5", "digest", "content-digest", "repr-digest"];

impl Masker {
    /// The request of an exchange as the shadow may see it.
    ///
    /// - The target is in origin-form.
    /// - With [`Credentials::Strip`] and [`Credentials::Replace`] known credentials are removed. That counts as altered:
    ///   production answered someone whom it knew.
    /// - With [`Credentials::Forward`] they travel apart from the rest, after masking.
    /// - Headers, query parameters and JSON fields of `mask.send` are replaced. A masked JSON value keeps its type
    ///   (`"masked"`, 0, false, empty), so that the shadow still understands the request. A masked body is sent
    ///   without content coding; its new length is the sender's business.
    /// - When production answered 2xx, its preconditions held, so they are removed: the shadow's validators differ. A
    ///   `Range` stays, unless `If-Range` came with it and production ignored it (a 200): then the shadow has to answer
    ///   in full as well.
    ///
    /// # Errors
    /// [`SkipReason::Credentials`] when credentials are carried that nobody decided on;
    /// [`SkipReason::Unmaskable`] when there are JSON fields to mask and the body cannot be decoded and parsed whole.
    pub fn sendable(&self, exchange: &Exchange) -> Result<Sendable, SkipReason> {
        let request = &exchange.request;
        let mut headers = request.headers.clone();
        let mut trailers = request.trailers.clone();
        let mut target = match request.origin_form() {
            origin if origin.len() == request.target.len() => request.target.clone(),
            // An absolute-form target with a query and no path (RFC 9112, section 3.2.1).
            origin if origin.first() == Some(&b'?') => [b"/", origin].concat().into(),
            origin => Bytes::copy_from_slice(origin),
        };
        let mut altered = false;
        match self.credentials {
            Credentials::Forward => {}
            Credentials::Skip if credentials::carried(request) => return Err(SkipReason::Credentials),
            Credentials::Skip => {}
            Credentials::Strip | Credentials::Replace => {
                altered |= !self.take_credentials(&mut target, &mut headers, &mut trailers).is_empty();
            }
        }
        let stripped = altered;
        altered |= self.send.mask_headers(&mut headers) | self.send.mask_headers(&mut trailers);
        if let Some(masked) = self.send.mask_query(&target) {
            target = masked;
            altered = true;
        }
        let mut body = request.body.clone();
        if let Some(masked) = self.send.mask_body(request)? {
            body = masked;
            remove(&mut headers, DESCRIBING);
            remove(&mut trailers, DESCRIBING);
            altered = true;
        }
        remove_preconditions(&mut headers, exchange.response.status);
        let compartment = match self.credentials {
            Credentials::Forward => {
                let taken = self.take_credentials(&mut target, &mut headers, &mut trailers);
                if taken.is_empty() { Compartment::Nothing } else { Compartment::Forward(taken) }
            }
            Credentials::Replace if stripped => Compartment::Replace,
            Credentials::Skip | Credentials::Strip | Credentials::Replace => Compartment::Nothing,
        };
        Ok(Sendable {
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
        })
    }

    /// Takes everything out of the parts of a request that carries credentials.
    fn take_credentials(
        &self,
        target: &mut Bytes,
        headers: &mut Headers,
        trailers: &mut Headers,
    ) -> Withheld {
        let also = &self.replaced;
        let stripped = credentials::strip_target(target, &also.query);
        Withheld {
            target: stripped.map(|stripped| std::mem::replace(target, stripped)),
            headers: credentials::take_headers(headers, &also.headers),
            trailers: credentials::take_headers(trailers, &also.headers),
        }
    }
}

impl Rules {
    fn mask_headers(&self, headers: &mut Headers) -> bool {
        let mut altered = false;
        for (name, value) in &mut headers.0 {
            if self.names_header(name) {
                *value = Bytes::from_static(MASK.as_bytes());
                altered = true;
            } else if name.eq_ignore_ascii_case(b"referer")
                && let Some(masked) = self.mask_query(value)
            {
                *value = masked;
                altered = true;
            }
        }
        altered
    }

    /// The target with the parameters replaced that the rules name; `None` when there are none.
    fn mask_query(&self, target: &[u8]) -> Option<Bytes> {
        let mark = target.iter().position(|&byte| byte == b'?')?;
        let (path, query) = target.split_at_checked(mark + 1)?;
        if !parameters(query).any(|(name, _)| self.names_parameter(&name)) {
            return None;
        }
        let parameters = parameters(query).map(|(name, whole)| {
            if !self.names_parameter(&name) {
                return whole.to_vec();
            }
            let raw_name = whole.split(|&byte| byte == b'=').next().unwrap_or_default();
            [raw_name, b"=", MASK.as_bytes()].concat()
        });
        Some([path, &parameters.collect::<Vec<_>>().join(&b'&')].concat().into())
    }

    /// The body with the JSON fields replaced that the rules name; `None` when there are none in it.
    fn mask_body(&self, request: &Request) -> Result<Option<Bytes>, SkipReason> {
        if self.fields.is_empty() || request.body.is_empty() {
            return Ok(None);
        }
        let unmaskable = SkipReason::Unmaskable;
        let decoded =
            content::decode(&request.headers, &request.body, MAX_UNMASKED).map_err(|_| unmaskable)?;
        let mut document: Value = serde_json::from_slice(&decoded).map_err(|_| unmaskable)?;
        if fields::repeats_a_key(&decoded) {
            return Err(unmaskable);
        }
        let masked = self.fields.mask(&mut document, neutral, |_| MASK.to_owned());
        let seen_whole = masked.opaque.iter().all(|opaque| masked.covers(opaque));
        match (seen_whole, masked.replaced.is_empty()) {
            (false, _) => Err(unmaskable),
            (true, true) => Ok(None),
            (true, false) => Ok(Some(document.to_string().into())),
        }
    }
}

/// A value of the same type that says nothing.
fn neutral(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) => Value::Bool(false),
        Value::Number(_) => json!(0),
        Value::String(_) => json!(MASK),
        Value::Array(_) => json!([]),
        Value::Object(_) => json!({}),
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
