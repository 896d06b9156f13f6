//! Chance that is the same whenever the same is asked: ids spread evenly over the numbers from 0 to 1.

/// Where an id falls in `0.0..1.0`. Another salt gives a position that has nothing to do with the first.
#[must_use]
pub fn position(id: u64, salt: u64) -> f64 {
    // 53 bits are what a double can tell apart.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let position = (mix(id ^ mix(salt)) >> 11) as f64 / (1_u64 << 53) as f64;
    position
}

/// Spreads an id over 64 bits evenly (the finaliser of SplitMix64).
pub(super) fn mix(id: u64) -> u64 {
    let id = id.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let id = (id ^ id >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let id = (id ^ id >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    id ^ id >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_different_salts_are_independent() {
        let both = (0..100_000).filter(|&id| position(id, 1) < 0.5 && position(id, 2) < 0.5).count();
        assert!((24_000..26_000).contains(&both), "{both}");
    }
}
