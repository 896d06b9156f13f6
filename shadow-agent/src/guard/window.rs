//! Windows of time over which guards measure: shares of counts, and quantiles of times.
//!
//! A window ends after its time if there is enough in it to judge by. Otherwise it goes on, and is thrown away when it is
//! [`STRETCH`] times as long as it should be.

use std::time::Duration;

use super::vitals::{Tally, Vitals};
use crate::report::distribution::Distribution;

/// How much longer than its time a window may become while there is not enough in it.
pub(super) const STRETCH: u32 = 10;

/// Counts over a window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    /// What there was when it began; nothing before its first turn.
    before: Option<Tally>,
    span: Duration,
}

impl Window {
    /// Takes what there is now; gives what was added within the window when it ends with `least` or more.
    pub(super) fn turn(
        &mut self,
        now: Tally,
        elapsed: Duration,
        length: Duration,
        least: u64,
    ) -> Option<Tally> {
        let Some(before) = self.before else {
            *self = Window { before: Some(now), span: Duration::ZERO };
            return None;
        };
        self.span += elapsed;
        let added = now.since(before);
        let enough = added.total >= least;
        if self.span < length || (!enough && self.span < length * STRETCH) {
            return None;
        }
        *self = Window { before: Some(now), span: Duration::ZERO };
        enough.then_some(added)
    }
}

/// Times over a window.
#[derive(Debug)]
pub(super) struct Times {
    /// Whose they are: those of a target, or production's.
    whose: Option<usize>,
    /// None before its first turn.
    span: Option<Duration>,
    times: Distribution,
}

impl Times {
    pub(super) fn new(whose: Option<usize>) -> Times {
        Times { whose, span: None, times: Distribution::new() }
    }

    /// Begins anew at the next turn.
    pub(super) fn restart(&mut self) {
        (self.span, self.times) = (None, Distribution::new());
    }

    /// Gives the times of the window when it ends with `least` or more.
    pub(super) fn turn(
        &mut self,
        vitals: &Vitals,
        elapsed: Duration,
        length: Duration,
        least: u64,
    ) -> Option<Distribution> {
        let Some(span) = &mut self.span else {
            // What was before is none of this window's.
            drop(vitals.take_times(self.whose));
            self.span = Some(Duration::ZERO);
            return None;
        };
        *span += elapsed;
        if *span < length {
            return None;
        }
        self.times.merge(&vitals.take_times(self.whose));
        let enough = self.times.count() >= least;
        if !enough && *span < length * STRETCH {
            return None;
        }
        *span = Duration::ZERO;
        let times = std::mem::replace(&mut self.times, Distribution::new());
        enough.then_some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_window_without_enough_in_it_goes_on_and_is_thrown_away_in_the_end() {
        let tally = |total| Tally { total, bad: total / 2 };
        let mut window = Window::default();
        let mut turn = |total| window.turn(tally(total), SECOND, SECOND * 2, 10);
        assert_eq!((turn(100), turn(105), turn(109)), (None, None, None), "9 are not enough");
        assert_eq!(turn(110), Some(Tally { total: 10, bad: 5 }), "10 are, after 3 s");
        assert_eq!((turn(300), turn(301)), (None, Some(Tally { total: 191, bad: 95 })));
        for _ in 0..19 {
            assert_eq!(turn(301), None);
        }
        // 20 s, and nothing came: what came before the next window is none of its own.
        assert_eq!((turn(310), turn(310), turn(319)), (None, None, None));
        assert_eq!(turn(320), Some(tally(320).since(tally(310))));
    }

    #[test]
    fn times_of_before_a_window_are_none_of_its_own() {
        let mut guards = crate::config::Guards::default();
        guards.production_latency.action = crate::config::GuardAction::StepBack;
        let vitals = Vitals::new(&guards, 0);
        let mut times = Times::new(None);
        let mut counts = Vec::new();
        for restart in [false, false, false, true, false, false] {
            vitals.answered(200, SECOND);
            if restart {
                times.restart();
            }
            let ended = times.turn(&vitals, SECOND, SECOND * 2, 2);
            counts.push(ended.map_or(0, |times| times.count()));
        }
        assert_eq!(counts, [0, 0, 2, 0, 0, 2]);
    }
}
