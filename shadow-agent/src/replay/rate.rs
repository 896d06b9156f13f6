//! How many requests a second one target may be sent. Pure: the time is an argument; nothing here waits.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// A token bucket that refuses rather than delays.
///
/// It holds at most one second's worth of requests (and at least one request), so a source that pauses may catch up by
/// no more than that.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket; `per_second` is finite and above zero.
    pub(super) fn new(per_second: f64, now: Instant) -> Bucket {
        let level = Level { tokens: capacity(per_second), filled_at: now };
        Bucket { per_second, level: Mutex::new(level) }
    }

    /// Takes one request's token; `false` when the rate is used up.
    pub(super) fn take(&self, now: Instant) -> bool {
        // A panic elsewhere cannot leave a level that is not a level.
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(level.filled_at).as_secs_f64();
        level.tokens = (level.tokens + elapsed * self.per_second).min(capacity(self.per_second));
        level.filled_at = level.filled_at.max(now);
        if level.tokens < 1.0 {
            return false;
        }
        level.tokens -= 1.0;
        true
    }
}

fn capacity(per_second: f64) -> f64 {
    per_second.max(1.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Asks at each of the given milliseconds; expects these answers.
    fn check(per_second: f64, asked: &[(u64, bool)]) {
        let start = Instant::now();
        let bucket = Bucket::new(per_second, start);
        for (turn, &(millis, expected)) in asked.iter().enumerate() {
            let taken = bucket.take(start + Duration::from_millis(millis));
            assert_eq!(taken, expected, "at {per_second}/s: request {turn} at {millis} ms");
        }
    }

    #[test]
    fn a_second_of_requests_passes_at_once_and_then_one_per_interval() {
        check(
            2.0,
            &[(0, true), (0, true), (0, false), (499, false), (500, true), (501, false), (1001, true)],
        );
    }

    #[test]
    fn a_pause_is_caught_up_by_one_second_at_most() {
        check(2.0, &[(0, true), (0, true), (60_000, true), (60_000, true), (60_000, false)]);
    }

    #[test]
    fn less_than_one_a_second_still_passes_one() {
        check(0.5, &[(0, true), (0, false), (1_999, false), (2_000, true), (2_001, false)]);
    }

    #[test]
    fn time_that_seems_to_go_back_gives_nothing() {
        check(1.0, &[(1_000, true), (0, false), (1_500, false), (2_000, true)]);
    }
}
