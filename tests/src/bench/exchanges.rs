//! `bench exchanges`: how fast captures become exchanges, on one core, and what a flow costs in memory, with tshark(1)
//! as a peer on the same file.
//!
//! The captures are made here, in memory; everything from the bytes of the file to the exchange is measured: reading,
//! decoding, reassembly, parsing, pairing. Nothing is masked or printed.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shadow_agent::capture::SegmentSource as _;
use shadow_agent::capture::file::FileSource;
use shadow_agent::config::Limits;
use shadow_agent::exchange::Timestamp;
use shadow_agent::shard::{Event, Pipeline, PipelineSettings};
use shadow_agent::tcp::Ending;

use super::median;
use super::table::Table;

mod capture;
mod http2;

use capture::{Capture, Framed};

/// Small exchanges of a capture, and the connections that carry them.
const SMALL: (u32, u32) = (1_000_000, 1000);
/// Exchanges with a body of a mebibyte, likewise.
const LARGE: (u32, u32) = (1000, 10);
const MIB: usize = 1 << 20;
/// How many small exchanges the peer is given, so that it ends in seconds.
const PEER: (u32, u32) = (30_000, 100);
/// Flows whose memory is measured.
const FLOWS: u32 = 50_000;
const PORT: u16 = 80;

/// Measures everything and returns the table.
///
/// # Errors
/// When an exchange is missing, or tshark cannot be run.
pub fn run(repeats: u32, tell: &dyn Fn(&str)) -> Result<Table> {
    tell("making the captures");
    let small = Capture::of(SMALL, 0);
    let large = Capture::of(LARGE, MIB);
    let multiplexed = Capture::over_http2(SMALL);
    let peer = Capture::of(PEER, 0);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("peer.pcap");
    fs::write(&file, peer.bytes())?;
    let mut seconds: [Vec<f64>; 5] = Default::default();
    for repeat in 1..=repeats {
        tell(&format!("{repeat} of {repeats}: {} small exchanges, {} large, tshark", SMALL.0, LARGE.0));
        let [fast, many, heavy, ours, theirs] = &mut seconds;
        fast.push(rebuild(&small, SMALL.0)?);
        many.push(rebuild(&multiplexed, SMALL.0)?);
        heavy.push(rebuild(&large, LARGE.0)?);
        ours.push(rebuild(&peer, PEER.0)?);
        theirs.push(tshark(&file, PEER.0)?);
    }
    let middle = |values: &[f64]| median(values).context("nothing was measured");
    let [fast, many, heavy, ours, theirs] = seconds.each_ref().map(|values| middle(values));
    let (fast, many, heavy, ours, theirs) = (fast?, many?, heavy?, ours?, theirs?);

    let mut table = Table { name: "exchanges", ..Table::default() };
    let rate = f64::from(SMALL.0) / fast;
    let bytes = f64::from(LARGE.0) * MIB as f64 / heavy / 1e9;
    table.row("small exchanges", rate, "1/s", None);
    table.row("small exchanges, packets", small.packets() as f64 / fast, "1/s", None);
    table.row("small exchanges over HTTP/2, ten at once", f64::from(SMALL.0) / many, "1/s", None);
    table.row("large bodies", bytes, "GB/s", None);
    let (own, other) = (f64::from(PEER.0) / ours, f64::from(PEER.0) / theirs);
    table.row("tshark, small exchanges", other, "1/s", None);
    table.row("the same for us", own, "1/s", Some(("tshark", own / other)));
    tell("memory of flows");
    // All of them are kept, so that none takes what another gave back.
    let (idle, _idle) = memory(Framed::Whole)?;
    let (multiplexed, _multiplexed) = memory(Framed::WholeByHttp2)?;
    let (busy, _busy) = memory(Framed::Half)?;
    table.row("memory of an idle flow", idle, "B", None);
    table.row("memory of an idle flow with HTTP/2", multiplexed, "B", None);
    table.row("memory of a flow with half a body of 4 KiB", busy, "B", None);
    table.goal("small exchanges, at least 1/s", rate, 500_000.0, true);
    table.goal("large bodies, at least GB/s", bytes, 1.5, true);
    table.goal("memory of an idle flow, at most B", idle, 1024.0, false);
    Ok(table)
}

/// Seconds for all exchanges of a capture, on this thread.
fn rebuild(capture: &Capture, expected: u32) -> Result<f64> {
    let input = Box::new(Cursor::new(Arc::clone(capture.bytes())));
    let mut source = FileSource::new(Path::new("capture"), input, None)?;
    let mut pipeline = Pipeline::new(&PipelineSettings::new(&Limits::default(), &[(PORT, PORT)], 1, 0));
    let mut whole = 0_u32;
    let mut take = |event: Event| whole += u32::from(matches!(event, Event::Exchange(_)));
    let start = Instant::now();
    while source.poll(Duration::ZERO, &mut |segment| pipeline.segment(segment, &mut take))?.is_some() {}
    pipeline.finish(Ending::Shutdown, &mut take);
    let took = start.elapsed().as_secs_f64();
    ensure!(whole == expected, "{whole} exchanges instead of {expected}: {:?}", pipeline.stats());
    Ok(took)
}

/// Seconds that tshark needs to find them.
fn tshark(file: &Path, expected: u32) -> Result<f64> {
    let start = Instant::now();
    let output = Command::new("tshark")
        .args(["-n", "-Y", "http.response", "-T", "fields", "-e", "http.response.code"])
        .args(["-e", "http.request_in", "-r"])
        .arg(file)
        .output()
        .context("tshark could not be started")?;
    let took = start.elapsed().as_secs_f64();
    let found = output.stdout.iter().filter(|&&byte| byte == b'\n').count();
    ensure!(found == expected as usize, "tshark finds {found} exchanges instead of {expected}");
    Ok(took)
}

/// Bytes that a flow takes of this process's memory, of very many, and these.
fn memory(framed: Framed) -> Result<(f64, Pipeline)> {
    let limits = Limits { flows: 2 * FLOWS as usize, ..Limits::default() };
    let mut pipeline = Pipeline::new(&PipelineSettings::new(&limits, &[(PORT, PORT)], 1, 0));
    let before = resident()?;
    for flow in 0..FLOWS {
        capture::segments(flow, framed, &mut |segment| pipeline.segment(segment, &mut |_| ()));
    }
    pipeline.tick(Timestamp(1), &mut |_| ());
    let after = resident()?;
    let stats = pipeline.stats();
    let whole = if framed == Framed::Half { 0 } else { u64::from(FLOWS) };
    ensure!(stats.tcp.flows == FLOWS as usize && stats.exchanges == whole, "{stats:?}");
    Ok(((after - before) as f64 / f64::from(FLOWS), pipeline))
}

/// Anonymous memory of this process, in bytes.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
