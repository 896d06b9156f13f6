//! The books: what became of every exchange and of every replayed request, so that nothing is lost unseen.
//!
//! Two equations must hold at every instant, and [`Snapshot::imbalance`] says by how much they do not:
//!
//! - exchanges: `seen = selected + skipped{reason} + lost{reason} + in_flight`, where what is in flight is measured by
//!   the shards (exchanges open in their flows) and by the queue behind them, not derived from the other counts;
//! - per target: `selected = answered + failed{reason} + dropped{reason} + in_flight` and
//!   `answered = match + mismatch + noise + drift + uncomparable{reason}`.
//!
//! Every change of one unit is made under one lock, so a snapshot is never torn. It counts; it decides nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::exchange::{DropReason, FailReason, LostReason, SkipReason, UncomparableReason};
use crate::tcp::Oddities;

/// A count for each reason of an enum made by `reasons!`, indexed by `reason as usize`.
pub type Tally = Vec<u64>;

/// What one shard reports after each batch of segments: how its totals changed, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardBatch {
    /// Exchanges whose first byte was met since the last report.
    pub seen: u64,
    /// Whole exchanges handed to the queue since the last report.
    pub queued: u64,
    /// Exchanges skipped since the last report.
    pub skipped: Vec<(SkipReason, u64)>,
    /// Exchanges lost since the last report.
    pub lost: Vec<(LostReason, u64)>,
    /// Exchanges open now.
    pub open: u64,
    /// Flows tracked now.
    pub flows: u64,
    /// Bytes buffered now.
    pub buffered: u64,
    /// What was odd since the last report.
    pub oddities: Oddities,
}

/// How an answer compares with production's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// No difference that counts.
    Match,
    /// A difference that only the candidate shows.
    Mismatch,
    /// A difference that production's own version shows as well, of the same kind.
    Noise,
    /// The shadows agree with each other and not with production: another state or time, not another version.
    Drift,
    /// No comparison was possible.
    Uncomparable(UncomparableReason),
}

impl Comparison {
    /// Its name in labels and spans.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Comparison::Match => "match",
            Comparison::Mismatch => "mismatch",
            Comparison::Noise => "noise",
            Comparison::Drift => "drift",
            Comparison::Uncomparable(_) => "uncomparable",
        }
    }
}

/// How a request that was selected ended at one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetOutcome {
    /// Answered, and compared.
    Answered(Comparison),
    /// Sent, and not answered.
    Failed(FailReason),
    /// Not sent.
    Dropped(DropReason),
}

/// The counts of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetCounts {
    /// Requests meant for it.
    pub selected: u64,
    /// Requests queued, under way, or being compared.
    pub in_flight: u64,
    /// Whole answers.
    pub answered: u64,
    /// Requests without an answer, by [`FailReason`].
    pub failed: Tally,
    /// Requests not sent, by [`DropReason`].
    pub dropped: Tally,
    /// Answers without a difference that counts.
    pub matches: u64,
    /// Answers with a difference that counts.
    pub mismatches: u64,
    /// Answers whose differences are noise.
    pub noise: u64,
    /// Answers that differ from production as the baseline's do.
    pub drift: u64,
    /// Answers that cannot be compared, by [`UncomparableReason`].
    pub uncomparable: Tally,
}

/// All counts at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Exchanges whose first byte was met.
    pub seen: u64,
    /// Exchanges selected for replay.
    pub selected: u64,
    /// Exchanges skipped, by [`SkipReason`].
    pub skipped: Tally,
    /// Exchanges lost, by [`LostReason`].
    pub lost: Tally,
    /// Exchanges open in flows, or queued for the decision.
    pub in_flight: u64,
    /// Flows tracked.
    pub flows: u64,
    /// Bytes buffered for flows.
    pub buffered: u64,
    /// What was odd about the segments taken.
    pub oddities: Oddities,
    /// One entry a target, in the order configured (the baseline last).
    pub targets: Vec<TargetCounts>,
}

impl Snapshot {
    /// Exchanges lost for any reason.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// Exchanges skipped for any reason.
    #[must_use]
    pub fn skipped_total(&self) -> u64 {
        self.skipped.iter().sum()
    }

    /// By how many units the books are off, all equations together. Must be 0.
    #[must_use]
    pub fn imbalance(&self) -> u64 {
        let closed = self.selected + self.skipped_total() + self.lost_total() + self.in_flight;
        let targets = self.targets.iter().map(|target| {
            let ended = target.answered
                + target.failed.iter().sum::<u64>()
                + target.dropped.iter().sum::<u64>()
                + target.in_flight;
            let compared = target.matches
                + target.mismatches
                + target.noise
                + target.drift
                + target.uncomparable.iter().sum::<u64>();
            target.selected.abs_diff(ended) + target.answered.abs_diff(compared)
        });
        self.seen.abs_diff(closed) + targets.sum::<u64>()
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct ShardState {
    open: u64,
    flows: u64,
    buffered: u64,
}

#[derive(Debug)]
struct Book {
    counts: Snapshot,
    queued: u64,
    shards: Vec<ShardState>,
}

/// The one ledger of a running agent.
#[derive(Debug)]
pub struct Ledger {
    book: Mutex<Book>,
}

impl Ledger {
    /// Empty books for so many shards and targets.
    #[must_use]
    pub fn new(shards: usize, targets: usize) -> Ledger {
        let target = TargetCounts {
            failed: vec![0; FailReason::ALL.len()],
            dropped: vec![0; DropReason::ALL.len()],
            uncomparable: vec![0; UncomparableReason::ALL.len()],
            ..TargetCounts::default()
        };
        let counts = Snapshot {
            skipped: vec![0; SkipReason::ALL.len()],
            lost: vec![0; LostReason::ALL.len()],
            targets: vec![target; targets],
            ..Snapshot::default()
        };
        Ledger { book: Mutex::new(Book { counts, queued: 0, shards: vec![ShardState::default(); shards] }) }
    }

    /// Enters what happened in one shard since its last report.
    pub fn shard(&self, shard: usize, batch: &ShardBatch) {
        let mut book = self.lock();
        book.counts.seen += batch.seen;
        book.queued += batch.queued;
        book.counts.oddities.add(batch.oddities);
        for &(reason, count) in &batch.skipped {
            add(&mut book.counts.skipped, reason as usize, count);
        }
        for &(reason, count) in &batch.lost {
            add(&mut book.counts.lost, reason as usize, count);
        }
        if let Some(state) = book.shards.get_mut(shard) {
            *state = ShardState { open: batch.open, flows: batch.flows, buffered: batch.buffered };
        }
    }

    /// A queued exchange was skipped by the policy.
    pub fn skipped(&self, reason: SkipReason) {
        let mut book = self.lock();
        book.queued = book.queued.saturating_sub(1);
        add(&mut book.counts.skipped, reason as usize, 1);
    }

    /// A queued exchange was lost before it could be decided on.
    pub fn lost(&self, reason: LostReason) {
        let mut book = self.lock();
        book.queued = book.queued.saturating_sub(1);
        add(&mut book.counts.lost, reason as usize, 1);
    }

    /// A queued exchange was selected, and is now in flight at every target.
    pub fn selected(&self) {
        let mut book = self.lock();
        book.queued = book.queued.saturating_sub(1);
        book.counts.selected += 1;
        for target in &mut book.counts.targets {
            target.selected += 1;
            target.in_flight += 1;
        }
    }

    /// A selected request ended at the target of that index.
    pub fn ended(&self, target: usize, outcome: TargetOutcome) {
        let mut book = self.lock();
        let Some(target) = book.counts.targets.get_mut(target) else { return };
        target.in_flight = target.in_flight.saturating_sub(1);
        match outcome {
            TargetOutcome::Failed(reason) => add(&mut target.failed, reason as usize, 1),
            TargetOutcome::Dropped(reason) => add(&mut target.dropped, reason as usize, 1),
            TargetOutcome::Answered(comparison) => {
                target.answered += 1;
                match comparison {
                    Comparison::Match => target.matches += 1,
                    Comparison::Mismatch => target.mismatches += 1,
                    Comparison::Noise => target.noise += 1,
                    Comparison::Drift => target.drift += 1,
                    Comparison::Uncomparable(reason) => add(&mut target.uncomparable, reason as usize, 1),
                }
            }
        }
    }

    /// All counts at this instant.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let book = self.lock();
        let mut counts = book.counts.clone();
        counts.in_flight = book.queued;
        for shard in &book.shards {
            counts.in_flight += shard.open;
            counts.flows += shard.flows;
            counts.buffered += shard.buffered;
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // A panic elsewhere while the lock was held leaves counts that are still counts.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(tally: &mut Tally, position: usize, count: u64) {
    if let Some(slot) = tally.get_mut(position) {
        *slot += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_balance_through_the_life_of_an_exchange() {
        let ledger = Ledger::new(2, 2);
        ledger.shard(0, &ShardBatch { seen: 3, open: 3, ..ShardBatch::default() });
        assert_eq!(ledger.snapshot().imbalance(), 0);
        let lost = vec![(LostReason::Gap, 1)];
        ledger.shard(0, &ShardBatch { queued: 2, lost, open: 0, ..ShardBatch::default() });
        assert_eq!(ledger.snapshot().imbalance(), 0);
        assert_eq!(ledger.snapshot().in_flight, 2);
        ledger.skipped(SkipReason::Method);
        ledger.selected();
        assert_eq!(ledger.snapshot().imbalance(), 0);
        ledger.ended(0, TargetOutcome::Answered(Comparison::Mismatch));
        ledger.ended(1, TargetOutcome::Failed(FailReason::Timeout));
        let end = ledger.snapshot();
        assert_eq!(end.imbalance(), 0);
        assert_eq!((end.seen, end.selected, end.in_flight), (3, 1, 0));
        assert_eq!(end.targets.iter().map(|target| target.in_flight).sum::<u64>(), 0);
    }

    #[test]
    fn an_exchange_that_vanishes_shows_as_imbalance() {
        let ledger = Ledger::new(1, 1);
        ledger.shard(0, &ShardBatch { seen: 2, open: 1, ..ShardBatch::default() });
        assert_eq!(ledger.snapshot().imbalance(), 1);
    }
}
