//! HTTP/2 without TLS, and gRPC over it: what is found in captures, and what is replayed and compared live.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::netns::Namespace;
use shadow_tests::report::Report;
use shadow_tests::servers::{Nginx, Server};
use shadow_tests::tshark::{self, Capture};
use shadow_tests::wire::Impairment;

use crate::inspect::{files, inspect, run, same};

/// A gRPC service (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) and an echo, by Node's own HTTP/2. The
/// candidate, which has a second argument, takes another price and another error for some calls. Each writes what it
/// received to a log.
const SERVICE: &str = "
const http2 = require('http2');
const fs = require('fs');
const [port, log, candidate] = process.argv.slice(2);
const message = (price) => {
    const body = Buffer.from([8, price, 18, 3, 69, 85, 82]);
    return Buffer.concat([Buffer.from([0, 0, 0, 0, body.length]), body]);
};
http2.createServer().on('stream', (stream, headers) => {
    const parts = [];
    let trailers = {};
    stream.on('data', (part) => parts.push(part));
    stream.on('trailers', (fields) => { trailers = fields; });
    stream.on('end', () => {
        const [body, path] = [Buffer.concat(parts), headers[':path']];
        const line = { path, marked: headers['x-shadow-request'], length: body.length, te: headers['te'], sum: trailers['x-sum'] };
        fs.appendFileSync(log, JSON.stringify(line) + '\\n');
        const answer = (type, bytes, trailers) => {
            stream.respond({ ':status': 200, 'content-type': type }, { waitForTrailers: true });
            stream.on('wantTrailers', () => stream.sendTrailers(trailers));
            stream.end(bytes);
        };
        if (path === '/shop.Prices/Get') {
            answer('application/grpc', message(candidate && body[6] % 2 ? 101 : 100), { 'grpc-status': '0' });
        } else if (path === '/shop.Prices/Fail') {
            const status = { 'grpc-status': candidate ? '13' : '5', 'grpc-message': 'none' };
            stream.respond({ ':status': 200, 'content-type': 'application/grpc', ...status }, { endStream: true });
        } else {
            answer('application/octet-stream', body, { 'x-sum': String(body.length) });
        }
    });
}).listen(Number(port), '::');
";

/// Asks so many times, a dozen calls at once on one connection, with trailers; some are given up halfway.
const CLIENT: &str = "
const http2 = require('http2');
const [url, count] = process.argv.slice(2);
const session = http2.connect(url);
const call = (number) => new Promise((resolve, reject) => {
    const path = ['/shop.Prices/Get', '/shop.Prices/Fail', '/echo'][number % 3];
    const headers = { ':method': 'POST', ':path': path, 'content-type': path === '/echo' ? 'text/plain' : 'application/grpc', te: 'trailers' };
    const stream = session.request(headers, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '1' }));
    stream.on('error', reject);
    stream.on('data', () => {});
    stream.on('end', resolve);
    const id = Math.floor(number / 3) % 128;
    stream.end(path === '/echo' ? Buffer.alloc(40000, 'x') : Buffer.from([0, 0, 0, 0, 2, 8, id]));
});
(async () => {
    for (let from = 0; from < Number(count); from += 12) {
        const some = [];
        for (let number = from; number < Math.min(from + 12, Number(count)); number++) some.push(call(number));
        await Promise.all(some);
    }
    session.close();
})().catch((error) => { console.error(error); process.exit(1); });
";

/// The service, as a program of that name; `more` is its second argument.
fn service(namespace: &Namespace, bed: &Bed, name: &str, port: u16, more: &[&str]) -> Result<Server> {
    let (source, log) = (bed.folder().join(format!("{name}.js")), log_of(bed, name));
    fs::write(&source, SERVICE)?;
    fs::write(&log, "")?;
    let [source, log] = [source, log].map(|path| path.display().to_string());
    let listen = port.to_string();
    let words = [&["node", &source, &listen, &log], more].concat();
    Server::start(namespace, bed.folder(), name, port, &words)
}

fn log_of(bed: &Bed, name: &str) -> std::path::PathBuf {
    bed.folder().join(format!("{name}.jsonl"))
}

/// What a service received.
fn received(bed: &Bed, name: &str) -> Result<Vec<Value>> {
    let text = fs::read_to_string(log_of(bed, name))?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn call(bed: &Bed, count: u32) -> Result<()> {
    let client = bed.folder().join("client.js");
    fs::write(&client, CLIENT)?;
    let url = format!("http://{}", bed.production_address());
    run(bed, &["node", &client.display().to_string(), &url, &count.to_string()])
}

/// nginx that speaks HTTP/2 only.
fn nginx(bed: &Bed) -> Result<Nginx> {
    let behind = PORT + 10;
    let server = format!(
        "server {{ listen {PORT} http2; root {}; default_type text/plain; client_max_body_size 8m;
             location /echo {{ proxy_pass http://127.0.0.1:{behind}/; }} }}
         server {{ listen {behind}; client_max_body_size 8m; location / {{ return 200 taken; }} }}",
        bed.folder().display()
    );
    Nginx::start(&bed.production, bed.folder(), "production", PORT, &server)
}

/// Asks by clients that know beforehand what the server speaks.
fn ask(bed: &Bed) -> Result<()> {
    let at = |path: &str| format!("http://{}{path}", bed.production_address());
    // Of two requests on one connection, some versions of curl give up the second.
    for (path, more) in
        [("/small", "--get"), ("/large", "--get"), ("/small", "--head"), ("/missing?a=b", "--get")]
    {
        run(bed, &["curl", "--silent", "--http2-prior-knowledge", "--output", "/dev/null", more, &at(path)])?;
    }
    run(bed, &["nghttp", "--null-out", &at("/small"), &at("/large"), &at("/small?again")])?;
    let small = at("/small");
    run(bed, &["h2load", "-n", "400", "-c", "2", "-m", "16", &small])
}

/// What is found in a capture, which tshark must find as well, all of it whole and nothing else.
fn agree(bed: &Bed, file: &Path, least: usize, by_upgrade: bool) -> Result<()> {
    let inspected = inspect(bed, &[&file.display().to_string(), "--port", &PORT.to_string()])?;
    let theirs = tshark::http2_exchanges(file, PORT, by_upgrade)?;
    ensure!(theirs.len() >= least, "tshark finds {} exchanges only", theirs.len());
    let summary = &inspected.summary;
    let count = |pointer| summary.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    // Apache resets a request now and then when it upgrades.
    let given_up = if by_upgrade { count("/lost/reset") } else { 0 };
    let [complete, seen, imbalance] = ["/complete", "/exchanges", "/imbalance"].map(count);
    ensure!(complete == theirs.len() as u64 && seen == complete + given_up && imbalance == 0, "{summary}");
    same(inspected.told()?, theirs)
}

#[test]
fn tshark_finds_the_same_exchanges_of_nginx_over_http2() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = nginx(&bed)?;
    let capture = Capture::start(&bed.production, FRONT, &bed.folder().join("capture.pcap"))?;
    ask(&bed)?;
    let (url, upload) = (format!("http://{}/echo", bed.production_address()), bed.folder().join("upload"));
    run(&bed, &["h2load", "-n", "20", "-c", "2", "-m", "4", "-d", &upload.display().to_string(), &url])?;
    agree(&bed, &capture.finish()?, 427, false)
}

#[test]
fn tshark_finds_the_same_exchanges_of_node_over_http2_behind_a_bad_network() -> Result<()> {
    let (bed, wire) = Bed::with_wire(Impairment { lose: 10, double: 20, hold: 50 })?;
    let _production = service(&bed.production, &bed, "production", PORT, &[])?;
    let capture = Capture::start(&bed.production, FRONT, &bed.folder().join("capture.pcap"))?;
    call(&bed, 240)?;
    agree(&bed, &capture.finish()?, 240, false)?;
    let told = wire.finish()?;
    ensure!(
        ["lost", "doubled", "held"].iter().all(|&fate| told[fate] > 0),
        "the wire was a good one: {told:?}"
    );
    Ok(())
}

#[test]
fn tshark_finds_the_same_exchanges_of_apache_that_is_asked_to_upgrade() -> Result<()> {
    let bed = Bed::new()?;
    files(&bed)?;
    let _production = Server::apache(&bed.production, bed.folder(), PORT)?;
    let capture = Capture::start(&bed.production, FRONT, &bed.folder().join("capture.pcap"))?;
    let at = |path: &str| format!("http://{}{path}", bed.production_address());
    // tshark takes a body with a content coding apart by itself, and Apache ends the connection over large ones.
    let plain = "accept-encoding: identity";
    for path in ["/small", "/missing", "/small?c"] {
        run(&bed, &["nghttp", "--upgrade", "--null-out", "-H", plain, &at(path), &at("/small?also")])?;
    }
    agree(&bed, &capture.finish()?, 4, true)
}

/// Writes a field of a protocol buffer: bytes with their length before them.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// What `protoc --include_imports --descriptor_set_out` writes of
/// `package shop; message Price { int32 price = 1; string currency = 2; } message Id { int32 id = 1; }
/// service Prices { rpc Get(Id) returns (Price); rpc Fail(Id) returns (Price); }`.
fn descriptors() -> Vec<u8> {
    let member = |name: &str, number: u8, kind: u8| {
        field(2, &[field(1, name.as_bytes()), vec![3 << 3, number, 4 << 3, 1, 5 << 3, kind]].concat())
    };
    let message = |name: &str, members: Vec<u8>| field(4, &[field(1, name.as_bytes()), members].concat());
    let method = |name: &str| {
        field(2, &[field(1, name.as_bytes()), field(2, b".shop.Id"), field(3, b".shop.Price")].concat())
    };
    let file = [
        field(1, b"shop.proto"),
        field(2, b"shop"),
        message("Price", [member("price", 1, 5), member("currency", 2, 9)].concat()),
        message("Id", member("id", 1, 5)),
        field(6, &[field(1, b"Prices"), method("Get"), method("Fail")].concat()),
        field(12, b"proto3"),
    ];
    // It is longer than a length of one byte can say.
    let file = file.concat();
    let length = [file.len() as u8 & 0x7F | 0x80, (file.len() >> 7) as u8];
    [&[1 << 3 | 2][..], &length, &file].concat()
}

#[test]
fn grpc_is_replayed_by_http2_with_its_trailers_and_compared_field_by_field() -> Result<()> {
    const CALLS: u32 = 600;
    let bed = Bed::new()?;
    let _production = service(&bed.production, &bed, "production", PORT, &[])?;
    let _candidate = service(&bed.shadow, &bed, "candidate", CANDIDATE_PORT, &["candidate"])?;
    let set = bed.folder().join("shop.pb");
    fs::write(&set, descriptors())?;
    let config = bed.folder().join("agent.yaml");
    let text = format!(
        "capture: {{ interfaces: [{FRONT}], ports: [{PORT}] }}\n\
         select: {{ methods: [POST] }}\n\
         compare: {{ descriptors: {} }}\n\
         replay: {{ targets: [ {{ name: candidate, url: \"{}\", isolated: true }} ] }}\n",
        set.display(),
        bed.candidate_url()
    );
    fs::write(&config, text)?;
    let mut agent = Agent::with_arguments(&bed, &["--config", &config.to_string_lossy()])?;
    call(&bed, CALLS)?;
    let metrics = agent.settle(u64::from(CALLS))?;
    ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0), "the books are off");
    let report = agent.finish()?;
    check(&report, CALLS).map_err(|error| error.context(agent.process.log()))?;

    let theirs = received(&bed, "candidate")?;
    let ours = received(&bed, "production")?;
    ensure!(
        theirs.len() == CALLS as usize && ours.len() == theirs.len(),
        "{} of {}",
        theirs.len(),
        ours.len()
    );
    for request in &theirs {
        let expected = if request["path"] == "/echo" { 40_000 } else { 7 };
        ensure!(request["length"] == expected, "{request}");
        ensure!(
            request["marked"] == "1" && request["te"] == "trailers" && request["sum"] == "1",
            "{request}"
        );
    }
    Ok(())
}

fn check(report: &Report, calls: u32) -> Result<()> {
    let each = u64::from(calls / 3);
    ensure!(report.ledger("/selected") == u64::from(calls), "{:?}", report.endpoints());
    ensure!(report.outcome() == Some("fail"), "{:?}", report.outcome());
    for (path, requests, places) in [
        ("/shop.Prices/Get", each, &["body:$[0].price"][..]),
        ("/shop.Prices/Fail", each, &["grpc-status"]),
        ("/echo", each, &[]),
    ] {
        let Some(endpoint) = report.endpoint(path) else {
            anyhow::bail!("no {path}: {:?}", report.endpoints())
        };
        let found: Vec<&str> = endpoint.mismatches.iter().map(String::as_str).collect();
        ensure!(endpoint.requests == requests && found == places, "{endpoint:?}");
    }
    Ok(())
}
