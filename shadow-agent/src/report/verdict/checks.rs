//! The four checks: what each figure is, and when it is within its limit.
//!
//! Each takes counts and gives one [`Check`] with a sentence for people. They know nothing of other checks.

use std::time::Duration;

use super::{Check, CheckName, Outcome, with_bounds};
use crate::exchange::{DropReason, FailReason, LostReason};
use crate::ledger;
use crate::report::book::{ErrorPairs, TargetBook};
use crate::report::distribution::Distribution;
use crate::report::sequence::{self, Interval};
use crate::report::words::{duration, percent, thousands};

/// No sample can show a rate of 0: a limit of 0 tolerates nothing seen, and is held once the rate is surely below this.
pub(crate) const ZERO_LIMIT_MARGIN: f64 = 0.01;
/// An excess of errors up to this share is never held against a candidate, however few errors the reference has.
pub(crate) const ERRORS_FLOOR: f64 = 0.001;
/// A p95 that is later by no more than this is never held against a candidate, however quick the baseline is.
pub(crate) const LATENCY_FLOOR: Duration = Duration::from_millis(1);
/// More requests than this are not asked for by number.
const MOST_TRIALS: u64 = 100_000_000;
const P95: f64 = 0.95;

/// Error probabilities of a check's bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels {
    /// Of the bound that lets it pass, and of the bounds shown.
    pub(crate) pass: f64,
    /// Of the bound that lets it fail: its share of the whole.
    pub(crate) fail: f64,
}

/// The share of compared answers that mismatch.
///
/// What all shadows answered with another status than production is left out: it shows nothing about either. What could
/// not be compared may be a mismatch, so the upper bound counts it as one and the lower bound does not.
pub(crate) fn mismatch(book: &TargetBook, limit: f64, levels: Levels) -> Check {
    let unknown: u64 = book.unknown().map(|(_, count)| count).sum();
    let counts = Counts { sure: book.mismatches, unknown, known: book.telling() };
    let mut remark = match unknown {
        0 => String::new(),
        _ => {
            format!(" and {} that may be one, not compared ({})", thousands(unknown), listed(book.unknown()))
        }
    };
    if book.astray > 0 {
        remark += &format!(
            ", leaving out {} to which all shadows gave another status than production",
            thousands(book.astray)
        );
    }
    rate(CheckName::Mismatch, counts, limit, levels, ["mismatches", "compared"], &remark)
}

/// The largest share of mismatches that is possible with what was not compared; `None` before anything was answered.
pub(crate) fn possible_mismatches(book: &TargetBook) -> Option<f64> {
    let unknown: u64 = book.unknown().map(|(_, count)| count).sum();
    let all = book.telling() + unknown;
    (all > 0).then(|| (book.mismatches + unknown) as f64 / all as f64)
}

/// The share of exchanges lost on the way, dropped because a target or the agent could not take them, or not
/// expressible to the candidate.
///
/// What was lost because the agent stopped, or because it lowered sampling, says nothing about the evidence and is left
/// out; so is what the operator wished to be dropped (rate limit, kill switch). Too much loss is a lack of evidence and not a fault of the candidate,
/// with one exception: what its circuit breaker held back while the `baseline` took its share fails it.
pub(crate) fn loss(
    ledger: &ledger::Snapshot,
    target: usize,
    baseline: Option<usize>,
    limit: f64,
    levels: Levels,
) -> Check {
    let held_back = |target: usize| {
        let count = |reason: DropReason| {
            let counts = ledger.targets.get(target).and_then(|counts| counts.dropped.get(reason as usize));
            counts.copied().unwrap_or(0)
        };
        count(DropReason::Breaker) + count(DropReason::Paused)
    };
    let refused = held_back(target).saturating_sub(baseline.map_or(0, held_back));
    // Whom sampling leaves out is chance; whom the budget leaves out is whoever sends much, so that does count.
    let ours = [LostReason::Shutdown, LostReason::SampledOut];
    let lost = LostReason::ALL.iter().zip(&ledger.lost).filter(|(reason, _)| !ours.contains(reason));
    let lost: Vec<_> = lost.map(|(reason, &count)| (reason.as_str(), count)).collect();
    let target = ledger.targets.get(target);
    let dropped = [
        DropReason::Queue,
        DropReason::Breaker,
        DropReason::Paused,
        DropReason::Concurrency,
        DropReason::Memory,
        DropReason::Socket,
        DropReason::Order,
        DropReason::Token,
    ];
    let dropped = dropped.map(|reason| {
        let count = target.and_then(|counts| counts.dropped.get(reason as usize));
        (reason.as_str(), count.copied().unwrap_or(0))
    });
    let unjudged = [FailReason::Request, FailReason::Stalled].map(|reason| {
        let count = target.and_then(|counts| counts.failed.get(reason as usize));
        (reason.as_str(), count.copied().unwrap_or(0))
    });
    let dropped: Vec<_> = dropped.into_iter().chain(unjudged).collect();
    let sum = |counts: &[(&str, u64)]| counts.iter().map(|(_, count)| count).sum::<u64>();
    let (all_lost, all_dropped) = (sum(&lost), sum(&dropped));
    let counts = Counts { sure: all_lost + all_dropped, unknown: 0, known: ledger.selected + all_lost };
    let remark = match counts.sure {
        0 => String::new(),
        _ => format!(" ({})", listed(lost.into_iter().chain(dropped).filter(|&(_, count)| count > 0))),
    };
    let check =
        rate(CheckName::Loss, counts, limit, levels, ["lost or dropped", "meant to be replayed"], &remark);
    let refused = Counts { sure: refused, ..counts };
    let outcome = match check.outcome {
        Some(Outcome::Fail) if refused.bounds(limit, levels.fail).lower <= limit => {
            Some(Outcome::Insufficient)
        }
        outcome => outcome,
    };
    Check { outcome, ..check }
}

fn listed<'a>(counts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let all: Vec<String> = counts.map(|(name, count)| format!("{} {name}", thousands(count))).collect();
    all.join(", ")
}

/// What a rate rests on.
#[derive(Clone, Copy, Debug)]
struct Counts {
    /// Trials that surely count.
    sure: u64,
    /// Trials that may count.
    unknown: u64,
    /// Trials of which it is known whether they count; the unknown ones are none of them.
    known: u64,
}

impl Counts {
    /// Bounds that hold whatever the unknown trials are.
    fn bounds(self, around: f64, alpha: f64) -> Interval {
        let (all, most) = (self.known + self.unknown, self.sure + self.unknown);
        let upper = sequence::rate(most, all, around, alpha);
        let lower = if self.unknown == 0 { upper } else { sequence::rate(self.sure, all, around, alpha) };
        Interval { lower: lower.lower, upper: upper.upper }
    }
}

fn rate(
    name: CheckName,
    counts: Counts,
    limit: f64,
    levels: Levels,
    [what, whole]: [&str; 2],
    remark: &str,
) -> Check {
    let Counts { sure, unknown, known } = counts;
    let zero = limit <= 0.0;
    let tolerated = if zero { ZERO_LIMIT_MARGIN } else { limit };
    let shown = counts.bounds(tolerated, levels.pass);
    let within = known > 0 && shown.upper <= tolerated && !(zero && unknown > 0);
    let outcome = if zero && sure > 0 {
        Outcome::Fail
    } else if limit >= 1.0 || within {
        Outcome::Pass
    } else if counts.bounds(tolerated, levels.fail).lower > limit {
        Outcome::Fail
    } else {
        Outcome::Insufficient
    };
    let value = (known > 0).then(|| sure as f64 / known as f64);
    let figure = match value {
        None => format!("nothing was {whole} yet{remark}"),
        Some(value) => format!(
            "{} {what} of {} {whole}{remark}: {}",
            thousands(sure),
            thousands(known),
            with_bounds(value, shown.lower, shown.upper)
        ),
    };
    let reason = match outcome {
        Outcome::Pass => format!("{figure}, within the limit of {}", percent(limit)),
        Outcome::Fail => format!("{figure}, beyond the limit of {}", percent(limit)),
        Outcome::Insufficient => {
            let (most, all) = (sure + unknown, known + unknown);
            let needed = sequence::trials_until_within(most, all.max(1), tolerated, levels.pass, MOST_TRIALS);
            let more = needed.map(|needed| needed.saturating_sub(all)).filter(|&more| more > 0);
            match more {
                Some(more) => format!(
                    "{figure}, limit {}; about {} more without one would pass",
                    percent(limit),
                    thousands(more)
                ),
                None => format!("{figure}, limit {}", percent(limit)),
            }
        }
    };
    Check {
        check: name,
        outcome: Some(outcome),
        value,
        lower: Some(shown.lower),
        upper: Some(shown.upper),
        limit,
        samples: known,
        reason,
    }
}

/// The candidate's error share (5xx and failures) less the reference's, over the same requests.
///
/// Tolerated is the greater of `(ratio - 1)` times the reference's share, the `mismatch` limit and [`ERRORS_FLOOR`].
/// Requests at which both erred cancel out, so the bounds come from those at which only one did. Errors to requests of
/// which the reference said nothing count in the upper bound alone.
pub(crate) fn errors(
    pairs: &ErrorPairs,
    reference: &str,
    ratio: f64,
    mismatch: f64,
    levels: Levels,
) -> Check {
    let floor = mismatch.max(ERRORS_FLOOR);
    let bounds = |alpha: f64| {
        let of = |count: u64| sequence::rate(count, pairs.pairs, floor, alpha / 3.0);
        let (other, reference) = (of(pairs.only_reference), of(pairs.reference));
        let only_target = Counts { sure: pairs.only_target, unknown: pairs.unpaired, known: pairs.pairs };
        let target = only_target.bounds(floor, alpha / 3.0);
        let excess = Interval { lower: target.lower - other.upper, upper: target.upper - other.lower };
        (excess, reference)
    };
    let tolerated = |reference: f64| ((ratio - 1.0) * reference).max(floor);
    let share = |count: u64| count as f64 / pairs.pairs.max(1) as f64;
    let limit = tolerated(share(pairs.reference));
    let (shown, reference_shown) = bounds(levels.pass);
    let (surely, reference_surely) = bounds(levels.fail);
    let outcome = if floor >= 1.0 || (pairs.pairs > 0 && shown.upper <= tolerated(reference_shown.lower)) {
        Outcome::Pass
    } else if surely.lower > tolerated(reference_surely.upper) {
        Outcome::Fail
    } else {
        Outcome::Insufficient
    };
    let value = (pairs.pairs > 0).then(|| share(pairs.target) - share(pairs.reference));
    let figure = match value {
        None => format!("no request was answered by both the candidate and {reference} yet"),
        Some(_) => format!(
            "errors {} against {} of {reference} in {} requests",
            percent(share(pairs.target)),
            percent(share(pairs.reference)),
            thousands(pairs.pairs)
        ),
    };
    let figure = match pairs.unpaired {
        0 => figure,
        unpaired => {
            format!("{figure}, and {} errors that {reference} was not there for", thousands(unpaired))
        }
    };
    let reason = match outcome {
        Outcome::Pass => format!("{figure}, an excess within the {} tolerated", percent(limit)),
        Outcome::Fail => format!("{figure}, an excess beyond the {} tolerated", percent(limit)),
        Outcome::Insufficient => format!("{figure}, not enough to tell an excess of {}", percent(limit)),
    };
    Check {
        check: CheckName::Errors,
        outcome: Some(outcome),
        value,
        lower: Some(shown.lower),
        upper: Some(shown.upper),
        limit,
        samples: pairs.pairs,
        reason,
    }
}

/// The candidate's p95 as a multiple of the baseline's; timeouts count as "at least the timeout".
pub(crate) fn latency(
    candidate: &Distribution,
    baseline: Option<&Distribution>,
    limit: f64,
    levels: Levels,
) -> Check {
    let mut check = Check {
        check: CheckName::LatencyP95,
        outcome: None,
        value: None,
        lower: None,
        upper: None,
        limit,
        samples: candidate.count(),
        reason: "latency was not judged, because there is no baseline to measure against".to_owned(),
    };
    let Some(baseline) = baseline else { return check };
    check.samples = candidate.count().min(baseline.count());
    let tolerated = |baseline: Duration| baseline.mul_f64(limit.max(0.0)).max(baseline + LATENCY_FLOOR);
    // Each side's bounds get half of the error probability.
    let (ours, theirs) = (candidate.bounds(P95, levels.pass / 2.0), baseline.bounds(P95, levels.pass / 2.0));
    let (surely, theirs_surely) =
        (candidate.bounds(P95, levels.fail / 2.0), baseline.bounds(P95, levels.fail / 2.0));
    let outcome = if check.samples > 0 && ours.upper.is_some_and(|upper| upper <= tolerated(theirs.lower)) {
        Outcome::Pass
    } else if theirs_surely.upper.is_some_and(|upper| surely.lower > tolerated(upper)) {
        Outcome::Fail
    } else {
        Outcome::Insufficient
    };
    check.outcome = Some(outcome);
    check.lower = theirs.upper.map(|upper| ratio(ours.lower, upper));
    check.upper = ours.upper.filter(|_| !theirs.lower.is_zero()).map(|upper| ratio(upper, theirs.lower));
    let (Some(p95), Some(baseline_p95)) = (candidate.quantile(P95), baseline.quantile(P95)) else {
        check.reason = "no latency of the candidate and of the baseline was measured yet".to_owned();
        return check;
    };
    let value = ratio(p95.value, baseline_p95.value);
    check.value = Some(value);
    let figure = format!(
        "p95 {}{} against {}{} of the baseline, {value:.2} times",
        if p95.at_least { "at least " } else { "" },
        duration(p95.value),
        if baseline_p95.at_least { "at least " } else { "" },
        duration(baseline_p95.value)
    );
    check.reason = match outcome {
        Outcome::Pass if value > limit => {
            format!("{figure}, later by no more than {}", duration(LATENCY_FLOOR))
        }
        Outcome::Pass => format!("{figure}, within the limit of {limit}"),
        Outcome::Fail => format!("{figure}, beyond the limit of {limit}"),
        Outcome::Insufficient => {
            format!("{figure}, limit {limit}: not enough in {} requests", thousands(check.samples))
        }
    };
    check
}

fn ratio(numerator: Duration, denominator: Duration) -> f64 {
    numerator.as_secs_f64() / denominator.as_secs_f64().max(1e-6)
}
