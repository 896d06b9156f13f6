//! The byte budget on real keep-alive traffic: the rate is met, and what is captured is whole.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::load::{self, Plan};
use shadow_tests::metrics::Scrape;
use shadow_tests::process::pause;
use shadow_tests::servers::Nginx;
use shadow_tests::service::filler;

/// Bytes a second: a third of what production serves.
const BUDGET: u64 = 8 << 20;
const BODY: usize = 16 << 10;
const RATE: u32 = 1500;
const SECONDS: u64 = 7;
/// Head and body of a response, and the request.
const EXCHANGE: u64 = BODY as u64 + 300;

/// Keeps a process, or with 0 the calling thread, on the first CPU.
fn pin(process: u32) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    Ok(sched_setaffinity(Pid::from_raw(i32::try_from(process)?), &cpus)?)
}

/// A third of the traffic is within the budget; on one CPU, all packets pass one queue.
fn the_rate_is_met(one_queue: bool) -> Result<()> {
    let bed = Bed::new()?;
    std::fs::write(bed.folder().join("file"), filler(BODY))?;
    let server =
        |port| format!("server {{ listen {port}; access_log off; root {}; }}", bed.folder().display());
    let production = Nginx::start(&bed.production, bed.folder(), "production", PORT, &server(PORT))?;
    let _candidate =
        Nginx::start(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT, &server(CANDIDATE_PORT))?;
    if one_queue {
        production.workers()?.into_iter().try_for_each(pin)?;
    }
    let config = format!(
        "capture: {{ interfaces: [{FRONT}], ports: [{PORT}], budget: {}MiB/s }}\n\
         limits: {{ cpu: unlimited, exchange_timeout: 2s }}\n\
         replay: {{ targets: [ {{ name: candidate, url: \"{}\" }} ] }}\n",
        BUDGET >> 20,
        bed.candidate_url()
    );
    let file = bed.folder().join("config.yaml");
    std::fs::write(&file, config)?;
    let mut agent = Agent::with_arguments(&bed, &["--config", &file.display().to_string()])?;

    let request = |number: u64, bytes: &mut Vec<u8>| {
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET /file?n={number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let count = u64::from(RATE) * SECONDS;
    let plan =
        Plan { address: bed.production_address(), rate: RATE, count, connections: 32, request: &request };
    let done = AtomicBool::new(false);
    let (sent, (bytes, elapsed)) = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let outcome = bed.client.run(|| {
                if one_queue {
                    pin(0)?;
                }
                load::run(&plan)
            });
            done.store(true, Ordering::Release);
            outcome
        });
        let measured = measure(&agent);
        let early = done.load(Ordering::Acquire);
        let sent = sending.join().map_err(|_| anyhow::anyhow!("the load generator panicked"))??;
        ensure!(!early, "the load ended before it was measured");
        anyhow::Ok((sent, measured?))
    })?;
    ensure!(sent.ok == count, "production answered {} of {count}", sent.ok);
    let rate = bytes as f64 / elapsed.as_secs_f64();
    let met = rate / BUDGET as f64;
    ensure!((0.9..=1.1).contains(&met), "{:.2} MiB/s were copied", rate / f64::from(1 << 20));

    let metrics = settled(&mut agent)?;
    let selected = metrics.count("shadow_exchanges_total", &[("outcome", "selected")]);
    let copied = metrics.count("shadow_capture_bytes_total", &[]);
    let shed = metrics.count("shadow_capture_packets_total", &[("result", "shed")]);
    ensure!(shed > 0, "nothing was shed");
    ensure!(
        metrics.count("shadow_capture_packets_total", &[("result", "ring_full")]) == 0,
        "a ring was full"
    );
    ensure!(
        selected * EXCHANGE * 10 >= copied * 9,
        "{copied} bytes were copied for {selected} whole exchanges of {EXCHANGE}"
    );
    let lost = metrics.count("shadow_exchanges_total", &[("outcome", "lost")]);
    let by_budget = metrics.count("shadow_exchanges_total", &[("outcome", "lost"), ("reason", "shed")]);
    ensure!((lost - by_budget) * 100 <= selected, "{lost} lost, {by_budget} of them by the budget");
    let matches = metrics.count("shadow_comparisons_total", &[("result", "match")]);
    ensure!(matches == selected, "{matches} of {selected} match");
    ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0), "the ledger does not balance");
    let report = agent.finish()?;
    ensure!(
        report.ledger("/lost/shed") == by_budget,
        "the report counts {} shed",
        report.ledger("/lost/shed")
    );
    Ok(())
}

/// Bytes copied in a while that begins when the bucket has been emptied, and how long that was.
fn measure(agent: &Agent<'_>) -> Result<(u64, Duration)> {
    let copied = || Ok::<u64, anyhow::Error>(agent.metrics()?.count("shadow_capture_bytes_total", &[]));
    pause(Duration::from_secs(1))?;
    let (before, start) = (copied()?, Instant::now());
    pause(Duration::from_secs(4))?;
    let (after, elapsed) = (copied()?, start.elapsed());
    Ok((after - before, elapsed))
}

/// The metrics once nothing is under way: what was cut short has timed out.
fn settled(agent: &mut Agent<'_>) -> Result<Scrape> {
    let closed = agent.metrics()?.count("shadow_exchanges_total", &[]);
    agent.settle(closed)
}

#[test]
fn the_budget_is_met_on_one_queue() -> Result<()> {
    the_rate_is_met(true)
}

#[test]
fn the_budget_is_met_on_all_cpus() -> Result<()> {
    the_rate_is_met(false)
}
