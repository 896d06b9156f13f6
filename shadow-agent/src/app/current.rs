//! The line that exchanges take now, and how another one takes its place: as one, between two exchanges. Those under way
//! end on the line that they began on. It knows nothing of why a line is replaced.

use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use super::line::Line;
use crate::backlog::Receiver;
use crate::capture::Counters;
use crate::ledger::Snapshot;
use crate::report::Report;
use crate::runs::{Mark, Run, Runs};

/// Lines that were replaced and whose exchanges have not all ended yet. They end within twice the longest timeout.
pub(super) const MAX_RETIRED: usize = 4;

/// There are [`MAX_RETIRED`] already.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyRetired;

/// The line in force, and those before it that are not done.
pub(super) struct Current {
    line: RwLock<Arc<Line>>,
    runs: Arc<Runs>,
    retired: Mutex<Vec<Weak<Line>>>,
}

impl Current {
    /// Of a line in whose run everything begins.
    pub(super) fn new(line: Line) -> Current {
        let runs = Arc::new(Runs::new(Arc::clone(&line.run)));
        Current { line: RwLock::new(Arc::new(line)), runs, retired: Mutex::default() }
    }

    /// The line in force now.
    pub(super) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All runs.
    pub(super) fn runs(&self) -> &Arc<Runs> {
        &self.runs
    }

    /// Takes exchanges until the backlog ends.
    pub(super) async fn drive(self: Arc<Current>, mut backlog: Receiver) {
        while let Some(admitted) = backlog.next().await {
            // Held until it is decided, so that a run has begun either before that or after it.
            self.line.read().unwrap_or_else(PoisonError::into_inner).take(admitted);
        }
    }

    /// Puts `next` in force, right after `first`. With a report, that is of a run which begins at this moment, and the one
    /// under way ends.
    ///
    /// # Errors
    /// When too many lines before it are not done; nothing has changed then.
    pub(super) fn replace(
        &self,
        next: Line,
        report: Option<Report>,
        kernel: Counters,
        first: impl FnOnce(),
    ) -> Result<(), TooManyRetired> {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|line| line.strong_count() > 0);
        if retired.len() >= MAX_RETIRED {
            return Err(TooManyRetired);
        }
        let mut line = self.line.write().unwrap_or_else(PoisonError::into_inner);
        first();
        let run = match report {
            None => Arc::clone(&line.run),
            Some(report) => {
                let mark = Mark { ledger: line.ledger.snapshot(), kernel };
                let run = Arc::new(Run::new(report.following(line.run.report()), mark.clone()));
                self.runs.succeed(mark, Arc::clone(&run));
                run
            }
        };
        let before = std::mem::replace(&mut *line, Arc::new(Line { run, ..next }));
        drop(line);
        retired.push(Arc::downgrade(&before));
        Ok(())
    }

    /// Ends what every replayer has under way.
    pub(super) async fn shutdown(&self) {
        let lines: Vec<_> = {
            let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            retired.iter().filter_map(Weak::upgrade).chain([self.line()]).collect()
        };
        for line in lines {
            line.replayer.shutdown(Duration::ZERO).await;
        }
    }

    /// The ledger now.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.line().ledger.snapshot()
    }
}
