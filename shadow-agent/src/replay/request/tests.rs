use super::*;
use crate::replay::tests::{sendable, target};

type Fields<'a> = &'a [(&'a str, &'a str)];

/// The message made of a request for a target that was changed.
fn made(
    change: impl FnOnce(&mut config::Target),
    method: &str,
    path: &str,
    headers: Fields<'_>,
    body: &str,
) -> Result<Request<Full<Bytes>>, Unsendable> {
    let mut target = target(80);
    change(&mut target);
    Rewrite::new(&target, Contexts::new(config::TraceContext::Mint, 0))
        .unwrap()
        .apply(&sendable(method, path, headers, body))
}

fn values<'a>(message: &'a Request<Full<Bytes>>, name: &str) -> Vec<&'a [u8]> {
    message.headers().get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

#[test]
fn the_prefix_stands_before_every_target_but_the_asterisk() {
    let cases = [
        ("http://h", "/a?b=1", "/a?b=1"),
        ("http://h/", "/", "/"),
        ("http://h/", "//a//b", "//a//b"),
        ("http://h/v2", "/a", "/v2/a"),
        ("http://h/v2/", "/a", "/v2/a"),
        ("http://h/v2", "/", "/v2/"),
        ("http://h/v2", "?x", "/v2/?x"),
        ("http://h", "?x", "/?x"),
        ("http://h/v2", "*", "*"),
        ("http://h", "/{}\u{e9}?a|b", "/{}\u{e9}?a|b"),
        ("http://h/v2", "/a^b?c=<%20>&\u{e9}", "/v2/a%5Eb?c=%3C%20%3E&%C3%A9"),
    ];
    for (url, path, expected) in cases {
        let message = made(|target| target.url = url.parse().unwrap(), "OPTIONS", path, &[], "");
        assert_eq!(message.unwrap().uri().to_string(), expected, "{path} at {url}");
    }
}

#[test]
fn what_http_cannot_express_is_an_error() {
    let long = format!("/{}", "x".repeat(1 << 16));
    let cases: [(&str, &str, Fields<'_>); 9] = [
        ("CONNECT", "h:80", &[]),
        ("GET", "/a b", &[]),
        ("GET", "/a\u{1}b", &[]),
        ("GET", "/a#b", &[]),
        ("GET", &long, &[]),
        ("GET", "relative", &[]),
        ("GET", "/", &[("na me", "x")]),
        ("GET", "/", &[("", "x")]),
        ("GET", "/", &[("x", "a\u{1}b")]),
    ];
    for (method, path, headers) in cases {
        let made = made(|_| {}, method, path, headers, "");
        assert!(made.is_err(), "{method} {:.20} {headers:?}", path);
    }
}

#[test]
fn too_many_fields_are_an_error_and_no_panic() {
    let names: Vec<String> = (0..40_000).map(|number| format!("x-{number}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert!(matches!(made(|_| {}, "GET", "/", &headers, ""), Err(Unsendable::Fields(_))));
}

#[test]
fn hop_by_hop_fields_stay_behind() {
    let headers = [
        ("host", "h"),
        ("Connection", "close, X-One , host,"),
        ("connection", "x-two"),
        ("X-One", "1"),
        ("x-two", "2"),
        ("x-three", "3"),
        ("Keep-Alive", "1"),
        ("Proxy-Connection", "1"),
        ("TE", "gzip"),
        ("Trailer", "x"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "h2c"),
        ("Expect", "100-continue"),
        ("Content-Length", "77"),
    ];
    let message = made(|_| {}, "POST", "/", &headers, "ab").unwrap();
    let mut names: Vec<_> = message.headers().keys().map(HeaderName::as_str).collect();
    names.retain(|name| {
        !name.starts_with("x-shadow") && !["baggage", "idempotency-key", "traceparent"].contains(name)
    });
    names.sort_unstable();
    assert_eq!(names, ["content-length", "host", "x-three"]);
    assert_eq!(values(&message, "content-length"), [b"2"]);
}

#[test]
fn a_client_that_reads_trailers_still_says_so() {
    let headers = [("Connection", "TE"), ("TE", "gzip;q=0.5, Trailers")];
    let message = made(|_| {}, "GET", "/", &headers, "").unwrap();
    assert_eq!(values(&message, "te"), [b"trailers"]);
    assert_eq!(values(&message, "connection"), [b"te"]);
}

#[test]
fn the_length_is_that_of_the_body_where_there_was_framing() {
    let cases: [(&str, Fields<'_>, &str, &[&str]); 5] = [
        ("GET", &[], "", &[]),
        ("POST", &[("content-length", "0")], "", &["0"]),
        ("POST", &[("transfer-encoding", "chunked")], "", &["0"]),
        ("POST", &[("content-length", "9"), ("content-length", "9")], "abc", &["3"]),
        ("GET", &[("transfer-encoding", "chunked")], "abc", &["3"]),
    ];
    for (method, headers, body, expected) in cases {
        let message = made(|_| {}, method, "/", headers, body).unwrap();
        let expected: Vec<_> = expected.iter().map(|length| length.as_bytes()).collect();
        assert_eq!(values(&message, "content-length"), expected, "{method} {headers:?} {body:?}");
    }
}

#[test]
fn the_operator_sets_and_removes_and_the_marks_come_last() {
    let change = |target: &mut config::Target| {
        target.remove_headers = vec!["x-internal".into(), "x-shadow-request".into()];
        target.set_headers =
            vec![("X-Env".into(), "a".into()), ("x-env".into(), "b".into()), ("host".into(), "other".into())];
    };
    let headers = [("X-Internal", "1"), ("x-env", "production"), ("Host", "shop"), ("accept", "*/*")];
    let message = made(change, "GET", "/", &headers, "").unwrap();
    assert_eq!(values(&message, "x-env"), [b"a", b"b"]);
    assert_eq!(values(&message, "host"), [b"other"]);
    assert_eq!(values(&message, "x-internal"), [b""; 0]);
    assert_eq!(values(&message, "accept"), [b"*/*"]);
    assert_eq!(values(&message, "x-shadow-request"), [b"1"]);
}

#[test]
fn the_host_is_kept_and_given_where_there_was_none() {
    let port = |target: &mut config::Target| target.url = "http://10.0.0.9:8080".parse().unwrap();
    for (headers, expected) in [(&[("HOST", "shop")][..], "shop"), (&[][..], "10.0.0.9:8080")] {
        let message = made(port, "GET", "/", headers, "").unwrap();
        assert_eq!(values(&message, "host"), [expected.as_bytes()]);
    }
}

#[test]
fn an_unsafe_request_without_a_key_gets_one_of_its_target_s_own() {
    let key = |change: fn(&mut config::Target), method: &str, headers: Fields<'_>| {
        let message = made(change, method, "/", headers, "").unwrap();
        values(&message, "idempotency-key").first().map(|key| key.to_vec())
    };
    let usual = key(|_| {}, "POST", &[]).unwrap();
    for method in ["PUT", "DELETE", "PATCH", "PURGE"] {
        assert_eq!(key(|_| {}, method, &[]).as_ref(), Some(&usual), "{method}");
    }
    for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
        assert_eq!(key(|_| {}, method, &[]), None, "{method}");
    }
    assert_ne!(key(|target| target.name = "baseline".into(), "POST", &[]).unwrap(), usual);
    assert_eq!(key(|_| {}, "POST", &[("Idempotency-Key", "own")]).unwrap(), b"own");
    assert_eq!(key(|target| target.idempotency_header = None, "POST", &[]), None);
    let another = |target: &mut config::Target| target.idempotency_header = Some("x-request-key".into());
    let message = made(another, "POST", "/", &[], "").unwrap();
    assert_eq!(values(&message, "x-request-key"), [&usual[..]]);
    assert_eq!(values(&message, "idempotency-key"), [b""; 0]);
}

#[test]
fn the_host_is_production_s_the_target_s_or_a_given_one() {
    use config::HostHeader;
    for (policy, expected) in [
        (HostHeader::Preserve, "shop.example"),
        (HostHeader::Target, "h:8080"),
        (HostHeader::Name("other.example".into()), "other.example"),
    ] {
        let change = |target: &mut config::Target| {
            target.url = "http://h:8080/v2".parse().unwrap();
            target.host = policy.clone();
        };
        let message = made(change, "GET", "/", &[("host", "shop.example")], "").unwrap();
        assert_eq!(values(&message, "host"), [expected.as_bytes()], "{policy:?}");
    }
}

#[test]
fn a_dry_run_says_so_in_one_field_and_no_other_request_does() {
    let mut rewrite = Rewrite::new(&target(80), Contexts::new(config::TraceContext::Mint, 0)).unwrap();
    assert!(!rewrite.has_dry_run());
    let field = ("x-dry-run".to_owned(), "yes".to_owned());
    rewrite.understand_dry_runs("candidate", &field).unwrap();
    let request = Sendable::clone(&sendable("POST", "/", &[("x-dry-run", "no"), ("X-Dry-Run", "2")], ""));
    let sent = rewrite.apply(&request).unwrap();
    assert_eq!(values(&sent, "x-dry-run"), [b"no".as_slice(), b"2"], "what the client said");
    let sent = rewrite.apply(&request.as_dry_run()).unwrap();
    assert_eq!(values(&sent, "x-dry-run"), [b"yes"]);
    let refused = rewrite.understand_dry_runs("candidate", &("connection".to_owned(), "x".to_owned()));
    assert!(refused.is_err());
}
