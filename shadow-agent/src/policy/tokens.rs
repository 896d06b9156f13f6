//! Finds the values that responses issue and that requests carry, and puts others in their place. Pure; which value
//! belongs to which is the business of `replay`.

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;
use serde_json::Value;

use super::PolicyError;
use super::mask::Sendable;
use super::place::{self, Place};
use super::target::percent_decode;
use crate::config::{Missing, TokenRule};
use crate::exchange::{Headers, Response};

/// Values that one response issues at most; of more, the first ones count.
pub const MAX_ISSUED: usize = 64;

/// The rules of `replay.tokens`, ready for use.
#[derive(Debug)]
pub struct Tokens(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    issued: Vec<Place>,
    carried: Vec<Place>,
    missing: Missing,
}

/// A value that production issued, and where. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The position of the rule.
    pub rule: usize,
    /// The value.
    pub value: Bytes,
    at: At,
}

#[derive(Clone, PartialEq, Eq)]
enum At {
    Cookie(String),
    Header(String),
    /// A JSON pointer (RFC 6901).
    Field(String),
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issued(by rule {}, {} bytes)", self.rule, self.value.len())
    }
}

/// What a target has for a value that production issued.
#[derive(Clone, PartialEq, Eq)]
pub enum Own {
    /// Production did not issue it, as far as is known.
    Unknown,
    /// It has none, or none yet.
    Missing,
    /// Its own.
    Value(Bytes),
}

/// A request carries a value that production issued, and the target has none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoneOfItsOwn;

impl Tokens {
    /// # Errors
    /// When a field is not a JSON path.
    pub fn new(rules: &[TokenRule]) -> Result<Tokens, PolicyError> {
        let rules = rules.iter().map(|rule| {
            let places = |places: &[_]| {
                places.iter().map(|place| Place::new("replay.tokens", place)).collect::<Result<_, _>>()
            };
            Ok(Rule { issued: places(&rule.issued)?, carried: places(&rule.carried)?, missing: rule.missing })
        });
        rules.collect::<Result<_, _>>().map(Tokens)
    }

    /// What production's response issues.
    #[must_use]
    pub fn issued(&self, response: &Response) -> Vec<Issued> {
        let mut issued = Vec::new();
        let mut document = None;
        for (rule, place) in
            self.0.iter().enumerate().flat_map(|(at, rule)| rule.issued.iter().map(move |place| (at, place)))
        {
            let mut add = |at: At, value: &[u8]| {
                if place::is_usable(value) {
                    issued.push(Issued { rule, value: Bytes::copy_from_slice(value), at });
                }
            };
            match place {
                Place::Cookie(name) => {
                    if let Some(value) = place::set_cookie(&response.headers, name) {
                        add(At::Cookie(name.clone()), value);
                    }
                }
                Place::Header(name) => {
                    if let Some(value) = response.headers.get(name) {
                        add(At::Header(name.clone()), value.as_ref().trim_ascii());
                    }
                }
                Place::Field(path) => {
                    let document =
                        document.get_or_insert_with(|| place::document(&response.headers, &response.body));
                    let Some(document) = document else { continue };
                    for found in path.query_located(document).iter().take(MAX_ISSUED) {
                        if let Some(text) = place::text(found.node()) {
                            add(At::Field(found.location().to_json_pointer()), text.as_bytes());
                        }
                    }
                }
                Place::Query(_) | Place::Path(_) => {}
            }
        }
        issued.truncate(MAX_ISSUED);
        issued
    }

    /// What a target's response issues in the same places; nothing where it issues nothing of the kind.
    #[must_use]
    pub fn counterparts(issued: &[Issued], response: &Response) -> Vec<Option<Bytes>> {
        let has_fields = issued.iter().any(|issued| matches!(issued.at, At::Field(_)));
        let document = if has_fields { place::document(&response.headers, &response.body) } else { None };
        let own = |issued: &Issued| {
            let value = match &issued.at {
                At::Cookie(name) => place::set_cookie(&response.headers, name).map(<[u8]>::to_vec),
                At::Header(name) => {
                    response.headers.get(name).map(|value| value.as_ref().trim_ascii().to_vec())
                }
                At::Field(pointer) => {
                    document.as_ref()?.pointer(pointer).and_then(place::text).map(String::into_bytes)
                }
            };
            value.filter(|value| place::is_usable(value)).map(Bytes::from)
        };
        issued.iter().map(own).collect()
    }

    /// Puts production's values where a target's response issues its own, so that they do not differ. What else is
    /// different there stays: a value of another type, or none. A body that is changed loses its content coding.
    pub fn equalise<'a>(issued: impl Iterator<Item = &'a Issued>, response: &mut Response) {
        let mut fields = Vec::new();
        for issued in issued {
            match &issued.at {
                // Of cookies that are set, values are not compared.
                At::Cookie(_) => {}
                At::Header(name) => {
                    let mut lines = response.headers.0.iter_mut();
                    let line = lines.find(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()));
                    if let Some((_, value)) = line {
                        *value = issued.value.clone();
                    }
                }
                At::Field(pointer) => fields.push((pointer, &issued.value)),
            }
        }
        if fields.is_empty() {
            return;
        }
        let Some(mut document) = place::document(&response.headers, &response.body) else { return };
        for (pointer, value) in fields {
            if let Some(node) = document.pointer_mut(pointer) {
                put(node, value, false);
            }
        }
        response.body = document.to_string().into();
        response.headers.0.retain(|(name, _)| !name.eq_ignore_ascii_case(b"content-encoding"));
    }

    /// The request with the values of its target in the place of production's; `None` when it carries none.
    ///
    /// # Errors
    /// When the target has none of its own, and the rule wants it not to be sent then.
    pub fn carried(
        &self,
        request: &Sendable,
        mut own: impl FnMut(usize, &[u8]) -> Own,
    ) -> Result<Option<Sendable>, NoneOfItsOwn> {
        let mut message = Message { target: None, headers: None, body: None, request, document: None };
        for (at, rule) in self.0.iter().enumerate() {
            let mut failed = false;
            let mut replace = |value: &[u8]| match own(at, value) {
                Own::Unknown => ControlFlow::Continue(()),
                Own::Value(value) => ControlFlow::Break(value),
                Own::Missing => {
                    failed |= rule.missing == Missing::Drop;
                    ControlFlow::Continue(())
                }
            };
            for place in &rule.carried {
                message.replace(place, &mut replace);
            }
            if failed {
                return Err(NoneOfItsOwn);
            }
        }
        Ok(message.changed())
    }
}

/// Gives what to put in the place of a value, if anything.
type Replace<'a> = dyn FnMut(&[u8]) -> ControlFlow<Bytes> + 'a;

/// A request under change; what is not there is as it was.
struct Message<'a> {
    request: &'a Sendable,
    target: Option<Bytes>,
    headers: Option<Headers>,
    body: Option<Bytes>,
    /// The body, once somebody asked for it.
    document: Option<Option<Value>>,
}

impl Message<'_> {
    fn replace(&mut self, place: &Place, replace: &mut Replace<'_>) {
        match place {
            Place::Cookie(name) => self.headers("cookie", |field| {
                let mut changed = field.to_vec();
                let mut ranges: Vec<_> = place::cookies(field, name).collect();
                ranges.reverse();
                let mut any = false;
                for range in ranges {
                    if let Some(ControlFlow::Break(own)) = field.get(range.clone()).map(&mut *replace) {
                        changed.splice(range, own);
                        any = true;
                    }
                }
                any.then(|| changed.into())
            }),
            Place::Header(name) => self.headers(name, |field| {
                let whole = field.trim_ascii();
                if let ControlFlow::Break(own) = replace(whole) {
                    return Some(own);
                }
                // Credentials come behind their scheme (RFC 9110, section 11.4).
                let space = whole.iter().position(|&byte| byte == b' ')?;
                let (scheme, rest) = whole.split_at_checked(space + 1)?;
                match replace(rest.trim_ascii_start()) {
                    ControlFlow::Break(own) => Some([scheme, &own].concat().into()),
                    ControlFlow::Continue(()) => None,
                }
            }),
            Place::Query(name) => self.query(name, replace),
            Place::Path(pattern) => self.path(pattern, replace),
            Place::Field(path) => {
                let request = self.request;
                let document =
                    self.document.get_or_insert_with(|| place::document(request.headers(), request.body()));
                let Some(document) = document else { return };
                let found: Vec<String> = path
                    .query_located(document)
                    .iter()
                    .map(|found| found.location().to_json_pointer())
                    .collect();
                for pointer in found {
                    let Some(node) = document.pointer_mut(&pointer) else { continue };
                    if let Some(ControlFlow::Break(own)) =
                        place::text(node).map(|text| replace(text.as_bytes()))
                    {
                        put(node, &own, true);
                        self.body = Some(document.to_string().into());
                    }
                }
            }
        }
    }

    fn headers(&mut self, name: &str, mut change: impl FnMut(&Bytes) -> Option<Bytes>) {
        let mut headers = self.headers.clone().unwrap_or_else(|| self.request.headers().clone());
        let mut any = false;
        for (_, value) in
            headers.0.iter_mut().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
        {
            if let Some(changed) = change(value) {
                *value = changed;
                any = true;
            }
        }
        if any {
            self.headers = Some(headers);
        }
    }

    fn target(&self) -> Bytes {
        self.target.clone().unwrap_or_else(|| self.request.target().clone())
    }

    fn query(&mut self, name: &str, replace: &mut Replace<'_>) {
        let target = self.target();
        let Some(mark) = target.iter().position(|&byte| byte == b'?') else { return };
        let mut any = false;
        let parameters =
            target.get(mark + 1..).unwrap_or_default().split(|&byte| byte == b'&').map(|whole| {
                let Some(value) = place::parameter(whole, name) else { return whole.to_vec() };
                let ControlFlow::Break(own) = replace(&value) else { return whole.to_vec() };
                any = true;
                let raw_name = whole.split(|&byte| byte == b'=').next().unwrap_or_default();
                [raw_name, b"=", &percent_encoded(&own)].concat()
            });
        let query = parameters.collect::<Vec<_>>().join(&b'&');
        if any {
            self.target = Some([target.get(..=mark).unwrap_or_default(), &query].concat().into());
        }
    }

    fn path(&mut self, pattern: &[String], replace: &mut Replace<'_>) {
        let target = self.target();
        let end = target.iter().position(|&byte| byte == b'?').unwrap_or(target.len());
        let (path, query) = (target.get(..end).unwrap_or_default(), target.get(end..).unwrap_or_default());
        let Some(at) = place::segment(pattern, path) else { return };
        let mut segments: Vec<Vec<u8>> = path.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect();
        let Some(segment) = segments.get_mut(at) else { return };
        if let ControlFlow::Break(own) = replace(&percent_decode(segment)) {
            *segment = percent_encoded(&own);
            self.target = Some([&segments.join(&b'/'), query].concat().into());
        }
    }

    fn changed(self) -> Option<Sendable> {
        if self.target.is_none() && self.headers.is_none() && self.body.is_none() {
            return None;
        }
        Some(self.request.with(self.target, self.headers, self.body))
    }
}

/// Puts a value into a node. A number stays one if it can; what can not become one is left alone, unless it `may` become a
/// string.
fn put(node: &mut Value, value: &[u8], may: bool) {
    let text = String::from_utf8_lossy(value);
    let number = serde_json::from_str::<Value>(&text).ok().filter(Value::is_number);
    match (&*node, number) {
        (Value::Number(_), Some(number)) => *node = number,
        (Value::Number(_), None) if !may => {}
        _ => *node = Value::String(text.into_owned()),
    }
}

/// Everything encoded but unreserved characters (RFC 3986, section 2.3).
fn percent_encoded(value: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(value.len());
    for &byte in value {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => encoded.push(byte),
            false => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
