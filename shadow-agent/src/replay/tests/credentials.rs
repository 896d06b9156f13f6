//! Credentials on the wire: forwarded as they were, or replaced by the target's own.

use super::*;
use crate::config::{Credentials, OwnCredentials, Secret};

const HEADERS: [(&str, &str); 5] = [
    ("host", "h"),
    ("authorization", "Bearer production"),
    ("accept", "a"),
    ("x-tenant", "production"),
    ("cookie", "session=production"),
];

fn with(policy: Credentials, own: &OwnCredentials, version: Version, target: &str) -> Arc<Sendable> {
    let masker = Masker::new(&config::Mask::default(), policy).unwrap().replacing(std::iter::once(own));
    passed(&masker, version, "GET", target, &HEADERS, "")
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> Secret {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    Secret::File(path)
}

#[tokio::test]
async fn production_s_credentials_are_replaced_by_those_of_each_target_and_follow_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let own = OwnCredentials {
        headers: vec![
            ("authorization".into(), file(&folder, "bearer", "Bearer own-1\n")),
            ("x-tenant".into(), file(&folder, "tenant", "own")),
        ],
        query: vec![("api_key".into(), file(&folder, "key", "a b&c"))],
    };
    let (with_own, without) = (Server::answering(OK).await, Server::answering(OK).await);
    let targets =
        vec![config::Target { credentials: own.clone(), ..target(with_own.port) }, target(without.port)];
    let replayer = start(targets, None, &Control::new(true));
    let request = || with(Credentials::Replace, &own, Version::HTTP_11, "/a?api_key=production&b=1");
    assert!(request().altered());
    replayer.replay(request()).await;
    let (replaced, stripped) = (with_own.requests().pop().unwrap(), without.requests().pop().unwrap());
    assert!(replaced.starts_with("GET /a?b=1&api_key=a%20b%26c HTTP/1.1\r\n"), "{replaced}");
    assert!(replaced.contains("\r\nauthorization: Bearer own-1\r\n"), "{replaced}");
    assert!(replaced.contains("\r\nx-tenant: own\r\n"), "{replaced}");
    assert!(stripped.starts_with("GET /a?b=1 HTTP/1.1\r\n"), "{stripped}");
    assert!(!stripped.contains("authorization") && !stripped.contains("x-tenant"), "{stripped}");
    for wire in [replaced, stripped] {
        assert!(!wire.contains("production") && !wire.contains("cookie"), "{wire}");
        assert!(wire.contains("\r\naccept: a\r\n"), "{wire}");
    }
    file(&folder, "bearer", "Bearer own-2");
    let changed = async {
        loop {
            replayer.replay(request()).await;
            if with_own.requests().pop().unwrap().contains("\r\nauthorization: Bearer own-2\r\n") {
                break;
            }
            tokio::time::sleep(SHORT).await;
        }
    };
    tokio::time::timeout(LONG, changed).await.expect("the new value is sent");
}

#[tokio::test]
async fn a_request_that_carried_no_credentials_is_sent_none() {
    let folder = tempfile::tempdir().unwrap();
    let own = OwnCredentials {
        headers: vec![("authorization".into(), file(&folder, "bearer", "Bearer own"))],
        query: Vec::new(),
    };
    let server = Server::answering(OK).await;
    let replayer = only(config::Target { credentials: own.clone(), ..target(server.port) });
    let masker =
        Masker::new(&config::Mask::default(), Credentials::Replace).unwrap().replacing([&own].into_iter());
    let request = passed(&masker, Version::HTTP_11, "GET", "/", &[("host", "h")], "");
    assert!(!request.altered());
    assert_eq!(end(&replayer, request).await, "200");
    assert!(!server.requests()[0].contains("authorization"));
}

#[tokio::test]
async fn forwarded_credentials_reach_the_target_as_they_were() {
    let none = OwnCredentials::default();
    let target_text = "/a?api_key=production&b=1";
    let server = Server::answering(OK).await;
    let request = with(Credentials::Forward, &none, Version::HTTP_11, target_text);
    assert!(!request.altered());
    assert_eq!(end(&only(target(server.port)), request).await, "200");
    let wire = server.requests().pop().unwrap();
    assert!(wire.starts_with(&format!("GET {target_text} HTTP/1.1\r\n")), "{wire}");
    let head: Vec<&str> = wire.lines().skip(1).take(HEADERS.len()).collect();
    let expected: Vec<String> = HEADERS.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    assert_eq!(head, expected, "in their places");
    let server = http2_server::Http2Server::answering(200, "ok").await;
    let request = with(Credentials::Forward, &none, Version::HTTP_2, target_text);
    assert_eq!(end(&only(target(server.port)), request).await, "200");
    let head = server.requests().pop().unwrap();
    assert_eq!(head.headers()["authorization"], "Bearer production");
    assert_eq!(head.uri().path_and_query().unwrap(), target_text);
}

#[tokio::test]
async fn credentials_that_cannot_be_read_at_the_start_are_an_error_without_their_values() {
    let folder = tempfile::tempdir().unwrap();
    let own = OwnCredentials {
        headers: vec![("authorization".into(), file(&folder, "bearer", "s3cr3t\nline"))],
        query: Vec::new(),
    };
    let target = config::Target { credentials: own, ..target(80) };
    let config = config::Replay {
        credentials: Credentials::Replace,
        targets: vec![target],
        ..config::Replay::default()
    };
    let error = Replayer::start(&config, &SETTINGS, Control::new(true)).unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(said.contains("`to-80`") && said.contains("authorization") && !said.contains("s3cr3t"), "{said}");
}
