//! The rules of every kind, at both exits: what they change, what they drop, what they count, and what is looked at again.

use super::*;
use crate::config::{Detector, Detectors, MaskPattern, MaskRule, MaskRules};
use crate::exchange::{Exchange, Headers, SkipReason};
use crate::policy::fixture::{exchange, request};

mod property;

/// A rule that hashes, or drops.
fn with(action: MaskAction, name: &str) -> MaskRule {
    MaskRule { action, ..name.into() }
}

fn pattern(name: &str, regex: &str, action: MaskAction) -> MaskPattern {
    MaskPattern { name: name.to_owned(), regex: regex.to_owned(), action }
}

fn on(detectors: &[Detector], action: MaskAction) -> Detectors {
    let mut on = Detectors::default();
    for detector in detectors {
        on.0[*detector as usize] = Some(action);
    }
    on
}

/// A rule of every kind.
fn every(action: MaskAction) -> MaskRules {
    MaskRules {
        headers: vec![with(action, "x-user")],
        cookies: vec![with(action, "sid")],
        query: vec![with(action, "token")],
        form: vec![with(action, "pin")],
        fields: vec![with(action, "$..email")],
        patterns: vec![pattern("staff", "EMP-[0-9]{6}", action)],
        detectors: Detectors::all(action),
    }
}

fn sending(send: MaskRules) -> Masker {
    Masker::new(&Mask { send, ..Mask::default() }, Credentials::Forward).unwrap()
}

fn keeping(keep: MaskRules) -> Masker {
    Masker::new(&Mask { keep, ..Mask::default() }, Credentials::Forward).unwrap()
}

fn shown(sendable: &Sendable) -> String {
    let sendable = sendable.whole_for_test();
    let mut text = format!("{} {}", sendable.method(), String::from_utf8_lossy(sendable.target()));
    for (name, value) in sendable.headers().iter() {
        text += &format!("\n{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    }
    if !sendable.body().is_empty() {
        text += &format!("\n\n{}", String::from_utf8_lossy(sendable.body()));
    }
    text
}

#[track_caller]
fn check_sent(masker: &Masker, cases: &[(&str, Result<&str, SkipReason>)]) {
    for (request, expected) in cases {
        let sent = masker.sendable(&exchange(request, "200"));
        if let Ok(sent) = &sent {
            assert_eq!(sent.altered(), shown(sent) != *request, "{request}");
            assert_eq!(masker.check_sendable(sent), Ok(()), "{request}");
        }
        assert_eq!(sent.map(|sent| shown(&sent)), expected.map(str::to_owned), "{request}");
    }
}

const FORM: &str = "POST /\nContent-Type: application/x-www-form-urlencoded";

#[test]
fn what_rules_name_is_not_sent() {
    let rules =
        MaskRules { patterns: Vec::new(), detectors: Detectors::default(), ..every(MaskAction::Redact) };
    check_sent(
        &sending(rules),
        &[
            ("GET /\nCookie: a=1; sid=s; b=2", Ok("GET /\nCookie: a=1; sid=masked; b=2")),
            ("GET /\nCookie: a=1; xsid=s", Ok("GET /\nCookie: a=1; xsid=s")),
            ("GET /?user[token]=s&user.token=s&t=1", Ok("GET /?user[token]=masked&user.token=masked&t=1")),
            ("GET /?user%5Btoken%5D=s", Ok("GET /?user%5Btoken%5D=masked")),
            ("GET /a;token=s;v=1/b", Ok("GET /a;token=masked;v=1/b")),
            ("GET /\nX-Original-URL: /a?token=s", Ok("GET /\nX-Original-URL: /a?token=masked")),
            ("GET /?f=%7B%22email%22:%22s%22%7D", Ok("GET /?f=%7B%22email%22:%22masked%22%7D")),
            ("GET /?f=%7B%22email%22:%22s", Err(SkipReason::Unmaskable)),
            (
                "GET /\nCookie: p=%7B%22email%22%3A%22s%22%7D; q=%7B%22a%22%3A1%7D",
                Ok("GET /\nCookie: p=%7B%22email%22:%22masked%22%7D; q=%7B%22a%22%3A1%7D"),
            ),
            ("GET /\nCookie: p=%7B%22email%22%3A%22s", Err(SkipReason::Unmaskable)),
            ("GET /\nX-Json: {\"email\":1}", Ok("GET /\nX-Json: {\"email\":0}")),
            (
                &format!("{FORM}\n\npin=1+2&a=b+c&%70in=3"),
                Ok(&format!("{FORM}\n\npin=masked&a=b+c&%70in=masked")),
            ),
            (
                &format!("{FORM}\n\nuser[email]=s&token=s&o[pin]=s"),
                Ok(&format!("{FORM}\n\nuser[email]=masked&token=masked&o[pin]=masked")),
            ),
            (&format!("{FORM}\n\na=1&b"), Ok(&format!("{FORM}\n\na=1&b"))),
            (
                "POST /\nContent-Type: application/x-ndjson\n\n{\"email\":\"s\"}\n{\"a\":1}",
                Ok("POST /\nContent-Type: application/x-ndjson\n\n{\"email\":\"masked\"}\n{\"a\":1}"),
            ),
            ("POST /\nContent-Type: text/plain\n\nhello", Err(SkipReason::Unmaskable)),
        ],
    );
    // Without fields of JSON, nothing is named in other bodies.
    let forms = MaskRules { form: vec!["pin".into()], ..MaskRules::default() };
    check_sent(
        &sending(forms),
        &[
            ("POST /\n\npin=1&a=2", Ok("POST /\n\npin=masked&a=2")),
            ("POST /\nContent-Type: text/plain\n\npin 1", Ok("POST /\nContent-Type: text/plain\n\npin 1")),
            (
                "POST /\nContent-Type: application/json\n\n{oops",
                Ok("POST /\nContent-Type: application/json\n\n{oops"),
            ),
            (&format!("{FORM}\nContent-Encoding: gzip\n\nx"), Err(SkipReason::Unmaskable)),
        ],
    );
}

#[test]
fn what_patterns_match_and_detectors_find_is_not_sent() {
    let rules = MaskRules {
        patterns: vec![pattern("staff", "EMP-[0-9]{6}", MaskAction::Redact)],
        detectors: on(&[Detector::Email, Detector::Card, Detector::User], MaskAction::Redact),
        ..MaskRules::default()
    };
    let text = |kind: &str, body: &str| format!("POST /\nContent-Type: {kind}\n\n{body}");
    let unmaskable = Err(SkipReason::Unmaskable);
    let owned = [
        ("text/plain", "by EMP-123456%2C bob@example.com", Ok("by masked%2C masked")),
        ("text/plain", "by EMP%2D123456", Ok("by masked")),
        ("application/xml", "<id>EMP-123456</id>", Ok("<id>masked</id>")),
        ("text/csv; charset=utf-16", "EMP-123456", unmaskable),
        ("text/plain", "a\u{0}b", unmaskable),
        (
            "application/json",
            "{\"a\":\"EMP\\u002d123456\",\"EMP-123456\":1}",
            Ok("{\"a\":\"masked\",\"masked\":1}"),
        ),
        ("application/json", "[4111111111111111, 7]", Ok("[0,7]")),
        (
            "application/json",
            "{\"a\":\"{\\\"b\\\":\\\"EMP\\\\u002d123456\\\"}\"}",
            Ok("{\"a\":\"{\\\"b\\\":\\\"masked\\\"}\"}"),
        ),
        ("application/json", "{\"a\":\"{\\\"b\\\":\\\"EMP\\\\u002d123456\"}", unmaskable),
        ("application/json", "{ \"a\" : 1 }", Ok("{ \"a\" : 1 }")),
        ("application/json", "oops", unmaskable),
        ("application/x-www-form-urlencoded", "a=EMP-123456+x&b=c+d", Ok("a=masked%20x&b=c+d")),
        ("application/grpc", "EMP-123456", unmaskable),
        ("application/protobuf", "a", unmaskable),
        ("application/octet-stream", "a", unmaskable),
        ("image/png", "EMP-123456", Ok("EMP-123456")),
    ];
    for (kind, body, expected) in owned {
        let expected = expected.map(|body| text(kind, body));
        check_sent(
            &sending(rules.clone()),
            &[(&text(kind, body), expected.as_deref().map_err(|reason| *reason))],
        );
    }
    check_sent(
        &sending(rules),
        &[
            ("GET /u/EMP-123456/x?q=by+EMP-123456&r=a+b", Ok("GET /u/masked/x?q=by%20masked&r=a+b")),
            ("GET /u/bob%2540example.com", Ok("GET /u/masked")),
            ("GET /?next=http://bob:pw@h/x", Ok("GET /?next=http:%2F%2Fmasked@h%2Fx")),
            ("GET /http://bob:pw@h/x", unmaskable),
            ("GET /\nReferer: http://bob:pw@h/x?a=b", Ok("GET /\nReferer: http://masked@h/x?a=b")),
            ("GET /\nX-Note: for EMP-123456", Ok("GET /\nX-Note: for masked")),
            ("GET /\nCookie: a=EMP-123456; b=1", Ok("GET /\nCookie: a=masked; b=1")),
            ("GET /\nEMP-123456: 1", unmaskable),
            ("GET /\nHost: bob@example.com", unmaskable),
            ("EMP-123456 /", unmaskable),
        ],
    );
    // What is off at this exit is sent as it is.
    check_sent(
        &sending(MaskRules { headers: vec!["x-user".into()], ..MaskRules::default() }),
        &[("POST /bob@example.com\n\nbob@example.com", Ok("POST /bob@example.com\n\nbob@example.com"))],
    );
}

#[test]
fn forms_in_parts_are_sent_with_their_boundaries_and_files() {
    let head = "POST /\nContent-Type: multipart/form-data; boundary=b";
    let part = |head: &str, content: &str| {
        format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
    };
    let whole = |parts: &[String]| format!("{head}\n\n{}--b--\r\n", parts.concat());
    let masker = sending(every(MaskAction::Redact));
    let text = part("name=t\r\nContent-Type: text/plain", "{\"email\":1}");
    let fields = sending(MaskRules { fields: vec!["$..email".into()], ..MaskRules::default() });
    check_sent(&fields, &[(&whole(std::slice::from_ref(&text)), Ok(&whole(&[text.replace(":1}", ":0}")])))]);
    check_sent(&fields, &[(&whole(&[text.replace(":1}", ":")]), Err(SkipReason::Unmaskable))]);
    let file = part("name=f; filename=a.bin", "\u{0} EMP-123456");
    let json =
        |email: &str| part("name=j\r\nContent-Type: application/json", &format!("{{\"email\":\"{email}\"}}"));
    let cases = [
        (
            whole(&[part("name=\"pin\"", "12\r\n34"), part("name=a", "b"), file.clone()]),
            Ok(whole(&[part("name=\"pin\"", "masked"), part("name=a", "b"), file.clone()])),
        ),
        (
            whole(&[part("name=pin; filename=x", "\u{0}")]),
            Ok(whole(&[part("name=pin; filename=x", "masked")])),
        ),
        (whole(&[part("name=a", "EMP-123456!")]), Ok(whole(&[part("name=a", "masked!")]))),
        (whole(&[json("s")]), Ok(whole(&[json("masked")]))),
        (whole(&[part("name=a", "\u{0}")]), Err(SkipReason::Unmaskable)),
        (whole(&[part("name=a\r\nContent-Transfer-Encoding: base64", "eA==")]), Err(SkipReason::Unmaskable)),
        (whole(&[part("name=a; filename=EMP-123456", "x")]), Err(SkipReason::Unmaskable)),
        (format!("{head}\n\nno parts"), Err(SkipReason::Unmaskable)),
    ];
    for (request, expected) in &cases {
        check_sent(&masker, &[(request, expected.as_deref().map_err(|reason| *reason))]);
    }
}

#[test]
fn a_hashed_value_is_the_same_wherever_it_is_and_of_its_type() {
    let masker = sending(every(MaskAction::Hash));
    let sent = |request: &str| shown(&masker.sendable(&exchange(request, "200")).unwrap());
    let hash = sent("GET /\nX-User: s3cret").split_off("GET /\nX-User: ".len());
    assert!(hash.starts_with("masked-") && hash.len() == 39, "{hash}");
    for request in [
        "GET /\nCookie: sid=s3cret",
        "GET /?token=s3cret",
        "GET /?user[token]=%733cret",
        "POST /\nContent-Type: application/x-www-form-urlencoded\n\npin=s3cret",
        "POST /\n\n{\"email\":\"s3cret\"}",
        "POST /\nContent-Type: multipart/form-data; boundary=b\n\n--b\r\nContent-Disposition: form-data; name=pin\r\n\r\ns3cret\r\n--b--",
    ] {
        assert!(sent(request).contains(&hash), "{}", sent(request));
    }
    assert!(!sent("GET /\nX-User: other").contains(&hash));
    let mail = sent("POST /\n\n{\"email\":\"bob@example.com\",\"to\":\"bob@example.com\"}");
    let (first, second) = (mail.split('"').nth(3), mail.split('"').nth(7));
    assert!(first == second && first.unwrap().ends_with("@masked.invalid"), "{mail}");
    let typed = sent("POST /\n\n{\"a\":{\"email\":7},\"b\":{\"email\":[7]},\"c\":{\"email\":null}}");
    assert!(typed.contains("\"a\":{\"email\":1") && typed.contains("\"b\":{\"email\":[\"masked-"), "{typed}");
    assert!(typed.contains("\"c\":{\"email\":null}"), "{typed}");
    let number = sent("POST /\n\n[4111111111111111]");
    assert!(number.contains("[1") && !number.contains("411111"), "{number}");
    assert!(masker.sendable(&exchange("GET /\nX-User: a", "200")).unwrap().altered());
    assert_ne!(sent("GET /\nX-User: s3cret"), {
        let again = sending(every(MaskAction::Hash));
        shown(&again.sendable(&exchange("GET /\nX-User: s3cret", "200")).unwrap())
    });
}

#[test]
fn a_body_keeps_its_coding_and_loses_its_digests() {
    let masker = sending(every(MaskAction::Redact));
    for coding in ["gzip", "x-gzip", "deflate", "zstd"] {
        let mut exchange = exchange(
            &format!(
                "POST /\nContent-Encoding: {coding}\nContent-Type: application/json\nDigest: x\nContent-MD5: x"
            ),
            "200",
        );
        let body = crate::content::encode_alike(&exchange.request.headers, br#"{"email":"s"}"#).unwrap();
        exchange.request.body = body;
        let sent = masker.sendable(&exchange).unwrap();
        let decoded = crate::content::decode(sent.headers(), sent.body(), 1 << 10).unwrap();
        assert_eq!(decoded, r#"{"email":"masked"}"#, "{coding}");
        assert_eq!(sent.headers().len(), 2, "{coding}: {:?}", sent.headers());
        assert_eq!(masker.check_sendable(&sent), Ok(()));
    }
}

#[test]
fn a_rule_that_drops_keeps_an_exchange_from_both_exits() {
    let drops = every(MaskAction::DropExchange);
    let asked = [
        "GET /\nX-User: s",
        "GET /\nCookie: sid=s",
        "GET /?token=s",
        "POST /\nContent-Type: application/x-www-form-urlencoded\n\npin=1",
        "POST /\n\n{\"email\":1}",
        "GET /EMP-123456",
        "GET /bob@example.com",
    ];
    let dropped = Err(SkipReason::DropExchange);
    for (masker, keep) in [(sending(drops.clone()), false), (keeping(drops), true)] {
        let both = |exchange: &Exchange| {
            (masker.sendable(exchange).map(drop), masker.keep_exchange(exchange).map(drop))
        };
        for request in asked {
            assert_eq!(both(&exchange(request, "200")), (dropped, dropped), "{request}");
        }
        assert_eq!(both(&exchange("GET /a?x=1\nA: b", "200")), (Ok(()), Ok(())));
        // What the shadow may see is about requests; what people may see is about answers, too.
        let expected = if keep { dropped } else { Ok(()) };
        for response in ["200\n\n{\"email\":1}", "200\nX-User: s", "200\nSet-Cookie: sid=s"] {
            assert_eq!(both(&exchange("GET /", response)), (expected, expected), "{response}");
        }
        let opaque = both(&exchange("POST /\nContent-Type: application/x\n\n\u{0}\u{1}", "200"));
        assert_eq!(opaque.0, if keep { Ok(()) } else { Err(SkipReason::Unmaskable) });
    }
    let masker = keeping(every(MaskAction::DropExchange));
    assert_eq!(masker.keep_text("by EMP-123456").get().split(',').next(), Some("[13 bytes"));
    assert_eq!(masker.keep_header("x-user", b"s").get(), "[masked: header]", "a shadow's answer is redacted");
}

#[test]
fn what_is_kept_is_hashed_within_its_placeholder() {
    let masker = keeping(MaskRules { fields: Vec::new(), ..every(MaskAction::Hash) });
    let user = masker.keep_header("x-user", b"bob");
    let letters =
        user.get().strip_prefix("[masked: header ").and_then(|rest| rest.strip_suffix(']')).unwrap();
    assert_eq!(letters.len(), 32);
    assert_eq!(masker.keep_header("x-user", b"bob"), user);
    assert_ne!(masker.keep_header("x-user", b"ann"), user);
    let target = masker.keep_target(&request("GET /a?token=bob"));
    assert_eq!(*target.get(), format!("/a?token=[masked: query {letters}]"));
    let staff = masker.keep_text("by EMP-123456, EMP-123456");
    let found: Vec<&str> = staff.get().split("[masked: staff ").collect();
    assert_eq!((found.len(), found[1].get(..32)), (3, found[2].get(..32)), "{staff:?}");
    // Answers are compared with a recording of another run, whose hashes are others.
    let answer = exchange("GET /", "200\nContent-Type: text/plain\nX-User: bob\n\nby EMP-123456");
    let recorded = masker.keep_exchange(&answer).unwrap();
    assert!(response_was_masked(&recorded.get().response));
    let alike = |masker: &Masker, response| {
        let response = masker.as_recorded(response).unwrap();
        (response.headers.get("x-user").cloned(), response.body)
    };
    let other = keeping(MaskRules { fields: Vec::new(), ..every(MaskAction::Hash) });
    assert_eq!(alike(&other, &recorded.get().response), alike(&other, &answer.response));
}

#[test]
fn cookies_are_shown_only_where_some_are_named_and_the_field_is_not() {
    let line = b"a=1; sid=s; password=s";
    let hidden = "[masked: header]";
    assert_eq!(Masker::default().keep_header("cookie", line).get(), hidden);
    let cookies: Vec<MaskRule> = vec!["sid".into()];
    let rules = MaskRules { cookies, ..Mask::default().keep };
    assert_eq!(keeping(rules.clone()).keep_header("cookie", line).get(), hidden, "both rules hold");
    let masker = keeping(MaskRules { headers: Vec::new(), ..rules });
    let expected = "a=1; sid=[masked: cookie]; password=[masked: cookie]";
    assert_eq!(masker.keep_header("Cookie", line).get(), expected);
    let set = masker.keep_header("Set-Cookie", b"sid=s; Path=/");
    assert_eq!(set.get(), "sid=[masked: cookie]; Path=/");
    let without = keeping(MaskRules { headers: Vec::new(), ..Mask::default().keep });
    assert_eq!(without.keep_header("cookie", line).get(), hidden, "nobody said that they may be shown");
}

#[test]
fn detectors_are_switched_off_one_by_one_for_people() {
    let email = Detectors(Detectors::all(MaskAction::Redact).0.map(|_| None));
    let rules = |detectors| MaskRules { detectors, ..Mask::default().keep };
    let text = "bob@example.com 4111111111111111";
    assert_eq!(keeping(rules(email)).keep_text(text).get(), text);
    let card = keeping(rules(on(&[Detector::Card], MaskAction::Redact)));
    assert_eq!(card.keep_text(text).get(), "bob@example.com [masked: card]");
}

#[test]
fn what_looks_like_a_placeholder_and_is_none_is_masked() {
    let masker = keeping(every(MaskAction::Redact));
    let fake = masker.keep_header("x-note", b"[masked: e EMP-123456] [masked: email] [masked: mine]");
    assert_eq!(fake.get(), "[masked: e [masked: staff]] [masked: email] [masked: mine]");
    let anything = keeping(MaskRules {
        patterns: vec![pattern("all", "[a-z]+", MaskAction::Redact)],
        ..Mask::default().keep
    });
    let once = anything.keep_text("a 1 [masked: email]");
    assert_eq!(once.get(), "[masked: all] 1 [masked: email]");
    assert_eq!(anything.keep_text(once.get()), once);
}

fn leaving(target: &str, headers: &[(&str, &str)], body: &str) -> Sendable {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned().into(), (*value).to_owned().into()));
    Sendable {
        id: ExchangeId(1),
        seen: Timestamp(0),
        method: Method::POST,
        target: target.to_owned().into(),
        version: Version::HTTP_11,
        headers: Headers(headers.collect()),
        body: body.to_owned().into(),
        trailers: Headers::default(),
        altered: false,
        credentials: Sealed::new(Compartment::Nothing),
        dry_run: false,
        session: None,
        issued: Arc::default(),
    }
}

#[test]
fn the_self_check_finds_what_every_rule_should_have_masked() {
    let form = ("content-type", "application/x-www-form-urlencoded");
    let parts = ("content-type", "multipart/form-data; boundary=b");
    let part =
        |content: &str| format!("--b\r\nContent-Disposition: form-data; name=pin\r\n\r\n{content}\r\n--b--");
    let cases = [
        ("header:x-user", leaving("/", &[("X-User", "s")], ""), leaving("/", &[("X-User", "masked")], "")),
        (
            "cookie:sid",
            leaving("/", &[("cookie", "a=1; sid=s")], ""),
            leaving("/", &[("cookie", "sid=masked")], ""),
        ),
        ("query:token", leaving("/?a[token]=s", &[], ""), leaving("/?token=masked", &[], "")),
        ("form:pin", leaving("/", &[form], "a=1&pin=s"), leaving("/", &[form], "pin=masked")),
        ("form:pin", leaving("/", &[parts], &part("s")), leaving("/", &[parts], &part("masked"))),
        ("field:$..email", leaving("/", &[], "{\"email\":1}"), leaving("/", &[], "{\"email\":0}")),
        (
            "field:$..email",
            leaving("/", &[], "{\"a\":\"{\\\"email\\\":1}\"}"),
            leaving("/", &[], "{\"a\":\"{\\\"email\\\":0}\"}"),
        ),
        ("pattern:staff", leaving("/EMP%2d123456", &[], ""), leaving("/masked", &[], "")),
        ("pattern:staff", leaving("/", &[], "<a>EMP-123456</a>"), leaving("/", &[], "<a>masked</a>")),
        (
            "detector:email",
            leaving("/", &[("a", "bob@example.com")], ""),
            leaving("/", &[("a", "masked")], ""),
        ),
        ("detector:card", leaving("/", &[], "[4111111111111111]"), leaving("/", &[], "[0]")),
    ];
    for (rule, leak, sound) in cases {
        let masker = sending(every(MaskAction::Redact));
        assert_eq!(masker.check_sendable(&sound), Ok(()), "{rule}");
        assert_eq!(masker.failures(), 0);
        assert_eq!(masker.check_sendable(&leak), Err(SkipReason::MaskFailed), "{rule}");
        let [_, send] = masker.tallies();
        assert_eq!((masker.failures(), send.newly_failed().collect::<Vec<_>>()), (1, vec![rule]));
    }
}

#[test]
fn the_self_check_hides_what_people_would_have_seen() {
    let masker = keeping(every(MaskAction::Redact));
    for (text, found) in [
        ("by EMP-123456", true),
        ("see /x?token=s", true),
        ("x bob@example.com", true),
        ("by [masked: staff], /x?token=[masked: query]", false),
        ("nothing", false),
    ] {
        let failures = masker.failures();
        assert_eq!(masker.still_shows(text), found.then(|| "[masked: check]".to_owned()), "{text}");
        assert_eq!(masker.failures() - failures, u64::from(found));
    }
    let leak = exchange("GET /", "200\n\n{\"email\":\"s\"}");
    assert_eq!(masker.check_kept(&leak), Err(SkipReason::MaskFailed));
    let kept = masker.keep_exchange(&leak).unwrap();
    assert_eq!(masker.check_kept(kept.get()), Ok(()));
}

#[test]
fn one_in_so_many_is_looked_at() {
    let tally = Tally::new(Exit::Send, &MaskRules::default());
    let turns: Vec<u64> = (0..=2 * check::ONE_IN).filter(|_| tally.turn(check::ONE_IN)).collect();
    assert_eq!(turns.len(), 3);
}

#[test]
fn what_is_masked_is_counted_by_rule() {
    let masker = sending(every(MaskAction::Redact));
    let request =
        "POST /?token=a&token=b\nX-User: s\nCookie: sid=s\nX-Note: bob@example.com\n\n{\"email\":1}";
    masker.sendable(&exchange(request, "200")).unwrap();
    let [keep, send] = masker.tallies();
    let counted: Vec<_> = send.counts().filter(|(_, count)| *count > 0).collect();
    let expected = [
        ("header:x-user", 1),
        ("cookie:sid", 1),
        ("query:token", 2),
        ("field:$..email", 1),
        ("detector:email", 1),
    ];
    assert_eq!(counted, expected);
    assert_eq!(keep.counts().map(|(_, count)| count).sum::<u64>(), 0);
    let kept = masker.keep_header("authorization", b"x");
    assert_eq!(keep.counts().find(|(_, count)| *count > 0), Some(("header:authorization", 1)), "{kept:?}");
    assert_eq!(masker.keep_header("x-vault-token", b"x").get(), "[masked: header]");
    assert_eq!(keep.counts().next(), Some(("credentials", 1)));
}

#[test]
fn rules_that_cannot_be_used_are_named() {
    let refused = |rules: MaskRules| {
        Masker::new(&Mask { send: rules, ..Mask::default() }, Credentials::Skip).unwrap_err().to_string()
    };
    let patterns = vec![pattern("odd", "(", MaskAction::Redact)];
    assert!(refused(MaskRules { patterns, ..MaskRules::default() }).starts_with("mask.send.patterns: `odd`"));
    let fields = vec!["$.[".into()];
    assert!(refused(MaskRules { fields, ..MaskRules::default() }).starts_with("mask.send.fields: `$.[`"));
}
