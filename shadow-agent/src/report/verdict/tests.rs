//! Tests of the verdict: each answer from the counts that lead to it.

use std::time::Duration;

use super::*;
use crate::config::{Compare, EndpointRule, Share};
use crate::exchange::{DropReason, FailReason, LostReason, UncomparableReason};
use crate::ledger::{Comparison, Ledger, ShardBatch, TargetOutcome};
use crate::report::book::ErrorPairs;
use crate::report::distribution::Distribution;
use crate::report::testing::{answered, difference, failed, report, run, targets, traffic};
use crate::report::{Observation, Report, TargetObservation};

mod evidence;

/// What is asserted of a verdict: the outcome, and a part of some reason.
fn check(name: &str, report: &Report, ledger: &Ledger, outcome: Outcome, reason: &str) {
    let verdict = report.verdict(&ledger.snapshot());
    assert_eq!(verdict.outcome, outcome, "{name}: {:#?}", verdict.reasons);
    assert!(verdict.reasons.iter().any(|text| text.contains(reason)), "{name}: {:#?}", verdict.reasons);
}

fn check_traffic(
    name: &str,
    baseline: bool,
    observations: impl IntoIterator<Item = Observation>,
    outcome: Outcome,
    reason: &str,
) {
    let report = report(baseline);
    let ledger = Ledger::new(1, targets(baseline).len());
    run(&report, &ledger, observations);
    check(name, &report, &ledger, outcome, reason);
}

/// Clean traffic in which the candidate's entry is made by `candidate`.
fn with_candidate(
    count: u64,
    baseline: bool,
    candidate: impl Fn(u64) -> TargetObservation,
) -> Vec<Observation> {
    let mut all = traffic("/a", count, 0, baseline);
    for (id, seen) in all.iter_mut().enumerate() {
        seen.targets[0] = candidate(id as u64);
    }
    all
}

fn took(first_byte: Duration) -> TargetObservation {
    TargetObservation { first_byte: Some(first_byte), ..answered(Comparison::Match, 200) }
}

#[test]
fn nothing_seen_is_not_enough() {
    check_traffic("empty", true, [], Outcome::Insufficient, "nothing was compared yet");
}

#[test]
fn mismatches() {
    let cases = [
        ("clean and plenty", 20_000, 0, Outcome::Pass, "within the limit of 0.1 %"),
        ("clean and few", 1_000, 0, Outcome::Insufficient, "more without one would pass"),
        ("all wrong", 30, 1, Outcome::Fail, "beyond the limit of 1 %"),
        ("five percent", 2_000, 20, Outcome::Fail, "/a: 100 mismatches of 2,000 compared: 5 %"),
        ("one of few", 50, 50, Outcome::Insufficient, "1 mismatches of 50"),
    ];
    for (name, count, every, outcome, reason) in cases {
        check_traffic(name, true, traffic("/a", count, every, true), outcome, reason);
    }
}

#[test]
fn noise_and_drift_are_no_mismatches() {
    for comparison in [Comparison::Noise, Comparison::Drift] {
        let all = with_candidate(20_000, true, |_| answered(comparison, 200));
        check_traffic("not the version's fault", true, all, Outcome::Pass, "0 mismatches of 20,000");
    }
}

#[test]
fn requests_that_cannot_be_sent_are_lost() {
    let all = with_candidate(20_000, true, |id| match id % 10 {
        0 => failed(FailReason::Request),
        _ => took(Duration::from_millis(2)),
    });
    check_traffic(
        "not expressible",
        true,
        all,
        Outcome::Insufficient,
        "20,000 meant to be replayed (2,000 request)",
    );
}

#[test]
fn shadows_that_refuse_everything_pass_nobody() {
    let refused = |nth: u64| {
        with_candidate(20_000, true, |id| {
            let mut target = took(Duration::from_millis(2));
            if id % nth == 0 {
                target.outcome = TargetOutcome::Answered(Comparison::Drift);
                target.status = Some(401);
                target.differences.push(difference("status", "200", "401"));
            }
            target
        })
    };
    let reason = "leaving out 20,000 to which all shadows gave another status";
    check_traffic("all refused", true, refused(1), Outcome::Insufficient, reason);
    check_traffic(
        "half refused",
        true,
        refused(2),
        Outcome::Pass,
        "0 mismatches of 10,000 compared, leaving out",
    );
}

#[test]
fn what_was_not_compared_allows_no_pass() {
    let uncomparable = |reason| answered(Comparison::Uncomparable(reason), 200);
    let unknown = [
        ("no_baseline", uncomparable(UncomparableReason::NoBaseline)),
        ("masked_response", uncomparable(UncomparableReason::MaskedResponse)),
        ("encoding", uncomparable(UncomparableReason::Encoding)),
        ("too_large", uncomparable(UncomparableReason::TooLarge)),
        ("body_too_large", failed(FailReason::BodyTooLarge)),
    ];
    for (name, unknown) in unknown {
        let every = |nth: u64| {
            with_candidate(20_000, true, |id| {
                if id.is_multiple_of(nth) { unknown.clone() } else { took(Duration::from_millis(2)) }
            })
        };
        check_traffic(name, true, every(20), Outcome::Insufficient, &format!("(1,000 {name})"));
        check_traffic(name, true, every(1), Outcome::Insufficient, "nothing was compared yet");
        check_traffic(name, true, every(10_000), Outcome::Pass, &format!("(2 {name})"));
        // A rare endpoint of which nothing is known is suspect.
        let mut all = traffic("/often", 30_000, 0, true);
        let mut rare = traffic("/rare", 12, 0, true);
        rare.iter_mut().for_each(|seen| seen.targets[0] = unknown.clone());
        all.extend(rare);
        check_traffic(name, true, all, Outcome::Insufficient, "/rare: nothing was compared yet");
    }
    let masked = with_candidate(20_000, true, |id| match id.is_multiple_of(4) {
        true => uncomparable(UncomparableReason::MaskedRequest),
        false => took(Duration::from_millis(2)),
    });
    check_traffic("of no target's making", true, masked, Outcome::Pass, "0 mismatches of 15,000 compared:");
}

#[test]
fn what_was_not_compared_fails_nobody() {
    let levels = Levels { pass: 0.05, fail: 0.05 };
    let mut outcomes = Vec::new();
    for unknown in [0, 100, 10_000] {
        let mut book = TargetBook::new();
        (book.mismatches, book.matches) = (20, 480);
        book.uncomparable[UncomparableReason::NoBaseline as usize] = unknown;
        let check = checks::mismatch(&book, 0.01, levels);
        let (lower, value, upper) = (check.lower.unwrap(), check.value.unwrap(), check.upper.unwrap());
        assert!(lower <= value && value <= upper && (check.samples, value) == (500, 0.04), "{check:?}");
        outcomes.push(check.outcome.unwrap());
    }
    assert_eq!(outcomes, [Outcome::Fail, Outcome::Fail, Outcome::Insufficient]);
    let mut book = TargetBook::new();
    book.matches = 50_000;
    book.uncomparable[UncomparableReason::NoBaseline as usize] = 1;
    assert_eq!(checks::mismatch(&book, 0.0, levels).outcome, Some(Outcome::Insufficient));
}

#[test]
fn a_baseline_that_is_not_there_clears_nobody() {
    let down = || TargetObservation {
        outcome: TargetOutcome::Dropped(DropReason::Breaker),
        ..failed(FailReason::Connect)
    };
    let judge = |candidate: TargetObservation, nth: u64, outcome: Outcome, reason: &str| {
        let mut all = with_candidate(20_000, true, |_| took(Duration::from_millis(2)));
        for (_, seen) in all.iter_mut().enumerate().filter(|(id, _)| id % nth as usize == 0) {
            seen.targets[0] = candidate.clone();
            seen.targets[1] = down();
        }
        check_traffic(reason, true, all, outcome, reason);
    };
    judge(took(Duration::from_millis(2)), 1, Outcome::Insufficient, "no request was answered by both");
    judge(
        failed(FailReason::Closed),
        20,
        Outcome::Insufficient,
        "and 1,000 errors that baseline was not there for",
    );
}

#[test]
fn a_candidate_that_is_down_fails_and_the_reason_says_so() {
    let all = with_candidate(2_000, true, |id| match id {
        0..10 => failed(FailReason::Connect),
        _ => TargetObservation {
            outcome: TargetOutcome::Dropped(DropReason::Breaker),
            ..failed(FailReason::Connect)
        },
    });
    check_traffic(
        "down",
        true,
        all,
        Outcome::Fail,
        "1,990 lost or dropped of 2,000 meant to be replayed (1,990 breaker)",
    );
}

#[test]
fn without_a_baseline_latency_is_not_judged() {
    check_traffic(
        "no baseline",
        false,
        traffic("/a", 20_000, 0, false),
        Outcome::Pass,
        "there is no baseline",
    );
    let slow = with_candidate(20_000, false, |_| took(Duration::from_secs(3)));
    check_traffic("slow, unknown to whom", false, slow, Outcome::Pass, "there is no baseline");
}

#[test]
fn latency_against_the_baseline() {
    // The baseline of `traffic` takes 2 ms.
    let cases = [
        ("as quick", Duration::from_millis(2), Outcome::Pass, "within the limit of 1.5"),
        ("quicker", Duration::from_micros(300), Outcome::Pass, "within the limit of 1.5"),
        (
            "a little over a small figure",
            Duration::from_micros(2_900),
            Outcome::Pass,
            "within the limit of 1.5",
        ),
        ("three times", Duration::from_millis(6), Outcome::Fail, "p95 6"),
    ];
    for (name, candidate, outcome, reason) in cases {
        check_traffic(name, true, with_candidate(20_000, true, |_| took(candidate)), outcome, reason);
    }
    let mut quick = with_candidate(20_000, true, |_| took(Duration::from_micros(700)));
    for seen in &mut quick {
        seen.targets[1].first_byte = Some(Duration::from_micros(200));
    }
    check_traffic("three times next to nothing", true, quick, Outcome::Pass, "later by no more than 1.00 ms");
}

#[test]
fn timeouts_count_as_at_least_the_timeout() {
    // A tenth of the candidate's requests time out: p95 lies among them, however quick the others are.
    let all = with_candidate(20_000, true, |id| {
        if id % 10 == 0 {
            TargetObservation { first_byte: Some(Duration::from_secs(5)), ..failed(FailReason::Timeout) }
        } else {
            took(Duration::from_millis(2))
        }
    });
    check_traffic("timeouts", true, all, Outcome::Fail, "p95 at least 5.0");
}

#[test]
fn one_slow_endpoint_fails_even_if_it_is_rare() {
    let mut all = traffic("/quick", 30_000, 0, true);
    let mut slow = traffic("/slow", 600, 0, true);
    for seen in &mut slow {
        seen.targets[0].first_byte = Some(Duration::from_millis(20));
    }
    all.extend(slow);
    check_traffic("a slow endpoint", true, all, Outcome::Fail, "/slow: p95 20");
}

#[test]
fn errors_against_the_reference() {
    let failing = |every: u64| {
        move |id: u64| {
            if id.is_multiple_of(every) { failed(FailReason::Closed) } else { took(Duration::from_millis(2)) }
        }
    };
    let cases = [
        (
            "a tenth fails",
            true,
            with_candidate(5_000, true, failing(10)),
            Outcome::Fail,
            "errors 10 % against 0 %",
        ),
        ("of production", false, with_candidate(5_000, false, failing(10)), Outcome::Fail, "of production"),
        (
            "hardly any",
            true,
            with_candidate(40_000, true, failing(40_000)),
            Outcome::Pass,
            "an excess within",
        ),
    ];
    for (name, baseline, all, outcome, reason) in cases {
        check_traffic(name, baseline, all, outcome, reason);
    }
    let mut both = with_candidate(40_000, true, failing(10));
    for (id, seen) in both.iter_mut().enumerate() {
        if id % 10 == 0 {
            seen.targets[1] = failed(FailReason::Closed);
        }
    }
    check_traffic("the baseline fails alike", true, both, Outcome::Pass, "an excess within");
}

#[test]
fn errors_of_both_at_different_requests_cancel_out() {
    let levels = Levels { pass: 0.05, fail: 0.05 };
    // Out of 200,000 requests: errors of the candidate alone, of the reference alone.
    let cases = [
        (4_000, 4_000, Outcome::Pass),
        (4_700, 4_000, Outcome::Insufficient),
        (6_000, 4_000, Outcome::Fail),
        (100, 4_000, Outcome::Pass),
    ];
    for (only_target, only_reference, outcome) in cases {
        let pairs = ErrorPairs {
            pairs: 200_000,
            target: only_target,
            reference: only_reference,
            only_target,
            only_reference,
            unpaired: 0,
        };
        let check = checks::errors(&pairs, "baseline", 1.2, 0.001, levels);
        assert_eq!(check.outcome, Some(outcome), "{only_target} against {only_reference}: {check:?}");
    }
}

#[test]
fn rare_endpoints_do_not_hold_up_a_pass_unless_they_are_suspect() {
    let rare = |every: u64| {
        let mut all = traffic("/often", 30_000, 0, true);
        all.extend(traffic("/rare", 12, every, true));
        all
    };
    check_traffic("rare and clean", true, rare(0), Outcome::Pass, "1 of 2 endpoints are too rare");
    check_traffic("rare and suspect", true, rare(12), Outcome::Insufficient, "/rare: 1 mismatches of 12");
    check_traffic("rare and broken", true, rare(1), Outcome::Fail, "/rare: 12 mismatches of 12");
}

#[test]
fn an_endpoint_with_a_limit_of_its_own_needs_evidence() {
    let judge = |limit: f64, observations: Vec<Observation>| {
        let rule = EndpointRule { path: "/refunds".to_owned(), mismatch: Some(Share(limit)) };
        let compare = Compare { endpoints: vec![rule], ..Compare::default() };
        let report = Report::new(&config::Verdict::default(), &compare, targets(true), "");
        let ledger = Ledger::new(1, 2);
        run(&report, &ledger, traffic("/often", 30_000, 0, true));
        run(&report, &ledger, observations);
        (report, ledger)
    };
    let cases = [
        ("never seen", 0.01, 0, 0, Outcome::Insufficient, "/refunds: nothing was compared yet"),
        ("seen a little", 0.01, 40, 0, Outcome::Insufficient, "POST /refunds: 0 mismatches of 40"),
        ("seen enough", 0.01, 1_000, 0, Outcome::Pass, "within the limit"),
        ("none tolerated, none seen", 0.0, 2_000, 0, Outcome::Pass, "within the limit"),
        ("none tolerated, one seen", 0.0, 2_000, 2_000, Outcome::Fail, "beyond the limit of 0 %"),
        ("tolerated there, too much for all", 0.5, 1_000, 10, Outcome::Fail, "overall: 100 mismatches"),
    ];
    for (name, limit, count, every, outcome, reason) in cases {
        let (report, ledger) = judge(limit, traffic("POST /refunds", count, every, true));
        check(name, &report, &ledger, outcome, reason);
    }
}

#[test]
fn loss_counts_what_should_have_been_replayed_and_fails_nobody() {
    let judge = |batch: ShardBatch, dropped: u64| {
        let report = report(false);
        let ledger = Ledger::new(1, 1);
        run(&report, &ledger, traffic("/a", 20_000, 0, false));
        ledger.shard(0, &batch);
        for _ in 0..dropped {
            ledger.shard(0, &ShardBatch { seen: 1, queued: 1, ..ShardBatch::default() });
            ledger.selected();
            ledger.ended(0, TargetOutcome::Dropped(DropReason::Queue));
        }
        (report, ledger)
    };
    let lost =
        |reason, count| ShardBatch { seen: count, lost: vec![(reason, count)], ..ShardBatch::default() };
    let cases = [
        ("a few gaps", lost(LostReason::Gap, 20), 0, Outcome::Pass, "lost or dropped"),
        (
            "many gaps",
            lost(LostReason::Gap, 2_000),
            0,
            Outcome::Insufficient,
            "2,000 lost or dropped of 22,000",
        ),
        ("open at the end", lost(LostReason::Shutdown, 2_000), 0, Outcome::Pass, "0 lost or dropped"),
        (
            "left out by the sample",
            lost(LostReason::SampledOut, 2_000),
            0,
            Outcome::Pass,
            "0 lost or dropped",
        ),
        (
            "too slow to take them",
            ShardBatch::default(),
            2_000,
            Outcome::Insufficient,
            "2,000 lost or dropped of 22,000",
        ),
    ];
    for (name, batch, dropped, outcome, reason) in cases {
        let (report, ledger) = judge(batch, dropped);
        check(name, &report, &ledger, outcome, reason);
    }
}

#[test]
fn where_some_answers_stand_for_more_the_verdict_says_what_that_comes_to() {
    let reasons = |weight: f64| {
        let (report, ledger) = (report(false), Ledger::new(1, 1));
        let mut all = traffic("/common", 400, 0, false);
        all.iter_mut().for_each(|seen| seen.weight = weight);
        all.extend(traffic("/rare", 10, 1, false));
        run(&report, &ledger, all);
        report.verdict(&ledger.snapshot()).targets[0].reasons.join("; ")
    };
    let said = "of all that was selected, 0.025 % are estimated to mismatch";
    assert!(reasons(99.975).contains(said), "{}", reasons(99.975));
    assert!(!reasons(1.0).contains("estimated"), "{}", reasons(1.0));
}
