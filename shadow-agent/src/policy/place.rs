//! Finds values in messages by the places that are configured for sessions and tokens. It replaces nothing.

use bytes::Bytes;
use serde_json::Value;
use serde_json_path::JsonPath;

use super::PolicyError;
use super::target::{parameter_name, percent_decode};
use crate::config::TokenPlace;
use crate::content;
use crate::exchange::Headers;

/// A body is decoded and parsed up to so many bytes; nothing is found in a larger one.
pub(super) const MAX_DOCUMENT: usize = 1 << 20;

/// The longest value that is found, in bytes.
pub(super) const MAX_VALUE: usize = 4096;

/// A place, ready for use.
#[derive(Debug)]
pub(super) enum Place {
    Cookie(String),
    Header(String),
    Query(String),
    Field(JsonPath),
    /// The segments of the pattern.
    Path(Vec<String>),
}

impl Place {
    /// # Errors
    /// When a field is not a JSON path.
    pub(super) fn new(section: &'static str, place: &TokenPlace) -> Result<Place, PolicyError> {
        Ok(match place {
            TokenPlace::Cookie(name) => Place::Cookie(name.clone()),
            TokenPlace::Header(name) => Place::Header(name.clone()),
            TokenPlace::Query(name) => Place::Query(name.clone()),
            TokenPlace::Field(path) => {
                Place::Field(JsonPath::parse(path).map_err(|source| PolicyError::JsonPath {
                    section,
                    path: path.clone(),
                    source,
                })?)
            }
            TokenPlace::Path(pattern) => Place::Path(pattern.split('/').map(str::to_owned).collect()),
        })
    }
}

/// The body as a document, if it is one.
pub(super) fn document(headers: &Headers, body: &Bytes) -> Option<Value> {
    if body.is_empty() || body.len() > MAX_DOCUMENT {
        return None;
    }
    let decoded = content::decode(headers, body, MAX_DOCUMENT).ok()?;
    if !content::begins_like_json(&decoded) {
        return None;
    }
    serde_json::from_slice(&decoded).ok()
}

/// The text of a node that is a value: a string, or a number as it is written.
pub(super) fn text(node: &Value) -> Option<String> {
    let text = match node {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    is_usable(text.as_bytes()).then_some(text)
}

/// Whether a value says something: it is there, not too long, and not what masking left of one.
pub(super) fn is_usable(value: &[u8]) -> bool {
    (1..=MAX_VALUE).contains(&value.len()) && !value.starts_with(b"[masked")
}

/// The positions of the value of a cookie in a `Cookie` field (RFC 6265, section 4.2.1), wherever it is in it.
pub(super) fn cookies<'a>(
    field: &'a [u8],
    name: &'a str,
) -> impl Iterator<Item = std::ops::Range<usize>> + 'a {
    let mut at = 0;
    let pairs = field.split(|&byte| byte == b';').map(move |pair| {
        let start = at;
        at += pair.len() + 1;
        (start, pair)
    });
    pairs.filter_map(move |(start, pair)| {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (before, after) = pair.split_at_checked(equals)?;
        let value = after.get(1..)?;
        let leading = value.len() - value.trim_ascii_start().len();
        let first = start + equals + 1 + leading;
        (before.trim_ascii() == name.as_bytes()).then(|| first..first + value.trim_ascii().len())
    })
}

/// The value of the first cookie of that name in a request.
pub(super) fn cookie<'a>(headers: &'a Headers, name: &'a str) -> Option<&'a [u8]> {
    headers.all("cookie").find_map(|field| field.get(cookies(field, name).next()?))
}

/// The value that a response sets a cookie to (RFC 6265, section 4.1.1), the last one if there are several.
pub(super) fn set_cookie<'a>(headers: &'a Headers, name: &'a str) -> Option<&'a [u8]> {
    let set = |field: &'a Bytes| {
        let pair = field.split(|&byte| byte == b';').next()?;
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (before, after) = pair.split_at_checked(equals)?;
        (before.trim_ascii() == name.as_bytes()).then(|| after.get(1..).unwrap_or_default().trim_ascii())
    };
    headers.all("set-cookie").filter_map(set).last()
}

/// The value of one parameter of a query, decoded, if it has that name.
pub(super) fn parameter(parameter: &[u8], name: &str) -> Option<Vec<u8>> {
    if parameter_name(parameter) != name {
        return None;
    }
    let equals = parameter.iter().position(|&byte| byte == b'=')?;
    let value: Vec<u8> =
        parameter.get(equals + 1..)?.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
    Some(percent_decode(&value).into_owned())
}

/// The position of the segment `{token}` if a path fits the pattern.
pub(super) fn segment(pattern: &[String], path: &[u8]) -> Option<usize> {
    let mut segments = path.split(|&byte| byte == b'/');
    let mut token = None;
    for (at, expected) in pattern.iter().enumerate() {
        if expected == "**" {
            return token;
        }
        let found = segments.next()?;
        match expected.as_str() {
            "{token}" => token = Some(at),
            "*" => {}
            literal if literal.as_bytes() == percent_decode(found).as_ref() => {}
            _ => return None,
        }
    }
    token.filter(|_| segments.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixture::{request, response};

    #[test]
    fn cookies_are_found_where_they_are() {
        let request = request("GET /\ncookie: a=1; sid = x=y ;b=2\ncookie: sid=later");
        assert_eq!(cookie(&request.headers, "sid"), Some(b"x=y".as_slice()));
        assert_eq!(cookie(&request.headers, "b"), Some(b"2".as_slice()));
        assert_eq!(cookie(&request.headers, "id"), None);
        let response = response("200\nset-cookie: sid=1; Path=/\nSet-Cookie: sid=2\nset-cookie: other=sid=3");
        assert_eq!(set_cookie(&response.headers, "sid"), Some(b"2".as_slice()));
        assert_eq!(set_cookie(&response.headers, "Path"), None);
    }

    #[test]
    fn a_path_fits_its_pattern_segment_by_segment() {
        let cases = [
            ("/carts/{token}", "/carts/17", Some(2)),
            ("/carts/{token}", "/c%61rts/17", Some(2)),
            ("/carts/{token}", "/carts/17/items", None),
            ("/carts/{token}", "/carts", None),
            ("/carts/{token}/**", "/carts/17", Some(2)),
            ("/carts/{token}/**", "/carts/17/items/3", Some(2)),
            ("/*/{token}/items", "/carts/17/items", Some(2)),
            ("/*/{token}/items", "/carts/17/lines", None),
        ];
        for (pattern, path, expected) in cases {
            let pattern: Vec<String> = pattern.split('/').map(str::to_owned).collect();
            assert_eq!(segment(&pattern, path.as_bytes()), expected, "{pattern:?} {path}");
        }
    }

    #[test]
    fn what_is_empty_too_long_or_masked_is_no_value() {
        for (length, usable) in [(0, false), (1, true), (MAX_VALUE, true), (MAX_VALUE + 1, false)] {
            assert_eq!(is_usable(&vec![b'x'; length]), usable, "{length}");
        }
        assert!(!is_usable(b"[masked: 7]"));
        for (length, found) in [(MAX_DOCUMENT, true), (MAX_DOCUMENT + 1, false)] {
            let body = Bytes::from(format!("[\"{}\"]", "x".repeat(length - 4)));
            assert_eq!(document(&Headers::default(), &body).is_some(), found, "{length}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(parameter(b"t%6fken=a%2Bb+c", "token"), Some(b"a+b c".to_vec()));
        assert_eq!(parameter(b"token", "token"), None);
        assert_eq!(parameter(b"tokens=1", "token"), None);
    }
}
