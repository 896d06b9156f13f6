//! Compares a shadow's answer with production's response. Pure: bytes and rules in, differences out.
//!
//! What was received is compared as it was received; what comes out holds [`Kept`] values only.

use std::sync::Arc;

use http::Method;
use serde::Serialize;
use serde_json_path::JsonPath;
use thiserror::Error;

use self::descriptors::Descriptors;
use self::weigh::{Findings, Other, Sort, ValueType, Weight};
use crate::config;
use crate::exchange::{Request, Response, UncomparableReason};
use crate::ledger::Comparison;
use crate::policy::mask::{Kept, Masker};

mod body;
pub mod descriptors;
pub mod endpoint;
mod grpc;
mod headers;
mod ids;
mod json;
mod number;
mod place;
mod weigh;

pub use grpc::http_status;
pub use weigh::MAX_DIFFERENCES;

/// Why comparison rules cannot be built from their configuration.
#[derive(Debug, Error)]
pub enum CompareError {
    /// An ignored place is not a JSON path.
    #[error(
        "compare.ignore: `{path}` is not a JSON path ({source}); write one such as `$..timestamp` (RFC 9535)"
    )]
    JsonPath {
        /// The path as configured.
        path: String,
        /// What is wrong with it.
        source: serde_json_path::ParseError,
    },
    /// A header that differs between any two answers.
    #[error("compare.headers: `{name}` differs between any two answers; remove it from the list")]
    Header {
        /// The name as configured.
        name: String,
    },
    /// An endpoint's path is not a pattern.
    #[error(
        "compare.endpoints: `{path}` is not a path pattern; start it with `/` and write one `{{name}}` in a segment at most, as in `/users/{{id}}`"
    )]
    Endpoint {
        /// The path as configured.
        path: String,
    },
}

/// What kind of difference it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// Same type, another value.
    Value,
    /// Another type of value.
    Type,
    /// In production's response only.
    Missing,
    /// In the shadow's answer only.
    Added,
}

/// One difference, of a shape that is stable from request to request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where: `status`, `grpc-status`, `grpc-message`, `header:content-type`, `body`, `body:line`,
    /// `body:$.items[*].price`. Holds no value of the body.
    pub place: String,
    /// What kind.
    pub kind: DifferenceKind,
    /// What production said there (the baseline, when masking altered the request).
    pub production: Option<Kept<String>>,
    /// What the judged answer said there.
    pub candidate: Option<Kept<String>>,
}

/// Everything that the judgement of a candidate's answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Production's request.
    pub request: &'a Request,
    /// Whether masking altered the request before it was replayed.
    pub request_altered: bool,
    /// Production's response.
    pub production: &'a Response,
    /// The answer that is judged.
    pub candidate: &'a Response,
    /// The baseline's answer, if there is a baseline and it answered.
    pub baseline: Option<&'a Response>,
}

/// Everything that the judgement of the baseline's own answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct BaselineInputs<'a> {
    /// Production's request.
    pub request: &'a Request,
    /// Whether masking altered the request before it was replayed.
    pub request_altered: bool,
    /// Production's response.
    pub production: &'a Response,
    /// The answer that is judged.
    pub baseline: &'a Response,
    /// The candidate's answer, if it answered.
    pub candidate: Option<&'a Response>,
}

/// How an answer compares, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The line in the ledger.
    pub comparison: Comparison,
    /// The differences that decided it, at most [`MAX_DIFFERENCES`], one for each place and kind. Differences of less
    /// weight are left out: a mismatch lists no noise.
    pub differences: Vec<Difference>,
}

/// The place of a difference in the status.
const PLACE_STATUS: &str = "status";

/// Whether a difference in this place says that another kind of answer was given, and not only another answer.
pub(crate) fn is_status(place: &str) -> bool {
    [PLACE_STATUS, grpc::PLACE_STATUS].contains(&place)
}

const STATUS: Sort<u16> = Sort { same: u16::eq, value_type: |_| ValueType::Number, silenced: false };

/// Applies `compare`.
///
/// With P production, C candidate and B baseline, each place is weighed by itself, and the worst decides: P=C is no
/// difference; P=B≠C and C without a baseline is a mismatch; B=C≠P is drift; where all three differ it is noise if the
/// kinds of P≠C and P≠B and the types of C and B agree, and a mismatch otherwise. A status is never noise, that of gRPC
/// neither. An answer whose status is a mismatch is not compared further: everything else follows from that.
#[derive(Debug)]
pub struct Comparer {
    headers: Vec<String>,
    ignore: Vec<JsonPath>,
    descriptors: Descriptors,
    masker: Arc<Masker>,
    body_limit: usize,
}

impl Comparer {
    /// The rules of `compare`. Bodies are decoded up to `body_limit` bytes.
    ///
    /// # Errors
    /// When a path is not a JSON path, or a header makes no sense to compare.
    pub fn new(
        compare: &config::Compare,
        masker: Arc<Masker>,
        body_limit: usize,
    ) -> Result<Comparer, CompareError> {
        let parse = |path: &String| {
            JsonPath::parse(path).map_err(|source| CompareError::JsonPath { path: path.clone(), source })
        };
        let headers: Vec<String> = compare.headers.iter().map(|name| name.to_ascii_lowercase()).collect();
        if let Some(name) = headers.iter().find(|name| headers::is_never_compared(name)) {
            return Err(CompareError::Header { name: name.clone() });
        }
        let ignore = compare.ignore.iter().map(parse).collect::<Result<_, _>>()?;
        let descriptors =
            compare.descriptors.as_ref().map(|file| file.descriptors.clone()).unwrap_or_default();
        Ok(Comparer { headers, ignore, descriptors, masker, body_limit })
    }

    /// Judges a candidate's answer.
    #[must_use]
    pub fn judge(&self, inputs: &Inputs<'_>) -> Judgement {
        let (reference, other) = match (inputs.request_altered, inputs.baseline) {
            (false, baseline) => (inputs.production, baseline),
            (true, Some(baseline)) => return self.judge_altered(inputs, baseline),
            (true, None) => return uncomparable(UncomparableReason::MaskedRequest),
        };
        self.compare(inputs.request, reference, inputs.candidate, other, Findings::default())
    }

    /// Judges the candidate against the baseline only. Where both agree on another status than production's, the altered
    /// request has been refused, most likely: that is drift, not a match.
    fn judge_altered(&self, inputs: &Inputs<'_>, baseline: &Response) -> Judgement {
        let Inputs { request, production, candidate, .. } = *inputs;
        let judgement = self.compare(request, baseline, candidate, None, Findings::default());
        if judgement.comparison != Comparison::Match {
            return judgement;
        }
        let mut findings = Findings::default();
        self.statuses(production, candidate, Some(candidate), &mut findings);
        concluded(findings, Ok(()))
    }

    /// Judges the baseline's own answer: P=B match; B=C≠P drift; everything else noise.
    #[must_use]
    pub fn judge_baseline(&self, inputs: &BaselineInputs<'_>) -> Judgement {
        if inputs.request_altered {
            return uncomparable(UncomparableReason::MaskedRequest);
        }
        let findings = Findings::of_baseline();
        self.compare(inputs.request, inputs.production, inputs.baseline, inputs.candidate, findings)
    }

    fn compare(
        &self,
        request: &Request,
        production: &Response,
        judged: &Response,
        other: Option<&Response>,
        mut findings: Findings,
    ) -> Judgement {
        if self.statuses(production, judged, other, &mut findings) == Some(Weight::Mismatch) {
            return concluded(findings, Ok(()));
        }
        grpc::compare_message(production, judged, other, &self.masker, &mut findings);
        for name in &self.headers {
            headers::compare(name, production, judged, other, &self.masker, &mut findings);
        }
        let rules = body::Rules { ignore: &self.ignore, masker: &self.masker, limit: self.body_limit };
        let body = if request.method == Method::HEAD {
            Ok(())
        } else if grpc::is_grpc(production) && grpc::is_grpc(judged) {
            let answer = self.descriptors.answer(request.path());
            rules.compare_messages(production, judged, other, answer, &mut findings)
        } else {
            rules.compare(production, judged, other, &mut findings)
        };
        concluded(findings, body)
    }

    /// Enters a difference in the status, or else in that of gRPC; gives its weight for the answer that is judged.
    fn statuses(
        &self,
        production: &Response,
        judged: &Response,
        other: Option<&Response>,
        findings: &mut Findings,
    ) -> Option<Weight> {
        let other_status = other.map_or(Other::Silent, |other| Other::Says(Some(other.status)));
        let Some(found) = STATUS.weigh(Some(&production.status), Some(&judged.status), &other_status) else {
            return grpc::compare_status(production, judged, other, &self.masker, findings);
        };
        let keep = |response: &Response| Some(self.masker.keep_status(response.status));
        findings.add(found, || PLACE_STATUS.to_owned(), || (keep(production), keep(judged)));
        Some(found.1)
    }
}

/// A mismatch stands even if the body could not be compared; anything less does not.
fn concluded(findings: Findings, body: Result<(), UncomparableReason>) -> Judgement {
    let comparison = match (findings.worst(), body) {
        (Some(Weight::Mismatch), _) => Comparison::Mismatch,
        (_, Err(reason)) => return uncomparable(reason),
        (Some(Weight::Drift), Ok(())) => Comparison::Drift,
        (Some(Weight::Noise), Ok(())) => Comparison::Noise,
        (None, Ok(())) => Comparison::Match,
    };
    Judgement { comparison, differences: findings.into_differences() }
}

fn uncomparable(reason: UncomparableReason) -> Judgement {
    Judgement { comparison: Comparison::Uncomparable(reason), differences: Vec::new() }
}

#[cfg(test)]
mod tests;
