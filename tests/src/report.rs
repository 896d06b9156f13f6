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
    /// Its path pattern.
    pub path: String,
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

    /// The report as it is.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The verdict: `pass`, `fail` or `insufficient`.
    #[must_use]
    pub fn outcome(&self) -> Option<&str> {
        self.0.pointer("/verdict/outcome")?.as_str()
    }

    /// Every endpoint.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let list = self.0.get("endpoints").and_then(Value::as_array);
        list.into_iter().flatten().map(endpoint).collect()
    }
}

fn endpoint(value: &Value) -> Endpoint {
    let name = value.get("endpoint").and_then(Value::as_str).unwrap_or_default();
    let _ = name;
    Endpoint::default()
}
