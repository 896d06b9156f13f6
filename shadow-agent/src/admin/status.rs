//! What `GET /api/v1/status` says, on both ends of the wire. Holds no secret and no value from traffic.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::AdminState;
use crate::capture::kernel::Attached;
use crate::config::XdpMode;
use crate::control::Rung;
use crate::exchange::{Role, Timestamp};
use crate::guard::Board;
use crate::guard::watch::Name;
use crate::report::summary::{Counts, LedgerSummary, counts};
use crate::report::words::{percent, thousands};

/// How many interfaces are listed for people.
const MAX_LISTED: usize = 8;

/// How the agent stands. Exchanges are those of the run under way; packets, and the imbalance, are counted since the agent
/// started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// The label of the run; may be empty.
    pub run: String,
    /// The labels of all runs that can be asked about, the newest first.
    pub runs: Vec<String>,
    /// Since the run started.
    pub uptime_seconds: f64,
    /// Whether the kill switch lets requests be captured.
    pub enabled: bool,
    /// The share of flows captured at present, 0 to 1.
    pub sample: f64,
    /// The share of flows that `capture.sample` or `ctl sample` asks for, 0 to 1; the CPU guard may capture fewer.
    pub sample_configured: f64,
    /// CPU time of the agent over the last second, in cores.
    pub cpu: f64,
    /// `limits.cpu`, in cores; none when unlimited.
    pub cpu_limit: Option<f64>,
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
    /// Segments captured that were seen before: retransmitted, or passing more than one interface.
    pub duplicate_segments: u64,
    /// Segments captured that brought other bytes than those before.
    pub conflicting_segments: u64,
    /// Flows of whose one direction nothing was ever captured.
    pub one_sided_flows: u64,
    /// The interfaces captured from.
    pub interfaces: Vec<InterfaceStatus>,
    /// Where the ramp stands.
    pub ramp: RampStatus,
    /// Guards that tripped and have not found things well since.
    pub tripped: Vec<String>,
}

/// Where the ramp stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RampStatus {
    /// The share of connections whose selected exchanges are replayed, 0 to 1.
    pub share: f64,
    /// The stage, from 1; 0 while nothing is replayed.
    pub stage: u64,
    /// How many stages there are.
    pub stages: u64,
    /// How long it is to the next step forward, if no guard trips; none at the last stage.
    pub next_in_seconds: Option<f64>,
}

/// An interface captured from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// How programs are attached to it: `tcx`, `clsact`.
    pub attachment: String,
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
    /// Whether a guard paused it.
    pub paused: bool,
}

impl Status {
    /// The status as of `now`.
    pub(super) fn of(state: &AdminState, now: Timestamp) -> Status {
        let whole = state.sources.ledger.snapshot();
        let imbalance = whole.imbalance();
        let run = state.sources.runs.current();
        let verdict = run.verdict(whole.clone());
        let ledger = run.ledger(whole);
        let infos = run.report().targets();
        let named = LedgerSummary::new(infos, &ledger);
        let kernel = (state.sources.kernel)();
        let mut replay = (state.sources.replay)();
        replay.resize(infos.len(), Default::default());
        let replaying = state.sources.control.replaying();
        let targets = infos.iter().zip(named.targets).zip(&ledger.targets).zip(replay).enumerate();
        let targets = targets.map(|(position, (((info, named), counts), replay))| TargetStatus {
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
            paused: replaying.paused(position),
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            run: run.report().label().to_owned(),
            runs: state.sources.runs.labels(),
            uptime_seconds: now.since(run.report().started()).as_secs_f64(),
            enabled: state.sources.control.enabled(),
            sample: state.sources.control.sample().0,
            sample_configured: state.sources.control.configured_sample().0,
            cpu: state.sources.cpu.used().0,
            cpu_limit: state.sources.cpu_limit.map(|limit| limit.0),
            persistent: state.switch.is_persistent(),
            waiting_for: state.readiness.waiting(),
            verdict: verdict.outcome.as_str().to_owned(),
            reasons: verdict.reasons,
            seen: ledger.seen,
            selected: ledger.selected,
            skipped: owned(named.skipped),
            lost: owned(named.lost),
            in_flight: ledger.in_flight,
            imbalance,
            flows: ledger.flows,
            buffered_bytes: ledger.buffered,
            targets: targets.collect(),
            packets: owned(counts(&kernel.packets, crate::capture::PacketResult::ALL, |result| {
                result.as_str()
            })),
            copied_bytes: kernel.bytes,
            duplicate_segments: ledger.oddities.duplicate_segments,
            conflicting_segments: ledger.oddities.conflicting_segments,
            one_sided_flows: ledger.oddities.one_sided_flows,
            interfaces: (state.sources.interfaces)().into_iter().map(InterfaceStatus::from).collect(),
            ramp: RampStatus::of(replaying.rung(), now),
            tripped: tripped(&state.sources.guards),
        }
    }
}

impl From<Attached> for InterfaceStatus {
    fn from(attached: Attached) -> InterfaceStatus {
        let tc = attached.attachment.as_str();
        let attachment = match attached.xdp {
            None => tc.to_owned(),
            Some(XdpMode::Generic) => format!("xdp generic, {tc}"),
            Some(XdpMode::Native) => format!("xdp native, {tc}"),
        };
        InterfaceStatus { name: attached.device, attachment }
    }
}

impl RampStatus {
    fn of(rung: Rung, now: Timestamp) -> RampStatus {
        RampStatus {
            share: rung.share.0,
            stage: rung.stage,
            stages: rung.stages,
            next_in_seconds: rung.next.map(|next| next.since(now).as_secs_f64()),
        }
    }
}

/// How much is replayed, where that is not everything for good.
impl fmt::Display for RampStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stage {
            0 => f.write_str("nothing is replayed")?,
            stage => write!(
                f,
                "{} of connections are replayed, stage {stage} of {}",
                percent(self.share),
                self.stages
            )?,
        }
        match self.next_in_seconds {
            Some(seconds) => write!(f, ", the next step is due in {seconds:.0} s"),
            None => Ok(()),
        }
    }
}

fn tripped(board: &Board) -> Vec<String> {
    let tripped = Name::ALL.iter().filter(|name| board.tripped(**name));
    tripped.map(|name| name.as_str().to_owned()).collect()
}

impl Status {
    /// How many flows are captured, and if that is fewer than configured, why.
    fn sampling(&self) -> String {
        let [sample, configured, cpu] = [self.sample, self.sample_configured, self.cpu].map(percent);
        match self.cpu_limit {
            Some(limit) if self.sample < self.sample_configured => format!(
                "{sample} of flows instead of the configured {configured}, to keep limits.cpu ({} of one core; {cpu} now)",
                percent(limit)
            ),
            _ => format!("{sample} of flows, for {cpu} of one core"),
        }
    }
}

fn owned(counts: Counts) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

impl Status {
    /// The first few interfaces, each with how it is attached to.
    fn listed_interfaces(&self) -> String {
        let shown = self.interfaces.iter().take(MAX_LISTED).map(|interface| {
            let name = crate::report::words::printable(&interface.name, 40);
            format!("{name} ({})", interface.attachment)
        });
        let shown: Vec<String> = shown.collect();
        match self.interfaces.len().saturating_sub(MAX_LISTED) {
            _ if shown.is_empty() => "none".to_owned(),
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    }
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
        writeln!(f, "interfaces {}", self.listed_interfaces())?;
        writeln!(f, "sampling   {}", self.sampling())?;
        if self.ramp.share < 1.0 || self.ramp.stages > 1 {
            writeln!(f, "ramp       {}", self.ramp)?;
        }
        if !self.tripped.is_empty() {
            writeln!(f, "guards     tripped: {}; the log says why", self.tripped.join(", "))?;
        }
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
        for (count, what) in [
            (self.duplicate_segments, "segments seen before"),
            (self.conflicting_segments, "segments with other bytes than those before"),
            (
                self.one_sided_flows,
                "flows of which one direction was never captured: is there another way in or out?",
            ),
        ] {
            if count > 0 {
                writeln!(f, "           {} {what}", thousands(count))?;
            }
        }
        if self.imbalance > 0 {
            writeln!(f, "           the books are off by {}, please report this", thousands(self.imbalance))?;
        }
        for target in &self.targets {
            let answered = target.answered as f64 / target.selected.max(1) as f64;
            writeln!(
                f,
                "{:<10} {}: {} answered ({}), {} failed{}, {} not sent{}, {} queued{}{}",
                target.role,
                crate::report::words::printable(&target.name, 40),
                thousands(target.answered),
                percent(answered),
                sum(&target.failed),
                listed(&target.failed),
                sum(&target.dropped),
                listed(&target.dropped),
                thousands(target.queue),
                if target.breaker_open { ", circuit breaker open" } else { "" },
                if target.paused { ", paused by a guard" } else { "" }
            )?;
        }
        writeln!(f, "verdict    {}", self.verdict)?;
        for reason in &self.reasons {
            writeln!(f, "           - {}", crate::report::words::printable(reason, 200))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::state;
    use super::*;
    use crate::config::Share;
    use crate::control::Leave;

    #[test]
    fn it_says_why_fewer_flows_are_captured_than_configured() {
        let state = state();
        state.sources.cpu.measured(Share(0.93));
        let check = |sample: f64, expected: &str| {
            state.sources.control.set_sample(Share(sample));
            let status = Status::of(&state, Timestamp::default());
            assert_eq!((status.sample, status.sample_configured), (sample, 1.0));
            let said = status.to_string();
            assert!(said.contains(expected), "{expected} in {said}");
        };
        check(1.0, "sampling   100 % of flows, for 93 % of one core\n");
        check(
            0.25,
            "25 % of flows instead of the configured 100 %, to keep limits.cpu (100 % of one core; 93 % now)\n",
        );
        check(1.0 / 64.0, "sampling   1.6 % of flows instead");
    }

    #[test]
    fn it_says_where_the_ramp_stands_what_tripped_and_who_is_paused() {
        let state = state();
        let said = || Status::of(&state, Timestamp(1_000_000_000)).to_string();
        assert!(!said().contains("ramp") && !said().contains("guards") && !said().contains("paused"));
        let replaying = state.sources.control.replaying();
        let next = Some(Timestamp(31_000_000_000));
        replaying.set_rung(Rung { share: Share(0.1), stage: 2, stages: 3, next });
        replaying.give(0, Leave::Nothing);
        state.sources.guards.set_tripped(Name::ShadowErrors, true);
        for line in [
            "ramp       10 % of connections are replayed, stage 2 of 3, the next step is due in 30 s\n",
            "guards     tripped: shadow_errors; the log says why\n",
            ", paused by a guard\n",
        ] {
            assert!(said().contains(line), "{line} in {}", said());
        }
        replaying.set_rung(Rung { share: Share(0.0), stage: 0, stages: 1, next });
        assert!(
            said().contains("ramp       nothing is replayed, the next step is due in 30 s\n"),
            "{}",
            said()
        );
    }
}
