//! The Prometheus metrics of a running agent, gathered when asked for.
//!
//! Every value is read at scrape time from the one place that counts it (ledger, report, kernel, control); nothing is
//! counted here. Labels are enum names, configured target names and the report's bounded endpoints: never a raw path,
//! host or user.

use std::fmt;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};
use thiserror::Error;

use crate::audit::Audit;
use crate::capture::{self, kernel::Attached};
use crate::config::Share;
use crate::control::Control;
use crate::guard::{Board, Readings};
use crate::ledger::Ledger;
use crate::policy::mask::Tally;
use crate::runs::Runs;
use crate::traces::Figures;

mod family;
mod gather;
mod guards;

/// The media type of [`Metrics::render`]: the Prometheus text format, version 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a target's replayer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayState {
    /// Requests queued.
    pub queue: u64,
    /// Whether its circuit breaker keeps requests back.
    pub breaker_open: bool,
}

/// Where the values come from.
#[derive(Clone)]
pub struct Sources {
    /// What became of every exchange.
    pub ledger: Arc<Ledger>,
    /// What is known about each endpoint, run by run.
    pub runs: Arc<Runs>,
    /// The kill switch, and the share of flows captured at present.
    pub control: Control,
    /// The kernel's counters, read when called.
    pub kernel: Arc<dyn Fn() -> capture::Counters + Send + Sync>,
    /// One entry a target, in the order configured, read when called.
    pub replay: Arc<dyn Fn() -> Vec<ReplayState> + Send + Sync>,
    /// The interfaces captured from, read when called.
    pub interfaces: Arc<dyn Fn() -> Vec<Attached> + Send + Sync>,
    /// What became of the spans told to a collector, if one is, read when called.
    pub spans: Arc<dyn Fn() -> Option<Figures> + Send + Sync>,
    /// What the CPU guard measured and did.
    pub cpu: Arc<Readings>,
    /// `limits.cpu`, as a share of one core; `None` is unlimited.
    pub cpu_limit: Option<Share>,
    /// Who did what; here, how much of that could not be written down.
    pub audit: Audit,
    /// What the other guards did.
    pub guards: Arc<Board>,
    /// What was masked at each exit, read when called.
    pub masks: Arc<dyn Fn() -> [Arc<Tally>; 2] + Send + Sync>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("control", &self.control).finish_non_exhaustive()
    }
}

/// Why there are no metrics.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// The library refused what was collected.
    #[error("the metrics cannot be written: {0}; this is a defect of the agent, please report it")]
    Encode(#[from] prometheus::Error),
}

/// The agent's one registry.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry of everything that the sources tell.
    ///
    /// # Errors
    /// When the library refuses a name; the names are constants, so a test would have met it.
    pub fn new(sources: Sources) -> Result<Metrics, MetricsError> {
        let registry = Registry::new();
        let descriptions = gather::descriptions()?;
        registry.register(Box::new(Everything { sources, descriptions }))?;
        Ok(Metrics { registry })
    }

    /// Every metric as of now, in the Prometheus text format ([`CONTENT_TYPE`]).
    ///
    /// # Errors
    /// When the library refuses what was collected.
    pub fn render(&self) -> Result<String, MetricsError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

/// Collects every family of one scrape together, so that they agree with each other.
struct Everything {
    sources: Sources,
    descriptions: Vec<Desc>,
}

impl Collector for Everything {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        gather::families(&self.sources)
    }
}

#[cfg(test)]
mod tests;
