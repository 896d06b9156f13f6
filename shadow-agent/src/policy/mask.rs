//! The two exits of the process: what the shadow may see, and what people and disks may see.
//!
//! [`Sendable`] and [`Kept`] can be constructed here only; `replay` accepts nothing but the first, `report`, `admin`
//! and logs nothing but the second.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Version};

use self::hash::Key as HashKey;
use self::rules::{Rules, Wanted};
use crate::config::{Credentials, Mask, MaskAction, OwnCredentials};
use crate::exchange::{ExchangeId, Headers, SessionId, Timestamp};
use crate::policy::PolicyError;
use crate::policy::tokens::Issued;
use crate::replay::Key;

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
mod sealed;
mod send;
mod shape;
mod tally;
#[cfg(test)]
mod tests;
mod whole;

pub use fields::Step;
pub use keep::{Document, MAX_KEPT};
pub use sealed::{Compartment, Sealed, Withheld};
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
    credentials: Sealed<Compartment>,
    altered: bool,
    dry_run: bool,
    session: Option<SessionId>,
    issued: Arc<[Issued]>,
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

    /// The target in origin-form, or `*`; without parameters that carry credentials.
    #[must_use]
    pub fn target(&self) -> &Bytes {
        &self.target
    }

    /// The protocol version of production's request; a shadow is asked by the same one.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// End-to-end and hop-by-hop headers, as captured save what masking and the credentials policy changed; without those
    /// that carry credentials.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The body, whole, with its content coding; a masked one may have lost it.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The trailer fields, without those that carry credentials.
    #[must_use]
    pub fn trailers(&self) -> &Headers {
        &self.trailers
    }

    /// The credentials that the shadow may see.
    #[must_use]
    pub fn credentials(&self) -> &Sealed<Compartment> {
        &self.credentials
    }

    /// Whether masking or stripping credentials changed the request, so that production's response no longer belongs
    /// to it. Removing conditional headers does not count: production's 200 is the answer to the request without them.
    #[must_use]
    pub fn altered(&self) -> bool {
        self.altered
    }

    /// The request as its target is sent it, with production's credentials in their places again; for `replay` alone, which
    /// must not let go of it.
    #[must_use]
    pub fn whole(&self, key: &Key) -> Cow<'_, Sendable> {
        self.put_back(self.credentials.open(key))
    }

    /// The same, for tests.
    #[cfg(test)]
    pub(crate) fn whole_for_test(&self) -> Cow<'_, Sendable> {
        self.checked()
    }

    /// The same, for the self-check.
    fn checked(&self) -> Cow<'_, Sendable> {
        self.put_back(self.credentials.peek())
    }

    fn put_back(&self, compartment: &Compartment) -> Cow<'_, Sendable> {
        let Compartment::Forward(withheld) = compartment else { return Cow::Borrowed(self) };
        Cow::Owned(Sendable {
            target: withheld.target().unwrap_or(&self.target).clone(),
            headers: withheld.headers(&self.headers),
            trailers: withheld.trailers(&self.trailers),
            credentials: Sealed::new(Compartment::Nothing),
            ..self.clone()
        })
    }

    /// The same request in a session, whose requests go one after the other.
    #[must_use]
    pub fn in_session(self, session: Option<SessionId>) -> Sendable {
        Sendable { session, ..self }
    }

    /// The session that it belongs to.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The same request, whose answers issue something in the place of what production issued.
    #[must_use]
    pub fn issuing(self, issued: Vec<Issued>) -> Sendable {
        Sendable { issued: issued.into(), ..self }
    }

    /// What production issued in its answer.
    #[must_use]
    pub fn issued(&self) -> &[Issued] {
        &self.issued
    }

    /// The same request with other parts, which mean to its target what these meant to production.
    pub(in crate::policy) fn with(
        &self,
        target: Option<Bytes>,
        headers: Option<Headers>,
        body: Option<Bytes>,
    ) -> Sendable {
        let mut with = self.clone();
        with.target = target.unwrap_or(with.target);
        with.headers = headers.unwrap_or(with.headers);
        if let Some(body) = body {
            with.body = body;
            send::remove(&mut with.headers, send::DESCRIBING);
            send::remove(&mut with.trailers, send::DESCRIBING);
        }
        with
    }

    /// The same request as a dry run.
    #[must_use]
    pub fn as_dry_run(self) -> Sendable {
        Sendable { dry_run: true, ..self }
    }

    /// Whether it goes only to targets that understand what a dry run is, and tells them that it is one.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
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
    /// Names that count as credentials because targets have their own of that name.
    replaced: Replaced,
    /// The rules that drop an exchange, alone; none if there are none.
    dropping: Option<Box<Masker>>,
    /// What is kept with every hash redacted, which is the same in every run; none if nothing is hashed.
    redacting: Option<Box<Masker>>,
    /// Failures of the self-check that were asked for.
    told: AtomicU64,
}

/// Names of header fields and of query parameters.
#[derive(Debug, Default)]
struct Replaced {
    headers: Vec<String>,
    query: Vec<String>,
}

impl Masker {
    /// The rules of `mask`. If anything is hashed, it is with a key of its own.
    ///
    /// # Errors
    /// When a field is not a JSON path, a pattern not a regular expression, or there are no random bytes for a key.
    pub fn new(mask: &Mask, credentials: Credentials) -> Result<Masker, PolicyError> {
        let key = match mask.has(MaskAction::Hash) {
            true => Some(Arc::new(HashKey::random().map_err(PolicyError::Random)?)),
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
                replaced: Replaced::default(),
                dropping: None,
                redacting: None,
                told: AtomicU64::new(0),
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

    /// What the self-check found since this was last asked.
    #[must_use]
    pub fn new_failures(&self) -> u64 {
        let now = self.failures();
        if now == 0 {
            return 0;
        }
        now.saturating_sub(self.told.fetch_max(now, Ordering::Relaxed))
    }

    /// What was masked at each exit, and what the self-check found.
    #[must_use]
    pub fn tallies(&self) -> [Arc<Tally>; 2] {
        [&self.keep.tally, &self.send.tally].map(Arc::clone)
    }

    /// The same, for targets with credentials of their own: what they have a name for counts as a credential, whether it
    /// is known as one or not.
    #[must_use]
    pub fn replacing<'a>(mut self, targets: impl Iterator<Item = &'a OwnCredentials>) -> Masker {
        for own in targets {
            self.replaced.headers.extend(own.headers.iter().map(|(name, _)| name.clone()));
            self.replaced.query.extend(own.query.iter().map(|(name, _)| name.clone()));
        }
        self
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
            replaced: Replaced::default(),
            dropping: None,
            redacting: None,
            told: AtomicU64::new(0),
        }
    }
}
