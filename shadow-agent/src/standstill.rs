//! Whether the agent itself stood still: stopped by a signal, frozen with its host, or starved of CPU time.
//!
//! What a target seems to have taken meanwhile is ours, and must not be held against it. Pure: told the time, it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Turns further apart than this are a standstill. Turns are due several times as often.
pub const LIMIT: Duration = Duration::from_secs(1);

/// Knows when the agent last stood still; clones share it. Until the first turn it knows of nothing.
#[derive(Clone, Debug)]
pub struct Standstill(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// From where the others count.
    origin: Instant,
    /// Nanoseconds to the last turn; 0 before the first one, and as late as can be once no more are taken.
    last: AtomicU64,
    /// Nanoseconds to the end of the last standstill; 0 before the first one.
    ended: AtomicU64,
}

impl Default for Standstill {
    fn default() -> Standstill {
        let origin = Instant::now();
        Standstill(Arc::new(Inner { origin, last: AtomicU64::new(0), ended: AtomicU64::new(0) }))
    }
}

impl Standstill {
    /// The agent moves, at `now`. One thread says so, again and again; returns how long it stood still before, if it did.
    pub fn turn(&self, now: Instant) -> Option<Duration> {
        let (last, now) = (self.0.last.load(Ordering::Relaxed), self.nanoseconds(now));
        let stood = Duration::from_nanos(now.saturating_sub(last));
        let stood = (last > 0 && stood > LIMIT).then_some(stood);
        if stood.is_some() {
            self.0.ended.store(now, Ordering::Relaxed);
        }
        // Whoever sees this turn sees the standstill before it too.
        self.0.last.store(now, Ordering::Release);
        stood
    }

    /// Nobody takes turns from now on, and no standstill is noticed any more. Those before are still known.
    pub fn rest(&self) {
        self.0.last.store(u64::MAX, Ordering::Release);
    }

    /// Whether the agent stood still at any time between `began` and `now`, as far as that is noticed.
    #[must_use]
    pub fn since(&self, began: Instant, now: Instant) -> bool {
        let last = self.0.last.load(Ordering::Acquire);
        // Another thread may be back before the one that takes turns.
        let standing = Duration::from_nanos(self.nanoseconds(now).saturating_sub(last)) > LIMIT;
        let ended = self.0.ended.load(Ordering::Relaxed);
        last > 0 && (standing || (ended > 0 && ended >= self.nanoseconds(began)))
    }

    /// Nanoseconds from the origin, at least 1.
    fn nanoseconds(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.0.origin).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fell_into_a_standstill_is_known_whoever_wakes_first() {
        let standstill = Standstill::default();
        let at = |milliseconds: u64| standstill.0.origin + Duration::from_millis(milliseconds);
        let check = |began: u64, now: u64, expected: bool| {
            assert_eq!(standstill.since(at(began), at(now)), expected, "from {began} to {now}");
        };
        check(0, 60_000, false);
        for turn in [250, 500, 750] {
            assert_eq!(standstill.turn(at(turn)), None);
        }
        check(300, 760, false);
        check(300, 1_750, false);
        // Stopped until 11 s; a request that began before looks at the time before the turns go on.
        check(700, 11_000, true);
        assert_eq!(standstill.turn(at(11_001)), Some(Duration::from_millis(10_251)));
        check(700, 11_002, true);
        check(11_001, 11_003, true);
        check(11_002, 11_100, false);
        assert_eq!(standstill.turn(at(11_250)), None);
        check(700, 11_300, true);
        check(11_100, 11_300, false);
        check(11_100, 12_300, true);
        standstill.rest();
        check(11_100, 12_300, false);
        check(700, 12_300, true);
    }
}
