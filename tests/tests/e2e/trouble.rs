//! A shadow in trouble: production and the agent's memory stay as they are, and every request is accounted for.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, PORT};
use shadow_tests::load::{self, Plan};
use shadow_tests::netns::Namespace;
use shadow_tests::servers::{Nginx, Shop};
use shadow_tests::service::{Version, filler};
use socket2::SockRef;

const COUNT: u64 = 6000;
/// What the agent may hold of its own (RssAnon), in bytes.
const MEMORY: u64 = 96 << 20;
/// What it may hold more after the second half of the load than after the first, in bytes.
const GROWTH: u64 = 16 << 20;

/// Loads production, twice over the same, while the shadow is as it is.
fn check(bed: &Bed, arguments: &[&str], unanswered: &[(&str, &str)]) -> Result<()> {
    std::fs::write(bed.folder().join("file"), filler(4096))?;
    let server = format!("server {{ listen {PORT}; root {}; }}", bed.folder().display());
    let _production = Nginx::start(&bed.production, bed.folder(), "nginx", PORT, &server)?;
    let mut agent = Agent::start(bed, arguments)?;
    let request = |number: u64, bytes: &mut Vec<u8>| {
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET /file?n={number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let plan = Plan {
        address: bed.production_address(),
        rate: 1500,
        count: COUNT / 2,
        connections: 16,
        request: &request,
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let outcome = bed.client.run(|| load::run(&plan))?;
        ensure!(outcome.ok == plan.count, "production answered {} of {}", outcome.ok, plan.count);
        held.push(agent.process.memory("RssAnon")?);
    }
    let metrics = agent.settle(COUNT)?;
    let selected = metrics.count("shadow_exchanges_total", &[("outcome", "selected")]);
    ensure!(selected == COUNT, "{selected} of {COUNT} selected");
    ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0), "the ledger does not balance");
    let missed: u64 = unanswered
        .iter()
        .map(|(outcome, reason)| {
            metrics.count("shadow_replays_total", &[("outcome", outcome), ("reason", reason)])
        })
        .sum();
    let answered = metrics.count("shadow_replays_total", &[("outcome", "answered")]);
    ensure!(
        missed > 0 && missed + answered == COUNT,
        "{answered} answered, {missed} missed for {unanswered:?}"
    );
    let [first, second] = held.as_slice() else { anyhow::bail!("two measurements") };
    ensure!(*second <= MEMORY, "the agent holds {second} bytes");
    ensure!(second.saturating_sub(*first) <= GROWTH, "the agent grew from {first} to {second} bytes");
    agent.finish().map(drop)
}

#[test]
fn a_shadow_that_is_down() -> Result<()> {
    check(&Bed::new()?, &[], &[("failed", "connect"), ("dropped", "breaker"), ("dropped", "queue")])
}

#[test]
fn a_shadow_that_is_slow() -> Result<()> {
    let bed = Bed::new()?;
    let delay = Duration::from_secs(2);
    let _slow =
        Shop::with_delay(&bed.shadow, bed.folder(), "slow", Version::Production, CANDIDATE_PORT, delay)?;
    let reasons = [
        ("dropped", "queue"),
        ("dropped", "concurrency"),
        ("dropped", "breaker"),
        ("failed", "timeout"),
        ("failed", "closed"),
    ];
    check(&bed, &["--concurrency", "8"], &reasons)
}

#[test]
fn a_shadow_that_resets_every_connection() -> Result<()> {
    let bed = Bed::new()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let listener = scope.spawn(|| reset_all(&bed.shadow, &stop));
        let reasons =
            [("failed", "closed"), ("failed", "connect"), ("dropped", "breaker"), ("dropped", "queue")];
        let result = check(&bed, &[], &reasons);
        stop.store(true, Ordering::Relaxed);
        listener.join().ok().context("the listener panicked")??;
        result
    })
}

/// Accepts connections and resets them, until told to stop.
fn reset_all(namespace: &Namespace, stop: &AtomicBool) -> Result<()> {
    namespace.enter()?;
    let listener = TcpListener::bind(("0.0.0.0", CANDIDATE_PORT))?;
    listener.set_nonblocking(true)?;
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            // A zero linger time turns the close into a reset.
            Ok((stream, _)) => SockRef::from(&stream).set_linger(Some(Duration::ZERO))?,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    Ok(())
}
