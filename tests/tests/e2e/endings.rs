//! The kill switch, and every way in which the agent ends. What the kernel holds is asked of the kernel.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::tc::TcAttachType;
use aya::programs::{SchedClassifier, loaded_programs};
use nix::sys::signal::Signal;
use shadow_tests::agent::{self, Agent};
use shadow_tests::bed::{Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::load::{self, Plan};
use shadow_tests::netns;
use shadow_tests::process::{Process, pause, wait_until};
use shadow_tests::servers::{Shop, program};
use shadow_tests::service::Version;

const COPIED: (&str, &[(&str, &str)]) = ("shadow_capture_packets_total", &[("result", "copied")]);
/// How long the kernel may go on copying after the kill switch was thrown.
const SWITCH: Duration = Duration::from_millis(100);

fn shops(bed: &Bed) -> Result<(Shop, Shop)> {
    let production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
    let candidate = Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Production, CANDIDATE_PORT)?;
    Ok((production, candidate))
}

/// Sends `count` requests at 500 a second; all must be answered.
fn load(bed: &Bed, count: u64) -> Result<()> {
    let request = |number: u64, bytes: &mut Vec<u8>| {
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET /products/{number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let plan =
        Plan { address: bed.production_address(), rate: 500, count, connections: 8, request: &request };
    let outcome = bed.client.run(|| load::run(&plan))?;
    ensure!(outcome.ok == count, "production answered {} of {count}", outcome.ok);
    Ok(())
}

/// The ids of the programs attached to production's interface by TCX, both directions.
pub(crate) fn attached(bed: &Bed) -> Result<Vec<u32>> {
    bed.production.run(|| {
        let mut ids = Vec::new();
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            let (_, programs) = SchedClassifier::query_tcx(FRONT, direction).context("asking the kernel")?;
            ids.extend(programs.iter().map(|program| program.id()));
        }
        Ok(ids)
    })
}

/// What `tc` shows of classic filters on production's interface.
fn classic_filters(bed: &Bed) -> Result<String> {
    let mut shown = String::new();
    for direction in ["ingress", "egress"] {
        let output =
            bed.production.command("tc").args(["filter", "show", "dev", FRONT, direction]).output()?;
        shown.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    Ok(shown)
}

/// The ids of every program that the kernel holds.
fn programs() -> Vec<u32> {
    // One that goes away while it is looked at is not held any more.
    loaded_programs().flatten().map(|program| program.id()).collect()
}

#[test]
fn the_kill_switch_stops_copying_at_once_and_production_goes_on() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, candidate) = shops(&bed)?;
    let mut agent = Agent::start(&bed, &[])?;
    let copied = |agent: &Agent<'_>| anyhow::Ok(agent.metrics()?.count(COPIED.0, COPIED.1));
    thread::scope(|scope| {
        let traffic = scope.spawn(|| load(&bed, 3000));
        wait_until("records", Duration::from_secs(5), || {
            if copied(&agent)? > 200 { Ok(()) } else { bail!("{} records", copied(&agent)?) }
        })?;
        let reply = agent.ask("PUT", "/api/v1/capture", r#"{"enabled": false}"#)?;
        ensure!((200..300).contains(&reply.status), "{} {}", reply.status, reply.text());
        thread::sleep(SWITCH);
        let before = copied(&agent)?;
        let sent_before = candidate.requests()?.len();
        pause(Duration::from_secs(1))?;
        let after = copied(&agent)?;
        ensure!(before == after, "{} records were copied after the switch was thrown", after - before);
        ensure!(candidate.requests()?.len() == sent_before, "requests were sent after the switch was thrown");
        ensure!(agent.metrics()?.sum("shadow_capture_enabled", &[]) == Some(0.0));

        let output = agent::command(&bed, &["ctl", "enable"])?.output()?;
        ensure!(output.status.success(), "ctl enable: {}", String::from_utf8_lossy(&output.stderr));
        wait_until("records again", Duration::from_secs(3), || {
            if copied(&agent)? > after { Ok(()) } else { bail!("none") }
        })?;
        traffic.join().ok().context("the load panicked")?
    })?;
    agent.finish().map(drop)
}

#[test]
fn ctl_tells_and_turns_the_switch() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = shops(&bed)?;
    let mut agent = Agent::start(&bed, &[])?;
    for (command, enabled) in [("status", 1.0), ("disable", 0.0), ("status", 0.0), ("enable", 1.0)] {
        let output = agent::command(&bed, &["ctl", command])?.output()?;
        ensure!(output.status.success(), "ctl {command}: {}", String::from_utf8_lossy(&output.stderr));
        ensure!(!output.stdout.is_empty(), "ctl {command} says nothing");
        ensure!(agent.metrics()?.sum("shadow_capture_enabled", &[]) == Some(enabled), "after ctl {command}");
    }
    agent.finish()?;
    let output = agent::command(&bed, &["ctl", "status"])?.output()?;
    ensure!(!output.status.success() && !output.stderr.is_empty(), "ctl talks to an agent that is gone");
    Ok(())
}

#[test]
fn an_interface_that_goes_and_comes_again_is_followed() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = shops(&bed)?;
    let mut agent = Agent::start(&bed, &[])?;
    load(&bed, 50)?;
    agent.settle(50)?;
    let before = attached(&bed)?;
    bed.production.ip(&["link", "delete", FRONT])?;
    // Long enough for the agent to look, and to find nothing.
    pause(Duration::from_millis(1500))?;
    agent.process.check_running()?;
    netns::join((&bed.client, "eth0", &["10.77.1.2/24"]), (&bed.production, FRONT, &["10.77.1.1/24"]))?;
    wait_until("the agent to attach again", Duration::from_secs(5), || {
        ensure!(attached(&bed)? == before, "{:?} instead of {before:?}", attached(&bed)?);
        Ok(())
    })?;
    load(&bed, 50)?;
    agent.settle(100)?;
    let report = agent.finish()?;
    ensure!(report.ledger("/seen") == 100, "{} exchanges seen", report.ledger("/seen"));
    ensure!(attached(&bed)?.is_empty(), "programs stay attached");
    Ok(())
}

#[test]
fn kill_9_leaves_nothing_attached() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = shops(&bed)?;
    let mut agent = Agent::start(&bed, &[])?;
    load(&bed, 200)?;
    let ours = attached(&bed)?;
    ensure!(!ours.is_empty() || !classic_filters(&bed)?.is_empty(), "the agent attached no program");
    ensure!(ours.iter().all(|id| programs().contains(id)), "the kernel does not list {ours:?}");
    agent.end(Signal::SIGKILL)?;
    wait_until("the kernel to let go", Duration::from_secs(5), || {
        let left: Vec<u32> = programs().into_iter().filter(|id| ours.contains(id)).collect();
        let filters = classic_filters(&bed)?;
        ensure!(
            attached(&bed)?.is_empty() && left.is_empty() && filters.is_empty(),
            "left: {left:?} {filters}"
        );
        Ok(())
    })?;
    load(&bed, 200)
}

#[test]
fn signals_and_the_duration_end_it_with_a_summary() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = shops(&bed)?;
    for (arguments, signal) in
        [(&[][..], Some(Signal::SIGTERM)), (&[][..], Some(Signal::SIGINT)), (&["--duration", "4s"][..], None)]
    {
        let mut agent = Agent::start(&bed, arguments)?;
        load(&bed, 100)?;
        let status = match signal {
            Some(signal) => agent.end(signal)?,
            None => agent.process.wait(Duration::from_secs(15))?,
        };
        let said = agent.process.log();
        ensure!(status.code() == Some(0), "{signal:?}: {status}; it said:\n{said}");
        ensure!(said.contains("/products/{id}"), "{signal:?}: no summary in:\n{said}");
        ensure!(agent.report_text().contains("/products/{id}"), "{signal:?}: no report");
        ensure!(attached(&bed)?.is_empty(), "{signal:?}: a program stayed attached");
    }
    Ok(())
}

#[test]
fn a_signal_that_comes_while_it_starts_ends_it_in_order() -> Result<()> {
    let bed = Bed::new()?;
    let shadow = bed.candidate_url();
    let arguments = ["run", "--interface", FRONT, "--port", "8080", "--shadow", &shadow];
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut command = agent::command(&bed, &arguments)?;
        let mut process = Process::start("shadow-agent", &mut command, &bed.folder().join("agent.log"))?;
        let held = 1_u64 << (signal as u32 - 1);
        wait_until("the signal to be held back", Duration::from_secs(20), || {
            process.check_running()?;
            let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).context("no SigBlk")?;
            ensure!(u64::from_str_radix(mask.trim(), 16)? & held != 0, "blocked: {mask}");
            Ok(())
        })?;
        process.signal(signal)?;
        let status = process.wait(Duration::from_secs(20))?;
        let said = process.log();
        ensure!(status.code() == Some(0), "{signal}: {status}; it said:\n{said}");
        ensure!(said.contains("NOT ENOUGH EVIDENCE"), "{signal}: no summary in:\n{said}");
        ensure!(attached(&bed)?.is_empty(), "{signal}: a program stayed attached");
    }
    Ok(())
}

#[test]
fn the_gate_ends_it_with_the_code_of_the_verdict() -> Result<()> {
    let bed = Bed::new()?;
    let _production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
    let _candidate = Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Candidate, CANDIDATE_PORT)?;
    let baseline = Shop::start(
        &bed.shadow,
        bed.folder(),
        "baseline",
        Version::Production,
        shadow_tests::bed::BASELINE_PORT,
    )?;
    let mut agent = Agent::start(&bed, &["--gate", "--baseline", &bed.baseline_url()])?;
    load(&bed, 1000)?;
    agent.settle(1000)?;
    let status = agent.end(Signal::SIGTERM)?;
    ensure!(
        status.code() == Some(1),
        "{status} for a candidate that fails; it said:\n{}",
        agent.process.log()
    );
    drop(baseline);
    Ok(())
}

#[test]
fn a_report_that_nobody_reads_does_not_keep_it_from_ending() -> Result<()> {
    let bed = Bed::new()?;
    let pipe = bed.folder().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
    let (program, port, shadow) = (program("shadow-agent")?, PORT.to_string(), bed.candidate_url());
    let arguments = ["--interface", FRONT, "--port", &port, "--shadow", &shadow];
    let mut agent = Agent::by_way_of(&bed, &["env"], &program, pipe, &arguments)?;
    agent.process.signal(Signal::SIGTERM)?;
    wait_until("the summary", Duration::from_secs(10), || {
        agent.process.check_running()?;
        let said = agent.process.log();
        if said.contains("NOT ENOUGH EVIDENCE") { Ok(()) } else { bail!("{said}") }
    })?;
    pause(Duration::from_secs(1))?;
    agent.process.check_running().context("it did not wait for a reader")?;
    let status = agent.end(Signal::SIGTERM)?;
    let said = agent.process.log();
    ensure!(status.code() == Some(5) && said.contains("given up at the second signal"), "{status}: {said}");
    Ok(())
}
