//! `bench soak`: production under a steady rate for a long time, while the shadow goes from fine to slow to dead and
//! back; before and after, production alone. What is to hold all the while: production's latency, the agent's memory,
//! and the ledger.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::median;
use super::moody::{Mood, Moody};
use super::table::Table;
use crate::agent::Agent;
use crate::bed::{Bed, CANDIDATE_PORT, PORT};
use crate::load::{self, Plan};
use crate::metrics::Scrape;
use crate::process::{check_interrupt, wait_until};
use crate::servers::Nginx;
use crate::service::filler;

/// Requests per second.
const RATE: u32 = 2000;
const BODY: usize = 1024;
const CONNECTIONS: usize = 32;
/// Seconds of one measurement, in which the shadow has one mood.
const SPELL: u32 = 10;
/// How often the books and the memory are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long the last replays may take.
const SETTLE: Duration = Duration::from_secs(30);
const MIB: f64 = 1024.0 * 1024.0;

/// Production during one spell.
#[derive(Clone, Copy, Debug)]
struct Spell {
    p50: f64,
    p99: f64,
    failed: f64,
}

/// What was seen of the agent meanwhile.
#[derive(Debug, Default)]
struct Watched {
    /// Anonymous memory in bytes, at each look.
    memory: Vec<f64>,
    /// The largest imbalance of the ledger.
    imbalance: f64,
}

/// What the agent came to in the end.
struct Ended {
    metrics: Scrape,
    cpu: f64,
}

/// Measures `seconds` with the agent, and `repeats` spells without it before and after, and returns the table.
///
/// # Errors
/// When a part does not come up, or when interrupted.
pub fn run(repeats: u32, seconds: u32, tell: &dyn Fn(&str)) -> Result<Table> {
    let bed = Bed::new()?;
    let body = filler(BODY);
    std::fs::write(bed.folder().join("file"), &body)?;
    let server = format!(
        "server {{ listen {PORT}; access_log off; default_type application/octet-stream; root {}; }}",
        bed.folder().display()
    );
    let _production = Nginx::start(&bed.production, bed.folder(), "production", PORT, &server)?;
    let shadow = Moody::default();
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            bed.shadow.enter()?;
            shadow.serve(CANDIDATE_PORT, &body)
        });
        let measured = measure(&bed, &shadow, repeats, seconds, tell);
        shadow.stop();
        serving.join().ok().context("the shadow panicked")??;
        measured
    })
}

fn measure(bed: &Bed, shadow: &Moody, repeats: u32, seconds: u32, tell: &dyn Fn(&str)) -> Result<Table> {
    let alone = |when: &str| {
        tell(&format!("production alone, {when}: {repeats} times {SPELL} s at {RATE} requests/s"));
        (0..repeats).map(|_| spell(bed)).collect::<Result<Vec<_>>>()
    };
    let mut off = alone("before")?;
    let mut agent = Agent::start(bed, &[])?;
    let (spells, watched) = with_watch(&agent, || soak(bed, shadow, seconds, tell))?;
    let count: u64 = spells.iter().map(|_| u64::from(RATE) * u64::from(SPELL)).sum();
    let ended = end(&mut agent, shadow, count)?;
    drop(agent);
    off.extend(alone("after")?);
    table(&off, &spells, &watched, &ended, count, shadow.answered())
}

/// One spell after the other, the shadow in another mood each time.
fn soak(bed: &Bed, shadow: &Moody, seconds: u32, tell: &dyn Fn(&str)) -> Result<Vec<(Mood, Spell)>> {
    let spells = (seconds / SPELL).max(u32::try_from(Mood::ALL.len())?);
    let moods = Mood::ALL.into_iter().cycle().take(spells as usize);
    moods
        .enumerate()
        .map(|(index, mood)| {
            shadow.put(mood);
            tell(&format!("{} of {spells}: the shadow is {}, {SPELL} s", index + 1, mood.as_str()));
            Ok((mood, spell(bed)?))
        })
        .collect()
}

fn spell(bed: &Bed) -> Result<Spell> {
    check_interrupt()?;
    let request = |number: u64, bytes: &mut Vec<u8>| {
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET /file?n={number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let plan = Plan {
        address: bed.production_address(),
        rate: RATE,
        count: u64::from(RATE) * u64::from(SPELL),
        connections: CONNECTIONS,
        request: &request,
    };
    let outcome = bed.client.run(|| load::run(&plan))?;
    Ok(Spell {
        p50: outcome.percentile(50.0),
        p99: outcome.percentile(99.0),
        failed: (plan.count - outcome.ok) as f64,
    })
}

/// Does `work`, and looks at the agent's memory and books meanwhile.
fn with_watch<T>(agent: &Agent<'_>, work: impl FnOnce() -> Result<T>) -> Result<(T, Watched)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut watched = Watched::default();
            while !done.load(Ordering::Relaxed) {
                watched.memory.push(agent.process.memory("RssAnon")? as f64);
                let imbalance = agent.metrics()?.sum("shadow_ledger_imbalance", &[]);
                watched.imbalance = watched.imbalance.max(imbalance.context("no imbalance is exported")?);
                thread::sleep(LOOK);
            }
            anyhow::Ok(watched)
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let watched = watcher.join().ok().context("the watcher panicked")?;
        Ok((result?, watched?))
    })
}

/// Lets the agent finish what is under way, with a shadow that is fine, and ends it.
fn end(agent: &mut Agent<'_>, shadow: &Moody, count: u64) -> Result<Ended> {
    shadow.put(Mood::Fine);
    let metrics = wait_until("every exchange to be closed", SETTLE, || {
        let metrics = agent.metrics()?;
        let closed = metrics.count("shadow_exchanges_total", &[]);
        ensure!(closed >= count, "{closed} of {count} exchanges are closed");
        let selected = metrics.count("shadow_exchanges_total", &[("outcome", "selected")]);
        let replays = metrics.count("shadow_replays_total", &[]);
        ensure!(replays == selected, "{replays} of {selected} replays have ended");
        Ok(metrics)
    })?;
    let cpu = agent.process.cpu()?.as_secs_f64();
    agent.finish()?;
    Ok(Ended { metrics, cpu })
}

/// One of the figures of a spell.
type Figure = fn(&Spell) -> f64;

fn table(
    off: &[Spell],
    spells: &[(Mood, Spell)],
    watched: &Watched,
    ended: &Ended,
    count: u64,
    answered: u64,
) -> Result<Table> {
    let of = |spells: &[Spell], figure: Figure| {
        median(&spells.iter().map(figure).collect::<Vec<_>>()).context("no measurement")
    };
    let by_mood =
        |mood: Mood| spells.iter().filter(|(of, _)| *of == mood).map(|(_, spell)| *spell).collect::<Vec<_>>();
    let figures: [(&str, Figure); 2] = [("p50", |spell| spell.p50), ("p99", |spell| spell.p99)];
    let mut table = Table { name: "soak", ..Table::default() };
    for (percentile, figure) in figures {
        let alone = of(off, figure)?;
        table.row(&format!("production {percentile}, off"), alone, "us", None);
        for mood in Mood::ALL {
            let value = of(&by_mood(mood), figure)?;
            let name = format!("production {percentile}, shadow {}", mood.as_str());
            table.row(&name, value, "us", Some(("off", value / alone)));
        }
    }
    let failed = spells.iter().map(|(_, spell)| spell.failed).sum();
    table.row("production failed", failed, "requests", None);
    let metrics = &ended.metrics;
    let exchanges = |outcome: &str| metrics.count("shadow_exchanges_total", &[("outcome", outcome)]) as f64;
    let replays = |outcome: &str| metrics.count("shadow_replays_total", &[("outcome", outcome)]) as f64;
    table.row("offered", count as f64, "requests", None);
    table.row("selected", exchanges("selected"), "exchanges", None);
    let lost = exchanges("lost");
    table.row("lost", lost, "exchanges", None);
    for outcome in ["answered", "failed", "dropped"] {
        table.row(outcome, replays(outcome), "replays", None);
    }
    table.row("answered, by the shadow's own count", answered as f64, "requests", None);
    let mismatches = metrics.count("shadow_comparisons_total", &[("result", "mismatch")]) as f64;
    table.row("mismatches", mismatches, "replays", None);
    table.row("CPU per 10,000", ended.cpu / count as f64 * 10_000.0, "s", None);
    let peak = watched.memory.iter().copied().fold(0.0, f64::max) / MIB;
    let (early, late) = halves(&watched.memory);
    table.row("RssAnon peak, first half", early / MIB, "MiB", None);
    table.row("RssAnon peak, second half", late / MIB, "MiB", Some(("first half", late / early)));

    let trouble = |mood| anyhow::Ok(of(&by_mood(mood), |spell| spell.p99)?);
    let worst = trouble(Mood::Slow)?.max(trouble(Mood::Dead)?) / trouble(Mood::Fine)?;
    table.goal("production p99 in trouble over fine, at most", worst, 1.25, false);
    table.goal("production failed, at most", failed, 0.0, false);
    table.goal("imbalance at any look, at most", watched.imbalance, 0.0, false);
    table.goal("lost, at most", lost, 0.0, false);
    table.goal("mismatches, at most", mismatches, 0.0, false);
    table.goal("RssAnon, at most MiB", peak, 48.0, false);
    table.goal("RssAnon second half over first, at most", late / early, 1.1, false);
    Ok(table)
}

/// The largest of the first half, and of the second.
fn halves(values: &[f64]) -> (f64, f64) {
    let (early, late) = values.split_at(values.len() / 2);
    let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    (largest(early), largest(late))
}
