//! The runs of an agent: what a verdict speaks of. One is under way; the last few that ended can still be asked about.
//!
//! The ledger and the kernel count on over all of them. A run remembers what they said when it began, and keeps books of
//! its own on what was replayed, so that an exchange belongs to the run in which it was selected, whenever it ends.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::capture::Counters;
use crate::ledger::{Ledger, Snapshot, TargetOutcome};
use crate::report::{Report, Summary, Verdict};

/// Runs that ended and can still be asked about; older ones are forgotten.
pub const KEPT: usize = 8;

/// Characters of a label.
pub const LABEL: usize = 128;

/// What the ledger and the kernel said at one moment.
#[derive(Clone, Debug, Default)]
pub struct Mark {
    /// The ledger.
    pub ledger: Snapshot,
    /// The kernel's counters.
    pub kernel: Counters,
}

/// One run.
#[derive(Debug)]
pub struct Run {
    report: Report,
    /// What became of the requests that were selected in it.
    books: Ledger,
    began: Mark,
    ended: OnceLock<Mark>,
}

impl Run {
    /// A run that begins at that mark; the agent's first one begins at none.
    #[must_use]
    pub fn new(report: Report, began: Mark) -> Run {
        let books = Ledger::new(0, report.targets().len());
        Run { report, books, began, ended: OnceLock::new() }
    }

    /// What is known about each endpoint.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// An exchange was selected in it.
    pub fn selected(&self) {
        self.books.selected();
    }

    /// A request selected in it ended at the target of that index.
    pub fn replayed(&self, target: usize, outcome: TargetOutcome) {
        self.books.ended(target, outcome);
    }

    /// Its part of the ledger, until it ended. What was open when it began is counted as seen in it.
    #[must_use]
    pub fn ledger(&self, now: Snapshot) -> Snapshot {
        let now = self.ended.get().map_or(now, |ended| ended.ledger.clone());
        let before = &self.began.ledger;
        Snapshot {
            seen: (now.seen + before.in_flight).saturating_sub(before.seen),
            selected: now.selected.saturating_sub(before.selected),
            skipped: since(&now.skipped, &before.skipped),
            lost: since(&now.lost, &before.lost),
            oddities: now.oddities.since(before.oddities),
            targets: self.books.snapshot().targets,
            ..now
        }
    }

    /// Its part of what the kernel counted, until it ended.
    #[must_use]
    pub fn kernel(&self, now: Counters) -> Counters {
        let now = self.ended.get().map_or(now, |ended| ended.kernel.clone());
        let before = &self.began.kernel;
        Counters {
            packets: since(&now.packets, &before.packets),
            bytes: now.bytes.saturating_sub(before.bytes),
        }
    }

    /// The verdict on it.
    #[must_use]
    pub fn verdict(&self, now: Snapshot) -> Verdict {
        self.report.verdict(&self.ledger(now))
    }

    /// Everything known about it.
    #[must_use]
    pub fn summary(&self, ledger: Snapshot, kernel: Counters) -> Summary {
        self.report.summary(&self.ledger(ledger), &self.kernel(kernel))
    }

    /// One line about how it stands, without a line break.
    #[must_use]
    pub fn status_line(&self, now: Snapshot) -> String {
        self.report.status_line(&self.ledger(now))
    }
}

fn since(now: &[u64], before: &[u64]) -> Vec<u64> {
    let before = before.iter().copied().chain(std::iter::repeat(0));
    now.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect()
}

/// All of them, the one under way in front.
#[derive(Debug)]
pub struct Runs(RwLock<Known>);

#[derive(Debug)]
struct Known {
    current: Arc<Run>,
    ended: VecDeque<Arc<Run>>,
    /// Runs begun so far.
    count: u64,
}

impl Runs {
    /// The first run, under way.
    #[must_use]
    pub fn new(first: Arc<Run>) -> Runs {
        Runs(RwLock::new(Known { current: first, ended: VecDeque::new(), count: 1 }))
    }

    /// The run under way.
    #[must_use]
    pub fn current(&self) -> Arc<Run> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).current)
    }

    /// The newest run of that label.
    #[must_use]
    pub fn find(&self, label: &str) -> Option<Arc<Run>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::iter::once(&known.current).chain(&known.ended);
        all.find(|run| run.report.label() == label).cloned()
    }

    /// The labels of all of them, the newest first.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let all = std::iter::once(&known.current).chain(&known.ended);
        all.map(|run| run.report.label().to_owned()).collect()
    }

    /// What the next run is called when nobody says it: as the one under way, and the how manieth it is.
    #[must_use]
    pub fn next_label(&self) -> String {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let label = known.current.report.label();
        let base = match label.rsplit_once('#') {
            Some((base, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => base.trim_end(),
            _ => label,
        };
        format!("{base} #{}", known.count + 1).trim_start().to_owned()
    }

    /// Ends the run under way at that mark, and begins the next.
    pub fn succeed(&self, mark: Mark, next: Arc<Run>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut known.current, next);
        // A run ends once.
        let _ = before.ended.set(mark);
        known.count += 1;
        known.ended.push_front(before);
        known.ended.truncate(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{FailReason, LostReason, SkipReason};
    use crate::ledger::{Comparison, ShardBatch};
    use crate::report::testing::report;

    fn run_of(report: Report, mark: Mark) -> Arc<Run> {
        Arc::new(Run::new(report, mark))
    }

    fn labelled(label: &str) -> Report {
        report(false).next(label)
    }

    fn mark(ledger: &Ledger, packets: u64) -> Mark {
        Mark { ledger: ledger.snapshot(), kernel: Counters { packets: vec![packets], bytes: packets * 10 } }
    }

    #[test]
    fn an_exchange_belongs_to_the_run_that_it_was_selected_in_and_both_balance() {
        let ledger = Ledger::new(1, 1);
        let first = run_of(labelled("v1"), Mark::default());
        let runs = Runs::new(Arc::clone(&first));
        let lost = vec![(LostReason::Gap, 2)];
        ledger.shard(0, &ShardBatch { seen: 7, queued: 2, lost, open: 3, ..ShardBatch::default() });
        for _ in 0..2 {
            ledger.selected();
            first.selected();
        }
        let between = mark(&ledger, 5);
        let second = run_of(first.report().next("v2"), between.clone());
        runs.succeed(between, Arc::clone(&second));
        // One of the first run's ends late, and what was open goes on in the second.
        ledger.ended(0, TargetOutcome::Answered(Comparison::Match));
        first.replayed(0, TargetOutcome::Answered(Comparison::Match));
        let lost = vec![(LostReason::Timeout, 1)];
        ledger.shard(0, &ShardBatch { queued: 2, lost, open: 0, ..ShardBatch::default() });
        ledger.skipped(SkipReason::Method);
        ledger.selected();
        second.selected();
        ledger.ended(0, TargetOutcome::Failed(FailReason::Timeout));
        second.replayed(0, TargetOutcome::Failed(FailReason::Timeout));

        let (one, two) = (first.ledger(ledger.snapshot()), second.ledger(ledger.snapshot()));
        assert_eq!(
            (one.seen, one.selected, one.lost_total(), one.in_flight, one.imbalance()),
            (7, 2, 2, 3, 0)
        );
        assert_eq!((one.targets[0].answered, one.targets[0].in_flight), (1, 1));
        assert_eq!(
            (two.seen, two.selected, two.lost_total(), two.in_flight, two.imbalance()),
            (3, 1, 1, 0, 0)
        );
        assert_eq!((two.skipped_total(), two.targets[0].answered, two.targets[0].selected), (1, 0, 1));
        let now = Counters { packets: vec![9], bytes: 90 };
        assert_eq!(first.kernel(now.clone()), Counters { packets: vec![5], bytes: 50 });
        assert_eq!(second.kernel(now), Counters { packets: vec![4], bytes: 40 });
        assert_eq!(ledger.snapshot().imbalance(), 0);
    }

    #[test]
    fn the_last_few_runs_are_found_by_their_labels_and_older_ones_are_forgotten() {
        let runs = Runs::new(run_of(labelled("0"), Mark::default()));
        for number in 1..=KEPT + 1 {
            runs.succeed(Mark::default(), run_of(labelled(&number.to_string()), Mark::default()));
            let found = runs.find("0").is_some();
            assert_eq!(found, number <= KEPT, "after {number} more");
        }
        assert_eq!(runs.current().report().label(), (KEPT + 1).to_string());
        assert!(runs.find("1").is_some());
        assert_eq!(runs.labels().len(), KEPT + 1);
    }

    #[test]
    fn of_two_runs_with_one_label_the_newest_is_found() {
        let runs = Runs::new(run_of(labelled("v1"), Mark::default()));
        let next = run_of(labelled("v1"), Mark::default());
        runs.succeed(Mark::default(), Arc::clone(&next));
        assert!(Arc::ptr_eq(&runs.find("v1").unwrap(), &next));
        assert!(runs.find("").is_none());
    }

    #[test]
    fn a_run_that_nobody_named_is_called_after_the_one_before() {
        for (label, expected) in [("v1", "v1 #2"), ("", "#2"), ("v1 #7", "v1 #2"), ("fix #a", "fix #a #2")] {
            let runs = Runs::new(run_of(labelled(label), Mark::default()));
            assert_eq!(runs.next_label(), expected);
        }
    }
}
