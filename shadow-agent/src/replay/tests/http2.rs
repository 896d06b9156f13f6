//! Replaying by HTTP/2: what is on the wire, how connections are shared, what comes back.

use h2::server::Builder;
use http::{HeaderMap, HeaderValue, Response as HttpResponse};
use tokio::task::JoinSet;

use super::http2_server::Http2Server;
use super::*;
use crate::replay::connection::BUFFER;
use crate::replay::http2::STREAMS;

fn http2(method: &str, headers: &[(&str, &str)], body: &str) -> Arc<Sendable> {
    sendable_by(Version::HTTP_2, method, "/", headers, body)
}

pub(super) fn get2() -> Arc<Sendable> {
    http2("GET", &[("host", "shop.example")], "")
}

/// Starts so many replays at once.
pub(super) fn replays(replayer: &Arc<Replayer>, count: usize) -> JoinSet<String> {
    let mut replays = JoinSet::new();
    for _ in 0..count {
        let replayer = Arc::clone(replayer);
        replays.spawn(async move { end(&replayer, get2()).await });
    }
    replays
}

#[tokio::test]
async fn what_is_on_the_wire_is_the_request_with_marks_and_trailers_and_without_hops() {
    let (rest, mut received) = tokio::sync::mpsc::channel(1);
    let server = Http2Server::start(Builder::new(), move |mut call| {
        let rest = rest.clone();
        async move {
            rest.send(call.rest().await).await.unwrap();
            call.answer(200, "ok").await;
        }
    })
    .await;
    let request = sendable_by(
        Version::HTTP_2,
        "POST",
        "/pkg.Shop/Buy?a=1",
        &[
            ("host", "shop.example:81"),
            ("host", "another"),
            ("te", "gzip, trailers"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "x"),
            ("content-type", "application/grpc"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ],
        "hello",
    );
    let id = format!("{}", request.id());
    let set = config::Target {
        url: format!("http://127.0.0.1:{}/v2/", server.port).parse().unwrap(),
        set_headers: vec![("x-env".into(), "shadow".into())],
        ..target(server.port)
    };
    assert_eq!(end(&only(set), request).await, "200");
    let head = server.requests().pop().unwrap();
    assert_eq!(
        (head.method().as_str(), head.uri().to_string()),
        ("POST", "http://shop.example:81/v2/pkg.Shop/Buy?a=1".into())
    );
    let text =
        |(name, value): (&http::HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<String> = head.headers().iter().map(text).collect();
    assert!(lines.iter().any(|line| line.starts_with("idempotency-key: \"")));
    lines.retain(|line| !line.starts_with("traceparent: 00-") && !line.starts_with("idempotency-key: "));
    lines.sort_unstable();
    let exchange = format!("x-shadow-exchange: {id}");
    let expected = [
        "baggage: shadow=true",
        "content-type: application/grpc",
        "cookie: a=1",
        "cookie: b=2",
        "te: trailers",
        "x-env: shadow",
        &exchange,
        "x-shadow-request: 1",
        "x-shadow-time: 2023-11-14T22:13:20.000000000Z",
    ];
    assert_eq!(lines, expected);
    let (body, trailers) = received.recv().await.unwrap();
    assert_eq!(body, b"hello");
    assert_eq!(trailers.unwrap().get("x-sum").unwrap(), "1");
}

#[tokio::test]
async fn the_authority_is_the_host_and_the_target_s_own_where_there_was_none() {
    let server = Http2Server::answering(200, "ok").await;
    let port = server.port;
    let own = format!("http://127.0.0.1:{port}/");
    type Fields<'a> = &'a [(&'a str, &'a str)];
    // (path, headers, how it ends, the URL that the target sees)
    let cases: [(&str, Fields<'_>, &str, &str); 5] = [
        ("/", &[("host", "shop.example")], "200", "http://shop.example/"),
        ("/", &[], "200", &own),
        ("*", &[("host", "h")], "200", "http://h*"),
        ("/", &[("host", "user@h")], "failed: request", ""),
        ("/", &[("host", "a b")], "failed: request", ""),
    ];
    for (path, headers, ends, url) in cases {
        let before = server.requests().len();
        let request = sendable_by(Version::HTTP_2, "OPTIONS", path, headers, "");
        assert_eq!(end(&only(target(port)), request).await, ends, "{path} {headers:?}");
        let seen = server.requests().into_iter().skip(before).map(|head| head.uri().to_string());
        assert_eq!(seen.collect::<String>(), url, "{path} {headers:?}");
    }
}

#[tokio::test]
async fn a_stated_length_is_that_of_the_body_and_none_is_stated_where_there_was_none() {
    let server = Http2Server::answering(200, "ok").await;
    let replayer = only(target(server.port));
    for (headers, expected) in [(&[("content-length", "77")][..], Some("5")), (&[][..], None)] {
        assert_eq!(end(&replayer, http2("POST", headers, "hello")).await, "200");
        let head = server.requests().pop().unwrap();
        let length = head.headers().get("content-length").map(|length| length.to_str().unwrap().to_owned());
        assert_eq!(length.as_deref(), expected);
    }
}

/// hyper's server is not the library that replay is made of.
#[tokio::test]
async fn body_and_trailers_go_both_ways_with_another_server() {
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let echo = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
            let whole = request.into_body().collect().await?;
            let trailers = whole.trailers().cloned();
            let body = Full::new(whole.to_bytes()).with_trailers(async move { trailers.map(Ok) });
            Ok::<_, hyper::Error>(HttpResponse::builder().header("x-a", "1").body(body).unwrap())
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(TokioIo::new(stream), echo).await.unwrap();
    });
    let replayer = only(target(port));
    for _ in 0..3 {
        let outcome = replayer.replay(http2("POST", &[("te", "trailers")], "ping")).await.pop().unwrap();
        let Outcome::Answered(answer) = outcome else { panic!("{outcome:?}") };
        let response = answer.response;
        assert_eq!(
            (response.status, response.version, response.body.as_ref()),
            (200, Version::HTTP_2, &b"ping"[..])
        );
        assert_eq!(response.headers.get("x-a").unwrap(), "1");
        assert_eq!(response.trailers.get("x-sum").unwrap(), "1");
        assert!(answer.first_byte.is_some_and(|first| first <= answer.done.since(answer.sent)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_at_once_share_connections_up_to_the_limits_of_both_sides() {
    // (limit of the target, requests at once, connections)
    let cases =
        [(None, 64, 1), (None, STREAMS, 1), (None, STREAMS + 1, 2), (Some(3), 9, 3), (Some(3), 10, 4)];
    for (limit, count, connections) in cases {
        let mut builder = Builder::new();
        if let Some(limit) = limit {
            builder.max_concurrent_streams(limit);
        }
        let (release, released) = tokio::sync::watch::channel(false);
        let server = Http2Server::start(builder, move |call| {
            let mut released = released.clone();
            async move {
                released.wait_for(|released| *released).await.unwrap();
                call.answer(200, "ok").await;
            }
        })
        .await;
        let replayer = Arc::new(only(config::Target { concurrency: count, ..target(server.port) }));
        let replays = replays(&replayer, count);
        server.received(count).await;
        assert_eq!(server.connections(), connections, "{limit:?} {count}");
        release.send(true).unwrap();
        assert!(replays.join_all().await.iter().all(|end| end == "200"));
        assert_eq!(end(&replayer, get2()).await, "200");
        assert_eq!(server.connections(), connections, "one of them is used again");
    }
}

#[tokio::test]
async fn the_concurrency_limit_of_the_target_holds() {
    let (release, released) = tokio::sync::watch::channel(false);
    let server = Http2Server::start(Builder::new(), move |call| {
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.unwrap();
            call.answer(200, "ok").await;
        }
    })
    .await;
    let replayer = Arc::new(only(config::Target { concurrency: 2, ..target(server.port) }));
    let replays = replays(&replayer, 5);
    server.received(2).await;
    assert_eq!((server.requests().len(), replayer.queue_lengths()), (2, vec![3]));
    release.send(true).unwrap();
    assert!(replays.join_all().await.iter().all(|end| end == "200"));
    assert_eq!((server.requests().len(), server.connections()), (5, 1));
}

#[tokio::test]
async fn each_request_goes_out_by_the_version_that_production_was_asked_by() {
    let server = Http2Server::answering(200, "ok").await;
    let replayer = only(target(server.port));
    assert_eq!(end(&replayer, get2()).await, "200");
    let by_http1 = end(&replayer, get()).await;
    assert!(by_http1.starts_with("failed: "), "{by_http1}");
    let server = Server::answering(OK).await;
    assert_eq!(end(&only(target(server.port)), get()).await, "200");
}

#[tokio::test]
async fn a_body_larger_than_every_window_goes_both_ways() {
    const SIZE: usize = 3 << 20;
    let server = Http2Server::start(Builder::new(), move |mut call| async move {
        let (body, _) = call.rest().await;
        let mut stream = call.begin(200, false);
        let mut body = Bytes::from(body);
        while !body.is_empty() {
            stream.reserve_capacity(body.len());
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
            let piece = body.split_to(room.min(body.len()));
            stream.send_data(piece, body.is_empty()).unwrap();
        }
    })
    .await;
    let config = config::Replay {
        credentials: config::Credentials::Forward,
        targets: vec![target(server.port)],
        ..config::Replay::default()
    };
    let replayer =
        Replayer::start(&config, &Settings { body_limit: SIZE, ..SETTINGS }, Control::new(true)).unwrap();
    let body: String = (0..SIZE).map(|at| char::from(b'a' + u8::try_from(at % 23).unwrap())).collect();
    for _ in 0..3 {
        let outcome = replayer.replay(http2("POST", &[], &body)).await.pop().unwrap();
        let Outcome::Answered(answer) = outcome else { panic!("{outcome:?}") };
        assert!(answer.response.body == body.as_bytes());
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_counts() {
    let server = Http2Server::start(Builder::new(), |mut call| async move {
        let mut stream = call.begin(413, false);
        // Dropped with the request unread, it is reset with NO_ERROR (RFC 9113, section 8.1).
        stream.send_data(Bytes::from_static(b"no"), true).unwrap();
    })
    .await;
    let replayer = only(target(server.port));
    let body = "x".repeat(1 << 20);
    for _ in 0..2 {
        assert_eq!(end(&replayer, http2("POST", &[], &body)).await, "413");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn interim_responses_are_passed_over_and_the_first_byte_comes_before_the_last() {
    let server = Http2Server::start(Builder::new(), |mut call| async move {
        let early = HttpResponse::builder().status(103).body(()).unwrap();
        call.respond.send_informational(early).unwrap();
        tokio::time::sleep(SHORT).await;
        let mut stream = call.begin(200, false);
        tokio::time::sleep(SHORT).await;
        stream.send_data(Bytes::from_static(b"ok"), true).unwrap();
    })
    .await;
    let outcome = only(target(server.port)).replay(get2()).await.pop().unwrap();
    let Outcome::Answered(answer) = outcome else { panic!("{outcome:?}") };
    assert_eq!(answer.response.status, 200);
    let first = answer.first_byte.unwrap();
    assert!(
        SHORT <= first && first < answer.done.since(answer.sent),
        "{first:?} of {:?}",
        answer.done.since(answer.sent)
    );
}

#[tokio::test]
async fn a_body_over_the_limit_fails_and_the_connection_stays() {
    // (bytes, stated length, how it ends)
    let cases = [
        (BODY_LIMIT, false, "200"),
        (BODY_LIMIT, true, "200"),
        (BODY_LIMIT + 1, false, "failed: body_too_large"),
        (BODY_LIMIT + 1, true, "failed: body_too_large"),
        (1 << 20, false, "failed: body_too_large"),
    ];
    // More than the windows hold together, so that what is not read has to be given back.
    let many = std::iter::repeat_n((1 << 20, false, "failed: body_too_large"), 20);
    let cases = cases.into_iter().chain(many).chain([(1, false, "200")]);
    let server = Http2Server::start(Builder::new(), |mut call| async move {
        let asked = |name: &str| call.request.headers().get(name).unwrap().to_str().unwrap().to_owned();
        let (size, stated): (usize, bool) = (asked("x-size").parse().unwrap(), asked("x-stated") == "true");
        let mut response = HttpResponse::new(());
        if stated {
            response.headers_mut().insert("content-length", HeaderValue::from(size));
        }
        let mut stream = call.respond.send_response(response, false).unwrap();
        let _ = stream.send_data(Bytes::from(vec![b'x'; size]), true);
    })
    .await;
    let replayer = only(target(server.port));
    for (size, stated, expected) in cases {
        let (size, stated) = (size.to_string(), stated.to_string());
        let request = http2("GET", &[("x-size", &size), ("x-stated", &stated)], "");
        assert_eq!(end(&replayer, request).await, expected, "{size} {stated}");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn headers_over_the_limit_are_malformed() {
    const FRAME: usize = "x-a".len() + 32;
    for (size, expected) in
        [(BUFFER, "200"), (BUFFER + 1, "failed: malformed"), (4 * BUFFER - 64, "failed: malformed")]
    {
        for as_trailers in [false, true] {
            let server = Http2Server::start(Builder::new(), move |mut call| async move {
                let mut fields = HeaderMap::new();
                let value = "x".repeat(size - FRAME);
                fields.insert("x-a", value.parse().unwrap());
                if as_trailers {
                    let _ = call.begin(200, false).send_trailers(fields);
                } else {
                    let mut response = HttpResponse::new(());
                    *response.headers_mut() = fields;
                    let _ = call.respond.send_response(response, true);
                }
            })
            .await;
            let replayer = only(target(server.port));
            assert_eq!(end(&replayer, get2()).await, expected, "{size}, trailers: {as_trailers}");
            assert_eq!(server.requests().len(), 1);
        }
    }
}
