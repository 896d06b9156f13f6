//! The two exits of the process: what the shadow may see, and what people and disks may see.
//!
//! [`Sendable`] and [`Kept`] can be constructed here only; `replay` accepts nothing but the first, `report`, `admin`
//! and logs nothing but the second.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Version};

use self::hash::Key;
use self::rules::{Rules, Wanted};
use crate::config::{Credentials, Mask, MaskAction};
use crate::exchange::{ExchangeId, Headers, Timestamp};
use crate::policy::PolicyError;

mod check;
mod cookies;
mod detect;
mod drop;
mod fields;
mod hash;
mod keep;
mod members;
mod multipart;
mod rules;
mod send;
mod shape;
mod tally;
#[cfg(test)]
mod tests;
mod whole;

pub use fields::Step;
pub use keep::{Document, MAX_KEPT};
pub use tally::{Exit, Tally};
pub use whole::{request_was_masked, response_was_masked};

/// A request as the shadow may see it.
#[derive(Clone, Debug)]
pub struct Sendable {
    id: ExchangeId,
    seen: Timestamp,
    method: Method,
    target: Bytes,
    version: Version,
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

    /// The protocol version of production's request; a shadow is asked by the same one.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// End-to-end and hop-by-hop headers, as captured save what masking and the credentials policy changed.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The body, whole, with its content coding; a masked one may have lost it.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The trailer fields.
    #[must_use]
    pub fn trailers(&self) -> &Headers {
        &self.trailers
    }

    /// Whether masking or stripping credentials changed the request, so that production's response no longer belongs
    /// to it. Removing conditional headers does not count: production's 200 is the answer to the request without them.
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
///
/// The default is the default configuration: known credentials and `token` are hidden, nothing is changed for the
/// shadow, and requests with credentials are refused.
#[derive(Debug)]
pub struct Masker {
    keep: Rules,
    send: Rules,
    credentials: Credentials,
    /// The rules that drop an exchange, alone; none if there are none.
    dropping: Option<Box<Masker>>,
    /// What is kept with every hash redacted, which is the same in every run; none if nothing is hashed.
    redacting: Option<Box<Masker>>,
}

impl Masker {
    /// The rules of `mask`. If anything is hashed, it is with a key of its own.
    ///
    /// # Errors
    /// When a field is not a JSON path, a pattern not a regular expression, or there are no random bytes for a key.
    pub fn new(mask: &Mask, credentials: Credentials) -> Result<Masker, PolicyError> {
        let key = match mask.has(MaskAction::Hash) {
            true => Some(Arc::new(Key::random().map_err(PolicyError::Random)?)),
            false => None,
        };
        let tallies = [(Exit::Keep, &mask.keep), (Exit::Send, &mask.send)]
            .map(|(exit, rules)| Arc::new(Tally::new(exit, rules)));
        let [keep, send] = &tallies;
        let build = |wanted: Wanted| -> Result<Masker, PolicyError> {
            Ok(Masker {
                keep: Rules::new("mask.keep", keep, &mask.keep, key.as_ref(), wanted)?,
                send: Rules::new("mask.send", send, &mask.send, key.as_ref(), wanted)?,
                credentials,
                dropping: None,
                redacting: None,
            })
        };
        let mut masker = build(Some)?;
        if mask.has(MaskAction::DropExchange) {
            let only = |action| Some(action).filter(|&action| action == MaskAction::DropExchange);
            masker.dropping = Some(Box::new(build(only)?));
        }
        if key.is_some() {
            masker.redacting = Some(Box::new(build(|_| Some(MaskAction::Redact))?));
        }
        Ok(masker)
    }

    /// What the self-check found at both exits; must be 0.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.keep.tally.failures() + self.send.tally.failures()
    }

    /// What was masked at each exit, and what the self-check found.
    #[must_use]
    pub fn tallies(&self) -> [Arc<Tally>; 2] {
        [&self.keep.tally, &self.send.tally].map(Arc::clone)
    }
}

impl Default for Masker {
    fn default() -> Masker {
        let mask = Mask::default();
        let rules = |exit, rules| Rules::named(&Arc::new(Tally::new(exit, rules)), rules, Some);
        Masker {
            keep: rules(Exit::Keep, &mask.keep),
            send: rules(Exit::Send, &mask.send),
            credentials: Credentials::Skip,
            dropping: None,
            redacting: None,
        }
    }
}
