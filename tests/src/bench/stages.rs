//! The first stages of the agent by themselves: from the interface to counted segments, or to rebuilt exchanges.
//!
//! Runs as a process of its own in production's namespace, with threads like the agent's. It replays nothing, and keeps
//! nothing but counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use shadow_agent::capture::interfaces;
use shadow_agent::capture::kernel::{KernelCapture, RingSource};
use shadow_agent::capture::{PacketResult, Segment, SegmentSource};
use shadow_agent::config::{Capture, Limits};
use shadow_agent::exchange::{LostReason, Timestamp};
use shadow_agent::shard::{Event, Pipeline, PipelineSettings};

use crate::process;

/// As the agent does.
const BEAT: Duration = Duration::from_millis(250);
/// As the agent does.
const POLL: Duration = Duration::from_millis(250);

/// Nanoseconds; a longer delay counts as this long.
const LONGEST: u64 = 60_000_000_000;

/// How far the way of a byte is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Segments are counted, and the time until they are in userspace is taken.
    Delay,
    /// Segments are counted.
    Count,
    /// Exchanges are rebuilt.
    Rebuild,
}

/// What one shard, or all of them, came to.
#[derive(Debug)]
struct Tally {
    segments: u64,
    exchanges: u64,
    skipped: u64,
    lost: [u64; LostReason::ALL.len()],
    /// Nanoseconds from the packet to userspace.
    delay: Histogram<u64>,
}

/// Captures `port` on `interface` until interrupted, and returns what was met and what the kernel counted. `ready` is
/// called when capture has begun.
///
/// # Errors
/// When capture cannot start, or breaks down.
pub fn run(stage: Stage, interface: &str, port: u16, ready: impl FnOnce()) -> Result<Value> {
    let config =
        Capture { interfaces: vec![interface.to_owned()], ports: vec![(port, port)], ..Capture::default() };
    let devices = interfaces::resolve(&config)?;
    let (kernel, sources) = KernelCapture::start(&config, &devices, true)?;
    let settings = PipelineSettings::new(&Limits::default(), &config.ports, sources.len(), 0);
    let stop = AtomicBool::new(false);
    let total = thread::scope(|scope| {
        let shards: Vec<_> = sources
            .into_iter()
            .map(|source| scope.spawn(|| shard(source, stage, &settings, &stop)))
            .collect();
        ready();
        while process::pause(BEAT).is_ok() {
            kernel.beat();
        }
        let detached = kernel.detach();
        stop.store(true, Ordering::Release);
        let mut total = Tally::new()?;
        for shard in shards {
            total.add(&shard.join().map_err(|_| anyhow!("a shard panicked"))??)?;
        }
        detached?;
        anyhow::Ok(total)
    })?;
    let counters = kernel.counters()?;
    let packets = PacketResult::ALL.iter().zip(&counters.packets);
    let packets: serde_json::Map<_, _> =
        packets.map(|(result, count)| (result.as_str().to_owned(), json!(count))).collect();
    let lost = LostReason::ALL.iter().zip(&total.lost).filter(|&(_, &count)| count > 0);
    let lost: serde_json::Map<_, _> =
        lost.map(|(reason, count)| (reason.as_str().to_owned(), json!(count))).collect();
    let delay = [50.0, 99.0, 100.0].map(|percentile| total.delay.value_at_percentile(percentile));
    Ok(json!({
        "segments": total.segments,
        "exchanges": total.exchanges,
        "skipped": total.skipped,
        "lost": lost,
        "packets": packets,
        "delay": delay,
    }))
}

fn shard(
    mut source: RingSource,
    stage: Stage,
    settings: &PipelineSettings,
    stop: &AtomicBool,
) -> Result<Tally> {
    let mut tally = Tally::new()?;
    let mut pipeline = Pipeline::new(settings);
    loop {
        let stopping = stop.load(Ordering::Acquire);
        let wait = if stopping { Duration::ZERO } else { POLL };
        let polled = source.poll(wait, &mut |segment| {
            tally.segments += 1;
            match stage {
                Stage::Count => {}
                Stage::Delay => tally.delay(segment),
                Stage::Rebuild => pipeline.segment(segment, &mut |event| tally.event(&event)),
            }
        });
        if stage == Stage::Rebuild {
            pipeline.tick(now(), &mut |event| tally.event(&event));
        }
        if polled? == Some(0) && stopping {
            return Ok(tally);
        }
    }
}

impl Tally {
    fn new() -> Result<Tally> {
        let (segments, exchanges, skipped) = (0, 0, 0);
        let lost = [0; LostReason::ALL.len()];
        let delay = Histogram::new_with_bounds(1, LONGEST, 3).context("histogram")?;
        Ok(Tally { segments, exchanges, skipped, lost, delay })
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Exchange(_) => self.exchanges += 1,
            Event::Skipped(_) => self.skipped += 1,
            Event::Lost(lost) => {
                if let Some(count) = self.lost.get_mut(lost.reason as usize) {
                    *count += 1;
                }
            }
        }
    }

    fn delay(&mut self, segment: &Segment<'_>) {
        let delay = now().since(segment.time);
        self.delay.saturating_record(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX));
    }

    fn add(&mut self, other: &Tally) -> Result<()> {
        self.segments += other.segments;
        self.exchanges += other.exchanges;
        self.skipped += other.skipped;
        for (sum, count) in self.lost.iter_mut().zip(other.lost) {
            *sum += count;
        }
        self.delay.add(&other.delay).context("histogram")
    }
}

/// The wall clock, which segments carry as well.
fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}
