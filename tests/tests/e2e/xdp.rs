//! Mode xdp: the agent does what it does in mode tc, stands aside for other XDP programs, and leaves nothing behind.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use shadow_tests::agent::{self, Agent};
use shadow_tests::bed::{Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::load::{self, Plan};
use shadow_tests::process::wait_until;
use shadow_tests::servers::Nginx;
use shadow_tests::service::filler;

/// How the kernel shows an XDP program of either kind.
const GENERIC: &str = "xdpgeneric";
const NATIVE: &str = "xdp ";

/// nginx with one static file as production, and another as candidate.
fn servers(bed: &Bed) -> Result<(Nginx, Nginx)> {
    fs::write(bed.folder().join("file"), filler(4096))?;
    let server = |port: u16| format!("server {{ listen {port}; root {}; }}", bed.folder().display());
    let production = Nginx::start(&bed.production, bed.folder(), "production", PORT, &server(PORT))?;
    let candidate =
        Nginx::start(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT, &server(CANDIDATE_PORT))?;
    Ok((production, candidate))
}

/// Sends `count` requests at 500 a second; all must be answered.
fn load(bed: &Bed, count: u64) -> Result<()> {
    let request = |number: u64, bytes: &mut Vec<u8>| {
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET /file?n={number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let plan =
        Plan { address: bed.production_address(), rate: 500, count, connections: 8, request: &request };
    let outcome = bed.client.run(|| load::run(&plan))?;
    ensure!(outcome.ok == count, "production answered {} of {count}", outcome.ok);
    Ok(())
}

/// What `ip` shows of production's interface.
fn shown(bed: &Bed) -> Result<String> {
    let output = bed.production.command("ip").args(["link", "show", "dev", FRONT]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A configuration file for programs in the driver.
fn native(bed: &Bed) -> Result<PathBuf> {
    let file = bed.folder().join("native.yaml");
    fs::write(&file, "capture: { mode: xdp, xdp: native }\n")?;
    Ok(file)
}

#[test]
fn everything_is_captured_replayed_and_compared_in_either_kind() -> Result<()> {
    const COUNT: u64 = 2000;
    let bed = Bed::new()?;
    let (_production, candidate) = servers(&bed)?;
    let file = native(&bed)?;
    let native = ["--config", &file.to_string_lossy()];
    let mut before = 0;
    for (arguments, kind) in [(&["--mode", "xdp"][..], GENERIC), (&native[..], NATIVE)] {
        let mut agent = Agent::start(&bed, arguments)?;
        ensure!(shown(&bed)?.contains(kind), "{kind} is not in:\n{}", shown(&bed)?);
        load(&bed, COUNT)?;
        let metrics = agent.settle(COUNT)?;
        ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0), "the ledger does not balance");
        let matches = metrics.count("shadow_comparisons_total", &[("result", "match")]);
        ensure!(matches == COUNT, "{kind}: {matches} of {COUNT} match");
        let received = candidate.access_log()?.len() as u64;
        ensure!(received == before + COUNT, "{kind}: the shadow received {} requests", received - before);
        before = received;
        agent.finish()?;
        ensure!(!shown(&bed)?.contains("xdp"), "a program stays attached:\n{}", shown(&bed)?);
    }
    Ok(())
}

#[test]
fn kill_9_leaves_nothing_attached() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = servers(&bed)?;
    let file = native(&bed)?;
    let native = ["--config", &file.to_string_lossy()];
    for arguments in [&["--mode", "xdp"][..], &native[..]] {
        let mut agent = Agent::start(&bed, arguments)?;
        load(&bed, 100)?;
        ensure!(shown(&bed)?.contains("xdp"), "{arguments:?}: nothing attached");
        agent.end(Signal::SIGKILL)?;
        wait_until("the kernel to let go", Duration::from_secs(5), || {
            ensure!(!shown(&bed)?.contains("xdp"), "left: {}", shown(&bed)?);
            Ok(())
        })?;
        load(&bed, 100)?;
    }
    Ok(())
}

#[test]
fn one_program_is_there_already_and_stays() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = servers(&bed)?;
    let mut first = Agent::start(&bed, &["--mode", "xdp"])?;
    let begun = shown(&bed)?;
    let shadow = bed.candidate_url();
    let second = |interface: &str, mode: &str| -> Result<_> {
        let what = ["run", "--interface", interface, "--port", "8080", "--shadow", &shadow, "--mode", mode];
        let rest = ["--duration", "1s", "--admin", "127.0.0.1:9466"];
        Ok(agent::command(&bed, &[&what[..], &rest].concat())?.output()?)
    };
    let refused = second(FRONT, "xdp")?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(5), "{}: {said}", refused.status);
    for word in ["capture.mode xdp", FRONT, "shadow_xdp_srv", "set capture.mode to tc"] {
        ensure!(said.contains(word), "{word} is not in:\n{said}");
    }
    let others = second("*", "xdp")?;
    let said = String::from_utf8_lossy(&others.stderr);
    ensure!(others.status.success(), "one of several is no reason to end: {}: {said}", others.status);
    ensure!(said.contains("an interface is not captured from") && said.contains("shadow_xdp_srv"), "{said}");
    let beside = second(FRONT, "tc")?;
    ensure!(beside.status.success(), "{}: {}", beside.status, String::from_utf8_lossy(&beside.stderr));
    ensure!(shown(&bed)? == begun, "{begun} became {}", shown(&bed)?);
    load(&bed, 100)?;
    ensure!(first.settle(100)?.count("shadow_comparisons_total", &[("result", "match")]) == 100);
    first.finish().map(drop)
}

#[test]
fn doctor_says_what_it_costs() -> Result<()> {
    let bed = Bed::new()?;
    let file = bed.folder().join("doctor.yaml");
    let capture = format!("capture: {{ interfaces: [{FRONT}], ports: [8080], mode: xdp }}");
    fs::write(
        &file,
        format!(
            "{capture}\nreplay: {{ targets: [ {{ name: candidate, url: \"{}\" }} ] }}\n",
            bed.candidate_url()
        ),
    )?;
    let output = agent::command(&bed, &["doctor", "--config", &file.to_string_lossy()])?.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}: {said}", output.status);
    for words in ["accepts all 8 programs", "of production's throughput", "capture.mode to tc"] {
        ensure!(said.contains(words), "{words} is not in:\n{said}");
    }
    Ok(())
}
