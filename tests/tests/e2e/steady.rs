//! Steady load on kept connections: nothing is lost, nothing is sent twice, and what was there before is joined.

use std::collections::HashMap;
use std::io::Write;
use std::process::Stdio;

use anyhow::{Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, PORT};
use shadow_tests::client::Connection;
use shadow_tests::load::{self, Plan};
use shadow_tests::servers::{Nginx, Shop};
use shadow_tests::service::{Version, filler};

/// nginx with one static file as production, and another as candidate.
fn static_servers(bed: &Bed) -> Result<(Nginx, Nginx)> {
    std::fs::write(bed.folder().join("file"), filler(1024))?;
    let server = |port: u16| {
        format!(
            "server {{ listen {port}; listen [::]:{port}; root {}; default_type application/octet-stream; }}",
            bed.folder().display()
        )
    };
    let production = Nginx::start(&bed.production, bed.folder(), "production", PORT, &server(PORT))?;
    let candidate =
        Nginx::start(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT, &server(CANDIDATE_PORT))?;
    Ok((production, candidate))
}

#[test]
fn nothing_is_lost_at_2000_requests_a_second() -> Result<()> {
    const COUNT: u64 = 20_000;
    let bed = Bed::new()?;
    let (production, candidate) = static_servers(&bed)?;
    let mut agent = Agent::start(&bed, &[])?;
    let request = |number: u64, bytes: &mut Vec<u8>| {
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET /file?n={number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let plan = Plan {
        address: bed.production_address(),
        rate: 2000,
        count: COUNT,
        connections: 32,
        request: &request,
    };
    let outcome = bed.client.run(|| load::run(&plan))?;
    ensure!(outcome.ok == COUNT, "production answered {} of {COUNT}", outcome.ok);

    let metrics = agent.settle(COUNT)?;
    ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0), "the ledger does not balance");
    let served = production.access_log()?;
    let selected = metrics.count("shadow_exchanges_total", &[("outcome", "selected")]);
    ensure!(
        served.len() as u64 == selected,
        "nginx logged {} requests, the agent selected {selected}; not selected: {:?}; the agent said:\n{}",
        served.len(),
        metrics
            .series()
            .filter(|series| series.contains("lost") || series.contains("skipped"))
            .collect::<Vec<_>>(),
        agent.process.log()
    );
    let mut times: HashMap<String, u32> = HashMap::new();
    for line in candidate.access_log()? {
        *times.entry(line.split(' ').nth(1).unwrap_or_default().to_owned()).or_default() += 1;
    }
    let repeated = times.values().filter(|&&count| count != 1).count();
    ensure!(repeated == 0, "{repeated} requests reached the shadow more than once");
    ensure!(times.len() as u64 == COUNT, "{} requests of {COUNT} reached the shadow", times.len());
    let matches = metrics.count("shadow_comparisons_total", &[("result", "match")]);
    ensure!(matches == COUNT, "{matches} of {COUNT} match");
    agent.finish().map(drop)
}

#[test]
fn connections_opened_before_the_agent_are_joined() -> Result<()> {
    let bed = Bed::new()?;
    let (_production, _candidate) = static_servers(&bed)?;
    let mut connections = bed.client.run(|| {
        [bed.production_address(), bed.production_address_v6()]
            .into_iter()
            .map(Connection::open)
            .collect::<Result<Vec<_>>>()
    })?;
    for connection in &mut connections {
        ensure!(connection.get("/file?before")?.status == 200);
    }
    let mut agent = Agent::start(&bed, &[])?;
    for connection in &mut connections {
        for number in 0..5 {
            ensure!(connection.get(&format!("/file?after={number}"))?.status == 200);
        }
    }
    let metrics = agent.settle(10)?;
    let matches = metrics.count("shadow_comparisons_total", &[("result", "match")]);
    ensure!(matches == 10, "{matches} of 10 match; the agent said:\n{}", agent.process.log());
    ensure!(metrics.count("shadow_exchanges_total", &[("outcome", "lost")]) == 0);
    agent.finish().map(drop)
}

#[test]
fn curl_and_ab_and_wrk_are_followed_as_well_as_our_own_client() -> Result<()> {
    let bed = Bed::new()?;
    let (production, _candidate) = static_servers(&bed)?;
    let mut agent = Agent::start(&bed, &[])?;
    let v4 = format!("http://{}/file", bed.production_address());
    let v6 = format!("http://{}/file", bed.production_address_v6());
    let clients: [&[&str]; 5] = [
        &[
            "curl",
            "--silent",
            "--fail",
            "--output",
            "/dev/null",
            &v4,
            "--next",
            "--silent",
            "--output",
            "/dev/null",
            &v4,
        ],
        &["curl", "--silent", "--fail", "--globoff", "--output", "/dev/null", &v6],
        &["curl", "--silent", "--fail", "--head", "--http1.0", &v4],
        &["ab", "-q", "-k", "-n", "500", "-c", "8", &v4],
        &["wrk", "--threads", "1", "--connections", "4", "--duration", "1s", &v4],
    ];
    for client in clients {
        let (program, arguments) = client.split_first().unwrap_or((&"true", &[]));
        let status = bed.client.command(program).args(arguments).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{client:?} ended with {status}");
    }
    let served = production.access_log()?.len() as u64;
    let metrics = agent.settle(served)?;
    // wrk leaves in the middle of a few responses, which are then truncated or reset.
    let lost = metrics.count("shadow_exchanges_total", &[("outcome", "lost")]);
    ensure!(lost <= 4, "{lost} of {served} exchanges were lost");
    let mismatches = metrics.count("shadow_comparisons_total", &[("result", "mismatch")]);
    ensure!(mismatches == 0, "{mismatches} of {served} differ");
    ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0), "the ledger does not balance");
    agent.finish().map(drop)
}

#[test]
fn the_agent_does_not_capture_what_it_sends() -> Result<()> {
    let bed = Bed::new()?;
    let _production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
    let candidate = Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Production, CANDIDATE_PORT)?;
    let config = bed.folder().join("agent.yaml");
    let text = format!(
        "capture: {{ interfaces: [front, back], ports: [{PORT}, {CANDIDATE_PORT}], side: both }}\n\
         replay: {{ targets: [ {{ name: candidate, url: \"{}\" }} ] }}\n",
        bed.candidate_url()
    );
    std::fs::write(&config, text)?;
    let mut agent = Agent::with_arguments(&bed, &["--config", &config.to_string_lossy()])?;
    bed.client.run(|| {
        let mut connection = Connection::open(bed.production_address())?;
        for number in 0..50 {
            connection.get(&format!("/products/{number}"))?;
        }
        Ok(())
    })?;
    let metrics = agent.settle(50)?;
    let all = metrics.count("shadow_exchanges_total", &[]);
    ensure!(all == 50, "{all} exchanges seen of 50");
    ensure!(candidate.requests()?.len() == 50, "the candidate received {}", candidate.requests()?.len());
    agent.finish().map(drop)
}
