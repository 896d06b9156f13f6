//! Whether the agent is known to be well.

use crate::abi::HEARTBEAT_STALE;

/// Whether a heartbeat still counts at the time `now`, both in nanoseconds of the kernel's `CLOCK_MONOTONIC`.
///
/// One that is as far ahead is of another clock, such as that of a time namespace, and would never become old: it does not
/// count.
#[inline(always)]
#[must_use]
pub const fn is_fresh(heartbeat: u64, now: u64) -> bool {
    now.abs_diff(heartbeat) <= HEARTBEAT_STALE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_counts_for_so_long_and_only_if_it_is_of_this_clock() {
        const NOW: u64 = 100 * HEARTBEAT_STALE;
        for (heartbeat, fresh) in [
            (NOW, true),
            (NOW - HEARTBEAT_STALE, true),
            (NOW - HEARTBEAT_STALE - 1, false),
            (0, false),
            (NOW + 1_000, true),
            (NOW + HEARTBEAT_STALE + 1, false),
            (u64::MAX, false),
        ] {
            assert_eq!(is_fresh(heartbeat, NOW), fresh, "{heartbeat}");
        }
    }
}
