//! The marks by which a replayed request is known as one.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::unsendable::Unsendable;
use crate::policy::mask::Sendable;
use crate::traces::{Context, Contexts};

const REQUEST: HeaderName = HeaderName::from_static("x-shadow-request");
const EXCHANGE: HeaderName = HeaderName::from_static("x-shadow-exchange");
const TIME: HeaderName = HeaderName::from_static("x-shadow-time");
const ORIGIN_TRACE: HeaderName = HeaderName::from_static("x-shadow-origin-traceparent");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const BAGGAGE_MEMBER: &[u8] = b"shadow=true";

/// Puts every mark on a request to the target of that name.
///
/// By default the trace starts anew, so that spans of the shadow never join production's trace: the trace id of the
/// original goes into `x-shadow-origin-traceparent`, whether it was sampled is kept, and `tracestate` belongs to the old
/// trace and is dropped (W3C Trace Context, section 3.3). Where the trace is propagated, it goes on with another span.
///
/// # Errors
/// When the request has too many fields already.
pub(super) fn put(
    headers: &mut HeaderMap,
    request: &Sendable,
    traces: &Contexts,
    target: &str,
) -> Result<(), Unsendable> {
    let original = Context::read(headers.get_all(TRACEPARENT).iter().map(HeaderValue::as_bytes));
    let baggage = baggage(headers)?;
    if original.is_none() || !traces.propagates() {
        headers.remove(TRACESTATE);
    }
    headers.remove(ORIGIN_TRACE);
    headers.try_insert(REQUEST, HeaderValue::from_static("1"))?;
    headers.try_insert(EXCHANGE, HeaderValue::try_from(request.id().to_string())?)?;
    headers.try_insert(TIME, HeaderValue::try_from(request.seen().to_string())?)?;
    headers.try_insert(BAGGAGE, baggage)?;
    let context = traces.of(request.id(), Some(target), original.as_ref());
    headers.try_insert(TRACEPARENT, HeaderValue::try_from(context.to_string())?)?;
    if let Some(original) = original {
        headers.try_insert(ORIGIN_TRACE, HeaderValue::try_from(format!("{:032x}", original.trace))?)?;
    }
    Ok(())
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
    use crate::config::TraceContext;
    use crate::exchange::Timestamp;
    use crate::replay::tests::sendable;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn marked(original: &[(&'static str, &str)]) -> HeaderMap {
        marked_by(TraceContext::Mint, original)
    }

    fn marked_by(mode: TraceContext, original: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in original {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let request = sendable("GET", "/", &[], "");
        put(&mut headers, &request, &Contexts::new(mode, 0), "candidate").unwrap();
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
        assert_eq!(one(&headers, "x-shadow-time"), Some("2023-11-14T22:13:20.000000000Z"));
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
    fn a_trace_that_is_propagated_goes_on_with_its_state() {
        let headers = marked_by(
            TraceContext::Propagate,
            &[("traceparent", &format!("00-{TRACE}-b7ad6b7169203331-01")), ("tracestate", "vendor=1")],
        );
        let new = one(&headers, "traceparent").unwrap();
        assert!(new.starts_with(&format!("00-{TRACE}-")) && new.ends_with("-01"), "{new}");
        assert!(!new.contains("b7ad6b7169203331"), "{new}");
        assert_eq!(one(&headers, "tracestate"), Some("vendor=1"));
        assert_eq!(one(&headers, "x-shadow-origin-traceparent"), Some(TRACE));
        let headers = marked_by(TraceContext::Propagate, &[("tracestate", "vendor=1")]);
        assert_eq!(one(&headers, "tracestate"), None, "a state without a trace");
    }

    #[test]
    fn every_timestamp_can_be_written() {
        let cases = [(0, "1970-01-01T00:00:00.000000000Z"), (u64::MAX, "2554-07-21T23:34:33.709551615Z")];
        for (nanos, expected) in cases {
            assert_eq!(Timestamp(nanos).to_string(), expected);
        }
    }
}
