//! The body of a shard's thread: polls its source, feeds the pipeline, and hands whole exchanges to the backlog.
//!
//! A wire cannot wait, so the thread never waits for the backlog: what that has no room for is lost. A file can, and does.
//! The clock is that of the segments, so that a file is read in its own time and a clock that is set has no effect; on a
//! wire it is carried on by the time that passed since the last segment.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Event, Pipeline};
use crate::backlog::{Place, Sender};
use crate::capture::SegmentSource;
use crate::config::Share;
use crate::control::Control;
use crate::exchange::{Exchange, LostReason, SkipReason, Timestamp};
use crate::ledger::{Ledger, ShardBatch};
use crate::tcp::{Ending, Oddities};

/// How long to wait for segments before the rest of the work is looked after. An idle shard costs one turn in this time;
/// the heartbeat, which needs a turn of every shard, must not become stale.
const POLL: Duration = Duration::from_millis(250);

/// How long a source that never runs dry is drained after the wish to stop.
const DRAIN: Duration = Duration::from_millis(500);

/// Exchanges entered in the ledger at once, at most.
const BATCH: usize = 64;

/// Segments taken between two beats and entries in the ledger, at most.
const SEGMENTS: usize = 1024;

/// How often a source that can wait asks for room.
const PATIENCE: Duration = Duration::from_millis(1);

/// What a shard's thread is linked to.
#[derive(Clone, Copy, Debug)]
pub struct Links<'a> {
    /// Its position among the shards.
    pub shard: usize,
    /// Where it enters what happened.
    pub ledger: &'a Ledger,
    /// Where whole exchanges go.
    pub backlog: &'a Sender,
    /// The kill switch, and the share of flows captured.
    pub control: &'a Control,
    /// The wish to stop.
    pub stop: &'a AtomicBool,
}

/// Runs one shard until it shall stop (then the source is drained, for half a second at most), or until the source ends.
///
/// Whole exchanges go to the backlog; what it has no room for is lost, unless the source can wait. What happened is entered in the ledger, exchanges
/// before they can be received. `beat` is called four times a second or more often, unless the
/// source holds the thread up. When the kill switch is thrown, what is open is skipped; when the share of flows captured
/// falls, what is open in flows that it leaves out is lost.
///
/// # Errors
/// When the source is unusable; what was open is lost and entered all the same.
pub fn run<S: SegmentSource>(
    mut source: S,
    mut pipeline: Pipeline,
    links: &Links<'_>,
    beat: impl Fn(),
) -> Result<(), S::Error> {
    let Links { control, stop, .. } = *links;
    let mut batch = Batch::new(links, source.can_wait());
    // What a pipe brought does not wait for what it will bring.
    let most = if source.can_wait() { 1 } else { BATCH };
    let mut clock = Clock { stands: source.can_wait(), last: None };
    let mut stopping: Option<Instant> = None;
    let mut enabled = true;
    let mut sample = Share::ALL;
    let result = loop {
        beat();
        if stopping.is_none() && stop.load(Ordering::Acquire) {
            stopping = Some(Instant::now());
        }
        if std::mem::replace(&mut enabled, control.enabled()) && !enabled {
            pipeline.finish(Ending::Disabled, &mut |event| batch.add(event));
        }
        let wanted = control.sample();
        if std::mem::replace(&mut sample, wanted) != wanted {
            pipeline.set_sample(wanted, &mut |event| batch.add(event));
        }
        let mut taken = 0;
        let wait = if stopping.is_some() { Duration::ZERO } else { POLL };
        let polled = source.poll(wait, &mut |segment| {
            clock.seen(segment.time);
            pipeline.segment(segment, &mut |event| batch.add(event));
            batch.wait(&pipeline);
            taken += 1;
            if batch.ready.len() >= most || taken % SEGMENTS == 0 {
                batch.enter(&pipeline);
                beat();
            }
        });
        if let Some(now) = clock.now() {
            pipeline.tick(now, &mut |event| batch.add(event));
        }
        batch.wait(&pipeline);
        batch.enter(&pipeline);
        match polled {
            Err(error) => break Err(error),
            Ok(None) => break Ok(()),
            Ok(Some(count)) => {
                if stopping.is_some_and(|since| count == 0 || since.elapsed() >= DRAIN) {
                    break Ok(());
                }
            }
        }
    };
    pipeline.finish(Ending::Shutdown, &mut |event| batch.add(event));
    batch.wait(&pipeline);
    batch.enter(&pipeline);
    result
}

/// The time on the clock of the segments.
#[derive(Debug)]
struct Clock {
    /// Whether it stands still between two segments.
    stands: bool,
    last: Option<(Timestamp, Instant)>,
}

impl Clock {
    fn seen(&mut self, time: Timestamp) {
        match &mut self.last {
            // Reading the clock costs more than it gives while one batch is handed over.
            Some((last, _)) if time.since(*last) < Duration::from_millis(1) && time >= *last => {}
            last => *last = Some((time, Instant::now())),
        }
    }

    fn now(&self) -> Option<Timestamp> {
        self.last.map(|(time, seen)| if self.stands { time } else { time.plus(seen.elapsed()) })
    }
}

/// What happened since the last entry in the ledger.
struct Batch<'a> {
    links: &'a Links<'a>,
    /// Whole exchanges, each with its place in the backlog.
    ready: Vec<Place<'a>>,
    /// Whole exchanges that wait for a place, if the source can wait.
    surplus: Option<VecDeque<Exchange>>,
    skipped: [u64; SkipReason::ALL.len()],
    lost: [u64; LostReason::ALL.len()],
    /// Exchanges seen, as of the last entry.
    entered: u64,
    /// What was odd, as of the last entry.
    oddities: Oddities,
}

impl<'a> Batch<'a> {
    fn new(links: &'a Links<'a>, can_wait: bool) -> Batch<'a> {
        Batch {
            links,
            ready: Vec::with_capacity(BATCH),
            surplus: can_wait.then(VecDeque::new),
            skipped: [0; SkipReason::ALL.len()],
            lost: [0; LostReason::ALL.len()],
            entered: 0,
            oddities: Oddities::default(),
        }
    }

    fn add(&mut self, event: Event) {
        match event {
            Event::Exchange(exchange) => match &mut self.surplus {
                // None overtakes another.
                Some(surplus) => surplus.push_back(exchange),
                None => match self.links.backlog.reserve(exchange) {
                    Ok(place) => self.ready.push(place),
                    Err(_) => count(&mut self.lost, LostReason::Backlog as usize),
                },
            },
            Event::Skipped(reason) => count(&mut self.skipped, reason as usize),
            Event::Lost(lost) => count(&mut self.lost, lost.reason as usize),
        }
    }

    /// Waits until everything has a place, or until no more are wanted.
    fn wait(&mut self, pipeline: &Pipeline) {
        while let Some(exchange) = self.surplus.as_mut().and_then(VecDeque::pop_front) {
            match self.links.backlog.reserve(exchange) {
                Ok(place) => self.ready.push(place),
                Err(exchange) => {
                    if let Some(surplus) = &mut self.surplus {
                        surplus.push_front(*exchange);
                    }
                    if self.links.stop.load(Ordering::Acquire) || self.links.backlog.is_closed() {
                        return self.give_up();
                    }
                    // What has its place makes room only once it is let go.
                    self.enter(pipeline);
                    thread::sleep(PATIENCE);
                }
            }
        }
    }

    fn give_up(&mut self) {
        for _ in self.surplus.iter_mut().flat_map(|surplus| surplus.drain(..)) {
            count(&mut self.lost, LostReason::Shutdown as usize);
        }
    }

    /// Enters everything at once, and only then lets the exchanges go: whoever receives one finds it in the books.
    fn enter(&mut self, pipeline: &Pipeline) {
        let stats = pipeline.stats();
        let oddities = stats.tcp.oddities();
        let batch = ShardBatch {
            seen: stats.seen - self.entered,
            queued: self.ready.len() as u64,
            skipped: take_counts(SkipReason::ALL, &mut self.skipped),
            lost: take_counts(LostReason::ALL, &mut self.lost),
            open: stats.open() + self.surplus.as_ref().map_or(0, VecDeque::len) as u64,
            flows: stats.tcp.flows as u64,
            buffered: stats.tcp.buffered as u64,
            oddities: oddities.since(self.oddities),
        };
        self.entered = stats.seen;
        self.oddities = oddities;
        self.links.ledger.shard(self.links.shard, &batch);
        for place in self.ready.drain(..) {
            place.send();
        }
    }
}

fn count(counts: &mut [u64], position: usize) {
    if let Some(count) = counts.get_mut(position) {
        *count += 1;
    }
}

fn take_counts<R: Copy>(reasons: &[R], counts: &mut [u64]) -> Vec<(R, u64)> {
    let taken = counts.iter_mut().map(std::mem::take);
    reasons.iter().copied().zip(taken).filter(|&(_, count)| count > 0).collect()
}

#[cfg(test)]
mod tests;
