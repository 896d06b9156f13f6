//! What has been counted and measured for one endpoint, and what that is at each target.
//!
//! Plain sums, cheap to add to; what they mean is said by `verdict` and `summary`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::differences::{Class, Groups};
use super::distribution::{Distribution, LONGEST};
use super::{Observation, TargetObservation};
use crate::compare::is_status;
use crate::exchange::{DropReason, FailReason, Timestamp, UncomparableReason};
use crate::ledger::{Comparison, Tally, TargetOutcome};

/// Error statuses told apart for one endpoint and target; further ones count as the first digit with zeros.
pub(crate) const STATUSES: usize = 16;

/// What is known about one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct EndpointBook {
    pub(crate) endpoint: Arc<str>,
    pub(crate) requests: u64,
    pub(crate) production: Distribution,
    pub(crate) production_errors: BTreeMap<u16, u64>,
    pub(crate) last: Timestamp,
    /// How many selected exchanges the requests stand for.
    pub(crate) weight: f64,
    /// The least and the greatest weight of a request.
    pub(crate) weights: Option<(f64, f64)>,
    pub(crate) targets: Vec<TargetBook>,
}

/// What is known about one endpoint at one target.
#[derive(Clone, Debug)]
pub(crate) struct TargetBook {
    pub(crate) matches: u64,
    pub(crate) mismatches: u64,
    pub(crate) noise: u64,
    pub(crate) drift: u64,
    /// The part of `drift` in which the shadows answered with another status than production.
    pub(crate) astray: u64,
    pub(crate) uncomparable: Tally,
    pub(crate) failed: Tally,
    pub(crate) dropped: Tally,
    pub(crate) error_statuses: BTreeMap<u16, u64>,
    pub(crate) latency: Distribution,
    pub(crate) errors: ErrorPairs,
    pub(crate) groups: Groups,
    /// How many selected exchanges stand behind the answers that say something about the target.
    pub(crate) weighted_telling: f64,
    /// How many of these mismatch.
    pub(crate) weighted_mismatches: f64,
}

/// Errors of a target and of the reference to the same requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorPairs {
    /// Requests that ended at both.
    pub(crate) pairs: u64,
    /// Errors of the target.
    pub(crate) target: u64,
    /// Errors of the reference.
    pub(crate) reference: u64,
    /// Requests at which only the target erred.
    pub(crate) only_target: u64,
    /// Requests at which only the reference erred.
    pub(crate) only_reference: u64,
    /// Errors of the target to requests of which the reference said nothing; they belong to no pair.
    pub(crate) unpaired: u64,
}

impl ErrorPairs {
    fn record(&mut self, target: bool, reference: bool) {
        self.pairs += 1;
        self.target += u64::from(target);
        self.reference += u64::from(reference);
        self.only_target += u64::from(target && !reference);
        self.only_reference += u64::from(reference && !target);
    }

    fn add(&mut self, other: &ErrorPairs) {
        self.pairs += other.pairs;
        self.target += other.target;
        self.reference += other.reference;
        self.only_target += other.only_target;
        self.only_reference += other.only_reference;
        self.unpaired += other.unpaired;
    }
}

impl EndpointBook {
    pub(crate) fn new(endpoint: Arc<str>, targets: usize) -> EndpointBook {
        EndpointBook {
            endpoint,
            requests: 0,
            production: Distribution::new(),
            production_errors: BTreeMap::new(),
            last: Timestamp::default(),
            weight: 0.0,
            weights: None,
            targets: (0..targets).map(|_| TargetBook::new()).collect(),
        }
    }

    /// Enters an observation; `baseline` is the position of the baseline among the targets.
    pub(crate) fn record(&mut self, mut seen: Observation, baseline: Option<usize>) {
        self.requests += 1;
        self.last = self.last.max(seen.time);
        self.weigh(seen.weight, (seen.weight, seen.weight));
        self.production.record(seen.production_first_byte);
        count_error_status(&mut self.production_errors, seen.production_status);
        let reference = match baseline {
            Some(position) => seen.targets.get(position).and_then(erred),
            None => Some(is_error_status(seen.production_status)),
        };
        let targets = std::mem::take(&mut seen.targets);
        for (book, observed) in self.targets.iter_mut().zip(targets) {
            match (erred(&observed), reference) {
                (Some(target), Some(reference)) => book.errors.record(target, reference),
                (Some(true), None) => book.errors.unpaired += 1,
                (Some(false) | None, None) | (None, Some(_)) => {}
            }
            book.record(observed, &seen);
        }
    }

    fn weigh(&mut self, weight: f64, (least, greatest): (f64, f64)) {
        self.weight += weight;
        let (low, high) = self.weights.unwrap_or((least, greatest));
        self.weights = Some((low.min(least), high.max(greatest)));
    }

    /// Whether some requests stand for more than others.
    pub(crate) fn is_uneven(&self) -> bool {
        self.weights.is_some_and(|(least, greatest)| greatest > least * 1.000_001)
    }

    /// Adds the counts and durations of another endpoint, for figures over all endpoints; differences are left out.
    pub(crate) fn merge(&mut self, other: &EndpointBook) {
        self.requests += other.requests;
        self.last = self.last.max(other.last);
        if let Some(weights) = other.weights {
            self.weigh(other.weight, weights);
        }
        self.production.merge(&other.production);
        for (&status, count) in &other.production_errors {
            *self.production_errors.entry(status).or_default() += count;
        }
        for (book, other) in self.targets.iter_mut().zip(&other.targets) {
            book.merge(other);
        }
    }
}

impl TargetBook {
    pub(crate) fn new() -> TargetBook {
        TargetBook {
            matches: 0,
            mismatches: 0,
            noise: 0,
            drift: 0,
            astray: 0,
            uncomparable: vec![0; UncomparableReason::ALL.len()],
            failed: vec![0; FailReason::ALL.len()],
            dropped: vec![0; DropReason::ALL.len()],
            error_statuses: BTreeMap::new(),
            latency: Distribution::new(),
            errors: ErrorPairs::default(),
            groups: Groups::default(),
            weighted_telling: 0.0,
            weighted_mismatches: 0.0,
        }
    }

    /// The share of mismatches among everything that was selected, replayed or not: each answer counts by its weight.
    pub(crate) fn estimated_mismatch(&self) -> Option<f64> {
        (self.weighted_telling > 0.0).then(|| self.weighted_mismatches / self.weighted_telling)
    }

    /// Answers that were compared.
    pub(crate) fn compared(&self) -> u64 {
        self.matches + self.mismatches + self.noise + self.drift
    }

    /// Answers that say something about the candidate: the trials of the mismatch rate. Shadows that both refuse what
    /// production answered have not shown that they answer it alike.
    pub(crate) fn telling(&self) -> u64 {
        self.compared().saturating_sub(self.astray)
    }

    /// Answers that were not compared for a reason that may hide a mismatch, by reason.
    ///
    /// A request altered by masking is none of them: nothing that the target does leads to that.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let uncomparable = [
            UncomparableReason::NoBaseline,
            UncomparableReason::MaskedResponse,
            UncomparableReason::Encoding,
            UncomparableReason::Framing,
            UncomparableReason::TooLarge,
        ];
        let uncomparable =
            uncomparable.map(|reason| (reason.as_str(), at(&self.uncomparable, reason as usize)));
        let failed = FailReason::BodyTooLarge;
        let failed = (failed.as_str(), at(&self.failed, failed as usize));
        uncomparable.into_iter().chain([failed]).filter(|&(_, count)| count > 0)
    }

    fn record(&mut self, observed: TargetObservation, seen: &Observation) {
        match (observed.outcome, observed.first_byte) {
            (TargetOutcome::Answered(_), Some(first_byte)) => self.latency.record(first_byte),
            (TargetOutcome::Failed(FailReason::Timeout), limit) => {
                self.latency.record_censored(limit.unwrap_or(LONGEST));
            }
            _ => {}
        }
        if let Some(status) = observed.status {
            count_error_status(&mut self.error_statuses, status);
        }
        match observed.outcome {
            TargetOutcome::Failed(reason) => count(&mut self.failed, reason as usize),
            TargetOutcome::Dropped(reason) => count(&mut self.dropped, reason as usize),
            TargetOutcome::Answered(comparison) => {
                let telling = self.telling();
                match comparison {
                    Comparison::Match => self.matches += 1,
                    Comparison::Mismatch => self.mismatches += 1,
                    Comparison::Noise => self.noise += 1,
                    Comparison::Drift => {
                        self.drift += 1;
                        let status = observed.differences.iter().any(|one| is_status(&one.place));
                        self.astray += u64::from(status);
                    }
                    Comparison::Uncomparable(reason) => count(&mut self.uncomparable, reason as usize),
                }
                if self.telling() > telling {
                    self.weighted_telling += seen.weight;
                }
                if comparison == Comparison::Mismatch {
                    self.weighted_mismatches += seen.weight;
                }
                if let Some(class) = Class::of(comparison) {
                    self.groups.record(class, observed.differences, seen);
                }
            }
        }
    }

    fn merge(&mut self, other: &TargetBook) {
        self.matches += other.matches;
        self.mismatches += other.mismatches;
        self.noise += other.noise;
        self.drift += other.drift;
        self.astray += other.astray;
        for (tally, other) in [
            (&mut self.uncomparable, &other.uncomparable),
            (&mut self.failed, &other.failed),
            (&mut self.dropped, &other.dropped),
        ] {
            for (slot, count) in tally.iter_mut().zip(other) {
                *slot += count;
            }
        }
        for (&status, count) in &other.error_statuses {
            *self.error_statuses.entry(status).or_default() += count;
        }
        self.latency.merge(&other.latency);
        self.errors.add(&other.errors);
        self.weighted_telling += other.weighted_telling;
        self.weighted_mismatches += other.weighted_mismatches;
    }
}

/// Whether a status says that the server, not the client, is at fault (RFC 9110, section 15.6).
pub(crate) fn is_error_status(status: u16) -> bool {
    status >= 500
}

/// Whether the request ended in an error at the target; `None` when it says nothing about the target.
pub(crate) fn erred(observed: &TargetObservation) -> Option<bool> {
    match observed.outcome {
        TargetOutcome::Answered(_) => Some(observed.status.is_some_and(is_error_status)),
        TargetOutcome::Failed(reason) => match reason {
            FailReason::Connect
            | FailReason::Timeout
            | FailReason::Closed
            | FailReason::Malformed
            | FailReason::Tls => Some(true),
            FailReason::BodyTooLarge | FailReason::Request | FailReason::Shutdown | FailReason::Stalled => {
                None
            }
        },
        TargetOutcome::Dropped(_) => None,
    }
}

fn count_error_status(statuses: &mut BTreeMap<u16, u64>, status: u16) {
    if status < 400 {
        return;
    }
    let known = statuses.contains_key(&status) || statuses.len() < STATUSES;
    let status = if known { status } else { status / 100 * 100 };
    *statuses.entry(status).or_default() += 1;
}

fn at(tally: &Tally, position: usize) -> u64 {
    tally.get(position).copied().unwrap_or(0)
}

fn count(tally: &mut Tally, position: usize) {
    if let Some(slot) = tally.get_mut(position) {
        *slot += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::testing::{answered, failed, observation};

    #[test]
    fn errors_are_paired_with_the_reference() {
        let with_baseline = |candidate: TargetObservation, baseline: TargetObservation| {
            let mut book = EndpointBook::new("/a".into(), 2);
            book.record(Observation { targets: vec![candidate, baseline], ..observation("/a", 1) }, Some(1));
            book.targets[0].errors
        };
        let ok = || answered(Comparison::Match, 200);
        let error = || answered(Comparison::Mismatch, 503);
        let dropped = || TargetObservation { outcome: TargetOutcome::Dropped(DropReason::Queue), ..ok() };
        let cases = [
            (ok(), ok(), [1, 0, 0, 0, 0, 0]),
            (error(), ok(), [1, 1, 0, 1, 0, 0]),
            (failed(FailReason::Timeout), ok(), [1, 1, 0, 1, 0, 0]),
            (ok(), failed(FailReason::Closed), [1, 0, 1, 0, 1, 0]),
            (error(), error(), [1, 1, 1, 0, 0, 0]),
            (dropped(), error(), [0; 6]),
            (ok(), dropped(), [0; 6]),
            (error(), dropped(), [0, 0, 0, 0, 0, 1]),
            (failed(FailReason::Shutdown), ok(), [0; 6]),
            (failed(FailReason::Stalled), ok(), [0; 6]),
        ];
        for (candidate, baseline, expected) in cases {
            let [pairs, target, reference, only_target, only_reference, unpaired] = expected;
            let name = format!("{:?} against {:?}", candidate.outcome, baseline.outcome);
            let expected = ErrorPairs { pairs, target, reference, only_target, only_reference, unpaired };
            assert_eq!(with_baseline(candidate, baseline), expected, "{name}");
        }
    }

    #[test]
    fn without_a_baseline_production_is_the_reference() {
        let mut book = EndpointBook::new("/a".into(), 1);
        let targets = || vec![answered(Comparison::Match, 500)];
        book.record(Observation { targets: targets(), production_status: 500, ..observation("/a", 1) }, None);
        book.record(Observation { targets: targets(), ..observation("/a", 2) }, None);
        assert_eq!((book.targets[0].errors.target, book.targets[0].errors.only_target), (2, 1));
    }

    #[test]
    fn shadows_that_both_refuse_have_shown_nothing_be_it_by_http_or_by_grpc() {
        use crate::compare::{Difference, DifferenceKind};

        for (place, telling) in [("status", 0), ("grpc-status", 0), ("grpc-message", 1), ("body:$[0]", 1)] {
            let mut book = TargetBook::new();
            let mut drift = answered(Comparison::Drift, 401);
            let (place, kind) = (place.to_owned(), DifferenceKind::Value);
            drift.differences = vec![Difference { place, kind, production: None, candidate: None }];
            book.record(drift, &observation("/a", 1));
            assert_eq!((book.drift, book.telling()), (1, telling));
        }
    }

    #[test]
    fn what_is_not_made_of_whole_messages_may_hide_a_mismatch() {
        let mut book = TargetBook::new();
        let broken = Comparison::Uncomparable(UncomparableReason::Framing);
        book.record(answered(broken, 200), &observation("/a", 1));
        assert_eq!(book.unknown().collect::<Vec<_>>(), [("framing", 1)]);
    }

    #[test]
    fn error_statuses_beyond_the_bound_share_their_class() {
        for extra in [0, 1] {
            let mut statuses = BTreeMap::new();
            for status in 501..501 + (STATUSES + extra) as u16 {
                count_error_status(&mut statuses, status);
            }
            count_error_status(&mut statuses, 200);
            assert_eq!(statuses.get(&500).copied(), (extra == 1).then_some(1));
            assert_eq!(statuses.values().sum::<u64>(), (STATUSES + extra) as u64);
        }
    }

    #[test]
    fn an_answer_counts_by_the_exchanges_that_it_stands_for() {
        let mut book = EndpointBook::new("/a".into(), 1);
        for (weight, comparison) in
            [(1.0, Comparison::Mismatch), (97.0, Comparison::Match), (2.0, Comparison::Noise)]
        {
            let targets = vec![answered(comparison, 200)];
            book.record(Observation { targets, weight, ..observation("/a", 1) }, None);
        }
        let dropped = Comparison::Uncomparable(UncomparableReason::Encoding);
        let targets = vec![answered(dropped, 200)];
        book.record(Observation { targets, weight: 50.0, ..observation("/a", 2) }, None);
        let mut all = EndpointBook::new("".into(), 1);
        all.merge(&book);
        for book in [book, all] {
            assert_eq!((book.weight, book.weights), (150.0, Some((1.0, 97.0))));
            assert!(book.is_uneven());
            let estimate = book.targets[0].estimated_mismatch().unwrap();
            assert!((estimate - 0.01).abs() < 1e-9, "{estimate}");
        }
        assert!(TargetBook::new().estimated_mismatch().is_none());
    }

    #[test]
    fn timeouts_are_censored_latencies_and_other_failures_are_none() {
        let mut book = TargetBook::new();
        let mut timeout = failed(FailReason::Timeout);
        timeout.first_byte = Some(Duration::from_secs(5));
        let seen = observation("/a", 1);
        book.record(timeout, &seen);
        book.record(failed(FailReason::Connect), &seen);
        book.record(answered(Comparison::Match, 200), &seen);
        assert_eq!((book.latency.count(), book.latency.censored()), (2, 1));
    }
}
