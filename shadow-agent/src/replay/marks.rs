//! The marks by which a replayed request is known as one.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::unsendable::Unsendable;
use crate::exchange::{ExchangeId, Timestamp};

const REQUEST: HeaderName = HeaderName::from_static("x-shadow-request");
const EXCHANGE: HeaderName = HeaderName::from_static("x-shadow-exchange");
const TIME: HeaderName = HeaderName::from_static("x-shadow-time");
const ORIGIN_TRACE: HeaderName = HeaderName::from_static("x-shadow-origin-traceparent");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const BAGGAGE_MEMBER: &[u8] = b"shadow=true";
/// The `sampled` bit of the trace flags.
const SAMPLED: u8 = 0x01;

/// Puts every mark on a request; `seen` is when production's request was seen.
///
/// The trace starts anew, so that spans of the shadow never join production's trace. The trace id of the original goes
/// into `x-shadow-origin-traceparent`; whether it was sampled is kept; `tracestate` belongs to the old trace and is
/// dropped (W3C Trace Context, section 3.3).
///
/// # Errors
/// When the request has too many fields already.
pub(super) fn put(headers: &mut HeaderMap, id: ExchangeId, seen: Timestamp) -> Result<(), Unsendable> {
    let original = original_trace(headers);
    let baggage = baggage(headers)?;
    headers.remove(TRACESTATE);
    headers.remove(ORIGIN_TRACE);
    headers.try_insert(REQUEST, HeaderValue::from_static("1"))?;
    headers.try_insert(EXCHANGE, HeaderValue::try_from(id.to_string())?)?;
    headers.try_insert(TIME, HeaderValue::try_from(seen.to_string())?)?;
    headers.try_insert(BAGGAGE, baggage)?;
    headers.try_insert(TRACEPARENT, HeaderValue::try_from(new_trace(original.as_ref()))?)?;
    if let Some(original) = original {
        headers.try_insert(ORIGIN_TRACE, original.id)?;
    }
    Ok(())
}

/// The trace that the original request was part of.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    id: HeaderValue,
    sampled: bool,
}

/// Reads `traceparent` (W3C Trace Context, section 3.2.2); a missing, repeated or invalid one is no trace.
fn original_trace(headers: &HeaderMap) -> Option<Trace> {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    let line = lines.next()?.as_bytes();
    if lines.next().is_some() {
        return None;
    }
    let mut parts = line.splitn(5, |&byte| byte == b'-');
    let mut part =
        |len: usize| parts.next().filter(|part| part.len() == len && part.iter().all(is_lower_hex));
    let (version, id, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    // Only version 00 is known to end here; later ones may go on.
    let ends = parts.next().is_none();
    let valid = version != b"ff"
        && (version != b"00" || ends)
        && id.iter().any(|&digit| digit != b'0')
        && parent.iter().any(|&digit| digit != b'0');
    let flags = u8::from_str_radix(str::from_utf8(flags).ok()?, 16).ok()?;
    let id = HeaderValue::from_bytes(id).ok()?;
    valid.then_some(Trace { id, sampled: flags & SAMPLED != 0 })
}

fn is_lower_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn new_trace(original: Option<&Trace>) -> String {
    let flags = if original.is_some_and(|trace| trace.sampled) { SAMPLED } else { 0 };
    let (trace, span) = (fastrand::u128(1..), fastrand::u64(1..));
    format!("00-{trace:032x}-{span:016x}-{flags:02x}")
}

/// All baggage of the request in one line, `shadow=true` appended.
fn baggage(headers: &HeaderMap) -> Result<HeaderValue, Unsendable> {
    let mut members = Vec::new();
    for line in headers.get_all(BAGGAGE).iter().filter(|line| !line.is_empty()) {
        members.extend_from_slice(line.as_bytes());
        members.push(b',');
    }
    members.extend_from_slice(BAGGAGE_MEMBER);
    Ok(HeaderValue::try_from(members)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn marked(original: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in original {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        put(&mut headers, ExchangeId(0xab), Timestamp(1_700_000_000_000_000_001)).unwrap();
        headers
    }

    fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        assert!(headers.get_all(name).iter().count() <= 1, "{name} stands once");
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn a_request_without_any_context_gets_every_mark() {
        let headers = marked(&[]);
        assert_eq!(one(&headers, "x-shadow-request"), Some("1"));
        assert_eq!(one(&headers, "x-shadow-exchange"), Some("00000000000000ab"));
        assert_eq!(one(&headers, "x-shadow-time"), Some("2023-11-14T22:13:20.000000001Z"));
        assert_eq!(one(&headers, "baggage"), Some("shadow=true"));
        assert_eq!(one(&headers, "x-shadow-origin-traceparent"), None);
        let traceparent = one(&headers, "traceparent").unwrap();
        assert!(traceparent.starts_with("00-") && traceparent.ends_with("-00") && traceparent.len() == 55);
    }

    #[test]
    fn baggage_keeps_its_members_and_ends_with_ours() {
        let cases: [(&[(&str, &str)], &str); 3] = [
            (&[("baggage", "user=7;p=1")], "user=7;p=1,shadow=true"),
            (&[("baggage", "a=1"), ("baggage", "b=2")], "a=1,b=2,shadow=true"),
            (&[("baggage", "")], "shadow=true"),
        ];
        for (original, expected) in cases {
            assert_eq!(one(&marked(original), "baggage"), Some(expected));
        }
    }

    #[test]
    fn the_trace_starts_anew_and_names_its_origin() {
        let span = "b7ad6b7169203331";
        // (traceparent, origin named, flags of the new one)
        let cases = [
            (format!("00-{TRACE}-{span}-01"), Some(TRACE), "01"),
            (format!("00-{TRACE}-{span}-00"), Some(TRACE), "00"),
            (format!("cc-{TRACE}-{span}-03-later"), Some(TRACE), "01"),
            (format!("00-{TRACE}-{span}-01-later"), None, "00"),
            (format!("ff-{TRACE}-{span}-01"), None, "00"),
            (format!("00-{}-{span}-01", "0".repeat(32)), None, "00"),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None, "00"),
            (format!("00-{}-{span}-01", TRACE.to_uppercase()), None, "00"),
            (format!("00-{TRACE}-{span}"), None, "00"),
            ("garbage".to_owned(), None, "00"),
        ];
        for (original, origin, flags) in cases {
            let headers = marked(&[("traceparent", &original), ("tracestate", "vendor=1")]);
            assert_eq!(one(&headers, "x-shadow-origin-traceparent"), origin, "origin of {original}");
            let new = one(&headers, "traceparent").unwrap();
            assert!(!new.contains(TRACE), "{original} went into {new}");
            assert_eq!(new.rsplit('-').next(), Some(flags), "flags after {original}");
            assert_eq!(one(&headers, "tracestate"), None);
        }
    }

    #[test]
    fn marks_that_the_original_brought_are_replaced() {
        let headers = marked(&[
            ("x-shadow-request", "0"),
            ("x-shadow-request", "2"),
            ("x-shadow-origin-traceparent", "forged"),
        ]);
        assert_eq!(one(&headers, "x-shadow-request"), Some("1"));
        assert_eq!(one(&headers, "x-shadow-origin-traceparent"), None);
    }

    #[test]
    fn two_requests_never_share_a_trace() {
        assert_ne!(marked(&[]).get("traceparent"), marked(&[]).get("traceparent"));
    }

    #[test]
    fn every_timestamp_can_be_written() {
        let cases = [(0, "1970-01-01T00:00:00.000000000Z"), (u64::MAX, "2554-07-21T23:34:33.709551615Z")];
        for (nanos, expected) in cases {
            assert_eq!(Timestamp(nanos).to_string(), expected);
        }
    }
}
