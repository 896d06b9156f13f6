//! Finds the endpoint of a request: its method, and its path with the ids taken out. Bounded in number.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use http::Method;

use super::CompareError;
use super::ids::is_id;
use crate::config;
use crate::policy::percent_decode;

/// What stands for an id in a learned path.
const ID: &str = "{id}";

/// Segments of a path that an endpoint tells apart; what follows is `{rest}`.
pub const MAX_SEGMENTS: usize = 16;

/// The longest file extension that is kept behind an id, in bytes: `{id}.json`.
const MAX_EXTENSION: usize = 5;

/// Methods whose overflow is told apart by method; all others share one name.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
    Method::CONNECT,
];

/// Names the endpoints of requests: configured patterns first, learned ones for the rest.
///
/// At most `max_endpoints` names are given out besides `METHOD {other}`, which the rest share. One place is reserved
/// for each configured pattern, so that learned names cannot crowd them out.
#[derive(Debug)]
pub struct Endpoints {
    patterns: Vec<Pattern>,
    max_endpoints: usize,
    max_learned: usize,
    known: RwLock<Known>,
    other: Vec<Arc<str>>,
    other_methods: Arc<str>,
}

#[derive(Debug, Default)]
struct Known {
    names: HashSet<Arc<str>>,
    learned: usize,
}

impl Endpoints {
    /// The endpoints of `compare`.
    ///
    /// # Errors
    /// When a configured path is not a pattern such as `/users/{id}`.
    pub fn new(compare: &config::Compare) -> Result<Endpoints, CompareError> {
        let patterns: Vec<Pattern> =
            compare.endpoints.iter().map(|rule| Pattern::parse(&rule.path)).collect::<Result<_, _>>()?;
        Ok(Endpoints {
            max_endpoints: compare.max_endpoints,
            max_learned: compare.max_endpoints.saturating_sub(patterns.len()),
            patterns,
            known: RwLock::default(),
            other: METHODS.iter().map(|method| format!("{method} {{other}}").into()).collect(),
            other_methods: "{other}".into(),
        })
    }

    /// The endpoint of a request, such as `GET /users/{id}`. `path` is as received, without query.
    #[must_use]
    pub fn endpoint(&self, method: &Method, path: &[u8]) -> Arc<str> {
        let mut name = String::with_capacity(method.as_str().len() + path.len() + 1);
        name.push_str(method.as_str());
        name.push(' ');
        let configured = self.patterns.iter().find(|pattern| pattern.matches(path));
        match configured {
            Some(pattern) => name.push_str(&pattern.text),
            None => learn(path, &mut name),
        }
        if let Some(known) =
            self.known.read().unwrap_or_else(PoisonError::into_inner).names.get(name.as_str())
        {
            return Arc::clone(known);
        }
        self.admit(method, name, configured.is_none())
    }

    fn admit(&self, method: &Method, name: String, learned: bool) -> Arc<str> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.names.get(name.as_str()) {
            return Arc::clone(known);
        }
        if known.names.len() >= self.max_endpoints || (learned && known.learned >= self.max_learned) {
            let position = METHODS.iter().position(|standard| standard == method);
            let other = position.and_then(|position| self.other.get(position));
            return Arc::clone(other.unwrap_or(&self.other_methods));
        }
        let name: Arc<str> = name.into();
        known.names.insert(Arc::clone(&name));
        known.learned += usize::from(learned);
        name
    }
}

/// Appends a path with everything that looks like an id replaced.
fn learn(path: &[u8], name: &mut String) {
    if path.is_empty() {
        name.push('/');
        return;
    }
    for (index, segment) in path.split(|&byte| byte == b'/').enumerate() {
        if index > 0 {
            name.push('/');
        }
        if index > MAX_SEGMENTS {
            name.push_str("{rest}");
            return;
        }
        learn_segment(segment, name);
    }
}

fn learn_segment(segment: &[u8], name: &mut String) {
    let segment = segment.split(|&byte| byte == b';').next().unwrap_or_default();
    let decoded = percent_decode(segment);
    let Ok(text) = std::str::from_utf8(&decoded) else {
        name.push_str(ID);
        return;
    };
    if text == "*" {
        name.push('*');
    } else if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte)) {
        name.push_str(ID);
    } else if !is_id(text) {
        name.push_str(text);
    } else {
        name.push_str(ID);
        if let Some((_, extension)) = text.rsplit_once('.')
            && extension.starts_with(|char: char| char.is_ascii_alphabetic())
            && extension.len() <= MAX_EXTENSION
            && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            name.push('.');
            name.push_str(extension);
        }
    }
}

/// A configured path: segments of text and at most one variable each.
#[derive(Debug)]
struct Pattern {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug)]
enum Segment {
    Literal(Vec<u8>),
    /// Anything but nothing, between a prefix and a suffix.
    Variable(Vec<u8>, Vec<u8>),
}

impl Pattern {
    fn parse(path: &str) -> Result<Pattern, CompareError> {
        let invalid = || CompareError::Endpoint { path: path.to_owned() };
        let rest = path.strip_prefix('/').ok_or_else(invalid)?;
        if path.contains(['?', '#']) {
            return Err(invalid());
        }
        let segments = rest
            .split('/')
            .map(|segment| match segment.split_once('{') {
                None if segment.contains('}') => Err(invalid()),
                None => Ok(Segment::Literal(percent_decode(segment.as_bytes()).into_owned())),
                Some((prefix, rest)) => match rest.split_once('}') {
                    Some((variable, suffix))
                        if !variable.is_empty()
                            && !variable.contains('{')
                            && !suffix.contains(['{', '}'])
                            && !prefix.contains('}') =>
                    {
                        Ok(Segment::Variable(prefix.as_bytes().to_vec(), suffix.as_bytes().to_vec()))
                    }
                    _ => Err(invalid()),
                },
            })
            .collect::<Result<_, _>>()?;
        Ok(Pattern { text: path.to_owned(), segments })
    }

    fn matches(&self, path: &[u8]) -> bool {
        let Some((b'/', rest)) = path.split_first() else { return false };
        let mut segments = rest.split(|&byte| byte == b'/');
        self.segments.iter().all(|segment| segments.next().is_some_and(|given| segment.matches(given)))
            && segments.next().is_none()
    }
}

impl Segment {
    fn matches(&self, given: &[u8]) -> bool {
        let given = percent_decode(given);
        match self {
            Segment::Literal(literal) => *literal == *given,
            Segment::Variable(prefix, suffix) => given
                .strip_prefix(prefix.as_slice())
                .and_then(|rest| rest.strip_suffix(suffix.as_slice()))
                .is_some_and(|variable| !variable.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests;
