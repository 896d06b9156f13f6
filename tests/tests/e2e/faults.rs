//! Faults while traffic flows: whatever happens to the agent or around it, production goes on, every exchange is
//! accounted for, and capture comes back by itself.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use shadow_tests::agent::{self, Agent};
use shadow_tests::bed::{Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::metrics::Scrape;
use shadow_tests::netns;
use shadow_tests::process::pause;
use shadow_tests::servers::Shop;
use shadow_tests::service::Version;

use crate::endings::attached;
use crate::site::{self, balanced, books, is_quiet, load, lost, offer, packets, until};

/// How long the agent may take to get over something.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than the agent waits for what is missing from a stream.
const GAP_WAIT: Duration = Duration::from_secs(4);

fn selected(metrics: &Scrape) -> u64 {
    metrics.count("shadow_exchanges_total", &[("outcome", "selected")])
}

/// That `count` further exchanges are all seen whole, now that what happened is over.
fn check_recovered(bed: &Bed, agent: &mut Agent<'_>, count: u64) -> Result<Scrape> {
    // A hole in a stream is waited at before it is a loss.
    pause(GAP_WAIT)?;
    let before = until(agent, "what was under way to end", PATIENCE, is_quiet)?;
    load(bed, 500, count)?;
    let closed = |metrics: &Scrape| selected(metrics) + lost(metrics, None);
    let after = until(agent, "exchanges after the fault", PATIENCE, |metrics| {
        is_quiet(metrics) && closed(metrics) >= closed(&before) + count
    })?;
    let whole = selected(&after) - selected(&before);
    ensure!(
        whole == count && lost(&after, None) == lost(&before, None),
        "{whole} of {count} are whole; before:\n{}after:\n{}",
        books(&before),
        books(&after)
    );
    Ok(after)
}

/// That nothing that was compared differs: the fault was not the candidate's.
fn check_verdict(mut agent: Agent<'_>, metrics: &Scrape) -> Result<()> {
    ensure!(metrics.count("shadow_comparisons_total", &[("result", "mismatch")]) == 0, "mismatches");
    let report = agent.finish()?;
    ensure!(report.outcome() != Some("fail"), "it blames the candidate: {}", agent.report_text());
    Ok(())
}

#[test]
fn stopped_for_ten_seconds_it_silences_the_kernel_and_then_goes_on() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = site::servers(&bed, 1024)?;
    let mut agent = site::agent(&bed, "", "")?;
    thread::scope(|scope| {
        let traffic = scope.spawn(|| load(&bed, 800, 12_000));
        until(&mut agent, "replays", PATIENCE, |metrics| selected(metrics) > 500)?;
        agent.process.signal(Signal::SIGSTOP)?;
        pause(Duration::from_secs(10))?;
        agent.process.signal(Signal::SIGCONT)?;
        // Production was served all the while.
        traffic.join().ok().context("the load panicked")?
    })?;
    let resumed = until(&mut agent, "what was under way to end", PATIENCE, is_quiet)?;
    ensure!(packets(&resumed, "killed") > 0, "the kernel went on copying for an agent that stood still");
    let after = check_recovered(&bed, &mut agent, 500)?;
    ensure!(packets(&after, "killed") == packets(&resumed, "killed"), "the kernel is still silent");
    ensure!(after.count("shadow_replays_total", &[("reason", "timeout")]) == 0, "its own pause is a timeout");
    check_verdict(agent, &after)
}

#[test]
fn its_own_pause_is_not_held_against_the_candidate() -> Result<()> {
    let bed = Bed::new()?;
    let (folder, slow) = (bed.folder(), Duration::from_secs(1));
    let _production = Shop::start(&bed.production, folder, "production", Version::Production, PORT)?;
    let _candidate =
        Shop::with_delay(&bed.shadow, folder, "candidate", Version::Production, CANDIDATE_PORT, slow)?;
    let mut agent = site::agent(&bed, "", "")?;
    thread::scope(|scope| {
        let traffic = scope.spawn(|| load(&bed, 40, 560));
        until(&mut agent, "replays", PATIENCE, |metrics| selected(metrics) > 80)?;
        // Longer than the target's timeout, with replays under way.
        agent.process.signal(Signal::SIGSTOP)?;
        pause(Duration::from_secs(7))?;
        agent.process.signal(Signal::SIGCONT)?;
        traffic.join().ok().context("the load panicked")?
    })?;
    let ended = until(&mut agent, "what was under way to end", PATIENCE, is_quiet)?;
    let failed =
        |labels: &[_]| ended.count("shadow_replays_total", &[&[("outcome", "failed")], labels].concat());
    ensure!(failed(&[]) == failed(&[("reason", "stalled")]), "{}", books(&ended));
    let answers = |suffix: &str, labels: &[_]| {
        ended.count(&format!("shadow_response_duration_seconds_{suffix}"), labels)
    };
    let (all, quick) = (answers("count", &[]), answers("bucket", &[("le", "2.5")]));
    ensure!(all > 0 && all == quick, "{} of {all} answers seem to have taken longer than 2.5 s", all - quick);
    ensure!(agent.process.log().contains("the agent stood still for"), "{}", agent.process.log());
    check_verdict(agent, &ended)
}

#[test]
fn a_full_ring_is_counted_and_what_it_cost_is_lost_with_a_reason() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = site::servers(&bed, 16 << 10)?;
    let mut agent = site::agent(&bed, ", rings: { size: 1MiB, shards: 1 }", "")?;
    thread::scope(|scope| {
        let traffic = scope.spawn(|| load(&bed, 400, 26_000));
        until(&mut agent, "replays", PATIENCE, |metrics| selected(metrics) > 100)?;
        // For a minute. Shorter than it takes for the heartbeat to be stale: the kernel goes on copying into a ring that
        // nobody reads.
        for _ in 0..36 {
            agent.process.signal(Signal::SIGSTOP)?;
            pause(Duration::from_millis(1400))?;
            agent.process.signal(Signal::SIGCONT)?;
            pause(Duration::from_millis(300))?;
            balanced(&agent.metrics()?)?;
        }
        traffic.join().ok().context("the load panicked")?
    })?;
    let full = until(&mut agent, "what was under way to end", PATIENCE, is_quiet)?;
    ensure!(packets(&full, "ring_full") > 0, "the ring was never full");
    ensure!(lost(&full, None) > 0, "nothing is lost, although the ring was full");
    let after = check_recovered(&bed, &mut agent, 500)?;
    check_verdict(agent, &after)
}

#[test]
fn the_kill_switch_while_more_is_copied_than_the_budget_allows() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = site::servers(&bed, 16 << 10)?;
    let mut agent = site::agent(&bed, ", budget: 256KiB/s", "")?;
    thread::scope(|scope| {
        let traffic = scope.spawn(|| load(&bed, 500, 4_000));
        until(&mut agent, "packets", PATIENCE, |metrics| packets(metrics, "copied") > 50)?;
        for switch in ["disable", "enable", "disable"] {
            ensure!(agent::command(&bed, &["ctl", switch])?.output()?.status.success(), "ctl {switch}");
            pause(Duration::from_millis(500))?;
            balanced(&agent.metrics()?)?;
        }
        let off = until(&mut agent, "what was under way to end", PATIENCE, is_quiet)?;
        pause(Duration::from_millis(500))?;
        let later = agent.metrics()?;
        ensure!(packets(&later, "copied") == packets(&off, "copied"), "packets are copied while it is off");
        traffic.join().ok().context("the load panicked")?
    })?;
    let off = until(&mut agent, "what was under way to end", PATIENCE, is_quiet)?;
    check_verdict(agent, &off)
}

#[test]
fn an_interface_deleted_under_traffic_loses_what_was_open_and_no_more() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = site::servers(&bed, 1024)?;
    let mut agent = site::agent(&bed, "", "limits: { exchange_timeout: 2s }")?;
    thread::scope(|scope| {
        // Its connections break with the interface; what becomes of them is not the point.
        let traffic = scope.spawn(|| offer(&bed, 800, 4_000));
        until(&mut agent, "replays", PATIENCE, |metrics| selected(metrics) > 500)?;
        bed.production.ip(&["link", "delete", FRONT])?;
        let gone = until(&mut agent, "what was under way to end", PATIENCE, is_quiet)?;
        // No more than one exchange was open on each connection.
        ensure!(lost(&gone, None) <= 64, "{} lost", lost(&gone, None));
        // Whether it ended with an error or without its answers, it ended.
        let _ = traffic.join().ok().context("the load panicked")?;
        anyhow::Ok(())
    })?;
    netns::join((&bed.client, "eth0", &["10.77.1.2/24"]), (&bed.production, FRONT, &["10.77.1.1/24"]))?;
    until(&mut agent, "the agent to attach again", PATIENCE, |_| {
        attached(&bed).is_ok_and(|ids| !ids.is_empty())
    })?;
    let after = check_recovered(&bed, &mut agent, 500)?;
    check_verdict(agent, &after)
}

#[test]
fn a_shadow_that_becomes_unreachable_in_the_middle_of_a_run_is_missed_and_nothing_else() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = site::servers(&bed, 1024)?;
    let mut agent = site::agent(&bed, "", "")?;
    thread::scope(|scope| {
        let traffic = scope.spawn(|| load(&bed, 500, 5_000));
        until(&mut agent, "replays", PATIENCE, |metrics| selected(metrics) > 500)?;
        bed.production.ip(&["link", "set", "back", "down"])?;
        traffic.join().ok().context("the load panicked")?
    })?;
    let ended = until(&mut agent, "what was under way to end", PATIENCE, is_quiet)?;
    ensure!(selected(&ended) == 5_000 && lost(&ended, None) == 0, "exchanges are lost for want of a shadow");
    let answered = ended.count("shadow_replays_total", &[("outcome", "answered")]);
    let missed = [
        ("failed", "connect"),
        ("failed", "timeout"),
        ("failed", "closed"),
        ("dropped", "breaker"),
        ("dropped", "queue"),
        ("dropped", "concurrency"),
    ]
    .map(|(outcome, reason)| {
        ended.count("shadow_replays_total", &[("outcome", outcome), ("reason", reason)])
    });
    let missed: u64 = missed.iter().sum();
    ensure!(answered > 0 && missed > 0 && answered + missed == 5_000, "{answered} answered, {missed} missed");
    agent.finish().map(drop)
}

#[test]
fn what_times_out_while_the_agent_ends_is_held_against_the_candidate() -> Result<()> {
    let bed = Bed::new()?;
    let (folder, slow) = (bed.folder(), Duration::from_secs(30));
    let _production = Shop::start(&bed.production, folder, "production", Version::Production, PORT)?;
    let _candidate =
        Shop::with_delay(&bed.shadow, folder, "candidate", Version::Production, CANDIDATE_PORT, slow)?;
    let mut agent = site::agent(&bed, "", "")?;
    load(&bed, 40, 20)?;
    until(&mut agent, "replays", PATIENCE, |metrics| selected(metrics) == 20)?;
    agent.finish()?;
    let report = agent.report_text();
    ensure!(report.contains("\"timeout\"") && !report.contains("\"stalled\""), "{report}");
    Ok(())
}
