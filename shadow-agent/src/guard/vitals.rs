//! What guards look at, counted where it happens: what production answered, and what targets did with their requests.
//!
//! For every exchange a few atomics, and a short lock for each time that a guard wants to know. It judges nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::config::{GuardAction, Guards};
use crate::ledger::TargetOutcome;
use crate::report::book::{erred, is_error_status};
use crate::report::distribution::Distribution;
use crate::report::{Observation, TargetObservation};

/// How many there were, and how many of them bad, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub total: u64,
    /// The bad ones.
    pub bad: u64,
}

impl Tally {
    /// What was added since an earlier count.
    #[must_use]
    pub fn since(self, earlier: Tally) -> Tally {
        Tally { total: self.total.saturating_sub(earlier.total), bad: self.bad.saturating_sub(earlier.bad) }
    }

    /// The bad ones among all; nothing is not bad.
    #[must_use]
    pub fn share(self) -> f64 {
        self.bad as f64 / self.total.max(1) as f64
    }
}

/// What passed, for the guards of one agent.
#[derive(Debug)]
pub struct Vitals {
    production: Side,
    targets: Vec<Side>,
    mask_failures: AtomicU64,
}

/// What one side answered.
#[derive(Debug)]
struct Side {
    total: AtomicU64,
    bad: AtomicU64,
    /// Times to first byte since they were last taken, if a guard asks for them.
    latency: Option<Mutex<Distribution>>,
}

impl Side {
    fn new(timed: bool) -> Side {
        let latency = timed.then(|| Mutex::new(Distribution::new()));
        Side { total: AtomicU64::new(0), bad: AtomicU64::new(0), latency }
    }

    fn count(&self, bad: bool) {
        self.bad.fetch_add(u64::from(bad), Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    fn time(&self, enter: impl FnOnce(&mut Distribution)) {
        if let Some(latency) = &self.latency {
            // A panic elsewhere while the lock was held leaves counts that are still counts.
            enter(&mut latency.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn tally(&self) -> Tally {
        let total = self.total.load(Ordering::Relaxed);
        Tally { total, bad: self.bad.load(Ordering::Relaxed).min(total) }
    }
}

impl Vitals {
    /// Nothing yet, for so many targets and what `guards` ask for.
    #[must_use]
    pub fn new(guards: &Guards, targets: usize) -> Vitals {
        let shadows = guards.shadow_latency.action != GuardAction::Off;
        Vitals {
            production: Side::new(guards.production_latency.action != GuardAction::Off),
            targets: (0..targets).map(|_| Side::new(shadows)).collect(),
            mask_failures: AtomicU64::new(0),
        }
    }

    /// Production answered a user with this status, after this time.
    pub fn answered(&self, status: u16, first_byte: Duration) {
        self.production.count(is_error_status(status));
        self.production.time(|latency| latency.record(first_byte));
    }

    /// A replayed exchange ended at every target. What production itself answered with an error is nobody's fault.
    pub fn ended(&self, seen: &Observation) {
        let excused = is_error_status(seen.production_status);
        for (side, observed) in self.targets.iter().zip(&seen.targets) {
            side.ended(observed, excused);
        }
    }

    /// The self-check found values that are to be hidden, and that were about to leave.
    pub fn mask_failed(&self, values: u64) {
        self.mask_failures.fetch_add(values, Ordering::Relaxed);
    }

    /// Values that the self-check found so far.
    #[must_use]
    pub fn mask_failures(&self) -> u64 {
        self.mask_failures.load(Ordering::Relaxed)
    }

    /// What production answered, errors being bad.
    #[must_use]
    pub fn production(&self) -> Tally {
        self.production.tally()
    }

    /// What the target of that position did with its requests, where that says something about it.
    #[must_use]
    pub fn target(&self, position: usize) -> Tally {
        self.targets.get(position).map_or_else(Tally::default, Side::tally)
    }

    /// How many targets there are.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.targets.len()
    }

    /// Times of production, or of a target, since this was last asked.
    pub(super) fn take_times(&self, target: Option<usize>) -> Distribution {
        let mut taken = Distribution::new();
        let side = target.map_or(Some(&self.production), |position| self.targets.get(position));
        if let Some(side) = side {
            side.time(|latency| std::mem::swap(latency, &mut taken));
        }
        taken
    }
}

impl Side {
    fn ended(&self, observed: &TargetObservation, excused: bool) {
        let Some(erred) = erred(observed) else { return };
        self.count(erred && !excused);
        match (observed.outcome, observed.first_byte) {
            (TargetOutcome::Answered(_), Some(first_byte)) => self.time(|latency| latency.record(first_byte)),
            (TargetOutcome::Failed(_), Some(limit)) => self.time(|latency| latency.record_censored(limit)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{DropReason, FailReason};
    use crate::ledger::Comparison;
    use crate::report::testing::{answered, failed, observation};

    fn vitals() -> Vitals {
        let mut guards = Guards::default();
        guards.shadow_latency.action = GuardAction::PauseTarget;
        Vitals::new(&guards, 2)
    }

    #[test]
    fn errors_of_a_target_are_those_that_production_did_not_have() {
        let vitals = vitals();
        let dropped = TargetObservation {
            outcome: TargetOutcome::Dropped(DropReason::Paused),
            ..failed(FailReason::Connect)
        };
        for (production_status, target) in [
            (200, answered(Comparison::Mismatch, 500)),
            (500, answered(Comparison::Match, 500)),
            (200, failed(FailReason::Closed)),
            (200, failed(FailReason::Stalled)),
            (200, dropped),
            (200, answered(Comparison::Match, 404)),
        ] {
            let targets = vec![target, answered(Comparison::Match, 200)];
            vitals.ended(&Observation { production_status, targets, ..observation("/a", 1) });
        }
        assert_eq!(vitals.target(0), Tally { total: 4, bad: 2 });
        assert_eq!(vitals.target(1), Tally { total: 6, bad: 0 });
        assert_eq!(vitals.target(2), Tally::default());
        assert_eq!(vitals.take_times(Some(0)).count(), 3);
        assert_eq!(vitals.take_times(Some(0)).count(), 0, "taken is taken");
    }

    #[test]
    fn times_are_kept_for_guards_that_ask_for_them() {
        let vitals = vitals();
        vitals.answered(503, Duration::from_millis(5));
        assert_eq!((vitals.production(), vitals.take_times(None).count()), (Tally { total: 1, bad: 1 }, 0));
        let mut guards = Guards::default();
        guards.production_latency.action = GuardAction::StepBack;
        let vitals = Vitals::new(&guards, 0);
        vitals.answered(200, Duration::from_millis(5));
        assert_eq!(vitals.take_times(None).count(), 1);
    }
}
