use proptest::prelude::*;

use super::*;
use crate::config::{Mask, MaskRules, OwnCredentials, Secret};
use crate::policy::fixture::{documents, exchange};

fn rules(headers: &[&str], fields: &[&str], query: &[&str]) -> MaskRules {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    MaskRules { headers: owned(headers), fields: owned(fields), query: owned(query), ..MaskRules::default() }
}

fn masker(send: MaskRules, credentials: Credentials) -> Masker {
    Masker::new(&Mask { send, ..Mask::default() }, credentials).unwrap()
}

/// Renders what would be sent as the text that the request was written in.
fn sent(masker: &Masker, request: &str, response: &str) -> Result<(String, bool), SkipReason> {
    let sendable = masker.sendable(&exchange(request, response))?;
    let mut text = format!("{} {}", sendable.method(), String::from_utf8_lossy(sendable.target()));
    for (name, value) in sendable.headers().iter() {
        text += &format!("\n{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    }
    if !sendable.body().is_empty() {
        text += &format!("\n\n{}", String::from_utf8_lossy(sendable.body()));
    }
    Ok((text, sendable.altered()))
}

#[track_caller]
fn check(masker: &Masker, request: &str, response: &str, expected: Result<(&str, bool), SkipReason>) {
    let expected = expected.map(|(text, altered)| (text.to_owned(), altered));
    assert_eq!(sent(masker, request, response), expected, "{request}");
}

#[test]
fn without_rules_a_request_is_sent_as_it_is() {
    let masker = Masker::default();
    for request in
        ["GET /a?x=%41\nAccept: */*\nX-A: b", "PUT /a\nRange: bytes=0-1\n\n{\"a\": 1}", "OPTIONS *"]
    {
        check(&masker, request, "200", Ok((request, false)));
    }
    check(&masker, "GET http://u:p@h/a?x\nHost: h", "200", Ok(("GET /a?x\nHost: h", false)));
    check(&masker, "GET http://h", "200", Ok(("GET /", false)));
    check(&masker, "GET http://h?x", "200", Ok(("GET /?x", false)));
}

#[test]
fn credentials_are_refused_forwarded_or_stripped() {
    let request = "GET /a;jsessionid=1?token=2&x=3\nCookie: a=b\nAuthorization: Bearer x\nAccept: */*";
    check(&masker(rules(&[], &[], &[]), Credentials::Skip), request, "200", Err(SkipReason::Credentials));
    let forward = masker(rules(&[], &[], &[]), Credentials::Forward);
    check(&forward, request, "200", Ok(("GET /a?x=3\nAccept: */*", false)));
    let replace = masker(rules(&[], &[], &[]), Credentials::Replace);
    check(&replace, request, "200", Ok(("GET /a?x=3\nAccept: */*", true)));
    let own = OwnCredentials {
        headers: vec![("x-tenant".to_owned(), Secret::Env("X".to_owned()))],
        query: vec![("x".to_owned(), Secret::Env("X".to_owned()))],
    };
    let replace = replace.replacing(std::iter::once(&own));
    check(&replace, "GET /a?x=3&y=4\nX-Tenant: b\nAccept: */*", "200", Ok(("GET /a?y=4\nAccept: */*", true)));
    check(&replace, "GET /a?y=4", "200", Ok(("GET /a?y=4", false)));
    let strip = masker(rules(&[], &[], &[]), Credentials::Strip);
    check(&strip, request, "200", Ok(("GET /a?x=3\nAccept: */*", true)));
    check(&strip, "GET /a?x=3\nAccept: */*", "200", Ok(("GET /a?x=3\nAccept: */*", false)));
}

#[test]
fn credentials_travel_apart_and_nothing_shows_them() {
    let forward = masker(rules(&[], &[], &[]), Credentials::Forward);
    let exchange = exchange(
        "GET /a;jsessionid=s3cr3t?token=s3cr3t\nCookie: s3cr3t\nAuthorization: s3cr3t\nAccept: */*",
        "200",
    );
    let sendable = forward.sendable(&exchange).unwrap();
    let shown = format!("{sendable:?} {:?} {:?}", sendable.credentials(), sendable.target());
    assert!(!shown.contains("s3cr3t"), "{shown}");
    assert!(sendable.headers().iter().all(|(_, value)| value != "s3cr3t"));
    let masked = masker(rules(&["cookie"], &[], &[]), Credentials::Forward).sendable(&exchange).unwrap();
    assert!(masked.altered(), "what is masked is masked before it is put apart");
}

#[test]
fn rules_change_what_is_sent() {
    let masker = masker(rules(&["x-user"], &["$..email", "$.n"], &["q", "a b"]), Credentials::Skip);
    let cases = [
        ("GET /a\nX-User: bob", Ok(("GET /a\nX-User: masked", true))),
        ("GET /a?q=bob&r=1&Q&a+b=2", Ok(("GET /a?q=masked&r=1&Q=masked&a+b=masked", true))),
        ("GET /a?r=q", Ok(("GET /a?r=q", false))),
        ("GET /a\nReferer: http://h/?q=bob", Ok(("GET /a\nReferer: http://h/?q=masked", true))),
        (
            "PUT /a\nDigest: x\n\n{\"email\": \"bob\", \"n\": 7, \"l\": [{\"email\": {\"a\": 1}}]}",
            Ok(("PUT /a\n\n{\"email\":\"masked\",\"l\":[{\"email\":{}}],\"n\":0}", true)),
        ),
        ("PUT /a\n\n{\"a\": 1e2}", Ok(("PUT /a\n\n{\"a\": 1e2}", false))),
        ("PUT /a\n\n{\"p\":\"{\\\"email\\\":1}\"}", Ok(("PUT /a\n\n{\"p\":\"{\\\"email\\\":0}\"}", true))),
        ("PUT /a\n\nemail=bob", Err(SkipReason::Unmaskable)),
        ("PUT /a\nContent-Encoding: gzip\n\n{}", Err(SkipReason::Unmaskable)),
        ("PUT /a\n\n{\"email\":1,\"email\":2}", Err(SkipReason::Unmaskable)),
        ("PUT /a\n\n{\"p\":\"{\\\"email\\\":1\"}", Err(SkipReason::Unmaskable)),
        ("PUT /a\n\n{\"email\":\"{\\\"email\\\":1\"}", Ok(("PUT /a\n\n{\"email\":\"masked\"}", true))),
    ];
    for (request, expected) in cases {
        check(&masker, request, "200", expected);
    }
}

#[test]
fn an_encoded_body_is_masked_and_sent_encoded() {
    use std::io::Read;
    let mut gzip = Vec::new();
    flate2::read::GzEncoder::new(&br#"{"email":"bob"}"#[..], flate2::Compression::fast())
        .read_to_end(&mut gzip)
        .unwrap();
    let mut exchange = exchange("PUT /a\nContent-Encoding: gzip\nContent-Type: application/json", "200");
    exchange.request.body = gzip.into();
    let masker = masker(rules(&[], &["$.email"], &[]), Credentials::Skip);
    let sendable = masker.sendable(&exchange).unwrap();
    let decoded = content::decode(sendable.headers(), sendable.body(), MAX_UNMASKED).unwrap();
    assert_eq!(decoded, r#"{"email":"masked"}"#);
    assert!(sendable.headers().contains("content-encoding") && sendable.headers().contains("content-type"));
    // Of what there is no encoder for, nothing is left but the masked body.
    exchange.request.headers.0[0].1 = Bytes::from_static(b"gzip, identity, gzip");
    let once = Headers(vec![("content-encoding".into(), "gzip".into())]);
    let inner = content::encode_alike(&once, br#"{"email":"bob"}"#).unwrap();
    exchange.request.body = content::encode_alike(&once, &inner).unwrap();
    let sendable = masker.sendable(&exchange).unwrap();
    assert_eq!(sendable.body(), r#"{"email":"masked"}"#);
    assert!(!sendable.headers().contains("content-encoding"));
}

#[test]
fn a_body_larger_than_the_limit_cannot_be_masked() {
    let masker = masker(rules(&[], &["$.email"], &[]), Credentials::Skip);
    let mut exchange = exchange("PUT /a", "200");
    for (length, expected) in [(MAX_UNMASKED, Ok(false)), (MAX_UNMASKED + 1, Err(SkipReason::Unmaskable))] {
        let mut body = vec![b' '; length];
        body[..2].copy_from_slice(b"{}");
        exchange.request.body = body.into();
        assert_eq!(masker.sendable(&exchange).map(|sendable| sendable.altered()), expected);
    }
}

#[test]
fn preconditions_that_held_are_removed() {
    let conditional =
        "GET /a\nIf-None-Match: x\nif-modified-since: x\nIf-Match: x\nIf-Unmodified-Since: x\nA: b";
    let range = "GET /a\nRange: bytes=0-1";
    let if_range = "GET /a\nRange: bytes=0-1\nIf-Range: x";
    let masker = Masker::default();
    check(&masker, conditional, "200", Ok(("GET /a\nA: b", false)));
    check(&masker, conditional, "412", Ok((conditional, false)));
    check(&masker, range, "200", Ok((range, false)));
    check(&masker, range, "206", Ok((range, false)));
    check(&masker, if_range, "206", Ok((range, false)));
    check(&masker, if_range, "200", Ok(("GET /a", false)));
}

proptest! {
    #[test]
    fn a_masked_value_is_never_sent(document in documents()) {
        let masker = masker(rules(&[], &["$..email"], &[]), Credentials::Skip);
        let text = document.to_string();
        match sent(&masker, &format!("PUT /a\n\n{text}"), "200") {
            Ok((sent, altered)) => {
                prop_assert!(!sent.contains("SECRET"), "{}", sent);
                prop_assert_eq!(altered, text.contains("SECRET"));
            }
            Err(reason) => prop_assert_eq!(reason, SkipReason::Unmaskable),
        }
    }
}

#[test]
fn trailers_are_masked_like_headers() {
    let mut exchange = exchange("POST /a\nx-user: bob", "200");
    exchange.request.version = http::Version::HTTP_2;
    exchange.request.trailers =
        self::exchange("POST /\nx-sum: 1\nx-user: bob\nx-api-key: 2", "200").request.headers;
    let masked = masker(rules(&["x-user"], &[], &[]), Credentials::Strip).sendable(&exchange).unwrap();
    let trailers: Vec<_> = masked.trailers().iter().map(|(_, value)| value.as_ref()).collect();
    assert_eq!((trailers, masked.altered()), (vec![&b"1"[..], b"masked"], true));
    assert_eq!(masked.version(), http::Version::HTTP_2);
}

#[test]
fn messages_of_grpc_cannot_be_masked_by_fields() {
    let with_fields = masker(rules(&[], &["$..email"], &[]), Credentials::Forward);
    for (kind, message) in [("grpc", "\u{1}a"), ("grpc+proto", ""), ("grpc+json", "{\"email\":\"bob\"}")] {
        let length = char::from(u8::try_from(message.len()).unwrap());
        let body = format!("\0\0\0\0{length}{message}");
        let call = format!("POST /shop.Shop/Find\ncontent-type: application/{kind}\n\n{body}");
        assert_eq!(
            with_fields.sendable(&exchange(&call, "200")).unwrap_err(),
            SkipReason::Unmaskable,
            "{kind}"
        );
        assert!(Masker::default().sendable(&exchange(&call, "200")).is_ok(), "{kind}");
    }
    let without_message = exchange("POST /shop.Shop/Find\ncontent-type: application/grpc", "200");
    assert!(with_fields.sendable(&without_message).is_ok());
}
