//! Reads a file to its end: the exchanges of it, one after the other, a progress on the terminal, and the books.
//!
//! The way from segments to exchanges is the one of live traffic. It does not know what becomes of the exchanges.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::capture::SegmentSource as _;
use crate::capture::file::{FileError, FileRecord, FileSource, Progress};
use crate::exchange::{LostReason, SkipReason};
use crate::shard::{Event, Pipeline, PipelineSettings};
use crate::tcp::Ending;
use crate::terminal;

/// How often the progress is shown.
const INTERVAL: Duration = Duration::from_millis(200);

/// What came of reading a file.
#[derive(Debug)]
pub struct Read {
    /// The ledger of the file: segments, bytes, exchanges, complete, lost and skipped by reason, records by what became
    /// of them.
    pub books: Map<String, Value>,
    /// Whether the file could be read to its end.
    pub ended: Result<(), FileError>,
}

/// Reads a file, and hands over every exchange that is whole, lost or skipped, until `take` has had enough; what it is
/// handed in the same go comes all the same. `watched` says that somebody may see a progress on the terminal.
pub fn read(
    mut source: FileSource,
    settings: &PipelineSettings,
    watched: bool,
    take: &mut dyn FnMut(&Event) -> ControlFlow<()>,
) -> Read {
    let mut pipeline = Pipeline::new(settings);
    let mut counts = Counts::default();
    let mut enough = false;
    let mut event = |counts: &mut Counts, event: Event| {
        counts.add(&event);
        take(&event).is_break()
    };
    let mut meter = watched.then(|| Meter::new(source.progress()));
    let ended = loop {
        let polled = source.poll(Duration::ZERO, &mut |segment| {
            pipeline.segment(segment, &mut |met| enough |= event(&mut counts, met));
        });
        if let Some(meter) = &mut meter {
            meter.show(counts.complete);
        }
        match polled {
            Ok(Some(_)) if !enough => {}
            Ok(_) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if meter.is_some() {
        terminal::clear();
    }
    pipeline.finish(Ending::Shutdown, &mut |met| enough |= event(&mut counts, met));
    if let Some(offset) = source.tally().cut {
        tracing::warn!(
            "the capture ends within a packet, behind byte {offset}, as if its writer had been killed"
        );
    }
    Read { books: counts.books(&source, &pipeline), ended }
}

#[derive(Debug, Default)]
struct Counts {
    complete: u64,
    lost: [u64; LostReason::ALL.len()],
    skipped: [u64; SkipReason::ALL.len()],
}

impl Counts {
    fn add(&mut self, event: &Event) {
        let count = match event {
            Event::Exchange(_) => Some(&mut self.complete),
            Event::Lost(lost) => self.lost.get_mut(lost.reason as usize),
            Event::Skipped(reason) => self.skipped.get_mut(*reason as usize),
        };
        if let Some(count) = count {
            *count += 1;
        }
    }

    /// The ledger of the file.
    fn books(&self, source: &FileSource, pipeline: &Pipeline) -> Map<String, Value> {
        let (stats, tally) = (pipeline.stats(), source.tally());
        let lost = named(LostReason::ALL.iter().map(|reason| reason.as_str()), &self.lost);
        let skipped = named(SkipReason::ALL.iter().map(|reason| reason.as_str()), &self.skipped);
        let records = named(FileRecord::ALL.iter().map(|result| result.as_str()), &tally.records);
        let books = [
            ("segments", json!(stats.tcp.segments)),
            ("bytes", json!(stats.tcp.bytes)),
            ("exchanges", json!(stats.seen)),
            ("complete", json!(self.complete)),
            ("lost", json!(lost)),
            ("skipped", json!(skipped)),
            ("imbalance", json!(stats.imbalance())),
            ("records", json!(records)),
            ("snapped", json!(tally.snapped)),
            ("cut_at", json!(tally.cut)),
            ("duplicate_segments", json!(stats.tcp.duplicate_segments)),
            ("conflicting_segments", json!(stats.tcp.conflicting_segments)),
            ("one_sided_flows", json!(stats.tcp.one_sided_flows)),
            ("reordered", json!(stats.tcp.reordered)),
            ("strays", json!(stats.tcp.strays)),
            ("gaps", json!(stats.tcp.gaps)),
            ("gap_bytes", json!(stats.tcp.gap_bytes)),
        ];
        books.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Counts by name, without those that are zero.
pub(crate) fn named<'a>(names: impl Iterator<Item = &'a str>, counts: &[u64]) -> Map<String, Value> {
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
