//! Replaying against scripted servers, on real sockets. What is pure is tested beside its code.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};
use tokio::task::JoinSet;

use super::slots::QUEUE_REQUESTS;
use super::*;
use crate::exchange::{ConnectionId, Exchange, ExchangeId, Headers, Request, Response, Times, Timestamp};
use crate::policy::mask::Masker;
use server::Server;

mod server;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BODY_LIMIT: usize = 100;
/// For what must not happen within a test.
const LONG: Duration = Duration::from_secs(60);
/// For what the test waits for.
const SHORT: Duration = Duration::from_millis(100);

/// A request that passed masking untouched.
pub(super) fn sendable(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Arc<Sendable> {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let fields = headers.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
    let request = Request {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        target: bytes(target),
        version: Version::HTTP_11,
        headers: Headers(fields),
        body: bytes(body),
        trailers: Headers(vec![(bytes("x-sum"), bytes("1"))]),
    };
    let response = Response {
        status: 200,
        version: Version::HTTP_11,
        headers: Headers::default(),
        body: Bytes::new(),
        trailers: Headers::default(),
    };
    let exchange = Exchange {
        id: ExchangeId(0xab),
        connection: ConnectionId(1),
        client: ([10, 0, 0, 1], 40_000).into(),
        server: ([10, 0, 0, 2], 80).into(),
        request,
        response,
        times: Times { started: Timestamp(1_700_000_000_000_000_000), ..Times::default() },
    };
    Arc::new(Masker::default().sendable(&exchange).unwrap())
}

fn get() -> Arc<Sendable> {
    sendable("GET", "/", &[("host", "shop.example")], "")
}

pub(super) fn target(port: u16) -> config::Target {
    config::Target {
        name: format!("to-{port}"),
        url: format!("http://127.0.0.1:{port}").parse().unwrap(),
        timeout: LONG,
        ..config::Target::default()
    }
}

fn start(targets: Vec<config::Target>, baseline: Option<config::Target>, control: &Control) -> Replayer {
    let config = config::Replay { credentials: config::Credentials::Forward, targets, baseline };
    Replayer::start(&config, &Settings { mark: 0, body_limit: BODY_LIMIT }, control.clone()).unwrap()
}

fn only(target: config::Target) -> Replayer {
    start(vec![target], None, &Control::new(true))
}

/// How a request ends at the only target, in short.
async fn end(replayer: &Replayer, request: Arc<Sendable>) -> String {
    let outcomes = replayer.replay(request).await;
    assert_eq!(outcomes.len(), 1);
    short(&outcomes[0])
}

fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered(answer) => answer.response.status.to_string(),
        Outcome::Failed(reason) => format!("failed: {reason}"),
        Outcome::Dropped(reason) => format!("dropped: {reason}"),
    }
}

async fn answer(server: &Server, request: Arc<Sendable>) -> Result<Answer, String> {
    match only(target(server.port)).replay(request).await.pop().unwrap() {
        Outcome::Answered(answer) => Ok(answer),
        other => Err(short(&other)),
    }
}

async fn refused_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

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
async fn no_answer_in_time_is_a_timeout_and_closes() {
    for begun in ["", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"] {
        let server = Server::start(move |mut peer| async move {
            peer.request().await;
            peer.send(begun).await;
            peer.closed().await;
        })
        .await;
        let replayer = only(config::Target { timeout: SHORT, ..target(server.port) });
        assert_eq!(end(&replayer, get()).await, "failed: timeout", "{begun:?}");
        assert_eq!(end(&replayer, get()).await, "failed: timeout", "{begun:?}");
        assert_eq!(server.connections(), 2);
    }
}

#[tokio::test]
async fn a_target_that_refuses_opens_its_breaker_and_no_other() {
    let server = Server::answering(OK).await;
    let control = Control::new(true);
    let replayer = start(vec![target(refused_port().await)], Some(target(server.port)), &control);
    assert_eq!(replayer.breakers_open(), [false, false]);
    for _ in 0..breaker::MAX_UNREACHABLE {
        let outcomes = replayer.replay(get()).await;
        assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["failed: connect", "200"]);
    }
    assert_eq!(replayer.breakers_open(), [true, false]);
    let outcomes = replayer.replay(get()).await;
    assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["dropped: breaker", "200"]);
}

#[tokio::test]
async fn a_target_that_hangs_delays_no_other() {
    const REQUESTS: usize = 20;
    let (release, released) = tokio::sync::watch::channel(false);
    let slow = Server::start(move |mut peer| {
        let mut released = released.clone();
        async move {
            peer.request().await;
            released.wait_for(|released| *released).await.unwrap();
            peer.send(OK).await;
        }
    })
    .await;
    let quick = Server::answering(OK).await;
    let slow_target = config::Target { concurrency: 1, ..target(slow.port) };
    let replayer = Arc::new(start(vec![slow_target], Some(target(quick.port)), &Control::new(true)));
    let mut replays = JoinSet::new();
    for _ in 0..REQUESTS {
        let replayer = Arc::clone(&replayer);
        replays.spawn(async move { replayer.replay(get()).await });
    }
    quick.received(REQUESTS).await;
    assert_eq!(slow.requests().len(), 1);
    assert_eq!(replayer.queue_lengths(), [REQUESTS - 1, 0]);
    release.send(true).unwrap();
    for outcomes in replays.join_all().await {
        assert_eq!(outcomes.iter().map(short).collect::<Vec<_>>(), ["200", "200"]);
    }
}

#[tokio::test]
async fn the_queue_takes_its_limit_and_the_kill_switch_empties_it() {
    let server = Server::hanging().await;
    let control = Control::new(true);
    let one_at_a_time = config::Target { concurrency: 1, ..target(server.port) };
    let replayer = Arc::new(start(vec![one_at_a_time], None, &control));
    let replay = || {
        let replayer = Arc::clone(&replayer);
        async move { end(&replayer, get()).await }
    };
    let under_way = tokio::spawn(replay());
    server.received(1).await;
    let mut queued = JoinSet::new();
    for _ in 0..QUEUE_REQUESTS {
        queued.spawn(replay());
    }
    while replayer.queue_lengths() != [QUEUE_REQUESTS] {
        tokio::task::yield_now().await;
    }
    assert_eq!(replay().await, "dropped: queue");
    control.set_enabled(false);
    assert!(queued.join_all().await.iter().all(|end| end == "dropped: disabled"));
    assert_eq!(replayer.queue_lengths(), [0]);
    assert_eq!(replay().await, "dropped: disabled");
    assert_eq!(server.requests().len(), 1);
    under_way.abort();
}

#[tokio::test]
async fn over_the_rate_is_dropped() {
    let server = Server::answering(OK).await;
    let replayer = only(config::Target { rate: Some(0.001), ..target(server.port) });
    assert_eq!(end(&replayer, get()).await, "200");
    assert_eq!(end(&replayer, get()).await, "dropped: rate");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_cancelled_replay_gives_its_slot_and_its_place_back() {
    let server = Server::start(|mut peer| async move {
        peer.request().await;
        if peer.number == 1 {
            peer.closed().await;
        }
        peer.send(OK).await;
    })
    .await;
    let replayer = Arc::new(only(config::Target { concurrency: 1, ..target(server.port) }));
    let replay = |replayer: &Arc<Replayer>| {
        let replayer = Arc::clone(replayer);
        tokio::spawn(async move { end(&replayer, get()).await })
    };
    let (under_way, queued) = (replay(&replayer), replay(&replayer));
    server.received(1).await;
    while replayer.queue_lengths() != [1] {
        tokio::task::yield_now().await;
    }
    queued.abort();
    assert!(queued.await.unwrap_err().is_cancelled());
    assert_eq!(replayer.queue_lengths(), [0]);
    under_way.abort();
    assert!(under_way.await.unwrap_err().is_cancelled());
    assert_eq!(end(&replayer, get()).await, "200");
}

#[tokio::test]
async fn shutdown_drops_what_is_queued_and_ends_what_is_under_way_at_the_deadline() {
    let server = Server::hanging().await;
    let replayer = Arc::new(only(config::Target { concurrency: 1, ..target(server.port) }));
    let replay = || {
        let replayer = Arc::clone(&replayer);
        tokio::spawn(async move { end(&replayer, get()).await })
    };
    let under_way = replay();
    server.received(1).await;
    let queued = replay();
    while replayer.queue_lengths() != [1] {
        tokio::task::yield_now().await;
    }
    let ending = {
        let replayer = Arc::clone(&replayer);
        tokio::spawn(async move { replayer.shutdown(SHORT).await })
    };
    assert_eq!(queued.await.unwrap(), "dropped: shutdown");
    assert!(!under_way.is_finished());
    assert_eq!(under_way.await.unwrap(), "failed: shutdown");
    ending.await.unwrap();
    assert_eq!(end(&replayer, get()).await, "dropped: shutdown");
}

#[tokio::test]
async fn shutdown_waits_for_an_answer_under_way() {
    let (release, released) = tokio::sync::watch::channel(false);
    let server = Server::start(move |mut peer| {
        let mut released = released.clone();
        async move {
            peer.request().await;
            released.wait_for(|released| *released).await.unwrap();
            peer.send(OK).await;
        }
    })
    .await;
    let replayer = Arc::new(only(target(server.port)));
    let under_way = {
        let replayer = Arc::clone(&replayer);
        tokio::spawn(async move { end(&replayer, get()).await })
    };
    server.received(1).await;
    let (_, released) = tokio::join!(replayer.shutdown(LONG), async { release.send(true) });
    released.unwrap();
    assert_eq!(under_way.await.unwrap(), "200");
}

#[tokio::test]
async fn what_is_on_the_wire_is_the_request_with_marks_and_without_hops() {
    let server = Server::answering(OK).await;
    let request = sendable(
        "POST",
        "/cart?a=1&b=%20",
        &[
            ("Host", "shop.example"),
            ("Connection", "keep-alive, X-Hop"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Transfer-Encoding", "chunked"),
            ("Expect", "100-continue"),
            ("Accept", "a"),
            ("Accept", "b"),
            ("Trailer", "x-sum"),
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
    let wire = server.requests().pop().unwrap();
    let (head, body) = wire.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    assert_eq!(lines.remove(0), "POST /v2/cart?a=1&b=%20 HTTP/1.1");
    lines.retain(|line| !line.starts_with("traceparent: 00-"));
    lines.sort_unstable();
    let exchange = format!("x-shadow-exchange: {id}");
    let expected = [
        "accept: a",
        "accept: b",
        "baggage: shadow=true",
        "content-length: 5",
        "host: shop.example",
        "x-env: shadow",
        &exchange,
        "x-shadow-request: 1",
        "x-shadow-time: 2023-11-14T22:13:20.000000000Z",
    ];
    assert_eq!(lines, expected);
    assert_eq!(body, "hello", "and no trailer fields");
}

#[tokio::test]
async fn targets_come_in_the_order_configured_with_the_baseline_last() {
    let replayer = start(vec![target(2), target(1)], Some(target(3)), &Control::new(true));
    let found: Vec<_> = replayer.targets().iter().map(|info| (info.name.as_str(), info.role)).collect();
    assert_eq!(found, [("to-2", Role::Candidate), ("to-1", Role::Candidate), ("to-3", Role::Baseline)]);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_name_and_the_remedy() {
    type Change = fn(&mut config::Target);
    let cases: [(Change, &str); 10] = [
        (|t| t.url = "https://h".parse().unwrap(), "https://h"),
        (|t| t.url = "/only/a/path".parse().unwrap(), "/only/a/path"),
        (|t| t.url = "http://h/?q".parse().unwrap(), "?q"),
        (|t| t.concurrency = 0, "concurrency 0"),
        (|t| t.concurrency = target::MAX_CONCURRENCY + 1, "4097"),
        (|t| t.rate = Some(0.0), "rate 0/s"),
        (|t| t.rate = Some(f64::NAN), "rate NaN/s"),
        (|t| t.timeout = Duration::ZERO, "timeout"),
        (|t| t.set_headers = vec![("x".into(), "a\nb".into())], "header `x`"),
        (
            |t| t.set_headers = vec![("Transfer-Encoding".into(), "chunked".into())],
            "header `Transfer-Encoding`",
        ),
    ];
    for (change, named) in cases {
        let mut target = target(80);
        change(&mut target);
        let config =
            config::Replay { credentials: config::Credentials::Skip, targets: vec![target], baseline: None };
        let settings = Settings { mark: 0, body_limit: 1 };
        let error = Replayer::start(&config, &settings, Control::new(true)).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("`to-80`") && error.contains(';'), "{error}");
    }
}
