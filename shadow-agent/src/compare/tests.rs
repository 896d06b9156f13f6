use std::io::Read;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{Compare, Credentials, Mask, MaskRules};
use crate::exchange::{Headers, UncomparableReason};
use crate::policy::fixture::{documents as secret_documents, request, response};

use Comparison::{Drift, Match, Mismatch, Noise, Uncomparable};

const LIMIT: usize = 1 << 20;

fn comparer(ignore: &[&str], fields: &[&str]) -> Comparer {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let fields = fields.iter().map(|path| (*path).into()).collect();
    let keep = MaskRules { fields, ..Mask::default().keep };
    let masker = Masker::new(&Mask { keep, ..Mask::default() }, Credentials::Skip).unwrap();
    Comparer::new(&Compare { ignore: owned(ignore), ..Compare::default() }, Arc::new(masker), LIMIT).unwrap()
}

fn json_answer(body: &str) -> Response {
    response(&format!("200\ncontent-type: application/json\n\n{body}"))
}

fn judge(
    comparer: &Comparer,
    production: &Response,
    candidate: &Response,
    baseline: Option<&Response>,
) -> Judgement {
    let request = &request("GET /");
    comparer.judge(&Inputs { request, request_altered: false, production, candidate, baseline })
}

/// Compares the judgement with what is expected, the differences as `kind place`.
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

#[track_caller]
fn check_json(p: &str, c: &str, b: &str, comparison: Comparison, differences: &[&str]) {
    let [p, c, b] = [p, c, b].map(json_answer);
    check(&judge(&comparer(&["$..ignored"], &[]), &p, &c, Some(&b)), comparison, differences);
}

#[test]
fn the_table_of_three_answers() {
    check_json("1", "1", "1", Match, &[]);
    check_json("1", "2", "1", Mismatch, &["value body:$"]);
    check_json("1", "2", "2", Drift, &["value body:$"]);
    check_json("1", "1", "2", Match, &[]);
    check_json("1", "2", "3", Noise, &["value body:$"]);
    check_json("1", "\"2\"", "3", Mismatch, &["type body:$"]);
    check_json("1", "\"2\"", "\"3\"", Noise, &["type body:$"]);
    check_json("1", "null", "3", Mismatch, &["type body:$"]);
}

#[test]
fn each_place_is_weighed_by_itself_and_the_worst_decides() {
    check_json(r#"{"at":1,"p":1}"#, r#"{"at":2,"p":2}"#, r#"{"at":3,"p":1}"#, Mismatch, &["value body:$.p"]);
    check_json(r#"{"at":1,"p":1}"#, r#"{"at":2,"p":2}"#, r#"{"at":3,"p":2}"#, Drift, &["value body:$.p"]);
    check_json(r#"{"at":1,"p":1}"#, r#"{"at":2,"p":1}"#, r#"{"at":3,"p":5}"#, Noise, &["value body:$.at"]);
    check_json(r#"{"a":{"x":1}}"#, r#"{"a":[1]}"#, r#"{"a":[2]}"#, Noise, &["type body:$.a"]);
    check_json(r#"{"a":{"x":1}}"#, r#"{"a":[1]}"#, r#"{"a":[1.0]}"#, Drift, &["type body:$.a"]);
    check_json(r#"{"a":{"x":1}}"#, r#"{"a":{"x":2}}"#, r#"{"a":7}"#, Mismatch, &["value body:$.a.x"]);
}

#[test]
fn a_missing_or_added_member_is_not_value_noise() {
    check_json(r#"{"a":1}"#, "{}", r#"{"a":2}"#, Mismatch, &["missing body:$.a"]);
    check_json(r#"{"a":1}"#, "{}", "{}", Drift, &["missing body:$.a"]);
    check_json("{}", r#"{"a":1}"#, "{}", Mismatch, &["added body:$.a"]);
    check_json("{}", r#"{"a":1}"#, r#"{"a":1}"#, Drift, &["added body:$.a"]);
    check_json("{}", r#"{"a":1}"#, r#"{"a":2}"#, Noise, &["added body:$.a"]);
    check_json("{}", r#"{"a":1}"#, r#"{"a":"2"}"#, Mismatch, &["added body:$.a"]);
    check_json("{}", r#"{"a":{"x":1}}"#, r#"{"a":{"x":1,"y":2}}"#, Noise, &["added body:$.a"]);
    check_json("{}", r#"{"a":{"x":1,"y":2}}"#, r#"{"a":{"x":1}}"#, Noise, &["added body:$.a"]);
    check_json("{}", r#"{"a":{"x":1}}"#, r#"{"a":{"ignored":2,"x":1}}"#, Drift, &["added body:$.a"]);
    check_json("{}", r#"{"a":[1,2]}"#, r#"{"a":[1]}"#, Noise, &["added body:$.a"]);
    check_json("[1]", "[1,2]", "[1]", Mismatch, &["added body:$[*]"]);
    check_json("[1,2]", "[1]", "[1,2,3]", Mismatch, &["missing body:$[*]"]);
}

#[test]
fn without_a_baseline_every_difference_counts() {
    let comparer = comparer(&["$.ignored", "$.list[*].at"], &[]);
    let cases: [(&str, &str, &[&str]); 11] = [
        ("{\"a\":1,\"b\":[1,2]}", "{ \"b\": [1.0, 2e0], \"a\": 1 }", &[]),
        ("{\"ignored\":1}", "{\"ignored\":{\"a\":1}}", &[]),
        ("{\"ignored\":1}", "{}", &[]),
        ("{}", "{\"ignored\":1}", &[]),
        ("{\"list\":[{\"at\":1},{\"at\":2}]}", "{\"list\":[{\"at\":3},{}]}", &[]),
        ("{\"a\":{\"ignored\":1}}", "{\"a\":{\"ignored\":2}}", &["value body:$.a.ignored"]),
        ("{\"n\":18446744073709551616}", "{\"n\":18446744073709551617}", &["value body:$.n"]),
        ("{\"n\":true}", "{\"n\":false}", &["value body:$.n"]),
        ("[{\"p\":1},{\"p\":2}]", "[{\"p\":3},{\"p\":4}]", &["value body:$[*].p"]),
        ("{\"7\":1,\"8\":1}", "{\"7\":2,\"9\":1}", &["value body:$.*", "missing body:$.*", "added body:$.*"]),
        ("{\"a\":1}", "not json", &["type body"]),
    ];
    for (production, candidate, differences) in cases {
        let judgement = judge(&comparer, &json_answer(production), &json_answer(candidate), None);
        check(&judgement, if differences.is_empty() { Match } else { Mismatch }, differences);
    }
}

/// Production, candidate, baseline; what is concluded, and the differences.
type Case = (&'static str, &'static str, Option<&'static str>, Comparison, &'static [&'static str]);

#[test]
fn status_headers_and_bodies_of_every_form() {
    let cases: [Case; 24] = [
        ("200", "200", None, Match, &[]),
        ("200\n\na", "500\n\nb", Some("200\n\na"), Mismatch, &["value status"]),
        ("200", "500", Some("503"), Mismatch, &["value status"]),
        ("200", "404", Some("404"), Drift, &["value status"]),
        ("200\nlocation: /a", "404", Some("404\nlocation: /b"), Mismatch, &["missing header:location"]),
        ("200\ndate: a\netag: b\nserver: c", "200\ndate: x\netag: y\nvia: z", None, Match, &[]),
        ("200\nCache-Control: no-store", "200", None, Mismatch, &["missing header:cache-control"]),
        ("200\nlocation: http://a/x", "200\nLocation: /x", None, Match, &[]),
        (
            "200\nlocation: /x?1",
            "200\nlocation: /x?2",
            Some("200\nlocation: /x?3"),
            Noise,
            &["value header:location"],
        ),
        ("200\nset-cookie: a=1; Path=/", "200\nset-cookie: a=2; path=/", None, Match, &[]),
        (
            "200\nset-cookie: a=1; Secure\nset-cookie: b=1",
            "200\nset-cookie: a=1",
            None,
            Mismatch,
            &["value header:set-cookie", "missing header:set-cookie"],
        ),
        (
            "200\ncontent-type: text/plain\n\na\nb",
            "200\ncontent-type: text/plain\n\na\nc",
            None,
            Mismatch,
            &["value body:line"],
        ),
        (
            "200\ncontent-type: text/plain\n\na\nb",
            "200\ncontent-type: text/plain\n\na",
            None,
            Mismatch,
            &["missing body:line"],
        ),
        (
            "200\ncontent-type: text/plain\n\n1\nb",
            "200\ncontent-type: text/plain\n\n2\nb",
            Some("200\n\n3\nb"),
            Noise,
            &["value body:line"],
        ),
        (
            "200\ncontent-type: text/html\n\n1\nb",
            "200\ncontent-type: text/html\n\n2\nc",
            Some("200\n\n3\nb"),
            Mismatch,
            &["value body:line"],
        ),
        (
            "200\ncontent-type: text/plain\n\n{\"a\":1}",
            "200\ncontent-type: text/plain\n\n{ \"a\": 1 }",
            None,
            Match,
            &[],
        ),
        ("200\n\n{\"a\":1}", "200\n\n{\"a\":2}", None, Mismatch, &["value body:$.a"]),
        (
            "200\ncontent-type: image/png\n\na",
            "200\ncontent-type: image/png\n\nb",
            None,
            Mismatch,
            &["value body"],
        ),
        (
            "200\ncontent-type: image/png\n\na",
            "200\ncontent-type: image/png",
            None,
            Mismatch,
            &["missing body"],
        ),
        (
            "200\ncontent-type: image/png",
            "200\ncontent-type: image/png\n\na",
            Some("200\n\na"),
            Drift,
            &["added body"],
        ),
        (
            "200\ncontent-type: application/json\n\n{}",
            "200\ncontent-type: text/html\n\n<p>",
            None,
            Mismatch,
            &["value header:content-type", "type body"],
        ),
        ("200\ncontent-encoding: x\n\na", "200\ncontent-encoding: x\n\na", None, Match, &[]),
        ("200\ncontent-encoding: x\n\na", "200\n\nb", None, Uncomparable(UncomparableReason::Encoding), &[]),
        ("200\ncontent-encoding: x\n\na", "500\n\nb", None, Mismatch, &["value status"]),
    ];
    let comparer = comparer(&[], &[]);
    for (production, candidate, baseline, comparison, differences) in cases {
        let baseline = baseline.map(response);
        let judgement = judge(&comparer, &response(production), &response(candidate), baseline.as_ref());
        check(&judgement, comparison, differences);
    }
}

#[test]
fn the_baseline_has_its_own_line() {
    let cases = [
        ("1", "1", Some("2"), Match),
        ("1", "2", Some("2"), Drift),
        ("1", "2", Some("1"), Noise),
        ("1", "2", Some("3"), Noise),
        ("1", "\"2\"", Some("3"), Noise),
        ("1", "2", None, Noise),
        ("[1,1]", "[2,2]", Some("[2,1]"), Drift),
    ];
    let (comparer, request) = (comparer(&[], &[]), request("GET /"));
    for (production, baseline, candidate, expected) in cases {
        let [production, baseline] = [production, baseline].map(json_answer);
        let candidate = candidate.map(json_answer);
        let mut inputs = BaselineInputs {
            request: &request,
            request_altered: false,
            production: &production,
            baseline: &baseline,
            candidate: candidate.as_ref(),
        };
        assert_eq!(comparer.judge_baseline(&inputs).comparison, expected);
        inputs.request_altered = true;
        let masked = Uncomparable(UncomparableReason::MaskedRequest);
        assert_eq!(comparer.judge_baseline(&inputs).comparison, masked);
    }
}

#[test]
fn an_altered_request_is_judged_against_the_baseline_only() {
    let (comparer, request) = (comparer(&[], &[]), request("GET /"));
    let [production, one, two] = ["1", "2", "3"].map(json_answer);
    let judge = |candidate, baseline| {
        let production = &production;
        comparer.judge(&Inputs { request: &request, request_altered: true, production, candidate, baseline })
    };
    check(&judge(&one, Some(&one)), Match, &[]);
    check(&judge(&production, Some(&one)), Mismatch, &["value body:$"]);
    check(&judge(&two, Some(&one)), Mismatch, &["value body:$"]);
    assert_eq!(judge(&two, Some(&one)).differences[0].production.as_ref().unwrap().get(), "2");
    check(&judge(&production, None), Uncomparable(UncomparableReason::MaskedRequest), &[]);
    // Without its credentials, both refuse what production answered: that is no agreement on the answer.
    let refusal = response("401");
    check(&judge(&refusal, Some(&refusal)), Drift, &["value status"]);
    check(&judge(&refusal, Some(&one)), Mismatch, &["value status"]);
}

#[test]
fn the_body_of_an_answer_to_head_is_not_compared() {
    let (production, candidate) = (response("200\n\na"), response("200\n\nb"));
    let request = &request("HEAD /");
    let judgement = comparer(&[], &[]).judge(&Inputs {
        request,
        request_altered: false,
        production: &production,
        candidate: &candidate,
        baseline: None,
    });
    check(&judgement, Match, &[]);
}

fn gzip(data: &[u8]) -> Bytes {
    let mut encoded = Vec::new();
    flate2::read::GzEncoder::new(data, flate2::Compression::fast()).read_to_end(&mut encoded).unwrap();
    encoded.into()
}

fn zipped(body: &[u8]) -> Response {
    let mut response = response("200\ncontent-type: application/json\ncontent-encoding: gzip");
    response.body = gzip(body);
    response
}

#[test]
fn encodings_are_undone_within_the_limit() {
    let comparer = comparer(&[], &[]);
    let (plain, same, other) = (json_answer("{\"a\":1}"), zipped(b"{\"a\": 1.0}"), zipped(b"{\"a\":2}"));
    check(&judge(&comparer, &plain, &same, None), Match, &[]);
    check(&judge(&comparer, &plain, &other, None), Mismatch, &["value body:$.a"]);
    let (fits, bomb) = (zipped(&vec![b' '; LIMIT]), zipped(&vec![b' '; LIMIT + 1]));
    check(&judge(&comparer, &plain, &fits, None), Mismatch, &["type body"]);
    let too_large = Uncomparable(UncomparableReason::TooLarge);
    check(&judge(&comparer, &plain, &bomb, None), too_large, &[]);
    check(&judge(&comparer, &plain, &same, Some(&bomb)), Match, &[]);
    check(&judge(&comparer, &plain, &other, Some(&bomb)), too_large, &[]);
}

#[test]
fn the_number_of_differences_is_bounded() {
    let document = |count: usize, value: u8| {
        let members = (0..count).map(|index| {
            let letters =
                [index / 26, index % 26].map(|digit| char::from(b'a' + u8::try_from(digit).unwrap()));
            (String::from_iter(letters), json!(value))
        });
        json_answer(&Value::Object(members.collect()).to_string())
    };
    for (count, expected) in [(MAX_DIFFERENCES, MAX_DIFFERENCES), (MAX_DIFFERENCES + 1, MAX_DIFFERENCES)] {
        let judgement = judge(&comparer(&[], &[]), &document(count, 1), &document(count, 2), None);
        assert_eq!((judgement.comparison, judgement.differences.len()), (Mismatch, expected));
    }
    for (before, differences) in [
        (weigh::MAX_EXAMINED - 1, &["value body:$[*]", "value body:$[*].last"][..]),
        (weigh::MAX_EXAMINED, &["value body:$[*]"][..]),
    ] {
        let answer = |value: u32| {
            let mut items = vec![json!(value); before];
            items.push(json!({ "last": value }));
            json_answer(&Value::Array(items).to_string())
        };
        check(&judge(&comparer(&[], &[]), &answer(1), &answer(2), None), Mismatch, differences);
    }
    let noisy = |value: u32, last: u32| {
        let mut items = vec![json!(value); 10_000];
        items.push(json!({ "last": last }));
        json_answer(&Value::Array(items).to_string())
    };
    let judgement = judge(&comparer(&[], &[]), &noisy(1, 1), &noisy(2, 2), Some(&noisy(3, 1)));
    check(&judgement, Mismatch, &["value body:$[*].last"]);
}

#[test]
fn differences_hold_no_masked_value() {
    let comparer = comparer(&[], &["$..email", "$.people"]);
    let production =
        json_answer(r#"{"email":"bob","people":{"bob":{"age":1}},"s":"{\"email\":\"bob\"}","x":1}"#);
    let candidate =
        json_answer(r#"{"email":"eve","people":{"bob":{"age":2}},"s":"{\"email\":\"eve\"}","x":2}"#);
    let judgement = judge(&comparer, &production, &candidate, None);
    check(
        &judgement,
        Mismatch,
        &["value body:$.email", "value body:$.people", "value body:$.s", "value body:$.x"],
    );
    let shown = serde_json::to_string(&judgement.differences).unwrap();
    assert!(!shown.contains("bob") && !shown.contains("eve"), "{shown}");
    let broken = judge(&comparer, &production, &json_answer("{\"email\":\"eve\""), None);
    let shown = serde_json::to_string(&broken.differences).unwrap();
    assert!(!shown.contains("bob") && !shown.contains("eve"), "{shown}");
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let new = |compare: &Compare| Comparer::new(compare, Arc::default(), LIMIT).unwrap_err().to_string();
    let headers = vec!["Date".to_owned()];
    assert!(new(&Compare { headers, ..Compare::default() }).contains("`date`"));
    let ignore = vec!["$.[".to_owned()];
    assert!(new(&Compare { ignore, ..Compare::default() }).contains("compare.ignore: `$.[`"));
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,6}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::btree_map("[a-d]{1,2}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The document as text, the members of every object in reverse.
fn reversed(value: &Value) -> String {
    let join = |parts: Vec<String>| parts.join(" ,\n");
    match value {
        Value::Array(items) => format!("[{}]", join(items.iter().map(reversed).collect())),
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| format!("{} : {}", json!(key), reversed(value));
            format!("{{ {} }}", join(members.iter().rev().map(member).collect()))
        }
        leaf => leaf.to_string(),
    }
}

proptest! {
    #[test]
    fn order_and_spelling_never_differ(document in documents()) {
        let judgement = judge(&comparer(&[], &[]), &json_answer(&document.to_string()), &json_answer(&reversed(&document)), None);
        prop_assert_eq!(judgement.comparison, Match);
    }

    #[test]
    fn the_table_holds_for_any_documents(p in documents(), c in documents(), b in documents()) {
        let comparer = comparer(&[], &[]);
        let [p, c, b] = [p, c, b].map(|document| json_answer(&document.to_string()));
        prop_assert_eq!(judge(&comparer, &p, &p, Some(&c)).comparison, Match);
        let alone = judge(&comparer, &p, &c, None);
        prop_assert_eq!(alone.comparison == Match, alone.differences.is_empty());
        let expected = if alone.comparison == Match { [Match, Match] } else { [Mismatch, Drift] };
        prop_assert_eq!(judge(&comparer, &p, &c, Some(&p)).comparison, expected[0]);
        prop_assert_eq!(judge(&comparer, &p, &c, Some(&c)).comparison, expected[1]);
        let all = judge(&comparer, &p, &c, Some(&b));
        prop_assert_eq!(all.comparison == Match, alone.comparison == Match);
        prop_assert!(all.differences.len() <= MAX_DIFFERENCES);
    }

    #[test]
    fn a_masked_value_is_in_no_difference(
        p in secret_documents(),
        c in secret_documents(),
        form in prop_oneof![Just("application/json"), Just("text/plain"), Just("text/html"), Just("image/png")],
    ) {
        let answer = |document: &Value| response(&format!("200\ncontent-type: {form}\n\n{document}"));
        let cut = Response { body: answer(&c).body.slice(1..), ..answer(&c) };
        for candidate in [answer(&c), cut] {
            let judgement = judge(&comparer(&[], &["$..email"]), &answer(&p), &candidate, None);
            let shown = serde_json::to_string(&judgement.differences).unwrap();
            prop_assert!(!shown.contains("SECRET"), "{}", shown);
        }
    }

    #[test]
    fn arbitrary_bytes_are_compared(
        p in proptest::collection::vec(any::<u8>(), 0..64),
        c in proptest::collection::vec(any::<u8>(), 0..64),
        form in prop_oneof![Just("application/json"), Just("text/html"), Just("image/png")],
    ) {
        let answer = |body: &[u8]| Response {
            headers: Headers(vec![(Bytes::from_static(b"content-type"), Bytes::from_static(form.as_bytes()))]),
            body: Bytes::copy_from_slice(body),
            ..response("200")
        };
        prop_assert_eq!(judge(&comparer(&[], &[]), &answer(&p), &answer(&p), None).comparison, Match);
        let judgement = judge(&comparer(&[], &["$..a"]), &answer(&p), &answer(&c), None);
        prop_assert_eq!(judgement.comparison == Match, judgement.differences.is_empty());
    }
}
