use super::*;
use crate::config::{Missing, TokenPlace, TokenRule};
use crate::policy::fixture::response;
use crate::replay::tests::sendable;

fn mapping() -> Mapping {
    let sid = || vec![TokenPlace::Cookie("sid".to_owned())];
    let rule = TokenRule { name: "sid".to_owned(), issued: sid(), carried: sid(), missing: Missing::Drop };
    Mapping::new(Arc::new(Tokens::new(&[rule]).unwrap()), 2)
}

fn issues(mapping: &Mapping, value: &str) -> Vec<Issued> {
    mapping.tokens.issued(&response(&format!("200\nset-cookie: sid={value}")))
}

/// The cookie that a target is sent where production was sent that one.
fn carried(mapping: &Mapping, target: usize, value: &str, now: Instant) -> Result<String, DropReason> {
    let request = sendable("GET", "/", &[("cookie", &format!("sid={value}"))], "");
    let sent = mapping.carried(target, &request, now)?;
    let sent = sent.as_ref().unwrap_or(&request).whole_for_test();
    let headers = sent.headers();
    Ok(String::from_utf8(headers.get("cookie").unwrap().to_vec()).unwrap())
}

#[test]
fn every_target_is_sent_its_own_value_or_nothing() {
    let (mapping, now) = (mapping(), Instant::now());
    assert_eq!(carried(&mapping, 0, "p", now), Ok("sid=p".to_owned()), "nobody knows it");
    let issued = issues(&mapping, "p");
    mapping.expect(&issued, now);
    assert_eq!(carried(&mapping, 0, "p", now), Err(DropReason::Token), "it is under way");
    mapping.learn(0, &issued, &mut response("200\nset-cookie: sid=a"), now);
    mapping.learn(1, &issued, &mut response("500"), now);
    assert_eq!(carried(&mapping, 0, "p", now), Ok("sid=a".to_owned()));
    assert_eq!(carried(&mapping, 1, "p", now), Err(DropReason::Token), "it failed there");
    mapping.expect(&issued, now);
    assert_eq!(carried(&mapping, 0, "p", now), Ok("sid=a".to_owned()), "issued again");
    assert!(!format!("{mapping:?}").contains("sid"), "{mapping:?}");
}

#[test]
fn a_value_that_changes_where_production_s_does_not_is_a_difference() {
    let header = || vec![TokenPlace::Header("x-csrf".to_owned())];
    let rule =
        TokenRule { name: "c".to_owned(), issued: header(), carried: header(), missing: Missing::Drop };
    let mapping = Mapping::new(Arc::new(Tokens::new(&[rule]).unwrap()), 1);
    let (issued, now) = (mapping.tokens.issued(&response("200\nx-csrf: p")), Instant::now());
    mapping.expect(&issued, now);
    for (own, seen) in [("s", "p"), ("s", "p"), ("t", "t"), ("t", "p")] {
        let mut answer = response(&format!("200\nx-csrf: {own}"));
        mapping.learn(0, &issued, &mut answer, now);
        assert_eq!(answer.headers.get("x-csrf").unwrap(), seen, "{own}");
    }
}

#[test]
fn a_value_that_nobody_uses_is_forgotten_after_a_while() {
    let (mapping, start) = (mapping(), Instant::now());
    let issued = issues(&mapping, "p");
    mapping.expect(&issued, start);
    mapping.learn(0, &issued, &mut response("200\nset-cookie: sid=a"), start);
    let almost = start + MAX_AGE - Duration::from_nanos(1);
    assert_eq!(carried(&mapping, 0, "p", almost), Ok("sid=a".to_owned()), "and this is a use");
    assert_eq!(carried(&mapping, 0, "p", start + MAX_AGE), Ok("sid=a".to_owned()));
    assert_eq!(carried(&mapping, 0, "p", start + 2 * MAX_AGE), Ok("sid=p".to_owned()));
    assert_eq!(mapping.lock().bytes, 0);
}

#[test]
fn values_are_bounded_in_number_and_in_bytes() {
    let (mapping, now) = (mapping(), Instant::now());
    for number in 0..=MAX_KNOWN {
        mapping.expect(&issues(&mapping, &format!("v{number}")), now);
    }
    assert_eq!(mapping.lock().known.len(), MAX_KNOWN);
    assert_eq!(carried(&mapping, 0, "v0", now), Ok("sid=v0".to_owned()), "forgotten");
    assert_eq!(carried(&mapping, 0, "v1", now), Err(DropReason::Token), "known");

    let mapping = self::mapping();
    let large = "x".repeat(4096);
    let fit = MAX_BYTES / large.len();
    for number in 0..=fit {
        let issued = issues(&mapping, &format!("v{number}"));
        mapping.expect(&issued, now);
        mapping.learn(0, &issued, &mut response(&format!("200\nset-cookie: sid={large}")), now);
    }
    let book = mapping.lock();
    assert_eq!((book.bytes, book.known.len()), (MAX_BYTES, fit));
}
