//! Masks the body of a request by what it is: a form, JSON, other text. What is none of these cannot be masked.

use bytes::Bytes;
use serde_json::Value;

use super::super::fields::{MAX_NESTING, Masked, document_in, push_step, repeats_a_key, resembles_json};
use super::super::keep::through_encodings;
use super::super::multipart::{Multipart, Part};
use super::super::rules::Rules;
use super::super::whole::body::{COMPRESSED, OPAQUE, renamed};
use super::super::whole::encoded;
use super::super::{Step, rules::MASK};
use super::MAX_UNMASKED;
use super::target::fits;
use crate::content;
use crate::exchange::{Headers, SkipReason};
use crate::policy::target::{decodings, parameter_name};

const UNMASKABLE: SkipReason = SkipReason::Unmaskable;

/// Media types beside `text/*` and those of JSON and XML that are text.
const TEXT: &[&str] = &[
    "application/graphql",
    "application/javascript",
    "application/jsonl",
    "application/ndjson",
    "application/sql",
    "application/x-ndjson",
    "application/x-yaml",
    "application/xml",
    "application/yaml",
];

/// Charsets of which ASCII is a part, in which valid UTF-8 means what it says or at least hides nothing.
const CHARSETS: &[&str] = &["utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"];

/// A form (WHATWG URL, section 5.1).
const FORM: &str = "application/x-www-form-urlencoded";

impl Rules {
    /// The masked body without its content coding; `None` when nothing in it is masked.
    pub(super) fn mask_body(&self, headers: &Headers, body: &Bytes) -> Result<Option<Bytes>, SkipReason> {
        if body.is_empty() || !(self.read_text() || self.read_forms()) {
            return Ok(None);
        }
        let media_type = content::media_type(headers).unwrap_or_default();
        let in_parts = media_type.starts_with("multipart/");
        let is_form = media_type == FORM;
        let needs_fields = !self.fields.is_empty();
        if !(self.read_text() || needs_fields || is_form || in_parts || media_type.is_empty()) {
            return Ok(None);
        }
        let plain = content::decode(headers, body, MAX_UNMASKED).map_err(|_| UNMASKABLE)?;
        if in_parts {
            let parts = Multipart::parse(headers, &plain).ok_or(UNMASKABLE)?;
            return parts.masked(&|part| self.mask_part(part));
        }
        if is_form {
            return self.mask_form(&plain);
        }
        if content::is_json(&media_type) || content::begins_like_json(&plain) {
            match self.mask_documents(&plain) {
                Some(masked) => return masked,
                None if content::is_json(&media_type) => return Err(UNMASKABLE),
                None => {}
            }
        }
        if needs_fields {
            return Err(UNMASKABLE);
        }
        let is_nameless = media_type.is_empty();
        if is_nameless && self.read_forms() {
            // Nobody says that it is no form.
            let masked = self.mask_form(&plain)?;
            return match self.read_text() {
                true => self
                    .mask_plain(headers, &media_type, &masked.clone().unwrap_or(plain))
                    .map(|text| text.or(masked)),
                false => Ok(masked),
            };
        }
        self.mask_plain(headers, &media_type, &plain)
    }

    /// What is neither a form nor JSON, by its form alone.
    fn mask_plain(
        &self,
        headers: &Headers,
        media_type: &str,
        plain: &Bytes,
    ) -> Result<Option<Bytes>, SkipReason> {
        if OPAQUE.iter().any(|opaque| media_type.starts_with(opaque)) {
            return Ok(None);
        }
        let is_text = media_type.is_empty()
            || media_type.starts_with("text/")
            || media_type.ends_with("+xml")
            || media_type.ends_with("+yaml")
            || TEXT.contains(&media_type);
        if !is_text || !has_known_charset(headers) {
            return Err(UNMASKABLE);
        }
        self.mask_bytes(plain)
    }

    /// Bytes that should be text.
    fn mask_bytes(&self, bytes: &[u8]) -> Result<Option<Bytes>, SkipReason> {
        if bytes.contains(&0) || COMPRESSED.iter().any(|magic| bytes.starts_with(magic)) {
            return Err(UNMASKABLE);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| UNMASKABLE)?;
        Ok(self.mask_text(text)?.map(Bytes::from))
    }

    /// A form: its fields by name, and whatever is found in the names and values of the others.
    fn mask_form(&self, plain: &[u8]) -> Result<Option<Bytes>, SkipReason> {
        let mut masked = Vec::with_capacity(plain.len() + 16);
        for (index, raw) in plain.split(|&byte| byte == b'&').enumerate() {
            if index > 0 {
                masked.push(b'&');
            }
            let named = self.form_field(&parameter_name(raw)).map(|hit| (hit, "field"));
            self.mask_pair(raw, named, &mut masked)?;
        }
        Ok(if masked == plain { None } else { Some(masked.into()) })
    }

    /// A part of a form. A file that no rule names is looked into only if it is text.
    fn mask_part(&self, part: &Part<'_>) -> Result<Option<Bytes>, SkipReason> {
        if let Some(hit) = part.names.iter().find_map(|name| self.form_field(name)) {
            let covered = self.cover(hit, "field", &String::from_utf8_lossy(part.body));
            return Ok(Some(covered.into()).filter(|covered: &Bytes| covered != part.body));
        }
        if self.read_text() && self.mask_text(&String::from_utf8_lossy(part.head))?.is_some() {
            return Err(UNMASKABLE);
        }
        let is_json = content::is_json(&part.media_type) || content::begins_like_json(part.body);
        let has_rules = self.read_text() || (!self.fields.is_empty() && !part.is_file);
        if !has_rules {
            return Ok(None);
        }
        if part.is_encoded {
            return Err(UNMASKABLE);
        }
        if is_json
            && !part.is_file
            && let Some(masked) = self.mask_documents(part.body)
        {
            return masked;
        }
        match self.mask_bytes(part.body) {
            Err(_) if part.is_file => Ok(None),
            masked => masked,
        }
    }

    /// One JSON document, or several one behind the other; nothing when it is something else.
    fn mask_documents(&self, plain: &[u8]) -> Option<Result<Option<Bytes>, SkipReason>> {
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
            match self.mask_document(document) {
                Ok(masked) => changed |= masked,
                Err(reason) => return Some(Err(reason)),
            }
        }
        if !changed {
            return Some(Ok(None));
        }
        let lines: Vec<String> = documents.iter().map(Value::to_string).collect();
        Some(Ok(Some(lines.join("\n").into())))
    }

    /// Masks a document: its fields first, then whatever is found in the rest.
    fn mask_document(&self, document: &mut Value) -> Result<bool, SkipReason> {
        let mut fields = Masked::default();
        if !self.fields.is_empty() {
            let mut masked = document.clone();
            fields = self
                .fields
                .mask(&mut masked, &|value, hit| self.cover_value(hit, value), &|_| MASK.to_owned());
            if !fields.opaque.iter().all(|opaque| fields.covers(opaque)) {
                return Err(UNMASKABLE);
            }
            // Documents in strings were written anew, which is no reason to change anything.
            if !fields.replaced.is_empty() {
                *document = masked;
            }
        }
        let found = self.read_text() && self.mask_leaves(document, &mut String::new(), &fields, 0)?;
        Ok(found || !fields.replaced.is_empty())
    }

    /// Masks what is found in names, strings and numbers, in those of documents in strings as well.
    fn mask_leaves(
        &self,
        value: &mut Value,
        at: &mut String,
        done: &Masked,
        depth: usize,
    ) -> Result<bool, SkipReason> {
        if done.covers(at) {
            return Ok(false);
        }
        let length = at.len();
        let mut changed = false;
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    push_step(at, Step::Index(index));
                    changed |= self.mask_leaves(item, at, done, depth)?;
                    at.truncate(length);
                }
            }
            Value::Object(members) => {
                let mut names = Vec::new();
                for (name, member) in members.iter_mut() {
                    push_step(at, Step::Key(name));
                    changed |= self.mask_leaves(member, at, done, depth)?;
                    at.truncate(length);
                    if let Some(masked) = self.mask_text(name)? {
                        names.push((name.clone(), masked));
                    }
                }
                changed |= renamed(members, names);
            }
            Value::String(text) => match document_in(text) {
                Some(mut document) if depth < MAX_NESTING => {
                    if self.mask_leaves(&mut document, at, done, depth + 1)? {
                        *text = document.to_string();
                        changed = true;
                    }
                }
                Some(_) => return Err(UNMASKABLE),
                // Behind an escape anything may be.
                None if resembles_json(text) && text.contains("\\u") => return Err(UNMASKABLE),
                None => {
                    if let Some(masked) = self.scrubbed(text) {
                        *text = masked;
                        changed = true;
                    }
                }
            },
            Value::Number(number) => {
                if let Some(hit) = self.finds(&number.to_string()) {
                    *value = self.cover_value(hit, value);
                    changed = true;
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        Ok(changed)
    }

    /// A text without what is to be masked in it; `None` when that is nothing. A document in it is masked as one.
    pub(super) fn mask_text(&self, text: &str) -> Result<Option<String>, SkipReason> {
        if !self.fields.is_empty() && resembles_json(text) {
            let Some(mut document) = document_in(text) else { return Err(UNMASKABLE) };
            return Ok(self.mask_document(&mut document)?.then(|| document.to_string()));
        }
        if !self.fields.is_empty() {
            let decoded =
                decodings(text.as_bytes()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            if let Some(decoded) = decoded.into_iter().find(|decoded| resembles_json(decoded)) {
                let mut document = document_in(&decoded).ok_or(UNMASKABLE)?;
                if self.mask_document(&mut document)? {
                    let encoded = encoded(&document.to_string(), fits).into_owned();
                    return Ok(Some(String::from_utf8_lossy(&encoded).into_owned()));
                }
            }
        }
        Ok(self.scrubbed(text))
    }

    /// What patterns match and detectors find is masked, even behind percent-encoding.
    pub(super) fn scrubbed(&self, text: &str) -> Option<String> {
        if !self.read_text() {
            return None;
        }
        match through_encodings(text, |text| self.scrub(text)) {
            std::borrow::Cow::Owned(masked) if masked != text => Some(masked),
            _ => None,
        }
    }
}

fn has_known_charset(headers: &Headers) -> bool {
    let Some(value) = headers.get("content-type") else { return true };
    let value = String::from_utf8_lossy(value).to_ascii_lowercase();
    value
        .split(';')
        .skip(1)
        .filter_map(|parameter| parameter.split_once('='))
        .all(|(name, value)| name.trim() != "charset" || CHARSETS.contains(&value.trim().trim_matches('"')))
}
