use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::descriptors::tests::{METHOD, descriptors, product};
use super::super::*;
use super::frames::MAX_MESSAGES;
use crate::config::{Compare, Credentials, DescriptorFile, Mask, MaskRules};
use crate::exchange::Headers;
use crate::policy::fixture::{request, response};

use Comparison::{Drift, Match, Mismatch, Noise, Uncomparable};

const LIMIT: usize = 1 << 16;

fn comparer(ignore: &[&str], fields: &[&str], decodes: bool) -> Comparer {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let fields = fields.iter().map(|path| (*path).into()).collect();
    let keep = MaskRules { fields, ..Mask::default().keep };
    let masker = Masker::new(&Mask { keep, ..Mask::default() }, Credentials::Skip).unwrap();
    let file = DescriptorFile { path: "shop.pb".into(), descriptors: descriptors() };
    let descriptors = decodes.then_some(file);
    let compare = Compare { ignore: owned(ignore), descriptors, ..Compare::default() };
    Comparer::new(&compare, Arc::new(masker), LIMIT).unwrap()
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, message].concat()
}

fn fields(fields: &[(&str, &str)]) -> Headers {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Headers(fields.iter().map(|(name, value)| (bytes(name), bytes(value))).collect())
}

/// An answer with this body, and trailers that say OK.
fn answer_of(body: Vec<u8>) -> Response {
    Response {
        body: body.into(),
        trailers: fields(&[("grpc-status", "0")]),
        ..response("200\ncontent-type: application/grpc")
    }
}

/// An answer with these messages.
fn answer(messages: &[Value]) -> Response {
    answer_of(messages.iter().flat_map(|message| framed(0, &product(message))).collect())
}

/// An answer without messages and with these trailers, if any.
fn ended(trailers: &[(&str, &str)]) -> Response {
    Response { trailers: fields(trailers), ..answer(&[]) }
}

fn judge(
    comparer: &Comparer,
    production: &Response,
    candidate: &Response,
    baseline: Option<&Response>,
) -> Judgement {
    let request = &request(&format!("POST {METHOD}\ncontent-type: application/grpc"));
    comparer.judge(&Inputs { request, request_altered: false, production, candidate, baseline })
}

/// Places and kinds of differences.
type Found = &'static [&'static str];

#[track_caller]
fn check(judgement: &Judgement, comparison: Comparison, differences: &[&str]) {
    let shown = |difference: &Difference| {
        format!("{} {}", format!("{:?}", difference.kind).to_lowercase(), difference.place)
    };
    let found: Vec<String> = judgement.differences.iter().map(shown).collect();
    assert_eq!(
        (judgement.comparison, found),
        (comparison, differences.iter().map(|&text| text.into()).collect())
    );
}

/// What production and the candidate said, in the only difference.
fn quoted(judgement: &Judgement) -> [String; 2] {
    let [difference] = judgement.differences.as_slice() else { panic!("{judgement:?}") };
    [&difference.production, &difference.candidate]
        .map(|value| value.as_ref().map_or(String::new(), |value| value.get().clone()))
}

#[test]
fn statuses_of_grpc_count_like_those_of_http() {
    let comparer = comparer(&[], &[], true);
    let says = |status: &str| ended(&[("grpc-status", status)]);
    let only_trailers = response("200\ncontent-type: application/grpc\ngrpc-status: 5");
    let nothing = ended(&[]);
    let cases: [(&Response, &Response, Option<&Response>, Comparison, Found); 9] = [
        (&says("0"), &says("0"), None, Match, &[]),
        (&says("5"), &only_trailers, None, Match, &[]),
        (&says("5"), &says(" 05"), None, Match, &[]),
        (&says("0"), &says("5"), None, Mismatch, &["value grpc-status"]),
        (&says("0"), &says("5"), Some(&says("0")), Mismatch, &["value grpc-status"]),
        (&says("0"), &says("5"), Some(&says("5")), Drift, &["value grpc-status"]),
        (&says("0"), &says("5"), Some(&says("13")), Mismatch, &["value grpc-status"]),
        (&says("0"), &nothing, None, Mismatch, &["missing grpc-status"]),
        (&says("0"), &says("what"), None, Mismatch, &["value grpc-status"]),
    ];
    for (production, candidate, baseline, comparison, differences) in cases {
        check(&judge(&comparer, production, candidate, baseline), comparison, differences);
    }
    assert_eq!(quoted(&judge(&comparer, &says("0"), &only_trailers, None)), ["0 OK", "5 NOT_FOUND"]);
    assert_eq!(quoted(&judge(&comparer, &says("0"), &says("99"), None)), ["0 OK", "99 unknown"]);
    // What else differs follows from that.
    let refused = response("200\ncontent-type: application/grpc\ngrpc-status: 7\ngrpc-message: no");
    check(&judge(&comparer, &answer(&[json!({"id": 1})]), &refused, None), Mismatch, &["value grpc-status"]);
    let broken = response("503\ncontent-type: text/html\n\nno");
    check(&judge(&comparer, &answer(&[]), &broken, None), Mismatch, &["value status"]);
    let page = response("200\ncontent-type: text/html\n\nno");
    check(&judge(&comparer, &answer(&[]), &page, None), Mismatch, &["missing grpc-status"]);
}

#[test]
fn an_altered_request_that_both_refuse_is_drift_and_shows_nothing() {
    let request = &request(&format!("POST {METHOD}"));
    let (production, refusal) = (answer(&[json!({"id": 1})]), ended(&[("grpc-status", "16")]));
    let judgement = comparer(&[], &[], true).judge(&Inputs {
        request,
        request_altered: true,
        production: &production,
        candidate: &refusal,
        baseline: Some(&refusal),
    });
    check(&judgement, Drift, &["value grpc-status"]);
    assert!(is_status(&judgement.differences[0].place) && is_status("status") && !is_status("body"));
}

#[test]
fn the_message_of_a_status_is_compared_without_its_encoding() {
    let comparer = comparer(&[], &[], true);
    let says = |message: &str| ended(&[("grpc-status", "5"), ("grpc-message", message)]);
    let cases: [(&str, &str, Option<&str>, Comparison, Found); 5] = [
        ("not here", "not%20here", None, Match, &[]),
        ("", "", None, Match, &[]),
        ("a", "b", None, Mismatch, &["value grpc-message"]),
        ("a", "", None, Mismatch, &["missing grpc-message"]),
        ("at 1", "at 2", Some("at 3"), Noise, &["value grpc-message"]),
    ];
    for (production, candidate, baseline, comparison, differences) in cases {
        let baseline = baseline.map(says);
        let judgement = judge(&comparer, &says(production), &says(candidate), baseline.as_ref());
        check(&judgement, comparison, differences);
    }
    check(&judge(&comparer, &ended(&[("grpc-status", "5")]), &says(""), None), Match, &[]);
    let judgement = judge(&comparer, &says("bob%40example.com"), &says("none%21"), None);
    assert_eq!(quoted(&judgement), ["[masked: email]", "none!"]);
    let more = ended(&[("grpc-status", "5"), ("grpc-status-details-bin", "CAU="), ("x-trace", "1")]);
    check(&judge(&comparer, &more, &ended(&[("grpc-status", "5")]), None), Match, &[]);
}

#[test]
fn a_status_of_grpc_stands_for_one_of_http() {
    let cases = [
        (ended(&[("grpc-status", "0")]), 200),
        (ended(&[("grpc-status", "1")]), 499),
        (ended(&[("grpc-status", "2")]), 500),
        (ended(&[("grpc-status", "4")]), 504),
        (ended(&[("grpc-status", "5")]), 404),
        (ended(&[("grpc-status", "12")]), 501),
        (ended(&[("grpc-status", "13")]), 500),
        (ended(&[("grpc-status", "14")]), 503),
        (ended(&[("grpc-status", "15")]), 500),
        (ended(&[("grpc-status", "16")]), 401),
        (ended(&[("grpc-status", "17")]), 500),
        (ended(&[("grpc-status", "-1")]), 500),
        (ended(&[]), 500),
        (response("200\ncontent-type: application/grpc+proto; x=1\ngrpc-status: 8"), 429),
        (response("503\ncontent-type: application/grpc\ngrpc-status: 0"), 503),
        (response("200\ncontent-type: application/grpc-web\ngrpc-status: 13"), 200),
        (response("200\ngrpc-status: 13"), 200),
        (response("404"), 404),
    ];
    for (response, expected) in cases {
        assert_eq!(http_status(&response), expected, "{:?} {:?}", response.headers, response.trailers);
    }
}

#[test]
fn messages_are_compared_by_structure_where_their_type_is_known() {
    let comparer = comparer(&["$..at", "$[0].inner"], &[], true);
    let p = [json!({"id": 1, "items": [{"price": 1.5}, {"price": 2.0}], "at": "2024-01-02T03:04:05Z"})];
    let cases: [(&[Value], Comparison, Found); 9] = [
        (&p, Match, &[]),
        (&[json!({"id": 1, "items": [{"price": 1.5}, {"price": 2.0}]})], Match, &[]),
        (&[json!({"id": 1, "items": [{"price": 1.5}, {"price": 2.0}], "inner": {"id": 5}})], Match, &[]),
        (&[json!({"items": [{"price": 1.5}, {"price": 2.0}]})], Mismatch, &["missing body:$[0].id"]),
        (
            &[json!({"id": 2, "items": [{"price": 1.5}, {"price": 3.0}]})],
            Mismatch,
            &["value body:$[0].id", "value body:$[0].items[*].price"],
        ),
        (&[json!({"id": 1, "items": [{"price": 1.5}]})], Mismatch, &["missing body:$[0].items[*]"]),
        (&[], Mismatch, &["missing body:$[0]"]),
        (&[p[0].clone(), json!({})], Mismatch, &["added body:$[*]"]),
        (&[p[0].clone(), json!({"id": 1})], Mismatch, &["added body:$[*]"]),
    ];
    for (candidate, comparison, differences) in cases {
        check(&judge(&comparer, &answer(&p), &answer(candidate), None), comparison, differences);
    }
    let of = |id: i32| answer(&[json!({"id": id})]);
    check(&judge(&comparer, &of(1), &of(2), Some(&of(2))), Drift, &["value body:$[0].id"]);
    check(&judge(&comparer, &of(1), &of(2), Some(&of(3))), Noise, &["value body:$[0].id"]);
    check(&judge(&comparer, &of(1), &of(2), Some(&of(1))), Mismatch, &["value body:$[0].id"]);
    let page = response("200\ncontent-type: text/html\ngrpc-status: 0\n\nno");
    check(&judge(&comparer, &of(1), &of(2), Some(&page)), Mismatch, &["value body:$[0].id"]);
}

#[test]
fn messages_of_unknown_type_are_compared_by_their_bytes() {
    let (one, two) = ([json!({"name": "SECRET"})], json!({"name": "other"}));
    let comparer = comparer(&[], &[], false);
    check(&judge(&comparer, &answer(&one), &answer(&one), None), Match, &[]);
    let differs = judge(
        &comparer,
        &answer(&[one[0].clone(), one[0].clone()]),
        &answer(&[one[0].clone(), two.clone()]),
        None,
    );
    check(&differs, Mismatch, &["value body:$[*]"]);
    let [production, candidate] = quoted(&differs);
    assert!(production.starts_with("\"[8 bytes, sha256 ") && candidate.starts_with("\"[7 bytes, sha256 "));
    assert!(!production.contains("SECRET"));
    let more = judge(&comparer, &answer(&one), &answer(&[one[0].clone(), two]), None);
    check(&more, Mismatch, &["added body:$[*]"]);
    let request = &request("POST /shop.Shop/Other");
    let judgement = self::comparer(&[], &[], true).judge(&Inputs {
        request,
        request_altered: false,
        production: &answer(&one),
        candidate: &answer(&[json!({})]),
        baseline: None,
    });
    check(&judgement, Mismatch, &["value body:$[0]"]);
}

#[test]
fn what_cannot_be_decoded_and_what_is_unknown_is_said_in_the_difference() {
    let comparer = comparer(&[], &[], true);
    let known = answer(&[json!({"id": 1})]);
    let broken = |text: &[u8]| answer_of(framed(0, &[b"\xff", text].concat()));
    let judgement = judge(&comparer, &known, &broken(b"a"), None);
    check(&judgement, Mismatch, &["type body:$[0]"]);
    assert!(quoted(&judgement)[1].starts_with("\"[undecodable: 2 bytes, sha256 "), "{judgement:?}");
    check(&judge(&comparer, &broken(b"a"), &broken(b"a"), None), Match, &[]);
    check(&judge(&comparer, &broken(b"a"), &broken(b"b"), None), Mismatch, &["value body:$[0]"]);
    let extended = |value: u8| answer_of(framed(0, &[8, 1, 0xa0, 6, value]));
    let judgement = judge(&comparer, &known, &extended(1), None);
    check(&judgement, Mismatch, &["added body:$[0]['@unknown']"]);
    assert!(quoted(&judgement)[1].starts_with("\"[fields 100: 3 bytes, sha256 "), "{judgement:?}");
    check(&judge(&comparer, &extended(1), &extended(1), None), Match, &[]);
    check(&judge(&comparer, &extended(1), &extended(2), None), Mismatch, &["value body:$[0]['@unknown']"]);
}

#[test]
fn messages_in_json_need_no_descriptors() {
    let comparer = comparer(&[], &[], false);
    let says = |text: &str| Response {
        body: framed(0, text.as_bytes()).into(),
        trailers: fields(&[("grpc-status", "0")]),
        ..response("200\ncontent-type: application/grpc+json")
    };
    check(&judge(&comparer, &says("{\"a\":1,\"b\":2}"), &says("{ \"b\": 2.0, \"a\": 1 }"), None), Match, &[]);
    check(&judge(&comparer, &says("{\"a\":1}"), &says("{\"a\":2}"), None), Mismatch, &["value body:$[0].a"]);
    let judgement = judge(&comparer, &says("{\"a\":1}"), &says("{\"a\""), None);
    check(&judgement, Mismatch, &["type body:$[0]"]);
    assert!(quoted(&judgement)[1].starts_with("\"[no JSON: 4 bytes"));
}

/// An answer whose only message is compressed.
fn compressed(coding: &str, message: &[u8]) -> Response {
    use flate2::Compression;
    use flate2::read::{GzEncoder, ZlibEncoder};
    use std::io::Read;

    let mut bytes = Vec::new();
    let mut encoder: Box<dyn Read> = match coding {
        "gzip" => Box::new(GzEncoder::new(message, Compression::fast())),
        "deflate" => Box::new(ZlibEncoder::new(message, Compression::fast())),
        _ => Box::new(message),
    };
    encoder.read_to_end(&mut bytes).unwrap();
    let mut answer = answer_of(framed(1, &bytes));
    answer.headers.0.extend(fields(&[("grpc-encoding", coding)]).0);
    answer
}

#[test]
fn compressed_messages_are_undone_within_the_limit() {
    let comparer = comparer(&[], &[], true);
    let (plain, bytes) = (answer(&[json!({"id": 1})]), product(&json!({"id": 1})));
    for coding in ["gzip", "deflate", "identity"] {
        check(&judge(&comparer, &plain, &compressed(coding, &bytes), None), Match, &[]);
        let other = compressed(coding, &product(&json!({"id": 2})));
        check(&judge(&comparer, &plain, &other, None), Mismatch, &["value body:$[0].id"]);
    }
    let too_large = Uncomparable(UncomparableReason::TooLarge);
    for coding in ["gzip", "deflate"] {
        let bomb = |size| compressed(coding, &vec![0xff; size]);
        check(&judge(&comparer, &plain, &bomb(LIMIT), None), Mismatch, &["type body:$[0]"]);
        check(&judge(&comparer, &plain, &bomb(LIMIT + 1), None), too_large, &[]);
        let twice = |size: usize| {
            let mut bomb = bomb(LIMIT - 1);
            bomb.body = [bomb.body.as_ref(), &framed(0, &vec![0xff; size])].concat().into();
            bomb
        };
        check(&judge(&comparer, &plain, &twice(1), None), Mismatch, &["type body:$[0]", "added body:$[*]"]);
        check(&judge(&comparer, &plain, &twice(2), None), too_large, &[]);
    }
    let encoding = Uncomparable(UncomparableReason::Encoding);
    check(&judge(&comparer, &plain, &compressed("snappy", &bytes), None), encoding, &[]);
    let unexplained = answer_of(framed(1, &bytes));
    check(&judge(&comparer, &plain, &unexplained, None), encoding, &[]);
    let mut broken = compressed("gzip", &bytes);
    broken.body = framed(1, b"no gzip").into();
    check(&judge(&comparer, &plain, &broken, None), encoding, &[]);
    check(&judge(&comparer, &broken, &broken, None), Match, &[]);
}

#[test]
fn what_is_not_made_of_whole_messages_is_not_compared() {
    let comparer = comparer(&[], &[], true);
    let (one, two) = (answer(&[json!({"id": 1})]), answer(&[json!({"id": 2})]));
    let framing = Uncomparable(UncomparableReason::Framing);
    let bodies: [&[u8]; 6] =
        [b"\0", b"\0\0\0\0", b"\0\0\0\0\x02a", b"\0\xff\xff\xff\xffa", b"\x02\0\0\0\0", b"\0\0\0\0\x01aX"];
    for body in bodies {
        let broken = answer_of(body.to_vec());
        check(&judge(&comparer, &one, &broken, None), framing, &[]);
        check(&judge(&comparer, &broken, &one, None), framing, &[]);
        check(&judge(&comparer, &broken, &broken, None), Match, &[]);
        check(&judge(&comparer, &one, &one, Some(&broken)), Match, &[]);
        check(&judge(&comparer, &one, &two, Some(&broken)), framing, &[]);
        let refused = Response { trailers: fields(&[("grpc-status", "13")]), ..broken };
        check(&judge(&comparer, &one, &refused, None), Mismatch, &["value grpc-status"]);
    }
    check(&judge(&comparer, &answer(&[]), &answer_of(framed(0, b"")), None), Mismatch, &["added body:$[0]"]);
}

#[test]
fn the_number_of_messages_is_bounded() {
    let comparer = comparer(&[], &[], true);
    let many = |count: usize| answer_of(framed(0, b"").repeat(count));
    let one = answer(&[json!({})]);
    check(&judge(&comparer, &one, &many(MAX_MESSAGES), None), Mismatch, &["added body:$[*]"]);
    let too_large = Uncomparable(UncomparableReason::TooLarge);
    check(&judge(&comparer, &one, &many(MAX_MESSAGES + 1), None), too_large, &[]);
}

#[test]
fn differences_hold_no_masked_value() {
    let comparer = comparer(&[], &["$..email", "$[*].inner"], true);
    let of = |who: &str, name: &str| {
        answer(&[json!({"email": who, "inner": {"name": who}, "items": [{"id": 1}], "name": name})])
    };
    let judgement = judge(&comparer, &of("SECRETa", "bob@example.com"), &of("SECRETb", "b"), None);
    check(&judgement, Mismatch, &["value body:$[0].email", "value body:$[0].inner", "value body:$[0].name"]);
    let shown = serde_json::to_string(&judgement.differences).unwrap();
    assert!(!shown.contains("SECRET") && !shown.contains("bob"), "{shown}");
    let all = judge(&comparer, &of("SECRETa", "a"), &answer(&[]), None);
    let shown = serde_json::to_string(&all.differences).unwrap();
    assert!(!shown.contains("SECRET"), "{shown}");
}

proptest! {
    #[test]
    fn arbitrary_bodies_are_compared(
        p in proptest::collection::vec(any::<u8>(), 0..40),
        c in proptest::collection::vec(any::<u8>(), 0..40),
        framed_whole: bool,
        decodes: bool,
    ) {
        let answer = |body: &[u8]| answer_of(if framed_whole { framed(0, body) } else { body.to_vec() });
        let comparer = comparer(&[], &["$..email"], decodes);
        prop_assert_eq!(judge(&comparer, &answer(&p), &answer(&p), None).comparison, Match);
        let judgement = judge(&comparer, &answer(&p), &answer(&c), None);
        prop_assert!(judgement.comparison == Match || p != c);
        prop_assert_eq!(judgement.comparison == Mismatch, !judgement.differences.is_empty());
    }

    #[test]
    fn the_table_holds_for_any_messages(p in 0..3_i32, c in 0..3_i32, b in 0..3_i32, name in "[a-z]{0,3}") {
        let comparer = comparer(&[], &[], true);
        let of = |id: i32| answer(&[json!({"id": id, "name": name})]);
        let (p, c, b) = (of(p), of(c), of(b));
        let alone = judge(&comparer, &p, &c, None);
        prop_assert_eq!(alone.comparison == Match, p.body == c.body);
        let expected = if p.body == c.body { [Match, Match] } else { [Mismatch, Drift] };
        prop_assert_eq!(judge(&comparer, &p, &c, Some(&p)).comparison, expected[0]);
        prop_assert_eq!(judge(&comparer, &p, &c, Some(&c)).comparison, expected[1]);
        let all = judge(&comparer, &p, &c, Some(&b));
        prop_assert_eq!(all.comparison == Match, alone.comparison == Match);
    }
}
