//! Files replayed: what is found is what a run finds, in the time and order asked for, and a file waits for its targets.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use shadow_tests::agent;
use shadow_tests::bed::{BASELINE_PORT, Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::client::Connection;
use shadow_tests::demo;
use shadow_tests::process::{Process, pause, wait_until};
use shadow_tests::report::Report;
use shadow_tests::servers::Shop;
use shadow_tests::service::Version;
use shadow_tests::tshark::Capture;

const END: Duration = Duration::from_secs(60);

/// How a replay ended.
struct Replayed {
    code: Option<i32>,
    said: String,
    report: Report,
    took: Duration,
}

impl Replayed {
    /// Fails unless so many exchanges were replayed to the candidate and answered, and nothing else became of any.
    fn whole(&self, count: u64) -> Result<()> {
        let ledger = |path: &str| self.report.ledger(path);
        let found = [ledger("/seen"), ledger("/selected"), ledger("/targets/0/answered")];
        ensure!(found == [count; 3] && ledger("/imbalance") == 0, "{found:?} of {count}: {}", self.said);
        Ok(())
    }
}

/// The command, in the namespace of the shadows, where nothing is captured.
fn command(bed: &Bed, arguments: &[&str]) -> Result<Command> {
    let mut command = bed.shadow.command(shadow_tests::servers::program("shadow-agent")?);
    command.arg("replay").args(arguments).arg("--report").arg(bed.folder().join("report.json"));
    Ok(command)
}

fn replay(bed: &Bed, arguments: &[&str]) -> Result<Replayed> {
    let begun = Instant::now();
    let output = command(bed, arguments)?.output()?;
    let took = begun.elapsed();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report = Report::parse(&fs::read_to_string(bed.folder().join("report.json"))?)?;
    Ok(Replayed { code: output.status.code(), said, report, took })
}

/// A recording of so many requests, so far apart, each on a connection of its own, with the answers of a shop.
fn recording(bed: &Bed, count: u32, apart: Duration) -> Result<PathBuf> {
    const SEPARATOR: &str = "\n\u{1f435}\u{1f648}\u{1f649}\n";
    let mut text = String::new();
    let page = "<!doctype html>\n<title>Shop</title>\n<h1>Welcome</h1>\n<p>Ten new products this week.</p>\n";
    let length = page.len();
    for number in 0..count {
        let time = 1_700_000_000_000_000_000 + u128::from(number) * apart.as_nanos();
        write!(text, "1 {number:024x} {time} 0\nGET /?n={number} HTTP/1.1\r\nHost: shop\r\n\r\n{SEPARATOR}")?;
        write!(
            text,
            "2 {number:024x} {} 1000000\nHTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\
             Cache-Control: max-age=60\r\nContent-Length: {length}\r\n\r\n{page}{SEPARATOR}",
            time + 1_000_000
        )?;
    }
    let file = bed.folder().join("recorded.gor");
    fs::write(&file, text)?;
    Ok(file)
}

/// The candidate, waiting that long before each response.
fn candidate(bed: &Bed, delay: Duration) -> Result<Shop> {
    Shop::with_delay(&bed.shadow, bed.folder(), "candidate", Version::Candidate, CANDIDATE_PORT, delay)
}

#[test]
fn what_is_found_in_a_capture_is_what_a_run_finds() -> Result<()> {
    let bed = Bed::new()?;
    let folder = bed.folder();
    let _production = Shop::start(&bed.production, folder, "production", Version::Production, PORT)?;
    let capture = Capture::start(&bed.production, FRONT, &folder.join("front.pcap"))?;
    let sent = demo::traffic(&bed)?;
    let file = capture.finish()?;
    let _candidate = candidate(&bed, Duration::ZERO)?;
    let _baseline = Shop::start(&bed.shadow, folder, "baseline", Version::Production, BASELINE_PORT)?;
    let (file, port) = (file.to_string_lossy(), PORT.to_string());
    let (shadow, baseline) = (bed.candidate_url(), bed.baseline_url());
    let replayed = replay(
        &bed,
        &[
            "--from",
            &file,
            "--port",
            &port,
            "--speed",
            "4x",
            "--gate",
            "--shadow",
            &shadow,
            "--baseline",
            &baseline,
        ],
    )?;
    ensure!(replayed.code == Some(1), "exit {:?}: {}", replayed.code, replayed.said);
    ensure!(replayed.report.ledger("/seen") == sent, "of {sent} requests: {}", replayed.said);
    ensure!(replayed.report.ledger("/imbalance") == 0, "{}", replayed.said);
    demo::check(&replayed.report)
}

#[test]
fn what_was_recorded_masked_is_compared_with_answers_masked_likewise() -> Result<()> {
    let bed = Bed::new()?;
    let folder = bed.folder();
    let _production = Shop::start(&bed.production, folder, "production", Version::Production, PORT)?;
    let capture = Capture::start(&bed.production, FRONT, &folder.join("front.pcap"))?;
    let sent = demo::traffic(&bed)?;
    let file = capture.finish()?.display().to_string();
    let recorded = folder.join("recorded.gor").display().to_string();
    let status = agent::command(&bed, &["record", "--from", &file, "--out", &recorded])?.output()?;
    ensure!(status.status.success(), "{status:?}");
    let text = fs::read(&recorded)?;
    let text = String::from_utf8_lossy(&text);
    ensure!(text.contains("[masked: email]") && !text.contains("@shop.example"), "nothing was masked");
    let _candidate = candidate(&bed, Duration::ZERO)?;
    let _baseline = Shop::start(&bed.shadow, folder, "baseline", Version::Production, BASELINE_PORT)?;
    let (shadow, baseline) = (bed.candidate_url(), bed.baseline_url());
    let arguments = ["--from", &recorded, "--speed", "4x", "--shadow", &shadow, "--baseline", &baseline];
    let replayed = replay(&bed, &arguments)?;
    ensure!(replayed.report.ledger("/seen") == sent, "of {sent} requests: {}", replayed.said);
    demo::check(&replayed.report).with_context(|| replayed.said)
}

#[test]
fn requests_are_sent_no_earlier_than_their_speed_says() -> Result<()> {
    let bed = Bed::new()?;
    let _candidate = candidate(&bed, Duration::ZERO)?;
    let file = recording(&bed, 41, Duration::from_millis(50))?;
    let (file, shadow) = (file.to_string_lossy(), bed.candidate_url());
    for (speed, least) in [("1x", 2_000), ("4x", 500), ("20/s", 2_000), ("max", 0)] {
        let replayed = replay(&bed, &["--from", &file, "--speed", speed, "--shadow", &shadow])?;
        replayed.whole(41)?;
        ensure!(replayed.code == Some(0), "exit {:?}: {}", replayed.code, replayed.said);
        let least = Duration::from_millis(least);
        ensure!(replayed.took >= least, "{speed} took {:?}, less than {least:?}", replayed.took);
    }
    Ok(())
}

#[test]
fn a_file_waits_for_a_slow_target_and_for_its_rate() -> Result<()> {
    let bed = Bed::new()?;
    let _candidate = candidate(&bed, Duration::from_millis(20))?;
    // More than fit in a target's queue.
    let file = recording(&bed, 1_500, Duration::from_micros(10))?;
    let (file, shadow) = (file.to_string_lossy(), bed.candidate_url());
    for speed in ["1x", "max"] {
        let arguments = ["--from", &file, "--speed", speed, "--concurrency", "32", "--shadow", &shadow];
        replay(&bed, &arguments)?.whole(1_500)?;
    }
    let config = bed.folder().join("rate.yaml");
    fs::write(
        &config,
        format!("replay: {{ rate: 1000/s, targets: [ {{ name: new, url: \"{shadow}\" }} ] }}\n"),
    )?;
    replay(&bed, &["--from", &file, "--speed", "max", "--config", &config.to_string_lossy()])?.whole(1_500)
}

#[test]
fn requests_of_one_connection_keep_their_order_when_asked() -> Result<()> {
    let bed = Bed::new()?;
    let folder = bed.folder();
    let _production = Shop::start(&bed.production, folder, "production", Version::Production, PORT)?;
    let capture = Capture::start(&bed.production, FRONT, &folder.join("front.pcap"))?;
    bed.client.run(|| {
        let mut connections =
            [Connection::open(bed.production_address())?, Connection::open(bed.production_address())?];
        for number in 0..20 {
            for (of, connection) in connections.iter_mut().enumerate() {
                connection.get(&format!("/?connection={of}&n={number}"))?;
            }
        }
        anyhow::Ok(())
    })?;
    let file = capture.finish()?;
    let delay = Duration::from_millis(50);
    let candidate = candidate(&bed, delay)?;
    let (file, shadow) = (file.to_string_lossy(), bed.candidate_url());
    let replayed = replay(&bed, &["--from", &file, "--speed", "max", "--keep-order", "--shadow", &shadow])?;
    replayed.whole(40)?;
    ensure!(replayed.took >= 20 * delay, "two at a time take longer than {:?}", replayed.took);
    ensure!(replayed.took < 40 * delay, "{:?}: one connection waited for the other", replayed.took);
    for of in 0..2 {
        let received = candidate.requests()?.into_iter().map(|request| request.target().to_owned());
        let received: Vec<_> =
            received.filter(|target| target.starts_with(&format!("/?connection={of}&"))).collect();
        let sent: Vec<_> = (0..20).map(|number| format!("/?connection={of}&n={number}")).collect();
        ensure!(received == sent, "connection {of}: {received:?}");
    }
    Ok(())
}

#[test]
fn a_replay_that_is_told_to_stop_says_what_it_left_out() -> Result<()> {
    let bed = Bed::new()?;
    let candidate = candidate(&bed, Duration::ZERO)?;
    let file = recording(&bed, 1_000, Duration::from_secs(1))?;
    let mut command = command(&bed, &["--from", &file.to_string_lossy(), "--shadow", &bed.candidate_url()])?;
    let mut replay = Process::start("shadow-agent", &mut command, &bed.folder().join("replay.log"))?;
    wait_until("the first request", END, || {
        replay.check_running()?;
        ensure!(!candidate.requests()?.is_empty());
        Ok(())
    })?;
    pause(Duration::from_millis(200))?;
    replay.signal(Signal::SIGINT)?;
    let status = replay.wait(END)?;
    ensure!(status.success(), "{status}: {}", replay.log());
    let report = Report::parse(&fs::read_to_string(bed.folder().join("report.json"))?)?;
    let ledger =
        ["/seen", "/lost/shutdown", "/selected", "/in_flight", "/imbalance"].map(|path| report.ledger(path));
    let [seen, lost, selected, in_flight, imbalance] = ledger;
    ensure!(seen == lost + selected && selected >= 1 && lost > 900, "{ledger:?}");
    ensure!((in_flight, imbalance) == (0, 0), "{ledger:?}");
    Ok(())
}

#[test]
fn what_cannot_be_replayed_is_refused_or_told_and_needs_no_privilege() -> Result<()> {
    let bed = Bed::new()?;
    let _candidate = candidate(&bed, Duration::ZERO)?;
    let file = recording(&bed, 20, Duration::ZERO)?;
    let shadow = bed.candidate_url();
    let whole = fs::read(&file)?;
    let cut = bed.folder().join("cut.gor");
    fs::write(&cut, whole.get(..whole.len() - 10).unwrap_or_default())?;
    let [none, text] = ["none.pcap", "text.pcap"].map(|name| bed.folder().join(name));
    fs::write(&text, "no capture")?;
    let check = |arguments: &[&str], code: i32, expected: &str| -> Result<()> {
        let output = agent::command(&bed, &[&["replay"], arguments].concat())?.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code) && said.contains(expected), "{arguments:?}: {output:?}");
        Ok(())
    };
    let [none, text, cut] = [&none, &text, &cut].map(|path| path.to_string_lossy());
    check(&["--from", &none, "--shadow", &shadow], 2, "cannot be opened")?;
    check(&["--from", &text, "--shadow", &shadow], 2, "is no capture that can be read")?;
    check(&["--from", &cut], 2, "replay.targets: required")?;
    check(&["--from", &cut, "--shadow", &shadow], 0, "the file ends within a record")?;
    check(&["--from", &cut, "--shadow", "http://10.77.2.2:9", "--gate"], 1, "")?;

    let mut command = bed.shadow.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all"]);
    command.arg(shadow_tests::servers::program("shadow-agent")?);
    command.args(["replay", "--from", "-", "--speed", "max", "--shadow", &shadow]);
    let output = command.stdin(Stdio::from(fs::File::open(&file)?)).output()?;
    let (said, complaints) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && said.contains("20 of 20 answered"), "{said}{complaints}");
    ensure!(complaints.is_empty(), "{complaints}");
    Ok(())
}
