//! What is known about each endpoint, and the verdict.
//!
//! [`Report`] takes one [`Observation`] an exchange and adds it up in bounded memory; [`Summary`] is what it amounts
//! to, for `--report` and the admin API, and [`text`] shows it on a terminal. It holds nothing that is not `Kept`,
//! and counts nothing that the ledger counts for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::capture;
use crate::compare::Difference;
use crate::config;
use crate::exchange::{ConnectionId, ExchangeId, Role, TargetInfo, Timestamp};
use crate::ledger::{self, TargetOutcome};
use crate::policy::mask::Kept;

pub(crate) mod book;
pub mod differences;
pub(crate) mod distribution;
pub(crate) mod sequence;
pub mod summary;
pub mod text;
pub mod verdict;
pub(crate) mod words;

use book::EndpointBook;
use distribution::Distribution;
pub use summary::Summary;
pub use verdict::{Outcome, Verdict};

/// What names of endpoints end in that stand for all beyond `compare.max_endpoints`: `GET {other}`, or this alone.
pub const OTHER: &str = "{other}";

/// Endpoints held besides `compare.max_endpoints`: one [`OTHER`] for each standard method, and one without a method.
pub const OTHERS: usize = 10;

/// How one selected exchange ended, at every target.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The endpoint that the request belongs to: `GET /users/{id}`.
    pub endpoint: Arc<str>,
    /// The exchange.
    pub exchange: ExchangeId,
    /// The connection that it was seen on.
    pub connection: ConnectionId,
    /// When production's response ended ([`crate::exchange::Times::response_done`]).
    pub time: Timestamp,
    /// The request target as people may see it.
    pub target: Kept<String>,
    /// Production's status; of gRPC, what its own status stands for ([`crate::compare::http_status`]).
    pub production_status: u16,
    /// From the last byte of production's request to the first of its response, on the wire.
    pub production_first_byte: Duration,
    /// One entry a target, in the order of the list of targets (the baseline last).
    pub targets: Vec<TargetObservation>,
    /// How many selected exchanges it stands for: one divided by the chance that it had of being replayed.
    pub weight: f64,
}

/// How it ended at one target.
#[derive(Clone, Debug)]
pub struct TargetObservation {
    /// What the ledger was told.
    pub outcome: TargetOutcome,
    /// The status answered, likewise.
    pub status: Option<u16>,
    /// The time to the first byte of the answer; for `Failed(Timeout)` the timeout that cut it off.
    pub first_byte: Option<Duration>,
    /// Differences from production's response.
    pub differences: Vec<Difference>,
}

/// Adds up observations.
#[derive(Debug)]
pub struct Report {
    limits: verdict::Limits,
    targets: Vec<TargetInfo>,
    baseline: Option<usize>,
    label: String,
    started: Timestamp,
    /// The same moment on the monotonic clock.
    begun: Instant,
    max_endpoints: usize,
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    endpoints: Vec<EndpointBook>,
    positions: HashMap<Arc<str>, usize>,
    lag: Distribution,
    folded: u64,
}

impl Default for Books {
    fn default() -> Books {
        Books { endpoints: Vec::new(), positions: HashMap::new(), lag: Distribution::new(), folded: 0 }
    }
}

/// A copy of the books, for whoever wants to compute with them.
#[derive(Debug)]
pub(crate) struct Pages {
    /// Endpoints in the order met.
    pub(crate) endpoints: Vec<EndpointBook>,
    /// All of them merged, without differences.
    pub(crate) all: EndpointBook,
    /// From the end of production's response to the result.
    pub(crate) lag: Distribution,
    /// Observations entered under a name ending in [`OTHER`], because there are too many endpoints.
    pub(crate) folded: u64,
}

impl Report {
    /// An empty report of a run that starts now.
    #[must_use]
    pub fn new(
        verdict: &config::Verdict,
        compare: &config::Compare,
        targets: Vec<TargetInfo>,
        label: impl Into<String>,
    ) -> Report {
        Report {
            limits: verdict::Limits::new(verdict, compare),
            baseline: targets.iter().position(|target| target.role == Role::Baseline),
            targets,
            label: label.into(),
            started: Timestamp::now(),
            begun: Instant::now(),
            max_endpoints: compare.max_endpoints,
            books: Mutex::new(Books::default()),
        }
    }

    /// An empty report of a run that follows this one now, by the same rules.
    #[must_use]
    pub fn next(&self, label: impl Into<String>) -> Report {
        Report {
            limits: self.limits.clone(),
            targets: self.targets.clone(),
            baseline: self.baseline,
            label: label.into(),
            started: self.now(),
            begun: Instant::now(),
            max_endpoints: self.max_endpoints,
            books: Mutex::new(Books::default()),
        }
    }

    /// This report, if it is of a run that follows `before`: its clock is that one's.
    #[must_use]
    pub fn following(self, before: &Report) -> Report {
        Report { started: before.now(), begun: Instant::now(), ..self }
    }

    /// The targets, in the order of every list of targets.
    #[must_use]
    pub fn targets(&self) -> &[TargetInfo] {
        &self.targets
    }

    /// The label of the run.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// When the run started.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// This moment, on the clock of what is captured: Unix time when the run started, and as long ago as that is, even
    /// if the wall clock was set meanwhile.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.started.plus(self.begun.elapsed())
    }

    /// Enters an exchange that ended at every target.
    pub fn record(&self, observation: Observation) {
        let lag = self.now().since(observation.time);
        let mut books = self.lock();
        books.lag.record(lag);
        let position = match books.positions.get(&observation.endpoint) {
            Some(&position) => position,
            None => self.admit(&mut books, &observation.endpoint),
        };
        let Books { endpoints, folded, .. } = &mut *books;
        if let Some(book) = endpoints.get_mut(position) {
            *folded += u64::from(book.endpoint.ends_with(OTHER));
            book.record(observation, self.baseline);
        }
    }

    /// The position of an endpoint not met before; that of [`OTHER`] when there are enough.
    fn admit(&self, books: &mut Books, endpoint: &Arc<str>) -> usize {
        // One place is kept for what everything beyond the bound is entered under.
        let full = books.endpoints.len() + 1 >= self.max_endpoints.saturating_add(OTHERS);
        let name = if full { Arc::from(OTHER) } else { Arc::clone(endpoint) };
        let next = books.endpoints.len();
        let position = *books.positions.entry(Arc::clone(&name)).or_insert(next);
        if position == next {
            books.endpoints.push(EndpointBook::new(name, self.targets.len()));
        }
        position
    }

    /// The verdict as of now.
    #[must_use]
    pub fn verdict(&self, ledger: &ledger::Snapshot) -> Verdict {
        let pages = self.pages();
        self.judge(&pages, ledger)
    }

    /// Everything known as of now.
    #[must_use]
    pub fn summary(&self, ledger: &ledger::Snapshot, kernel: &capture::Counters) -> Summary {
        let pages = self.pages();
        let verdict = self.judge(&pages, ledger);
        summary::build(self, &pages, verdict, ledger, kernel, self.now())
    }

    /// One line about how things stand, without a line break.
    #[must_use]
    pub fn status_line(&self, ledger: &ledger::Snapshot) -> String {
        text::status_line(&self.targets, ledger, self.now().since(self.started))
    }

    pub(crate) fn judge(&self, pages: &Pages, ledger: &ledger::Snapshot) -> Verdict {
        verdict::judge(&self.limits, &self.targets, &pages.endpoints, &pages.all, ledger)
    }

    /// A copy of the books. The lock is held for one endpoint at a time, so that recording hardly waits.
    pub(crate) fn pages(&self) -> Pages {
        let (count, lag, folded) = {
            let books = self.lock();
            (books.endpoints.len(), books.lag.clone(), books.folded)
        };
        let endpoints: Vec<EndpointBook> =
            (0..count).filter_map(|position| self.lock().endpoints.get(position).cloned()).collect();
        let mut all = EndpointBook::new("".into(), self.targets.len());
        for endpoint in &endpoints {
            all.merge(endpoint);
        }
        Pages { endpoints, all, lag, folded }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // A panic elsewhere while the lock was held leaves sums that are still sums.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
