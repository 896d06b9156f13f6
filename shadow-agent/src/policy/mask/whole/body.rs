//! Masks whole bodies by what they are: JSON, forms, other text, and what is none of these.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use regex::bytes::Regex;
use serde_json::{Map, Value};

use super::super::fields::{repeats_a_key, resembles_json};
use super::super::keep::digest;
use super::super::multipart::{Multipart, Part};
use super::super::rules::Hit;
use super::super::send::MAX_UNMASKED;
use super::super::{Masker, detect};
use super::encoded;
use crate::content;
use crate::exchange::{Headers, SkipReason};
use crate::policy::target::{parameter_name, percent_decode};

const UNMASKABLE: SkipReason = SkipReason::Unmaskable;

/// Media types that hold nothing a rule could name, whatever their bytes look like.
pub(in crate::policy::mask) const OPAQUE: &[&str] = &["image/", "audio/", "video/", "font/"];

/// What gzip and Zstandard begin with, which does not belong in text: a content coding that nobody tells.
pub(in crate::policy::mask) const COMPRESSED: &[&[u8]] = &[&[0x1F, 0x8B, 8], &[0x28, 0xB5, 0x2F, 0xFD]];

/// What a part of a form says that it is (RFC 7578, section 4.2), whatever the type of the whole.
#[expect(clippy::expect_used, reason = "a constant pattern; tests of this module compile it")]
static DISPOSITION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i-u)content-disposition").expect("the pattern is valid"));

/// The name of a parameter called name, and what it is (RFC 2231 has it with an asterisk).
#[expect(clippy::expect_used, reason = "a constant pattern; tests of this module compile it")]
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?i-u)name\*?[ \t]*=[ \t]*(?:"(?P<quoted>(?:\\[^\r\n]|[^"\\\r\n])*)|(?P<plain>[^;\r\n \t"]*))"#,
    )
    .expect("the pattern is valid")
});

impl Masker {
    /// The masked body without content coding; `None` when nothing in it is masked.
    pub(super) fn whole_body(&self, headers: &Headers, body: &Bytes) -> Result<Option<Bytes>, SkipReason> {
        if body.is_empty() {
            return Ok(None);
        }
        let plain = content::decode(headers, body, MAX_UNMASKED).map_err(|_| UNMASKABLE)?;
        let media_type = content::media_type(headers).unwrap_or_default();
        let is_json = content::is_json(&media_type);
        if (is_json || content::begins_like_json(&plain))
            && let Some(masked) = self.documents(&plain)
        {
            return masked;
        }
        let has_fields = !self.keep.fields.is_empty();
        if is_json && has_fields {
            return Err(UNMASKABLE);
        }
        let is_opaque = OPAQUE.iter().any(|opaque| media_type.starts_with(opaque));
        if !is_opaque && self.hides_between_zeros(&plain) {
            return Err(UNMASKABLE);
        }
        if media_type == "application/x-www-form-urlencoded" {
            return Ok(self.form(&plain));
        }
        let is_text = is_json || media_type.is_empty() || media_type.starts_with("text/");
        if is_text && COMPRESSED.iter().any(|magic| plain.starts_with(magic)) {
            return Err(UNMASKABLE);
        }
        if let Some(parts) = Multipart::parse(headers, &plain) {
            return parts.masked(&|part| self.part(part, has_fields));
        }
        let in_parts = media_type.starts_with("multipart/") || DISPOSITION.is_match(&plain);
        if in_parts && part_names(&plain).any(|name| self.keep.form_field(&name).is_some()) {
            return Err(UNMASKABLE);
        }
        match std::str::from_utf8(&plain) {
            Ok(text) if has_fields && resembles_json(text) => Err(UNMASKABLE),
            Ok(text) => Ok(self.loose(text).map(Bytes::from)),
            Err(_) if is_opaque => Ok(None),
            Err(_) if has_fields || self.loose(&String::from_utf8_lossy(&plain)).is_some() => Err(UNMASKABLE),
            Err(_) => Ok(None),
        }
    }

    /// Whether there is something to hide in text of wide characters, such as UTF-16: without its zeros it is plain.
    fn hides_between_zeros(&self, plain: &[u8]) -> bool {
        if !plain.contains(&0) {
            return false;
        }
        let narrow: Vec<u8> = plain.iter().copied().filter(|&byte| byte != 0).collect();
        let narrow = String::from_utf8_lossy(&narrow);
        (!self.keep.fields.is_empty() && resembles_json(&narrow)) || self.loose(&narrow).is_some()
    }

    /// A part of a form: its content when a rule names it, and what is found in it when it is text.
    fn part(&self, part: &Part<'_>, has_fields: bool) -> Result<Option<Bytes>, SkipReason> {
        if let Some(hit) = part.names.iter().find_map(|name| self.keep.form_field(name)) {
            let covered = self.keep.cover(hit, "field", &String::from_utf8_lossy(part.body));
            return Ok(Some(covered.into()).filter(|covered: &Bytes| covered != part.body));
        }
        if self.loose(&String::from_utf8_lossy(part.head)).is_some() || part.is_encoded {
            return Err(UNMASKABLE);
        }
        if OPAQUE.iter().any(|opaque| part.media_type.starts_with(opaque)) {
            return Ok(None);
        }
        if self.hides_between_zeros(part.body) || COMPRESSED.iter().any(|magic| part.body.starts_with(magic))
        {
            return Err(UNMASKABLE);
        }
        if (content::is_json(&part.media_type) || content::begins_like_json(part.body))
            && let Some(masked) = self.documents(part.body)
        {
            return masked;
        }
        match std::str::from_utf8(part.body) {
            Ok(text) if has_fields && resembles_json(text) => Err(UNMASKABLE),
            Ok(text) => Ok(self.loose(text).map(Bytes::from)),
            Err(_) if has_fields || self.loose(&String::from_utf8_lossy(part.body)).is_some() => {
                Err(UNMASKABLE)
            }
            Err(_) => Ok(None),
        }
    }

    /// One JSON document, or several one behind the other; nothing when it is something else.
    fn documents(&self, plain: &[u8]) -> Option<Result<Option<Bytes>, SkipReason>> {
        let parsed = serde_json::Deserializer::from_slice(plain).into_iter::<Value>();
        let mut documents = parsed.collect::<Result<Vec<Value>, _>>().ok()?;
        if documents.is_empty() {
            return None;
        }
        if repeats_a_key(plain) {
            return Some(Err(UNMASKABLE));
        }
        let mut changed = false;
        for document in &mut documents {
            changed |= self.document_masked(document);
        }
        if !changed {
            return Some(Ok(None));
        }
        let lines: Vec<String> = documents.iter().map(Value::to_string).collect();
        Some(Ok(Some(lines.join("\n").into())))
    }

    /// Masks a document; says whether anything changed.
    fn document_masked(&self, document: &mut Value) -> bool {
        let mut changed = false;
        if !self.keep.fields.is_empty() {
            let mut masked = document.clone();
            let field = |value: &Value, hit: Hit| self.keep.cover_value(hit, value);
            let found = self.keep.fields.mask(&mut masked, &field, &|text| digest(text.as_bytes()));
            // Documents in strings were written anew, which is no reason to change anything.
            if !(found.replaced.is_empty() && found.opaque.is_empty()) && masked != *document {
                *document = masked;
                changed = true;
            }
        }
        changed | self.value_masked(document)
    }

    fn value_masked(&self, value: &mut Value) -> bool {
        match value {
            Value::Array(items) => {
                items.iter_mut().fold(false, |changed, item| self.value_masked(item) | changed)
            }
            Value::Object(members) => self.members_masked(members),
            Value::String(text) => replace(text, self.loose(text)),
            Value::Number(number) => {
                let text = number.to_string();
                let Cow::Owned(hidden) = self.keep.scrub(&text) else { return false };
                *value = Value::String(hidden);
                true
            }
            Value::Null | Value::Bool(_) => false,
        }
    }

    fn members_masked(&self, members: &mut Map<String, Value>) -> bool {
        let mut changed = false;
        let mut names = Vec::new();
        // A list of fields, as those of a form.
        let hides =
            |member: &str| members.get(member).and_then(Value::as_str).and_then(|name| self.member(name));
        let secret = hides("name").or_else(|| hides("key"));
        for (name, member) in members.iter_mut() {
            match self.member(name).or_else(|| secret.filter(|_| name == "value")) {
                None => changed |= self.value_masked(member),
                Some(hit) => {
                    let hidden = self.keep.cover_value(hit, member);
                    changed |= *member != hidden;
                    *member = hidden;
                }
            }
            if let Some(masked) = self.loose(name) {
                names.push((name.clone(), masked));
            }
        }
        changed | renamed(members, names)
    }

    /// A form (WHATWG URL, section 5.1).
    fn form(&self, plain: &[u8]) -> Option<Bytes> {
        let mut changed = false;
        let parameters: Vec<Cow<'_, [u8]>> = plain
            .split(|&byte| byte == b'&')
            .map(|raw| match self.form_parameter(raw) {
                Some(masked) => {
                    changed = true;
                    Cow::Owned(masked)
                }
                None => Cow::Borrowed(raw),
            })
            .collect();
        changed.then(|| parameters.join(&b'&').into())
    }

    fn form_parameter(&self, raw: &[u8]) -> Option<Vec<u8>> {
        // What is a space in a form shall look like one.
        let spaced: Vec<u8> = raw
            .iter()
            .flat_map(|byte| if *byte == b'+' { &b"%20"[..] } else { std::slice::from_ref(byte) })
            .copied()
            .collect();
        let name = parameter_name(raw);
        let mut parts = spaced.splitn(2, |&byte| byte == b'=');
        let (raw_name, value) = (parts.next().unwrap_or_default(), parts.next());
        let decoded = percent_decode(value.unwrap_or(raw_name));
        let decoded = String::from_utf8_lossy(&decoded);
        // What a rule of parameters names is shown as one.
        let field =
            self.keep.form_field(&name).filter(|_| value.is_some() && self.keep.parameter(&name).is_none());
        let hidden = match (field, self.hide_members(&decoded)) {
            (Some(hit), _) => Some(self.keep.cover(hit, "field", &decoded)),
            (None, Cow::Owned(_)) => Some(detect::placeholder("field")),
            (None, Cow::Borrowed(_)) => None,
        };
        let shown = match hidden {
            Some(hidden) => {
                let name = if value.is_some() { self.parameter("", raw_name) + "=" } else { String::new() };
                name + &hidden
            }
            None => self.parameter(&name, &spaced),
        };
        if shown == String::from_utf8_lossy(&spaced) {
            return None;
        }
        let masked = encoded(&shown, |byte| byte.is_ascii_graphic() && byte != b'&').into_owned();
        (masked != raw).then_some(masked)
    }

    /// A text without what has to be hidden, even behind percent-encoding; `None` when that is nothing.
    fn loose(&self, text: &str) -> Option<String> {
        match self.scrub_decoded(text) {
            Cow::Owned(scrubbed) => Some(scrubbed),
            Cow::Borrowed(_) => None,
        }
    }
}

/// Gives members other names, each a free one; says whether there were any.
pub(in crate::policy::mask) fn renamed(
    members: &mut Map<String, Value>,
    names: Vec<(String, String)>,
) -> bool {
    let mut changed = false;
    for (name, masked) in names {
        let Some(member) = members.remove(&name) else { continue };
        let mut free = masked.clone();
        let mut number = 1_u64;
        while members.contains_key(&free) {
            number += 1;
            free = format!("{masked} {number}");
        }
        members.insert(free, member);
        changed = true;
    }
    changed
}

fn replace(text: &mut String, by: Option<String>) -> bool {
    by.map(|by| *text = by).is_some()
}

/// The names of the parts of a form in parts (RFC 7578, section 4.2), and whatever else stands behind `name=`.
fn part_names(body: &[u8]) -> impl Iterator<Item = String> + '_ {
    NAME.captures_iter(body).filter_map(|found| {
        let name = found.name("quoted").or_else(|| found.name("plain"))?.as_bytes();
        let name: Vec<u8> = name.iter().copied().filter(|&byte| byte != b'\\').collect();
        // Behind the charset and the language, if it has those.
        let name = String::from_utf8_lossy(&percent_decode(&name)).into_owned();
        name.trim_end_matches('\'').rsplit('\'').next().map(str::to_owned)
    })
}
