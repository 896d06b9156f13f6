//! The agent's metrics: their names, and which figure each one is.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::core::Desc;
use prometheus::proto::{MetricFamily, MetricType};

use super::Sources;
use super::family::Family;
use crate::capture::PacketResult;
use crate::exchange::{DropReason, FailReason, LostReason, SkipReason};
use crate::guard::Direction;
use crate::report::differences::kind_name;

/// One metric, under the name that users rely on.
pub(super) struct Named {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
}

impl Named {
    pub(super) const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Named {
        Named { name, help, kind: MetricType::GAUGE, labels }
    }

    const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Named {
        Named { name, help, kind: MetricType::COUNTER, labels }
    }

    const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Named {
        Named { name, help, kind: MetricType::HISTOGRAM, labels }
    }

    pub(super) fn family(&self) -> Family {
        Family::new(self.name, self.help, self.kind, self.labels)
    }
}

const ENABLED: Named = Named::gauge(
    "shadow_capture_enabled",
    &[],
    "Whether the kill switch lets requests be captured (1) or not (0).",
);
const PACKETS: Named = Named::counter(
    "shadow_capture_packets_total",
    &["result"],
    "Packets by what the kernel decided about them.",
);
const BYTES: Named = Named::counter("shadow_capture_bytes_total", &[], "Payload bytes copied by the kernel.");
const INTERFACES: Named = Named::gauge("shadow_capture_interfaces", &[], "Interfaces captured from.");
const DUPLICATES: Named = Named::counter(
    "shadow_capture_duplicate_segments_total",
    &[],
    "Segments captured that were seen before: retransmitted, or passing more than one interface.",
);
const CONFLICTS: Named = Named::counter(
    "shadow_capture_conflicting_segments_total",
    &[],
    "Segments that brought other bytes than those captured before for the same place; the first ones count.",
);
const ONE_SIDED: Named = Named::counter(
    "shadow_capture_one_sided_flows_total",
    &[],
    "Flows of whose one direction nothing was ever captured: it takes another way.",
);
const SAMPLE: Named =
    Named::gauge("shadow_capture_sample_ratio", &[], "Share of flows captured at present, 0 to 1.");
const SAMPLE_CONFIGURED: Named = Named::gauge(
    "shadow_capture_sample_configured_ratio",
    &[],
    "Share of flows that capture.sample or `ctl sample` asks for, 0 to 1; the CPU guard may capture fewer.",
);
const CPU: Named =
    Named::gauge("shadow_agent_cpu_ratio", &[], "CPU time of the agent over the last second, in cores.");
const GUARD_STEPS: Named = Named::counter(
    "shadow_guard_steps_total",
    &["guard", "direction"],
    "Steps that a guard took the share captured (cpu) or replayed (others) down, or that it went up.",
);
const SPANS: Named = Named::counter(
    "shadow_trace_spans_total",
    &["outcome"],
    "Spans by what became of them: exported, dropped because too many waited, failed at the collector of traces.otlp.",
);
const FLOWS: Named = Named::gauge("shadow_flows_active", &[], "Flows tracked.");
const BUFFER: Named = Named::gauge("shadow_buffer_bytes", &[], "Bytes buffered for flows.");
const EXCHANGES: Named =
    Named::counter("shadow_exchanges_total", &["outcome", "reason"], "Exchanges by what became of them.");
const IN_FLIGHT: Named =
    Named::gauge("shadow_exchanges_in_flight", &[], "Exchanges met and not yet selected, skipped or lost.");
const IMBALANCE: Named =
    Named::gauge("shadow_ledger_imbalance", &[], "Exchanges that are not accounted for. Must be 0.");
const REPLAYS: Named = Named::counter(
    "shadow_replays_total",
    &["target", "outcome", "reason"],
    "Requests by how they ended at a target.",
);
const QUEUE: Named = Named::gauge("shadow_replay_queue_length", &["target"], "Requests queued for a target.");
const BREAKER: Named =
    Named::gauge("shadow_breaker_open", &["target"], "Whether a target's circuit breaker is open (1).");
const COMPARISONS: Named = Named::counter(
    "shadow_comparisons_total",
    &["target", "endpoint", "result"],
    "Answers by what comparing them gave.",
);
const DIFFERENCES: Named = Named::counter(
    "shadow_differences_total",
    &["target", "endpoint", "kind"],
    "Differences in mismatching answers, by kind.",
);
const RESPONSE: Named = Named::histogram(
    "shadow_response_duration_seconds",
    &["target", "endpoint"],
    "Time to a target's first response byte, measured by the agent; a timeout counts as the timeout.",
);
const PRODUCTION: Named = Named::histogram(
    "shadow_production_duration_seconds",
    &["endpoint"],
    "Time to production's first response byte on the wire.",
);
const MASK_FAILURES: Named = Named::counter(
    "shadow_mask_failures_total",
    &[],
    "Values that the self-check found about to leave although a rule should have masked them. Must be 0.",
);
const MASKED: Named = Named::counter(
    "shadow_masked_total",
    &["exit", "rule"],
    "Values masked, by the exit (send, keep) and the rule that found them.",
);
const AUDIT_FAILURES: Named = Named::counter(
    "shadow_audit_failures_total",
    &[],
    "Entries that are missing from the audit log, because it could not be written.",
);
const LAG: Named = Named::histogram(
    "shadow_pipeline_lag_seconds",
    &[],
    "From the end of production's response to the result of the comparison.",
);
const VERDICT: Named =
    Named::gauge("shadow_verdict", &["target"], "Verdict on a candidate: 0 insufficient, 1 pass, 2 fail.");
const BUILD: Named = Named::gauge("shadow_build_info", &["version"], "The running version; always 1.");

const ALL: &[&Named] = &[
    &ENABLED,
    &PACKETS,
    &BYTES,
    &INTERFACES,
    &DUPLICATES,
    &SAMPLE,
    &SAMPLE_CONFIGURED,
    &CPU,
    &GUARD_STEPS,
    &SPANS,
    &FLOWS,
    &BUFFER,
    &EXCHANGES,
    &IN_FLIGHT,
    &IMBALANCE,
    &REPLAYS,
    &QUEUE,
    &BREAKER,
    &COMPARISONS,
    &DIFFERENCES,
    &RESPONSE,
    &PRODUCTION,
    &MASK_FAILURES,
    &AUDIT_FAILURES,
    &MASKED,
    &LAG,
    &VERDICT,
    &BUILD,
];

/// Bucket bounds of every duration, in microseconds.
const EDGES: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// What the registry wants to know beforehand.
pub(super) fn descriptions() -> prometheus::Result<Vec<Desc>> {
    ALL.iter()
        .chain(super::guards::ALL)
        .map(|named| {
            let labels = named.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(named.name.to_owned(), named.help.to_owned(), labels, HashMap::new())
        })
        .collect()
}

/// Every metric as of now.
pub(super) fn families(sources: &Sources) -> Vec<MetricFamily> {
    let ledger = sources.ledger.snapshot();
    let run = sources.runs.current();
    let targets = run.report().targets();
    let pages = run.report().pages();
    let verdict = run.report().judge(&pages, &run.ledger(ledger.clone()));
    let kernel = (sources.kernel)();
    let replay = (sources.replay)();
    let edges = EDGES.map(Duration::from_micros);

    let mut exchanges = EXCHANGES.family();
    exchanges.count(&["selected", ""], ledger.selected);
    each(SkipReason::ALL, &ledger.skipped, |reason, count| {
        exchanges.count(&["skipped", reason.as_str()], count)
    });
    each(LostReason::ALL, &ledger.lost, |reason, count| exchanges.count(&["lost", reason.as_str()], count));

    let mut packets = PACKETS.family();
    each(PacketResult::ALL, &kernel.packets, |result, count| packets.count(&[result.as_str()], count));

    let mut replays = REPLAYS.family();
    for (target, counts) in targets.iter().zip(&ledger.targets) {
        let name = target.name.as_str();
        replays.count(&[name, "answered", ""], counts.answered);
        each(FailReason::ALL, &counts.failed, |reason, count| {
            replays.count(&[name, "failed", reason.as_str()], count)
        });
        each(DropReason::ALL, &counts.dropped, |reason, count| {
            replays.count(&[name, "dropped", reason.as_str()], count);
        });
    }

    let (mut queue, mut breaker) = (QUEUE.family(), BREAKER.family());
    for (target, state) in targets.iter().zip(&replay) {
        queue.count(&[&target.name], state.queue);
        breaker.count(&[&target.name], u64::from(state.breaker_open));
    }

    let (mut comparisons, mut differences) = (COMPARISONS.family(), DIFFERENCES.family());
    let (mut response, mut production) = (RESPONSE.family(), PRODUCTION.family());
    for page in &pages.endpoints {
        let endpoint = page.endpoint.as_ref();
        production.durations(&[endpoint], &page.production, &edges);
        for (target, book) in targets.iter().zip(&page.targets) {
            let name = target.name.as_str();
            for (result, count) in [
                ("match", book.matches),
                ("mismatch", book.mismatches),
                ("noise", book.noise),
                ("drift", book.drift),
                ("uncomparable", book.uncomparable.iter().sum()),
            ] {
                comparisons.count(&[name, endpoint, result], count);
            }
            for (&kind, &count) in book.groups.kinds() {
                differences.count(&[name, endpoint, kind_name(kind)], count);
            }
            response.durations(&[name, endpoint], &book.latency, &edges);
        }
    }

    let mut lag = LAG.family();
    lag.durations(&[], &pages.lag, &edges);

    let mut verdicts = VERDICT.family();
    for judged in &verdict.targets {
        verdicts.value(&[&judged.target], judged.outcome.metric());
    }

    let mut steps = GUARD_STEPS.family();
    for direction in Direction::ALL {
        steps.count(&["cpu", direction.as_str()], sources.cpu.steps(direction));
    }
    for (guard, direction, count) in sources.guards.steps() {
        steps.count(&[guard, direction.as_str()], count);
    }

    let mut spans = SPANS.family();
    let told = (sources.spans)().unwrap_or_default();
    for (outcome, count) in [("exported", told.exported), ("dropped", told.dropped), ("failed", told.failed)]
    {
        spans.count(&[outcome], count);
    }

    let mut masked = MASKED.family();
    let tallies = (sources.masks)();
    for tally in &tallies {
        tally.counts().for_each(|(rule, count)| masked.count(&[tally.exit().as_str(), rule], count));
    }
    let mask_failures: u64 = tallies.iter().map(|tally| tally.failures()).sum();

    let mut families = vec![exchanges, packets, replays, queue, breaker, comparisons, differences];
    families.extend([response, production, lag, verdicts, steps, spans, masked]);
    families.extend([
        single(&ENABLED, f64::from(u8::from(sources.control.enabled()))),
        single(&BYTES, kernel.bytes as f64),
        single(&INTERFACES, (sources.interfaces)().len() as f64),
        single(&DUPLICATES, ledger.oddities.duplicate_segments as f64),
        single(&CONFLICTS, ledger.oddities.conflicting_segments as f64),
        single(&ONE_SIDED, ledger.oddities.one_sided_flows as f64),
        single(&SAMPLE, sources.control.sample().0),
        single(&SAMPLE_CONFIGURED, sources.control.configured_sample().0),
        single(&CPU, sources.cpu.used().0),
        single(&FLOWS, ledger.flows as f64),
        single(&BUFFER, ledger.buffered as f64),
        single(&IN_FLIGHT, ledger.in_flight as f64),
        single(&IMBALANCE, ledger.imbalance() as f64),
        single(&MASK_FAILURES, mask_failures as f64),
        single(&AUDIT_FAILURES, sources.audit.failures() as f64),
    ]);
    let mut build = BUILD.family();
    build.count(&[env!("CARGO_PKG_VERSION")], 1);
    families.push(build);
    families.extend(super::guards::families(sources));
    families.into_iter().map(Family::done).collect()
}

pub(super) fn single(named: &Named, value: f64) -> Family {
    let mut family = named.family();
    family.value(&[], value);
    family
}

fn each<R: Copy>(all: &[R], tally: &[u64], mut enter: impl FnMut(R, u64)) {
    for (&reason, &count) in all.iter().zip(tally) {
        enter(reason, count);
    }
}
