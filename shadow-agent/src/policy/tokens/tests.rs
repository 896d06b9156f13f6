use super::*;
use crate::config::{Mask, TokenPlace};
use crate::policy::fixture::{exchange, response};
use crate::policy::mask::Masker;

fn text(text: &str) -> String {
    text.to_owned()
}

fn tokens(issued: &[TokenPlace], carried: &[TokenPlace], missing: Missing) -> Tokens {
    let rule = TokenRule { name: text("t"), issued: issued.to_vec(), carried: carried.to_vec(), missing };
    Tokens::new(&[rule]).unwrap()
}

fn sendable(request: &str) -> Sendable {
    let masker = Masker::new(&Mask::default(), crate::config::Credentials::Forward).unwrap();
    masker.sendable(&exchange(request, "200")).unwrap().whole_for_test().into_owned()
}

/// What becomes of a request when the value `old` is known, and the target's own is `new&1`.
fn sent(place: TokenPlace, request: &str) -> Option<Sendable> {
    let own = |rule: usize, value: &[u8]| match (rule, value) {
        (0, b"old") => Own::Value(Bytes::from_static(b"new&1")),
        (0, b"17") => Own::Value(Bytes::from_static(b"99")),
        _ => Own::Unknown,
    };
    tokens(&[], &[place], Missing::Drop).carried(&sendable(request), own).unwrap()
}

#[test]
fn a_value_is_replaced_wherever_it_is_carried() {
    let targets = [
        (TokenPlace::Query(text("t")), "GET /a?x=1&t=%6fld&t=other", "/a?x=1&t=new%261&t=other"),
        (TokenPlace::Path(text("/carts/{token}/**")), "GET /carts/ol%64/items?q", "/carts/new%261/items?q"),
        (TokenPlace::Path(text("/carts/{token}")), "GET /carts/17", "/carts/99"),
    ];
    for (place, request, expected) in targets {
        assert_eq!(sent(place, request).unwrap().target(), expected, "{request}");
    }
    let headers = [
        (
            TokenPlace::Cookie(text("s")),
            "GET /\ncookie: a=old; s=old; t=old",
            "cookie",
            "a=old; s=new&1; t=old",
        ),
        (TokenPlace::Header(text("x-csrf")), "GET /\nX-Csrf:  old", "x-csrf", "new&1"),
        (
            TokenPlace::Header(text("authorization")),
            "GET /\nauthorization: Bearer old",
            "authorization",
            "Bearer new&1",
        ),
    ];
    for (place, request, name, expected) in headers {
        assert_eq!(sent(place, request).unwrap().headers().get(name).unwrap(), expected, "{request}");
    }
    let body =
        "POST /\ncontent-type: application/json\n\n{\"t\":\"old\",\"l\":[{\"t\":17},{\"t\":\"other\"}]}";
    let sent_body = sent(TokenPlace::Field(text("$..t")), body).unwrap();
    let document: Value = serde_json::from_slice(sent_body.body()).unwrap();
    assert_eq!(document, serde_json::json!({"t": "new&1", "l": [{"t": 99}, {"t": "other"}]}));
    assert!(!sent_body.altered(), "it means the same to the target");
}

#[test]
fn what_is_not_known_or_elsewhere_stays_as_it_is() {
    for (place, request) in [
        (TokenPlace::Query(text("t")), "GET /a?t=older&x=old"),
        (TokenPlace::Path(text("/carts/{token}")), "GET /carts/old/items"),
        (TokenPlace::Cookie(text("s")), "GET /\ncookie: x=old; ss=old"),
        (TokenPlace::Header(text("x-csrf")), "GET /\nx-other: old"),
        (TokenPlace::Field(text("$.t")), "POST /\n\nt=old"),
    ] {
        assert!(sent(place, request).is_none(), "{request}");
    }
}

#[test]
fn a_value_that_the_target_lacks_is_not_sent_unless_the_rule_says_so() {
    let request = sendable("GET /\ncookie: s=old");
    let carried = |missing, own: Own| {
        tokens(&[], &[TokenPlace::Cookie(text("s"))], missing).carried(&request, |_, _| own.clone())
    };
    assert_eq!(carried(Missing::Drop, Own::Missing).map(drop), Err(NoneOfItsOwn));
    assert!(carried(Missing::Send, Own::Missing).unwrap().is_none());
    assert!(carried(Missing::Drop, Own::Unknown).unwrap().is_none());
}

#[test]
fn issued_values_are_found_and_made_equal_and_nothing_else_is() {
    let places = [
        TokenPlace::Cookie(text("sid")),
        TokenPlace::Header(text("x-csrf")),
        TokenPlace::Field(text("$..id")),
    ];
    let tokens = tokens(&places, &[], Missing::Drop);
    let production =
        response("200\nset-cookie: sid=p; Path=/\nx-csrf: pc\n\n{\"id\":1,\"in\":{\"id\":\"a\"},\"n\":5}");
    let issued = tokens.issued(&production);
    let values: Vec<&[u8]> = issued.iter().map(|issued| issued.value.as_ref()).collect();
    assert_eq!(values, [b"p".as_slice(), b"pc", b"1", b"a"]);
    assert!(!format!("{issued:?}").contains("pc"));

    let mut shadow = response("200\nset-cookie: sid=s\nx-csrf: sc\n\n{\"id\":2,\"in\":{\"id\":7},\"n\":6}");
    let own = Tokens::counterparts(&issued, &shadow);
    let own: Vec<Option<&[u8]>> = own.iter().map(|own| own.as_deref()).collect();
    assert_eq!(own, [Some(b"s".as_slice()), Some(b"sc"), Some(b"2"), Some(b"7")]);
    Tokens::equalise(issued.iter(), &mut shadow);
    assert_eq!(shadow.headers.get("x-csrf").unwrap(), "pc");
    let document: Value = serde_json::from_slice(&shadow.body).unwrap();
    assert_eq!(document, serde_json::json!({"id": 1, "in": {"id": 7}, "n": 6}), "a number is no string");

    let silent = response("500\n\nerror");
    assert_eq!(Tokens::counterparts(&issued, &silent), [None, None, None, None]);
    let mut unchanged = silent.clone();
    Tokens::equalise(issued.iter(), &mut unchanged);
    assert_eq!(unchanged, silent);
}

#[test]
fn so_many_values_of_one_response_count_and_no_more() {
    let tokens = tokens(&[TokenPlace::Field(text("$[*]"))], &[], Missing::Drop);
    for (count, found) in [(MAX_ISSUED, MAX_ISSUED), (MAX_ISSUED + 1, MAX_ISSUED)] {
        let list: Vec<_> = (0..count).collect();
        let issued = tokens.issued(&response(&format!("200\n\n{}", serde_json::json!(list))));
        assert_eq!(issued.len(), found);
    }
}
