//! Durations in bounded memory: a histogram with a relative error of one percent, and what was cut off.
//!
//! It measures and orders; whether a duration is good is not its business.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::sequence;

/// Durations above this are counted as this.
pub(crate) const LONGEST: Duration = Duration::from_secs(120);

/// Significant decimal digits that are kept.
const DIGITS: u8 = 2;

/// Durations, and how many of them were cut off (censored) by a timeout: those are *at least* what was recorded.
#[derive(Clone, Debug)]
pub(crate) struct Distribution {
    microseconds: Histogram<u32>,
    sum: f64,
    censored: u64,
}

/// The value at a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantile {
    /// The duration.
    pub(crate) value: Duration,
    /// Whether the true value is this or more, because the observation there timed out.
    pub(crate) at_least: bool,
}

/// Confidence bounds on a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Not below.
    pub(crate) lower: Duration,
    /// Not above; `None` when that cannot be said.
    pub(crate) upper: Option<Duration>,
}

impl Distribution {
    /// No durations yet.
    pub(crate) fn new() -> Distribution {
        #[expect(
            clippy::expect_used,
            reason = "both bounds and the digits are constants that a test constructs"
        )]
        let microseconds =
            Histogram::new_with_max(micros(LONGEST), DIGITS).expect("constant bounds are valid");
        Distribution { microseconds, sum: 0.0, censored: 0 }
    }

    /// Adds a measured duration.
    pub(crate) fn record(&mut self, duration: Duration) {
        let duration = duration.min(LONGEST);
        self.microseconds.saturating_record(micros(duration));
        self.sum += duration.as_secs_f64();
    }

    /// Adds one that a timeout cut off after `limit`.
    pub(crate) fn record_censored(&mut self, limit: Duration) {
        self.record(limit);
        self.censored += 1;
    }

    /// Adds all of another distribution.
    pub(crate) fn merge(&mut self, other: &Distribution) {
        // Both have the same constant bounds, the only thing that adding can fail on.
        let _ = self.microseconds.add(&other.microseconds);
        self.sum += other.sum;
        self.censored += other.censored;
    }

    /// How many there are, censored ones included.
    pub(crate) fn count(&self) -> u64 {
        self.microseconds.len()
    }

    /// How many were cut off.
    pub(crate) fn censored(&self) -> u64 {
        self.censored
    }

    /// All durations together, in seconds.
    pub(crate) fn sum(&self) -> f64 {
        self.sum
    }

    /// The duration at a quantile in `0.0..=1.0`; `None` without any.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<Quantile> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((count as f64 * quantile).ceil() as u64).clamp(1, count);
        let (_, highest) = self.at_rank(rank)?;
        Some(Quantile { value: highest, at_least: rank > count - self.censored.min(count) })
    }

    /// Anytime-valid bounds on the true quantile at the level `alpha`.
    pub(crate) fn bounds(&self, quantile: f64, alpha: f64) -> Bounds {
        let count = self.count();
        let ranks = sequence::ranks(count, quantile, alpha);
        let lower = self.at_rank(ranks.lower).map_or(Duration::ZERO, |(lowest, _)| lowest);
        // Behind the last measured one is only what timed out: no upper bound is known there.
        let measured = count - self.censored.min(count);
        let upper = ranks.upper.filter(|&rank| rank <= measured).and_then(|rank| self.at_rank(rank));
        Bounds { lower, upper: upper.map(|(_, highest)| highest) }
    }

    /// How many durations are within each of the ascending `edges`, to the histogram's precision.
    pub(crate) fn cumulative(&self, edges: &[Duration]) -> Vec<u64> {
        let mut counts = vec![0u64; edges.len()];
        for step in self.microseconds.iter_recorded() {
            let lowest = Duration::from_micros(self.microseconds.lowest_equivalent(step.value_iterated_to()));
            let position = edges.partition_point(|edge| *edge < lowest);
            if let Some(slot) = counts.get_mut(position) {
                *slot += step.count_since_last_iteration();
            }
        }
        let mut total = 0;
        for slot in &mut counts {
            total += *slot;
            *slot = total;
        }
        counts
    }

    /// The lowest and highest duration that the observation of that 1-based rank may have.
    fn at_rank(&self, rank: u64) -> Option<(Duration, Duration)> {
        if rank == 0 {
            return None;
        }
        let mut passed = 0;
        let step = self.microseconds.iter_recorded().find(|step| {
            passed += step.count_since_last_iteration();
            passed >= rank
        })?;
        let value = step.value_iterated_to();
        let lowest = self.microseconds.lowest_equivalent(value);
        let highest = self.microseconds.highest_equivalent(value);
        Some((Duration::from_micros(lowest), Duration::from_micros(highest)))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: impl IntoIterator<Item = u64>) -> Distribution {
        let mut distribution = Distribution::new();
        for value in micros {
            distribution.record(Duration::from_micros(value));
        }
        distribution
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let distribution = of(1..=10_000);
        for (quantile, expected) in
            [(0.0, 1.0), (0.5, 5_000.0), (0.95, 9_500.0), (0.99, 9_900.0), (1.0, 10_000.0)]
        {
            let value = distribution.quantile(quantile).unwrap().value.as_micros() as f64;
            assert!((value / expected - 1.0).abs() <= 0.011, "{quantile}: {value}");
        }
        assert_eq!(of([]).quantile(0.5), None);
    }

    #[test]
    fn the_longest_is_the_bound() {
        let mut distribution = of([]);
        distribution.record(LONGEST);
        distribution.record(LONGEST + Duration::from_secs(1));
        let value = distribution.quantile(1.0).unwrap().value;
        assert!(value >= LONGEST && value <= LONGEST + LONGEST / 50, "{value:?}");
        assert_eq!(distribution.count(), 2);
    }

    #[test]
    fn censored_observations_take_away_the_upper_bound() {
        let mut distribution = of(std::iter::repeat_n(1_000, 2_000));
        assert!(distribution.bounds(0.95, 0.05).upper.is_some());
        for _ in 0..300 {
            distribution.record_censored(Duration::from_secs(5));
        }
        let p95 = distribution.quantile(0.95).unwrap();
        assert!(p95.at_least && p95.value >= Duration::from_secs(5), "{p95:?}");
        let bounds = distribution.bounds(0.95, 0.05);
        assert_eq!(bounds.upper, None);
        assert!(bounds.lower > Duration::from_secs(4), "{bounds:?}");
        assert!(!distribution.quantile(0.5).unwrap().at_least);
    }

    #[test]
    fn cumulative_counts_end_at_the_count() {
        let distribution = of([100, 900, 1_000, 5_000, 2_000_000]);
        let edges = [1, 10, 1_000, 10_000].map(Duration::from_millis);
        assert_eq!(distribution.cumulative(&edges), [3, 4, 4, 5]);
    }

    #[test]
    fn merging_adds_everything() {
        let mut all = of([10, 20]);
        let mut other = of([30]);
        other.record_censored(Duration::from_secs(1));
        all.merge(&other);
        assert_eq!((all.count(), all.censored()), (4, 1));
        assert!((all.sum() - 1.000_06).abs() < 1e-9);
    }
}
