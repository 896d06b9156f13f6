//! Groups differences of the same shape, counts them, and keeps a few examples of each; bounded in every direction.
//!
//! It holds nothing but what people may see, and decides nothing.

use std::collections::{BTreeMap, HashMap};

use serde::{Serialize, Serializer};

use super::Observation;
use crate::compare::{Difference, DifferenceKind};
use crate::exchange::{ConnectionId, ExchangeId, Timestamp};
use crate::ledger::Comparison;
use crate::policy::mask::Kept;

/// Groups told apart for one endpoint, target and [`Class`].
pub const GROUPS: usize = 64;
/// Examples kept of one group.
pub const EXAMPLES: usize = 3;
/// Bytes of text in one example; a larger one is not kept.
pub const EXAMPLE_BYTES: usize = 4 << 10;
/// Bytes of text in all examples of one endpoint and target.
pub const EXAMPLES_BYTES: usize = 64 << 10;
/// Bytes of a difference's place; a longer one is counted without a group.
pub const PLACE_BYTES: usize = 512;

/// What the exchange was found to be that a difference belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Only the candidate differs.
    Mismatch,
    /// The shadows agree with each other, not with production.
    Drift,
    /// Production's own version differs as well.
    Noise,
}

impl Class {
    /// The class of a comparison's differences; a match and what cannot be compared have none that count.
    #[must_use]
    pub fn of(comparison: Comparison) -> Option<Class> {
        match comparison {
            Comparison::Mismatch => Some(Class::Mismatch),
            Comparison::Drift => Some(Class::Drift),
            Comparison::Noise => Some(Class::Noise),
            Comparison::Match | Comparison::Uncomparable(_) => None,
        }
    }
}

/// One exchange that shows a difference.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// The exchange.
    #[serde(serialize_with = "display")]
    pub exchange: ExchangeId,
    /// The request target.
    pub target: Kept<String>,
    /// What production said.
    pub production: Option<Kept<String>>,
    /// What the candidate said.
    pub candidate: Option<Kept<String>>,
    #[serde(skip)]
    connection: ConnectionId,
}

/// Differences of one shape.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) count: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) examples: Vec<Example>,
    latest: ExchangeId,
}

/// The groups of one endpoint and target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups {
    groups: BTreeMap<(Class, DifferenceKind), HashMap<String, Group>>,
    sizes: BTreeMap<Class, usize>,
    kinds: BTreeMap<DifferenceKind, u64>,
    example_bytes: usize,
    ungrouped: u64,
}

impl Groups {
    /// Enters the differences of one observation.
    pub(crate) fn record(&mut self, class: Class, differences: Vec<Difference>, seen: &Observation) {
        for difference in differences {
            if class == Class::Mismatch {
                *self.kinds.entry(difference.kind).or_default() += 1;
            }
            self.enter(class, difference, seen);
        }
    }

    fn enter(&mut self, class: Class, difference: Difference, seen: &Observation) {
        let Difference { place, kind, production, candidate } = difference;
        let places = self.groups.entry((class, kind)).or_default();
        if !places.contains_key(&place) {
            let size = self.sizes.entry(class).or_default();
            if *size >= GROUPS || place.len() > PLACE_BYTES {
                self.ungrouped += 1;
                return;
            }
            *size += 1;
            places.insert(place.clone(), Group::new(seen.time));
        }
        let Some(group) = places.get_mut(&place) else { return };
        if group.count > 0 && group.latest == seen.exchange {
            return;
        }
        group.count += 1;
        group.latest = seen.exchange;
        group.first = group.first.min(seen.time);
        group.last = group.last.max(seen.time);
        // Examples from different connections say more than three requests of one client.
        if group.examples.len() >= EXAMPLES
            || group.examples.iter().any(|example| example.connection == seen.connection)
        {
            return;
        }
        let text = |side: &Option<Kept<String>>| side.as_ref().map_or(0, |value| value.get().len());
        let bytes = seen.target.get().len() + text(&production) + text(&candidate);
        if bytes > EXAMPLE_BYTES || self.example_bytes + bytes > EXAMPLES_BYTES {
            return;
        }
        self.example_bytes += bytes;
        group.examples.push(Example {
            exchange: seen.exchange,
            target: seen.target.clone(),
            production,
            candidate,
            connection: seen.connection,
        });
    }

    /// Every group with its shape: mismatches first, then by the number of exchanges, then by how grave the kind is.
    pub(crate) fn ranked(&self) -> Vec<(Class, DifferenceKind, &str, &Group)> {
        let mut ranked: Vec<_> = self
            .groups
            .iter()
            .flat_map(|(&(class, kind), places)| {
                places.iter().map(move |(place, group)| (class, kind, place.as_str(), group))
            })
            .collect();
        ranked.sort_by(|(class, kind, place, group), (other_class, other_kind, other_place, other)| {
            class
                .cmp(other_class)
                .then(other.count.cmp(&group.count))
                .then(gravity(*kind).cmp(&gravity(*other_kind)))
                .then(place.cmp(other_place))
        });
        ranked
    }

    /// Differences of mismatching exchanges by kind, grouped or not.
    pub(crate) fn kinds(&self) -> &BTreeMap<DifferenceKind, u64> {
        &self.kinds
    }

    /// Differences beyond the bounds, counted in no group.
    pub(crate) fn ungrouped(&self) -> u64 {
        self.ungrouped
    }
}

impl Group {
    fn new(time: Timestamp) -> Group {
        Group { count: 0, first: time, last: time, examples: Vec::new(), latest: ExchangeId::default() }
    }
}

/// The name of a kind in labels and reports.
pub(crate) fn kind_name(kind: DifferenceKind) -> &'static str {
    match kind {
        DifferenceKind::Value => "value",
        DifferenceKind::Type => "type",
        DifferenceKind::Missing => "missing",
        DifferenceKind::Added => "added",
    }
}

fn gravity(kind: DifferenceKind) -> u8 {
    match kind {
        DifferenceKind::Missing => 0,
        DifferenceKind::Type => 1,
        DifferenceKind::Value => 2,
        DifferenceKind::Added => 3,
    }
}

fn display<S: Serializer>(id: &ExchangeId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::{difference, observation};

    fn groups(observations: impl IntoIterator<Item = (u64, Vec<Difference>)>) -> Groups {
        let mut groups = Groups::default();
        for (id, differences) in observations {
            let mut seen = observation("/a", id);
            seen.connection = ConnectionId(id);
            groups.record(Class::Mismatch, differences, &seen);
        }
        groups
    }

    #[test]
    fn a_group_counts_exchanges_and_keeps_examples_up_to_the_bound() {
        let one = || vec![difference("body:$.a", "1", "2"), difference("body:$.a", "3", "4")];
        for examples in [EXAMPLES, EXAMPLES + 1] {
            let groups = groups((0..examples as u64).map(|id| (id, one())));
            let ranked = groups.ranked();
            assert_eq!(ranked.len(), 1);
            let (_, _, place, group) = ranked[0];
            assert_eq!((place, group.count), ("body:$.a", examples as u64));
            assert_eq!(group.examples.len(), EXAMPLES);
        }
    }

    #[test]
    fn examples_come_from_different_connections() {
        let mut groups = Groups::default();
        for (id, connection) in [(1, 7), (2, 7), (3, 8)] {
            let mut seen = observation("/a", id);
            seen.connection = ConnectionId(connection);
            groups.record(Class::Mismatch, vec![difference("status", "200", "500")], &seen);
        }
        let ranked = groups.ranked();
        let ids: Vec<u64> = ranked[0].3.examples.iter().map(|example| example.exchange.0).collect();
        assert_eq!(ids, [1, 3]);
    }

    #[test]
    fn groups_beyond_the_bound_are_counted() {
        for (places, ungrouped) in [(GROUPS, 0), (GROUPS + 1, 1)] {
            let groups =
                groups((0..places as u64).map(|id| (id, vec![difference(&format!("p{id}"), "a", "b")])));
            assert_eq!(groups.ranked().len(), GROUPS);
            assert_eq!(groups.ungrouped(), ungrouped);
            assert_eq!(groups.kinds()[&DifferenceKind::Value], places as u64);
        }
    }

    #[test]
    fn long_places_and_large_examples_are_left_out() {
        for (length, grouped) in [(PLACE_BYTES, 1), (PLACE_BYTES + 1, 0)] {
            let groups = groups([(1, vec![difference(&"p".repeat(length), "a", "b")])]);
            assert_eq!(groups.ranked().len(), grouped);
        }
        let target = observation("/a", 1).target.get().len();
        for (length, kept) in [(EXAMPLE_BYTES - target, 1), (EXAMPLE_BYTES - target + 1, 0)] {
            let groups = groups([(1, vec![difference("p", "", &"x".repeat(length))])]);
            assert_eq!(groups.ranked()[0].3.examples.len(), kept, "{length} bytes");
        }
    }

    #[test]
    fn all_examples_together_are_bounded() {
        let large = "x".repeat(EXAMPLE_BYTES / 2);
        let groups =
            groups((0..GROUPS as u64).map(|id| (id, vec![difference(&format!("p{id}"), &large, "")])));
        let bytes: usize = groups
            .ranked()
            .iter()
            .flat_map(|(_, _, _, group)| &group.examples)
            .map(|example| example.production.as_ref().unwrap().get().len())
            .sum();
        assert!(bytes > EXAMPLES_BYTES / 2 && bytes <= EXAMPLES_BYTES, "{bytes}");
    }

    #[test]
    fn mismatches_rank_before_noise_and_frequent_before_rare() {
        let mut groups = Groups::default();
        for id in 0..5 {
            groups.record(Class::Noise, vec![difference("noise", "a", "b")], &observation("/a", id));
        }
        for (id, place) in [(10, "rare"), (11, "often"), (12, "often")] {
            groups.record(Class::Mismatch, vec![difference(place, "a", "b")], &observation("/a", id));
        }
        let places: Vec<_> = groups.ranked().iter().map(|(_, _, place, _)| *place).collect();
        assert_eq!(places, ["often", "rare", "noise"]);
    }
}
