//! HTTP archives (HAR 1.2), an entry for each exchange.
//!
//! An archive has bodies of responses without content coding. What it has no place for stands under names with an
//! underscore, as its section on custom fields has it: `_encoding` of a request's body that is no text, and `_target` where
//! the URL does not say how the request named its target. Cookies are not listed: they are masked. Trailers have no place.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Version;
use serde_json::{Map, Value, json};

use super::wire;
use crate::content;
use crate::exchange::{Exchange, Headers, Request, Response};
use crate::policy::percent_decode;

/// What stands behind the last entry.
pub(super) const TAIL: &str = "\n]}}\n";

/// A response is decoded up to so many bytes; masking kept none that is larger.
const MAX_DECODED: usize = 16 << 20;

/// What stands before the first entry.
pub(super) fn head() -> Vec<u8> {
    let creator = json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") });
    format!("{{\"log\":{{\"version\":\"1.2\",\"creator\":{creator},\"entries\":[\n").into_bytes()
}

/// What is remembered of one file.
#[derive(Debug, Default)]
pub(super) struct Har {
    /// Whether there is an entry.
    begun: bool,
}

impl Har {
    /// An entry, with a comma before it unless it is the first.
    pub(super) fn entry(&mut self, exchange: &Exchange) -> Vec<u8> {
        let before = if std::mem::replace(&mut self.begun, true) { ",\n" } else { "" };
        format!("{before}{}", entry(exchange)).into_bytes()
    }
}

fn entry(exchange: &Exchange) -> Value {
    let Exchange { client, server, request, response, times, .. } = exchange;
    let millis = |from, to: crate::exchange::Timestamp| to.since(from).as_nanos() as f64 / 1e6;
    let send = millis(times.started, times.request_done);
    let wait = millis(times.request_done, times.response_started);
    let receive = millis(times.response_started, times.response_done);
    json!({
        "startedDateTime": times.started.to_string(),
        "time": millis(times.started, times.response_done),
        "request": request_of(exchange, request),
        "response": response_of(response),
        "cache": {},
        "timings": {
            "blocked": -1, "dns": -1, "connect": -1, "ssl": -1, "send": send, "wait": wait, "receive": receive,
        },
        "serverIPAddress": server.ip().to_string(),
        "connection": client.to_string(),
    })
}

fn request_of(exchange: &Exchange, request: &Request) -> Value {
    let (url, says_all) = url(exchange);
    let line = request.method.as_str().len() + request.target.len() + 2;
    let mut told = json!({
        "method": request.method.as_str(),
        "url": url,
        "httpVersion": version(request.version),
        "cookies": [],
        "headers": fields(&request.headers),
        "queryString": query(request),
        "headersSize": size(line, request.version, &request.headers),
        "bodySize": request.body.len(),
    });
    let mut add = |name: &str, value: Value| {
        if let Some(told) = told.as_object_mut() {
            told.insert(name.to_owned(), value);
        }
    };
    if !says_all {
        add("_target", json!(String::from_utf8_lossy(&request.target)));
    }
    if !request.body.is_empty() {
        let mut body = text(&request.body, "_encoding");
        body.insert("mimeType".to_owned(), json!(mime_type(&request.headers)));
        add("postData", Value::Object(body));
    }
    told
}

fn response_of(response: &Response) -> Value {
    let Response { status, version: in_version, headers, body, .. } = response;
    let plain = content::decode(headers, body, MAX_DECODED).unwrap_or_else(|_| body.clone());
    let mut content = if plain.is_empty() { Map::new() } else { text(&plain, "encoding") };
    content.insert("size".to_owned(), json!(plain.len()));
    content.insert("mimeType".to_owned(), json!(mime_type(headers)));
    if plain.len() > body.len() {
        content.insert("compression".to_owned(), json!(plain.len() - body.len()));
    }
    let reason = wire::reason(*status);
    json!({
        "status": status,
        "statusText": reason,
        "httpVersion": version(*in_version),
        "cookies": [],
        "headers": fields(headers),
        "content": content,
        "redirectURL": headers.get("location").map(|value| String::from_utf8_lossy(value)).unwrap_or_default(),
        "headersSize": size(" 200 ".len() + reason.len(), *in_version, headers),
        "bodySize": body.len(),
    })
}

/// The URL, and whether it says how the request named its target.
fn url(exchange: &Exchange) -> (String, bool) {
    let target = exchange.request.target.as_ref();
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    let shown: String = String::from_utf8_lossy(target)
        .bytes()
        .map(|byte| if fits(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    if target.starts_with(b"http://") || target.starts_with(b"https://") {
        return (shown, false);
    }
    let is_authority = |host: &&Bytes| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(byte);
        !host.is_empty() && host.iter().all(plain)
    };
    let authority = match exchange.request.headers.get("host").filter(is_authority) {
        Some(host) => String::from_utf8_lossy(host),
        None => Cow::Owned(exchange.server.to_string()),
    };
    if target.starts_with(b"/") {
        return (format!("http://{authority}{shown}"), !target.contains(&b'#'));
    }
    (format!("http://{authority}/{shown}"), false)
}

fn query(request: &Request) -> Value {
    let decoded = |text: &[u8]| {
        let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
        String::from_utf8_lossy(&percent_decode(&spaced)).into_owned()
    };
    let parameters = request.query().unwrap_or_default().split(|&byte| byte == b'&');
    let parameters = parameters.filter(|parameter| !parameter.is_empty()).map(|parameter| {
        let mut parts = parameter.splitn(2, |&byte| byte == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        json!({ "name": decoded(name), "value": decoded(value) })
    });
    parameters.collect()
}

fn fields(headers: &Headers) -> Value {
    let field = |(name, value): (&Bytes, &Bytes)| json!({ "name": String::from_utf8_lossy(name), "value": String::from_utf8_lossy(value) });
    headers.iter().map(field).collect()
}

/// The body as text, or in base64, which the member `encoding` says.
fn text(body: &[u8], encoding: &str) -> Map<String, Value> {
    match std::str::from_utf8(body) {
        Ok(text) => Map::from_iter([("text".to_owned(), json!(text))]),
        Err(_) => Map::from_iter([
            ("text".to_owned(), json!(BASE64_STANDARD.encode(body))),
            (encoding.to_owned(), json!("base64")),
        ]),
    }
}

fn mime_type(headers: &Headers) -> Cow<'_, str> {
    headers.get("content-type").map(|value| String::from_utf8_lossy(value)).unwrap_or_default()
}

fn version(version: Version) -> String {
    format!("{version:?}")
}

/// The bytes of a head as HTTP/1 has it; of HTTP/2, nobody knows (-1). `line` is what the first line has besides the
/// version.
fn size(line: usize, version: Version, headers: &Headers) -> i64 {
    if version == Version::HTTP_2 {
        return -1;
    }
    let fields: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    i64::try_from("HTTP/1.1\r\n".len() + line + fields + "\r\n".len()).unwrap_or(-1)
}
