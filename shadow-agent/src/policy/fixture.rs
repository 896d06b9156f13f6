//! Messages for the tests of `policy` and `compare`, written as text.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Version};

use crate::exchange::{ConnectionId, Exchange, ExchangeId, Headers, Request, Response, Times};

/// An exchange from its messages, each as a first line (`GET /x`, `200`), header lines, an empty line and a body.
pub(crate) fn exchange(request: &str, response: &str) -> Exchange {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    Exchange {
        id: ExchangeId(7),
        connection: ConnectionId(1),
        client: address,
        server: address,
        request: self::request(request),
        response: self::response(response),
        times: Times::default(),
    }
}

/// A request from a text such as `GET /x`, header lines, an empty line and a body.
pub(crate) fn request(text: &str) -> Request {
    let (first, headers, body) = split(text);
    let (method, target) = first.split_once(' ').unwrap();
    Request {
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        target: Bytes::from(target.to_owned()),
        version: Version::HTTP_11,
        headers,
        body,
        trailers: Headers::default(),
    }
}

/// A response from a text such as `200`, header lines, an empty line and a body.
pub(crate) fn response(text: &str) -> Response {
    let (first, headers, body) = split(text);
    Response {
        status: first.parse().unwrap(),
        version: Version::HTTP_11,
        headers,
        body,
        trailers: Headers::default(),
    }
}

fn split(text: &str) -> (&str, Headers, Bytes) {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let (first, headers) = head.split_once('\n').unwrap_or((head, ""));
    let field = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (Bytes::from(name.to_owned()), Bytes::from(value.to_owned()))
    };
    (first, Headers(headers.lines().map(field).collect()), Bytes::from(body.to_owned()))
}
