//! What comes back: framings, broken answers, connections kept and replaced.

use super::*;
use crate::replay::connection::BUFFER;

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let server = Server::answering(OK).await;
    let replayer = only(target(server.port));
    for _ in 0..50 {
        assert_eq!(end(&replayer, get()).await, "200");
    }
    assert_eq!((server.connections(), server.requests().len()), (1, 50));
}

#[tokio::test]
async fn a_host_name_is_resolved_and_all_its_addresses_are_tried() {
    let server = Server::answering(OK).await;
    let url = format!("http://localhost:{}", server.port).parse().unwrap();
    assert_eq!(end(&only(config::Target { url, ..target(server.port) }), get()).await, "200");
}

#[tokio::test]
async fn the_first_byte_comes_before_the_last() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
        tokio::time::sleep(SHORT).await;
        peer.send("ok").await;
    })
    .await;
    let answer = answer(&server, get()).await.unwrap();
    assert!(
        answer.first_byte.is_some_and(|first| first < answer.done.since(answer.sent)),
        "{:?} {:?}",
        answer.first_byte,
        answer.done.since(answer.sent)
    );
}

#[tokio::test]
async fn responses_of_every_framing_are_read_to_the_end_and_keep_the_connection_where_they_can() {
    let hundred = "x".repeat(BODY_LIMIT);
    // (method, response, status, body, whether the connection is kept)
    let cases = [
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(), 200, "ok", true),
        ("GET", format!("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{hundred}"), 200, &hundred, true),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n".into(),
            200,
            "abc",
            true,
        ),
        ("GET", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\na".into(), 200, "a", false),
        ("GET", "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na".into(), 200, "a", false),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n".into(), 204, "", true),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n".into(), 304, "", true),
        ("GET", "HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n".into(), 302, "", true),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".into(), 200, "", true),
        ("GET", format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}"), 200, "ok", true),
        ("GET", "HTTP/1.1 599 Odd\r\ncontent-length: 0\r\n\r\n".into(), 599, "", true),
    ];
    for (method, response, status, body, kept) in cases {
        let script = response.clone();
        let server = Server::start(move |mut peer| {
            let script = script.clone();
            async move {
                while peer.request().await.is_some() {
                    peer.send(&script).await;
                }
            }
        })
        .await;
        let replayer = only(target(server.port));
        for _ in 0..2 {
            let request = sendable(method, "/", &[], "");
            let Some(Outcome::Answered(answer)) = replayer.replay(request).await.pop() else {
                panic!("no answer from {response:?}")
            };
            let found = (answer.response.status, answer.response.body.as_ref());
            assert_eq!(found, (status, body.as_bytes()), "{method} {response:?}");
        }
        assert_eq!(server.connections() == 1, kept, "connection kept after {method} {response:?}");
    }
}

#[tokio::test]
async fn a_body_until_the_end_of_the_connection_is_whole() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\n\r\nfirst ").await;
        peer.send("second").await;
    })
    .await;
    assert_eq!(answer(&server, get()).await.unwrap().response.body, "first second");
}

#[tokio::test]
async fn fields_and_trailers_come_as_they_are_with_repeated_ones() {
    let server = Server::answering(
        "HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nX-Odd: \u{e9}\r\nset-cookie: b=2\r\nX-Empty:\r\n\
         transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let response = answer(&server, get()).await.unwrap().response;
    assert_eq!(response.version, Version::HTTP_11);
    assert_eq!(response.headers.all("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(response.headers.get("x-odd").unwrap(), "\u{e9}".as_bytes());
    assert_eq!(response.headers.get("x-empty").unwrap(), "");
    assert_eq!(response.headers.len(), 5);
    assert_eq!(response.trailers.get("x-sum").unwrap(), "7");
}

#[tokio::test]
async fn what_is_no_http_is_malformed() {
    let cases = [
        "garbage\r\n\r\n",
        "HTTP/2.7 200 OK\r\n\r\n",
        "HTTP/1.1 20x OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ];
    for response in cases {
        let server = Server::answering(response).await;
        assert_eq!(answer(&server, get()).await.unwrap_err(), "failed: malformed", "{response:?}");
        assert_eq!(server.requests().len(), 1, "{response:?} is no reason to ask again");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_fails_and_closes() {
    let over = "x".repeat(BODY_LIMIT + 1);
    let cases = [
        "HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n65\r\n{over}\r\n"),
        format!("HTTP/1.1 200 OK\r\n\r\n{over}"),
    ];
    for response in cases {
        let script = response.clone();
        let server = Server::start(move |mut peer| {
            let script = script.clone();
            async move {
                peer.request().await;
                peer.send(&script).await;
                peer.closed().await;
            }
        })
        .await;
        let replayer = only(target(server.port));
        assert_eq!(end(&replayer, get()).await, "failed: body_too_large", "{response:?}");
        assert_eq!(end(&replayer, get()).await, "failed: body_too_large", "{response:?}");
        assert_eq!(server.connections(), 2, "the connection was dropped after {response:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_or_breaks_within_an_answer_fails_and_is_not_tried_again() {
    for reset in [false, true] {
        for begun in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"] {
            let server = Server::start(move |mut peer| async move {
                peer.request().await;
                peer.send(begun).await;
                if reset {
                    peer.reset();
                }
            })
            .await;
            assert_eq!(answer(&server, get()).await.unwrap_err(), "failed: closed", "{begun:?}, {reset}");
            assert_eq!(server.requests().len(), 1, "{begun:?}, {reset}");
        }
    }
}

#[tokio::test]
async fn a_pooled_connection_found_closed_is_replaced_once_for_safe_methods_only() {
    // (method, whether later connections answer, how it ends, requests that the server has seen)
    let cases = [
        ("GET", true, "200", 3),
        ("HEAD", true, "200", 3),
        ("GET", false, "failed: closed", 3),
        ("POST", true, "failed: closed", 2),
        ("PUT", true, "failed: closed", 2),
        ("DELETE", true, "failed: closed", 2),
    ];
    for (method, recovers, expected, seen) in cases {
        for reset in [false, true] {
            let server = Server::start(move |mut peer| async move {
                peer.request().await;
                if peer.number == 1 || recovers {
                    peer.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    peer.request().await;
                }
                if reset {
                    peer.reset();
                }
            })
            .await;
            let replayer = only(target(server.port));
            assert_eq!(end(&replayer, get()).await, "200");
            let body = if method == "GET" || method == "HEAD" { "" } else { "x=1" };
            let found = end(&replayer, sendable(method, "/", &[], body)).await;
            assert_eq!(found, expected, "{method}, reset: {reset}");
            assert_eq!(server.requests().len(), seen, "{method}, reset: {reset}");
        }
    }
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_no_request() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        peer.send(OK).await;
        // An unasked-for 408 before the close is what several servers send.
        peer.send("HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let replayer = only(target(server.port));
    for round in 1..=3 {
        assert_eq!(end(&replayer, sendable("POST", "/", &[], "x=1")).await, "200");
        tokio::time::sleep(SHORT).await;
        assert_eq!((server.connections(), server.requests().len()), (round, round));
    }
}

#[tokio::test]
async fn a_head_over_the_limit_is_malformed() {
    const FRAME: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: \r\n\r\n";
    for (size, expected) in [(BUFFER, "200"), (BUFFER + 1, "failed: malformed")] {
        let server = Server::start(move |mut peer| async move {
            peer.request().await;
            let padding = "x".repeat(size - FRAME.len());
            peer.send(&FRAME.replace("x: ", &format!("x: {padding}"))).await;
            peer.closed().await;
        })
        .await;
        assert_eq!(end(&only(target(server.port)), get()).await, expected, "{size} bytes");
    }
}

#[tokio::test]
async fn a_body_of_many_reads_is_whole() {
    const SIZE: usize = 3 << 20;
    let server = Server::start(|mut peer| async move {
        while peer.request().await.is_some() {
            let body: String =
                (0..SIZE).map(|at| char::from(b'a' + u8::try_from(at % 23).unwrap())).collect();
            peer.send(&format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n{body}")).await;
        }
    })
    .await;
    let config = config::Replay {
        credentials: config::Credentials::Forward,
        targets: vec![target(server.port)],
        ..config::Replay::default()
    };
    let settings = Settings { body_limit: SIZE, ..SETTINGS };
    let replayer = Replayer::start(&config, &settings, Control::new(true)).unwrap();
    for _ in 0..3 {
        let Some(Outcome::Answered(answer)) = replayer.replay(get()).await.pop() else { panic!("no answer") };
        assert_eq!(answer.response.body.len(), SIZE);
        assert!(
            answer.response.body.iter().enumerate().all(|(at, &byte)| usize::from(byte - b'a') == at % 23)
        );
    }
    assert_eq!(server.connections(), 1);
}
