use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::{Credentials, Mask, MaskRules};
use crate::policy::fixture::{documents, request};

fn masker(fields: &[&str]) -> Masker {
    let fields = fields.iter().map(|path| (*path).into()).collect();
    let keep = MaskRules { fields, ..Mask::default().keep };
    Masker::new(&Mask { keep, ..Mask::default() }, Credentials::Skip).unwrap()
}

#[test]
fn headers_hide_credentials_and_personal_data() {
    let masker = masker(&["$..email"]);
    let cases = [
        ("content-type", "text/html", "text/html"),
        ("Authorization", "Basic x", "[masked: header]"),
        ("Set-Cookie", "a=b", "[masked: header]"),
        ("X-Vault-Token", "x", "[masked: header]"),
        ("location", "/u?token=abc&x=1", "/u?token=[masked: query]&x=1"),
        ("location", "/u?next=%2Fa%3Faccess_token%3Dabc", "/u?next=/a?access_token=[masked: query]"),
        ("x-owner", "bob%40example.com", "[masked: email]"),
    ];
    for (name, value, expected) in cases {
        assert_eq!(masker.keep_header(name, value.as_bytes()).get(), expected, "{name}: {value}");
    }
    let json = masker.keep_header("x-json", br#"a {"email":"bob"}"#);
    assert!(json.get().starts_with("[17 bytes, sha256 "), "{json:?}");
    let cookie = masker.keep_cookie("sid", &["path=/".to_owned(), "secure".to_owned()]);
    assert_eq!(cookie.get(), "sid=[masked: cookie]; path=/; secure");
    assert_eq!(masker.keep_status(503).get(), "503");
    for (token, expected) in [("GET", "GET"), ("x-a", "x-a"), ("AKIAIOSFODNN7EXAMPLE", "[masked: token]")] {
        assert_eq!(masker.keep_token(token.as_bytes()).get(), expected);
    }
}

#[test]
fn targets_hide_parameters_by_name_and_segments_by_form() {
    let masker = masker(&["$..email"]);
    let cases = [
        ("/a/b?x=1&y", "/a/b?x=1&y"),
        ("http://u:p@h/a", "/a"),
        ("/a?TOKEN=x&%74oken=y&token", "/a?TOKEN=[masked: query]&%74oken=[masked: query]&token"),
        ("/u/bob@example.com/x", "/u/[masked: email]/x"),
        ("/u/bob%40example.com", "/u/[masked: email]"),
        ("/a;jsessionid=1;v=2", "/a;jsessionid=[masked: query];v=2"),
        ("/a?mail=bob%40example.com", "/a?mail=[masked: email]"),
        ("/a?card=4111+1111", "/a?card=4111+1111"),
        ("/pay/4111111111111111", "/pay/[masked: card]"),
        ("/a?f=%7B%22email%22%3A%22bob%22%7D", "/a?f=[masked: field]"),
        ("/a?next=/b%3Ftoken%3Dx", "/a?next=[masked: query]"),
        (
            "/a?client-secret=x&Passphrase=y&z=1",
            "/a?client-secret=[masked: query]&Passphrase=[masked: query]&z=1",
        ),
    ];
    for (target, expected) in cases {
        assert_eq!(masker.keep_target(&request(&format!("GET {target}"))).get(), expected);
    }
}

#[test]
fn json_hides_masked_fields_from_above_from_inside_and_in_strings() {
    use Step::{Index, Key};
    let masker = masker(&["$..email", "$.secret"]);
    let value = json!({
        "n": 1.50, "s": "x@y.de", "email": "bob", "secret": {"deep": [1, {"k": "hush"}]},
        "list": [{"email": "bob", "id": 1}], "text": "{\"email\": \"bob\", \"id\": 1}", "odd": "{\"email\": \"bob",
    });
    let document = masker.document(&value);
    let cases: [(&[Step<'_>], &str); 9] = [
        (&[Key("n")], "1.5"),
        (&[Key("s")], "\"[masked: email]\""),
        (&[Key("email")], "[masked: field]"),
        (&[Key("secret")], "[masked: field]"),
        (&[Key("secret"), Key("deep"), Index(1), Key("k")], "[masked: field]"),
        (&[Key("list"), Index(0)], "{\"email\":\"[masked: field]\",\"id\":1}"),
        (&[Key("list"), Index(0), Key("email")], "[masked: field]"),
        (&[Key("text")], "\"{\\\"email\\\":\\\"[masked: field]\\\",\\\"id\\\":1}\""),
        (&[Key("nowhere")], "[masked: field]"),
    ];
    for (path, expected) in cases {
        assert_eq!(masker.keep_json(&document, path).get(), expected, "{path:?}");
    }
    assert!(masker.keep_json(&document, &[Key("odd")]).get().starts_with("\"[14 bytes, sha256 "));
    assert!(!masker.keep_json(&document, &[]).get().contains("bob"));
    assert_eq!(document.masked_at(&[Key("secret"), Key("deep")]), Some(1));
    assert_eq!(document.masked_at(&[Key("list"), Index(0), Key("id")]), None);
}

#[test]
fn text_is_shown_unless_field_rules_cannot_be_applied() {
    let plain = masker(&[]);
    let strict = masker(&["$..email"]);
    assert_eq!(plain.keep_text("hello bob@example.com").get(), "hello [masked: email]");
    assert_eq!(strict.keep_text("{\"email\": \"bob\"}").get(), "{\"email\":\"[masked: field]\"}");
    for text in ["hello", "{\"email\": \"bob\"", "  \"email\": \"bob\",", "{\"email\":1} {\"email\":2}"] {
        assert!(
            strict.keep_text(text).get().starts_with(&format!("[{} bytes, sha256 ", text.len())),
            "{text}"
        );
    }
}

#[test]
fn values_are_cut_on_a_character_and_only_after_the_detectors() {
    let masker = masker(&[]);
    let exact = "x".repeat(MAX_KEPT);
    assert_eq!(masker.keep_text(&exact).get(), &exact);
    let longer = "ü".repeat(MAX_KEPT);
    let cut = masker.keep_text(&longer);
    assert!(cut.get().len() <= MAX_KEPT && cut.get().ends_with("ü…"));
    let key = format!("{}-----BEGIN PRIVATE KEY-----\n{}", "x".repeat(200), "A".repeat(MAX_SCANNED));
    assert!(!masker.keep_text(&key).get().contains("AAAA"));
    for before in MAX_SCANNED - 40..MAX_SCANNED {
        // Everything in front is replaced by something short, so that what stands at the end comes into view.
        let head = format!("-----BEGIN PRIVATE KEY-----{}-----END PRIVATE KEY-----", "A".repeat(before - 52));
        let kept = masker.keep_text(&format!("{head} bob.example@example.com"));
        assert!(!kept.get().contains("bob"), "{before}: {kept:?}");
    }
    let big = json!({ "a": "x".repeat(1 << 20) });
    assert_eq!(masker.keep_json(&masker.document(&big), &[]).get().len(), MAX_KEPT);
}

fn every_path<'a>(value: &'a Value, path: &mut Vec<Step<'a>>, visit: &mut dyn FnMut(&[Step<'a>])) {
    visit(path);
    let children: Vec<(Step<'a>, &'a Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(at, item)| (Step::Index(at), item)).collect(),
        Value::Object(members) => members.iter().map(|(key, value)| (Step::Key(key), value)).collect(),
        _ => Vec::new(),
    };
    for (step, child) in children {
        path.push(step);
        every_path(child, path, visit);
        path.pop();
    }
}

proptest! {
    #[test]
    fn a_masked_value_is_in_no_output(document in documents()) {
        let masker = masker(&["$..email"]);
        let kept = masker.document(&document);
        every_path(&document, &mut Vec::new(), &mut |path| {
            let shown = masker.keep_json(&kept, path);
            assert!(!shown.get().contains("SECRET"), "{path:?} of {document}: {shown:?}");
        });
        let text = document.to_string();
        let mut shown = vec![masker.keep_text(&text), masker.keep_header("x", text.as_bytes())];
        shown.push(masker.keep_target(&request(&format!("GET /a?b={}", text.replace(' ', "+")))));
        shown.extend(text.lines().map(|line| masker.keep_text(line)));
        for shown in shown {
            prop_assert!(!shown.get().contains("SECRET"), "{:?}", shown);
            prop_assert!(shown.get().len() <= MAX_KEPT);
        }
    }
}
