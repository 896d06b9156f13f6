//! Tests of what a scrape says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::capture::PacketResult;
use crate::capture::kernel::Attachment;
use crate::control::{Leave, Rung};
use crate::exchange::{LostReason, SkipReason, Timestamp};
use crate::guard::Direction;
use crate::guard::watch::Name;
use crate::ledger::ShardBatch;
use crate::policy::mask::Masker;
use crate::report::testing::{report, run, traffic};
use crate::runs::{Mark, Run};
use crate::tcp::Oddities;
use crate::traces::Figures;

fn sources() -> Sources {
    let (control, cpu) = (Control::new(true), Arc::new(Readings::default()));
    control.configure_sample(Share(0.25));
    control.set_sample(Share(0.125));
    cpu.measured(Share(1.5));
    cpu.stepped(Direction::Down);
    Sources {
        ledger: Arc::new(Ledger::new(1, 2)),
        runs: Arc::new(Runs::new(Arc::new(Run::new(report(true), Mark::default())))),
        control,
        kernel: Arc::new(|| capture::Counters { packets: vec![7; PacketResult::ALL.len()], bytes: 4_096 }),
        replay: Arc::new(|| {
            vec![ReplayState { queue: 3, breaker_open: true }, ReplayState { queue: 0, breaker_open: false }]
        }),
        interfaces: Arc::new(|| {
            vec![Attached { device: "eth0".to_owned(), attachment: Attachment::Tcx, xdp: None }]
        }),
        spans: Arc::new(|| Some(Figures { exported: 30, dropped: 2, failed: 1 })),
        cpu,
        cpu_limit: Some(Share::ALL),
        audit: Audit::off(),
        guards: Arc::default(),
        masks: Arc::new(|| Masker::default().tallies()),
    }
}

fn busy() -> Sources {
    let sources = sources();
    run(sources.runs.current().report(), &sources.ledger, traffic("/users/{id}", 40, 10, true));
    run(sources.runs.current().report(), &sources.ledger, traffic("/quote\"\\\n", 5, 0, true));
    let batch = ShardBatch {
        seen: 4,
        open: 1,
        flows: 2,
        buffered: 99,
        oddities: Oddities { duplicate_segments: 6, conflicting_segments: 7, one_sided_flows: 8 },
        skipped: vec![(SkipReason::Method, 2)],
        lost: vec![(LostReason::Gap, 1)],
        ..ShardBatch::default()
    };
    sources.ledger.shard(0, &batch);
    sources
}

/// Samples by name and labels, as written.
fn scrape(sources: Sources) -> BTreeMap<String, f64> {
    let text = Metrics::new(sources).unwrap().render().unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn every_figure_comes_from_where_it_is_counted() {
    let samples = scrape(busy());
    let expected = [
        ("shadow_capture_enabled", 1.0),
        ("shadow_capture_interfaces", 1.0),
        ("shadow_capture_duplicate_segments_total", 6.0),
        ("shadow_capture_conflicting_segments_total", 7.0),
        ("shadow_capture_one_sided_flows_total", 8.0),
        ("shadow_capture_packets_total{result=\"ring_full\"}", 7.0),
        ("shadow_capture_bytes_total", 4_096.0),
        ("shadow_capture_sample_ratio", 0.125),
        ("shadow_capture_sample_configured_ratio", 0.25),
        ("shadow_agent_cpu_ratio", 1.5),
        ("shadow_guard_steps_total{guard=\"cpu\",direction=\"down\"}", 1.0),
        ("shadow_guard_steps_total{guard=\"cpu\",direction=\"up\"}", 0.0),
        ("shadow_trace_spans_total{outcome=\"exported\"}", 30.0),
        ("shadow_trace_spans_total{outcome=\"dropped\"}", 2.0),
        ("shadow_trace_spans_total{outcome=\"failed\"}", 1.0),
        ("shadow_flows_active", 2.0),
        ("shadow_buffer_bytes", 99.0),
        ("shadow_exchanges_total{outcome=\"selected\",reason=\"\"}", 45.0),
        ("shadow_exchanges_total{outcome=\"skipped\",reason=\"method\"}", 2.0),
        ("shadow_exchanges_total{outcome=\"skipped\",reason=\"tls\"}", 0.0),
        ("shadow_exchanges_total{outcome=\"lost\",reason=\"gap\"}", 1.0),
        ("shadow_exchanges_in_flight", 1.0),
        ("shadow_ledger_imbalance", 0.0),
        ("shadow_replays_total{target=\"candidate\",outcome=\"answered\",reason=\"\"}", 45.0),
        ("shadow_replays_total{target=\"baseline\",outcome=\"failed\",reason=\"timeout\"}", 0.0),
        ("shadow_replay_queue_length{target=\"candidate\"}", 3.0),
        ("shadow_breaker_open{target=\"candidate\"}", 1.0),
        ("shadow_breaker_open{target=\"baseline\"}", 0.0),
        ("shadow_comparisons_total{target=\"candidate\",endpoint=\"/users/{id}\",result=\"mismatch\"}", 4.0),
        ("shadow_comparisons_total{target=\"candidate\",endpoint=\"/users/{id}\",result=\"match\"}", 36.0),
        ("shadow_differences_total{target=\"candidate\",endpoint=\"/users/{id}\",kind=\"value\"}", 4.0),
        ("shadow_response_duration_seconds_count{target=\"baseline\",endpoint=\"/users/{id}\"}", 40.0),
        (
            "shadow_response_duration_seconds_bucket{target=\"baseline\",endpoint=\"/users/{id}\",le=\"0.001\"}",
            0.0,
        ),
        (
            "shadow_response_duration_seconds_bucket{target=\"baseline\",endpoint=\"/users/{id}\",le=\"0.0025\"}",
            40.0,
        ),
        (
            "shadow_response_duration_seconds_bucket{target=\"baseline\",endpoint=\"/users/{id}\",le=\"+Inf\"}",
            40.0,
        ),
        ("shadow_production_duration_seconds_count{endpoint=\"/users/{id}\"}", 40.0),
        ("shadow_mask_failures_total", 0.0),
        ("shadow_pipeline_lag_seconds_count", 45.0),
        ("shadow_verdict{target=\"candidate\"}", 0.0),
        (concat!("shadow_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ];
    for (name, value) in expected {
        assert_eq!(samples.get(name).copied(), Some(value), "{name} in {samples:#?}");
    }
    let sum = samples["shadow_response_duration_seconds_sum{target=\"baseline\",endpoint=\"/users/{id}\"}"];
    assert!((sum - 0.08).abs() < 1e-9, "{sum}");
    assert!(!samples.keys().any(|name| name.contains("verdict{target=\"baseline\"")));
}

#[test]
fn the_switch_and_the_verdict_show() {
    let sources = sources();
    sources.control.set_enabled(false);
    run(sources.runs.current().report(), &sources.ledger, traffic("/a", 200, 1, true));
    let samples = scrape(sources);
    assert_eq!(samples["shadow_capture_enabled"], 0.0);
    assert_eq!(samples["shadow_verdict{target=\"candidate\"}"], 2.0);
}

#[test]
fn every_metric_of_the_contract_is_there_and_described() {
    let text = Metrics::new(busy()).unwrap().render().unwrap();
    let described: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let contract = "shadow_capture_enabled shadow_capture_packets_total shadow_capture_bytes_total \
        shadow_capture_sample_ratio shadow_flows_active shadow_buffer_bytes shadow_exchanges_total \
        shadow_exchanges_in_flight shadow_ledger_imbalance shadow_replays_total shadow_replay_queue_length \
        shadow_breaker_open shadow_comparisons_total shadow_differences_total shadow_response_duration_seconds \
        shadow_production_duration_seconds shadow_mask_failures_total shadow_masked_total \
        shadow_audit_failures_total shadow_pipeline_lag_seconds shadow_verdict \
        shadow_build_info shadow_capture_interfaces shadow_capture_duplicate_segments_total \
        shadow_capture_conflicting_segments_total \
        shadow_capture_one_sided_flows_total shadow_capture_sample_configured_ratio shadow_agent_cpu_ratio \
        shadow_guard_steps_total shadow_trace_spans_total shadow_guard_tripped shadow_ramp_share shadow_ramp_stage \
        shadow_ramp_next_step_timestamp_seconds shadow_target_paused";
    assert_eq!(described, contract.split_whitespace().collect());
}

#[test]
fn an_agent_that_saw_nothing_renders_too() {
    let samples = scrape(sources());
    assert_eq!(samples["shadow_pipeline_lag_seconds_count"], 0.0);
    assert_eq!(samples["shadow_exchanges_total{outcome=\"lost\",reason=\"gap\"}"], 0.0);
}

#[test]
fn label_values_cannot_break_a_line() {
    let text = Metrics::new(busy()).unwrap().render().unwrap();
    assert!(text.contains(r#"endpoint="/quote\"\\\n""#), "{text}");
}

/// Prometheus' own linter, where it is installed.
#[test]
fn promtool_accepts_the_output() {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        println!("skipped: promtool is not installed (Debian package prometheus)");
        return;
    };
    let text = Metrics::new(busy()).unwrap().render().unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "");
}

#[test]
fn the_ramp_and_the_guards_show() {
    let sources = sources();
    let replaying = sources.control.replaying();
    let next = Some(Timestamp(1_700_000_000_500_000_000));
    replaying.set_rung(Rung { share: Share(0.1), stage: 2, stages: 3, next });
    replaying.give(1, Leave::Probes(3));
    sources.guards.set_tripped(Name::ShadowErrors, true);
    sources.guards.stepped_back(Name::RingLosses);
    sources.guards.stepped_forward();
    let samples = scrape(sources);
    for (name, value) in [
        ("shadow_ramp_share", 0.1),
        ("shadow_ramp_stage", 2.0),
        ("shadow_ramp_next_step_timestamp_seconds", 1_700_000_000.5),
        ("shadow_target_paused{target=\"candidate\"}", 0.0),
        ("shadow_target_paused{target=\"baseline\"}", 1.0),
        ("shadow_guard_tripped{guard=\"shadow_errors\"}", 1.0),
        ("shadow_guard_tripped{guard=\"memory\"}", 0.0),
        ("shadow_guard_steps_total{guard=\"ring_losses\",direction=\"down\"}", 1.0),
        ("shadow_guard_steps_total{guard=\"ramp\",direction=\"up\"}", 1.0),
        ("shadow_guard_steps_total{guard=\"cpu\",direction=\"down\"}", 1.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
}
