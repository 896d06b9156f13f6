//! What `GET /api/v1/status` says, on both ends of the wire. Holds no secret and no value from traffic.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::AdminState;
use crate::exchange::{Role, Timestamp};
use crate::report::summary::{Counts, LedgerSummary, counts};
use crate::report::words::{percent, thousands};

/// How the agent stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// The label of the run; may be empty.
    pub run: String,
    /// Since the run started.
    pub uptime_seconds: f64,
    /// Whether the kill switch lets requests be captured.
    pub enabled: bool,
    /// Whether throwing the switch outlives a restart.
    pub persistent: bool,
    /// What the agent waits for before it is ready; empty when it is.
    pub waiting_for: Vec<String>,
    /// `pass`, `fail` or `insufficient`.
    pub verdict: String,
    /// Why.
    pub reasons: Vec<String>,
    /// Exchanges met.
    pub seen: u64,
    /// Exchanges replayed.
    pub selected: u64,
    /// Exchanges skipped on purpose, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Exchanges that could not be rebuilt, by reason.
    pub lost: BTreeMap<String, u64>,
    /// Exchanges not decided yet.
    pub in_flight: u64,
    /// By how many units the books are off; must be 0.
    pub imbalance: u64,
    /// Flows tracked.
    pub flows: u64,
    /// Bytes buffered for flows.
    pub buffered_bytes: u64,
    /// One entry a target.
    pub targets: Vec<TargetStatus>,
    /// Packets by what the kernel decided.
    pub packets: BTreeMap<String, u64>,
    /// Payload bytes copied by the kernel.
    pub copied_bytes: u64,
}

/// How one target stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// `candidate` or `baseline`.
    pub role: String,
    /// Requests meant for it.
    pub selected: u64,
    /// Whole answers.
    pub answered: u64,
    /// Answers with a difference that counts.
    pub mismatches: u64,
    /// Requests that got no answer, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Requests that were not sent, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Requests under way.
    pub in_flight: u64,
    /// Requests queued.
    pub queue: u64,
    /// Whether its circuit breaker keeps requests back.
    pub breaker_open: bool,
}

impl Status {
    /// The status as of `now`.
    pub(super) fn of(state: &AdminState, now: Timestamp) -> Status {
        let ledger = state.sources.ledger.snapshot();
        let infos = state.sources.report.targets();
        let named = LedgerSummary::new(infos, &ledger);
        let verdict = state.sources.report.verdict(&ledger);
        let kernel = (state.sources.kernel)();
        let mut replay = (state.sources.replay)();
        replay.resize(infos.len(), Default::default());
        let targets = infos.iter().zip(named.targets).zip(&ledger.targets).zip(replay);
        let targets = targets.map(|(((info, named), counts), replay)| TargetStatus {
            name: info.name.clone(),
            role: match info.role {
                Role::Candidate => "candidate".to_owned(),
                Role::Baseline => "baseline".to_owned(),
            },
            selected: counts.selected,
            answered: counts.answered,
            mismatches: counts.mismatches,
            failed: owned(named.failed),
            dropped: owned(named.dropped),
            in_flight: counts.in_flight,
            queue: replay.queue,
            breaker_open: replay.breaker_open,
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run: state.sources.report.label().to_owned(),
            uptime_seconds: now.since(state.sources.report.started()).as_secs_f64(),
            enabled: state.sources.control.enabled(),
            persistent: state.switch.is_some(),
            waiting_for: state.readiness.waiting().into_iter().map(str::to_owned).collect(),
            verdict: verdict.outcome.as_str().to_owned(),
            reasons: verdict.reasons,
            seen: ledger.seen,
            selected: ledger.selected,
            skipped: owned(named.skipped),
            lost: owned(named.lost),
            in_flight: ledger.in_flight,
            imbalance: named.imbalance,
            flows: ledger.flows,
            buffered_bytes: ledger.buffered,
            targets: targets.collect(),
            packets: owned(counts(&kernel.packets, crate::capture::PacketResult::ALL, |result| {
                result.as_str()
            })),
            copied_bytes: kernel.bytes,
        }
    }
}

fn owned(counts: Counts) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

impl fmt::Display for Status {
    /// For people: what `ctl status` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |counts: &BTreeMap<String, u64>| {
            let all: Vec<String> =
                counts.iter().map(|(name, count)| format!("{} {name}", thousands(*count))).collect();
            if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
        };
        let sum = |counts: &BTreeMap<String, u64>| thousands(counts.values().sum());
        writeln!(f, "capture    {}", if self.enabled { "enabled" } else { "disabled" })?;
        if !self.waiting_for.is_empty() {
            writeln!(f, "not ready  waiting for {}", self.waiting_for.join(", "))?;
        }
        write!(f, "run        {:.0} s, version {}", self.uptime_seconds, self.version)?;
        if !self.run.is_empty() {
            write!(f, ", label {}", crate::report::words::printable(&self.run, 80))?;
        }
        writeln!(f)?;
        writeln!(f, "exchanges  {} seen, {} replayed", thousands(self.seen), thousands(self.selected))?;
        writeln!(f, "           {} skipped{}", sum(&self.skipped), listed(&self.skipped))?;
        writeln!(f, "           {} lost{}", sum(&self.lost), listed(&self.lost))?;
        if self.imbalance > 0 {
            writeln!(f, "           the books are off by {}, please report this", thousands(self.imbalance))?;
        }
        for target in &self.targets {
            let answered = target.answered as f64 / target.selected.max(1) as f64;
            writeln!(
                f,
                "{:<10} {}: {} answered ({}), {} failed{}, {} not sent{}, {} queued{}",
                target.role,
                crate::report::words::printable(&target.name, 40),
                thousands(target.answered),
                percent(answered),
                sum(&target.failed),
                listed(&target.failed),
                sum(&target.dropped),
                listed(&target.dropped),
                thousands(target.queue),
                if target.breaker_open { ", circuit breaker open" } else { "" }
            )?;
        }
        writeln!(f, "verdict    {}", self.verdict)?;
        for reason in &self.reasons {
            writeln!(f, "           - {}", crate::report::words::printable(reason, 200))?;
        }
        Ok(())
    }
}
