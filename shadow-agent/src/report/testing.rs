//! Observations for tests of this module and of those that read it.

use std::time::Duration;

use super::{Observation, Report, TargetObservation};
use crate::compare::{Difference, DifferenceKind};
use crate::config;
use crate::exchange::{ConnectionId, ExchangeId, FailReason, Role, TargetInfo, Timestamp};
use crate::ledger::{Comparison, Ledger, ShardBatch, TargetOutcome};
use crate::policy::mask::Kept;

pub(crate) fn targets(baseline: bool) -> Vec<TargetInfo> {
    let mut targets = vec![TargetInfo { name: "candidate".to_owned(), role: Role::Candidate }];
    if baseline {
        targets.push(TargetInfo { name: "baseline".to_owned(), role: Role::Baseline });
    }
    targets
}

pub(crate) fn report(baseline: bool) -> Report {
    Report::new(&config::Verdict::default(), &config::Compare::default(), targets(baseline), "v2")
}

pub(crate) fn observation(endpoint: &str, id: u64) -> Observation {
    Observation {
        endpoint: endpoint.into(),
        exchange: ExchangeId(id),
        connection: ConnectionId(id),
        time: Timestamp(1_700_000_000_000_000_000 + id),
        target: Kept::for_test(format!("{endpoint}?id={id}")),
        production_status: 200,
        production_first_byte: Duration::from_micros(900),
        targets: Vec::new(),
        weight: 1.0,
    }
}

pub(crate) fn answered(comparison: Comparison, status: u16) -> TargetObservation {
    TargetObservation {
        outcome: TargetOutcome::Answered(comparison),
        status: Some(status),
        first_byte: Some(Duration::from_millis(2)),
        differences: Vec::new(),
    }
}

pub(crate) fn failed(reason: FailReason) -> TargetObservation {
    TargetObservation {
        outcome: TargetOutcome::Failed(reason),
        status: None,
        first_byte: None,
        differences: Vec::new(),
    }
}

pub(crate) fn difference(place: &str, production: &str, candidate: &str) -> Difference {
    Difference {
        place: place.to_owned(),
        kind: DifferenceKind::Value,
        production: Some(Kept::for_test(production.to_owned())),
        candidate: Some(Kept::for_test(candidate.to_owned())),
    }
}

/// Enters observations in the report and in the ledger alike, as the agent does.
pub(crate) fn run(report: &Report, ledger: &Ledger, observations: impl IntoIterator<Item = Observation>) {
    for observation in observations {
        ledger.shard(0, &ShardBatch { seen: 1, queued: 1, ..ShardBatch::default() });
        ledger.selected();
        for (position, target) in observation.targets.iter().enumerate() {
            ledger.ended(position, target.outcome);
        }
        report.record(observation);
    }
}

/// `count` exchanges of one endpoint, every `every`th of which mismatches (0: none).
pub(crate) fn traffic(endpoint: &str, count: u64, every: u64, baseline: bool) -> Vec<Observation> {
    (0..count)
        .map(|id| {
            let mut seen = observation(endpoint, id);
            seen.targets.push(if every > 0 && id % every == 0 {
                let mut target = answered(Comparison::Mismatch, 200);
                target.differences.push(difference("body:$.price", "12.34", "12.35"));
                target
            } else {
                answered(Comparison::Match, 200)
            });
            if baseline {
                seen.targets.push(answered(Comparison::Match, 200));
            }
            seen
        })
        .collect()
}
