//! What is seen and cannot be replayed is recognised, counted by its reason, and never sent.

use anyhow::{Result, ensure};
use shadow_tests::agent::Agent;
use shadow_tests::bed::{Bed, CANDIDATE_PORT, PORT};
use shadow_tests::client::{Connection, request};
use shadow_tests::servers::{Nginx, Shop};
use shadow_tests::service::{Version, filler};

/// The first record of a TLS connection: a handshake, with a ClientHello that is no more than begun.
const TLS: &[u8] = b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03";
/// How HTTP/2 with prior knowledge begins (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const TOO_LARGE: usize = 5 << 20;

#[test]
fn what_cannot_be_replayed_is_counted_by_its_reason() -> Result<()> {
    let bed = Bed::new()?;
    std::fs::write(bed.folder().join("file"), filler(1024))?;
    std::fs::write(bed.folder().join("large"), filler(TOO_LARGE))?;
    let server = format!(
        "server {{ listen {PORT}; root {}; default_type application/octet-stream;\n\
         location /events {{ default_type text/event-stream; return 200 'data: 1\\n\\n'; }} }}",
        bed.folder().display()
    );
    let _production = Nginx::start(&bed.production, bed.folder(), "nginx", PORT, &server)?;
    let candidate = Shop::start(&bed.shadow, bed.folder(), "candidate", Version::Production, CANDIDATE_PORT)?;
    let mut agent = Agent::start(&bed, &[])?;
    bed.client.run(|| {
        let address = bed.production_address();
        let mut connection = Connection::open(address)?;
        let first = connection.get("/file?first")?;
        let date = first.header("last-modified").unwrap_or_default();
        let again = request("GET", "/file?again", &[("If-Modified-Since", date)], b"");
        ensure!(connection.exchange(&again)?.status == 304);
        ensure!(connection.get("/events")?.status == 200);
        ensure!(connection.get("/large")?.body.len() == TOO_LARGE);
        for opening in [TLS, HTTP2] {
            let mut connection = Connection::open(address)?;
            connection.send(opening)?;
            // nginx refuses both: the second in HTTP/1, so it is not HTTP/2 that is spoken.
            let _ = connection.receive(false);
        }
        Ok(())
    })?;
    let metrics = agent.settle(6)?;
    for reason in ["not_modified", "streaming", "body_too_large", "tls", "not_http"] {
        let labels = [("outcome", "skipped"), ("reason", reason)];
        let skipped = metrics.count("shadow_exchanges_total", &labels);
        ensure!(skipped == 1, "{skipped} skipped for {reason}; the agent said:\n{}", agent.process.log());
    }
    ensure!(metrics.sum("shadow_ledger_imbalance", &[]) == Some(0.0), "the ledger does not balance");
    let received = candidate.requests()?;
    let targets: Vec<&str> = received.iter().map(|request| request.target()).collect();
    ensure!(targets == ["/file?first"], "the candidate received {targets:?}");
    agent.finish().map(drop)
}
