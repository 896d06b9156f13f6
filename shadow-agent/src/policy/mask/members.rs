//! Hides the members of JSON documents whose names say that they hold credentials, in values and in running text.
//!
//! It works without configured fields; what other names mean is for the operator to say.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use super::Masker;
use super::rules::Hit;

/// The longest name looked at, in bytes.
const MAX_NAME: usize = 64;

/// A member's name in running text: in quotes, which are escaped where the document is itself in a string.
#[expect(clippy::expect_used, reason = "a constant pattern; every test of this module compiles it")]
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?P<escape>\\*)["'](?P<name>[A-Za-z0-9_.-]{1,64})\\*["']\s*:\s*"#)
        .expect("the pattern is valid")
});

/// What is left of a string literal behind its opening quote, or a literal of another kind.
#[expect(clippy::expect_used, reason = "a constant pattern; every test of this module compiles it")]
static LITERAL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"^(?s:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[^\s,}\]{\["']+)"#)
        .expect("the pattern is valid")
});

/// An element of XML and the text in it.
#[expect(clippy::expect_used, reason = "a constant pattern; every test of this module compiles it")]
static ELEMENT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?s)(?P<tag><(?:[A-Za-z0-9_.-]+:)?(?P<name>[A-Za-z0-9_.-]{1,64})(?:\s[^<>]*)?>)(?P<text>(?:<!\[CDATA\[.*?\]\]>|[^<])+)",
    )
    .expect("the pattern is valid")
});

impl Masker {
    /// The rule by which the value of a member is hidden because of its name.
    pub(super) fn member(&self, name: &str) -> Option<Hit> {
        if name.len() > MAX_NAME {
            return None;
        }
        self.keep.parameter(name).or_else(|| self.keep.header(name.as_bytes()))
    }

    /// Hides the values of such members in running text. A value of which the end is not plain to see is hidden with
    /// everything behind it.
    pub(super) fn hide_members<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut hidden = String::new();
        let mut shown_to = 0;
        for found in NAME.captures_iter(text) {
            let (Some(whole), Some(name)) = (found.get(0), found.name("name")) else { continue };
            let value = text.get(whole.end()..).unwrap_or_default();
            let is_hidden = value.trim_start_matches(['"', '\'', '\\']).starts_with("[masked: ");
            if whole.start() < shown_to || is_hidden {
                continue;
            }
            let Some(hit) = self.member(name.as_str()) else { continue };
            let escaped = found.name("escape").is_some_and(|escape| !escape.is_empty());
            let length = match LITERAL.find(value) {
                Some(literal) if !escaped => literal.end(),
                _ => value.len(),
            };
            hidden.push_str(text.get(shown_to..whole.end()).unwrap_or_default());
            let literal = value.get(..length).unwrap_or_default().trim_matches(['"', '\'', '\\']);
            hidden.push_str(&self.keep.cover(hit, "field", literal));
            shown_to = whole.end() + length;
        }
        if shown_to == 0 {
            return Cow::Borrowed(text);
        }
        hidden.push_str(text.get(shown_to..).unwrap_or_default());
        Cow::Owned(hidden)
    }

    /// Hides the text in elements of such names.
    pub(super) fn hide_elements<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut hidden = String::new();
        let mut shown_to = 0;
        for found in ELEMENT.captures_iter(text) {
            let (Some(tag), Some(name), Some(value)) =
                (found.name("tag"), found.name("name"), found.name("text"))
            else {
                continue;
            };
            let inner = value.as_str().trim();
            let is_empty = inner.is_empty() || tag.as_str().ends_with("/>");
            if is_empty || inner.starts_with("[masked: ") {
                continue;
            }
            let Some(hit) = self.member(name.as_str()) else { continue };
            hidden.push_str(text.get(shown_to..value.start()).unwrap_or_default());
            hidden.push_str(&self.keep.cover(hit, "field", inner));
            shown_to = value.end();
        }
        if shown_to == 0 {
            return Cow::Borrowed(text);
        }
        hidden.push_str(text.get(shown_to..).unwrap_or_default());
        Cow::Owned(hidden)
    }
}

/// A value that serialises with such members hidden.
pub(super) struct Shown<'a>(pub &'a Value, pub &'a Masker);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Shown(value, masker) = *self;
        match value {
            Value::Array(items) => serializer.collect_seq(items.iter().map(|item| Shown(item, masker))),
            Value::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, member) in members {
                    match masker.member(name) {
                        Some(hit) => map.serialize_entry(name, &masker.keep.cover_value(hit, member))?,
                        None => map.serialize_entry(name, &Shown(member, masker))?,
                    }
                }
                map.end()
            }
            // As text, with what JSON escapes in it, it may no longer match.
            Value::String(text) if masker.keep.has_patterns() => {
                serializer.serialize_str(&masker.keep.scrub(text))
            }
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::mask::Step;

    #[test]
    fn members_named_like_credentials_are_hidden_in_values() {
        let masker = Masker::default();
        let document = json!({
            "access_token": "SECRET",
            "user": {"name": "bob", "password": {"hash": "SECRET", "SECRET": [1]}},
            "echo": [{"Authorization": ["SECRET"]}],
            "log": "{\"password\":\"SECRET \\\" SECRET\", \"x\": \"SECRET\"}",
            "page": 2,
        });
        let prepared = masker.document(&document);
        use Step::{Index, Key};
        let paths: [&[Step<'_>]; 9] = [
            &[],
            &[Key("access_token")],
            &[Key("user")],
            &[Key("user"), Key("password")],
            &[Key("user"), Key("password"), Key("hash")],
            &[Key("echo"), Index(0)],
            &[Key("echo"), Index(0), Key("Authorization"), Index(0)],
            &[Key("log")],
            &[Key("page")],
        ];
        for path in paths {
            let kept = masker.keep_json(&prepared, path);
            assert!(!kept.get().contains("SECRET"), "{path:?}: {}", kept.get());
        }
        assert_eq!(prepared.masked_at(&[Key("user"), Key("password"), Key("SECRET")]), Some(2));
        assert_eq!(masker.keep_json(&prepared, &[Key("page")]).get(), "2");
        assert_eq!(masker.keep_json(&prepared, &[Key("user"), Key("name")]).get(), "\"bob\"");
    }

    #[test]
    fn members_named_like_credentials_are_hidden_in_text() {
        let cases = [
            (r#"{"a": 1, "token": 123, "b": 2}"#, r#"{"a": 1, "token": [masked: field], "b": 2}"#),
            (r#"x "password" : "a\"b", y"#, r#"x "password" : [masked: field], y"#),
            (r#"{'secret': 'a,b'} z"#, r#"{'secret': [masked: field]} z"#),
            (r#"{"token": {"a": "b"}, "c": 1}"#, r#"{"token": [masked: field]"#),
            (r#"{"log":"{\"pwd\":\"x\"}"}"#, r#"{"log":"{\"pwd\":[masked: field]"#),
            (r#"{"jwt":"cut of"#, r#"{"jwt":[masked: field]"#),
            (r#"{"name":"bob","price":1}"#, r#"{"name":"bob","price":1}"#),
        ];
        let masker = Masker::default();
        for (text, expected) in cases {
            let once = masker.hide_members(text);
            assert_eq!(once, expected);
            assert_eq!(masker.hide_members(&once), expected);
            assert_eq!(masker.keep_text(text).get(), expected);
        }
    }

    #[test]
    fn elements_named_like_credentials_are_hidden() {
        let cases = [
            (
                "<a><password>S&amp;E</password><b>x</b></a>",
                "<a><password>[masked: field]</password><b>x</b></a>",
            ),
            (
                "<wsse:Password Type='x'> S\n</wsse:Password>",
                "<wsse:Password Type='x'>[masked: field]</wsse:Password>",
            ),
            ("<pwd><![CDATA[a<b]]>c</pwd>", "<pwd>[masked: field]</pwd>"),
            (
                "<password/>x <password />x <password></password>",
                "<password/>x <password />x <password></password>",
            ),
            ("<p>password</p> 1 < 2 > 3", "<p>password</p> 1 < 2 > 3"),
        ];
        let masker = Masker::default();
        for (text, expected) in cases {
            let once = masker.hide_elements(text);
            assert_eq!(once, expected);
            assert_eq!(masker.hide_elements(&once), expected);
            assert_eq!(masker.keep_text(text).get(), expected);
        }
    }
}
