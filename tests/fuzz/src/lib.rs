//! What must hold for whatever the decoders are given. Each module is one fuzz target: `check` takes the fuzzer's bytes,
//! `seeds` gives it something to begin with.

pub mod files;
pub mod hpack;
pub mod http1;
pub mod http2;
pub mod packet;
pub mod reassembly;
pub mod talk;

use shadow_agent::config::Limits;
use shadow_agent::shard::{Event, Pipeline, PipelineSettings};

/// Beginnings by the name of their target.
pub fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    vec![
        ("packet", packet::seeds()),
        ("reassembly", reassembly::seeds()),
        ("http1", http1::seeds()),
        ("http2", http2::seeds()),
        ("hpack", hpack::seeds()),
        ("files", files::seeds()),
    ]
}

/// Small bounds, so that inputs of a few kilobytes reach them.
fn settings(limits: &Limits) -> PipelineSettings {
    PipelineSettings::new(limits, &[(80, 80)], 1, 0)
}

fn limits() -> Limits {
    Limits { flows: 8, flow_buffer: 4096, total_buffer: 16 << 10, body: 1024, ..Limits::default() }
}

/// Exchanges in a few words, and whether there is nothing that makes the reader look for the next request: anything that
/// was lost or skipped, and a tunnel that was refused. How that looking goes depends on where segments begin.
fn told(events: &[Event]) -> (Vec<String>, bool) {
    let whole = events.iter().filter_map(|event| match event {
        Event::Exchange(exchange) => {
            let (request, response) = (&exchange.request, &exchange.response);
            let asked =
                (&request.method, &request.target, &request.headers.0, &request.body, &request.trailers.0);
            let said = (response.status, &response.headers.0, &response.body, &response.trailers.0);
            Some(format!("{asked:?} {said:?}"))
        }
        _ => None,
    });
    let plain =
        |event: &Event| matches!(event, Event::Exchange(exchange) if exchange.request.method != "CONNECT");
    (whole.collect(), events.iter().all(plain))
}

/// Whatever came, the books balance.
fn balanced(pipeline: &Pipeline, events: &[Event]) {
    let stats = pipeline.stats();
    assert_eq!(stats.imbalance(), 0, "{stats:?}");
    assert_eq!(stats.seen, events.len() as u64, "every exchange has its event: {stats:?}");
    assert_eq!((stats.open(), stats.tcp.buffered, stats.tcp.flows), (0, 0, 0), "{stats:?}");
}
