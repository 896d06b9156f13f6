//! Counts what was masked, by exit and rule, and what the self-check found. Names of rules are those of the configuration,
//! never a value.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::config::{Detector, MaskRules};

/// The longest name of a rule in a label, in bytes; what agrees up to there is counted together.
pub(super) const MAX_LABEL: usize = 128;

/// The rule of the built-in lists of credentials.
pub(super) const CREDENTIALS: &str = "credentials";

/// Which exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// To people and disks.
    Keep,
    /// To the shadow.
    Send,
}

impl Exit {
    /// The name in labels and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Exit::Keep => "keep",
            Exit::Send => "send",
        }
    }
}

/// The place of a rule in its [`Tally`].
pub(super) type RuleId = usize;

/// What was counted at one exit.
#[derive(Debug)]
pub struct Tally {
    exit: Exit,
    rules: Vec<Counted>,
    /// What left while the self-check looked, and what it looked at: every so manieth is looked at.
    turns: AtomicU64,
}

#[derive(Debug)]
struct Counted {
    name: String,
    masked: AtomicU64,
    failed: AtomicU64,
    told: AtomicBool,
}

impl Tally {
    /// A line for each rule, all at zero.
    pub(super) fn new(exit: Exit, rules: &MaskRules) -> Tally {
        let mut tally = Tally { exit, rules: Vec::new(), turns: AtomicU64::new(0) };
        tally.add(CREDENTIALS.to_owned());
        for (sort, list) in [
            ("header", &rules.headers),
            ("cookie", &rules.cookies),
            ("query", &rules.query),
            ("form", &rules.form),
            ("field", &rules.fields),
        ] {
            list.iter().for_each(|rule| tally.add(label(sort, &rule.name)));
        }
        rules.patterns.iter().for_each(|pattern| tally.add(label("pattern", &pattern.name)));
        for detector in Detector::ALL.iter().filter(|detector| rules.detectors.get(**detector).is_some()) {
            tally.add(label("detector", detector.as_str()));
        }
        tally
    }

    fn add(&mut self, name: String) {
        if self.find(&name).is_none() {
            let (masked, failed, told) = Default::default();
            self.rules.push(Counted { name, masked, failed, told });
        }
    }

    fn find(&self, name: &str) -> Option<RuleId> {
        self.rules.iter().position(|rule| rule.name == name)
    }

    /// The place of a rule.
    pub(super) fn rule(&self, sort: &str, name: &str) -> RuleId {
        self.find(&label(sort, name)).unwrap_or_default()
    }

    /// A value was masked.
    pub(super) fn masked(&self, rule: RuleId) {
        if let Some(rule) = self.rules.get(rule) {
            rule.masked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The self-check found a value that a rule should have masked.
    pub(super) fn failed(&self, rule: RuleId) {
        if let Some(rule) = self.rules.get(rule) {
            rule.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it is the turn of one in so many.
    pub(super) fn turn(&self, one_in: u64) -> bool {
        self.turns.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_in)
    }

    /// Which exit it is about.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The rules and how many values each has masked. A value is counted where it is masked: one that is shown in two
    /// places counts twice.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.rules.iter().map(|rule| (rule.name.as_str(), rule.masked.load(Ordering::Relaxed)))
    }

    /// How many values the self-check found that should have been masked.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.rules.iter().map(|rule| rule.failed.load(Ordering::Relaxed)).sum()
    }

    /// The rules that have failed since the last time anybody asked, each of them once and for all.
    pub fn newly_failed(&self) -> impl Iterator<Item = &str> {
        let is_new = |rule: &&Counted| {
            rule.failed.load(Ordering::Relaxed) > 0 && !rule.told.swap(true, Ordering::Relaxed)
        };
        self.rules.iter().filter(is_new).map(|rule| rule.name.as_str())
    }
}

fn label(sort: &str, name: &str) -> String {
    let mut label = format!("{sort}:{name}");
    label.truncate(label.floor_char_boundary(MAX_LABEL));
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_counted_under_their_names_up_to_a_length() {
        let long = |length: usize| "x".repeat(length);
        let fits = MAX_LABEL - "query:".len();
        let query = [long(fits), long(fits + 1), long(fits - 1), "a".to_owned(), "a".to_owned()];
        let query = query.iter().map(|name| name.as_str().into()).collect();
        let tally = Tally::new(Exit::Send, &MaskRules { query, ..MaskRules::default() });
        let names: Vec<&str> = tally.counts().map(|(name, _)| name).collect();
        let expected = [
            "credentials",
            &format!("query:{}", long(fits)),
            &format!("query:{}", long(fits - 1)),
            "query:a",
        ];
        assert_eq!(names, expected);
        tally.masked(tally.rule("query", "a"));
        assert_eq!(tally.counts().last(), Some(("query:a", 1)));
    }

    #[test]
    fn a_failure_is_counted_always_and_told_once() {
        let tally = Tally::new(Exit::Keep, &MaskRules::default());
        assert_eq!((tally.failures(), tally.newly_failed().count()), (0, 0));
        tally.failed(0);
        assert_eq!(tally.newly_failed().collect::<Vec<_>>(), ["credentials"]);
        tally.failed(0);
        assert_eq!((tally.failures(), tally.newly_failed().count()), (2, 0));
    }
}
