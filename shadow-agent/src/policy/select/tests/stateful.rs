//! What rules match beside paths, and what becomes of requests that change something.

use super::*;
use crate::config::{Condition, Sizes};

fn rule(condition: Condition, mode: Option<Stateful>) -> SelectRule {
    SelectRule { condition, share: Share::ALL, mode }
}

fn methods(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn with(select: Select) -> Selector {
    Selector::new(&select, Credentials::Skip).unwrap()
}

#[track_caller]
fn check_mode(selector: &Selector, request: &str, expected: Result<Mode, SkipReason>) {
    let decided = selector.decide(&exchange(request, "200")).map(|plan| plan.mode);
    assert_eq!(decided, expected, "{request}");
}

#[test]
fn a_rule_matches_when_all_that_it_says_holds() {
    let skips = |condition: Condition| {
        let rules = vec![SelectRule { condition, share: Share(0.0), mode: None }];
        with(Select { rules, ..Select::default() })
    };
    let text = |value: &str| value.to_owned();
    let any = Condition::default;
    let request =
        "GET /a\ncontent-type: Application/JSON; charset=utf-8\nx-tenant: blue/1\nx-tenant: red\n\n12345";
    let response = "404\ncontent-type: text/html\n\n123";
    let cases = [
        (any(), true),
        (Condition { methods: methods(&["GET", "HEAD"]), ..any() }, true),
        (Condition { methods: methods(&["HEAD"]), ..any() }, false),
        (Condition { headers: vec![(text("x-tenant"), text("bl*"))], ..any() }, true),
        (Condition { headers: vec![(text("x-tenant"), text("red"))], ..any() }, true),
        (Condition { headers: vec![(text("x-tenant"), text("re"))], ..any() }, false),
        (Condition { headers: vec![(text("x-other"), text("*"))], ..any() }, false),
        (
            Condition { headers: vec![(text("x-tenant"), text("red")), (text("b"), text("*"))], ..any() },
            false,
        ),
        (Condition { status: vec![(200, 299), (404, 404)], ..any() }, true),
        (Condition { status: vec![(405, 499)], ..any() }, false),
        (Condition { request_body: Sizes { min: 5, max: 5 }, ..any() }, true),
        (Condition { request_body: Sizes { min: 6, max: 9 }, ..any() }, false),
        (Condition { response_body: Sizes { min: 0, max: 2 }, ..any() }, false),
        (Condition { response_body: Sizes { min: 3, max: u64::MAX }, ..any() }, true),
        (Condition { request_type: vec![text("application/*")], ..any() }, true),
        (Condition { request_type: vec![text("text/*")], ..any() }, false),
        (Condition { response_type: vec![text("image/*"), text("text/html")], ..any() }, true),
        (Condition { path: Some(text("/b")), status: vec![(404, 404)], ..any() }, false),
        (Condition { path: Some(text("/a")), status: vec![(404, 404)], ..any() }, true),
        (Condition { path: Some(text("/a")), status: vec![(200, 200)], ..any() }, false),
    ];
    for (condition, matches) in cases {
        let expected = if matches { Err(SkipReason::Rule) } else { Ok(()) };
        let said = format!("{condition:?}");
        let decided = skips(condition).decide(&exchange(request, response)).map(drop);
        assert_eq!(decided, expected, "{said}");
    }
    let typed = skips(Condition { request_type: vec![text("*")], ..any() });
    check(&typed, "GET /a", "200", Ok(()));
}

#[test]
fn a_rule_that_does_not_match_leaves_the_decision_to_the_next() {
    let failing =
        Condition { path: Some("/a/**".to_owned()), status: vec![(500, 599)], ..Condition::default() };
    let rules = vec![rule(failing, None), SelectRule::by_path("/a/**", Share(0.0))];
    let selector = with(Select { rules, ..Select::default() });
    check(&selector, "GET /a/b", "503", Ok(()));
    check(&selector, "GET /a/b", "200", Err(SkipReason::Rule));
}

#[test]
fn only_a_rule_that_names_a_path_lets_through_what_acts() {
    let rules = vec![rule(Condition { status: vec![(200, 200)], ..Condition::default() }, None)];
    let by_status = with(Select { rules, ..Select::default() });
    check(&by_status, "GET /logout", "200", Err(SkipReason::Rule));
    check(&by_status, "GET /a", "200", Ok(()));
}

#[test]
fn unsafe_methods_are_sent_only_where_they_are_listed() {
    use Stateful::{DryRun, RecordOnly, Send, Skip};
    let post = "POST /a";
    let select = |listed: bool, stateful: Option<Stateful>, rules: Vec<SelectRule>| {
        let methods = if listed { methods(&["GET", "POST"]) } else { methods(&["GET"]) };
        with(Select { methods, stateful, rules, ..Select::default() })
    };
    let method = Err(SkipReason::Method);
    let cases = [
        (false, None, method),
        (true, None, Ok(Mode::Send)),
        (false, Some(Send), method),
        (true, Some(Send), Ok(Mode::Send)),
        (true, Some(Skip), method),
        (false, Some(DryRun), Ok(Mode::DryRun)),
        (true, Some(DryRun), Ok(Mode::DryRun)),
        (false, Some(RecordOnly), Ok(Mode::RecordOnly)),
    ];
    for (listed, stateful, expected) in cases {
        let selector = select(listed, stateful, Vec::new());
        check_mode(&selector, post, expected);
        check_mode(&selector, "GET /a", Ok(Mode::Send));
        check_mode(&selector, "GET /logout", Err(SkipReason::Rule));
    }
    let everywhere = || Condition { path: Some("/**".to_owned()), ..Condition::default() };
    let posts = || Condition { methods: methods(&["POST"]), ..everywhere() };
    let cases = [
        (false, None, rule(everywhere(), Some(Send)), method),
        (true, Some(Skip), rule(everywhere(), Some(Send)), Ok(Mode::Send)),
        (false, None, rule(posts(), Some(Send)), Ok(Mode::Send)),
        (false, None, rule(posts(), None), method),
        (false, Some(Send), rule(posts(), None), Ok(Mode::Send)),
        (true, None, rule(posts(), Some(Skip)), Err(SkipReason::Rule)),
        (false, None, rule(everywhere(), Some(DryRun)), Ok(Mode::DryRun)),
        (true, Some(Send), rule(everywhere(), Some(RecordOnly)), Ok(Mode::RecordOnly)),
        (true, None, SelectRule { share: Share(0.0), ..rule(posts(), None) }, Err(SkipReason::Rule)),
    ];
    for (listed, stateful, rule, expected) in cases {
        let said = format!("{rule:?}");
        let decided = select(listed, stateful, vec![rule]).decide(&exchange(post, "200"));
        assert_eq!(decided.map(|plan| plan.mode), expected, "{listed} {stateful:?} {said}");
    }
}

#[test]
fn what_acts_and_is_let_through_has_a_mode_too_and_other_safe_requests_only_by_name() {
    let by_rule = |named: &[&str], mode: Option<Stateful>, stateful: Option<Stateful>| {
        let condition =
            Condition { methods: methods(named), path: Some("/**".to_owned()), ..Condition::default() };
        with(Select { rules: vec![rule(condition, mode)], stateful, ..Select::default() })
    };
    let (dry, record) = (Some(Stateful::DryRun), Some(Stateful::RecordOnly));
    for (selector, acting, plain) in [
        (by_rule(&[], None, None), Ok(Mode::Send), Ok(Mode::Send)),
        (by_rule(&[], None, dry), Ok(Mode::DryRun), Ok(Mode::Send)),
        (by_rule(&[], record, dry), Ok(Mode::RecordOnly), Ok(Mode::Send)),
        (by_rule(&[], None, Some(Stateful::Skip)), Err(SkipReason::Rule), Ok(Mode::Send)),
        (by_rule(&["GET"], record, None), Ok(Mode::RecordOnly), Ok(Mode::RecordOnly)),
        (by_rule(&["GET"], None, dry), Ok(Mode::DryRun), Ok(Mode::Send)),
    ] {
        check_mode(&selector, "GET /logout", acting);
        check_mode(&selector, "GET /a", plain);
    }
}

#[test]
fn what_is_only_recorded_may_carry_credentials_because_it_is_masked() {
    let select = |mode| with(Select { stateful: Some(mode), ..Select::default() });
    let post = "POST /a\ncookie: a=b";
    check_mode(&select(Stateful::RecordOnly), post, Ok(Mode::RecordOnly));
    check_mode(&select(Stateful::DryRun), post, Err(SkipReason::Credentials));
}
