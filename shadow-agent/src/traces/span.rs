//! Makes the spans of one exchange: production's, and one for each target. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanLinks};

use super::{Context, Contexts};
use crate::exchange::{Exchange, ExchangeId, Role, TargetInfo, Timestamp};
use crate::ledger::TargetOutcome;
use crate::replay::Outcome;
use crate::report::Observation;

/// What made the spans, as collectors show it.
const SCOPE: &str = "shadow-agent";

/// When a request was under way at one target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    start: Timestamp,
    end: Timestamp,
}

impl Side {
    /// Of a replay that began at `began` and has just ended; of an answer, from the last byte of the request to the last
    /// byte of the answer.
    pub(crate) fn of(outcome: &Outcome, began: Timestamp) -> Side {
        match outcome {
            Outcome::Answered(answer) => Side { start: answer.sent, end: answer.done },
            Outcome::Failed(_) | Outcome::Dropped(_) => Side { start: began, end: Timestamp::now() },
        }
    }
}

/// What spans are made of, besides how the exchange was judged.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    id: ExchangeId,
    original: Option<Context>,
    method: &'static str,
    started: Timestamp,
    done: Timestamp,
    sides: Vec<Side>,
}

impl Told {
    /// Of an exchange that was under way at its targets then.
    pub(crate) fn new(exchange: &Exchange, sides: Vec<Side>) -> Told {
        Told {
            id: exchange.id,
            original: Context::read(exchange.request.headers.all("traceparent").map(|line| &line[..])),
            method: method(&exchange.request.method),
            started: exchange.times.started,
            done: exchange.times.response_done,
            sides,
        }
    }

    /// The spans: production's, then those of the targets to which the request was sent, each linked to production's.
    ///
    /// Production's is linked to the span that its request names as its parent, and with
    /// [`crate::config::TraceContext::Propagate`] every one is a child of that.
    pub(crate) fn spans(
        &self,
        contexts: &Contexts,
        targets: &[TargetInfo],
        observation: &Observation,
    ) -> Vec<SpanData> {
        let original = self.original.as_ref();
        let parent = if contexts.propagates() { original } else { None };
        let production = contexts.of(self.id, None, original);
        let status = observation.production_status;
        let mut spans = vec![self.span(
            observation,
            Parts {
                context: production,
                parent,
                linked: original.filter(|_| parent.is_none()),
                kind: SpanKind::Server,
                time: (time(self.started), time(self.done)),
                attributes: vec![KeyValue::new("shadow.side", "production"), code(status)],
                failed: status >= 500,
            },
        )];
        for ((target, side), seen) in targets.iter().zip(&self.sides).zip(&observation.targets) {
            let (result, error) = match seen.outcome {
                TargetOutcome::Answered(comparison) => (comparison.as_str(), None),
                TargetOutcome::Failed(reason) => ("failed", Some(reason.as_str())),
                // Nothing was sent.
                TargetOutcome::Dropped(_) => continue,
            };
            let role = match target.role {
                Role::Candidate => "candidate",
                Role::Baseline => "baseline",
            };
            let mut attributes = vec![
                KeyValue::new("shadow.side", role),
                KeyValue::new("shadow.target", target.name.clone()),
                KeyValue::new("shadow.result", result),
            ];
            attributes.extend(seen.status.map(code));
            attributes.extend(error.map(|error| KeyValue::new("error.type", error)));
            let parts = Parts {
                context: contexts.of(self.id, Some(&target.name), original),
                parent,
                linked: Some(&production),
                kind: SpanKind::Client,
                time: (time(side.start), time(side.end)),
                attributes,
                failed: error.is_some() || seen.status.is_some_and(|status| status >= 500),
            };
            spans.push(self.span(observation, parts));
        }
        spans
    }

    fn span(&self, observation: &Observation, parts: Parts<'_>) -> SpanData {
        let Parts { context, parent, linked, kind, time: (start_time, end_time), mut attributes, failed } =
            parts;
        let route = observation.endpoint.split_once(' ').map_or(&*observation.endpoint, |(_, route)| route);
        attributes.push(KeyValue::new("http.request.method", self.method));
        attributes.push(KeyValue::new("http.route", route.to_owned()));
        attributes.push(KeyValue::new("shadow.exchange", self.id.to_string()));
        let mut links = SpanLinks::default();
        links.links.extend(linked.map(|linked| Link::new(told(linked), Vec::new(), 0)));
        SpanData {
            span_context: told(&context),
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span)),
            parent_span_is_remote: parent.is_some(),
            span_kind: kind,
            name: observation.endpoint.to_string().into(),
            start_time,
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links,
            status: if failed { Status::error("") } else { Status::Unset },
            instrumentation_scope: InstrumentationScope::builder(SCOPE)
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

/// What is different from one span of an exchange to the next.
struct Parts<'a> {
    context: Context,
    parent: Option<&'a Context>,
    linked: Option<&'a Context>,
    kind: SpanKind,
    time: (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
    failed: bool,
}

/// The method as spans name it (OpenTelemetry's conventions for HTTP): one that is not known may be anything.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

/// Every span that is told is meant to be kept, whatever became of the original.
fn told(context: &Context) -> SpanContext {
    let (trace, span) = (TraceId::from(context.trace), SpanId::from(context.span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

fn code(status: u16) -> KeyValue {
    KeyValue::new("http.response.status_code", i64::from(status))
}

fn time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(at.0)
}

#[cfg(test)]
pub(super) mod tests;
