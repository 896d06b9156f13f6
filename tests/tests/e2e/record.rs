//! What `record` writes, judged by others: tshark reads the captures, a validator the archives. And a disk that is full.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use shadow_tests::agent;
use shadow_tests::bed::{Bed, FRONT, PORT};
use shadow_tests::client::{Connection, request};
use shadow_tests::process::{Process, wait_until};
use shadow_tests::tshark::{self, Capture};

use crate::inspect::{Lacks, ask, files, inspect, nginx, pipeline, same};

/// Where Debian's packages for Node are.
const MODULES: &str = "/usr/share/nodejs";

const END: Duration = Duration::from_secs(20);

const VALIDATE: &str = "
const archive = JSON.parse(require('fs').readFileSync(process.argv[1], 'utf8'));
require('har-validator').har(archive).then(
    () => console.log(archive.log.entries.length),
    (error) => { console.error(JSON.stringify(error.errors.slice(0, 5))); process.exit(1); });
";

/// Warnings and errors of tshark's experts, what it calls malformed, and checksums that are not right.
const COMPLAINTS: &str =
    "_ws.malformed || _ws.expert.severity >= 0x600000 || tcp.checksum.status != 1 || ip.checksum.status == 0";

fn record(bed: &Bed, from: &Path, out: &Path, more: &[&str]) -> Result<Output> {
    let (from, out) = (from.display().to_string(), out.display().to_string());
    let words = ["record", "--from", &from, "--out", &out];
    Ok(agent::command(bed, &[&words, more].concat())?.output()?)
}

/// The summary that was printed.
fn summary(output: &Output) -> Result<Value> {
    let line: Value = serde_json::from_slice(&output.stdout).context("standard output is no JSON")?;
    line.get("summary").cloned().context("no summary")
}

/// Records to such a file, all of it.
fn recorded(bed: &Bed, from: &Path, name: &str) -> Result<PathBuf> {
    let out = bed.folder().join(name);
    let output = record(bed, from, &out, &[])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary = summary(&output)?;
    let count = |pointer| summary.pointer(pointer).and_then(Value::as_u64);
    ensure!(count("/record/written") == count("/complete") && count("/imbalance") == Some(0), "{summary}");
    ensure!(count("/record/bytes") == Some(fs::metadata(&out)?.len()), "{summary}");
    ensure!(fs::metadata(&out)?.permissions().mode() & 0o777 == 0o600);
    Ok(out)
}

/// What clients of every kind say to nginx.
fn traffic(bed: &Bed) -> Result<PathBuf> {
    files(bed)?;
    let _production = nginx(bed, PORT)?;
    let capture = Capture::start(&bed.production, FRONT, &bed.folder().join("capture.pcap"))?;
    ask(bed, Lacks::Nothing)?;
    pipeline(bed)?;
    capture.finish()
}

fn told_by_us(bed: &Bed, file: &Path) -> Result<Vec<tshark::Told>> {
    inspect(bed, &[&file.display().to_string()])?.told()
}

#[test]
fn tshark_finds_in_what_was_recorded_what_it_finds_in_the_original() -> Result<()> {
    let bed = Bed::new()?;
    let original = traffic(&bed)?;
    let (expected, _) = tshark::exchanges(&original, PORT)?;
    let recorded_once = recorded(&bed, &original, "recorded.pcapng")?;
    let (found, unasked) = tshark::exchanges(&recorded_once, PORT)?;
    ensure!(unasked == 0, "{unasked} responses that nobody asked for");
    same(found, expected.clone())?;
    same(told_by_us(&bed, &recorded_once)?, expected.clone())?;
    let checks = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-d"];
    let read = |filter: &str| -> Result<String> {
        let decode = format!("tcp.port=={PORT},http");
        let mut command = Command::new("tshark");
        command.arg("-n").args(checks).args([&decode, "-Y", filter, "-r"]).arg(&recorded_once);
        let output = command.output()?;
        ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let complaints = read(COMPLAINTS)?;
    ensure!(complaints.is_empty(), "{complaints}");
    ensure!(read("tcp.checksum.status == 1")?.lines().count() > 5000, "tshark checked nothing");
    // Nor does it find anything else in a recording of other kinds.
    let recording = recorded(&bed, &original, "recorded.gor.gz")?;
    same(told_by_us(&bed, &recording)?, expected.clone())?;
    let again = recorded(&bed, &recording, "again.pcapng")?;
    same(tshark::exchanges(&again, PORT)?.0, Vec::new())?;
    same(tshark::exchanges(&again, 80)?.0, expected)
}

#[test]
fn archives_are_valid_and_tell_the_same() -> Result<()> {
    let bed = Bed::new()?;
    let original = traffic(&bed)?;
    let archive = recorded(&bed, &original, "recorded.har")?;
    let mut node = Command::new("node");
    node.env("NODE_PATH", MODULES).args(["-e", VALIDATE]).arg(&archive);
    let output = node.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = inspect(&bed, &[&original.display().to_string()])?;
    let count = expected.told()?.len();
    ensure!(String::from_utf8(output.stdout)?.trim() == count.to_string());
    // An archive has bodies without content coding; of those that had one, nothing but the body differs.
    let encoded = |target: &str| target == "/large";
    let without = |told: Vec<tshark::Told>| -> Vec<tshark::Told> {
        let blank = |mut told: tshark::Told| {
            if encoded(&told.target) {
                told.response_body.clear();
            }
            told
        };
        told.into_iter().map(blank).collect()
    };
    same(without(told_by_us(&bed, &archive)?), without(expected.told()?))
}

#[test]
fn a_recording_of_a_recording_is_the_same_byte_for_byte() -> Result<()> {
    let bed = Bed::new()?;
    let original = traffic(&bed)?;
    let first = recorded(&bed, &original, "first.gor")?;
    let second = recorded(&bed, &first, "second.gor")?;
    ensure!(fs::read(first)? == fs::read(second)?);
    Ok(())
}

#[test]
fn what_is_recorded_is_masked() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = nginx(&bed, PORT)?;
    let capture = Capture::start(&bed.production, FRONT, &bed.folder().join("capture.pcap"))?;
    let secrets = [
        ("Authorization", "Bearer sesame-1234567"),
        ("Cookie", "sid=sesame"),
        ("Content-Type", "application/json"),
    ];
    let body = br#"{"password": "sesame", "to": "ann@example.com", "n": 1}"#;
    let request = request("POST", "/echo/?token=sesame&mail=ann%40example.com&n=1", &secrets, body);
    bed.client.run(|| Connection::open(bed.production_address())?.exchange(&request).map(drop))?;
    let original = capture.finish()?;
    for name in ["masked.gor", "masked.har", "masked.pcapng"] {
        let bytes = fs::read(recorded(&bed, &original, name)?)?;
        let text = String::from_utf8_lossy(&bytes);
        ensure!(!text.contains("sesame") && !text.contains("ann@") && !text.contains("ann%40"), "{text}");
        ensure!(text.contains("n=1") && text.contains("[masked: "), "{text}");
    }
    Ok(())
}

/// A disk of so many KiB; it goes with this value.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf, kib: u32) -> Result<Disk> {
        fs::create_dir(&path)?;
        let size = format!("size={kib}k");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path).status()?;
        ensure!(status.success(), "mount ended with {status}");
        Ok(Disk(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that fails has said why.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_what_was_written_is_whole() -> Result<()> {
    let bed = Bed::new()?;
    let original = traffic(&bed)?;
    for name in ["full.gor", "full.har", "full.pcapng"] {
        let disk = Disk::mount(bed.folder().join(format!("{name}.disk")), 1600)?;
        let out = disk.0.join(name);
        let output = record(&bed, &original, &out, &[])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(5), "{}: {said}", output.status);
        ensure!(said.contains(name) && said.contains("No space left"), "{said}");
        let told = summary(&output)?;
        let record = &told["record"];
        let count = |pointer| record.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        ensure!(count("/taken") == count("/written") + count("/left_out/unwritten"), "{record}");
        ensure!(count("/left_out/unwritten") > 0 && count("/bytes") == fs::metadata(&out)?.len(), "{record}");
        let left = inspect(&bed, &[&out.display().to_string()])?;
        let whole = left.told()?.len() as u64;
        ensure!(whole == count("/written") && left.summary["cut_at"].is_null(), "{whole} {record}");
    }
    Ok(())
}

#[test]
fn what_is_there_is_not_overwritten_and_what_cannot_be_written_is_named() -> Result<()> {
    let bed = Bed::new()?;
    let original = traffic(&bed)?;
    let there = bed.folder().join("there.gor");
    fs::write(&there, "precious")?;
    let cases: [(&str, &[&str], i32, &str); 4] = [
        ("there.gor", &[], 2, "there.gor exists already; name another file, or replace it with --force"),
        (
            "a.txt",
            &[],
            2,
            "a.txt is of no kind that can be written; end its name in .gor, .gor.gz, .har or .pcapng",
        ),
        ("missing/a.gor", &[], 5, "missing/a.gor cannot be created (No such file"),
        ("a.gor", &["--keep", "2"], 2, "--keep 2 needs --rotate-size or --rotate-every"),
    ];
    for (name, more, code, problem) in cases {
        let output = record(&bed, &original, &bed.folder().join(name), more)?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(code) && said.contains(problem), "{}: {said}", output.status);
        ensure!(said.lines().count() == 1, "{said}");
    }
    ensure!(fs::read(&there)? == b"precious");
    let output = record(&bed, &original, &there, &["--force"])?;
    ensure!(output.status.success() && fs::metadata(&there)?.len() > 1000);
    Ok(())
}

#[test]
fn files_are_rotated_and_the_oldest_removed() -> Result<()> {
    let bed = Bed::new()?;
    let original = traffic(&bed)?;
    let folder = bed.folder().join("rotated");
    fs::create_dir(&folder)?;
    let limits = ["--rotate-size", "64KiB", "--keep", "3"];
    let output = record(&bed, &original, &folder.join("capture.gor"), &limits)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = summary(&output)?;
    let mut names: Vec<String> = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    let files = told["record"]["files"].as_u64().context("no number of files")?;
    ensure!(names.len() == 3 && told["record"]["files_removed"] == files - 3, "{names:?} {told}");
    ensure!(names.last().is_some_and(|name| name.ends_with(&format!("-{files:04}.gor"))), "{names:?}");
    for name in names {
        ensure!(!told_by_us(&bed, &folder.join(&name))?.is_empty(), "{name}");
    }
    Ok(())
}

/// A recorder on production's interface, until it is told to stop.
fn record_live(bed: &Bed, out: &Path) -> Result<Process> {
    let (out, port) = (out.display().to_string(), PORT.to_string());
    let words = ["record", "--interface", FRONT, "--port", &port, "--out", &out];
    let mut command = agent::command(bed, &words)?;
    let mut process = Process::start("shadow-agent", &mut command, &bed.folder().join("recorder.log"))?;
    wait_until("the recorder to be ready", END, || {
        process.check_running()?;
        let reply = agent::ask(&bed.production, "GET", "/readyz", "")?;
        ensure!(reply.status == 200, "/readyz: {}", reply.status);
        Ok(())
    })?;
    Ok(process)
}

/// The summary in the last line of what it printed.
fn live_summary(process: &Process) -> Result<Value> {
    let log = process.log();
    let line = log
        .lines()
        .find(|line| line.starts_with("{\"summary\""))
        .with_context(|| format!("no summary: {log}"))?;
    let line: Value = serde_json::from_str(line)?;
    line.get("summary").cloned().context("no summary")
}

#[test]
fn live_traffic_is_recorded_as_tshark_finds_it() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = nginx(&bed, PORT)?;
    let out = bed.folder().join("live.gor");
    let mut recorder = record_live(&bed, &out)?;
    let capture = Capture::start(&bed.production, FRONT, &bed.folder().join("capture.pcap"))?;
    ask(&bed, Lacks::Nothing)?;
    pipeline(&bed)?;
    let original = capture.finish()?;
    // What was taken is in the file a second later.
    wait_until("the exchanges to be in the file", END, || {
        let metrics = agent::ask(&bed.production, "GET", "/metrics", "")?;
        ensure!(metrics.text().contains("shadow_ledger_imbalance 0"), "the books are off");
        same(told_by_us(&bed, &out)?, tshark::exchanges(&original, PORT)?.0)
    })?;
    recorder.signal(Signal::SIGTERM)?;
    let status = recorder.wait(END)?;
    ensure!(status.success(), "{status}: {}", recorder.log());
    let told = live_summary(&recorder)?;
    let (expected, _) = tshark::exchanges(&original, PORT)?;
    let count = |pointer| told.pointer(pointer).and_then(Value::as_u64);
    ensure!(
        count("/record/written") == Some(expected.len() as u64) && count("/imbalance") == Some(0),
        "{told}"
    );
    ensure!(count("/complete") == count("/record/taken"), "{told}");
    ensure!(fs::metadata(&out)?.permissions().mode() & 0o777 == 0o600);
    same(told_by_us(&bed, &out)?, expected)
}

#[test]
fn a_recorder_is_switched_off_and_one_that_is_killed_leaves_a_whole_file() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = nginx(&bed, PORT)?;
    let out = bed.folder().join("live.har");
    let recorder = record_live(&bed, &out)?;
    let get =
        |target: &str| bed.client.run(|| Connection::open(bed.production_address())?.get(target).map(drop));
    let holds = |count: usize| {
        wait_until("the exchanges to be in the file", END, || {
            let found = told_by_us(&bed, &out)?.len();
            ensure!(found == count, "{found} of {count}");
            Ok(())
        })
    };
    (0..20).try_for_each(|number| get(&format!("/small?n={number}")))?;
    holds(20)?;
    let switch = |word| -> Result<()> {
        let output = agent::command(&bed, &["ctl", word])?.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    switch("disable")?;
    (0..20).try_for_each(|_| get("/small?unseen"))?;
    switch("enable")?;
    get("/small?seen")?;
    holds(21)?;
    recorder.signal(Signal::SIGKILL)?;
    let left = inspect(&bed, &[&out.display().to_string()])?;
    ensure!(left.told()?.len() == 21 && left.summary["cut_at"].is_null(), "{}", left.summary);
    Ok(())
}

#[test]
fn a_disk_that_fills_up_ends_a_recorder_and_nothing_else() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = nginx(&bed, PORT)?;
    let disk = Disk::mount(bed.folder().join("disk"), 256)?;
    let mut recorder = record_live(&bed, &disk.0.join("live.gor"))?;
    for _ in 0..20 {
        let size =
            bed.client.run(|| Ok(Connection::open(bed.production_address())?.get("/large")?.body.len()))?;
        ensure!(size > 0, "production answered nothing");
    }
    let status = recorder.wait(END)?;
    let log = recorder.log();
    ensure!(status.code() == Some(5) && log.contains("No space left"), "{status}: {log}");
    let told = live_summary(&recorder)?;
    ensure!(told["imbalance"] == 0 && told["record"]["left_out"]["unwritten"].as_u64() > Some(0), "{told}");
    Ok(())
}
