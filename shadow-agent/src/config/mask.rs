//! The section `mask`: what is hidden, from whom, and what takes its place.

use std::fmt;

/// `mask`: what is hidden, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// What people and disks may see.
    pub keep: MaskRules,
    /// What the shadow may see.
    pub send: MaskRules,
}

impl Mask {
    /// Whether any rule of either exit has that action.
    #[must_use]
    pub fn has(&self, action: MaskAction) -> bool {
        [&self.keep, &self.send].into_iter().any(|rules| {
            let lists = [&rules.headers, &rules.cookies, &rules.query, &rules.form, &rules.fields];
            lists.into_iter().flatten().any(|rule| rule.action == action)
                || rules.patterns.iter().any(|pattern| pattern.action == action)
                || rules.detectors.0.contains(&Some(action))
        })
    }
}

/// What is hidden at one exit. The default hides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaskRules {
    /// Header names, lower case.
    pub headers: Vec<MaskRule>,
    /// Names of cookies, in `Cookie` and `Set-Cookie`.
    pub cookies: Vec<MaskRule>,
    /// Names of query parameters, which are looked for in forms, too.
    pub query: Vec<MaskRule>,
    /// Names of fields of forms, urlencoded or in parts.
    pub form: Vec<MaskRule>,
    /// JSON paths (RFC 9535) into bodies.
    pub fields: Vec<MaskRule>,
    /// Regular expressions over text.
    pub patterns: Vec<MaskPattern>,
    /// Which built-in detectors are on, and what they do.
    pub detectors: Detectors,
}

/// One name or path, and what happens to what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskRule {
    /// The name, or the JSON path.
    pub name: String,
    /// What happens.
    pub action: MaskAction,
}

impl From<&str> for MaskRule {
    fn from(name: &str) -> MaskRule {
        MaskRule { name: name.to_owned(), action: MaskAction::Redact }
    }
}

/// One regular expression, and what happens to what it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskPattern {
    /// Its name in placeholders and metrics.
    pub name: String,
    /// The expression; it never matches nothing.
    pub regex: String,
    /// What happens.
    pub action: MaskAction,
}

/// What a regular expression may take once it is compiled, in bytes.
pub const MAX_COMPILED_PATTERN: usize = 1 << 20;

/// What happens to a value that a rule finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MaskAction {
    /// Something that says nothing takes its place.
    #[default]
    Redact,
    /// Its keyed hash takes its place: equal values stay equal, different ones different.
    Hash,
    /// The exchange is neither sent nor kept.
    DropExchange,
}

impl MaskAction {
    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            MaskAction::Redact => "redact",
            MaskAction::Hash => "hash",
            MaskAction::DropExchange => "drop-exchange",
        }
    }
}

crate::exchange::reasons! {
    /// A built-in detector: what it finds is known by its own form.
    Detector {
        /// E-mail addresses.
        Email = "email",
        /// Numbers of payment cards, by the Luhn check.
        Card = "card",
        /// International bank account numbers, by their check digits.
        Iban = "iban",
        /// JSON Web Tokens, tokens with the mark of who issued them, and what stands behind `Bearer` and `Basic`.
        Token = "token",
        /// Private keys in PEM.
        PrivateKey = "private_key",
        /// What stands before the host of a URL.
        User = "user",
    }
}

/// What each detector does; `None` is off. The default is all off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detectors(pub [Option<MaskAction>; Detector::ALL.len()]);

impl Detectors {
    /// Every detector on, with one action.
    #[must_use]
    pub const fn all(action: MaskAction) -> Detectors {
        Detectors([Some(action); Detector::ALL.len()])
    }

    /// What one of them does.
    #[must_use]
    pub fn get(&self, detector: Detector) -> Option<MaskAction> {
        self.0.get(detector as usize).copied().flatten()
    }
}

impl Default for Mask {
    fn default() -> Mask {
        let headers = ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];
        let keep = MaskRules {
            headers: headers.map(MaskRule::from).into(),
            query: vec!["token".into()],
            detectors: Detectors::all(MaskAction::Redact),
            ..MaskRules::default()
        };
        Mask { keep, send: MaskRules::default() }
    }
}
