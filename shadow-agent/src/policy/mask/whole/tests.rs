//! Whole exchanges are masked wherever a secret is, stay as they were elsewhere, and agree with their own length.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::Version;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::{Credentials, Mask, MaskRules};
use crate::policy::fixture::{documents, exchange};
use crate::policy::target::MAX_DECODINGS;

fn masker(fields: &[&str]) -> Masker {
    let fields = fields.iter().map(|path| (*path).into()).collect();
    let keep = MaskRules { fields, ..Mask::default().keep };
    Masker::new(&Mask { keep, ..Mask::default() }, Credentials::Skip).unwrap()
}

/// The body of a response of that type, masked; the reason when it cannot be.
fn body(masker: &Masker, media_type: &str, body: &[u8]) -> Result<String, &'static str> {
    let mut exchange = exchange("GET /", &format!("200\nContent-Type: {media_type}"));
    exchange.response.body = Bytes::copy_from_slice(body);
    let kept = masker.keep_exchange(&exchange).map_err(SkipReason::as_str)?;
    let again = masker.keep_exchange(kept.get()).unwrap();
    assert_eq!(again, kept, "{media_type}: masking again changes something");
    let kept = kept.get().response.body.to_vec();
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

#[test]
fn what_has_nothing_to_hide_is_kept_byte_by_byte() {
    let mut exchange = exchange(
        "POST /a%20b?t=1700000000000&x=%C3%BC\nhost: h\nX-Odd:  \nCONTENT-length: 32",
        "404\ncontent-length: 3\nContent-Type: text/plain\n\n\u{fc}x",
    );
    exchange.request.headers.0.push((Bytes::from_static(b"x-raw"), Bytes::from_static(b"\xff\xfe")));
    exchange.request.body = Bytes::from_static(b"{ \"b\" : 1.50,\n \"a\" : [\"x%20y\"] }");
    assert_eq!(*Masker::default().keep_exchange(&exchange).unwrap().get(), exchange);
}

#[test]
fn targets_and_fields_stay_messages() {
    let exchange = exchange(
        "GET /u/bob@example.com?token=x&n=1\nAuthorization: Bearer sesame\nCookie: sid=sesame\nReferer: /x?token=a%0d%0ab",
        "302\nSet-Cookie: a=sesame\nLocation: /y?access_token=q%0d%0aX:%20y",
    );
    let masker = Masker::default();
    let kept = masker.keep_exchange(&exchange).unwrap();
    let Exchange { request, response, .. } = kept.get();
    assert_eq!(request.target, "/u/[masked:%20email]?token=[masked:%20query]&n=1");
    for name in ["authorization", "cookie"] {
        assert_eq!(request.headers.get(name).unwrap(), "[masked: header]");
    }
    assert_eq!(response.headers.get("set-cookie").unwrap(), "[masked: header]");
    let location = response.headers.get("location").unwrap();
    assert!(location.starts_with(b"/y?access_token=[masked: query]"), "{location:?}");
    for (_, value) in request.headers.iter().chain(response.headers.iter()) {
        assert!(!value.iter().any(u8::is_ascii_control), "{value:?}");
    }
    assert_eq!(masker.keep_exchange(kept.get()).unwrap(), kept);
}

#[test]
fn what_was_masked_is_known_again_and_answers_are_made_like_it() {
    let masker = Masker::default();
    let plain = exchange("POST /a?x=1\nA: b\n\nc", "200\nContent-Type: application/json\n\n{\"n\": 1}");
    assert!(!request_was_masked(&plain.request) && !response_was_masked(&plain.response));
    for request in [
        "GET /a?token=x",
        "GET /a\nCookie: a=b",
        "POST /a\nContent-Type: application/x-www-form-urlencoded\n\npassword=a",
        "POST /a\n\nbob@example.com",
    ] {
        let kept = masker.keep_exchange(&exchange(request, "204")).unwrap();
        assert!(request_was_masked(&kept.get().request), "{request}");
        assert!(!response_was_masked(&kept.get().response), "{request}");
    }
    let answer = |email: &str, n: u32| {
        let head = "200\nSet-Cookie: s=1\nContent-Type: application/json";
        exchange("GET /", &format!("{head}\n\n{{\"to\": \"{email}\", \"n\": {n}}}"))
    };
    let recorded = masker.keep_exchange(&answer("bob@example.com", 1)).unwrap();
    let recorded = &recorded.get().response;
    assert!(response_was_masked(recorded));
    let alike = |email, n| masker.as_recorded(&answer(email, n).response).unwrap().body;
    assert_eq!(alike("ann@example.com", 1), recorded.body, "what is masked cannot differ");
    assert_ne!(alike("bob@example.com", 2), recorded.body, "all else can");
    let broken = exchange("GET /", "200\nContent-Type: application/json\nContent-Encoding: gzip\n\nx");
    assert_eq!(masker.as_recorded(&broken.response), Err(SkipReason::Unmaskable));
}

#[test]
fn json_is_masked_by_path_by_name_and_by_form() {
    let masker = masker(&["$..email", "$.card.number"]);
    let cases = [
        (r#"{"email": "x", "n": 1}"#, r#"{"email":"[masked: field]","n":1}"#),
        (r#"{"card": {"number": 1, "kind": "v"}}"#, r#"{"card":{"kind":"v","number":"[masked: field]"}}"#),
        (r#"{"password": ["a"], "n": 1.50}"#, r#"{"n":1.50,"password":"[masked: field]"}"#),
        (r#"{"to": "bob@example.com"}"#, r#"{"to":"[masked: email]"}"#),
        (r#"{"to": "bob\u0040example.com"}"#, r#"{"to":"[masked: email]"}"#),
        (r#"{"n": 4111111111111111}"#, r#"{"n":"[masked: card]"}"#),
        (r#"{"bob@example.com": 1, "ann@example.com": 2}"#, r#"{"[masked: email]":2,"[masked: email] 2":1}"#),
        (r#"{"log": "{\"email\":\"x\"}"}"#, r#"{"log":"{\"email\":\"[masked: field]\"}"}"#),
        ("{\"email\": 1}\n{\"n\": 2}\n", "{\"email\":\"[masked: field]\"}\n{\"n\":2}"),
        (r#"{ "log": "{ \"n\": 1 }" }"#, r#"{ "log": "{ \"n\": 1 }" }"#),
        (r#""plain""#, r#""plain""#),
    ];
    for (text, expected) in cases {
        assert_eq!(
            body(&masker, "application/json; charset=utf-8", text.as_bytes()),
            Ok(expected.to_owned())
        );
    }
    // Whatever the type says, what begins like JSON is taken for it.
    assert_eq!(body(&masker, "text/html", cases[0].0.as_bytes()), Ok(cases[0].1.to_owned()));
}

#[test]
fn forms_are_masked_by_field_by_name_and_by_form() {
    let masker = masker(&["$..email", "$.user.phone"]);
    let cases = [
        ("a=1&b=x+y&c=%2F", "a=1&b=x+y&c=%2F"),
        ("email=x&n=1", "email=[masked:%20field]&n=1"),
        (
            "user[email]=x&user%5Bphone%5D=2&phone=3",
            "user[email]=[masked:%20field]&user%5Bphone%5D=[masked:%20field]&phone=3",
        ),
        ("password=x+y&n", "password=[masked:%20query]&n"),
        ("m=bob%40example.com", "m=[masked:%20email]"),
        ("card=4111+1111+1111+1111", "card=[masked:%20card]"),
        ("p=%7B%22pwd%22%3A%22x%22%7D", "p=[masked:%20field]"),
    ];
    for (text, expected) in cases {
        let masked = body(&masker, "application/x-www-form-urlencoded", text.as_bytes());
        assert_eq!(masked, Ok(expected.to_owned()));
    }
}

#[test]
fn text_is_masked_by_detectors() {
    let masker = Masker::default();
    let cases = [
        ("<a href='/x%20y'>write to bob@example.com</a>", "<a href='/x%20y'>write to [masked: email]</a>"),
        ("id 1700000000000, 50%", "id 1700000000000, 50%"),
        ("{broken \"password\": \"x\", y", "{broken \"password\": [masked: field], y"),
        ("see /x?token=abc", "see /x?token=[masked: query]"),
    ];
    for (text, expected) in cases {
        assert_eq!(body(&masker, "text/html", text.as_bytes()), Ok(expected.to_owned()));
    }
}

#[test]
fn what_cannot_be_masked_is_not_kept() {
    let (plain, fields) = (Masker::default(), masker(&["$..email"]));
    let part = |name: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\nx\r\n--b--\r\n").into_bytes()
    };
    let binary: &[u8] = b"\xff\xfe\x00\x01";
    let with_mail: &[u8] = b"\xff\xfe bob@example.com \x00";
    let refused = Err("unmaskable");
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let disposition = |named: &str| {
        format!("--b\r\ncontent-disposition: form-data; {named}\r\n\r\nx\r\n--b--\r\n").into_bytes()
    };
    let form = "multipart/form-data; boundary=c";
    let cases: [(&str, Vec<u8>, bool, bool); 26] = [
        (form, disposition("NAME=\"password\""), false, false),
        (form, disposition("name = password"), false, false),
        (form, disposition("name='password'"), false, false),
        (form, disposition("name*=utf-8'en'pass%77ord"), false, false),
        (form, disposition(r#"name="user[pass\word]""#), false, false),
        ("text/plain", disposition("name=\"password\""), false, false),
        ("text/plain", disposition("name=\"note\""), true, true),
        ("application/json", gzip(b"{}").to_vec(), false, false),
        ("text/plain", b"\x28\xb5\x2f\xfd".to_vec(), false, false),
        ("application/gzip", gzip(b"{}").to_vec(), true, false),
        ("application/json", wide("{\"password\":\"x\"}"), false, false),
        ("text/plain; charset=utf-16", wide("to bob@example.com"), false, false),
        ("text/plain", wide("{\"email\":\"x\"}"), true, false),
        ("text/plain", wide("nothing here"), true, true),
        ("application/json", b"{\"a\":1,\"a\":2}".to_vec(), false, false),
        ("application/json", b"oops".to_vec(), true, false),
        ("text/plain", b"log: {\"email\":\"x\"}".to_vec(), true, false),
        ("text/plain", b"no document".to_vec(), true, true),
        ("multipart/form-data; boundary=c", part("note"), true, true),
        ("multipart/form-data; boundary=c", part("password"), false, false),
        ("multipart/form-data; boundary=c", part("email"), true, false),
        ("application/octet-stream", binary.to_vec(), true, false),
        ("application/octet-stream", with_mail.to_vec(), false, false),
        ("image/png", binary.to_vec(), true, true),
        ("image/png", with_mail.to_vec(), true, true),
        ("", binary.to_vec(), true, false),
    ];
    for (media_type, bytes, without, with) in cases {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        for (masker, kept) in [(&plain, without), (&fields, with)] {
            let expected = if kept { Ok(shown.clone()) } else { refused.clone() };
            assert_eq!(body(masker, media_type, &bytes), expected, "{media_type} {shown}");
        }
    }
}

#[test]
fn forms_in_parts_are_masked_by_name_and_by_form() {
    let part = |head: &str, content: &str| {
        format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
    };
    let whole = |parts: &[String]| parts.concat() + "--b--\r\n";
    let cases = [
        (
            whole(&[part("name=\"password\"", "x\r\ny"), part("name=\"note\"", "1")]),
            whole(&[part("name=\"password\"", "[masked: field]"), part("name=\"note\"", "1")]),
        ),
        (
            whole(&[part("name=user[email]; filename=\"f\"\r\nX: y", "\u{0}bob")]),
            whole(&[part("name=user[email]; filename=\"f\"\r\nX: y", "[masked: field]")]),
        ),
        (
            whole(&[part("name=a", "to bob@example.com"), part("name=b", "{\"email\":1}")]),
            whole(&[part("name=a", "to [masked: email]"), part("name=b", "{\"email\":\"[masked: field]\"}")]),
        ),
    ];
    for (text, expected) in cases {
        let masked = body(&masker(&["$..email"]), "multipart/form-data; boundary=b", text.as_bytes());
        assert_eq!(masked, Ok(expected));
    }
    for head in ["name=\"bob@example.com\"", "name=a; filename=bob@example.com"] {
        let refused =
            body(&Masker::default(), "multipart/form-data; boundary=b", whole(&[part(head, "x")]).as_bytes());
        assert_eq!(refused, Err("unmaskable"), "{head}");
    }
}

#[test]
fn masks_are_applied_so_many_times_and_no_more() {
    // Each pass finds what is hidden some levels deeper; with its 3 encoded, too, none looks like a card number.
    let nested = |levels: usize| -> String {
        (0..levels).map(|level| format!("token%{}%33Dsesame ", "25".repeat(level))).collect()
    };
    let masker = Masker::default();
    let most = (MAX_PASSES - 1) * MAX_DECODINGS;
    let kept = body(&masker, "text/plain", nested(most).as_bytes()).unwrap();
    assert!(!kept.contains("sesame"), "{kept}");
    assert_eq!(body(&masker, "text/plain", nested(most + 1).as_bytes()), Err("unmaskable"));
}

#[test]
fn percent_encoding_is_undone_so_often_and_no_more() {
    let masker = Masker::default();
    for (levels, hidden) in [(0, true), (1, true), (MAX_DECODINGS - 1, true), (MAX_DECODINGS, false)] {
        let text = format!("/y?token%{}3Dsesame", "25".repeat(levels));
        let mut exchange = exchange(&format!("GET /x?next={text}"), &format!("302\nLocation: {text}"));
        exchange.response.body = text.into();
        let kept = masker.keep_exchange(&exchange).unwrap();
        let Exchange { request, response, .. } = kept.get();
        for shown in [&request.target, response.headers.get("location").unwrap(), &response.body] {
            assert_eq!(!String::from_utf8_lossy(shown).contains("sesame"), hidden, "{levels}: {shown:?}");
        }
    }
}

#[test]
fn names_that_lead_into_objects_are_known_by_their_steps() {
    let masker = Masker::default();
    for name in ["user[password]", "user%5Bpassword%5D", "user.password", "password[]", "new_password"] {
        let text = format!("{name}=sesame&a=1");
        let mut exchange = exchange(&format!("GET /x?{text}"), "200\nContent-Type: text/plain");
        exchange.request.headers.0.push(("Content-Type".into(), "application/x-www-form-urlencoded".into()));
        exchange.request.headers.0.push(("Referer".into(), format!("/x?{text}").into()));
        exchange.request.body = text.clone().into();
        exchange.response.body = format!("{{broken {text}").into();
        let kept = masker.keep_exchange(&exchange).unwrap();
        let shown = format!("{:?}", (kept.get().request.target.clone(), &kept.get().request.headers.0));
        assert!(!shown.contains("sesame"), "{shown}");
        for body in [&kept.get().request.body, &kept.get().response.body] {
            let shown = String::from_utf8_lossy(body);
            assert!(!shown.contains("sesame") && shown.contains("a=1"), "{shown}");
        }
    }
    let json =
        r#"{"db.password":"sesame","n":[{"name":"password","value":"sesame"},{"name":"n","value":1}]}"#;
    let expected = r#"{"db.password":"[masked: field]","n":[{"name":"password","value":"[masked: field]"},{"name":"n","value":1}]}"#;
    assert_eq!(body(&masker, "application/json", json.as_bytes()), Ok(expected.to_owned()));
}

#[test]
fn values_are_hidden_to_their_end() {
    let masker = Masker::default();
    let cases = [
        (r#"<a password="se same" b="c">"#, r#"<a password="[masked: query]" b="c">"#),
        (r#"<a password='se"same' b>"#, "<a password='[masked: query]' b>"),
        (r#"a {"x": "password=\"sesame\" b""#, r#"a {"x": "password=\"[masked: query]\" b""#),
        (r#"password="se\"same" b"#, r#"password="[masked: query]" b"#),
        ("see /x?sig=se/s(a#me== b", "see /x?sig=[masked: query] b"),
        ("[token=sesame] b", "[token=[masked: query]] b"),
        ("password=\"sesame", "password=\"[masked: query]"),
        ("<s:password>sesame</s:password>", "<s:password>[masked: field]</s:password>"),
    ];
    for (text, expected) in cases {
        assert_eq!(body(&masker, "text/plain", text.as_bytes()), Ok(expected.to_owned()));
    }
}

#[test]
fn a_text_full_of_signs_costs_no_more_than_another() {
    // At a cost that grows with the square it takes hours.
    for sign in ["=", "a=", "name="] {
        let text = sign.repeat((1 << 20) / sign.len());
        assert_eq!(body(&Masker::default(), "text/plain", text.as_bytes()), Ok(text));
    }
    let kept = body(&Masker::default(), "text/plain", b"a=token=sesame b");
    assert_eq!(kept, Ok("a=token=[masked: query] b".to_owned()));
}

#[test]
fn fields_named_like_credentials_are_hidden_and_names_that_hold_some_are_not_kept() {
    let masker = Masker::default();
    let fields = ["Cookie2", "X_Api_Key", "X-Client-Secret", "X-Csrf-Token", "Password", "Token"];
    for name in fields {
        let exchange = exchange(&format!("GET /\n{name}: sesame"), "200");
        let kept = masker.keep_exchange(&exchange).unwrap();
        assert_eq!(kept.get().request.headers.get(name).unwrap(), "[masked: header]", "{name}");
    }
    let kept = masker.keep_exchange(&exchange("GET /\nHost: bob:sesame@h", "200")).unwrap();
    assert_eq!(kept.get().request.headers.get("host").unwrap(), "[masked: user]");
    for request in ["GET /\n4111111111111111: x", "AKIAIOSFODNN7EXAMPLE /"] {
        assert_eq!(masker.keep_exchange(&exchange(request, "200")), Err(SkipReason::Unmaskable), "{request}");
    }
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

#[test]
fn a_content_coding_goes_only_where_something_is_masked() {
    let response =
        "200\nContent-Type: application/json\nContent-Encoding: gzip\nContent-MD5: x\nContent-Length: 1";
    let mut exchange = exchange("GET /", response);
    let masker = Masker::default();
    exchange.response.body = gzip(br#"{"n": 1}"#);
    let kept = masker.keep_exchange(&exchange).unwrap().get().response.clone();
    assert_eq!(kept.body, exchange.response.body);
    assert!(kept.headers.contains("content-encoding") && kept.headers.contains("content-md5"));
    assert_eq!(*kept.headers.get("content-length").unwrap(), kept.body.len().to_string());
    exchange.response.body = gzip(br#"{"password": "x"}"#);
    let kept = masker.keep_exchange(&exchange).unwrap().get().response.clone();
    assert_eq!(kept.body, r#"{"password":"[masked: field]"}"#);
    assert!(!kept.headers.contains("content-encoding") && !kept.headers.contains("content-md5"));
    assert_eq!(kept.headers.get("content-length").unwrap(), "30");
    for (coding, bytes) in [("gzip", gzip(b"x").slice(..9)), ("compress", gzip(b"x"))] {
        exchange.response.headers.0[1].1 = Bytes::from(coding);
        exchange.response.body = bytes;
        assert_eq!(masker.keep_exchange(&exchange), Err(SkipReason::Unmaskable), "{coding}");
    }
}

#[test]
fn a_body_is_decoded_up_to_the_limit() {
    use super::super::send::MAX_UNMASKED;
    let mut exchange = exchange("GET /", "200\nContent-Encoding: gzip\nContent-Type: image/x");
    for (length, kept) in [(MAX_UNMASKED, true), (MAX_UNMASKED + 1, false)] {
        // Not so regular that it would count as a bomb.
        let body: Vec<u8> = (0..length).map(|at| b' ' + u8::try_from(at / 64 % 64).unwrap()).collect();
        exchange.response.body = gzip(&body);
        assert_eq!(Masker::default().keep_exchange(&exchange).is_ok(), kept, "{length}");
    }
}

/// The fields that say a length, after masking.
fn framing(exchange: &Exchange) -> (Vec<String>, Vec<String>) {
    let shown = |headers: &Headers| {
        let said = headers.iter().filter(|(name, _)| framing::is_framing(name));
        let shown = said.map(|(name, value)| {
            format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        });
        shown.collect()
    };
    let kept = Masker::default().keep_exchange(exchange).unwrap();
    assert_eq!(Masker::default().keep_exchange(kept.get()).unwrap(), kept);
    (shown(&kept.get().request.headers), shown(&kept.get().response.headers))
}

#[test]
fn each_message_says_its_length_once() {
    let cases = [
        ("GET /", "200\n\nbody", "", "Content-Length: 4"),
        ("GET /", "200", "", "Content-Length: 0"),
        ("GET /", "204\nContent-Length: 7", "", ""),
        ("GET /", "304\nContent-Length: 7\nContent-Length: 7", "", "Content-Length: 7"),
        ("HEAD /", "200\nContent-Length: 7", "", "Content-Length: 7"),
        ("HEAD /", "200\nTransfer-Encoding: chunked", "", ""),
        ("POST /", "200\ntransfer-encoding: chunked\n\nbody", "", "content-length: 4"),
        (
            "POST /\nTransfer-Encoding: chunked",
            "200\ncontent-length: 4, 4\nX: y\ncontent-length: 4\n\nbody",
            "Content-Length: 0",
            "content-length: 4",
        ),
        ("POST /\n\nbody", "200\nCONTENT-LENGTH: 9\n\nbody", "Content-Length: 4", "CONTENT-LENGTH: 4"),
    ];
    for (request, response, asked, answered) in cases {
        let (request, response) = framing(&exchange(request, response));
        assert_eq!((request.join("|"), response.join("|")), (asked.to_owned(), answered.to_owned()));
    }
    let mut exchange = exchange("POST /\n\nbody", "200\nContent-Length: 4\n\nbody");
    exchange.request.version = Version::HTTP_2;
    exchange.response.trailers = Headers(vec![("grpc-status".into(), "0".into())]);
    let (request, response) = framing(&exchange);
    assert_eq!(
        (request.join("|"), response.join("|")),
        ("content-length: 4".into(), "Transfer-Encoding: chunked".into())
    );
}

proptest! {
    #[test]
    fn secrets_do_not_pass_and_masking_again_changes_nothing(document in documents()) {
        let masker = masker(&["$..email"]);
        let mut exchange = exchange("POST /\nContent-Type: application/json", "200\nContent-Type: text/plain");
        exchange.request.body = document.to_string().into();
        exchange.response.body = json!({ "deep": document }).to_string().into();
        if let Ok(kept) = masker.keep_exchange(&exchange) {
            let Exchange { request, response, .. } = kept.get();
            for (headers, body) in [(&request.headers, &request.body), (&response.headers, &response.body)] {
                prop_assert!(!String::from_utf8_lossy(body).contains("SECRET"), "{:?}", body);
                prop_assert_eq!(headers.get("content-length").unwrap(), &body.len().to_string());
            }
            prop_assert_eq!(masker.keep_exchange(kept.get()).unwrap(), kept);
        }
    }

    #[test]
    fn any_message_is_kept_with_its_length_or_not_at_all(
        target in "/[ -~é]{0,40}",
        value in "[ -~é]{0,40}",
        media_type in prop_oneof![Just("text/plain"), Just("application/json"), Just("application/x-www-form-urlencoded"), Just("multipart/form-data"), Just("")],
        body in proptest::collection::vec(any::<u8>(), 0..60).prop_union_text(),
        has_fields in any::<bool>(),
    ) {
        let masker = if has_fields { masker(&["$..email"]) } else { Masker::default() };
        let mut exchange = exchange("POST /", "200");
        exchange.request.target = target.replace(' ', "+").into();
        exchange.request.body = body.clone().into();
        exchange.response.body = body.into();
        exchange.response.headers = Headers(vec![("X-Any".into(), value.trim().to_owned().into()), ("Content-Type".into(), media_type.into())]);
        exchange.request.headers = exchange.response.headers.clone();
        if let Ok(kept) = masker.keep_exchange(&exchange) {
            let Exchange { request, response, .. } = kept.get();
            prop_assert_eq!(response.headers.get("content-length").unwrap(), &response.body.len().to_string());
            prop_assert!(request.body.is_empty() || request.headers.contains("content-length"));
            prop_assert!(!request.target.contains(&b' '));
            prop_assert_eq!(masker.keep_exchange(kept.get()).unwrap(), kept);
        }
    }
}

/// Bytes, or text with what detectors and parsers look for.
trait OrText: Strategy<Value = Vec<u8>> + Sized + 'static {
    fn prop_union_text(self) -> BoxedStrategy<Vec<u8>> {
        let word = prop_oneof![
            Just("bob@example.com".to_owned()),
            Just("{\"email\":\"x\"}".to_owned()),
            Just("password=x&".to_owned()),
            Just("4111 1111 1111 1111".to_owned()),
            Just("%40".to_owned()),
            "[ -~]{0,8}",
        ];
        let text = proptest::collection::vec(word, 0..5).prop_map(|words| words.concat().into_bytes());
        prop_oneof![self, text].boxed()
    }
}

impl<S: Strategy<Value = Vec<u8>> + 'static> OrText for S {}
