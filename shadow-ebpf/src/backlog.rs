//! Which records look at how much is unread in their ring: asking costs more than a small record is worth.

/// Of so many small records, one looks at the backlog.
pub const LOOK_EVERY: u64 = 1 << SHIFT;

const SHIFT: u32 = 3;

/// Whether the small record made at `time` looks. Clocks of some machines tick in steps of 8, 16 or 40 nanoseconds, so all
/// digits of the time count, not the last ones.
#[inline(always)]
#[must_use]
pub const fn looks(time: u64) -> bool {
    // The golden ratio spreads times at any distance evenly over the highest digits.
    time.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - SHIFT) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_so_many_records_looks_whatever_the_steps_of_the_clock_are() {
        for step in [1, 2, 8, 10, 16, 40, 41, 1000, 1024, 1 << 20] {
            for start in [0, 1, 3, 1_700_000_000_000_000_007] {
                let looking = (0..8_000).filter(|tick| looks(start + tick * step)).count();
                assert!((500..2_000).contains(&looking), "{looking} of 8000 at steps of {step} from {start}");
            }
        }
    }
}
