//! When the requests of a file are sent again: at their own times, faster or slower, at a fixed rate, or at once. Pure:
//! told the time, it answers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

use crate::exchange::Timestamp;

/// A rate is caught up with by at most this: what was late beyond it stays late, and is no burst later.
const CATCH_UP: Duration = Duration::from_millis(100);

/// How fast requests are sent again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many times as fast as they were recorded.
    Scaled(f64),
    /// So many a second, whatever the times recorded.
    Rate(f64),
    /// Each as soon as there is room for it.
    Max,
}

/// Items that wait for their time, the one recorded first before the others.
#[derive(Debug)]
pub struct Schedule<T> {
    pace: Pace,
    /// From one to the next at least.
    spacing: Duration,
    waiting: BinaryHeap<Reverse<Entry<T>>>,
    taken: u64,
    /// When the first was recorded, and when it was due.
    origin: Option<(Timestamp, Instant)>,
    /// When the next may be given, by the spacing.
    next: Option<Instant>,
    late: Duration,
}

#[derive(Debug)]
struct Entry<T> {
    recorded: Timestamp,
    /// What was recorded at the same time keeps its order.
    position: u64,
    item: T,
}

impl<T> Schedule<T> {
    /// An empty schedule; `most` is a rate that is never exceeded, whatever the pace.
    #[must_use]
    pub fn new(pace: Pace, most: Option<f64>) -> Schedule<T> {
        let own = if let Pace::Rate(rate) = pace { Some(rate) } else { None };
        let spacing = |rate: f64| Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
        Schedule {
            pace,
            spacing: own.into_iter().chain(most).map(spacing).max().unwrap_or_default(),
            waiting: BinaryHeap::new(),
            taken: 0,
            origin: None,
            next: None,
            late: Duration::ZERO,
        }
    }

    /// Takes an item that was recorded at that time.
    pub fn push(&mut self, recorded: Timestamp, item: T) {
        self.waiting.push(Reverse(Entry { recorded, position: self.taken, item }));
        self.taken += 1;
    }

    /// How many items wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next item is due; the first one is at once.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        let Reverse(first) = self.waiting.peek()?;
        let spaced = self.next.unwrap_or(now);
        let Pace::Scaled(factor) = self.pace else { return Some(spaced) };
        let &mut (recorded, due) = self.origin.get_or_insert((first.recorded, now));
        let since = first.recorded.since(recorded).as_secs_f64() / factor;
        let since = Duration::try_from_secs_f64(since).unwrap_or(Duration::MAX);
        // Later than any clock shows is never.
        Some(due.checked_add(since).unwrap_or(now + FAR).max(spaced))
    }

    /// Gives the next item, if there is one, whether or not it is due.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        let due = self.due(now)?;
        self.late = self.late.max(now.saturating_duration_since(due));
        if !self.spacing.is_zero() {
            let due = due.max(now.checked_sub(CATCH_UP).unwrap_or(now));
            self.next = Some(due.checked_add(self.spacing).unwrap_or(now + FAR));
        }
        self.waiting.pop().map(|Reverse(entry)| entry.item)
    }

    /// Everything that waits, in no order.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.waiting.drain().map(|Reverse(entry)| entry.item)
    }

    /// By how much the item that was given latest was late.
    #[must_use]
    pub fn late(&self) -> Duration {
        self.late
    }
}

/// A time that nobody waits for.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Entry<T>) -> std::cmp::Ordering {
        (self.recorded, self.position).cmp(&(other.recorded, other.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Pushes items recorded at these milliseconds, gives each when it is due, and expects it at these.
    fn check(pace: Pace, most: Option<f64>, recorded: &[u64], expected: &[(u64, u64)]) {
        let start = Instant::now();
        let mut schedule = Schedule::new(pace, most);
        for &time in recorded {
            schedule.push(Timestamp(1_700_000_000_000 * MS + time * MS), time);
        }
        let mut now = start;
        let mut given = Vec::new();
        while let Some(due) = schedule.due(now) {
            now = now.max(due);
            let item = schedule.pop(now).unwrap();
            given.push((item, (now - start).as_millis() as u64));
        }
        assert_eq!(given, expected, "{pace:?} at most {most:?}");
        assert_eq!((schedule.late(), schedule.is_empty()), (Duration::ZERO, true));
    }

    #[test]
    fn requests_keep_their_times_scaled_or_not() {
        let recorded = [500, 0, 100, 100];
        check(Pace::Scaled(1.0), None, &recorded, &[(0, 0), (100, 100), (100, 100), (500, 500)]);
        check(Pace::Scaled(4.0), None, &recorded, &[(0, 0), (100, 25), (100, 25), (500, 125)]);
        check(Pace::Scaled(0.5), None, &recorded, &[(0, 0), (100, 200), (100, 200), (500, 1000)]);
        check(Pace::Max, None, &recorded, &[(0, 0), (100, 0), (100, 0), (500, 0)]);
    }

    #[test]
    fn a_rate_spaces_them_evenly_and_is_a_limit_to_every_pace() {
        let recorded = [900, 0, 10, 20];
        let even = [(0, 0), (10, 100), (20, 200), (900, 300)];
        check(Pace::Rate(10.0), None, &recorded, &even);
        check(Pace::Rate(1000.0), Some(10.0), &recorded, &even);
        check(Pace::Rate(10.0), Some(1000.0), &recorded, &even);
        check(Pace::Max, Some(10.0), &recorded, &even);
        check(Pace::Scaled(1.0), Some(10.0), &recorded, &[(0, 0), (10, 100), (20, 200), (900, 900)]);
    }

    #[test]
    fn a_time_that_never_comes_is_no_panic() {
        let mut schedule = Schedule::new(Pace::Scaled(0.01), Some(1e-300));
        let now = Instant::now();
        for time in [0, u64::MAX] {
            schedule.push(Timestamp(time), time);
        }
        assert_eq!(schedule.due(now), Some(now));
        assert_eq!(schedule.pop(now), Some(0));
        assert!(schedule.due(now).unwrap() > now + FAR / 2);
    }

    #[test]
    fn what_is_late_is_given_at_once_and_remembered_and_a_rate_does_not_burst_afterwards() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut schedule = Schedule::new(Pace::Rate(100.0), None);
        (0..200).for_each(|item| schedule.push(Timestamp(item), item));
        assert_eq!(schedule.pop(at(0)), Some(0));
        assert_eq!(schedule.due(at(5000)), Some(at(10)));
        assert_eq!(schedule.pop(at(5000)), Some(1));
        assert_eq!(schedule.late(), Duration::from_millis(4990));
        let burst =
            std::iter::from_fn(|| (schedule.due(at(5000))? <= at(5000)).then(|| schedule.pop(at(5000))));
        assert_eq!(burst.count(), 10, "what a tenth of a second holds");
        assert_eq!(schedule.drain().count(), 188);
    }
}
