//! What the operator hides from the shadow never reaches it, and what people may not see is in none of the agent's outputs.

use std::collections::BTreeSet;
use std::io::Read;

use anyhow::{Context, Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{BASELINE_PORT, Bed, CANDIDATE_PORT, FRONT, PORT};
use shadow_tests::client::{Connection, request};
use shadow_tests::servers::{Received, Shop};
use shadow_tests::service::{Version, digest};

/// What is sent to production, and must be nowhere else.
const SECRETS: [&str; 8] = [
    "s3cr3t-user",
    "s3cr3t-session",
    "s3cr3t-query",
    "s3cr3t-pin",
    "s3cr3t-mail",
    "EMP-123456",
    "bob.smith@",
    "4111111111111111",
];

const MASK: &str = r#"
mask:
  keep:
    action: hash
    fields: ["$..email", "$.loyalty"]
    query: [q]
    patterns: [{ name: staff, regex: "EMP-[0-9]{6}" }]
  send:
    headers: [{ name: x-user, action: hash }]
    cookies: [{ name: sid, action: hash }]
    query: [q]
    form: [pin]
    fields: ["$..email"]
    patterns:
      - { name: staff, regex: "EMP-[0-9]{6}" }
      - { name: never, regex: "NEVER-[0-9]+", action: drop-exchange }
    detectors: { email: true, card: true }
"#;

fn gzip(text: &str) -> Result<Vec<u8>> {
    let mut encoded = Vec::new();
    flate2::read::GzEncoder::new(text.as_bytes(), flate2::Compression::fast()).read_to_end(&mut encoded)?;
    Ok(encoded)
}

#[test]
fn what_is_masked_for_the_shadow_reaches_neither_it_nor_people() -> Result<()> {
    let bed = Bed::new()?;
    let shop = |namespace, name, version, port| Shop::start(namespace, bed.folder(), name, version, port);
    let _production = shop(&bed.production, "production", Version::Production, PORT)?;
    let candidate = shop(&bed.shadow, "candidate", Version::Candidate, CANDIDATE_PORT)?;
    let baseline = shop(&bed.shadow, "baseline", Version::Production, BASELINE_PORT)?;
    let config = bed.folder().join("agent.yaml");
    let text = format!(
        "capture: {{ interfaces: [{FRONT}], ports: [{PORT}] }}\nselect: {{ methods: [GET, POST] }}\n\
         replay:\n  credentials: forward\n  targets: [{{ name: candidate, url: \"{}\", isolated: true }}]\n  \
         baseline: {{ name: baseline, url: \"{}\", isolated: true }}\n{MASK}",
        bed.candidate_url(),
        bed.baseline_url(),
    );
    std::fs::write(&config, text)?;
    let mut agent = Agent::with_arguments(&bed, &["--config", &config.to_string_lossy()])?;

    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    let document =
        r#"{"email":"s3cr3t-mail","note":"EMP-123456 to bob.smith@example.com","card":4111111111111111}"#;
    let masked = r#"{"card":0,"email":"masked","note":"masked to masked"}"#;
    let bodies: [(&str, &str, Vec<u8>, Vec<u8>); 3] = [
        (json, "identity", document.into(), masked.into()),
        (json, "gzip", gzip(document)?, gzip(masked)?),
        (form, "identity", b"pin=s3cr3t-pin&a=b+c".to_vec(), b"pin=masked&a=b+c".to_vec()),
    ];
    let common = [("X-User", "s3cr3t-user"), ("Cookie", "theme=dark; sid=s3cr3t-session; lang=en")];
    bed.client.run(|| {
        let mut connection = Connection::open(bed.production_address())?;
        for number in 1..=10 {
            let target = format!("/users/{number}?q=s3cr3t-query&by=EMP-123456&mail=bob.smith%40example.com");
            connection.exchange(&request("GET", &target, &common, b""))?;
        }
        for (kind, coding, body, _) in &bodies {
            let headers = [&common[..], &[("Content-Type", *kind), ("Content-Encoding", *coding)]].concat();
            connection.exchange(&request("POST", "/echo", &headers, body))?;
        }
        connection.exchange(&request("GET", "/search?q=1&x=NEVER-7", &[], b""))?;
        connection.exchange(&request(
            "POST",
            "/echo",
            &[("Content-Type", "application/x-other")],
            b"\x00EMP-123456",
        ))
    })?;
    let scrape = agent.settle(15)?;
    for (reason, expected) in [("drop_exchange", 1), ("unmaskable", 1), ("mask_failed", 0)] {
        let skipped = scrape.count("shadow_exchanges_total", &[("outcome", "skipped"), ("reason", reason)]);
        ensure!(skipped == expected, "{skipped} skipped for {reason} instead of {expected}");
    }
    ensure!(scrape.sum("shadow_mask_failures_total", &[]) == Some(0.0), "the self-check failed");
    for (rule, expected) in [("header:x-user", 13), ("cookie:sid", 13), ("query:q", 10), ("form:pin", 1)] {
        let count = scrape.count("shadow_masked_total", &[("exit", "send"), ("rule", rule)]);
        ensure!(count == expected, "{rule} masked {count} instead of {expected}");
    }
    let metrics = agent.ask("GET", "/metrics", "")?.text();
    let status = agent.ask("GET", "/api/v1/status", "")?.text();
    let report = agent.finish()?;
    let users = report.endpoint("/users/{id}").unwrap_or_default();
    ensure!(users.mismatches.contains("body:$.loyalty"), "the difference was not found: {users:?}");

    let mut hashes = BTreeSet::new();
    for shop in [&candidate, &baseline] {
        let received = shop.requests()?;
        ensure!(received.len() == 13, "{} requests instead of 13", received.len());
        for request in &received {
            let shown = format!("{request:?}");
            for secret in SECRETS {
                ensure!(!shown.contains(secret), "{secret} was sent: {shown}");
            }
            let hash = request.header("x-user").context("no user")?.to_owned();
            ensure!(hash.starts_with("masked-"), "{hash}");
            hashes.insert(hash);
            let cookie = request.header("cookie").context("no cookies")?;
            ensure!(
                cookie.starts_with("theme=dark; sid=masked-") && cookie.ends_with("; lang=en"),
                "{cookie}"
            );
        }
        let target = |request: &Received| request.target().to_owned();
        let queries: BTreeSet<String> = received
            .iter()
            .map(target)
            .filter_map(|target| {
                target.strip_prefix("/users/")?.split_once('?').map(|(_, query)| query.to_owned())
            })
            .collect();
        ensure!(queries == BTreeSet::from(["q=masked&by=masked&mail=masked".to_owned()]), "{queries:?}");
        let echoed: BTreeSet<&str> = received
            .iter()
            .filter(|request| request.target() == "/echo")
            .map(Received::body_sha256)
            .collect();
        let expected: Vec<String> = bodies.iter().map(|(.., masked)| digest(masked)).collect();
        ensure!(
            echoed == expected.iter().map(String::as_str).collect(),
            "the bodies are other ones: {echoed:?}"
        );
    }
    ensure!(hashes.len() == 1, "one value has the hashes {hashes:?}");

    let exits = [
        ("report", agent.report_text()),
        ("log", agent.process.log()),
        ("metrics", metrics),
        ("status", status),
    ];
    for (exit, text) in exits {
        for secret in SECRETS.iter().chain(&["@shop.example", "silver"]) {
            ensure!(!text.contains(secret), "{secret} is in the {exit}:\n{text}");
        }
    }
    let summary: serde_json::Value = serde_json::from_str(&agent.report_text())?;
    let counted = &summary["masked"]["send"]["cookie:sid"];
    ensure!(counted.as_u64() == Some(13), "the report counts {counted}");
    ensure!(
        agent.report_text().contains("?q=[masked: query "),
        "nothing was hashed:\n{}",
        agent.report_text()
    );
    Ok(())
}
