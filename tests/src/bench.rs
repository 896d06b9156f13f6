//! Benchmarks: measure both sides in one run, interleaved, and tell figures with their ratios. They assert nothing.

pub mod exchanges;
pub mod floor;
pub mod kernel;
pub mod live;
pub mod moody;
pub mod overhead;
pub mod program;
pub mod silence;
pub mod soak;
pub mod stages;
pub mod table;
pub mod wrk;
pub mod xdp;

/// The median; of an even number of values the lower of the two in the middle. `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_one_of_the_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.0));
    }
}
