//! Stops sending to a target that is evidently down, and finds out when it is back. Pure: the time is an argument.
//!
//! An answer of any status is a success: what the shadow says is for the comparison to judge. Only a target that cannot
//! be reached, does not answer in time, or breaks connections opens the circuit; and one that is too slow, if it is
//! configured what that means.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Outcome;
use crate::config;
use crate::exchange::FailReason;

/// Connect failures and timeouts in a row that open the circuit.
pub(super) const MAX_UNREACHABLE: u32 = 10;
/// Requests in a [`WINDOW`] below which their share of failures says nothing.
pub(super) const MIN_REQUESTS: u32 = 20;
/// How long requests are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Probes, one at a time, that must be answered in a row to close the circuit.
pub(super) const PROBES: u32 = 3;

/// The circuit breaker of one target.
#[derive(Debug)]
pub(super) struct Breaker {
    /// `None` lets everything pass.
    limits: Option<config::Breaker>,
    circuit: Mutex<Circuit>,
}

#[derive(Debug)]
struct Circuit {
    state: State,
    /// Counts changes of state, so that what was admitted before one says nothing after it.
    generation: u64,
}

#[derive(Debug)]
enum State {
    /// Everything passes.
    Closed { unreachable_in_row: u32, window: Window },
    /// Nothing passes until then.
    Open { until: Instant },
    /// One request at a time passes, to find out.
    HalfOpen { probing: bool, answered: u32 },
}

#[derive(Debug)]
struct Window {
    started: Instant,
    ended: u32,
    failed: u32,
    slow: u32,
}

/// What the end of a request says about its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Alive,
    Slow,
    Broken,
    Unreachable,
}

/// Leave to send one request. Dropping it without a report says nothing about the target.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    generation: u64,
}

impl Breaker {
    pub(super) fn new(limits: Option<config::Breaker>, now: Instant) -> Breaker {
        Breaker { limits, circuit: Mutex::new(Circuit { state: State::closed(now), generation: 0 }) }
    }

    /// Whether a request would be refused now; the answer may be another one when it is about to be sent.
    pub(super) fn refuses(&self, now: Instant) -> bool {
        match &self.lock().state {
            State::Closed { .. } => false,
            State::Open { until } => now < *until,
            State::HalfOpen { probing, .. } => *probing,
        }
    }

    /// Whether the circuit is anything but closed.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.lock().state, State::Closed { .. })
    }

    /// Leave to send a request now, if the circuit lets it pass.
    pub(super) fn admit(&self, now: Instant) -> Option<Pass<'_>> {
        let mut circuit = self.lock();
        match &mut circuit.state {
            State::Closed { .. } => {}
            State::Open { until } if now < *until => return None,
            State::Open { .. } => circuit.enter(State::HalfOpen { probing: true, answered: 0 }),
            State::HalfOpen { probing: true, .. } => return None,
            State::HalfOpen { probing, .. } => *probing = true,
        }
        Some(Pass { breaker: self, generation: circuit.generation })
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        // A panic elsewhere cannot leave a state that is not a state.
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Tells how the request ended.
    pub(super) fn report(self, outcome: &Outcome, now: Instant) {
        let Some(limits) = &self.breaker.limits else { return };
        let Some(sign) = Sign::of(outcome, limits.latency) else { return };
        let mut circuit = self.breaker.lock();
        if circuit.generation == self.generation {
            circuit.learn(sign, limits, now);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut circuit = self.breaker.lock();
        if circuit.generation == self.generation
            && let State::HalfOpen { probing, .. } = &mut circuit.state
        {
            *probing = false;
        }
    }
}

impl Circuit {
    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }

    fn learn(&mut self, sign: Sign, limits: &config::Breaker, now: Instant) {
        match &mut self.state {
            State::Closed { unreachable_in_row, window } => {
                *unreachable_in_row = if sign == Sign::Unreachable { *unreachable_in_row + 1 } else { 0 };
                window.count(sign, now);
                if *unreachable_in_row >= MAX_UNREACHABLE || window.is_bad(limits.failures) {
                    self.enter(State::Open { until: now + limits.pause });
                }
            }
            State::Open { .. } => {}
            State::HalfOpen { .. } if sign != Sign::Alive => {
                self.enter(State::Open { until: now + limits.pause })
            }
            State::HalfOpen { answered, .. } => {
                *answered += 1;
                if *answered >= PROBES {
                    self.enter(State::closed(now));
                }
            }
        }
    }
}

impl State {
    fn closed(now: Instant) -> State {
        State::Closed { unreachable_in_row: 0, window: Window::begun(now) }
    }
}

impl Window {
    fn begun(now: Instant) -> Window {
        Window { started: now, ended: 0, failed: 0, slow: 0 }
    }

    fn count(&mut self, sign: Sign, now: Instant) {
        if now.saturating_duration_since(self.started) >= WINDOW {
            *self = Window::begun(now);
        }
        self.ended = self.ended.saturating_add(1);
        let counter = match sign {
            Sign::Alive => return,
            Sign::Slow => &mut self.slow,
            Sign::Broken | Sign::Unreachable => &mut self.failed,
        };
        *counter = counter.saturating_add(1);
    }

    /// Whether failures, or slow answers, have reached their share.
    fn is_bad(&self, share: config::Share) -> bool {
        let most = f64::from(self.ended) * share.0;
        self.ended >= MIN_REQUESTS && f64::from(self.failed.max(self.slow)) >= most
    }
}

impl Sign {
    /// How long the answer took is the time to its first byte, as it is compared; unknown, it is not held against it.
    fn of(outcome: &Outcome, slow: Option<Duration>) -> Option<Sign> {
        match outcome {
            Outcome::Answered(answer) => match answer.first_byte.zip(slow) {
                Some((took, slow)) if took > slow => Some(Sign::Slow),
                _ => Some(Sign::Alive),
            },
            Outcome::Failed(reason) => match reason {
                FailReason::BodyTooLarge => Some(Sign::Alive),
                FailReason::Closed | FailReason::Malformed => Some(Sign::Broken),
                FailReason::Connect | FailReason::Timeout | FailReason::Tls => Some(Sign::Unreachable),
                FailReason::Request | FailReason::Shutdown | FailReason::Stalled => None,
            },
            Outcome::Dropped(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::DropReason;

    const ALIVE: Outcome = Outcome::Failed(FailReason::BodyTooLarge);
    const BROKEN: Outcome = Outcome::Failed(FailReason::Closed);
    const DOWN: Outcome = Outcome::Failed(FailReason::Connect);

    fn usual(now: Instant) -> Breaker {
        Breaker::new(Some(config::Breaker::default()), now)
    }

    fn pause() -> Duration {
        config::Breaker::default().pause
    }

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn feed(breaker: &Breaker, now: Instant, outcome: &Outcome, times: u32) {
        for _ in 0..times {
            breaker.admit(now).expect("the circuit lets a request pass").report(outcome, now);
        }
    }

    #[test]
    fn a_row_of_unreachables_opens_at_its_limit_and_any_other_end_breaks_the_row() {
        let now = Instant::now();
        let breaker = usual(now);
        feed(&breaker, now, &DOWN, MAX_UNREACHABLE - 1);
        assert!(!breaker.is_open());
        feed(&breaker, now, &ALIVE, 1);
        let timeout = Outcome::Failed(FailReason::Timeout);
        feed(&breaker, now, &timeout, 1);
        assert!(!breaker.is_open(), "the row starts again");

        let breaker = usual(now);
        feed(&breaker, now, &DOWN, MAX_UNREACHABLE);
        assert!(breaker.is_open() && breaker.refuses(now) && breaker.admit(now).is_none());
    }

    #[test]
    fn a_share_of_failures_opens_only_once_there_are_enough_requests() {
        let now = Instant::now();
        let half = MIN_REQUESTS / 2;
        // (answered, broken, open)
        let cases = [(half, half, true), (half + 1, half - 1, false), (0, MIN_REQUESTS - 1, false)];
        for (answered, broken, open) in cases {
            let breaker = usual(now);
            feed(&breaker, now, &ALIVE, answered);
            feed(&breaker, now, &BROKEN, broken);
            assert_eq!(breaker.is_open(), open, "{answered} answered, {broken} broken");
        }
    }

    #[test]
    fn failures_of_an_earlier_window_are_forgotten() {
        let start = Instant::now();
        let breaker = usual(start);
        feed(&breaker, start, &BROKEN, MIN_REQUESTS - 1);
        feed(&breaker, start + WINDOW, &BROKEN, MIN_REQUESTS - 1);
        assert!(!breaker.is_open());
    }

    fn open(start: Instant) -> Breaker {
        let breaker = usual(start);
        feed(&breaker, start, &DOWN, MAX_UNREACHABLE);
        breaker
    }

    #[test]
    fn after_the_pause_one_probe_at_a_time_and_enough_answers_close() {
        let start = Instant::now();
        let breaker = open(start);
        let pause = u64::try_from(pause().as_millis()).unwrap();
        assert!(breaker.admit(at(start, pause - 1)).is_none());
        let later = at(start, pause);
        assert!(!breaker.refuses(later));
        let probe = breaker.admit(later).expect("the first probe");
        assert!(breaker.refuses(later) && breaker.admit(later).is_none(), "one at a time");
        probe.report(&ALIVE, later);
        feed(&breaker, later, &ALIVE, PROBES - 2);
        assert!(breaker.is_open());
        feed(&breaker, later, &ALIVE, 1);
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_failed_probe_opens_again_for_a_whole_pause() {
        let start = Instant::now();
        let breaker = open(start);
        let later = start + pause();
        feed(&breaker, later, &BROKEN, 1);
        assert!(breaker.admit(later).is_none());
        assert!(breaker.admit(later + pause()).is_some());
    }

    #[test]
    fn a_probe_that_says_nothing_makes_room_for_the_next() {
        let start = Instant::now();
        let breaker = open(start);
        let later = start + pause();
        drop(breaker.admit(later).expect("a probe that is cancelled"));
        let dropped = Outcome::Dropped(DropReason::Disabled);
        breaker.admit(later).expect("a probe that is not sent").report(&dropped, later);
        assert!(breaker.admit(later).is_some());
    }

    #[test]
    fn what_was_admitted_before_a_change_of_state_says_nothing_after_it() {
        let start = Instant::now();
        let breaker = usual(start);
        let early = breaker.admit(start).unwrap();
        let cancelled = breaker.admit(start).unwrap();
        feed(&breaker, start, &DOWN, MAX_UNREACHABLE);
        let later = start + pause();
        let probe = breaker.admit(later).unwrap();
        early.report(&BROKEN, later);
        drop(cancelled);
        assert!(breaker.refuses(later), "the probe is still the only one");
        probe.report(&ALIVE, later);
        assert!(breaker.admit(later).is_some(), "the circuit is half open still");
    }
}
