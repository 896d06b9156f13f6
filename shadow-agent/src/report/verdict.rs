//! Pass, fail, or not enough evidence: what the counts of one run allow to say about each candidate.
//!
//! **One check.** A check compares a figure with its limit through bounds that hold however often someone looks
//! (`sequence`). It passes when the upper bound is within the limit, fails when the lower bound is beyond it, and
//! otherwise there is not enough evidence yet. The checks are `mismatch`, `errors`, `latency_p95` for every endpoint
//! and over all of them, and `loss` over all, which as a rule holds up a pass and fails nobody; `checks` defines each
//! figure.
//!
//! **What is not known.** An answer that could not be compared (the baseline did not answer, a body too large or in an
//! unknown coding) may be a mismatch, and an error that the reference gave no answer beside may be an excess: the upper
//! bounds count them, the lower bounds do not, so that neither a pass nor a fail ever rests on them.
//!
//! **Many checks.** To pass, *all* overall checks have to pass, so a wrong pass needs a wrong answer to one given
//! question and each upper bound may use the whole error probability (1 - confidence). To fail, *any* check is enough,
//! so the error probability is shared out over the lower bounds: equally to the candidates, then half to the overall
//! checks and half to the endpoints, of which the k-th one met gets 1/(k(k+1)), a series that sums to 1 however many
//! there will be. Sharing can turn a fail into not enough evidence, and nothing into a pass.
//!
//! **Rare endpoints.** An endpoint too rare to be judged alone does not hold up the verdict while its own figures are
//! within its limits: its requests count in the overall checks, and the verdict says how many endpoints that concerns.
//! It does hold it up when its share of possible mismatches or its excess of errors is beyond the limit so far, or when the
//! operator gave the endpoint a limit of its own, seen or not: that asks for evidence.
//!
//! **How much evidence.** At the default limits and 95 %, an endpoint passes alone after 410 clean requests, and the
//! whole after about 5,300; an endpoint three times as slow as the baseline's fails after some 150 to 300, one that is
//! always wrong after about ten.
//!
//! Pure: books, limits and the ledger in, a verdict out.

use std::collections::BTreeMap;

use serde::Serialize;

use super::book::{EndpointBook, TargetBook};
use super::words::{percent, thousands};
use crate::config;
use crate::exchange::{Role, TargetInfo};
use crate::ledger;

mod checks;

use checks::Levels;

/// The answer of a check or verdict, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Within the limits, with the confidence asked for.
    Pass,
    /// Not enough evidence either way.
    Insufficient,
    /// Beyond a limit, with the confidence asked for.
    Fail,
}

impl Outcome {
    /// The name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Insufficient => "insufficient",
            Outcome::Fail => "fail",
        }
    }

    /// The exit code that `--gate` and `verdict` return for it.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Outcome::Pass => 0,
            Outcome::Fail => 1,
            Outcome::Insufficient => 3,
        }
    }

    /// The value of the metric `shadow_verdict`.
    #[must_use]
    pub const fn metric(self) -> f64 {
        match self {
            Outcome::Insufficient => 0.0,
            Outcome::Pass => 1.0,
            Outcome::Fail => 2.0,
        }
    }
}

/// What a [`Check`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckName {
    /// Share of compared answers with a difference that counts.
    Mismatch,
    /// Excess of the candidate's error share over the reference's.
    Errors,
    /// p95 of the time to first byte, as a multiple of the baseline's.
    LatencyP95,
    /// Share of exchanges that were lost, or that the candidate could not take.
    Loss,
}

impl CheckName {
    /// The name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            CheckName::Mismatch => "mismatch",
            CheckName::Errors => "errors",
            CheckName::LatencyP95 => "latency_p95",
            CheckName::Loss => "loss",
        }
    }
}

/// One figure held against its limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What it is about.
    pub check: CheckName,
    /// The answer; `None` when it is not judged, and the reason says why.
    pub outcome: Option<Outcome>,
    /// The figure itself; a share, or a ratio for latency.
    pub value: Option<f64>,
    /// The lower bound at the confidence configured.
    pub lower: Option<f64>,
    /// The upper bound at the confidence configured; `None` when there is none.
    pub upper: Option<f64>,
    /// The limit, in the unit of the figure.
    pub limit: f64,
    /// Requests that the figure rests on.
    pub samples: u64,
    /// One sentence for people.
    pub reason: String,
}

/// The checks of one endpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointVerdict {
    /// The endpoint.
    pub endpoint: String,
    /// The worst of its checks.
    pub outcome: Outcome,
    /// Whether it keeps the verdict from passing.
    pub holds_up: bool,
    /// Its checks.
    pub checks: Vec<Check>,
}

/// The verdict on one candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetVerdict {
    /// The candidate.
    pub target: String,
    /// The answer.
    pub outcome: Outcome,
    /// Why, the most important first.
    pub reasons: Vec<String>,
    /// The checks over all endpoints.
    pub checks: Vec<Check>,
    /// Every endpoint's checks, in the order met.
    pub endpoints: Vec<EndpointVerdict>,
}

/// The verdict on a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The worst answer of all candidates.
    pub outcome: Outcome,
    /// The confidence of every answer, `0.0..=1.0`.
    pub confidence: f64,
    /// Why, the most important first.
    pub reasons: Vec<String>,
    /// One verdict a candidate.
    pub targets: Vec<TargetVerdict>,
}

/// The limits that apply, and the own ones of some endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) verdict: config::Verdict,
    /// Mismatch limits by path pattern; they hold for every method.
    pub(crate) own: BTreeMap<String, f64>,
}

impl Limits {
    pub(crate) fn new(verdict: &config::Verdict, compare: &config::Compare) -> Limits {
        let own = compare
            .endpoints
            .iter()
            .filter_map(|rule| rule.mismatch.map(|limit| (rule.path.clone(), limit.0)))
            .collect();
        Limits { verdict: verdict.clone(), own }
    }
}

/// Reasons listed before the rest is only counted.
const REASONS: usize = 8;

/// Judges a run: its endpoints in the order met, and `all` of them merged.
pub(crate) fn judge(
    limits: &Limits,
    targets: &[TargetInfo],
    endpoints: &[EndpointBook],
    all: &EndpointBook,
    ledger: &ledger::Snapshot,
) -> Verdict {
    let confidence = limits.verdict.confidence.0;
    let candidates = targets.iter().filter(|target| target.role == Role::Candidate).count();
    let baseline = targets.iter().position(|target| target.role == Role::Baseline);
    let verdicts: Vec<TargetVerdict> = targets
        .iter()
        .enumerate()
        .filter(|(_, target)| target.role == Role::Candidate)
        .map(|(position, target)| {
            let judge =
                Judge { limits, candidates, position, baseline, reference: reference(targets, baseline) };
            judge.target(&target.name, endpoints, all, ledger)
        })
        .collect();
    let outcome = verdicts.iter().map(|verdict| verdict.outcome).max().unwrap_or(Outcome::Insufficient);
    let several = verdicts.len() > 1;
    let reasons = verdicts
        .iter()
        .filter(|verdict| verdict.outcome == outcome)
        .flat_map(|verdict| {
            verdict.reasons.iter().map(move |reason| {
                if several { format!("{}: {reason}", verdict.target) } else { reason.clone() }
            })
        })
        .collect();
    Verdict { outcome, confidence, reasons, targets: verdicts }
}

fn reference(targets: &[TargetInfo], baseline: Option<usize>) -> &str {
    baseline.and_then(|position| targets.get(position)).map_or("production", |target| &target.name)
}

struct Judge<'a> {
    limits: &'a Limits,
    candidates: usize,
    position: usize,
    baseline: Option<usize>,
    reference: &'a str,
}

impl Judge<'_> {
    fn target(
        &self,
        name: &str,
        endpoints: &[EndpointBook],
        all: &EndpointBook,
        ledger: &ledger::Snapshot,
    ) -> TargetVerdict {
        let verdict = &self.limits.verdict;
        let checks = match all.targets.get(self.position) {
            Some(book) => {
                let levels = self.levels(0.5 / 4.0);
                let mut checks = self.checks(book, self.baseline_of(all), verdict.mismatch.0, levels);
                checks.push(checks::loss(ledger, self.position, self.baseline, verdict.loss.0, levels));
                checks
            }
            None => Vec::new(),
        };
        let mut judged: Vec<EndpointVerdict> = endpoints
            .iter()
            .enumerate()
            .filter_map(|(order, endpoint)| self.endpoint(order, endpoint))
            .collect();
        judged.extend(self.unseen(endpoints));
        let worst = checks.iter().filter_map(|check| check.outcome).max().unwrap_or(Outcome::Insufficient);
        let outcome = if worst == Outcome::Fail || judged.iter().any(|one| one.outcome == Outcome::Fail) {
            Outcome::Fail
        } else if worst == Outcome::Insufficient || judged.iter().any(|one| one.holds_up) {
            Outcome::Insufficient
        } else {
            Outcome::Pass
        };
        let mut reasons = reasons(outcome, &checks, &judged);
        reasons.extend(self.estimate(all));
        TargetVerdict { target: name.to_owned(), outcome, reasons, checks, endpoints: judged }
    }

    /// What the mismatches come to among all that was selected, where some of it had a better chance of being replayed.
    /// The checks are about what was replayed: their bounds hold for that, and for each endpoint by itself.
    fn estimate(&self, all: &EndpointBook) -> Option<String> {
        let estimate = all.targets.get(self.position)?.estimated_mismatch().filter(|_| all.is_uneven())?;
        Some(format!(
            "the figures are of what was replayed, of which some stands for more than the rest; of all that was \
             selected, {} are estimated to mismatch",
            percent(estimate)
        ))
    }

    fn endpoint(&self, order: usize, endpoint: &EndpointBook) -> Option<EndpointVerdict> {
        let book = endpoint.targets.get(self.position)?;
        let own = self.limits.own.get(path(&endpoint.endpoint)).copied();
        let limit = own.unwrap_or(self.limits.verdict.mismatch_per_endpoint.0);
        let met = (order + 1) as f64;
        let checks = self.checks(
            book,
            self.baseline_of(endpoint),
            limit,
            self.levels(0.5 / (met * (met + 1.0)) / 3.0),
        );
        let outcome = checks.iter().filter_map(|check| check.outcome).max().unwrap_or(Outcome::Insufficient);
        let possibly_beyond = checks::possible_mismatches(book).is_some_and(|share| share > limit);
        let holds_up = outcome == Outcome::Fail
            || checks.iter().any(|check| {
                let unproven = check.outcome == Some(Outcome::Insufficient);
                match check.check {
                    CheckName::Mismatch => unproven && (own.is_some() || possibly_beyond),
                    CheckName::Errors => unproven && beyond(check),
                    CheckName::LatencyP95 | CheckName::Loss => false,
                }
            });
        Some(EndpointVerdict { endpoint: endpoint.endpoint.to_string(), outcome, holds_up, checks })
    }

    /// Endpoints with a limit of their own that no request was seen of.
    fn unseen(&self, endpoints: &[EndpointBook]) -> Vec<EndpointVerdict> {
        self.limits
            .own
            .iter()
            .filter(|(name, _)| !endpoints.iter().any(|endpoint| path(&endpoint.endpoint) == name.as_str()))
            .map(|(name, &limit)| EndpointVerdict {
                endpoint: name.clone(),
                outcome: Outcome::Insufficient,
                holds_up: true,
                checks: vec![checks::mismatch(&TargetBook::new(), limit, self.levels(1.0))],
            })
            .collect()
    }

    fn checks(
        &self,
        book: &TargetBook,
        baseline: Option<&TargetBook>,
        limit: f64,
        levels: Levels,
    ) -> Vec<Check> {
        let verdict = &self.limits.verdict;
        vec![
            checks::mismatch(book, limit, levels),
            checks::errors(&book.errors, self.reference, verdict.error_ratio, limit, levels),
            checks::latency(
                &book.latency,
                baseline.map(|book| &book.latency),
                verdict.latency_ratio_p95,
                levels,
            ),
        ]
    }

    fn baseline_of<'b>(&self, endpoint: &'b EndpointBook) -> Option<&'b TargetBook> {
        self.baseline.and_then(|position| endpoint.targets.get(position))
    }

    /// The error probabilities of a check that gets `share` of the candidate's part for its lower bound.
    fn levels(&self, share: f64) -> Levels {
        let alpha = (1.0 - self.limits.verdict.confidence.0).clamp(f64::MIN_POSITIVE, 1.0);
        Levels { pass: alpha, fail: alpha * share / self.candidates.max(1) as f64 }
    }
}

/// The path of an endpoint's name, behind its method.
fn path(endpoint: &str) -> &str {
    endpoint.split_once(' ').map_or(endpoint, |(_, path)| path)
}

/// Whether the figure itself, bounds aside, is beyond the limit.
fn beyond(check: &Check) -> bool {
    check.value.is_some_and(|value| value > check.limit)
}

fn reasons(outcome: Outcome, checks: &[Check], endpoints: &[EndpointVerdict]) -> Vec<String> {
    let about = |wanted: Outcome| {
        let overall = checks.iter().filter(move |check| check.outcome == Some(wanted));
        let overall = overall.map(|check| format!("overall: {}", check.reason));
        let of_endpoints = endpoints.iter().filter(move |one| one.holds_up).flat_map(move |one| {
            let relevant = one.checks.iter().filter(move |check| {
                check.outcome == Some(wanted)
                    && (wanted == Outcome::Fail || check.check == CheckName::Mismatch || beyond(check))
                    && check.check != CheckName::Loss
            });
            relevant.map(|check| format!("{}: {}", one.endpoint, check.reason))
        });
        (overall, of_endpoints)
    };
    let mut reasons: Vec<String> = Vec::new();
    match outcome {
        Outcome::Fail => {
            // The endpoint is where to look; the overall figure follows from it.
            let (overall, of_endpoints) = about(Outcome::Fail);
            reasons.extend(of_endpoints.chain(overall));
        }
        Outcome::Insufficient => {
            let (overall, of_endpoints) = about(Outcome::Insufficient);
            reasons.extend(overall.chain(of_endpoints));
        }
        Outcome::Pass => {
            reasons.extend(
                checks.iter().filter(|check| check.outcome.is_some()).map(|check| check.reason.clone()),
            );
            let alone = endpoints.iter().filter(|one| one.outcome == Outcome::Insufficient).count();
            if alone > 0 {
                reasons.push(format!(
                    "{} of {} endpoints are too rare to be judged alone and count in the overall figures only",
                    thousands(alone as u64),
                    thousands(endpoints.len() as u64),
                ));
            }
        }
    }
    if reasons.len() > REASONS {
        let more = reasons.len() - REASONS;
        reasons.truncate(REASONS);
        reasons.push(format!("and {more} more"));
    }
    reasons.extend(checks.iter().filter(|check| check.outcome.is_none()).map(|check| check.reason.clone()));
    reasons
}

/// The rate and its bounds in words: `3.1 % (2.5 % to 3.8 %)`.
fn with_bounds(value: f64, lower: f64, upper: f64) -> String {
    format!("{} ({} to {})", percent(value), percent(lower), percent(upper))
}

#[cfg(test)]
mod tests;
