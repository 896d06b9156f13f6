//! Compares a shadow's answer with production's response. Pure: bytes and rules in, differences out.

use serde::Serialize;

use crate::policy::mask::Kept;

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
    /// Where: `status`, `header:content-type`, `body`, `body:$.items[*].price`. Holds no value of the body.
    pub place: String,
    /// What kind.
    pub kind: DifferenceKind,
    /// What production said there.
    pub production: Option<Kept<String>>,
    /// What the candidate said there.
    pub candidate: Option<Kept<String>>,
}
