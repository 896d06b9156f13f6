//! Tests of what guards find.

use super::*;
use crate::config::Share;
use crate::exchange::FailReason;
use crate::ledger::Comparison;
use crate::report::testing::{answered, failed, observation};
use crate::report::{Observation, TargetObservation};

const SECOND: Duration = Duration::from_secs(1);

/// Guards that all look, over windows of 2 s.
fn guards() -> Guards {
    fn rule<T>(threshold: T, action: GuardAction) -> GuardRule<T> {
        GuardRule { threshold, window: SECOND * 2, action }
    }
    Guards {
        pause: SECOND * 5,
        production_latency: rule(1.5, GuardAction::StepBack),
        production_errors: rule(Share(0.02), GuardAction::StepBack),
        shadow_errors: rule(Share(0.5), GuardAction::PauseTarget),
        shadow_latency: rule(SECOND, GuardAction::PauseTarget),
        memory: rule(Some(1 << 30), GuardAction::Disable),
        ring_losses: rule(Share(0.05), GuardAction::StepBack),
        mask_failures: GuardAction::Disable,
    }
}

struct Bench {
    watch: Watch,
    vitals: Vitals,
    reading: Reading,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(&guards())
    }

    fn with(guards: &Guards) -> Bench {
        let (watch, vitals) = (Watch::new(guards, 2, 0), Vitals::new(guards, 2));
        Bench { watch, vitals, reading: Reading::default() }
    }

    fn turn(&mut self, rung: usize) -> Vec<(Name, Deed)> {
        let found = self.watch.observe(&self.reading, &self.vitals, rung, SECOND);
        found.into_iter().map(|found| (found.guard, found.deed)).collect()
    }

    /// A whole window in which production answers so many requests, of which so many with an error, in so long.
    fn production(&mut self, rung: usize, count: u64, errors: u64, millis: u64) -> Vec<(Name, Deed)> {
        self.watch.restart_windows();
        let mut found = self.turn(rung);
        for number in 0..count {
            let status = if number < errors { 503 } else { 200 };
            self.vitals.answered(status, Duration::from_millis(millis));
        }
        found.extend(self.turn(rung));
        found.extend(self.turn(rung));
        found
    }

    fn target(&mut self, count: u64, observed: &TargetObservation) {
        for _ in 0..count {
            let targets = vec![observed.clone(), answered(Comparison::Match, 200)];
            self.vitals.ended(&Observation { targets, ..observation("/a", 1) });
        }
    }
}

#[test]
fn production_is_compared_with_itself_at_a_lower_share() {
    let latency = vec![(Name::ProductionLatency, Deed::StepBack)];
    for (before, now, count, expected) in [
        (20, 31, LEAST_TIMES, latency.clone()),
        (20, 31, LEAST_TIMES - 1, vec![]),
        (20, 29, LEAST_TIMES, vec![]),
        // Three times as long, and not by enough to be more than noise.
        (2, 6, LEAST_TIMES, vec![]),
        (2, 8, LEAST_TIMES, latency),
    ] {
        let mut bench = Bench::new();
        assert_eq!(bench.production(0, 1000, 0, before), [], "nothing is replayed yet");
        assert_eq!(bench.production(1, count, 0, now), expected, "{count} of {now} ms after {before} ms");
        assert_eq!(bench.watch.tripped(Name::ProductionLatency), !expected.is_empty());
    }
}

#[test]
fn without_a_lower_share_there_is_nothing_to_compare_with() {
    let mut bench = Bench::new();
    assert_eq!(bench.production(1, 1000, 0, 20), []);
    assert_eq!(bench.production(1, 1000, 500, 200), []);
}

#[test]
fn errors_of_production_are_compared_with_what_was_usual() {
    let errors = vec![(Name::ProductionErrors, Deed::StepBack)];
    for (before, now, count, expected) in [
        (0, 3, LEAST_ANSWERS, errors.clone()),
        (0, 2, LEAST_ANSWERS, vec![]),
        (0, 99, LEAST_ANSWERS - 1, vec![]),
        (10, 12, LEAST_ANSWERS, vec![]),
        (10, 13, LEAST_ANSWERS, errors),
    ] {
        let mut bench = Bench::new();
        bench.production(0, 100, before, 1);
        assert_eq!(bench.production(1, count, now, 1), expected, "{now} of {count} after {before} %");
    }
}

#[test]
fn production_that_became_slow_by_itself_costs_one_step_back() {
    let mut bench = Bench::new();
    bench.production(0, 1000, 0, 20);
    bench.production(1, 1000, 0, 20);
    assert_eq!(bench.production(2, 1000, 0, 20), []);
    assert_eq!(bench.production(2, 1000, 0, 40).len(), 1);
    assert_eq!(bench.production(1, 1000, 0, 40).len(), 1, "against rung 0, which is as old");
    // Nothing is replayed, and it is as slow: that is usual now.
    assert_eq!(bench.production(0, 1000, 0, 40), []);
    for rung in [1, 2, 2] {
        assert_eq!(bench.production(rung, 1000, 0, 40), []);
    }
    assert!(!bench.watch.tripped(Name::ProductionLatency));
}

#[test]
fn a_target_that_fails_is_paused_probed_and_resumed_and_the_other_goes_on() {
    let mut bench = Bench::new();
    bench.turn(1);
    bench.target(LEAST_ANSWERS / 2 - 1, &answered(Comparison::Match, 200));
    bench.target(LEAST_ANSWERS / 2 + 1, &failed(FailReason::Closed));
    assert_eq!(bench.turn(1), []);
    assert_eq!(bench.turn(1), [(Name::ShadowErrors, Deed::Pause(0, SECOND * 5))]);
    assert!(bench.watch.tripped(Name::ShadowErrors));
    let found: Vec<_> = (0..5).flat_map(|_| bench.turn(1)).collect();
    assert_eq!(found, [(Name::ShadowErrors, Deed::Probe(0))]);
    bench.target(20, &failed(FailReason::Connect));
    assert_eq!(bench.turn(1), [(Name::ShadowErrors, Deed::Pause(0, SECOND * 10))]);
    (0..10).for_each(|_| drop(bench.turn(1)));
    bench.target(20, &answered(Comparison::Mismatch, 200));
    assert_eq!(bench.turn(1), [(Name::ShadowErrors, Deed::Resume(0))]);
    assert!(!bench.watch.tripped(Name::ShadowErrors));
}

#[test]
fn too_few_requests_pause_nobody() {
    let mut bench = Bench::new();
    bench.turn(1);
    bench.target(LEAST_ANSWERS - 1, &failed(FailReason::Closed));
    assert_eq!((0..10).flat_map(|_| bench.turn(1)).count(), 0);
}

#[test]
fn a_target_that_is_slow_is_paused_and_timeouts_are_slow() {
    let slow =
        |first_byte| TargetObservation { first_byte: Some(first_byte), ..answered(Comparison::Match, 200) };
    let timeout = TargetObservation { first_byte: Some(SECOND * 5), ..failed(FailReason::Timeout) };
    for (observed, expected) in [(slow(SECOND / 2), 0), (slow(SECOND * 2), 1), (timeout, 1)] {
        let mut bench = Bench::new();
        bench.turn(1);
        bench.target(90, &slow(SECOND / 2));
        bench.target(10, &observed);
        let found: Vec<_> = (0..2).flat_map(|_| bench.turn(1)).collect();
        assert_eq!(found.len(), expected, "{found:?}");
        assert!(found.iter().all(|found| *found == (Name::ShadowLatency, Deed::Pause(0, SECOND * 5))));
        if expected > 0 {
            (0..5).for_each(|_| drop(bench.turn(1)));
            bench.target(20, &slow(SECOND * 2));
            assert_eq!(bench.turn(1), [(Name::ShadowLatency, Deed::Pause(0, SECOND * 10))]);
        }
    }
}

#[test]
fn a_guard_may_do_something_else() {
    let mut guards = guards();
    guards.shadow_errors.action = GuardAction::StepBack;
    guards.ring_losses.action = GuardAction::Off;
    let mut bench = Bench::with(&guards);
    bench.turn(1);
    bench.target(LEAST_ANSWERS, &failed(FailReason::Closed));
    bench.reading.packets = Tally { total: 10_000, bad: 10_000 };
    let found: Vec<_> = (0..2).flat_map(|_| bench.turn(1)).collect();
    assert_eq!(found, [(Name::ShadowErrors, Deed::StepBack)]);
}

#[test]
fn packets_that_found_their_ring_full_are_too_many_above_the_threshold() {
    for (total, bad, expected) in
        [(LEAST_PACKETS, 50, 0), (LEAST_PACKETS, 51, 1), (LEAST_PACKETS - 1, 999, 0)]
    {
        let mut bench = Bench::new();
        bench.turn(1);
        bench.reading.packets = Tally { total, bad };
        let found: Vec<_> = (0..2).flat_map(|_| bench.turn(1)).collect();
        assert_eq!(found.len(), expected, "{bad} of {total}: {found:?}");
    }
}

#[test]
fn memory_that_stays_above_its_threshold_disables() {
    let mut bench = Bench::new();
    for (memory, expected) in [((1 << 30) + 1, 0), (1 << 30, 0), ((1 << 30) + 1, 0), ((1 << 30) + 1, 1)] {
        bench.reading.memory = memory;
        let found = bench.turn(1);
        assert_eq!(found.len(), expected, "{found:?}");
        assert!(found.iter().all(|found| *found == (Name::Memory, Deed::Disable)));
    }
    let mut guards = guards();
    guards.memory.threshold = None;
    assert_eq!(Watch::new(&guards, 0, 100).memory, 200 + MEMORY_ALLOWANCE);
}

#[test]
fn one_value_that_was_not_hidden_disables_at_once_and_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.turn(1), []);
    bench.reading.mask_failures = 1;
    assert_eq!(bench.turn(1), [(Name::MaskFailures, Deed::Disable)]);
    assert_eq!(bench.turn(1), []);
    assert!(bench.watch.tripped(Name::MaskFailures));
    bench.watch.restart();
    assert!(!bench.watch.tripped(Name::MaskFailures));
    assert_eq!(bench.turn(1), [], "what was found before is known");
    bench.reading.mask_failures = 2;
    assert_eq!(bench.turn(1).len(), 1);
}

#[test]
fn production_is_observed_until_every_guard_of_it_had_a_window_and_not_for_ever() {
    let mut guards = guards();
    let observation = |guards: &Guards| Watch::new(guards, 0, 0).observation();
    guards.production_errors.window = SECOND * 3;
    assert_eq!(observation(&guards), Some(SECOND * 3 * STRETCH));
    guards.production_errors.action = GuardAction::Off;
    assert_eq!(observation(&guards), Some(SECOND * 2 * STRETCH));
    guards.production_latency.action = GuardAction::Off;
    assert_eq!(observation(&guards), None);
    assert_eq!(observation(&Guards::default()), None);
    let mut bench = Bench::new();
    assert!(!bench.watch.knows_usual());
    bench.production(0, LEAST_TIMES - 1, 0, 1);
    assert!(!bench.watch.knows_usual(), "errors are known, times are not");
    bench.production(0, LEAST_TIMES, 0, 1);
    assert!(bench.watch.knows_usual());
    bench.watch.restart();
    assert!(!bench.watch.knows_usual());
}

#[test]
fn what_is_found_is_said_with_its_figures() {
    let mut bench = Bench::new();
    bench.production(0, 1000, 0, 20);
    let mut found = Vec::new();
    for _ in 0..3 {
        found.extend(bench.watch.observe(&bench.reading, &bench.vitals, 1, SECOND));
        (0..400).for_each(|_| bench.vitals.answered(200, Duration::from_millis(50)));
    }
    let said: Vec<_> = found.iter().map(|found| found.said.as_str()).collect();
    assert_eq!(
        said,
        [
            "p99 of production's time to first byte was 50.2 ms in 800 responses, 2.5 times the 20.1 ms while less was \
          replayed, and may be 1.5 times"
        ]
    );
}
