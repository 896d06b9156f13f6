//! The two exits of the process: what the shadow may see, and what people and disks may see.
//!
//! [`Sendable`] and [`Kept`] can be constructed here only; `replay` accepts nothing but the first, `report`, `admin`
//! and logs nothing but the second.

use bytes::Bytes;
use http::Method;

use crate::exchange::{Exchange, ExchangeId, Headers, SkipReason, Timestamp};

/// A request as the shadow may see it.
#[derive(Clone, Debug)]
pub struct Sendable {
    id: ExchangeId,
    seen: Timestamp,
    method: Method,
    target: Bytes,
    headers: Headers,
    body: Bytes,
    trailers: Headers,
    altered: bool,
}

impl Sendable {
    /// The exchange that it comes from.
    #[must_use]
    pub fn id(&self) -> ExchangeId {
        self.id
    }

    /// When production's request was seen.
    #[must_use]
    pub fn seen(&self) -> Timestamp {
        self.seen
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The target in origin-form, or `*`.
    #[must_use]
    pub fn target(&self) -> &Bytes {
        &self.target
    }

    /// End-to-end and hop-by-hop headers, as captured save what masking and the credentials policy changed.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The body, whole, content-encoding untouched.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The trailer fields.
    #[must_use]
    pub fn trailers(&self) -> &Headers {
        &self.trailers
    }

    /// Whether masking changed the request, so that production's response no longer belongs to it.
    #[must_use]
    pub fn altered(&self) -> bool {
        self.altered
    }
}

/// A value as people and disks may see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Kept<T>(T);

impl<T> Kept<T> {
    /// The value.
    pub fn get(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
impl<T> Kept<T> {
    /// A value that tests of other stages declare harmless.
    pub(crate) fn for_test(value: T) -> Kept<T> {
        Kept(value)
    }
}

/// Applies `mask` and the credentials policy.
#[derive(Debug, Default)]
pub struct Masker {}

impl Masker {
    /// The request of an exchange as the shadow may see it.
    ///
    /// # Errors
    /// The reason to skip the exchange, when the rules cannot be applied to it.
    pub fn sendable(&self, exchange: &Exchange) -> Result<Sendable, SkipReason> {
        let request = &exchange.request;
        Ok(Sendable {
            id: exchange.id,
            seen: exchange.times.started,
            method: request.method.clone(),
            target: request.target.clone(),
            headers: request.headers.clone(),
            body: request.body.clone(),
            trailers: request.trailers.clone(),
            altered: false,
        })
    }
}
