//! HTTP archives (HAR 1.2), as browsers and proxies write them.
//!
//! An archive tells what messages meant, not how they were sent: no framing, names of HTTP/2 among them, bodies without
//! content coding. So the messages are written anew as HTTP/1.1, with the length of what is there.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Broken;
use crate::capture::Direction;
use crate::exchange::Timestamp;

/// Entries read ahead.
const AHEAD: usize = 16;

/// Responses held back until their time has come.
const HELD: usize = 1024;

/// A request and its response as HTTP/1.1.
#[derive(Debug)]
struct Entry {
    started: Timestamp,
    ended: Timestamp,
    request: Vec<u8>,
    response: Vec<u8>,
}

/// A request or a response of an archive.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) direction: Direction,
    /// What a request and its response have in common.
    pub(super) number: u64,
    pub(super) time: Timestamp,
    pub(super) bytes: Vec<u8>,
}

/// What the reading thread says; an entry that is no exchange is `None`.
type Said = Result<Option<Entry>, Broken>;

/// The messages of an archive, in the order of their times if its entries are in the order of their starts. It is read
/// by a thread of its own, because it is one value from front to back.
pub(super) struct Har {
    said: Receiver<Said>,
    /// The thread, until it has ended. Before that it may be held up by a pipe, and is left to itself.
    reading: Option<JoinHandle<()>>,
    /// The next entry, while responses precede it.
    next: Option<Entry>,
    /// Responses by their time.
    held: BTreeMap<(Timestamp, u64), Vec<u8>>,
    /// Entries so far.
    count: u64,
}

/// The length of the byte order mark that some tools begin a text with.
pub(super) fn mark(bytes: &[u8]) -> usize {
    const MARK: &[u8] = b"\xEF\xBB\xBF";
    if bytes.starts_with(MARK) { MARK.len() } else { 0 }
}

/// Whether a file with this beginning is JSON, which no other recording is.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.get(mark(bytes)..).unwrap_or_default().trim_ascii_start().first() == Some(&b'{')
}

impl Har {
    /// Starts reading.
    pub(super) fn new(input: impl Read + Send + 'static) -> Result<Har, Broken> {
        let (sender, said) = sync_channel(AHEAD);
        let reading = move || {
            let mut json = serde_json::Deserializer::from_reader(input);
            let read = Archive(&sender).deserialize(&mut json).and_then(|()| json.end());
            if let Err(error) = read {
                // Nobody listens any more, perhaps.
                let _ = sender.send(Err(broken(error)));
            }
        };
        let reading = thread::Builder::new().name("archive".to_owned()).spawn(reading)?;
        Ok(Har { said, reading: Some(reading), next: None, held: BTreeMap::new(), count: 0 })
    }

    /// The next that the thread says; nothing once it has ended, which its last word and its silence announce.
    fn hear(&mut self) -> Result<Option<Option<Entry>>, Broken> {
        let said = self.said.recv();
        if let Ok(Ok(entry)) = said {
            return Ok(Some(entry));
        }
        if let Some(reading) = self.reading.take() {
            reading.join().map_err(|_| io::Error::other("the thread that reads it panicked"))?;
        }
        said.ok().transpose()
    }

    /// The next message: `Some(None)` stands for an entry that is no exchange.
    #[expect(clippy::option_option, reason = "an entry without an exchange is not the end")]
    pub(super) fn next(&mut self) -> Result<Option<Option<Written>>, Broken> {
        if self.next.is_none() {
            self.next = match self.hear()? {
                Some(None) => return Ok(Some(None)),
                entry => entry.flatten(),
            };
        }
        let due = match (self.held.first_key_value(), &self.next) {
            (Some((&(time, _), _)), Some(entry)) => time <= entry.started || self.held.len() >= HELD,
            (held, _) => held.is_some(),
        };
        if due && let Some(((time, number), bytes)) = self.held.pop_first() {
            return Ok(Some(Some(Written { direction: Direction::ToClient, number, time, bytes })));
        }
        let Some(Entry { started, ended, request, response }) = self.next.take() else { return Ok(None) };
        self.count += 1;
        let number = self.count;
        self.held.insert((ended, number), response);
        Ok(Some(Some(Written { direction: Direction::ToServer, number, time: started, bytes: request })))
    }
}

fn broken(error: serde_json::Error) -> Broken {
    match error.io_error_kind() {
        _ if error.is_eof() => Broken::Cut,
        Some(kind) => io::Error::from(kind).into(),
        None => Broken::Archive(error),
    }
}

/// The whole file, or its `log`: sends the entries, and passes over the rest.
struct Archive<'a>(&'a SyncSender<Said>);

impl<'de> DeserializeSeed<'de> for Archive<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Archive<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .write_str("an HTTP archive: an object with a member \"log\", which has a member \"entries\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "log" => map.next_value_seed(Archive(self.0))?,
                "entries" => map.next_value_seed(Entries(self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            }
            found = true;
        }
        if found {
            Ok(())
        } else {
            Err(A::Error::custom("it is no HTTP archive: it has no log with entries"))
        }
    }
}

struct Entries<'a>(&'a SyncSender<Said>);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<(), A::Error> {
        while let Some(raw) = all.next_element::<RawEntry>()? {
            if self.0.send(Ok(raw.entry())).is_err() {
                return Err(A::Error::custom("nobody reads on"));
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEntry {
    started_date_time: String,
    /// Milliseconds.
    #[serde(default)]
    time: f64,
    request: RawRequest,
    response: RawResponse,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRequest {
    method: String,
    url: String,
    headers: Vec<RawHeader>,
    #[serde(default)]
    post_data: Option<RawBody>,
    /// How the request named its target, where `url` does not say it; so `record` writes it.
    #[serde(default, rename = "_target")]
    target: Option<String>,
}

#[derive(Deserialize)]
struct RawResponse {
    status: i64,
    headers: Vec<RawHeader>,
    content: RawBody,
}

#[derive(Deserialize)]
struct RawHeader {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct RawBody {
    #[serde(default)]
    text: Option<String>,
    /// Of a request's body, `record` writes it under the other name.
    #[serde(default, alias = "_encoding")]
    encoding: Option<String>,
}

impl RawBody {
    fn bytes(self) -> Option<Vec<u8>> {
        let text = self.text.unwrap_or_default();
        match self.encoding.as_deref() {
            Some("base64") => BASE64_STANDARD.decode(text.trim_ascii()).ok(),
            _ => Some(text.into_bytes()),
        }
    }
}

impl RawEntry {
    /// The exchange; `None` for what was blocked, came from a cache, or cannot be written as HTTP/1.1.
    fn entry(self) -> Option<Entry> {
        let started: jiff::Timestamp = self.started_date_time.parse().ok()?;
        let started = Timestamp(u64::try_from(started.as_nanosecond()).ok()?);
        let took = std::time::Duration::try_from_secs_f64(self.time / 1000.0).unwrap_or_default();
        let RawRequest { method, url, headers, post_data, target: named } = self.request;
        let (authority, target) = split(&url)?;
        let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let status =
            u16::try_from(self.response.status).ok().filter(|status| (200..=999).contains(status))?;
        if method.is_empty() || !is_word(&method) || !is_word(target) {
            return None;
        }
        let (slash, target) = match named.as_deref().filter(|named| !named.is_empty() && is_word(named)) {
            Some(named) => ("", named),
            None if target.starts_with('/') => ("", target),
            None => ("/", target),
        };
        let mut request = format!("{method} {slash}{target} HTTP/1.1\r\n").into_bytes();
        if !headers.iter().any(|header| header.name.eq_ignore_ascii_case("host")) {
            field(&mut request, "Host", authority)?;
        }
        let body = post_data.map_or(Some(Vec::new()), RawBody::bytes)?;
        fields(&mut request, &headers, false)?;
        finish(&mut request, &body, !body.is_empty())?;
        let mut response = format!("HTTP/1.1 {status} \r\n").into_bytes();
        fields(&mut response, &self.response.headers, true)?;
        let bare = method == "HEAD" || matches!(status, 204 | 304);
        let body = if bare { Vec::new() } else { self.response.content.bytes()? };
        finish(&mut response, &body, !bare)?;
        Some(Entry { started, ended: started.plus(took), request, response })
    }
}

/// Authority and origin-form target of an absolute URL.
fn split(url: &str) -> Option<(&str, &str)> {
    let url = url.split('#').next()?;
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = authority.rsplit('@').next()?;
    Some((authority, target))
}

/// Header fields, without those that described how the message was sent.
fn fields(message: &mut Vec<u8>, headers: &[RawHeader], decoded: bool) -> Option<()> {
    for RawHeader { name, value } in headers {
        let framing = ["content-length", "transfer-encoding", "connection", "keep-alive", "upgrade"];
        let dropped = name.starts_with(':')
            || framing.iter().any(|field| name.eq_ignore_ascii_case(field))
            || (decoded && name.eq_ignore_ascii_case("content-encoding"));
        if !dropped {
            // Several fields of one name come as lines of one value from some browsers.
            for line in value.split('\n') {
                field(message, name, line)?;
            }
        }
    }
    Some(())
}

fn field(message: &mut Vec<u8>, name: &str, value: &str) -> Option<()> {
    let fits = |byte: &u8| !matches!(byte, b'\r' | b'\n' | 0);
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
        return None;
    }
    message.extend_from_slice(name.as_bytes());
    message.extend_from_slice(b": ");
    message.extend(value.trim().bytes().filter(fits));
    message.extend_from_slice(b"\r\n");
    Some(())
}

fn finish(message: &mut Vec<u8>, body: &[u8], with_length: bool) -> Option<()> {
    if with_length {
        field(message, "Content-Length", &body.len().to_string())?;
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(body);
    Some(())
}
