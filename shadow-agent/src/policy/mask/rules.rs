//! The rules of one exit, ready for use: which rule names a thing, and what takes the place of a value.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use regex::{Regex, RegexBuilder};
use serde_json::{Value, json};

use super::detect;
use super::fields::Fields;
use super::hash::{self, HASHED, Key};
use super::tally::{Exit, RuleId, Tally};
use crate::config::{Detector, MAX_COMPILED_PATTERN, MaskAction, MaskPattern, MaskRule, MaskRules};
use crate::policy::PolicyError;
use crate::policy::credentials;

/// What a masked value looks like to the self-check.
pub(super) const MARK: char = '\0';

/// What stands in the place of a masked value for the shadow; it is valid in header fields, queries and JSON strings.
pub(super) const MASK: &str = "masked";

/// What placeholders name beside patterns and detectors.
const LABELS: &[&str] = &["header", "cookie", "query", "field", "text", "check"];

/// A placeholder in what is kept, with or without a hash; the space is percent-encoded in a target.
#[expect(clippy::expect_used, reason = "a constant pattern; tests of this module compile it")]
static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\[masked:(?: |%20|\+)(?P<label>[a-z][a-z0-9_-]{0,31})(?:(?: |%20|\+)[a-p]{32})?\]")
        .expect("the pattern is valid")
});

/// A rule that names something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub action: MaskAction,
    pub rule: RuleId,
}

/// Names, whatever their case.
#[derive(Debug, Default)]
struct Names(Vec<(String, Hit)>);

impl Names {
    fn find(&self, name: &[u8]) -> Option<Hit> {
        self.0.iter().find(|(listed, _)| listed.as_bytes().eq_ignore_ascii_case(name)).map(|(_, hit)| *hit)
    }

    /// A name, or one that leads into an object: `user[token]`.
    fn find_within(&self, name: &str) -> Option<Hit> {
        if self.0.is_empty() {
            return None;
        }
        let whole = self.find(name.as_bytes());
        whole.or_else(|| credentials::steps(name).find_map(|step| self.find(step.as_bytes())))
    }
}

#[derive(Debug)]
struct Pattern {
    name: String,
    regex: Regex,
    hit: Hit,
}

/// Which actions a set of rules has, and what becomes of them; `None` leaves the rule out.
pub(super) type Wanted = fn(MaskAction) -> Option<MaskAction>;

/// The rules of one exit.
#[derive(Debug)]
pub(super) struct Rules {
    exit: Exit,
    headers: Names,
    cookies: Names,
    query: Names,
    form: Names,
    pub(super) fields: Fields,
    patterns: Vec<Pattern>,
    detectors: [Option<Hit>; Detector::ALL.len()],
    /// What the built-in lists of credentials name, if they count at this exit.
    credentials: Option<Hit>,
    key: Option<Arc<Key>>,
    pub(super) tally: Arc<Tally>,
}

impl Rules {
    /// The rules of a section that need no parsing.
    pub(super) fn named(tally: &Arc<Tally>, rules: &MaskRules, wanted: Wanted) -> Rules {
        let names = |sort: &str, list: &[MaskRule]| {
            let rules = list.iter().filter_map(|MaskRule { name, action }| {
                let hit = Hit { action: wanted(*action)?, rule: tally.rule(sort, name) };
                Some((name.clone(), hit))
            });
            Names(rules.collect())
        };
        let mut detectors = [None; Detector::ALL.len()];
        for (slot, &detector) in detectors.iter_mut().zip(Detector::ALL) {
            let rule = tally.rule("detector", detector.as_str());
            *slot = rules.detectors.get(detector).and_then(wanted).map(|action| Hit { action, rule });
        }
        let exit = tally.exit();
        let credentials = wanted(MaskAction::Redact).filter(|_| exit == Exit::Keep);
        Rules {
            exit,
            headers: names("header", &rules.headers),
            cookies: names("cookie", &rules.cookies),
            query: names("query", &rules.query),
            form: names("form", &rules.form),
            fields: Fields::default(),
            patterns: Vec::new(),
            detectors,
            credentials: credentials.map(|action| Hit { action, rule: 0 }),
            key: None,
            tally: Arc::clone(tally),
        }
    }

    /// All rules of a section.
    ///
    /// # Errors
    /// When a field is not a JSON path, or a pattern not a regular expression.
    pub(super) fn new(
        section: &'static str,
        tally: &Arc<Tally>,
        rules: &MaskRules,
        key: Option<&Arc<Key>>,
        wanted: Wanted,
    ) -> Result<Rules, PolicyError> {
        let mut ready = Rules::named(tally, rules, wanted);
        let fields = rules.fields.iter().filter_map(|MaskRule { name, action }| {
            let hit = Hit { action: wanted(*action)?, rule: tally.rule("field", name) };
            Some((name.as_str(), hit))
        });
        ready.fields = Fields::new(section, fields)?;
        for MaskPattern { name, regex, action } in &rules.patterns {
            let Some(action) = wanted(*action) else { continue };
            let regex = RegexBuilder::new(regex)
                .size_limit(MAX_COMPILED_PATTERN)
                .build()
                .map_err(|source| PolicyError::Pattern { section, name: name.clone(), source })?;
            let hit = Hit { action, rule: tally.rule("pattern", name) };
            ready.patterns.push(Pattern { name: name.clone(), regex, hit });
        }
        ready.key = key.cloned();
        Ok(ready)
    }

    /// Which exit they are for.
    pub(super) fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether nothing would ever be masked.
    pub(super) fn is_empty(&self) -> bool {
        let lists = [&self.headers, &self.cookies, &self.query, &self.form];
        lists.iter().all(|names| names.0.is_empty())
            && self.fields.is_empty()
            && !self.read_text()
            && self.credentials.is_none()
    }

    /// Whether there are patterns or detectors, so that text has to be read.
    pub(super) fn read_text(&self) -> bool {
        !self.patterns.is_empty() || self.detectors.iter().any(Option::is_some)
    }

    /// Whether there are patterns.
    pub(super) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether a pattern matches somewhere in a text.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.regex.is_match(text))
    }

    /// The rule that names a field.
    pub(super) fn header(&self, name: &[u8]) -> Option<Hit> {
        self.headers.find(name)
    }

    /// The rule that names a cookie.
    pub(super) fn cookie(&self, name: &[u8]) -> Option<Hit> {
        self.cookies.find(name)
    }

    /// Whether cookies are named, so that others may be shown.
    pub(super) fn tells_cookies(&self) -> bool {
        !self.cookies.0.is_empty()
    }

    /// The rule that names a parameter of a target, or where its name leads.
    pub(super) fn parameter(&self, name: &str) -> Option<Hit> {
        let built_in = self.credentials.filter(|_| credentials::is_member(name));
        self.query.find_within(name).or(built_in)
    }

    /// The rule that names a field of a form: one of forms, of parameters, or of members of an object, as if the form were
    /// one.
    pub(super) fn form_field(&self, name: &str) -> Option<Hit> {
        self.form.find_within(name).or_else(|| self.parameter(name)).or_else(|| self.fields.names(name))
    }

    /// Whether forms have to be read.
    pub(super) fn read_forms(&self) -> bool {
        !(self.form.0.is_empty() && self.query.0.is_empty() && self.fields.is_empty())
    }

    /// The rule that hides whatever has a name like a credential, at this exit.
    pub(super) fn credentials(&self) -> Option<Hit> {
        self.credentials
    }

    /// What stands in the place of a value. What stands there already stays.
    pub(super) fn cover(&self, hit: Hit, label: &str, value: &str) -> String {
        if self.is_covered(value) {
            return value.to_owned();
        }
        self.tally.masked(hit.rule);
        match (self.exit, hit.action, &self.key) {
            (Exit::Keep, MaskAction::Hash, Some(key)) => format!("[masked: {label} {}]", key.letters(value)),
            (Exit::Keep, ..) => detect::placeholder(label),
            (Exit::Send, MaskAction::Hash, Some(key)) => key.text(value),
            (Exit::Send, ..) => MASK.to_owned(),
        }
    }

    /// What stands in the place of a value of JSON: for the shadow one of the same type, for people a placeholder.
    pub(super) fn cover_value(&self, hit: Hit, value: &Value) -> Value {
        let text = match value {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            other => Cow::Owned(other.to_string()),
        };
        if self.exit == Exit::Keep {
            return Value::String(self.cover(hit, "field", &text));
        }
        if self.is_covered(&text) {
            return value.clone();
        }
        self.tally.masked(hit.rule);
        match (hit.action, &self.key) {
            (MaskAction::Hash, Some(key)) => key.value(value),
            _ => neutral(value),
        }
    }

    /// Whether all of a text is what stands in the place of a value.
    pub(super) fn is_covered(&self, text: &str) -> bool {
        match self.exit {
            Exit::Keep => self.marks(text).first().is_some_and(|mark| *mark == (0..text.len())),
            Exit::Send => text == MASK || hash::is_hashed(text),
        }
    }

    /// Where in a text values stand that are masked already.
    fn marks(&self, text: &str) -> Vec<Range<usize>> {
        let known = |label: &str| {
            LABELS.contains(&label)
                || Detector::ALL.iter().any(|detector| detector.as_str() == label)
                || self.patterns.iter().any(|pattern| pattern.name == label)
        };
        let regex: &'static Regex = if self.exit == Exit::Keep { &PLACEHOLDER } else { &HASHED };
        let mut marks = Vec::new();
        for found in regex.captures_iter(text) {
            let Some(whole) = found.get(0) else { continue };
            if found.name("label").is_none_or(|label| known(label.as_str())) {
                marks.push(whole.range());
            }
        }
        marks
    }

    /// A text without what patterns match and detectors find; borrowed when that is nothing.
    pub(super) fn scrub<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for pattern in &self.patterns {
            if pattern.regex.is_match(&text)
                && let Some(masked) = self.apply(pattern, &text)
            {
                text = Cow::Owned(masked);
            }
        }
        if self.detectors.iter().all(Option::is_none) {
            return text;
        }
        let found = detect::scrub(&text, &|detector: Detector, found: &str| {
            let hit = self.detectors.get(detector as usize).copied().flatten()?;
            if self.is_covered(found) { None } else { Some(self.cover(hit, detector.as_str(), found)) }
        });
        if let Cow::Owned(found) = found {
            text = Cow::Owned(found);
        }
        text
    }

    /// Masks what a pattern matches between what is masked already.
    fn apply(&self, pattern: &Pattern, text: &str) -> Option<String> {
        let mut masked = String::with_capacity(text.len());
        let mut done = 0;
        let end = text.len()..text.len();
        for mark in self.marks(text).into_iter().chain([end]) {
            let between = text.get(done..mark.start).unwrap_or_default();
            masked.push_str(&pattern.regex.replace_all(between, |found: &regex::Captures<'_>| {
                match found.get(0).map(|found| found.as_str()) {
                    Some(found) if !found.is_empty() => self.cover(pattern.hit, &pattern.name, found),
                    _ => String::new(),
                }
            }));
            masked.push_str(text.get(mark.clone()).unwrap_or_default());
            done = mark.end;
        }
        (masked != text).then_some(masked)
    }

    /// A text with a [`MARK`] for everything that is masked already.
    pub(super) fn without_marks(&self, text: &str) -> String {
        let mut rest = text.to_owned();
        for mark in self.marks(text).into_iter().rev() {
            rest.replace_range(mark, MARK.encode_utf8(&mut [0; 1]));
        }
        rest
    }

    /// The first rule by which there is still something to mask in a text: the question of the self-check.
    pub(super) fn finds(&self, text: &str) -> Option<Hit> {
        if !self.read_text() {
            return None;
        }
        let mut rest = self.without_marks(text);
        if self.exit == Exit::Send {
            rest = rest.replace(MASK, "\u{0}");
        }
        if let Some(pattern) = self.patterns.iter().find(|pattern| pattern.regex.is_match(&rest)) {
            return Some(pattern.hit);
        }
        let first = std::cell::Cell::new(None);
        let note = |detector: Detector, found: &str| -> Option<String> {
            let hit = self.detectors.get(detector as usize).copied().flatten();
            if first.get().is_none() && found != "\u{0}" {
                first.set(hit);
            }
            None
        };
        if self.detectors.iter().any(Option::is_some) {
            detect::scrub(&rest, &note);
        }
        first.get()
    }
}

/// A value of the same type that says nothing.
pub(super) fn neutral(value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        Value::Bool(_) => Value::Bool(false),
        Value::Number(_) => json!(0),
        Value::String(_) => json!(MASK),
        Value::Array(_) => json!([]),
        Value::Object(_) => json!({}),
    }
}
