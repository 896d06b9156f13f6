//! Captures read offline: what is found in them is what others find, and what is no capture is refused.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shadow_tests::agent;
use shadow_tests::bed::{Bed, FRONT, PORT};
use shadow_tests::client::{Connection, chunked_request, request};
use shadow_tests::servers::{Nginx, Server};
use shadow_tests::service::filler;
use shadow_tests::tshark::{self, Capture, Told};
use shadow_tests::wire::Impairment;

/// What `inspect` printed.
pub(crate) struct Inspected {
    pub(crate) exchanges: Vec<Value>,
    pub(crate) summary: Value,
}

pub(crate) fn inspect(bed: &Bed, arguments: &[&str]) -> Result<Inspected> {
    let output = agent::command(bed, &[&["inspect"], arguments].concat())?.output()?;
    ensure!(output.status.success(), "inspect: {}", String::from_utf8_lossy(&output.stderr));
    understood(&output)
}

fn understood(output: &Output) -> Result<Inspected> {
    let text = String::from_utf8(output.stdout.clone())?;
    let mut lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let last = lines.pop().context("nothing was printed")?;
    let summary = last.get("summary").context("the last line is no summary")?.clone();
    Ok(Inspected { exchanges: lines, summary })
}

impl Inspected {
    /// The exchanges that are whole, as tshark would tell them.
    pub(crate) fn told(&self) -> Result<Vec<Told>> {
        let whole = self.exchanges.iter().filter(|line| line["outcome"] == "complete");
        whole.map(told).collect()
    }
}

fn told(line: &Value) -> Result<Told> {
    let text = |pointer: &str| {
        let value = line.pointer(pointer).and_then(Value::as_str);
        value.map(str::to_owned).with_context(|| format!("no {pointer} in {line}"))
    };
    Ok(Told {
        method: text("/request/method")?,
        target: text("/request/target")?,
        request_body: text("/request/body_sha256")?,
        status: line.pointer("/response/status").and_then(Value::as_u64).context("no status")?,
        response_body: text("/response/body_sha256")?,
    })
}

/// How often each exchange occurs.
fn tally(all: Vec<Told>) -> BTreeMap<Told, u32> {
    let mut tally = BTreeMap::new();
    for told in all {
        *tally.entry(told).or_default() += 1;
    }
    tally
}

pub(crate) fn same(ours: Vec<Told>, theirs: Vec<Told>) -> Result<()> {
    let (ours, theirs) = (tally(ours), tally(theirs));
    for (told, count) in &theirs {
        let found = ours.get(told).copied().unwrap_or_default();
        ensure!(found == *count, "tshark finds {count} of {told:?}, inspect {found}");
    }
    let more = ours.keys().find(|told| !theirs.contains_key(told));
    ensure!(more.is_none(), "inspect finds {more:?}, tshark does not");
    Ok(())
}

/// Files for every server.
pub(crate) fn files(bed: &Bed) -> Result<()> {
    fs::write(bed.folder().join("small"), filler(100))?;
    fs::write(bed.folder().join("large"), filler(1 << 20))?;
    fs::write(bed.folder().join("upload"), filler(300_000))?;
    // Servers that drop privileges read them, too.
    fs::set_permissions(bed.folder(), Permissions::from_mode(0o755))?;
    Ok(())
}

/// nginx with bodies of every framing: plain, compressed on the fly (and so chunked), none, and uploads.
pub(crate) fn nginx(bed: &Bed, port: u16) -> Result<Nginx> {
    let server = format!(
        "gzip on; gzip_min_length 10; gzip_types text/plain;
         server {{
             listen {port}; root {}; default_type text/plain; client_max_body_size 8m;
             location = /moved {{ return 302 /small; }}
             location = /nothing {{ return 204; }}
             location /echo {{ proxy_pass http://127.0.0.1:{port}/sink; }}
             location /sink {{ return 200 \"taken\"; }}
         }}",
        bed.folder().display()
    );
    Nginx::start(&bed.production, bed.folder(), "production", port, &server)
}

/// Answers in chunks, after hints, with trailers, and to uploads with what was sent.
const NODE: &str = "
const http = require('http');
http.createServer((request, response) => {
    if (request.url.startsWith('/small')) return response.end('small');
    if (request.url.startsWith('/hints') && response.writeEarlyHints) {
        response.writeEarlyHints({ link: '</style.css>; rel=preload' });
    }
    response.writeHead(200, { 'Content-Type': 'text/plain', 'Trailer': 'x-sum' });
    request.on('data', (chunk) => response.write(chunk));
    request.on('end', () => {
        for (let i = 0; i < 50; i++) response.write('line ' + i + '\\n');
        response.addTrailers({ 'x-sum': '50' });
        response.end();
    });
}).listen(Number(process.argv[2]), '::');
";

pub(crate) fn run(bed: &Bed, words: &[&str]) -> Result<()> {
    let (program, arguments) = words.split_first().context("no program")?;
    let status = bed.client.command(program).args(arguments).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{words:?} ended with {status}");
    Ok(())
}

/// What a server cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    Nothing,
    Uploads,
    /// Nor does it keep connections of HTTP/1.0.
    UploadsAndKeepAlive,
}

/// Asks by many clients.
pub(crate) fn ask(bed: &Bed, lacks: Lacks) -> Result<()> {
    let base = format!("http://{}", bed.production_address());
    let at = |path: &str| format!("{base}{path}");
    let (small, data) = (at("/small"), format!("@{}/upload", bed.folder().display()));
    let quiet = ["curl", "--silent", "--output", "/dev/null"];
    let calls: [&[&str]; 10] = [
        &[&small, "--output", "/dev/null", &at("/large")],
        &["--compressed", &at("/large")],
        &["--head", &small],
        &["--http1.0", &small],
        &["--location", &at("/moved")],
        &["--range", "10-19", &small],
        &[&at("/hints"), "--output", "/dev/null", &at("/missing?a=b&c=%20d")],
        &["--data-binary", &data, &at("/echo/upload")],
        &["--header", "Transfer-Encoding: chunked", "--data-binary", &data, &at("/echo/chunked")],
        &["--request", "DELETE", &at("/nothing"), "--output", "/dev/null", &at("/small?after")],
    ];
    for call in calls.into_iter().take(if lacks == Lacks::Nothing { 10 } else { 7 }) {
        run(bed, &[&quiet, call].concat())?;
    }
    if lacks != Lacks::UploadsAndKeepAlive {
        run(bed, &["ab", "-q", "-k", "-n", "300", "-c", "4", &small])?;
    }
    run(bed, &["ab", "-q", "-n", "50", "-c", "2", &small])?;
    // It has no number of requests, but it waits between them when told to.
    let slowly = bed.folder().join("slowly.lua");
    fs::write(&slowly, "function delay() return 10 end\n")?;
    let script = slowly.display().to_string();
    run(bed, &["wrk", "-t", "1", "-c", "2", "-d", "1s", "-s", &script, &at("/small?wrk")])?;
    run(bed, &["h2load", "--h1", "-n", "500", "-c", "2", "-m", "1", &small])
}

/// Requests that do not wait for each other, and a body in chunks.
pub(crate) fn pipeline(bed: &Bed) -> Result<()> {
    bed.client.run(|| {
        let mut connection = Connection::open(bed.production_address())?;
        let pipelined: Vec<u8> =
            (0..20).flat_map(|n| request("GET", &format!("/small?p={n}"), &[], b"")).collect();
        connection.send(&pipelined)?;
        for _ in 0..20 {
            ensure!(connection.receive(false)?.status == 200);
        }
        let chunked = chunked_request("POST", "/echo/c", &[], b"one two three", &[3, 5]);
        ensure!(connection.exchange(&chunked)?.status == 200);
        Ok(())
    })
}

/// What tshark finds in a capture, which `inspect` must find as well, all of it whole and nothing else.
fn agree(bed: &Bed, file: &Path) -> Result<Vec<Told>> {
    let inspected = inspect(bed, &[&file.display().to_string(), "--port", &PORT.to_string()])?;
    let (theirs, unasked) = tshark::exchanges(file, PORT)?;
    ensure!(theirs.len() >= 500, "tshark finds {} exchanges only", theirs.len());
    same(inspected.told()?, theirs.clone())?;
    let summary = &inspected.summary;
    let count = |pointer| summary.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let (seen, complete, unpaired) = (count("/exchanges"), count("/complete"), count("/lost/unpaired"));
    // wrk ends when its time is over, and perhaps does not wait for an answer on each of its two connections.
    let cut = count("/lost/truncated") + count("/lost/reset");
    ensure!(summary["imbalance"] == 0 && seen == complete + unpaired + cut && cut <= 2, "{summary}");
    ensure!(unpaired == unasked, "{summary}");
    ensure!(inspected.exchanges.len() as u64 == seen, "{summary}");
    Ok(theirs)
}

#[test]
fn tshark_finds_the_same_exchanges_of_nginx_in_files_of_every_kind() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = nginx(&bed, PORT)?;
    let capture = Capture::start(&bed.production, FRONT, &bed.folder().join("capture.pcap"))?;
    ask(&bed, Lacks::Nothing)?;
    pipeline(&bed)?;
    let file = capture.finish()?;
    let theirs = agree(&bed, &file)?;

    // The same, rewritten by others: as pcapng, compressed, and from a pipe.
    let newer = bed.folder().join("capture.pcapng");
    let (old, new, port) = (file.display().to_string(), newer.display().to_string(), PORT.to_string());
    run(&bed, &["tshark", "-r", &old, "-F", "pcapng", "-w", &new])?;
    run(&bed, &["gzip", "--fast", "--keep", &new])?;
    for path in [new.clone(), format!("{new}.gz")] {
        same(inspect(&bed, &[&path, "--port", &port])?.told()?, theirs.clone()).context(path)?;
    }
    let mut piped = agent::command(&bed, &["inspect", "-"])?;
    let output = piped.stdin(File::open(&newer)?).output()?;
    same(understood(&output)?.told()?, theirs)
}

/// Captures what one server says to all clients, and has tshark judge.
fn second_opinion(bed: &Bed, lacks: Lacks) -> Result<()> {
    let capture = Capture::start(&bed.production, FRONT, &bed.folder().join("capture.pcap"))?;
    ask(bed, lacks)?;
    if lacks == Lacks::Nothing {
        pipeline(bed)?;
    }
    agree(bed, &capture.finish()?).map(drop)
}

#[test]
fn tshark_finds_the_same_exchanges_behind_a_bad_network() -> Result<()> {
    let (bed, wire) = Bed::with_wire(Impairment { lose: 10, double: 20, hold: 50 })?;
    files(&bed)?;
    let _production = nginx(&bed, PORT)?;
    second_opinion(&bed, Lacks::Nothing)?;
    let told = wire.finish()?;
    ensure!(
        ["lost", "doubled", "held"].iter().all(|&fate| told[fate] > 10),
        "the wire was a good one: {told:?}"
    );
    Ok(())
}

#[test]
fn tshark_finds_the_same_exchanges_of_apache() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = Server::apache(&bed.production, bed.folder(), PORT)?;
    second_opinion(&bed, Lacks::Uploads)
}

#[test]
fn tshark_finds_the_same_exchanges_of_haproxy() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _behind = nginx(&bed, PORT + 10)?;
    let _production = Server::haproxy(&bed.production, bed.folder(), PORT, PORT + 10)?;
    second_opinion(&bed, Lacks::Nothing)
}

#[test]
fn tshark_finds_the_same_exchanges_of_python() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = Server::python(&bed.production, bed.folder(), PORT)?;
    second_opinion(&bed, Lacks::UploadsAndKeepAlive)
}

#[test]
fn tshark_finds_the_same_exchanges_of_node() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = Server::node(&bed.production, bed.folder(), PORT, NODE)?;
    second_opinion(&bed, Lacks::Nothing)
}

#[test]
fn what_is_printed_is_masked() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = nginx(&bed, PORT)?;
    let capture = Capture::start(&bed.production, FRONT, &bed.folder().join("capture.pcap"))?;
    let secrets = [("Authorization", "Bearer sesame-1234567"), ("Cookie", "sid=sesame")];
    let request = request("GET", "/small?token=sesame&mail=ann%40example.com&n=1", &secrets, b"");
    bed.client.run(|| Connection::open(bed.production_address())?.exchange(&request).map(drop))?;
    let file = capture.finish()?;
    let inspected = inspect(&bed, &[&file.display().to_string()])?;
    let [line] = &inspected.exchanges[..] else { anyhow::bail!("{} exchanges", inspected.exchanges.len()) };
    let text = line.to_string();
    ensure!(!text.contains("sesame") && !text.contains("ann"), "{text}");
    ensure!(text.contains("n=1") && text.contains("[masked: "), "{text}");
    for key in ["started", "request_done", "response_started", "response_done"] {
        let time = line[key].as_str().with_context(|| format!("no {key}"))?;
        ensure!(time.len() == "2026-01-01T00:00:00.000000000Z".len() && time.ends_with('Z'), "{time}");
    }
    ensure!(line["server"] == bed.production_address().to_string(), "{text}");
    Ok(())
}

#[test]
fn what_cannot_be_read_is_named() -> Result<()> {
    let bed = Bed::new()?;
    let folder = bed.folder();
    fs::write(folder.join("text"), "GET / HTTP/1.1\r\n")?;
    fs::write(folder.join("empty"), "")?;
    let said = |file: &Path| -> Result<(Option<i32>, String)> {
        let output = agent::command(&bed, &["inspect", &file.display().to_string()])?.output()?;
        Ok((output.status.code(), String::from_utf8(output.stderr)?))
    };
    for (file, problem) in [
        ("missing", "cannot be opened (No such file"),
        ("text", "it begins with \"GET / HTTP/1.1\\r\\n\""),
        ("empty", "it begins with nothing"),
        (".", "cannot be opened (is a directory)"),
    ] {
        let path = folder.join(file);
        let (code, text) = said(&path)?;
        ensure!(code == Some(2), "{file}: {code:?} {text}");
        ensure!(text.contains(problem) && text.contains(&folder.display().to_string()), "{file}: {text}");
        ensure!(text.lines().count() == 1, "{file}: {text}");
    }
    Ok(())
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = nginx(&bed, PORT)?;
    let capture = Capture::start(&bed.production, FRONT, &bed.folder().join("capture.pcap"))?;
    run(
        &bed,
        &["ab", "-q", "-k", "-n", "2000", "-c", "4", &format!("http://{}/small", bed.production_address())],
    )?;
    let file = capture.finish()?;
    let mut child =
        agent::command(&bed, &["inspect", &file.display().to_string()])?.stdout(Stdio::piped()).spawn()?;
    drop(child.stdout.take());
    let status = child.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
