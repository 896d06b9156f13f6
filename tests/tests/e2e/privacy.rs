//! What must not leave: credentials undecided, marked and unsafe requests, and everything that is to be masked.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, PORT};
use shadow_tests::client::{Connection, request};
use shadow_tests::servers::Shop;
use shadow_tests::service::Version;

fn shops(bed: &Bed) -> Result<(Shop, Shop)> {
    let production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
    let candidate = Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Candidate, CANDIDATE_PORT)?;
    Ok((production, candidate))
}

#[test]
fn only_safe_unmarked_requests_without_credentials_are_replayed_by_default() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, candidate) = shops(&bed)?;
    let mut agent = Agent::start(&bed, &[])?;
    let requests: [(&str, &str, (&str, &str), &str); 8] = [
        ("GET", "/catalog?plain", ("Accept", "*/*"), "selected"),
        ("POST", "/orders", ("Accept", "*/*"), "method"),
        ("DELETE", "/orders", ("Accept", "*/*"), "method"),
        ("GET", "/catalog?authorization", ("Authorization", "Bearer abc"), "credentials"),
        ("GET", "/catalog?cookie", ("Cookie", "session=abc"), "credentials"),
        ("GET", "/catalog?marked", ("X-Shadow-Request", "1"), "marked"),
        ("GET", "/catalog?baggage", ("Baggage", "a=b,shadow=true"), "marked"),
        ("GET", "/catalog?other-baggage", ("Baggage", "a=b"), "selected"),
    ];
    bed.client.run(|| {
        let mut connection = Connection::open(bed.production_address())?;
        for (method, target, header, _) in requests {
            connection.exchange(&request(method, target, &[header], b"{}"))?;
        }
        Ok(())
    })?;
    let metrics = agent.settle(requests.len() as u64)?;
    for reason in ["method", "credentials", "marked"] {
        let expected = requests.iter().filter(|(.., fate)| *fate == reason).count() as u64;
        let skipped = metrics.count("shadow_exchanges_total", &[("outcome", "skipped"), ("reason", reason)]);
        ensure!(skipped == expected, "{skipped} skipped for {reason} instead of {expected}");
    }
    let received = candidate.requests()?;
    // Two at once may overtake each other.
    let targets: BTreeSet<&str> = received.iter().map(|request| request.target()).collect();
    let expected: BTreeSet<&str> =
        requests.iter().filter(|(.., fate)| *fate == "selected").map(|(_, target, ..)| *target).collect();
    ensure!(received.len() == expected.len() && targets == expected, "the candidate received {targets:?}");
    for request in &received {
        ensure!(request.header("x-shadow-request") == Some("1"), "an unmarked replay: {request:?}");
        ensure!(request.header("x-shadow-exchange").is_some(), "a replay without its exchange: {request:?}");
        let baggage = request.header("baggage").unwrap_or_default();
        ensure!(baggage.contains("shadow=true"), "a replay without baggage: {request:?}");
        ensure!(request.header("host") == Some("shop.example"), "Host was not preserved: {request:?}");
    }
    agent.finish().map(drop)
}

#[test]
fn nothing_secret_reaches_report_log_or_metrics() -> Result<()> {
    const SECRETS: [&str; 5] = ["s3cr3t-bearer", "s3cr3t-cookie", "s3cr3t-query", "@shop.example", "silver"];
    let bed = Bed::new()?;
    let (_production, candidate) = shops(&bed)?;
    let config = bed.folder().join("agent.yaml");
    let text = format!(
        "capture: {{ interfaces: [front], ports: [{PORT}] }}\n\
         mask: {{ keep: {{ fields: [\"$..email\", \"$.loyalty\"], query: [token] }} }}\n\
         replay:\n  credentials: forward\n  targets: [ {{ name: candidate, url: \"{}\" }} ]\n",
        bed.candidate_url()
    );
    std::fs::write(&config, text)?;
    let mut agent = Agent::with_arguments(&bed, &["--config", &config.to_string_lossy()])?;
    bed.client.run(|| {
        let mut connection = Connection::open(bed.production_address())?;
        let headers = [("Authorization", "Bearer s3cr3t-bearer"), ("Cookie", "session=s3cr3t-cookie")];
        for number in 1..=20 {
            let target = format!("/users/{number}?token=s3cr3t-query");
            connection.exchange(&request("GET", &target, &headers, b""))?;
            connection.exchange(&request("GET", "/cart", &headers, b""))?;
        }
        Ok(())
    })?;
    agent.settle(40)?;
    let metrics = agent.ask("GET", "/metrics", "")?.text();
    let status = agent.ask("GET", "/api/v1/status", "")?.text();
    let report = agent.finish()?;
    let users = report.endpoint("/users/{id}").unwrap_or_default();
    ensure!(users.mismatches.contains("body:$.loyalty"), "the difference was not found: {users:?}");
    let received = candidate.requests()?;
    ensure!(
        received.iter().any(|request| request.header("authorization") == Some("Bearer s3cr3t-bearer")),
        "credentials were to be forwarded"
    );
    let exits = [
        ("report", agent.report_text()),
        ("log", agent.process.log()),
        ("metrics", metrics),
        ("status", status),
    ];
    for (exit, text) in exits {
        for secret in SECRETS {
            ensure!(!text.contains(secret), "{secret} is in the {exit}:\n{text}");
        }
    }
    Ok(())
}

#[test]
fn credentials_can_be_stripped() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, candidate) = shops(&bed)?;
    let mut agent = Agent::start(&bed, &["--credentials", "strip"])?;
    bed.client.run(|| {
        let headers = [("Authorization", "Bearer abc"), ("Cookie", "session=abc"), ("Accept", "*/*")];
        Connection::open(bed.production_address())?.exchange(&request("GET", "/catalog", &headers, b""))
    })?;
    agent.settle(1)?;
    let received = candidate.requests()?;
    ensure!(received.len() == 1, "{} requests received", received.len());
    for request in received {
        ensure!(
            request.header("authorization").is_none() && request.header("cookie").is_none(),
            "{request:?}"
        );
        ensure!(request.header("accept") == Some("*/*"), "{request:?}");
    }
    agent.finish().map(drop)
}
