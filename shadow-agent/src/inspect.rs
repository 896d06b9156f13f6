//! `inspect`: the exchanges of a capture, one JSON object a line, and a summary in the last line.
//!
//! The way from segments to exchanges is the one of live traffic. What is printed has passed `mask.keep`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Version;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::capture::SegmentSource as _;
use crate::capture::file::{FileError, FileRecord, FileSource, Progress};
use crate::exchange::{
    Exchange, ExchangeId, Headers, Lost, LostReason, Request, Response, SkipReason, Times, Timestamp,
};
use crate::policy::mask::{Kept, Masker};
use crate::shard::{Event, Pipeline, PipelineSettings};
use crate::tcp::Ending;
use crate::terminal;

/// How often the progress is shown.
const INTERVAL: Duration = Duration::from_millis(200);

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
    mut source: FileSource,
    settings: &PipelineSettings,
    masker: &Masker,
    output: &mut dyn Write,
    watched: bool,
) -> Result<(), InspectError> {
    let mut pipeline = Pipeline::new(settings);
    let mut lines = Lines { output, masker, counts: Counts::default(), failed: None };
    let mut meter = watched.then(|| Meter::new(source.progress()));
    let ended = loop {
        let polled = source.poll(Duration::ZERO, &mut |segment| {
            pipeline.segment(segment, &mut |event| lines.take(&event));
        });
        if let Some(error) = lines.failed.take() {
            break Err(error.into());
        }
        if let Some(meter) = &mut meter {
            meter.show(lines.counts.complete);
        }
        match polled {
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    if meter.is_some() {
        terminal::clear();
    }
    if let Err(InspectError::Output(_)) = ended {
        return ended;
    }
    pipeline.finish(Ending::Shutdown, &mut |event| lines.take(&event));
    if let Some(error) = lines.failed.take() {
        return Err(error.into());
    }
    if let Some(offset) = source.tally().cut {
        tracing::warn!(
            "the capture ends within a packet, behind byte {offset}, as if its writer had been killed"
        );
    }
    let summary = lines.counts.summary(&source, &pipeline);
    writeln!(lines.output, "{}", json!({ "summary": summary }))?;
    lines.output.flush()?;
    ended
}

/// Writes a line for every exchange that is whole or lost.
struct Lines<'a> {
    output: &'a mut dyn Write,
    masker: &'a Masker,
    counts: Counts,
    /// The first failure to write; nothing is written after it.
    failed: Option<io::Error>,
}

#[derive(Debug, Default)]
struct Counts {
    complete: u64,
    lost: [u64; LostReason::ALL.len()],
    skipped: [u64; SkipReason::ALL.len()],
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
    method: String,
    target: Kept<String>,
    version: String,
    headers: Vec<(String, Kept<String>)>,
    #[serde(flatten)]
    body: Body,
}

#[derive(Serialize)]
struct ResponsePart {
    status: u16,
    version: String,
    headers: Vec<(String, Kept<String>)>,
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
    fn take(&mut self, event: &Event) {
        let line = match event {
            Event::Exchange(exchange) => {
                self.counts.complete += 1;
                self.whole(exchange)
            }
            Event::Lost(lost) => {
                count(&mut self.counts.lost, lost.reason as usize);
                self.lost(lost)
            }
            Event::Skipped(reason) => return count(&mut self.counts.skipped, *reason as usize),
        };
        if self.failed.is_none() {
            self.failed = self.write(&line).err();
        }
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
            method: request.method.to_string(),
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

    fn headers(&self, headers: &Headers) -> Vec<(String, Kept<String>)> {
        let shown = |(name, value): (&Bytes, &Bytes)| {
            (String::from_utf8_lossy(name).into_owned(), self.masker.keep_whole_header(name, value))
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

fn count(counts: &mut [u64], position: usize) {
    if let Some(count) = counts.get_mut(position) {
        *count += 1;
    }
}

impl Counts {
    /// The ledger of the file.
    fn summary(&self, source: &FileSource, pipeline: &Pipeline) -> Value {
        let (stats, tally) = (pipeline.stats(), source.tally());
        let lost = named(LostReason::ALL.iter().map(|reason| reason.as_str()), &self.lost);
        let skipped = named(SkipReason::ALL.iter().map(|reason| reason.as_str()), &self.skipped);
        let records = named(FileRecord::ALL.iter().map(|result| result.as_str()), &tally.records);
        json!({
            "segments": stats.tcp.segments,
            "bytes": stats.tcp.bytes,
            "exchanges": stats.seen,
            "complete": self.complete,
            "lost": lost,
            "skipped": skipped,
            "imbalance": stats.imbalance(),
            "records": records,
            "snapped": tally.snapped,
            "cut_at": tally.cut,
            "duplicate_segments": stats.tcp.duplicate_segments,
            "conflicting_segments": stats.tcp.conflicting_segments,
            "one_sided_flows": stats.tcp.one_sided_flows,
            "reordered": stats.tcp.reordered,
            "strays": stats.tcp.strays,
            "gaps": stats.tcp.gaps,
            "gap_bytes": stats.tcp.gap_bytes,
        })
    }
}

/// Counts by name, without those that are zero.
fn named<'a>(names: impl Iterator<Item = &'a str>, counts: &[u64]) -> Map<String, Value> {
    let counted = names.zip(counts).filter(|&(_, &count)| count > 0);
    counted.map(|(name, &count)| (name.to_owned(), json!(count))).collect()
}

/// Shows how far a file was read.
struct Meter {
    progress: Progress,
    started: Instant,
    shown: Instant,
}

impl Meter {
    fn new(progress: Progress) -> Meter {
        let now = Instant::now();
        Meter { progress, started: now, shown: now }
    }

    fn show(&mut self, exchanges: u64) {
        if self.shown.elapsed() < INTERVAL {
            return;
        }
        self.shown = Instant::now();
        let (read, elapsed) = (self.progress.read(), self.started.elapsed());
        terminal::show(&progress_line(read, self.progress.total(), elapsed, exchanges));
    }
}

fn progress_line(read: u64, total: Option<u64>, elapsed: Duration, exchanges: u64) -> String {
    let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    let Some(total) = total.filter(|&total| total > 0) else {
        return format!("{:.1} MiB read, {exchanges} exchanges", mib(read));
    };
    let share = (read as f64 / total as f64).min(1.0);
    let left = elapsed.as_secs_f64() / share.max(f64::EPSILON) - elapsed.as_secs_f64();
    format!("{:3.0} % of {:.1} MiB, {exchanges} exchanges, {left:.0} s left", share * 100.0, mib(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_in_words() {
        let line = |read, total| progress_line(read, total, Duration::from_secs(5), 7);
        assert_eq!(line(1 << 20, Some(4 << 20)), " 25 % of 4.0 MiB, 7 exchanges, 15 s left");
        assert_eq!(line(4 << 20, Some(4 << 20)), "100 % of 4.0 MiB, 7 exchanges, 0 s left");
        assert_eq!(line(1 << 20, None), "1.0 MiB read, 7 exchanges");
        assert_eq!(line(0, Some(0)), "0.0 MiB read, 7 exchanges");
    }
}
