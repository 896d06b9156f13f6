//! TLS, protocol, host, breaker and credentials of a target: what is accepted, refused and shown.

use super::super::super::{OwnCredentials, Secret};
use super::*;

fn with(extra: &str) -> String {
    LEAST.replace("\" }] }", &format!("\", {extra} }}] }}"))
}

fn secure(extra: &str) -> String {
    with(extra).replace("http://", "https://")
}

fn replacing(extra: &str) -> String {
    with(extra).replace("replay: {", "replay: { credentials: replace,")
}

#[test]
fn what_is_said_of_a_target_is_refused_with_value_and_remedy() {
    let at = |key: &str, problem: &str| format!("line 2 of F: replay.targets[0].{key}: {problem}");
    for (file, message) in [
        (
            with("tls: { verify: false }"),
            at(
                "tls",
                "`http://10.0.0.9:8080` is spoken to without TLS; write an https:// URL or leave `tls` out",
            ),
        ),
        (
            secure("tls: { verify: false, cert: /c }"),
            at("tls", "a client certificate needs both `cert` and `key`; give both or neither"),
        ),
        (
            secure("tls: { verify: false, server_name: a/b }"),
            at(
                "tls.server_name",
                "`a/b` is not a name that a certificate can be for; write a host name or an IP address",
            ),
        ),
        (
            secure("tls: { ca: /nonexistent/ca.pem }"),
            at(
                "tls",
                "`/nonexistent/ca.pem` cannot be read (No such file or directory (os error 2)); give a PEM file that this user may read",
            ),
        ),
        (with("http: 3"), at("http", "`3` is not possible; write auto, 1.1 or 2")),
        (
            with("host: \"a b\""),
            at("host", "`a b` is not a host; write preserve, target, or a host such as shop.example:8080"),
        ),
        (
            with("dns_refresh: 999ms"),
            at("dns_refresh", "`999ms` is out of bounds; write a value from 1s to 3600s"),
        ),
        (
            with("breaker: never"),
            at("breaker", "`never` is not possible; write off, or keys such as { failures: 50%, pause: 2s }"),
        ),
        (
            with("breaker: { failures: 0% }"),
            at("breaker.failures", "`0%` is out of bounds; write a value from 1% to 100%"),
        ),
        (
            with("breaker: { pause: 1ms }"),
            at("breaker.pause", "`1ms` is out of bounds; write a value from 100ms to 600s"),
        ),
        (
            with("idempotency_header: content-length"),
            at(
                "idempotency_header",
                "`content-length` is written by the agent itself and cannot be configured; leave it out",
            ),
        ),
        (
            with("credentials: { headers: { authorization: { env: PATH } } }"),
            at(
                "credentials",
                "credentials of a target's own are sent only with `replay.credentials: replace`; write that or leave them out",
            ),
        ),
        (
            replacing("credentials: { headers: { authorization: { env: PATH, file: /a } } }"),
            at(
                "credentials.headers.authorization",
                "a credential comes either from `file` or from `env`; write one of the two",
            ),
        ),
        (
            replacing("credentials: { query: { \"a b\": { env: PATH } } }"),
            at(
                "credentials.query.a b",
                "`a b` is not the name of a query parameter; write up to 256 letters, digits and -_.~[]",
            ),
        ),
        (
            replacing("credentials: { headers: { authorization: { file: /nonexistent/token } } }"),
            at(
                "credentials",
                "`/nonexistent/token` (for authorization) cannot be read (No such file or directory (os error 2)); give a file that this user may read",
            ),
        ),
        (
            replacing("credentials: { headers: { authorization: { env: SHADOW_TESTS_NO_SUCH_VARIABLE } } }"),
            at(
                "credentials",
                "the environment variable SHADOW_TESTS_NO_SUCH_VARIABLE (for authorization) is not set; set it, or use a file",
            ),
        ),
    ] {
        check_refused(&[(&file, &message)]);
    }
}

#[test]
fn credentials_are_shown_by_where_they_are_read_and_never_by_value() {
    let token = Scratch::new("s3cr3t-token\n");
    let path = token.0.display();
    let file = replacing(&format!(
        "credentials: {{ headers: {{ Authorization: {{ file: {path} }} }}, query: {{ api_key: {{ env: CARGO_PKG_NAME }} }} }}"
    ));
    let config = ok(&file);
    let expected = OwnCredentials {
        headers: vec![("authorization".into(), Secret::File(token.0.clone()))],
        query: vec![("api_key".into(), Secret::Env("CARGO_PKG_NAME".into()))],
    };
    assert_eq!(config.replay.targets[0].credentials, expected);
    let shown = show::yaml(&config).unwrap();
    assert!(shown.contains(&path.to_string()) && shown.contains("CARGO_PKG_NAME"), "{shown}");
    assert!(!shown.contains("s3cr3t"), "{shown}");
    assert_eq!(ok(&shown), config, "what is shown means the same");
    assert!(!format!("{config:?}").contains("s3cr3t"));
}

#[test]
fn a_target_over_tls_is_shown_as_it_is_configured() {
    let config = ok(&secure("tls: { verify: false, server_name: shadow.test }, breaker: off"));
    assert_eq!(ok(&show::yaml(&config).unwrap()), config);
}
