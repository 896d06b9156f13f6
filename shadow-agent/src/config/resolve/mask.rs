//! Resolves `mask`: names, paths and expressions, each with what happens to what it finds.

use regex::RegexBuilder;

use super::super::file::{self, Entry, Text};
use super::super::{
    ConfigError, Detector, Detectors, MAX_COMPILED_PATTERN, Mask, MaskAction, MaskPattern, MaskRule,
    MaskRules, Problem, units,
};
use super::rules::{MAX_NAMES, header_name, json_path};
use super::{at_most, parse, read, wrong};

/// Regular expressions of one exit. Each is a pass over every text.
pub(in crate::config) const MAX_PATTERNS: usize = 32;

/// The longest regular expression, in bytes.
pub(in crate::config) const MAX_PATTERN: usize = 1024;

/// The longest name of a pattern, in bytes.
pub(in crate::config) const MAX_PATTERN_NAME: usize = 32;

pub(super) fn mask(raw: &file::Mask, default: Mask) -> Result<Mask, ConfigError> {
    Ok(Mask {
        keep: mask_rules("mask.keep", &raw.keep, default.keep)?,
        send: mask_rules("mask.send", &raw.send, default.send)?,
    })
}

fn mask_rules(key: &str, raw: &file::MaskRules, default: MaskRules) -> Result<MaskRules, ConfigError> {
    let otherwise = read(&format!("{key}.action"), raw.action.as_ref(), MaskAction::Redact, action)?;
    let list = |name: &str, entries: Option<&[Entry]>, default: Vec<MaskRule>, how: How| match entries {
        Some(entries) => rules(&format!("{key}.{name}"), entries, otherwise, how),
        None => Ok(default.into_iter().map(|rule| MaskRule { action: otherwise, ..rule }).collect()),
    };
    Ok(MaskRules {
        headers: list("headers", raw.headers.as_deref(), default.headers, header_name)?,
        cookies: list("cookies", raw.cookies.as_deref(), default.cookies, cookie_name)?,
        query: list("query", raw.query.as_deref(), default.query, any_name)?,
        form: list("form", raw.form.as_deref(), default.form, any_name)?,
        fields: list("fields", raw.fields.as_deref(), default.fields, json_path)?,
        patterns: patterns(&format!("{key}.patterns"), raw.patterns.as_deref(), otherwise)?,
        detectors: detectors(&format!("{key}.detectors"), &raw.detectors, default.detectors, otherwise)?,
    })
}

type How = fn(&str) -> Result<String, Problem>;

fn rules(
    key: &str,
    entries: &[Entry],
    otherwise: MaskAction,
    how: How,
) -> Result<Vec<MaskRule>, ConfigError> {
    let source = entries.first().map(|entry| match entry {
        Entry::Name(text) => text.source,
        Entry::Keys(_, source) => *source,
    });
    at_most(key, source, entries.len(), MAX_NAMES)?;
    entries
        .iter()
        .enumerate()
        .map(|(index, entry)| rule(&format!("{key}[{index}]"), entry, otherwise, how))
        .collect()
}

fn rule(key: &str, entry: &Entry, otherwise: MaskAction, how: How) -> Result<MaskRule, ConfigError> {
    let (keys, source) = match entry {
        Entry::Name(text) => {
            return Ok(MaskRule { name: parse(key, text, how)?, action: otherwise });
        }
        Entry::Keys(keys, source) => (keys, *source),
    };
    // Both mean the same; a path is what JSON has, a name what everything else has.
    let name = match (&keys.name, &keys.path) {
        (Some(name), None) => parse(&format!("{key}.name"), name, how)?,
        (None, Some(path)) => parse(&format!("{key}.path"), path, how)?,
        _ => return Err(wrong(key, source, Problem::MaskEntry)),
    };
    Ok(MaskRule { name, action: read(&format!("{key}.action"), keys.action.as_ref(), otherwise, action)? })
}

fn patterns(
    key: &str,
    raw: Option<&[file::Pattern]>,
    otherwise: MaskAction,
) -> Result<Vec<MaskPattern>, ConfigError> {
    let raw = raw.unwrap_or_default();
    at_most(key, raw.first().map(|pattern| pattern.name.source), raw.len(), MAX_PATTERNS)?;
    let mut patterns: Vec<MaskPattern> = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        let key = format!("{key}[{index}]");
        let action = read(&format!("{key}.action"), raw.action.as_ref(), otherwise, action)?;
        let name = needed(&format!("{key}.name"), &raw.name, &raw.regex, pattern_name)?;
        if patterns.iter().any(|other| other.name == name) {
            return Err(wrong(format!("{key}.name"), raw.name.source, Problem::PatternTwice(name)));
        }
        let regex = needed(&format!("{key}.regex"), &raw.regex, &raw.name, expression)?;
        patterns.push(MaskPattern { name, regex, action });
    }
    Ok(patterns)
}

/// A value that has to be there; where it is not, the line is that of the other one.
fn needed(key: &str, text: &Text, other: &Text, how: How) -> Result<String, ConfigError> {
    let remedy = "give each pattern a name and a regex";
    match text.text.is_empty() {
        true => Err(wrong(key, other.source, Problem::Required(remedy))),
        false => parse(key, text, how),
    }
}

fn detectors(
    key: &str,
    raw: &file::Detectors,
    default: Detectors,
    otherwise: MaskAction,
) -> Result<Detectors, ConfigError> {
    let given = |detector| match detector {
        Detector::Email => raw.email.as_ref(),
        Detector::Card => raw.card.as_ref(),
        Detector::Iban => raw.iban.as_ref(),
        Detector::Token => raw.token.as_ref(),
        Detector::PrivateKey => raw.private_key.as_ref(),
        Detector::User => raw.user.as_ref(),
    };
    let mut detectors = default;
    for (slot, &detector) in detectors.0.iter_mut().zip(Detector::ALL) {
        *slot = read(&format!("{key}.{detector}"), given(detector), slot.map(|_| otherwise), |text| {
            match units::boolean(text) {
                Ok(on) => Ok(on.then_some(otherwise)),
                Err(_) => action(text).map(Some).map_err(|_| Problem::Choice {
                    value: text.to_owned(),
                    possible: "true, false, redact, hash or drop-exchange",
                }),
            }
        })?;
    }
    Ok(detectors)
}

fn action(text: &str) -> Result<MaskAction, Problem> {
    [MaskAction::Redact, MaskAction::Hash, MaskAction::DropExchange]
        .into_iter()
        .find(|action| action.as_str() == text)
        .ok_or_else(|| Problem::Choice { value: text.to_owned(), possible: "redact, hash or drop-exchange" })
}

fn any_name(text: &str) -> Result<String, Problem> {
    Ok(text.to_owned())
}

/// The name of a cookie is a token (RFC 6265, section 4.1.1), as that of a field is.
fn cookie_name(text: &str) -> Result<String, Problem> {
    header_name(text).map(|_| text.to_owned()).map_err(|_| Problem::CookieName(text.to_owned()))
}

fn pattern_name(text: &str) -> Result<String, Problem> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let begins = text.starts_with(|char: char| char.is_ascii_lowercase());
    match begins && text.len() <= MAX_PATTERN_NAME && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(Problem::PatternName(text.to_owned())),
    }
}

fn expression(text: &str) -> Result<String, Problem> {
    if text.len() > MAX_PATTERN {
        return Err(Problem::PatternLong { length: text.len(), most: MAX_PATTERN });
    }
    let regex = RegexBuilder::new(text).size_limit(MAX_COMPILED_PATTERN).build();
    let regex = regex.map_err(|error| {
        let said = error.to_string();
        // Over several lines, the expression is drawn and pointed at; the last one says what is wrong.
        let problem = said.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Problem::Pattern { value: text.to_owned(), problem }
    })?;
    match regex.is_match("") {
        true => Err(Problem::PatternEmpty(text.to_owned())),
        false => Ok(text.to_owned()),
    }
}
