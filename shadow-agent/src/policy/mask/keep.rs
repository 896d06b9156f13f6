//! Makes values as people and disks may see them. It is the only place where a [`Kept`] comes from.
//!
//! Every value passes what is configured by name, then patterns and detectors, then a limit on its length, in this order,
//! so that a cut never hides a secret from a detector.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fields::{Masked, Step, pointer, push_step, resembles_json};
use super::members::Shown;
use super::rules::Hit;
use super::{Kept, Masker, check, cookies, detect};
use crate::content;
use crate::exchange::Request;
use crate::policy::credentials;
use crate::policy::target::{MAX_DECODINGS, decodings, parameter_name, percent_decode};

/// The longest value kept, in bytes; more is cut and marked by an ellipsis.
pub const MAX_KEPT: usize = 256;

/// How much of a value detectors look at, in bytes. What is kept comes from the beginning of this.
const MAX_SCANNED: usize = 16 << 10;

/// The end of a scanned prefix that is never kept, in bytes: a secret may begin there and be cut off.
const MARGIN: usize = 1 << 10;

/// Bytes of a SHA-256 digest that are kept.
const DIGEST_BYTES: usize = 8;

/// How often a text is looked at again because something was hidden in it.
const MAX_PASSES: usize = 4;

/// How much of a value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// Up to [`MAX_KEPT`].
    Excerpt,
    /// All of it; what it belongs to is bounded by the parser.
    Whole,
}

/// A JSON document of which values may be kept, its masked fields already replaced.
#[derive(Debug)]
pub struct Document<'a> {
    masker: &'a Masker,
    document: Cow<'a, Value>,
    masked: Masked,
}

impl Document<'_> {
    /// The number of steps that lead to a masked field, or to a member named like credentials, when `path` leads there
    /// or below. The names of steps below
    /// belong to what is masked.
    #[must_use]
    pub fn masked_at(&self, path: &[Step<'_>]) -> Option<usize> {
        let mut at = String::new();
        if self.masked.replaced.contains("") {
            return Some(0);
        }
        path.iter()
            .position(|step| {
                push_step(&mut at, *step);
                let named = matches!(step, Step::Key(name) if self.masker.member(name).is_some());
                named || self.masked.replaced.contains(&at)
            })
            .map(|position| position + 1)
    }
}

impl Masker {
    /// A status code.
    #[must_use]
    pub fn keep_status(&self, status: u16) -> Kept<String> {
        Kept(status.to_string())
    }

    /// A method, or the name of a field, not shortened.
    #[must_use]
    pub fn keep_token(&self, token: &[u8]) -> Kept<String> {
        Kept(self.keep.scrub(&String::from_utf8_lossy(token)).into_owned())
    }

    /// The value of a header field: hidden when the rules or the built-in list of credentials name the field.
    #[must_use]
    pub fn keep_header(&self, name: &str, value: &[u8]) -> Kept<String> {
        self.header(name.as_bytes(), value, Extent::Excerpt)
    }

    /// Like [`Masker::keep_header`], and not shortened.
    #[must_use]
    pub fn keep_whole_header(&self, name: &[u8], value: &[u8]) -> Kept<String> {
        self.header(name, value, Extent::Whole)
    }

    fn header(&self, name: &[u8], value: &[u8], extent: Extent) -> Kept<String> {
        let text = String::from_utf8_lossy(value);
        if let Some(hit) = self.keep.header(name) {
            return Kept(self.keep.cover(hit, "header", &text));
        }
        if let (Some(kind), true) = (cookies::kind(name), self.keep.tells_cookies()) {
            let cookie = |name: &str, value: &str| {
                let hit = self.keep.cookie(name.as_bytes()).or_else(|| self.keep.parameter(name))?;
                Some(self.keep.cover(hit, "cookie", value))
            };
            let shown = cookies::masked(kind, &text, &cookie).unwrap_or_else(|| text.into_owned());
            return self.keep_loose(&shown, extent);
        }
        // An authority has no user information in HTTP (RFC 9110, section 4.2.4); who sends it sends a password.
        let user = name.eq_ignore_ascii_case(b"host") && value.contains(&b'@');
        match self.keep.credentials() {
            Some(hit) if is_credential(name) || is_set_cookie(name) => {
                Kept(self.keep.cover(hit, "header", &text))
            }
            Some(hit) if user => Kept(self.keep.cover(hit, "user", &text)),
            _ => self.keep_loose(&text, extent),
        }
    }

    /// A cookie that a response sets: its name and attributes, never its value.
    #[must_use]
    pub fn keep_cookie(&self, name: &str, attributes: &[String]) -> Kept<String> {
        let mut shown = format!("{name}={}", detect::placeholder("cookie"));
        for attribute in attributes {
            shown.push_str("; ");
            shown.push_str(attribute);
        }
        self.keep_loose(&shown, Extent::Excerpt)
    }

    /// The target of a request in origin-form: parameters hidden by name, whatever looks like personal data by form.
    #[must_use]
    pub fn keep_target(&self, request: &Request) -> Kept<String> {
        self.target(request.origin_form(), Extent::Excerpt)
    }

    /// The target of a request as received, not shortened; else like [`Masker::keep_target`].
    #[must_use]
    pub fn keep_whole_target(&self, request: &Request) -> Kept<String> {
        self.target(&request.target, Extent::Whole)
    }

    fn target(&self, target: &[u8], extent: Extent) -> Kept<String> {
        let mut parts = target.splitn(2, |&byte| byte == b'?');
        let mut shown = String::new();
        for (index, segment) in parts.next().unwrap_or_default().split(|&byte| byte == b'/').enumerate() {
            if index > 0 {
                shown.push('/');
            }
            for (index, part) in segment.split(|&byte| byte == b';').enumerate() {
                let name = parameter_name(part);
                if index == 0 {
                    shown.push_str(&self.piece(part));
                } else {
                    shown.push(';');
                    shown.push_str(&self.parameter(&name, part));
                }
            }
        }
        for (index, parameter) in
            parts.next().into_iter().flat_map(|query| query.split(|&byte| byte == b'&')).enumerate()
        {
            shown.push(if index == 0 { '?' } else { '&' });
            shown.push_str(&self.parameter(&parameter_name(parameter), parameter));
        }
        self.finish(&shown, extent)
    }

    /// Prepares a document, so that its values can be kept. Without field rules this costs nothing.
    #[must_use]
    pub fn document<'a>(&'a self, document: &'a Value) -> Document<'a> {
        if self.keep.fields.is_empty() {
            return Document { masker: self, document: Cow::Borrowed(document), masked: Masked::default() };
        }
        let mut document = document.clone();
        let field = |value: &Value, hit: Hit| self.keep.cover_value(hit, value);
        let masked = self.keep.fields.mask(&mut document, &field, &|text| digest(text.as_bytes()));
        Document { masker: self, document: Cow::Owned(document), masked }
    }

    /// The value at a location of a document, as JSON. What is not there, or is part of a masked field, is hidden.
    #[must_use]
    pub fn keep_json(&self, document: &Document<'_>, path: &[Step<'_>]) -> Kept<String> {
        let value = match document.masked_at(path) {
            Some(_) => None,
            None => document.document.pointer(&pointer(path)),
        };
        match value {
            Some(value) => self.finish(&rendered(&Shown(value, self)), Extent::Excerpt),
            None => self.keep_masked(),
        }
    }

    /// What stands for the value of a masked field.
    #[must_use]
    pub fn keep_masked(&self) -> Kept<String> {
        Kept(detect::placeholder("field"))
    }

    /// A text, such as a line of a body. With field rules, text is shown only as far as it is JSON that they can be
    /// applied to; of other text its length and digest remain, because nobody knows what fields are in it.
    #[must_use]
    pub fn keep_text(&self, text: &str) -> Kept<String> {
        if self.keep.fields.is_empty() {
            return self.finish(text, Extent::Excerpt);
        }
        if content::begins_like_json(text.as_bytes())
            && let Ok(document) = serde_json::from_str(text)
        {
            return self.keep_json(&self.document(&document), &[]);
        }
        self.keep_digest(text.as_bytes())
    }

    /// Length and digest of bytes that are not shown.
    #[must_use]
    pub fn keep_digest(&self, bytes: &[u8]) -> Kept<String> {
        Kept(digest(bytes))
    }

    /// Text outside bodies: shown, unless there are field rules and it has JSON in it.
    fn keep_loose(&self, text: &str, extent: Extent) -> Kept<String> {
        let decoded = percent_decode(text.as_bytes());
        if !self.keep.fields.is_empty() && resembles_json(&String::from_utf8_lossy(&decoded)) {
            return self.keep_text(text);
        }
        self.finish(text, extent)
    }

    /// A piece of a target, hidden whole when anything in it has to be.
    fn piece(&self, raw: &[u8]) -> String {
        let mut decoded = decodings(raw).peekable();
        let hidden = match decoded.peek() {
            None => self.hidden_piece(&String::from_utf8_lossy(raw)),
            Some(_) => decoded.find_map(|decoded| self.hidden_piece(&String::from_utf8_lossy(&decoded))),
        };
        hidden.unwrap_or_else(|| String::from_utf8_lossy(raw).into_owned())
    }

    fn hidden_piece(&self, text: &str) -> Option<String> {
        if !self.keep.fields.is_empty() && resembles_json(text) {
            return Some(detect::placeholder("field"));
        }
        if matches!(self.hide_parameters(text), Cow::Owned(_)) {
            return Some(detect::placeholder("query"));
        }
        let Cow::Owned(scrubbed) = self.keep.scrub(text) else { return None };
        // The placeholder says why; what stands around it may be the rest of the same datum.
        Some(match (scrubbed.find("[masked: "), scrubbed.find(']')) {
            (Some(start), Some(end)) if start < end => {
                scrubbed.get(start..=end).unwrap_or_default().to_owned()
            }
            _ => detect::placeholder("text"),
        })
    }

    pub(super) fn parameter(&self, name: &str, raw: &[u8]) -> String {
        let (raw_name, value) = match raw.iter().position(|&byte| byte == b'=') {
            Some(at) => (raw.get(..at).unwrap_or_default(), raw.get(at + 1..)),
            None => (raw, None),
        };
        let shown_name = self.piece(raw_name);
        match (value, self.keep.parameter(name)) {
            (Some(value), Some(hit)) => {
                let decoded = percent_decode(value);
                let shown = self.keep.cover(hit, "query", &String::from_utf8_lossy(&decoded));
                format!("{shown_name}={shown}")
            }
            (Some(value), None) => format!("{shown_name}={}", self.piece(value)),
            (None, _) => shown_name,
        }
    }

    /// What every value goes through in the end.
    fn finish(&self, text: &str, extent: Extent) -> Kept<String> {
        let scanned = if extent == Extent::Whole { text } else { prefix(text, MAX_SCANNED) };
        let mut scrubbed = self.scrub_settled(scanned);
        if self.keep.tally.turn(check::ONE_IN)
            && let Some(hidden) = self.still_shows(&scrubbed)
        {
            scrubbed = Cow::Owned(hidden);
        }
        if extent == Extent::Whole {
            return Kept(scrubbed.into_owned());
        }
        let safe = if scanned.len() < text.len() {
            prefix(&scrubbed, scrubbed.len().saturating_sub(MARGIN))
        } else {
            &scrubbed
        };
        Kept(if safe.len() > MAX_KEPT || scanned.len() < text.len() {
            prefix(safe, MAX_KEPT - '…'.len_utf8()).to_owned() + "…"
        } else {
            safe.to_owned()
        })
    }

    /// A text without what has to be hidden, even behind percent-encoding; then it is shown without that encoding.
    pub(super) fn scrub_decoded<'a>(&self, text: &'a str) -> Cow<'a, str> {
        through_encodings(text, |text| self.scrub(text))
    }

    /// The same, until nothing changes any more: what is hidden leaves the rest with other neighbours, by which it may be
    /// known.
    pub(super) fn scrub_settled<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut shown = self.scrub_decoded(text);
        for _ in 1..MAX_PASSES {
            let Cow::Owned(once) = &shown else { break };
            let again = self.scrub_decoded(once).into_owned();
            if again == *once {
                break;
            }
            shown = Cow::Owned(again);
        }
        shown
    }

    fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = self.hide_members(text);
        if let Cow::Owned(hidden) = self.hide_elements(&text) {
            text = Cow::Owned(hidden);
        }
        if let Cow::Owned(hidden) = self.hide_parameters(&text) {
            text = Cow::Owned(hidden);
        }
        if let Cow::Owned(scrubbed) = self.keep.scrub(&text) {
            text = Cow::Owned(scrubbed);
        }
        text
    }

    /// Hides `name=value` in running text, as in URLs, for every parameter that is hidden in targets.
    fn hide_parameters<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut hidden = String::new();
        let mut shown_to = 0;
        for (equals, _) in text.match_indices('=') {
            let (before, value) = (text.get(shown_to..equals), text.get(equals + 1..));
            let (Some(before), Some(value)) = (before, value) else { continue };
            let name = before.rsplit(separates).next().unwrap_or_default();
            let Some(hit) = self.keep.parameter(&parameter_name(name.as_bytes())) else { continue };
            let (quote, value) = quoted(value);
            if value.starts_with("[masked: ") {
                continue;
            }
            let length = value_end(quote, value);
            hidden.push_str(before);
            hidden.push('=');
            hidden.push_str(quote);
            hidden.push_str(&self.keep.cover(hit, "query", value.get(..length).unwrap_or_default()));
            shown_to = equals + 1 + quote.len() + length;
        }
        if shown_to == 0 {
            return Cow::Borrowed(text);
        }
        hidden.push_str(text.get(shown_to..).unwrap_or_default());
        Cow::Owned(hidden)
    }
}

/// A text without what `scrub` takes from it, even behind percent-encoding; then it is shown without that encoding.
pub(super) fn through_encodings<'a>(text: &'a str, scrub: impl Fn(&str) -> Cow<'_, str>) -> Cow<'a, str> {
    let mut shown = match scrub(text) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(scrubbed) => Cow::Owned(scrubbed),
    };
    let mut decoded = Cow::Borrowed(&*shown);
    let mut hidden = None;
    for _ in 0..MAX_DECODINGS {
        let Some(next) = decodings(decoded.as_bytes()).next() else { break };
        decoded = Cow::Owned(String::from_utf8_lossy(&next).into_owned());
        if let Cow::Owned(scrubbed) = scrub(&decoded) {
            hidden = Some(scrubbed.clone());
            decoded = Cow::Owned(scrubbed);
        }
    }
    if let Some(hidden) = hidden {
        shown = Cow::Owned(hidden);
    }
    shown
}

/// Whether the name of a parameter in running text begins behind this. No name is looked for beyond the sign before: of
/// many signs in a row, each would cost as much as all before it.
pub(super) fn separates(char: char) -> bool {
    char.is_whitespace() || "=?&;:/|#\"'<>(){},\\".contains(char)
}

/// The quote that a value begins with, escaped or not, and what stands behind it.
pub(super) fn quoted(value: &str) -> (&str, &str) {
    let escapes = value.len() - value.trim_start_matches('\\').len();
    match value.get(escapes..).and_then(|rest| rest.chars().next()) {
        Some('"' | '\'') => value.split_at_checked(escapes + 1).unwrap_or(("", value)),
        _ => ("", value),
    }
}

/// Where a value ends that has such a quote before it, or none. A secret has all manner of characters in it.
pub(super) fn value_end(quote: &str, value: &str) -> usize {
    let ends = |char: char| char.is_whitespace() || "&;\"'<>,|)]}\\".contains(char);
    let end = if quote.is_empty() {
        value.find(ends)
    } else {
        let escaped = |at| quote.len() == 1 && value.get(..at).is_some_and(|before| before.ends_with('\\'));
        value.match_indices(quote).map(|(at, _)| at).find(|&at| !escaped(at))
    };
    end.unwrap_or(value.len())
}

/// Whether a field holds credentials by its name, with or without an `X-` before it.
fn is_credential(name: &[u8]) -> bool {
    let known = String::from_utf8_lossy(name).to_ascii_lowercase();
    credentials::is_header(name) || credentials::is_member(known.strip_prefix("x-").unwrap_or(&known))
}

fn is_set_cookie(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"set-cookie") || name.eq_ignore_ascii_case(b"set-cookie2")
}

pub(super) fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut shown = format!("[{} bytes, sha256 ", bytes.len());
    for byte in Sha256::digest(bytes).iter().take(DIGEST_BYTES) {
        // Writing to a string cannot fail.
        let _ = write!(shown, "{byte:02x}");
    }
    shown + "…]"
}

/// As many bytes of the beginning as fit `limit`, whole characters only.
fn prefix(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

/// A value as JSON; of a large one the beginning, a little more than is ever scanned.
fn rendered(value: &Shown<'_>) -> String {
    struct Beginning(Vec<u8>);

    impl Write for Beginning {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() > MAX_SCANNED {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut beginning = Beginning(Vec::new());
    // The only error is that there is more than enough.
    let _ = serde_json::to_writer(&mut beginning, value);
    String::from_utf8_lossy(&beginning.0).into_owned()
}

#[cfg(test)]
mod tests;
