//! The self-check: looks at a sample of what is about to leave once more, by itself, and finds what should have been masked.
//!
//! It knows the rules and not how they are applied: messages are taken apart here in another way than where they are
//! masked. What it finds is counted (`shadow_mask_failures_total`, which must be 0) and does not leave.

use serde_json::Value;

use super::cookies;
use super::detect;
use super::fields::document_in;
use super::hash;
use super::keep::{quoted, separates, value_end};
use super::multipart::Multipart;
use super::rules::{Hit, MARK, Rules, neutral};
use super::send::MAX_UNMASKED;
use super::send::plain;
use super::whole::body::OPAQUE;
use super::{Exit, Masker, Sendable};
use crate::content;
use crate::exchange::{Exchange, Headers, SkipReason};
use crate::policy::target::parameter_name;

/// One in so many of what leaves is looked at.
pub(super) const ONE_IN: u64 = 16;

/// One message, and the rules of the exit that it is at.
struct Leaving<'a> {
    rules: &'a Rules,
    target: Option<&'a [u8]>,
    headers: &'a Headers,
    trailers: &'a Headers,
    body: &'a bytes::Bytes,
}

impl Masker {
    /// # Errors
    /// [`SkipReason::MaskFailed`] when something should have been masked for the shadow.
    pub(super) fn check_sendable(&self, request: &Sendable) -> Result<(), SkipReason> {
        let Sendable { target, headers, trailers, body, .. } = request;
        self.checked(&Leaving { rules: &self.send, target: Some(target), headers, trailers, body })
    }

    /// # Errors
    /// [`SkipReason::MaskFailed`] when something should have been masked for people and disks.
    pub(super) fn check_kept(&self, exchange: &Exchange) -> Result<(), SkipReason> {
        let Exchange { request, response, .. } = exchange;
        let rules = &self.keep;
        let target = Some(&request.target[..]);
        let asked = Leaving {
            rules,
            target,
            headers: &request.headers,
            trailers: &request.trailers,
            body: &request.body,
        };
        let (headers, trailers, body) = (&response.headers, &response.trailers, &response.body);
        self.checked(&asked)?;
        self.checked(&Leaving { rules, target: None, headers, trailers, body })
    }

    fn checked(&self, leaving: &Leaving<'_>) -> Result<(), SkipReason> {
        match leaving.unmasked() {
            None => Ok(()),
            Some(hit) => {
                leaving.rules.tally.failed(hit.rule);
                Err(SkipReason::MaskFailed)
            }
        }
    }

    /// What is shown in the place of a text for people in which something should have been masked.
    pub(super) fn still_shows(&self, text: &str) -> Option<String> {
        // What stands for a value has words in it that are no names.
        let bare = self.keep.without_marks(text);
        let named = |(equals, _): (usize, &str)| {
            let (before, value) = (bare.get(..equals)?, bare.get(equals + 1..)?);
            let name = before.rsplit(|char| char == MARK || separates(char)).next()?;
            let hit = self.keep.parameter(&parameter_name(name.as_bytes()))?;
            let (quote, value) = quoted(value);
            let is_masked = value.starts_with(MARK) || value_end(quote, value) == 0;
            (!is_masked).then_some(hit)
        };
        let found = self.keep.finds(text).or_else(|| bare.match_indices('=').find_map(named))?;
        self.keep.tally.failed(found.rule);
        Some(detect::placeholder("check"))
    }
}

impl Leaving<'_> {
    /// The first rule by which something is there that should not be.
    fn unmasked(&self) -> Option<Hit> {
        let fields = self.headers.iter().chain(self.trailers.iter());
        let mut found = fields.map(|(name, value)| self.field(name, value));
        found.find_map(|found| found).or_else(|| self.target()).or_else(|| self.body())
    }

    fn shows(&self, hit: Option<Hit>, value: &str) -> Option<Hit> {
        hit.filter(|_| !self.rules.is_covered(value))
    }

    fn field(&self, name: &[u8], value: &[u8]) -> Option<Hit> {
        let text = String::from_utf8_lossy(value);
        if let Some(hit) = self.rules.header(name) {
            return self.shows(Some(hit), &text);
        }
        if cookies::kind(name).is_some() && self.rules.tells_cookies() {
            let mut pairs = text.split(';').filter_map(|pair| pair.split_once('='));
            let found = pairs.find_map(|(name, value)| {
                self.shows(self.rules.cookie(name.trim().as_bytes()), value.trim())
            });
            if found.is_some() {
                return found;
            }
        }
        self.rules.finds(&text)
    }

    fn target(&self) -> Option<Hit> {
        let target = self.target?;
        let separates = |byte: &u8| b"?&;".contains(byte);
        let pairs = target.split(separates).skip(1).filter_map(|pair| {
            let at = pair.iter().position(|&byte| byte == b'=')?;
            pair.split_at_checked(at)
        });
        let mut named = pairs.map(|(name, value)| {
            let hit = self.rules.parameter(&parameter_name(name));
            self.shows(hit, &plain(value.get(1..).unwrap_or_default()))
        });
        let found = named.find_map(|found| found);
        found.or_else(|| self.rules.finds(&plain(target)))
    }

    fn body(&self) -> Option<Hit> {
        if self.body.is_empty() || self.rules.is_empty() {
            return None;
        }
        // What cannot be decoded had no rule that applies to it, or it would not be here.
        let plain = content::decode(self.headers, self.body, MAX_UNMASKED).ok()?;
        let media_type = content::media_type(self.headers).unwrap_or_default();
        if let Some(parts) = Multipart::parse(self.headers, &plain) {
            return parts.parts().iter().find_map(|part| {
                let hit = part.names.iter().find_map(|name| self.rules.form_field(name));
                let text = String::from_utf8_lossy(part.body);
                match hit {
                    Some(hit) => self.shows(Some(hit), &text),
                    None if part.is_file => None,
                    None => self.text(&part.media_type, &text),
                }
            });
        }
        match std::str::from_utf8(&plain) {
            Ok(text) => self.text(&media_type, text),
            Err(_) => None,
        }
    }

    fn text(&self, media_type: &str, text: &str) -> Option<Hit> {
        if media_type == "application/x-www-form-urlencoded" {
            return text.split('&').find_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                let hit = self.rules.form_field(&parameter_name(name.as_bytes()));
                let value = plain(value.as_bytes());
                self.shows(hit.filter(|_| pair.contains('=')), &value).or_else(|| self.rules.finds(&value))
            });
        }
        let documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        if let Ok(documents) = documents.collect::<Result<Vec<Value>, _>>()
            && !documents.is_empty()
        {
            return documents.iter().find_map(|document| self.document(document));
        }
        match OPAQUE.iter().any(|opaque| media_type.starts_with(opaque)) {
            true => None,
            false => self.rules.finds(text),
        }
    }

    fn document(&self, document: &Value) -> Option<Hit> {
        let is_masked: fn(&Value) -> bool = match self.rules.exit() {
            Exit::Send => |value| *value == neutral(value) || hash::is_hashed_value(value),
            Exit::Keep => |value| value.as_str().is_some_and(|text| text.starts_with("[masked: ")),
        };
        self.rules.fields.find_unmasked(document, is_masked).or_else(|| self.leaf(document))
    }

    fn leaf(&self, value: &Value) -> Option<Hit> {
        match value {
            Value::Array(items) => items.iter().find_map(|item| self.leaf(item)),
            Value::Object(members) => {
                members.iter().find_map(|(name, member)| self.rules.finds(name).or_else(|| self.leaf(member)))
            }
            Value::String(text) => match document_in(text) {
                Some(document) => self.document(&document),
                None => self.rules.finds(text),
            },
            Value::Number(number) if !hash::is_hashed_value(value) => self.rules.finds(&number.to_string()),
            Value::Number(_) | Value::Null | Value::Bool(_) => None,
        }
    }
}
