use super::*;
use crate::config::SelectRule;
use crate::policy::fixture::exchange;

mod stateful;

fn selector(rules: &[(&str, f64)], credentials: Credentials) -> Selector {
    let rules = rules.iter().map(|(path, share)| SelectRule::by_path(path, Share(*share))).collect();
    Selector::new(&Select { rules, ..Select::default() }, credentials).unwrap()
}

#[track_caller]
fn check(selector: &Selector, request: &str, response: &str, expected: Result<(), SkipReason>) {
    let decided = selector.decide(&exchange(request, response));
    assert_eq!(decided.map(|plan| plan.mode), expected.map(|()| Mode::Send), "{request} -> {response}");
}

#[test]
fn the_first_reason_in_order_decides() {
    use SkipReason::{Credentials as Secret, Marked, Method, NotModified, Rule, Streaming};
    let selector = selector(&[("/admin/**", 0.0)], Credentials::Skip);
    let stream = "200\ncontent-type: text/event-stream; charset=utf-8";
    let cases = [
        ("GET /a", "200", Ok(())),
        ("HEAD /a", "500", Ok(())),
        ("OPTIONS *", "200", Ok(())),
        ("POST /a\nx-shadow-request: 1", "200", Err(Marked)),
        ("GET /a\nX-Shadow-Request: 0", "200", Err(Marked)),
        ("GET /a\nBaggage: a=b, shadow = true;p=1", "200", Err(Marked)),
        ("GET /a\nbaggage: a=b\nbaggage: shadow=true", "200", Err(Marked)),
        ("GET /a\nbaggage: shadow=false,notshadow=true", "200", Ok(())),
        ("POST /admin/x", "200", Err(Method)),
        ("get /a", "200", Err(Method)),
        ("GET /admin/x\ncookie: a=b", "200", Err(Rule)),
        ("GET /logout\ncookie: a=b", "200", Err(Rule)),
        ("GET /a\ncookie: a=b", "304", Err(Secret)),
        ("GET /a\nAUTHORIZATION: Basic x", "200", Err(Secret)),
        ("GET /a\nX-Api-Key: x", "200", Err(Secret)),
        ("GET /a?access_token=x", "200", Err(Secret)),
        ("GET http://h/a?x=1&%74oken=x", "200", Err(Secret)),
        ("GET /a;jsessionid=1", "200", Err(Secret)),
        ("GET /a?tokens=1", "200", Ok(())),
        ("GET /a", "304\ncontent-type: text/event-stream", Err(NotModified)),
        ("GET /a", stream, Err(Streaming)),
        ("GET /a", "200\nContent-Type: TEXT/EVENT-STREAM", Err(Streaming)),
    ];
    for (request, response, expected) in cases {
        check(&selector, request, response, expected);
    }
}

#[test]
fn grpc_is_replayed_where_its_method_is_and_is_no_event_stream() {
    let call = "POST /shop.Shop/Find\ncontent-type: application/grpc\nte: trailers";
    let answer = "200\ncontent-type: application/grpc";
    check(&selector(&[], Credentials::Skip), call, answer, Err(SkipReason::Method));
    let select = Select { methods: ["POST".to_owned()].into(), ..Select::default() };
    let with_post = Selector::new(&select, Credentials::Skip).unwrap();
    check(&with_post, call, answer, Ok(()));
    check(&with_post, &call.replace("Shop/Find", "Auth/Logout"), answer, Err(SkipReason::Rule));
    let mut secret = exchange(call, answer);
    secret.request.trailers = exchange("GET /\nx-api-key: 1", "200").request.headers;
    assert_eq!(with_post.decide(&secret), Err(SkipReason::Credentials));
}

#[test]
fn credentials_are_no_reason_once_decided_on() {
    for credentials in [Credentials::Forward, Credentials::Strip] {
        check(&selector(&[], credentials), "GET /a?token=1\ncookie: a=b", "200", Ok(()));
    }
}

#[test]
fn the_first_matching_rule_decides() {
    let rules = [("/api/v1/*", 1.0), ("/api/**", 0.0), ("/logout", 1.0), ("/half/**", 0.0)];
    let selector = selector(&rules, Credentials::Skip);
    let cases = [
        ("/api/v1/users", Ok(())),
        ("/api/v1/users/7", Err(SkipReason::Rule)),
        ("/api", Err(SkipReason::Rule)),
        ("/api/", Err(SkipReason::Rule)),
        ("/apis", Ok(())),
        ("/%61pi/x", Err(SkipReason::Rule)),
        ("//api/x", Err(SkipReason::Rule)),
        ("/open/../api/x", Err(SkipReason::Rule)),
        ("/api/x?y=/../..", Err(SkipReason::Rule)),
        ("/API/x", Ok(())),
        ("/logout", Ok(())),
        ("/sign-out", Err(SkipReason::Rule)),
    ];
    for (path, expected) in cases {
        check(&selector, &format!("GET {path}"), "200", expected);
    }
}

#[test]
fn paths_that_act_are_skipped_unless_a_rule_names_them() {
    let acting = [
        "/logout",
        "/Log_Out",
        "/user/logoff.php",
        "/users/sign_out",
        "/%6cogout",
        "/newsletter/unsubscribe/abc",
        "/list/opt-out",
        "/oauth/callback?code=1",
        "/oauth2/google/callback",
        "/auth/github/callback",
        "/login/callback",
        "/signin-oidc",
        "/saml/acs",
        "/verify-email/abc",
        "/email/verify/1",
        "/account/activation/1",
        "/password/reset/1",
        "/reset_password",
        "/magic-link/1",
        "/one-time-login/1",
        "/invitations/7/accept",
    ];
    let harmless = [
        "/",
        "/login",
        "/blog/logouts",
        "/dialogoff2/x",
        "/subscribe",
        "/authors/return",
        "/email",
        "/items/callback",
        "/activate",
        "/users/verify-me",
    ];
    let by_default = selector(&[], Credentials::Skip);
    let by_rule = selector(&[("/**", 1.0)], Credentials::Skip);
    for path in acting {
        check(&by_default, &format!("GET {path}"), "200", Err(SkipReason::Rule));
        check(&by_rule, &format!("GET {path}"), "200", Ok(()));
    }
    for path in harmless {
        check(&by_default, &format!("GET {path}"), "200", Ok(()));
    }
}

#[test]
fn narrowing_the_paths_overrides_neither_rules_nor_built_in_skips() {
    let only = ["/api/**", "/b/*"].map(str::to_owned).to_vec();
    let rules = vec![SelectRule::by_path("/api/admin/**", Share(0.0)), SelectRule::by_path("/c", Share::ALL)];
    let select = Select { only, rules, ..Select::default() };
    let selector = Selector::new(&select, Credentials::Skip).unwrap();
    let cases = [
        ("/api", Ok(())),
        ("/api/users", Ok(())),
        ("/b/1", Ok(())),
        ("/b/1/2", Err(SkipReason::Rule)),
        ("/c", Err(SkipReason::Rule)),
        ("/open/../api/x", Ok(())),
        ("/api/../open", Err(SkipReason::Rule)),
        ("/api/admin/x", Err(SkipReason::Rule)),
        ("/api/logout", Err(SkipReason::Rule)),
        ("/api/oauth/callback?code=1", Err(SkipReason::Rule)),
    ];
    for (path, expected) in cases {
        check(&selector, &format!("GET {path}"), "200", expected);
    }
}

#[test]
fn a_sample_has_its_size_and_contains_every_smaller_one() {
    let sample = |share: f64| (0..10_000).filter(|&id| in_sample(ExchangeId(id), Share(share))).collect();
    let (none, tenth, half, all): (BTreeSet<u64>, BTreeSet<u64>, BTreeSet<u64>, BTreeSet<u64>) =
        (sample(0.0), sample(0.1), sample(0.5), sample(1.0));
    assert_eq!((none.len(), all.len()), (0, 10_000));
    assert!((900..1100).contains(&tenth.len()) && (4800..5200).contains(&half.len()));
    assert!(tenth.is_subset(&half));
    let mut exchange = exchange("GET /a", "200");
    let selector = selector(&[("/a", 0.5)], Credentials::Skip);
    for id in 0..100 {
        exchange.id = ExchangeId(id);
        let plan = Plan { mode: Mode::Send, share: Share(0.5) };
        let expected = if half.contains(&id) { Ok(plan) } else { Err(SkipReason::Sampled) };
        assert_eq!(selector.decide(&exchange), expected);
    }
}

#[test]
fn a_bad_glob_is_named() {
    let rules = vec![SelectRule::by_path("/a[", Share::ALL)];
    let error = Selector::new(&Select { rules, ..Select::default() }, Credentials::Skip).unwrap_err();
    assert!(error.to_string().starts_with("select: the path `/a[` is not a valid glob"), "{error}");
}
