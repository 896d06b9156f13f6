//! Packets between clients and production are lost, doubled and overtaken; exchanges are whole and equal all the same.

use std::io::Write as _;

use anyhow::{Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, PORT};
use shadow_tests::load::{self, Plan};
use shadow_tests::servers::Nginx;
use shadow_tests::service::filler;
use shadow_tests::wire::Impairment;

/// Far worse than a network that anybody would bear.
const BAD: Impairment = Impairment { lose: 20, double: 20, hold: 50 };

#[test]
fn a_bad_network_costs_no_exchange() -> Result<()> {
    const COUNT: u64 = 2000;
    let (bed, wire) = Bed::with_wire(BAD)?;
    // Of one packet, of several, and of many.
    for (name, size) in [("small", 100), ("middle", 5000), ("large", 150_000)] {
        std::fs::write(bed.folder().join(name), filler(size))?;
    }
    let server = |port| {
        let root = bed.folder().display();
        format!("server {{ listen {port}; root {root}; default_type application/octet-stream; }}")
    };
    let production = Nginx::start(&bed.production, bed.folder(), "production", PORT, &server(PORT))?;
    let candidate = server(CANDIDATE_PORT);
    let candidate = Nginx::start(&bed.shadow, bed.folder(), "candidate", CANDIDATE_PORT, &candidate)?;
    let mut agent = Agent::start(&bed, &[])?;
    let request = |number: u64, bytes: &mut Vec<u8>| {
        let name = ["small", "middle", "large"][(number % 3) as usize];
        // Writing to memory does not fail.
        let _ = write!(bytes, "GET /{name}?n={number} HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    };
    let address = bed.production_address();
    let plan = Plan { address, rate: 200, count: COUNT, connections: 16, request: &request };
    let outcome = bed.client.run(|| load::run(&plan))?;
    ensure!(outcome.ok == COUNT, "production answered {} of {COUNT}", outcome.ok);

    let metrics = agent.settle(COUNT)?;
    let told = wire.finish()?;
    for fate in ["lost", "doubled", "held"] {
        ensure!(told.get(fate).is_some_and(|&count| count > 20), "the wire was a good one: {told:?}");
    }
    ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0), "the ledger does not balance");
    ensure!(production.access_log()?.len() as u64 == COUNT);
    let lost = metrics.count("shadow_exchanges_total", &[("outcome", "lost")]);
    ensure!(lost == 0, "{lost} exchanges were lost; the agent said:\n{}", agent.process.log());
    let matches = metrics.count("shadow_comparisons_total", &[("result", "match")]);
    ensure!(matches == COUNT, "{matches} of {COUNT} match");
    ensure!(candidate.access_log()?.len() as u64 == COUNT, "not each was replayed once");
    let doubles = metrics.count("shadow_capture_duplicate_segments_total", &[]);
    ensure!(doubles > 0, "no segment was seen twice");
    agent.finish().map(drop)
}
