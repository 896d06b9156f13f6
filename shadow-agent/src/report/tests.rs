//! Tests of the report as its users see it.

use super::testing::{answered, observation, report, run, targets, traffic};
use super::*;
use crate::exchange::SkipReason;
use crate::ledger::{Comparison, Ledger, ShardBatch};

fn summarize(report: &Report, ledger: &Ledger) -> Summary {
    report.summary(&ledger.snapshot(), &capture::Counters::default())
}

#[test]
fn endpoints_beyond_the_bound_share_one() {
    const BOUND: u64 = 4 + OTHERS as u64 - 1;
    for (endpoints, held, folded) in [(BOUND, BOUND, 0), (BOUND + 1, BOUND + 1, 1), (BOUND + 3, BOUND + 1, 3)]
    {
        let compare = config::Compare { max_endpoints: 4, ..config::Compare::default() };
        let report = Report::new(&config::Verdict::default(), &compare, targets(false), "");
        for id in 0..endpoints {
            report.record(observation(&format!("GET /{id}"), id));
        }
        let pages = report.pages();
        assert_eq!((pages.endpoints.len() as u64, pages.folded), (held, folded), "{endpoints} endpoints");
        assert_eq!(pages.all.requests, endpoints);
        let has_other = pages.endpoints.iter().any(|book| book.endpoint.as_ref() == OTHER);
        assert_eq!(has_other, folded > 0);
    }
}

#[test]
fn exchanges_of_shared_endpoints_are_counted() {
    let report = report(false);
    for (id, endpoint) in ["GET {other}", "GET /a", "{other}", "GET {other}"].into_iter().enumerate() {
        report.record(observation(endpoint, id as u64));
    }
    let pages = report.pages();
    let names: Vec<_> = pages.endpoints.iter().map(|book| book.endpoint.to_string()).collect();
    assert_eq!(names, ["GET {other}", "GET /a", "{other}"]);
    assert_eq!(pages.folded, 3);
}

#[test]
fn the_summary_has_everything_once_and_the_worst_first() {
    let report = report(true);
    let ledger = Ledger::new(1, 2);
    run(&report, &ledger, traffic("/clean", 500, 0, true));
    run(&report, &ledger, traffic("/broken", 300, 10, true));
    ledger.shard(
        0,
        &ShardBatch { seen: 2, skipped: vec![(SkipReason::Credentials, 2)], ..ShardBatch::default() },
    );
    let summary = summarize(&report, &ledger);
    let names: Vec<_> = summary.endpoints.iter().map(|endpoint| endpoint.endpoint.as_str()).collect();
    assert_eq!(names, ["/broken", "/clean"]);
    let broken = &summary.endpoints[0].targets[0];
    assert_eq!((broken.matches, broken.mismatches), (270, 30));
    assert_eq!(broken.verdict, Some(Outcome::Fail));
    assert_eq!(broken.differences.len(), 1);
    let group = &broken.differences[0];
    assert_eq!((group.place.as_str(), group.kind, group.count), ("body:$.price", "value", 30));
    assert!((group.share - 0.1).abs() < 1e-9);
    assert_eq!(group.first_seen, "2023-11-14T22:13:20.000000000Z");
    assert_eq!(summary.overall.requests, 800);
    assert_eq!(summary.overall.targets[0].mismatches, 30);
    assert_eq!(summary.verdict.outcome, Outcome::Fail);
    assert_eq!(summary.ledger.imbalance, 0);
    let skipped = &summary.skipped[0];
    assert_eq!((skipped.reason, skipped.count), ("credentials", 2));
    assert!(skipped.remedy.contains("--credentials forward"));
    assert_eq!(summary.endpoints[0].targets[1].verdict, None, "a baseline is not judged");
}

#[test]
fn the_document_has_stable_names() {
    let report = report(true);
    let ledger = Ledger::new(1, 2);
    run(&report, &ledger, traffic("/a", 20, 5, true));
    let document = serde_json::to_value(summarize(&report, &ledger)).unwrap();
    let present = [
        "/version",
        "/run",
        "/started",
        "/duration_seconds",
        "/verdict/outcome",
        "/verdict/confidence",
        "/verdict/reasons/0",
        "/verdict/targets/0/checks/0/check",
        "/verdict/targets/0/checks/0/upper",
        "/endpoints/0/endpoint",
        "/endpoints/0/production_wire_latency/p95_seconds",
        "/endpoints/0/targets/0/latency/p99_seconds",
        "/endpoints/0/targets/0/differences/0/examples/0/exchange",
        "/endpoints/0/targets/0/differences/0/examples/0/target",
        "/endpoints/0/targets/0/differences/0/examples/0/production",
        "/endpoints/0/targets/0/differences/0/examples/0/candidate",
        "/ledger/seen",
        "/ledger/targets/1/answered",
        "/kernel/bytes",
    ];
    for pointer in present {
        let value = document.pointer(pointer);
        assert!(value.is_some_and(|value| !value.is_null()), "{pointer} in {document:#}");
    }
    assert_eq!(document.pointer("/endpoints/0/targets/0/differences/0/class").unwrap(), "mismatch");
    assert_eq!(document.pointer("/verdict/targets/0/checks/2/check").unwrap(), "latency_p95");
}

#[test]
fn every_skip_reason_has_a_remedy_of_one_sentence() {
    for &reason in SkipReason::ALL {
        let remedy = remedy_of(reason);
        assert!(!remedy.is_empty() && !remedy.ends_with('.') && !remedy.contains('\n'), "{reason}: {remedy}");
    }
}

fn remedy_of(reason: SkipReason) -> &'static str {
    summary::remedy(reason)
}

#[test]
fn observations_from_many_threads_all_count() {
    let report = report(false);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let report = &report;
            scope.spawn(move || {
                for id in 0..500 {
                    let mut seen = observation(&format!("/{}", id % 7), thread * 1_000 + id);
                    seen.targets.push(answered(Comparison::Match, 200));
                    report.record(seen);
                }
            });
        }
        for _ in 0..5 {
            let pages = report.pages();
            assert!(pages.all.requests <= 2_000);
        }
    });
    let pages = report.pages();
    assert_eq!((pages.all.requests, pages.all.targets[0].matches), (2_000, 2_000));
    assert_eq!(pages.lag.count(), 2_000);
}
