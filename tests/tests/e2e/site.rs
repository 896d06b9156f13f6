//! What several tests are about: one static file behind nginx as production and as candidate, and load on it.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::load::{self, Outcome, Plan};
use shadow_tests::metrics::Scrape;
use shadow_tests::process::{pause, wait_until};
use shadow_tests::servers::Nginx;
use shadow_tests::service::filler;

/// Between two questions to the agent, whose answers cost CPU time too.
const REST: Duration = Duration::from_millis(300);

/// Production and the candidate, serving `/large` of so many bytes.
pub(crate) fn servers(bed: &Bed, size: usize) -> Result<(Nginx, Nginx)> {
    std::fs::write(bed.folder().join("large"), filler(size))?;
    let server = |port: u16| format!("server {{ listen {port}; root {}; }}", bed.folder().display());
    let production = Nginx::start(&bed.production, bed.folder(), "production", PORT, &server(PORT))?;
    let candidate =
        Nginx::start(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT, &server(CANDIDATE_PORT))?;
    Ok((production, candidate))
}

/// Sends so many requests a second, which nginx and the shop can answer, until there were `count`; says how that went.
pub(crate) fn offer(bed: &Bed, rate: u32, count: u64) -> Result<Outcome> {
    let request = |number: u64, bytes: &mut Vec<u8>| {
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET /large?size=1024&n={number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let plan = Plan { address: bed.production_address(), rate, count, connections: 64, request: &request };
    bed.client.run(|| load::run(&plan))
}

/// As [`offer`]; every request must be answered.
pub(crate) fn load(bed: &Bed, rate: u32, count: u64) -> Result<()> {
    let outcome = offer(bed, rate, count)?;
    ensure!(outcome.ok == count, "production answered {} of {count}", outcome.ok);
    Ok(())
}

/// An agent between the two, with these lines in its configuration.
pub(crate) fn agent<'a>(bed: &'a Bed, capture: &str, rest: &str) -> Result<Agent<'a>> {
    let config = bed.folder().join("agent.yaml");
    let text = format!(
        "capture: {{ interfaces: [{FRONT}], ports: [{PORT}]{capture} }}\n\
         replay: {{ targets: [ {{ name: candidate, url: \"{}\" }} ] }}\n{rest}\n",
        bed.candidate_url()
    );
    std::fs::write(&config, text)?;
    Agent::with_arguments(bed, &["--config", &config.to_string_lossy()])
}

/// Asks now and then until the metrics are as wanted; the books must balance every time.
pub(crate) fn until(
    agent: &mut Agent<'_>,
    what: &str,
    within: Duration,
    mut wanted: impl FnMut(&Scrape) -> bool,
) -> Result<Scrape> {
    wait_until(what, within, || {
        agent.process.check_running()?;
        let metrics = agent.metrics()?;
        let balanced = balanced(&metrics);
        let done = balanced.is_ok() && wanted(&metrics);
        if !done {
            pause(REST)?;
        }
        balanced?;
        if done {
            return Ok(metrics);
        }
        bail!(
            "{}the agent said:
{}",
            books(&metrics),
            agent.process.log()
        )
    })
}

/// What the agent counted, for messages.
pub(crate) fn books(metrics: &Scrape) -> String {
    [
        "shadow_capture_packets_total",
        "shadow_exchanges_total",
        "shadow_exchanges_in_flight",
        "shadow_replays_total",
    ]
    .map(|name| metrics.counted(name))
    .concat()
}

/// That nothing is unaccounted for.
pub(crate) fn balanced(metrics: &Scrape) -> Result<()> {
    let imbalance = metrics.sum("shadow_ledger_imbalance", &[]);
    ensure!(imbalance == Some(0.0), "the ledger is off by {imbalance:?}");
    Ok(())
}

/// Whether nothing is under way any more.
pub(crate) fn is_quiet(metrics: &Scrape) -> bool {
    let selected = metrics.count("shadow_exchanges_total", &[("outcome", "selected")]);
    metrics.count("shadow_exchanges_in_flight", &[]) == 0
        && metrics.count("shadow_replays_total", &[]) == selected
}

/// Exchanges lost, for that reason or (with none) for any.
pub(crate) fn lost(metrics: &Scrape, reason: Option<&str>) -> u64 {
    let labels = reason.map(|reason| ("reason", reason));
    let labels: Vec<_> = [("outcome", "lost")].into_iter().chain(labels).collect();
    metrics.count("shadow_exchanges_total", &labels)
}

/// Packets by what the kernel decided.
pub(crate) fn packets(metrics: &Scrape, result: &str) -> u64 {
    metrics.count("shadow_capture_packets_total", &[("result", result)])
}
