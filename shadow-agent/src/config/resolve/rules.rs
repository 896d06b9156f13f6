//! Resolves `compare`: the lists of names, patterns and paths.

use http::HeaderName;
use serde_json_path::JsonPath;

use super::super::file::{self, Text};
use super::super::{Compare, ConfigError, EndpointRule, Problem, units};
use super::{at_most, count, descriptors, list, not_yet, parse, read, wrong};

pub(super) const MAX_RULES: usize = 256;
pub(super) const MAX_NAMES: usize = 256;
const MAX_ENDPOINTS: u64 = 10_000;

fn required<T>(
    key: &str,
    path: &Text,
    remedy: &'static str,
    how: impl FnOnce(&str) -> Result<T, Problem>,
) -> Result<T, ConfigError> {
    let key = format!("{key}.path");
    match path.text.is_empty() {
        true => Err(wrong(key, path.source, Problem::Required(remedy))),
        false => parse(&key, path, how),
    }
}

pub(super) fn names(
    key: &str,
    texts: Option<&[Text]>,
    default: Vec<String>,
    how: impl Fn(&str) -> Result<String, Problem>,
) -> Result<Vec<String>, ConfigError> {
    texts.map_or(Ok(default), |texts| list(key, texts, MAX_NAMES, how))
}

/// A field name (RFC 9110, section 5.1), in lower case.
pub(super) fn header_name(text: &str) -> Result<String, Problem> {
    HeaderName::from_bytes(text.as_bytes())
        .map(|name| name.as_str().to_owned())
        .map_err(|_| Problem::HeaderName(text.to_owned()))
}

pub(super) fn json_path(text: &str) -> Result<String, Problem> {
    match JsonPath::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Problem::JsonPath { value: text.to_owned(), problem: error.message().to_owned() }),
    }
}

pub(super) fn compare(raw: &file::Compare, default: Compare) -> Result<Compare, ConfigError> {
    not_yet("compare.tolerance", raw.tolerance.as_ref())?;
    not_yet("compare.unordered", raw.unordered.as_ref())?;
    let endpoints = raw.endpoints.as_deref().unwrap_or_default();
    at_most("compare.endpoints", endpoints.first().map(|e| e.path.source), endpoints.len(), MAX_RULES)?;
    let endpoints: Result<_, _> = endpoints
        .iter()
        .enumerate()
        .map(|(index, raw)| endpoint(&format!("compare.endpoints[{index}]"), raw))
        .collect();
    Ok(Compare {
        headers: names("compare.headers", raw.headers.as_deref(), default.headers, header_name)?,
        ignore: names("compare.ignore", raw.ignore.as_deref(), default.ignore, json_path)?,
        descriptors: read("compare.descriptors", raw.descriptors.as_ref(), default.descriptors, |path| {
            descriptors::load(path).map(Some)
        })?,
        endpoints: endpoints?,
        max_endpoints: read(
            "compare.max_endpoints",
            raw.max_endpoints.as_ref(),
            default.max_endpoints,
            count(1..=MAX_ENDPOINTS),
        )?,
    })
}

fn endpoint(key: &str, raw: &file::Endpoint) -> Result<EndpointRule, ConfigError> {
    not_yet(&format!("{key}.critical"), raw.critical.as_ref())?;
    not_yet(&format!("{key}.owner"), raw.owner.as_ref())?;
    let path = required(key, &raw.path, "give the endpoint a pattern, such as /users/{id}", pattern)?;
    let mismatch = raw.limits.mismatch.as_ref();
    let mismatch =
        mismatch.map(|text| parse(&format!("{key}.limits.mismatch"), text, units::share)).transpose()?;
    Ok(EndpointRule { path, mismatch })
}

fn pattern(text: &str) -> Result<String, Problem> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(Problem::NoSlash(text.to_owned()));
    };
    let is_sound = |segment: &str| {
        let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let name = inner.unwrap_or(segment);
        !name.contains(['{', '}', '?', '#']) && inner != Some("")
    };
    match rest.split('/').all(is_sound) {
        true => Ok(text.to_owned()),
        false => Err(Problem::Endpoint(text.to_owned())),
    }
}
