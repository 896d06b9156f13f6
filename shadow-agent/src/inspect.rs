//! `inspect`: the exchanges of a capture, one JSON object a line, and a summary in the last line.
//!
//! The way from segments to exchanges is the one of live traffic. What is printed has passed `mask.keep`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::ops::ControlFlow;

use bytes::Bytes;
use http::Version;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::capture::file::{FileError, FileSource};
use crate::exchange::{Exchange, ExchangeId, Headers, Lost, Request, Response, Times, Timestamp};
use crate::offline;
use crate::policy::mask::{Kept, Masker};
use crate::shard::{Event, PipelineSettings};

/// Why inspecting ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The capture cannot be read to its end. What came before was printed, summary included.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nobody takes the output.
    #[error("standard output cannot be written ({0})")]
    Output(#[from] io::Error),
}

/// Prints what is in a capture. `watched` says that somebody may see a progress on the terminal.
///
/// # Errors
/// When the capture is damaged, or the output cannot be written.
pub fn run(
    source: FileSource,
    settings: &PipelineSettings,
    masker: &Masker,
    output: &mut dyn Write,
    watched: bool,
) -> Result<(), InspectError> {
    let mut lines = Lines { output, masker, failed: None };
    let read = offline::read(source, settings, watched, &mut |event| lines.take(event));
    if let Some(error) = lines.failed.take() {
        return Err(error.into());
    }
    writeln!(lines.output, "{}", json!({ "summary": read.books }))?;
    lines.output.flush()?;
    Ok(read.ended?)
}

/// Writes a line for every exchange that is whole or lost.
struct Lines<'a> {
    output: &'a mut dyn Write,
    masker: &'a Masker,
    /// The first failure to write; nothing is written after it.
    failed: Option<io::Error>,
}

#[derive(Serialize)]
struct Line {
    id: String,
    client: SocketAddr,
    server: SocketAddr,
    request: Option<RequestPart>,
    response: Option<ResponsePart>,
    started: Option<String>,
    request_done: Option<String>,
    response_started: Option<String>,
    response_done: Option<String>,
    outcome: &'static str,
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct RequestPart {
    method: Kept<String>,
    target: Kept<String>,
    version: String,
    headers: Vec<(Kept<String>, Kept<String>)>,
    #[serde(flatten)]
    body: Body,
}

#[derive(Serialize)]
struct ResponsePart {
    status: u16,
    version: String,
    headers: Vec<(Kept<String>, Kept<String>)>,
    #[serde(flatten)]
    body: Body,
}

/// Of a body that is not whole, nothing is said.
#[derive(Default, Serialize)]
struct Body {
    body_len: Option<usize>,
    body_sha256: Option<String>,
}

impl Lines<'_> {
    fn take(&mut self, event: &Event) -> ControlFlow<()> {
        let line = match event {
            Event::Exchange(exchange) => self.whole(exchange),
            Event::Lost(lost) => self.lost(lost),
            Event::Skipped(_) => return ControlFlow::Continue(()),
        };
        if self.failed.is_none() {
            self.failed = self.write(&line).err();
        }
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut *self.output, line)?;
        self.output.write_all(b"\n")
    }

    fn whole(&self, exchange: &Exchange) -> Line {
        let Exchange { id, client, server, request, response, times, .. } = exchange;
        Line {
            request: Some(self.request(request, true)),
            response: Some(self.response(response, true)),
            outcome: "complete",
            ..line(*id, *client, *server, times)
        }
    }

    fn lost(&self, lost: &Lost) -> Line {
        let Lost { reason, id, client, server, request, response, times, .. } = lost;
        let seen = |time: Timestamp| time != Timestamp::default();
        Line {
            request: request.as_ref().map(|request| self.request(request, seen(times.request_done))),
            response: response.as_ref().map(|response| self.response(response, seen(times.response_done))),
            reason: Some(reason.as_str()),
            ..line(*id, *client, *server, times)
        }
    }

    fn request(&self, request: &Request, whole: bool) -> RequestPart {
        RequestPart {
            method: self.masker.keep_token(request.method.as_str().as_bytes()),
            target: self.masker.keep_whole_target(request),
            version: version(request.version),
            headers: self.headers(&request.headers),
            body: body(&request.body, whole),
        }
    }

    fn response(&self, response: &Response, whole: bool) -> ResponsePart {
        ResponsePart {
            status: response.status,
            version: version(response.version),
            headers: self.headers(&response.headers),
            body: body(&response.body, whole),
        }
    }

    fn headers(&self, headers: &Headers) -> Vec<(Kept<String>, Kept<String>)> {
        let shown = |(name, value): (&Bytes, &Bytes)| {
            (self.masker.keep_token(name), self.masker.keep_whole_header(name, value))
        };
        headers.iter().map(shown).collect()
    }
}

/// What every line has; the rest as of a lost exchange of which nothing was seen.
fn line(id: ExchangeId, client: SocketAddr, server: SocketAddr, times: &Times) -> Line {
    let shown = |time: Timestamp| (time != Timestamp::default()).then(|| time.to_string());
    Line {
        id: id.to_string(),
        client,
        server,
        request: None,
        response: None,
        started: shown(times.started),
        request_done: shown(times.request_done),
        response_started: shown(times.response_started),
        response_done: shown(times.response_done),
        outcome: "lost",
        reason: None,
    }
}

fn version(version: Version) -> String {
    format!("{version:?}")
}

fn body(bytes: &[u8], whole: bool) -> Body {
    if !whole {
        return Body::default();
    }
    let digest = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Body { body_len: Some(bytes.len()), body_sha256: Some(digest) }
}
