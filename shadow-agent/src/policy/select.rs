//! Decides which exchanges are replayed, and gives the reason for each that is not. It alters nothing.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use regex::Regex;

use super::chance::mix;
use super::{PolicyError, credentials, target};
use crate::config::{Credentials, Select, Share};
use crate::content;
use crate::exchange::{Exchange, ExchangeId, Request, SkipReason};

/// Paths that act although they are fetched with a safe method: log-out, unsubscribing, OAuth and SAML callbacks,
/// links that work once. Matched against the normalised path.
#[expect(clippy::expect_used, reason = "a constant pattern; every test of this module compiles it")]
static ACTING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?i)/(?:",
        r"log[-_]?(?:out|off)|sign[-_]?(?:out|off)|end[-_]?session|",
        r"(?:un|de)[-_]?subscribe|opt[-_]?out|",
        r"(?:oauth2?|oidc|openid|sso|saml2?|auth|login|connect)(?:/[^/]+){0,2}/(?:callback|acs|return|redirect)|",
        r"signin-[^/]+|(?:oauth2?|login|auth)[-_]?callback|",
        r"(?:verify|confirm|activate|validate)[-_]?(?:e?mail|account|registration|user)|",
        r"(?:e?mail|account|registration|user)[-_/](?:verify|verification|confirm|confirmation|activate|activation)|",
        r"(?:reset|forgot)[-_]?password|password[-_/]?reset|magic[-_]?(?:link|login)|one[-_]?time[^/]*|",
        r"(?:invite|invitation)s?/(?:[^/]+/)?accept|accept[-_]?(?:invite|invitation)",
        r")(?:[./]|$)",
    ))
    .expect("the pattern is valid")
});

/// How an exchange is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The share of its like that the rule which let it through replays.
    pub share: Share,
}

/// Applies `select` and the credentials policy.
#[derive(Debug)]
pub struct Selector {
    methods: BTreeSet<String>,
    /// What is replayed at all; `None` is everything.
    only: Option<GlobSet>,
    globs: GlobSet,
    /// The share of the rule that each glob of `globs` belongs to.
    shares: Vec<Share>,
    credentials: Credentials,
}

impl Selector {
    /// What `select` says. A path `/a/**` matches `/a` itself, too.
    ///
    /// # Errors
    /// When a path is not a glob.
    pub fn new(select: &Select, credentials: Credentials) -> Result<Selector, PolicyError> {
        let mut globs = GlobSetBuilder::new();
        let mut shares = Vec::new();
        for rule in &select.rules {
            for glob in globs_of(&rule.path)? {
                globs.add(glob);
                shares.push(rule.share);
            }
        }
        let mut only = GlobSetBuilder::new();
        for path in &select.only {
            for glob in globs_of(path)? {
                only.add(glob);
            }
        }
        let only = if select.only.is_empty() { None } else { Some(build(&only)?) };
        Ok(Selector { methods: select.methods.clone(), only, globs: build(&globs)?, shares, credentials })
    }

    /// Whether an exchange is replayed.
    ///
    /// Paths are matched after normalisation, so that another spelling does not escape a rule. An explicit rule with a
    /// share above 0 overrides the built-in skips.
    ///
    /// # Errors
    /// The first reason against it, in this order: marked, method, outside of `only`, the first matching rule, the
    /// built-in skips, credentials, production's 304, an event stream.
    pub fn decide(&self, exchange: &Exchange) -> Result<Plan, SkipReason> {
        let request = &exchange.request;
        if is_marked(request) {
            return Err(SkipReason::Marked);
        }
        if !self.methods.contains(request.method.as_str()) {
            return Err(SkipReason::Method);
        }
        let share = self.decide_by_path(exchange.id, &target::normalised(request.path()))?;
        if self.credentials == Credentials::Skip && credentials::carried(request) {
            return Err(SkipReason::Credentials);
        }
        if exchange.response.status == 304 {
            return Err(SkipReason::NotModified);
        }
        match content::media_type(&exchange.response.headers).as_deref() {
            Some("text/event-stream" | "multipart/x-mixed-replace") => Err(SkipReason::Streaming),
            _ => Ok(Plan { share }),
        }
    }

    fn decide_by_path(&self, id: ExchangeId, path: &str) -> Result<Share, SkipReason> {
        if self.only.as_ref().is_some_and(|only| !only.is_match(path)) {
            return Err(SkipReason::Rule);
        }
        let first = if self.shares.is_empty() { None } else { self.globs.matches(path).first().copied() };
        match first.and_then(|first| self.shares.get(first)) {
            Some(share) if share.0 <= 0.0 => Err(SkipReason::Rule),
            Some(share) if !in_sample(id, *share) => Err(SkipReason::Sampled),
            Some(share) => Ok(*share),
            None if ACTING.is_match(path) => Err(SkipReason::Rule),
            None => Ok(Share::ALL),
        }
    }
}

/// The globs that a configured path stands for.
fn globs_of(path: &str) -> Result<Vec<Glob>, PolicyError> {
    let glob = |pattern: &str| {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        glob.map_err(|source| PolicyError::Glob { path: path.to_owned(), source })
    };
    [Some(path), path.strip_suffix("/**")].into_iter().flatten().map(glob).collect()
}

fn build(globs: &GlobSetBuilder) -> Result<GlobSet, PolicyError> {
    globs.build().map_err(|source| PolicyError::Glob {
        path: source.glob().unwrap_or("(all paths together)").to_owned(),
        source,
    })
}

/// Whether the request is one that this agent replayed, or one that a shadow made because of it.
fn is_marked(request: &Request) -> bool {
    let member_marks = |member: &[u8]| {
        // A member is `key=value`, then properties after `;` (W3C Baggage, section 3.2.1).
        let pair = member.split(|&byte| byte == b';').next().unwrap_or_default();
        let mut pair = pair.splitn(2, |&byte| byte == b'=').map(<[u8]>::trim_ascii);
        pair.next() == Some(b"shadow") && pair.next() == Some(b"true")
    };
    request.headers.contains("x-shadow-request")
        || request.headers.all("baggage").any(|list| list.split(|&byte| byte == b',').any(member_marks))
}

/// Whether an exchange is in a sample of that share: the same answer for the same exchange, and a larger sample
/// contains every smaller one.
fn in_sample(id: ExchangeId, share: Share) -> bool {
    // 53 bits are what a double can tell apart.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let position = (mix(id.0) >> 11) as f64 / (1_u64 << 53) as f64;
    position < share.0
}

#[cfg(test)]
mod tests;
