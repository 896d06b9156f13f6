//! Replaying against scripted servers, on real sockets. What is pure is tested beside its code.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Version};

use super::*;
use crate::exchange::{ConnectionId, Exchange, ExchangeId, Headers, Request, Response, Times, Timestamp};
use crate::policy::mask::Masker;
use server::Server;

mod answers;
mod at_most_once;
mod credentials;
mod faults;
mod http2;
mod http2_ends;
mod http2_server;
mod limits;
mod names;
mod own;
pub(crate) mod server;
mod sessions;
mod tls;
mod tls_server;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BODY_LIMIT: usize = 100;
const SETTINGS: Settings = Settings {
    mark: 0,
    body_limit: BODY_LIMIT,
    held_limit: 1 << 20,
    own: Registrar::none(),
    traces: Contexts::new(config::TraceContext::Mint, 0),
    settle: Duration::ZERO,
    tokens: None,
    lookup: Lookup::system(),
};
/// For what must not happen within a test.
const LONG: Duration = Duration::from_secs(60);
/// For what the test waits for.
const SHORT: Duration = Duration::from_millis(100);

/// A request that passed masking untouched.
pub(super) fn sendable(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Arc<Sendable> {
    sendable_by(Version::HTTP_11, method, target, headers, body)
}

/// The same, of a protocol version.
pub(super) fn sendable_by(
    version: Version,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Arc<Sendable> {
    let masker = Masker::new(&config::Mask::default(), config::Credentials::Forward).unwrap();
    passed(&masker, version, method, target, headers, body)
}

/// A request that passed this masking.
fn passed(
    masker: &Masker,
    version: Version,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Arc<Sendable> {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let fields = headers.iter().map(|(name, value)| (bytes(name), bytes(value))).collect();
    let request = Request {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        target: bytes(target),
        version,
        headers: Headers(fields),
        body: bytes(body),
        trailers: Headers(vec![(bytes("x-sum"), bytes("1"))]),
    };
    let response = Response {
        status: 200,
        version,
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
    Arc::new(masker.sendable(&exchange).unwrap())
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
    let config = config::Replay { targets, baseline, ..config::Replay::default() };
    Replayer::start(&config, &SETTINGS, control.clone()).unwrap()
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
    let name = format!("to-{}", server.port);
    let key = idempotency::key(request.id(), request.seen(), &name).unwrap();
    let key = format!("idempotency-key: {}", key.to_str().unwrap());
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
        &key,
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
    let cases: [(Change, &str); 12] = [
        (|t| t.url = "ftp://h".parse().unwrap(), "ftp://h"),
        (|t| t.tls.ca = Some("/nonexistent/ca.pem".into()), "`/nonexistent/ca.pem` cannot be read"),
        (|t| t.url = "/only/a/path".parse().unwrap(), "/only/a/path"),
        (|t| t.url = "http://user:pass@h/".parse().unwrap(), "`http://…@h/`"),
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
        if target.tls.ca.is_some() {
            target.url = "https://h".parse().unwrap();
        }
        let config = config::Replay { targets: vec![target], ..config::Replay::default() };
        let settings = Settings { body_limit: 1, ..SETTINGS };
        let error = Replayer::start(&config, &settings, Control::new(true)).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains("`to-80`") && error.contains(';'), "{error}");
    }
}
