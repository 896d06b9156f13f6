//! Large bodies both ways arrive whole.

use anyhow::{Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, PORT};
use shadow_tests::client::{Connection, chunked_request};
use shadow_tests::servers::Shop;
use shadow_tests::service::{Version, digest, filler};

const MIB: usize = 1 << 20;

#[test]
fn responses_and_chunked_uploads_of_1_mib_arrive_whole() -> Result<()> {
    const TIMES: u64 = 10;
    let bed = Bed::new()?;
    let _production = Shop::start(&bed.production, bed.folder(), "production", Version::Production, PORT)?;
    let candidate = Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Production, CANDIDATE_PORT)?;
    let mut agent = Agent::start(&bed, &["--method", "GET", "--method", "POST", "--isolated"])?;
    let body = filler(MIB);
    bed.client.run(|| {
        let mut connection = Connection::open(bed.production_address())?;
        for _ in 0..TIMES {
            let reply = connection.get(&format!("/large?size={MIB}"))?;
            ensure!(reply.body == body, "the client received {} bytes", reply.body.len());
            let upload = chunked_request("POST", "/echo", &[], &body, &[1, 16, 1000, 100_000]);
            ensure!(connection.exchange(&upload)?.status == 200);
        }
        Ok(())
    })?;
    let metrics = agent.settle(2 * TIMES)?;
    let received = candidate.requests()?;
    let uploads: Vec<_> = received.iter().filter(|request| request.method() == "POST").collect();
    ensure!(uploads.len() as u64 == TIMES, "{} uploads of {TIMES} reached the shadow", uploads.len());
    for upload in uploads {
        ensure!(upload.body_sha256() == digest(&body), "an upload reached the shadow altered");
    }
    let matches = metrics.count("shadow_comparisons_total", &[("result", "match")]);
    ensure!(
        matches == 2 * TIMES,
        "{matches} of {} match; the agent said:\n{}",
        2 * TIMES,
        agent.process.log()
    );
    agent.finish().map(drop)
}
