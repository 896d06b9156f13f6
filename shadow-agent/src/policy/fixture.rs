//! Messages for the tests of `policy` and `compare`, written as text.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Version};
use proptest::prelude::*;
use serde_json::{Value, json};

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

/// Documents with the word SECRET in every `email`, some of them as strings of JSON.
pub(crate) fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(|number| json!(number)),
        "[a-z \"{}\\[\\]:]{0,12}".prop_map(|text| json!(text)),
        "[a-z]{0,4}".prop_map(|text| json!({ "email": format!("SECRET{text}") })),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map("[a-c]|email", inner.clone(), 0..4).prop_map(|members| {
                let secret = |(key, value): (String, Value)| match key.as_str() {
                    "email" => (key, json!([value, "SECRET"])),
                    _ => (key, value),
                };
                Value::Object(members.into_iter().map(secret).collect())
            }),
            inner.clone().prop_map(|value| json!(value.to_string())),
            inner.clone().prop_map(|value| json!(format!("log: {value}"))),
            inner.prop_map(|value| {
                let text = value.to_string();
                json!(text.get(..text.len() - 1))
            }),
        ]
    })
}
