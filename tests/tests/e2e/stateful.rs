//! Requests that change something: skipped unless somebody decides, sent to isolated targets only, sent as a dry run to
//! those who understand it, or kept in a file and replayed later.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shadow_tests::agent::{self, Agent};
use shadow_tests::bed::{BASELINE_PORT, Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::client::{Connection, request};
use shadow_tests::metrics::Scrape;
use shadow_tests::report::Report;
use shadow_tests::servers::{Received, Shop};
use shadow_tests::service::Version;

use crate::site::until;

const END: Duration = Duration::from_secs(20);

/// Production, the candidate, and beside it the baseline.
fn shops(bed: &Bed) -> Result<(Shop, Shop, Shop)> {
    let shop =
        |namespace, name: &str, port| Shop::start(namespace, bed.folder(), name, Version::Production, port);
    Ok((
        shop(&bed.production, "production", PORT)?,
        shop(&bed.shadow, "candidate", CANDIDATE_PORT)?,
        shop(&bed.shadow, "baseline", BASELINE_PORT)?,
    ))
}

/// A configuration with both shadows, and these lines in `select` and for the targets.
fn config(bed: &Bed, select: &str, candidate: &str, baseline: &str) -> Result<PathBuf> {
    let path = bed.folder().join("agent.yaml");
    let text = format!(
        "capture: {{ interfaces: [{FRONT}], ports: [{PORT}] }}\n\
         select: {{ {select} }}\n\
         replay:\n  \
           targets: [ {{ name: candidate, url: \"{}\"{candidate} }} ]\n  \
           baseline: {{ name: baseline, url: \"{}\"{baseline} }}\n",
        bed.candidate_url(),
        bed.baseline_url()
    );
    fs::write(&path, text)?;
    Ok(path)
}

/// Three orders and a look at the shop.
fn ask(bed: &Bed) -> Result<()> {
    bed.client.run(|| {
        let mut connection = Connection::open(bed.production_address())?;
        for number in 1..=3 {
            let body = format!("{{\"order\":{number},\"password\":\"s3cr3t\"}}");
            let headers = [("Content-Type", "application/json")];
            connection.exchange(&request("POST", "/orders", &headers, body.as_bytes()))?;
        }
        connection.exchange(&request("GET", "/products/1", &[], b""))?;
        Ok(())
    })
}

fn skipped(metrics: &Scrape, reason: &str) -> u64 {
    metrics.count("shadow_exchanges_total", &[("outcome", "skipped"), ("reason", reason)])
}

fn posts(shop: &Shop) -> Result<Vec<Received>> {
    Ok(shop.requests()?.into_iter().filter(|request| request.method() == "POST").collect())
}

/// What a run with this configuration told the three shops and counted.
fn run(bed: &Bed, path: &std::path::Path) -> Result<(Scrape, String, Report)> {
    let mut agent = Agent::with_arguments(bed, &["--config", &path.to_string_lossy()])?;
    ask(bed)?;
    agent.settle(4)?;
    let all_ended = |metrics: &Scrape| {
        let selected = metrics.count("shadow_exchanges_total", &[("outcome", "selected")]);
        metrics.count("shadow_replays_total", &[]) == 2 * selected
    };
    let metrics = until(&mut agent, "the end at both targets", END, all_ended)?;
    let report = agent.finish()?;
    ensure!(report.ledger("/imbalance") == 0, "the books are off");
    Ok((metrics, agent.process.log(), report))
}

#[test]
fn unsafe_requests_are_skipped_by_default_and_sent_only_where_every_target_is_isolated() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, candidate, baseline) = shops(&bed)?;
    let path = config(&bed, "methods: [GET, HEAD]", "", "")?;
    let (metrics, log, _) = run(&bed, &path)?;
    ensure!(skipped(&metrics, "method") == 3 && !log.contains("unsafe requests"), "{log}");
    ensure!(posts(&candidate)?.is_empty() && posts(&baseline)?.is_empty());

    let path = config(&bed, "methods: [GET, POST]", ", isolated: true", "")?;
    let refused = agent::command(&bed, &["config", "check", &path.to_string_lossy()])?.output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(2), "{refused:?}");
    ensure!(said.contains("`POST` is not a safe method and `baseline` is not declared isolated"), "{said}");

    let path = config(&bed, "methods: [GET, POST]", ", isolated: true", ", isolated: true")?;
    let checked = agent::command(&bed, &["config", "check", &path.to_string_lossy()])?.output()?;
    let said = String::from_utf8_lossy(&checked.stdout);
    let words = "POST on every path is sent, and writes at candidate (isolated), baseline (isolated)";
    ensure!(said.contains(words), "{said}");
    let (metrics, log, report) = run(&bed, &path)?;
    ensure!(skipped(&metrics, "method") == 0 && log.contains(words), "{log}");
    for shop in [&candidate, &baseline] {
        let received = posts(shop)?;
        ensure!(received.len() == 3, "{} received", received.len());
        ensure!(received.iter().all(|request| request.header("x-dry-run").is_none()));
    }
    ensure!(report.ledger("/selected") == 4);
    Ok(())
}

#[test]
fn a_dry_run_says_so_and_goes_only_to_targets_that_understand_it() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, candidate, baseline) = shops(&bed)?;
    let select = "rules: [ { methods: [POST], path: \"/orders/**\", status: [\"2xx\"], mode: dry-run } ]";
    let path = config(&bed, select, ", dry_run: true", "")?;
    let (metrics, ..) = run(&bed, &path)?;
    let received = posts(&candidate)?;
    ensure!(received.len() == 3, "{} received", received.len());
    ensure!(received.iter().all(|request| request.header("x-dry-run") == Some("1")), "{received:?}");
    let reads = candidate.requests()?;
    let read = reads.iter().find(|request| request.method() == "GET").context("no GET was replayed")?;
    ensure!(read.header("x-dry-run").is_none(), "{read:?}");
    ensure!(posts(&baseline)?.is_empty(), "the baseline understands no dry runs");
    let dropped = [("target", "baseline"), ("outcome", "dropped"), ("reason", "dry_run")];
    ensure!(metrics.count("shadow_replays_total", &dropped) == 3);
    Ok(())
}

#[test]
fn what_is_recorded_only_is_masked_in_a_file_and_replayed_later() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, candidate, baseline) = shops(&bed)?;
    let out = bed.folder().join("kept.gor");
    let select = format!("stateful: record-only, record: {{ out: {} }}", out.display());
    let path = config(&bed, &select, "", "")?;
    let (metrics, ..) = run(&bed, &path)?;
    ensure!(skipped(&metrics, "recorded") == 3, "{}", metrics.counted("shadow_exchanges_total"));
    ensure!(posts(&candidate)?.is_empty() && posts(&baseline)?.is_empty());
    let files = fs::read_dir(bed.folder())?.filter_map(|file| Some(file.ok()?.path()));
    let is_kept = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "gor");
    let files: Vec<PathBuf> = files.filter(is_kept).collect();
    let [file] = &files[..] else { anyhow::bail!("{files:?}") };
    let text = fs::read_to_string(file)?;
    ensure!(
        text.contains("POST /orders") && !text.contains("s3cr3t") && !text.contains("/products"),
        "{text}"
    );

    let shadow = bed.candidate_url();
    let file = file.to_string_lossy();
    // Only what is asked for is sent from a file, too.
    let words = ["replay", "--from", &file, "--speed", "max", "--shadow", &shadow];
    let output = agent::command(&bed, &words)?.output()?;
    ensure!(output.status.success() && posts(&candidate)?.is_empty(), "{output:?}");
    let more = ["--method", "POST", "--isolated"];
    let output = agent::command(&bed, &[words.as_slice(), &more].concat())?.output()?;
    ensure!(output.status.success(), "{output:?}");
    let received = posts(&candidate)?;
    ensure!(received.len() == 3, "{} received", received.len());
    ensure!(received.iter().all(|request| request.header("x-shadow-request") == Some("1")), "{received:?}");
    Ok(())
}
