//! The summary of a run: the document that `--report` writes and the admin API serves.
//!
//! Data only, in the shape of that document; durations are in seconds, times in RFC 3339, shares in `0.0..=1.0`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::book::{EndpointBook, TargetBook};
use super::differences::{Class, Example, Groups, kind_name};
use super::distribution::Distribution;
use super::verdict::{EndpointVerdict, Outcome, Verdict};
use super::{Pages, Report};
use crate::capture::{self, PacketResult};
use crate::exchange::{
    DropReason, FailReason, LostReason, Role, SkipReason, TargetInfo, Timestamp, UncomparableReason,
};
use crate::ledger::{self, TargetCounts};
use crate::policy::mask::Tally;

/// Counts by the name of their reason; reasons that did not occur are left out.
pub type Counts = BTreeMap<&'static str, u64>;

/// Everything known about a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The version of the agent.
    pub version: &'static str,
    /// The label of the run.
    pub run: String,
    /// When the run started.
    pub started: String,
    /// How long it has been running, in seconds.
    pub duration_seconds: f64,
    /// What may be concluded.
    pub verdict: Verdict,
    /// Figures over all endpoints.
    pub overall: EndpointSummary,
    /// Every endpoint: those that fail first, then those with mismatches, then the most frequent.
    pub endpoints: Vec<EndpointSummary>,
    /// What became of every exchange.
    pub ledger: LedgerSummary,
    /// What was skipped, why, and how to include it.
    pub skipped: Vec<Skipped>,
    /// What the kernel decided about packets.
    pub kernel: KernelSummary,
    /// Exchanges entered under one endpoint, because there are more endpoints than `compare.max_endpoints`.
    pub beyond_endpoint_limit: u64,
    /// Values masked, by exit and rule; rules that found nothing are left out.
    pub masked: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

impl Summary {
    /// Adds what was masked.
    pub fn count_masked(&mut self, tallies: &[Arc<Tally>]) {
        for tally in tallies {
            let found = tally.counts().filter(|(_, count)| *count > 0);
            let found = found.map(|(rule, count)| (rule.to_owned(), count)).collect();
            self.masked.insert(tally.exit().as_str(), found);
        }
    }
}

/// One endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointSummary {
    /// Its name; empty for all endpoints together.
    pub endpoint: String,
    /// Exchanges that ended at every target.
    pub requests: u64,
    /// Selected exchanges that these stand for, those included that the ramp, the budget and the shares of rules left out.
    pub estimated_requests: f64,
    /// Production's statuses from 400 on.
    pub production_error_statuses: BTreeMap<u16, u64>,
    /// Production's time to first byte on the wire: context, from another vantage point, never judged.
    pub production_wire_latency: Option<Latency>,
    /// One entry a target, in the order configured (the baseline last).
    pub targets: Vec<EndpointTarget>,
}

/// One endpoint at one target.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointTarget {
    /// The target's name.
    pub target: String,
    /// `candidate` or `baseline`.
    pub role: &'static str,
    /// The answer for this endpoint (for all: the target's verdict); none for a baseline.
    pub verdict: Option<Outcome>,
    /// Answers without a difference that counts.
    pub matches: u64,
    /// Answers with a difference that counts.
    pub mismatches: u64,
    /// The share of mismatches among all selected exchanges, replayed or not; each answer counts by what it stands for.
    pub estimated_mismatch: Option<f64>,
    /// Answers whose differences the baseline shows as well.
    pub noise: u64,
    /// Answers that differ from production as the baseline's do.
    pub drift: u64,
    /// Answers that cannot be compared.
    pub uncomparable: Counts,
    /// Requests that got no answer.
    pub failed: Counts,
    /// Requests that were not sent.
    pub dropped: Counts,
    /// Statuses from 400 on.
    pub error_statuses: BTreeMap<u16, u64>,
    /// Time to first byte, measured by the agent.
    pub latency: Option<Latency>,
    /// Differences by shape, the most important first; empty for all endpoints together.
    pub differences: Vec<DifferenceGroup>,
    /// Differences beyond the bound on shapes.
    pub differences_ungrouped: u64,
}

/// Quantiles of a time to first byte.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Requests measured, those that timed out included.
    pub count: u64,
    /// Requests that timed out: their time is at least the timeout.
    pub timed_out: u64,
    /// The median.
    pub p50_seconds: f64,
    /// 95 % are at most this.
    pub p95_seconds: f64,
    /// 99 % are at most this.
    pub p99_seconds: f64,
    /// The lowest of the three quantiles (50, 95, 99) that lies among requests that timed out, and is a lower bound.
    pub at_least_from: Option<u8>,
}

/// Differences of one shape.
#[derive(Clone, Debug, Serialize)]
pub struct DifferenceGroup {
    /// What the exchanges were found to be.
    pub class: Class,
    /// Where: `status`, `header:…`, `body:…`.
    pub place: String,
    /// What kind.
    pub kind: &'static str,
    /// Exchanges that show it.
    pub count: u64,
    /// Their share of the endpoint's compared exchanges.
    pub share: f64,
    /// When it was first seen.
    pub first_seen: String,
    /// When it was last seen.
    pub last_seen: String,
    /// A few exchanges that show it.
    pub examples: Vec<Example>,
}

/// What became of every exchange.
#[derive(Clone, Debug, Serialize)]
pub struct LedgerSummary {
    /// Exchanges met.
    pub seen: u64,
    /// Exchanges replayed.
    pub selected: u64,
    /// Exchanges skipped on purpose, by reason.
    pub skipped: Counts,
    /// Exchanges that could not be rebuilt, by reason.
    pub lost: Counts,
    /// Exchanges not decided yet.
    pub in_flight: u64,
    /// By how many units the books are off; must be 0.
    pub imbalance: u64,
    /// One entry a target.
    pub targets: Vec<TargetLedger>,
}

/// What became of the requests to one target.
#[derive(Clone, Debug, Serialize)]
pub struct TargetLedger {
    /// The target's name.
    pub target: String,
    /// Requests meant for it.
    pub selected: u64,
    /// Whole answers.
    pub answered: u64,
    /// Requests that got no answer.
    pub failed: Counts,
    /// Requests that were not sent.
    pub dropped: Counts,
    /// Requests not ended yet.
    pub in_flight: u64,
}

/// Exchanges skipped for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// The reason's name.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
    /// Their share of the exchanges met.
    pub share: f64,
    /// What to do about it.
    pub remedy: &'static str,
}

/// What the kernel decided about packets.
#[derive(Clone, Debug, Serialize)]
pub struct KernelSummary {
    /// Packets by decision.
    pub packets: Counts,
    /// Payload bytes copied.
    pub bytes: u64,
}

/// Puts a summary together.
pub(super) fn build(
    report: &Report,
    pages: &Pages,
    verdict: Verdict,
    ledger: &ledger::Snapshot,
    kernel: &capture::Counters,
    now: Timestamp,
) -> Summary {
    let targets = report.targets();
    let answer = |target: &TargetInfo, endpoint: &str| {
        let judged = verdict.targets.iter().find(|judged| judged.target == target.name)?;
        judged.endpoints.iter().find(|judged| judged.endpoint == endpoint)
    };
    let mut endpoints: Vec<EndpointSummary> = pages
        .endpoints
        .iter()
        .map(|book| {
            endpoint(book, targets, &|target| answer(target, &book.endpoint).map(|judged| judged.outcome))
        })
        .collect();
    endpoints.sort_by_cached_key(|endpoint| {
        let holds_up = targets.iter().any(|target| {
            answer(target, &endpoint.endpoint).is_some_and(|judged: &EndpointVerdict| judged.holds_up)
        });
        let candidates = || endpoint.targets.iter().filter(|target| target.role == CANDIDATE);
        let fails = candidates().any(|target| target.verdict == Some(Outcome::Fail));
        let mismatches: u64 = candidates().map(|target| target.mismatches).sum();
        let descending = std::cmp::Reverse((fails, holds_up, mismatches, endpoint.requests));
        (descending, endpoint.endpoint.clone())
    });
    let overall = endpoint(&pages.all, targets, &|target| {
        verdict.targets.iter().find(|judged| judged.target == target.name).map(|judged| judged.outcome)
    });
    Summary {
        version: env!("CARGO_PKG_VERSION"),
        run: report.label().to_owned(),
        started: report.started().to_string(),
        duration_seconds: now.since(report.started()).as_secs_f64(),
        overall,
        endpoints,
        ledger: LedgerSummary::new(targets, ledger),
        skipped: skipped(ledger),
        kernel: KernelSummary {
            packets: counts(&kernel.packets, PacketResult::ALL, PacketResult::as_str),
            bytes: kernel.bytes,
        },
        beyond_endpoint_limit: pages.folded,
        masked: BTreeMap::new(),
        verdict,
    }
}

impl LedgerSummary {
    /// The ledger by name.
    pub(crate) fn new(targets: &[TargetInfo], ledger: &ledger::Snapshot) -> LedgerSummary {
        let target = |(info, counts): (&TargetInfo, &TargetCounts)| TargetLedger {
            target: info.name.clone(),
            selected: counts.selected,
            answered: counts.answered,
            failed: self::counts(&counts.failed, FailReason::ALL, FailReason::as_str),
            dropped: self::counts(&counts.dropped, DropReason::ALL, DropReason::as_str),
            in_flight: counts.in_flight,
        };
        LedgerSummary {
            seen: ledger.seen,
            selected: ledger.selected,
            skipped: counts(&ledger.skipped, SkipReason::ALL, SkipReason::as_str),
            lost: counts(&ledger.lost, LostReason::ALL, LostReason::as_str),
            in_flight: ledger.in_flight,
            imbalance: ledger.imbalance(),
            targets: targets.iter().zip(&ledger.targets).map(target).collect(),
        }
    }
}

const CANDIDATE: &str = "candidate";

fn endpoint(
    book: &EndpointBook,
    targets: &[TargetInfo],
    outcome: &dyn Fn(&TargetInfo) -> Option<Outcome>,
) -> EndpointSummary {
    let target = |(info, book): (&TargetInfo, &TargetBook)| EndpointTarget {
        target: info.name.clone(),
        role: match info.role {
            Role::Candidate => CANDIDATE,
            Role::Baseline => "baseline",
        },
        verdict: outcome(info),
        matches: book.matches,
        mismatches: book.mismatches,
        estimated_mismatch: book.estimated_mismatch(),
        noise: book.noise,
        drift: book.drift,
        uncomparable: counts(&book.uncomparable, UncomparableReason::ALL, UncomparableReason::as_str),
        failed: counts(&book.failed, FailReason::ALL, FailReason::as_str),
        dropped: counts(&book.dropped, DropReason::ALL, DropReason::as_str),
        error_statuses: book.error_statuses.clone(),
        latency: latency(&book.latency),
        differences: differences(&book.groups, book.compared()),
        differences_ungrouped: book.groups.ungrouped(),
    };
    EndpointSummary {
        endpoint: book.endpoint.to_string(),
        requests: book.requests,
        estimated_requests: book.weight,
        production_error_statuses: book.production_errors.clone(),
        production_wire_latency: latency(&book.production),
        targets: targets.iter().zip(&book.targets).map(target).collect(),
    }
}

fn differences(groups: &Groups, compared: u64) -> Vec<DifferenceGroup> {
    groups
        .ranked()
        .into_iter()
        .map(|(class, kind, place, group)| DifferenceGroup {
            class,
            place: place.to_owned(),
            kind: kind_name(kind),
            count: group.count,
            share: group.count as f64 / compared.max(1) as f64,
            first_seen: group.first.to_string(),
            last_seen: group.last.to_string(),
            examples: group.examples.clone(),
        })
        .collect()
}

fn latency(distribution: &Distribution) -> Option<Latency> {
    let at = |quantile: f64| distribution.quantile(quantile);
    let (p50, p95, p99) = (at(0.5)?, at(0.95)?, at(0.99)?);
    let at_least_from = [(50, p50), (95, p95), (99, p99)].into_iter().find(|(_, quantile)| quantile.at_least);
    Some(Latency {
        count: distribution.count(),
        timed_out: distribution.censored(),
        p50_seconds: p50.value.as_secs_f64(),
        p95_seconds: p95.value.as_secs_f64(),
        p99_seconds: p99.value.as_secs_f64(),
        at_least_from: at_least_from.map(|(percent, _)| percent),
    })
}

impl Latency {
    /// The three quantiles, each with whether it is a lower bound.
    pub(super) fn quantiles(&self) -> [(Duration, bool); 3] {
        [(50, self.p50_seconds), (95, self.p95_seconds), (99, self.p99_seconds)].map(|(percent, seconds)| {
            (Duration::from_secs_f64(seconds), self.at_least_from.is_some_and(|from| percent >= from))
        })
    }
}

/// The occurring reasons of a tally by name.
pub(crate) fn counts<R: Copy>(tally: &[u64], all: &[R], name: fn(R) -> &'static str) -> Counts {
    let occurring = all.iter().zip(tally).filter(|&(_, &count)| count > 0);
    occurring.map(|(&reason, &count)| (name(reason), count)).collect()
}

fn skipped(ledger: &ledger::Snapshot) -> Vec<Skipped> {
    let mut skipped: Vec<Skipped> = SkipReason::ALL
        .iter()
        .zip(&ledger.skipped)
        .filter(|&(_, &count)| count > 0)
        .map(|(&reason, &count)| Skipped {
            reason: reason.as_str(),
            count,
            share: count as f64 / ledger.seen.max(1) as f64,
            remedy: remedy(reason),
        })
        .collect();
    skipped.sort_by_key(|skipped| std::cmp::Reverse(skipped.count));
    skipped
}

/// What an operator can do to have skipped exchanges replayed, or why that would not help.
#[must_use]
pub fn remedy(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::Method => {
            "only safe methods are replayed; if what the targets write reaches nobody, declare them --isolated and list more with --method"
        }
        SkipReason::Rule => {
            "left out by a rule or by select.only (--path); a rule of your own under select.rules comes before the built-in ones"
        }
        SkipReason::Sampled => {
            "left out by the sample share of a rule under select.rules, or by replay.budget; raise it to replay more"
        }
        SkipReason::Ramp => {
            "outside of the share that is replayed at present; it grows by replay.ramp while no guard trips (shadow-agent ctl status)"
        }
        SkipReason::Credentials => {
            "the requests carry credentials: decide with --credentials forward (the shadow gets them), --credentials strip (they are removed), or credentials of the targets' own (replay.credentials: replace)"
        }
        SkipReason::Marked => {
            "replayed requests, or calls caused by them; replaying them again would be a loop"
        }
        SkipReason::Disabled => "capture is switched off; switch it on with shadow-agent ctl enable",
        SkipReason::NotModified => "production answered 304, so there is no body to compare with",
        SkipReason::Streaming => "event streams do not end, so they cannot be compared",
        SkipReason::BodyTooLarge => "a body is larger than limits.body; raise it, at the cost of memory",
        SkipReason::Tls => {
            "the traffic is encrypted here; capture behind the point where TLS ends, on the plain port"
        }
        SkipReason::HeaderTable => {
            "a header refers to what was sent before capture began, or in a gap; connections that open later are replayed"
        }
        SkipReason::Upgrade => "the connection left HTTP (WebSocket or a tunnel)",
        SkipReason::NotHttp => "the connection is not HTTP; take its port out of --port",
        SkipReason::Unmaskable => {
            "a rule of mask.send (for what is only recorded: of mask.keep) could not be applied to the body, so nothing was sent or kept; check the rule against the body's format"
        }
        SkipReason::Recorded => {
            "kept in the files of select.record instead of sent; replay them with shadow-agent replay --from"
        }
        SkipReason::NotRecorded => {
            "the files of select.record could not be written, or not fast enough; make room, or record less"
        }
        SkipReason::DropExchange => {
            "a rule under mask with the action drop-exchange found something; with redact or hash it would be replayed"
        }
        SkipReason::MaskFailed => {
            "the self-check found a value that masking should have hidden, so nothing was sent; the log names the rule, please report it"
        }
    }
}
