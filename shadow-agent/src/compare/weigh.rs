//! Weighs one difference by what the baseline says in the same place, and collects the worst.
//!
//! It knows that table and the limits of a result, not what is compared.

use super::{Difference, DifferenceKind};
use crate::policy::mask::Kept;

/// Differences kept of one exchange, each of another place or kind.
pub const MAX_DIFFERENCES: usize = 32;

/// Differences of one weight that are looked at to find another place or kind; of the rest only the weight counts.
pub(super) const MAX_EXAMINED: usize = 4096;

/// The values of a difference: production's, and that of the judged answer.
pub(super) type Values = (Option<Kept<String>>, Option<Kept<String>>);

/// What a difference says about the answer that is judged, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Production's own version differs there as well, in the same way.
    Noise,
    /// Both shadows say the same there, and production something else.
    Drift,
    /// Nobody else says that.
    Mismatch,
}

/// What the other shadow says in a place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Other<T> {
    /// There is no other shadow, or nothing of it to compare with.
    Silent,
    /// This, or nothing in that place.
    Says(Option<T>),
}

impl<T> Other<T> {
    /// What it says in a place within this one.
    pub(super) fn map<U>(self, within: impl FnOnce(T) -> Option<U>) -> Other<U> {
        match self {
            Other::Silent => Other::Silent,
            Other::Says(value) => Other::Says(value.and_then(within)),
        }
    }
}

/// The types that values are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
    /// Bytes that are not what the media type says.
    Bytes,
}

/// How values of one sort are compared.
pub(super) struct Sort<T> {
    pub same: fn(&T, &T) -> bool,
    pub value_type: fn(&T) -> ValueType,
    /// Whether differing values can be noise at all; a status never is.
    pub silenced: bool,
}

impl<T> Sort<T> {
    /// The kind and weight of the difference between production and the judged answer in one place, if there is any.
    pub(super) fn weigh(
        &self,
        production: Option<&T>,
        judged: Option<&T>,
        other: &Other<T>,
    ) -> Option<(DifferenceKind, Weight)> {
        let kind = self.kind(production, judged)?;
        let weight = match other {
            Other::Silent => Weight::Mismatch,
            Other::Says(other) => {
                let other = other.as_ref();
                if self.kind(production, other).is_none() {
                    Weight::Mismatch
                } else if self.kind(judged, other).is_none() {
                    Weight::Drift
                } else if self.silenced && other.map(self.value_type) == judged.map(self.value_type) {
                    // Of the same type, or both absent: so both differ from production in the same kind.
                    Weight::Noise
                } else {
                    Weight::Mismatch
                }
            }
        };
        Some((kind, weight))
    }

    fn kind(&self, one: Option<&T>, other: Option<&T>) -> Option<DifferenceKind> {
        match (one, other) {
            (None, None) => None,
            (Some(_), None) => Some(DifferenceKind::Missing),
            (None, Some(_)) => Some(DifferenceKind::Added),
            (Some(one), Some(other)) if (self.same)(one, other) => None,
            (Some(one), Some(other)) if (self.value_type)(one) == (self.value_type)(other) => {
                Some(DifferenceKind::Value)
            }
            (Some(_), Some(_)) => Some(DifferenceKind::Type),
        }
    }
}

/// The differences found so far: those of the worst weight only, one for each place and kind.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The weight of a difference that only the judged answer shows, if it is not [`Weight::Mismatch`].
    lone: Option<Weight>,
    worst: Option<Weight>,
    examined: usize,
    differences: Vec<Difference>,
}

impl Findings {
    /// For the baseline's own line: what only it shows is noise, not a mismatch.
    pub(super) fn of_baseline() -> Findings {
        Findings { lone: Some(Weight::Noise), ..Findings::default() }
    }

    /// Enters a difference; its place and its values are asked for only when they are needed.
    pub(super) fn add(
        &mut self,
        (kind, weight): (DifferenceKind, Weight),
        place: impl FnOnce() -> String,
        values: impl FnOnce() -> Values,
    ) {
        let weight = match (weight, self.lone) {
            (Weight::Mismatch, Some(lone)) => lone,
            (weight, _) => weight,
        };
        if Some(weight) < self.worst {
            return;
        }
        if Some(weight) > self.worst {
            self.worst = Some(weight);
            self.examined = 0;
            self.differences.clear();
        }
        if self.is_complete() {
            return;
        }
        self.examined += 1;
        let place = place();
        if self.differences.iter().all(|known| known.kind != kind || known.place != place) {
            let (production, candidate) = values();
            self.differences.push(Difference { place, kind, production, candidate });
        }
    }

    /// Whether nothing that could still be found would change the result.
    pub(super) fn is_full(&self) -> bool {
        self.worst == Some(Weight::Mismatch) && self.is_complete()
    }

    fn is_complete(&self) -> bool {
        self.differences.len() >= MAX_DIFFERENCES || self.examined >= MAX_EXAMINED
    }

    /// The worst weight, if there is any difference.
    pub(super) fn worst(&self) -> Option<Weight> {
        self.worst
    }

    /// The differences of the worst weight.
    pub(super) fn into_differences(self) -> Vec<Difference> {
        self.differences
    }
}
