use std::time::Instant;

use super::*;
use crate::replay::Registrar;
use crate::replay::tests::server::Server;
use crate::traces::span::tests::spans;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";

fn exporter(port: u16, path: &str) -> Exporter {
    let url: Uri = format!("http://127.0.0.1:{port}{path}").parse().unwrap();
    let courier = Courier::new(&url, 0, Registrar::none()).unwrap();
    Exporter::start(&url, courier, &Handle::current()).unwrap()
}

async fn ended(exporter: &Exporter) -> Figures {
    exporter.finish().await;
    exporter.figures()
}

#[tokio::test]
async fn spans_reach_the_collector_and_the_last_ones_before_the_end() {
    for path in ["", "/", "/v1/traces", "/collector/"] {
        let server = Server::answering(OK).await;
        let exporter = exporter(server.port, path);
        let spans = spans();
        let count = spans.len() as u64;
        exporter.offer(spans);
        assert_eq!(ended(&exporter).await, Figures { exported: count, dropped: 0, failed: 0 });
        let request = server.requests().pop().unwrap();
        let below = if path.starts_with("/c") { "/collector" } else { "" };
        assert!(request.starts_with(&format!("POST {below}/v1/traces HTTP/1.1\r\n")), "{request}");
        assert!(request.contains("content-type: application/x-protobuf\r\n"), "{request}");
        assert!(request.contains("shadow-agent"), "the service has a name");
    }
}

#[tokio::test]
async fn a_collector_that_refuses_is_counted_and_costs_no_more() {
    let server = Server::answering(BUSY).await;
    let exporter = exporter(server.port, "");
    let spans = spans();
    let count = spans.len() as u64;
    exporter.offer(spans);
    assert_eq!(ended(&exporter).await, Figures { exported: 0, dropped: 0, failed: count });
    assert_eq!(server.requests().len(), 1, "nothing is sent twice");
}

#[tokio::test]
async fn nobody_waits_for_a_collector_that_hangs() {
    let server = Server::hanging().await;
    let exporter = exporter(server.port, "");
    let span = spans().pop().unwrap();
    let started = Instant::now();
    // The task has no turn meanwhile.
    exporter.offer(std::iter::repeat_n(span, QUEUE + 1));
    assert!(started.elapsed() < LAST);
    assert_eq!(exporter.figures().dropped, 1);
    exporter.finish().await;
    assert!(started.elapsed() < LAST * 2, "the agent ends in time");
    exporter.offer(spans());
    assert!(exporter.figures().dropped > 1, "nothing is taken any more");
}
