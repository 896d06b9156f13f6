//! Decides which exchanges are replayed, and gives the reason for each that is not. It alters nothing.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use globset::{GlobSet, GlobSetBuilder};
use regex::Regex;

use self::rules::{Rule, Rules};
use super::chance::mix;
use super::{PolicyError, credentials, target};
use crate::config::{Credentials, Select, Share, Stateful};
use crate::content;
use crate::exchange::{Exchange, ExchangeId, Request, SkipReason};

mod rules;

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

/// How an exchange that was selected is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Whether and how its request is sent.
    pub mode: Mode,
    /// The share of its like that the rule which let it through replays.
    pub share: Share,
}

/// Whether and how a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To every target.
    Send,
    /// As a dry run, to the targets that understand what that is.
    DryRun,
    /// To nobody: the exchange is kept in a file.
    RecordOnly,
}

/// Applies `select` and the credentials policy.
#[derive(Debug)]
pub struct Selector {
    methods: BTreeSet<String>,
    /// What is replayed at all; `None` is everything.
    only: Option<GlobSet>,
    rules: Rules,
    stateful: Option<Stateful>,
    credentials: Credentials,
}

impl Selector {
    /// What `select` says. A path `/a/**` matches `/a` itself, too.
    ///
    /// # Errors
    /// When something is not a glob.
    pub fn new(select: &Select, credentials: Credentials) -> Result<Selector, PolicyError> {
        let mut only = GlobSetBuilder::new();
        for path in &select.only {
            for glob in rules::globs_of(path)? {
                only.add(glob);
            }
        }
        let only = if select.only.is_empty() { None } else { Some(rules::build(&only)?) };
        let (methods, stateful) = (select.methods.clone(), select.stateful);
        Ok(Selector { methods, only, rules: Rules::new(&select.rules)?, stateful, credentials })
    }

    /// Whether an exchange is replayed, and how.
    ///
    /// Paths are matched after normalisation, so that another spelling does not escape a rule. A rule with a share above 0
    /// overrides the built-in skips if it names a path.
    ///
    /// Stateful are requests with an unsafe method, those that a rule lets through although their path acts, and those
    /// whose safe method a rule lists and gives a mode. Their mode is that of the first matching rule, or that of
    /// `select.stateful`, or that they are sent. Unsafe methods are sent only if they are listed: in `select.methods`, or
    /// in a rule that is there for sending.
    ///
    /// # Errors
    /// The first reason against it, in this order: marked, method, outside of `only`, the first matching rule, the
    /// built-in skips, and where something would be sent credentials, production's 304, an event stream.
    pub fn decide(&self, exchange: &Exchange) -> Result<Plan, SkipReason> {
        let request = &exchange.request;
        if is_marked(request) {
            return Err(SkipReason::Marked);
        }
        let path = target::normalised(request.path());
        let rule = self.rules.first(exchange, &path);
        let acts = ACTING.is_match(&path);
        let mode = self.mode(request.method.as_str(), request.method.is_safe(), acts, rule)?;
        if self.only.as_ref().is_some_and(|only| !only.is_match(&path)) {
            return Err(SkipReason::Rule);
        }
        let mode = mode.ok_or(SkipReason::Rule)?;
        match rule {
            Some(rule) if rule.share.0 <= 0.0 => return Err(SkipReason::Rule),
            Some(rule) if !in_sample(exchange.id, rule.share) => return Err(SkipReason::Sampled),
            Some(rule) if rule.has_path => {}
            _ if acts => return Err(SkipReason::Rule),
            _ => {}
        }
        if mode != Mode::RecordOnly {
            self.sendable(exchange)?;
        }
        Ok(Plan { mode, share: rule.map_or(Share::ALL, |rule| rule.share) })
    }

    /// What becomes of a request of that method; nothing where that is to skip it.
    fn mode(
        &self,
        method: &str,
        is_safe: bool,
        acts: bool,
        rule: Option<&Rule>,
    ) -> Result<Option<Mode>, SkipReason> {
        let named = rule.is_some_and(|rule| rule.methods.contains(method));
        let listed = self.methods.contains(method);
        let own = rule.and_then(|rule| rule.mode);
        if is_safe && !acts && !(named && own.is_some()) {
            return if listed || named { Ok(Some(Mode::Send)) } else { Err(SkipReason::Method) };
        }
        let mode = own.or(self.stateful);
        let may_send = listed || named && (is_safe || mode == Some(Stateful::Send));
        match mode {
            Some(Stateful::DryRun) => Ok(Some(Mode::DryRun)),
            Some(Stateful::RecordOnly) => Ok(Some(Mode::RecordOnly)),
            Some(Stateful::Skip) if own.is_none() && !is_safe => Err(SkipReason::Method),
            Some(Stateful::Skip) => Ok(None),
            Some(Stateful::Send) | None if may_send => Ok(Some(Mode::Send)),
            Some(Stateful::Send) | None => Err(SkipReason::Method),
        }
    }

    fn sendable(&self, exchange: &Exchange) -> Result<(), SkipReason> {
        if self.credentials == Credentials::Skip && credentials::carried(&exchange.request) {
            return Err(SkipReason::Credentials);
        }
        if exchange.response.status == 304 {
            return Err(SkipReason::NotModified);
        }
        match content::media_type(&exchange.response.headers).as_deref() {
            Some("text/event-stream" | "multipart/x-mixed-replace") => Err(SkipReason::Streaming),
            _ => Ok(()),
        }
    }
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
