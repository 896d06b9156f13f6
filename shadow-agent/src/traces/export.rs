//! Tells spans to a collector over OTLP (OpenTelemetry Protocol, protobuf over HTTP), from a task of its own.
//!
//! Whoever offers spans never waits: what does not fit the queue is dropped, and counted. Its connections are made like
//! those to targets, so the agent does not capture them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter as OtlpExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::replay::{Courier, ReplayError};

/// Spans that may wait to be told.
const QUEUE: usize = 8192;
/// Spans told at once.
const BATCH: usize = 512;
/// How long spans wait before they are told.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long the collector may take for one batch.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last spans may take when the agent ends.
const LAST: Duration = Duration::from_secs(3);
/// Where a collector takes spans, below its address (OTLP specification, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";

/// Why spans cannot be told.
#[derive(Debug, Error)]
pub enum TracesError {
    /// The collector's address is not one that can be connected to.
    #[error(
        "the collector's url `{url}` (traces.otlp) cannot be connected to; give it as http://HOST:4318 ({error})"
    )]
    Url {
        /// What was configured.
        url: String,
        /// What is wrong with it.
        error: ReplayError,
    },
    /// The library refuses what it was given.
    #[error(
        "spans cannot be told over OTLP: {0}; unset variables that begin with OTEL_EXPORTER_OTLP, or correct them"
    )]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// What became of the spans so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Taken by the collector.
    pub exported: u64,
    /// Not offered to it, because too many waited.
    pub dropped: u64,
    /// Offered, and not taken.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// Takes spans, and tells them.
#[derive(Debug)]
pub struct Exporter {
    queue: mpsc::Sender<SpanData>,
    counts: Arc<Counts>,
    ending: CancellationToken,
    task: TaskTracker,
}

impl Exporter {
    /// Starts the task on that runtime; spans go to the collector at `url`, over connections that `courier` makes.
    ///
    /// # Errors
    /// When the library refuses the address or what the environment says.
    pub fn start(url: &Uri, courier: Courier, runtime: &Handle) -> Result<Exporter, TracesError> {
        let base = url.to_string();
        let base = base.trim_end_matches('/');
        let endpoint = if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") };
        let mut exporter = OtlpExporter::builder()
            .with_http()
            .with_http_client(courier)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_timeout(TIMEOUT)
            // Its waits between attempts would block the runtime; what fails is counted.
            .with_retry_policy(RetryPolicy::disabled())
            .build()?;
        let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        exporter.set_resource(
            &Resource::builder_empty()
                .with_attributes([
                    KeyValue::new("service.name", env!("CARGO_PKG_NAME")),
                    KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                    KeyValue::new("host.name", host),
                ])
                .build(),
        );
        let (queue, waiting) = mpsc::channel(QUEUE);
        let counts = Arc::<Counts>::default();
        let (ending, task) = (CancellationToken::new(), TaskTracker::new());
        let telling = tell(exporter, waiting, Arc::clone(&counts), ending.clone());
        task.spawn_on(telling, runtime);
        Ok(Exporter { queue, counts, ending, task })
    }

    /// Takes the spans of an exchange, as far as there is room.
    pub fn offer(&self, spans: impl IntoIterator<Item = SpanData>) {
        for span in spans {
            if self.queue.try_send(span).is_err() {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Tells what waits, for three seconds at most. What is offered from now on is dropped.
    pub async fn finish(&self) {
        self.ending.cancel();
        self.task.close();
        if timeout(LAST, self.task.wait()).await.is_err() {
            tracing::warn!(
                "the collector of traces.otlp did not take the last spans in time; they are not told"
            );
        }
    }

    /// What became of the spans so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let Counts { exported, dropped, failed } = &*self.counts;
        let [exported, dropped, failed] =
            [exported, dropped, failed].map(|count| count.load(Ordering::Relaxed));
        Figures { exported, dropped, failed }
    }
}

/// Tells what waits, again and again, until it is ending and nothing is left.
async fn tell(
    exporter: OtlpExporter,
    mut waiting: mpsc::Receiver<SpanData>,
    counts: Arc<Counts>,
    ending: CancellationToken,
) {
    let mut refused = false;
    while !waiting.is_closed() {
        tokio::select! {
            biased;
            () = ending.cancelled() => waiting.close(),
            () = sleep(INTERVAL) => {}
        }
        loop {
            let batch: Vec<SpanData> = std::iter::from_fn(|| waiting.try_recv().ok()).take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            refused = send(&exporter, batch, &counts, refused).await;
        }
    }
}

/// Tells one batch; says whether the collector refused it. That is logged when it changes.
async fn send(exporter: &OtlpExporter, batch: Vec<SpanData>, counts: &Counts, refused: bool) -> bool {
    let count = batch.len() as u64;
    let problem = match timeout(TIMEOUT, exporter.export(batch)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(format!("no answer within {} s", TIMEOUT.as_secs())),
    };
    let tally = if problem.is_none() { &counts.exported } else { &counts.failed };
    tally.fetch_add(count, Ordering::Relaxed);
    match &problem {
        Some(problem) if !refused => tracing::warn!(
            "the collector of traces.otlp does not take spans ({problem}); they are counted as failed until it does"
        ),
        None if refused => tracing::info!("the collector of traces.otlp takes spans again"),
        _ => {}
    }
    problem.is_some()
}

#[cfg(test)]
mod tests;
