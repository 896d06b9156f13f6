//! Brings header fields into a form in which equal meanings are equal texts, and finds the fields that differ.

use std::collections::{BTreeMap, BTreeSet};

use super::weigh::{Findings, Other, Sort, ValueType};
use crate::exchange::{Headers, Response};
use crate::policy::mask::{Kept, Masker};

/// Fields that differ between any two answers, or belong to the connection (RFC 9110, section 7.6.1; RFC 9112).
const NEVER: &[&str] = &[
    "age",
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Fields that are lists in which order and case mean nothing.
const LISTS: &[&str] = &[
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-expose-headers",
    "allow",
    "cache-control",
    "vary",
];

const TEXT: Sort<String> = Sort { same: String::eq, value_type: |_| ValueType::String, silenced: true };

/// A cookie that is set: its attributes, normalised. Its value is not looked at.
type Cookies = BTreeMap<String, Vec<String>>;

/// Whether a field is one that makes no sense to compare.
pub(super) fn is_never_compared(name: &str) -> bool {
    NEVER.contains(&name)
}

/// Enters the differences of one field.
pub(super) fn compare(
    name: &str,
    production: &Response,
    judged: &Response,
    other: Option<&Response>,
    masker: &Masker,
    findings: &mut Findings,
) {
    if production.headers.all(name).eq(judged.headers.all(name)) {
        return;
    }
    let place = || format!("header:{name}");
    if name == "set-cookie" {
        let (production, judged) = (cookies(&production.headers), cookies(&judged.headers));
        let other = other.map(|other| cookies(&other.headers));
        let names: BTreeSet<&String> = production.keys().chain(judged.keys()).collect();
        let sort: Sort<Vec<String>> =
            Sort { same: Vec::eq, value_type: |_| ValueType::String, silenced: true };
        for cookie in names {
            let (ours, theirs) = (production.get(cookie), judged.get(cookie));
            let other = other.as_ref().map_or(Other::Silent, |other| Other::Says(other.get(cookie).cloned()));
            if let Some(found) = sort.weigh(ours, theirs, &other) {
                let keep = |attributes: &Vec<String>| masker.keep_cookie(cookie, attributes);
                findings.add(found, place, || (ours.map(keep), theirs.map(keep)));
            }
        }
        return;
    }
    let (ours, theirs) = (normalised(name, &production.headers), normalised(name, &judged.headers));
    let other = other.map_or(Other::Silent, |other| Other::Says(normalised(name, &other.headers)));
    if let Some(found) = TEXT.weigh(ours.as_ref(), theirs.as_ref(), &other) {
        let keep = |headers: &Headers| -> Option<Kept<String>> {
            let values: Vec<&[u8]> = headers.all(name).map(AsRef::as_ref).collect();
            if values.is_empty() { None } else { Some(masker.keep_header(name, &values.join(&b", "[..]))) }
        };
        findings.add(found, place, || (keep(&production.headers), keep(&judged.headers)));
    }
}

/// The value of a field in normal form; `None` when the field is not there.
fn normalised(name: &str, headers: &Headers) -> Option<String> {
    let values: Vec<String> =
        headers.all(name).map(|value| String::from_utf8_lossy(value).trim().to_owned()).collect();
    if values.is_empty() {
        return None;
    }
    let value = values.join(", ");
    Some(match name {
        "content-type" => content_type(&value),
        "location" | "content-location" => without_authority(&value).to_owned(),
        _ if LISTS.contains(&name) => {
            let mut members: Vec<String> =
                split(&value, ',').map(|member| member.to_ascii_lowercase()).collect();
            members.sort_unstable();
            members.dedup();
            members.join(", ")
        }
        _ => value,
    })
}

/// A media type with its parameters in order, without quotes; a multipart boundary is arbitrary and left out.
fn content_type(value: &str) -> String {
    let mut parts = split(value, ';');
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let mut parameters: Vec<String> = parts
        .filter_map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
            match name.as_str() {
                "boundary" => None,
                "charset" => Some(format!("charset={}", value.to_ascii_lowercase())),
                _ => Some(format!("{name}={value}")),
            }
        })
        .collect();
    parameters.sort_unstable();
    parameters.insert(0, essence);
    parameters.join("; ")
}

/// A URL without scheme and authority: whoever answers names itself there.
fn without_authority(url: &str) -> &str {
    let scheme_ends = url.find("://").filter(|&at| {
        at > 0 && url.bytes().take(at).all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    let authority = match scheme_ends {
        Some(at) => at + 3,
        None if url.starts_with("//") => 2,
        None => return url,
    };
    let rest = url.get(authority..).unwrap_or_default();
    rest.find(['/', '?', '#']).and_then(|at| rest.get(at..)).unwrap_or("/")
}

/// The cookies that an answer sets (RFC 6265, section 4.1): names, and attributes in order. An expiry date counts as
/// being there, its value differs with the time of the answer.
fn cookies(headers: &Headers) -> Cookies {
    let mut cookies = Cookies::new();
    for value in headers.all("set-cookie") {
        let value = String::from_utf8_lossy(value);
        let mut parts = value.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().split('=').next().unwrap_or_default().trim().to_owned();
        let mut attributes: Vec<String> = parts
            .filter(|attribute| !attribute.is_empty())
            .map(|attribute| {
                let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
                let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
                match key.as_str() {
                    "samesite" => format!("{key}={}", value.to_ascii_lowercase()),
                    "expires" => key,
                    _ if value.is_empty() => key,
                    _ => format!("{key}={value}"),
                }
            })
            .collect();
        attributes.sort_unstable();
        cookies.insert(name, attributes);
    }
    cookies
}

/// Splits at a separator that is not in a quoted string (RFC 9110, section 5.6.4); members are trimmed, empty ones
/// left out.
fn split(value: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |char| {
            match char {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ => {}
            }
            char == separator && !quoted
        })
        .map(str::trim)
        .filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixture::response;

    #[test]
    fn equal_meanings_are_equal_texts() {
        let cases = [
            ("content-type", "Text/HTML;Charset=\"UTF-8\"", "text/html; charset=utf-8", true),
            ("content-type", "a/b; y=2; x=1", "a/b;x=1;y=2", true),
            ("content-type", "multipart/form-data; boundary=a", "multipart/form-data; boundary=b", true),
            ("content-type", "text/html", "text/plain", false),
            ("content-type", "a/b; x=\"p;q\"", "a/b; x=\"p", false),
            ("location", "http://a:1/x?y#z", "https://b/x?y#z", true),
            ("location", "http://a", "/", true),
            ("location", "//a/x", "/x", true),
            ("location", "http://a?x", "http://b?y", false),
            ("location", "/x", "/y", false),
            ("location", "/x?u=http://a/", "/x?u=http://b/", false),
            ("cache-control", "No-Cache,  max-age=1", "max-age=1, no-cache", true),
            ("cache-control", "max-age=1", "max-age=2", false),
            ("vary", "A, b", "B,a,,a", true),
            ("x-any", "a, b", "b, a", false),
            ("x-any", " a", "a", true),
        ];
        for (name, one, other, expected) in cases {
            let value = |value: &str| normalised(name, &response(&format!("200\n{name}: {value}")).headers);
            assert_eq!(value(one) == value(other), expected, "{name}: {one} and {other}");
        }
    }

    #[test]
    fn cookies_are_compared_by_name_and_attributes() {
        let cases = [
            ("a=1; Path=/; Secure", "a=2; secure;path=/", true),
            ("a=1; Expires=Mon", "a=1; expires=Tue", true),
            ("a=1; SameSite=LAX", "a=1; samesite=lax", true),
            ("a=1; HttpOnly", "a=1", false),
            ("a=1; Max-Age=1", "a=1; max-age=2", false),
            ("a=1", "b=1", false),
        ];
        for (one, other, expected) in cases {
            let value = |value: &str| cookies(&response(&format!("200\nSet-Cookie: {value}")).headers);
            assert_eq!(value(one) == value(other), expected, "{one} and {other}");
        }
    }
}
