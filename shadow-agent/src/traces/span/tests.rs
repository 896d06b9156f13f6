use std::collections::BTreeMap;

use super::*;
use crate::config::TraceContext;
use crate::exchange::{DropReason, FailReason, UncomparableReason};
use crate::ledger::Comparison;
use crate::policy::fixture;
use crate::report::TargetObservation;
use crate::report::testing::{self, answered, failed, observation};

const ORIGIN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn attributes(span: &SpanData) -> BTreeMap<String, String> {
    span.attributes.iter().map(|pair| (pair.key.to_string(), pair.value.to_string())).collect()
}

fn dropped() -> TargetObservation {
    TargetObservation { outcome: TargetOutcome::Dropped(DropReason::Queue), ..failed(FailReason::Closed) }
}

fn spans_of(mode: TraceContext, traceparent: Option<&str>, targets: Vec<TargetObservation>) -> Vec<SpanData> {
    let line = traceparent.map_or_else(String::new, |line| format!("traceparent: {line}\n"));
    let exchange = fixture::exchange(&format!("GET /users/7?q=1\n{line}\n"), "200\n\n");
    let side = Side { start: Timestamp(5_000_000_000), end: Timestamp(5_003_000_000) };
    let mut seen = observation("GET /users/{id}", exchange.id.0);
    seen.targets = targets;
    seen.production_status = 503;
    Told::new(&exchange, vec![side; 2]).spans(&Contexts::new(mode, 1), &testing::targets(true), &seen)
}

/// The spans of one exchange.
pub(in crate::traces) fn spans() -> Vec<SpanData> {
    let targets = vec![answered(Comparison::Match, 200), answered(Comparison::Match, 200)];
    spans_of(TraceContext::Mint, Some(ORIGIN), targets)
}

#[test]
fn every_side_has_a_span_and_those_of_targets_are_linked_to_production_s() {
    let uncomparable = Comparison::Uncomparable(UncomparableReason::Encoding);
    let targets = vec![answered(Comparison::Mismatch, 200), answered(uncomparable, 500)];
    let spans = spans_of(TraceContext::Mint, Some(ORIGIN), targets);
    let [production, candidate, baseline] = spans.as_slice() else { panic!("{} spans", spans.len()) };
    let traces = [production, candidate, baseline].map(|span| span.span_context.trace_id());
    assert!(traces[0] != traces[1] && traces[1] != traces[2]);
    for side in [candidate, baseline] {
        assert_eq!(side.links.first().unwrap().span_context, production.span_context);
        assert_eq!((side.span_kind.clone(), side.parent_span_id), (SpanKind::Client, SpanId::INVALID));
        assert_eq!(side.end_time.duration_since(side.start_time).unwrap(), Duration::from_millis(3));
    }
    let origin = &production.links.first().unwrap().span_context;
    assert_eq!(origin.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(origin.span_id().to_string(), "b7ad6b7169203331");
    let expected = [
        (production, "production", "503", None),
        (candidate, "candidate", "200", Some("mismatch")),
        (baseline, "baseline", "500", Some("uncomparable")),
    ];
    for (span, side, status, result) in expected {
        let found = attributes(span);
        assert_eq!(found["shadow.side"], side);
        assert_eq!(found["http.response.status_code"], status);
        assert_eq!(found.get("shadow.result").map(String::as_str), result);
        assert_eq!((&*found["http.route"], &*found["http.request.method"]), ("/users/{id}", "GET"));
        assert_eq!(span.name, "GET /users/{id}");
        assert_eq!(span.status == Status::Unset, status == "200", "{side}");
        assert!(!format!("{span:?}").contains("q=1"), "no query");
    }
}

#[test]
fn what_was_not_sent_has_no_span_and_what_failed_says_why() {
    let spans = spans_of(TraceContext::Mint, None, vec![dropped(), failed(FailReason::Timeout)]);
    let [production, baseline] = spans.as_slice() else { panic!("{} spans", spans.len()) };
    assert!(production.links.is_empty());
    let found = attributes(baseline);
    assert_eq!((&*found["error.type"], &*found["shadow.result"]), ("timeout", "failed"));
    assert_eq!(baseline.status, Status::error(""));
}

#[test]
fn spans_of_a_propagated_trace_are_children_of_the_original() {
    let targets = vec![answered(Comparison::Match, 200), answered(Comparison::Match, 200)];
    let spans = spans_of(TraceContext::Propagate, Some(ORIGIN), targets);
    assert_eq!(spans.len(), 3);
    for span in &spans {
        assert_eq!(span.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
    }
    assert!(spans[0].links.is_empty());
}

#[test]
fn methods_that_nobody_knows_are_not_told() {
    for (name, told) in [("GET", "GET"), ("get", "_OTHER"), ("SECRET", "_OTHER")] {
        assert_eq!(method(&Method::from_bytes(name.as_bytes()).unwrap()), told);
    }
}
