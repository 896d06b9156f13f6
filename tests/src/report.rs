//! Reads the agent's JSON report (`run --report FILE`), as far as tests need it.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

/// A report.
#[derive(Clone, Debug, PartialEq)]
pub struct Report(Value);

/// What a report says about one endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoint {
    /// Its path pattern, without the method before it.
    pub path: String,
    /// Exchanges that ended at every target.
    pub requests: u64,
    /// Answers of the candidate without a difference that counts.
    pub matches: u64,
    /// Places in the response where only the candidate differed.
    pub mismatches: BTreeSet<String>,
    /// The candidate's median latency, in milliseconds.
    pub candidate_p50: Option<f64>,
    /// The baseline's median latency, in milliseconds.
    pub baseline_p50: Option<f64>,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn parse(text: &str) -> Result<Report> {
        Ok(Report(serde_json::from_str(text).context("the report is not JSON")?))
    }

    /// The verdict: `pass`, `fail` or `insufficient`.
    #[must_use]
    pub fn outcome(&self) -> Option<&str> {
        self.0.pointer("/verdict/outcome")?.as_str()
    }

    /// A count of the ledger, by its path below `/ledger` (`/selected`, `/skipped/method`); 0 when absent.
    #[must_use]
    pub fn ledger(&self, path: &str) -> u64 {
        self.0.pointer(&format!("/ledger{path}")).and_then(Value::as_u64).unwrap_or_default()
    }

    /// Every endpoint.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        items(&self.0, "endpoints").map(endpoint).collect()
    }

    /// The endpoint of that path pattern.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> Option<Endpoint> {
        self.endpoints().into_iter().find(|endpoint| endpoint.path == path)
    }
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn endpoint(value: &Value) -> Endpoint {
    let target = |role: &str| items(value, "targets").find(|target| text(target, "role") == role);
    let p50 = |role: &str| Some(target(role)?.pointer("/latency/p50_seconds")?.as_f64()? * 1000.0);
    let count = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).unwrap_or_default();
    let mut endpoint = Endpoint {
        path: text(value, "endpoint").rsplit(' ').next().unwrap_or_default().to_owned(),
        requests: count(value, "requests"),
        candidate_p50: p50("candidate"),
        baseline_p50: p50("baseline"),
        ..Endpoint::default()
    };
    if let Some(candidate) = target("candidate") {
        endpoint.matches = count(candidate, "matches");
        let only = items(candidate, "differences").filter(|group| text(group, "class") == "mismatch");
        endpoint.mismatches = only.map(|group| text(group, "place").to_owned()).collect();
    }
    endpoint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_tell_what_only_the_candidate_did() {
        let report = Report::parse(
            r#"{ "verdict": {"outcome": "fail"}, "ledger": {"skipped": {"method": 3}}, "endpoints": [ {
                "endpoint": "GET /a", "requests": 5, "targets": [
                  { "role": "candidate", "matches": 2, "latency": {"p50_seconds": 0.004}, "differences": [
                      {"class": "mismatch", "place": "status"}, {"class": "noise", "place": "body:$.id"} ] },
                  { "role": "baseline", "matches": 5, "latency": null, "differences": [] } ] } ] }"#,
        )
        .unwrap();
        let expected = Endpoint {
            path: "/a".to_owned(),
            requests: 5,
            matches: 2,
            mismatches: ["status".to_owned()].into(),
            candidate_p50: Some(4.0),
            baseline_p50: None,
        };
        assert_eq!(report.endpoint("/a"), Some(expected));
        assert_eq!((report.outcome(), report.ledger("/skipped/method")), (Some("fail"), 3));
    }
}
