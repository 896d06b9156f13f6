//! TLS: whom the agent trusts, who it says it is, which protocol is spoken, and how what goes wrong is counted.

use super::tls_server::{Authority, Identity, TlsServer};
use super::*;
use crate::config::{Http, Tls};

const FUTURE: i32 = 2090;
const PAST: i32 = 2020;
const BOTH: &[&str] = &["h2", "http/1.1"];

fn secure(port: u16, tls: Tls) -> config::Target {
    config::Target { url: format!("https://localhost:{port}").parse().unwrap(), tls, ..target(port) }
}

fn trusting(authority: &Authority) -> Tls {
    Tls { ca: Some(authority.pem()), ..Tls::default() }
}

fn request_by(version: Version) -> Arc<Sendable> {
    sendable_by(version, "POST", "/", &[("host", "shop.example")], "hello")
}

async fn ends_with(server: &TlsServer, tls: Tls) -> String {
    end(&only(secure(server.port, tls)), request_by(Version::HTTP_11)).await
}

#[tokio::test]
async fn a_target_is_asked_over_tls_by_the_protocol_that_it_chooses() {
    use http::Version as V;
    let authority = Authority::new();
    let identity = authority.identity("localhost", FUTURE);
    let cases: [(&[&str], Http, V, V); 10] = [
        (&[], Http::Auto, V::HTTP_11, V::HTTP_11),
        (&[], Http::Auto, V::HTTP_2, V::HTTP_11),
        (&["http/1.1"], Http::Auto, V::HTTP_2, V::HTTP_11),
        (&["h2"], Http::Auto, V::HTTP_11, V::HTTP_2),
        (&["h2"], Http::Auto, V::HTTP_2, V::HTTP_2),
        (BOTH, Http::Auto, V::HTTP_2, V::HTTP_2),
        (BOTH, Http::One, V::HTTP_2, V::HTTP_11),
        (BOTH, Http::One, V::HTTP_11, V::HTTP_11),
        (BOTH, Http::Two, V::HTTP_11, V::HTTP_2),
        (BOTH, Http::Two, V::HTTP_2, V::HTTP_2),
    ];
    for (alpn, http, asked, spoken) in cases {
        let mut server = TlsServer::start(authority.acceptor(&identity, alpn, false)).await;
        let replayer = only(config::Target { http, ..secure(server.port, trusting(&authority)) });
        for _ in 0..3 {
            assert_eq!(end(&replayer, request_by(asked)).await, "200", "{alpn:?} {http:?} {asked:?}");
            let (version, host, body) = server.seen().unwrap();
            assert_eq!(
                (version, host.as_str(), body.as_str()),
                (spoken, "shop.example", "hello"),
                "{alpn:?} {http:?} {asked:?}"
            );
        }
    }
}

#[tokio::test]
async fn without_tls_a_configured_version_is_spoken_and_what_it_cannot_express_is_not_sent() {
    let server = Server::answering(OK).await;
    let one = only(config::Target { http: Http::One, ..target(server.port) });
    assert_eq!(end(&one, request_by(Version::HTTP_2)).await, "200");
    assert!(server.requests()[0].contains("\r\nhost: shop.example\r\n"), "{:?}", server.requests());
    let call = sendable_by(
        Version::HTTP_2,
        "POST",
        "/a.B/C",
        &[("host", "h"), ("content-type", "application/grpc+proto")],
        "",
    );
    assert_eq!(end(&one, call).await, "failed: request");
    assert_eq!(server.requests().len(), 1);
    let server = http2_server::Http2Server::answering(200, "ok").await;
    let two = only(config::Target { http: Http::Two, ..target(server.port) });
    assert_eq!(end(&two, request_by(Version::HTTP_11)).await, "200");
    assert_eq!(server.requests()[0].uri().authority().unwrap(), "shop.example");
}

#[tokio::test]
async fn many_requests_at_once_find_out_the_protocol_on_one_connection() {
    let authority = Authority::new();
    let identity = authority.identity("localhost", FUTURE);
    for alpn in [&["h2"][..], &["http/1.1"]] {
        let server = TlsServer::start(authority.acceptor(&identity, alpn, false)).await;
        let replayer = Arc::new(only(secure(server.port, trusting(&authority))));
        let ends = http2::replays(&replayer, 40).join_all().await;
        assert!(ends.iter().all(|end| end == "200"), "{ends:?}");
    }
}

#[tokio::test]
async fn only_a_valid_certificate_of_a_trusted_authority_for_that_name_is_accepted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let cases = [
        ("localhost", FUTURE, &authority, None, "200"),
        ("localhost", PAST, &authority, None, "failed: tls"),
        ("elsewhere", FUTURE, &authority, None, "failed: tls"),
        ("elsewhere", FUTURE, &authority, Some("elsewhere"), "200"),
        ("localhost", FUTURE, &authority, Some("elsewhere"), "failed: tls"),
        ("localhost", FUTURE, &other, None, "failed: tls"),
    ];
    for (name, year, trusted, server_name, expected) in cases {
        let identity = authority.identity(name, year);
        let server = TlsServer::start(authority.acceptor(&identity, BOTH, false)).await;
        let tls = Tls { server_name: server_name.map(str::to_owned), ..trusting(trusted) };
        let unverified = Tls { verify: false, ..tls.clone() };
        assert_eq!(ends_with(&server, tls).await, expected, "{name} {year} {server_name:?}");
        assert_eq!(ends_with(&server, unverified).await, "200", "unverified: {name} {year} {server_name:?}");
    }
    let identity = authority.identity("localhost", FUTURE);
    let server = TlsServer::start(authority.acceptor(&identity, BOTH, false)).await;
    assert_eq!(
        ends_with(&server, Tls::default()).await,
        "failed: tls",
        "this host does not know the authority"
    );
}

#[tokio::test]
async fn a_target_that_wants_a_client_certificate_gets_the_configured_one() {
    let authority = Authority::new();
    let identity = authority.identity("localhost", FUTURE);
    let Identity { cert, key } = authority.identity("agent", FUTURE);
    for alpn in [&["h2"][..], &["http/1.1"]] {
        let server = TlsServer::start(authority.acceptor(&identity, alpn, true)).await;
        assert_eq!(ends_with(&server, trusting(&authority)).await, "failed: tls", "{alpn:?}");
        let tls = Tls { cert: Some(cert.clone()), key: Some(key.clone()), ..trusting(&authority) };
        assert_eq!(ends_with(&server, tls).await, "200", "{alpn:?}");
    }
}

#[tokio::test]
async fn a_target_that_agrees_to_no_protocol_or_speaks_no_tls_is_a_failure_of_tls_and_opens_the_breaker() {
    let authority = Authority::new();
    let identity = authority.identity("localhost", FUTURE);
    let none = TlsServer::start(authority.acceptor(&identity, &[], false)).await;
    let two = config::Target { http: Http::Two, ..secure(none.port, trusting(&authority)) };
    assert_eq!(end(&only(two), request_by(Version::HTTP_2)).await, "failed: tls");
    let one = TlsServer::start(authority.acceptor(&identity, &["http/1.1"], false)).await;
    let two = config::Target { http: Http::Two, ..secure(one.port, trusting(&authority)) };
    assert_eq!(end(&only(two), request_by(Version::HTTP_2)).await, "failed: tls");
    let plain = Server::start(|mut peer| async move {
        peer.send("HTTP/1.1 400 Bad Request\r\n\r\n").await;
        peer.closed().await;
    })
    .await;
    let replayer = only(secure(plain.port, trusting(&authority)));
    for _ in 0..breaker::MAX_UNREACHABLE {
        assert_eq!(end(&replayer, get()).await, "failed: tls");
    }
    assert_eq!(end(&replayer, get()).await, "dropped: breaker");
}

#[tokio::test]
async fn a_handshake_that_hangs_is_a_failure_to_connect() {
    let authority = Authority::new();
    let server = Server::start(|mut peer| async move { peer.closed().await }).await;
    let hanging = config::Target { timeout: SHORT, ..secure(server.port, trusting(&authority)) };
    assert_eq!(end(&only(hanging), get()).await, "failed: connect");
}

#[tokio::test]
async fn the_first_byte_is_timed_behind_the_handshake_and_before_the_last() {
    let authority = Authority::new();
    let identity = authority.identity("localhost", FUTURE);
    let acceptor = authority.acceptor(&identity, &["http/1.1"], false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (stream, _) = listener.accept().await.unwrap();
        tokio::time::sleep(3 * SHORT).await;
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut request = [0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        assert!(request[..read].ends_with(b"\r\n\r\n"));
        tokio::time::sleep(SHORT).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(SHORT).await;
        stream.write_all(b"k").await.unwrap();
        stream.flush().await.unwrap();
        let _ = stream.read(&mut request).await;
    });
    let replayer = only(config::Target { http: Http::One, ..secure(port, trusting(&authority)) });
    let outcome = replayer.replay(get()).await.pop().unwrap();
    let Outcome::Answered(answer) = outcome else { panic!("{outcome:?}") };
    let first = answer.first_byte.unwrap();
    let total = answer.done.since(answer.sent);
    assert!(first >= SHORT && total >= first + SHORT / 2, "{first:?} {:?}", total);
    assert!(total < 3 * SHORT, "the handshake is not in it: {:?}", total);
}
