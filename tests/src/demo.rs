//! The demo: production's traffic, a candidate with planted regressions, and the agent that finds exactly those.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::agent::Agent;
use crate::bed::{BASELINE_PORT, Bed, CANDIDATE_PORT, PORT};
use crate::report::Report;
use crate::servers::Shop;
use crate::service::{REGRESSIONS, Version};

mod traffic;

/// An endpoint is slower when the candidate's median is at least this many times the baseline's.
const SLOWER: f64 = 2.0;
/// Medians below this are too short to speak of, in milliseconds.
const MEASURABLE: f64 = 5.0;

/// What the demo tells its spectators, a line at a time.
pub type Narrator<'a> = &'a (dyn Fn(&str) + Sync);

/// Runs the whole demo and returns what the agent reported.
///
/// # Errors
/// When a part does not come up, when anything but the planted regressions is found, or when interrupted.
pub fn run(tell: Narrator<'_>) -> Result<Report> {
    tell("making network namespaces: client ── production ── shadow");
    let bed = Bed::new()?;
    tell("starting production, and candidate and baseline as its shadows");
    let folder = bed.folder();
    let _production = Shop::start(&bed.production, folder, "production", Version::Production, PORT)?;
    let candidate = Shop::start(&bed.shadow, folder, "candidate", Version::Candidate, CANDIDATE_PORT)?;
    let _baseline = Shop::start(&bed.shadow, folder, "baseline", Version::Production, BASELINE_PORT)?;
    tell("starting the agent on production's interface");
    let mut agent = Agent::start(&bed, &["--baseline", &bed.baseline_url()])?;

    tell("sending mixed traffic: keep-alive, pipelined, chunked, gzip, IPv6");
    let begin = Instant::now();
    let sent = traffic(&bed)?;
    tell(&format!("{sent} requests answered by production in {:.1} s", begin.elapsed().as_secs_f64()));

    let metrics = agent.settle(sent).context("waiting for the agent to finish what it saw")?;
    let imbalance = metrics.sum("shadow_ledger_imbalance", &[]).context("no shadow_ledger_imbalance")?;
    let lost = metrics.count("shadow_exchanges_total", &[("outcome", "lost")]);
    let closed = metrics.count("shadow_exchanges_total", &[]);
    tell("stopping the agent; its summary:");
    let report = agent.finish();
    tell(&agent.process.log());
    let report = report?;

    ensure!(imbalance == 0.0, "the agent's ledger is off by {imbalance}");
    ensure!(lost == 0, "the agent lost {lost} of {closed} exchanges");
    ensure!(closed == sent, "production answered {sent} requests, and the agent saw {closed} exchanges");
    let unsafe_request = candidate.requests()?.into_iter().find(|request| request.method() == "POST");
    if let Some(request) = unsafe_request {
        bail!("the candidate received POST {}, an unsafe method", request.target());
    }
    check(&report)?;
    Ok(report)
}

/// Sends the demo's mix of traffic to production, and gives the number of requests answered.
///
/// # Errors
/// When a response is not what was asked for, or when interrupted.
pub fn traffic(bed: &Bed) -> Result<u64> {
    bed.client.run(|| traffic::send(bed.production_address(), bed.production_address_v6()))
}

/// Fails unless the report names each planted regression and nothing else.
///
/// # Errors
/// What was found, and what was planted.
pub fn check(report: &Report) -> Result<()> {
    let mut found: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for endpoint in report.endpoints() {
        let places = endpoint.mismatches.iter().map(|place| Some(place.clone()));
        found.entry(endpoint.path.clone()).or_default().extend(places);
        if let (Some(candidate), Some(baseline)) = (endpoint.candidate_p50, endpoint.baseline_p50)
            && candidate >= MEASURABLE
            && candidate >= SLOWER * baseline
        {
            found.entry(endpoint.path.clone()).or_default().push(None);
        }
    }
    found.retain(|_, places| !places.is_empty());
    let planted: BTreeMap<String, Vec<Option<String>>> = REGRESSIONS
        .iter()
        .map(|(endpoint, place)| ((*endpoint).to_owned(), vec![place.map(str::to_owned)]))
        .collect();
    let shown = |all: &BTreeMap<String, Vec<Option<String>>>| {
        let line = |(endpoint, places): (&String, &Vec<Option<String>>)| {
            let places: Vec<&str> = places.iter().map(|place| place.as_deref().unwrap_or("slower")).collect();
            format!("{endpoint} ({})", places.join(", "))
        };
        all.iter().map(line).collect::<Vec<_>>().join("; ")
    };
    ensure!(found == planted, "found: {}\nplanted: {}", shown(&found), shown(&planted));
    ensure!(report.outcome() == Some("fail"), "the verdict is {:?}, not \"fail\"", report.outcome());
    Ok(())
}

/// How long the traffic of the demo goes on.
const SPAN: Duration = Duration::from_secs(16);
